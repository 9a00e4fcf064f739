"""The documents that language models are measured on: read from files or a corpus, and turned into a model's tokens."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from config import EvaluateSettings, UserError
from corpus import vocabulary
from corpus.documents import (
    HEAD_BYTES,
    UTF8_BOM,
    Record,
    Unreadable,
    json_document,
    read_header,
    read_records,
    text_document,
)
from corpus.files import Damage, SourceFile
from corpus.shards import open_corpus
from training.interrupt import Check

POSITION_EDGES = (0, 64, 128, 256, 512, 1024, 2048, 4096, 8192)  # bytes from a document's beginning


@dataclass(frozen=True)
class Document:
    """A text to measure on, and its token ids where a corpus holds them.

    Attributes:
        name: file:line, or split:number.
        words: as white space separates them.
        utf8_bytes: of the original text.
    """

    name: str
    text: str
    words: int
    utf8_bytes: int
    ids: np.ndarray | None = None


@dataclass
class Data:
    """The documents, and what is known of where they come from.

    Attributes:
        sources: for ``results.json``.
        skipped: (where, why) of each that can't be read.
        counts: how many documents were ``empty``, how often one was ``cut`` because of its length.
        tokenizer: of the corpus, if it is one.
    """

    name: str
    documents: list[Document] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    tokenizer: Tokenizer | None = None

    def is_full(self, limit: int | None) -> bool:
        return limit is not None and len(self.documents) >= limit


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def read_files(paths: list[Path], settings: EvaluateSettings, check: Check) -> Data:
    """Reads the documents of texts and JSON lines, whatever their compression.

    Raises:
        UserError: a file can't be read, or is cut off, or there is no document at all; all such files are named.
    """
    data = Data(", ".join(path.name for path in paths))
    problems = []
    for path in paths:  # all of them, also those that a limit will leave unread
        try:
            SourceFile(path).close()
        except UserError as error:
            problems += error.problems
    for path in paths:
        if data.is_full(settings.limit_documents):
            break
        try:
            read_file(path, settings, data, check)
        except UserError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if not problems and not data.documents:
        reasons = [f"; {where}: {reason}" for where, reason in data.skipped[:1]]
        problems.append(f"{data.name}: no document with any text{''.join(reasons)}; give other files")
    if problems:
        raise UserError(problems)
    return data


def read_file(path: Path, settings: EvaluateSettings, data: Data, check: Check) -> None:
    """Adds the documents of one file."""
    before = len(data.documents)
    with SourceFile(path) as file:
        try:
            kind, records = read_records_of(file, settings)
            for record in records:
                check()
                if data.is_full(settings.limit_documents):
                    break
                try:
                    if record.problem:
                        raise Unreadable("broken", record.problem)
                    read = json_document(record, settings.text_field) if kind == "jsonl" else text_document(record)
                except Unreadable as unreadable:
                    data.skipped.append((f"{path}:{unreadable.line or record.line}", unreadable.reason))
                    continue
                data.counts["cut"] += record.cut
                add_document(data, f"{path}:{record.line}", read["text"])
        except Damage as damage:
            raise UserError(f"{path}: {damage.reason}, at byte {damage.position}; fetch the file again") from None
        about = {"path": str(path), "sha256": file.sha256(), "format": kind, "compression": file.compression}
        data.sources.append(about | {"documents": len(data.documents) - before})


def read_records_of(file: SourceFile, settings: EvaluateSettings) -> tuple[str, Iterator[Record]]:
    """The format of a file, and its records."""
    header = read_header(file.head(HEAD_BYTES), file.path)
    if header.format == "dump":
        raise UserError(
            f"{file.path}: is a MediaWiki dump; make a corpus of it with build_corpus.py, and give --corpus"
        )
    if header.format == "text" and not settings.document_separator:
        return "text", iter([Record(1, b"".join(file.chunks()).removeprefix(UTF8_BOM))])
    return header.format, read_records(header, file.chunks(), settings.document_separator)


def read_corpus(folder: Path, split: str, limit: int | None, check: Check) -> Data:
    """Reads the documents of a corpus, as tokens and as text.

    Raises:
        UserError: there is no such corpus, it is damaged, or its split is empty.
    """
    corpus = open_corpus(folder, (split,))
    tokenizer = vocabulary.load(corpus.tokenizer_folder).tokenizer()
    data = Data(f"{folder.resolve().name}, {split}", tokenizer=tokenizer)
    if split in corpus.splits:
        for number, (ids, utf8_bytes) in enumerate(itertools.islice(corpus.splits[split].documents(), limit)):
            check()
            add_document(
                data, f"{split}:{number}", tokenizer.decode(ids.tolist(), skip_special_tokens=False), ids, utf8_bytes
            )
    if not data.documents:
        raise UserError(
            f"{folder}: its {split} split holds no document; choose another --split, or build a larger corpus"
        )
    shards = corpus.manifest["splits"][split]["shards"]
    about = {"path": str(folder), "split": split, "documents": len(data.documents)}
    data.sources.append(about | {"sha256": [shard["sha256"] for shard in shards], "format": "corpus"})
    return data


def add_document(
    data: Data, name: str, text: str, ids: np.ndarray | None = None, utf8_bytes: int | None = None
) -> None:
    """Takes in a document, if it has any text."""
    if not text:
        data.counts["empty"] += 1
        return
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # JSON can spell it
        data.skipped.append((name, "not Unicode (half of a surrogate pair)"))
        return
    data.documents.append(Document(name, text, len(text.split()), utf8_bytes or size, ids))


# ---------------------------------------------------------------------------------------------------------------------
# In a model's tokens
# ---------------------------------------------------------------------------------------------------------------------


def encodes_alike(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers make the same ids of ordinary text."""
    parts = [json.loads(tokenizer.to_str()) for tokenizer in (one, other)]
    same = all(parts[0].get(name) == parts[1].get(name) for name in ("model", "normalizer", "pre_tokenizer"))
    return same and one.get_vocab(True) == other.get_vocab(True)


def encode(document: Document, tokenizer: Tokenizer, use_ids: bool) -> tuple[np.ndarray, np.ndarray, bool]:
    """A document in a model's tokens.

    Args:
        use_ids: take the document's own ids as they are.

    Returns:
        The ids, (n,); the first token at or behind each of POSITION_EDGES; whether the ids give the text back.
    """
    encoding = tokenizer.encode(document.text, add_special_tokens=False)
    ids = np.array(encoding.ids, dtype=np.int32)
    if use_ids and document.ids is not None and not np.array_equal(ids, document.ids):
        ids = document.ids.astype(np.int32)
        starts = np.arange(len(ids)) * document.utf8_bytes // max(1, len(ids))  # about: the text does not tell
    else:
        starts = _starts(document.text, encoding)
    decoded = tokenizer.decode(ids.tolist(), skip_special_tokens=False)
    is_exact = decoded == document.text and len(document.text.encode()) == document.utf8_bytes
    return ids, np.searchsorted(starts, POSITION_EDGES), is_exact


def _starts(text: str, encoding: Encoding) -> np.ndarray:
    """The byte of the text at which each token begins; behind the last of POSITION_EDGES just that edge."""
    last = POSITION_EDGES[-1]
    n_tokens = len(encoding.ids)
    # A token stands for a byte at least, and those of one character count as beginning together.
    encoding.truncate(min(n_tokens, last + 4))
    places = np.cumsum([0, *(len(character.encode()) for character in text[:last])])  # (characters + 1,)
    starts = places[np.minimum([start for start, _ in encoding.offsets], len(places) - 1).astype(np.int64)]
    return np.concatenate([np.maximum.accumulate(starts), np.full(n_tokens - len(starts), last)])
