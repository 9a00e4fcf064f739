"""How long a run will take on this machine, told from its arithmetic, before anything like it has run here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from training.terminal import duration

if TYPE_CHECKING:  # so that whoever only wants a number need not load torch
    from torch import nn

    from training.device import Device

# Of what matrix products reach, training steps get 37 % to 79 % on CPUs (RESULTS.md, docs/pretraining.md); small models
# on fast GPUs get less, and take longer than is said here.
REACHED = 0.5
LOADING = 10.0  # seconds, about, that every run takes however small it is
SAMPLE = 256  # texts whose tokens are counted
LITTLE_ARITHMETIC = ("embeddings", "prefix", "head")  # groups of layers whose weights few or no products read

_peaks: dict[tuple[str, str], float] = {}


def say_time(device: Device, flops: float, besides: str = "") -> None:
    """Says how long so much arithmetic takes, and what comes on top; the runner reads it."""
    from training.device import measure_matmul_peak

    kind = device.accelerator.device.type, device.precision
    if kind not in _peaks:  # half a second, which a process that checks many runs needs to spend only once
        _peaks[kind] = measure_matmul_peak(device)
    seconds = LOADING + flops / (REACHED * _peaks[kind] * device.world_size)
    device.say(
        f"time      about {duration(seconds)} on this machine, from {flops / 1e12:.3g} TFLOP of training{besides}"
    )


def training_flops(weights: int, train_tokens: float, dev_tokens: float, epochs: int, cost: float) -> float:
    """Floating-point operations of a fine-tuning run, those of dev after each epoch included, about.

    Two per token and weight forward, twice as many backward; attention's products, small where texts are short, and
    look-ups are not counted.

    Args:
        weights: that the state of each token is multiplied with.
        train_tokens, dev_tokens: that are read in an epoch.
        cost: of an epoch beside full fine-tuning's; below a forward pass where features are computed once for all.
    """
    return 2.0 * weights * epochs * (3 * cost * train_tokens + min(3 * cost, 1.0) * dev_tokens)


def weights_per_token(groups: Mapping[str, Sequence[nn.Parameter]], n_layer: int) -> int:
    """How many weights the state of a token is multiplied with: all but those of embeddings, a prefix and the head.

    Args:
        groups: the parameters by the names of their layers.
        n_layer: how often a block is gone through; ALBERT has one for all of them.
    """
    weights = {name: sum(p.numel() for p in group) for name, group in groups.items() if name not in LITTLE_ARITHMETIC}
    blocks = [weight for name, weight in weights.items() if name.startswith("block ")]
    repeats = max(1, n_layer // max(1, len(blocks)))
    return sum(weights.values()) + sum(blocks) * (repeats - 1)
