"""Packed windows: which tokens are read and predicted, in which order, and what attention may look back at."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_corpus import END, make_corpus

from config import GPT2Config
from corpus.shards import Corpus, ShardWriter, TokenSplit, open_corpus
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from training.device import Device, open_device
from training.language_models.language_modeling import Windows, evaluate_windows, spread, window_order

pytestmark = pytest.mark.usefixtures("one_thread")

CONTEXT = 16


@pytest.fixture(scope="module")
def corpus(tiny_corpus: Path) -> Corpus:
    return open_corpus(tiny_corpus)


@pytest.fixture
def device(as_new_process: None) -> Device:
    return open_device(use_gpu=False, precision="fp32")


@pytest.fixture
def model() -> GPT2LanguageModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2, attn_pdrop=0.0)
    gpt2 = GPT2Model(config)
    with torch.no_grad():
        for parameter in gpt2.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return GPT2LanguageModel(gpt2).eval()


def split_of(tokens: list[int], folder: Path) -> TokenSplit:
    writer = ShardWriter(folder, "train", "<u2", 10_000)
    writer.add(np.array(tokens), np.array([len(tokens)]), np.array([len(tokens)]), source=0)
    about = writer.close()
    return TokenSplit(folder, "<u2", about["n_tokens"], 1, about["utf8_bytes"], about["shards"])


# ---------------------------------------------------------------------------------------------------------------------
# What is read and predicted
# ---------------------------------------------------------------------------------------------------------------------


def test_a_batch_is_windows_whose_targets_are_one_token_ahead(corpus: Corpus) -> None:
    windows = Windows(corpus.splits["train"], CONTEXT, END)
    input_ids, targets, mask = windows.batch([3, 0, 7])
    assert input_ids.shape == targets.shape == (3, CONTEXT) and mask is None
    assert input_ids.dtype == targets.dtype == torch.int64
    stream = corpus.splits["train"].read(0, corpus.splits["train"].n_tokens)
    for row, index in enumerate([3, 0, 7]):
        start = index * CONTEXT
        assert input_ids[row].tolist() == stream[start : start + CONTEXT].tolist()
        assert targets[row].tolist() == stream[start + 1 : start + CONTEXT + 1].tolist()


def test_neighbours_share_one_token(corpus: Corpus) -> None:
    windows = Windows(corpus.splits["train"], CONTEXT, END)
    input_ids, targets, _ = windows.batch([5, 6])
    assert targets[0, -1] == input_ids[1, 0]


@pytest.mark.parametrize("n_tokens", [16, 17, 18, 33, 40, 49])
@pytest.mark.parametrize("cross_documents", [True, False])
def test_every_token_but_the_first_is_a_target_once(tmp_path: Path, n_tokens: int, cross_documents: bool) -> None:
    """But for the last ones, if they fill no window."""
    tokens = [END if i % 9 == 8 else i + 1 for i in range(n_tokens)]
    windows = Windows(split_of(tokens, tmp_path), CONTEXT, END, cross_documents)
    assert len(windows) == (n_tokens - 1) // CONTEXT
    if not len(windows):
        return
    _, targets, mask = windows.batch(range(len(windows)))
    seen = targets if mask is None else targets[mask == 1]
    assert Counter(seen.flatten().tolist()) == Counter(tokens[1 : 1 + len(windows) * CONTEXT])


def test_windows_reach_across_shards(corpus: Corpus) -> None:
    split = corpus.splits["train"]
    assert len(split.shards) > 3
    windows = Windows(split, CONTEXT, END)
    input_ids, _, _ = windows.batch(range(len(windows)))
    assert input_ids.flatten().tolist() == split.read(0, len(windows) * CONTEXT).tolist()


def test_parts_of_documents_begin_with_an_end_token(corpus: Corpus) -> None:
    windows = Windows(corpus.splits["train"], CONTEXT, END, cross_documents=False)
    indices = list(range(40))
    input_ids, targets, mask = windows.batch(indices)
    assert mask is not None and input_ids.shape == targets.shape == mask.shape and len(input_ids) > 40
    plain_ids, plain_targets, _ = Windows(corpus.splits["train"], CONTEXT, END).batch(indices)
    assert input_ids[mask == 1].tolist() == plain_ids.flatten().tolist()  # nothing is lost, nothing is twice
    assert targets[mask == 1].tolist() == plain_targets.flatten().tolist()
    for ids, is_real in zip(input_ids, mask, strict=True):
        length = int(is_real.sum())
        assert is_real[:length].all()  # padded on the right
        assert END not in ids[1:length].tolist()


def test_what_attention_may_look_back_at(tmp_path: Path, model: GPT2LanguageModel) -> None:
    """Two documents in a window, and the first one's tokens change."""
    second = [END, 50, 51, 52, 53, 54, 55, 56]
    losses = {}
    for name, first in (("one", [1, 2, 3, 4, 5, 6, 7, 8, 9]), ("other", [11, 12, 13, 14, 15, 16, 17, 18, 19])):
        folder = tmp_path / name
        folder.mkdir()
        split = split_of(first + second, folder)
        for cross_documents in (True, False):
            ids, targets, mask = Windows(split, CONTEXT, END, cross_documents).batch([0])
            found, _ = model.token_losses(ids, targets, mask)
            losses[name, cross_documents] = found[0, 9:] if cross_documents else found[1, :7]
    torch.testing.assert_close(losses["one", False], losses["other", False], rtol=0, atol=0)
    assert not torch.allclose(losses["one", True], losses["other", True], atol=1e-3)

    ids = torch.tensor([second[:-1]])  # as if the document stood alone
    alone, _ = model.token_losses(ids, torch.tensor([second[1:]]))
    torch.testing.assert_close(losses["one", False], alone[0], rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# In which order
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_epoch", [1, 7, 10, 30, 64])
def test_every_pass_covers_every_window_once(per_epoch: int) -> None:
    n_windows, n_epochs = 30, 130 // per_epoch + 1
    order = [i for epoch in range(1, n_epochs + 1) for i in window_order(7, epoch, per_epoch, n_windows)]
    assert len(order) == n_epochs * per_epoch
    passes = [order[start : start + n_windows] for start in range(0, len(order) - n_windows + 1, n_windows)]
    assert len(passes) >= 4 and all(sorted(one) == list(range(n_windows)) for one in passes)
    assert len({tuple(one) for one in passes}) == len(passes)


def test_epochs_are_slices_of_the_same_passes() -> None:
    def stream(per_epoch: int) -> list[int]:
        return [i for epoch in range(1, 120 // per_epoch + 1) for i in window_order(7, epoch, per_epoch, 30)]

    assert stream(10) == stream(40) == stream(120)


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {(seed, epoch): window_order(seed, epoch, 20, 30) for seed in (1, 2) for epoch in (1, 2)}
    torch.rand(3)  # the global generator plays no part
    assert orders[1, 1] == window_order(1, 1, 20, 30)
    assert len({tuple(order) for order in orders.values()}) == 4


def test_spread() -> None:
    assert spread(10, 5) == [0, 2, 4, 6, 8]
    assert spread(7, 3) == [0, 2, 4]
    assert spread(3, 8) == [0, 1, 2]
    assert spread(5, 1) == [0]


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation on windows
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cross_documents", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_evaluation_is_the_mean_over_the_chosen_windows_tokens(
    corpus: Corpus, model: GPT2LanguageModel, device: Device, batch_size: int, cross_documents: bool
) -> None:
    windows = Windows(corpus.splits["validation"], CONTEXT, END, cross_documents)
    chosen = spread(len(windows), 8)
    found = evaluate_windows(model, windows, chosen, batch_size, device, lambda: None)
    ids, targets, mask = windows.batch(chosen)
    with torch.no_grad():
        nats = float(model(ids, targets, mask))
    _, hits = model.token_losses(ids, targets, mask)
    assert found["n"] == 8 * CONTEXT
    assert found["loss"] == pytest.approx(nats / (8 * CONTEXT), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert found["accuracy"] == pytest.approx(float(hits.sum()) / (8 * CONTEXT))


def test_a_token_that_is_certain_counts_too(tmp_path: Path, device: Device) -> None:
    """Its loss is 0 exactly, as a padded position's is."""

    class Certain(GPT2LanguageModel):
        def token_losses(self, input_ids, targets, attention_mask=None):  # type: ignore[no-untyped-def]
            certain = targets % 2 == 0
            return torch.where(certain, 0.0, 2.0), certain

    model = Certain(GPT2Model(GPT2Config(vocab_size=300, n_positions=CONTEXT, n_embd=4, n_layer=1, n_head=1)))
    windows = Windows(split_of(list(range(1, 34)), tmp_path), CONTEXT, END)
    found = evaluate_windows(model, windows, [0, 1], 2, device, lambda: None)
    assert found == {"loss": 1.0, "perplexity": pytest.approx(math.e), "accuracy": 0.5, "n": 32}


def test_an_evaluation_can_be_stopped(corpus: Corpus, model: GPT2LanguageModel, device: Device) -> None:
    class Stop(BaseException):
        pass

    def check() -> None:
        raise Stop

    with pytest.raises(Stop):
        evaluate_windows(model, Windows(corpus.splits["validation"], CONTEXT, END), [0], 1, device, check)


def test_a_corpus_can_be_made_with_other_shards(tmp_path: Path, corpus: Corpus) -> None:
    """The shards' size decides nothing."""
    other = open_corpus(make_corpus(tmp_path / "other", shard_tokens=100_000))
    assert len(other.splits["train"].shards) == 1
    both = [Windows(one.splits["train"], CONTEXT, END).batch([1, 60, 200]) for one in (corpus, other)]
    assert torch.equal(both[0][0], both[1][0]) and torch.equal(both[0][1], both[1][1])
