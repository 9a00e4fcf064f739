"""Two processes compute what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_run import OFFLINE, ROOT, only_run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "datasets", "more"),
    [
        ("full", ["sst", "cfimdb"], []),
        pytest.param("head", ["sst"], [], marks=pytest.mark.distributed),
        pytest.param(
            "ulmfit", ["sst"], ["--epochs", 4, "--lm-epochs", 1, "--lm-lr", 1e-3], marks=pytest.mark.distributed
        ),
    ],
)
def test_two_processes_give_the_results_of_one(
    run: Callable[..., Any], still_model: Path, tiny_data: Path, tmp_path: Path, strategy: str, datasets: list[str],
    more: list[Any],
) -> None:  # fmt: skip
    """45 examples in batches of 4: in each epoch's last batch there is one example, and nothing for one process.

    Gradual unfreezing has parameters without gradients in its first epochs, which DDP must not wait for. torchrun,
    because `accelerate launch --cpu` starts several processes only through MPI.
    """
    flags = [
        "--model", still_model, "--data-dir", tiny_data, "--dataset", *datasets, "--epochs", 2, "--batch-size", 4,
        "--accumulate", 2, "--lr", 1e-2, "--dropout", 0, "--precision", "fp32", "--strategy", strategy,
        *more, "--output-dir",
    ]  # fmt: skip
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, "classifier.py", *map(str, flags), str(tmp_path / "two")],
        cwd=ROOT, env=os.environ | OFFLINE | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 processes, each on CPU") == len(datasets)  # told by one process
    assert run(*flags, tmp_path / "one").code == 0
    for dataset in datasets:
        folders = [next((tmp_path / name).glob(f"*-{dataset}-*")) for name in ("one", "two")]
        one, two = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
        assert one["best_epoch"] == two["best_epoch"]
        for ours, theirs in zip(one["history"], two["history"], strict=True):
            assert theirs["train_loss"] == pytest.approx(ours["train_loss"], abs=1e-4)
            assert theirs["dev"] == pytest.approx(ours["dev"], abs=1e-4)
        assert two["dev"] == pytest.approx(one["dev"], abs=1e-4) and two["dev"]["n"] == 21
        predictions = [sorted(folder.glob("predictions/*.csv")) for folder in folders]
        assert [path.read_bytes() for path in predictions[0]] == [path.read_bytes() for path in predictions[1]]


SIGNALLED = """
import os, signal, sys
import classifier
from training.classification import job as classification_job
from training.cli import run_script

predict = classification_job.predict

def interrupted(*arguments):
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return predict(*arguments)

classification_job.predict = interrupted
sys.exit(run_script(lambda: classifier.main(sys.argv[1:])))
"""


@pytest.mark.slow
@pytest.mark.distributed
def test_a_signal_that_one_process_gets_in_an_evaluation_stops_both_with_the_state_saved(
    run: Callable[..., Any], still_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """They share the evaluation, so one that stopped in it would leave the other waiting."""
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    flags = ["--model", still_model, "--data-dir", tiny_data, "--dataset", "sst", "--epochs", 3, "--batch-size", 8,
             "--precision", "fp32", "--output-dir", tmp_path / "runs"]  # fmt: skip
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | OFFLINE | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launch, str(tmp_path / "signalled.py"), *map(str, flags)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode and "interrupted; the state is saved" in done.stderr
    folder = only_run(tmp_path / "runs")
    state = json.loads((folder / "checkpoint" / "state.json").read_text())
    assert (state["epoch"], state["window"], len(state["history"])) == (1, 0, 1)
    assert "going on at epoch 2, step 6 of 18" in run("--resume", folder).out
