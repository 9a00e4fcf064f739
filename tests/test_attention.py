"""Attention: the readable form against its formula, the fast forms against the readable one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from modules.attention import (
    Attention,
    batched_attention,
    choose_attention,
    fused_attention,
    masked_attention,
    softmax_attention,
)
from modules.dropout import Dropout

pytestmark = pytest.mark.usefixtures("one_thread")
FAST = [batched_attention, fused_attention]
FORMS = [softmax_attention, *FAST]
# Relative error of outputs and gradients.
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2e-2}
NONE = Dropout(0.0)


def random_heads(*shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Queries, keys and values (B, n_head, T, head_dim), laid out as the model's fused map leaves them."""
    batch, heads, length, head_dim = shape
    torch.manual_seed(0)
    qkv = torch.randn(batch, length, 3, heads, head_dim).to(dtype)
    return [part.requires_grad_() for part in qkv.detach().permute(2, 0, 3, 1, 4).unbind()]


def run(form: Attention, heads: list[Tensor], dropout: Dropout, seed: int = 1) -> tuple[Tensor, ...]:
    """Output and the three gradients."""
    torch.manual_seed(seed)
    output = form(*heads, dropout)
    torch.manual_seed(2)
    return output, *torch.autograd.grad(output, heads, torch.randn(output.shape).to(output.dtype))


def assert_close(results: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    for name, ours, theirs in zip(("output", "query", "key", "value"), results, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        error = (ours.float() - theirs.float()).norm() / theirs.float().norm().clamp(min=1e-6)
        assert error <= tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("form", FORMS)
def test_the_formula_position_by_position(form):
    query, key, value = random_heads(2, 3, 6, 4)
    output = form(query, key, value, NONE)
    for t in range(6):
        scores = (query[:, :, t, None] * key[:, :, : t + 1]).sum(dim=-1) / math.sqrt(4)
        exponentials = scores.exp()
        weights = exponentials / exponentials.sum(dim=-1, keepdim=True)
        expected = (weights[..., None] * value[:, :, : t + 1]).sum(dim=2)
        torch.testing.assert_close(output[:, :, t], expected)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 2, 5, 8), (2, 12, 47, 64), (1, 3, 257, 16)], ids=str)
@pytest.mark.parametrize("form", FAST)
def test_fast_forms_equal_the_plain_one(form, shape, dtype):
    heads = random_heads(*shape, dtype=dtype)
    assert_close(run(form, heads, NONE), run(softmax_attention, heads, NONE), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_batched_form_drops_the_same_weights(dtype):
    heads, dropout = random_heads(2, 4, 33, 16, dtype=dtype), Dropout(0.2).train()
    expected = run(softmax_attention, heads, dropout)
    assert_close(run(batched_attention, heads, dropout), expected, TOLERANCE[dtype])
    other = run(batched_attention, heads, dropout, seed=9)
    assert not torch.allclose(other[0], expected[0], atol=0.1)  # the seed matters


@pytest.mark.parametrize("form", FORMS)
def test_dropout_of_the_attention_weights(form):
    """With the unit matrix for values the output is the dropped weights themselves, so they can be looked at."""
    length, p = 64, 0.25
    query, key, _ = random_heads(4, 8, length, length)
    value = torch.eye(length).expand(4, 8, length, length).clone().requires_grad_()
    weights = form(query, key, value, NONE).detach()
    torch.manual_seed(3)
    dropped = form(query, key, value, Dropout(p).train())

    seen = weights > 0  # the future has weight zero anyway
    kept = (dropped != 0) & seen
    assert dropped[~seen].count_nonzero() == 0
    torch.testing.assert_close(dropped[kept], weights[kept] / (1 - p), rtol=1e-4, atol=1e-7)
    share, count = kept.sum() / seen.sum(), int(seen.sum())
    assert abs(share - (1 - p)) < 5 * math.sqrt(p * (1 - p) / count)
    # d(output) / d(value) is the transpose of the dropped weights: the backward pass used the same mask.
    upstream = torch.randn_like(dropped)
    (gradient,) = torch.autograd.grad(dropped, value, upstream)
    torch.testing.assert_close(gradient, dropped.transpose(-1, -2) @ upstream, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_no_dropout_in_evaluation(form):
    heads = random_heads(2, 2, 9, 8)
    assert_close(run(form, heads, Dropout(0.5).eval()), run(form, heads, NONE), 0.0)


@pytest.mark.parametrize("form", FORMS)
def test_the_future_changes_nothing(form):
    query, key, value = (part.detach() for part in random_heads(2, 2, 20, 8))
    before = form(query, key, value, NONE)
    for part in (query, key, value):
        part[:, :, 12:] = 100.0 * torch.randn_like(part[:, :, 12:])
    after = form(query, key, value, NONE)
    assert torch.equal(before[:, :, :12], after[:, :, :12])
    assert not torch.allclose(before[:, :, 12:], after[:, :, 12:])


BEFORE = [(1, 5), (7, 1), (20, 12), (33, 47)]  # keys before the first query, queries


@pytest.mark.parametrize(("before", "length"), BEFORE)
@pytest.mark.parametrize("form", FORMS)
def test_keys_before_the_queries_are_seen_by_all(form, before, length):
    """The last rows of attention over the whole, whether the first keys come from a prefix or from a cache."""
    query, key, value = random_heads(2, 3, before + length, 8)
    whole, cut = form(query, key, value, NONE), form(query[:, :, before:], key, value, NONE)
    torch.testing.assert_close(cut, whole[:, :, before:])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("before", "length"), BEFORE)
@pytest.mark.parametrize("form", FAST)
def test_fast_forms_equal_the_plain_one_with_keys_before(form, before, length, dtype):
    heads = random_heads(3, 4, before + length, 16, dtype=dtype)
    heads[0] = heads[0][:, :, before:].detach().requires_grad_()
    assert_close(run(form, heads, NONE), run(softmax_attention, heads, NONE), TOLERANCE[dtype])
    if form is batched_attention:
        dropout = Dropout(0.2).train()
        assert_close(run(form, heads, dropout), run(softmax_attention, heads, dropout), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("length", [1, 4])
def test_texts_of_unequal_length_under_a_mask(length, dtype):
    """Each row attends as it would alone, to as many keys as it has; what stands after them does not matter."""
    query, key, value = (part.detach() for part in random_heads(3, 2, 20, 8, dtype=dtype))
    ends = [20, length, 11]
    last = torch.tensor(ends)[:, None] - length + torch.arange(length)  # (B, T) the last key that each query sees
    future = torch.arange(20) > last[:, None, :, None]
    mask = torch.zeros(3, 1, length, 20, dtype=dtype).masked_fill(future, -math.inf)
    found = masked_attention(query[:, :, -length:], key, value, mask)
    assert found.dtype == dtype
    for row, end in enumerate(ends):
        own = (part[row : row + 1, :, :end] for part in (key, value))
        alone = softmax_attention(query[row : row + 1, :, -length:], *own, NONE)[0]
        assert (found[row].float() - alone.float()).norm() <= TOLERANCE[dtype] * alone.float().norm()


@pytest.mark.parametrize("form", FORMS)
def test_large_scores_do_not_overflow(form):
    query, key, value = random_heads(1, 2, 30, 8)
    results = run(form, [(query * 1e4).detach().requires_grad_(), key, value], NONE)
    assert all(torch.isfinite(result).all() for result in results)


@pytest.mark.parametrize("form", FORMS)
def test_the_first_position_sees_itself_alone(form):
    query, key, value = random_heads(2, 2, 4, 8)
    torch.testing.assert_close(form(query, key, value, NONE)[:, :, 0], value[:, :, 0])


def test_the_kernel_is_not_taken_where_it_is_slow():
    for dtype, dropout in ((torch.bfloat16, NONE), (torch.float32, Dropout(0.1).train())):
        assert choose_attention(torch.empty(1, 1, 64, 8, dtype=dtype), dropout) is batched_attention
    assert choose_attention(torch.empty(1, 1, 64, 8), Dropout(0.1).eval()) is fused_attention
    assert choose_attention(torch.empty(1, 1, 1, 8), NONE) is batched_attention
    for length in (1, 64):
        assert choose_attention(torch.empty(1, 1, length, 8, device="meta"), Dropout(0.1).train()) is fused_attention


def test_the_kernels_own_mask_where_no_keys_come_before(monkeypatch):
    """A mask that is given costs time and memory, so it must not be given where the kernel has one of its own."""
    given = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def spy(*args: Tensor, **options: object) -> Tensor:
        given.append(options)
        return kernel(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    query, key, value = random_heads(1, 2, 6, 4)
    fused_attention(query, key, value, NONE)
    fused_attention(query[:, :, 5:], key, value, NONE)
    fused_attention(query[:, :, 3:], key, value, NONE)
    assert given[0]["is_causal"] and given[0].get("attn_mask") is None
    assert not given[1].get("is_causal") and given[1]["attn_mask"] is None
    assert given[2]["attn_mask"].tolist() == [[True] * (4 + i) + [False] * (2 - i) for i in range(3)]
