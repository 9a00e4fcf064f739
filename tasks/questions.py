"""Questions about a text, with answers that stand in it: SQuAD and KorQuAD JSON, and JSON lines.

A record of JSON lines has ``context``, ``question`` and ``answers``: a list of texts, or of SQuAD's objects with
``text`` and ``answer_start``. Where a place is given, the answer must stand there; else its first occurrence counts.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from config import ROOT, UserError
from tasks.files import JSON_LINES, FileProblems, is_unicode, nfc, read_json_lines, read_text
from tasks.published import PublishedDataset

SPLITS = ("train", "dev", "test")
_ID = re.compile(r'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)')


@dataclass(frozen=True, kw_only=True)
class QuestionDataset(PublishedDataset):
    """A published dataset of questions.

    Attributes:
        rules: those of its evaluation script (:mod:`tasks.answer_scores`).
        split_file: where all splits are parts of one file: the file in ``data/splits`` with the titles of their
            articles.
    """

    rules: str
    split_file: str | None = None


DATASETS = {
    "squad": QuestionDataset(  # CC BY-SA 4.0
        "en",
        {"train": ("train-v1.1.json",), "dev": ("dev-v1.1.json",)},
        "https://rajpurkar.github.io/SQuAD-explorer/",
        "squad is published without its test set: the best epoch is chosen on the same questions that are scored",
        rules="squad",
    ),
    "korquad": QuestionDataset(  # CC BY-ND 2.0 KR
        "ko",
        dict.fromkeys(SPLITS, ("KorQuAD_v1.0_dev.json",)),
        "https://korquad.github.io/KorQuad%201.0/",
        "korquad here is KorQuAD 1.0's dev file, split by article (data/splits/korquad.json): no comparison for "
        "published numbers, which are of models trained on its training file",
        rules="korquad",
        split_file="korquad.json",
    ),
}


@dataclass(frozen=True)
class Question:
    """A question about a context.

    Attributes:
        title: the article that the context is from; empty where the file has none.
        answers: all that are right; none where the file has none.
        start: the place in the context of the first answer, in characters.
    """

    id: str
    title: str
    context: str
    question: str
    answers: tuple[str, ...]
    start: int | None

    @property
    def source(self) -> str:
        return self.context

    def is_answered_in(self, window: tuple[int, int]) -> bool:
        """Whether the first answer stands in this part of the context."""
        if self.start is None:
            return False
        return window[0] <= self.start and self.start + len(self.answers[0]) <= window[1]


@dataclass(frozen=True)
class Questions:
    """Those of a file, and how many it has that can't be answered from their context (SQuAD 2) and are left out."""

    questions: list[Question]
    n_impossible: int


@dataclass(frozen=True)
class QuestionSplits:
    """The questions of each split; ``notes`` are sentences to show the user."""

    splits: dict[str, list[Question]]
    notes: tuple[str, ...] = ()


def read_dataset(paths: Mapping[str, Sequence[Path]], name: str | None) -> QuestionSplits:
    """Reads the files of a published dataset, or of none.

    Raises:
        UserError: with all problems of all files.
    """
    dataset = DATASETS.get(name or "")
    if dataset is not None and dataset.split_file is not None:
        (path,) = paths["train"]
        titles = read_split_titles(ROOT / "data" / "splits" / dataset.split_file)
        return QuestionSplits(split_by_article(path, read_questions(path).questions, titles))
    problems: list[str] = []
    notes: list[str] = []
    splits: dict[str, list[Question]] = {split: [] for split in paths}
    for split, path in ((split, path) for split, files in paths.items() for path in files):
        try:
            read = read_questions(path, labelled=split != "test")
        except UserError as error:
            problems += error.problems
            continue
        splits[split].extend(read.questions)
        if read.n_impossible:
            notes.append(f"{path.name}: {read.n_impossible} questions that have no answer are left out")
    if problems:
        raise UserError(problems)
    return QuestionSplits(splits, tuple(notes))


def read_questions(path: Path, *, labelled: bool = True) -> Questions:
    """Reads and checks a file by its ending: ``.json`` as SQuAD, ``.jsonl`` as JSON lines.

    Args:
        labelled: whether every question must have an answer.

    Raises:
        UserError: with all problems of the file; each names the question and its line.
    """
    if path.suffix.lower() in JSON_LINES:
        return _read_lines(path, labelled)
    if path.suffix.lower() == ".json":
        return _read_squad(path, labelled)
    raise UserError(f"{path}: the ending {path.suffix!r} says no format; name it .json (as SQuAD) or .jsonl")


def read_split_titles(path: Path) -> dict[str, list[str]]:
    """The titles of each split's articles."""
    titles: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))["titles"]
    return titles


def split_by_article(
    path: Path, questions: Sequence[Question], titles: Mapping[str, Sequence[str]]
) -> dict[str, list[Question]]:
    """The questions of each split, in the file's order.

    Raises:
        UserError: the file has an article that is in no split, or lacks one.
    """
    split_of = {title: split for split, names in titles.items() for title in names}
    found = {question.title for question in questions}
    remedy = "give the published file, or files of your own with --train-file and --dev-file"
    problems = FileProblems(path)
    for title in sorted(found - split_of.keys()):
        problems.add(None, f"the article {title!r} is in no split; {remedy}")
    for title in sorted(split_of.keys() - found):
        problems.add(None, f"the article {title!r} is missing; {remedy}")
    problems.raise_any()
    splits: dict[str, list[Question]] = {split: [] for split in titles}
    for question in questions:
        splits[split_of[question.title]].append(question)
    return splits


# ---------------------------------------------------------------------------------------------------------------------
# Formats
# ---------------------------------------------------------------------------------------------------------------------


class _BadQuestion(Exception):
    """What is wrong with one question, and how to mend it."""


def _read_lines(path: Path, labelled: bool) -> Questions:
    problems, questions, n_impossible = FileProblems(path), [], 0
    line_of: dict[str, int] = {}
    for record in read_json_lines(path, ["context", "question"], ["title"], collect=problems):
        line_of[record.id] = record.line
        if record.raw.get("is_impossible") is True:
            n_impossible += 1
            continue
        try:
            answers, start = _answers(record.raw["context"], record.raw.get("answers"), labelled)
        except _BadQuestion as error:
            problems.add(record.line, f"question {record.id}: {error}")
            continue
        title, context = record.get("title") or "", nfc(record.raw["context"])
        questions.append(Question(record.id, title, context, record["question"], answers, start))
    return _finish(questions, n_impossible, problems, line_of.get)


def _read_squad(path: Path, labelled: bool) -> Questions:
    text = read_text(path)
    problems, questions, n_impossible = FileProblems(path), [], 0
    try:
        articles = json.loads(text)["data"]
        paragraphs = [(str(article.get("title", "")), part) for article in articles for part in article["paragraphs"]]
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: no JSON ({error.msg}, column {error.colno}); mend the file") from None
    except (RecursionError, ValueError):  # a number of thousands of digits is a ValueError
        raise UserError(f"{path}: no JSON that can be read; mend the file") from None
    except (TypeError, KeyError, AttributeError):
        raise UserError(
            f"{path}: not SQuAD's layout; it has data, a list of articles, each with a title and a list of paragraphs"
        ) from None
    lines = cache(lambda: _lines_of_ids(text))  # only a file with problems is looked through
    ids: set[str] = set()
    last = ""  # the id that stands before what is looked at, or in it

    def line_of(id_: str) -> int | None:
        return lines().get(id_, [None])[-1]

    for number, (title, paragraph) in enumerate(paragraphs, start=1):
        where = f"paragraph {number} of the file ({title})"
        asked_here = paragraph.get("qas") if isinstance(paragraph, dict) else None
        own = [id_ for id_ in map(_id_of, asked_here) if id_] if isinstance(asked_here, list) else []
        if not _is_text(paragraph, "context") or not isinstance(asked_here, list):
            line = line_of(own[0] if own else last)
            problems.add(line, f"{where}: no context, or no list of questions (qas); write both, or delete it")
            last = own[-1] if own else last
            continue
        for asked in asked_here:
            id_ = _id_of(asked)
            last = id_ or last
            if not _is_text(asked, "question") or not id_:
                line = line_of(last)
                problems.add(line, f"{where}: a question without its text or id; write both, or delete it")
                continue
            if not is_unicode(id_):
                line = line_of(last)
                problems.add(line, f"{where}: the id {id_!r} has half a surrogate pair; write the whole character")
                continue
            if id_ in ids:
                problems.add(line_of(id_), f"question {id_}: the id stands there twice; change one")
            ids.add(id_)
            if asked.get("is_impossible") is True:
                n_impossible += 1
                continue
            try:
                answers, start = _answers(paragraph["context"], asked.get("answers"), labelled)
            except _BadQuestion as error:
                problems.add(lines().get(id_, [None])[0], f"question {id_}: {error}")
                continue
            context, question = nfc(paragraph["context"]), nfc(asked["question"]).strip()
            questions.append(Question(id_, nfc(title), context, question, answers, start))
    return _finish(questions, n_impossible, problems, line_of)


def _finish(
    questions: list[Question], n_impossible: int, problems: FileProblems, line_of: Callable[[str], int | None]
) -> Questions:
    if not questions and not len(problems):
        problems.add(None, "holds no question that can be answered; give a file with some")
    open_ones = [question.id for question in questions if not question.answers]
    if open_ones and len(open_ones) < len(questions):
        problems.add(
            line_of(open_ones[0]), f"{len(open_ones)} of {len(questions)} questions have no answer, such as "
            f"{open_ones[0]}; answer all, or none",
        )  # fmt: skip
    problems.raise_any()
    return Questions(questions, n_impossible)


def _is_text(record: Any, name: str) -> bool:
    value = record.get(name) if isinstance(record, dict) else None
    return isinstance(value, str) and bool(value.strip()) and is_unicode(value)


def _id_of(asked: Any) -> str:
    """Empty where a question has none."""
    return str(asked.get("id", "")) if isinstance(asked, dict) and str(asked.get("id", "")).strip() else ""


def _lines_of_ids(text: str) -> dict[str, list[int | None]]:
    """id -> the lines where the file names it."""
    found: dict[str, list[int | None]] = {}
    line, at = 1, 0
    for match in _ID.finditer(text):
        line, at = line + text.count("\n", at, match.start()), match.start()
        found.setdefault(str(json.loads(match[1])), []).append(line)
    return found


def _answers(context: str, raw: Any, labelled: bool) -> tuple[tuple[str, ...], int | None]:
    """The answers of a question, and the place of the first in the composed context.

    They are looked for in the context as the file writes it, because that is what ``answer_start`` counts in.
    """
    if isinstance(raw, dict) and isinstance(raw.get("text"), list):  # columns instead of rows, as some mirrors have it
        starts = raw.get("answer_start") or [None] * len(raw["text"])
        if not isinstance(starts, list):
            raise _BadQuestion(f"answer_start is {starts!r}, no list; write one place for each text")
        if len(starts) != len(raw["text"]):
            raise _BadQuestion("its answers have other numbers of texts and places; write one place for each")
        raw = [{"text": text, "answer_start": start} for text, start in zip(raw["text"], starts, strict=True)]
    answers = [raw] if isinstance(raw, str | dict) else raw or []
    if not isinstance(answers, list):
        raise _BadQuestion("its answers are no list; write [{'text': ..., 'answer_start': ...}]")
    if not answers and labelled:
        raise _BadQuestion("it has no answer; write one, or delete it")
    places = [_place(context, answer) for answer in answers]
    texts = tuple(nfc(text.strip()) for text, _ in places)
    return texts, _composed_place(context, *places[0]) if places else None


def _place(context: str, answer: Any) -> tuple[str, int]:
    """An answer, in the Unicode form that the context has it in, and where it stands there."""
    text, start = (answer.get("text"), answer.get("answer_start")) if isinstance(answer, dict) else (answer, None)
    if not isinstance(text, str) or not text.strip():
        raise _BadQuestion("an answer is empty; write it, or delete the question")
    for form in dict.fromkeys((text, nfc(text), unicodedata.normalize("NFD", text))):
        if start is None and form in context:
            return form, context.find(form)
        if isinstance(start, int) and start >= 0 and context.startswith(form, start):
            return form, start
    found = context.find(text)
    if found < 0:
        raise _BadQuestion(f"the answer {text!r} does not stand in the context; mend the answer or the context")
    there = context[start : start + len(text)] if isinstance(start, int) and start >= 0 else ""
    raise _BadQuestion(
        f"at {start!r} of the context stands {there!r}, not the answer {text!r}, which stands at {found}; "
        "correct answer_start"
    )


def _composed_place(context: str, text: str, start: int) -> int:
    """The place of an answer's first letter in the context after NFC, which shortens what stands before it."""
    start += len(text) - len(text.lstrip())
    place = len(nfc(context[:start]))
    if not nfc(context).startswith(nfc(text.strip()), place):
        raise _BadQuestion(f"the answer {text!r} begins or ends inside a letter of the context; mend its place")
    return place


# ---------------------------------------------------------------------------------------------------------------------
# Long contexts
# ---------------------------------------------------------------------------------------------------------------------


def cut_windows(
    context: str, tokens: Sequence[tuple[int, int]], room: int, stride: int | None = None
) -> list[tuple[int, int]]:
    """The parts of a context that a model reads one at a time, as places in characters.

    Args:
        tokens: the place of each token, first character and the one after its last.
        room: tokens that fit.
        stride: the most tokens from one window's beginning to the next one's; half the room by default. Nothing is
            left out, however long it is.

    Windows begin and end between words; only a word that is longer than the room is cut.
    """
    if len(tokens) <= room:
        return [(0, len(context))]
    units = _units(context, tokens, room)
    step = stride or max(room // 2, 1)
    first, windows = 0, []
    while True:
        last = _advance(units, first, room)
        windows.append((units[first].begin, units[last - 1].end))
        if last == len(units):
            return windows
        first = min(_advance(units, first, step), last)


@dataclass(frozen=True)
class _Unit:
    """A word, or the tokens of one place in a word that is longer than a window: those of one character, at least."""

    begin: int
    end: int
    tokens: int


def _units(context: str, tokens: Sequence[tuple[int, int]], room: int) -> list[_Unit]:
    """The pieces that windows are made of: words, or the single tokens of a word longer than ``room``.

    White space belongs to the word after it. Tokens that share a place, as the bytes of one character, stay together.
    """
    units, at = [], 0
    for word in re.finditer(r"\S+", context):
        first = at
        while at < len(tokens) and tokens[at][1] <= word.end():
            at += 1
        if at - first <= room:
            units.append(_Unit(*word.span(), at - first))
        else:
            units += [
                _Unit(max(begin, word.start()), end, len(list(same)))
                for (begin, end), same in groupby(tokens[first:at])
                if end > word.start()
            ]
    return units


def _advance(units: Sequence[_Unit], first: int, room: int) -> int:
    """The unit after the last that fits into so many tokens, from the first one on; one always does."""
    last, used = first + 1, units[first].tokens
    while last < len(units) and used + units[last].tokens <= room:
        used += units[last].tokens
        last += 1
    return last
