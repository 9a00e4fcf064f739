"""How English words sound: phonemes with stress from CMUdict, and rules for the words that it lacks.

Phonemes are CMUdict's ARPAbet symbols. Those of vowels end with their stress: 0 none, 1 primary, 2 secondary. The
dictionary is modern American; old forms ("hath", "lov'st", "o'ercharged") are a list and a few rules here. A word that
neither has is guessed from its spelling, and every pronunciation says where it comes from.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product
from typing import Literal

Origin = Literal["dictionary", "list", "rule", "compound", "guess"]
Phones = tuple[str, ...]

SIBILANTS = frozenset({"S", "Z", "SH", "ZH", "CH", "JH"})
VOICELESS = frozenset({"P", "T", "K", "F", "TH", "S", "SH", "CH", "HH"})
WORD = re.compile(r"'?\w+(?:['-]+\w+)*'?")
MAX_VARIANTS = 8  # of a compound
MAX_WORD_LENGTH = 40  # characters; what is longer is no word, and would make the guess slow
GUESS_FROM = 200  # dictionary words with the same ending that a guess looks at
FEWEST_ALIKE = 3  # of them: below that, a shorter ending is tried, because the dictionary is full of foreign names


@dataclass(frozen=True)
class Pronunciation:
    """One way to say a word.

    Attributes:
        phones: ARPAbet symbols; empty of vowels for contractions such as "'t".
        origin: "dictionary" (CMUdict); "list" (old forms, written out here); "rule" (a known word with an ending, a
            beginning or an elision); "compound" (two known words); "guess" (from the spelling: the ending sounds like
            that of most dictionary words which are spelled alike at the end, and what stands before it is only a
            number of vowels).
    """

    phones: Phones
    origin: Origin

    @property
    def stresses(self) -> str:
        """One digit per syllable."""
        return "".join(phone[-1] for phone in self.phones if is_vowel(phone))


# What CMUdict lacks, or has only in a modern sense.
OLD_WORDS = {
    "'gainst": "G EH1 N S T", "'twixt": "T W IH1 K S T", "'cide": "S AY1 D", "'t": "T", "'s": "Z", "'d": "D",
    "th'": "DH", "i'": "IH1", "o'": "AH0", "o'er": "AO1 R", "e'er": "EH1 R", "ne'er": "N EH1 R", "e'en": "IY1 N",
    "ta'en": "T EY1 N", "whe'er": "W EH1 R", "'twill": "T W IH1 L", "'twere": "T W ER1", "'twould": "T W UH1 D",
    "'em": "AH0 M", "doth": "D AH1 TH", "dost": "D AH1 S T", "didst": "D IH1 D S T", "canst": "K AE1 N S T",
    "couldst": "K UH1 D S T", "wouldst": "W UH1 D S T", "shouldst": "SH UH1 D S T", "hadst": "HH AE1 D S T",
    "mayst": "M EY1 S T", "mightst": "M AY1 T S T", "wast": "W AA1 S T", "saith": "S EH1 TH", "ye": "Y IY1",
    "erst": "ER1 S T", "nought": "N AO1 T", "methinks": "M IY0 TH IH1 NG K S", "wight": "W AY1 T",
    "whereof": "W EH0 R AH1 V",
    "whate'er": "W AH0 T EH1 R", "whoe'er": "HH UW0 EH1 R", "where'er": "W EH0 R EH1 R", "howe'er": "HH AW0 EH1 R",
    "whene'er": "W EH0 N EH1 R", "forsooth": "F AO0 R S UW1 TH", "wherefore": "W EH1 R F AO2 R", "anon": "AH0 N AA1 N",
    "alack": "AH0 L AE1 K", "whereon": "W EH0 R AA1 N", "whereto": "W EH0 R T UW1", "wherewith": "W EH0 R W IH1 DH",
    "ere": "EH1 R", "mine": "M AY1 N", "physic": "F IH1 Z IH0 K", "churl": "CH ER1 L", "haply": "HH AE1 P L IY0",
}  # fmt: skip

PREFIXES = {  # of known words
    "un": "AH0 N", "re": "R IY0", "over": "OW2 V ER0", "o'er": "AO2 R", "out": "AW2 T", "mis": "M IH0 S", "be": "B IH0",
    "dis": "D IH0 S", "fore": "F AO2 R", "up": "AH0 P", "in": "IH0 N", "im": "IH0 M", "en": "EH0 N", "a": "AH0",
}  # fmt: skip

SUFFIXES = {  # after known words; s, ed and their short forms depend on the sound before them
    "ings": "IH0 NG Z", "ing": "IH0 NG", "eth": "IH0 TH", "est": "IH0 S T", "ers": "ER0 Z", "er": "ER0", "ly": "L IY0",
    "ness": "N AH0 S", "less": "L AH0 S", "ful": "F AH0 L", "fully": "F AH0 L IY0", "able": "AH0 B AH0 L",
    "ish": "IH0 SH", "y": "IY0", "ward": "W ER0 D", "'st": "S T", "st": "S T", "'th": "TH",
}  # fmt: skip

FIRST_PARTS = {  # of compounds written as one word; a split into any two words would find chance ones
    "after", "any", "back", "down", "every", "fire", "fore", "gold", "half", "hand", "hard", "heart", "heaven",
    "here", "high", "hind", "home", "house", "land", "life", "light", "long", "love", "man", "mid", "moon", "new",
    "night", "noon", "rain", "red", "sea", "self", "silver", "sky", "snow", "some", "star", "storm", "sun", "sweet",
    "there", "three", "thunder", "time", "true", "under", "water", "well", "where", "white", "wild", "wind", "wing",
    "winter", "with", "wood", "world", "year",
}  # fmt: skip

LETTERS = {  # the usual sounds of consonants, for what stands before the ending in a guess
    "b": "B", "c": "K", "d": "D", "f": "F", "g": "G", "h": "HH", "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N",
    "p": "P", "q": "K", "r": "R", "s": "S", "t": "T", "v": "V", "w": "W", "x": "K", "z": "Z",
}  # fmt: skip


def is_vowel(phone: str) -> bool:
    return phone[-1] in "012"


def normalize(word: str) -> str:
    """Lower case, and plain apostrophes and hyphens."""
    return word.lower().translate({0x2019: "'", 0x2018: "'", 0x2010: "-", 0x2011: "-"})


def words_of(line: str) -> list[str]:
    """The words of a line, normalized, with their apostrophes and hyphens; quotation marks are left out.

    Two hyphens in a row, or a dash, stand between words.
    """
    text = re.sub(r"--+|[\u2012-\u2015]", " ", normalize(line)).replace("_", " ")
    return [_without_quotes(match.group()) for match in WORD.finditer(text)]


def _without_quotes(word: str) -> str:
    """An apostrophe at an end belongs to the word where the word is known with it."""
    for candidate in (word, word.removesuffix("'"), word.removeprefix("'")):
        if candidate in OLD_WORDS or (candidate[0] == "'" and candidate in _dictionary()):
            return candidate
    return word.strip("'")


# ---------------------------------------------------------------------------------------------------------------------
# Pronouncing a word
# ---------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 17)
def pronounce(word: str) -> tuple[Pronunciation, ...]:
    """All ways to say a word, the usual one first; none for what has no letters from a to z.

    Capitals and the form of apostrophes don't matter.
    """
    word = normalize(word)
    if len(word) > MAX_WORD_LENGTH or not re.search("[a-z]", word):
        return ()
    if "-" in word:
        return _compound([part for part in word.split("-") if part])
    return _known(word) or _joined(word) or _guess(re.sub("[^a-z]", "", word))


@lru_cache(maxsize=1 << 17)
def _known(word: str) -> tuple[Pronunciation, ...]:
    """From the dictionary, the list, or one of them with a rule."""
    listed = OLD_WORDS.get(word)
    found = [Pronunciation(tuple(listed.split()), "list")] if listed else []
    bare = word if listed or word in _dictionary() else word.strip("'")
    found += [Pronunciation(phones, "dictionary") for phones in _dictionary().get(bare, ())]
    return _unique(found) if found else _elided(word) or _with_suffix(word) or _with_prefix(word)


def _unique(found: Iterable[Pronunciation]) -> tuple[Pronunciation, ...]:
    by_phones: dict[Phones, Pronunciation] = {}
    for pronunciation in found:
        by_phones.setdefault(pronunciation.phones, pronunciation)
    return tuple(by_phones.values())


@lru_cache(maxsize=1)
def _dictionary() -> dict[str, tuple[Phones, ...]]:
    import pronouncing

    pronouncing.init_cmu()
    return {word: tuple(tuple(phones.split()) for phones in all_) for word, all_ in pronouncing.lookup.items()}


def _elided(word: str) -> tuple[Pronunciation, ...]:
    """``wand'ring``, ``ev'ry``, ``stol'n``: the word with an e for the apostrophe, less that unstressed vowel."""
    match = re.fullmatch(r"([a-z]{2,})'([rln][a-z]*)", word)
    if not match:
        return ()
    found = []
    for whole in _known(f"{match[1]}e{match[2]}"):
        phones = _without_last(whole.phones, match[2][0].upper())
        found.append(Pronunciation(phones, "rule"))
    return _unique(found)


def _without_last(phones: Phones, sound: str) -> Phones:
    """Takes away the last unstressed vowel before the consonant; ER0 is vowel and R in one."""
    for i in range(len(phones) - 1, -1, -1):
        if sound == "R" and phones[i] == "ER0" and i + 1 < len(phones):
            return (*phones[:i], "R", *phones[i + 1 :])
        if phones[i][-1] == "0" and phones[i + 1 : i + 2] == (sound,):
            return (*phones[:i], *phones[i + 1 :])
    return phones


def _with_suffix(word: str) -> tuple[Pronunciation, ...]:
    """``taketh``, ``lov'st``, ``fearful's``: a known word and an ending."""
    plain = re.sub("'([sd])$", r"\1", word) if re.search("[a-z]'[sd]$", word) else word
    endings: list[tuple[str, str | None]] = [(end, phones) for end, phones in SUFFIXES.items() if word.endswith(end)]
    if word.endswith("s") and not word.endswith("ss"):
        endings.append(("es" if word.endswith("es") and not _stems(word[:-1], "s") else "s", None))
    if word.endswith("d") and plain != word:
        endings.append(("'d", None))
    elif word.endswith("ed"):
        endings.append(("ed", None))
    for end, phones in sorted(endings, key=lambda ending: -len(ending[0])):
        stem = word.removesuffix(end).removesuffix("'")
        found = [
            Pronunciation(whole, "rule")
            for known in _stems(stem, end)
            for whole in _inflected(known.phones, end, phones.split() if phones else None)
        ]
        if found:
            return _unique(found)
    return ()


def _stems(stem: str, end: str) -> tuple[Pronunciation, ...]:
    """The word that an ending was put on: ``lov`` is love, ``beggar(r)`` beggar, ``bus(i)`` busy."""
    if len(stem) < 2 or not re.search("[aeiouy]", stem):
        return ()
    candidates = [stem]
    if re.match("'?[aeiy]|'?st|'?d|'?th", end):
        # A single consonant after a vowel would be doubled if no e had been lost: "rud'st" is rude, "put'st" put.
        lost_e = re.fullmatch("[^aeiouy]*[aeiouy][^aeiouywx]", stem)
        candidates.insert(0 if lost_e else 1, stem + "e")
        if len(stem) > 3 and stem[-1] == stem[-2]:
            candidates.append(stem[:-1])
    if stem.endswith("i"):
        candidates.insert(0, stem[:-1] + "y")
    return next((known for known in map(_known, candidates) if known), ())


def _inflected(stem: Phones, end: str, phones: list[str] | None) -> list[Phones]:
    """A stem and its ending; -est and -eth after a vowel may lose theirs ("goest", "go'st")."""
    last = stem[-1]
    if phones is not None:
        whole = [(*stem, *phones)]
        if end in ("est", "eth") and is_vowel(last):
            whole.append((*stem, *phones[1:]))
        return whole
    if end in ("s", "es", "'s"):
        return [(*stem, *(("IH0", "Z") if last in SIBILANTS else ("S",) if last in VOICELESS else ("Z",)))]
    return [(*stem, *(("IH0", "D") if last in ("T", "D") else ("T",) if last in VOICELESS else ("D",)))]


def _with_prefix(word: str) -> tuple[Pronunciation, ...]:
    for prefix, phones in PREFIXES.items():
        rest = word.removeprefix(prefix)
        if rest != word and len(rest) > 3 and (known := _known(rest)):
            return _unique(Pronunciation((*phones.split(), *other.phones), "rule") for other in known)
    return ()


def _joined(word: str) -> tuple[Pronunciation, ...]:
    """``afterloss``: two known words written as one."""
    for i in range(len(word) - 3, 2, -1):
        if word[:i] in FIRST_PARTS and _known(word[i:]):
            return _compound([word[:i], word[i:]])
    return ()


def _compound(parts: list[str]) -> tuple[Pronunciation, ...]:
    ways = islice(product(*(pronounce(part) or (Pronunciation((), "guess"),) for part in parts)), MAX_VARIANTS)
    found = []
    for way in ways:
        origin: Origin = "guess" if any(part.origin == "guess" for part in way) else "compound"
        found.append(Pronunciation(tuple(phone for part in way for phone in part.phones), origin))
    return _unique(found)


# ---------------------------------------------------------------------------------------------------------------------
# Guessing
# ---------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _backwards() -> list[str]:
    """The dictionary's words, spelled backwards and sorted: words with the same ending stand together."""
    return sorted(word[::-1] for word in _dictionary() if word.isalpha())


def _guess(word: str) -> tuple[Pronunciation, ...]:
    """By analogy with the words that share the longest ending (Dedina and Nusbaum 1991, in their simplest form)."""
    groups = list(re.finditer("[aeiouy]+", word))
    for group in groups:
        ending_from = 0 if group is groups[0] else groups[groups.index(group) - 1].end()
        for start in range(ending_from, group.start() + 1):
            tail, n_alike = _usual_tail(word[start:])
            if n_alike >= FEWEST_ALIKE or (n_alike and group is groups[-1]):
                return (Pronunciation(_with_head(word[: group.start()], tail), "guess"),)
    return (Pronunciation(_with_head(word, ()), "guess"),)


@lru_cache(maxsize=1 << 17)
def _usual_tail(ending: str) -> tuple[Phones, int]:
    """How most dictionary words with this ending sound from its first vowel on, and how many words were looked at."""
    backwards, key = _backwards(), ending[::-1]
    first = bisect_left(backwards, key)
    alike = [word[::-1] for word in backwards[first : first + GUESS_FROM] if word.startswith(key)]
    n_vowels = _written_syllables(ending)
    tails = Counter(_tail(_dictionary()[word][0], n_vowels) for word in alike)
    return min(tails, key=lambda phones: (-tails[phones], phones), default=()), len(alike)


def _written_syllables(word: str) -> int:
    """Groups of vowel letters, without the silent e of an ending."""
    silent = re.search("[^aeiouy](e|es|ed)$", word) and not re.search(
        "([^aeiouy]le|[cgsxz]es|sh?es|ches|[td]ed)$", word
    )
    return max(len(re.findall("[aeiouy]+", word)) - bool(silent), 1 if re.search("[aeiouy]", word) else 0)


def _tail(phones: Phones, n_vowels: int) -> Phones:
    """From the n-th last vowel on."""
    vowels = [i for i, phone in enumerate(phones) if is_vowel(phone)]
    return phones[vowels[-n_vowels] :] if len(vowels) >= n_vowels else phones


def _with_head(head: str, tail: Phones) -> Phones:
    """Letters before a known ending: their syllables get AH, and the first is stressed where the ending is not."""
    sounds = ["AH0" if match[1] else LETTERS[match[0]] for match in re.finditer("([aeiouy]+)|[a-z]", head)]
    phones = [*sounds, *tail]
    vowels = [i for i, phone in enumerate(phones) if is_vowel(phone)]
    if not vowels:
        return (*phones, "AH1")
    if not any(phone[-1] == "1" for phone in phones):
        phones[vowels[0]] = phones[vowels[0]][:-1] + "1"
    return tuple(phones)
