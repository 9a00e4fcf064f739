"""ULMFiT's stage of language modelling: GPT-2 is fine-tuned on the task's own texts (Howard & Ruder 2018, section 3.2).

The texts are what the classifier will train on, without their labels; the dev texts choose the epoch. It is a run of
its own in a folder within the run's folder, so that it goes on after an interruption like any other.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from config import FineTuneSettings, RunFailed
from datasets import collate
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from modules.cross_entropy import IGNORED
from optimizer import AdamW
from training.device import Device, derive_seed
from training.fine_tuning import make_schedule, optimizer_groups_of
from training.interrupt import Check, Signals
from training.loop import Job, epoch_order, fit, stop_check
from training.run_folder import RunFolder
from training.setup import plan_of

FOLDER = "lm-stage"


def fine_tune_language_model(
    gpt2: GPT2Model,
    train: list[list[int]],
    dev: list[list[int]],
    settings: FineTuneSettings,
    run: RunFolder,
    device: Device,
    signals: Signals,
    started: float,
) -> tuple[GPT2Model, dict[str, Any], float]:
    """Trains on the tokens of texts, each between two end tokens.

    Args:
        gpt2: where it starts; no head, no adapter.
        train, dev: token ids of each text.
        started: ``time.perf_counter()`` when this process began to work on the run.

    Returns:
        The best epoch's model, what ``metrics.json`` says of the stage, and from when on this process's time is the
        next stage's: its beginning, where the stage was complete before.

    Raises:
        Interrupted, RunFailed: as :func:`training.loop.fit`.
    """
    stage = RunFolder(run.path / FOLDER)
    if stage.is_complete:
        return GPT2Model.from_pretrained(stage.best), stage.metrics(), started
    stage.path.mkdir(exist_ok=True)
    (stage.path / "failed.json").unlink(missing_ok=True)
    plan = replace(plan_of(settings, settings.lm_epochs, derive_seed(FOLDER, settings.seed)), patience=None)
    device.say(f"stage 1: the language model on the task's {len(train):,} texts, {settings.lm_epochs} epochs")
    job = make_job(gpt2, train, dev, settings, plan.seed, device, stop_check(signals, device))
    try:
        progress = fit(job, plan, stage, device, signals, started)
    except RunFailed as failure:
        run.fail(f"in the stage of language modelling: {failure.problems[0]}", 0)
        raise
    ended = time.perf_counter()
    device.accelerator.wait_for_everyone()
    assert progress.best_folder is not None
    losses = ", ".join(f"{entry['dev']['loss']:.3f}" for entry in progress.history)
    device.say(f"stage 1: dev loss {losses} nats per token; epoch {progress.best_epoch} goes on to stage 2")
    seconds = round(progress.total_seconds, 3)
    metrics = {"best_epoch": progress.best_epoch, "history": progress.history, "seconds": seconds}
    if device.is_main:
        with run.writing():
            stage.publish_best(progress.best_folder)
        stage.finish(metrics)
    device.accelerator.wait_for_everyone()
    device.accelerator.free_memory()  # it would keep this stage's model and optimizer through the next
    return GPT2Model.from_pretrained(stage.best), metrics, ended


def drop_weights(run: RunFolder) -> None:
    """Removes the stage's model, which a complete run does not need; its log stays."""
    shutil.rmtree(run.path / FOLDER / "best", ignore_errors=True)


def make_job(
    gpt2: GPT2Model,
    train: list[list[int]],
    dev: list[list[int]],
    settings: FineTuneSettings,
    seed: int,
    device: Device,
    check: Check,
) -> Job:
    """Next-token loss over the training texts, scored by that of the dev texts in nats per token."""
    end, context = gpt2.config.eos_token_id, gpt2.config.n_positions
    assert end is not None  # checked before the run began
    train, dev = ([text[-(context - 1) :] for text in texts] for texts in (train, dev))
    model = GPT2LanguageModel(gpt2)
    where = device.accelerator.device

    def batch(texts: Sequence[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
        input_ids, mask = collate([[end, *text] for text in texts])
        targets, _ = collate([[*text, end] for text in texts], pad_id=IGNORED)
        return input_ids.to(where), targets.to(where), mask.to(where)

    def evaluate(model: nn.Module) -> dict[str, float]:
        assert settings.batch_size is not None
        nats = torch.zeros((), dtype=torch.float64)
        for start in range(0, len(dev), settings.batch_size):
            check()
            with torch.no_grad(), device.accelerator.autocast():
                nats += model(*batch(dev[start : start + settings.batch_size])).cpu().double()
        n = sum(len(text) + 1 for text in dev)
        loss = float(nats) / n
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "n": n}

    def n_tokens(indices: list[int]) -> int:
        return sum(len(train[i]) + 1 for i in indices)

    rate = settings.lm_lr or settings.lr or 0.0
    return Job(
        model=model,
        optimizer=AdamW(optimizer_groups_of(gpt2.layer_groups(), model, settings, rate), lr=rate),
        n_examples=len(train),
        order=lambda epoch: epoch_order(seed, epoch, len(train)),
        name=lambda i: f"text {i + 1}",
        loss=lambda model, indices: model(*batch([train[i] for i in indices])),
        count_items=n_tokens,
        count_tokens=n_tokens,
        evaluate=evaluate,
        score="loss",
        save_best=gpt2.save_pretrained,
        schedule=make_schedule(replace(settings, epochs=settings.lm_epochs)),
        lower_is_better=True,
        unit="lm epoch",
    )
