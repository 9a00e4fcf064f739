"""KoGPT-2's exact shape, vocabulary and special tokens, with random weights, through the four tasks with task tokens.

Gigabytes of memory and minutes; `make full-size` runs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_korean import KOGPT2_VOCABULARY, make_kogpt2
from tiny_run import ROOT, Result, only_run

from models.generation import generate
from models.gpt2 import GPT2Model
from models.logits import Decoding

pytestmark = [pytest.mark.full_size, pytest.mark.timeout(1800)]
FEW = ["--language", "ko", "--epochs", 1, "--batch-size", 2, "--limit-train", 6, "--limit-dev", 3, "--limit-test", 3]
SHORT = ["--max-new-tokens", 8]


@pytest.fixture(scope="module")
def kogpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "data/sample").glob("*-ko-train.*"))]
    lines = [line for sample in samples for line in sample.splitlines()]
    folder = tmp_path_factory.mktemp("models") / "kogpt2"
    return make_kogpt2(folder, lines, 4000, n_layer=12, n_head=12, n_embd=768)


@pytest.mark.parametrize(
    ("name", "flags", "measure", "tokens"),
    [
        ("text_generation", ["--strategy", "full", *SHORT], "chrf", 1),
        ("summarization", ["--strategy", "last-n", *SHORT], "rouge_l", 1),
        ("natural_language_inference", ["--strategy", "lora"], "accuracy", 2),
        ("question_answering", ["--strategy", "bitfit", *SHORT], "f1", 2),
    ],
)
def test_kogpt2_goes_through_every_task(
    name: str, flags: list[Any], measure: str, tokens: int, script: Callable[[str], Callable[..., Result]],
    kogpt2: Path, tmp_path: Path,
) -> None:  # fmt: skip
    from transformers import AutoTokenizer, GPT2LMHeadModel

    torch.set_num_threads(2)
    done = script(name)("--model", kogpt2, *FEW, *flags, "--output-dir", tmp_path)
    assert done.code == 0, done.err
    assert all(f"as <unused{i}>" in done.out for i in range(tokens)), done.out
    run = only_run(tmp_path)
    metrics = json.loads((run / "metrics.json").read_text())
    assert measure in metrics["dev"] and measure in metrics["test"]

    best = run / "best"
    tokenizer, theirs = AutoTokenizer.from_pretrained(best), GPT2LMHeadModel.from_pretrained(best).eval()
    assert theirs.config.n_layer == 12 and theirs.config.vocab_size == len(tokenizer) == KOGPT2_VOCABULARY
    ids = tokenizer("오늘은 비가 와서 국수를 먹었다<unused0>").input_ids
    (ours,) = generate(GPT2Model.from_pretrained(best), [ids], Decoding(temperature=0), max_new_tokens=8)
    theirs.generation_config.eos_token_id = None  # eight tokens, whatever they are
    made = theirs.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=3)
    assert made[0, len(ids) :].tolist() == ours
