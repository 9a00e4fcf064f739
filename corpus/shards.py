"""Token shards: a corpus as long rows of token ids in files that are mapped into memory, never read as a whole.

A split ("train", "validation", "test") is the concatenation of its documents, each its token ids followed by the end
token. ``tokens/train-00000.bin`` holds them as little-endian uint16 (uint32 if the vocabulary is larger than 65,536),
``tokens/train-00000.index.npy`` says where each document that begins in this shard begins. A document that is longer
than a shard goes on in the next one; every other lies within one shard. ``manifest.json`` has the checksums.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from config import UserError
from storage import file_sha256, replacing, sync

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 1
SPLITS = ("train", "validation", "test")
REMEDY = "copy the corpus again, or build it anew with build_corpus.py --overwrite"
INDEX_FIELDS = [("start", "<u8"), ("utf8_bytes", "<u8"), ("source", "<u2")]  # start: tokens from the shard's beginning


def token_dtype(vocab_size: int) -> str:
    """The type that token ids are stored as."""
    return "<u2" if vocab_size <= 2**16 else "<u4"


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


class ShardWriter:
    """Writes one split's shards. A shard gets its name when it is whole."""

    def __init__(self, folder: Path, split: str, dtype: str, shard_tokens: int) -> None:
        self.folder, self.split, self.dtype, self.shard_tokens = folder, split, dtype, shard_tokens
        self.shards: list[dict[str, Any]] = []
        self.n_tokens = self.n_documents = self.utf8_bytes = 0
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()
        self._used = 0  # tokens in the open shard
        self._index: list[np.ndarray] = []

    def add(self, tokens: np.ndarray, lengths: np.ndarray, utf8_bytes: np.ndarray, source: int) -> None:
        """Appends documents.

        Args:
            tokens: the ids of all of them, end tokens included, (sum of lengths,).
            lengths: tokens of each document with its end token, (n,).
            utf8_bytes: bytes of each document's text, (n,).
            source: the number of the source that they come from.
        """
        import numpy as np

        ends = np.cumsum(lengths, dtype=np.int64)
        first, begin = 0, 0  # the first document that is not written yet, and where its tokens begin
        while first < len(lengths):
            room = self.shard_tokens - self._used
            fitting = int(np.searchsorted(ends, begin + room, side="right"))
            if fitting == first and self._used:
                self._close_shard()
                continue
            last = max(fitting, first + 1)  # a document that no shard can hold is cut where shards end
            index = np.zeros(last - first, dtype=INDEX_FIELDS)
            index["start"] = self._used + ends[first:last] - lengths[first:last] - begin
            index["utf8_bytes"] = utf8_bytes[first:last]
            index["source"] = source
            self._index.append(index)
            end = int(ends[last - 1])
            for start in range(begin, end, self.shard_tokens):
                self._write(tokens[start : min(end, start + self.shard_tokens)])
            first, begin = last, end
        self.n_documents += len(lengths)
        self.n_tokens += begin
        self.utf8_bytes += int(utf8_bytes.sum())

    def close(self) -> dict[str, Any]:
        """Finishes the last shard.

        Returns:
            The split's part of the manifest.
        """
        if self._file:
            self._close_shard()
        return {
            "n_tokens": self.n_tokens,
            "n_documents": self.n_documents,
            "utf8_bytes": self.utf8_bytes,
            "shards": self.shards,
        }

    def _write(self, tokens: np.ndarray) -> None:
        if self._used == self.shard_tokens:
            self._close_shard()
        name = self._name()
        if self._file is None:
            self._file = open(self.folder / f"{name}.bin.partial", "wb")  # noqa: SIM115 (closed with the shard)
        raw = tokens.astype(self.dtype).tobytes()
        self._file.write(raw)
        self._hash.update(raw)
        self._used += len(tokens)

    def _close_shard(self) -> None:
        import numpy as np

        assert self._file is not None
        self._file.close()
        name = self._name()
        index = np.concatenate(self._index) if self._index else np.zeros(0, dtype=INDEX_FIELDS)
        index_path = self.folder / f"{name}.index.npy"
        with replacing(index_path) as file:
            np.save(file, index)
        self.shards.append(
            {
                "name": f"{name}.bin",
                "tokens": self._used,
                "documents": len(index),
                "sha256": self._hash.hexdigest(),
                "index_sha256": file_sha256(index_path),
            }
        )
        partial = self.folder / f"{name}.bin.partial"
        sync(partial)
        partial.rename(self.folder / f"{name}.bin")
        self._file, self._hash, self._used, self._index = None, hashlib.sha256(), 0, []

    def _name(self) -> str:
        return f"{self.split}-{len(self.shards):05d}"


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenSplit:
    """One split's tokens, as one row of ids however many shards hold it."""

    folder: Path
    dtype: str
    n_tokens: int
    n_documents: int
    utf8_bytes: int
    shards: list[dict[str, Any]]

    def read(self, start: int, stop: int) -> np.ndarray:
        """The tokens from ``start`` up to ``stop``, (stop - start,) int64.

        Raises:
            IndexError: the split has no such tokens.
        """
        import numpy as np

        if not 0 <= start <= stop <= self.n_tokens:
            raise IndexError(f"tokens {start} to {stop} of {self.n_tokens}")
        pieces = []
        shard = int(np.searchsorted(self._shard_starts, start, side="right")) - 1
        while start < stop:
            offset = start - int(self._shard_starts[shard])
            piece = self._maps[shard][offset : offset + stop - start]
            pieces.append(piece)
            start += len(piece)
            shard += 1
        return np.concatenate(pieces).astype(np.int64) if pieces else np.zeros(0, dtype=np.int64)

    def index(self) -> np.ndarray:
        """Every document's record (start, utf8_bytes, source), (n_documents,); here start counts from the split's
        beginning."""
        import numpy as np

        records = np.empty(self.n_documents, dtype=INDEX_FIELDS)
        stop = 0
        for shard, shard_start in zip(self.shards, self._shard_starts, strict=False):
            start, stop = stop, stop + shard["documents"]
            records[start:stop] = np.load(self.folder / _index_name(shard))
            records["start"][start:stop] += np.uint64(shard_start)
        return records

    def documents(self) -> Iterator[tuple[np.ndarray, int]]:
        """Every document: its token ids without the end token, (n,) int64, and its length in UTF-8 bytes."""
        import numpy as np

        index = self.index()
        stops = np.append(index["start"].astype(np.int64), self.n_tokens)[1:].tolist()
        for start, stop, utf8_bytes in zip(index["start"].tolist(), stops, index["utf8_bytes"].tolist(), strict=True):
            yield self.read(start, stop - 1), utf8_bytes

    @cached_property
    def _shard_starts(self) -> np.ndarray:
        import numpy as np

        return np.concatenate([[0], np.cumsum([shard["tokens"] for shard in self.shards])]).astype(np.int64)

    @cached_property
    def _maps(self) -> list[np.ndarray]:
        import numpy as np

        return [np.memmap(self.folder / shard["name"], dtype=self.dtype, mode="r") for shard in self.shards]


@dataclass(frozen=True)
class Corpus:
    """A finished corpus folder."""

    folder: Path
    manifest: dict[str, Any]
    splits: dict[str, TokenSplit]

    @property
    def tokenizer_folder(self) -> Path:
        return self.folder / "tokenizer"

    @property
    def vocab_size(self) -> int:
        return self.manifest["vocab_size"]

    @property
    def end_token_id(self) -> int:
        return self.manifest["end_token_id"]


def open_corpus(folder: Path, used: Collection[str] = SPLITS) -> Corpus:
    """Opens a finished corpus.

    Args:
        used: the splits that will be read; of the others only the sizes are checked.

    Raises:
        UserError: there is none, or files are not those that its manifest names; every such file is named.
    """
    manifest = read_manifest(folder)
    try:
        return _open(folder, manifest, used)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"{folder / 'manifest.json'}: is damaged ({type(error).__name__}: {error}); {REMEDY}"
        raise UserError(message) from None


def _open(folder: Path, manifest: dict[str, Any], used: Collection[str]) -> Corpus:
    problems = []
    item_size = int(manifest["dtype"][-1])
    splits = {}
    for split, about in manifest["splits"].items():
        for shard in about["shards"]:
            path = folder / "tokens" / shard["name"]
            index_path = path.with_name(_index_name(shard))
            expected = [(path, shard["sha256"], shard["tokens"] * item_size), (index_path, shard["index_sha256"], None)]
            for file, sha256, size in expected:
                found = _differences(file, sha256 if split in used else None, size)
                problems += [f"{problem}; {REMEDY}" for problem in found]
        in_shards = sum(shard["tokens"] for shard in about["shards"])
        if about["n_tokens"] != in_shards:
            said = f"says {about['n_tokens']:,} tokens of {split}, and its shards have {in_shards:,}"
            problems.append(f"{folder / 'manifest.json'}: {said}; {REMEDY}")
        counts = (about["n_tokens"], about["n_documents"], about["utf8_bytes"])
        splits[split] = TokenSplit(folder / "tokens", manifest["dtype"], *counts, about["shards"])
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    problems += [f"{problem}; {REMEDY}" for problem in _differences(tokenizer, manifest["tokenizer"]["sha256"], None)]
    if problems:
        raise UserError(problems)
    return Corpus(folder, manifest, splits)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished corpus, of which not every file is looked at.

    Raises:
        UserError: there is none, or it is not a manifest that this version reads.
    """
    path = folder / "manifest.json"
    if not path.exists():
        raise UserError(f"{path}: no such file; {folder} is no finished corpus: make it with build_corpus.py")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        missing = {"splits", "sources", "dtype", "end_token_id", "vocab_size", "tokenizer"} - manifest.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: can't be read as a manifest ({error}); build the corpus anew") from None
    if manifest.get("schema") != SCHEMA or missing:
        raise UserError(f"{path}: is not a manifest of schema {SCHEMA}; build the corpus anew")
    return manifest


def _differences(path: Path, sha256: str | None, size: int | None) -> list[str]:
    """What is wrong with a file; None stands for what is not to be compared."""
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            return [f"{path}: has {found:,} bytes, but its manifest says {size:,}"]
        if sha256 is not None and file_sha256(path) != sha256:
            return [f"{path}: is not the file that its manifest describes"]
        return []
    except OSError as error:
        return [f"{path}: can't be read ({error.strerror}), but its manifest names it"]


def _index_name(shard: dict[str, Any]) -> str:
    return shard["name"].removesuffix(".bin") + ".index.npy"
