"""Files of records, read and checked whole: JSON lines, CSV and TSV.

Files are UTF-8, with or without a byte order mark. Lines end at LF, CRLF or CR; blank ones count as lines and are left
out. All text is put into Unicode's composed form (:func:`datasets.nfc`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from config import UserError
from datasets import long_fields, nfc
from storage import decoded

MAX_PROBLEMS_PER_FILE = 20
JSON_LINES, TABLES = (".jsonl", ".ndjson"), {".csv": ",", ".tsv": "\t", ".txt": "\t"}
REMEDY = "write it, or delete the line"


@dataclass(frozen=True)
class Record:
    """What stands on one line, or from this line on.

    Attributes:
        line: counts from 1.
        id: the record's own, or the number of its line.
        fields: the texts of the fields that were asked for, without white space at their ends. An optional field that
            is missing or empty is not there.
        raw: everything else that stands in a record of JSON lines, too.
    """

    line: int
    id: str
    fields: dict[str, str]
    raw: dict[str, Any]

    def __getitem__(self, name: str) -> str:
        return self.fields[name]

    def get(self, name: str) -> str | None:
        return self.fields.get(name)


class FileProblems:
    """What is wrong with one file, collected so that all of it is reported at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: list[str] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, line: int | None, problem: str) -> None:
        """``problem`` says why, and after a semicolon what to do."""
        self._found.append(f"{self.path}:{line}: {problem}" if line else f"{self.path}: {problem}")

    def raise_any(self) -> None:
        """Raises a UserError with the first twenty, and says how many more there are."""
        shown = self._found[:MAX_PROBLEMS_PER_FILE]
        if len(self._found) > len(shown):
            shown.append(f"{self.path}: ... and {len(self._found) - len(shown)} more problems in this file")
        if shown:
            raise UserError(shown)


def read_text(path: Path, *, or_latin_1: bool = False) -> str:
    """The characters of a file as they stand in it, with ``\\n`` at the end of each line.

    Args:
        or_latin_1: what is not UTF-8 is read as Latin-1, as some published files have it.

    Raises:
        UserError: the file can't be read, is empty, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the name and the folder") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a readable file") from None
    try:
        text = decoded(content, path)
    except UserError:
        if not or_latin_1:
            raise
        text = content.decode("latin-1")
    if not text.strip():
        raise UserError(f"{path}:1: the file is empty; give a file with records")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_records(
    path: Path, needed: Sequence[str], optional: Sequence[str] = (), *, id_field: str = "id"
) -> list[Record]:
    """Reads a file by its ending: ``.jsonl``, ``.csv`` or ``.tsv`` (``.txt`` is read as TSV).

    Args:
        needed: the fields or columns that every record must have, with some text in them.
        optional: those that may be missing or empty.
        id_field: the field with the record's own id, if it has one.

    Raises:
        UserError: with all problems of the file.
    """
    ending = path.suffix.lower()
    if ending in JSON_LINES:
        return read_json_lines(path, needed, optional, id_field=id_field)
    if ending in TABLES:
        return read_table(path, needed, optional, delimiter=TABLES[ending], id_field=id_field)
    raise UserError(f"{path}: the ending {ending!r} says no format; name it .jsonl, .csv or .tsv")


def read_json_lines(
    path: Path,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    *,
    id_field: str = "id",
    collect: FileProblems | None = None,
) -> list[Record]:
    """Reads a file with one JSON object on each line. See :func:`read_records`.

    Args:
        collect: takes the problems, for a caller that looks for others and raises them all; the good records are
            returned.
    """
    problems = FileProblems(path) if collect is None else collect
    lines, collected = read_text(path).split("\n"), _Records()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            problems.add(number, f"no JSON ({error.msg}, column {error.colno}); mend the line, or delete it")
        except (RecursionError, ValueError):  # a number of thousands of digits is a ValueError
            problems.add(number, "no JSON that can be read; mend the line, or delete it")
        else:
            if isinstance(record, dict):
                collected.add(number, record, needed, optional, id_field, "field", problems)
            else:
                fields = ", ".join(needed or optional)
                problems.add(number, f"no JSON object; write {{...}} with the fields {fields}")
    records = collected.finish(problems)
    if collect is None:
        problems.raise_any()
    return records


def read_table(
    path: Path, needed: Sequence[str], optional: Sequence[str] = (), *, delimiter: str, id_field: str = "id"
) -> list[Record]:
    """Reads a file whose first line names its columns. See :func:`read_records`.

    Between commas a field may stand in quotation marks, and go on over the end of a line. Between tabs a quotation mark
    is a letter like any other, as in the published files.
    """
    lines, problems, collected = read_text(path).split("\n"), FileProblems(path), _Records()
    rows = _quoted_rows(lines, problems) if delimiter == "," else _plain_rows(lines, delimiter)
    start, header = next(rows, (1, []))
    columns = [nfc(name).strip() for name in header]
    _check_header(start, columns, needed, [*needed, *optional, id_field], delimiter, problems)
    for number, row in rows:
        if len(row) != len(columns):
            separator = "tabs" if delimiter == "\t" else "commas and quotation marks"
            problems.add(
                number, f"{len(row)} fields where the header has {len(columns)}; check the {separator} of this line"
            )
        else:
            record = dict(zip(columns, row, strict=True))
            collected.add(number, record, needed, optional, id_field, "column", problems)
    records = collected.finish(problems)
    problems.raise_any()
    return records


class _Records:
    """The records of a file so far."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.first_line_of: dict[str, int] = {}

    def add(
        self,
        line: int,
        raw: dict[str, Any],
        needed: Sequence[str],
        optional: Sequence[str],
        id_field: str,
        word: str,
        problems: FileProblems,
    ) -> None:
        """Takes a record, or says what is wrong with it."""
        before, fields = len(problems), {}
        for name in (*needed, *optional):
            value = raw.get(name)
            if value is not None and not isinstance(value, str):
                problems.add(line, f"the {word} {name!r} is no text; put it into quotation marks")
            elif value and not is_unicode(value):
                problems.add(line, f"the {word} {name!r} has half a surrogate pair; write the whole character")
            elif value and value.strip():
                fields[name] = nfc(value).strip()
            elif name in needed:
                lacks = f"the {word} {name!r} is empty" if name in raw else f"no {word} {name!r}"
                problems.add(line, f"{lacks}; {REMEDY}")
        id_ = nfc(str(raw[id_field])).strip() if raw.get(id_field) is not None else ""
        if not is_unicode(id_):
            problems.add(line, f"the id {id_!r} has half a surrogate pair; write the whole character")
        first = self.first_line_of.setdefault(id_, line) if id_ else line
        if first != line:
            problems.add(line, f"the id {id_!r} already stands on line {first}; give each record its own")
        if len(problems) == before:
            self.records.append(Record(line, id_, fields, raw))

    def finish(self, problems: FileProblems) -> list[Record]:
        if not self.records and not len(problems):
            problems.add(None, "holds no records below its header; add some")
        return [record if record.id else replace(record, id=self._line_as_id(record.line)) for record in self.records]

    def _line_as_id(self, line: int) -> str:
        return f"line {line}" if str(line) in self.first_line_of else str(line)


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: JSON's ``\\ud800`` alone can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_header(
    line: int, columns: list[str], needed: Sequence[str], known: Sequence[str], delimiter: str, problems: FileProblems
) -> None:
    """Raises at once: below a wrong header every row would be wrong."""
    missing = [name for name in needed if name not in columns]
    if missing:
        names = " and no column ".join(map(repr, missing))
        found, separator = ", ".join(map(repr, columns)), "tabs" if delimiter == "\t" else "commas"
        problems.add(
            line, f"no column {names} (found: {found}); the first line must name {', '.join(needed)}, "
            f"separated by {separator}",
        )  # fmt: skip
    for name in dict.fromkeys(known):
        if columns.count(name) > 1:
            problems.add(line, f"the column {name!r} occurs twice; rename or delete one")
    problems.raise_any()


def _plain_rows(lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each line that is not blank, with its number, split at every delimiter."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line.split(delimiter)


def _quoted_rows(lines: list[str], problems: FileProblems) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, each with the number of its first line.

    After a broken quotation mark reading goes on with the next line, so that one row's mistake hides no other's. Two
    stray ones hide none either: a row over several lines is refused where each of them is as long as a row.
    """
    with long_fields():
        at, n_broken, n_columns = 0, 0, 0
        while at < len(lines) and n_broken <= MAX_PROBLEMS_PER_FILE:
            if not lines[at].strip():
                at += 1
                continue
            reader = csv.reader((f"{lines[i]}\n" for i in range(at, len(lines))), strict=True)
            try:
                row = next(reader)
            except csv.Error as error:
                problems.add(
                    at + 1, f"broken quoting ({error}); a field that begins with a quotation mark ends with one, and "
                    "those inside it are doubled",
                )  # fmt: skip
                at, n_broken = at + 1, n_broken + 1
                continue
            n_columns = n_columns or len(row)
            of_row = lines[at : at + reader.line_num]
            if len(of_row) > 1 and all(_n_fields(line) == n_columns for line in of_row if line.strip()):
                problems.add(
                    at + 1, f"a field in quotation marks goes on to line {at + len(of_row)}, over what look like rows; "
                    "mend the quotation marks, or write such texts as JSON lines",
                )  # fmt: skip
                at, n_broken = at + 1, n_broken + 1
                continue
            yield at + 1, row
            at += reader.line_num


def _n_fields(line: str) -> int:
    """How many fields a line has by itself, whatever its quotation marks leave open."""
    return len(next(csv.reader([line])))
