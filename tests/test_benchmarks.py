"""What `make bench` starts with: data and a tokenizer that are in the repository, and errors that can be acted on."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import OFFLINE, ROOT

from benchmarks import sentiment_training
from config import BUNDLED_CHECKPOINTS, GPT2Config, UserError
from datasets import SENTIMENT_TASKS, read_split
from models.checkpoint import read_config
from models.tokenizer import load_tokenizer

SCRIPT = "benchmarks/sentiment_training.py"


def as_make_starts_it() -> list[str]:
    done = subprocess.run(["make", "--dry-run", "bench"], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if SCRIPT in line)
    return shlex.split(line.partition(SCRIPT)[2])


def test_a_fresh_clone_has_what_make_bench_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, folder, tokenizer, name = as_make_starts_it()
    assert (data, tokenizer) == ("--data-dir", "--tokenizer") and (BUNDLED_CHECKPOINTS / name).is_dir()
    task = SENTIMENT_TASKS["sst"]
    for file in task.files.values():
        assert read_split(task, ROOT / folder / file, labelled="test" not in file).examples
    monkeypatch.setattr(sentiment_training, "GPT2Config", lambda: GPT2Config(n_embd=4, n_layer=1, n_head=1))
    checkpoint = sentiment_training.write_checkpoint(tmp_path, name, 0.0)
    config = read_config(checkpoint)
    texts = load_tokenizer(checkpoint, config)
    assert config.vocab_size == 50257 and texts.eos_token == "<|endoftext|>" and len(texts("a film")["input_ids"]) == 2


def test_a_tokenizer_without_an_end_token_is_told(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE({"a": 0}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="has no <|endoftext|>; give GPT-2's"):
        sentiment_training.write_checkpoint(tmp_path / "out", str(tmp_path), 0.0)


@pytest.mark.parametrize("flags", [["--data-dir", "none"], ["--tokenizer", "./none"]])
def test_a_mistake_ends_with_one_line_and_code_2(flags: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, *flags], cwd=ROOT, env=os.environ | OFFLINE, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "none" in done.stderr
