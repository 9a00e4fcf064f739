"""Measures of generated poems: form, variety, repetition, copying, and likeness to the true poems.

:func:`measure` gives them all. Where a poem's first lines were given, only what follows them is measured, so that the
given lines neither help nor hurt; the course's chrF and the reference report's figures alone take in whole poems. A
measure that is a share lies between 0 and 1; chrF and BLEU between 0 and 100.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from config import UserError
from poetry import reference
from poetry.copying import CopyIndex
from poetry.meter import has_ten_syllables, is_iambic
from poetry.overlap import chrf, chrf_counts, chrf_of_counts, self_bleu
from poetry.pronunciation import pronounce, words_of
from poetry.rhyme import SHAKESPEARE, ending, pairs_of, rhymes
from poetry.sonnets import N_GIVEN, N_LINES, Sonnet

BOOTSTRAP_SAMPLES = 2000


@dataclass(frozen=True)
class Measure:
    """What a measure says, in words; ``better``: "higher", "lower", or "near" Shakespeare's own value."""

    says: str
    better: str


MEASURES = {
    "rhyme_accuracy": Measure("pairs of the rhyme scheme, with a generated line, that rhyme perfectly", "higher"),
    "near_rhyme": Measure("those that are near rhymes only", "near"),
    "given_rhyme": Measure("the same for the pairs among the given lines, which no model had a hand in", "near"),
    "guessed_endings": Measure("line ends whose pronunciation is a guess, or that have none", "lower"),
    "lines_14": Measure("poems of exactly fourteen lines", "higher"),
    "ten_syllable_lines": Measure("generated lines of ten syllables, or eleven with a feminine ending", "higher"),
    "iambic_lines": Measure("generated lines that fit the iambic pentameter", "higher"),
    "distinct_1": Measure("distinct words of all poems together, by all words (Li et al. 2016)", "near"),
    "distinct_2": Measure("the same for pairs of words", "near"),
    "self_bleu": Measure("BLEU-4 of each poem against all others (Zhu et al. 2018)", "lower"),
    "seq_rep_4": Measure("4-grams that repeat an earlier one of the poem (Welleck et al. 2019)", "lower"),
    "longest_copy": Measure("words in a row that stand in a training poem just so, mean over poems", "near"),
    "longest_copy_max": Measure("the same, of the poem with the longest", "near"),
    "chrf_course": Measure("chrF of whole poems, the given lines included, as the course scores", "higher"),
    "chrf_course_floor": Measure("the same with another true poem's ending: what likeness in style alone gets", "near"),
    "chrf_endings": Measure("chrF of the endings alone", "higher"),
    "chrf_endings_floor": Measure("the same with another true poem's ending", "near"),
    "report_unigram_perplexity": Measure("the reference report's: exp of the entropy of a poem's own words", "near"),
    "report_distinct_1": Measure("the reference report's: distinct words of a poem, by its words", "near"),
    "report_distinct_2": Measure("the same for pairs of words", "near"),
    "report_rhyme": Measure("the reference report's: equal last letters of lines 1-2, 3-4, ..., 1-3, 2-4", "near"),
}
"""Every name that :func:`measure` may give."""


def measure(
    poems: Sequence[Sonnet],
    truth: Sequence[Sonnet] | None = None,
    training: Sequence[Sonnet] | None = None,
    *,
    n_given: int = N_GIVEN,
) -> dict[str, float]:
    """All measures, by the names of :data:`MEASURES`; one that says nothing of these poems is left out.

    Args:
        poems: whole poems, the given lines included.
        truth: the true poems, matched by number; without them there is no chrF. The floors need at least two that are
            asked for.
        training: the poems that a model was trained on; without them copying is not measured.
        n_given: the lines at the beginning that the model was given.

    Raises:
        UserError: there is no poem; or a poem's number is not among the true ones.
    """
    values = {name: _mean(column) for name, column in per_poem(poems, training, n_given=n_given).items()}
    endings = [words for poem in poems if (words := _words(poem.after(n_given).lines))]
    if endings:
        values["distinct_1"], values["distinct_2"] = distinct(endings, 1), distinct(endings, 2)
    if len(endings) > 1:
        values["self_bleu"] = float(self_bleu(endings).mean())
    if training is not None:
        values["longest_copy_max"] = float(max(copied(poems, training, n_given)))
    if truth is not None:
        values |= {name: chrf(*texts) for name, texts in _chrf_texts(poems, truth, n_given).items()}
    return {name: values[name] for name in MEASURES if not math.isnan(values.get(name, math.nan))}


def per_poem(
    poems: Sequence[Sonnet], training: Sequence[Sonnet] | None = None, *, n_given: int = N_GIVEN
) -> dict[str, np.ndarray]:
    """The measures that are means over poems: name -> (n_poems,); NaN where a measure says nothing of a poem.

    Raises:
        UserError: there is no poem.
    """
    if not poems:
        raise UserError("there is no poem to measure; give at least one")
    # A poem that stops at once does not fit any form; where all do, there was nothing to measure.
    of_nothing = 0.0 if any(poem.lines[n_given:] for poem in poems) else math.nan
    functions: dict[str, Callable[[Sonnet], float]] = {
        "rhyme_accuracy": lambda poem: rhyme_share(poem.lines, n_given, "perfect"),
        "near_rhyme": lambda poem: rhyme_share(poem.lines, n_given, "near"),
        "given_rhyme": lambda poem: rhyme_share(poem.lines, n_given, "perfect", given=True),
        "guessed_endings": lambda poem: _share(_is_guessed, poem.lines[n_given:], math.nan),
        "lines_14": lambda poem: float(len(poem.lines) == N_LINES),
        "ten_syllable_lines": lambda poem: _share(has_ten_syllables, poem.lines[n_given:], of_nothing),
        "iambic_lines": lambda poem: _share(is_iambic, poem.lines[n_given:], of_nothing),
        "seq_rep_4": lambda poem: seq_rep(_words(poem.lines[n_given:]), 4) if poem.lines[n_given:] else math.nan,
        "report_unigram_perplexity": lambda poem: reference.unigram_perplexity(poem.text),
        "report_distinct_1": lambda poem: reference.distinct(poem.text, 1),
        "report_distinct_2": lambda poem: reference.distinct(poem.text, 2),
        "report_rhyme": lambda poem: reference.orthographic_rhyme(poem.lines),
    }
    columns = {name: np.array([function(poem) for poem in poems]) for name, function in functions.items()}
    if training is not None:
        columns["longest_copy"] = np.array(copied(poems, training, n_given), dtype=float)
    return columns


def confidence_intervals(
    poems: Sequence[Sonnet],
    truth: Sequence[Sonnet] | None = None,
    training: Sequence[Sonnet] | None = None,
    *,
    n_given: int = N_GIVEN,
    seed: int = 0,
    samples: int = BOOTSTRAP_SAMPLES,
) -> dict[str, list[float]]:
    """95 % percentile intervals [low, high] from a bootstrap over the prompts (Efron 1979).

    They say how much a measure would vary with other prompts, not with other seeds: several poems of one number are
    drawn together. Measures of all poems together, where drawing a poem twice would itself be a repetition (distinct_n,
    self_bleu, a maximum), have none.
    """
    rows = _drawn_rows([poem.number for poem in poems], np.random.default_rng(seed), samples)
    drawn = {name: _means(column[rows]) for name, column in per_poem(poems, training, n_given=n_given).items()}
    if truth is not None:
        for name, texts in _chrf_texts(poems, truth, n_given).items():
            drawn[name] = chrf_of_counts(chrf_counts(*texts)[rows].sum(axis=1))
    intervals = {}
    for name in MEASURES:
        values = drawn.get(name, np.empty(0))
        values = values[~np.isnan(values)]
        if len(values):
            intervals[name] = [float(x) for x in np.percentile(values, [2.5, 97.5])]
    return intervals


def perplexity_interval(
    numbers: Sequence[int],
    nats: Sequence[float],
    counts: Sequence[int],
    *,
    seed: int = 0,
    samples: int = BOOTSTRAP_SAMPLES,
) -> list[float]:
    """The same for exp(sum of nats / sum of counts), which is no mean over poems.

    Args:
        numbers: of the poem's prompt.
        nats, counts: of each poem, its negative log-likelihood and its tokens or words.
    """
    rows = _drawn_rows(numbers, np.random.default_rng(seed), samples)
    rates = np.array(nats)[rows].sum(axis=1) / np.maximum(np.array(counts)[rows].sum(axis=1), 1)
    return [float(x) for x in np.percentile(np.exp(np.minimum(rates, 700.0)), [2.5, 97.5])]


def _drawn_rows(numbers: Sequence[int], random: np.random.Generator, samples: int) -> np.ndarray:
    """Bootstrap samples of whole prompts, (samples, n_poems); of single poems where prompts have unequally many."""
    groups = [[i for i, number in enumerate(numbers) if number == one] for one in dict.fromkeys(numbers)]
    if len({len(group) for group in groups}) > 1:
        groups = [[i] for i in range(len(numbers))]
    drawn = random.integers(0, max(len(groups), 1), (samples, len(groups)))
    return np.array(groups, dtype=int).reshape(len(groups), -1)[drawn].reshape(samples, -1)


# ---------------------------------------------------------------------------------------------------------------------
# Single measures
# ---------------------------------------------------------------------------------------------------------------------


def rhyme_share(
    lines: Sequence[str], n_given: int, kind: str = "perfect", *, given: bool = False, scheme: str = SHAKESPEARE
) -> float:
    """The share of the scheme's pairs that rhyme so.

    Args:
        kind: "perfect" or "near".
        given: look at the pairs among the given lines, instead of those with at least one generated line.

    Returns:
        A pair whose lines are not there does not rhyme. NaN if there is no such pair in the scheme.
    """
    pairs = [(i, j) for i, j in pairs_of(scheme) if (max(i, j) < n_given) == given]
    if not pairs:
        return math.nan
    return sum(j < len(lines) and rhymes(lines[i], lines[j]) == kind for i, j in pairs) / len(pairs)


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Distinct n-grams of all texts together, by all n-grams (Li et al. 2016, section 5.2); 0 where there is none.

    It falls as texts are added: compare equal numbers of poems.
    """
    grams = [gram for words in texts for gram in _grams(words, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def seq_rep(words: Sequence[str], n: int) -> float:
    """1 - distinct n-grams / n-grams (Welleck et al. 2019, section 6), over words; 0 where there is no n-gram."""
    grams = _grams(words, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def copied(poems: Sequence[Sonnet], training: Sequence[Sonnet], n_given: int) -> list[int]:
    """Of each poem, the number of generated words in a row that stand in a training poem just so, across line ends."""
    index = CopyIndex([_words(poem.lines) for poem in training])
    return [index.longest_run(_words(poem.lines[n_given:])) for poem in poems]


def match_truth(poems: Sequence[Sonnet], truth: Sequence[Sonnet]) -> list[Sonnet]:
    """The true poem of each poem, by its number.

    Raises:
        UserError: naming the numbers that the truth lacks.
    """
    by_number = {poem.number: poem for poem in truth}
    missing = [str(poem.number) for poem in poems if poem.number not in by_number]
    if missing:
        raise UserError(
            f"the true poems lack number {', '.join(missing)}; give the file that belongs to these poems, or none"
        )
    return [by_number[poem.number] for poem in poems]


def _chrf_texts(
    poems: Sequence[Sonnet], truth: Sequence[Sonnet], n_given: int
) -> dict[str, tuple[list[str], list[str]]]:
    """Name -> the texts that are compared, and with what. The floors take each ending from the next prompt's poem."""
    true = match_truth(poems, truth)
    texts = {
        "chrf_course": ([poem.text for poem in poems], [poem.text for poem in true]),
        "chrf_endings": ([poem.after(n_given).text for poem in poems], [poem.after(n_given).text for poem in true]),
    }
    by_number = {poem.number: poem for poem in true}  # several poems may belong to one
    if len(by_number) > 1:
        numbers = list(by_number)
        following = dict(zip(numbers, [*numbers[1:], numbers[0]], strict=True))
        others = [by_number[following[poem.number]] for poem in true]
        mixed = [Sonnet(a.number, a.lines[:n_given] + b.lines[n_given:]) for a, b in zip(true, others, strict=True)]
        texts["chrf_course_floor"] = [poem.text for poem in mixed], texts["chrf_course"][1]
        texts["chrf_endings_floor"] = [poem.after(n_given).text for poem in mixed], texts["chrf_endings"][1]
    return texts


def _words(lines: Sequence[str]) -> list[str]:
    return [word for line in lines for word in words_of(line)]


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _is_guessed(line: str) -> bool:
    word = ending(line)
    return not word or pronounce(word)[0].origin == "guess"


def _share(test: Callable[[str], bool], lines: Sequence[str], of_nothing: float) -> float:
    return sum(map(test, lines)) / len(lines) if lines else of_nothing


def _mean(column: np.ndarray) -> float:
    """Over the poems of which the measure says something."""
    return float(_means(column[None])[0])


def _means(values: np.ndarray) -> np.ndarray:
    """(samples, n) -> (samples,), leaving NaN out."""
    said = ~np.isnan(values)
    sums, counts = np.where(said, values, 0.0).sum(axis=1), said.sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
