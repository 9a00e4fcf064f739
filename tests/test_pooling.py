"""Pooling: each kind against its formula; padding and precision change nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from config import UserError
from modules.pooling import POOLINGS, Pooling, make_pooling

pytestmark = pytest.mark.usefixtures("one_thread")
N_EMBD, LENGTHS = 6, [5, 1, 9, 3]
each_kind = pytest.mark.parametrize("name", POOLINGS)


def sentences() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, N_EMBD, generator=generator) for length in LENGTHS]


def batch(side: str, junk: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """States (B, T, n_embd), last tokens (B, n_embd) and mask (B, T) of :func:`sentences`."""
    width = max(LENGTHS) + 2
    states, mask = torch.full((len(LENGTHS), width, N_EMBD), junk), torch.zeros(len(LENGTHS), width, dtype=torch.long)
    for i, sentence in enumerate(sentences()):
        place = slice(0, len(sentence)) if side == "right" else slice(width - len(sentence), width)
        states[i, place], mask[i, place] = sentence, 1
    return states, torch.stack([sentence[-1] for sentence in sentences()]), mask


def pooling(name: str) -> Pooling:
    made = make_pooling(name, N_EMBD)
    torch.manual_seed(1)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def by_formula(name: str, states: Tensor, made: Pooling) -> Tensor:
    """One sequence without padding: (T, n_embd) -> (width,)."""
    last, mean, highest = states[-1], states.mean(dim=0), states.max(dim=0).values
    if name == "attention":
        return (states @ made.query).softmax(dim=0) @ states
    simple = {"last": last, "mean": mean, "mix": 0.7 * mean + 0.3 * last, "max": highest}
    return simple[name] if name in simple else torch.cat([last, highest, mean])


@pytest.mark.parametrize("junk", [0.0, 1e30, float("nan")])
@pytest.mark.parametrize("side", ["right", "left"])
@each_kind
def test_each_sequence_by_the_formula_whatever_the_padding(name, side, junk):
    made = pooling(name)
    pooled = made(*batch(side, junk))
    assert pooled.shape == (len(LENGTHS), made.width)
    for row, sentence in zip(pooled, sentences(), strict=True):
        torch.testing.assert_close(row, by_formula(name, sentence, made), atol=1e-6, rtol=1e-5)


@each_kind
def test_padding_gets_no_gradient(name):
    made = pooling(name)
    states, _, mask = batch("left", junk=3.0)
    states.requires_grad_()
    made(states, states[:, -1], mask).square().sum().backward()
    assert states.grad[mask == 0].count_nonzero() == 0
    assert states.grad[:, -1].norm(dim=-1).count_nonzero() == len(LENGTHS)


@each_kind
def test_without_a_mask_all_tokens_are_real(name):
    made, states = pooling(name), torch.stack([sentences()[2]] * 2)
    assert torch.equal(made(states, states[:, -1], None), made(states, states[:, -1], torch.ones(2, 9)))


@each_kind
def test_the_width_is_that_of_the_result(name):
    assert make_pooling(name, N_EMBD).width == N_EMBD * (3 if name == "concat" else 1)


def test_which_poolings_train():
    assert [name for name in POOLINGS if [*make_pooling(name, N_EMBD).parameters()]] == ["attention"]


def test_the_order_of_the_concatenation():
    states = torch.tensor([[[1.0, 8.0], [6.0, 2.0], [2.0, 5.0]]])
    pooled = make_pooling("concat", 2)(states, states[:, -1])
    assert pooled.tolist() == [[2.0, 5.0, 6.0, 8.0, 3.0, 5.0]]


def test_the_means_weight():
    states, last, mask = batch("right")
    mean = make_pooling("mean", N_EMBD)(states, last, mask)
    for weight, expected in ((0.0, last), (1.0, mean), (0.25, 0.25 * mean + 0.75 * last)):
        torch.testing.assert_close(make_pooling("mix", N_EMBD, weight)(states, last, mask), expected)
    other = make_pooling("mean", N_EMBD, mean_weight=0.25)(states, last, mask)
    assert torch.equal(other, mean)


def test_attention_starts_as_the_mean_and_learns_from_there():
    states, last, mask = batch("left")
    made = make_pooling("attention", N_EMBD)
    torch.testing.assert_close(made(states, last, mask), make_pooling("mean", N_EMBD)(states, last, mask))
    target = torch.stack([sentence[0] for sentence in sentences()])
    (made(states, last, mask) - target).square().sum().backward()
    assert made.query.grad.norm() > 0.1
    with torch.no_grad():
        made.query.copy_(1000.0 * sentences()[2][4])  # so large that one token gets all the weight
    likest = (sentences()[2] @ sentences()[2][4]).argmax()
    torch.testing.assert_close(made(states, last, mask)[2], sentences()[2][likest])


@each_kind
def test_sums_are_made_in_fp32(name):
    """In bfloat16 a running sum of ones stops at 256."""
    made = make_pooling(name, N_EMBD)
    states = torch.ones(2, 3000, N_EMBD, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = made(states, states[:, -1])
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, torch.ones(2, made.width), atol=1e-5, rtol=0)


@each_kind
def test_autocast_changes_nothing(name):
    made, inputs = pooling(name), batch("right")
    exact = made(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made(*inputs), exact)


def test_what_is_refused():
    with pytest.raises(UserError, match="pooling 'sum': unknown; choose from last, mean, mix, max, concat, attention"):
        make_pooling("sum", N_EMBD)
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match="must be between 0 and 1"):
            make_pooling("mix", N_EMBD, weight)
