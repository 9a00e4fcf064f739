"""Linear maps for inference, with the weight in the order in which the processor reads it.

A step of generation multiplies every weight with the states of a few tokens. On CPU the general product spends most of
such a step on rearranging the weight for its inner loop; oneDNN lets that be done once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """x W^T + b for fixed weights, or GELU of it: on CPU packed by oneDNN, elsewhere plain.

    What is packed is a copy. In fp32 the weight itself is used for a single row, whose product reads it in any order as
    fast. Neither is a parameter or in the state_dict.

    Args:
        weight: (out_features, in_features).
        bias: (out_features,) or None.
        dtype: of the product; inputs are converted to it.
        gelu: whether the tanh form of GELU follows, which oneDNN applies while the product is still in registers.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, gelu: bool = False) -> None:
        super().__init__()
        self.dtype = dtype
        self.gelu = gelu
        self.weight: Tensor | None = weight.detach().to(dtype)
        self.packed: Tensor | None = None
        if can_pack(weight.device, dtype):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), None)
            self.weight = self.weight if dtype == torch.float32 else None
        self.bias = None if bias is None else bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features), in the map's type."""
        x = x.to(self.dtype)
        is_row = x.numel() == x.shape[-1]
        if self.weight is not None and (is_row or self.packed is None):
            product = F.linear(x, self.weight, self.bias)
            return F.gelu(product, approximate="tanh") if self.gelu else product
        then, form = ("gelu", "tanh") if self.gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, then, [], form)


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN takes products of this type on this device."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
