"""Unlikelihood training (Welleck et al. 2019): the model is also taught which tokens not to say again.

At each step of a text the tokens that stand before it, without the one that really follows, are *candidates* c; the
loss adds -sum log(1 - p(c)) to that of the right token (section 4.1, token level). On text that the model wrote itself,
the candidates are its own tokens that belong to a repeated n-gram (section 4.2, sequence level). This file says which
tokens are candidates; :func:`modules.cross_entropy.linear_cross_entropy` computes the loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modules.cross_entropy import IGNORED


def earlier_tokens(
    input_ids: Tensor, targets: Tensor, left_out: Sequence[int] = (), starts: Tensor | None = None
) -> Tensor:
    """The candidates of every step: the set of tokens read so far, each once, without the step's target.

    Args:
        input_ids: (B, T) token ids; what stands at padding is never looked at by a step before it.
        targets: (B, T) the token that follows each; a step whose target is ignored has no candidates.
        left_out: tokens that may always come again, such as the line break.
        starts: (B,) the first position of each text whose token counts, behind a source that may be said again; None:
            all count.

    Returns:
        (B, T, T): at [b, t, j] the token at position j if it is a candidate of step t, else :data:`IGNORED`.
    """
    length = input_ids.shape[1]
    position = torch.arange(length, device=input_ids.device)
    own = torch.ones_like(input_ids, dtype=torch.bool) if starts is None else position >= starts.unsqueeze(1)  # (B, j)
    same = input_ids.unsqueeze(2) == input_ids.unsqueeze(1)  # (B, j, i): whether positions j and i hold the same token
    seen_before = (same & own.unsqueeze(1) & (position < position.unsqueeze(1))).any(dim=2)  # (B, j)
    counts = (
        (position <= position.unsqueeze(1))  # (t, j): read by then
        & (own & ~seen_before).unsqueeze(1)
        & (input_ids.unsqueeze(1) != targets.unsqueeze(2))
        & (targets != IGNORED).unsqueeze(2)
    )
    for token in left_out:
        counts &= (input_ids != token).unsqueeze(1)
    return input_ids.unsqueeze(1).masked_fill(~counts, IGNORED)


def repeated_ngrams(tokens: Sequence[int], n: int = 4) -> list[bool]:
    """Which tokens of a text are part of an n-gram that stands in it before (Welleck et al. 2019, section 4.2)."""
    seen: set[tuple[int, ...]] = set()
    repeated = [False] * len(tokens)
    for start in range(len(tokens) - n + 1):
        ngram = tuple(tokens[start : start + n])
        if ngram in seen:
            repeated[start : start + n] = [True] * n
        seen.add(ngram)
    return repeated
