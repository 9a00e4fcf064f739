"""From the final hidden states of a sequence to the one vector that a head reads.

The last real token is the only one that has seen the whole text, so it is the usual choice with GPT-2 (Radford et al.
2018, section 3.2). The others also look at the states before it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from config import UserError


class Pooling(nn.Module):
    """(B, T, n_embd) -> (B, width). Only real tokens count, on whichever side the padding is and whatever it holds.

    Attributes:
        width: the size of the result, ``parts`` times n_embd.
    """

    parts = 1

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.width = self.parts * n_embd

    def forward(self, last_hidden_state: Tensor, last_token: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Computes in fp32, under autocast too: a sum over many tokens in bfloat16 would lose most of its digits.

        Args:
            last_hidden_state: (B, T, n_embd).
            last_token: (B, n_embd), the state of each sequence's last real token.
            attention_mask: (B, T), 1 for real tokens and 0 for padding, at least one real token per sequence; None
                means that all are real.

        Returns:
            (B, width), fp32.
        """
        if attention_mask is None:
            attention_mask = torch.ones(last_hidden_state.shape[:2], device=last_hidden_state.device)
        real = attention_mask.bool().unsqueeze(-1)  # (B, T, 1)
        with torch.autocast(last_hidden_state.device.type, enabled=False):
            return self.pool(last_hidden_state.float().masked_fill(~real, 0.0), last_token.float(), real)

    def pool(self, states: Tensor, last: Tensor, real: Tensor) -> Tensor:
        """(B, T, n_embd) with zeros at padding, (B, n_embd) and (B, T, 1) of booleans -> (B, width)."""
        raise NotImplementedError


class LastPooling(Pooling):
    """The last real token."""

    def pool(self, states: Tensor, last: Tensor, real: Tensor) -> Tensor:
        return last


class MeanPooling(Pooling):
    """The mean over the real tokens."""

    def pool(self, states: Tensor, last: Tensor, real: Tensor) -> Tensor:
        return states.sum(dim=1) / real.sum(dim=1)


class MixPooling(MeanPooling):
    """``mean_weight`` times the mean plus (1 - ``mean_weight``) times the last real token."""

    def __init__(self, n_embd: int, mean_weight: float = 0.7) -> None:
        super().__init__(n_embd)
        if not 0.0 <= mean_weight <= 1.0:
            raise UserError(f"the mean's weight in pooling 'mix' must be between 0 and 1, not {mean_weight}")
        self.mean_weight = mean_weight

    def pool(self, states: Tensor, last: Tensor, real: Tensor) -> Tensor:
        return self.mean_weight * super().pool(states, last, real) + (1.0 - self.mean_weight) * last

    def extra_repr(self) -> str:
        return f"mean_weight={self.mean_weight}"


class MaxPooling(Pooling):
    """The largest value of each feature over the real tokens."""

    def pool(self, states: Tensor, last: Tensor, real: Tensor) -> Tensor:
        return states.masked_fill(~real, float("-inf")).amax(dim=1)


class ConcatPooling(Pooling):
    """[last, max, mean], three times as wide (Howard & Ruder 2018, section 3.3, "concat pooling")."""

    parts = 3

    def __init__(self, n_embd: int) -> None:
        super().__init__(n_embd)
        self.max, self.mean = MaxPooling(n_embd), MeanPooling(n_embd)

    def pool(self, states: Tensor, last: Tensor, real: Tensor) -> Tensor:
        return torch.cat([last, self.max.pool(states, last, real), self.mean.pool(states, last, real)], dim=-1)


class AttentionPooling(Pooling):
    """A learned weighted mean: weights softmax(w · h) over the real tokens.

    After Yang et al. 2016, section 2.2 ("word attention"), without its hidden layer: they compare w with
    tanh(W h + b), here it is compared with h, which GPT-2's last blocks can shape themselves. The vector w starts at
    zero, so that the pooling starts as the mean.
    """

    def __init__(self, n_embd: int) -> None:
        super().__init__(n_embd)
        self.query = nn.Parameter(torch.zeros(n_embd))

    def pool(self, states: Tensor, last: Tensor, real: Tensor) -> Tensor:
        scores = (states @ self.query).unsqueeze(-1)  # (B, T, 1)
        weights = scores.masked_fill(~real, float("-inf")).softmax(dim=1)
        return (weights * states).sum(dim=1)


POOLINGS: dict[str, type[Pooling]] = {
    "last": LastPooling,
    "mean": MeanPooling,
    "mix": MixPooling,
    "max": MaxPooling,
    "concat": ConcatPooling,
    "attention": AttentionPooling,
}


def make_pooling(name: str, n_embd: int, mean_weight: float = 0.7) -> Pooling:
    """The pooling of that name in :data:`POOLINGS`; only ``mix`` looks at ``mean_weight``.

    Raises:
        UserError: there is none of that name, or ``mean_weight`` is not between 0 and 1.
    """
    if name not in POOLINGS:
        raise UserError(f"pooling {name!r}: unknown; choose from {', '.join(POOLINGS)}")
    if name == "mix":
        return MixPooling(n_embd, mean_weight)
    return POOLINGS[name](n_embd)
