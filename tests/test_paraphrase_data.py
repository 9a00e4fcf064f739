"""The bundled question pairs: the sample that stands in for Quora's, and the probe set."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1] / "data"
SAMPLE, PROBES = DATA / "sample", DATA / "probes"
FILES = {"train": "quora-train.csv", "dev": "quora-dev.csv", "test": "quora-test-student.csv"}
N_PAIRS = {"train": 400, "dev": 100, "test": 100}
N_DUPLICATES = {"train": 148, "dev": 37}

MEANING_CHANGES = ("negation", "swapped roles", "antonym", "changed number", "changed name", "added condition")
MEANING_STAYS = ("no shared words", "light rewording")


@dataclass(frozen=True)
class Pair:
    id: str
    first: str
    second: str
    label: str | None = None
    kind: str | None = None

    @property
    def questions(self) -> tuple[str, str]:
        return self.first, self.second

    @property
    def is_duplicate(self) -> bool:
        assert self.label is not None
        return float(self.label) == 1.0


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The header, and the rows by column."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", strict=True)
        rows = list(reader)
    return list(reader.fieldnames or []), rows


def read_pairs(path: Path) -> list[Pair]:
    _, rows = read_rows(path)
    return [
        Pair(row["id"], row["sentence1"], row["sentence2"], row.get("is_duplicate"), row.get("kind")) for row in rows
    ]


def normalized(question: str) -> str:
    """Equal for questions that differ in case, punctuation and spaces only."""
    return " ".join(re.findall(r"\w+", question.lower()))


def words(question: str) -> set[str]:
    return set(re.findall(r"\w+", question.lower()))


@pytest.fixture(scope="module")
def sample() -> dict[str, list[Pair]]:
    return {split: read_pairs(SAMPLE / name) for split, name in FILES.items()}


@pytest.fixture(scope="module")
def probes() -> list[Pair]:
    return read_pairs(PROBES / "paraphrase.tsv")


# ---------------------------------------------------------------------------------------------------------------------
# Format
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", FILES)
def test_sample_has_the_layout_of_the_course_files(split: str) -> None:
    header, rows = read_rows(SAMPLE / FILES[split])
    labelled = split != "test"
    assert header == ["", "id", "sentence1", "sentence2"] + ["is_duplicate"] * labelled
    assert [row[""] for row in rows] == [str(i) for i in range(N_PAIRS[split])]
    if labelled:
        assert Counter(row["is_duplicate"] for row in rows) == {
            "1.0": N_DUPLICATES[split],
            "0.0": N_PAIRS[split] - N_DUPLICATES[split],
        }


def test_probe_set_has_fifteen_pairs_of_each_kind(probes: list[Pair]) -> None:
    header, _ = read_rows(PROBES / "paraphrase.tsv")
    assert header == ["id", "kind", "sentence1", "sentence2", "is_duplicate"]
    expected = {(kind, label): n for kind in MEANING_CHANGES for label, n in (("0", 12), ("1", 3))}
    expected |= {(kind, label): n for kind in MEANING_STAYS for label, n in (("0", 3), ("1", 12))}
    assert Counter((pair.kind, pair.label) for pair in probes) == expected


@pytest.mark.parametrize("path", [SAMPLE / name for name in FILES.values()] + [PROBES / "paraphrase.tsv"], ids=str)
def test_files_read_the_same_under_every_quoting_rule(path: Path) -> None:
    """Printable UTF-8, one pair per line, no quotation mark that a reader could take for quoting."""
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == ""
    assert all(field.isprintable() for line in lines for field in line.split("\t"))
    assert {line.count("\t") for line in lines} == {lines[0].count("\t")}
    assert not any('"' in line for line in lines)


# ---------------------------------------------------------------------------------------------------------------------
# Content
# ---------------------------------------------------------------------------------------------------------------------


def test_ids_are_unique_and_come_from_the_questions(sample: dict[str, list[Pair]], probes: list[Pair]) -> None:
    pairs = [pair for split in sample.values() for pair in split] + probes
    for pair in pairs:
        assert pair.id == hashlib.sha1("\n".join(pair.questions).encode()).hexdigest()[:25]
    assert len({pair.id for pair in pairs}) == len(pairs) == 720


def test_no_question_stands_twice(sample: dict[str, list[Pair]], probes: list[Pair]) -> None:
    """So no pair is repeated, none is a question with itself, and nothing leaks between the files."""
    pairs = [pair for split in sample.values() for pair in split] + probes
    count = Counter(normalized(question) for pair in pairs for question in pair.questions)
    assert [question for question, n in count.items() if n > 1] == []


def test_lengths(sample: dict[str, list[Pair]], probes: list[Pair]) -> None:
    pairs = [pair for split in sample.values() for pair in split] + probes
    lengths = [len(question.split()) for pair in pairs for question in pair.questions]
    assert min(lengths) == 4 and 30 <= max(lengths) <= 40


def test_pairs_without_shared_words_share_none(probes: list[Pair]) -> None:
    """Not even function words."""
    pairs = [pair for pair in probes if pair.kind == "no shared words"]
    assert [words(pair.first) & words(pair.second) for pair in pairs] == [set()] * 15


def test_changed_meanings_keep_most_words(probes: list[Pair]) -> None:
    """So overlap alone calls them duplicates: at least two fifths of the words of each pair stand in both questions."""
    pairs = [pair for pair in probes if pair.kind in MEANING_CHANGES]
    assert [pair for pair in pairs if overlap(pair) < Fraction(2, 5)] == []


def test_no_question_is_quoras(shared: Path, sample: dict[str, list[Pair]], probes: list[Pair]) -> None:
    published: set[str] = set()
    for name in ("quora-train.csv", "quora-dev.csv"):
        for line in (shared / "data" / "qqp" / name).read_text(encoding="utf-8").split("\n")[1:]:
            published.update(normalized(field) for field in line.split("\t")[2:4])
    assert len(published) > 25_000
    pairs = [pair for split in sample.values() for pair in split] + probes
    ours = {normalized(question) for pair in pairs for question in pair.questions}
    assert ours & published == set()


# ---------------------------------------------------------------------------------------------------------------------
# What word overlap can do
# ---------------------------------------------------------------------------------------------------------------------


def overlap(pair: Pair) -> Fraction:
    """Jaccard: the share of all words of both questions that stand in both."""
    first, second = map(words, pair.questions)
    return Fraction(len(first & second), len(first | second))


def accuracy(pairs: Iterable[Pair], threshold: Fraction) -> float:
    right = [(overlap(pair) >= threshold) == pair.is_duplicate for pair in pairs]
    return sum(right) / len(right)


@pytest.fixture(scope="module")
def threshold(sample: dict[str, list[Pair]]) -> Fraction:
    """The one with the best accuracy on the sample's train, the smallest of equals."""
    candidates = sorted({overlap(pair) for pair in sample["train"]})
    return max(candidates, key=lambda candidate: accuracy(sample["train"], candidate))


def test_word_overlap_does_not_solve_the_sample(sample: dict[str, list[Pair]], threshold: Fraction) -> None:
    train, dev = (accuracy(sample[split], threshold) for split in ("train", "dev"))
    print(f"threshold {float(threshold):.2f}: {train:.3f} on train, {dev:.2f} on dev")
    assert 0.6 < train < 0.8 and dev < 0.8
    figures = f"threshold {float(threshold):.2f} on their Jaccard overlap: {train:.3f} on train, {dev:.2f} on dev"
    assert figures in " ".join((SAMPLE / "README.md").read_text(encoding="utf-8").split())


def test_word_overlap_fails_on_the_probes(probes: list[Pair], threshold: Fraction) -> None:
    everywhere = accuracy(probes, threshold)
    print(f"{everywhere:.3f} on all probes")
    assert everywhere < 0.65
    readme = (PROBES / "README.md").read_text(encoding="utf-8")
    assert f"| all | 78 | 42 | 0.650 | {everywhere:.3f} |" in readme
    for kind in MEANING_CHANGES + MEANING_STAYS:
        pairs = [pair for pair in probes if pair.kind == kind]
        right, always_no = accuracy(pairs, threshold), accuracy(pairs, Fraction(2))
        n_no = sum(not pair.is_duplicate for pair in pairs)
        print(f"| {kind} | {n_no} | {15 - n_no} | {always_no:.3f} | {right:.3f} |")
        assert f"| {kind} | {n_no} | {15 - n_no} | {always_no:.3f} | {right:.3f} |" in readme
