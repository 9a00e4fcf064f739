"""Keys and values of tokens that were read, kept so that a text is continued without reading it again.

A row per text, aligned on the left: the key of a text's position p stands at place p, those of a trained prefix first.
So texts of unequal length share a batch, a row is copied or dropped without a look at the others, and what stands
beyond a text's length is overwritten by what comes next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from config import GPT2Config

CHUNK = 64  # places by which a cache grows


class Cache:
    """The keys and values of a batch of texts in every block.

    Args:
        config: of the model.
        batch_size: B, at least 1.
        capacity: places per text that are reserved from the beginning; more are added as they are needed.
        dtype, device: of keys and values.

    Attributes:
        states: (n_layer, 2, B, n_head, capacity, head_dim), keys before values; finite everywhere.
        lengths: the positions in use of each text, those of a prefix included.
    """

    def __init__(
        self, config: GPT2Config, batch_size: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.lengths = [0] * batch_size
        shape = (config.n_layer, 2, batch_size, config.n_head, _rounded(capacity), config.head_dim)
        self.states = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def batch_size(self) -> int:
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        return self.states.shape[4]

    def select(self, rows: Sequence[int]) -> Cache:
        """A cache of the texts ``rows``, in that order; a row may occur several times, to continue it several ways.

        What happens to one of the caches afterwards does not reach the other, except where all rows are selected in
        their order: then it is the same cache.
        """
        if list(rows) == list(range(self.batch_size)):
            return self
        return self.copy(rows)

    def copy(self, rows: Sequence[int]) -> Cache:
        """:meth:`select` where the cache is needed afterwards too: never the same one."""
        copied = object.__new__(Cache)
        copied.lengths = [self.lengths[row] for row in rows]
        copied.states = self.states.index_select(2, torch.tensor(list(rows), device=self.states.device))
        return copied

    def cut(self, lengths: Sequence[int]) -> None:
        """Forgets what comes after the given number of positions of each text, in place.

        Raises:
            ValueError: not one length per text, or one that is negative or greater than the text's.
        """
        if len(lengths) != self.batch_size or any(
            not 0 <= new <= old for new, old in zip(lengths, self.lengths, strict=True)
        ):
            raise ValueError(f"a cache of texts with {self.lengths} positions can't be cut to {list(lengths)}")
        self.lengths = list(lengths)

    def reserve(self, width: int) -> None:
        """Makes room for texts of ``width`` positions."""
        if width > self.capacity:
            shape = list(self.states.shape)
            shape[4] = _rounded(width) - self.capacity
            self.states = torch.cat([self.states, self.states.new_zeros(shape)], dim=4)

    def begin_with(self, prefix: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Puts each block's trained key and value (n_head, P, head_dim) before every text; the cache must be empty."""
        length = prefix[0][0].shape[1]
        self.reserve(length)
        for block, (key, value) in enumerate(prefix):
            self.states[block, 0, :, :, :length] = key.to(self.states.dtype)
            self.states[block, 1, :, :, :length] = value.to(self.states.dtype)
        self.lengths = [length] * self.batch_size

    def window(self, counts: Sequence[int]) -> Window:
        """Where the next ``counts[i]`` tokens of text i stand; they count as read when :meth:`advance` is called."""
        starts, width = self.lengths, max(counts)
        end = max(start + width for start in starts)
        self.reserve(end)
        device = self.states.device
        offsets = torch.arange(width, device=device)
        begin = torch.tensor(starts, device=device)[:, None]
        positions = begin + offsets  # (B, T)
        mask = None
        if min(starts) != max(starts):
            future = torch.arange(end, device=device) > positions[:, None, :, None]  # (B, 1, T, S)
            mask = torch.zeros(future.shape, dtype=self.states.dtype, device=device).masked_fill_(future, -math.inf)
        real = None
        if min(counts) != width:
            real = (offsets < torch.tensor(counts, device=device)[:, None]).flatten().nonzero().squeeze(1)
        return Window(self, positions, self._places(positions), end, mask, real)

    def branches(self, counts: Sequence[int]) -> Window:
        """Where alternative continuations of a single text stand, of ``counts[i]`` tokens each, one after the other.

        Each sees the text and itself. They are no part of the text: :meth:`advance` must not follow.
        """
        (start,), total = self.lengths, sum(counts)
        self.reserve(start + total)
        device = self.states.device
        branch = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        seen = (branch[:, None] == branch).tril()
        own = torch.zeros(total, total).masked_fill_(~seen, -math.inf)
        mask = torch.cat([torch.zeros(total, start), own], dim=1).to(device, self.states.dtype)
        positions = start + torch.cat([torch.arange(count) for count in counts]).to(device)[None]
        places = self._places(start + torch.arange(total, device=device)[None])
        return Window(self, positions, places, start + total, mask[None, None], None)

    def advance(self, counts: Sequence[int]) -> None:
        """Counts the next ``counts[i]`` tokens of text i as read."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def _places(self, positions: Tensor) -> Tensor:
        """(B, T) -> (2 * B * n_head * T,): the rows of a block's flattened keys and values."""
        shape = self.states.shape[1:4]
        first = torch.arange(shape.numel(), device=positions.device).view(*shape, 1)
        return (first * self.capacity + positions[:, None]).flatten()


@dataclass(frozen=True)
class Window:
    """The places of T tokens of each text of a cache, for one pass through the model.

    Attributes:
        cache: the cache.
        positions: (B, T) their positions in the text, from 0, a prefix included.
        places: (2 * B * n_head * T,) their rows in a block's flattened keys and values.
        width: S, the places that attention looks at.
        mask: (B, 1, T, S), 0 where a token looks and -inf where not; None where all texts are equally long and each
            token sees all places up to its own.
        real: (N,) which of the flattened (B, T) are tokens; None means all. The others are computed by attention alone.
    """

    cache: Cache
    positions: Tensor
    places: Tensor
    width: int
    mask: Tensor | None
    real: Tensor | None

    def spread(self, packed: Tensor) -> Tensor:
        """(N, d) -> (B, T, d), zero where there is no token."""
        shape = (*self.positions.shape, packed.shape[-1])
        if self.real is None:
            return packed.view(shape)
        return packed.new_zeros(shape).view(-1, shape[-1]).index_copy_(0, self.real, packed).view(shape)

    def pack(self, rectangle: Tensor) -> Tensor:
        """(B, T, d) or (B, T) -> (N, d) or (N,)."""
        flat = rectangle.flatten(0, 1)
        return flat if self.real is None else flat.index_select(0, self.real)

    def store(self, block: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps a block's new keys and values (2, B, n_head, T, head_dim); returns all that are read.

        What is returned are two (B, n_head, S, head_dim). Places without a token get something too, which a later
        token overwrites before it is looked at.
        """
        states = self.cache.states[block]
        flat = states.view(-1, states.shape[-1])
        flat.index_copy_(0, self.places, new.reshape(-1, new.shape[-1]).to(flat.dtype))
        keys, values = states[:, :, :, : self.width].unbind()
        return keys, values


def _rounded(capacity: int) -> int:
    return max(1, -(-capacity // CHUNK)) * CHUNK
