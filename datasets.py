"""The tasks' files: find them, download them, read and validate them, turn them into tokens and batches.

Everything that is wrong with the files is found before training and reported at once, each problem with its file and
line. One example stands on one physical line: a broken quote spoils its own row and never swallows the following ones.
Nothing slow is imported at module level, because every ``--help`` imports this module.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from config import UserError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

MAX_PROBLEMS_PER_FILE = 20
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
    """What is fixed about one sentiment dataset.

    ``label_names`` is empty where the labels are counted in the training file. ``files`` and ``git_blobs`` go from the
    split to the file's name and to its published hash; a task without hashes is never downloaded. ``delimiter=None``
    means tab or comma, told by the header. ``quoting=False`` means that a quotation mark is a letter like any other.
    """

    name: str
    label_names: tuple[str, ...]
    files: Mapping[str, str]
    licence: str
    text_column: str = "sentence"
    label_column: str = "sentiment"
    id_column: str = "id"
    id_required: bool = True
    delimiter: str | None = "\t"
    quoting: bool = True
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


@dataclass(frozen=True)
class Timeouts:
    """How long a download may take, in seconds.

    ``answer``: from the look-up of the server's name to its answer; ``stall``: without a single byte; ``total``: for
    all files of a dataset, so that a server that sends a byte now and then is given up too. Two datasets that cannot be
    had cost ten seconds.
    """

    answer: float = 5.0
    stall: float = 5.0
    total: float = 120.0


def custom_task_data(train: Path, dev: Path, test: Path | None) -> DataSource:
    """The user's own files, with columns ``sentence`` and ``label`` (and ``id``, if they like)."""
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
        download_task_data(task, root / "data", timeouts=timeouts or Timeouts(), say=say)
    except DownloadError as error:
        return _bundled_sample(task, root, f"the download failed ({error})")
    return DataSource("download", _existing_files(task, root / "data"), _task_notes(task))


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
# The download
# ---------------------------------------------------------------------------------------------------------------------

MAX_DOWNLOAD_BYTES = 32 << 20  # some ten times the largest published file: a server cannot fill the memory


class DownloadError(Exception):
    """A file could not be fetched, is not the published one, or could not be stored."""


def git_blob_hash(content: bytes) -> str:
    """The hash that ``git hash-object`` prints for a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def download_task_data(
    task: ClassificationTask, folder: Path, *, timeouts: Timeouts, say: Callable[[str], None] = print
) -> None:
    """Fetches all files of ``task`` into ``folder``, or none of them.

    The address is the CS 224N repository at a pinned commit, or the environment variable ``CS224N_DATA_URL``.
    A file gets its name only when all of them have been fetched and agree with their hashes.

    Raises:
        DownloadError: the server was not reached, stopped sending, or sent something else; or the disk refused.
    """
    base_url = (os.environ.get(CS224N_URL_VARIABLE) or CS224N_URL).rstrip("/")
    say(f"Downloading {task.name} from {base_url} to {folder}.")
    say(f"Licence: {task.licence}.")
    deadline = time.monotonic() + timeouts.total
    contents = {}
    for split, name in task.files.items():
        url = f"{base_url}/{name}"
        content = _fetch(url, timeouts, deadline)
        found, expected = git_blob_hash(content), task.git_blobs[split]
        if found != expected:
            raise DownloadError(f"{url} is not the published file: expected git blob hash {expected}, found {found}")
        contents[name] = content
    _store(contents, folder)


def _fetch(url: str, timeouts: Timeouts, deadline: float) -> bytes:
    from http.client import HTTPException
    from urllib.request import urlopen

    try:
        response = _within(timeouts.answer, "no answer", lambda: urlopen(url, timeout=timeouts.stall))
        return _within(deadline - time.monotonic(), "too slow", lambda: _read_response(response, deadline))
    except (OSError, HTTPException, ValueError) as error:  # ValueError: not a web address
        raise DownloadError(f"{url}: {getattr(error, 'reason', None) or error}") from None


def _within(seconds: float, complaint: str, work: Callable[[], T]) -> T:
    """The result of ``work``, or TimeoutError after ``seconds``.

    A socket's own timeout starts anew with every byte, and does not hold for the look-up of a name. The thread is a
    daemon, so that an abandoned one does not keep the program from ending, and it must have no effect but its result.
    """
    from concurrent.futures import Future
    from threading import Thread

    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(timeout=max(seconds, 0.0))
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"{complaint} (given up after {seconds:.0f} s)") from None


def _read_response(response: Any, deadline: float) -> bytes:
    from tqdm import tqdm

    total = int(response.headers.get("Content-Length") or 0) or None
    chunks, size = [], 0
    name = Path(response.url).name
    with response, tqdm(total=total, desc=name, unit="B", unit_scale=True, disable=None) as bar:  # None: if a terminal
        while chunk := response.read1(1 << 14):
            chunks.append(chunk)
            size += len(chunk)
            bar.update(len(chunk))
            if size > MAX_DOWNLOAD_BYTES:
                raise OSError("the file is far larger than the published one")
            if time.monotonic() > deadline:
                raise TimeoutError(f"too slow ({size} bytes when the time was up)")
    if total is not None and size < total:
        raise OSError(f"the connection was cut after {size} of {total} bytes")
    return b"".join(chunks)


def _store(contents: Mapping[str, bytes], folder: Path) -> None:
    """Writes all files under temporary names of its own, then renames them; train comes last, as it completes a set."""
    token = uuid.uuid4().hex
    parts = {folder / name: folder / f".{name}.{token}.part" for name in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{folder} cannot be made: {error}") from None
    try:
        for path, part in parts.items():
            with part.open("xb") as file:
                file.write(contents[path.name])
                file.flush()
                os.fsync(file.fileno())
        for path, part in reversed(parts.items()):
            part.replace(path)
    except OSError as error:
        raise DownloadError(f"{folder} cannot be written: {error}") from None
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------------
# Reading and validating
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """One row: ``text`` is stripped, and lower-cased unless the case is kept; ``line`` counts from 1."""

    id: str
    text: str
    label: int | None
    line: int


@dataclass(frozen=True)
class SkippedRow:
    """A bad row that was left out at the user's wish; ``text`` is the line as it stands in the file."""

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
    """Reads all splits of ``source``; test may come without labels.

    Files are checked whole; ``limits`` cuts to the first rows afterwards. Labels of ``custom`` files must be numbers
    0 ... K-1 that all occur in the training file; every split then has the K numbers as its ``label_names``.

    Raises:
        UserError: with the problems of all files at once.
    """
    splits: dict[str, Split] = {}
    problems: list[str] = []
    for split in sorted(source.paths, key=["train", "dev", "test"].index):
        path = source.paths[split]
        labelled = None if split == "test" else True
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


def _numbered_labels(train: Split) -> tuple[str, ...]:
    labels = {example.label for example in train.examples}
    if len(labels) < 2:
        raise UserError(f"{train.path}: every row has the label {labels.pop()}; two or more classes are needed")
    highest = max(label for label in labels if label is not None)
    gap = next(number for number in count() if number not in labels)
    if gap < highest:
        raise UserError(
            f"{train.path}: label {gap} never occurs although the labels go up to {highest}; "
            f"number the classes 0, 1, 2, ... without a gap"
        )
    return tuple(map(str, range(highest + 1)))


def read_split(
    task: ClassificationTask,
    path: Path,
    *,
    labelled: bool | None = True,
    keep_case: bool = False,
    skip_bad_rows: bool = False,
    limit: int | None = None,
) -> Split:
    """Reads and checks one file.

    Args:
        labelled: True: the label column must be there; False: it is not read; None: it is read where it is there.
        skip_bad_rows: leave bad rows out and list them in ``Split.skipped``. A repeated id is an error all the same.
        limit: keep the first so many examples; the whole file is checked first.

    Raises:
        UserError: with all problems of the file, each with the line to edit; a long list is cut.
    """
    content = _read_file(path)
    header, *lines = _physical_lines(content)
    layout = _read_header(task, path, header, labelled)
    examples: list[Example] = []
    problems: list[str] = []
    bad_rows: list[SkippedRow] = []
    first_line_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=2):
        try:
            example = _read_row(task, layout, line, number, keep_case)
        except _BadRow as error:
            bad_rows.append(SkippedRow(path, number, str(error), line.decode("utf-8", "backslashreplace")))
            if not skip_bad_rows:
                problems.append(f"{path}:{number}: {error}")
            continue
        first = first_line_of.setdefault(example.id, number)
        if first != number:
            problems.append(
                f"{path}:{number}: the id {example.id!r} already stands on line {first}; give each row its own id"
            )
        examples.append(example)
    if problems:
        raise UserError(_shortened(path, problems, n_bad_rows=0 if skip_bad_rows else len(bad_rows)))
    if not examples:
        raise UserError(f"{path}: no usable row below the header ({len(bad_rows)} bad ones); add rows or mend them")
    sha256 = hashlib.sha256(content).hexdigest()
    return Split(path, examples[:limit], bad_rows, sha256, task.label_names)


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


class _BadRow(Exception):
    """What is wrong with one row, and how to mend it."""


@dataclass(frozen=True)
class _Layout:
    """Where the columns of a file are."""

    delimiter: str
    n_columns: int
    text: int
    label: int | None
    id: int | None


def _read_header(task: ClassificationTask, path: Path, header: bytes, labelled: bool | None) -> _Layout:
    delimiter = task.delimiter or ("\t" if b"\t" in header else ",")
    try:
        columns = [name.strip() for name in _fields(task, header, delimiter)]
    except _BadRow as error:
        raise UserError(f"{path}:1: {error}") from None
    is_needed = {task.id_column: task.id_required, task.text_column: True, task.label_column: labelled is True}
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
        label=None if labelled is False else position.get(task.label_column),
        id=position.get(task.id_column),
    )


def _read_row(task: ClassificationTask, layout: _Layout, line: bytes, number: int, keep_case: bool) -> Example:
    row = _fields(task, line, layout.delimiter)
    if len(row) != layout.n_columns:
        separator = "tabs" if layout.delimiter == "\t" else "commas"
        raise _BadRow(f"{len(row)} fields where the header has {layout.n_columns}; check the {separator} of this line")
    text = row[layout.text].strip()
    if not text:
        raise _BadRow("the sentence is empty; write one or delete the line")
    id_ = str(number) if layout.id is None else row[layout.id].strip()
    if not id_:
        raise _BadRow("the id is empty; give the row an id of its own")
    label = None if layout.label is None else _label(task, row[layout.label].strip())
    return Example(id_, text if keep_case else text.lower(), label, number)


def _label(task: ClassificationTask, text: str) -> int:
    n_labels = len(task.label_names)
    label = int(text) if re.fullmatch("[0-9]{1,6}", text) else None
    if label is None or (n_labels and label >= n_labels):
        allowed = f"from 0 to {n_labels - 1}" if n_labels else "(0, 1, 2, ...)"
        raise _BadRow(f"the label {text!r} is not a whole number {allowed}; write the right one or delete the line")
    return label


def _fields(task: ClassificationTask, line: bytes, delimiter: str) -> list[str]:
    if not line:
        raise _BadRow("the line is empty; delete it")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} (number {error.start + 1} of the line)"
        raise _BadRow(f"{byte} is not UTF-8; save the file in the encoding UTF-8") from None
    if not task.quoting:
        return text.split(delimiter)
    if "\r" in text:
        raise _BadRow("a carriage return inside the line; save the file with LF or CRLF line ends")
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise _BadRow(
            f"broken quoting ({error}); a field that begins with a quotation mark ends with one on the same line, and "
            f"those inside it are doubled"
        ) from None


# ---------------------------------------------------------------------------------------------------------------------
# Repeated sentences
# ---------------------------------------------------------------------------------------------------------------------


def overlap_report(splits: Mapping[str, Split], n_examples: int = 5) -> dict[str, dict[str, dict[str, Any]]]:
    """Counts the sentences that a split repeats, and those of dev and test that also stand in train.

    Case and the width of spaces do not matter. Returns plain data for JSON::

        {"repeated": {split: {"rows": n, "examples": [{"text": ..., "lines": [...]}, ...]}},
         "in_train": {split: {"rows": n, "examples": [{"text": ..., "lines": [...], "train_lines": [...]}, ...]}}}

    where ``repeated`` counts rows beyond the first of each sentence, and ``in_train`` counts rows of dev and test.
    """
    lines = {name: _lines_by_sentence(split) for name, split in splits.items()}
    train = lines.get("train", {})
    report: dict[str, dict[str, dict[str, Any]]] = {"repeated": {}, "in_train": {}}
    for name, sentences in lines.items():
        repeated = [{"text": text, "lines": at} for text, at in sentences.items() if len(at) > 1]
        rows = sum(len(entry["lines"]) - 1 for entry in repeated)
        report["repeated"][name] = {"rows": rows, "examples": repeated[:n_examples]}
        if name != "train":
            in_train = [text for text in sentences if text in train]
            shared = [{"text": text, "lines": sentences[text], "train_lines": train[text]} for text in in_train]
            rows = sum(len(entry["lines"]) for entry in shared)
            report["in_train"][name] = {"rows": rows, "examples": shared[:n_examples]}
    return report


def _lines_by_sentence(split: Split) -> dict[str, list[int]]:
    lines: dict[str, list[int]] = {}
    for example in split.examples:
        lines.setdefault(" ".join(example.text.lower().split()), []).append(example.line)
    return lines


# ---------------------------------------------------------------------------------------------------------------------
# Tokens and batches
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokenized:
    """Token ids per text, and how many texts were cut to fit."""

    ids: list[list[int]]
    n_cut: int


def tokenize(texts: list[str], tokenizer: Any, max_length: int, keep: str = "end") -> Tokenized:
    """Tokenizes with a ``transformers`` fast tokenizer, without special tokens.

    Args:
        max_length: at least 1; of a longer text the first or the last ``max_length`` tokens stay, as ``keep`` says.

    Raises:
        UserError: a text gives no token at all, so that there is nothing to classify.
    """
    # verbose=False: transformers would warn about long texts, which are counted and cut here.
    ids = tokenizer(texts, add_special_tokens=False, padding=False, truncation=False, verbose=False)["input_ids"]
    empty = [i for i, row in enumerate(ids) if not row]
    if empty:
        raise UserError([f"text {i + 1} ({texts[i]!r}) gives no tokens; change or remove it" for i in empty])
    window = slice(-max_length, None) if keep == "end" else slice(max_length)
    return Tokenized([row[window] for row in ids], n_cut=sum(len(row) > max_length for row in ids))


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
