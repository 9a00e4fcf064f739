"""Unlikelihood training: which tokens are candidates, and that the fast loss is the definition's, and its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from modules import cross_entropy
from modules.cross_entropy import IGNORED, LEAST_COMPLEMENT, linear_cross_entropy
from modules.unlikelihood import earlier_tokens, repeated_ngrams


def sets_of(candidates: Tensor) -> list[list[set[int]]]:
    return [[{int(c) for c in step if c != IGNORED} for step in text] for text in candidates]


def test_candidates_are_the_earlier_tokens_as_a_set_without_the_target() -> None:
    ids = torch.tensor([[3, 5, 3, 7], [2, 2, 2, 9]])
    targets = torch.tensor([[5, 3, 7, 3], [2, 2, 9, IGNORED]])
    candidates = earlier_tokens(ids, targets)
    assert sets_of(candidates) == [[{3}, {5}, {3, 5}, {5, 7}], [set(), set(), {2}, set()]]
    for step in candidates[0]:  # each once
        assert len({int(c) for c in step if c != IGNORED}) == int((step != IGNORED).sum())


def test_some_tokens_may_always_come_again() -> None:
    ids, targets = torch.tensor([[3, 5, 3, 7]]), torch.tensor([[5, 3, 7, 8]])
    assert sets_of(earlier_tokens(ids, targets, left_out=[5])) == [[{3}, set(), {3}, {3, 7}]]


def test_what_stands_in_a_source_may_be_said() -> None:
    ids, targets = torch.tensor([[3, 5, 3, 7, 3]]), torch.tensor([[IGNORED, IGNORED, 7, 3, 8]])
    assert sets_of(earlier_tokens(ids, targets)) == [[set(), set(), {3, 5}, {5, 7}, {3, 5, 7}]]
    assert sets_of(earlier_tokens(ids, targets, starts=torch.tensor([2]))) == [[set(), set(), {3}, {7}, {3, 7}]]


def by_definition(hidden: Tensor, weight: Tensor, ids: Tensor, targets: Tensor, alpha: float) -> Tensor:
    """Welleck et al. 2019, equations 1 and 5, one step at a time."""
    total = hidden.new_zeros(())
    for text in range(len(ids)):
        for step, target in enumerate(targets[text].tolist()):
            if target == IGNORED:
                continue
            p = (hidden[text, step] @ weight.T).softmax(-1)
            total = total - p[target].log()
            for candidate in set(ids[text, : step + 1].tolist()) - {target}:
                total = total - alpha * (1 - p[candidate]).clamp(min=LEAST_COMPLEMENT).log()
    return total


@pytest.mark.parametrize("slice_elements", [2**22, 40])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_the_fast_loss_is_the_definition(alpha: float, slice_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "SLICE_ELEMENTS", slice_elements)
    torch.manual_seed(0)
    ids, targets = torch.randint(0, 13, (3, 8)), torch.randint(0, 13, (3, 8))
    targets[1, 5:] = IGNORED
    results = []
    for fast in (True, False):
        hidden = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
        weight = torch.randn(13, 6, generator=torch.Generator().manual_seed(2)).requires_grad_()
        if fast:
            candidates = earlier_tokens(ids, targets).flatten(0, 1)
            loss = linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten(), candidates, alpha)
        else:
            loss = by_definition(hidden, weight, ids, targets, alpha)
        (loss * 2).backward()
        results.append((loss.detach(), hidden.grad, weight.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_a_certain_repetition_costs_a_finite_loss() -> None:
    """1 - p is clamped at 1e-5: no infinite loss, and no gradient beyond it."""
    hidden, weight = torch.tensor([[100.0]], requires_grad=True), torch.tensor([[0.0], [1.0]])
    loss = linear_cross_entropy(hidden, weight, torch.tensor([IGNORED]), torch.tensor([[1]]))
    assert loss.item() == pytest.approx(-math.log(LEAST_COMPLEMENT), rel=1e-4)
    loss.backward()
    assert hidden.grad is not None and float(hidden.grad) == 0.0


def test_tokens_of_repeated_ngrams() -> None:
    text = [1, 2, 3, 4, 9, 1, 2, 3, 4, 5]
    assert repeated_ngrams(text, n=4) == [False] * 5 + [True] * 4 + [False]
    assert repeated_ngrams(text, n=5) == [False] * 10
    assert repeated_ngrams([7, 7, 7], n=2) == [False, True, True]
    assert repeated_ngrams([1, 2], n=4) == [False, False]
