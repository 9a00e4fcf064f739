"""Sources cut into records, whatever pieces their bytes arrive in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import UserError
from corpus import documents
from corpus.documents import Record, Unreadable, json_document, read_header, read_lines, read_pages, read_texts
from corpus.documents import text_document as document_of
from corpus.files import Damage

SEPARATOR = "<|endoftext|>"


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


def texts(data: bytes, size: int = 7, separator: str = SEPARATOR) -> list[tuple[int, str]]:
    return [(record.line, document_of(record)["text"]) for record in read_texts(pieces(data, size), separator)]


def pages(data: bytes, size: int = 7, closed: bool = False) -> list[Record]:
    return list(read_pages(pieces(data, size), closed))


# ---------------------------------------------------------------------------------------------------------------------
# The format
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b'<mediawiki xmlns="x">\n<page>', "dump"),
        (b'\xef\xbb\xbf\n <?xml version="1.0"?>\n<mediawiki>', "dump"),
        (b"<page>\n<title>x</title>", "dump"),
        (b"<pages are many", "text"),
        (b'{"text": "a"}\n{"text": "b"}\n', "jsonl"),
        (b'{"text": "broken\n{"text": "b"}\n', "jsonl"),
        (b'{}\n{"text": "b"}\n', "jsonl"),
        (b"{{template}} as text", "text"),
        ("문학\n\n문학은".encode(), "text"),
    ],
)
def test_format_is_told_from_the_content(head: bytes, expected: str) -> None:
    assert read_header(head, Path("x")).format == expected


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("text".encode("utf-16"), "UTF-16, not UTF-8; convert it"),
        (b'[\n {"text": "a"},\n {"text": "b"}\n]', "one object per line"),
        (b'{\n "text": "a"\n}', "one object per line"),
        (b"\x7fELF\x00\x00", "binary data"),
        (b"text\nte\x00xt", "binary data, not text .a NUL at byte 7 of its content, in line 2"),
    ],
)
def test_what_is_no_text_is_refused(head: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_header(head, Path("x"))


def test_a_dump_names_its_namespaces() -> None:
    head = (
        '<mediawiki><namespace key="6" case="first-letter">Tập tin</namespace><namespace key="14">Thể loại</namespace>'
    )
    header = read_header(head.encode(), Path("x"))
    assert header.closed
    assert header.file_names == ("file", "image", "tập tin", "media")
    assert header.category_names == ("category", "thể loại")


# ---------------------------------------------------------------------------------------------------------------------
# Plain text
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 13, 1000])
def test_texts_lie_between_separator_lines(size: int) -> None:
    data = (
        b"\xef\xbb\xbfOne\r\n\r\n  two <|endoftext|>\r\n<|endoftext|>\r\n\n three\n<|endoftext|>\n<|endoftext|>\nfour"
    )
    assert texts(data, size) == [(1, "One\n\n  two <|endoftext|>"), (5, " three"), (8, ""), (9, "four")]


def test_a_text_without_separators_is_one_document() -> None:
    assert texts(b"a\n\nb\n") == [(1, "a\n\nb")]
    assert texts(b"a\n\n<|endoftext|>\nb\n", separator="") == [(1, "a\n\n<|endoftext|>\nb")]


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_a_too_long_text_is_cut_at_lines(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(documents, "TEXT_LIMIT", 10)
    records = list(read_texts(pieces(b"aaaa\nbbbb\ncccc\n<|endoftext|>\nd\n", size), SEPARATOR))
    assert [(record.line, record.raw.strip(), record.cut) for record in records] == [
        (1, b"aaaa", True), (2, b"bbbb\ncccc", False), (5, b"d", False),
    ]  # fmt: skip
    data = "한국어한국어 한국어".encode()
    cut = list(read_texts(pieces(data, size), SEPARATOR))
    assert "".join(record.raw.decode() for record in cut).strip().replace(" ", "") == "한국어한국어한국어"


def test_the_pieces_of_a_text_are_known_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "TEXT_LIMIT", 10)
    data = b"short\n<|endoftext|>\naaaa\nbbbb\ncccc\ndddd\n<|endoftext|>\n" + b"other\n" * 5
    found = [document_of(record).get("piece_of") for record in read_texts(iter([data]), SEPARATOR)]
    one, other = found[1], found[-1]
    assert one and other and one != other
    assert found == [None, one, one, one, other, other]
    assert [document_of(record).get("piece_of") for record in read_texts(iter([data[20:]]), SEPARATOR)] == found[1:]


@pytest.mark.parametrize("rest", [b" wo", b"\n<|endof", " 한".encode()[:-1], b""])
def test_the_sound_beginning_of_a_damaged_text_is_kept(rest: bytes) -> None:
    def damaged() -> Iterator[bytes]:
        yield b"one\n<|endoftext|>\ntwo words\nof a text" + rest
        raise Damage(99, "damaged")

    records = read_texts(damaged(), SEPARATOR)
    assert next(records).raw == b"one"
    record = next(records)
    assert (record.line, record.cut) == (3, True)
    assert document_of(record)["text"] == ("two words\nof a text" if rest else "two words\nof a")
    with pytest.raises(Damage):
        next(records)


def test_bytes_that_are_not_utf8_are_named_by_their_line() -> None:
    (record,) = read_texts(iter([b"good\ngood\nb\xe9d\n"]), SEPARATOR)
    with pytest.raises(Unreadable, match="not UTF-8 .byte 0xe9") as error:
        document_of(record)
    assert (error.value.kind, error.value.line) == ("encoding", 3)


# ---------------------------------------------------------------------------------------------------------------------
# JSON lines
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_json_lines(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(documents, "RECORD_LIMIT", 40)
    long = json.dumps({"text": "x" * 50})
    data = '{"text": "a\\r\\nb\\n", "title": "T"}\r\n\n' + long + '\n{"body": "c"}\nno\n{"text": "é"}'
    records = list(read_lines(pieces(data.encode(), size)))
    assert [(record.line, bool(record.problem)) for record in records] == [
        (1, False), (3, True), (4, False), (5, False), (6, False),
    ]  # fmt: skip
    assert json_document(records[0], "text") == {"text": "a\nb", "title": "T"}
    assert json_document(records[2], "body") == {"text": "c"}
    assert json_document(records[4], "text") == {"text": "é"}
    with pytest.raises(Unreadable, match="no text under 'text'"):
        json_document(records[2], "text")
    with pytest.raises(Unreadable, match="not JSON"):
        json_document(records[3], "text")


def test_json_that_is_nested_too_deeply_is_one_broken_line() -> None:
    deep = b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert read_header(deep + b'\n{"text": "a"}\n', Path("x")).format == "jsonl"
    with pytest.raises(Unreadable, match="not JSON .*recursion"):
        json_document(Record(1, deep), "text")


# ---------------------------------------------------------------------------------------------------------------------
# Dumps
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_pages_are_found_as_bytes(size: int) -> None:
    data = b"of a lost page</page> <page>1</page>\n<page>lost <page>2</page><page>3</page></mediawiki>\n"
    assert [(record.raw, record.problem) for record in pages(data, size, closed=True)] == [
        (b"<page>1</page>", ""),
        (b"<page>lost ", "its end is missing"),
        (b"<page>2</page>", ""),
        (b"<page>3</page>", ""),
    ]


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_a_page_of_any_length_is_not_held(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(documents, "RECORD_LIMIT", 40)
    long = b"<page><title>Long</title>" + b"x" * 500 + b"</page>"
    records = pages(b"<mediawiki>" + b" " * 100 + b"<page>1</page>" + long + b"<page>2</page></mediawiki>", size)
    assert [record.problem[:6] for record in records] == ["", "longer", ""]
    assert documents.page_title(records[1].raw) == "Long"


def test_a_dump_without_its_end_is_told() -> None:
    records = read_pages(iter([b"<mediawiki><page>1</page><page>2"]), closed=True)
    assert next(records).raw == b"<page>1</page>"
    with pytest.raises(EOFError, match="</mediawiki>"):
        next(records)
