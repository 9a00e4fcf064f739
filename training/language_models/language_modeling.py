"""A language model's data: packed windows to train on, and whole documents to be measured on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from corpus.shards import TokenSplit
from datasets import collate
from models.language_model import GPT2LanguageModel
from modules.cross_entropy import IGNORED
from training.device import Device, derive_seed
from training.interrupt import Check

# ---------------------------------------------------------------------------------------------------------------------
# Training: windows of a fixed length, cut from the stream of documents
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Windows:
    """A split's token stream in windows of ``context`` predictions each; neighbours share one token.

    Attributes:
        split: the token stream; documents end with the end token.
        context: predictions per window.
        end_token_id: what separates documents.
        cross_documents: whether attention may look back into an earlier document of the same window.
    """

    split: TokenSplit
    context: int
    end_token_id: int
    cross_documents: bool = True

    def __len__(self) -> int:
        return max(0, (self.split.n_tokens - 1) // self.context)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor | None]:
        """input_ids, targets, attention_mask of some windows, each (rows, length).

        A row is a window, and the mask is None; without attention across documents a row is a window's part of one
        document, positions counted from its start, and the parts are padded on the right.
        """
        windows = [self.split.read(i * self.context, (i + 1) * self.context + 1) for i in indices]
        if self.cross_documents:
            tokens = torch.from_numpy(np.stack(windows))
            return tokens[:, :-1], tokens[:, 1:], None
        pairs = [pair for window in windows for pair in self._documents(window)]
        input_ids, mask = collate([inputs.tolist() for inputs, _ in pairs])
        targets, _ = collate([targets.tolist() for _, targets in pairs])
        return input_ids, targets, mask

    def _documents(self, window: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Cuts a window before every end token: a document is read after the end token of the one before it."""
        inputs, targets = window[:-1], window[1:]
        cuts = np.flatnonzero(inputs == self.end_token_id)
        starts = sorted({0, *cuts.tolist()})
        for start, stop in zip(starts, [*starts[1:], len(inputs)], strict=True):
            yield inputs[start:stop], targets[start:stop]


def window_order(
    seed: int, epoch: int, per_epoch: int, n_windows: int, start: int = 0, stop: int | None = None
) -> list[int]:
    """The windows of an epoch (counted from 1) of ``per_epoch`` windows: a slice of endless passes over all windows.

    Every pass has an order of its own, so each window is seen once before any is seen twice.

    Args:
        start, stop: the part of the epoch that is wanted.
    """
    before = (epoch - 1) * per_epoch
    place, end = before + start, before + (per_epoch if stop is None else stop)
    found: list[int] = []
    while place < end:
        number, first = divmod(place, n_windows)
        part = _order_of_pass(seed, number, n_windows)[first : first + end - place].tolist()
        found += part
        place += len(part)
    return found


@dataclass(frozen=True)
class WindowOrder:
    """The same, made where it is sliced: an epoch can be far longer than what will be read of it."""

    seed: int
    epoch: int
    per_epoch: int
    n_windows: int

    def __getitem__(self, places: slice) -> list[int]:
        start, stop, _ = places.indices(self.per_epoch)
        return window_order(self.seed, self.epoch, self.per_epoch, self.n_windows, start, stop)


@lru_cache(maxsize=2)  # an update can lie in two passes
def _order_of_pass(seed: int, number: int, n_windows: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed("windows", seed, number))
    return torch.randperm(n_windows, generator=generator)


def spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of the numbers below ``count``, evenly spread."""
    wanted = min(count, wanted)
    return [i * count // wanted for i in range(wanted)]


def evaluate_windows(
    model: GPT2LanguageModel, windows: Windows, indices: Sequence[int], batch_size: int, device: Device, check: Check
) -> dict[str, float]:
    """Loss (nats per token), perplexity and next-token accuracy on some windows; the processes share the work.

    Every window starts without context, so this is a little worse than what ``evaluate_lm.py`` measures.
    """
    batches = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    totals = torch.zeros(2, dtype=torch.float64)  # nats, hits
    for start in range(0, len(batches), device.world_size):
        check()
        # The processes of a sharded model must run it equally often: where no batch is left, one runs for nothing.
        mine = start + device.rank < len(batches)
        losses, hits = losses_of(model, windows.batch(batches[start + device.rank if mine else 0]), device)
        if mine:
            totals += torch.tensor([losses.double().sum(), hits.sum()], dtype=torch.float64)
    if device.world_size > 1:
        totals = device.accelerator.reduce(totals.to(device.accelerator.device), reduction="sum").cpu()
    nats, hit = totals.tolist()
    tokens = len(indices) * windows.context
    return {"loss": nats / tokens, "perplexity": _exp(nats / tokens), "accuracy": hit / tokens, "n": tokens}


def losses_of(
    model: GPT2LanguageModel, batch: tuple[Tensor, Tensor, Tensor | None], device: Device
) -> tuple[Tensor, Tensor]:
    """Each token's loss and whether it was the likeliest, on the CPU."""
    tensors = [None if tensor is None else tensor.to(device.accelerator.device) for tensor in batch]
    with device.accelerator.autocast():
        losses, hits = model.token_losses(*tensors)  # type: ignore[arg-type]
    return losses.cpu(), hits.cpu()


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation: whole documents, each read after an end token, in overlapping windows where they are long
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class DocumentScores:
    """What a model says of a text, summed over its documents.

    Attributes:
        nats: the sum of -log p over all tokens; the end token itself is not counted.
        tokens, utf8_bytes: how long the text is.
        hits: how often the likeliest next token was the right one.
        documents: their number.
    """

    nats: float = 0.0
    tokens: int = 0
    utf8_bytes: int = 0
    hits: int = 0
    documents: int = 0

    def metrics(self, words: int | None = None) -> dict[str, float]:
        """Loss and perplexity per token, bits per byte, next-token accuracy.

        Args:
            words: of the text, separated by white space; where they are known there is a perplexity per word, too.
        """
        found: dict[str, float] = {
            "loss": self.nats / self.tokens,
            "perplexity": _exp(self.nats / self.tokens),
            "bits_per_byte": self.nats / math.log(2) / self.utf8_bytes,
            "accuracy": self.hits / self.tokens,
        }
        if words:
            found["word_perplexity"] = _exp(self.nats / words)
        known = {} if words is None else {"words": words}
        return found | {"documents": self.documents, "tokens": self.tokens, **known, "utf8_bytes": self.utf8_bytes}


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


@dataclass(frozen=True)
class Piece:
    """A window of one document: the model reads ``tokens[:-1]`` and is measured from prediction ``first`` on."""

    tokens: np.ndarray
    first: int


def document_pieces(tokens: np.ndarray, end_token_id: int, context: int, stride: int) -> list[Piece]:
    """Cuts a document, read after an end token, into windows that score every token once.

    Windows begin ``stride`` tokens apart, and each scores what the one before did not reach: beyond the first window, a
    token is read after at least ``context - stride`` others. With ``stride`` = ``context`` no token is read twice.

    Raises:
        ValueError: a stride beyond the context, which would leave tokens out.
    """
    if not 1 <= stride <= context:
        raise ValueError(f"stride {stride} must be from 1 to the context of {context}")
    sequence = np.concatenate([[end_token_id], tokens])
    pieces: list[Piece] = []
    scored = 0
    for start in range(0, len(tokens), stride):
        if scored == len(tokens):
            break
        stop = min(start + context, len(tokens))
        pieces.append(Piece(sequence[start : stop + 1], scored - start))
        scored = stop
    return pieces


def token_scores(
    model: GPT2LanguageModel,
    documents: Iterable[np.ndarray],
    end_token_id: int,
    context: int,
    stride: int,
    device: Device,
    check: Check,
    batch_tokens: int = 8192,
    advance: Callable[[int], object] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields, for every document, each token's loss in nats (n,) and whether it was the likeliest (n,).

    Pieces of similar length, from up to 64 documents, are read together.

    Args:
        documents: their token ids, without an end token.
        check: called before every batch; raises where the user asked to stop.
        advance: called after every batch with the number of tokens that it scored.
    """
    gathered: list[tuple[np.ndarray, np.ndarray]] = []  # of the documents that are waiting for a result
    waiting: list[tuple[Piece, int, int]] = []  # with its document's place in ``gathered`` and its own in the document

    def read(batch: list[tuple[Piece, int, int]]) -> None:
        check()
        input_ids, mask = collate([piece.tokens[:-1].tolist() for piece, _, _ in batch])
        targets, _ = collate(
            [[IGNORED] * piece.first + piece.tokens[1 + piece.first :].tolist() for piece, _, _ in batch]
        )
        losses, hits = losses_of(model, (input_ids, targets, mask), device)
        counted = 0
        for row, (piece, document, start) in enumerate(batch):
            predicted = slice(piece.first, len(piece.tokens) - 1)
            count = predicted.stop - predicted.start
            gathered[document][0][start : start + count] = losses[row, predicted].numpy()
            gathered[document][1][start : start + count] = hits[row, predicted].numpy()
            counted += count
        if advance is not None:
            advance(counted)

    def flush() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        waiting.sort(key=lambda entry: len(entry[0].tokens))
        batch: list[tuple[Piece, int, int]] = []
        for entry in waiting:
            if batch and (len(batch) + 1) * len(entry[0].tokens) > batch_tokens:
                read(batch)
                batch = []
            batch.append(entry)
        if batch:
            read(batch)
        yield from gathered
        waiting.clear()
        gathered.clear()

    tokens_waiting = 0
    for tokens in documents:
        start = 0
        for piece in document_pieces(tokens, end_token_id, context, stride):
            waiting.append((piece, len(gathered), start))
            start += len(piece.tokens) - 1 - piece.first
            tokens_waiting += len(piece.tokens)
        gathered.append((np.zeros(len(tokens), dtype=np.float32), np.zeros(len(tokens), dtype=bool)))
        if len(gathered) == 64 or tokens_waiting > 64 * batch_tokens:
            yield from flush()
            tokens_waiting = 0
    yield from flush()


def score_documents(
    model: GPT2LanguageModel,
    documents: Iterable[tuple[np.ndarray, int]],
    end_token_id: int,
    context: int,
    stride: int,
    device: Device,
    check: Check,
    batch_tokens: int = 8192,
) -> DocumentScores:
    """Scores documents given as (token ids, UTF-8 bytes of the original text), as :func:`token_scores` does."""
    scores = DocumentScores()

    def counted() -> Iterator[np.ndarray]:
        for tokens, utf8_bytes in documents:
            scores.utf8_bytes += utf8_bytes
            yield tokens

    for losses, hits in token_scores(model, counted(), end_token_id, context, stride, device, check, batch_tokens):
        scores.documents += 1
        scores.tokens += len(losses)
        scores.nats += float(losses.sum(dtype=np.float64))
        scores.hits += int(hits.sum())
    return scores
