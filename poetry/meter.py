"""Whether a line is an iambic pentameter: ten syllables, weak and strong by turns.

The test is the one of generative metrics in its simplest form (Halle and Keyser 1966; Kiparsky 1977): the primary
stress of a word of two or more syllables may not stand in a weak position. Everything else is a licence. Monosyllables
may be either; secondary stress too; an unstressed syllable may stand in a strong position ("memory"); the first foot
may be inverted ("Feeding the ..."); an eleventh syllable may follow, if it is the unstressed end of a longer word (the
feminine ending). So "fits" says that nothing in the line's words speaks against the meter; it does not say that a line
sounds well. A foot inverted after a pause inside the line, which poets allow themselves too, counts as a clash.

Syllables are counted at their best over all variants of the words. Beside the dictionary's, verse has shorter ones,
where a weak vowel stands beside another or between a consonant and r, l, n ("power", "glorious", "memory", "heaven" in
one syllable fewer), and a longer one for -ed ("fixed" in two).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from poetry.pronunciation import Phones, is_vowel, pronounce, words_of

PENTAMETER = 10  # syllables
STRONG, WEAK = "/", "x"
MAX_SYLLABLES = 60  # of a line that is looked at; what is longer is no verse


@dataclass(frozen=True)
class Scansion:
    """A line's best reading.

    Attributes:
        marks: "/" or "x" per syllable, grouped by words: polysyllables as they are stressed, monosyllables as the meter
            has them.
        n_syllables: of this reading.
        fits: whether it is an iambic pentameter.
        unknown: words without a pronunciation (such as numbers); they count no syllable, and the line does not fit.
    """

    marks: str
    n_syllables: int
    fits: bool
    unknown: tuple[str, ...] = ()


def is_iambic(line: str) -> bool:
    return scan(line).fits


def n_syllables(line: str) -> int:
    """The number of syllables nearest to ten that the words allow, or eleven where the line can have a feminine end."""
    return scan(line).n_syllables


def has_ten_syllables(line: str) -> bool:
    """Ten syllables, or eleven with a feminine ending, in some reading; whatever the stresses."""
    scansion = scan(line)
    count = scansion.n_syllables
    return not scansion.unknown and (count == PENTAMETER or (count == PENTAMETER + 1 and _is_feminine(scansion.marks)))


def _is_feminine(marks: str) -> bool:
    last = marks.rpartition(" ")[2]
    return len(last) > 1 and last[-1] == WEAK


@dataclass(frozen=True)
class _Reading:
    """Of a line's first words. ``cost``: stresses in weak positions, then licences taken."""

    cost: tuple[int, int]
    marks: tuple[str, ...]


@lru_cache(maxsize=1 << 14)
def scan(line: str) -> Scansion:
    """The reading of a line that fits best: first its length, then its stresses, then the fewest shortened words."""
    words = [part for word in words_of(line) for part in word.split("-") if part]
    unknown = tuple(word for word in words if not pronounce(word))
    readings: dict[int, _Reading] = {0: _Reading((0, 0), ())}
    for word in words:
        longer: dict[int, _Reading] = {}
        for count, reading in readings.items():
            for stresses, licences in _ways(word):
                marks, clashes = _marks(stresses, count)
                cost = (reading.cost[0] + clashes, reading.cost[1] + licences)
                total = count + len(stresses)
                if total <= MAX_SYLLABLES and (total not in longer or cost < longer[total].cost):
                    longer[total] = _Reading(cost, (*reading.marks, marks) if marks else reading.marks)
        if not longer:
            break
        readings = longer
    count, best = min(readings.items(), key=lambda item: (_distance(*item), item[1].cost, item[0]))
    fits = bool(words) and not unknown and best.cost[0] == 0 and _distance(count, best) <= 1
    return Scansion(" ".join(best.marks), count, fits, unknown)


def _distance(count: int, reading: _Reading) -> int:
    """From the meter's length: 0, 1 for a feminine ending, or twice the syllables that are too many or too few."""
    if count == PENTAMETER + 1 and _is_feminine(" ".join(reading.marks)):
        return 1
    return 2 * abs(count - PENTAMETER)


def _marks(stresses: str, position: int) -> tuple[str, int]:
    """A word's marks after ``position`` syllables, and how many of its primary stresses stand in weak positions.

    A word that opens the line may do so: that is the inverted first foot.
    """
    marks, clashes = "", 0
    for i, stress in enumerate(stresses):
        in_strong = (position + i) % 2 == 1
        if len(stresses) == 1 or stress == "2":
            marks += STRONG if in_strong else WEAK
            continue
        marks += STRONG if stress == "1" else WEAK
        clashes += stress == "1" and not in_strong and position + i > 0
    return marks, clashes


@lru_cache(maxsize=1 << 17)
def _ways(word: str) -> tuple[tuple[str, int], ...]:
    """The stress patterns that verse allows a word, each with the number of licences that it takes."""
    found: dict[str, int] = {}
    for way in pronounce(word):
        for phones, licences in _variants(word, way.phones):
            stresses = "".join(phone[-1] for phone in phones if is_vowel(phone))
            found[stresses] = min(licences, found.get(stresses, licences))
    return tuple(found.items()) or (("", 0),)


def _variants(word: str, phones: Phones) -> list[tuple[Phones, int]]:
    variants = [(phones, 0)] + [(_without(phones, i), 1) for i in range(len(phones)) if _may_fall(phones, i)]
    if word.endswith("ed") and phones[-1:] in (("T",), ("D",)) and not is_vowel(phones[-2]):
        variants.append(((*phones[:-1], "IH0", "D"), 1))
    return variants


def _without(phones: Phones, i: int) -> Phones:
    return (*phones[:i], *phones[i + 1 :])


def _may_fall(phones: Phones, i: int) -> bool:
    """Whether verse may leave a weak vowel out (Kiparsky 1977, on prosodic rules; here in three cases)."""
    if phones[i][-1] != "0":
        return False
    before, after = phones[i - 1] if i else "", phones[i + 1 : i + 3]
    if before and is_vowel(before):  # power, being, glorious
        return True
    weak_follows = bool(after) and after[-1][-1] == "0"
    if phones[i] == "ER0" and after and after[0][-1] == "0":  # memory
        return True
    if len(after) == 2 and after[0] in ("R", "L", "N") and weak_follows:  # delicate, general
        return True
    return before == "V" and after in (("N",), ("AH0",))  # heaven
