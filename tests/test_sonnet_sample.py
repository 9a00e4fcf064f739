"""The bundled sonnets: the layout of the course's files, the form of the poems, and that they are new."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"
WHOLE = {
    "sonnets.txt": range(1, 25),
    "TRUE_sonnets_held_out_dev.txt": range(25, 27),
    "TRUE_sonnets_held_out.txt": range(27, 29),
}
PROMPTS = {
    "sonnets_held_out_dev.txt": "TRUE_sonnets_held_out_dev.txt",
    "sonnets_held_out.txt": "TRUE_sonnets_held_out.txt",
}
LINE_ENDS = {name: "\r\n" if name in ("sonnets.txt", "sonnets_held_out.txt") else "\n" for name in [*WHOLE, *PROMPTS]}
FILE_ENDS = {"sonnets.txt": "\r\n\r\n", "sonnets_held_out.txt": "\r\n"}  # the other files end with their last letter
N_HEADER_LINES = 11
RHYMES = ((0, 2), (1, 3), (4, 6), (5, 7), (8, 10), (9, 11), (12, 13))  # ABAB CDCD EFEF GG


def read_sonnets(path: Path) -> dict[int, list[str]]:
    """The lines of each poem, indentation included, by its number."""
    with path.open(encoding="ascii") as file:
        _, *parts = re.split(r"\n *(\d+)\n\n", file.read())
    return {int(number): text.rstrip("\n").split("\n") for number, text in zip(parts[::2], parts[1::2], strict=True)}


def words(line: str) -> list[str]:
    return [word.strip("'") for word in re.findall(r"[a-z']+", line.lower())]


def rhyming_sounds(word: str) -> set[str]:
    """From the last stressed vowel to the end, without the degree of stress, for each pronunciation in CMUdict."""
    pronouncing = pytest.importorskip("pronouncing")
    return {re.sub(r"\d", "", pronouncing.rhyming_part(phones)) for phones in pronouncing.phones_for_word(word)}


def stress_patterns(line: str) -> list[tuple[str, ...]]:
    """All ways to say a line, as one stress digit per syllable (1 is the primary) for each word; none if CMUdict
    lacks a word."""
    pronouncing = pytest.importorskip("pronouncing")
    choices = [
        {pronouncing.stresses(phones) for phones in pronouncing.phones_for_word(word)} - {""} for word in words(line)
    ]
    return list(itertools.product(*choices))


def is_pentameter(pattern: tuple[str, ...]) -> bool:
    return len("".join(pattern)) in (10, 11)


def is_iambic(pattern: tuple[str, ...]) -> bool:
    """Longer words have their primary stress on even syllables; words of one syllable fit anywhere."""
    digits = "".join(word if len(word) > 1 else "0" for word in pattern)
    return "1" not in digits[::2]


@pytest.fixture(scope="module")
def poems() -> dict[int, list[str]]:
    """All 28 whole sonnets, from the three files."""
    return {number: lines for name in WHOLE for number, lines in read_sonnets(SAMPLE / name).items()}


@pytest.fixture(scope="module")
def verses(poems: dict[int, list[str]]) -> list[str]:
    return [line.strip() for lines in poems.values() for line in lines]


# ---------------------------------------------------------------------------------------------------------------------
# Layout
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LINE_ENDS)
def test_every_byte_outside_the_verses_follows_the_course_files(name: str) -> None:
    content = (SAMPLE / name).read_bytes().decode("ascii")
    header = content.replace("\r\n", "\n").split("\n")[:N_HEADER_LINES]
    blocks = [f"{number}\n\n" + "\n".join(lines) for number, lines in read_sonnets(SAMPLE / name).items()]
    expected = "\n".join(header) + "\n" + "\n\n".join(blocks)
    assert content == expected.replace("\n", LINE_ENDS[name]) + FILE_ENDS.get(name, "")
    assert header[0] == "Sonnets" and [bool(line) for line in header] == [True] * 7 + [False] * 4


@pytest.mark.parametrize("name", [name for name in LINE_ENDS if name != "TRUE_sonnets_held_out.txt"])
def test_header_line_ends_and_file_end_are_those_of_the_real_file(name: str, shared: Path) -> None:
    """The course does not publish the poems that its last prompts begin, so that file has no model."""
    ours, theirs = (folder / name for folder in (SAMPLE, shared / "data" / "cs224n"))

    def layout(path: Path) -> tuple[list[str], str]:
        with path.open(encoding="ascii", newline="") as file:
            content = file.read()
        skeleton = [re.sub(r"\S.*\S|\S", "x", line) for line in content.split("\n")]
        return skeleton[: N_HEADER_LINES + 5], content[len(content.rstrip()) :]

    assert layout(ours) == layout(theirs)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_sonnets_have_fourteen_lines_and_an_indented_couplet(name: str) -> None:
    sonnets = read_sonnets(SAMPLE / name)
    assert list(sonnets) == list(WHOLE[name])
    for lines in sonnets.values():
        assert [len(line) - len(line.lstrip()) for line in lines] == [0] * 12 + [2, 2]
        assert all(line.strip() and line == line.rstrip() for line in lines)


@pytest.mark.parametrize("name", PROMPTS)
def test_held_out_prompts_are_the_first_three_lines_of_the_whole_poems(name: str) -> None:
    whole = read_sonnets(SAMPLE / PROMPTS[name])
    assert read_sonnets(SAMPLE / name) == {number: lines[:3] for number, lines in whole.items()}


# ---------------------------------------------------------------------------------------------------------------------
# The poems
# ---------------------------------------------------------------------------------------------------------------------


def test_no_line_stands_twice(verses: list[str]) -> None:
    count = Counter(" ".join(words(line)) for line in verses)
    assert len(verses) == 28 * 14 and [line for line, n in count.items() if n > 1] == []


def test_no_five_words_in_a_row_are_shakespeares(verses: list[str], shared: Path) -> None:
    def runs(lines: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words(line)[i : i + 5]) for line in lines for i in range(len(words(line)) - 4)}

    names = ("sonnets.txt", "TRUE_sonnets_held_out_dev.txt", "sonnets_held_out.txt")
    real = [line for name in names for line in (shared / "data" / "cs224n" / name).read_text().splitlines()]
    assert len(runs(real)) > 5000 and runs(verses) & runs(real) == set()


def test_no_word_rhymes_with_itself(poems: dict[int, list[str]]) -> None:
    for number, lines in poems.items():
        ends = [words(line)[-1] for line in lines]
        assert [(number, ends[i]) for i, j in RHYMES if ends[i] == ends[j]] == []


def test_rhymes_are_perfect_by_cmudict(poems: dict[int, list[str]]) -> None:
    pairs = [(words(lines[i])[-1], words(lines[j])[-1]) for lines in poems.values() for i, j in RHYMES]
    known = [pair for pair in pairs if all(rhyming_sounds(word) for word in pair)]
    imperfect = [pair for pair in known if not rhyming_sounds(pair[0]) & rhyming_sounds(pair[1])]
    assert len(known) >= 0.95 * len(pairs) and len(pairs) == 196
    assert imperfect == [("hear", "near")]  # perfect by ear; CMUdict writes the two vowels differently


def test_lines_are_iambic_pentameter_by_cmudict(verses: list[str]) -> None:
    patterns = {line: stress_patterns(line) for line in verses}
    known = [line for line in verses if patterns[line]]
    assert len(known) >= 0.9 * len(verses)
    wrong = [line for line in known if not any(is_pentameter(said) and is_iambic(said) for said in patterns[line])]
    assert wrong == []
