"""Four measures as the reference report defines them, so that its figures can be set beside new ones.

They are kept to the letter, and say little: its "perplexity" involves no language model and grows with the number of
different words; its rhyme compares letters, in 13 pairs of lines of which a Shakespearean sonnet rhymes 7. Each is
computed per poem and averaged over poems. Words are maximal runs of word characters, in lower case.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence


def unigram_perplexity(text: str) -> float:
    """exp of the entropy, in nats, of the poem's own word distribution; 0 for a text without words."""
    counts = Counter(_words(text))
    total = counts.total()
    if not total:
        return 0.0
    return math.exp(-sum(count / total * math.log(count / total) for count in counts.values()))


def distinct(text: str, n: int) -> float:
    """Distinct word n-grams divided by all word n-grams; 0 where there is none."""
    words = _words(text)
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 0.0


def orthographic_rhyme(lines: Sequence[str]) -> float:
    """The share of pairs of lines whose last words have the same letters from the last of a, e, i, o, u on.

    The pairs are lines (1, 2), (3, 4), ... and, in each whole block of four, (1, 3) and (2, 4). A word without such a
    letter is its own ending. Lines without a word are left out; below four lines the share is 0.
    """
    endings = [_ending(words[-1]) for line in lines if (words := _words(line))]
    if len(endings) < 4:
        return 0.0
    pairs = [(i, i + 1) for i in range(0, len(endings) - 1, 2)]
    pairs += [(i + j, i + j + 2) for i in range(0, len(endings) - 3, 4) for j in (0, 1)]
    return sum(endings[i] == endings[j] for i, j in pairs) / len(pairs)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _ending(word: str) -> str:
    match = re.search("[aeiou][^aeiou]*$", word)
    return match[0] if match else word
