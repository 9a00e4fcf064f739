"""The flow of a classification run, which sentiment and paraphrase share: describe, train, measure, show.

A task's script prepares a :class:`ClassificationRun`: data read and checked, settings resolved, no weight loaded.
:func:`run_classification` does the rest.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import nn

from config import ROOT, GPT2Config, RunSettings
from datasets import Example, Split, overlap_report, tokenize
from models.card import write_classifier_card
from models.classifier import GPT2Classifier
from models.gpt2 import GPT2Model
from models.sources import Checkpoint
from models.tokenizer import load_tokenizer, save_tokenizer
from optimizer import parameter_groups
from storage import write_text
from strategies import Strategy
from training.classification_job import EncodedSplit, cache_features, make_job, predict
from training.device import Device, derive_seed, open_device
from training.interrupt import Signals
from training.loop import Plan, Progress, fit
from training.metrics import (
    Predictions,
    class_table,
    classification_metrics,
    confidence_intervals,
    confusion,
    headline,
    plot_confusion,
    report_text,
    worst_mistakes,
)
from training.results import copy_files, write_predictions, write_scores
from training.run_folder import SCHEMA, RunFolder
from training.setup import check_disk_space, environment_record, group_table, identity_of, now, shown, work_in

Say = Callable[[str], None]
FEATURE_BATCH = 64


@dataclass(frozen=True)
class ClassificationRun:
    """Everything about a run that is known before any weight is loaded.

    Attributes:
        script: the file name of the task's script, for the resume command.
        task: the task's name.
        dataset: the dataset's name in folders and tables; sample data never go by the real set's name.
        splits: train and dev, and test where there is one.
        data_origin, data_notes: where the files come from, and what the user should know of it.
        model_name: what the model is called in folders and tables.
        model_record: what ``config.json`` says of the model.
        predictions_name: what the predictions files are called, before ``-dev-out.csv``.
        predictions_column: the header of their second column.
    """

    script: str
    task: str
    dataset: str
    settings: RunSettings
    strategy: Strategy
    splits: dict[str, Split]
    data_origin: str
    data_notes: tuple[str, ...]
    checkpoint: Checkpoint
    model_name: str
    model_record: dict[str, Any]
    config: GPT2Config
    folder: RunFolder
    predictions_name: str
    predictions_column: str

    @property
    def label_names(self) -> list[str]:
        return list(self.splits["train"].label_names)

    @cached_property
    def repeats(self) -> dict[str, Any]:
        """Repeated texts, and texts of dev and test that also stand in train."""
        return overlap_report(self.splits)

    @property
    def identity(self) -> dict[str, Any]:
        """Whatever can change the results: two runs with the same identity are the same run."""
        data = {f"{name} file": split.sha256 for name, split in self.splits.items()}
        model = {"model": self.model_record["used"], "model weights": self.model_record["weights_sha256"]}
        return identity_of(self.settings) | {"dataset": self.dataset, "strategy": self.strategy.name} | model | data


def run_classification(run: ClassificationRun, signals: Signals) -> None:
    """Trains, evaluates and writes the run folder. An interrupted run goes on; a complete one is shown."""
    folder, settings = run.folder, run.settings
    if folder.is_complete and not settings.overwrite:
        folder.drop_state()  # a kill may have come before
        metrics = folder.metrics()
        print(f"\n== {run.task} on {run.dataset}: complete since {metrics['finished']}; --overwrite starts anew")
        show_results(run, metrics)
        return
    device = open_device(settings.use_gpu, settings.precision)
    describe(run, device)
    if settings.dry_run:
        device.say("dry run: everything is in order; nothing was trained or written")
        return

    def start() -> None:
        folder.start(run_record(run, device), settings.overwrite)
        write_skipped_rows(run)

    work_in(folder, device, run.script, start, lambda: train_and_measure(run, device, signals))
    if device.is_main:
        show_results(run, folder.metrics())


# ---------------------------------------------------------------------------------------------------------------------
# Before training
# ---------------------------------------------------------------------------------------------------------------------


def describe(run: ClassificationRun, device: Device) -> None:
    """Says what is about to happen, parameter groups included, without loading a weight."""
    settings, say = run.settings, device.say
    if device.warning and device.is_main:
        warn_once(device.warning)
    rows = ", ".join(f"{len(split.examples):,} {name}" for name, split in run.splits.items())
    say(f"\n== {run.task} on {run.dataset}: {run.strategy.name} ({run.strategy.summary})")
    say(f"device    {device.description}")
    say(f"model     {run.model_name} ({run.checkpoint.origin}: {shown(run.checkpoint.folder)})")
    say(f"data      {rows} ({run.data_origin}: {shown(run.splits['train'].path.parent)})")
    for note in (run.checkpoint.note, *run.data_notes):
        if note:
            say(f"note: {note}")
    for name, found in run.repeats["in_train"].items():
        if found["rows"]:
            say(f"note: {name} texts that also stand in train: {found['rows']}; config.json lists some")
    for split in run.splits.values():
        if split.skipped:
            say(f"note: {shown(split.path)}: bad rows left out: {len(split.skipped)}; skipped_rows.tsv lists them")
    batch = f"{settings.batch_size}" + (f" x {settings.accumulate}" if settings.accumulate > 1 else "")
    say(
        f"training  epochs {settings.epochs}, batch {batch}, {settings.schedule} rate, "
        f"head dropout {settings.dropout:g}, seed {settings.seed}"
    )
    say(f"run       {shown(run.folder.path)}")
    with torch.device("meta"):
        skeleton = GPT2Classifier(GPT2Model(run.config), len(run.label_names))
    freeze(skeleton, run.strategy)
    groups = parameter_groups(skeleton.layer_groups(), skeleton, settings.lr or 0.0, settings.weight_decay or 0.0)
    trainable, total = count_parameters(skeleton)
    say(group_table(groups, total - trainable))
    check_disk_space(run.folder.path, total, trainable)


@cache
def warn_once(warning: str) -> None:
    """Every dataset is a run of its own, but the user needs to be told once."""
    print(f"warning: {warning}", file=sys.stderr)


def freeze(classifier: GPT2Classifier, strategy: Strategy) -> None:
    """Leaves what the strategy trains, and freezes the rest."""
    if strategy.trains == "head":
        classifier.gpt2.requires_grad_(False)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all)."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def run_record(run: ClassificationRun, device: Device) -> dict[str, Any]:
    """``config.json``."""
    files = {
        name: {
            "path": str(split.path.absolute()),
            "sha256": split.sha256,
            "rows": len(split.examples),
            "skipped_rows": len(split.skipped),
        }
        for name, split in run.splits.items()
    }
    return {
        "schema": SCHEMA,
        "task": run.task,
        "dataset": run.dataset,
        "strategy": run.strategy.name,
        "predictions_name": run.predictions_name,
        "settings": dataclasses.asdict(run.settings),
        "identity": run.identity,
        "model": run.model_record,
        "data": {
            "origin": run.data_origin,
            "notes": run.data_notes,
            "files": files,
            "label_names": run.label_names,
            "repeats": run.repeats,
        },
        "environment": environment_record(device.description),
    }


def write_skipped_rows(run: ClassificationRun) -> None:
    rows = [row for split in run.splits.values() for row in split.skipped]
    if rows:
        lines = [f"{row.path}:{row.line}\t{row.why}\t{json.dumps(row.text, ensure_ascii=False)}\n" for row in rows]
        write_text(run.folder.path / "skipped_rows.tsv", "place\twhy\trow\n" + "".join(lines))


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


def train_and_measure(run: ClassificationRun, device: Device, signals: Signals) -> None:
    """Loads the model, trains it, and measures its best epoch on dev and test."""
    started = time.perf_counter()
    settings = run.settings
    assert settings.epochs is not None and settings.batch_size is not None
    tokenizer = load_tokenizer(run.checkpoint.folder, run.config)
    splits, n_cut = encode(run, tokenizer, device.say)
    show_examples(run, splits["train"], tokenizer, device.say)

    gpt2 = None if settings.random_init else GPT2Model.from_pretrained(run.checkpoint.folder)
    torch.manual_seed(derive_seed("weights", settings.seed))
    gpt2 = gpt2 or GPT2Model(run.config)
    classifier = GPT2Classifier(gpt2, len(run.label_names), settings.dropout or 0.0)
    freeze(classifier, run.strategy)
    if run.strategy.trains == "head":
        device.say("GPT-2 is frozen: its features are computed once")
        cache_features(classifier, splits, FEATURE_BATCH, device, signals.check)

    plan = Plan(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        max_grad_norm=settings.max_grad_norm,
        patience=settings.patience,
        seed=settings.seed,
        save_every_minutes=settings.save_every,
    )
    save_best = partial(save_classifier, classifier, run.label_names, tokenizer)
    job = make_job(classifier, splits, settings, device, signals.check, save_best)
    progress = fit(job, plan, run.folder, device, signals, started)
    device.accelerator.wait_for_everyone()

    fitted = time.perf_counter()
    assert progress.best_folder is not None
    best = GPT2Classifier.from_pretrained(run.folder.best_model(progress.best_folder)).to(device.accelerator.device)
    predictions = {
        name: answers(split, predict(best, split, settings, device, signals.check))
        for name, split in splits.items()
        if name != "train"
    }
    if device.is_main:
        metrics = measure(run, predictions, n_cut, progress, device)
        trainable, total = count_parameters(classifier)
        metrics["cost"] = cost(progress, time.perf_counter() - fitted, trainable, total, device)
        run.folder.finish(metrics)


def encode(run: ClassificationRun, tokenizer: Any, say: Say) -> tuple[dict[str, EncodedSplit], dict[str, int]]:
    """Tokenizes every split once; also returns how many texts of each were cut to the model's context."""
    splits, n_cut = {}, {}
    context, keep = run.config.n_positions, run.settings.keep
    for name, split in run.splits.items():
        tokenized = tokenize([example.text for example in split.examples], tokenizer, context, keep=keep)
        splits[name], n_cut[name] = EncodedSplit(split.examples, tokenized.ids), tokenized.n_cut
        if tokenized.n_cut:
            say(f"{name} texts longer than the model's {context} tokens: {tokenized.n_cut}; cut, their {keep} kept")
    return splits, n_cut


def show_examples(run: ClassificationRun, train: EncodedSplit, tokenizer: Any, say: Say) -> None:
    """``--show-examples``: the text, its tokens, the label, and the token whose state is classified."""
    for example, ids in list(zip(train.examples, train.tokens, strict=True))[: run.settings.show_examples]:
        tokens = tokenizer.convert_ids_to_tokens(ids)
        say(f"example {example.id}, label {example.label} ({run.label_names[example.label or 0]}): {example.text}")
        say(f"  {len(tokens)} tokens: {' '.join(tokens)}")
        say(f"  classified from position {len(tokens) - 1}: {tokens[-1]}")


def save_classifier(classifier: GPT2Classifier, label_names: list[str], tokenizer: Any, folder: Any) -> None:
    """Writes the folder that ``transformers`` loads, tokenizer included."""
    classifier.save_pretrained(folder, label_names)
    save_tokenizer(tokenizer, folder)


# ---------------------------------------------------------------------------------------------------------------------
# After training
# ---------------------------------------------------------------------------------------------------------------------


def measure(
    run: ClassificationRun,
    predictions: dict[str, Predictions],
    n_cut: dict[str, int],
    progress: Progress,
    device: Device,
) -> dict[str, Any]:
    """Measures the best epoch; writes predictions, plots and the model. Returns what ``metrics.json`` says."""
    folder, settings = run.folder, run.settings
    assert progress.best_folder is not None
    metrics = {
        "task": run.task,
        "dataset": run.dataset,
        "model": run.model_name,
        "strategy": run.strategy.name,
        "seed": settings.seed,
        "precision": device.precision,
        "epochs": len(progress.history),
        "best_epoch": progress.best_epoch,
        **dev_results(predictions["dev"], run.label_names, settings.seed),
        "dev_last": progress.history[-1]["dev"],
        "history": progress.history,
        "keep_case": settings.keep_case,
        "cut_texts": n_cut,
        "finished": now(),
    }
    test = predictions.get("test")
    if test is not None and test.labels is not None:
        metrics["test"] = classification_metrics(test.labels, test.probabilities)
    with folder.writing():
        write_outputs(run, predictions, metrics)
        write_classifier_card(folder.best_model(progress.best_folder), metrics, run.model_name)
        folder.publish_best(progress.best_folder)
    return metrics


def answers(split: EncodedSplit, probabilities: np.ndarray) -> Predictions:
    """A split's predictions, beside what they are measured by."""
    labels = split.labels
    return Predictions(
        ids=[example.id for example in split.examples],
        texts=[example.text for example in split.examples],
        probabilities=probabilities,
        labels=None if labels is None else np.array(labels),
    )


def dev_results(predictions: Predictions, label_names: list[str], seed: int) -> dict[str, Any]:
    """The dev set's metrics, their intervals, and what explains them: classes, confusion, worst mistakes."""
    labels, predicted = predictions.labels, predictions.predicted
    assert labels is not None
    return {
        "dev": classification_metrics(labels, predictions.probabilities),
        "dev_ci": confidence_intervals(labels, predictions.probabilities, seed),
        "classes": class_table(labels, predicted, label_names),
        "confusion": confusion(labels, predicted, len(label_names)),
        "worst_mistakes": worst_mistakes(predictions, label_names),
    }


def write_outputs(run: ClassificationRun, predictions: dict[str, Predictions], metrics: dict[str, Any]) -> None:
    folder = run.folder.predictions
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in predictions.items():
        write_predictions(found, run.predictions_column, folder / f"{run.predictions_name}-{name}-out.csv")
        write_scores(found, folder / f"{name}-scores.jsonl")
    title = f"{run.dataset}, {run.model_name}, {run.strategy.name}: dev, epoch {metrics['best_epoch']}"
    plot_confusion(metrics["confusion"], run.label_names, title, run.folder.path / "confusion.png")
    if run.settings.output_dir is None:
        copy_files(folder, ROOT / "predictions", f"{run.predictions_name}-*-out.csv")


def cost(
    progress: Progress, seconds_since_fit: float, trainable: int, total: int, device: Device
) -> dict[str, float | int]:
    """What the run cost. Rates count examples over the seconds spent in training steps alone."""
    seconds = max(progress.train_seconds, 1e-9)
    return {
        "train_seconds": round(progress.train_seconds, 3),
        "total_seconds": round(progress.total_seconds + seconds_since_fit, 3),
        "examples_per_second": round(progress.examples / seconds, 2),
        "tokens_per_second": round(progress.tokens / seconds, 1),
        "peak_memory_bytes": device.peak_memory_bytes(),
        "trainable_parameters": trainable,
        "total_parameters": total,
    }


def show_results(run: ClassificationRun, metrics: dict[str, Any]) -> None:
    """The results, for a person; the last lines say where everything is."""
    spent = metrics["cost"]
    print(f"\n{report_text(metrics)}\n")
    print(headline(metrics))
    if "test" in metrics:
        test = metrics["test"]
        print(f"test accuracy {test['accuracy']:.3f}, macro-F1 {test['macro_f1']:.3f}, n {test['n']}")
    print(
        f"{spent['train_seconds']:.0f} s of training ({spent['examples_per_second']:.0f} examples/s), "
        f"{spent['total_seconds']:.0f} s in all, {spent['peak_memory_bytes'] / 2**30:.1f} GiB at most, "
        f"{spent['trainable_parameters']:,} of {spent['total_parameters']:,} parameters trained"
    )
    for note in (run.checkpoint.note, *run.data_notes):
        if note:
            print(f"note: {note}")
    print(f"results: {shown(run.folder.path)}")


def show_summary(runs: Sequence[ClassificationRun]) -> None:
    """After several runs: a line for each, so that the first one's result need not be looked for further up."""
    finished = [run for run in runs if run.folder.is_complete]
    if len(finished) > 1 and PartialState().is_main_process:
        print("\n== all runs")
        for run in finished:
            print(f"{headline(run.folder.metrics())}\n  {shown(run.folder.path)}")


def label_texts(folder: RunFolder, texts: list[str], use_gpu: bool) -> list[tuple[np.ndarray, list[str]]]:
    """What a finished run's best model says of new texts: for each, the classes' probabilities and their names.

    Raises:
        UserError: the run is not complete, or a text is empty.
    """
    saved = folder.config()
    device = open_device(use_gpu, "fp32")
    if device.warning:
        warn_once(device.warning)
    classifier = GPT2Classifier.from_pretrained(folder.best).to(device.accelerator.device)
    tokenizer = load_tokenizer(folder.best, classifier.gpt2.config)
    keep_case, keep = saved["settings"]["keep_case"], saved["settings"]["keep"]
    texts = [text.strip() if keep_case else text.lower().strip() for text in texts]
    tokens = tokenize(texts, tokenizer, classifier.gpt2.config.n_positions, keep=keep).ids
    split = EncodedSplit([Example(str(i), text, None, i) for i, text in enumerate(texts, start=1)], tokens)
    probabilities = predict(classifier, split, RunSettings(), device, check=lambda: None)
    return [(row, saved["data"]["label_names"]) for row in probabilities]
