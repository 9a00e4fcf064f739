"""pretrain.py end to end on a tiny corpus: what a run leaves, that it can be repeated and gone on with, its errors."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_corpus import LENGTH, SHAPE, SMALL, STEPS, make_corpus, make_texts
from tiny_run import ROOT, Child, Result, call, only_run, read_log

from config import GPT2Config
from corpus.shards import open_corpus
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from models.tokenizer import load_tokenizer
from optimizer import cosine, warmup_stable_decay
from training import loop
from training.device import open_device
from training.language_models import pretraining
from training.language_models.language_modeling import Windows, evaluate_windows
from training.run_folder import RunFolder

Run = Callable[..., Result]
EVERY = 4  # updates between evaluations


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [record for record in read_log(folder) if "loss" in record]


def rates_of(folder: Path) -> list[float]:
    return [max(record["lr"]) for record in steps_of(folder)]


def weights_of(folder: Path) -> bytes:
    return (folder / "best" / "model.safetensors").read_bytes()


def history_of(folder: Path) -> list[dict[str, Any]]:
    history = json.loads((folder / "metrics.json").read_text())["history"]
    for entry in history:
        entry.pop("seconds")
    return history


@pytest.fixture
def flags(tiny_corpus: Path) -> list[Any]:
    return ["--corpus", tiny_corpus, *SHAPE, *SMALL]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pretrain")


@pytest.fixture
def finished(pretrain: Run, flags: list[Any], scratch: Path) -> Path:
    """A finished run; made once, and not to be changed."""
    if not (scratch / "finished").exists():
        done = pretrain(*flags, *LENGTH, "--output-dir", scratch / "finished")
        assert done.code == 0, done.err
    return only_run(scratch / "finished")


# ---------------------------------------------------------------------------------------------------------------------
# What a run leaves
# ---------------------------------------------------------------------------------------------------------------------


def test_the_run_folder(finished: Path, tiny_corpus: Path) -> None:
    assert finished.name.startswith("pretrain-tiny-2x16-scratch-s11711-")
    assert {path.name for path in finished.iterdir()} == {
        ".lock", "config.json", "log.jsonl", "metrics.json", "best", "curves.png", "tensorboard",
    }  # fmt: skip
    assert not list(finished.rglob("*.tmp"))
    config = json.loads((finished / "config.json").read_text())
    assert config["task"] == "pretrain" and config["settings"]["dims"] == 16 and config["settings"]["window"] == 16
    assert config["data"]["manifest"] == open_corpus(tiny_corpus).manifest
    assert config["model"]["vocab_size"] == 300 and config["environment"]["packages"]["torch"]

    assert [record["step"] for record in steps_of(finished)] == list(range(1, STEPS + 1))
    for record in steps_of(finished):
        assert record["tokens_per_second"] > 0 and 0 < record["share_of_peak"] < 1 and record["loss"] > 0
    evaluations = [record for record in read_log(finished) if "dev" in record]
    assert [record["step"] for record in evaluations] == list(range(EVERY, STEPS + 1, EVERY))
    assert len([record for record in read_log(finished) if "sample" in record]) == len(evaluations)

    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert list((finished / "tensorboard").glob("events.out.*"))


def test_the_metrics(finished: Path, tiny_corpus: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    train = open_corpus(tiny_corpus).splits["train"]
    assert metrics["steps"] == STEPS and metrics["tokens"] == STEPS * 64
    assert metrics["passes"] == pytest.approx(STEPS * 64 / train.n_tokens, abs=1e-4)
    assert [entry["epoch"] for entry in metrics["history"]] == list(range(1, 6))
    best = min(metrics["history"], key=lambda entry: entry["dev"]["loss"])
    assert metrics["best_epoch"] == best["epoch"] and metrics["dev"] == best["dev"]
    assert metrics["dev"]["n"] == 160
    cost = metrics["cost"]
    assert cost["total_parameters"] == 11904 and cost["matmul_peak_flops"] == 1e11
    assert 0 < cost["train_seconds"] < cost["total_seconds"] and cost["share_of_peak"] > 0
    measured = metrics["validation"]
    assert measured["perplexity"] == pytest.approx(math.exp(measured["loss"]))
    assert measured["documents"] == 14 and 0 < measured["accuracy"] < 1
    bits = measured["loss"] * measured["tokens"] / math.log(2) / measured["utf8_bytes"]
    assert measured["bits_per_byte"] == pytest.approx(bits)


def test_best_loads_in_transformers_with_the_same_logits(finished: Path) -> None:
    import transformers

    reference = transformers.AutoModelForCausalLM.from_pretrained(finished / "best", dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(finished / "best")
    text = "the film in story\n한국어 \U0001f600  two"
    ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :30]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    ours = GPT2Model.from_pretrained(finished / "best").eval()
    with torch.no_grad():
        logits = ours.hidden_state_to_token(ours(ids)["last_hidden_state"])
        torch.testing.assert_close(logits, reference(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
        generated = reference.generate(ids[:, :3], max_new_tokens=4, do_sample=False)
    assert generated.shape == (1, 7)


def test_the_card(finished: Path) -> None:
    card = (finished / "best" / "README.md").read_text()
    measured = json.loads((finished / "metrics.json").read_text())["validation"]
    assert "words" not in measured
    for part in ("2 blocks, 16 wide", "trained from scratch", f"{measured['bits_per_byte']:.4f}", "texts.txt",
                 "1,280 tokens", "20 updates of 64 tokens", "dropout 0, seed 11711"):  # fmt: skip
        assert part in card, part


def test_beta2_is_the_optimizers(pretrain: Run, flags: list[Any], finished: Path, tmp_path: Path) -> None:
    """The first update hardly depends on it, the others do."""
    done = pretrain(*flags, *LENGTH, "--beta2", 0.5, "--output-dir", tmp_path)
    assert done.code == 0, done.err
    usual, other = ([step["loss"] for step in steps_of(folder)] for folder in (finished, only_run(tmp_path)))
    assert other[:2] == pytest.approx(usual[:2], abs=1e-5)
    assert other[2:] != pytest.approx(usual[2:], abs=1e-3)


def test_what_can_be_learned_is_learned(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    done = pretrain(*flags, "--output-dir", tmp_path, "--max-tokens", 120 * 64, "--eval-every", 40)
    assert done.code == 0, done.err
    losses = [entry["dev"]["loss"] for entry in history_of(only_run(tmp_path))]
    first = steps_of(only_run(tmp_path))[0]["loss"]
    assert first == pytest.approx(math.log(300), abs=0.1)  # new weights know nothing
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.6 * first


def test_on_what_build_corpus_makes(pretrain: Run, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n<|endoftext|>\n".join(make_texts(150, seed=4)))
    flags = ["--input", tmp_path / "texts.txt", "--output-dir", tmp_path / "built", "--vocab-type", "unigram"]
    flags += ["--vocab-size", 360, "--validation-share", 0.2, "--special-tokens", "<question>", "--workers", 1]
    assert call(*flags, script="build_corpus") == 0
    done = pretrain("--corpus", tmp_path / "built", *SHAPE, *SMALL, *LENGTH, "--output-dir", tmp_path / "runs")
    assert done.code == 0, done.err
    folder = only_run(tmp_path / "runs")
    assert history_of(folder)[-1]["dev"]["loss"] < 4.6
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "best")
    config = json.loads((folder / "best" / "config.json").read_text())
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (config["bos_token_id"], config["eos_token_id"])
    assert len({config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]}) == 3
    assert tokenizer.decode(tokenizer("the film in")["input_ids"], skip_special_tokens=True) == "the film in"


def test_the_best_state_is_kept_and_not_the_last(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    """A rate that is far too high late: the loss rises, what was saved before stays."""
    done = pretrain(
        *flags, *LENGTH, "--output-dir", tmp_path, "--lr", 0.5, "--warmup", 0.9, "--max-grad-norm", 100,
        "--schedule", "warmup-stable-decay",
    )  # fmt: skip
    assert done.code == 0, done.err
    metrics = json.loads((only_run(tmp_path) / "metrics.json").read_text())
    assert metrics["best_epoch"] < 5 and metrics["dev"]["loss"] < metrics["dev_last"]["loss"]
    step = metrics["best_epoch"] * EVERY
    card = (only_run(tmp_path) / "best" / "README.md").read_text()
    assert f"These weights are those after {step} updates, {step * 64:,} tokens" in card
    assert "of 5 evaluations" in card


def test_saved_in_bf16(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    done = pretrain(*flags, "--max-tokens", 256, "--output-dir", tmp_path, "--save-dtype", "bf16")
    assert done.code == 0, done.err
    tensors = load_file(only_run(tmp_path) / "best" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "more", [["--no-cross-documents"], ["--recompute"], ["--dropout", 0.2], ["--precision", "bf16"]]
)
def test_variants(pretrain: Run, flags: list[Any], finished: Path, tmp_path: Path, more: list[Any]) -> None:
    done = pretrain(*flags, *LENGTH, *more, "--output-dir", tmp_path)
    assert done.code == 0, done.err
    folder = only_run(tmp_path)
    assert history_of(folder)[-1]["dev"]["loss"] < 4.6
    assert (weights_of(folder) == weights_of(finished)) == (more == ["--recompute"])


def test_the_peak_is_measured(flags: list[Any], tmp_path: Path, capsys: Any, as_new_process: None) -> None:
    device = open_device(use_gpu=False, precision="fp32")
    assert 1e8 < pretraining.measure_matmul_peak(device, seconds=0.01) < 1e14


def test_a_run_of_few_updates(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    """Far fewer than what lies between two evaluations, and than could be counted up to."""
    done = pretrain(*flags, "--output-dir", tmp_path, "--max-tokens", 3 * 64, "--eval-every", 10**15)
    assert done.code == 0 and "part 1/1" in done.out, done.err
    assert "those after 3 updates, 192 tokens" in (only_run(tmp_path) / "best" / "README.md").read_text()
    assert [record["step"] for record in steps_of(only_run(tmp_path))] == [1, 2, 3]
    assert (only_run(tmp_path) / "curves.png").exists()


# ---------------------------------------------------------------------------------------------------------------------
# How long, and at which rates
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["cosine", "warmup-stable-decay"])
def test_max_tokens_and_the_schedule(pretrain: Run, flags: list[Any], tmp_path: Path, schedule: str) -> None:
    """10.5 batches are 10 updates; the last part is shorter than the others."""
    done = pretrain(
        *flags, "--output-dir", tmp_path, "--max-tokens", 672, "--schedule", schedule, "--warmup", 0.2
    )  # fmt: skip
    assert done.code == 0, done.err
    folder = only_run(tmp_path)
    form = {"cosine": cosine, "warmup-stable-decay": warmup_stable_decay}[schedule]
    assert rates_of(folder) == pytest.approx([1e-2 * form(step, 10, warmup=2) for step in range(10)])
    assert [record["step"] for record in read_log(folder) if "dev" in record] == [4, 8, 10]
    assert json.loads((folder / "metrics.json").read_text())["tokens"] == 640


def test_without_a_length_it_is_one_pass(pretrain: Run, flags: list[Any], tiny_corpus: Path, tmp_path: Path) -> None:
    n_tokens = open_corpus(tiny_corpus).splits["train"].n_tokens
    done = pretrain(*flags, "--dry-run", "--output-dir", tmp_path)
    assert done.code == 0 and f"{n_tokens // 64} updates, {n_tokens // 64 * 64:,} tokens (1.00 passes)" in done.out


def test_a_small_part_of_a_pass_is_told(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    done = pretrain(*flags, "--batch-tokens", 16, "--max-tokens", 16, "--output-dir", tmp_path)
    assert done.code == 0, done.err
    assert done.out.count("(0.0028 passes)") == 2  # 16 of 5,714 tokens, before and after
    folder = only_run(tmp_path)
    assert json.loads((folder / "metrics.json").read_text())["passes"] == pytest.approx(0.0028, abs=1e-5)
    assert "16 tokens (0.0028 passes over the corpus)" in (folder / "best" / "README.md").read_text()


def test_every_pass_reads_every_window_once(
    pretrain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A small corpus, more than two passes of it."""
    corpus = make_corpus(tmp_path / "small", {"train": 12, "validation": 8})
    n_windows = (open_corpus(corpus).splits["train"].n_tokens - 1) // 16
    seen: list[int] = []
    batch = Windows.batch

    def recording(self: Windows, indices: Any) -> Any:
        if self.split.n_tokens == open_corpus(corpus).splits["train"].n_tokens:
            seen.extend(indices)
        return batch(self, indices)

    monkeypatch.setattr(Windows, "batch", recording)
    tokens = (2 * n_windows // 4 + 1) * 64
    flags = ["--corpus", corpus, *SHAPE, *SMALL, "--max-tokens", tokens, "--output-dir", tmp_path / "runs"]
    assert pretrain(*flags).code == 0
    assert len(seen) >= 2 * n_windows
    assert sorted(seen[:n_windows]) == sorted(seen[n_windows : 2 * n_windows]) == list(range(n_windows))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 64])
def test_the_batch_size_does_not_change_the_loss(
    pretrain: Run, flags: list[Any], finished: Path, tmp_path: Path, batch_size: int
) -> None:
    """4 sequences make an update, in batches of 1, 3 and 1, or 4; the finished run's were of 2."""
    done = pretrain(*flags, *LENGTH, "--output-dir", tmp_path, "--batch-size", batch_size)
    assert done.code == 0, done.err
    losses = [record["loss"] for record in steps_of(only_run(tmp_path))]
    assert losses == pytest.approx([record["loss"] for record in steps_of(finished)], abs=1e-3)


@pytest.mark.slow
def test_a_time_budget_holds(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    """By the clock on the wall; then only the last evaluation follows."""
    done = pretrain(*flags, "--time-budget", "5s", "--eval-every", 50, "--output-dir", tmp_path)
    assert done.code == 0, done.err
    metrics = json.loads((only_run(tmp_path) / "metrics.json").read_text())
    assert metrics["cost"]["train_seconds"] < 6
    positions = json.loads((only_run(tmp_path) / "schedule.json").read_text())["positions"]
    rates = rates_of(only_run(tmp_path))
    assert len(rates) == len(positions) == metrics["steps"] > 1
    assert rates[-1] < 0.1 * max(rates)  # a step takes far less than a tenth of the time


def test_a_time_budget_that_is_too_short(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    done = pretrain(*flags, "--time-budget", "0.001s", "--output-dir", tmp_path)
    assert done.code == 1
    message = "--time-budget 0.001s: over before the first update; give more time"
    assert done.errors == [f"error: {message}"]
    assert json.loads((only_run(tmp_path) / "failed.json").read_text())["error"] == message


def test_each_part_says_speed_and_time_left(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    """For a log file, which has no progress bar."""
    done = pretrain(*flags, *LENGTH, "--output-dir", tmp_path)
    parts = [line for line in done.out.splitlines() if line.startswith("part ")]
    assert len(parts) == 5
    for line in parts[:-1]:
        assert re.search(r" s  [\d,]+ tokens/s, \d+% of peak, \d+ s left", line), line
    assert "left" not in parts[-1]


# ---------------------------------------------------------------------------------------------------------------------
# From a checkpoint
# ---------------------------------------------------------------------------------------------------------------------


def loss_at_the_start(folder: Path, tiny_corpus: Path) -> float:
    corpus = open_corpus(tiny_corpus)
    model = GPT2LanguageModel(GPT2Model.from_pretrained(folder))
    windows = Windows(corpus.splits["validation"], 16, corpus.end_token_id)
    device = open_device(use_gpu=False, precision="fp32")
    chosen = list(range(len(windows)))
    return evaluate_windows(model.eval(), windows, chosen, 8, device, lambda: None)["loss"]


def test_going_on_from_a_checkpoint(
    pretrain: Run, finished: Path, tiny_corpus: Path, tmp_path: Path
) -> None:  # fmt: skip
    """The same vocabulary: the new run begins where the old one ended."""
    flags = ["--corpus", tiny_corpus, "--init-from", finished / "best", "--window", 16, *SMALL, "--eval-tokens", 10_000]
    done = pretrain(*flags, "--lr", 1e-9, "--max-tokens", 64, "--output-dir", tmp_path)
    assert done.code == 0, done.err
    folder = only_run(tmp_path)
    assert folder.name.startswith("pretrain-tiny-2x16-continued-s11711-")
    before = loss_at_the_start(finished / "best", tiny_corpus)
    assert history_of(folder)[0]["dev"]["loss"] == pytest.approx(before, abs=1e-4)
    assert f"continued from {finished.name}" in (folder / "best" / "README.md").read_text()
    assert json.loads((folder / "config.json").read_text())["model"]["n_embd"] == 16


def test_a_checkpoint_keeps_its_dropout(pretrain: Run, tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    raw = json.loads((tiny_model / "config.json").read_text())
    checkpoint = Path(shutil.copytree(tiny_model, tmp_path / "checkpoint"))
    (checkpoint / "config.json").write_text(json.dumps(raw | {"attn_pdrop": 0.3}))
    flags = ["--corpus", tiny_corpus, "--window", 16, *SMALL, "--max-tokens", 64, "--output-dir"]
    own = "0.1 (embeddings), 0.3 (attention), 0.1 (residuals)"
    for name, more, said in (("own", [], own), ("given", ["--dropout", 0.2], "0.2")):
        done = pretrain(*flags, tmp_path / name, "--init-from", checkpoint, *more)
        assert done.code == 0 and f"dropout {said}, seed" in done.out, done.err
        assert f"dropout {said}, seed" in (only_run(tmp_path / name) / "best" / "README.md").read_text()
        saved = json.loads((only_run(tmp_path / name) / "best" / "config.json").read_text())
        dropouts = [saved[kind] for kind in ("embd_pdrop", "attn_pdrop", "resid_pdrop")]
        assert dropouts == ([0.2, 0.2, 0.2] if more else [0.1, 0.3, 0.1])
        assert pretrain("--resume", only_run(tmp_path / name), *more).code == 0


def test_a_prompt_beyond_the_context_brings_no_warning(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    done = pretrain(*flags, "--max-tokens", 64, "--sample-prompt", "the film " * 40, "--output-dir", tmp_path)
    assert done.code == 0 and done.err == ""


def test_going_on_with_another_vocabulary(
    pretrain: Run, finished: Path, tiny_corpus: Path, tmp_path: Path
) -> None:  # fmt: skip
    """Words that both have keep their embeddings, so the beginning is better than a new model's."""
    corpus = make_corpus(tmp_path / "other", vocab_size=290, seed=5)
    checkpoint = Path(shutil.copytree(finished / "best", tmp_path / "best"))
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"pad_token_id": 299}))  # beyond the new vocabulary
    flags = ["--corpus", corpus, "--window", 16, *SMALL, "--lr", 1e-9, "--max-tokens", 64]
    done = pretrain(*flags, "--init-from", checkpoint, "--output-dir", tmp_path / "on")
    assert done.code == 0, done.err
    assert pretrain(*flags, *SHAPE, "--output-dir", tmp_path / "new").code == 0
    continued, new = (only_run(tmp_path / name) for name in ("on", "new"))
    assert history_of(continued)[0]["dev"]["loss"] < history_of(new)[0]["dev"]["loss"] - 0.5
    ours = GPT2Model.from_pretrained(continued / "best")
    theirs = GPT2Model.from_pretrained(finished / "best")
    new_ids = load_tokenizer(corpus / "tokenizer", ours.config).get_vocab()
    old_ids = load_tokenizer(tiny_corpus / "tokenizer", theirs.config).get_vocab()
    both = [token for token in new_ids if token in old_ids]
    assert len(both) > 250 and ours.config.vocab_size == 290
    torch.testing.assert_close(
        ours.wte.weight[[new_ids[token] for token in both]],
        theirs.wte.weight[[old_ids[token] for token in both]],
        rtol=0, atol=1e-7,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Again, and going on
# ---------------------------------------------------------------------------------------------------------------------


def test_the_same_command_twice_gives_the_same_bytes(
    pretrain: Run, flags: list[Any], finished: Path, tmp_path: Path
) -> None:
    assert pretrain(*flags, *LENGTH, "--output-dir", tmp_path / "again").code == 0
    again = only_run(tmp_path / "again")
    assert again.name == finished.name
    for file in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (again / "best" / file).read_bytes() == (finished / "best" / file).read_bytes()
    assert history_of(again) == history_of(finished)
    assert pretrain(*flags, *LENGTH, "--output-dir", tmp_path / "other", "--seed", 3).code == 0
    assert weights_of(only_run(tmp_path / "other")) != weights_of(finished)


def test_a_complete_run_is_shown_and_left_alone(pretrain: Run, flags: list[Any], finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    metrics = json.loads((finished / "metrics.json").read_text())
    for again in ([*flags, *LENGTH, "--output-dir", finished.parent], ["--resume", finished]):
        done = pretrain(*again)
        assert done.code == 0 and done.err == ""
        assert f"complete since {metrics['finished']}" in done.out and "train loss" not in done.out
        assert f"{metrics['validation']['bits_per_byte']:.3f} bits per byte" in done.out
        assert done.out.rstrip().endswith(finished.name)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_of_several_processes_one_shows_a_complete_run(
    pretrain: Run, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    done = pretrain("--resume", finished)
    assert (done.code, done.out, done.err) == (0, "", "")


def test_other_corpora_are_other_runs(pretrain: Run, flags: list[Any], finished: Path, tmp_path: Path) -> None:
    other = make_corpus(tmp_path / "tiny", seed=9)
    done = pretrain(*flags, *LENGTH, "--corpus", other, "--output-dir", finished.parent, "--dry-run")
    assert done.code == 0 and finished.name not in done.out
    done = pretrain("--resume", finished, "--corpus", other)
    assert done.code == 2 and len(done.errors) == 1 and "this run has corpus" in done.errors[0]


def test_overwrite_starts_anew(pretrain: Run, flags: list[Any], finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / finished.name))
    (copy / "best" / "old").write_text("old")
    done = pretrain(*flags, *LENGTH, "--output-dir", tmp_path, "--overwrite")
    assert done.code == 0 and "part 1/5" in done.out
    assert not (copy / "best" / "old").exists() and weights_of(copy) == weights_of(finished)


class Crash(BaseException):
    """Stands for the process's end."""


def assert_same_run(folder: Path, whole: Path) -> None:
    assert weights_of(folder) == weights_of(whole)
    assert history_of(folder) == history_of(whole)
    assert [record["step"] for record in steps_of(folder)] == [record["step"] for record in steps_of(whole)]
    assert [r["loss"] for r in steps_of(folder)] == [r["loss"] for r in steps_of(whole)]
    kinds = [[(r["step"], "dev" in r, r.get("sample")) for r in read_log(path)] for path in (folder, whole)]
    assert kinds[0] == kinds[1]  # each evaluation and each sample once
    metrics, others = (json.loads((path / "metrics.json").read_text()) for path in (folder, whole))
    for name in ("dev", "dev_last", "best_epoch", "validation", "steps", "tokens", "passes"):
        assert metrics[name] == others[name], name
    assert not (folder / "checkpoint").exists() and not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [(RunFolder, "save_state", 1), (RunFolder, "save_state", 9), (RunFolder, "log", 6),
     (pretraining, "plot_curves", 1), (RunFolder, "publish_best", 1), (RunFolder, "finish", 1)],
)  # fmt: skip
def test_a_crash_at_any_stage(
    pretrain: Run, flags: list[Any], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    owner: Any, name: str, call: int, before: bool,
) -> None:  # fmt: skip
    """Right before or right after each step that changes the folder."""
    original, calls = getattr(owner, name), []

    def crashing(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if before and len(calls) == call:
            raise Crash
        result = original(*arguments, **named)
        if not before and len(calls) == call:
            raise Crash
        return result

    monkeypatch.setattr(owner, name, crashing)
    again = [*flags, *LENGTH, "--output-dir", tmp_path, "--save-every", 1e-9]  # before each update and evaluation
    with pytest.raises(Crash):
        pretrain(*again)
    monkeypatch.setattr(owner, name, original)
    done = pretrain(*again)
    assert done.code == 0, done.err
    assert_same_run(only_run(tmp_path), finished)


def test_a_run_goes_on_from_wherever_the_user_is(
    pretrain: Run, finished: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corpus, checkpoint and schedule were named as seen from the first folder; two of them move."""
    for source, name in ((tiny_corpus, "tiny"), (finished, "start")):
        shutil.copytree(source, tmp_path / name)
    record = {"form": "cosine", "warmup": 0.1, "total_steps": 1000, "positions": [i * 50.0 for i in range(12)]}
    (tmp_path / "s.json").write_text(json.dumps(record))
    flags = ["--corpus", "tiny", "--init-from", "start", "--schedule", "s.json", "--window", 16, *SMALL]
    monkeypatch.chdir(tmp_path)
    assert pretrain(*flags, "--output-dir", "whole").code == 0

    log = RunFolder.log

    def interrupting(self: RunFolder, record: dict[str, Any]) -> None:
        log(self, record)
        if record["step"] == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunFolder, "log", interrupting)
    monkeypatch.setattr(sys, "argv", ["/some/where/pretrain.py", *map(str, flags), "--init_only"])
    assert pretrain(*flags, "--output-dir", "runs").code == 143
    monkeypatch.setattr(RunFolder, "log", log)
    folder, whole = only_run(tmp_path / "runs"), only_run(tmp_path / "whole")
    assert folder.name == whole.name
    (tmp_path / "s.json").unlink()
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    monkeypatch.setattr(sys, "argv", ["pretrain.py", "--resume", str(folder)])

    done = pretrain("--resume", folder, "--dry-run")
    assert done.code == 0, done.err
    (tmp_path / "start").rename(tmp_path / "moved")
    done = pretrain("--resume", folder)
    assert done.code == 2 and "start" in done.errors[0]
    done = pretrain("--resume", folder, "--init-from", tmp_path / "moved")
    assert done.code == 0 and "going on at part 2, step 6 of 12" in done.out, done.err
    assert_same_run(folder, whole)
    card = (folder / "best" / "README.md").read_text()
    assert "python pretrain.py --corpus tiny --init-from start --schedule s.json --window 16" in card
    assert "--resume" not in card and "init_only" not in card


LONG = ["--max-tokens", 120 * 64, "--eval-every", 25, "--dropout", 0.1, "--no-cross-documents"]  # 1.3 passes


@pytest.fixture
def whole(pretrain: Run, flags: list[Any], scratch: Path) -> Path:
    """A longer run that was never interrupted; made once."""
    if not (scratch / "long").exists():
        done = pretrain(*flags, *LONG, "--output-dir", scratch / "long")
        assert done.code == 0, done.err
    return only_run(scratch / "long")


def wait_for_steps(runs: Path, child: Child, count: int) -> None:
    for _ in range(8000):
        logs = list(runs.glob("*/log.jsonl"))
        if logs and logs[0].read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)
        assert child.is_running or list(runs.glob("*/metrics.json")), child.wait()
    raise AssertionError("the run does not come on")


@pytest.mark.slow
def test_a_signal_and_two_kills_change_nothing(flags: list[Any], whole: Path, tmp_path: Path) -> None:
    """In the first pass over the corpus, in the second, and by another command."""
    runs = tmp_path / "runs"
    again = [*flags, *LONG, "--output-dir", runs]
    child = Child(again, tmp_path, script="pretrain")
    wait_for_steps(runs, child, 40)
    child.signal(signal.SIGTERM)
    done = child.wait()
    assert done.code == 143 and "Traceback" not in done.err, done.err
    folder = only_run(runs)
    message = "interrupted; the state is saved; to go on, run the same command again, or: python pretrain.py --resume "
    assert message in done.err
    assert (folder / "checkpoint" / "state.json").exists() and not (folder / "metrics.json").exists()
    for count, command in ((60, ["--resume", folder]), (105, again)):
        child = Child([*command, "--save-every", 0.001], tmp_path, script="pretrain")
        wait_for_steps(runs, child, count)
        child.process.kill()
        child.process.join()
    done = Child(["--resume", folder], tmp_path, script="pretrain").wait()
    assert done.code == 0 and "going on at part" in done.out, done.err
    assert_same_run(folder, whole)


class Clock:
    """Stands for the module ``time``: every look at it takes so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 1000.0, seconds

    def perf_counter(self) -> float:
        self.now += self.seconds
        return self.now


def test_an_interrupted_time_budget_goes_on_and_can_be_repeated(
    pretrain: Run, flags: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time counts while the run works, not while it rests; the schedule is that of one run."""
    clock, log = Clock(0.05), RunFolder.log

    def interrupting(self: RunFolder, record: dict[str, Any]) -> None:
        log(self, record)
        if record["step"] == 13:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(pretraining, "time", clock)
    monkeypatch.setattr(RunFolder, "log", interrupting)
    again = [*flags, "--time-budget", "10s", "--eval-every", 10, "--output-dir", tmp_path / "timed"]
    done = pretrain(*again)
    assert done.code == 143 and "the state is saved" in done.err
    monkeypatch.setattr(RunFolder, "log", log)
    done = pretrain(*again)
    assert done.code == 0, done.err
    timed = only_run(tmp_path / "timed")
    positions = json.loads((timed / "schedule.json").read_text())["positions"]
    metrics = json.loads((timed / "metrics.json").read_text())
    assert len(positions) == metrics["steps"] > 25 and positions == sorted(positions)
    assert metrics["cost"]["train_seconds"] < 10 and metrics["cost"]["total_seconds"] == pytest.approx(10, abs=2)
    between = [b - a for a, b in itertools.pairwise(positions)]
    assert max(between) < 8 * min(between)  # the pause left no gap
    assert rates_of(timed)[-1] < 0.01 * max(rates_of(timed))

    flags = [*flags, "--eval-every", 10, "--schedule", timed / "schedule.json", "--output-dir", tmp_path / "again"]
    assert pretrain(*flags).code == 0
    repeated = only_run(tmp_path / "again")
    assert rates_of(repeated) == rates_of(timed)
    assert weights_of(repeated) == weights_of(timed) and history_of(repeated) == history_of(timed)


# ---------------------------------------------------------------------------------------------------------------------
# What the user got wrong
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--corpus", "nowhere"], ["nowhere/manifest.json: no such file", "build_corpus.py"]),
        (["--window", 64], ["--window 64: longer than the model's context of 32"]),
        (["--dims", 16, "--heads", 3], ["--dims 16: no multiple of --heads 3"]),
        (["--time-budget", "soon"], ["--time-budget soon: not a time", "90m, 2h or 1h30m"]),
        (["--time-budget", "0s"], ["--time-budget 0s: not a time"]),
        (["--time-budget", "-1h"], ["--time-budget"]),
        (["--schedule", "triangle"], ["--schedule triangle: neither a form (cosine, warmup-stable-decay) nor"]),
        (["--batch-tokens", 15], ["--batch-tokens 15: less than one window of 16"]),
        (["--batch-tokens", 100_000], ["5,714 tokens, less than one batch of 100,000", "smaller --batch-tokens"]),
        (["--max-tokens", 63], ["--max-tokens 63: less than one batch of 64 tokens; give more"]),
        (["--dropout", 1], ["--dropout 1.0: must be"]),
        (["--lr", 0], ["--lr 0.0: must be greater than 0"]),
        (["--layers", 0], ["--layers 0: must be at least 1"]),
        (["--size", "huge"], ["--size", "huge"]),
        (["--precision", "fp16"], ["--precision fp16 needs a GPU"]),
        (["--init-from", "./nowhere"], ["nowhere: no such folder"]),
        (["--resume", "nowhere"], ["--resume nowhere: holds no run"]),
    ],
    ids=lambda value: "-".join(map(str, value))[:40] if isinstance(value, list) else None,
)  # fmt: skip
def test_mistakes(
    pretrain: Run, flags: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[Any], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = pretrain(*flags, "--output-dir", tmp_path / "runs", *more)
    assert done.code == 2 and done.out == ""
    (error,) = done.errors
    for part in parts:
        assert part in error, error
    assert list(tmp_path.iterdir()) == []


def test_no_corpus(pretrain: Run, tmp_path: Path) -> None:
    done = pretrain("--output-dir", tmp_path / "runs")
    assert done.code == 2 and done.errors == ["error: --corpus: missing; give a folder made by build_corpus.py"]


def test_several_problems_are_told_at_once(pretrain: Run, tmp_path: Path) -> None:
    done = pretrain(
        "--corpus", tmp_path / "none", "--time-budget", "soon", "--schedule", tmp_path / "none.json", "--init-from",
        "./nowhere", "--output-dir", tmp_path / "runs",
    )  # fmt: skip
    assert done.code == 2 and len(done.errors) == 4 and not list(tmp_path.iterdir())


def test_a_checkpoint_brings_its_shape(pretrain: Run, finished: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    flags = ["--corpus", tiny_corpus, "--init-from", finished / "best", "--output-dir", tmp_path / "runs"]
    for more in (["--layers", 3], ["--size", "mini"], ["--context", 64]):
        done = pretrain(*flags, *more)
        assert done.code == 2 and "--init-from brings its own shape; leave out" in done.errors[0]
    assert not list(tmp_path.iterdir())


def test_a_schedule_is_repeated_as_a_whole(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    record = {"form": "cosine", "warmup": 0.02, "total_steps": 100, "positions": [0.0, 40.5, 99.0]}
    path.write_text(json.dumps(record))
    for more in (["--max-tokens", 640], ["--time-budget", "1m"]):
        done = pretrain(*flags, "--schedule", path, *more, "--output-dir", tmp_path / "runs")
        assert done.code == 2 and f"--schedule {path}: repeats a schedule; leave out" in done.errors[0]
    done = pretrain(*flags, "--schedule", path, "--output-dir", tmp_path / "runs", "--dry-run")
    assert done.code == 0 and "training  3 updates" in done.out
    for bad in ("[]", "{", "{}", json.dumps(record | {"positions": []}), json.dumps(record | {"form": "triangle"})):
        path.write_text(bad)
        done = pretrain(*flags, "--schedule", path, "--output-dir", tmp_path / "runs")
        assert done.code == 2 and "nor the schedule.json of a run" in done.errors[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"positions": [0.0, math.nan]},
        {"positions": [math.inf]},
        {"positions": [-1.0, 2.0]},
        {"positions": [0.0, 3.0, 2.0]},
        {"positions": [0.0, 4.0]},
        {"warmup": 1.0},
        {"warmup": math.nan},
        {"total_steps": math.inf},
    ],
    ids=str,
)
def test_a_schedule_that_was_changed(pretrain: Run, flags: list[Any], tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "schedule.json"
    record = {"form": "cosine", "warmup": 0.5, "total_steps": 4, "positions": [0.0, 1.0, 2.0, 3.0]}
    path.write_text(json.dumps(record | change))
    done = pretrain(*flags, "--schedule", path, "--output-dir", tmp_path / "runs")
    assert done.code == 2 and len(done.errors) == 1 and f"--schedule {path}: " in done.errors[0]
    assert "schedule.json of a run" in done.errors[0] and not (tmp_path / "runs").exists()


def test_a_repeated_schedule_brings_its_warmup(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    record = {"form": "cosine", "warmup": 0.5, "total_steps": 4, "positions": [0.0, 1.0, 2.0, 3.0]}
    path.write_text(json.dumps(record))
    done = pretrain(*flags, "--schedule", path, "--warmup", 0.1, "--output-dir", tmp_path / "runs")
    assert done.code == 2 and done.errors == [f"error: --schedule {path}: repeats a warmup of 0.5; leave out --warmup"]
    done = pretrain(*flags, "--schedule", path, "--warmup", 0.5, "--output-dir", tmp_path / "runs")
    assert done.code == 0, done.err
    folder = only_run(tmp_path / "runs")
    assert json.loads((folder / "config.json").read_text())["settings"]["warmup"] == 0.5
    for again in (["--resume", folder], [*flags, "--schedule", path, "--output-dir", tmp_path / "runs"]):
        done = pretrain(*again)
        assert done.code == 0 and "complete since" in done.out, done.err
    done = pretrain("--resume", folder, "--warmup", 0.1)
    assert done.code == 2 and "has warmup 0.5, not 0.1" in done.err


def test_a_changed_shard(pretrain: Run, flags: list[Any], tiny_corpus: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(tiny_corpus, tmp_path / "corpus"))
    shard = corpus / "tokens" / "train-00001.bin"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    (corpus / "tokens" / "validation-00000.bin").unlink()
    done = pretrain(*flags, "--corpus", corpus, "--output-dir", tmp_path / "runs")
    assert done.code == 2 and len(done.errors) == 2
    for error, name in zip(done.errors, ("train-00001.bin", "validation-00000.bin"), strict=True):
        assert name in error and "build it anew" in error

    corpus = Path(shutil.copytree(tiny_corpus, tmp_path / "other"))
    (corpus / "tokenizer" / "tokenizer_config.json").unlink()
    done = pretrain(*flags, "--corpus", corpus, "--output-dir", tmp_path / "runs")
    assert done.code == 2 and "tokenizer_config.json: can't be read" in done.errors[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("documents", "part"),
    [({"train": 1, "validation": 9}, "its train split holds"), ({"train": 60}, "its validation split holds 0 tokens")],
)
def test_a_corpus_that_is_too_small(
    pretrain: Run, tmp_path: Path, documents: dict[str, int], part: str
) -> None:  # fmt: skip
    corpus = make_corpus(tmp_path / "small", documents)
    done = pretrain("--corpus", corpus, "--size", "mini", "--output-dir", tmp_path / "runs")
    assert done.code == 2 and any(part in error and "less than one window of 512" in error for error in done.errors)
    assert any("build a corpus of more documents" in error for error in done.errors) == ("validation" not in documents)
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_writes_nothing(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    done = pretrain(*flags, *LENGTH, "--output-dir", tmp_path / "runs", "--dry-run")
    assert done.code == 0 and done.err == ""
    assert "dry run" in done.out and "20 updates, 1,280 tokens" in done.out and "2 blocks, 16 wide" in done.out
    assert "time      about 10 s on this machine" in done.out
    done = pretrain(*flags, "--time-budget", "1h", "--output-dir", tmp_path / "runs", "--dry-run")
    assert done.code == 0 and "time      about" not in done.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [["--dims", 10**9, "--heads", 1], ["--context", 10**18], ["--layers", 10**12]])
def test_a_size_that_no_disk_holds(pretrain: Run, flags: list[Any], tmp_path: Path, more: list[Any]) -> None:
    done = pretrain(*flags, *more, "--output-dir", tmp_path / "runs", "--dry-run")
    assert done.code == 2 and len(done.errors) == 1 and "the run needs about" in done.errors[0]


def test_parameters_are_counted_without_making_them(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    config = GPT2Config.from_dict(json.loads((finished / "best" / "config.json").read_text()))
    assert pretraining.parameters_of(config) == metrics["cost"]["total_parameters"]
    config = dataclasses.replace(config, n_inner=40)
    made = sum(parameter.numel() for parameter in GPT2Model(config).parameters())
    assert pretraining.parameters_of(config) == made


def test_resume_names_every_contradiction(
    pretrain: Run, finished: Path, tiny_corpus: Path, tmp_path: Path
) -> None:  # fmt: skip
    done = pretrain(
        "--resume", finished, "--lr", 1e-3, "--layers", 3, "--seed", 4, "--schedule", "warmup-stable-decay",
        "--output-dir", tmp_path,
    )  # fmt: skip
    assert done.code == 2 and len(done.errors) == 5
    for part in (
        "has lr 0.01, not 0.001",
        "has layers 2, not 3",
        "has seed 11711, not 4",
        "has schedule",
        "--output-dir",
    ):
        assert any(part in error for error in done.errors), part
    agreeing = ["--lr", 1e-2, "--layers", 2, "--schedule", "cosine", "--corpus", tiny_corpus, "--save-every", 1]
    assert pretrain("--resume", finished, *agreeing, "--output-dir", finished.parent).code == 0


def test_resume_of_another_tasks_run(pretrain: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"task": "classifier", "settings": {}, "identity": {}}))
    done = pretrain("--resume", tmp_path)
    assert done.code == 2 and f"--resume {tmp_path}: is a run of another task, classifier" in done.errors[0]


def test_a_loss_that_explodes_is_told(pretrain: Run, flags: list[Any], tmp_path: Path) -> None:
    done = pretrain(*flags, *LENGTH, "--output-dir", tmp_path, "--lr", 1e30)
    assert done.code == 1
    (error,) = done.errors
    assert "the loss became" in error and "at step" in error and "window" in error and "--lr" in error
    assert (only_run(tmp_path) / "failed.json").exists() and not (only_run(tmp_path) / "metrics.json").exists()


@pytest.mark.slow
def test_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "pretrain.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert done.returncode == 0 and "--time-budget" in done.stdout and "examples:" in done.stdout


def test_init_only_writes_an_empty_model_that_transformers_loads(pretrain: Run, flags: list[Any], tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = pretrain(*flags, *LENGTH, "--init-only", "--output-dir", tmp_path)
    assert done.code == 0, done.err
    folder = only_run(tmp_path) / "initial"
    assert f"untrained model: {folder}" in done.out
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(folder)) == 300
    assert float(model.transformer.wte.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not (only_run(tmp_path) / "metrics.json").exists()


def test_a_run_that_began_with_init_only_can_be_trained(
    pretrain: Run, flags: list[Any], finished: Path, tmp_path: Path
) -> None:
    assert pretrain(*flags, *LENGTH, "--init-only", "--output-dir", tmp_path).code == 0
    config = only_run(tmp_path) / "config.json"
    assert json.loads(config.read_text())["environment"]["precision"] is None  # it may be trained elsewhere
    done = pretrain("--resume", only_run(tmp_path))
    assert done.code == 0, done.err
    assert json.loads(config.read_text())["environment"]["precision"] in ("fp32", "bf16")
    assert weights_of(only_run(tmp_path)) == weights_of(finished)


def test_init_only_beside_a_complete_run(pretrain: Run, flags: list[Any], finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / finished.name))
    assert pretrain(*flags, *LENGTH, "--init-only", "--output-dir", tmp_path / "new").code == 0
    new = (only_run(tmp_path / "new") / "initial" / "model.safetensors").read_bytes()
    for again in ([*flags, *LENGTH, "--output-dir", tmp_path], ["--resume", copy]):
        done = pretrain(*again, "--init-only", "--dry-run")
        assert done.code == 0 and "dry run" in done.out and not (copy / "initial").exists()
        done = pretrain(*again, "--init-only")
        assert done.code == 0 and f"untrained model: {copy / 'initial'}" in done.out
        assert (copy / "initial" / "model.safetensors").read_bytes() == new
        shutil.rmtree(copy / "initial")
    assert weights_of(copy) == weights_of(finished) and (copy / "metrics.json").exists()
