"""Pronunciation, rhyme and meter."""

from __future__ import annotations

import random

import pytest

from poetry.meter import has_ten_syllables, is_iambic, n_syllables, scan
from poetry.pronunciation import pronounce, words_of
from poetry.rhyme import SHAKESPEARE, RhymeIndex, ending, pairs_of, rhyme_letters, rhymes


@pytest.mark.parametrize(
    ("word", "phones", "origin"),
    [
        ("Desire", "D IH0 Z AY1 ER0", "dictionary"),
        ("o'er", "AO1 R", "list"),
        ("reeleth", "R IY1 L IH0 TH", "rule"),
        ("lov'st", "L AH1 V S T", "rule"),
        ("rud’st", "R UW1 D S T", "rule"),
        ("feel'st", "F IY1 L S T", "rule"),
        ("runn'st", "R AH1 N S T", "rule"),
        ("wand'ring", "W AA1 N D R IH0 NG", "rule"),
        ("stol'n", "S T OW1 L N", "rule"),
        ("throned", "TH R OW1 N D", "rule"),
        ("builded", "B IH1 L D IH0 D", "rule"),
        ("judgment's", "JH AH1 JH M AH0 N T S", "rule"),
        ("wretch's", "R EH1 CH IH0 Z", "rule"),
        ("buriest", "B EH1 R IY0 IH0 S T", "rule"),
        ("o'erworn", "AO2 R W AO1 R N", "rule"),
        ("self-love", "S EH1 L F L AH1 V", "compound"),
        ("afterloss", "AE1 F T ER0 L AO1 S", "compound"),
    ],
)
def test_words_and_where_their_sounds_come_from(word: str, phones: str, origin: str) -> None:
    assert (tuple(phones.split()), origin) in [(way.phones, way.origin) for way in pronounce(word)]


def test_a_guess_has_the_sounds_of_the_ending_and_the_syllables_of_the_rest() -> None:
    (way,) = pronounce("jollification")
    assert way.origin == "guess" and way.stresses == "00010" and way.phones[-4:] == ("EY1", "SH", "AH0", "N")
    assert pronounce("1609") == () and pronounce("") == () and pronounce("é") == ()


def test_guesses_agree_with_the_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of words that are taken out of the dictionary, most are guessed with the right number of syllables."""
    from poetry import pronunciation

    words = [word for word in pronunciation._dictionary() if word.isalpha() and 5 <= len(word) <= 9]
    sample = random.Random(0).sample(words, 100)
    rest = {word: ways for word, ways in pronunciation._dictionary().items() if word not in set(sample)}
    truth = {word: pronounce(word)[0] for word in sample}
    pronunciation._backwards.cache_clear()
    pronunciation._usual_tail.cache_clear()
    monkeypatch.setattr(pronunciation, "_dictionary", lambda: rest)
    guesses = {word: pronunciation._guess(word)[0] for word in sample}
    pronunciation._backwards.cache_clear()
    pronunciation._usual_tail.cache_clear()
    right = sum(len(guesses[word].stresses) == len(truth[word].stresses) for word in sample)
    assert right > 0.8 * len(sample)


def test_words_of_a_line() -> None:
    line = "“Is ’t not 'this fair child' of th' east--self-love’s?”"
    assert words_of(line) == ["is", "'t", "not", "this", "fair", "child", "of", "th'", "east", "self-love's"]
    assert ending("  And that is all that is't!") == "is't" and ending("Who would do 't?") == "do"
    assert ending("--") == ending("") == ""


# ---------------------------------------------------------------------------------------------------------------------
# Rhyme
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        ("increase", "decease", "perfect"),
        ("eyes", "lies", "perfect"),
        ("viewest", "renewest", "perfect"),  # feminine: two syllables rhyme
        ("spring", "niggarding", "perfect"),  # the beat falls on the last syllable
        ("fire", "desire", "perfect"),
        ("lov'st", "prov'st", "near"),
        ("love", "prove", "near"),  # other vowel, same consonant
        ("time", "mine", "near"),  # same vowel, other nasal
        ("leave", "believe", "near"),  # alike before the vowel, too
        ("sun", "son", "near"),
        ("love", "love", "none"),
        ("love", "self-love", "none"),
        ("Love", "love,", "none"),
        ("die", "you", "none"),
        ("day", "sun", "none"),
        ("", "sun", "none"),
    ],
)
def test_rhymes(a: str, b: str, kind: str) -> None:
    assert rhymes(a, b) == rhymes(b, a) == kind


def test_the_scheme_has_seven_pairs() -> None:
    assert pairs_of(SHAKESPEARE) == [(0, 2), (1, 3), (4, 6), (5, 7), (8, 10), (9, 11), (12, 13)]


def test_rhyme_letters() -> None:
    lines = ["the day", "my love", "away", "we prove", "a cat,", "a dog", "a cat"]
    assert rhyme_letters(lines) == ["A", "B", "A", "b", "C", "D", "C"]
    assert rhyme_letters([]) == []


def test_an_index_finds_what_rhymes_finds() -> None:
    words = ["day", "away", "Sway", "love", "prove", "move", "sun", "son", "cat", "day", "hour", "weigh"]
    index = RhymeIndex(words)
    unique = list(dict.fromkeys(words))
    for word in [*unique, "dove", "play"]:
        assert index.perfect(word) == [other for other in unique if rhymes(word, other) == "perfect"]
        assert index.near(word) == [other for other in unique if rhymes(word, other) == "near"]
    assert index.best("day") == ["away", "Sway", "weigh"]
    assert index.best("love") == ["prove", "move"]  # near ones, for want of perfect ones


# ---------------------------------------------------------------------------------------------------------------------
# Meter
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "syllables", "iambic"),
    [
        ("From fairest creatures we desire increase,", 10, True),
        ("Making a famine where abundance lies,", 10, True),  # inverted first foot
        ("A woman's face with nature's own hand painted", 11, True),  # feminine ending
        ("Now is the time that face should form another,", 11, True),
        ("His tender heir might bear his memory.", 10, True),  # an unstressed syllable on the last beat
        ("That heaven's air in this huge rondure hems", 10, True),
        ("So long as men can breathe and eyes can see", 10, True),
        ("The quality of mercy", 7, False),
        ("We sat down and looked at a picture together", 12, False),
        ("The garden table window garden tree", 10, True),
        ("A garden of tables windows gardens", 10, False),  # stresses on weak syllables
        ("", 0, False),
    ],
)
def test_meter(line: str, syllables: int, iambic: bool) -> None:
    assert (n_syllables(line), is_iambic(line)) == (syllables, iambic)


def test_ten_syllables_ask_nothing_of_the_stresses() -> None:
    assert has_ten_syllables("A garden of tables windows gardens")
    assert has_ten_syllables("A woman's face with nature's own hand painted")
    assert not has_ten_syllables("So long as men can breathe and eyes can see it")  # eleven, but no feminine ending
    assert not has_ten_syllables("So long as men can breathe")


def test_scan_shows_words_as_they_are_stressed() -> None:
    assert scan("From fairest creatures we desire increase,").marks == "x /x /x / x/ x/"
    assert scan("Making a famine where abundance lies,").marks.startswith("/x x /x")
    scansion = scan("In 1609 the book was sold")
    assert scansion.unknown == ("1609",) and not scansion.fits


def test_a_line_without_end_is_no_verse() -> None:
    assert not is_iambic("the tree " * 2000)
