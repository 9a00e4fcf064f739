"""The flow of a run that fine-tunes a language model on short texts and lets it write: describe, train, write, measure.

A task's script prepares a :class:`WritingRun`: texts read and checked, settings resolved, no weight loaded.
:func:`run_writing` does the rest, and calls the script back to write and measure.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from config import GPT2Config, UserError, WritingSettings
from models import checkpoint
from models.card import write_writer_card
from models.generation import ready
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from models.sources import Checkpoint
from models.tokenizer import load_tokenizer, readable_tokens, save_tokenizer
from storage import shown
from strategies import Strategy
from training.accounting import announce, cost, count_parameters, count_stored, notes_of, print_ending
from training.device import Device, derive_seed
from training.estimate import say_time, training_flops, weights_per_token
from training.fine_tuning import context_of, freeze, relative_cost
from training.interrupt import Check, Signals
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
from training.writing.job import Choice, EncodedText, Text, encode_texts, make_job, perplexity
from training.writing.task_texts import TaskEncoder
from training.writing.task_tokens import (
    SAVED_AS,
    TaskVocabulary,
    as_shown,
    count_trained,
    load_grown,
    optimizer_groups,
    train_rows,
)


@dataclass(frozen=True)
class Writer:
    """A model that is ready to write, and what belongs to it.

    Attributes:
        check: called between batches; raises where the user asked to stop.
        encoder: of a task with task tokens.
    """

    gpt2: GPT2Model
    tokenizer: Any
    device: Device
    check: Check
    encoder: TaskEncoder | None = None

    @property
    def end(self) -> int:
        return end_token(self.gpt2.config)

    @cached_property
    def fast(self) -> GPT2Model:
        """The same model made for writing, in the run's precision."""
        return ready(self.gpt2, torch.bfloat16 if self.device.precision == "bf16" else torch.float32)


@dataclass(frozen=True)
class TaskPart:
    """What a run of a task with task tokens has beside what every writing run has.

    Attributes:
        vocabulary: with the task tokens in it.
        encoder: what has made the tokens.
        encoded: the run's texts, and those of ``test`` where there are any.
        summary: says how many texts there are.
        evaluate: a writer -> further metrics of the dev set after each epoch; None where there are none.
        score, lower_is_better: which metric chooses the epoch.
    """

    vocabulary: TaskVocabulary
    encoder: TaskEncoder
    encoded: dict[str, list[EncodedText]]
    summary: str
    evaluate: Callable[[Writer], dict[str, float]] | None
    score: str
    lower_is_better: bool


@dataclass(frozen=True)
class WritingRun:
    """Everything about a run that is known before any weight is loaded.

    Attributes:
        script: the file name of the task's script, for the resume command.
        dataset: the dataset's name in folders and tables; sample data never go by the real set's name.
        texts: ``train``; ``choose``, whose perplexity after the prompts decides which epoch is best; ``report``, on
            which that epoch's is reported.
        files: what ``config.json`` says of the files; name -> path, sha256, rows.
        finish: (run, writer) -> what the task adds to ``metrics.json`` after writing and measuring: the entries ``dev``
            and ``dev_ci`` are merged, others stand beside them.
        show: prints the task's own results.
        example: for the model's card, what stands before what it writes: words that say what, and task tokens.
        task_part: of a task with task tokens.
        repeats: texts that stand in the data twice, and those of dev and test that also stand in train.
        continuation_only: the loss falls on what comes after the prompts, not on whole texts.
    """

    script: str
    task: str
    dataset: str
    settings: WritingSettings
    strategy: Strategy
    texts: dict[str, list[Text]]
    files: dict[str, dict[str, Any]]
    data_origin: str
    data_notes: tuple[str, ...]
    checkpoint: Checkpoint
    model_name: str
    model_record: dict[str, Any]
    config: GPT2Config
    folder: RunFolder
    finish: Callable[[WritingRun, Writer], dict[str, Any]]
    show: Callable[[dict[str, Any]], None]
    example: tuple[str, ...]
    task_part: TaskPart | None = None
    repeats: dict[str, Any] = field(default_factory=dict)
    continuation_only: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """Whatever can change the results: two runs with the same identity are the same run."""
        data = {f"{name} file": file["sha256"] for name, file in self.files.items()}
        model = {"model": self.model_record["used"], "model weights": self.model_record["weights_sha256"]}
        return identity_of(self.settings) | {"dataset": self.dataset, "strategy": self.strategy.name} | model | data


def run_writing(run: WritingRun, signals: Signals) -> None:
    """Trains, writes, measures and leaves the run folder. An interrupted run goes on; a complete one is shown."""
    carry_out(
        run.folder,
        run.settings,
        run.script,
        f"\n== {run.task} on {run.dataset}",
        describe=lambda device: describe(run, device),
        start=lambda device: run.folder.start(run_record(run, device), run.settings.overwrite),
        work=lambda device: train_and_write(run, device, signals),
        show=lambda metrics: show_results(run, metrics),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Before training
# ---------------------------------------------------------------------------------------------------------------------


def describe(run: WritingRun, device: Device) -> None:
    """Says what is about to happen, parameter groups included, without loading a weight."""
    settings, say = run.settings, device.say
    announce(run, device)
    counted = (
        f"{len(run.texts['train'])} texts to train on, {len(run.texts['choose'])} to choose the epoch by, "
        f"{len(run.texts['report'])} to report on"
        if run.task_part is None
        else run.task_part.summary
    )
    folder = Path(next(iter(run.files.values()))["path"]).parent
    say(f"data      {counted} ({run.data_origin}: {shown(folder)})")
    if run.task_part is not None:
        say(f"tokens    {run.task_part.vocabulary.note()}")
    for note in notes_of(run):
        say(note)
    batch = f"{settings.batch_size}" + (f" x {settings.accumulate}" if settings.accumulate > 1 else "")
    say(f"training  epochs {settings.epochs}, batch {batch}, {settings.schedule} rate, seed {settings.seed}")
    if settings.ul_line_breaks is False and line_break_of(tokenizer_of(run)) is None:
        raise UserError("--no-ul-line-breaks: in this vocabulary a line break is not a token of its own; leave it out")
    if settings.ul_alpha or settings.ul_sequence:
        lines = "" if settings.ul_line_breaks in (None, True) else ", line breaks left out"
        own = f", {settings.ul_sequence:.0%} of the updates on the model's own text" if settings.ul_sequence else ""
        say(f"loss      unlikelihood of earlier tokens, weight {settings.ul_alpha or 0:g}{lines}{own}")
    say(f"run       {shown(run.folder.path)}")
    with torch.device("meta"):
        gpt2 = GPT2Model(run.config)
        prepare_model(run, gpt2)
        groups = as_shown(optimizer_groups(gpt2, gpt2, settings), gpt2)
    trainable, total = count_trained(gpt2)
    say(group_table(groups, total - trainable))
    saved, _ = count_parameters(gpt2)  # where rows of the embedding train, the state holds all of it
    check_disk_space(run.folder.path, total, saved)
    check_copies(settings)
    if settings.show_examples:
        show_examples(run, tokenizer_of(run), say)
    if settings.dry_run:
        say_time(device, arithmetic_of(run, gpt2), "; what it writes comes on top")


def arithmetic_of(run: WritingRun, gpt2: GPT2Model) -> float:
    """Floating-point operations of the training, about: of every token in the blocks, of every target in the output."""
    texts, settings = encoded_texts(run, tokenizer_of(run)), run.settings
    assert settings.epochs is not None
    cost = relative_cost(run.strategy, vars(settings), run.config.n_layer)
    n_tokens, n_targets = [], []
    for name in ("train", "choose"):
        n_tokens.append(sum(len(text.tokens) for text in texts[name]))
        n_targets.append(sum(len(text.tokens) - run.continuation_only * text.n_prompt for text in texts[name]))
    return sum(
        training_flops(weights, train, dev, settings.epochs, cost)
        for weights, (train, dev) in (
            (weights_per_token(gpt2.layer_groups(), run.config.n_layer), n_tokens),
            (gpt2.wte.weight.numel(), n_targets),
        )
    )


def prepare_model(run: WritingRun, gpt2: GPT2Model) -> None:
    """Freezes what does not train, and adds what the strategy needs."""
    freeze(gpt2, run.strategy, run.settings)
    if run.task_part is not None:
        train_rows(gpt2, run.task_part.vocabulary.trained)


def run_record(run: WritingRun, device: Device) -> dict[str, Any]:
    """``config.json``."""
    own = {} if run.task_part is None else {SAVED_AS: run.task_part.vocabulary.ids}
    repeats = {"repeats": run.repeats} if run.repeats else {}
    return own | {
        "schema": SCHEMA,
        "task": run.task,
        "dataset": run.dataset,
        "strategy": run.strategy.name,
        "settings": dataclasses.asdict(run.settings),
        "identity": run.identity,
        "model": run.model_record,
        "data": {"origin": run.data_origin, "notes": run.data_notes, "files": run.files} | repeats,
        "environment": environment_record(device),
    }


def end_token(config: GPT2Config) -> int:
    """What a text ends with, and what stands before it.

    Raises:
        UserError: the model has none.
    """
    if config.eos_token_id is None:
        raise UserError(
            "this model names no end token of its vocabulary (eos_token_id in its config.json); name one there, or use "
            "another model"
        )
    return config.eos_token_id


# ---------------------------------------------------------------------------------------------------------------------
# Training, writing, measuring
# ---------------------------------------------------------------------------------------------------------------------


def train_and_write(run: WritingRun, device: Device, signals: Signals) -> None:
    """Loads the model, trains it, lets its best epoch write, and measures what it wrote."""
    started = time.perf_counter()
    settings = run.settings
    assert settings.batch_size is not None
    part = run.task_part
    tokenizer = tokenizer_of(run)
    texts = encoded_texts(run, tokenizer)

    gpt2 = None if settings.random_init else load_model(run)
    torch.manual_seed(derive_seed("weights", settings.seed))
    gpt2 = gpt2 or GPT2Model(run.config)
    prepare_model(run, gpt2)
    plan = plan_of(settings, settings.epochs, settings.seed)
    save_best = partial(save_with_card, run, gpt2, tokenizer)
    check = stop_check(signals, device)
    encoder = None if part is None else part.encoder
    writer_of = partial(Writer, tokenizer=tokenizer, device=device, check=check, encoder=encoder)
    job = make_job(
        gpt2, texts["train"], texts["choose"], settings, device, check, save_best,
        line_break_of(tokenizer), choice_of(part, writer_of), [text.id for text in run.texts["train"]],
        run.continuation_only,
    )  # fmt: skip
    progress = fit(job, plan, run.folder, device, signals, started)
    device.accelerator.wait_for_everyone()
    if device.is_main:
        trainable, total = count_trained(gpt2)
        parameters = trainable, total, count_stored(trainable, gpt2)
        write_and_measure(run, texts, progress, parameters, device, writer_of)


def write_and_measure(
    run: WritingRun,
    texts: Mapping[str, list[EncodedText]],
    progress: Progress,
    parameters: tuple[int, int, int],
    device: Device,
    writer_of: Callable[[GPT2Model], Writer],
) -> None:
    """Lets the best epoch's model write, measures it, and publishes it with its results.

    Args:
        texts: by what they are for; of ``report`` and ``test`` the perplexity is measured.
        parameters: how many were trained, how many there are, and how many have to be kept.
    """
    started = time.perf_counter()
    settings = run.settings
    assert settings.batch_size is not None and progress.best_folder is not None
    gpt2 = GPT2Model.from_pretrained(run.folder.best_model(progress.best_folder)).to(device.accelerator.device)
    writer = writer_of(gpt2)
    language_model = GPT2LanguageModel(gpt2)
    reported = {
        name: perplexity(language_model, texts[split], settings.batch_size, device, writer.check)
        for name, split in (("dev", "report"), ("test", "test"))
        if texts.get(split)
    }
    found = run.finish(run, writer)
    metrics = {
        "task": run.task,
        "dataset": run.dataset,
        "model": run.model_name,
        "strategy": run.strategy.name,
        "seed": settings.seed,
        "precision": device.precision,
        "epochs": len(progress.history),
        "best_epoch": progress.best_epoch,
        **found,
        **{name: with_counts(values, found.get(name, {})) for name, values in reported.items()},
        "chosen_by": progress.best_metrics,
        "dev_last": progress.history[-1]["dev"],
        "history": progress.history,
        "finished": now(),
        "cost": cost(progress, time.perf_counter() - started, *parameters, device.peak_memory_bytes()),
    }
    with run.folder.writing():
        run.folder.publish_best(progress.best_folder)
    run.folder.finish(metrics)


def with_counts(perplexity: Mapping[str, float], own: Mapping[str, float]) -> dict[str, float]:
    """A split's perplexity and the task's own measures; ``n_perplexity`` says of how many texts it is, if of others."""
    n = perplexity["n"]
    return {**perplexity, **own} | ({} if own.get("n", n) == n else {"n_perplexity": n})


def tokenizer_of(run: WritingRun) -> Any:
    """The tokenizer of the model that the run starts from, task tokens included."""
    part = run.task_part
    return load_tokenizer(run.checkpoint.folder, run.config) if part is None else part.vocabulary.tokenizer


def line_break_of(tokenizer: Any) -> int | None:
    """The token of a line break, where it is one token."""
    ids: list[int] = tokenizer("\n", add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 else None


def encoded_texts(run: WritingRun, tokenizer: Any) -> dict[str, list[EncodedText]]:
    """The tokens of the texts by what they are for."""
    if run.task_part is not None:
        return run.task_part.encoded
    end, context = end_token(run.config), context_of(run.config, run.settings)
    return {name: encode_texts(texts, tokenizer, end, context) for name, texts in run.texts.items()}


def load_model(run: WritingRun) -> GPT2Model:
    """The model that the run starts from."""
    if run.task_part is not None:
        return load_grown(run.checkpoint.folder, run.task_part.vocabulary)
    return GPT2Model.from_pretrained(run.checkpoint.folder)


def choice_of(part: TaskPart | None, writer_of: Callable[[GPT2Model], Writer]) -> Choice:
    """What decides which epoch is best."""
    if part is None:
        return Choice()
    evaluate = part.evaluate
    measure = None if evaluate is None else lambda gpt2: evaluate(writer_of(gpt2))
    return Choice(part.score, part.lower_is_better, tuple(dict.fromkeys((part.score, "perplexity"))), measure)


def show_examples(run: WritingRun, tokenizer: Any, say: Callable[[str], None]) -> None:
    """``--show-examples``: the tokens, and which of them are targets; with a mask, these stand in brackets."""
    train = encoded_texts(run, tokenizer)["train"]
    for text, encoded in list(zip(run.texts["train"], train, strict=True))[: run.settings.show_examples]:
        tokens = readable_tokens(tokenizer, encoded.tokens)
        which = "each but the first a target"
        if run.continuation_only:
            which = f"the last {len(tokens) - encoded.n_prompt} are targets, in brackets"
            tokens[encoded.n_prompt :] = [f"[{token}]" for token in tokens[encoded.n_prompt :]]
        say(f"example {text.id}: {len(tokens)} tokens, {which}")
        say(f"  {' '.join(tokens)}")


def save_language_model(
    gpt2: GPT2Model, tokenizer: Any, folder: Path, task_tokens: Mapping[str, int] | None = None
) -> None:
    """Writes the folder that ``transformers.GPT2LMHeadModel`` loads, tokenizer included, and a prefix beside it.

    Args:
        task_tokens: by which names the model was taught which tokens; kept in its ``config.json``.
    """
    checkpoint.save_language_model(gpt2, folder, extra={SAVED_AS: dict(task_tokens)} if task_tokens else None)
    save_tokenizer(tokenizer, folder)


def save_with_card(run: WritingRun, gpt2: GPT2Model, tokenizer: Any, folder: Path) -> None:
    """Writes a run's model, and a card that says what it is and how it is used."""
    part = run.task_part
    save_language_model(gpt2, tokenizer, folder, None if part is None else part.vocabulary.recorded)
    ids = {} if part is None else part.vocabulary.ids
    names = {name: tokenizer.convert_ids_to_tokens(ids[name]) for name in run.example if name in ids}
    begin = tokenizer.convert_ids_to_tokens(end_token(run.config))
    facts = {
        "task": run.task,
        "dataset": run.dataset,
        "model": run.model_name,
        "strategy": run.strategy.name,
        "settings": run.settings,
        "names": names,
        "prompt": begin + "".join(names.get(part, part) for part in run.example),
        "has_prefix": gpt2.prefix is not None,
    }
    write_writer_card(folder, facts)


def show_results(run: WritingRun, metrics: dict[str, Any]) -> None:
    """The results, for a person; the last line says where everything is."""
    run.show(metrics)
    print_ending(run, metrics, f"{metrics['cost']['tokens_per_second']:,.0f} tokens/s")
