"""Poems and their measures for a person's eyes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from poetry.measures import MEASURES, Measure
from poetry.meter import scan
from poetry.rhyme import rhyme_letters
from poetry.sonnets import Sonnet


def show_poem(poem: Sonnet, n_given: int = 0) -> str:
    """Each line with its rhyme letter, its syllables, a tick where it is iambic, and its stresses above one another.

    Small letters are near rhymes. ``|`` marks the given lines.
    """
    scansions = [scan(line) for line in poem.lines]
    letters = rhyme_letters(poem.lines)
    width = max((len(scansion.marks) for scansion in scansions), default=0)
    rows = [
        f"{'|' if i < n_given else ' '} {letter:<2} {scansion.n_syllables:>2} {'+' if scansion.fits else '-'} "
        f"{scansion.marks:<{width}}  {line}"
        for i, (letter, scansion, line) in enumerate(zip(letters, scansions, poem.lines, strict=True))
    ]
    return "\n".join([str(poem.number), *rows])


LEGEND = (
    "rhyme letter (small: near rhyme), syllables, + fits the iambic pentameter or - does not, stresses (/ strong, x "
    "weak); | given line"
)


LIKELIHOODS = {  # what language models add to the measures of texts
    "perplexity": Measure("of the true endings by the fine-tuned model, per token", "lower"),
    "word_perplexity": Measure("the same per word, which compares models of different vocabularies", "lower"),
    "generated_perplexity": Measure("of the poems by a fixed model: where the run started, or --model", "lower"),
    "generated_left_out": Measure("poems that this model's context does not hold, or without a line", "lower"),
}


def table(
    values: Mapping[str, float],
    intervals: Mapping[str, Sequence[float]],
    others: Mapping[str, Mapping[str, float]] | None = None,
) -> str:
    """Measures as rows; the text's value, its interval, then a column for each text that it is compared with."""
    others = others or {}
    names = sorted(values, key=[*MEASURES, *values].index)  # others behind those
    width = max(map(len, names), default=0)
    head = "".join(f"  {name:>14}" for name in others)
    lines = [f"{'':<{width}}  {'value':>8}  {'95 % CI':>17}{head}"]
    for name in names:
        low_high = intervals.get(name)
        interval = f"{number(low_high[0]):>8}-{number(low_high[1]):<8}" if low_high else ""
        columns = "".join(f"  {number(other[name]) if name in other else '':>14}" for other in others.values())
        lines.append(f"{name:<{width}}  {number(values[name]):>8}  {interval:>17}{columns}".rstrip())
    return "\n".join(lines)


def explained_measures() -> str:
    """A line for each measure of poems and of models that write them: which value is better, and what it is."""
    measures = LIKELIHOODS | MEASURES
    width = max(map(len, measures))
    rows = [f"{name:<{width}}  {measure.better:<6}  {measure.says}" for name, measure in measures.items()]
    return "\n".join([f"{'':<{width}}  better", *rows, "", "near: to Shakespeare's own value, which --calibrate shows"])


def number(value: float) -> str:
    """Three decimals for shares, two above 1."""
    return f"{value:.3f}" if abs(value) <= 1 else f"{value:.2f}"
