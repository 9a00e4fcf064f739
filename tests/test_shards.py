"""Token shards: what is written comes back across every boundary, and a changed file is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config import UserError
from corpus.shards import ShardWriter, open_corpus, token_dtype

END = 0


def make_documents(count: int, longest: int, vocab_size: int = 300, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(1, vocab_size) for _ in range(draw.randint(0, longest))] for _ in range(count)]


def write_corpus(
    folder: Path, documents: list[list[int]], shard_tokens: int, batch: int = 3, dtype: str = "<u2"
) -> Any:
    (folder / "tokens").mkdir(parents=True)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    splits = {}
    for split, content in {"train": documents, "validation": documents[:1], "test": []}.items():
        writer = ShardWriter(folder / "tokens", split, dtype, shard_tokens)
        for start in range(0, len(content), batch):
            rows = [[*document, END] for document in content[start : start + batch]]
            lengths = np.array([len(row) for row in rows])
            tokens = np.array([token for row in rows for token in row])
            writer.add(tokens, lengths, utf8_bytes=2 * lengths, source=start % 2)
        splits[split] = writer.close()
    sha256 = hashlib.sha256(b"{}").hexdigest()
    manifest = {"schema": 1, "sources": [], "dtype": dtype, "end_token_id": END, "vocab_size": 300, "splits": splits}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"tokenizer": {"sha256": sha256}}))
    return open_corpus(folder)


@pytest.mark.parametrize("shard_tokens", [1, 7, 20, 64, 10_000])
@pytest.mark.parametrize("batch", [1, 3, 50])
def test_documents_come_back(tmp_path: Path, shard_tokens: int, batch: int) -> None:
    """With shards of 7 tokens, documents of up to 30 run over several; with 1, every token is a shard."""
    documents = make_documents(50, longest=30)
    split = write_corpus(tmp_path, documents, shard_tokens, batch).splits["train"]
    assert [tokens.tolist() for tokens, _ in split.documents()] == documents
    assert [size for _, size in split.documents()] == [2 * len(document) + 2 for document in documents]
    assert split.n_documents == 50
    assert split.utf8_bytes == 2 * split.n_tokens
    assert all(shard["tokens"] <= shard_tokens for shard in split.shards)


def test_any_stretch_can_be_read(tmp_path: Path) -> None:
    documents = make_documents(40, longest=12)
    stream = [token for document in documents for token in [*document, END]]
    split = write_corpus(tmp_path, documents, shard_tokens=16).splits["train"]
    assert split.n_tokens == len(stream)
    assert len(split.shards) > 5
    draw = random.Random(1)
    for _ in range(200):
        start, stop = sorted(draw.choices(range(len(stream) + 1), k=2))
        read = split.read(start, stop)
        assert read.tolist() == stream[start:stop]
        assert read.dtype == np.int64
    with pytest.raises(IndexError):
        split.read(0, len(stream) + 1)


def test_only_documents_longer_than_a_shard_are_cut(tmp_path: Path) -> None:
    split = write_corpus(tmp_path, [[1] * 5, [2] * 5, [3] * 5, [4] * 25, [5] * 2], shard_tokens=13).splits["train"]
    assert [shard["tokens"] for shard in split.shards] == [12, 6, 13, 13, 3]
    assert [shard["documents"] for shard in split.shards] == [2, 1, 1, 0, 1]


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    assert (token_dtype(65536), token_dtype(65537)) == ("<u2", "<u4")
    split = write_corpus(tmp_path, [[70_000, 2**31]], shard_tokens=10, dtype="<u4").splits["train"]
    assert split.read(0, 3).tolist() == [70_000, 2**31, END]
    assert (tmp_path / "tokens" / "train-00000.bin").stat().st_size == 12


def test_an_index_takes_no_more_memory_than_its_size(tmp_path: Path) -> None:
    split = write_corpus(tmp_path, make_documents(20_000, longest=2), shard_tokens=2000, batch=500).splits["train"]
    tracemalloc.start()
    size = split.index().nbytes
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * size


def test_an_empty_split_is_there(tmp_path: Path) -> None:
    split = write_corpus(tmp_path, make_documents(3, 5), shard_tokens=10).splits["test"]
    assert (split.n_tokens, split.n_documents, list(split.documents())) == (0, 0, [])
    assert split.read(0, 0).tolist() == []


def test_every_file_that_does_not_match_its_manifest_is_named(tmp_path: Path) -> None:
    write_corpus(tmp_path, make_documents(20, longest=9), shard_tokens=30)
    tokens = tmp_path / "tokens"
    changed = bytearray((tokens / "train-00000.bin").read_bytes())
    changed[3] ^= 1
    (tokens / "train-00000.bin").write_bytes(changed)
    (tokens / "train-00001.bin").write_bytes((tokens / "train-00001.bin").read_bytes()[:-2])
    (tokens / "train-00002.bin").unlink()
    (tokens / "train-00001.index.npy").write_bytes(b"?")
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{ }")
    with pytest.raises(UserError) as caught:
        open_corpus(tmp_path)
    files = ["train-00000.bin", "train-00001.bin", "train-00001.index.npy", "train-00002.bin", "tokenizer.json"]
    assert len(caught.value.problems) == len(files)
    for file, problem in zip(files, caught.value.problems, strict=True):
        assert file in problem
        assert "build it anew" in problem


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda found: found["splits"]["train"].update(n_tokens=7), "says 7 tokens of train, and its shards have "),
        (lambda found: found["splits"]["train"]["shards"][0].pop("sha256"), "is damaged (KeyError: 'sha256')"),
        (lambda found: found.update(dtype="float"), "is damaged (ValueError: "),
        (lambda found: found.update(splits=[]), "is damaged (AttributeError: "),
        (lambda found: found.pop("sources"), "is not a manifest of schema 1"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    change: Callable[[dict[str, Any]], object], what: str, tmp_path: Path
) -> None:
    write_corpus(tmp_path, make_documents(20, longest=9), shard_tokens=30)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    change(manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError) as caught:
        open_corpus(tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path}/manifest.json: ") and what in problem and "anew" in problem


def test_only_the_splits_that_are_used_are_read_whole(tmp_path: Path) -> None:
    write_corpus(tmp_path, make_documents(20, longest=9), shard_tokens=30)
    shard = tmp_path / "tokens" / "train-00000.bin"
    raw = shard.read_bytes()
    shard.write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
    assert open_corpus(tmp_path, ("validation",)).splits["train"].n_tokens
    with pytest.raises(UserError, match=r"train-00000\.bin: is not the file"):
        open_corpus(tmp_path, ("train",))
    shard.write_bytes(raw[:-2])
    with pytest.raises(UserError, match=r"train-00000\.bin: has"):
        open_corpus(tmp_path, ("validation",))
    shard.write_bytes(raw)
    (tmp_path / "tokens" / "train-00001.index.npy").unlink()
    with pytest.raises(UserError, match=r"train-00001\.index\.npy: can't be read"):
        open_corpus(tmp_path, ("validation",))


def test_every_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    fsync = os.fsync

    def recording(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", recording)
    write_corpus(tmp_path, make_documents(20, longest=9), shard_tokens=30)
    assert {path.name for path in (tmp_path / "tokens").iterdir() if path.stat().st_ino not in synced} == set()


@pytest.mark.parametrize("content", [None, "{", "[]", '{"schema": 2}', '{"schema": 1}'])
def test_a_folder_without_a_manifest_is_no_corpus(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        open_corpus(tmp_path)
