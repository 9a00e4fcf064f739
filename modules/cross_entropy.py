"""Next-token cross-entropy without the whole (tokens, vocabulary) matrix of logits.

A language model's logits are its largest tensor by far: 8,192 tokens of GPT-2's vocabulary take 1.6 GB in fp32, and as
much again for their gradient. Here they are made, and turned into gradients, a slice of the tokens at a time.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

IGNORED = -100  # a target that counts for nothing
LEAST_COMPLEMENT = 1e-5  # of 1 - p, whose logarithm has no bound
SLICE_ELEMENTS = 2**22  # logits at a time: few enough for a CPU's cache, enough for a fast matrix product
GPU_SLICE_ELEMENTS = 2**27
FP16_ROOM = 2.0**15  # half of fp16's range, so that rounding can't leave it


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, candidates: Tensor | None = None, alpha: float = 1.0
) -> Tensor:
    """The sum of -log softmax(hidden @ weight^T)[target] over all tokens; with candidates, unlikelihood is added.

    Products are computed in autocast's type where it is on, sums and logarithms always in fp32. The gradients that are
    needed are made in the forward pass, while a slice's logits are at hand, so that nothing is computed twice.

    Args:
        hidden: (N, n_embd).
        weight: (vocab_size, n_embd), the tied embedding.
        targets: (N,) token ids; :data:`IGNORED` counts for nothing.
        candidates: (N, C) distinct token ids that each step should not say, :data:`IGNORED` where there are fewer; see
            :mod:`modules.unlikelihood`.
        alpha: the weight of -sum log(1 - p(candidate)), where 1 - p is at least :data:`LEAST_COMPLEMENT`.

    Returns:
        A scalar, fp32.
    """
    if not torch.is_grad_enabled():  # which is not to be seen inside of a Function
        hidden, weight = hidden.detach(), weight.detach()
    return _LinearCrossEntropy.apply(hidden, weight, targets, candidates, alpha)


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Each token's loss, for evaluation.

    Returns:
        (N,) losses in nats, fp32, and (N,) whether the target is the likeliest token; 0 and False where ignored.
    """
    dtype = _product_type(hidden)
    weight = weight.to(dtype)
    losses, hits = [], []
    for rows, ids in _slices(hidden, weight, targets):
        logits = (rows.to(dtype) @ weight.t()).float()
        chosen = logits.gather(1, ids.clamp(min=0)[:, None]).squeeze(1)
        losses.append((logits.logsumexp(dim=-1) - chosen).masked_fill(ids == IGNORED, 0.0))
        hits.append(logits.argmax(dim=-1) == ids)
    return torch.cat(losses), torch.cat(hits)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, candidates: Tensor | None, alpha: float
    ) -> Tensor:
        dtype = _product_type(hidden)
        rows, matrix = hidden.to(dtype), weight.to(dtype)
        of_hidden, of_weight, *_ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(rows) if of_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if of_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        start = 0
        for part, ids in _slices(rows, matrix, targets):
            if not len(ids):  # nothing at all counts
                break
            stop = start + len(ids)
            logits = (part @ matrix.t()).float()  # (slice, vocab_size)
            ignored = ids == IGNORED
            column = ids.clamp(min=0)[:, None]
            chosen = logits.gather(1, column)
            highest = logits.amax(dim=-1, keepdim=True)
            powers = logits.sub_(highest).exp_()
            normalizer = powers.sum(dim=-1, keepdim=True)
            total += (normalizer.log() + highest - chosen).masked_fill(ignored[:, None], 0.0).sum()
            counts = (~ignored).float()[:, None]
            pull, places = None, None
            if candidates is not None:
                loss, pull, places = _unlikelihood(powers, normalizer, candidates[start:stop], alpha)
                total += loss
            if of_hidden or of_weight:
                # d loss / d logits = softmax - one-hot; of -log(1 - p) for c: p / (1 - p) * (one-hot of c - softmax).
                scale = counts if pull is None else counts - pull.sum(dim=-1, keepdim=True)
                grad = powers.mul_(scale / normalizer).scatter_add_(1, column, -counts)
                if pull is not None and places is not None:
                    grad.scatter_add_(1, places, pull)
                grad = grad.to(dtype)
                if grad_hidden is not None:
                    torch.mm(grad, matrix, out=grad_hidden[start:stop])
                if grad_weight is not None and dtype == grad_weight.dtype:  # without a copy of the whole embedding
                    torch.addmm(grad_weight, grad.t(), part, out=grad_weight)
                elif grad_weight is not None:
                    grad_weight += _sum_in_range(grad, part) if dtype == torch.float16 else grad.t() @ part
            start = stop
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = [
            None if own is None else (own * grad).to(dtype)
            for own, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *found, None, None, None


def _sum_in_range(grad: Tensor, part: Tensor) -> Tensor:
    """grad^T @ part as fp32, in fp16 products: such a sum over thousands of tokens could leave the type's range.

    No loss scale would help, because it enters after the sum. So ``part`` is divided by a power of two where it has to
    be, and the result multiplied by it.
    """
    most = len(part) * torch.linalg.vector_norm(grad, math.inf).float() * torch.linalg.vector_norm(part, math.inf)
    power = (most / FP16_ROOM).log2().ceil().clamp(min=0.0).exp2()
    return (grad.t() @ (part / power)).float() * power


def _unlikelihood(
    powers: Tensor, normalizer: Tensor, candidates: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of a slice's candidates, alpha * p / (1 - p) of each, and their places in the vocabulary."""
    places = candidates.clamp(min=0)
    p = (powers.gather(1, places) / normalizer).masked_fill(candidates == IGNORED, 0.0)
    complement = 1.0 - p
    bounded = complement.clamp(min=LEAST_COMPLEMENT)
    pull = (alpha * p / bounded).masked_fill(complement < LEAST_COMPLEMENT, 0.0)
    return -alpha * bounded.log().sum(), pull, places


def _slices(hidden: Tensor, weight: Tensor, targets: Tensor) -> zip:
    elements = SLICE_ELEMENTS if hidden.device.type == "cpu" else GPU_SLICE_ELEMENTS
    size = max(1, elements // len(weight))
    return zip(hidden.split(size), targets.split(size), strict=True)


def _product_type(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
