"""What a run costs, and what its user is told once."""

from __future__ import annotations

import sys
from functools import cache

from torch import nn

from training.device import Device
from training.loop import Progress


@cache
def warn_once(warning: str) -> None:
    """Every dataset is a run of its own, but the user needs to be told once."""
    print(f"warning: {warning}", file=sys.stderr)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all)."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


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
