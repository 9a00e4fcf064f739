"""Dropout on CPU draws its own random bits: their statistics, and what autograd makes of them."""

from __future__ import annotations

import math

import pytest
import torch

from modules.dropout import Dropout

pytestmark = pytest.mark.usefixtures("one_thread")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def drop(p: float, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return Dropout(p).train()(x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.5, 0.9])
def test_rate_and_scale(p, dtype):
    count = 400_000
    output = drop(p, torch.ones(count, dtype=dtype))
    kept = output != 0
    assert abs(kept.double().mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / count) + 2**-16
    assert output.dtype == dtype
    torch.testing.assert_close(
        output[kept].double(), torch.full((int(kept.sum()),), 1 / (1 - p)).double(), rtol=5e-3, atol=0
    )


def test_the_smallest_rate():
    count = 4_000_000
    dropped = count - drop(2**-15, torch.ones(count)).count_nonzero()
    assert abs(dropped - count * 2**-15) < 5 * math.sqrt(count * 2**-15)


def test_the_expectation_is_unbiased():
    """The drop probability is rounded to a multiple of 2^-15, and the scale belongs to the rounded one."""
    for p in (0.1, 0.3, 2**-14, 0.99999):
        output = drop(p, torch.ones(1000, dtype=torch.float64))
        share_kept = 1 - min(round(p * 2**15), 2**15 - 1) / 2**15
        assert all(value in (0.0, pytest.approx(1 / share_kept, rel=1e-12)) for value in output.unique().tolist())
    means = torch.stack([drop(0.3, torch.ones(100_000, dtype=torch.float64), seed).mean() for seed in range(20)])
    assert abs(means.mean() - 1) < 4 * math.sqrt(0.3 / 0.7 / (20 * 100_000))


def test_neighbours_are_independent():
    """Four elements share one random word: none of their pairs may be correlated."""
    kept = (drop(0.5, torch.ones(400_000)) != 0).double().view(-1, 4) - 0.5
    correlation = kept.T @ kept / len(kept) * 4
    off_diagonal = correlation - torch.diag(correlation.diagonal())
    assert off_diagonal.abs().max() < 5 / math.sqrt(len(kept))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gradient_uses_the_same_mask(dtype):
    x = torch.randn(37, 11).to(dtype).requires_grad_()
    output = drop(0.4, x)
    upstream = torch.randn(37, 11).to(dtype)
    (gradient,) = torch.autograd.grad(output, x, upstream)
    scale = 1 / (1 - round(0.4 * 2**15) / 2**15)
    torch.testing.assert_close(gradient, torch.where(output != 0, upstream * scale, 0.0), rtol=1e-2, atol=0)
    assert (output != 0).equal(gradient != 0)


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3,), (5,), (0,), (4, 0), (3, 5, 7)], ids=str)
def test_any_shape(shape):
    assert drop(0.5, torch.ones(shape)).shape == shape


def test_a_strided_tensor():
    x = torch.randn(6, 8)
    assert torch.equal(drop(0.5, x.t()), drop(0.5, x.t().contiguous()))


def test_the_seed_decides():
    x = torch.ones(1000)
    assert torch.equal(drop(0.5, x, seed=3), drop(0.5, x, seed=3))
    assert not torch.equal(drop(0.5, x, seed=3), drop(0.5, x, seed=4))
    torch.manual_seed(3)
    dropout = Dropout(0.5).train()
    assert not torch.equal(dropout(x), dropout(x))  # a new mask in every call


def test_evaluation_and_rate_zero_change_nothing():
    x = torch.randn(10)
    state = torch.get_rng_state()
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("p", [-0.1, 1.0, math.nan])
def test_bad_rates(p):
    with pytest.raises(ValueError, match="dropout probability must be in"):
        Dropout(p)
