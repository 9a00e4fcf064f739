"""Texts whose place on every measure is known: a measure that cannot tell them apart is no measure."""

from __future__ import annotations

import random
from collections.abc import Sequence

from poetry.measures import measure
from poetry.pronunciation import words_of
from poetry.sonnets import N_GIVEN, N_LINES, Sonnet

WORDS_PER_LINE = 8  # as many as a line of Shakespeare's sonnets has on average


def shuffled_lines(poems: Sequence[Sonnet], seed: int = 0) -> list[Sonnet]:
    """Each poem with its lines in another order: its meter and words stay, its rhymes go."""
    generator = random.Random(seed)
    return [Sonnet(poem.number, tuple(generator.sample(poem.lines, len(poem.lines)))) for poem in poems]


def shuffled_words(poems: Sequence[Sonnet], seed: int = 0) -> list[Sonnet]:
    """Each poem with the words of each line in another order: its meter goes, and most of its rhymes."""
    generator = random.Random(seed)

    def shuffle(line: str) -> str:
        words = words_of(line)
        return " ".join(generator.sample(words, len(words)))

    return [Sonnet(poem.number, tuple(map(shuffle, poem.lines))) for poem in poems]


def prose_in_lines(text: str, n_poems: int) -> list[Sonnet]:
    """Running prose, cut after every eight words into poems of fourteen lines; fewer poems where the text ends."""
    words = text.split()
    lines = [" ".join(words[i : i + WORDS_PER_LINE]) for i in range(0, len(words) - WORDS_PER_LINE + 1, WORDS_PER_LINE)]
    poems = [tuple(lines[i : i + N_LINES]) for i in range(0, len(lines) - N_LINES + 1, N_LINES)]
    return [Sonnet(number, poem) for number, poem in enumerate(poems[:n_poems], start=1)]


def calibrate(poems: Sequence[Sonnet], prose: str, *, n_given: int = N_GIVEN) -> dict[str, dict[str, float]]:
    """The measures of real sonnets, of two shuffles of them, and of as much prose: name of the text -> measures.

    Nothing is compared with true poems or training poems.
    """
    texts = {
        "sonnets": list(poems),
        "lines shuffled": shuffled_lines(poems),
        "words shuffled": shuffled_words(poems),
        "prose": prose_in_lines(prose, len(poems)),
    }
    return {name: measure(text, n_given=n_given) for name, text in texts.items() if text}
