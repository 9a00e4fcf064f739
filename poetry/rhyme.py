"""Which words rhyme, by their sounds.

The rhyming part of a word is what sounds from its last stressed vowel on. Two words rhyme perfectly where their rhyming
parts sound alike and the consonants before them do not. A word whose last two syllables are unstressed ("history") also
has its last vowel as a rhyming part ("thee"), because verse puts a beat on it. All variants of both words are tried.

Near rhyme takes its two kinds from Zwicky (1976, "Well, this rock and roll has got to stop", his "feature rhyme"): the
stressed vowel differs and everything after it is alike, a consonant among it ("love", "prove"); or the vowels are alike
and consonants differ from others of their class only ("time", "mine"). It also takes in words that sound alike before
the rhyming part too ("leave", "believe"; "sun", "son").
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from poetry.pronunciation import Phones, is_vowel, pronounce, words_of

Rhyme = Literal["perfect", "near", "none"]

SHAKESPEARE = "ABABCDCDEFEFGG"
"""The rhyme scheme of Shakespeare's sonnets."""

CLASSES = {  # consonants that near rhyme takes for one another: alike but for voice or place
    phone: name
    for name, phones in {
        "stop": "P T K B D G", "fricative": "F V TH DH", "sibilant": "S Z SH ZH CH JH", "nasal": "M N NG",
        "liquid": "L R",
    }.items()
    for phone in phones.split()
}  # fmt: skip


@dataclass(frozen=True)
class RhymingPart:
    """From the last stressed vowel on, without stress digits; ``onset``: the consonants right before it."""

    onset: Phones
    sounds: Phones


def pairs_of(scheme: str) -> list[tuple[int, int]]:
    """The lines that rhyme with each other, counted from 0: each with the next one of the same letter."""
    return [(i, j) for i, letter in enumerate(scheme) if (j := scheme.find(letter, i + 1)) != -1]


@lru_cache(maxsize=1 << 17)
def ending(line: str) -> str:
    """The last word that has a vowel, of a compound the last part, normalized; '' where there is none."""
    for word in reversed(words_of(line)):
        part = word.rpartition("-")[2]
        if any(is_vowel(phone) for way in pronounce(part) for phone in way.phones):
            return part
    return ""


@lru_cache(maxsize=1 << 17)
def rhyming_parts(word: str) -> tuple[RhymingPart, ...]:
    """All rhyming parts of a word, the usual one first."""
    found: dict[RhymingPart, None] = {}
    for way in pronounce(word):
        vowels = [i for i, phone in enumerate(way.phones) if is_vowel(phone)]
        stressed = [i for i in vowels if way.phones[i][-1] != "0"] or vowels
        if not stressed:
            continue
        found[_part(way.phones, stressed[-1])] = None
        if way.stresses.endswith("00"):
            found[_part(way.phones, vowels[-1])] = None
    return tuple(found)


def _part(phones: Phones, start: int) -> RhymingPart:
    onset = start
    while onset and not is_vowel(phones[onset - 1]):
        onset -= 1
    sounds = [phones[start][:-1]]
    for phone in phones[start + 1 :]:
        # The dictionary is not of one mind about weak vowels: IH0 or AH0 in "spirit", ER0 or R in "fire".
        weak = "R" if phone == "ER0" and sounds == ["AY"] else "AH" if phone == "IH0" else phone
        sounds.append(weak.rstrip("012"))
    return RhymingPart(phones[onset:start], tuple(sounds))


def rhymes(a: str, b: str) -> Rhyme:
    """How two words rhyme, at their best. A word never rhymes with itself, nor a compound with its last part."""
    a, b = ending(a), ending(b)
    if not a or not b or a == b:
        return "none"
    return _rhymes(*sorted((a, b)))


@lru_cache(maxsize=1 << 17)
def _rhymes(a: str, b: str) -> Rhyme:
    ours, theirs = rhyming_parts(a), rhyming_parts(b)
    if any(one.sounds == other.sounds and one.onset != other.onset for one in ours for other in theirs):
        return "perfect"
    keys = {key for part in ours for key in _near_keys(part)}
    return "near" if any(key in keys for part in theirs for key in _near_keys(part)) else "none"


def _near_keys(part: RhymingPart) -> list[tuple[str, ...]]:
    """Two words with a key in common are near rhymes, if no perfect ones."""
    vowel, *rest = part.sounds
    keys = [("vowel", vowel, *(CLASSES.get(sound, sound) for sound in rest))]
    if any(sound in CLASSES for sound in rest):
        keys.append(("rest", *rest))
    return keys


def rhyme_letters(lines: Sequence[str]) -> list[str]:
    """The rhyme scheme of a poem, for display: one letter per line, A ... Z, then AA, BB and so on.

    Lines that rhyme perfectly, or end with the same word, share a letter. A line that has no such partner takes the
    letter, written small, of the nearest line before it that is a near rhyme.
    """
    ends = [ending(line) for line in lines]
    kinds = {(i, j): _kind(ends[i], ends[j]) for j in range(len(ends)) for i in range(j)}
    letters: list[str] = []
    n_letters = 0
    for j in range(len(ends)):
        perfect = [i for i in range(j) if kinds[i, j] == "perfect"]
        alone = not perfect and all(kinds[j, k] != "perfect" for k in range(j + 1, len(ends)))
        near = [i for i in range(j) if alone and kinds[i, j] == "near"]
        if perfect or near:
            letters.append(letters[perfect[-1]].upper() if perfect else letters[near[-1]].lower())
        else:
            letters.append(string.ascii_uppercase[n_letters % 26] * (1 + n_letters // 26))
            n_letters += 1
    return letters


def _kind(a: str, b: str) -> Rhyme:
    return "perfect" if a and a == b else rhymes(a, b)


class RhymeIndex:
    """The words of a vocabulary by their rhyming parts: for a search that wants a word which rhymes with another.

    Building takes a few microseconds per word that the dictionary has, looking up one step per rhyme found. Words are
    given back as they were given, in their order.
    """

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self._perfect: dict[Phones, list[str]] = {}
        self._near: dict[tuple[str, ...], list[str]] = {}
        self._order: dict[str, int] = {}
        for word in vocabulary:
            if word in self._order:
                continue
            self._order[word] = len(self._order)
            for part in rhyming_parts(ending(word)):
                self._perfect.setdefault(part.sounds, []).append(word)
                for key in _near_keys(part):
                    self._near.setdefault(key, []).append(word)

    def perfect(self, word: str) -> list[str]:
        """The words of the vocabulary that rhyme perfectly with ``word``."""
        parts = rhyming_parts(ending(word))
        return self._sorted((other for part in parts for other in self._perfect.get(part.sounds, ())), word, "perfect")

    def near(self, word: str) -> list[str]:
        """Those that are near rhymes of it, and no perfect ones."""
        keys = (key for part in rhyming_parts(ending(word)) for key in _near_keys(part))
        return self._sorted((other for key in keys for other in self._near.get(key, ())), word, "near")

    def best(self, word: str) -> list[str]:
        """The perfect rhymes, or the near ones where there is none."""
        return self.perfect(word) or self.near(word)

    def _sorted(self, found: Iterable[str], word: str, kind: Rhyme) -> list[str]:
        return sorted((other for other in set(found) if rhymes(word, other) == kind), key=self._order.__getitem__)
