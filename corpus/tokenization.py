"""From selected documents to token shards: each part is tokenized by itself, then all are put together in order.

What a worker makes of a part lies beside the shards until they are whole, so that an interrupted run goes on there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.extraction import read_part
from corpus.parallel import run_tasks
from corpus.selection import SPLIT_CODES, Selection
from corpus.shards import SPLITS, ShardWriter, token_dtype
from corpus.vocabulary import Vocabulary, unknown_token_id
from storage import replacing

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer
    from tqdm import tqdm

_BATCH_CHARS = 1 << 20  # of text that is encoded at once


@dataclass(frozen=True)
class _Task:
    documents: Path
    tokens: Path
    keep: np.ndarray  # (documents,) bool


@dataclass(frozen=True)
class Sample:
    """The training documents on which the vocabulary is trained; can be gone through again and again."""

    selection: Selection
    sample_bytes: float

    def __iter__(self) -> Iterator[str]:
        for number, part in enumerate(self.selection.parts):
            chosen = self.selection.sample(number, self.sample_bytes)
            if chosen.any():
                for document, wanted in zip(read_part(part.path), chosen, strict=True):
                    if wanted:
                        yield document["text"]


def tokenize(
    selection: Selection, vocabulary: Vocabulary, folder: Path, workers: int, check: Callable[[], None], bar: tqdm
) -> float:
    """Fills ``folder`` with a file of tokens for each part; those that are there already are not made again.

    Returns:
        The share of the tokens that stand for text that the vocabulary can't spell.
    """
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    todo = []
    for number, part in enumerate(selection.parts):
        if _tokens_path(folder, number).exists():
            bar.update(part.path.stat().st_size)
        else:
            todo.append(number)
    tasks = (
        _Task(selection.parts[number].path, _tokens_path(folder, number), selection.copies(number) > 0)
        for number in todo
    )
    for size in run_tasks(_tokenize_part, tasks, _load, vocabulary, min(workers, max(1, len(todo))), check):
        bar.update(size)
    unknown = total = 0
    for number in range(len(selection.parts)):
        with np.load(_tokens_path(folder, number)) as made:
            unknown += int(made["unknown"])
            total += int(made["lengths"].sum())
    return unknown / max(total, 1)


def assemble(
    selection: Selection, folder: Path, tokens_folder: Path, dtype: str, shard_tokens: int, check: Callable[[], None]
) -> dict[str, Any]:
    """Writes the shards of every split.

    Documents come in the order of their sources; those that occur several times come again in further passes, so that a
    document never follows itself.

    Args:
        folder: what :func:`tokenize` filled.
        tokens_folder: where the shards go.

    Returns:
        The manifest's ``splits``.
    """
    import numpy as np

    tokens_folder.mkdir(parents=True, exist_ok=True)
    for leftover in tokens_folder.iterdir():
        if leftover.is_file():
            leftover.unlink()
    splits = {}
    for split in SPLITS:
        writer = ShardWriter(tokens_folder, split, dtype, shard_tokens)
        passes = 1
        finished = 0
        while finished < passes:
            for number, part in enumerate(selection.parts):
                check()
                copies = selection.copies(number)
                kept = copies > 0
                wanted = (selection.outcomes[number] == SPLIT_CODES[split])[kept] & (copies[kept] > finished)
                passes = max(passes, int(copies[selection.outcomes[number] == SPLIT_CODES[split]].max(initial=1)))
                if not wanted.any():
                    continue
                with np.load(_tokens_path(folder, number)) as made:
                    tokens, lengths, utf8_bytes = made["tokens"], made["lengths"], made["utf8_bytes"]
                writer.add(tokens[np.repeat(wanted, lengths)], lengths[wanted], utf8_bytes[wanted], part.source)
            finished += 1
        splits[split] = writer.close()
    return splits


def _load(vocabulary: Vocabulary) -> tuple[Tokenizer, int, int, str]:
    tokenizer = vocabulary.tokenizer()
    return tokenizer, vocabulary.end_token_id, unknown_token_id(tokenizer), token_dtype(vocabulary.vocab_size)


def _tokenize_part(context: tuple[Tokenizer, int, int, str], task: _Task) -> int:
    import numpy as np

    tokenizer, end_token_id, unknown_id, dtype = context
    pieces: list[np.ndarray] = [np.zeros(0, dtype=dtype)]
    lengths: list[int] = []
    utf8_bytes: list[int] = []
    unknown = 0
    documents = read_part(task.documents) if task.keep.any() else iter(())
    for texts in _batches(document["text"] for document, keep in zip(documents, task.keep, strict=False) if keep):
        for text, encoding in zip(texts, tokenizer.encode_batch_fast(texts, add_special_tokens=False), strict=True):
            found = encoding.ids
            pieces.append(np.array([*found, end_token_id], dtype=dtype))
            lengths.append(len(found) + 1)
            utf8_bytes.append(len(text.encode()))
            unknown += found.count(unknown_id)
    with replacing(task.tokens) as file:
        np.savez(
            file,
            tokens=np.concatenate(pieces),
            lengths=np.array(lengths, dtype=np.int64),
            utf8_bytes=np.array(utf8_bytes, dtype=np.int64),
            unknown=np.int64(unknown),
        )
    return task.documents.stat().st_size


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _tokens_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"
