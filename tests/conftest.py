"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

# Nothing may reach the network; the tests of the Hub start processes with settings of their own.
os.environ["HF_HUB_OFFLINE"] = "1"

SHARED = Path(__file__).resolve().parents[2] / "shared"
TINY = {"vocab_size": 61, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 3, "bos_token_id": 60}
TINY |= {"eos_token_id": 60, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}


@pytest.fixture
def shared() -> Path:
    """The folder of development material beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("the development material in ../shared is not here")
    return SHARED


@pytest.fixture
def make_reference() -> Callable[..., Any]:
    """Makes a transformers GPT-2 with random weights, biases and norms included, from changes to a tiny config."""

    def make(head: str = "GPT2LMHeadModel", seed: int = 0, **changes: Any) -> Any:
        import transformers

        torch.manual_seed(seed)
        config = transformers.GPT2Config(**(TINY | changes), attn_implementation="eager")
        model = getattr(transformers, head)(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        return model

    return make


@pytest.fixture
def tiny_folder(tmp_path: Path, make_reference: Callable[..., Any]) -> Path:
    """A whole tiny checkpoint, as transformers writes it."""
    folder = tmp_path / "tiny"
    make_reference().save_pretrained(folder)
    return folder


@pytest.fixture
def deterministic() -> Iterator[None]:
    """The setting that runs on the CPU are made with."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
