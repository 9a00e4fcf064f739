"""Whole documents scored in overlapping windows: which token after what, and the numbers that come of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from training.device import Device, open_device
from training.language_models.language_modeling import (
    DocumentScores,
    WindowOrder,
    document_pieces,
    score_documents,
    token_scores,
)

END = 60
pytestmark = pytest.mark.usefixtures("as_new_process")


@pytest.fixture
def device() -> Device:
    return open_device(use_gpu=False, precision="fp32")


@pytest.fixture
def reference(make_reference: Callable[..., Any]) -> Any:
    return make_reference()


@pytest.fixture
def model(tmp_path: Any, reference: Any) -> GPT2LanguageModel:
    reference.save_pretrained(tmp_path / "tiny")
    return GPT2LanguageModel(GPT2Model.from_pretrained(tmp_path / "tiny")).eval()


def random_documents(*lengths: int) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.integers(0, END, length) for length in lengths]


def scored(model: GPT2LanguageModel, documents: list[np.ndarray], device: Device, context: int, stride: int,
           **options: Any) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    return list(token_scores(model, documents, END, context, stride, device, lambda: None, **options))


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 9, 15, 16, 17, 40, 41])
def test_every_token_is_scored_once_after_enough_others(length: int) -> None:
    tokens = np.arange(100, 100 + length)
    for context in (1, 2, 5, 8):
        for stride in range(1, context + 1):
            found = []
            for piece in document_pieces(tokens, END, context, stride):
                assert len(piece.tokens) - 1 <= context
                found += piece.tokens[1 + piece.first :].tolist()
                for place in range(piece.first, len(piece.tokens) - 1):
                    seen = place + 1  # tokens that the prediction is made from
                    target = int(piece.tokens[place + 1]) - 100
                    assert seen >= min(target + 1, context - stride + 1)
            assert found == tokens.tolist(), (context, stride)


def test_a_stride_that_would_leave_tokens_out_is_refused() -> None:
    with pytest.raises(ValueError, match="stride 9"):
        document_pieces(np.arange(20), END, context=8, stride=9)


def test_stride_of_a_window_reads_no_token_twice(model: GPT2LanguageModel, device: Device) -> None:
    (document,) = random_documents(37)
    sequence = [END, *document]
    parts = []
    for start in range(0, 37, 10):
        window = torch.tensor([sequence[start : start + 11]])
        parts.append(model.token_losses(window[:, :-1], window[:, 1:])[0][0].numpy())
    ((losses, _),) = scored(model, [document], device, context=10, stride=10)
    np.testing.assert_allclose(losses, np.concatenate(parts), atol=1e-5)


def test_short_document_has_the_loss_of_transformers(model: GPT2LanguageModel, device: Device, reference: Any) -> None:
    (document,) = random_documents(39)
    ids = torch.tensor([[END, *document]])
    expected = reference(input_ids=ids, labels=ids).loss.item()
    scores = score_documents(model, [(document, 50)], END, 40, 20, device, lambda: None)
    assert scores.metrics()["loss"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("stride", [1, 7, 20, 40])
def test_long_document_has_the_loss_of_transformers(
    model: GPT2LanguageModel, device: Device, reference: Any, stride: int
) -> None:
    (document,) = random_documents(130)
    ids = torch.tensor([[END, *document]])
    nats, hits, reached = 0.0, 0, 1
    for start in range(0, 130, stride):
        stop = min(start + 41, 131)  # the last token of a window is only predicted
        with torch.no_grad():
            logits = reference(input_ids=ids[:, start : stop - 1]).logits[0]
        for place in range(max(reached, start + 1), stop):
            row = logits[place - start - 1]
            nats -= row.log_softmax(dim=-1)[ids[0, place]].item()
            hits += int(row.argmax() == ids[0, place])
        reached = stop
        if stop == 131:
            break
    scores = score_documents(model, [(document, 130)], END, 40, stride, device, lambda: None)
    assert scores.metrics()["loss"] == pytest.approx(nats / 130, abs=1e-4)
    assert scores.hits == hits


def test_documents_together_are_as_one_by_one(model: GPT2LanguageModel, device: Device) -> None:
    documents = random_documents(3, 90, 1, 0, 41, 17, *range(2, 90))  # more than are read together
    alone = [scored(model, [document], device, 24, 9)[0] for document in documents]
    progress: list[int] = []
    together = scored(model, documents, device, 24, 9, batch_tokens=100, advance=progress.append)
    assert len(together) == len(documents)
    for document, (losses, hits), (expected_losses, expected_hits) in zip(documents, together, alone, strict=True):
        assert losses.shape == hits.shape == document.shape
        np.testing.assert_allclose(losses, expected_losses, atol=1e-5)
        np.testing.assert_array_equal(hits, expected_hits)
    assert sum(progress) == sum(map(len, documents))


def test_sums_and_metrics(model: GPT2LanguageModel, device: Device) -> None:
    documents = random_documents(30, 50)
    scores = score_documents(model, zip(documents, (100, 150), strict=True), END, 40, 20, device, lambda: None)
    nats = sum(float(losses.sum()) for losses, _ in scored(model, documents, device, 40, 20))
    assert scores.nats == pytest.approx(nats, rel=1e-6)
    assert "words" not in scores.metrics() and "word_perplexity" not in scores.metrics()
    metrics = scores.metrics(words=10)
    assert (metrics["tokens"], metrics["words"], metrics["utf8_bytes"], metrics["documents"]) == (80, 10, 250, 2)
    assert metrics["loss"] == pytest.approx(nats / 80)
    assert metrics["perplexity"] == pytest.approx(math.exp(nats / 80))
    assert metrics["word_perplexity"] == pytest.approx(math.exp(nats / 10), rel=1e-4)
    assert metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / 250)
    assert metrics["accuracy"] == scores.hits / 80


def test_perplexity_of_texts_without_spaces_does_not_overflow() -> None:
    metrics = DocumentScores(nats=5000.0, tokens=1000, utf8_bytes=3000, hits=0, documents=1).metrics(words=1)
    assert metrics["word_perplexity"] == math.inf


def test_losses_only_where_a_target_counts(model: GPT2LanguageModel) -> None:
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    targets = torch.tensor([[2, 3, 4, 5], [6, 7, 0, 0]])
    losses, hits = model.token_losses(ids, targets, mask)
    some = torch.tensor([[-100, -100, 4, 5], [-100, 7, 0, 0]])
    some_losses, some_hits = model.token_losses(ids, some, mask)
    counted = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0]], dtype=torch.bool)
    torch.testing.assert_close(some_losses, losses * counted)
    assert torch.equal(some_hits, hits & counted)


def test_windows_are_ordered_as_they_are_asked_for() -> None:
    """Parts of an epoch are those of the whole, across passes; an epoch without end costs nothing."""
    parts = [WindowOrder(3, epoch, 10, 7)[start : start + 4] for epoch in (1, 2, 3) for start in (0, 4, 8)]
    windows = [window for part in parts for window in part]
    assert [len(part) for part in parts] == [4, 4, 2] * 3
    for start in (0, 7, 14, 21):
        assert sorted(windows[start : start + 7]) == list(range(7))
    endless = WindowOrder(3, 1, 10**18, 7)
    assert endless[0:30] == windows and len(endless[10**17 : 10**17 + 5]) == 5


def test_check_is_called_and_can_stop(model: GPT2LanguageModel, device: Device) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(token_scores(model, random_documents(10), END, 8, 4, device, stop))
