"""Which documents a corpus holds, how often, and in which split: decided by the text of each document alone.

A digest of its text is all that is kept of a document, so that a corpus of any size takes about 20 bytes of memory for
each: 8 for its digest, 8 for its place in the sorted order and 4 more while that is found, 1 for what becomes of it.
Because splits and samples are functions of the digest, they stay as they are when inputs are added, moved or built
again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import UserError
from corpus.extraction import read_part
from corpus.files import Damage, SourceFile
from corpus.parallel import run_tasks
from storage import replacing, write_text

if TYPE_CHECKING:
    import numpy as np
    from tqdm import tqdm

RUN_WORDS = 13  # the length of GPT-3's overlap filter (Brown et al. 2020, appendix C)
RECORD_FIELDS = [("digest", "<u8"), ("utf8_bytes", "<u8"), ("evaluation_file", "<i4")]  # -1: shares no run with any
EXCLUDED, DUPLICATE, TRAIN, VALIDATION, TEST = range(5)  # what becomes of a document
SPLIT_CODES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
_WORDS = re.compile(r"\w+")
_TITLE_CHARS = 80
_STRETCH = 1 << 14  # documents that are compared at once
_WEIGHT_SALT, _SAMPLE_SALT = 0x5851F42D4C957F2D, 0x14057B7EF767814F


@dataclass(frozen=True)
class Runs:
    """The runs of 13 words of evaluation files, as hashes that hold within one process.

    Nothing confirms that two runs of the same hash are the same: of 64 bits, 10^9 runs of documents and 10^6 of
    evaluation files agree by chance once in 18,000 such corpora.
    """

    hashes: np.ndarray  # sorted, (n,) int64
    files: np.ndarray  # the first file that holds each, (n,) int32


@dataclass(frozen=True)
class Part:
    """One file of extracted documents."""

    path: Path
    source: int  # the number of its source, in the order of the inputs
    records: Path  # where what is known of its documents is kept

    @property
    def excluded(self) -> Path:
        return self.records.with_suffix(".excluded.tsv")


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation texts
# ---------------------------------------------------------------------------------------------------------------------


def evaluation_runs(files: list[Path]) -> Runs:
    """Every run of 13 words of the evaluation files, with the number of the file that it is in.

    Of JSON and JSON lines each text is taken by itself, of any other file all that it says. What is not UTF-8 is
    replaced.

    Raises:
        UserError: a file can't be read.
    """
    import numpy as np

    found = [np.zeros(0, dtype=np.int64)]
    problems = []
    for path in files:
        try:
            hashes = (hash(run) for text in _evaluation_texts(path) for run in word_runs(text))
            found.append(np.unique(np.fromiter(hashes, np.int64)))
        except UserError as error:
            problems += error.problems
        except Damage as damage:
            problems.append(f"{path}: {damage.reason}, at byte {damage.position}; fetch it again")
    if problems:
        raise UserError(problems)
    numbers = np.repeat(np.arange(-1, len(files), dtype=np.int32), [len(hashes) for hashes in found])
    runs, first = np.unique(np.concatenate(found), return_index=True)
    return Runs(runs, numbers[first])


def word_runs(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORDS.findall(text.lower())
    return zip(*(islice(words, start, None) for start in range(RUN_WORDS)), strict=False)


def _evaluation_texts(path: Path) -> list[str]:
    with SourceFile(path) as file:
        whole = b"".join(file.chunks()).decode("utf-8", errors="replace")
    for pieces in ([whole], [line for line in whole.splitlines() if line.strip()]):
        try:
            return [text for piece in pieces if piece.lstrip()[:1] in "{[" for text in _strings(json.loads(piece))] or [
                whole
            ]
        except (ValueError, RecursionError):
            continue
    return [whole]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


# ---------------------------------------------------------------------------------------------------------------------
# What is known of each document
# ---------------------------------------------------------------------------------------------------------------------


def describe(parts: list[Part], exclude: list[Path], workers: int, check: Callable[[], None], bar: tqdm) -> None:
    """Writes the records of every part that has none yet: digests, lengths, overlaps with evaluation texts."""
    for part in parts:
        part.records.parent.mkdir(parents=True, exist_ok=True)
    todo = []
    for part in parts:
        if part.records.exists():
            bar.update(part.path.stat().st_size)
        else:
            todo.append(part)
    if not todo:  # the evaluation files need not be there any more
        return
    for size in run_tasks(_describe_part, todo, _evaluation, exclude, min(workers, len(todo)), check):
        bar.update(size)


def _evaluation(exclude: list[Path]) -> tuple[Runs, list[str]]:
    return evaluation_runs(exclude), [path.name for path in exclude]


def _describe_part(evaluation: tuple[Runs, list[str]], part: Part) -> int:
    import numpy as np

    runs, names = evaluation
    records, excluded = [], []
    for document in read_part(part.path):
        raw = document["text"].encode()
        number = matching_file(document["text"], runs)
        records.append((digest(raw), len(raw), number))
        if number >= 0:
            title = " ".join((document.get("title") or document["text"][:_TITLE_CHARS]).split())
            excluded.append(f"{title}\t{names[number]}\n")
    write_text(part.excluded, "".join(excluded))
    with replacing(part.records) as file:
        np.save(file, np.array(records, dtype=RECORD_FIELDS))
    return part.path.stat().st_size


def digest(raw: bytes) -> int:
    """64 bits of BLAKE2b of a document's text."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def matching_file(text: str, runs: Runs) -> int:
    """The number of an evaluation file that the text shares a run of 13 words with, or -1."""
    import numpy as np

    if not len(runs.hashes):
        return -1
    hashes = np.fromiter(map(hash, word_runs(text)), np.int64)
    places = np.minimum(np.searchsorted(runs.hashes, hashes), len(runs.hashes) - 1)
    found = places[runs.hashes[places] == hashes]
    return int(runs.files[found[0]]) if len(found) else -1


# ---------------------------------------------------------------------------------------------------------------------
# What becomes of each document
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """What becomes of every document, part by part."""

    parts: list[Part]
    weights: list[float]
    outcomes: list[np.ndarray]  # for each part EXCLUDED, DUPLICATE, TRAIN, ... of each document, uint8
    counts: list[dict[str, int]]  # for each source
    train_bytes: float = field(default=0.0)  # of training text, each document as often as its weight says

    def copies(self, number: int) -> np.ndarray:
        """How often each document of a part occurs in its split, (documents,) int64; 0 where it is left out."""
        import numpy as np

        part, outcome = self.parts[number], self.outcomes[number]
        weight = self.weights[part.source]
        times = np.full(len(outcome), int(weight))
        times += uniform(np.load(part.records)["digest"], _WEIGHT_SALT) < weight - int(weight)
        return np.where(outcome == TRAIN, times, outcome > TRAIN).astype(np.int64)

    def sample(self, number: int, sample_bytes: float) -> np.ndarray:
        """Which documents of a part belong to a sample of so many bytes of the training text, (documents,) bool."""
        import numpy as np

        part = self.parts[number]
        share = sample_bytes / max(self.train_bytes, 1.0) * self.weights[part.source]
        chosen = uniform(np.load(part.records)["digest"], _SAMPLE_SALT) < share
        return chosen & (self.outcomes[number] == TRAIN)


def select(parts: list[Part], weights: list[float], validation_share: float, test_share: float) -> Selection:
    """Decides about every described document. Of several that are equal, the first stays.

    Returns:
        The selection. Its counts per source: excluded, duplicates, train, validation, test.
    """
    import numpy as np

    lengths = [len(np.load(part.records, mmap_mode="r")) for part in parts]
    digests = np.empty(sum(lengths), dtype=np.uint64)
    outcome = np.empty(sum(lengths), dtype=np.uint8)
    stops = np.cumsum(lengths, dtype=np.int64).tolist()
    train_bytes = 0.0
    for part, length, stop in zip(parts, lengths, stops, strict=True):
        records = np.load(part.records)
        here = slice(stop - length, stop)
        digests[here] = records["digest"]
        share = uniform(records["digest"])
        split = np.where(share < test_share, TEST, np.where(share < test_share + validation_share, VALIDATION, TRAIN))
        outcome[here] = np.where(records["evaluation_file"] >= 0, EXCLUDED, split)
        in_train = outcome[here] == TRAIN
        train_bytes += weights[part.source] * float(records["utf8_bytes"][in_train].sum())
    order = np.argsort(digests, kind="stable")
    for start in range(0, len(order) - 1, _STRETCH):
        places = order[start : start + _STRETCH + 1]
        again = places[1:][digests[places[1:]] == digests[places[:-1]]]
        outcome[again[outcome[again] != EXCLUDED]] = DUPLICATE

    outcomes = [outcome[stop - length : stop] for length, stop in zip(lengths, stops, strict=True)]
    names = {"excluded": EXCLUDED, "duplicates": DUPLICATE} | SPLIT_CODES
    counts = [dict.fromkeys(names, 0) for _ in weights]
    for part, codes in zip(parts, outcomes, strict=True):
        for name, code in names.items():
            counts[part.source][name] += int((codes == code).sum())
    return Selection(parts, weights, outcomes, counts, train_bytes)


def uniform(digests: np.ndarray, salt: int = 0) -> np.ndarray:
    """Numbers in [0, 1) that depend on the digests alone, and for each salt in another way (SplitMix64)."""
    import numpy as np

    x = digests + np.uint64(salt)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) / 2**53
