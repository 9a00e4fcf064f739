"""The folder of one run: what it is called, what is in it, and how it survives being killed at any moment.

Everything is written under a temporary name and renamed. The saved state is one small ``checkpoint/state.json`` that
names the files belonging to it; writing that file is the moment at which a new state replaces the old one. ``best/``
and ``metrics.json`` come last: a folder that has ``metrics.json`` is complete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from config import RunFailed, UserError
from models.files import read_json, read_safetensors, write_tensors
from storage import (
    ANEW,
    file_sha256,
    lock_folder,
    refuse_differences,
    remove_leftovers,
    write_json,
    write_text,
)

SCHEMA = 1


class RunFolder:
    """One run's folder. Nothing is created before :meth:`start`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint"
        self.best = path / "best"
        self.predictions = path / "predictions"
        self.tensorboard = path / "tensorboard"
        self._log = path / "log.jsonl"
        self._lock: Any = None

    # -- state of the folder --------------------------------------------------------------------------------------

    @property
    def is_complete(self) -> bool:
        return (self.path / "metrics.json").exists()

    @property
    def exists(self) -> bool:
        return (self.path / "config.json").exists()

    def config(self) -> dict[str, Any]:
        return read_json(self.path / "config.json")

    def metrics(self) -> dict[str, Any]:
        return read_json(self.path / "metrics.json")

    def refuse_other_run(self, identity: dict[str, Any], resumed: bool = False) -> None:
        """Compares what decides the results with what the folder's run was started with.

        Args:
            identity: name -> value of what can change the results, all of it or the part that was asked for.
            resumed: whether ``--resume`` names the folder, which leaves no other folder to choose.

        Raises:
            UserError: naming each difference.
        """
        saved = self.config()
        otherwise = "or give the whole command without --resume" if resumed else ANEW
        theirs, problems = saved["identity"], []
        for name, file in saved.get("data", {}).get("files", {}).items():
            was, now, path = file["sha256"], identity.get(f"{name} file"), Path(file["path"])
            if now not in (None, was) and path.exists() and file_sha256(path) == now:  # no other file was named
                problems.append(
                    f"{path}: has changed since this run began (sha256 {was[:12]}…, now {now[:12]}…); restore it, or "
                    "start anew with --overwrite"
                )
                identity = identity | {f"{name} file": theirs[f"{name} file"]}
        try:
            refuse_differences(self.path, "run", theirs, identity, "leave it out", otherwise)
        except UserError as error:
            problems += error.problems
        if problems:
            raise UserError(problems)

    # -- starting -------------------------------------------------------------------------------------------------

    def lock(self) -> None:
        """Makes sure that no other process works on this run; the lock goes with the process.

        What one that was killed had half written is removed.

        Raises:
            UserError: another process does, or the folder can't be made.
        """
        self._lock = lock_folder(self.path, "working on this run")
        remove_leftovers(self.path)

    def start(self, config: dict[str, Any], overwrite: bool) -> None:
        """Makes the folder ready: emptied if ``overwrite``, with ``config.json`` if it is new."""
        if overwrite and self.path.exists():
            # First what says that there is a result, or a state to go on from: a kill may come in between.
            for marker in (self.path / "metrics.json", self.checkpoint / "state.json"):
                marker.unlink(missing_ok=True)
            for entry in self.path.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry.name != ".lock":
                    entry.unlink()
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "failed.json").unlink(missing_ok=True)
        if not self.exists:
            write_json(self.path / "config.json", config)

    # -- the log --------------------------------------------------------------------------------------------------

    def log(self, record: dict[str, Any]) -> None:
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def cut_log(self, step: int, epoch: int) -> None:
        """Drops what was logged after so many steps and finished epochs: a resumed run logs it again."""
        if not self._log.exists():
            return
        kept = []
        for line in self._log.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # a kill can leave half a line
                record = json.loads(line)
                is_epoch = "dev" in record or "sample" in record
                if record["step"] <= step and not (is_epoch and record["epoch"] > epoch):
                    kept.append(line + "\n")
        write_text(self._log, "".join(kept))

    # -- the saved state ------------------------------------------------------------------------------------------

    def save_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Replaces the saved state. If it can't be written, the previous one stays whole.

        Raises:
            RunFailed: the disk is full, or the folder can't be written to.
        """
        name = f"state-{state['step']:08d}-{time.time_ns()}.safetensors"
        with self.writing():
            self.checkpoint.mkdir(parents=True, exist_ok=True)
            try:
                write_tensors(self.checkpoint / name, tensors)
                write_json(self.checkpoint / "state.json", state | {"tensors": name})
            except OSError:
                (self.checkpoint / name).unlink(missing_ok=True)
                raise
        self._sweep(keep={"state.json", name, state.get("best_folder") or ""})

    def load_state(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The saved state, or None where there is none yet.

        Raises:
            UserError: it is damaged.
        """
        if not (self.checkpoint / "state.json").exists():
            return None
        try:
            state = read_json(self.checkpoint / "state.json")
            tensors = read_safetensors(self.checkpoint / state["tensors"])
        except (UserError, KeyError):
            raise UserError(f"{self.checkpoint}: the saved state is damaged; start anew with --overwrite") from None
        self._sweep(keep={"state.json", state["tensors"], state.get("best_folder") or ""})
        return state, tensors

    def _sweep(self, keep: set[str]) -> None:
        """Removes what a kill may have left in ``checkpoint/`` and what the current state does not name."""
        for entry in self.checkpoint.iterdir():
            if entry.name in keep:
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    # -- ending ---------------------------------------------------------------------------------------------------

    def best_model(self, best_folder: str) -> Path:
        """Where the best model is: ``checkpoint/`` while the run goes on, ``best/`` at its end."""
        working = self.checkpoint / best_folder
        return working if working.exists() else self.best

    def publish_best(self, best_folder: str) -> None:
        """Moves the best model to ``best/``."""
        source = self.best_model(best_folder)
        if source != self.best:
            shutil.rmtree(self.best, ignore_errors=True)
            source.rename(self.best)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Marks the run as complete."""
        with self.writing():
            write_json(self.path / "metrics.json", {"schema": SCHEMA} | metrics)
        self.drop_state()

    def drop_state(self) -> None:
        """Removes the saved state, which a complete run does not need."""
        shutil.rmtree(self.checkpoint, ignore_errors=True)

    def fail(self, error: str, step: int | None = None) -> None:
        """Leaves a note of why the run stopped.

        Args:
            step: finished updates; None: those of the saved state.
        """
        with suppress(OSError, UserError):
            if step is None:
                saved = self.checkpoint / "state.json"
                step = read_json(saved)["step"] if saved.exists() else 0
            record = {"error": error, "step": step, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            write_json(self.path / "failed.json", record)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turns a failed write into one clear error."""
        try:
            yield
        except OSError as error:
            path = error.filename2 or error.filename or self.path
            what = f"{path}: could not be written ({error.strerror})" if error.strerror else str(error)
            raise RunFailed(
                f"{what}; what was saved before is whole: free some space and run the same command again (without "
                "--overwrite)"
            ) from None


def settings_hash(differences: dict[str, Any]) -> str:
    """Six hex digits for the settings that differ from the strategy's defaults."""
    return hashlib.sha256(json.dumps(differences, sort_keys=True).encode()).hexdigest()[:6]
