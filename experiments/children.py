"""Scripts as child processes: several side by side, each with a log of its own, and all of them stopped together.

A script never outlives the process that started it for long: where that is killed, the script gets a signal (on Linux)
and saves its state, and until it has ended, its log is locked, so that nobody starts the same call beside it.

Nothing here imports torch: the process that starts the runs stays small beside them.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from config import ROOT, UserError
from training.interrupt import Interrupted, Signals

TASK_SCRIPTS = {
    "sentiment": ROOT / "classifier.py",
    "paraphrase": ROOT / "paraphrase_detection.py",
    "sonnet": ROOT / "sonnet_generation.py",
    "text-generation": ROOT / "text_generation.py",
    "summarization": ROOT / "summarization.py",
    "inference": ROOT / "natural_language_inference.py",
    "question-answering": ROOT / "question_answering.py",
}
POLL_SECONDS = 0.1
THREADS, GPUS = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"
PR_SET_PDEATHSIG = 1  # of Linux' prctl
PLANNED = re.compile(r"^run {2,}(.+)$", re.MULTILINE)  # what a script prints before a run, and
FINISHED = re.compile(r"^results: (.+)$", re.MULTILINE)  # behind one


@dataclass(frozen=True)
class Call:
    """One call of a script.

    Attributes:
        label: what messages call it.
        script, argv: what is called, and with which flags.
        log: the file that gets its output; it is replaced.
    """

    label: str
    script: Path
    argv: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Place:
    """Where one of several calls at once runs: what that adds to its environment and to its flags."""

    environment: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a call ended: its exit code, and the seconds it took, loading included."""

    call: Call
    code: int
    seconds: float

    @property
    def folder(self) -> Path | None:
        """The run folder that the script named last."""
        return run_folder(self.call.log.read_text(encoding="utf-8", errors="replace"))

    @property
    def error(self) -> str:
        """Its last ``error: `` line, or else the last line of its output; or which signal killed it."""
        if self.code < 0:
            why = ", perhaps for want of memory" if -self.code == signal.SIGKILL else ""
            return f"killed by {signal.Signals(-self.code).name}{why}"
        return last_error(self.call.log.read_text(encoding="utf-8", errors="replace")) or f"exit code {self.code}"


def run_folder(output: str) -> Path | None:
    """The run folder that a script's output names: the finished one, or else the planned one."""
    named = FINISHED.findall(output) or PLANNED.findall(output)
    return Path(named[-1]).absolute() if named else None


def last_error(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1]


def run_side_by_side(
    calls: Sequence[Call],
    jobs: int,
    signals: Signals,
    stop_at: Callable[[Ended], bool] = lambda ended: False,
    places: Sequence[Place] = (),
    while_waiting: Callable[[Mapping[str, float]], None] = lambda running: None,
) -> Iterator[Ended]:
    """Makes all calls, ``jobs`` at a time, and yields each as it ends.

    Several at a time share the processor's cores, or as many threads as OMP_NUM_THREADS says, evenly.

    Args:
        signals: installed; a signal is passed on to the running scripts, which save their state.
        stop_at: whether no further call shall be started after this one.
        places: one call at a time runs in each, instead of ``jobs`` calls without a place.
        while_waiting: called many times a second with the labels of the running calls, and their seconds so far.

    Raises:
        Interrupted: after all of them have ended.
    """
    waiting, running, free = list(calls), list[_Child](), list(places) or [Place()] * jobs
    threads = {THREADS: str(threads_each(len(free)))} if len(free) > 1 else {}
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | threads
    with signals.deferred():
        try:
            while waiting or running:
                signals.check()
                for call in list(waiting) if free else ():
                    log = _open_log(call.log)
                    if log is not None:
                        waiting.remove(call)
                        running.append(_Child(call, log, free.pop(0), environment))
                    if not free:
                        break
                ended = [child for child in running if child.process.poll() is not None]
                for child in ended:
                    running.remove(child)
                    free.append(child.place)
                    outcome = child.ended()
                    if stop_at(outcome):
                        waiting.clear()
                    yield outcome
                if not ended:
                    while_waiting({child.call.label: child.seconds for child in running})
                    time.sleep(POLL_SECONDS)
        except GeneratorExit:  # nobody asks for the others any more
            _stop(running, signal.SIGTERM)
            _wait(running, signals)
            raise
        except Interrupted as interrupted:
            _stop(running, interrupted.signal_number)
            _wait(running, signals)
            raise


def device_places(names: Sequence[str]) -> list[Place]:
    """The places of ``cpu`` and ``cuda:N``: a script sees one GPU, the Nth of those that this process may use.

    Raises:
        UserError: names of no device, a GPU that CUDA_VISIBLE_DEVICES hides, or a device that is named twice.
    """
    visible = os.environ.get(GPUS)
    allowed = None if visible is None else [gpu for gpu in visible.split(",") if gpu]
    places, problems = [], []
    for name, times in Counter(names).items():
        found = re.fullmatch(r"cpu|cuda:(\d+)", name)
        if found is None:
            problems.append(f"--devices {name}: must be cpu, or cuda:0 for the first GPU, cuda:1 for the second, ...")
        elif times > 1:
            problems.append(f"--devices {name}: is named {times} times; one run at a time is on a device")
        elif found[1] is None:
            places.append(Place(flags=("--no-use-gpu",)))
        elif allowed is not None and int(found[1]) >= len(allowed):
            problems.append(f"--devices {name}: {GPUS}={visible} leaves {len(allowed)} to use")
        else:
            gpu = found[1] if allowed is None else allowed[int(found[1])]
            places.append(Place({GPUS: gpu}, ("--use-gpu",)))
    if problems:
        raise UserError(problems)
    return places


def die_with_parent(number: int) -> None:
    """Asks, on Linux, for a signal to this process when the one that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def threads_each(jobs: int) -> int:
    """The threads of one of several scripts that run at once."""
    return max(1, _all_threads() // jobs)


def share_of_threads(jobs: int) -> float:
    """How much of the processor that is: less than a thread each where there are more scripts than cores."""
    return min(threads_each(jobs), _all_threads() / jobs)


def _all_threads() -> int:
    asked = os.environ.get(THREADS, "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(asked) if asked.isdigit() else cores


def _open_log(path: Path) -> IO[bytes] | None:
    """An emptied log that is locked until the script that writes it ends; None while another one writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = open(path, "ab")  # noqa: SIM115 (closed once the script has it)
    try:
        import fcntl

        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.close()
        return None
    except (ImportError, OSError):  # Windows, or a file system without locks
        pass
    log.truncate(0)
    return log


class _Child:
    """A script that runs."""

    def __init__(self, call: Call, log: IO[bytes], place: Place, environment: Mapping[str, str]) -> None:
        self.call, self.place = call, place
        self.started = time.monotonic()
        with log:
            # A process group of its own, so that Ctrl-C in the terminal reaches the script once, by way of _stop: a
            # second signal would make it stop without saving.
            self.process = subprocess.Popen(
                [sys.executable, str(call.script), *call.argv, *place.flags], stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, env={**environment, **place.environment}, process_group=0,
                preexec_fn=lambda: die_with_parent(signal.SIGTERM),
            )  # fmt: skip

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def ended(self) -> Ended:
        return Ended(self.call, self.process.wait(), self.seconds)


def _stop(running: Sequence[_Child], number: int) -> None:
    for child in running:
        child.process.send_signal(number)


def _wait(running: Sequence[_Child], signals: Signals) -> None:
    """Waits until all have ended; a signal that comes meanwhile is passed on too."""
    while any(child.process.poll() is None for child in running):
        try:
            signals.check()
            time.sleep(POLL_SECONDS)
        except Interrupted as again:
            _stop(running, again.signal_number)
