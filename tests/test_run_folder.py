"""The run folder: locking, the log, the saved state, and what a crash or a full disk leaves."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import models.files
import storage
from classifier import ClassifierSettings
from config import RunFailed, UserError
from training import run_folder
from training.run_folder import RunFolder, settings_hash
from training.setup import check_disk_space, identity_of, run_name

STATE = {"step": 3, "epoch": 1, "best_folder": None}


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"model.a": torch.full((3,), value), "optimizer.exp_avg.a": torch.arange(2.0)}


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# ---------------------------------------------------------------------------------------------------------------------
# Names and identity
# ---------------------------------------------------------------------------------------------------------------------


def test_the_name_says_what_the_run_is_and_has_a_hash_where_settings_differ() -> None:
    defaults = ClassifierSettings(strategy="full", lr=1e-3)

    def name(extra: dict[str, Any] | None = None, **changes: Any) -> str:
        settings = ClassifierSettings(**({"strategy": "full", "lr": 1e-3} | changes))
        return run_name("sentiment", "sst", "mini", "full", settings, defaults, extra or {})

    assert name() == "sentiment-sst-mini-full-s11711"
    assert name(seed=3) == "sentiment-sst-mini-full-s3"
    assert name(save_every=1.0, use_gpu=True, output_dir="elsewhere", show_examples=2) == name()
    others = [name(lr=2e-3), name(epochs=4), name({"train": "abc"}), name({"train": "abd"}), name(limit_train=5)]
    assert len(set(others)) == len(others)
    assert all(other.startswith(f"{name()}-") and len(other) == len(name()) + 7 for other in others)
    assert settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1})


def test_another_runs_folder_is_refused_naming_every_difference(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    identity = identity_of(ClassifierSettings(lr=1e-3, epochs=2)) | {"dataset": "sst", "train file": "abc"}
    folder.start({"identity": identity}, overwrite=False)
    folder.refuse_other_run(identity)
    with pytest.raises(UserError) as refusal:
        folder.refuse_other_run(identity | {"lr": 2e-3, "train file": "abd"})
    assert len(refusal.value.problems) == 2
    assert "has lr 0.001, not 0.002" in refusal.value.problems[0]
    assert "has train file 'abc', not 'abd'" in refusal.value.problems[1]
    folder.refuse_other_run({"epochs": 2})


# ---------------------------------------------------------------------------------------------------------------------
# Starting
# ---------------------------------------------------------------------------------------------------------------------


def _try_lock(path: Path, answers: Any) -> None:
    try:
        RunFolder(path).lock()
        answers.put("locked")
    except UserError as error:
        answers.put(str(error))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")

    def elsewhere() -> str:
        answers = context.Queue()
        process = context.Process(target=_try_lock, args=(tmp_path / "run", answers))
        process.start()
        answer = answers.get(timeout=30)
        process.join()
        return answer

    folder = RunFolder(tmp_path / "run")
    folder.lock()
    assert "another process is working on this run" in elsewhere()
    del folder
    assert elsewhere() == "locked"


def test_a_file_system_without_locks_is_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS without its lock daemon."""

    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    folder = RunFolder(tmp_path / "run")
    folder.lock()
    folder.start({"identity": {}}, overwrite=False)
    assert folder.exists


def test_a_folder_that_cannot_be_made_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be made.*--output-dir"):
        RunFolder(tmp_path / "file" / "run").lock()


def test_starting_anew_forgets_the_result_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a kill leaves behind, it never looks like a complete or a resumable run."""
    folder = RunFolder(tmp_path)
    folder.start({"identity": {}}, overwrite=False)
    folder.save_state(dict(STATE), tensors(1.0))
    folder.finish({})
    folder.save_state(dict(STATE), tensors(1.0))
    monkeypatch.setattr(shutil, "rmtree", full_disk)  # stops in the middle, as a kill would
    with pytest.raises(OSError, match="No space"):
        folder.start({"identity": {}}, overwrite=True)
    assert not folder.is_complete and folder.load_state() is None
    monkeypatch.undo()

    folder.best.mkdir()
    folder.log({"step": 1})
    folder.start({"identity": {"lr": 2}}, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert folder.config() == {"identity": {"lr": 2}}


def test_starting_again_keeps_what_is_there_but_the_note_of_failure(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start({"a": 1}, overwrite=False)
    folder.fail("the disk is full", step=7)
    assert json.loads((tmp_path / "failed.json").read_text())["step"] == 7
    folder.start({"a": 2}, overwrite=False)
    assert folder.config() == {"a": 1} and not (tmp_path / "failed.json").exists()


def test_too_small_a_disk_is_found_before_training(tmp_path: Path) -> None:
    check_disk_space(tmp_path / "not" / "yet" / "there", 1_000_000, 1_000_000)
    with pytest.raises(UserError, match=r"needs about 10400000\.1 GB on disk and .* GB are free"):
        check_disk_space(tmp_path / "run", 10**14, 10**14 * 4)


# ---------------------------------------------------------------------------------------------------------------------
# The log
# ---------------------------------------------------------------------------------------------------------------------


def test_the_log_is_cut_to_the_saved_state(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.cut_log(step=0, epoch=0)  # nothing there yet
    records = [
        {"step": 1, "epoch": 1}, {"step": 2, "epoch": 1}, {"step": 2, "epoch": 1, "dev": {}},
        {"step": 3, "epoch": 2}, {"step": 4, "epoch": 2}, {"step": 4, "epoch": 2, "dev": {}},
    ]  # fmt: skip

    def left(step: int, epoch: int) -> list[dict[str, Any]]:
        path = tmp_path / "log.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"step": 5, "epo')
        folder.cut_log(step, epoch)
        return [json.loads(line) for line in path.read_text().splitlines()]

    assert left(4, 2) == records
    assert left(4, 1) == records[:5]  # saved after the last step, before the evaluation was counted
    assert left(3, 1) == records[:4]
    assert left(2, 1) == records[:3]
    assert left(2, 0) == records[:2]
    assert left(0, 0) == []


# ---------------------------------------------------------------------------------------------------------------------
# The saved state
# ---------------------------------------------------------------------------------------------------------------------


def loaded_value(folder: RunFolder) -> float:
    saved = folder.load_state()
    assert saved is not None
    return float(saved[1]["model.a"][0])


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.load_state() is None
    folder.save_state(STATE | {"loss_sum": 0.1 + 0.2, "history": [{"dev": {"n": 3}}]}, tensors(1.0))
    state, loaded = folder.load_state()  # type: ignore[misc]
    assert state["loss_sum"] == 0.1 + 0.2 and state["history"] == [{"dev": {"n": 3}}]
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors(1.0).items())


def test_only_what_the_state_names_is_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number in (1, 2):
        (folder.checkpoint / f"best-{number}").mkdir(parents=True)
        folder.save_state(STATE | {"best_folder": f"best-{number}"}, tensors(float(number)))
    names = sorted(path.name for path in folder.checkpoint.iterdir())
    assert len(names) == 3 and names[0] == "best-2" and names[1].startswith("state-0000") and names[2] == "state.json"
    for leftover in ("state-00000009-1.safetensors.tmp", "state-00000009-1.safetensors"):
        (folder.checkpoint / leftover).write_text("half")
    assert loaded_value(folder) == 2.0
    assert sorted(path.name for path in folder.checkpoint.iterdir()) == names


@pytest.mark.parametrize("writer", ["write_tensors", "write_json"])
def test_a_state_that_cannot_be_written_leaves_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    folder = RunFolder(tmp_path)
    folder.save_state(dict(STATE), tensors(1.0))
    before = sorted(path.name for path in folder.checkpoint.iterdir())
    monkeypatch.setattr(run_folder, writer, full_disk)
    advice = r"run the same command again \(without --overwrite\)"
    with pytest.raises(RunFailed, match=f"could not be written.*No space left.*{advice}"):
        folder.save_state(dict(STATE), tensors(2.0))
    assert loaded_value(folder) == 1.0
    assert sorted(path.name for path in folder.checkpoint.iterdir()) == before


def test_a_failed_write_is_blamed_on_the_path_that_it_failed_at(tmp_path: Path) -> None:
    elsewhere = tmp_path / "predictions"
    elsewhere.write_text("")
    with pytest.raises(RunFailed, match=f"^{elsewhere}: could not be written"), RunFolder(tmp_path / "run").writing():
        elsewhere.mkdir()


def test_a_write_that_breaks_off_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    storage.write_json(path, {"old": 1})
    monkeypatch.setattr(storage, "sync", full_disk)
    monkeypatch.setattr(models.files, "sync", full_disk)
    with pytest.raises(OSError, match="No space"):
        storage.write_json(path, {"new": 1})
    with pytest.raises(OSError, match="No space"):
        models.files.write_tensors(tmp_path / "model.safetensors", tensors(1.0))
    assert json.loads(path.read_text()) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(
    ("module", "write"),
    [(storage, lambda path: storage.write_json(path, {"a": 1})),
     (models.files, lambda path: models.files.write_tensors(path, tensors(1.0)))],
)  # fmt: skip
def test_two_processes_may_write_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, write: Any
) -> None:
    path, sync = tmp_path / "file", storage.sync

    def another_writes_meanwhile(temporary: Path) -> None:
        monkeypatch.setattr(module, "sync", sync)
        other = multiprocessing.get_context("fork").Process(target=write, args=(path,))
        other.start()
        other.join()
        assert other.exitcode == 0 and path.exists()
        sync(temporary)

    monkeypatch.setattr(module, "sync", another_writes_meanwhile)
    write(path)
    assert list(tmp_path.iterdir()) == [path]


def _write_half_a_file(path: Path) -> None:
    with storage.replacing(path) as file:
        file.write(b"half")
        file.flush()
        os._exit(1)


def test_who_locks_a_run_takes_away_what_a_kill_left(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    for path in (tmp_path / "metrics.json", tmp_path / "predictions" / "dev.csv"):
        killed = multiprocessing.get_context("fork").Process(target=_write_half_a_file, args=(path,))
        killed.start()
        killed.join()
    assert len(list(tmp_path.rglob("*.tmp"))) == 2
    RunFolder(tmp_path).lock()
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("damage", ["gone", "cut", "no name", "no json"])
def test_a_damaged_state_is_told_with_a_remedy(tmp_path: Path, damage: str) -> None:
    folder = RunFolder(tmp_path)
    folder.save_state(dict(STATE), tensors(1.0))
    (saved,) = folder.checkpoint.glob("*.safetensors")
    if damage == "gone":
        saved.unlink()
    elif damage == "cut":
        saved.write_bytes(saved.read_bytes()[:-5])
    else:
        (folder.checkpoint / "state.json").write_text("{}" if damage == "no name" else "{")
    with pytest.raises(UserError, match="checkpoint: the saved state is damaged; start anew with --overwrite"):
        folder.load_state()


# ---------------------------------------------------------------------------------------------------------------------
# Ending
# ---------------------------------------------------------------------------------------------------------------------


def test_the_best_model_is_published_once_and_found_afterwards(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (folder.checkpoint / "best-2").mkdir(parents=True)
    (folder.checkpoint / "best-2" / "weights").write_text("2")
    folder.best.mkdir()
    (folder.best / "weights").write_text("old")
    assert folder.best_model("best-2") == folder.checkpoint / "best-2"
    for _ in range(2):  # again, after a kill between this and metrics.json
        folder.publish_best("best-2")
        assert folder.best_model("best-2") == folder.best
        assert (folder.best / "weights").read_text() == "2"
    assert not folder.is_complete
    folder.finish({"dev": {"accuracy": 0.5}})
    assert folder.is_complete and folder.metrics() == {"schema": 1, "dev": {"accuracy": 0.5}}
    assert not folder.checkpoint.exists()
