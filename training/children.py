"""Scripts as child processes: several side by side, each with a log of its own, and all of them stopped together.

Nothing here imports torch: the process that starts the runs stays small beside them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from config import ROOT
from training.interrupt import Interrupted, Signals

TASK_SCRIPTS = {
    "sentiment": ROOT / "classifier.py",
    "paraphrase": ROOT / "paraphrase_detection.py",
    "sonnet": ROOT / "sonnet_generation.py",
}
POLL_SECONDS = 0.1
THREADS = "OMP_NUM_THREADS"
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
        """Its last ``error: `` line, or else the last line of its output."""
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
    calls: Sequence[Call], jobs: int, signals: Signals, stop_at: Callable[[Ended], bool] = lambda ended: False
) -> Iterator[Ended]:
    """Makes all calls, ``jobs`` at a time, and yields each as it ends.

    Several at a time share the processor's cores, or as many threads as OMP_NUM_THREADS says, evenly.

    Args:
        signals: installed; a signal is passed on to the running scripts, which save their state.
        stop_at: whether no further call shall be started after this one.

    Raises:
        Interrupted: after all of them have ended.
    """
    waiting, running = deque(calls), list[_Child]()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | ({THREADS: str(threads_each(jobs))} if jobs > 1 else {})
    with signals.deferred():
        try:
            while waiting or running:
                signals.check()
                while waiting and len(running) < jobs:
                    running.append(_Child(waiting.popleft(), environment))
                ended = [child for child in running if child.process.poll() is not None]
                for child in ended:
                    running.remove(child)
                    outcome = child.ended()
                    if stop_at(outcome):
                        waiting.clear()
                    yield outcome
                if not ended:
                    time.sleep(POLL_SECONDS)
        except GeneratorExit:  # nobody asks for the others any more
            _stop(running, signal.SIGTERM)
            _wait(running, signals)
            raise
        except Interrupted as interrupted:
            _stop(running, interrupted.signal_number)
            _wait(running, signals)
            raise


def threads_each(jobs: int) -> int:
    """The threads of one of several scripts that run at once."""
    asked = os.environ.get(THREADS, "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, (int(asked) if asked.isdigit() else cores) // jobs)


class _Child:
    """A script that runs."""

    def __init__(self, call: Call, environment: dict[str, str]) -> None:
        self.call = call
        self.started = time.monotonic()
        call.log.parent.mkdir(parents=True, exist_ok=True)
        with open(call.log, "wb") as log:
            # A process group of its own, so that Ctrl-C in the terminal reaches the script once, by way of _stop: a
            # second signal would make it stop without saving.
            self.process = subprocess.Popen(
                [sys.executable, str(call.script), *call.argv], stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, env=environment, process_group=0,
            )  # fmt: skip

    def ended(self) -> Ended:
        return Ended(self.call, self.process.wait(), time.monotonic() - self.started)


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
