"""The tasks' files: find them, read and validate them, turn them into tokens and batches.

Everything that is wrong with the files is found before training and reported at once, each problem with its file and
line. One example stands on one physical line, or, in files of question pairs, on several where a quoted question has
line breaks. A broken quote spoils its own row and never swallows the following ones. All text is put into Unicode's
composed form (NFC), because a Korean syllable that is written as three letters has other tokens than the same syllable
written as one.
Nothing slow is imported at module level, because every ``--help`` imports this module.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from config import UserError
from downloads import DownloadError, Timeouts, download_files, git_blob_hash

if TYPE_CHECKING:
    import torch

MAX_PROBLEMS_PER_FILE = 20
MAX_LINES_PER_ROW = 20
REPEATS_SHOWN = 5  # repeated texts that a report lists
TEXTS_PER_CALL = 10_000  # a tokenizer returns far more than the ids: never for all texts at once
UTF8_BOM = b"\xef\xbb\xbf"

# ---------------------------------------------------------------------------------------------------------------------
# The tasks
# ---------------------------------------------------------------------------------------------------------------------

CS224N_REPOSITORY = "https://github.com/cfifty/public_cs224n_gpt"
CS224N_COMMIT = "7570cfa4385f3417298573c770df5ddfe2d97f89"
CS224N_URL = f"https://raw.githubusercontent.com/cfifty/public_cs224n_gpt/{CS224N_COMMIT}/data/"
CS224N_URL_VARIABLE = "CS224N_DATA_URL"
NSMC_REPOSITORY = "https://github.com/e9t/nsmc"


@dataclass(frozen=True)
class ClassificationTask:
    """What is fixed about one dataset of texts, or of pairs of questions.

    Attributes:
        label_names: one for each label 0 ... K-1; empty: counted in the training file.
        files: split -> file name.
        second_column: the column of a pair's second text; None where a row has one text.
        delimiter: None: tab or comma, whichever the header has.
        quoting: False: a quotation mark is an ordinary character.
        line_breaks: a quoted field may contain line breaks.
        decimal_labels: the label 1 may be written 1.0.
        skip_unlabelled: rows that lack a label they need are always left out, and so are all bad rows of a file that
            has its published hash, because nobody can mend that file.
        language: which default model is used with it.
        git_blobs: split -> the file's published git hash; without hashes nothing is downloaded.
    """

    name: str
    label_names: tuple[str, ...]
    files: Mapping[str, str]
    licence: str
    text_column: str = "sentence"
    label_column: str = "sentiment"
    id_column: str = "id"
    id_required: bool = True
    second_column: str | None = None
    delimiter: str | None = "\t"
    quoting: bool = True
    line_breaks: bool = False
    decimal_labels: bool = False
    skip_unlabelled: bool = False
    language: str = "en"
    git_blobs: Mapping[str, str] = field(default_factory=dict)
    homepage: str = CS224N_REPOSITORY
    note: str = ""


SENTIMENT_TASKS: dict[str, ClassificationTask] = {
    "sst": ClassificationTask(
        name="sst",
        label_names=("very negative", "negative", "neutral", "positive", "very positive"),
        files={"train": "ids-sst-train.csv", "dev": "ids-sst-dev.csv", "test": "ids-sst-test-student.csv"},
        licence="SST-5: Stanford Sentiment Treebank (Socher et al. 2013), research data, as distributed by CS 224N",
        git_blobs={
            "train": "9cb7333cb1dae49c2bd2a4b56a24882a6e8704b5",
            "dev": "3171aa629a340809d2db4a50df8f6e5ec9420ab0",
            "test": "bbd2313758825f86e24416d6aad64cd93370cf7a",
        },
    ),
    "cfimdb": ClassificationTask(
        name="cfimdb",
        label_names=("negative", "positive"),
        files={"train": "ids-cfimdb-train.csv", "dev": "ids-cfimdb-dev.csv", "test": "ids-cfimdb-test-student.csv"},
        licence="CFIMDB: film reviews from IMDB (Maas et al. 2011), research data, as distributed by CS 224N",
        git_blobs={
            "train": "cd57bcbd2f7214ea6dd1783d3e885d324b1f478d",
            "dev": "8a0f5dcf3d40189b96c801a12cd79bf8003e61de",
            "test": "1e789c709b3ca0511f027a309b6d8bd21cde41b2",
        },
    ),
    "nsmc": ClassificationTask(
        name="nsmc",
        label_names=("negative", "positive"),
        files={"train": "ratings_train.txt", "dev": "ratings_test.txt"},
        licence="NSMC: Naver sentiment movie corpus, CC0",
        text_column="document",
        label_column="label",
        quoting=False,
        homepage=NSMC_REPOSITORY,
        language="ko",
        note="NSMC is published without a dev set: ratings_test.txt is the dev set here, so the best epoch is chosen "
        "on the same rows that are scored.",
    ),
    "custom": ClassificationTask(
        name="custom",
        label_names=(),
        files={},
        licence="",
        label_column="label",
        id_required=False,
        delimiter=None,
    ),
}

PARAPHRASE_TASKS: dict[str, ClassificationTask] = {
    "qqp": ClassificationTask(
        name="qqp",
        label_names=("not a duplicate", "duplicate"),
        files={"train": "quora-train.csv", "dev": "quora-dev.csv", "test": "quora-test-student.csv"},
        licence="Quora Question Pairs (Iyer et al. 2017), Quora's terms: non-commercial research only, as distributed "
        "by CS 224N",
        text_column="sentence1",
        second_column="sentence2",
        label_column="is_duplicate",
        line_breaks=True,
        decimal_labels=True,
        skip_unlabelled=True,
        git_blobs={
            "train": "1f2e73b884113e629e2786001fb9cc8ae4a696c1",
            "dev": "97f9430a53b7f5544f857ff27a236c40bb42b5c7",
            "test": "a1b1e5ba3ef282ba1e9b169c509eb80dbbc68666",
        },
    ),
    "custom": ClassificationTask(
        name="custom",
        label_names=("not a duplicate", "duplicate"),
        files={},
        licence="",
        text_column="sentence1",
        second_column="sentence2",
        label_column="label",
        id_required=False,
        delimiter=None,
        line_breaks=True,
        decimal_labels=True,
    ),
}

# ---------------------------------------------------------------------------------------------------------------------
# Where the files come from
# ---------------------------------------------------------------------------------------------------------------------

Origin = Literal["files", "data-dir", "local", "download", "sample"]


@dataclass(frozen=True)
class DataSource:
    """The files of one run. All splits have the same origin; ``notes`` are sentences to show the user."""

    origin: Origin
    paths: dict[str, Path]
    notes: tuple[str, ...] = ()


def custom_task_data(train: Path, dev: Path, test: Path | None) -> DataSource:
    """The user's own files: the columns are ``sentence`` and ``label`` (and ``id``, if they like).

    For pairs they are ``sentence1``, ``sentence2`` and ``label``.
    """
    paths = {"train": Path(train), "dev": Path(dev)}
    if test is not None:
        paths["test"] = Path(test)
    return DataSource("files", paths)


def find_task_data(
    task: ClassificationTask,
    data_dir: Path | None,
    *,
    root: Path,
    allow_download: bool = True,
    timeouts: Timeouts | None = None,
    say: Callable[[str], None] = print,
) -> DataSource:
    """Finds the files of ``task``: in ``data_dir`` if given, else ``root/data``, else downloaded, else the sample.

    Args:
        data_dir: the user's choice, which nothing replaces.
        root: the folder that holds ``data/`` and ``data/sample/``.
        say: gets the licence and the source before a download.

    Raises:
        UserError: a train or dev file is missing in a folder that is to be used, or there is no source left.
    """
    if data_dir is not None:
        if Path(data_dir).resolve() == (root / "data" / "sample").resolve():  # the sample is never called the real set
            return _bundled_sample(task, root, "--data-dir asks for it")
        return _in_data_dir(task, Path(data_dir))
    local = _in_local_folder(task, root / "data")
    if local is not None:
        return local
    if not task.git_blobs:
        raise UserError(
            f"{task.name}: {' and '.join(task.files.values())} are not in {root / 'data'}; get them from "
            f"{task.homepage} and put them there, or name their folder with --data-dir"
        )
    if not allow_download:
        return _bundled_sample(task, root, "no download was tried")
    try:
        _download(task, root / "data", timeouts or Timeouts(), say)
    except DownloadError as error:
        return _bundled_sample(task, root, f"the download failed ({error})")
    return DataSource("download", _existing_files(task, root / "data"), _task_notes(task))


def _download(task: ClassificationTask, folder: Path, timeouts: Timeouts, say: Callable[[str], None]) -> None:
    """Fetches all files from the CS 224N repository at a pinned commit, or from ``CS224N_DATA_URL``."""
    base_url = (os.environ.get(CS224N_URL_VARIABLE) or CS224N_URL).rstrip("/")
    say(f"Downloading {task.name} from {base_url} to {folder}.")
    say(f"Licence: {task.licence}.")
    # Train comes first, so that it is stored last: a folder that has it has all files.
    download_files(base_url, {name: task.git_blobs[split] for split, name in task.files.items()}, folder, timeouts)


def _existing_files(task: ClassificationTask, folder: Path) -> dict[str, Path]:
    return {split: folder / name for split, name in task.files.items() if (folder / name).is_file()}


def _task_notes(task: ClassificationTask) -> tuple[str, ...]:
    return (task.note,) if task.note else ()


def _source(task: ClassificationTask, origin: Origin, folder: Path, *notes: str) -> DataSource:
    """The files in ``folder``; a test file that is not there is said."""
    paths = _existing_files(task, folder)
    if "test" in task.files and "test" not in paths:
        notes += (f"{folder / task.files['test']} is missing: there will be no test results.",)
    return DataSource(origin, paths, notes + _task_notes(task))


def _missing_files(task: ClassificationTask, folder: Path) -> list[Path]:
    """The files without which there is no run."""
    paths = [folder / task.files[split] for split in ("train", "dev")]
    return [path for path in paths if not path.is_file()]


def _in_data_dir(task: ClassificationTask, folder: Path) -> DataSource:
    if folder.is_file():
        raise UserError(f"{folder}: is a file; --data-dir names the folder that it is in")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data-dir names the folder with the data files")
    missing = _missing_files(task, folder)
    if missing:
        remedy = f"put it there (from {task.homepage}), or leave out --data-dir"
        raise UserError([f"{path}: no such file; {remedy}" for path in missing])
    return _source(task, "data-dir", folder)


def _in_local_folder(task: ClassificationTask, folder: Path) -> DataSource | None:
    missing = _missing_files(task, folder)
    if not missing:
        return _source(task, "local", folder)
    present = _existing_files(task, folder)
    # Published files that stand alone are another process's download caught between two renames: no conflict.
    if all(_is_published(task, split, path) for split, path in present.items()):
        return None
    there = ", ".join(path.name for path in present.values())
    remedy = "sources are never mixed: add the missing file, or move what is there to another folder"
    raise UserError([f"{path}: missing beside {there}; {remedy}" for path in missing])


def _is_published(task: ClassificationTask, split: str, path: Path) -> bool:
    return split in task.git_blobs and git_blob_hash(path.read_bytes()) == task.git_blobs[split]


def is_published(task: ClassificationTask, source: DataSource) -> bool:
    """Whether every file of ``source`` is, byte for byte, the published one."""
    return all(_is_published(task, split, path) for split, path in source.paths.items())


def _bundled_sample(task: ClassificationTask, root: Path, why: str) -> DataSource:
    folder = root / "data" / "sample"
    remedy = f"put its files from {task.homepage} (folder data/) into data/, or name their folder with --data-dir"
    missing = _missing_files(task, folder)
    if missing:
        lacking = " and ".join(map(str, missing))
        raise UserError(f"{task.name}: {why}, and the bundled sample lacks {lacking}; {remedy}")
    note = f"the small bundled sample stands in for the real {task.name} data: {why}"
    return _source(task, "sample", folder, note, f"for real results on {task.name}, {remedy}")


# ---------------------------------------------------------------------------------------------------------------------
# Reading and validating
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """One row.

    ``text`` is stripped, and lower-cased unless the case is kept. Of a pair it is the first question, and ``second`` is
    the second: both as :func:`clean_question` gives them, or only stripped if the case is kept. ``line`` counts from 1;
    it is the row's first line.
    """

    id: str
    text: str
    label: int | None
    line: int
    second: str | None = None


@dataclass(frozen=True)
class SkippedRow:
    """A bad row that was left out: at the user's wish, or because it is a known defect of a published file.

    ``text`` is the row as it stands in the file.
    """

    path: Path
    line: int
    why: str
    text: str


@dataclass(frozen=True)
class Split:
    """The examples of one file. ``label_names`` has a name for each label 0 ... K-1."""

    path: Path
    examples: list[Example]
    skipped: list[SkippedRow]
    sha256: str
    label_names: tuple[str, ...]


def read_splits(
    task: ClassificationTask,
    source: DataSource,
    *,
    keep_case: bool = False,
    skip_bad_rows: bool = False,
    limits: Mapping[str, int | None] | None = None,
) -> dict[str, Split]:
    """Reads all splits of ``source``; test may come without labels, or with some.

    Files are checked whole; ``limits`` cuts to the first rows afterwards. Labels of ``custom`` files must be numbers
    0 ... K-1 that all occur in the training file; every split then has the K numbers as its ``label_names``.

    Raises:
        UserError: with the problems of all files at once.
    """
    splits: dict[str, Split] = {}
    problems: list[str] = []
    for split in sorted(source.paths, key=["train", "dev", "test"].index):
        path = source.paths[split]
        labelled = split != "test"
        try:
            data = read_split(task, path, labelled=labelled, keep_case=keep_case, skip_bad_rows=skip_bad_rows)
            if not task.label_names and split == "train":
                task = replace(task, label_names=_numbered_labels(data))
        except UserError as error:
            problems += error.problems
            continue
        limit = (limits or {}).get(split)
        splits[split] = replace(data, examples=data.examples[:limit], label_names=task.label_names)
    if problems:
        raise UserError(problems)
    return splits


def fraction_of(train: Split, share: float | None, seed: int) -> Split:
    """A share of each class's examples, in the file's order.

    An example's rank within its class comes from the seed and its id alone. So the subsets of one seed are nested: a
    smaller share's examples are among a larger one's.

    Args:
        share: in (0, 1]; of n examples of a class share * n stay, rounded. None: all.

    Raises:
        UserError: a class would be left without an example.
    """
    if share is None:
        return train
    of_class: dict[int | None, list[Example]] = {label: [] for label in range(len(train.label_names))}
    for example in train.examples:
        of_class[example.label].append(example)
    kept: set[str] = set()
    problems = []
    for label, examples in of_class.items():
        count_kept = math.floor(share * len(examples) + 0.5)
        if examples and not count_kept:
            name = repr(train.label_names[label or 0])
            problems.append(
                f"--train-fraction {share:g}: leaves no example of the class {name}, of which {len(examples)} rows of "
                f"{train.path} are used; raise it, or --limit-train where that is given"
            )
        ranked = sorted(examples, key=lambda e: hashlib.sha256(f"train fraction/{seed}/{e.id}".encode()).digest())
        kept.update(example.id for example in ranked[:count_kept])
    if problems:
        raise UserError(problems)
    return replace(train, examples=[example for example in train.examples if example.id in kept])


def _numbered_labels(train: Split) -> tuple[str, ...]:
    labels = {example.label for example in train.examples}
    if len(labels) < 2:
        raise UserError(
            f"{train.path}: every row has the label {labels.pop()}; two or more classes are needed, add rows of another"
        )
    highest = max(label for label in labels if label is not None)
    gap = next(number for number in count() if number not in labels)
    if gap < highest:
        first = next(example for example in train.examples if example.label == highest)
        raise UserError(
            f"{train.path}:{first.line}: label {gap} never occurs although the labels go up to {highest}, here for the "
            "first time; number the classes 0, 1, 2, ... without a gap"
        )
    return tuple(map(str, range(highest + 1)))


def read_split(
    task: ClassificationTask,
    path: Path,
    *,
    labelled: bool = True,
    keep_case: bool = False,
    skip_bad_rows: bool = False,
) -> Split:
    """Reads and checks one file.

    Args:
        labelled: every row must have a label; False: labels are read where they are there.
        skip_bad_rows: leave bad rows out and list them in ``Split.skipped``. A repeated id is an error all the same.
            Some rows are left out in any case: see ``skip_unlabelled`` of :class:`ClassificationTask`.

    Raises:
        UserError: with all problems of the file, each with the line to edit; a long list is cut.
    """
    content = _read_file(path)
    header, *lines = _physical_lines(content)
    layout = _read_header(task, path, header, labelled)
    skip_all = skip_bad_rows or (task.skip_unlabelled and git_blob_hash(content) in task.git_blobs.values())
    examples: list[Example] = []
    problems: list[str] = []
    bad_rows: list[SkippedRow] = []
    n_refused = 0
    first_line_of: dict[str, int] = {}
    for number, row in _rows(task, layout, lines):
        try:
            example = _read_row(task, layout, row, number, keep_case, labelled)
        except _BadRow as error:
            bad_rows.append(SkippedRow(path, number, str(error), row.decode("utf-8", "backslashreplace")))
            if not (skip_all or (task.skip_unlabelled and isinstance(error, _NoLabel))):
                problems.append(f"{path}:{number}: {error}")
                n_refused += 1
            continue
        first = first_line_of.setdefault(example.id, number)
        if first != number:
            problems.append(
                f"{path}:{number}: the id {example.id!r} already stands on line {first}; give each row its own id"
            )
        examples.append(example)
    if problems:
        raise UserError(_shortened(path, problems, n_refused))
    if not examples:
        raise UserError(f"{path}: no usable row below the header ({len(bad_rows)} bad ones); add rows or mend them")
    sha256 = hashlib.sha256(content).hexdigest()
    return Split(path, examples, bad_rows, sha256, task.label_names)


def _shortened(path: Path, problems: list[str], n_bad_rows: int) -> list[str]:
    shown = problems[:MAX_PROBLEMS_PER_FILE]
    if len(problems) > len(shown):
        shown.append(f"{path}: ... and {len(problems) - len(shown)} more problems in this file")
    if n_bad_rows:
        rows = "1 bad row" if n_bad_rows == 1 else f"{n_bad_rows} bad rows"
        shown.append(f"{path}: {rows}; mend the file, or leave bad rows out with --skip-bad-rows")
    return shown


def _read_file(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the name and the folder") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a readable file") from None
    if not content.removeprefix(UTF8_BOM).strip():
        raise UserError(f"{path}:1: the file is empty; give a file with a header line and rows")
    return content


def _physical_lines(content: bytes) -> list[bytes]:
    """Lines end at LF or CRLF only: str.splitlines would also break at characters that occur inside sentences."""
    lines = [line.removesuffix(b"\r") for line in content.removeprefix(UTF8_BOM).split(b"\n")]
    while not lines[-1]:
        lines.pop()
    return lines


@contextmanager
def long_fields() -> Iterator[None]:
    """The csv module refuses fields of more than 131,072 characters, which a text may have."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def nfc(text: str) -> str:
    """The composed form: 한 as one character, however it was typed."""
    return unicodedata.normalize("NFC", text)


def clean_question(text: str) -> str:
    """A question as the published experiments prepare it.

    It is lower-cased, full stops, question marks, commas and apostrophes get a space before them, and any white space
    becomes one space.
    """
    text = text.lower()
    for mark in ".?,'":
        text = text.replace(mark, f" {mark}")
    return " ".join(text.split())


class _BadRow(Exception):
    """What is wrong with one row, and how to mend it."""


class _NoLabel(_BadRow):
    """The row's label is missing."""


@dataclass(frozen=True)
class _Layout:
    """Where the columns of a file are."""

    delimiter: str
    n_columns: int
    text: int
    second: int | None
    label: int | None
    id: int | None


def _rows(task: ClassificationTask, layout: _Layout, lines: list[bytes]) -> Iterator[tuple[int, bytes]]:
    """Each row with the number of its first line in the file; the header is line 1."""
    start = 0
    while start < len(lines):
        end = _end_of_row(task, layout, lines, start) if task.line_breaks else start + 1
        yield start + 2, b"\n".join(lines[start:end]) if end > start + 1 else lines[start]
        start = end


def _end_of_row(task: ClassificationTask, layout: _Layout, lines: list[bytes], start: int) -> int:
    """The line after the row that begins at ``start``: the next one, unless this one leaves a quotation mark open.

    Lines are put together only where that swallows no row: none of those that follow has as many delimiters as a row,
    and the whole has exactly as many.
    """
    n_quotes = lines[start].count(b'"')
    if n_quotes % 2 == 0 or _is_readable(task, layout, lines[start]):
        return start + 1
    delimiter, expected = layout.delimiter.encode(), layout.n_columns - 1
    n_delimiters = lines[start].count(delimiter)
    for position in range(start + 1, min(start + MAX_LINES_PER_ROW, len(lines))):
        found = lines[position].count(delimiter)
        n_delimiters += found
        n_quotes += lines[position].count(b'"')
        if found >= expected:
            break
        if n_quotes % 2 == 0:
            return position + 1 if n_delimiters == expected else start + 1
    return start + 1


def _is_readable(task: ClassificationTask, layout: _Layout, line: bytes) -> bool:
    try:
        return len(_fields(task, line, layout.delimiter)) == layout.n_columns
    except _BadRow:
        return False


def _read_header(task: ClassificationTask, path: Path, header: bytes, labelled: bool) -> _Layout:
    delimiter = task.delimiter or ("\t" if b"\t" in header else ",")
    try:
        columns = [name.strip() for name in _fields(task, header, delimiter)]
    except _BadRow as error:
        raise UserError(f"{path}:1: {error}") from None
    is_needed = {task.id_column: task.id_required, task.text_column: True}
    is_needed |= {task.second_column: True} if task.second_column else {}
    is_needed |= {task.label_column: labelled}
    needed = [name for name, yes in is_needed.items() if yes]
    missing = [name for name in needed if name not in columns]
    if missing:
        separator = "tabs" if task.delimiter else "tabs or commas"
        absent, found = " and no column ".join(map(repr, missing)), ", ".join(map(repr, columns))
        raise UserError(
            f"{path}:1: no column {absent} (found: {found}); "
            f"the header must name {', '.join(needed)}, separated by {separator}"
        )
    repeated = [name for name in is_needed if columns.count(name) > 1]
    if repeated:
        raise UserError(f"{path}:1: the column {repeated[0]!r} occurs twice; rename or delete one")
    position = {name: columns.index(name) for name in columns}
    return _Layout(
        delimiter,
        n_columns=len(columns),
        text=position[task.text_column],
        second=position[task.second_column] if task.second_column else None,
        label=position.get(task.label_column),
        id=position.get(task.id_column),
    )


def _read_row(
    task: ClassificationTask, layout: _Layout, line: bytes, number: int, keep_case: bool, labelled: bool
) -> Example:
    row = _fields(task, line, layout.delimiter)
    if len(row) != layout.n_columns:
        separator = "tabs" if layout.delimiter == "\t" else "commas"
        raise _BadRow(f"{len(row)} fields where the header has {layout.n_columns}; check the {separator} of this line")
    written = None if layout.label is None else row[layout.label].strip()
    if labelled and not written:  # looked at first: a row that lost its label may have lost more
        raise _NoLabel("the label is missing; write it or delete the line")
    text = row[layout.text].strip()
    second = None if layout.second is None else row[layout.second].strip()
    if not text or second == "":
        name = "sentence" if second is None else "second question" if text else "first question"
        raise _BadRow(f"the {name} is empty; write one or delete the line")
    id_ = str(number) if layout.id is None else row[layout.id].strip()
    if not id_:
        raise _BadRow("the id is empty; give the row an id of its own")
    label = _label(task, written, labelled) if written else None
    if not keep_case:
        text, second = (text.lower(), None) if second is None else (clean_question(text), clean_question(second))
    return Example(id_, text, label, number, second)


def _label(task: ClassificationTask, text: str, labelled: bool) -> int:
    n_labels = len(task.label_names)
    digits = text.removesuffix(".0") if task.decimal_labels else text
    label = int(digits) if re.fullmatch("[0-9]{1,6}", digits) else None
    if label is None or (n_labels and label >= n_labels):
        allowed = f"from 0 to {n_labels - 1}" if n_labels else "(0, 1, 2, ...)"
        remedy = "or delete the line" if labelled else "or nothing, if it is not known"
        raise _BadRow(f"the label {text!r} is not a whole number {allowed}; write the right one {remedy}")
    return label


def _fields(task: ClassificationTask, line: bytes, delimiter: str) -> list[str]:
    if not line:
        raise _BadRow("the line is empty; delete it")
    try:
        text = nfc(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} (number {error.start + 1} of the line)"
        raise _BadRow(f"{byte} is not UTF-8; save the file in the encoding UTF-8") from None
    if task.quoting and "\r" in text:
        raise _BadRow("a carriage return inside the line; save the file with LF or CRLF line ends")
    if not task.quoting or '"' not in text:
        return text.split(delimiter)
    try:
        with long_fields():
            return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise _BadRow(
            f"broken quoting ({error}); a field that begins with a quotation mark ends with one on the same line, and "
            f"those inside it are doubled"
        ) from None


# ---------------------------------------------------------------------------------------------------------------------
# Repeated texts
# ---------------------------------------------------------------------------------------------------------------------


def overlap_report(splits: Mapping[str, Split]) -> dict[str, dict[str, dict[str, Any]]]:
    """Counts the sentences that a split repeats, and those of dev and test that also stand in train.

    Case and the width of spaces do not matter. A pair counts as one text of two lines, in its own order. Returns plain
    data for JSON::

        {"repeated": {split: {"rows": n, "examples": [{"text": ..., "lines": [...]}, ...]}},
         "in_train": {split: {"rows": n, "examples": [{"text": ..., "lines": [...], "train_lines": [...]}, ...]}}}

    where ``repeated`` counts rows beyond the first of each sentence, and ``in_train`` counts rows of dev and test.
    """
    return count_repeats({name: _lines_by_sentence(split) for name, split in splits.items()}, "lines")


def count_repeats(places: Mapping[str, Mapping[str, list[Any]]], where: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The report of :func:`overlap_report` on texts that were looked up already.

    Args:
        places: split -> text -> where it stands there.
        where: what places are called in the report, such as ``lines``.
    """
    train = places.get("train", {})
    report: dict[str, dict[str, dict[str, Any]]] = {"repeated": {}, "in_train": {}}
    for name, texts in places.items():
        repeated = [{"text": text, where: at} for text, at in texts.items() if len(at) > 1]
        rows = sum(len(entry[where]) - 1 for entry in repeated)
        report["repeated"][name] = {"rows": rows, "examples": repeated[:REPEATS_SHOWN]}
        if name != "train":
            in_train = [text for text in texts if text in train]
            shared = [{"text": text, where: texts[text], f"train_{where}": train[text]} for text in in_train]
            rows = sum(len(entry[where]) for entry in shared)
            report["in_train"][name] = {"rows": rows, "examples": shared[:REPEATS_SHOWN]}
    return report


def _lines_by_sentence(split: Split) -> dict[str, list[int]]:
    lines: dict[str, list[int]] = {}
    for example in split.examples:
        lines.setdefault("\n".join(normalized(example)), []).append(example.line)
    return lines


def normalized(example: Example) -> tuple[str, ...]:
    """The text, or both questions, with case and the width of spaces taken away."""
    texts = (example.text,) if example.second is None else (example.text, example.second)
    return tuple(" ".join(text.lower().split()) for text in texts)


# ---------------------------------------------------------------------------------------------------------------------
# Tokens and batches
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokenized:
    """Token ids per text, and how many texts were cut to fit."""

    ids: list[list[int]]
    n_cut: int


def tokenize(
    texts: list[str], tokenizer: Any, max_length: int, keep: str = "end", places: Sequence[str] = ()
) -> Tokenized:
    """Tokenizes with a ``transformers`` fast tokenizer, without special tokens.

    Args:
        max_length: at least 1; of a longer text the first or the last ``max_length`` tokens stay, as ``keep`` says.
        places: where each text stands, for messages.

    Raises:
        UserError: a text gives no token at all, so that there is nothing to classify.
    """
    ids = token_ids(texts, tokenizer)
    empty = [i for i, row in enumerate(ids) if not row]
    if empty:
        names = places or [f"text {i + 1}" for i in range(len(texts))]
        raise UserError([f"{names[i]}: {texts[i]!r} gives no tokens; change or remove it" for i in empty])
    window = slice(-max_length, None) if keep == "end" else slice(max_length)
    return Tokenized([row[window] for row in ids], n_cut=sum(len(row) > max_length for row in ids))


def token_ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    """The token ids of each text. Equal ids share one int object, which saves most of the memory on large data."""
    known: dict[int, int] = {}
    return [[known.setdefault(token, token) for token in row] for row in encode(texts, tokenizer, "input_ids")]


def encode(texts: list[str], tokenizer: Any, what: str) -> Iterator[Any]:
    """``input_ids`` or ``offset_mapping`` of each text. A special token that is spelled out in it is text, too."""
    options = {"add_special_tokens": False, "padding": False, "truncation": False, "return_attention_mask": False}
    options["return_offsets_mapping"] = what == "offset_mapping"
    for start in range(0, len(texts), TEXTS_PER_CALL):
        before, tokenizer.split_special_tokens = tokenizer.split_special_tokens, True
        try:
            # verbose=False: transformers would warn about long texts, which are counted and cut here.
            found = tokenizer(texts[start : start + TEXTS_PER_CALL], verbose=False, **options)[what]
        finally:
            tokenizer.split_special_tokens = before
        yield from found


def collate(ids: list[list[int]], pad_id: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """``(input_ids, attention_mask)``, both int64 of shape (B, longest), padded on the right."""
    import torch

    longest = max(map(len, ids))
    input_ids = torch.full((len(ids), longest), pad_id, dtype=torch.int64)
    attention_mask = torch.zeros((len(ids), longest), dtype=torch.int64)
    for row, tokens in enumerate(ids):
        input_ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
        attention_mask[row, : len(tokens)] = 1
    return input_ids, attention_mask
