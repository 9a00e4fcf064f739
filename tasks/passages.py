"""Texts to learn to go on with: documents of plain text or JSON lines, and pairs of a question and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from config import UserError
from tasks.files import JSON_LINES, FileProblems, nfc, read_json_lines, read_table, read_text
from tasks.published import PublishedDataset, by_hash

QUESTION, ANSWER = "Q", "A"
TABLES = {".csv": ",", ".tsv": "\t"}
PLAIN_TEXT = (".txt", ".text", ".md", "")

CHATBOT = PublishedDataset(
    "ko",
    {"train": ("ChatbotData.csv",)},
    "https://github.com/songys/Chatbot_data",
    "ChatbotData.csv is published without splits: by a hash of the question one tenth is dev and one is test; the same "
    "answer can stand in several",
)


@dataclass(frozen=True)
class Passage:
    """A text, or an answer to a question.

    Attributes:
        id: the record's own, or the number of its line.
        question: None where the text stands by itself.
    """

    id: str
    text: str
    question: str | None = None

    @property
    def source(self) -> str:
        return self.question or self.text


@dataclass(frozen=True)
class Passages:
    """The passages of each split; ``notes`` are sentences to show the user."""

    splits: dict[str, list[Passage]]
    notes: tuple[str, ...] = ()


def read_dataset(paths: Mapping[str, Sequence[Path]], name: str | None, separator: str, text_field: str) -> Passages:
    """Reads the files of a published dataset, or of none.

    Raises:
        UserError: as :func:`read_passages`.
    """
    found = read_passages(paths, separator, text_field)
    if name == "chatbot":  # published as one file
        return Passages(split_by_hash(found.splits["train"]), found.notes)
    return found


def read_passages(paths: Mapping[str, Sequence[Path]], separator: str, text_field: str) -> Passages:
    """Reads the files of each split: by their ending tables of pairs, JSON lines, or plain text.

    Raises:
        UserError: with all problems of all files, or where documents and pairs are mixed.
    """
    found: dict[str, list[Passage]] = {}
    problems: list[str] = []
    notes: list[str] = []
    for split, files in paths.items():
        found[split] = []
        for path in files:
            try:
                passages, n_empty = read_file(path, separator, text_field)
            except UserError as error:
                problems += error.problems
                continue
            found[split] += passages
            if n_empty:
                empty = "an empty document" if n_empty == 1 else f"{n_empty} empty documents"
                notes.append(f"{path.name}: {empty} between two separators, left out")
    kinds = {passage.question is None for passages in found.values() for passage in passages}
    if not problems and len(kinds) > 1:
        names = ", ".join(str(path) for files in paths.values() for path in files)
        problems.append(f"{names}: hold documents and pairs of question and answer; train on the ones or the others")
    if problems:
        raise UserError(problems)
    return Passages(found, tuple(notes))


def read_file(path: Path, separator: str, text_field: str) -> tuple[list[Passage], int]:
    """Reads one file; how many empty documents it has.

    An ending that says nothing of plain text is refused: brackets and tags are no prose.
    """
    ending = path.suffix.lower()
    if ending in TABLES:
        rows = read_table(path, (QUESTION, ANSWER), delimiter=TABLES[ending])
        return [Passage(row.id, row[ANSWER], row[QUESTION]) for row in rows], 0
    if ending in JSON_LINES:
        return read_objects(path, text_field), 0
    if ending in PLAIN_TEXT:
        return read_documents(path, separator)
    raise UserError(
        f"{path}: the ending {ending!r} says no format of texts; name plain text .txt, a JSON object on each line "
        ".jsonl, a table of questions and answers .csv or .tsv"
    )


def read_objects(path: Path, text_field: str) -> list[Passage]:
    """JSON lines with a text each, or with a question and an answer."""
    passages, problems = [], FileProblems(path)
    for record in read_json_lines(path, (), (text_field, QUESTION, ANSWER), collect=problems):
        text, question, answer = record.get(text_field), record.get(QUESTION), record.get(ANSWER)
        if question and answer:
            passages.append(Passage(record.id, answer, question))
        elif text:
            passages.append(Passage(record.id, text))
        else:
            problems.add(
                record.line,
                f"neither a field {text_field!r} nor both of {QUESTION!r} and {ANSWER!r} with any text; write it, or "
                "delete the line",
            )
    problems.raise_any()
    return passages


def read_documents(path: Path, separator: str) -> tuple[list[Passage], int]:
    """Plain text; documents stand between lines that hold nothing but the separator.

    Args:
        separator: empty: the file is one document.

    Returns:
        The documents, and how many empty ones between two separators are left out.
    """
    passages, n_empty, start, lines = [], 0, 1, read_text(path).split("\n")
    ends = [i for i, line in enumerate(lines) if separator and line.rstrip() == separator.rstrip()]
    for end in [*ends, len(lines)]:
        text = nfc("\n".join(lines[start - 1 : end])).strip()
        if text:
            passages.append(Passage(str(start), text))
        elif start > 1 and end < len(lines):
            n_empty += 1
        start = end + 2
    if not passages:
        raise UserError(f"{path}:1: holds no text between its separators {separator!r}; give a file with text")
    return passages, n_empty


def split_by_hash(passages: Sequence[Passage]) -> dict[str, list[Passage]]:
    """Train, dev and test of pairs that come without splits; equal questions, spaces aside, stay together."""
    return by_hash(passages, lambda passage: "".join(passage.source.split()))
