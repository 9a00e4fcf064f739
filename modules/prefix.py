"""Prefix-tuning (Li & Liang 2021): trained keys and values in front of every block's own, under a frozen model.

To every token of a text the prefix is ``length`` more positions to attend to, which stand for no words. It changes what
each head finds, and nothing else; the text's own positions begin after it.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from config import GPT2Config, UserError
from modules.attention import KeyValue


class FixedPrefix(nn.Module):
    """A prefix after training: just its tensors, which are no parameters.

    Attributes:
        keys, values: (n_layer, n_head, length, head_dim).
        length: the number of positions that it takes.

    Raises:
        ValueError: keys and values are not four-dimensional, or differ in shape.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        if keys.dim() != 4 or keys.shape != values.shape:
            raise ValueError(f"a prefix needs keys and values of one shape, not {keys.shape} and {values.shape}")
        self.register_buffer("keys", keys)
        self.register_buffer("values", values)

    @property
    def length(self) -> int:
        return self.keys.shape[2]

    def forward(self) -> list[KeyValue]:
        """Each block's key and value, (n_head, length, head_dim)."""
        return list(zip(self.keys.unbind(), self.values.unbind(), strict=True))


class Prefix(nn.Module):
    """A prefix in training: an embedding per position, through an MLP, to the keys and values of every block.

    Training the keys and values themselves is unstable and comes out worse (Li & Liang 2021, sections 4.3 and 7.3), so
    they are made by Linear - tanh - Linear from a smaller matrix. After training only what it makes is needed
    (:meth:`drop_mlp`). The weights start as torch draws them; the embedding's are standard normal, so that the rows
    differ and the tanh bends.

    Args:
        config: of the model.
        length: P, the number of positions that the prefix takes; at least one must be left for the text.
        hidden: the width between the two maps (512 in the paper's experiments on generation from tables).

    Raises:
        UserError: the length or the width does not fit.
    """

    def __init__(self, config: GPT2Config, length: int, hidden: int = 512) -> None:
        super().__init__()
        if not 1 <= length < config.n_positions:
            raise UserError(
                f"the prefix takes {length} positions; it must take from 1 to {config.n_positions - 1}, because the "
                f"model has {config.n_positions} and the text needs some"
            )
        if hidden < 1:
            raise UserError(f"the prefix's hidden width is {hidden}; it must be at least 1")
        self.n_layer, self.n_head = config.n_layer, config.n_head
        self.embedding = nn.Embedding(length, config.n_embd)
        self.mlp = nn.Sequential(
            nn.Linear(config.n_embd, hidden), nn.Tanh(), nn.Linear(hidden, 2 * config.n_layer * config.n_embd)
        )

    @property
    def length(self) -> int:
        return self.embedding.num_embeddings

    def forward(self) -> list[KeyValue]:
        """Each block's key and value, (n_head, length, head_dim)."""
        keys, values = self._keys_and_values()
        return list(zip(keys.unbind(), values.unbind(), strict=True))

    def _keys_and_values(self) -> tuple[Tensor, Tensor]:
        """Two (n_layer, n_head, length, head_dim), in fp32 under autocast too: the same bits as after saving."""
        weight = self.embedding.weight
        with torch.autocast(weight.device.type, enabled=False):
            flat = self.mlp(weight)  # (length, 2 * n_layer * n_embd)
        keys, values = rearrange(
            flat, "p (l two h d) -> two l h p d", l=self.n_layer, two=2, h=self.n_head
        ).contiguous()
        return keys, values

    @torch.no_grad()
    def drop_mlp(self) -> FixedPrefix:
        """What the prefix has become, without the parts that made it."""
        keys, values = self._keys_and_values()
        return FixedPrefix(keys.clone(), values.clone())
