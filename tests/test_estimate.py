"""The time that a dry run names, from the arithmetic of its training counted by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import SIZES, Result, make_rows

from models.checkpoint import read_config
from models.tokenizer import load_tokenizer
from training import estimate

EPOCHS = 3
WEIGHTS = 2 * (4 * 32 * 32 + 8 * 32 * 32 + 13 * 32) + 2 * 32  # two blocks, with biases and norms, and the last norm
NAMED = re.compile(r"^time      about (\S+ \w+) on this machine, from (\S+) TFLOP of training", re.MULTILINE)


@pytest.fixture
def told(
    run: Callable[..., Result], tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, float]]:
    """Flags -> the duration and the operations that a dry run names, on a machine that does 10 million a second."""
    monkeypatch.setattr(estimate, "_peaks", {("cpu", "fp32"): 1e7})

    def dry_run(*flags: Any) -> tuple[str, float]:
        done = run("--model", tiny_model, "--data-dir", tiny_data, "--dataset", "sst", "--epochs", EPOCHS,
                   "--precision", "fp32", "--output-dir", tmp_path, "--dry-run", *flags)  # fmt: skip
        assert done.code == 0, done.err
        ((duration, operations),) = NAMED.findall(done.out)
        return duration, float(operations) * 1e12

    return dry_run


def test_the_time_of_a_run_is_that_of_its_arithmetic(told: Callable[..., tuple[str, float]], tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model, read_config(tiny_model))
    tokens = [
        sum(len(tokenizer(text).input_ids) for text, _ in make_rows(SIZES[split], seed))
        for seed, split in enumerate(("train", "dev"))
    ]
    duration, operations = told("--strategy", "full")
    assert operations == pytest.approx(2 * WEIGHTS * EPOCHS * (3 * tokens[0] + tokens[1]), rel=0.005)
    seconds = estimate.LOADING + operations / 0.5e7
    assert seconds < 100 and duration == f"{seconds:.0f} s"

    _, with_lora = told("--strategy", "lora")  # no gradients of the frozen weights; A and B are of 4 times 32 and 96
    assert operations * 0.6 < with_lora < operations
    _, of_features = told("--strategy", "head")  # one forward pass in all
    assert of_features == pytest.approx(2 * WEIGHTS * (tokens[0] + tokens[1]), rel=0.005)
    _, not_kept = told("--strategy", "head", "--pooling", "attention")  # it trains, so they can't be computed once
    assert not_kept == pytest.approx(EPOCHS * of_features, rel=0.01)


def test_a_block_that_is_gone_through_twelve_times_counts_as_often() -> None:
    sizes = {"embeddings": 1000, "block 0": 50, "other": 7, "pooler": 2, "head": 9}
    groups = {name: [torch.nn.Parameter(torch.zeros(size))] for name, size in sizes.items()}
    assert estimate.weights_per_token(groups, 12) == 12 * 50 + 9
    more = {f"block {i}": groups["block 0"] for i in range(12)}
    assert estimate.weights_per_token(groups | more, 12) == 12 * 50 + 9
    del groups["block 0"]  # an architecture whose blocks have no names that are known
    assert estimate.weights_per_token(groups, 12) == 9
