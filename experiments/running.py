"""The runs of a table, side by side, with how far all of them have come."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from config import UserError
from experiments.children import TASK_SCRIPTS, Call, Ended, Place, run_side_by_side
from experiments.summary import TO_GO_ON, count, is_complete, read_metrics, result_line, state_of
from experiments.table import Cell, Experiment
from experiments.times import Times
from storage import write_json
from training.interrupt import Signals
from training.terminal import duration


class Board:
    """How far all runs have come: a bar at the foot of a terminal; elsewhere only a line for each run that ends."""

    def __init__(self, total: int, done: int) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread of its own while processes are started
        form = "{l_bar}{bar}| {n_fmt}/{total_fmt} runs, {elapsed}{postfix}"
        self.bar = tqdm(total=total, initial=done, disable=None, leave=False, bar_format=form)
        self.drawn = 0.0

    def line(self, text: str) -> None:
        """Prints a line above the bar."""
        self.bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def show(self, running: Mapping[str, float], waiting: Sequence[Cell], times: Times) -> None:
        """Draws the bar anew, at most once a second."""
        if not self.bar.disable and time.monotonic() > self.drawn + 1:
            self.drawn = time.monotonic()
            left = times.left(waiting, running)
            rest = f"{left} left" if left.seconds else "time left unknown" if left.unknown else "nearly done"
            self.bar.set_postfix_str(f"{rest}: {', '.join(running)}")


def run_cells(
    experiment: Experiment, chosen: Sequence[Cell], folders: dict[Cell, Path], times: Times, places: Sequence[Place],
    signals: Signals, continue_on_error: bool,
) -> list[Ended]:  # fmt: skip
    """Runs those of the chosen cells that are not complete, and says how each ended.

    Args:
        folders: of the cells that are known; those of runs that end are added.
        continue_on_error: whether the others run when one fails.

    Returns:
        The runs that failed.
    """
    cells = {cell.label: cell for cell in chosen if cell not in folders or not is_complete(folders[cell])}
    done = len(chosen) - len(cells)
    left = times.left(list(cells.values()))
    estimate = f"; time: {left}" if left.seconds else ""
    print(f"{count(len(chosen), 'run')}: {done} complete, {len(cells)} to do{estimate}", flush=True)
    calls = [make_call(cell, experiment.output_dir) for cell in cells.values()]
    failed = []
    board = Board(len(chosen), done)
    stop_at = (lambda ended: False) if continue_on_error else has_failed

    def show(running: Mapping[str, float]) -> None:
        board.show(running, list(cells.values()), times)

    try:
        for ended in run_side_by_side(calls, len(places), signals, stop_at, places, show):
            done += 1
            cell, folder = cells.pop(ended.call.label), ended.folder
            folders |= {cell: folder} if folder else {}
            if folder is None or has_failed(ended):
                failed.append(ended)
                note_failure(ended)
                result = f"failed: {ended.error}"
            else:
                metrics = read_metrics(folder)
                cost = metrics.get("cost") or {}
                # A run that went on, or was complete before, took longer than this call for it.
                times.learn(cell, max(ended.seconds, cost.get("total_seconds") or 0.0), cost.get("train_seconds"))
                result = f"{result_line(metrics)}, {duration(ended.seconds)}"
            left = times.left(list(cells.values()))
            rest = f"; {left} left" if left.seconds else ""
            board.line(f"[{done}/{len(chosen)}] {cell.label}: {result}{rest}")
            board.bar.update()
    finally:
        board.bar.close()
    return failed


def make_call(cell: Cell, output_dir: Path) -> Call:
    name = re.sub(r"[^\w.+-]+", "-", cell.label)
    return Call(cell.label, TASK_SCRIPTS[cell.task], cell.argv, output_dir / "logs" / f"{name}.log")


def has_failed(ended: Ended) -> bool:
    return ended.code != 0 or ended.folder is None or not is_complete(ended.folder)


def note_failure(ended: Ended) -> None:
    """Leaves ``failed.json`` where a run broke off too hard to do so itself, such as one that was killed.

    A refusal (exit code 2) leaves nothing: the folder may be another process's.
    """
    folder = ended.folder
    if folder is None or ended.code == UserError.exit_code or state_of(folder) != TO_GO_ON:
        return
    moment = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_json(folder / "failed.json", {"error": ended.error, "step": None, "time": moment})
