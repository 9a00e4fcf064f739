"""GPT-2 as a language model: the loss of transformers' own, whatever the padding, kept or computed twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from config import GPT2Config
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from modules.cross_entropy import IGNORED, linear_cross_entropy
from modules.layout import TokenLayout

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = {"vocab_size": 61, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 3}
LENGTHS = [13, 1, 30, 7]


def language_model(dropout: float = 0.0, **changes: Any) -> GPT2LanguageModel:
    torch.manual_seed(0)
    drops = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout)
    return GPT2LanguageModel(GPT2Model(GPT2Config(**(SHAPE | drops | changes))))


def texts() -> list[Tensor]:
    """Token ids, one more than are read of each."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(SHAPE["vocab_size"], (length + 1,), generator=generator) for length in LENGTHS]


def batch(side: str, fill: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids, targets and mask of :func:`texts`; padding may hold anything."""
    width = max(LENGTHS)
    ids, targets, mask = (torch.full((len(LENGTHS), width), value) for value in (fill, fill, 0))
    for row, text in enumerate(texts()):
        place = slice(0, len(text) - 1) if side == "right" else slice(width - len(text) + 1, width)
        ids[row, place], targets[row, place], mask[row, place] = text[:-1], text[1:], 1
    return ids, targets, mask


def test_the_loss_is_that_of_transformers(tmp_path: Path, make_reference: Callable[..., Any]) -> None:
    reference = make_reference()
    reference.save_pretrained(tmp_path)
    model = GPT2LanguageModel(GPT2Model.from_pretrained(tmp_path)).eval()
    expected, counted = 0.0, 0
    with torch.no_grad():
        for text in texts():
            logits = reference(input_ids=text[None, :-1]).logits[0]
            expected += float(torch.nn.functional.cross_entropy(logits, text[1:], reduction="sum"))
            counted += len(text) - 1
            whole = reference(input_ids=text[None], labels=text[None]).loss  # its own shift, and the mean
            assert float(model(text[None, :-1], text[None, 1:])) / (len(text) - 1) == pytest.approx(float(whole), 1e-5)
        for side in ("right", "left"):
            assert float(model(*batch(side))) / counted == pytest.approx(expected / counted, abs=1e-5)


def test_gradients_are_those_of_transformers(tmp_path: Path, make_reference: Callable[..., Any]) -> None:
    reference = make_reference()
    reference.save_pretrained(tmp_path)
    model = GPT2LanguageModel(GPT2Model.from_pretrained(tmp_path))
    text = texts()[2][None]
    (model(text[:, :-1], text[:, 1:]) / (text.shape[1] - 1)).backward()
    reference(input_ids=text, labels=text).loss.backward()
    for name, theirs in reference.transformer.named_parameters():
        ours = model.gpt2.get_parameter(name).grad
        assert ours is not None and theirs.grad is not None
        expected = theirs.grad.t() if ours.shape != theirs.grad.shape else theirs.grad
        if ours.shape[0] == ours.shape[-1] and ours.dim() == 2:  # Conv1D is transposed although square
            expected = theirs.grad.t()
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_padding_on_either_side_is_the_same_computation() -> None:
    """Whatever ids and targets stand at the padding."""
    model, results = language_model(), []
    for side, fill in (("right", 0), ("left", 0), ("right", 60), ("left", IGNORED)):
        ids, targets, mask = batch(side, fill)
        model.zero_grad()
        loss = model(ids.clamp(min=0), targets, mask)
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for other in results[1:]:
        assert all(torch.equal(one, same) for one, same in zip(results[0], other, strict=True))


def test_a_batch_is_the_sum_of_its_rows() -> None:
    model = language_model()
    with torch.no_grad():
        rows = [float(model(text[None, :-1], text[None, 1:])) for text in texts()]
        assert float(model(*batch("right"))) == pytest.approx(sum(rows), rel=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_each_tokens_loss(side: str) -> None:
    model = language_model().eval()
    ids, targets, mask = batch(side)
    targets[0, :] = targets[2, 20:] = IGNORED
    losses, hits = model.token_losses(ids, targets, mask)
    assert losses.shape == hits.shape == ids.shape and hits.dtype == torch.bool
    counts = (mask == 1) & (targets != IGNORED)
    assert not losses[~counts].any() and not hits[~counts].any()
    states = model.gpt2(ids, mask)["last_hidden_state"]
    logits = model.gpt2.hidden_state_to_token(states)[counts]
    expected = torch.nn.functional.cross_entropy(logits, targets[counts], reduction="none")
    torch.testing.assert_close(losses[counts], expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(hits[counts], logits.argmax(dim=-1) == targets[counts])
    with torch.no_grad():
        assert float(losses.sum()) == pytest.approx(float(model(ids, targets, mask)), rel=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("unlikely", [False, True])
def test_only_states_that_the_loss_reads_are_computed_in_the_last_block(unlikely: bool, recompute: bool) -> None:
    model = language_model()
    model.gpt2.recompute = recompute
    rows: list[int] = []
    model.gpt2.h[-1].mlp.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    ids, targets, mask = batch("left")
    some = torch.full_like(targets, IGNORED)
    some[:, -3:] = targets[:, -3:]  # of the four texts 3, 1, 3 and 3 tokens
    candidates = None
    if unlikely:
        candidates = torch.full((*ids.shape, 2), IGNORED)
        candidates[0, -1, 0] = candidates[2, -5, 1] = 7  # beside a target, and by itself
    model(ids, some, mask, candidates).backward()
    assert rows[0] == 10 + unlikely
    found = [parameter.grad.clone() for parameter in model.parameters()]

    model.zero_grad()
    layout = TokenLayout.from_mask(mask)
    hidden = model.gpt2.encode(layout.pack(ids), layout)
    packed = None if candidates is None else candidates.flatten(0, 1)[layout.token_index]
    linear_cross_entropy(hidden, model.gpt2.wte.weight, layout.pack(some), packed).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found.pop(0), parameter.grad, atol=2e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_batch_without_a_target_has_no_loss(dtype: torch.dtype) -> None:
    model = language_model()
    ids, targets, mask = batch("right")
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        loss = model(ids, torch.full_like(targets, IGNORED), mask)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputed_activations_give_the_same_bits(dropout: float, bf16: bool, deterministic: None) -> None:
    results = []
    for recompute in (False, True):
        model = language_model(dropout)
        model.gpt2.recompute = recompute
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(*batch("right"))
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters()), torch.rand(1)])
    assert all(torch.equal(kept, again) for kept, again in zip(*results, strict=True))


def test_recomputing_keeps_fewer_activations() -> None:
    kept = {}
    for recompute in (False, True):
        model = language_model(n_layer=6)
        model.gpt2.recompute = recompute
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):
            model(*batch("right"))
        kept[recompute] = sum(sizes)
    assert kept[True] < kept[False] / 2


def test_bf16_is_close_to_fp32() -> None:
    model = language_model()
    with torch.no_grad():
        plain = float(model(*batch("right")))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert float(model(*batch("right"))) == pytest.approx(plain, rel=1e-2)


def test_sampling_is_drawn_by_the_generator_and_may_outgrow_the_context() -> None:
    model = language_model().eval()
    drawn = [
        model.sample([1, 2], 60, temperature=0.8, top_k=5, generator=torch.Generator().manual_seed(seed))
        for seed in (4, 4, 5)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][:2] == [1, 2] and len(drawn[0]) == 62 and all(0 <= token < 61 for token in drawn[0])
    assert model.sample([1, 2], 20, 0.8, 5, torch.Generator().manual_seed(4)) == drawn[0][:22]


@pytest.mark.parametrize("prompt", [2, 39, 40, 45])
def test_a_sample_that_fills_the_context_goes_on_from_its_latter_half(prompt: int) -> None:
    model = language_model(initializer_range=0.3).eval()
    ids = torch.randint(61, (prompt,), generator=torch.Generator().manual_seed(2)).tolist()
    window, expected = ids[-20:] if prompt >= 40 else ids, list(ids)
    for _ in range(70):
        window = window[-20:] if len(window) == 40 else window
        token = int(model.gpt2.hidden_state_to_token(model.gpt2(torch.tensor([window]))["last_token"]).argmax())
        window, expected = [*window, token], [*expected, token]
    assert model.sample(ids, 70, temperature=1.0, top_k=1, generator=torch.Generator()) == expected
