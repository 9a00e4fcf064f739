"""LoRA: a frozen linear map plus a trained one of low rank (Hu et al. 2022, "LoRA: Low-Rank Adaptation of LLMs").

              x ──────── W, b (frozen) ────────┐
              │                                + ── y
              └─ dropout ─ A ── B ─ alpha / r ─┘

A reads ``n_embd`` numbers and writes r, B reads r and writes as many as W. B starts at zero, so a fresh adapter changes
nothing; after training its product is added to W (:func:`merge_lora`), and the model is as large and as fast as before.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import UserError
from modules.attention import CausalSelfAttention
from modules.dropout import Dropout

# Which of the three equal parts of c_attn's output, (query, key, value), have a product of their own. None: one product
# for the whole output.
LORA_TARGETS: dict[str, tuple[bool, ...] | None] = {"c_attn": None, "query-value": (True, False, True)}


class LoRALinear(nn.Linear):
    """y = W x + b + (alpha / rank) B A dropout(x), with W and b frozen (Hu et al. 2022, section 4.1).

    ``weight`` and ``bias`` keep their names, so the names of a checkpoint's tensors stay as they are. Where the output
    is made of parts, each adapted part has its own A and B. They are stored one below the other: ``lora_A.weight`` is
    (adapted parts * rank, in_features), ``lora_B.weight`` (adapted parts * part size, rank).

    A is drawn as ``nn.Linear`` draws its weights (He et al. 2015, uniform, a = sqrt(5)), B is zero.

    Args:
        linear: the map to adapt; its parameters are taken over and frozen.
        rank: r, from 1 to in_features.
        alpha: the numerator of the scale.
        dropout: the probability with which an input of A is dropped in training.
        parts: which of equally large parts of the output are adapted; None adapts the output as a whole.

    Raises:
        UserError: the rank does not fit, or alpha is not a positive number.
    """

    def __init__(
        self, linear: nn.Linear, rank: int, alpha: float, dropout: float = 0.0, parts: tuple[bool, ...] | None = None
    ) -> None:
        if not 1 <= rank <= linear.in_features:
            raise UserError(f"LoRA's rank is {rank}; it must be from 1 to the model's width, {linear.in_features}")
        if not 0.0 < alpha < math.inf:
            raise UserError(f"LoRA's alpha is {alpha}; it must be greater than 0")
        with torch.device("meta"):  # the weights are there already
            super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        self.rank, self.scaling = rank, alpha / rank
        self.parts = (True,) if parts is None else parts
        adapted, size = sum(self.parts), self.out_features // len(self.parts)
        like: dict[str, Any] = {"bias": False, "device": linear.weight.device, "dtype": linear.weight.dtype}
        self.dropout = Dropout(dropout)
        self.lora_A = nn.Linear(self.in_features, adapted * rank, **like)
        self.lora_B = nn.Linear(rank, adapted * size, **like)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features).

        In evaluation it is to the bit what the merged map gives, so that a score is that of the model that is saved.
        """
        if not self.training and not torch.is_grad_enabled():
            return F.linear(x, self.merged_weight(), self.bias)
        size = self.out_features // len(self.parts)
        outputs = list(F.linear(x, self.weight, self.bias).split(size, dim=-1))
        inner = self.lora_A(self.dropout(x)).split(self.rank, dim=-1)
        for part, low, matrix in zip(self._adapted(), inner, self.lora_B.weight.split(size), strict=True):
            outputs[part] = torch.add(outputs[part], F.linear(low, matrix), alpha=self.scaling)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)

    def _adapted(self) -> list[int]:
        return [part for part, adapted in enumerate(self.parts) if adapted]

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """W + (alpha / rank) B A, (out_features, in_features): the weight of a plain map with the same outputs."""
        size = self.out_features // len(self.parts)
        weight = self.weight.clone()
        pairs = zip(self._adapted(), self.lora_A.weight.split(self.rank), self.lora_B.weight.split(size), strict=True)
        with torch.autocast(weight.device.type, enabled=False):
            for part, lora_a, lora_b in pairs:
                weight[part * size : (part + 1) * size].addmm_(lora_b, lora_a, alpha=self.scaling)
        return weight

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}, scaling={self.scaling:g}, parts={self.parts}"


def add_lora(gpt2: nn.Module, rank: int, alpha: float, dropout: float = 0.0, targets: str = "c_attn") -> None:
    """Adapts each block's fused map to queries, keys and values, in place, and freezes every other parameter.

    Args:
        gpt2: a model without adapters; all of its parameters are frozen, so pass GPT-2 without the head.
        rank, alpha, dropout: as in :class:`LoRALinear`.
        targets: ``c_attn`` gives the fused map one product (what ``peft`` does by default), ``query-value`` gives the
            queries and the values a product each (Hu et al. 2022, section 4.2 and table 5).

    Raises:
        UserError: unknown targets, a rank that does not fit the width, or an alpha that is not positive.
        ValueError: the model has adapters already, or no attention to adapt.
    """
    if targets not in LORA_TARGETS:
        raise UserError(f"LoRA's targets {targets!r}: unknown; choose from {', '.join(LORA_TARGETS)}")
    attentions = _attentions(gpt2)
    if not attentions or any(isinstance(attention.c_attn, LoRALinear) for attention in attentions):
        raise ValueError("add_lora needs a GPT-2 without adapters")
    adapted = [LoRALinear(block.c_attn, rank, alpha, dropout, LORA_TARGETS[targets]) for block in attentions]
    gpt2.requires_grad_(False)
    for attention, c_attn in zip(attentions, adapted, strict=True):
        attention.c_attn = c_attn


def merge_lora(gpt2: nn.Module) -> None:
    """Adds each adapter's product to its weight, in place, and puts plain linear maps back; they stay frozen.

    The outputs are the same up to rounding. A model without adapters stays as it is.
    """
    for attention in _attentions(gpt2):
        adapted = attention.c_attn
        if isinstance(adapted, LoRALinear):
            with torch.device("meta"):
                plain = nn.Linear(adapted.in_features, adapted.out_features, bias=adapted.bias is not None)
            plain.weight, plain.bias = nn.Parameter(adapted.merged_weight(), requires_grad=False), adapted.bias
            attention.c_attn = plain.train(adapted.training)


def lora_state(gpt2: nn.Module) -> dict[str, Tensor]:
    """The adapters' own tensors under their names in the model, ``h.0.attn.c_attn.lora_A.weight`` and so on; copies.

    The scale is not among them: rank and alpha belong to the settings.
    """
    return {
        f"{name}.{matrix}.weight": getattr(module, matrix).weight.detach().cpu().clone()
        for name, module in gpt2.named_modules()
        if isinstance(module, LoRALinear)
        for matrix in ("lora_A", "lora_B")
    }


def _attentions(gpt2: nn.Module) -> list[CausalSelfAttention]:
    return [module for module in gpt2.modules() if isinstance(module, CausalSelfAttention)]
