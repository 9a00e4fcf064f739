"""Source files of any compression as streams of bytes.

The compression is told from the first bytes, never from the name. Nothing is held in memory whole.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
import re
import stat
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import zstandard

from config import RunFailed, UserError
from storage import file_sha256

PLAIN_BYTES = 1 << 20  # read at once from a file that is not compressed
MAX_OUTPUT = 32 << 20  # decompressed at once: bounds what a tiny, hugely expanding input can take
# Of zstd only the input of a step can be bounded: four bytes may stand for a block of 128 KiB.
INPUT_BYTES = {"bz2": 16 << 10, "xz": 16 << 10, "gz": 16 << 10, "zst": 2 << 10}
# A damaged block shows itself only some way behind the damage; what was decompressed just before may be wrong already.
# bz2 checks each block before it gives it out.
UNPROVEN_BYTES = {"bz2": 0, "xz": 512 << 10, "gz": 512 << 10, "zst": 512 << 10}
ZSTD_WINDOW = 1 << 31  # bytes; what zstd --long=31 asks for, and only as much of it is used as the file has text

_BZ2_STREAM = re.compile(rb"BZh[1-9]1AY&SY")  # the header of a stream and the mark of its first block
_MAGIC = (
    (re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)"), "bz2"),
    (re.compile(rb"\xfd7zXZ\x00"), "xz"),
    (re.compile(rb"\x1f\x8b\x08"), "gz"),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), "zst"),
)
_ARCHIVES = ((b"PK\x03\x04", "a zip archive"), (b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"Rar!", "a rar archive"))
_DECODING_ERRORS = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, zstandard.ZstdError)


class Damage(Exception):
    """The source can't be decompressed any further.

    Attributes:
        position: byte of the file at which it was noticed.
        stream: byte at which the damaged compressed stream starts.
        cut: whether the file just ends too early, so that all before it is sound.
    """

    def __init__(self, position: int, reason: str, stream: int = 0, cut: bool = False) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason
        self.stream = stream
        self.cut = cut


def refuse_pipe(path: Path) -> None:
    """Refuses what can be read only once. A pipe's resolved name is no file's: it is to be looked at before.

    Raises:
        UserError: the path is a pipe, as the shell makes it of ``<(...)``.
    """
    with suppress(OSError):  # opening it tells what is wrong
        if stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116 (Path.is_fifo may raise where a name is too long)
            raise UserError(f"{path}: is a pipe; write it to a file first (bz2, xz, gz, zst are read as they are)")


class SourceFile:
    """A file to read from start to end, decompressed.

    Attributes:
        compression: ``none``, ``bz2``, ``xz``, ``gz`` or ``zst``.
        size: bytes of the file as it lies on the disk.
        position: how many of them were read so far.

    Raises:
        UserError: the file can't be opened, is empty, a pipe, or an archive of files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_pipe(path)
        try:
            self._file = open(path, "rb")  # noqa: SIM115 (closed by close())
        except OSError as error:
            raise UserError(f"{path}: can't be opened ({error.strerror}); give a readable file") from None
        self.size = os.fstat(self._file.fileno()).st_size
        self.position = 0
        self._sha256 = hashlib.sha256()
        self._hashed = 0
        head = self._file.read(16)
        self._file.seek(0)
        if not head:
            self.close()
            raise UserError(f"{path}: is empty; leave it out, or fetch it again")
        for magic, name in _ARCHIVES:
            if head.startswith(magic):
                self.close()
                raise UserError(f"{path}: is {name}; unpack it first (bz2, xz, gz and zst are read as they are)")
        self.compression = next((name for magic, name in _MAGIC if magic.match(head)), "none")

    def __enter__(self) -> SourceFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """Yields the decompressed bytes, from the stream that starts at a byte of the file.

        Raises:
            Damage: after the last chunk that can be trusted.
        """
        held: deque[bytes] = deque()
        unproven = UNPROVEN_BYTES.get(self.compression, 0)
        size = 0
        try:
            for data in self._decompressed(start):
                if data is None:
                    yield from held
                    held.clear()
                    size = 0
                    continue
                held.append(data)
                size += len(data)
                while held and size - len(held[0]) >= unproven:
                    size -= len(held[0])
                    yield held.popleft()
        except Damage as damage:
            if damage.cut:
                yield from held
            raise
        yield from held

    def head(self, size: int) -> bytes:
        """The first decompressed bytes, at most so many; fewer where damage comes before, which reading meets again."""
        head = b""
        with suppress(Damage):
            for chunk in self.chunks():
                head += chunk
                if len(head) >= size:
                    break
        return head[:size]

    def next_stream(self, after: int) -> int | None:
        """Where the next bz2 stream starts behind a byte of the file; a multistream dump has one per 100 pages."""
        if self.compression != "bz2":
            return None
        position, tail = after, b""
        self._file.seek(after)
        while data := self._file.read(PLAIN_BYTES):
            if match := _BZ2_STREAM.search(tail + data):
                return position - len(tail) + match.start()
            position += len(data)
            tail = data[-9:]
        return None

    def sha256(self) -> str:
        """The checksum of the whole file; reads what was not read yet."""
        self._seek(self._hashed)
        while self._read(PLAIN_BYTES):
            pass
        return self._sha256.hexdigest()

    def _decompressed(self, start: int) -> Iterator[bytes | None]:
        """Yields what comes out; None where a checksum has shown that all before is right."""
        self._seek(start)
        if self.compression == "none":
            while data := self._read(PLAIN_BYTES):
                yield data
            return
        decoder: Any = None
        stream = start
        head = data = b""
        while data := data or self._read(INPUT_BYTES[self.compression]):
            if decoder is None:
                stream = self.position - len(data)
                data = data.lstrip(b"\x00")  # xz and gz may be padded with zeros between and after streams
                if not data:
                    continue
                decoder, head = self._decoder(), data[:5]
            try:
                for piece in self._pieces(decoder, data):
                    if piece:
                        yield piece
            except _DECODING_ERRORS as error:
                raise Damage(self.position - len(data), f"damaged {self.compression} data: {error}", stream) from None
            data = b""
            if decoder.eof:
                if self._is_checked(decoder, head):
                    yield None
                data, decoder = decoder.unused_data, None
        if decoder is not None:
            raise Damage(self.size, f"the file ends in the middle of its {self.compression} data", stream, cut=True)

    def _decoder(self) -> Any:
        if self.compression == "bz2":
            return bz2.BZ2Decompressor()
        if self.compression == "xz":
            return lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
        if self.compression == "gz":
            return zlib.decompressobj(wbits=31)  # with a gzip header and its checksum
        return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()

    def _is_checked(self, decoder: Any, head: bytes) -> bool:
        """Whether a stream that begins with ``head`` and has ended held a checksum."""
        if self.compression == "xz":
            return decoder.check != lzma.CHECK_NONE
        if self.compression == "zst":  # the third lowest bit behind the mark of a frame says so
            return head.startswith(b"\x28\xb5\x2f\xfd") and len(head) == 5 and bool(head[4] & 4)
        return True

    def _pieces(self, decoder: Any, data: bytes) -> Iterator[bytes]:
        """Feeds a decoder, and yields what comes out in bounded pieces."""
        if self.compression == "zst":
            yield decoder.decompress(data)
        elif self.compression == "gz":
            yield decoder.decompress(data, MAX_OUTPUT)
            while decoder.unconsumed_tail and not decoder.eof:
                yield decoder.decompress(decoder.unconsumed_tail, MAX_OUTPUT)
        else:
            yield decoder.decompress(data, MAX_OUTPUT)
            while not decoder.eof and not decoder.needs_input:
                yield decoder.decompress(b"", MAX_OUTPUT)

    def _seek(self, position: int) -> None:
        self._file.seek(position)
        self.position = position

    def _read(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            raise RunFailed(
                f"{self.path}: can't be read at byte {self.position} ({error.strerror}); what is done is kept: mend "
                "the disk or copy the file anew, and run the same command again"
            ) from None
        known = self._hashed - self.position  # going on behind damage, or from the start, reads some bytes twice
        if 0 <= known < len(data):
            self._sha256.update(data[known:])
            self._hashed += len(data) - known
        self.position += len(data)
        return data


def has_changed(path: Path, known: dict[str, Any], sha256: str) -> bool:
    """Whether a file is another than it was. It is read whole only where the rest says that it may be the same.

    Args:
        known: its :func:`fingerprint` of that time; empty where there is none.

    Raises:
        UserError: the file can't be read.
    """
    now = fingerprint(path)
    if now == known:
        return False
    if any(known.get(name, now[name]) != now[name] for name in ("size", "ends")):
        return True
    return file_sha256(path) != sha256


def fingerprint(path: Path) -> dict[str, Any]:
    """What tells quickly whether a file is still the same: size, time of change, hash of its first and last 64 KiB.

    Raises:
        UserError: the file can't be read.
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            ends = hashlib.sha256(file.read(64 << 10))
            file.seek(max(0, status.st_size - (64 << 10)))
            ends.update(file.read())
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); give a readable file") from None
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "ends": ends.hexdigest()}
