"""Dropout (Srivastava et al. 2014), with a faster source of randomness on CPU.

On CPU ``F.dropout`` draws one double per element, which costs more than GPT-2's LayerNorms and GELUs together. Here
one 64-bit draw decides four elements, 15 bits each: the drop probability is rounded to a multiple of 2^-15 (0.1
becomes 0.100006), and the kept elements are scaled by exactly the inverse of the kept share, so the expectation is
unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ONE_IN_BITS = {torch.bfloat16: 0x3F80, torch.float16: 0x3C00}


class Dropout(nn.Module):
    """In training, zeroes elements with probability ``p`` and scales the others by 1 / (1 - p); else the identity."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout probability must be in [0, 1), not {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return _CPUDropout.apply(x, self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _CPUDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        threshold = min(round(p * 2**15), 2**15 - 1)
        keep = _keep_mask(x.shape, x.dtype, threshold)
        ctx.save_for_backward(keep)
        ctx.scale = 1.0 / (1.0 - threshold / 2**15)
        return torch.mul(x, keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return torch.mul(grad, keep).mul_(ctx.scale), None


def _keep_mask(shape: torch.Size, dtype: torch.dtype, threshold: int) -> Tensor:
    """A tensor of ones and zeros, zero with probability ``threshold / 2**15``, from torch's default generator."""
    count = shape.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.int16)[:count].view(shape).bitwise_and_(0x7FFF)
    # All ones where threshold <= draw, else zero: the sign bit of the difference, spread over the word. Bit patterns
    # instead of a comparison, because converting booleans to bfloat16 is slow.
    bits = draws.neg_().add_(threshold - 1).bitwise_right_shift_(15)
    if dtype in _ONE_IN_BITS:
        return bits.bitwise_and_(_ONE_IN_BITS[dtype]).view(dtype)
    return bits.to(dtype).neg_()
