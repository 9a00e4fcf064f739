"""Next-token cross-entropy without the whole (tokens, vocabulary) matrix of logits.

A language model's logits are its largest tensor by far: 8,192 tokens of GPT-2's vocabulary take 1.6 GB in fp32, and as
much again for their gradient. Here they are made, and turned into gradients, a slice of the tokens at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORED = -100  # a target that counts for nothing
SLICE_ELEMENTS = 2**22  # logits at a time: few enough for a CPU's cache, enough for a fast matrix product
GPU_SLICE_ELEMENTS = 2**27


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The sum of -log softmax(hidden @ weight^T)[target] over all tokens.

    Products are computed in autocast's type where it is on, sums and logarithms always in fp32. The gradients are
    made in the forward pass, while a slice's logits are at hand, so that nothing is computed twice.

    Args:
        hidden: (N, n_embd).
        weight: (vocab_size, n_embd), the tied embedding.
        targets: (N,) token ids; :data:`IGNORED` counts for nothing.

    Returns:
        A scalar, fp32.
    """
    return _LinearCrossEntropy.apply(hidden, weight, targets)


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
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        dtype = _product_type(hidden)
        rows, matrix = hidden.to(dtype), weight.to(dtype)
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_hidden = torch.empty_like(rows) if wanted else None
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if wanted else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        start = 0
        for part, ids in _slices(rows, matrix, targets):
            logits = (part @ matrix.t()).float()  # (slice, vocab_size)
            ignored = ids == IGNORED
            column = ids.clamp(min=0)[:, None]
            chosen = logits.gather(1, column)
            highest = logits.amax(dim=-1, keepdim=True)
            powers = logits.sub_(highest).exp_()
            normalizer = powers.sum(dim=-1, keepdim=True)
            total += (normalizer.log() + highest - chosen).masked_fill(ignored[:, None], 0.0).sum()
            if grad_hidden is not None and grad_weight is not None:
                # d loss / d logits = softmax - one-hot
                counts = (~ignored).float()[:, None]
                grad = powers.mul_(counts / normalizer).scatter_add_(1, column, -counts).to(dtype)
                torch.mm(grad, matrix, out=grad_hidden[start : start + len(ids)])
                grad_weight += grad.t() @ part
            start += len(ids)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (grad_hidden * grad).to(ctx.dtypes[0]), (grad_weight * grad).to(ctx.dtypes[1]), None


def _slices(hidden: Tensor, weight: Tensor, targets: Tensor) -> zip:
    elements = SLICE_ELEMENTS if hidden.device.type == "cpu" else GPU_SLICE_ELEMENTS
    size = max(1, elements // len(weight))
    return zip(hidden.split(size), targets.split(size), strict=True)


def _product_type(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
