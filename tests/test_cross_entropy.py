"""The sliced cross-entropy is cross-entropy: values, gradients, ignored targets, any slice, any precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from modules import cross_entropy
from modules.cross_entropy import IGNORED, linear_cross_entropy, token_losses

N, DIMS, VOCAB = 37, 12, 101
SLICES = [1, 2, 5, 37, 1000]  # tokens at a time; 2 and 5 do not divide 37


def example(n: int = N, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, DIMS, generator=generator)
    weight = torch.randn(VOCAB, DIMS, generator=generator)
    targets = torch.randint(VOCAB, (n,), generator=generator)
    return hidden, weight, targets


def with_gradients(hidden: Tensor, weight: Tensor, targets: Tensor, reference: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and its gradients by hidden states and by the embedding."""
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    if reference:
        loss = F.cross_entropy(hidden @ weight.t(), targets, ignore_index=IGNORED, reduction="sum")
    else:
        loss = linear_cross_entropy(hidden, weight, targets)
    (loss * 0.25).backward()  # whatever comes after the loss must reach both gradients
    assert hidden.grad is not None and weight.grad is not None
    return loss.detach(), hidden.grad, weight.grad


@pytest.fixture(params=SLICES, ids=lambda size: f"{size} at a time")
def sliced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(cross_entropy, "SLICE_ELEMENTS", request.param * VOCAB)
    return request.param


def ignore(targets: Tensor, which: str) -> Tensor:
    targets = targets.clone()
    ignored = {"none": [], "some": [0, 3, 4, 36], "a whole slice": list(range(5, 15)), "all": list(range(N))}[which]
    targets[ignored] = IGNORED
    return targets


@pytest.mark.parametrize("which", ["none", "some", "a whole slice", "all"])
def test_value_and_gradients(sliced: int, which: str) -> None:
    hidden, weight, targets = example()
    targets = ignore(targets, which)
    found = with_gradients(hidden, weight, targets, reference=False)
    expected = with_gradients(hidden, weight, targets, reference=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert found[0].dtype == torch.float32 and found[0].shape == ()
    if which == "all":
        assert float(found[0]) == 0 and not found[1].any() and not found[2].any()


def test_the_gradient_of_an_ignored_token_is_zero(sliced: int) -> None:
    hidden, weight, targets = example()
    _, gradient, _ = with_gradients(hidden, weight, ignore(targets, "some"), reference=False)
    assert [i for i in range(N) if not gradient[i].any()] == [0, 3, 4, 36]


def test_large_logits_do_not_overflow(sliced: int) -> None:
    hidden, weight, targets = example()
    found = with_gradients(hidden * 1e3, weight, targets, reference=False)
    expected = with_gradients(hidden * 1e3, weight, targets, reference=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-2)


def test_in_double_precision() -> None:
    hidden, weight, targets = example()
    found = with_gradients(hidden.double(), weight.double(), targets, reference=False)
    expected = with_gradients(hidden, weight, targets, reference=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=1e-5, atol=1e-5)


def test_under_autocast(sliced: int) -> None:
    """bf16 products: close to fp32, gradients in the types of what they belong to."""
    hidden, weight, targets = example()
    targets = ignore(targets, "some")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = with_gradients(hidden, weight, targets, reference=False)
    expected = with_gradients(hidden, weight, targets, reference=True)
    assert found[0].dtype == torch.float32 and float(found[0]) == pytest.approx(float(expected[0]), rel=1e-2)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).norm() / theirs.norm()) < 2e-2


def test_hidden_states_in_bf16() -> None:
    hidden, weight, targets = example()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, gradient, weight_gradient = with_gradients(hidden.bfloat16(), weight, targets, reference=False)
    assert gradient.dtype == torch.bfloat16 and weight_gradient.dtype == torch.float32


@pytest.mark.parametrize("size", [1.0, 100.0, 1000.0])
def test_sums_that_leave_the_range_of_fp16(size: float) -> None:
    """No loss scale helps where the sum over the tokens, made before it enters, is infinite."""
    hidden, weight, _ = example(n=3000)
    hidden, weight = (hidden.abs() + 0.5) * size, weight * 0.01 / size
    targets = torch.full((3000,), 7)
    expected = with_gradients(hidden, weight, targets, reference=True)
    with torch.autocast("cpu", dtype=torch.float16):
        found = with_gradients(hidden, weight, targets, reference=False)
    assert (float(expected[2].abs().max()) > 65504) == (size > 10)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.isfinite().all() and float((ours - theirs).norm() / theirs.norm()) < 2e-2


def test_without_gradients() -> None:
    hidden, weight, targets = example()
    with torch.no_grad():
        loss = linear_cross_entropy(hidden.requires_grad_(), weight, targets)
    assert not loss.requires_grad
    assert float(loss) == pytest.approx(float(with_gradients(hidden.detach(), weight, targets, reference=True)[0]))


@pytest.mark.parametrize("grad", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("moving", ["", "hidden", "weight", "hidden weight"])
def test_only_the_gradients_that_are_asked_for_are_computed(sliced: int, moving: str, grad: bool) -> None:
    """One matrix product makes the logits, and one more each gradient that is needed: none in evaluation."""
    hidden, weight, targets = example()
    _, of_hidden, of_weight = with_gradients(hidden, weight, targets, reference=True)
    hidden.requires_grad_("hidden" in moving)
    weight.requires_grad_("weight" in moving)
    with torch.set_grad_enabled(grad), FlopCounterMode(display=False) as counter:
        loss = linear_cross_entropy(hidden, weight, targets) * 0.25
    needed = len(moving.split()) if grad else 0
    assert counter.get_total_flops() == (1 + needed) * 2 * N * DIMS * VOCAB
    assert loss.requires_grad == bool(needed)
    if needed:
        loss.backward()
    for tensor, expected in ((hidden, of_hidden), (weight, of_weight)):
        assert (tensor.grad is not None) == (grad and tensor.requires_grad)
        if tensor.grad is not None:
            torch.testing.assert_close(tensor.grad, expected, rtol=1e-5, atol=1e-5)


def test_the_same_bits_twice(deterministic: None) -> None:
    hidden, weight, targets = example(n=301)
    first, second = (with_gradients(hidden, weight, targets, reference=False) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_token_losses(sliced: int) -> None:
    hidden, weight, targets = example()
    weight[targets[1]] = 10 * hidden[1]  # one that is surely the likeliest
    targets = ignore(targets, "some")
    losses, hits = token_losses(hidden, weight, targets)
    logits = hidden @ weight.t()
    expected = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(hits, logits.argmax(dim=-1) == targets)
    assert hits[1] and not hits.all()
    assert float(losses.sum()) == pytest.approx(float(linear_cross_entropy(hidden, weight, targets)), rel=1e-5)
    assert not losses[targets == IGNORED].any() and not hits[targets == IGNORED].any()


def test_token_losses_under_autocast() -> None:
    hidden, weight, targets = example()
    plain, _ = token_losses(hidden, weight, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, _ = token_losses(hidden, weight, targets)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, plain, rtol=2e-2, atol=0.1)
