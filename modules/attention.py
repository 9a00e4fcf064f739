"""Causal multi-head self-attention (Vaswani et al. 2017, section 3.2; GPT-2's form: Radford et al. 2019).

:func:`softmax_attention` is the definition, to be read. The functions after it compute the same faster; the tests
hold them to it, dropout included.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from config import GPT2Config
from modules.cache import Window
from modules.dropout import Dropout
from modules.layout import TokenLayout, take_rows

Attention = Callable[[Tensor, Tensor, Tensor, Dropout], Tensor]
KeyValue = tuple[Tensor, Tensor]


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, dropout: Dropout) -> Tensor:
    """softmax(Q K^T / sqrt(head_dim)) V, where a position sees itself and what came before it.

    The queries are those of the last T of S positions; the S - T keys before them are seen by all.

    Args:
        query: (B, n_head, T, head_dim).
        key, value: (B, n_head, S, head_dim), S >= T.
        dropout: applied to the attention weights.

    Returns:
        (B, n_head, T, head_dim).
    """
    length, head_dim = query.shape[-2:]
    before = key.shape[-2] - length
    scores = query @ key.transpose(-1, -2) / math.sqrt(head_dim)  # (B, n_head, T, before + T)
    future = torch.ones(length, before + length, dtype=torch.bool, device=query.device).triu(diagonal=before + 1)
    weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
    return dropout(weights) @ value


def batched_attention(query: Tensor, key: Tensor, value: Tensor, dropout: Dropout) -> Tensor:
    """The same with scale, mask and product in one call: the fastest on CPU in bfloat16 and with dropout."""
    batch, heads, length, head_dim = query.shape
    before = key.shape[-2] - length
    q, k, v = (rearrange(x, "b h t d -> (b h) t d") for x in (query, key, value))
    causal = torch.full((length, before + length), float("-inf"), dtype=q.dtype, device=q.device)
    causal.triu_(diagonal=before + 1)
    scores = torch.baddbmm(causal, q, k.transpose(1, 2), alpha=1.0 / math.sqrt(head_dim))
    weights = dropout(scores.softmax(dim=-1).to(v.dtype))
    return torch.bmm(weights, v).view(batch, heads, length, head_dim)


def fused_attention(query: Tensor, key: Tensor, value: Tensor, dropout: Dropout) -> Tensor:
    """The same by torch's fused kernel, which need not store the (T, S) weights.

    The kernel's own causal mask is the fastest, but lets the first query see the first key alone; so where keys come
    before the queries, the mask is given. A single query sees all keys and needs none.
    """
    length, before = query.shape[-2], key.shape[-2] - query.shape[-2]
    p = dropout.p if dropout.training else 0.0
    if before == 0:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
    seen = None
    if length > 1:
        seen = torch.ones(length, before + length, dtype=torch.bool, device=query.device).tril(diagonal=before)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=p)


def masked_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The same without dropout, where a mask says which keys each query sees: texts of unequal length in one batch.

    Args:
        query: (B, n_head, T, head_dim).
        key, value: (B, n_head, S, head_dim).
        mask: (B, 1, T, S), 0 where a query sees a key and -inf where not, in the type of the query; each sees some.
    """
    if query.device.type == "cpu" and (query.dtype != torch.float32 or query.shape[-2] == 1):
        scores = torch.matmul(query, key.transpose(-1, -2)).mul_(1.0 / math.sqrt(query.shape[-1])).add_(mask)
        return torch.matmul(scores.softmax(dim=-1), value)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def choose_attention(query: Tensor, dropout: Dropout) -> Attention:
    """The best form for a device and type: ``benchmarks/attention.py`` prints the measurements behind the rule.

    On CPU torch's kernel is slow in bfloat16, and with dropout it falls back to separate steps. In fp32 without dropout
    it is the fastest without gradients; with them it costs up to 16 % more below 1,024 tokens, but a fraction of the
    memory. For a single query, a step of generation, two batched products are some percent faster.
    """
    drops = dropout.training and dropout.p > 0.0
    if query.device.type == "cpu" and (drops or query.dtype != torch.float32 or query.shape[-2] == 1):
        return batched_attention
    return fused_attention


class CausalSelfAttention(nn.Module):
    """One fused map to queries, keys and values (``c_attn``), attention per head, and the output map (``c_proj``)."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.attn_dropout = Dropout(config.attn_pdrop)
        self.resid_dropout = Dropout(config.resid_pdrop)

    def forward(
        self, x: Tensor, layout: TokenLayout, prefix: KeyValue | None = None, wanted: Tensor | None = None
    ) -> Tensor:
        """(N, n_embd) packed tokens -> (N, n_embd), or (W, n_embd).

        Args:
            prefix: a key and a value (n_head, P, head_dim) that stand before those of every sequence.
            wanted: (W,) the packed rows whose output is needed, each once; None means all.
        """
        attended = [self._attend(group, prefix) for group in layout.to_groups(self.c_attn(x))]
        return self.resid_dropout(self.c_proj(take_rows(layout.from_groups(attended), wanted)))

    def _attend(self, qkv: Tensor, prefix: KeyValue | None) -> Tensor:
        """One group: (sequences, length, 3 * n_embd) -> (sequences, length, n_embd)."""
        query, key, value = rearrange(qkv, "b t (three h d) -> three b h t d", three=3, h=self.n_head)
        if prefix is not None:
            key, value = _prepend(prefix[0], key), _prepend(prefix[1], value)
        attention = choose_attention(query, self.attn_dropout)
        return rearrange(attention(query, key, value, self.attn_dropout), "b h t d -> b t (h d)")

    def extend(self, x: Tensor, window: Window, block: int) -> Tensor:
        """The same for the next tokens of texts whose keys and values are in a cache, which gets those of the new ones.

        Args:
            x: (N, n_embd), the states of the window's tokens.
            window: where they stand.
            block: the number of this block, from 0.

        Returns:
            (N, n_embd).
        """
        # Views by torch itself: einops' own work, twice per block and token, is noticeable here.
        qkv = window.spread(self.c_attn(x))  # (B, T, 3 * n_embd)
        qkv = qkv.view(*qkv.shape[:2], 3, self.n_head, -1).permute(2, 0, 3, 1, 4)  # (3, B, n_head, T, head_dim)
        query = qkv[0]
        key, value = window.store(block, qkv[1:])
        if window.mask is not None:
            attended = masked_attention(query, key, value, window.mask)
        else:
            attended = choose_attention(query, self.attn_dropout)(query, key, value, self.attn_dropout)
        return self.resid_dropout(self.c_proj(window.pack(attended.transpose(1, 2).flatten(2))))


def _prepend(prefix: Tensor, own: Tensor) -> Tensor:
    """(n_head, P, head_dim) before each sequence of (B, n_head, T, head_dim) -> (B, n_head, P + T, head_dim)."""
    return torch.cat([prefix.to(own.dtype).expand(len(own), -1, -1, -1), own], dim=2)
