"""Files from a server: fetched whole, checked against their published hashes, and stored together or not at all.

Nothing slow is imported at module level, because every ``--help`` imports this module.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

# More than twice the largest published file, 283,003 pairs of some 170 bytes: a server cannot fill the memory.
MAX_DOWNLOAD_BYTES = 128 << 20


class DownloadError(Exception):
    """A file could not be fetched, is not the published one, or could not be stored."""


@dataclass(frozen=True)
class Timeouts:
    """How long a download may take, in seconds.

    ``answer``: from the look-up of the server's name to its answer; ``stall``: without a single byte; ``total``: for
    all files of a dataset, so that a server that sends a byte now and then is given up too; the largest dataset, some
    70 MB, then needs 2 Mbit/s. Two datasets that cannot be had cost ten seconds.
    """

    answer: float = 5.0
    stall: float = 5.0
    total: float = 300.0


def git_blob_hash(content: bytes) -> str:
    """The hash that ``git hash-object`` prints for a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def download_files(base_url: str, git_blobs: Mapping[str, str], folder: Path, timeouts: Timeouts) -> None:
    """Fetches files into ``folder``: all of them, or none.

    A file gets its name only when all of them have been fetched and agree with their hashes.

    Args:
        base_url: the address that the files' names are added to.
        git_blobs: file name -> published hash. The first file is the last to get its name.

    Raises:
        DownloadError: the server was not reached, stopped sending, or sent something else; or the disk refused.
    """
    deadline = time.monotonic() + timeouts.total
    contents = {}
    for name, expected in git_blobs.items():
        url = f"{base_url.rstrip('/')}/{name}"
        content = _fetch(url, timeouts, deadline)
        found = git_blob_hash(content)
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
    """Writes all files under temporary names of its own, then renames them, the first one last: it completes a set."""
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
