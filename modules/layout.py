"""Where a padded batch's real tokens are, so that padding is never computed.

A batch enters the model as a rectangle, padded on either side:

    input_ids        a b c . .        attention_mask   1 1 1 0 0
                     d . . . .                         1 0 0 0 0
                     . e f g h                         0 1 1 1 1

Everything that works position by position (LayerNorm, the linear maps, GELU, dropout) runs on the *packed* tokens
``d a b c e f g h``: one row per real token, sequence after sequence, shortest first. Only attention looks across
positions. It gets the sequences in *groups* whose lengths round up to the same multiple of a step (2 in this picture,
16 on CPU), each group a small rectangle padded on the right:

    group 1   d           group 2   a b c .
                                    e f g h

Padding on the right needs no mask of its own: a causal query never looks to its right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenLayout:
    """The index tensors that move between the rectangle (B, T), the packed tokens (N) and the groups (P >= N).

    Attributes:
        batch_size: B.
        width: T.
        token_index: (N,) the packed tokens' places in the flattened rectangle.
        position_ids: (N,) each token's position in its own sequence, from 0.
        last_index: (B,) the packed row of each sequence's last real token, in the batch's order.
        groups: (number of sequences, length) of each attention group.
        group_index: (N,) the packed tokens' places in the flattened groups; None where that is the identity.
        group_size: P, the rows of all groups together.
    """

    batch_size: int
    width: int
    token_index: Tensor
    position_ids: Tensor
    last_index: Tensor
    groups: tuple[tuple[int, int], ...]
    group_index: Tensor | None
    group_size: int

    @classmethod
    def of_batch(cls, input_ids: Tensor, attention_mask: Tensor | None = None) -> TokenLayout:
        """The layout of token ids (B, T) and their mask (B, T); None means that all are real.

        Raises:
            ValueError: the two differ in shape, or as :meth:`from_mask` has it.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask {tuple(attention_mask.shape)} and input_ids {tuple(input_ids.shape)} differ in shape"
            )
        return cls.from_mask(attention_mask)

    @classmethod
    def from_mask(cls, attention_mask: Tensor) -> TokenLayout:
        """Reads the layout off an attention mask (B, T) of ones (real tokens) and zeros (padding).

        Raises:
            ValueError: the mask is not a rectangle, or a sequence has no real token.
        """
        if attention_mask.dim() != 2:
            raise ValueError(f"attention_mask must be (batch, tokens), not {tuple(attention_mask.shape)}")
        device = attention_mask.device
        mask = attention_mask.bool().cpu()
        batch_size, width = mask.shape
        lengths = mask.sum(dim=1)
        if batch_size == 0 or int(lengths.min()) == 0:
            raise ValueError("every sequence of a batch needs at least one real token (attention_mask 1)")

        order = lengths.argsort(stable=True)
        sorted_lengths = lengths[order]
        rank, column = mask[order].nonzero(as_tuple=True)
        starts = sorted_lengths.cumsum(0) - sorted_lengths
        position_ids = torch.arange(len(rank)) - starts[rank]
        last_index = torch.empty_like(order)
        last_index[order] = starts + sorted_lengths - 1

        # A kernel launch per group costs more on a GPU than a few padded positions do.
        groups = _group_lengths(sorted_lengths.tolist(), step=16 if device.type == "cpu" else 128)
        row_starts: list[int] = []
        offset = 0
        for count, length in groups:
            row_starts.extend(offset + length * i for i in range(count))
            offset += count * length
        group_index = torch.tensor(row_starts)[rank] + position_ids
        return cls(
            batch_size=batch_size,
            width=width,
            token_index=(order[rank] * width + column).to(device),
            position_ids=position_ids.to(device),
            last_index=last_index.to(device),
            groups=groups,
            group_index=None if offset == len(rank) else group_index.to(device),
            group_size=offset,
        )

    def pack(self, rectangle: Tensor) -> Tensor:
        """(B, T) -> (N,): the real tokens of a rectangle."""
        return rectangle.reshape(-1).index_select(0, self.token_index)

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, d) -> (B, T, d), zero at padding."""
        rectangle = packed.new_zeros(self.batch_size * self.width, packed.shape[-1])
        return rectangle.index_copy(0, self.token_index, packed).view(self.batch_size, self.width, -1)

    def last(self, packed: Tensor) -> Tensor:
        """(N, d) -> (B, d): each sequence's last real token."""
        return take_rows(packed, self.last_index)

    def to_groups(self, packed: Tensor) -> list[Tensor]:
        """(N, d) -> one (sequences, length, d) per group; zero in the padded places."""
        flat = packed if self.group_index is None else _Spread.apply(packed, self.group_index, self.group_size)
        sizes = [count * length for count, length in self.groups]
        return [
            part.view(count, length, -1) for part, (count, length) in zip(flat.split(sizes), self.groups, strict=True)
        ]

    def from_groups(self, groups: list[Tensor]) -> Tensor:
        """The inverse of :meth:`to_groups`: -> (N, d)."""
        flat = torch.cat([group.flatten(0, 1) for group in groups]) if len(groups) > 1 else groups[0].flatten(0, 1)
        return take_rows(flat, self.group_index)


def take_rows(packed: Tensor, rows: Tensor | None) -> Tensor:
    """(N, d), (W,) -> (W, d): some rows, each at most once; None means all."""
    return packed if rows is None else _Gather.apply(packed, rows)


def _group_lengths(sorted_lengths: list[int], step: int) -> tuple[tuple[int, int], ...]:
    """Cuts ascending lengths into groups that share ``ceil(length / step)``; a group is as long as its longest."""
    groups: list[tuple[int, int]] = []
    bucket = None
    for length in sorted_lengths:
        if -(-length // step) == bucket:
            groups[-1] = (groups[-1][0] + 1, length)
        else:
            bucket = -(-length // step)
            groups.append((1, length))
    return tuple(groups)


class _Spread(torch.autograd.Function):
    """Rows to distinct places of a larger, zeroed tensor. Its gradient is a plain look-up.

    autograd's own formula for ``index_copy`` would copy the zeros' gradient as well.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(index)
        return rows.new_zeros(size, rows.shape[-1]).index_copy_(0, index, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return grad.index_select(0, index), None, None


class _Gather(torch.autograd.Function):
    """The inverse of :class:`_Spread`: each place is read once, so the gradient needs no (slow) accumulation."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = flat.shape[0]
        return flat.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return grad.new_zeros(ctx.size, grad.shape[-1]).index_copy_(0, index, grad), None
