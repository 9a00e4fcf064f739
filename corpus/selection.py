"""Which documents a corpus holds, how often, and in which split: decided by the text of each document alone.

A digest of its text is all that is kept of a document, so that a corpus of any size takes less than 16 bytes of memory
for each: 8 for its digest, 4 at most for those that occur several times, 1 for what becomes of it. Because splits and
samples are functions of the digest (of a text that was cut, of the whole one's name), they stay as they are when inputs
are added, moved or built again.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
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
# evaluation_file: -1 if it shares no run with any. split_by: its digest, or for all pieces of a cut text the same.
RECORD_FIELDS = [("digest", "<u8"), ("split_by", "<u8"), ("utf8_bytes", "<u8"), ("evaluation_file", "<i4")]
EXCLUDED, DUPLICATE, TRAIN, VALIDATION, TEST = range(5)  # what becomes of a document
SPLIT_CODES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
_WORDS = re.compile(r"[^\W_]+")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")  # soft hyphen, zero width
_TREEBANK = re.compile(r"(?<!\s)\s++(?=n['’]t\b)|-[lr]rb-")  # SST writes: does n't, and -LRB- for a bracket
# Thai, Lao, Burmese, Khmer, kana and Chinese characters: no spaces between words.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_NOTE_CHARS = 1 << 20  # of an evaluation file that its writing is told from
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

    Raises:
        UserError: files can't be read; every such file is named.
    """
    import numpy as np

    found = [np.zeros(0, dtype=np.int64)]
    problems = []
    for path in files:
        try:
            hashes = (hash(run) for text in evaluation_texts(path) for run in word_runs(text))
            found.append(np.unique(np.fromiter(hashes, np.int64)))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    numbers = np.repeat(np.arange(-1, len(files), dtype=np.int32), [len(hashes) for hashes in found])
    runs, first = np.unique(np.concatenate(found), return_index=True)
    return Runs(runs, numbers[first])


def evaluation_note(path: Path) -> str:
    """Why an evaluation file leaves out little or nothing; empty where it does what is expected of it.

    Raises:
        UserError: it can't be read.
    """
    texts = evaluation_texts(path)
    beginning = "\n".join(texts)[:_NOTE_CHARS]
    unspaced = sum(map(len, _UNSPACED.findall(beginning)))
    if unspaced > sum(map(len, _WORDS.findall(beginning))) / 2:
        return f"warning: --exclude {path}: has no spaces between its words; documents that share them are hardly found"
    if not any(next(word_runs(text), None) for text in texts):
        return f"note: --exclude {path}: none of its texts has {RUN_WORDS} words; it leaves out nothing"
    return ""


def word_runs(text: str) -> Iterator[tuple[str, ...]]:
    """Every 13 words in a row, without what editions of a text differ in: case, punctuation, the bytes of an accent."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    words = _WORDS.findall(_TREEBANK.sub("", text.lower()))
    return zip(*(islice(words, start, None) for start in range(RUN_WORDS)), strict=False)


def evaluation_texts(path: Path) -> list[str]:
    """The texts of an evaluation file: of JSON and JSON lines every string, of any other file all that it says.

    Raises:
        UserError: it can't be read, or is not UTF-8.
    """
    try:
        with SourceFile(path) as file:
            raw = b"".join(file.chunks())
    except Damage as damage:
        raise UserError(f"{path}: {damage.reason}, at byte {damage.position}; fetch it again") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: is UTF-16, not UTF-8; convert it first (iconv -f UTF-16 -t UTF-8)")
    try:
        whole = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: is not UTF-8 (byte 0x{raw[error.start]:02x} in line {line}); convert it first "
            "(iconv -t UTF-8 -f and its encoding, such as CP949)"
        ) from None
    if "\0" in whole:
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        raise UserError(f"{path}: is binary data, not text (a NUL in line {line}); give plain text, JSON or JSON lines")
    texts = _json_texts(whole)
    if not texts:
        lines = ((line, _json_texts(line)) for line in whole.split("\n"))
        for is_json, group in groupby(lines, key=lambda entry: bool(entry[1])):
            if is_json:
                texts += [text for _, found in group for text in found]
            else:
                texts.append("\n".join(line for line, _ in group))
    return texts


def _json_texts(piece: str) -> list[str]:
    """The texts of a JSON object or array; none where it is not JSON."""
    if piece.lstrip()[:1] not in ("{", "["):
        return []
    try:
        return list(_strings(json.loads(piece)))
    except (ValueError, RecursionError):
        return []


def _strings(value: Any) -> Iterator[str]:
    """Every string; those of one list as one text, whose words they may be."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        items = list(value.values() if isinstance(value, dict) else value)
        if isinstance(value, list) and (texts := [item for item in items if isinstance(item, str)]):
            yield " ".join(texts)
            items = [item for item in items if not isinstance(item, str)]
        for item in items:
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
        whole = document.get("piece_of")  # which too long text it was cut from
        records.append((digest(raw), digest(whole.encode() if whole else raw), len(raw), number))
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
    weights: list[float]  # of each source
    outcomes: list[np.ndarray]  # for each part EXCLUDED, DUPLICATE, TRAIN, ... of each document, uint8
    counts: list[dict[str, int]]  # for each source
    repeated: np.ndarray  # digests of documents that occur several times, sorted, (n,) uint64
    repeated_weights: np.ndarray  # the largest weight of the sources of each, (n,) float64

    @cached_property
    def train_bytes(self) -> float:
        """Of training text, each document as often as its weight says."""
        import numpy as np

        total = 0.0
        for number, outcome in enumerate(self.outcomes):
            records = np.load(self.parts[number].records)
            weights = self.document_weights(number, records["digest"])
            total += float((weights * records["utf8_bytes"])[outcome == TRAIN].sum())
        return total

    def copies(self, number: int) -> np.ndarray:
        """How often each document of a part occurs in its split, (documents,) int64; 0 where it is left out."""
        import numpy as np

        outcome = self.outcomes[number]
        digests = np.load(self.parts[number].records)["digest"]
        weights = self.document_weights(number, digests)
        times = np.floor(weights)
        times += uniform(digests, _WEIGHT_SALT) < weights - times
        return np.where(outcome == TRAIN, times, outcome > TRAIN).astype(np.int64)

    def sample(self, number: int, sample_bytes: float) -> np.ndarray:
        """Which documents of a part belong to a sample of so many bytes of the training text, (documents,) bool.

        Over all parts it is never empty: the first document that a larger sample would hold belongs to any.
        """
        ranks = self._sample_ranks(number)
        chosen = (ranks < sample_bytes / max(self.train_bytes, 1.0)) | (ranks == self._first_rank)
        return chosen & (self.outcomes[number] == TRAIN)

    @cached_property
    def _first_rank(self) -> float:
        ranks = (self._sample_ranks(number)[outcome == TRAIN] for number, outcome in enumerate(self.outcomes))
        return min((float(found.min()) for found in ranks if len(found)), default=0.0)

    def _sample_ranks(self, number: int) -> np.ndarray:
        """In which order a growing sample takes up the documents of a part, (documents,) float64."""
        import numpy as np

        digests = np.load(self.parts[number].records)["digest"]
        return uniform(digests, _SAMPLE_SALT) / self.document_weights(number, digests)

    def document_weights(self, number: int, digests: np.ndarray) -> np.ndarray:
        """The weight of each document of a part: the largest of the sources that hold it, (documents,) float64."""
        import numpy as np

        weights = np.full(len(digests), self.weights[self.parts[number].source], dtype=np.float64)
        where, places = _find(digests, self.repeated)
        weights[where] = self.repeated_weights[places]
        return weights

    @property
    def is_one_document(self) -> bool:
        """Whether all is one document, or the pieces of one: these are in the same split."""
        import numpy as np

        names = [np.unique(np.load(part.records)["split_by"]) for part in self.parts]
        return bool(names) and len(np.unique(np.concatenate(names))) == 1

    @property
    def has_training_text(self) -> bool:
        """Whether any document is left to train on: small weights may leave out every one."""
        return any(
            bool((self.copies(number)[outcome == TRAIN] > 0).any()) for number, outcome in enumerate(self.outcomes)
        )


def select(parts: list[Part], weights: list[float], validation_share: float, test_share: float) -> Selection:
    """Decides about every described document. Of several that are equal, the first stays, with their largest weight.

    Returns:
        The selection. Its counts per source: excluded, duplicates, train, validation, test.
    """
    import numpy as np

    repeated = _repeated_digests(parts)
    seen = np.zeros(len(repeated), dtype=bool)
    largest = np.zeros(len(repeated))
    outcomes = []
    for part in parts:
        records = np.load(part.records)
        share = uniform(records["split_by"])
        split = np.where(share < test_share, TEST, np.where(share < test_share + validation_share, VALIDATION, TRAIN))
        where, places = _find(records["digest"], repeated)
        again = seen[places]
        again[_later_ones(places)] = True
        split[where[again]] = DUPLICATE
        seen[places] = True
        largest[places] = np.maximum(largest[places], weights[part.source])
        outcomes.append(np.where(records["evaluation_file"] >= 0, EXCLUDED, split).astype(np.uint8))

    names = {"excluded": EXCLUDED, "duplicates": DUPLICATE} | SPLIT_CODES
    counts = [dict.fromkeys(names, 0) for _ in weights]
    for part, codes in zip(parts, outcomes, strict=True):
        for name, code in names.items():
            counts[part.source][name] += int((codes == code).sum())
    return Selection(parts, weights, outcomes, counts, repeated, largest)


def _repeated_digests(parts: list[Part]) -> np.ndarray:
    """The digests that several documents have, sorted, (n,) uint64."""
    import numpy as np

    lengths = [len(np.load(part.records, mmap_mode="r")) for part in parts]
    digests = np.empty(sum(lengths), dtype=np.uint64)
    stop = 0
    for part, length in zip(parts, lengths, strict=True):
        digests[stop : stop + length] = np.load(part.records)["digest"]
        stop += length
    digests.sort()
    count = 0  # they are gathered at the beginning of the same array, to save memory
    for start in range(0, len(digests) - 1, _STRETCH):
        stretch = digests[start : start + _STRETCH + 1]
        found = np.unique(stretch[1:][stretch[1:] == stretch[:-1]])
        digests[count : count + len(found)] = found
        count += len(found)
    return digests[:count].copy()


def _find(digests: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the digests are among the known ones, which are sorted, and where there."""
    import numpy as np

    if not len(known):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    places = np.minimum(np.searchsorted(known, digests), len(known) - 1)
    where = np.flatnonzero(known[places] == digests)
    return where, places[where]


def _later_ones(places: np.ndarray) -> np.ndarray:
    """A mask of the places that occurred before, (n,) bool."""
    import numpy as np

    later = np.ones(len(places), dtype=bool)
    later[np.unique(places, return_index=True)[1]] = False
    return later


def uniform(digests: np.ndarray, salt: int = 0) -> np.ndarray:
    """Numbers in [0, 1) that depend on the digests alone, and for each salt in another way (SplitMix64)."""
    import numpy as np

    x = digests + np.uint64(salt)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) / 2**53
