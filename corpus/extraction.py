"""From one source to clean documents: part files in the order of the source, written by worker processes.

The records of a source go into parts of about 4 MB, whose boundaries depend on the bytes of the source alone. A part is
whole when the file with its counts is there; it holds a key of its records, so that the next run does again only what
is missing or has changed, also where a cut-off dump was replaced by the whole one.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from config import RunFailed
from corpus.documents import HEAD_BYTES, Header, Record, page_title, read_header, read_records
from corpus.files import Damage, SourceFile, fingerprint
from corpus.workers import Cleaning, Part, WorkerPool, counts_path
from storage import write_chunks, write_json

VERSION = 3  # of the cleaning: parts made by another one are made anew
PART_BYTES = 4_000_000
RECORD_BYTES = 64  # what a record takes beside its text, so that parts of tiny records stay small too
MIN_CHARS = {"dump": 200, "text": 1, "jsonl": 1}
COUNTS = ("records", "documents", "characters", "redirect", "namespace", "tiny", "empty", "cut", "broken", "encoding",
          "timeout")  # fmt: skip


@dataclass(frozen=True)
class ExtractionSettings:
    """How sources are read.

    ``document_separator``: the line between two documents of a plain text. ``text_field``: the field of JSON lines.
    ``min_chars``: shorter documents are left out; None means 200 for dumps, and only empty ones otherwise.
    ``page_seconds``: a page that takes longer is given up. ``skip_damaged``: go on with what comes before damage, and
    behind it in a multistream bz2 dump.
    """

    document_separator: str = "<|endoftext|>"
    text_field: str = "text"
    min_chars: int | None = None
    page_seconds: float = 10.0
    workers: int = 2
    skip_damaged: bool = False


def part_files(folder: Path) -> list[Path]:
    """The parts of an extracted source, in its order."""
    return sorted(folder.glob("part-*.jsonl.zst"))


def read_part(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the documents of a part: ``text``, and ``title`` where the source has one.

    Raises:
        RunFailed: the file is damaged.
    """
    try:
        for line in zstandard.ZstdDecompressor().decompress(path.read_bytes()).splitlines():
            yield json.loads(line)
    except (OSError, ValueError, zstandard.ZstdError) as error:
        raise RunFailed(f"{path}: is damaged ({error}); delete it and run the same command again") from None


def extract(
    source: Path, folder: Path, settings: ExtractionSettings, check: Callable[[], None], bar: Any
) -> dict[str, Any]:
    """Fills a folder with the documents of a source; what is there already and still right is kept.

    Args:
        check: called often; raises where the user asked to stop. Finished parts stay, the next call goes on.
        bar: its ``update`` gets the bytes of the source as they are read, as large as the file in all.

    Returns:
        What ``extraction.json`` holds: source, size, sha256, fingerprint, format, compression, settings, page_seconds,
        parts, counts, damaged.

    Raises:
        UserError: the source can't be opened, or holds neither text nor a dump.
        RunFailed: the source is damaged, or the folder can't be written to; what is done is kept.
    """
    identity = fingerprint(source)
    with SourceFile(source) as file:
        header = read_header(file.head(HEAD_BYTES), source)
        chosen: dict[str, Any] = {
            "version": VERSION,
            "document_separator": settings.document_separator,
            "text_field": settings.text_field,
            "min_chars": MIN_CHARS[header.format] if settings.min_chars is None else settings.min_chars,
        }
        done = _read_json(folder / "extraction.json")
        if _is_done(done, folder, identity, chosen, settings):
            bar.update(file.size)
            return done
        with _writing(folder):
            _prepare(folder, source, identity)
        cleaning = Cleaning(header, source.name, settings.text_field, chosen["min_chars"], settings.page_seconds)
        reader = _Reader(file, header, settings)
        with WorkerPool(settings.workers, cleaning, check) as pool:
            parts = 0
            reported = 0
            for records in _groups(reader):
                check()
                path = folder / f"part-{parts:06d}.jsonl.zst"
                key = _key(records, header, chosen)
                known = _read_json(counts_path(path))
                if not path.exists() or known.get("key") != key or not _had_time(known, settings.page_seconds):
                    with _writing(folder):
                        counts_path(path).unlink(missing_ok=True)
                    pool.submit(Part(path, key, records))
                parts += 1
                bar.update(max(0, file.position - reported))
                reported = max(reported, file.position)
            pool.finish()
        if reader.damage and not settings.skip_damaged:
            raise RunFailed(_damage_text(reader, file, parts))
        result = {
            "source": str(source),
            "sha256": file.sha256(),
            "fingerprint": identity,
            "format": header.format,
            "compression": file.compression,
            "settings": chosen,
            "page_seconds": settings.page_seconds,
            "parts": parts,
            "damaged": reader.damage,
        }
        bar.update(max(0, file.size - reported))
    with _writing(folder):
        result["counts"] = _collect(folder, parts)
        write_json(folder / "extraction.json", result)
    return result


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


class _Reader:
    """The records of a source, up to its end or to the damage in it, which is noted.

    Behind damage only a bz2 dump is read on, from its next compressed stream.
    """

    def __init__(self, file: SourceFile, header: Header, settings: ExtractionSettings) -> None:
        self.file = file
        self.header = header
        self.settings = settings
        self.damage: list[dict[str, Any]] = []
        self.last: Record | None = None

    def __iter__(self) -> Iterator[Record]:
        start: int | None = 0
        while start is not None:
            try:
                for record in read_records(self.header, self.file.chunks(start), self.settings.document_separator):
                    self.last = record
                    yield record
                return
            except EOFError as error:  # everything was read
                damage, start = Damage(self.file.size, str(error)), None
            except Damage as error:
                goes_on = self.settings.skip_damaged and self.header.format == "dump"
                damage, start = error, self.file.next_stream(error.stream + 1) if goes_on else None
            self.damage.append({"byte": damage.position, "reason": damage.reason, "after": self.last_name()})

    def last_name(self) -> str:
        if self.last is None:
            return ""
        return page_title(self.last.raw) if self.header.format == "dump" else f"line {self.last.line}"


def _groups(records: Iterator[Record] | _Reader) -> Iterator[list[Record]]:
    """Consecutive records, about 4 MB each."""
    group: list[Record] = []
    size = 0
    for record in records:
        group.append(record)
        size += len(record.raw) + RECORD_BYTES
        if size >= PART_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _key(records: list[Record], header: Header, chosen: dict[str, Any]) -> str:
    """What a part's documents depend on."""
    digest = hashlib.sha256(repr((header, sorted(chosen.items()))).encode())
    for record in records:
        digest.update(repr((record.line, len(record.raw), record.problem, record.cut, record.piece_of)).encode())
        digest.update(record.raw)
    return digest.hexdigest()


def _damage_text(reader: _Reader, file: SourceFile, parts: int) -> str:
    damage = reader.damage[0]
    after = f", behind {damage['after']!r}" if damage["after"] else ""
    return (
        f"{file.path}: damaged or cut off at byte {damage['byte']} of {file.size}{after} ({damage['reason']}); "
        f"{parts} part{'s' * (parts != 1)} before it kept: fetch the file again and run the same command, or go on "
        "without the damaged stretch with --skip-damaged"
    )


# ---------------------------------------------------------------------------------------------------------------------
# The folder
# ---------------------------------------------------------------------------------------------------------------------


def _is_done(
    done: dict[str, Any], folder: Path, identity: dict[str, Any], chosen: dict[str, Any], settings: ExtractionSettings
) -> bool:
    return (
        done.get("fingerprint") == identity
        and done.get("settings") == chosen
        and (settings.skip_damaged or not done.get("damaged"))
        and _had_time(done, settings.page_seconds)
        and len(part_files(folder)) == done.get("parts")
    )


def _had_time(about: dict[str, Any], page_seconds: float) -> bool:
    """Whether no page of a part, or of a source, was given up sooner than this limit would."""
    return not about["counts"].get("timeout") or about.get("page_seconds", 0.0) >= page_seconds


def _prepare(folder: Path, source: Path, identity: dict[str, Any]) -> None:
    """Makes the folder, takes away what a kill left half-written, and notes which file the parts come from."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "extraction.json").unlink(missing_ok=True)
    for rest in folder.glob("*.tmp"):
        rest.unlink()
    known = _read_json(folder / "source.json")
    if known and known != identity:
        print(f"{source}: has changed since the last run; parts with other text are made anew", file=sys.stderr)
    write_json(folder / "source.json", identity)


def _collect(folder: Path, parts: int) -> dict[str, int]:
    """Adds up the counts of the parts, and gathers ``skipped.tsv``; removes parts that the source no longer has."""
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    names = [folder / f"part-{number:06d}.jsonl.zst" for number in range(parts)]
    for path in set(part_files(folder)) - set(names):
        path.unlink()
        counts_path(path).unlink(missing_ok=True)

    def lines() -> Iterator[bytes]:
        for path in names:
            part = _read_json(counts_path(path))
            counts.update(part["counts"])
            for skip in part["skipped"]:
                yield ("\t".join(" ".join(text.split()) for text in skip) + "\n").encode()

    write_chunks(folder / "skipped.tsv", lines())
    return dict(counts)


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none, or only half of one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turns a failed write into one clear error."""
    try:
        yield
    except OSError as error:
        raise RunFailed(
            f"{folder}: could not be written ({error.strerror or error}); the parts that are done are kept: free some "
            "space and run the same command again"
        ) from None
