"""The hand-written GPT-2 computes what transformers' GPT-2 computes: states, logits and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from config import GPT2Config, UserError
from models.gpt2 import GPT2Model
from modules import attention
from modules.prefix import Prefix

pytestmark = pytest.mark.usefixtures("one_thread")
JUNK = -1  # what ours finds at padding; it must never look there
SHAPES = {
    "tiny": {},
    "one head": {"n_head": 1, "n_embd": 7, "vocab_size": 11},
    "heads of one": {"n_head": 6, "n_embd": 6},
    "wide heads": {"n_head": 2, "n_embd": 128},
    "one block": {"n_layer": 1},
    "deep": {"n_layer": 7, "n_embd": 32, "n_head": 4},
    "narrow MLP": {"n_inner": 5},
    "wide MLP": {"n_inner": 300},
    "one token known": {"vocab_size": 1, "bos_token_id": 0, "eos_token_id": 0},
    "other epsilon": {"layer_norm_epsilon": 1e-3},
}


def random_sentences(lengths: list[int], vocab_size: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(vocab_size, (length,), generator=generator) for length in lengths]


def rectangle(sentences: list[Tensor], side: str, fill: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask, padded on one side."""
    width = max(map(len, sentences))
    ids = torch.full((len(sentences), width), fill)
    mask = torch.zeros_like(ids)
    for i, sentence in enumerate(sentences):
        where = slice(0, len(sentence)) if side == "right" else slice(width - len(sentence), width)
        ids[i, where], mask[i, where] = sentence, 1
    return ids, mask


def from_reference(reference: Any, folder: Path) -> GPT2Model:
    reference.save_pretrained(folder)
    return GPT2Model.from_pretrained(folder)


def reference_states(reference: Any, ids: Tensor, mask: Tensor) -> Tensor:
    position_ids = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return reference.transformer(ids, attention_mask=mask, position_ids=position_ids).last_hidden_state


def assert_same_gradients(model: GPT2Model, reference: Any, tolerance: float) -> None:
    theirs = dict(reference.transformer.named_parameters())
    for name, parameter in model.named_parameters():
        expected = theirs[name].grad
        if name.startswith("h.") and name.endswith("weight") and expected.dim() == 2:
            expected = expected.t()
        error = (parameter.grad - expected).norm() / expected.norm().clamp(min=1e-12)
        assert error <= tolerance, f"{name}: {error:.1e}"


def assert_parity(model: GPT2Model, reference: Any, sentences: list[Tensor], side: str, tolerance: float) -> None:
    model.zero_grad()
    reference.zero_grad()
    ids, mask = rectangle(sentences, side, fill=0)
    expected = reference_states(reference, ids, mask) * mask.unsqueeze(-1)
    ids, mask = rectangle(sentences, side, fill=JUNK)
    output = model(ids, mask)

    torch.testing.assert_close(output["last_hidden_state"], expected, atol=tolerance, rtol=0)
    last = [mask[i].nonzero().max() for i in range(len(ids))]
    torch.testing.assert_close(
        output["last_token"], torch.stack([expected[i, t] for i, t in enumerate(last)]), atol=tolerance, rtol=0
    )
    torch.manual_seed(2)
    upstream, upstream_last = torch.randn_like(expected), torch.randn_like(output["last_token"])
    (expected * upstream).sum().backward(retain_graph=True)
    sum((expected[i, t] * upstream_last[i]).sum() for i, t in enumerate(last)).backward()
    ((output["last_hidden_state"] * upstream).sum() + (output["last_token"] * upstream_last).sum()).backward()
    assert_same_gradients(model, reference, tolerance)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("shape", SHAPES)
def test_states_and_gradients(shape, side, tmp_path, make_reference):
    reference = make_reference(**SHAPES[shape])
    model = from_reference(reference, tmp_path).train()
    sentences = random_sentences([5, 1, 17, 33, 2, 5, 40, 16], reference.config.vocab_size)
    assert_parity(model, reference, sentences, side, tolerance=1e-5)


@pytest.mark.parametrize("lengths", [[1], [40], [7, 7, 7], [1, 1]], ids=str)
def test_batches_without_padding(lengths, tmp_path, make_reference):
    reference = make_reference()
    model = from_reference(reference, tmp_path)
    sentences = random_sentences(lengths, reference.config.vocab_size)
    assert_parity(model, reference, sentences, "right", tolerance=1e-5)
    ids = torch.stack(sentences)
    torch.testing.assert_close(model(ids), model(ids, torch.ones_like(ids)), atol=0, rtol=0)


@pytest.mark.parametrize("form", ["softmax_attention", "batched_attention", "fused_attention"])
def test_every_form_of_attention(form, tmp_path, make_reference, monkeypatch):
    monkeypatch.setattr(attention, "choose_attention", lambda query, dropout: getattr(attention, form))
    reference = make_reference(n_layer=3)
    model = from_reference(reference, tmp_path)
    assert_parity(model, reference, random_sentences([9, 30, 1, 14], 61), "left", tolerance=1e-5)


@pytest.mark.slow
def test_124m_shape(make_reference):
    reference = make_reference(n_embd=768, n_head=12, n_layer=12, n_positions=1024, vocab_size=50257)
    model = from_parameters(reference)
    for side in ("right", "left"):
        assert_parity(model, reference, random_sentences([23, 9, 40], 50257), side, tolerance=1e-4)


def from_parameters(reference: Any) -> GPT2Model:
    """Without the way over the disk, which for 124M parameters takes seconds."""
    model = GPT2Model.empty(GPT2Config.from_dict(reference.config.to_dict()))
    tensors = dict(reference.transformer.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            transpose = name.startswith("h.") and tensors[name].dim() == 2
            parameter.copy_(tensors[name].t() if transpose else tensors[name])
    return model


def test_a_batch_equals_its_sentences_one_by_one(tmp_path, make_reference):
    model = from_reference(make_reference(), tmp_path)
    sentences = random_sentences([5, 1, 17, 33, 2, 16], 61)
    alone = [model(sentence[None]) for sentence in sentences]
    for side in ("right", "left"):
        together = model(*rectangle(sentences, side, JUNK))
        for i, sentence in enumerate(sentences):
            where = slice(0, len(sentence)) if side == "right" else slice(33 - len(sentence), 33)
            states = together["last_hidden_state"][i]
            torch.testing.assert_close(states[where], alone[i]["last_hidden_state"][0], atol=1e-5, rtol=0)
            torch.testing.assert_close(together["last_token"][i], alone[i]["last_token"][0], atol=1e-5, rtol=0)
            assert states.norm(dim=-1).count_nonzero() == len(sentence)


def test_padding_on_either_side_is_the_same_computation(tmp_path, make_reference):
    model = from_reference(make_reference(), tmp_path)
    sentences = random_sentences([5, 33, 2], 61)
    right, left = (model(*rectangle(sentences, side, JUNK))["last_token"] for side in ("right", "left"))
    assert torch.equal(right, left)


def test_logits_by_the_tied_embedding(tmp_path, make_reference):
    reference = make_reference()
    model = from_reference(reference, tmp_path)
    ids = torch.stack(random_sentences([19, 19], 61))
    logits = model.hidden_state_to_token(model(ids)["last_hidden_state"])
    torch.testing.assert_close(logits, reference(ids).logits, atol=1e-5, rtol=0)


# The check that CS 224N's sanity_check.py makes, on a checkpoint that needs no network.


def test_the_course_check(tmp_path, make_reference):
    reference = make_reference(n_embd=48, n_layer=3, n_head=4, vocab_size=20000)
    reference.save_pretrained(tmp_path)
    ids = torch.tensor([[101, 7592, 2088, 102, 0, 0, 0, 0], [101, 7592, 15756, 2897, 2005, 17953, 2361, 102]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
    model = GPT2Model.from_pretrained(model=str(tmp_path), d=48, l=3, num_heads=4)
    outputs = model(ids, mask)
    theirs = reference.transformer(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
    outputs["last_hidden_state"] = outputs["last_hidden_state"] * mask.unsqueeze(-1)
    theirs = theirs * mask.unsqueeze(-1)
    torch.testing.assert_close(outputs["last_hidden_state"], theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("argument", "name"), [("d", "n_embd"), ("l", "n_layer"), ("num_heads", "n_head")])
def test_the_course_numbers_are_checked(argument, name, tiny_folder):
    with pytest.raises(UserError, match=rf"config\.json: {name} is \d+, but 999 was asked for"):
        GPT2Model.from_pretrained(model=str(tiny_folder), **{argument: 999})


# Training


def tiny_model(**changes: Any) -> GPT2Model:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2Model(GPT2Config(**(sizes | changes)))


@pytest.mark.parametrize("kind", ["embd_pdrop", "attn_pdrop", "resid_pdrop"])
def test_every_dropout_of_the_checkpoint_applies_in_training_only(kind):
    rates = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
    without, with_dropout = tiny_model(**rates), tiny_model(**(rates | {kind: 0.1}))
    ids = torch.arange(24).view(2, 12)
    clean = without.eval()(ids)["last_hidden_state"]
    assert torch.equal(without.train()(ids)["last_hidden_state"], clean)
    assert torch.equal(with_dropout.eval()(ids)["last_hidden_state"], clean)
    assert not torch.allclose(with_dropout.train()(ids)["last_hidden_state"], clean)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_the_same_seed_gives_the_same_bits(p, bf16, deterministic):
    model = tiny_model(embd_pdrop=p, attn_pdrop=p, resid_pdrop=p).train()
    ids, mask = rectangle(random_sentences([3, 20, 64, 7, 7], 50), "right", JUNK)

    def gradients() -> list[Tensor]:
        model.zero_grad()
        torch.manual_seed(5)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            output = model(ids, mask)
        (output["last_hidden_state"].square().sum() + output["last_token"].square().sum()).backward()
        return [parameter.grad for parameter in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))


def test_bfloat16_autocast_is_close_to_fp32():
    model = tiny_model(embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0).train()
    ids, mask = rectangle(random_sentences([3, 20, 64], 50), "left", JUNK)
    exact = model(ids, mask)["last_hidden_state"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(ids, mask)["last_hidden_state"]
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.02
    rough.square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_padding_contributes_no_gradient():
    model = tiny_model(embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0).train()
    sentences = [sentence + 1 for sentence in random_sentences([3, 20, 9], 48)]  # token 0 occurs nowhere
    ids, mask = rectangle(sentences, "right", fill=0)
    model(ids, mask)["last_hidden_state"].sum().backward()
    assert model.wte.weight.grad[0].count_nonzero() == 0
    assert model.wpe.weight.grad[20:].count_nonzero() == 0


def test_only_real_tokens_are_computed():
    model = tiny_model()
    rows: list[int] = []
    model.h[0].mlp.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[0]))
    ids, mask = rectangle(random_sentences([3, 60, 9], 50), "right", JUNK)
    model(ids, mask)
    assert rows == [72]


@pytest.mark.parametrize("n_layer", [1, 3])
@pytest.mark.parametrize("with_prefix", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_last_tokens_alone_are_the_same_states_and_gradients(side, with_prefix, n_layer):
    model = tiny_model(embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, n_layer=n_layer).train()
    if with_prefix:
        model.prefix = Prefix(model.config, length=4, hidden=8)
    ids, mask = rectangle(random_sentences([3, 40, 9, 1], 50), side, JUNK)
    upstream = torch.randn(4, model.config.n_embd)
    found = []
    for last in (model(ids, mask)["last_token"], model.last_token(ids, mask)):
        model.zero_grad()
        (last * upstream).sum().backward()
        found.append([last.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for of_all, of_last in zip(*found, strict=True):
        torch.testing.assert_close(of_last, of_all, atol=2e-6, rtol=1e-4)


def test_the_last_block_computes_no_state_that_is_not_wanted():
    model = tiny_model(n_layer=3)
    rows: list[int] = []
    for block in model.h:
        block.mlp.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[0]))
    model.last_token(*rectangle(random_sentences([3, 60, 9], 50), "right", JUNK))
    assert rows == [72, 72, 3]


# What the model refuses


def test_too_long_a_sequence():
    model = tiny_model()
    with pytest.raises(UserError, match="a sequence of 65 tokens is longer than the model's context of 64"):
        model(torch.zeros(2, 65, dtype=torch.long))
    ids, mask = rectangle(random_sentences([64], 50), "right", 0)
    padded, wide = torch.nn.functional.pad(ids, (0, 9)), torch.nn.functional.pad(mask, (0, 9))
    model(padded, wide)  # padding does not count


def test_an_empty_sequence_and_unequal_shapes():
    model = tiny_model()
    with pytest.raises(ValueError, match="at least one real token"):
        model(torch.zeros(2, 3, dtype=torch.long), torch.tensor([[1, 1, 1], [0, 0, 0]]))
    with pytest.raises(ValueError, match="differ in shape"):
        model(torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 4))


# The initialization (Radford et al. 2019, section 2.3)


def test_new_weights():
    model = tiny_model(n_layer=8, n_embd=256)
    assert abs(model.wte.weight.std() - 0.02) < 1e-3
    assert abs(model.h[3].mlp.c_fc.weight.std() - 0.02) < 1e-3
    for residual in (model.h[3].mlp.c_proj, model.h[3].attn.c_proj):
        assert abs(residual.weight.std() - 0.02 / 4) < 3e-4
        assert residual.bias.count_nonzero() == 0


def test_layer_groups_are_all_parameters_from_the_bottom_up():
    model = tiny_model()
    groups = model.layer_groups()
    assert list(groups) == ["embeddings", "block 0", "block 1", "final norm"]
    grouped = [id(parameter) for parameters in groups.values() for parameter in parameters]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
