"""Compressed sources: told by content, read in pieces, damage found where it is."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from config import UserError
from corpus.files import Damage, SourceFile
from storage import temporary_name, write_json

TEXT = "".join(f"line {number}: {random.Random(number).random()}\n" for number in range(60_000)).encode()  # about 2 MB
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "bz2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "gz": gzip.compress,
    "zst": zstandard.ZstdCompressor().compress,
}
COMPRESSED = [name for name in COMPRESS if name != "none"]


def read(path: Path, start: int = 0) -> tuple[bytes, Damage | None]:
    """What can be trusted of a file, and the damage behind it."""
    data = b""
    with SourceFile(path) as file:
        try:
            for chunk in file.chunks(start):
                data += chunk
        except Damage as damage:
            return data, damage
    return data, None


@pytest.mark.parametrize("name", COMPRESS)
def test_compression_is_told_from_the_content(tmp_path: Path, name: str) -> None:
    path = tmp_path / "misleading.txt.gz"
    path.write_bytes(COMPRESS[name](TEXT))
    with SourceFile(path) as file:
        assert file.compression == name
        assert b"".join(file.chunks()) == TEXT
        assert file.position == file.size == path.stat().st_size
        assert file.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", COMPRESSED)
def test_several_streams_are_one_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"".join(COMPRESS[name](TEXT[i : i + 700_000]) for i in range(0, len(TEXT), 700_000)))
    assert read(path) == (TEXT, None)


@pytest.mark.parametrize("name", ["xz", "gz"])
def test_padding_behind_the_last_stream_is_no_damage(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(COMPRESS[name](TEXT) + bytes(512))
    assert read(path) == (TEXT, None)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_cut_file_gives_what_comes_before(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file"
    whole = COMPRESS[name](TEXT)
    path.write_bytes(whole[: len(whole) * 3 // 4])
    data, damage = read(path)
    assert damage is not None and damage.cut and damage.position == path.stat().st_size
    assert TEXT.startswith(data) and len(data) > len(TEXT) // 3


@pytest.mark.parametrize("name", COMPRESSED)
def test_no_wrong_byte_comes_out_before_damage(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file"
    whole = bytearray(COMPRESS[name](TEXT))
    position = len(whole) * 3 // 4
    whole[position : position + 64] = bytes(64)
    path.write_bytes(whole)
    data, damage = read(path)
    assert damage is not None and not damage.cut
    assert TEXT.startswith(data) and len(data) > len(TEXT) // 10
    assert position - 70_000 <= damage.position <= len(whole)


@pytest.mark.parametrize("name", [*COMPRESSED, "zst without a checksum"])
def test_garbage_behind_a_proven_stream_costs_nothing(tmp_path: Path, name: str) -> None:
    checked = name in COMPRESSED
    compress = COMPRESS.get(name) or zstandard.ZstdCompressor(write_checksum=False).compress
    if name == "zst":
        compress = zstandard.ZstdCompressor(write_checksum=True).compress
    path = tmp_path / "file"
    path.write_bytes(compress(TEXT[:900_000]) + b"garbage " * 20)
    data, damage = read(path)
    assert damage is not None and not damage.cut
    assert data == TEXT[:900_000] if checked else len(data) < 900_000


def test_a_wide_window_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "file"
    window = bytes([0, (28 - 10) << 3])  # of 256 MiB, as zstd --long=28 asks for
    block = (len(b"text") << 3 | 1).to_bytes(3, "little")  # the last one, not compressed
    path.write_bytes(b"\x28\xb5\x2f\xfd" + window + block + b"text")
    assert read(path) == (b"text", None)


def test_reading_goes_on_at_the_next_bz2_stream(tmp_path: Path) -> None:
    first, second, third = (bytearray(bz2.compress(TEXT[i * 500_000 : (i + 1) * 500_000])) for i in range(3))
    second[len(second) // 2] ^= 255
    path = tmp_path / "file"
    path.write_bytes(first + second + third)
    _, damage = read(path)
    assert damage is not None and damage.stream == len(first)
    with SourceFile(path) as file:
        start = file.next_stream(damage.stream + 1)
        assert start == len(first) + len(second)
        assert b"".join(file.chunks(start)) == TEXT[1_000_000:1_500_000]
        assert file.next_stream(start + 1) is None
        assert file.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"PK\x03\x04 and so on", "zip archive; unpack it"), (None, "can't be opened")],
)
def test_a_file_of_no_use_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        SourceFile(path)
    assert str(path) in str(error.value)


def test_a_pipe_is_refused_before_it_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: is a pipe; write it to a file first"):
        SourceFile(tmp_path / "pipe")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"old": "é"})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    temporary_name(path).mkdir()  # the temporary name can't be written to
    with pytest.raises(OSError):
        write_json(path, {"new": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "old": "é"\n}\n'
