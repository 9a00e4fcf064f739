"""Files of records: what is read, and what is said of everything that is wrong with them."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from config import UserError
from tasks.files import read_json_lines, read_records, read_table
from tasks.questions import read_questions


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def problems_of(path: Path, *needed: str) -> list[str]:
    """Without the folder in front."""
    with pytest.raises(UserError) as caught:
        read_records(path, needed)
    return [problem.replace(str(path), path.name) for problem in caught.value.problems]


def test_every_format_gives_the_same_records(tmp_path: Path) -> None:
    """With a byte order mark, CRLF and blank lines, which count."""
    mark = b"\xef\xbb\xbf"
    tsv = write(tmp_path, "a.tsv", mark + b'Q\tid\tA\r\n\r\n"hi" there\tx1\t yes \r\nso?\tx2\t\r\n')
    csv = write(tmp_path, "a.csv", mark + b'Q,id,A\r\n\r\n"""hi"" there",x1, yes \r\nso?,x2,\r\n')
    lines = [{}, {"Q": '"hi" there', "id": "x1", "A": " yes "}, {"Q": "so?", "id": "x2", "A": None}]
    text = "\n".join(json.dumps(line) if line else "" for line in lines)
    jsonl = write(tmp_path, "a.jsonl", mark + f"\n{text}\n".encode())
    for path in (tsv, csv, jsonl):
        records = read_records(path, ["Q"], ["A"])
        assert [(r.line, r.id, r["Q"], r.get("A")) for r in records] == [
            (3, "x1", '"hi" there', "yes"),
            (4, "x2", "so?", None),
        ]


def test_a_quoted_field_goes_on_over_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'Q,A\n"one\ntwo, three",x\nfour,y\n')
    assert [(r.line, r.id, r["Q"]) for r in read_records(path, ["Q", "A"])] == [
        (2, "2", "one\ntwo, three"),
        (4, "4", "four"),
    ]


def test_a_long_field_is_read(tmp_path: Path) -> None:
    document = "word " * 40_000  # more than the csv module takes by itself
    (record,) = read_records(write(tmp_path, "a.csv", f"Q,A\n{document},x\n"), ["Q"])
    assert record["Q"] == document.strip()


def test_korean_is_composed(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "한국어")
    assert len(apart) > 3
    for name, content in (("a.jsonl", json.dumps({"Q": apart})), ("a.tsv", f"Q\n{apart}\n")):
        (record,) = read_records(write(tmp_path, name, content), ["Q"])
        assert record["Q"] == "한국어"


def test_all_bad_json_lines_are_named(tmp_path: Path) -> None:
    lines = ['{"Q": "a", "id": 7}', '{"Q": "b"', "[1]", '{"A": "c"}', '{"Q": " "}', '{"Q": 0}', '{"Q": "\\ud800"}',
             '{"Q": "d", "id": "7"}', "[" * 100_000]  # fmt: skip
    said = ["no JSON (", "no JSON object", "no field 'Q'", "'Q' is empty", "is no text", "surrogate",
            "the id '7' already stands on line 1", "no JSON"]  # fmt: skip
    found = problems_of(write(tmp_path, "a.jsonl", "\n".join(lines)), "Q")
    for line, (problem, words) in enumerate(zip(found, said, strict=True), start=2):
        assert problem.startswith(f"a.jsonl:{line}: ") and words in problem and "; " in problem


def test_all_bad_rows_are_named(tmp_path: Path) -> None:
    """A quotation mark that is never closed hides none of the rows after it."""
    path = write(tmp_path, "a.csv", 'Q,A\n"broken,x\ngood,y\nshort\n,z\ngood,y,too many\n')
    assert problems_of(path, "Q", "A") == [
        "a.csv:2: broken quoting (unexpected end of data); a field that begins with a quotation mark ends with one, "
        "and those inside it are doubled",
        "a.csv:4: 1 fields where the header has 2; check the commas and quotation marks of this line",
        "a.csv:5: the column 'Q' is empty; write it, or delete the line",
        "a.csv:6: 3 fields where the header has 2; check the commas and quotation marks of this line",
    ]


def test_two_stray_quotation_marks_hide_no_row_between_them(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'Q,A\na,"good\nb,fine\nc,bad"\nd,\n')
    assert problems_of(path, "Q", "A") == [
        "a.csv:2: a field in quotation marks goes on to line 4, over what look like rows; mend the quotation marks, or "
        "write such texts as JSON lines",
        "a.csv:5: the column 'A' is empty; write it, or delete the line",
    ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "question,A\nx,y\n", "a.csv:1: no column 'Q' (found: 'question', 'A')"),
        ("a.tsv", "Q\tA\tQ\nx\ty\tz\n", "a.tsv:1: the column 'Q' occurs twice"),
        ("a.csv", "Q,A\n", "a.csv: holds no records"),
        ("a.jsonl", " \n\n", "a.jsonl:1: the file is empty"),
        ("a.jsonl", b'{"Q": "x"}\n{"Q": "\xff"}\n', "a.jsonl:2: byte 0xff is not UTF-8"),
        ("a.doc", "x", "a.doc: the ending '.doc' says no format"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    (problem,) = problems_of(write(tmp_path, name, content), "Q")
    assert problem.startswith(words) and "; " in problem


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.csv", "no such file"), (tmp_path, "cannot be read")):
        with pytest.raises(UserError, match=words):
            read_table(path, ["Q"], delimiter=",")


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", "x\n" * 50)
    with pytest.raises(UserError) as caught:
        read_json_lines(path, ["Q"])
    assert len(caught.value.problems) == 21 and caught.value.problems[-1].endswith(
        "... and 30 more problems in this file"
    )


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ('{"id": "a", "question": "q", "answers": {"text": ["b"], "answer_start": 5}}', "answer_start is 5, no list"),
        ('{"id": "\\ud800", "question": "q", "answers": ["b"]}', "half a surrogate pair"),
        ('{"id": %s, "question": "q", "answers": ["b"]}' % ("9" * 5000), "no JSON that can be read"),
    ],
)  # fmt: skip
def test_bad_questions_of_squad_are_named(tmp_path: Path, question: str, words: str) -> None:
    content = f'{{"data": [{{"title": "T", "paragraphs": [{{"context": "a b", "qas": [{question}]}}]}}]}}'
    with pytest.raises(UserError) as caught:
        read_questions(write(tmp_path, "a.json", content))
    (problem,) = caught.value.problems
    assert words in problem and "; " in problem
