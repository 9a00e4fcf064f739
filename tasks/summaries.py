"""Documents and their summaries: files, sentences, and what can be said of a summary without a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from config import UserError
from tasks.files import MAX_PROBLEMS_PER_FILE, nfc, read_records, read_text
from tasks.published import PublishedDataset, by_hash

ARTICLES, SUMMARIES = "News Articles", "Summaries"  # the two halves of BBC's tree
BBC_NOTE = (
    "BBC's summaries are sentences of the articles, published without the spaces between them, which are put back"
)
BBC = PublishedDataset(
    "en",
    {"train": ("train.jsonl",), "dev": ("dev.jsonl",), "test": ("test.jsonl",)},
    "https://www.kaggle.com/datasets/pariza/bbc-news-summary",
    trees=(ARTICLES, f"BBC News Summary/{ARTICLES}"),
)

# A sentence ends at a mark, with the quotation marks and brackets that close behind it, before white space; the next
# does not begin with a small letter, nor with a Korean word that goes on after a quotation.
_END = re.compile(
    r"(?:[.!?…]+[\"'”’»)\]]*|[。！？]+[\"'”’」』)\]]*)(?=\s)(?!\s+[a-z])(?!(?<=[\"'”’」』])\s+(?:이?라[고는며]|하[고며]|고\s|는\s))"
    r"|[。！？]+(?=\S)|\n+"
)
_ABBREVIATED = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|Sir|St|Jr|Sr|Gen|Col|Lt|Capt|Rev|Hon|Gov|Sen|Rep|vs|No|Inc|Ltd|Co|Corp|etc|e\.g|i\.e|"
    r"approx|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)|(?:^|[\s.(])[A-Z])\.$"
)
_JOINED = re.compile(r"(?<=[.!?])(?=[\"“]?[A-Z])|(?<=[.!?][\"”])(?=[\"“]?[A-Z])")


@dataclass(frozen=True)
class Summary:
    id: str
    document: str
    summary: str

    @property
    def source(self) -> str:
        return self.document


@dataclass(frozen=True)
class Summaries:
    """The rows of each split; ``notes`` are sentences to show the user."""

    splits: dict[str, list[Summary]]
    notes: tuple[str, ...] = ()


def read_dataset(paths: Mapping[str, Sequence[Path]], name: str | None) -> Summaries:
    """Reads the files of ``bbc``, or of no dataset. BBC's tree of articles has no splits: they are made here, without
    what stands in it twice."""
    is_bbc = name == "bbc"
    found = read_summaries(paths, joined=is_bbc)
    notes = [BBC_NOTE] if is_bbc else []
    if is_bbc and paths["train"][0].is_dir():
        once = without_repeats(found["train"])
        notes.append(
            f"{len(found['train']) - len(once)} of {len(found['train'])} articles repeat another and are left out; by "
            "a hash of category and number one tenth of the rest is dev and one is test"
        )
        found = by_hash(once, lambda row: row.id)
    return Summaries(found, tuple(notes))


def read_summaries(paths: Mapping[str, Sequence[Path]], joined: bool = False) -> dict[str, list[Summary]]:
    """Reads JSON lines, CSV or TSV with the fields ``document`` and ``summary``, and ``id`` if they have one.

    A folder is read as BBC's tree.

    Args:
        joined: the spaces between the summaries' sentences are missing.

    Raises:
        UserError: with all problems of all files.
    """
    found: dict[str, list[Summary]] = {}
    problems: list[str] = []
    for split, files in paths.items():
        found[split] = []
        for path in files:
            try:
                rows = read_tree(path) if path.is_dir() else read_rows(path)
            except UserError as error:
                problems += error.problems
                continue
            if joined:
                rows = [replace(row, summary=separate(row.summary, row.document)) for row in rows]
            found[split] += rows
    if problems:
        raise UserError(problems)
    return found


def read_rows(path: Path) -> list[Summary]:
    records = read_records(path, ("document", "summary"))
    return [Summary(record.id, record["document"], record["summary"]) for record in records]


def read_tree(folder: Path) -> list[Summary]:
    """``News Articles/CATEGORY/NUMBER.txt``, each with the file of the same name in ``Summaries``, as Kaggle has them.

    Raises:
        UserError: there are no articles, or a file is missing, empty or unreadable.
    """
    rows: list[Summary] = []
    problems: list[str] = []
    articles = sorted((folder / ARTICLES).glob("[!.]*/[!.]*.txt"))
    if not articles:
        raise UserError(f"{folder}: holds no file {ARTICLES}/CATEGORY/NUMBER.txt; give a file, or the folder with both "
                        f"{ARTICLES} and {SUMMARIES}")  # fmt: skip
    for article in articles:
        category, name = article.parts[-2:]
        try:
            document, summary = (
                nfc(read_text(path, or_latin_1=True)).strip()
                for path in (article, folder / SUMMARIES / category / name)
            )
            rows.append(Summary(f"{category}/{name}", document, summary))
        except UserError as error:
            problems += error.problems
    if len(problems) > MAX_PROBLEMS_PER_FILE:
        more = f"{folder}: ... and {len(problems) - MAX_PROBLEMS_PER_FILE} more problems in this folder"
        problems[MAX_PROBLEMS_PER_FILE:] = [more]
    if problems:
        raise UserError(problems)
    return rows


def without_repeats(rows: Sequence[Summary]) -> list[Summary]:
    """The rows without those whose document occurred before; white space is ignored."""
    first = {"".join(row.document.split()): row for row in reversed(rows)}
    return [row for row in rows if first["".join(row.document.split())] is row]


def separate(summary: str, document: str) -> str:
    """Puts a space between sentences that were joined without one, unless the document has it so, too.

    A quotation mark between two sentences opens the second if the document has it so, else it closes the first.
    """
    pieces, start = [], 0
    for match in _JOINED.finditer(summary):
        place = match.start()
        if summary[place] in '"“' and summary[place : place + 8] not in document:
            continue
        if (
            place > start
            and summary[start:place].strip('"“')
            and summary[max(place - 4, 0) : place + 4] not in document
        ):
            pieces.append(summary[start:place])
            start = place
    return " ".join([*pieces, summary[start:]])


def sentences(text: str) -> list[str]:
    """Splits a text in English or Korean into sentences, at marks and line breaks.

    A full stop after a title, another usual abbreviation or a single capital letter ends none, nor does one within a
    number, which no white space follows.
    """
    found, start = [], 0
    for match in _END.finditer(text):
        piece = text[start : match.end()].strip()
        if match.group().startswith(".") and _ABBREVIATED.search(text[start : match.start() + 1]):
            continue
        if piece:
            found.append(piece)
        start = match.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


def lead(document: str, n: int) -> str:
    """Its first n sentences: what any summary has to beat."""
    return " ".join(sentences(document)[:n])


def copied_share(summary: Sequence[str], document: Sequence[str], n: int = 3) -> float:
    """The share of a summary's n-grams of words that stand in the document, too; NaN where it has none."""
    own = [tuple(summary[i : i + n]) for i in range(len(summary) - n + 1)]
    there = {tuple(document[i : i + n]) for i in range(len(document) - n + 1)}
    return sum(gram in there for gram in own) / len(own) if own else float("nan")
