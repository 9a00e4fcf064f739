"""A run that was stopped ends like one that never was: signals, kills, crashes, full disks."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import Child, Result, only_run, read_log, results_of

from training import device
from training.classification import run as classification
from training.interrupt import Interrupted, Signals
from training.run_folder import RunFolder

EPOCHS = {"full-model": 6, "last-linear-layer": 20}
STEPS_PER_EPOCH = 6  # 45 examples, 2 x 4 at a time
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def flags_for(tiny_model: Path, tiny_data: Path) -> Callable[[str, Path], list[Any]]:
    def flags(mode: str, output_dir: Path) -> list[Any]:
        return [
            "--model", tiny_model, "--data-dir", tiny_data, "--dataset", "sst", "--output-dir", output_dir,
            "--fine-tune-mode", mode, "--epochs", EPOCHS[mode], "--batch-size", 4, "--accumulate", 2, "--lr", 2e-3,
            "--schedule", "linear", "--max-grad-norm", 1, "--weight-decay", 0.01,
        ]  # fmt: skip

    return flags


@pytest.fixture(scope="module")
def uninterrupted(
    flags_for: Callable[[str, Path], list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, float]]:
    """The folder of a mode's uninterrupted run, and how long it took."""
    found: dict[str, tuple[Path, float]] = {}

    def get(mode: str) -> tuple[Path, float]:
        if mode not in found:
            scratch = tmp_path_factory.mktemp("uninterrupted")
            Child(["--list-strategies"], scratch).wait()  # starts the process that the others are forked from
            started = time.perf_counter()
            done = Child([*flags_for(mode, scratch / "runs"), "--save-every", 0.0001], scratch).wait()
            assert done.code == 0, done.err
            found[mode] = only_run(scratch / "runs"), time.perf_counter() - started
        return found[mode]

    return get


def wait_for_steps(output_dir: Path, child: Child, count: int) -> Path:
    """Waits until a run has logged so many steps, and returns its folder."""
    for _ in range(6000):
        logs = list(output_dir.glob("*/log.jsonl"))
        if logs and logs[0].read_bytes().count(b"\n") >= count:
            return logs[0].parent
        time.sleep(0.005)
        assert child.is_running or list(output_dir.glob("*/metrics.json")), child.wait()
    raise AssertionError("the run does not come on")


def stop_midway(flags: list[Any], runs: Path, number: int, scratch: Path) -> tuple[Path, Result]:
    """Starts a run and sends a signal in its second epoch. Returns its folder and how it ended."""
    for _ in range(5):
        child = Child(flags, scratch)
        folder = wait_for_steps(runs, child, STEPS_PER_EPOCH + 3)
        child.signal(number)
        done = child.wait()
        if done.code:
            return folder, done
        shutil.rmtree(runs)  # it had ended before: this machine is busy with something else
    raise AssertionError("the run was always faster than the signal")


def assert_log_is_whole(folder: Path, mode: str) -> None:
    """Each step once and each epoch once, in order."""
    records = read_log(folder)
    steps = [record["step"] for record in records if "dev" not in record]
    assert steps == list(range(1, EPOCHS[mode] * STEPS_PER_EPOCH + 1))
    epochs = [(record["step"], record["epoch"]) for record in records if "dev" in record]
    assert epochs == [(epoch * STEPS_PER_EPOCH, epoch) for epoch in range(1, EPOCHS[mode] + 1)]
    in_order = [record["step"] for record in records]
    assert in_order == sorted(in_order)


def assert_same_run(folder: Path, whole: Path, mode: str) -> None:
    found, expected = results_of(folder), results_of(whole)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert_log_is_whole(folder, mode)
    metrics, others = (json.loads((path / "metrics.json").read_text()) for path in (folder, whole))
    for entry in (*metrics["history"], *others["history"]):
        entry.pop("seconds")
    for name in ("history", "dev", "dev_last", "dev_ci", "best_epoch", "epochs"):
        assert metrics[name] == others[name]
    assert not (folder / "checkpoint").exists() and not (folder / "failed.json").exists()
    assert not list(folder.rglob("*.tmp"))


# ---------------------------------------------------------------------------------------------------------------------
# Signals
# ---------------------------------------------------------------------------------------------------------------------


def run_typed(command: str) -> Result:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=120)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "mode", "more", "advice"),
    [
        (signal.SIGTERM, 143, "full-model", ["--overwrite"], "to go on: "),
        (signal.SIGINT, 130, "last-linear-layer", [], "to go on, run the same command again, or: "),
    ],
)
def test_a_signal_saves_and_the_printed_command_goes_on(
    flags_for: Any, uninterrupted: Any, tmp_path: Path, number: int, code: int, mode: str, more: list[str], advice: str
) -> None:
    """Also for a run that was begun with --overwrite: the same command would delete what was saved."""
    whole, _ = uninterrupted(mode)
    runs = tmp_path / "my runs"
    folder, done = stop_midway([*flags_for(mode, runs), *more], runs, number, tmp_path)
    assert done.code == code and "Traceback" not in done.err
    message, command = re.fullmatch(r"(.+)(python .+)\n", done.err).groups()  # type: ignore[union-attr]
    assert message == f"interrupted; the state is saved; {advice}"
    assert (folder / "checkpoint" / "state.json").exists() and not (folder / "metrics.json").exists()
    log = read_log(folder)
    stopped_at, evaluated = log[-1]["step"], sum("dev" in record for record in log)
    assert STEPS_PER_EPOCH < stopped_at < EPOCHS[mode] * STEPS_PER_EPOCH

    going_on = run_typed(command) if mode == "full-model" else Child(shlex.split(command)[2:], tmp_path).wait()
    assert going_on.code == 0, going_on.err
    assert f"going on at epoch {evaluated + 1}, step {stopped_at} of" in going_on.out
    assert_same_run(folder, whole, mode)


def test_a_signal_before_training_ends_at_once(flags_for: Any, tmp_path: Path) -> None:
    child = Child(flags_for("full-model", tmp_path / "runs"), tmp_path)
    for _ in range(2000):
        if list((tmp_path / "runs").glob("*/.lock")):
            break
        time.sleep(0.002)
    child.signal(signal.SIGTERM)
    done = child.wait()
    assert done.code == 143 and done.err.startswith("interrupted") and "Traceback" not in done.err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_in_the_middle_of_a_finalizer_is_not_lost() -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signals = Signals().install()
        Dying()  # Python drops what a finalizer raises
        with pytest.raises(Interrupted):
            signals.check()
        signals.check()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------------------------------------------------------------
# Kills and crashes
# ---------------------------------------------------------------------------------------------------------------------


def kill_until_complete(mode: str, kills: int, flags_for: Any, uninterrupted: Any, tmp_path: Path) -> None:
    """Starts the same command again and again, killing it at random moments; then lets it end."""
    whole, seconds = uninterrupted(mode)
    draw, runs = random.Random(kills), tmp_path / "runs"
    flags = [*flags_for(mode, runs), "--save-every"]
    while kills:
        child = Child([*flags, draw.choice([0.0001, 0.001, 5])], tmp_path)
        child.process.join(draw.uniform(0.02, seconds))
        child.process.kill()
        child.process.join()
        if child.process.exitcode == -signal.SIGKILL:
            kills -= 1
        else:  # it was faster
            assert child.wait().code == 0
            assert_same_run(only_run(runs), whole, mode)
            shutil.rmtree(runs)
    done = Child([*flags, 0.001], tmp_path).wait()
    assert done.code == 0, done.err
    assert_same_run(only_run(runs), whole, mode)


@pytest.mark.parametrize("mode", list(EPOCHS))
def test_killed_three_times(flags_for: Any, uninterrupted: Any, tmp_path: Path, mode: str) -> None:
    kill_until_complete(mode, 3, flags_for, uninterrupted, tmp_path)


@pytest.mark.reliability
@pytest.mark.parametrize("mode", list(EPOCHS))
def test_killed_twenty_times(flags_for: Any, uninterrupted: Any, tmp_path: Path, mode: str) -> None:
    kill_until_complete(mode, 20, flags_for, uninterrupted, tmp_path)


class Crash(BaseException):
    """Stands for the process's end."""


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [(RunFolder, "save_state", 1), (RunFolder, "save_state", 8), (RunFolder, "publish_best", 1),
     (RunFolder, "finish", 1), (classification, "write_outputs", 1)],
)  # fmt: skip
def test_a_crash_at_any_stage(
    run: Run, flags_for: Any, uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    owner: Any, name: str, call: int, before: bool,
) -> None:  # fmt: skip
    """Right before or right after each step that changes the folder."""
    original, calls = getattr(owner, name), []

    def crashing(*arguments: Any) -> Any:
        calls.append(name)
        if before and len(calls) == call:
            raise Crash
        result = original(*arguments)
        if not before and len(calls) == call:
            raise Crash
        return result

    monkeypatch.setattr(owner, name, crashing)
    flags = [*flags_for("full-model", tmp_path), "--save-every", 1e-9]  # before each update and each evaluation
    with pytest.raises(Crash):
        run(*flags)
    monkeypatch.undo()
    done = run(*flags)
    assert done.code == 0, done.err
    assert_same_run(only_run(tmp_path), uninterrupted("full-model")[0], "full-model")


# ---------------------------------------------------------------------------------------------------------------------
# A full disk
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [300_000, 100_000, 600], ids=["state", "best model", "log"])
def test_a_full_disk_leaves_the_last_state_and_the_run_goes_on_later(
    flags_for: Any, uninterrupted: Any, tmp_path: Path, limit: int
) -> None:
    """Files may not grow beyond a limit: first the state (480 kB) fails, or the best model (160 kB), or the log."""
    mode = "full-model"
    whole, _ = uninterrupted(mode)
    runs = tmp_path / "runs"
    folder, done = stop_midway(flags_for(mode, runs), runs, signal.SIGTERM, tmp_path)
    assert done.code == 143
    state, _ = RunFolder(folder).load_state()  # type: ignore[misc]

    done = Child(flags_for(mode, runs), tmp_path, file_limit=limit).wait()
    assert done.code == 1
    (error,) = done.err.splitlines()
    assert error.startswith("error: ") and "could not be written" in error and "run the same command again" in error
    assert json.loads((folder / "failed.json").read_text())["error"] == error.removeprefix("error: ")
    assert not (folder / "metrics.json").exists()
    same, tensors = RunFolder(folder).load_state()  # type: ignore[misc]
    assert same["step"] >= state["step"] and all(bool(tensor.isfinite().all()) for tensor in tensors.values())

    assert Child(flags_for(mode, runs), tmp_path).wait().code == 0
    assert_same_run(folder, whole, mode)


# ---------------------------------------------------------------------------------------------------------------------
# Too small a memory
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "step"), [("cache_features", 0), ("predict", 12)])
def test_too_small_a_memory_outside_of_training(
    run: Run, flags_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: int
) -> None:
    def too_much(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(classification, name, too_much)
    flags = [*flags_for("last-linear-layer", tmp_path), "--epochs", 2]
    done = run(*flags)
    (error,) = done.errors
    assert done.code == 1 and "does not fit the device's memory" in error and "--batch-size" in error
    failed = json.loads((only_run(tmp_path) / "failed.json").read_text())
    assert failed["error"] == error.removeprefix("error: ") and failed["step"] == step
    monkeypatch.undo()
    assert run(*flags).code == 0 and not (only_run(tmp_path) / "failed.json").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Complete runs, other runs, and runs of others
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(uninterrupted: Any, tmp_path: Path) -> Path:
    """A copy of a complete run, in ``runs``."""
    whole, _ = uninterrupted("full-model")
    return Path(shutil.copytree(whole, tmp_path / "runs" / whole.name))


def test_a_complete_run_is_shown_and_left_alone(run: Run, flags_for: Any, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    metrics = json.loads((finished / "metrics.json").read_text())
    (finished / "checkpoint").mkdir()  # left by a kill in the last moment
    for flags in (flags_for("full-model", finished.parent), ["--resume", finished]):
        done = run(*flags)
        assert done.code == 0 and done.err == ""
        assert f"complete since {metrics['finished']}" in done.out and "--overwrite" in done.out
        assert f"dev accuracy {metrics['dev']['accuracy']:.3f}" in done.out and "train loss" not in done.out
        assert done.out.rstrip().endswith(finished.name)
        assert not (finished / "checkpoint").exists()
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_overwrite_starts_anew(run: Run, flags_for: Any, finished: Path, uninterrupted: Any) -> None:
    (finished / "best" / "old").write_text("old")
    done = run(*flags_for("full-model", finished.parent), "--overwrite")
    assert done.code == 0 and "epoch 1/6" in done.out and "complete since" not in done.out
    assert_same_run(finished, uninterrupted("full-model")[0], "full-model")


def test_resume_names_every_contradiction(run: Run, finished: Path, tiny_data: Path) -> None:
    done = run(
        "--resume", finished, "--lr", 1e-3, "--epochs", 6, "--seed", 3, "--strategy", "head", "--dataset", "cfimdb",
        "--model", "mini", "--output-dir", "elsewhere",
    )  # fmt: skip
    assert done.code == 2
    wrong = ("has lr 0.002, not 0.001", "has seed 11711, not 3", "has strategy 'full', not 'head'",
             "has dataset 'sst', not 'cfimdb'", "has model 'tiny', not 'mini'", "--output-dir elsewhere")  # fmt: skip
    assert len(done.errors) == len(wrong)
    for part in wrong:
        assert any(part in error for error in done.errors), part
    remedy = "; leave it out, or give the whole command without --resume"
    assert all(error.endswith(remedy) for error in done.errors if "--output-dir" not in error)
    agreeing = ["--lr", 2e-3, "--dataset", "sst", "--fine-tune-mode", "full-model", "--data-dir", tiny_data]
    assert run("--resume", finished, *agreeing, "--output-dir", finished.parent).code == 0


@pytest.mark.parametrize("name", ["", "best", "nowhere"])
def test_resume_of_something_else(run: Run, finished: Path, name: str) -> None:
    folder = finished.parent if name == "" else finished / name
    done = run("--resume", folder)
    assert done.code == 2 and len(done.errors) == 1 and f"--resume {folder}: " in done.errors[0]


def test_changed_data_or_weights_are_another_run(
    run: Run, tiny_model: Path, tiny_data: Path, still_model: Path, tmp_path: Path
) -> None:
    data, model = shutil.copytree(tiny_data, tmp_path / "data"), shutil.copytree(tiny_model, tmp_path / "tiny")
    flags = ["--model", model, "--data-dir", data, "--dataset", "sst", "--output-dir", tmp_path / "runs"]
    flags += ["--epochs", 1, "--strategy", "head"]
    assert run(*flags).code == 0
    folder = only_run(tmp_path / "runs")
    with open(data / "ids-sst-train.csv", "a") as file:
        file.write("45\tnew\ta film\t3\n")
    done = run("--resume", folder)
    assert done.code == 2 and len(done.errors) == 1
    assert done.errors[0].startswith(f"error: {data}/ids-sst-train.csv: has changed since this run began (sha256 ")
    assert done.errors[0].endswith("; restore it, or start anew with --overwrite")
    assert run(*flags).code == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2

    shutil.copy(tiny_data / "ids-sst-train.csv", data / "ids-sst-train.csv")
    assert run("--resume", folder).code == 0
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    tensors["transformer.wte.weight"][0, 0] += 1
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    done = run("--resume", folder)
    assert done.code == 2 and len(done.errors) == 1 and "this run has model weights [" in done.errors[0]


@pytest.fixture
def begun_in_bf16(run: Run, flags_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], Path]:
    """The flags and the folder of a run that ended after its first epoch; the CPU that goes on has no bf16."""
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: True)
    flags = [*flags_for("full-model", tmp_path), "--epochs", 2]
    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(RunFolder, "_sweep", lambda *_, **__: (_ for _ in ()).throw(Crash()))
        run(*flags)
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: False)
    return flags, only_run(tmp_path)


def test_a_run_goes_on_in_the_precision_that_it_began_in(run: Run, begun_in_bf16: tuple[list[Any], Path]) -> None:
    flags, folder = begun_in_bf16
    done = run(*flags)
    assert done.code == 0 and "going on at" in done.out and ", bf16\n" in done.out
    assert json.loads((folder / "metrics.json").read_text())["precision"] == "bf16"
    done = run(*flags, "--overwrite")
    assert done.code == 0 and ", fp32\n" in done.out
    assert json.loads((folder / "config.json").read_text())["environment"]["precision"] == "fp32"


def test_a_precision_that_the_device_lacks_does_not_become_another(
    run: Run, begun_in_bf16: tuple[list[Any], Path]
) -> None:
    flags, folder = begun_in_bf16
    config = json.loads((folder / "config.json").read_text())
    config["environment"]["precision"] = "fp16"
    (folder / "config.json").write_text(json.dumps(config))
    for again in (flags, ["--resume", folder]):
        done = run(*again)
        (error,) = done.errors
        assert done.code == 2 and "began in fp16" in error and "--overwrite" in error and "--precision" in error
    assert run(*flags, "--overwrite").code == 0


def test_a_run_that_another_process_completes_meanwhile_is_shown(
    run: Run, flags_for: Any, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = (finished / "metrics.json").rename(finished.parent.parent / "metrics.json")
    monkeypatch.setattr(classification, "describe", lambda *_: shutil.copy(metrics, finished / "metrics.json"))
    monkeypatch.setattr(classification, "train_and_measure", lambda *_: pytest.fail("it was trained again"))
    done = run(*flags_for("full-model", finished.parent))
    assert done.code == 0 and "complete since" in done.out and "dev accuracy" in done.out


def test_a_run_begins_without_the_model_of_the_one_before(
    run: Run, flags_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, describe, models = classification.fit, classification.describe, []

    def fit_and_remember(job: Any, *others: Any) -> Any:
        models.append(weakref.ref(job.model))
        return fit(job, *others)

    def look(*arguments: Any) -> None:
        assert [model() for model in models] == [None] * len(models)
        describe(*arguments)

    monkeypatch.setattr(classification, "fit", fit_and_remember)
    monkeypatch.setattr(classification, "describe", look)
    gc.collect()
    gc.disable()
    try:
        assert run(*flags_for("full-model", tmp_path), "--epochs", 1, "--dataset", "sst", "cfimdb").code == 0
    finally:
        gc.enable()
    assert len(models) == 2


def test_two_processes_never_share_a_run(run: Run, flags_for: Any, tmp_path: Path) -> None:
    flags = [*flags_for("full-model", tmp_path / "runs"), "--epochs", 1000]
    child = Child(flags, tmp_path)
    try:
        wait_for_steps(tmp_path / "runs", child, 1)
        for more in ([], ["--overwrite"]):
            done = run(*flags, *more)
            assert done.code == 2 and len(done.errors) == 1
            assert "another process is working on this run" in done.errors[0]
    finally:
        child.process.kill()


def test_a_run_on_the_sample_goes_on_although_the_real_data_came(
    run: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--resume uses the files that the run began with."""
    monkeypatch.setenv("CS224N_DATA_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(RunFolder, "finish", lambda *_: (_ for _ in ()).throw(Crash()))
    flags = ["--model", tiny_model, "--dataset", "sst", "--limit-train", 16, "--limit-dev", 8, "--limit-test", 4]
    from training.classification import preparation

    sample = Path(preparation.ROOT / "data" / "sample")
    root = tmp_path / "root"
    shutil.copytree(sample, root / "data" / "sample")
    monkeypatch.setattr(preparation, "ROOT", root)
    with pytest.raises(Crash):
        run(*flags, "--epochs", 1, "--output-dir", tmp_path / "runs")
    monkeypatch.undo()
    shutil.copytree(sample, root / "data", dirs_exist_ok=True)
    done = run("--resume", only_run(tmp_path / "runs"))
    assert done.code == 0 and "the small bundled sample stands in for the real sst data" in done.out
