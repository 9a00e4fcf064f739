"""AdamW, the optimizer's parameter groups, and learning-rate schedules."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw as torch_adamw

# ---------------------------------------------------------------------------------------------------------------------
# AdamW
# ---------------------------------------------------------------------------------------------------------------------


class AdamW(Optimizer):
    """Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019), as CS 224N asks for it.

    It follows the last paragraph of Kingma & Ba's section 2: the bias corrections are folded into the rate,
    ``lr * sqrt(1 - beta2^t) / (1 - beta1^t)``, so ``eps`` is added to the uncorrected root. The decay is applied after
    the update, with the group's rate: ``p <- p - lr * weight_decay * p``.

    Args:
        params: parameters, or groups with their own ``lr``, ``betas``, ``eps``, ``weight_decay``, ``correct_bias``.
        correct_bias: False leaves the bias corrections out, as BERT's original optimizer does.
        fused: None uses torch's fused kernel where it computes the same, False never does.

    Raises:
        ValueError: a setting outside its range.
        RuntimeError: a sparse gradient.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        fused: bool | None = None,
    ) -> None:
        if lr < 0.0:
            raise ValueError(f"lr must not be negative, not {lr}")
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), not {betas}")
        if eps < 0.0:
            raise ValueError(f"eps must not be negative, not {eps}")
        if weight_decay < 0.0:
            raise ValueError(f"weight_decay must not be negative, not {weight_decay}")
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, settings | {"correct_bias": correct_bias, "fused": fused})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for step, parameters in self._advance(group).items():
                fusible = []
                for parameter in parameters:
                    if self._can_fuse(parameter, group):
                        fusible.append(parameter)
                    else:
                        self._step(parameter, step, group)
                if fusible:
                    self._fused_step(fusible, step, group)
        return loss

    def _advance(self, group: dict[str, Any]) -> dict[int, list[Tensor]]:
        """Counts the step, creates missing state, and sorts a group's parameters by their number of steps.

        The numbers differ within a group once a parameter was frozen for a while.
        """
        by_step: dict[int, list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                raise RuntimeError("AdamW does not take sparse gradients")
            state = self.state[parameter]
            if not state:
                state["step"] = 0
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] += 1
            by_step[state["step"]].append(parameter)
        return by_step

    def _tensors(self, parameter: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Parameter, gradient and both averages; of a sharded parameter, this process's part of them."""
        state = self.state[parameter]
        assert parameter.grad is not None
        found = parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"]
        return tuple(x.to_local() if hasattr(x, "to_local") else x for x in found)  # type: ignore[return-value]

    def _step(self, parameter: Tensor, step: int, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        parameter, gradient, exp_avg, exp_avg_sq = self._tensors(parameter)
        exp_avg.mul_(beta1).add_(gradient, alpha=1 - beta1)
        exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        rate = group["lr"]
        if group["correct_bias"]:
            rate *= math.sqrt(1 - beta2**step) / (1 - beta1**step)
        parameter.addcdiv_(exp_avg, exp_avg_sq.sqrt().add_(group["eps"]), value=-rate)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])

    def _can_fuse(self, parameter: Tensor, group: dict[str, Any]) -> bool:
        """Whether torch's kernel computes the same for this parameter.

        The kernel runs through memory and ignores strides, so they must agree, and the way we hand it the decay needs
        lr * weight_decay < 1.
        """
        if group["fused"] is False or not group["correct_bias"] or group["lr"] * group["weight_decay"] >= 1.0:
            return False
        own, gradient, exp_avg, _ = self._tensors(parameter)
        return own.stride() == gradient.stride() == exp_avg.stride()

    def _fused_step(self, parameters: list[Tensor], step: int, group: dict[str, Any]) -> None:
        """The same step by torch's kernel, which reads and writes each tensor once.

        torch adds eps to the corrected root, sqrt(v) / sqrt(1 - beta2^t); dividing eps by the same factor gives our
        step. torch decays before the update, (1 - lr w) p - lr u; with its rate lowered to lr (1 - lr w), and the
        product lr w kept, that is our (1 - lr w) (p - lr u).
        """
        beta1, beta2 = group["betas"]
        kept = 1 - group["lr"] * group["weight_decay"]
        # The kernel is called after its counters were raised by one.
        steps = torch.full((len(parameters),), step - 1.0, dtype=torch.float32, device=parameters[0].device).unbind()
        own, gradients, exp_avgs, exp_avg_sqs = (
            list(column) for column in zip(*map(self._tensors, parameters), strict=True)
        )
        torch_adamw(
            own,
            gradients,
            exp_avgs,
            exp_avg_sqs,
            [],
            list(steps),
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"] * kept,
            weight_decay=group["weight_decay"] / kept,
            eps=group["eps"] / math.sqrt(1 - beta2**step),
        )


# ---------------------------------------------------------------------------------------------------------------------
# Parameter groups
# ---------------------------------------------------------------------------------------------------------------------


def parameter_groups(
    layer_groups: Mapping[str, list[nn.Parameter]],
    model: nn.Module,
    lr: float,
    weight_decay: float = 0.0,
    rate_factors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Optimizer groups from a model's own list of layer groups, trainable parameters only.

    Weight decay falls on the weights of linear maps and embeddings and on no bias or LayerNorm parameter: told by the
    module's type, never by a parameter's name. So a layer group gives up to two optimizer groups.

    Args:
        layer_groups: from the bottom up, as ``model.layer_groups()`` returns them.
        model: the model that owns the parameters.
        lr: the base rate.
        weight_decay: for the parameters that decay.
        rate_factors: layer group name -> factor on ``lr``; 1 where absent.

    Returns:
        Groups with ``params, name, lr, base_lr, weight_decay``.

    Raises:
        AssertionError: the layer groups overlap, or miss a trainable parameter; a factor's layer group does not exist.
    """
    factors = rate_factors or {}
    unknown = sorted(factors.keys() - layer_groups.keys())
    assert not unknown, f"no layer group is called {', '.join(map(repr, unknown))}"
    decaying = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | nn.Embedding)}
    groups = []
    for name, parameters in layer_groups.items():
        rate = lr * factors.get(name, 1.0)
        trainable = [p for p in parameters if p.requires_grad]
        for suffix, decay, members in (
            ("", weight_decay, [p for p in trainable if id(p) in decaying]),
            (" (biases, norms)", 0.0, [p for p in trainable if id(p) not in decaying]),
        ):
            if members:
                group = {"params": members, "name": name + suffix, "lr": rate, "base_lr": rate, "weight_decay": decay}
                groups.append(group)
    _assert_partition(groups, model)
    return groups


def layers_of(names: Iterable[str], n_groups: int | None = None) -> list[list[str]]:
    """A model's layer groups, sorted into the layers that rates and unfreezing step through, from the bottom up.

    Args:
        names: of the layer groups, as ``layer_groups()`` has them.
        n_groups: neighbouring blocks are joined into so many layers (at most one per block), the embeddings with the
            lowest; None or 0: each block is a layer, and so are the embeddings.

    Returns:
        Layers of names. The final norm is with the uppermost blocks, the head is the last layer.
    """
    names = list(names)
    blocks = [name for name in names if name.startswith("block ")]
    n_layers = min(n_groups or len(blocks), len(blocks))
    bounds = [round(i * len(blocks) / n_layers) for i in range(n_layers + 1)]
    layers = [blocks[start:stop] for start, stop in pairwise(bounds)]
    below = names[: names.index(blocks[0])]
    if n_groups:
        layers[0] = below + layers[0]
    else:
        layers.insert(0, below)
    layers[-1] = layers[-1] + ["final norm"]
    return [*layers, ["head"]] if "head" in names else layers


def geometric_rates(layers: list[list[str]], decay: float) -> dict[str, float]:
    """Discriminative rates: each layer has ``decay`` times the rate of the one above; the uppermost has factor 1.

    Howard & Ruder 2018, section 3.2, with decay 1 / 2.6; Clark et al. 2020 (ELECTRA), table 7, call it layer-wise
    learning-rate decay.
    """
    return {name: decay**depth for depth, layer in enumerate(reversed(layers)) for name in layer}


def zone_rates(names: Iterable[str], lower: float, upper: float, head: float) -> dict[str, float]:
    """Three zones: the lower half of the blocks with the embeddings, the upper half with the final norm, the head.

    Of an odd number of blocks the middle one is in the upper zone.
    """
    names = list(names)
    blocks = [name for name in names if name.startswith("block ")]
    in_upper = {*blocks[len(blocks) // 2 :], "final norm"}
    return {name: head if name == "head" else upper if name in in_upper else lower for name in names}


def _assert_partition(groups: list[dict[str, Any]], model: nn.Module) -> None:
    members = [id(parameter) for group in groups for parameter in group["params"]]
    grouped = set(members)
    assert len(members) == len(grouped), "a parameter is in two optimizer groups"
    missed = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in grouped]
    assert not missed, f"trainable parameters in no optimizer group: {', '.join(missed)}"


# ---------------------------------------------------------------------------------------------------------------------
# Schedules: progress in steps -> factor on the rate. Pure functions; step 0 is the first update.
# ---------------------------------------------------------------------------------------------------------------------

Schedule = Callable[[float, int], float]


def constant(step: float, total: int, warmup: int = 0) -> float:
    """1 throughout, after a linear warmup."""
    return _warmup(step, warmup) if step < warmup else 1.0


def linear(step: float, total: int, warmup: int = 0) -> float:
    """Linear warmup to 1, then linearly down; the step after the last would be 0."""
    if step < warmup:
        return _warmup(step, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def cosine(step: float, total: int, warmup: int = 0) -> float:
    """Linear warmup to 1, then half a cosine down towards 0 (Loshchilov & Hutter 2017, without restarts)."""
    if step < warmup:
        return _warmup(step, warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def warmup_stable_decay(step: float, total: int, warmup: int = 0, decay_share: float = 0.2) -> float:
    """Linear warmup to 1, constant, then 1 - sqrt(progress) over the last ``decay_share`` of the steps.

    Hu et al. 2024 (MiniCPM), section 4.2, with the shape of decay that Haegele et al. 2024, section 3.2, found best. A
    run can be prolonged from any point of its constant part.
    """
    start = total * (1.0 - decay_share)
    if step < warmup:
        return _warmup(step, warmup)
    return 1.0 if step < start else max(0.0, 1.0 - math.sqrt((step - start) / ((total - start) or 1)))


def slanted_triangular(step: float, total: int, cut_frac: float = 0.1, ratio: float = 32.0) -> float:
    """Slanted triangular rates (Howard & Ruder 2018, section 3.2, eq. 3), divided by their peak.

    Rises linearly from 1 / ratio over the first ``cut_frac`` of the steps (at least one), then falls back linearly.
    """
    cut = max(1, math.floor(total * cut_frac))
    p = step / cut if step < cut else 1.0 - (step - cut) / max(1, total - cut)
    return (1.0 + max(0.0, p) * (ratio - 1.0)) / ratio


def by_epoch(schedule: Schedule, step: float, total: int, epochs: int) -> float:
    """A schedule that moves once per epoch: all steps of an epoch have the factor of its first one."""
    epoch = min(math.floor(step * epochs / total), epochs - 1)
    return schedule(epoch, epochs)


def _warmup(step: float, warmup: int) -> float:
    return (step + 1) / (warmup + 1)


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "warmup-stable-decay": warmup_stable_decay,
    "slanted-triangular": slanted_triangular,
}
