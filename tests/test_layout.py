"""Where the real tokens of a padded batch are: packing, attention's groups, and their inverses."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from modules.layout import TokenLayout

pytestmark = pytest.mark.usefixtures("one_thread")


def padded_mask(lengths: list[int], side: str) -> Tensor:
    width = max(lengths)
    rows = [[1] * length + [0] * (width - length) for length in lengths]
    return torch.tensor(rows if side == "right" else [row[::-1] for row in rows])


def random_masks(count: int) -> list[Tensor]:
    """Padding on either side, on both, and holes inside; at least one real token per sequence."""
    generator, masks = random.Random(0), []
    for i in range(count):
        lengths = [generator.randint(1, 50) for _ in range(generator.randint(1, 9))]
        mask = padded_mask(lengths, generator.choice(["left", "right"]))
        if i % 3 == 0:
            holes = torch.rand(mask.shape, generator=torch.Generator().manual_seed(i)) < 0.3
            mask = mask.masked_fill(holes, 0)
            mask[:, generator.randrange(mask.shape[1])] = 1
        masks.append(mask)
    return masks


def sequences(rectangle: Tensor, mask: Tensor) -> list[list]:
    """The real tokens of each sequence, by the definition."""
    return [row[keep.bool()].tolist() for row, keep in zip(rectangle, mask, strict=True)]


@pytest.mark.parametrize("mask", random_masks(60), ids=lambda mask: f"{tuple(mask.shape)}")
def test_round_trips(mask):
    layout = TokenLayout.from_mask(mask)
    ids = torch.arange(mask.numel()).view(mask.shape)
    packed = layout.pack(ids)
    assert len(packed) == mask.sum()
    # packed: whole sequences, in the order of their length
    ordered = sorted(sequences(ids, mask), key=len)
    assert packed.tolist() == [token for sequence in ordered for token in sequence]
    assert layout.position_ids.tolist() == [t for sequence in ordered for t in range(len(sequence))]

    states = torch.randn(len(packed), 3)
    rectangle = layout.unpack(states)
    assert rectangle.shape == (*mask.shape, 3)
    assert rectangle[~mask.bool()].count_nonzero() == 0
    assert torch.equal(rectangle.flatten(0, 1).index_select(0, layout.token_index), states)
    last = torch.stack([rectangle[i, row.nonzero().max()] for i, row in enumerate(mask)])
    assert torch.equal(states.index_select(0, layout.last_index), last)

    groups = layout.to_groups(states)
    assert torch.equal(layout.from_groups(groups), states)
    rows = [row for group in groups for row in group]
    for row, sequence in zip(rows, states.split([len(s) for s in ordered]), strict=True):
        assert torch.equal(row[: len(sequence)], sequence)  # padded on the right only ...
        assert row[len(sequence) :].count_nonzero() == 0  # ... with zeros
        assert len(row) - len(sequence) < 16  # few of them
    assert len(groups) <= -(-mask.shape[1] // 16)


@pytest.mark.parametrize("mask", random_masks(6), ids=lambda mask: f"{tuple(mask.shape)}")
def test_gradients(mask):
    """Numerically, through every map: what comes from padding is nothing, what comes from a token is its own."""
    layout = TokenLayout.from_mask(mask)
    packed = torch.randn(int(mask.sum()), 2, dtype=torch.float64, requires_grad=True)

    def through(packed: Tensor) -> Tensor:
        # A causal map inside each group, so that what a padded place sent back would reach the tokens before it.
        return layout.unpack(layout.from_groups([group.sin().cumsum(dim=1) for group in layout.to_groups(packed)]))

    assert torch.autograd.gradcheck(through, packed, fast_mode=True)


def test_both_sides_are_the_same_packed():
    lengths = [5, 1, 33, 5]
    right, left = (TokenLayout.from_mask(padded_mask(lengths, side)) for side in ("right", "left"))
    assert torch.equal(right.position_ids, left.position_ids)
    assert torch.equal(right.last_index, left.last_index)
    assert right.groups == left.groups


def test_no_padding_needs_no_index():
    layout = TokenLayout.from_mask(torch.ones(3, 7))
    assert layout.group_index is None
    assert layout.groups == ((3, 7),)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32], ids=str)
def test_any_type_of_mask(dtype):
    mask = padded_mask([2, 5], "left")
    assert torch.equal(TokenLayout.from_mask(mask.to(dtype)).token_index, TokenLayout.from_mask(mask).token_index)


@pytest.mark.parametrize("mask", [torch.tensor([[1, 1], [0, 0]]), torch.zeros(2, 0), torch.zeros(0, 3)], ids=str)
def test_empty_sequences_are_refused(mask):
    with pytest.raises(ValueError, match="at least one real token"):
        TokenLayout.from_mask(mask)


def test_a_mask_must_be_a_rectangle():
    with pytest.raises(ValueError, match=r"must be \(batch, tokens\), not \(3,\)"):
        TokenLayout.from_mask(torch.ones(3))
