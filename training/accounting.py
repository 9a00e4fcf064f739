"""What a run costs, and what every run tells its user at its beginning and end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from models.gpt2 import GPT2Model
from models.sources import Checkpoint
from modules.prefix import Prefix
from storage import shown
from strategies import Strategy
from training.device import Device
from training.loop import Progress
from training.run_folder import RunFolder
from training.terminal import warn_once


class Run(Protocol):
    """What a classification and a writing run have in common, as far as it is told."""

    @property
    def task(self) -> str: ...
    @property
    def dataset(self) -> str: ...
    @property
    def strategy(self) -> Strategy: ...
    @property
    def model_name(self) -> str: ...
    @property
    def checkpoint(self) -> Checkpoint: ...
    @property
    def data_notes(self) -> tuple[str, ...]: ...
    @property
    def folder(self) -> RunFolder: ...


def announce(run: Run, device: Device) -> None:
    """The first lines of every fine-tuning run: what it is, on which device, from which model."""
    if device.warning and device.is_main:
        warn_once(device.warning)
    device.say(f"\n== {run.task} on {run.dataset}: {run.strategy.name} ({run.strategy.summary})")
    device.say(f"device    {device.description}")
    device.say(f"model     {run.model_name} ({run.checkpoint.origin}: {shown(run.checkpoint.folder)})")


def notes_of(run: Run) -> list[str]:
    """What the user should know of model and data, at the beginning and beside the results."""
    return [f"note: {note}" for note in (run.checkpoint.note, *run.data_notes) if note]


def overfitting_of(metrics: dict[str, Any]) -> list[str]:
    """That the epochs after the best one only fitted the training texts better, where the losses say so."""
    history = metrics["history"]
    best, last = next(entry for entry in history if entry["epoch"] == metrics["best_epoch"]), history[-1]
    before, after = best["dev"]["loss"], last["dev"]["loss"]
    if not (after > before and last["train_loss"] < best["train_loss"]):
        return []
    return [
        f"note: overfitting from epoch {best['epoch'] + 1} on: by the last one the training loss fell from "
        f"{best['train_loss']:.3f} to {last['train_loss']:.3f} and the dev loss rose from {before:.3f} to {after:.3f}; "
        f"epoch {best['epoch']} is kept"
    ]


def print_ending(run: Run, metrics: dict[str, Any], rate: str) -> None:
    """The last lines of every fine-tuning run: what it cost, what to know, and where everything is."""
    spent = metrics["cost"]
    print(
        f"{spent['train_seconds']:.0f} s of training ({rate}), {spent['total_seconds']:.0f} s in all, "
        f"{spent['peak_memory_bytes'] / 2**30:.1f} GiB at most, "
        f"{spent['trainable_parameters']:,} of {spent['total_parameters']:,} parameters trained"
    )
    print("\n".join([*notes_of(run), *overfitting_of(metrics), f"results: {shown(run.folder.path)}"]))


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all)."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def count_stored(trainable: int, gpt2: GPT2Model | None = None) -> int:
    """What has to be kept beside the pretrained model: all that trained, but the keys and values alone of a prefix."""
    prefix = None if gpt2 is None else gpt2.prefix
    if gpt2 is None or not isinstance(prefix, Prefix):
        return trainable
    return trainable - count_parameters(prefix)[1] + 2 * gpt2.config.n_layer * prefix.length * gpt2.config.n_embd


def cost(
    progress: Progress,
    seconds_since_fit: float,
    trainable: int,
    total: int,
    stored: int,
    peak_memory: int,
    lm_stage: Mapping[str, Any] | None = None,
) -> dict[str, float | int]:
    """What the run cost. Rates count examples over the seconds spent in training steps alone.

    Args:
        peak_memory: in bytes, before pictures are drawn.
        lm_stage: the metrics of a stage of language modelling before, whose time is part of the run's; the rates are
            those of what came after it.
    """
    seconds = max(progress.train_seconds, 1e-9)
    stage = lm_stage or {"history": [], "seconds": 0.0}
    stage_training = sum(entry["seconds"] for entry in stage["history"])
    return {
        "train_seconds": round(stage_training + progress.train_seconds, 3),
        "total_seconds": round(stage["seconds"] + progress.total_seconds + seconds_since_fit, 3),
        "examples_per_second": round(progress.examples / seconds, 2),
        "tokens_per_second": round(progress.tokens / seconds, 1),
        "peak_memory_bytes": peak_memory,
        "trainable_parameters": trainable,
        "total_parameters": total,
        "stored_parameters": stored,
    }
