"""The flow of a pretraining run: describe, train, measure, show.

``pretrain.py`` prepares a :class:`PretrainingRun`: corpus opened and checked, settings resolved, no weight made.
:func:`run_pretraining` does the rest.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from config import GPT2Config, PretrainSettings, RunFailed
from corpus.shards import Corpus, TokenSplit
from models.card import write_language_model_card
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from models.sources import Checkpoint
from models.tokenizer import load_tokenizer, save_tokenizer
from models.vocabulary import change_vocabulary
from optimizer import SCHEDULES, AdamW, parameter_groups
from storage import shown, write_json
from training.accounting import cost, count_parameters
from training.device import Device, derive_seed, measure_matmul_peak, open_device
from training.estimate import say_time
from training.interrupt import Check, Signals
from training.language_models.curves import plot_curves
from training.language_models.language_modeling import (
    DocumentScores,
    WindowOrder,
    Windows,
    evaluate_windows,
    score_documents,
    spread,
)
from training.loop import Job, Plan, Progress, RecordedSchedule, fit, stop_check
from training.run_folder import SCHEMA, RunFolder, settings_hash
from training.setup import carry_out, check_disk_space, environment_record, group_table, now
from training.terminal import warn_once

BETA1, EPS = 0.9, 1e-8  # Brown et al. 2020, appendix B
INIT_ONLY = ("--init-only", "--init_only")
TIMED_STEPS = 1_000_000  # what a schedule that ends by time alone counts; only its fineness depends on the number
SCHEDULE_FILE = "schedule.json"
SAMPLE_TEMPERATURE, SAMPLE_TOP_K = 0.8, 40


@dataclass(frozen=True)
class PretrainSchedule:
    """The form of the rate, and the steps of an earlier run if they are to be repeated."""

    form: str
    warmup: float
    recorded: RecordedSchedule | None

    def record(self) -> dict[str, Any]:
        """As ``schedule.json`` has it."""
        steps = {} if self.recorded is None else dataclasses.asdict(self.recorded)
        return {"form": self.form, "warmup": self.warmup} | steps

    def summary(self) -> dict[str, Any]:
        """The same, short enough for a run's identity."""
        record = self.record()
        if self.recorded is not None:
            record["positions"] = settings_hash({"positions": self.recorded.positions})
        return record


@dataclass(frozen=True)
class PretrainingRun:
    """Everything about a run that is known before any weight is made.

    Attributes:
        shape: the model's name in folders and tables.
        checkpoint: what the run goes on training; None from scratch.
        time_budget: seconds, or None.
        identity: whatever can change the results.
    """

    settings: PretrainSettings
    corpus: Corpus
    config: GPT2Config
    shape: str
    checkpoint: Checkpoint | None
    time_budget: float | None
    schedule: PretrainSchedule
    identity: dict[str, Any]
    folder: RunFolder

    @property
    def corpus_name(self) -> str:
        return self.corpus.folder.resolve().name

    @property
    def window(self) -> int:
        assert self.settings.window is not None
        return self.settings.window

    @property
    def sequences_per_step(self) -> int:
        assert self.settings.batch_tokens is not None and self.settings.batch_size is not None
        return max(1, self.settings.batch_tokens // self.window)

    @property
    def total_steps(self) -> int:
        """Updates of the whole run, if no time budget ends it before."""
        if self.schedule.recorded is not None:
            return len(self.schedule.recorded.positions)
        if self.settings.max_tokens is None and self.time_budget is not None:
            return TIMED_STEPS
        tokens = self.settings.max_tokens or self.corpus.splits["train"].n_tokens
        return max(1, tokens // self.tokens_per_step)

    @property
    def tokens_per_step(self) -> int:
        return self.sequences_per_step * self.window

    @property
    def steps_per_part(self) -> int:
        """Updates between evaluations."""
        return min(self.settings.eval_every, self.total_steps)

    def windows(self, split: str) -> Windows:
        return Windows(self.corpus.splits[split], self.window, self.corpus.end_token_id, self.settings.cross_documents)


def run_pretraining(run: PretrainingRun, signals: Signals) -> None:
    """Trains, evaluates and writes the run folder. An interrupted run goes on; a complete one is shown."""
    if run.settings.init_only:
        write_untrained(run)
        return
    carry_out(
        run.folder,
        run.settings,
        "pretrain.py",
        f"pretraining on {run.corpus_name}",
        describe=lambda device: describe(run, device),
        start=lambda device: begin(run, device),
        work=lambda device: train_and_measure(run, device, signals),
        show=lambda metrics: show_results(run, metrics),
        can_shard=True,
    )


def write_untrained(run: PretrainingRun) -> None:
    """``--init-only``: the model that training begins with, beside whatever the run's folder holds already."""
    device = open_device(run.settings.use_gpu, run.settings.precision, can_shard=True)
    describe(run, device)
    if run.settings.dry_run:
        device.say("dry run: everything is in order; no model was written")
        return
    if device.is_main:
        run.folder.lock()
        tokenizer = load_tokenizer(run.corpus.tokenizer_folder, run.config)
        model = make_model(run, tokenizer)
        with run.folder.writing():
            begin(run, device)
            save_model(model.gpt2, tokenizer, run.settings.save_dtype, run.folder.path / "initial")
    device.say(f"untrained model: {shown(run.folder.path / 'initial')}")


# ---------------------------------------------------------------------------------------------------------------------
# Before training
# ---------------------------------------------------------------------------------------------------------------------


def describe(run: PretrainingRun, device: Device) -> None:
    """Says what is about to happen, parameter groups included, without making a weight."""
    settings, config, say = run.settings, run.config, device.say
    if device.warning and device.is_main:
        warn_once(device.warning)
    train = run.corpus.splits["train"]
    start = f"from {run.checkpoint.name} ({shown(run.checkpoint.folder)})" if run.checkpoint else "from scratch"
    say(f"device    {device.description}")
    say(
        f"model     {run.shape}, {start}: {config.n_layer} blocks, {config.n_embd} wide, {config.n_head} heads, "
        f"context {config.n_positions}, vocabulary {config.vocab_size:,}"
    )
    say(
        f"corpus    {shown(run.corpus.folder)}: {train.n_tokens:,} tokens in {train.n_documents:,} documents to train "
        f"on, {run.corpus.splits['validation'].n_tokens:,} to validate"
    )
    tokens = run.total_steps * run.tokens_per_step
    length = f"{run.total_steps:,} updates, {tokens:,} tokens ({passes_text(tokens / train.n_tokens)} passes)"
    if run.time_budget is not None:
        length = f"{f'at most {length}, ' if settings.max_tokens else ''}until {settings.time_budget} have passed"
    say(f"training  {length}")
    at_a_time = min(settings.batch_size or 1, run.sequences_per_step)
    say(
        f"batch     {run.sequences_per_step} sequences of {run.window} tokens, {at_a_time} at a time; "
        f"{run.schedule.form} rate, warmup {run.schedule.warmup:.0%}, dropout {dropout_text(config)}, "
        f"seed {settings.seed}"
    )
    if run.schedule.recorded:
        say(f"schedule  as recorded in {shown(Path(settings.schedule))}")
    say(f"run       {shown(run.folder.path)}")
    total = parameters_of(config)
    check_disk_space(run.folder.path, total, total)  # before the skeleton, whose size torch may not be able to count
    with torch.device("meta"):
        skeleton = GPT2LanguageModel(GPT2Model(config))
    say(group_table(groups_of(skeleton, run), 0))
    if settings.dry_run and not settings.init_only and run.time_budget is None:
        say_time(device, flops_per_token(config, run.window) * tokens, "; evaluations come on top")


def dropouts_of(config: GPT2Config) -> float | list[float]:
    """The dropout of embeddings, attention and residuals: one number where they agree."""
    dropouts = [config.embd_pdrop, config.attn_pdrop, config.resid_pdrop]
    return dropouts[0] if len(set(dropouts)) == 1 else dropouts


def dropout_text(config: GPT2Config) -> str:
    dropouts = dropouts_of(config)
    if isinstance(dropouts, list):
        return "{:g} (embeddings), {:g} (attention), {:g} (residuals)".format(*dropouts)
    return f"{dropouts:g}"


def parameters_of(config: GPT2Config) -> int:
    """How many parameters a model has, whatever its size."""
    width, inner = config.n_embd, config.inner_dim
    matrices = 4 * width**2 + 2 * width * inner
    biases_and_norms = 4 * width + inner + width + 4 * width
    tables = (config.vocab_size + config.n_positions) * width
    return tables + config.n_layer * (matrices + biases_and_norms) + 2 * width


def passes_text(passes: float) -> str:
    """How often the corpus is read: two decimals, and more of a small part."""
    decimals = max(2, 1 - math.floor(math.log10(passes))) if passes else 2
    return f"{passes:.{decimals}f}"


def groups_of(model: GPT2LanguageModel, run: PretrainingRun) -> list[dict[str, Any]]:
    assert run.settings.lr is not None
    return parameter_groups(model.gpt2.layer_groups(), model, run.settings.lr, run.settings.weight_decay)


def flops_per_token(config: GPT2Config, window: int) -> float:
    """Floating-point operations of a training step per token: forward, and twice as much backward.

    Two per weight of a matrix product; attention's two products over the earlier half of the window that a causal
    model needs on average. Look-ups, norms and activations are not counted, nor is what is computed twice to save
    memory.
    """
    block = 2 * (4 * config.n_embd**2 + 2 * config.n_embd * config.inner_dim) + 2 * 2 * config.n_embd * window / 2
    return 3 * (config.n_layer * block + 2 * config.n_embd * config.vocab_size)


def begin(run: PretrainingRun, device: Device) -> None:
    """Makes the folder ready; a schedule that is repeated is kept there, whatever becomes of its file."""
    record = run_record(run, device)
    run.folder.start(record, run.settings.overwrite)
    saved = run.folder.config()
    if saved["environment"].get("precision", "") is None:  # --init-only made the folder
        places = {name: record["environment"][name] for name in ("device", "precision")}
        write_json(run.folder.path / "config.json", saved | {"environment": saved["environment"] | places})
    if run.schedule.recorded is not None:
        write_json(run.folder.path / SCHEDULE_FILE, run.schedule.record())


def run_record(run: PretrainingRun, device: Device) -> dict[str, Any]:
    """``config.json``."""
    return {
        "schema": SCHEMA,
        "task": "pretrain",
        "dataset": run.corpus_name,
        "strategy": "continued" if run.checkpoint else "scratch",
        "settings": dataclasses.asdict(run.settings),
        "identity": run.identity,
        "model": run.config.to_dict(),
        "init_from": None if run.checkpoint is None else str(run.checkpoint.folder),
        "data": {"folder": str(run.corpus.folder.absolute()), "manifest": run.corpus.manifest},
        "environment": environment_record(device) | ({"precision": None} if run.settings.init_only else {}),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


def train_and_measure(run: PretrainingRun, device: Device, signals: Signals) -> None:
    """Makes or loads the model, trains it, and measures its best state on the whole validation split."""
    started = time.perf_counter()
    settings = run.settings
    tokenizer = load_tokenizer(run.corpus.tokenizer_folder, run.config)
    model = make_model(run, tokenizer)
    peak = measure_matmul_peak(device)
    device.say(f"peak      matrix products reach {peak / 1e12:.2f} TFLOP/s here in {device.precision}")
    if settings.compile:
        for block in model.gpt2.h:
            block.compile()

    check = stop_check(signals, device)
    job = make_job(run, model, tokenizer, device, check, peak)
    progress = fit(job, make_plan(run, device), run.folder, device, signals, started)
    device.accelerator.wait_for_everyone()

    fitted = time.perf_counter()
    if progress.best_folder is None:
        message = f"--time-budget {settings.time_budget}: over before the first update; give more time"
        if device.is_main:
            run.folder.fail(message, progress.step)
        raise RunFailed(message)
    scores = measure(run, progress, device, check)
    if device.is_main:
        metrics = run_metrics(run, progress, scores, device)
        metrics["cost"] = pretraining_cost(run, model, progress, time.perf_counter() - fitted, device, peak)
        metrics["finished"] = now()
        with run.folder.writing():
            write_outputs(run, metrics, progress, device)
        run.folder.finish(metrics)


def make_plan(run: PretrainingRun, device: Device) -> Plan:
    settings = run.settings
    assert settings.batch_size is not None
    batch_size = min(settings.batch_size * device.world_size, run.sequences_per_step)
    return Plan(
        epochs=-(-run.total_steps // run.steps_per_part),
        batch_size=batch_size,
        update_size=run.sequences_per_step,
        max_grad_norm=settings.max_grad_norm,
        patience=None,
        seed=settings.seed,
        save_every_minutes=settings.save_every,
        time_budget=run.time_budget,
        total_steps=run.total_steps,
        recorded=run.schedule.recorded,
        smaller="use a smaller --batch-size, or --recompute",
    )


def make_model(run: PretrainingRun, tokenizer: Any) -> GPT2LanguageModel:
    """A new model from the run's seed, or the given checkpoint with the corpus's vocabulary."""
    torch.manual_seed(derive_seed("weights", run.settings.seed))
    if run.checkpoint is None:
        gpt2 = GPT2Model(run.config)
    else:
        gpt2 = GPT2Model.from_pretrained(run.checkpoint.folder)
        old_tokenizer = load_tokenizer(run.checkpoint.folder, gpt2.config)
        gpt2 = change_vocabulary(gpt2, old_tokenizer, tokenizer, run.config)
    gpt2.recompute = run.settings.recompute
    return GPT2LanguageModel(gpt2)


def make_job(
    run: PretrainingRun,
    model: GPT2LanguageModel,
    tokenizer: Any,
    device: Device,
    check: Check,
    peak: float,
) -> Job:
    """Next-token cross-entropy on packed windows, scored by the validation loss."""
    settings = run.settings
    train, validation = run.windows("train"), run.windows("validation")
    per_part = run.steps_per_part * run.sequences_per_step
    held_out = spread(len(validation), max(1, settings.eval_tokens // run.window))
    form = SCHEDULES[run.schedule.form]

    def loss(module: nn.Module, indices: list[int]) -> Tensor:
        return module(*(None if x is None else x.to(device.accelerator.device) for x in train.batch(indices)))

    def evaluate(module: nn.Module) -> dict[str, float]:
        unwrapped = device.accelerator.unwrap_model(module)
        return evaluate_windows(unwrapped, validation, held_out, settings.batch_size or 1, device, check)

    assert settings.lr is not None
    return Job(
        model=model,
        optimizer=AdamW(groups_of(model, run), lr=settings.lr, betas=(BETA1, settings.beta2), eps=EPS),
        n_examples=per_part,
        order=lambda epoch: WindowOrder(settings.seed, epoch, per_part, len(train)),
        name=lambda i: f"window {i}",
        loss=loss,
        count_items=lambda indices: len(indices) * run.window,
        count_tokens=lambda indices: len(indices) * run.window,
        evaluate=evaluate,
        score="loss",
        lower_is_better=True,
        save_best=partial(save_model, model.gpt2, tokenizer, settings.save_dtype),
        schedule=lambda step, total: form(step, total, warmup=round(run.schedule.warmup * total)),
        sample=partial(sample_text, run, tokenizer) if settings.sample_tokens else None,
        flops_per_token=flops_per_token(run.config, run.window),
        peak_flops=peak * device.world_size,
        unit="part",
        shard_units=list(model.gpt2.h),
        shard_methods=("token_losses",),
    )


def save_model(gpt2: GPT2Model, tokenizer: Any, dtype: str, folder: Path) -> None:
    gpt2.save_pretrained(folder, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    save_tokenizer(tokenizer, folder)


def sample_text(run: PretrainingRun, tokenizer: Any, module: nn.Module) -> str:
    """A continuation of ``--sample-prompt``, always drawn with the same random numbers."""
    assert isinstance(module, GPT2LanguageModel)
    # A prompt beyond the context is read in part; what transformers warns of then does not happen.
    ids = tokenizer.encode(run.settings.sample_prompt, add_special_tokens=False, verbose=False)
    prompt = [run.corpus.end_token_id, *ids]
    generator = torch.Generator().manual_seed(derive_seed("sample", run.settings.seed))
    ids = module.sample(prompt, run.settings.sample_tokens, SAMPLE_TEMPERATURE, SAMPLE_TOP_K, generator)
    return tokenizer.decode(ids[1:], skip_special_tokens=False)


def documents_of(split: TokenSplit, device: Device) -> Iterator[tuple[np.ndarray, int]]:
    """This process's share: (token ids, UTF-8 bytes)."""
    return islice(split.documents(), device.rank, None, device.world_size)


# ---------------------------------------------------------------------------------------------------------------------
# After training
# ---------------------------------------------------------------------------------------------------------------------


def measure(run: PretrainingRun, progress: Progress, device: Device, check: Check) -> DocumentScores:
    """Scores the best model on the whole validation split, document by document; the processes share the work."""
    assert progress.best_folder is not None
    gpt2 = GPT2Model.from_pretrained(run.folder.best_model(progress.best_folder))
    scores = score_documents(
        GPT2LanguageModel(gpt2).to(device.accelerator.device).eval(),
        documents_of(run.corpus.splits["validation"], device),
        run.corpus.end_token_id,
        context=run.window,
        stride=max(1, run.window // 2),
        device=device,
        check=check,
    )
    if device.world_size == 1:
        return scores
    sums = torch.tensor(dataclasses.astuple(scores), dtype=torch.float64, device=device.accelerator.device)
    nats, *counts = device.accelerator.reduce(sums, reduction="sum").tolist()
    return DocumentScores(nats, *map(int, counts))


def run_metrics(run: PretrainingRun, progress: Progress, scores: DocumentScores, device: Device) -> dict[str, Any]:
    """``metrics.json``, without the cost."""
    assert progress.best_epoch is not None
    return {
        "task": "pretrain",
        "dataset": run.corpus_name,
        "model": run.shape,
        "strategy": "continued" if run.checkpoint else "scratch",
        "seed": run.settings.seed,
        "precision": device.precision,
        "epochs": len(progress.history),
        "best_epoch": progress.best_epoch,
        "best_step": min(progress.best_epoch * run.steps_per_part, progress.step),
        "dev": progress.best_metrics,
        "dev_last": progress.history[-1]["dev"],
        "validation": scores.metrics(),
        "history": progress.history,
        "steps": progress.step,
        "tokens": progress.tokens,
        "passes": progress.tokens / run.corpus.splits["train"].n_tokens,
    }


def write_outputs(run: PretrainingRun, metrics: dict[str, Any], progress: Progress, device: Device) -> None:
    """The realised schedule, the curves, the card, and the best model in its place."""
    assert progress.best_folder is not None
    folder = run.folder.path
    if run.time_budget is not None:
        recorded = RecordedSchedule(run.total_steps, progress.positions)
        write_json(folder / SCHEDULE_FILE, dataclasses.replace(run.schedule, recorded=recorded).record())
    title = (
        f"{run.shape} on {run.corpus_name}: {metrics['validation']['bits_per_byte']:.3f} bits per byte on validation"
    )
    plot_curves(folder / "log.jsonl", run.tokens_per_step, title, folder / "curves.png")
    write_language_model_card(run.folder.best_model(progress.best_folder), card_facts(run, metrics, device))
    run.folder.publish_best(progress.best_folder)


def pretraining_cost(
    run: PretrainingRun, model: nn.Module, progress: Progress, seconds_since_fit: float, device: Device, peak: float
) -> dict[str, float | int]:
    """What the run cost, and which share of the peak of all processes' matrix products its training steps reached."""
    trainable, total = count_parameters(model)  # all has to be kept
    rate = progress.tokens / max(progress.train_seconds, 1e-9)
    share = rate * flops_per_token(run.config, run.window) / (peak * device.world_size)
    return cost(progress, seconds_since_fit, trainable, total, total, device.peak_memory_bytes()) | {
        "matmul_peak_flops": round(peak),
        "share_of_peak": round(share, 4),
    }


def card_facts(run: PretrainingRun, metrics: dict[str, Any], device: Device) -> dict[str, Any]:
    """What the model card says."""
    argv = run.folder.config()["environment"]["argv"][1:]  # of the first start, which --resume does not repeat
    return {
        "name": run.shape,
        "config": run.config,
        "manifest": run.corpus.manifest,
        "metrics": metrics,
        "passes": passes_text(metrics["passes"]),
        "schedule": run.schedule.form,
        "start": None if run.checkpoint is None else run.checkpoint.name,
        "settings": run.settings,
        "window": run.window,
        "dropout": dropout_text(run.config),
        "batch_tokens": run.tokens_per_step,
        "device": device.description,
        "command": shlex.join(["python", "pretrain.py", *(flag for flag in argv if flag not in INIT_ONLY)]),
    }


def show_results(run: PretrainingRun, metrics: dict[str, Any]) -> None:
    """The results, for a person; the last line says where everything is."""
    spent, measured = metrics["cost"], metrics["validation"]
    print(
        f"\nvalidation: {measured['bits_per_byte']:.3f} bits per byte, loss {measured['loss']:.3f}, perplexity "
        f"{measured['perplexity']:.1f}, next-token accuracy {measured['accuracy']:.3f} "
        f"({measured['documents']:,} documents, {measured['tokens']:,} tokens)"
    )
    print(
        f"{metrics['steps']:,} updates, {metrics['tokens']:,} tokens ({passes_text(metrics['passes'])} passes), "
        f"{spent['train_seconds']:.0f} s of training ({spent['tokens_per_second']:,.0f} tokens/s, "
        f"{spent['share_of_peak']:.0%} of the matrix-product peak), {spent['total_seconds']:.0f} s in all, "
        f"{spent['peak_memory_bytes'] / 2**30:.1f} GiB at most, {spent['total_parameters']:,} parameters"
    )
    print(f"model:   {shown(run.folder.best)}")
    print(f"curves:  {shown(run.folder.path / 'curves.png')}")
    print(f"results: {shown(run.folder.path)}")
