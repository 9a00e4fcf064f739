"""Processes that turn records into documents, and the parts of a corpus they write.

A worker says in shared memory which record it works on. One that takes too long over a record is ended, one that dies
is replaced, and the same part is given out again without that record: no page can hold up or end the whole run. A
worker may have been killed for a reason of its own, so that a record is left out only at its second death.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from config import RunFailed
from corpus.documents import Header, LeftOut, Record, Unreadable, json_document, page_title, text_document
from corpus.parallel import ignore_requests_to_stop, signals_held_back
from storage import write_bytes, write_json

MEMORY_LIMIT = 1 << 30  # bytes of one worker; a page that needs more is broken
BETWEEN_RECORDS = -1
MAX_DEATHS = 3  # of workers between two records of one part: then it is not the records' fault
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Cleaning:
    """How records become documents."""

    header: Header
    source_name: str
    text_field: str
    min_chars: int
    page_seconds: float


@dataclass
class Part:
    """Consecutive records of a source, and the file that their documents go to."""

    path: Path
    key: str  # of the records and of how they are cleaned
    records: list[Record]
    unreadable: dict[int, tuple[str, str]] = field(default_factory=dict)  # record -> kind and reason
    suspects: set[int] = field(default_factory=set)  # records over which a worker has died, perhaps not by their fault


def counts_path(part: Path) -> Path:
    """The file beside a part that holds its counts; written last, so that it says that the part is whole."""
    return part.with_name(part.name.removesuffix(".jsonl.zst") + ".json")


# ---------------------------------------------------------------------------------------------------------------------
# In the worker
# ---------------------------------------------------------------------------------------------------------------------


def _work(connection: Any, current: Any, cleaning: Cleaning) -> None:
    """A worker process: parts come in, files go out; ends when the main process is gone."""
    ignore_requests_to_stop()
    _limit_memory()
    if cleaning.header.format == "dump":
        import corpus.wikitext  # noqa: F401 (now, so that the first page's seconds are its own)
    while True:
        try:
            part = connection.recv()
            error = ""
            try:
                _write_part(part, cleaning, current)
            except OSError as failed:
                error = f"{failed.filename or part.path}: could not be written ({failed.strerror or failed})"
            connection.send(error)
        except (EOFError, OSError):
            return


def _limit_memory() -> None:
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _write_part(part: Part, cleaning: Cleaning, current: Any) -> None:
    lines: list[bytes] = []
    counts: Counter[str] = Counter(records=len(part.records))
    skipped: list[tuple[str, str]] = []  # name, reason
    for index, record in enumerate(part.records):
        counts["cut"] += record.cut
        try:
            if index in part.unreadable:
                raise Unreadable(*part.unreadable[index])
            if record.problem:
                raise Unreadable("broken", record.problem)
            current.value = index
            _limit_time(cleaning.page_seconds)
            document = _document(record, cleaning)
            lines.append(_line(document))
            counts["documents"] += 1
            counts["characters"] += len(document["text"])
        except LeftOut as left_out:
            counts[left_out.kind] += 1
        except Unreadable as unreadable:
            counts[unreadable.kind] += 1
            skipped.append((record_name(record, cleaning, unreadable.line), unreadable.reason))
    current.value = BETWEEN_RECORDS
    _limit_time(0)
    write_bytes(part.path, zstandard.ZstdCompressor(level=3, write_checksum=True).compress(b"".join(lines)))
    about = {"key": part.key, "page_seconds": cleaning.page_seconds, "counts": dict(counts), "skipped": skipped}
    write_json(counts_path(part.path), about)


def _limit_time(seconds: float) -> None:
    """Where the main process was killed, nobody else ends a worker that is caught in a page."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 3 * seconds + 1 if seconds else 0)


def _document(record: Record, cleaning: Cleaning) -> dict[str, Any]:
    """Raises LeftOut or Unreadable where a record becomes no document."""
    try:
        if cleaning.header.format == "dump":
            from corpus.wikitext import page_document

            return page_document(record.raw, cleaning.header, cleaning.min_chars)
        if cleaning.header.format == "jsonl":
            document = json_document(record, cleaning.text_field)
        else:
            document = text_document(record)
    except (LeftOut, Unreadable):
        raise
    except MemoryError:
        raise Unreadable("broken", f"needs more than {MEMORY_LIMIT >> 20} MiB") from None
    except Exception as error:  # whatever one page makes of the parser, the others go on
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise Unreadable("broken", f"can't be read ({reason[:200]})") from None
    if len(document["text"]) < cleaning.min_chars:
        raise LeftOut("tiny" if document["text"] else "empty")
    return document


def _line(document: dict[str, Any]) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        raise Unreadable("encoding", "not Unicode (half of a surrogate pair)") from None


def record_name(record: Record, cleaning: Cleaning, line: int | None = None) -> str:
    """What the user can find a record by: a page's title, or file:line."""
    if cleaning.header.format == "dump":
        return page_title(record.raw)
    return f"{cleaning.source_name}:{line or record.line}"


# ---------------------------------------------------------------------------------------------------------------------
# In the main process
# ---------------------------------------------------------------------------------------------------------------------


class _Worker:
    """One process and what it works on."""

    def __init__(self, cleaning: Cleaning) -> None:
        # Not forked: the main process may have threads. Its main module is imported anew, which flags keep quick.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.current = context.RawValue("l", BETWEEN_RECORDS)
        self.part: Part | None = None
        self.deaths = 0  # of its predecessors, over the same part, between two records
        self.seen = BETWEEN_RECORDS  # the record it worked on when it was looked at last
        self.waited = 0.0  # seconds since then
        self.process = context.Process(target=_work, args=(theirs, self.current, cleaning), daemon=True)
        with signals_held_back():
            self.process.start()
        theirs.close()  # so that the end of the process is the end of the connection

    def give(self, part: Part) -> None:
        self.part, self.seen, self.waited = part, BETWEEN_RECORDS, 0.0
        with suppress(OSError):  # it has died; the next look at it finds out
            self.connection.send(part)

    def is_stuck(self, seconds: float, limit: float) -> bool:
        """Whether it works on one record for longer than the limit; called ``seconds`` after the last time."""
        index = self.current.value
        if index == BETWEEN_RECORDS or index != self.seen:
            self.seen, self.waited = index, 0.0
            return False
        self.waited += seconds
        return self.waited > limit

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class WorkerPool:
    """At most ``workers`` processes, each with one part; started when they are needed.

    ``check`` is called at every look at them, and raises where the user asked to stop.
    """

    def __init__(self, workers: int, cleaning: Cleaning, check: Callable[[], None]) -> None:
        self.limit = workers
        self.cleaning = cleaning
        self.check = check
        self.workers: list[_Worker] = []
        self.last_look = time.monotonic()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self.workers:
            worker.end()

    def submit(self, part: Part) -> None:
        """Gives a part to a worker; waits until one is free.

        Raises:
            RunFailed: a part can't be written, or workers die by themselves.
        """
        self.look(0)
        while True:
            free = next((worker for worker in self.workers if worker.part is None), None)
            if free is None and len(self.workers) < self.limit:
                free = _Worker(self.cleaning)
                self.workers.append(free)
            if free is not None:
                free.give(part)
                return
            self.look(POLL_SECONDS)

    def finish(self) -> None:
        """Waits until all parts are written."""
        while any(worker.part for worker in self.workers):
            self.look(POLL_SECONDS)

    def look(self, timeout: float) -> None:
        """Waits at most so long for something to happen; replaces workers that are stuck or dead."""
        self.check()
        busy = {worker.connection: worker for worker in self.workers if worker.part}
        for connection in multiprocessing.connection.wait(list(busy), timeout) if busy else ():
            worker = busy.pop(connection)  # type: ignore[call-overload]
            try:
                error = worker.connection.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            if error:
                raise RunFailed(
                    f"{error}; the parts that are done are kept: free some space and run the same command again"
                )
            worker.part, worker.deaths = None, 0
        now = time.monotonic()
        # Where this process was stopped for a while (Ctrl-Z), its workers mostly were too.
        seconds = min(now - self.last_look, 1.0)
        self.last_look = now
        for worker in busy.values():
            if worker.is_stuck(seconds, self.cleaning.page_seconds):
                worker.process.kill()
                self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        """Gives the part of a worker that is dead to a new one, without the record that is to blame."""
        worker.process.join(1.0)  # it is about to end, unless the connection broke by itself
        worker.process.kill()
        worker.process.join()
        part, index, exit_code = worker.part, worker.current.value, worker.process.exitcode
        assert part is not None
        too_long = worker.waited > self.cleaning.page_seconds
        deaths = worker.deaths
        if index == BETWEEN_RECORDS:
            deaths += 1
        elif not too_long and index not in part.suspects:
            part.suspects.add(index)
        elif not too_long:
            how = f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
            part.unreadable[index] = ("broken", f"its worker process died ({how})")
        elif index == worker.seen:  # else it had just gone on to the next record, which is not to blame
            part.unreadable[index] = ("timeout", f"took over {self.cleaning.page_seconds:g} s")
        worker.end()
        self.workers.remove(worker)
        if deaths >= MAX_DEATHS:
            raise RunFailed(
                f"{part.path}: the worker processes end before they are done (exit code {exit_code}); is the memory "
                f"enough for {self.limit} of them? The parts that are done are kept: run the same command again with "
                "fewer --workers"
            )
        new = _Worker(self.cleaning)
        new.deaths = deaths
        self.workers.append(new)
        new.give(part)
