"""The flow of a classification run, which sentiment and paraphrase share: describe, train, measure, show.

A task's script prepares a :class:`ClassificationRun`: data read and checked, settings resolved, no weight loaded.
:func:`run_classification` does the rest.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from config import ROOT, ClassificationSettings, GPT2Config
from datasets import Split, clean_question, overlap_report
from models.card import write_classifier_card
from models.classifier import Classifier, load_classifier
from models.comparator import (
    Comparator,
    ComparatorConfig,
    ComparatorTokenizer,
    comparator_skeleton,
    is_comparator,
    load_comparator,
    start_comparator,
)
from models.gpt2 import GPT2Model
from models.sources import Checkpoint
from models.tokenizer import readable_tokens, save_tokenizer
from pairs import PAIR_FORMAT
from storage import copy_files, shown, write_text
from strategies import Strategy
from training.accounting import announce, cost, count_parameters, count_stored, notes_of, print_ending
from training.classification.encoding import answer_tokens, cut_note, encode_examples, swap, tokenizer_of
from training.classification.job import EncodedSplit, cache_features, make_job, predict
from training.classification.lm_stage import drop_weights, fine_tune_language_model
from training.classification.metrics import (
    Predictions,
    class_table,
    classification_metrics,
    confidence_intervals,
    confusion,
    headline,
    report_text,
    threshold_curve,
    worst_mistakes,
)
from training.classification.plots import plot_confusion, plot_thresholds
from training.classification.predictions import write_predictions, write_scores
from training.classification.probes import probes_text
from training.device import Device, derive_seed
from training.estimate import SAMPLE, say_time, training_flops, weights_per_token
from training.fine_tuning import context_of, make_classifier, make_comparator, optimizer_groups_of, relative_cost
from training.interrupt import Signals
from training.loop import Progress, fit, stop_check
from training.run_folder import SCHEMA, RunFolder
from training.setup import (
    carry_out,
    check_copies,
    check_disk_space,
    environment_record,
    group_table,
    identity_of,
    now,
    plan_of,
)

Say = Callable[[str], None]
FEATURE_BATCH = 64
FEATURE_CHECK = 8  # texts on which it is looked whether a comparator's features can be cached
PREDICTED_SPLITS = ("dev", "test")  # those with predictions files


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
        config: the model's shape; a :class:`ComparatorConfig` where it is no GPT-2.
        predictions_file: what the predictions files are called, with ``{split}`` in the name.
        predictions_column: the header of their second column.
        example: a text, or the two of a pair, for the model's card.
        answers: what the model says for each class where it answers in words.
        both_orders: pairs train in both orders.
        symmetric: predictions on pairs are the mean over both orders.
        overlap: (splits) -> how much of dev and test also stands in train.
        extra_splits: what the best model is measured on beside dev and test.
        measure_more: (predictions of every split) -> what the task measures beside what all of them do.
    """

    script: str
    task: str
    dataset: str
    settings: ClassificationSettings
    strategy: Strategy
    splits: dict[str, Split]
    data_origin: str
    data_notes: tuple[str, ...]
    checkpoint: Checkpoint
    model_name: str
    model_record: dict[str, Any]
    config: GPT2Config | ComparatorConfig
    folder: RunFolder
    predictions_file: str
    predictions_column: str
    example: tuple[str, ...]
    answers: tuple[str, ...] = ()
    both_orders: bool = False
    symmetric: bool = False
    overlap: Callable[[dict[str, Split]], dict[str, Any]] = overlap_report
    extra_splits: dict[str, Split] = field(default_factory=dict)
    measure_more: Callable[[dict[str, Predictions]], dict[str, Any]] = lambda predictions: {}

    @property
    def label_names(self) -> list[str]:
        return list(self.splits["train"].label_names)

    @cached_property
    def repeats(self) -> dict[str, Any]:
        """Repeated texts, and texts of dev and test that also stand in train."""
        return self.overlap(self.splits)

    @property
    def identity(self) -> dict[str, Any]:
        """Whatever can change the results: two runs with the same identity are the same run."""
        data = {f"{name} file": split.sha256 for name, split in self.splits.items()}
        model = {"model": self.model_record["used"], "model weights": self.model_record["weights_sha256"]}
        return identity_of(self.settings) | {"dataset": self.dataset, "strategy": self.strategy.name} | model | data


def run_classification(run: ClassificationRun, signals: Signals) -> None:
    """Trains, evaluates and writes the run folder. An interrupted run goes on; a complete one is shown."""

    def start(device: Device) -> None:
        run.folder.start(run_record(run, device), run.settings.overwrite)
        write_skipped_rows(run)

    carry_out(
        run.folder,
        run.settings,
        run.script,
        f"\n== {run.task} on {run.dataset}",
        describe=lambda device: describe(run, device),
        start=start,
        work=lambda device: train_and_measure(run, device, signals),
        show=lambda metrics: show_results(run, metrics),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Before training
# ---------------------------------------------------------------------------------------------------------------------


def describe(run: ClassificationRun, device: Device) -> None:
    """Says what is about to happen, parameter groups included, without loading a weight."""
    settings, say = run.settings, device.say
    announce(run, device)
    rows = ", ".join(f"{len(split.examples):,} {name}" for name, split in run.splits.items())
    say(f"data      {rows} ({run.data_origin}: {shown(run.splits['train'].path.parent)})")
    if settings.train_fraction:
        say(f"          train is a share of {settings.train_fraction:g} of each class, drawn by the seed")
    for note in notes_of(run):
        say(note)
    for name, found in run.repeats["in_train"].items():
        if found["rows"]:
            say(f"note: {name} texts that also stand in train: {found['rows']}; config.json lists some")
    for name, found in run.repeats.get("questions", {}).items():
        if found["questions_in_train"]:
            share = f"{found['questions_in_train']:,} of {found['questions']:,}"
            say(f"note: {name} questions that also stand in train: {share}")
    for split in run.splits.values():
        if split.skipped:
            say(f"note: {shown(split.path)}: bad rows left out: {len(split.skipped)}; skipped_rows.tsv lists them")
        unlabelled = sum(example.label is None for example in split.examples)
        if 0 < unlabelled < len(split.examples):
            rows = f"{unlabelled} of {len(split.examples)} rows"
            say(f"note: {shown(split.path)}: {rows} have no label, so this file is predicted, and not scored")
    batch = f"{settings.batch_size}" + (f" x {settings.accumulate}" if settings.accumulate > 1 else "")
    say(f"training  epochs {settings.epochs}, batch {batch}, {settings.schedule} rate, seed {settings.seed}")
    is_gpt2 = isinstance(run.config, GPT2Config)
    for line in technique_lines(run) if is_gpt2 else comparator_lines(run):
        say(line)
    say(f"run       {shown(run.folder.path)}")
    skeleton = make_skeleton(run)
    groups = optimizer_groups_of(skeleton.layer_groups(), skeleton, settings, settings.lr or 0.0)
    trainable, total = count_parameters(skeleton)
    say(group_table(groups, total - trainable))
    check_disk_space(run.folder.path, total, trainable)
    check_copies(settings)
    show_examples(run, say)
    if settings.dry_run:
        say_time(device, arithmetic_of(run, skeleton))


def make_skeleton(run: ClassificationRun) -> Classifier | Comparator:
    """The model with everything that is trained of it, without memory for its weights."""
    if isinstance(run.config, ComparatorConfig):
        return make_comparator(comparator_skeleton(run.config, len(run.label_names)), run.strategy, run.settings)
    with torch.device("meta"):
        gpt2 = GPT2Model(run.config)
        return make_classifier(gpt2, run.strategy, run.settings, len(run.label_names), answer_ids=range(2))


def arithmetic_of(run: ClassificationRun, skeleton: Classifier | Comparator) -> float:
    """Floating-point operations of the training, about, from the lengths of some of the texts."""
    tokenizer, settings = tokenizer_of(run.checkpoint.folder, run.config), run.settings
    tokens = {}
    for name, both in (("train", run.both_orders), ("dev", run.symmetric)):
        examples = run.splits[name].examples
        some = examples[:: max(1, len(examples) // SAMPLE)]
        encoded, _ = encode_examples(some, tokenizer, longest_text(run, tokenizer), settings)
        tokens[name] = sum(map(len, encoded.tokens)) / len(some) * len(examples) * (2 if both else 1)
    config = run.config
    n_layer = config.n_layer if isinstance(config, GPT2Config) else getattr(config.raw, "num_hidden_layers", 1)
    cost = relative_cost(run.strategy, vars(settings), n_layer)
    assert settings.epochs is not None
    weights = weights_per_token(skeleton.layer_groups(), n_layer)
    return training_flops(weights, tokens["train"], tokens["dev"], settings.epochs, cost)


def comparator_lines(run: ClassificationRun) -> list[str]:
    """What is particular about a comparator, for the screen."""
    settings = run.settings
    extras = [f"label smoothing {settings.label_smoothing:g}"] if settings.label_smoothing else []
    extras += ["balanced classes"] if settings.class_weights else []
    lines = [", ".join(["head      the architecture's own, with its own dropout", *extras])]
    if run.strategy.trains == "head":
        lines.append("frozen    all but the head, a pooler below it included; no dropout there")
    return lines


def technique_lines(run: ClassificationRun) -> list[str]:
    """The techniques in use with a GPT-2, for the screen."""
    s, lines = run.settings, []
    if not run.strategy.is_cloze:
        pooling = s.pooling or "last"
        dropout = f"dropout {s.dropout or 0.0:g}" + (f" growing by {s.dropout_growth:g}" if s.dropout_growth else "")
        if (s.dropout_samples or 1) > 1:
            dropout += f", {s.dropout_samples} samples, mean of {s.dropout_average or 'logits'}"
        extras = [f"label smoothing {s.label_smoothing:g}"] if s.label_smoothing else []
        extras += ["balanced classes"] if s.class_weights else []
        lines.append(f"head      {', '.join([f'{pooling} pooling', dropout, *extras])}")
    if s.lm_epochs:
        lines.append(f"stage 1   language model on the task's texts, {s.lm_epochs} epochs, rate {s.lm_lr or s.lr:g}")
    if s.unfreeze_groups and isinstance(run.config, GPT2Config):
        groups = min(s.unfreeze_groups, run.config.n_layer)
        lines.append(f"unfreezes the head in epoch 1, then one of {groups} groups of layers each epoch")
    return lines


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
        "predictions_file": run.predictions_file,
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
        "environment": environment_record(device),
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
    tokenizer = tokenizer_of(run.checkpoint.folder, run.config)
    splits, n_cut = encode(run, tokenizer, device.say)

    classifier, lm_stage, started = build(run, tokenizer, splits, device, signals, started)
    check = stop_check(signals, device)
    if can_cache(run, classifier, splits["train"]):
        frozen = "GPT-2" if isinstance(run.config, GPT2Config) else "all but the head"
        device.say(f"{frozen} is frozen: its features are computed once")
        cache_features(classifier, splits, FEATURE_BATCH, device, check)

    plan = plan_of(settings, settings.epochs, settings.seed)
    save_best = partial(save_classifier, classifier, run.label_names, tokenizer)
    job = make_job(classifier, splits, settings, device, check, save_best)
    progress = fit(job, plan, run.folder, device, signals, started)
    device.accelerator.wait_for_everyone()

    fitted = time.perf_counter()
    assert progress.best_folder is not None
    best = load_best(run.folder.best_model(progress.best_folder)).to(device.accelerator.device)
    predictions = {
        name: predictions_of(split, predict(best, split, settings, device, check))
        for name, split in splits.items()
        if name != "train"
    }
    if device.is_main:
        peak_memory = device.peak_memory_bytes()
        metrics = measure(run, predictions, n_cut, progress, device)
        trainable, total = count_parameters(classifier)
        stored = count_stored(trainable, None if isinstance(classifier, Comparator) else classifier.gpt2)
        seconds = time.perf_counter() - fitted
        metrics["cost"] = cost(progress, seconds, trainable, total, stored, peak_memory, lm_stage)
        if lm_stage:
            metrics["lm_stage"] = lm_stage
        run.folder.finish(metrics)
        drop_weights(run.folder)


def build(
    run: ClassificationRun,
    tokenizer: Any,
    splits: dict[str, EncodedSplit],
    device: Device,
    signals: Signals,
    started: float,
) -> tuple[Classifier | Comparator, dict[str, Any], float]:
    """The model that is about to train, and the metrics of its stage of language modelling, if there is one.

    Args:
        started: when this process began to work on the run.

    Returns:
        Also from when on its time is not the stage's.
    """
    settings = run.settings
    if isinstance(run.config, ComparatorConfig):
        return build_comparator(run, run.config, tokenizer, splits, device), {}, started
    gpt2 = None if settings.random_init else GPT2Model.from_pretrained(run.checkpoint.folder)
    torch.manual_seed(derive_seed("weights", settings.seed))
    gpt2 = gpt2 or GPT2Model(run.config)
    lm_stage: dict[str, Any] = {}
    if settings.lm_epochs:
        train, dev = splits["train"].tokens, splits["dev"].tokens
        gpt2, lm_stage, started = fine_tune_language_model(
            gpt2, train, dev, settings, run.folder, device, signals, started
        )
        torch.manual_seed(derive_seed("head", settings.seed))  # whether the stage was just done or is loaded
    weights = class_weights(splits["train"], len(run.label_names)) if settings.class_weights else None
    answer_ids = answer_tokens(run.answers, tokenizer) if run.strategy.is_cloze else []
    classifier = make_classifier(gpt2, run.strategy, settings, len(run.label_names), weights, answer_ids)
    return classifier, lm_stage, started


def build_comparator(
    run: ClassificationRun, config: ComparatorConfig, tokenizer: Any, splits: dict[str, EncodedSplit], device: Device
) -> Comparator:
    """The comparator that is about to train: its body from the checkpoint, its head drawn by the seed."""
    settings = run.settings
    torch.manual_seed(derive_seed("weights", settings.seed))
    pad_token_id = tokenizer.pad_token_id
    model, drawn = start_comparator(config, len(run.label_names), pad_token_id, settings.random_init)
    if drawn:
        device.say(f"note: the checkpoint has no {', '.join(drawn)}: drawn at random")
    weights = class_weights(splits["train"], len(run.label_names)) if settings.class_weights else None
    return make_comparator(model, run.strategy, settings, weights)


def can_cache(run: ClassificationRun, classifier: Classifier | Comparator, train: EncodedSplit) -> bool:
    """Whether what the head sees is the same in every epoch, and is one vector."""
    if run.strategy.trains != "head":
        return False
    if isinstance(classifier, Comparator):
        return classifier.reads_features(
            **train.inputs(range(min(FEATURE_CHECK, len(train.tokens))), torch.device("cpu"))
        )
    return run.settings.pooling != "attention"  # which trains itself


def class_weights(train: EncodedSplit, n_classes: int) -> list[float]:
    """n / (number of classes * n of the class), so that every class counts the same (King & Zeng 2001)."""
    labels = train.labels
    assert labels is not None
    counts = np.bincount(labels, minlength=n_classes)
    return (len(labels) / (n_classes * counts)).tolist()


def encode(run: ClassificationRun, tokenizer: Any, say: Say) -> tuple[dict[str, EncodedSplit], dict[str, int]]:
    """Tokenizes every split once; also returns how many texts of each were cut to the model's context."""
    splits, n_cut = {}, {}
    settings = run.settings
    context = longest_text(run, tokenizer)
    for name, split in (run.splits | run.extra_splits).items():
        symmetric = run.symmetric and name != "train"
        splits[name], n_cut[name] = encode_examples(
            split.examples, tokenizer, context, settings, symmetric, str(split.path)
        )
        if n_cut[name]:
            say(f"{name} {cut_note(splits[name], n_cut[name], context, settings)}")
    if run.both_orders:
        train = splits["train"].examples
        splits["train"], _ = encode_examples([*train, *map(swap, train)], tokenizer, context, settings)
    return splits, n_cut


def longest_text(run: ClassificationRun, tokenizer: Any) -> int:
    """The most tokens that the model reads."""
    return context_of(run.config, run.settings) if isinstance(run.config, GPT2Config) else tokenizer.max_tokens


def show_examples(run: ClassificationRun, say: Say) -> None:
    """``--show-examples``: the text, its tokens, the label, and the states that are classified."""
    examples = run.splits["train"].examples[: run.settings.show_examples]
    if not examples:
        return
    tokenizer = tokenizer_of(run.checkpoint.folder, run.config)
    shown, _ = encode_examples(examples, tokenizer, longest_text(run, tokenizer), run.settings)
    pooling = run.settings.pooling or "last"
    for example, ids in zip(shown.examples, shown.tokens, strict=True):
        raw: Any = tokenizer.raw if isinstance(tokenizer, ComparatorTokenizer) else tokenizer
        tokens = readable_tokens(raw, ids)
        text = example.text if example.second is None else f"{example.text} | {example.second}"
        say(f"example {example.id}, label {example.label} ({run.label_names[example.label or 0]}): {text}")
        say(f"  {len(tokens)} tokens: {' '.join(tokens)}")
        if isinstance(tokenizer, ComparatorTokenizer):
            continue
        if run.strategy.is_cloze:
            say(f"  answered after position {len(tokens) - 1} ({tokens[-1]}) by {run.answers[example.label or 0]!r}")
        elif pooling == "last":
            say(f"  classified from position {len(tokens) - 1}: {tokens[-1]}")
        else:
            say(f"  classified from all {len(tokens)} positions by {pooling} pooling")


def save_classifier(classifier: Classifier | Comparator, label_names: list[str], tokenizer: Any, folder: Path) -> None:
    """Writes the folder that ``transformers`` loads, tokenizer included."""
    classifier.save_pretrained(folder, label_names)
    if isinstance(tokenizer, ComparatorTokenizer):
        tokenizer.save(folder)
    else:
        save_tokenizer(tokenizer, folder)


def load_best(folder: Path) -> Classifier | Comparator:
    """Loads the model that :func:`save_classifier` wrote."""
    return load_comparator(folder) if is_comparator(folder) else load_classifier(folder)


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
        "cut_texts": n_cut,
        "finished": now(),
    }
    if isinstance(run.config, ComparatorConfig):
        metrics["comparator"] = True
    metrics |= run.measure_more(predictions)
    test = predictions.get("test")
    if test is not None and test.labels is not None:
        metrics["test"] = classification_metrics(test.labels, test.probabilities)
    with folder.writing():
        write_outputs(run, predictions, metrics)
        write_classifier_card(
            folder.best_model(progress.best_folder), metrics, run.model_name, preparation(run), pipeline_reads(run),
            shlex.join(["python", run.script, "--predict", *run.example, "--from-run", "RUN"]),
        )  # fmt: skip
        folder.publish_best(progress.best_folder)
    return metrics


def preparation(run: ClassificationRun) -> str:
    """What is done to a text, or a pair, before it is tokenized, for the model's card."""
    if len(run.example) == 1:
        return f"The text is {'kept as it is' if run.settings.keep_case else 'lower-cased and stripped'} beforehand."
    marks = "is lower-cased, gets a space before each full stop, question mark, comma and apostrophe"
    question = f"Each question {'is kept as it is' if run.settings.keep_case else marks}"
    if isinstance(run.config, ComparatorConfig):
        return f"{question}."
    return f"{question}, and the model reads a pair as\n\n```text\n{PAIR_FORMAT}\n```"


def pipeline_reads(run: ClassificationRun) -> str | dict[str, str] | None:
    """The run's example as the pipeline of ``transformers`` takes it; None where that would say something else."""
    settings = run.settings
    is_gpt2 = isinstance(run.config, GPT2Config)
    own_head = run.strategy.is_cloze or (settings.pooling or "last") != "last" or settings.prefix_length
    if run.symmetric or (is_gpt2 and own_head):
        return None
    if len(run.example) == 1:
        return run.example[0] if settings.keep_case else run.example[0].lower()
    first, second = run.example if settings.keep_case else map(clean_question, run.example)
    return PAIR_FORMAT.format(first=first, second=second) if is_gpt2 else {"text": first, "text_pair": second}


def predictions_of(split: EncodedSplit, probabilities: np.ndarray) -> Predictions:
    """The predictions on a split: ids, texts, probabilities (n, n_classes), and labels where the file has them."""
    labels = split.labels
    return Predictions(
        ids=[example.id for example in split.examples],
        texts=[e.text if e.second is None else f"{e.text} | {e.second}" for e in split.examples],
        probabilities=probabilities,
        labels=None if labels is None else np.array(labels),
    )


def dev_results(predictions: Predictions, label_names: list[str], seed: int) -> dict[str, Any]:
    """The dev set's metrics, their intervals, and what explains them: classes, confusion, worst mistakes."""
    labels, predicted = predictions.labels, predictions.predicted
    assert labels is not None
    curve = {"threshold_curve": threshold_curve(labels, predictions.probabilities)} if len(label_names) == 2 else {}
    return curve | {
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
        if name in PREDICTED_SPLITS:
            write_predictions(found, run.predictions_column, folder / run.predictions_file.format(split=name))
        write_scores(found, folder / f"{name}-scores.jsonl")
    title = f"{run.dataset}, {run.model_name}, {run.strategy.name}: dev, epoch {metrics['best_epoch']}"
    plot_confusion(metrics["confusion"], run.label_names, title, run.folder.path / "confusion.png")
    if "threshold_curve" in metrics:
        plot_thresholds(metrics["threshold_curve"], title, run.folder.path / "thresholds.png")
    if run.settings.output_dir is None:
        copy_files(folder, ROOT / "predictions", [run.predictions_file.format(split=name) for name in PREDICTED_SPLITS])


def show_results(run: ClassificationRun, metrics: dict[str, Any]) -> None:
    """The results, for a person; the last lines say where everything is."""
    print(f"\n{report_text(metrics)}\n")
    if "probes" in metrics:
        print(f"{probes_text(metrics['probes'])}\n")
    print(headline(metrics))
    if "precision" in metrics["dev"]:
        names = ("precision", "recall", "f1", "roc_auc", "calibration_error")
        values = [f"{name.replace('_', ' ')} {metrics['dev'][name]:.3f}" for name in names if name in metrics["dev"]]
        print(f"{run.label_names[1]}: {', '.join(values)}")
    if "test" in metrics:
        test = metrics["test"]
        print(f"test accuracy {test['accuracy']:.3f}, macro-F1 {test['macro_f1']:.3f}, n {test['n']}")
    print_ending(run, metrics, f"{metrics['cost']['examples_per_second']:.0f} examples/s")


def show_summary(runs: Sequence[ClassificationRun]) -> None:
    """After several runs: a line for each, so that the first one's result need not be looked for further up."""
    finished = [run for run in runs if run.folder.is_complete]
    if len(finished) > 1 and PartialState().is_main_process:
        print("\n== all runs")
        for run in finished:
            print(f"{headline(run.folder.metrics())}\n  {shown(run.folder.path)}")
