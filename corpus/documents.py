"""Sources cut into records: the pages of a MediaWiki dump, the documents of a plain text, the lines of JSON lines.

Everything works on bytes and in bounded memory: boundaries are found here, by one process; what is inside a record is
looked at by the workers. Where a boundary lies depends on the bytes of the source alone, not on how they arrive.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from config import UserError
from corpus.files import Damage

Format = Literal["dump", "text", "jsonl"]

HEAD_BYTES = 256 << 10  # what the format is told from
RECORD_LIMIT = 16 << 20  # bytes; a page of Wikipedia holds at most 2 MiB
TEXT_LIMIT = 4 << 20  # bytes; a longer plain text is cut, because tokenizing it takes 80 times its size of memory
UTF8_BOM = b"\xef\xbb\xbf"

_DUMP_START = re.compile(rb"\s*<(?:mediawiki|\?xml|page|siteinfo)\b")
_JSON_START = re.compile(rb'\s*(?:\[\s*)?\{\s*["}]')
_NAMESPACE = re.compile(rb'<namespace key="(-2|6|14)"[^>]*>([^<]*)</namespace>')
_TITLE = re.compile(rb"<title>(.*?)</title>", re.DOTALL)
_ENGLISH_NAMES = {"-2": ["media"], "6": ["file", "image"], "14": ["category"]}


class Record(NamedTuple):
    """A piece of the source that becomes one document, or none.

    ``line``: its first line, from 1 (of a dump: which page it is). ``problem``: why it can't be read; ``raw`` then
    holds its beginning only. ``cut``: it goes on in the next record, because the document is too long for one, or in
    what is damaged. ``piece_of``: the same for all pieces of a document that is too long, and for no other.
    """

    line: int
    raw: bytes
    problem: str = ""
    cut: bool = False
    piece_of: str = ""


@dataclass(frozen=True)
class Header:
    """What the beginning of a source tells.

    ``closed``: it opens with ``<mediawiki``, so that it must end with ``</mediawiki>``. The names are those of
    namespaces in lower case, in English and in the dump's language.
    """

    format: Format
    closed: bool = False
    file_names: tuple[str, ...] = ()
    category_names: tuple[str, ...] = ()


class LeftOut(Exception):
    """A record that rightly becomes no document. Its kind: redirect, namespace, tiny, empty."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Unreadable(Exception):
    """A record that can't become a document. Its kind: broken, encoding.

    ``line`` is where it is, if not at the record's first line.
    """

    def __init__(self, kind: str, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.line = line


# ---------------------------------------------------------------------------------------------------------------------
# The format
# ---------------------------------------------------------------------------------------------------------------------


def read_header(head: bytes, path: Path) -> Header:
    """Tells the format of a source from its first decompressed bytes.

    Raises:
        UserError: it is JSON but not JSON lines, or no text in UTF-8 at all.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: is UTF-16, not UTF-8; convert it first (iconv -f UTF-16 -t UTF-8)")
    head = head.removeprefix(UTF8_BOM)
    if head[257:262] == b"ustar":
        raise UserError(f"{path}: is a tar archive; unpack it first and give its files")
    if _DUMP_START.match(head):
        names = {key: list(names) for key, names in _ENGLISH_NAMES.items()}
        for key, name in _NAMESPACE.findall(head):
            names[key.decode()].append(html.unescape(name.decode(errors="replace")).lower())
        files = tuple(dict.fromkeys(names["6"] + names["-2"]))
        categories = tuple(dict.fromkeys(names["14"]))
        return Header("dump", closed=b"<mediawiki" in head, file_names=files, category_names=categories)
    if _JSON_START.match(head):
        lines = head.split(b"\n")
        whole_lines = lines if len(head) < HEAD_BYTES else lines[:-1]
        is_array = head.lstrip().startswith(b"[")
        if not is_array and (not whole_lines or any(_is_json_object(line) for line in whole_lines)):
            return Header("jsonl")
        raise UserError(
            f"{path}: is JSON, but not JSON lines; write one object per line (jq -c '.[]' does for an array)"
        )
    if (place := head.find(b"\x00")) >= 0:
        line = head.count(b"\n", 0, place) + 1
        raise UserError(
            f"{path}: is binary data, not text (a NUL at byte {place} of its content, in line {line}); "
            "give a MediaWiki dump, plain text or JSON lines"
        )
    return Header("text")


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):  # the latter: brackets in brackets without end
        return False


def read_records(header: Header, chunks: Iterator[bytes], separator: str) -> Iterator[Record]:
    """Cuts a source into records.

    Raises:
        EOFError: a dump lacks its end; all whole pages were yielded before.
    """
    if header.format == "dump":
        return read_pages(chunks, header.closed)
    if header.format == "jsonl":
        return read_lines(chunks)
    return read_texts(chunks, separator)


# ---------------------------------------------------------------------------------------------------------------------
# Dumps
# ---------------------------------------------------------------------------------------------------------------------


def read_pages(chunks: Iterator[bytes], closed: bool) -> Iterator[Record]:
    """Yields ``<page>...</page>`` of a dump, which may begin anywhere.

    The text inside is escaped, so that the tags are found as plain bytes, also behind a damaged stretch.
    """
    buffer = bytearray()
    page = 0
    searched = 0  # where the end of the first page in the buffer is still to be looked for
    dropping = False  # inside a page that is too long
    for chunk in chunks:
        buffer += chunk
        position = 0
        while (end := buffer.find(b"</page>", max(position, searched))) >= 0:
            end += len(b"</page>")
            start = buffer.find(b"<page>", position, end)
            if start >= 0 and not dropping:
                # A page that begins again before it has ended lost its end to some damage.
                again = buffer.rfind(b"<page>", start, end)
                for first, last, problem in ((start, again, "its end is missing"), (again, end, "")):
                    if first < last:
                        page += 1
                        yield _page(page, bytes(buffer[first:last]), problem)
            dropping = False
            position = searched = end
        del buffer[:position]
        if dropping:
            del buffer[: -len(b"</page>")]
        elif len(buffer) > RECORD_LIMIT:
            start = buffer.find(b"<page>")
            del buffer[: start if start >= 0 else -len(b"</page>")]
            if len(buffer) > RECORD_LIMIT:
                page += 1
                yield _page(page, bytes(buffer), "")
                dropping = True
                del buffer[: -len(b"</page>")]
        searched = max(0, len(buffer) - len(b"</page>"))
    if closed and b"</mediawiki>" not in buffer:
        raise EOFError("the dump ends without </mediawiki>")


def _page(page: int, raw: bytes, problem: str) -> Record:
    if len(raw) > RECORD_LIMIT:
        problem = f"longer than {RECORD_LIMIT >> 20} MiB"
    return Record(page, raw[: 64 << 10] if problem else raw, problem)


def page_title(raw: bytes) -> str:
    """The title of a page, for messages; also of a broken one."""
    match = _TITLE.search(raw)
    return html.unescape(match[1].decode(errors="replace")) if match else "(page without a title)"


# ---------------------------------------------------------------------------------------------------------------------
# Plain text
# ---------------------------------------------------------------------------------------------------------------------


def read_texts(chunks: Iterator[bytes], separator: str) -> Iterator[Record]:
    """Yields the documents between lines that are exactly the separator; a too long one in several records.

    With an empty separator all is one document.

    Raises:
        Damage: after the beginning of the document that it is in, up to its last whole word.
    """
    mark = re.compile(rb"\n" + re.escape(separator.encode()) + rb"\r?(?=\n)" if separator else rb"(?!)")
    longest_mark = len(separator.encode()) + 3
    buffer = bytearray(b"\n")  # always begins with the end of the line before
    line = 1
    searched = 0
    at_start = True
    piece_of = ""
    try:
        for chunk in _with_end(chunks):
            buffer += chunk or b"\n"
            if at_start and len(buffer) > len(UTF8_BOM):
                at_start = False
                if buffer.startswith(b"\n" + UTF8_BOM):
                    del buffer[1 : 1 + len(UTF8_BOM)]
            while True:
                match = mark.search(buffer, searched)
                end = match.start() if match else max(0, len(buffer) - longest_mark)
                if end > TEXT_LIMIT:
                    cut, rest = _cut(buffer)
                    raw = bytes(buffer[1:cut])
                    piece_of = piece_of or hashlib.blake2b(raw, digest_size=8).hexdigest()
                    yield Record(line, raw, cut=True, piece_of=piece_of)
                    line += buffer.count(b"\n", 1, rest)
                    buffer[:rest] = b"\n"
                    searched = 0
                elif match:
                    yield Record(line, bytes(buffer[1:end]), piece_of=piece_of)
                    line += buffer.count(b"\n", 1, match.end() + 1)
                    del buffer[: match.end()]
                    searched, piece_of = 0, ""
                else:
                    searched = end
                    break
    except Damage:
        sound = max(buffer.rfind(b"\n"), buffer.rfind(b" "))  # neither half a word nor half a character
        if buffer[:sound].strip():
            yield Record(line, bytes(buffer[1:sound]), cut=True, piece_of=piece_of)
        raise
    if buffer.strip():
        yield Record(line, bytes(buffer[1:]), piece_of=piece_of)


def _with_end(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Adds an empty chunk at the end, so that the last line is looked at too."""
    yield from (chunk for chunk in chunks if chunk)
    yield b""


def _cut(buffer: bytearray) -> tuple[int, int]:
    """Where to cut a too long text, and where the rest begins: at a line's end, else a space, else a character."""
    for mark in (b"\n", b" "):
        cut = buffer.rfind(mark, 2, TEXT_LIMIT)
        if cut > 0:
            return cut, cut + 1
    cut = TEXT_LIMIT
    while cut > TEXT_LIMIT - 4 and 0x80 <= buffer[cut] < 0xC0:  # not inside a character of several bytes
        cut -= 1
    return cut, cut


def text_document(record: Record) -> dict[str, Any]:
    """A plain text's record as a document: line ends are ``\\n``, empty lines at both ends are gone.

    A piece of a too long text has ``piece_of`` too, which all its pieces share.
    """
    document = {"text": _decode(record).replace("\r\n", "\n").strip("\n").rstrip()}
    return document | {"piece_of": record.piece_of} if record.piece_of else document


def _decode(record: Record) -> str:
    try:
        return record.raw.decode()
    except UnicodeDecodeError as error:
        line = record.line + record.raw.count(b"\n", 0, error.start)
        raise Unreadable("encoding", f"not UTF-8 (byte 0x{record.raw[error.start]:02x})", line) from None


# ---------------------------------------------------------------------------------------------------------------------
# JSON lines
# ---------------------------------------------------------------------------------------------------------------------


def read_lines(chunks: Iterator[bytes]) -> Iterator[Record]:
    """Yields the lines that are not blank."""
    buffer = bytearray()
    line = 1
    searched = 0
    dropping = False  # inside a line that is too long
    for chunk in _with_end(chunks):
        buffer += chunk or b"\n"
        position = 0
        while (end := buffer.find(b"\n", max(position, searched))) >= 0:
            raw = bytes(buffer[position:end])
            if dropping:
                dropping = False
            elif raw.strip():
                yield _line(line, raw)
            line += 1
            position = searched = end + 1
        del buffer[:position]
        if not dropping and len(buffer) > RECORD_LIMIT:
            yield _line(line, bytes(buffer))
            dropping = True
        if dropping:
            buffer.clear()
        searched = len(buffer)


def _line(line: int, raw: bytes) -> Record:
    problem = f"longer than {RECORD_LIMIT >> 20} MiB" if len(raw) > RECORD_LIMIT else ""
    return Record(line, b"" if problem else raw, problem)


def json_document(record: Record, text_field: str) -> dict[str, Any]:
    """A line of JSON as a document: its text, and its title if it has one."""
    try:
        value = json.loads(_decode(record).removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise Unreadable("broken", f"not JSON ({error})") from None
    text = value.get(text_field) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise Unreadable("broken", f"no text under {text_field!r}")
    document = {"text": text.replace("\r\n", "\n").strip("\n").rstrip()}
    if isinstance(value.get("title"), str):
        document["title"] = value["title"]
    return document
