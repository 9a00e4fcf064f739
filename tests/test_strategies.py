"""Every strategy as a whole run: it trains what it should, is killed anywhere, and goes on to the same bytes."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import Result, call, only_run, results_of
from transformers import AutoModelForSequenceClassification

from config import GPT2Config, RunFailed
from models.classifier import load_classifier
from models.gpt2 import GPT2Model
from strategies import STRATEGIES, strategies_of
from training.classification import lm_stage
from training.classification import run as classification
from training.fine_tuning import trainable_share
from training.loop import _Loop

Run = Callable[..., Result]
SENTIMENT = list(strategies_of("sentiment"))
SMALL = {
    "lora": ["--lora-rank", 2],
    "prefix": ["--prefix-length", 3, "--prefix-hidden", 8],
    "last-n": ["--last-n", 1],
    "ulmfit": ["--lm-epochs", 2, "--lm-lr", 1e-3, "--epochs", 4],
}


@pytest.fixture(scope="module")
def flags_for(tiny_model: Path, tiny_data: Path) -> Callable[[str, Path], list[Any]]:
    def flags(name: str, output_dir: Path) -> list[Any]:
        shared = ["--model", tiny_model, "--data-dir", tiny_data, "--dataset", "sst", "--output-dir", output_dir]
        training = ["--epochs", 3, "--batch-size", 8, "--lr", 2e-3, "--seed", 1, "--precision", "fp32"]
        return [*shared, *training, "--strategy", name, *SMALL.get(name, [])]

    return flags


@pytest.fixture(scope="module")
def finished(
    flags_for: Callable[[str, Path], list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of a strategy's uninterrupted run."""
    found: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in found:
            output_dir = tmp_path_factory.mktemp(name)
            assert call(*flags_for(name, output_dir)) == 0
            found[name] = only_run(output_dir)
        return found[name]

    return get


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.usefixtures("as_new_process")
def test_the_stage_of_language_modelling_leaves_no_memory_in_use(
    flags_for: Callable[[str, Path], list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, of_stage, alive = lm_stage.fit, [], []

    def fit_stage(job: Any, *rest: Any) -> Any:
        of_stage.extend(weakref.ref(kept) for kept in (job.model, job.optimizer))
        return fit(job, *rest)

    def fit_classifier(*arguments: Any) -> Any:
        gc.collect()
        alive.extend(reference() is not None for reference in of_stage)
        return fit(*arguments)

    monkeypatch.setattr(lm_stage, "fit", fit_stage)
    monkeypatch.setattr(classification, "fit", fit_classifier)
    assert call(*flags_for("full", tmp_path), "--lm-epochs", 1) == 0
    assert alive == [False, False]


@pytest.mark.usefixtures("as_new_process")
def test_the_stages_note_of_failure_goes_with_its_success(
    flags_for: Callable[[str, Path], list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*flags_for("full", tmp_path), "--lm-epochs", 1]
    with monkeypatch.context() as patched:
        patched.setattr(lm_stage, "collate", lambda *_, **__: (_ for _ in ()).throw(RunFailed("no memory")))
        assert call(*command) == 1
    folder = only_run(tmp_path)
    assert "in the stage" in json.loads((folder / "failed.json").read_text())["error"]
    assert (folder / lm_stage.FOLDER / "failed.json").exists()
    assert call(*command) == 0
    assert not list(folder.rglob("failed.json"))


@pytest.mark.usefixtures("as_new_process")
@pytest.mark.parametrize("name", SENTIMENT)
def test_a_strategys_run(name: str, finished: Callable[[str], Path]) -> None:
    folder = finished(name)
    metrics = metrics_of(folder)
    assert metrics["strategy"] == name and f"-{name}-s1" in folder.name
    losses = [entry["train_loss"] for entry in metrics["history"]]
    assert losses[-1] < losses[0]
    course = {"full": "full-model", "head": "last-linear-layer"}.get(name, name)
    assert (folder / "predictions" / f"{course}-sst-dev-out.csv").exists()
    assert ("lm_stage" in metrics) == (name == "ulmfit")
    epochs = [*metrics.get("lm_stage", {}).get("history", []), *metrics["history"]]
    assert metrics["cost"]["train_seconds"] == pytest.approx(sum(epoch["seconds"] for epoch in epochs), abs=0.01)
    # Measured again, the best model gives the very same numbers: nothing random is left on.
    scores = [json.loads(line) for line in (folder / "predictions/dev-scores.jsonl").read_text().splitlines()]
    assert sum(row["label"] == row["prediction"] for row in scores) / len(scores) == metrics["dev"]["accuracy"]
    best = next(entry for entry in metrics["history"] if entry["epoch"] == metrics["best_epoch"])
    assert best["dev"]["loss"] == pytest.approx(metrics["dev"]["loss"], abs=1e-6)


@pytest.mark.usefixtures("as_new_process")
@pytest.mark.parametrize("name", ["head", "last-n", "bitfit", "lora", "prefix", "ulmfit-static"])
def test_what_is_frozen_stays_as_it_was_pretrained(
    name: str, finished: Callable[[str], Path], tiny_model: Path
) -> None:
    before = dict(GPT2Model.from_pretrained(tiny_model).named_parameters())
    after = {n: p for n, p in load_classifier(finished(name) / "best").gpt2.named_parameters() if n in before}
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    allowed = {
        "head": lambda n: False,
        "prefix": lambda n: False,
        "lora": lambda n: n.endswith("attn.c_attn.weight"),
        "bitfit": lambda n: n.endswith(".bias"),
        "last-n": lambda n: n.startswith(("h.1.", "ln_f.")),
        "ulmfit-static": lambda n: n.startswith("h."),
    }[name]
    assert all(allowed(n) for n in moved)
    assert bool(moved) == (name not in ("head", "prefix"))


@pytest.mark.usefixtures("as_new_process")
@pytest.mark.parametrize("name", ["full", "lora"])
def test_transformers_loads_the_best_model(name: str, finished: Callable[[str], Path]) -> None:
    """LoRA's updates are in the weights."""
    folder = finished(name) / "best"
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    ours = load_classifier(folder)
    ids = torch.tensor([[5, 9, 11, 30]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(ids), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("as_new_process")
def test_the_counted_parameters_are_the_ones_that_train(finished: Callable[[str], Path], tiny_model: Path) -> None:
    raw = json.loads((tiny_model / "config.json").read_text())
    config = GPT2Config.from_dict(raw)
    total = sum(p.numel() for p in GPT2Model(config).parameters())
    for name in ("full", "head", "bitfit", "llrd"):
        share = trainable_share(STRATEGIES[name], config, num_labels=5)
        cost = metrics_of(finished(name))["cost"]
        assert cost["trainable_parameters"] == cost["stored_parameters"] == round(share * total)
    cost = metrics_of(finished("prefix"))["cost"]
    length = json.loads((finished("prefix") / "config.json").read_text())["settings"]["prefix_length"]
    head = 5 * config.n_embd
    assert cost["stored_parameters"] == 2 * config.n_layer * length * config.n_embd + head
    assert cost["trainable_parameters"] > cost["stored_parameters"]


class Killed(BaseException):
    """As suddenly as SIGKILL: nothing is saved on the way out."""


def kill_at(place: tuple[int, int], command: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command until it comes to an update of an epoch, both counted from 0."""
    update = _Loop._update

    def kill(self: Any, indices: list[int], position: float) -> float:
        if (self.progress.epoch, self.progress.window) == place:
            raise Killed
        return update(self, indices, position)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(_Loop, "_update", kill)
        call(*command)


@pytest.mark.usefixtures("as_new_process")
def test_the_time_of_every_process_counts_once_and_that_of_the_first_stage_too(
    flags_for: Callable[[str, Path], list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*flags_for("ulmfit", tmp_path), "--save-every", 1e-6]
    for place, stage, seconds in (((1, 2), lm_stage.FOLDER, 1_000), ((2, 3), "", 20_000)):
        kill_at(place, command, monkeypatch)
        path = only_run(tmp_path) / stage / "checkpoint" / "state.json"
        state = json.loads(path.read_text())
        assert state["total_seconds"] < 100  # nothing of the stage before
        state["total_seconds"] += seconds
        path.write_text(json.dumps(state))
    assert call(*command) == 0
    metrics = metrics_of(only_run(tmp_path))
    assert 1_000 < metrics["lm_stage"]["seconds"] < 1_100 and 21_000 < metrics["cost"]["total_seconds"] < 21_100


@pytest.mark.usefixtures("as_new_process")
@pytest.mark.parametrize("name", SENTIMENT)
def test_a_killed_run_goes_on_to_the_same_bytes(
    name: str,
    flags_for: Callable[[str, Path], list[Any]],
    finished: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed twice: in the second epoch of the first stage, and in the third epoch of what follows."""
    expected = results_of(finished(name))
    command = [*flags_for(name, tmp_path), "--save-every", 1e-6]
    for place in ((1, 2), (2, 3)):
        kill_at(place, command, monkeypatch)
    assert call(*command) == 0
    found = results_of(only_run(tmp_path))
    assert [path for path in expected if found[path] != expected[path]] == [] and found.keys() == expected.keys()


# ---------------------------------------------------------------------------------------------------------------------
# At the command line
# ---------------------------------------------------------------------------------------------------------------------


def test_the_groups_are_shown_before_training(run: Run, flags_for: Any, tmp_path: Path) -> None:
    done = run(*flags_for("ulmfit", tmp_path), "--dry-run")
    assert done.code == 0, done.err
    shown = " ".join(done.out.split())
    assert "stage 1 language model on the task's texts, 2 epochs, rate 0.001" in shown
    assert "concat pooling" in shown and "unfreezes the head in epoch 1" in shown
    for row in ("head 480 0.002 0", "block 1 12,704 0.000769 0", "block 0 12,704 0.000296 0"):
        assert row in shown
    done = run(*flags_for("ulmfit", tmp_path), "--unfreeze-groups", 0, "--epochs", 1, "--dry-run")
    assert done.code == 0 and "unfreezes" not in done.out, done.err


def test_combinations_without_sense_are_refused_all_at_once(run: Run, flags_for: Any, tmp_path: Path) -> None:
    done = run(*flags_for("head", tmp_path), "--lora-rank", 4, "--zone-rates", 1, 1, 2, "--mean-weight", 0.5)
    assert done.code == 2 and not list(tmp_path.iterdir())
    assert [line.split(":")[1].strip() for line in done.errors] == ["--lora-rank", "--zone-rates", "--mean-weight"]


def test_the_table_of_strategies(run: Run) -> None:
    done = run("--list-strategies")
    assert done.code == 0
    names = [line.split()[0] for line in done.out.splitlines() if line and not line.startswith(" ")]
    assert names == ["strategy", *SENTIMENT, "trains:", "rate:", "defaults,"]
    text = " ".join(done.out.split())
    for name in SENTIMENT:
        assert STRATEGIES[name].source in text
    assert "full 100.00% 1.00 2e-05" in text and "(= baseline)" in text and "(= taskA)" in text
    assert "--lora-rank 8 --lora-alpha 16" in text and "--last-n 2 --published-groups --zone-rates 0.5 0.5 5" in text
    assert "nsmc: --weight-decay 0 --schedule constant --warmup 0 --epochs 3 --batch-size 64 --dropout 0.3" in text
    assert "head: --epochs 10 ulmfit: --epochs 6" in text


def test_the_table_has_the_defaults_of_the_data_that_are_named(run: Run, paraphrase: Run) -> None:
    def defaults_in(*flags: str) -> list[str]:
        lines = run("--list-strategies", *flags).out.splitlines()
        return [line.split(":")[0] for line in lines if line.startswith("  ") and line[2] != " "]

    assert defaults_in() == ["  sst", "  cfimdb", "  nsmc", "  custom"]
    assert defaults_in("--dataset", "nsmc", "sst") == ["  nsmc", "  sst"]
    assert defaults_in("--train-file", "a.tsv") == ["  custom"]
    text = " ".join(paraphrase("--list-strategies").out.split())
    assert "full 100.00% 1.00 1e-05" in text and "qqp: --weight-decay 0" in text
