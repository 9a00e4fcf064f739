"""From a language model's logits to the next token: what is ruled out or changed, and how one is drawn.

The filters are functions of logits (B, V) that return new ones, with -inf where a token is ruled out.
:meth:`Decoding.apply` calls them in the order of ``transformers``: penalties, the caller's processors, temperature, and
then the filters that leave out unlikely tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from config import UserError

Sequences = Sequence[Sequence[int]]
StopRule = Callable[[Sequence[int]], bool]


class LogitsProcessor(Protocol):
    """Changes the logits of the next tokens; what it does to a text may depend on that text alone."""

    def __call__(self, logits: Tensor, sequences: Sequences) -> Tensor:
        """(B, V) logits and the B texts so far, prompts included -> (B, V)."""


# ---------------------------------------------------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decoding:
    """How a text is made from a model's predictions. None means that a filter is not used.

    Attributes:
        temperature: logits are divided by it; 0 takes the likeliest token, without any randomness.
        top_k: draw among so many of the likeliest tokens.
        top_p: draw among the likeliest tokens that make up this probability.
        min_p: leave out tokens less likely than this share of the likeliest one's probability.
        typical_p: draw among the most typical tokens that make up this probability.
        repetition_penalty: weaken tokens that the text has, above 1; strengthen them, below.
        no_repeat_ngram: never say so many tokens in a row a second time.
        beams: search with so many beams, at temperature 0; None or 1: one text at a time.
        length_penalty: of beam search, which compares log-probability / length ** length_penalty.

    Raises:
        UserError: a value is out of its range, or beams are asked for with a temperature.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram: int | None = None
    beams: int | None = None
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        problems = []
        for field in fields(self):
            value, (fits, needed) = getattr(self, field.name), _RANGES[field.name]
            if value is not None and not fits(value):
                problems.append(f"--{field.name.replace('_', '-')} {value}: must be {needed}")
        if (self.beams or 1) > 1 and self.temperature != 0:
            problems.append(
                f"--beams {self.beams}: beam search takes the likeliest texts, it draws none; use --temperature 0 with "
                "it, or leave it out"
            )
        if problems:
            raise UserError(problems)

    @property
    def draws(self) -> bool:
        """Whether random numbers decide."""
        return self.temperature > 0

    def change(
        self,
        logits: Tensor,
        sequences: Sequences,
        processors: Sequence[LogitsProcessor] = (),
        starts: Sequence[int] | None = None,
    ) -> Tensor:
        """The penalties and the caller's processors: what also applies where nothing is drawn.

        Args:
            logits: (B, V).
            sequences: the B texts so far.
            starts: where in each text its repetitions begin to count; None: everywhere.
        """
        own = sequences if starts is None else [text[start:] for text, start in zip(sequences, starts, strict=True)]
        if self.repetition_penalty is not None:
            logits = penalize_repetition(logits, own, self.repetition_penalty)
        if self.no_repeat_ngram is not None:
            logits = forbid_repeated_ngrams(logits, own, self.no_repeat_ngram)
        for processor in processors:
            logits = processor(logits, sequences)
        return logits

    def apply(
        self,
        logits: Tensor,
        sequences: Sequences,
        processors: Sequence[LogitsProcessor] = (),
        starts: Sequence[int] | None = None,
    ) -> Tensor:
        """All of it: the arguments of :meth:`change` -> (B, V), whose softmax is what is drawn from."""
        logits = self.change(logits, sequences, processors, starts)
        if not self.draws:
            return logits
        logits = logits / self.temperature if self.temperature != 1.0 else logits
        for name, keep in _FILTERS.items():
            value = getattr(self, name)
            if value is not None:
                logits = keep(logits, value)
        return logits


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


_WHOLE = (_is_whole, "a whole number, at least 1")
_SHARE = (lambda x: 0 < x <= 1, "greater than 0 and at most 1")
_RANGES: dict[str, tuple[Callable[..., bool], str]] = {
    "temperature": (lambda x: 0 <= x < math.inf, "0, for the likeliest token, or a number above it"),
    "top_k": _WHOLE,
    "top_p": _SHARE,
    "min_p": (lambda x: 0 <= x <= 1, "between 0 and 1"),
    "typical_p": _SHARE,
    "repetition_penalty": (lambda x: 0 < x < math.inf, "a number above 0; 1 changes nothing"),
    "no_repeat_ngram": _WHOLE,
    "beams": _WHOLE,
    "length_penalty": (lambda x: -math.inf < x < math.inf, "a number"),
}

# ---------------------------------------------------------------------------------------------------------------------
# Filters
# ---------------------------------------------------------------------------------------------------------------------


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k likeliest tokens of each row, and those that are as likely as the last of these.

    Fan et al. 2018 ("Hierarchical Neural Story Generation", section 5.4).

    Args:
        logits: (B, V).
        k: at least 1; all tokens stay where it is V or more.
    """
    if k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < least, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The smallest set of the likeliest tokens whose probability is at least p (Holtzman et al. 2020, section 3.1).

    Those that are as likely as the last of these stay too.

    Args:
        logits: (B, V).
        p: in (0, 1].
    """
    if p >= 1:
        return logits
    probabilities = logits.softmax(dim=-1)
    least = least_by_numpy(probabilities, p) if logits.device.type == "cpu" else least_by_torch(probabilities, p)
    return logits.masked_fill(probabilities < least, -math.inf)


def least_by_torch(probabilities: Tensor, p: float) -> Tensor:
    """(B, V) -> (B, 1): the probability of the least likely token that :func:`keep_top_p` keeps, fast on a GPU."""
    ordered = probabilities.sort(dim=-1, descending=True).values
    before = ordered.cumsum(dim=-1) - ordered
    return ordered.gather(1, (before < p).sum(dim=-1, keepdim=True) - 1)


def least_by_numpy(probabilities: Tensor, p: float) -> Tensor:
    """:func:`least_by_torch`, fast on a CPU.

    There torch sorts a vocabulary for as long as the 124M model takes for a step, numpy in a fifth of that or less: no
    indices are carried along, and tokens that could not make up 1 - p even if all were as likely are left out.
    """
    least = []
    for row in probabilities.numpy():
        ordered = np.sort(row[row >= min((1 - p) / len(row), row.max())])[::-1]
        before = ordered.cumsum(dtype=np.float64).astype(ordered.dtype) - ordered  # as torch adds up
        least.append([float(ordered[np.count_nonzero(before < ordered.dtype.type(p)) - 1])])
    return probabilities.new_tensor(least)


def keep_min_p(logits: Tensor, share: float) -> Tensor:
    """The tokens at least ``share`` times as likely as the likeliest one (Nguyen et al. 2024, section 3).

    Args:
        logits: (B, V).
        share: between 0 and 1.
    """
    if share == 0:
        return logits
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(share), -math.inf)


def keep_typical(logits: Tensor, mass: float) -> Tensor:
    """The tokens whose surprise is closest to what is expected, until they make up ``mass``.

    Meister et al. 2023 ("Locally Typical Sampling"): the tokens in the order of |-log p - H|, with H the
    entropy of the distribution.

    Args:
        logits: (B, V).
        mass: in (0, 1].
    """
    if mass >= 1:
        return logits
    log_p = logits.log_softmax(dim=-1)
    entropy = -(log_p * log_p.exp()).nansum(dim=-1, keepdim=True)
    distance, tokens = (-log_p - entropy).abs().sort(dim=-1)
    reached = (logits.gather(1, tokens).softmax(dim=-1).cumsum(dim=-1) < mass).sum(dim=-1, keepdim=True)
    farthest = distance.gather(1, reached.clamp(max=logits.shape[-1] - 1))
    return logits.masked_fill((-log_p - entropy).abs() > farthest, -math.inf)


_FILTERS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "top_k": keep_top_k,  # type: ignore[dict-item]
    "top_p": keep_top_p,
    "min_p": keep_min_p,
    "typical_p": keep_typical,
}


def penalize_repetition(logits: Tensor, sequences: Sequences, penalty: float) -> Tensor:
    """Weakens the tokens that a text has: its positive logits divided by the penalty, negative ones times it.

    Keskar et al. 2019 ("CTRL", section 4.1), where the logits are taken to be positive.

    Args:
        logits: (B, V).
        sequences: the B texts so far.
        penalty: above 0; 1 changes nothing.
    """
    logits = logits.clone()
    for row, sequence in zip(logits, sequences, strict=True):
        said = torch.tensor(sorted(set(sequence)), dtype=torch.long, device=logits.device)
        found = row[said]
        row[said] = torch.where(found < 0, found * penalty, found / penalty)
    return logits


def forbid_repeated_ngrams(logits: Tensor, sequences: Sequences, n: int) -> Tensor:
    """Rules out each token that would say n tokens in a row again that a text has (Paulus et al. 2018, section 2.5).

    Args:
        logits: (B, V).
        sequences: the B texts so far.
        n: at least 1.
    """
    logits = logits.clone()
    for row, sequence in zip(logits, sequences, strict=True):
        said = list(sequence)
        end = said[len(said) - n + 1 :]
        repeated = {said[i + n - 1] for i in range(len(said) - n + 1) if said[i : i + n - 1] == end}
        if repeated:
            row[torch.tensor(sorted(repeated), device=logits.device)] = -math.inf
    return logits


# ---------------------------------------------------------------------------------------------------------------------
# Drawing
# ---------------------------------------------------------------------------------------------------------------------


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """A token per row, distributed as the row's softmax: the inverse of its distribution function at a uniform number.

    So each row needs one random number only, and what it becomes does not depend on the other rows.

    Args:
        logits: (B, V), finite somewhere in each row.
        uniform: (B,) numbers in [0, 1), float64, on the CPU or with the logits.

    Returns:
        (B,) token ids; never one whose logit is -inf.
    """
    probabilities = logits.softmax(dim=-1)
    if logits.device.type == "mps":  # which has no float64
        probabilities = probabilities.cpu()
    reached = probabilities.cumsum(dim=-1, dtype=torch.float64)
    target = uniform.to(reached.device)[:, None] * reached[:, -1:]
    tokens = torch.searchsorted(reached, target, right=True).squeeze(1).clamp_(max=logits.shape[-1] - 1)
    return tokens.to(logits.device)


# ---------------------------------------------------------------------------------------------------------------------
# Lines of verse
# ---------------------------------------------------------------------------------------------------------------------


def stop_after_lines(lines: int, line_ends: Collection[int]) -> StopRule:
    """Ends a text once it has so many line ends, those of its prompt included.

    Args:
        lines: at least 1.
        line_ends: the tokens that end a line.
    """
    ends = frozenset(line_ends)
    return lambda sequence: sum(map(ends.__contains__, sequence)) >= lines


def encourage_line_end(
    after_words: int,
    boost: float,
    line_ends: Collection[int],
    punctuation: Collection[int] = (),
    word_starts: Collection[int] | None = None,
) -> LogitsProcessor:
    """Makes punctuation and the line's end likelier once a line has ``after_words`` words.

    Args:
        after_words: words of the current line from which on the boost applies.
        boost: what is added to the logits: e^boost times the odds.
        line_ends: the tokens that end a line; they are boosted too.
        punctuation: other tokens that are boosted.
        word_starts: the tokens that begin a word within a line (in GPT-2's vocabulary those with a space in front);
            the first token of a line always does. None: every token counts as a word.
    """
    ends = frozenset(line_ends)
    starts = None if word_starts is None else frozenset(word_starts)
    boosted = torch.tensor(sorted(ends | set(punctuation)))

    def processor(logits: Tensor, sequences: Sequences) -> Tensor:
        long = [_words_of_line(sequence, ends, starts) >= after_words for sequence in sequences]
        added = boost * torch.tensor(long, dtype=logits.dtype, device=logits.device)
        return logits.index_add(1, boosted.to(logits.device), added[:, None].expand(-1, len(boosted)))

    return processor


def _words_of_line(sequence: Sequence[int], ends: frozenset[int], starts: frozenset[int] | None) -> int:
    """The words after the last line end."""
    words, length = 0, 0
    for token in reversed(sequence):
        if token in ends:
            break
        length += 1
        words += starts is None or token in starts
        first = token
    if length and starts is not None and first not in starts:
        words += 1
    return words
