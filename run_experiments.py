#!/usr/bin/env python3
"""Runs a table of experiments, datasets x strategies x seeds, and sums it up: mean, spread, time and memory.

python run_experiments.py experiments/sst.yaml
python run_experiments.py experiments/sst.yaml --jobs 2 --only strategy=full,head --seeds 1 2
python run_experiments.py experiments/sst.yaml --dry-run       # what is complete, and what is to do

Started again, it does what is missing: a complete run is left alone, one that was cut off goes on. The file is YAML:

    task: sentiment                # which script
    datasets: [sst, cfimdb]
    strategies: [full, lora]       # as --strategy takes them, aliases included
    model: mini                    # optional, as data_dir, output_dir and everything below
    seeds: [11711, 1, 2]
    settings: {epochs: 3}          # any flag of the script, for all runs
    per_strategy: {lora: {lora-rank: 4}}
    tables:                        # several tables; a key of a table replaces the one above
      - {name: small, settings: {limit-train: 1000}}

Relative paths begin at the current folder, as those of flags do.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import re
import runpy
import shlex
import signal
import statistics
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import AT_LEAST_ONE, DATA, RUN, UserError, setting
from storage import lock_folder
from training.children import TASK_SCRIPTS, Call, Ended, last_error, run_folder, run_side_by_side
from training.cli import build_parser, range_problems, run_script
from training.experiment_summary import aligned, duration, is_complete, read_metrics, result_line, write_summary
from training.experiment_table import Cell, Experiment, Table, flags_of, read_experiment
from training.interrupt import Interrupted, Signals

COMPLETE, TO_GO_ON, TO_DO = "complete", "to go on", "to do"
EXAMPLES = """\
  python run_experiments.py experiments/sst.yaml
  python run_experiments.py experiments/sst.yaml --dry-run
  python run_experiments.py experiments/cfimdb.yaml --jobs 2 --data-dir ./cs224n --output-dir runs/cfimdb
  python run_experiments.py experiments/qqp.yaml --only strategy=lora,taskA seed=1"""


@dataclass(frozen=True)
class RunnerSettings:
    """How a file of experiments is run."""

    data_dir: str | None = setting(
        None, "folder with the data files, instead of the file's data_dir", group=DATA, metavar="FOLDER"
    )
    seeds: list[int] | None = setting(None, "these seeds instead of the file's", group=RUN, metavar="N")
    only: list[str] | None = setting(
        None, "run only these: table=..., dataset=..., strategy=..., seed=...; several values with commas", group=RUN,
        metavar="KEY=VALUE",
    )  # fmt: skip
    jobs: int = setting(
        1, "runs side by side; they share the cores (or OMP_NUM_THREADS) evenly", group=RUN, within=AT_LEAST_ONE
    )
    continue_on_error: bool = setting(True, "go on with the other runs when one fails", group=RUN)
    check: bool = setting(
        True, "ask the script about every run before the first one starts; without, only names and settings are "
        "checked, complete runs are started again to find them, and the summary is of this call's runs", group=RUN,
    )  # fmt: skip
    output_dir: str | None = setting(
        None, "where run folders, logs and the summary go (default: the file's, or runs/NAME)", group=RUN,
        metavar="FOLDER",
    )  # fmt: skip
    dry_run: bool = setting(False, "print the state of every run, and stop", group=RUN)


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    settings, path = parse_arguments(argv)
    experiment = read_experiment(path, settings.seeds, settings.data_dir, settings.output_dir)
    signals = Signals().install()
    folders: dict[Cell, Path] = {}
    with open_pool(settings.jobs) as pool:
        problems = [*experiment.problems, *check_names(experiment, pool)]
        if problems:
            raise UserError(list(dict.fromkeys(problems)))
        chosen = choose_cells(experiment.cells, settings.only or [])
        if settings.check:
            folders = find_folders(experiment, chosen, pool)
    if settings.dry_run:
        show_states(chosen, folders)
        return 0
    lock = lock_folder(experiment.output_dir, "running experiments in it")
    try:
        failed = run_cells(experiment, chosen, folders, settings, signals)
    except Interrupted as interrupted:
        command = shlex.join(["python", sys.argv[0], *argv])
        message = f"interrupted; to go on, run the same command again: {command}"
        raise Interrupted(interrupted.signal_number, message) from None
    finally:
        text = write_summary(experiment, folders)
    lock.close()
    print(f"\n{text}\nsummary: {shown(experiment.output_dir / 'summary.md')}")
    for ended in failed:
        print(f"error: {ended.call.label}: {ended.error} (log: {shown(ended.call.log)})", file=sys.stderr)
    return 1 if failed else 0


def parse_arguments(argv: Sequence[str]) -> tuple[RunnerSettings, Path]:
    parser = build_parser(RunnerSettings, "Runs a table of experiments, and sums it up.", EXAMPLES)
    parser.add_argument("file", metavar="FILE", help="YAML file, such as experiments/sst.yaml")
    hyphens = [re.sub(r"^--[^=]+", lambda flag: flag[0].replace("_", "-"), argument) for argument in argv]
    flags = vars(parser.parse_args(hyphens))
    path = Path(flags.pop("file"))
    settings = RunnerSettings(**flags)
    problems = range_problems(settings)
    if settings.dry_run and not settings.check:
        problems.append(
            "--dry-run and --no-check: the check is what finds the state of the runs; leave one of them out"
        )
    if problems:
        raise UserError(problems)
    return settings, path


def shown(path: Path) -> str:
    """A path as a person reads it: relative where it lies below the current folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def choose_cells(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells that ``--only`` leaves.

    Raises:
        UserError: a condition without a key or value that the cells have.
    """
    chosen, problems = list(cells), []
    for condition in only:
        key, _, text = condition.partition("=")
        if key not in ("table", "dataset", "strategy", "seed"):
            problems.append(f"--only {condition}: must be table=..., dataset=..., strategy=... or seed=...")
            continue
        known, wanted = {str(getattr(cell, key)) for cell in cells}, set(text.split(","))
        for value in sorted(wanted - known):
            problems.append(f"--only {condition}: no run has {key} {value!r}; there are {', '.join(sorted(known))}")
        chosen = [cell for cell in chosen if str(getattr(cell, key)) in wanted]
    if problems:
        raise UserError(problems)
    return chosen


# ---------------------------------------------------------------------------------------------------------------------
# Asking the scripts
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a script said: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        if self.code == 0:
            return []
        errors = [line.removeprefix("error: ") for line in self.err.splitlines() if line.startswith("error: ")]
        return errors or [last_error(self.err) or f"exit code {self.code}"]


@contextlib.contextmanager
def open_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that scripts can be asked in. Each loads torch once, for all that it is asked."""
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_leave_signals_to_the_runner) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            message = "the process that checks the runs has died, perhaps for want of memory"
            raise UserError(f"{message}; try --jobs 1, or --no-check") from None
        except BaseException:  # nobody waits for the answers any more
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise


def _leave_signals_to_the_runner() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def call_script(script: Path, argv: Sequence[str]) -> Answer:
    """Runs a script inside this process, as ``python SCRIPT ...`` does."""
    out, err = io.StringIO(), io.StringIO()
    sys.argv = [str(script), *argv]
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            code = end.code
        except Exception:
            traceback.print_exc()
            code = 1
    _leave_signals_to_the_runner()
    return Answer(code if isinstance(code, int) else int(code is not None), out.getvalue(), err.getvalue())


def check_names(experiment: Experiment, pool: ProcessPoolExecutor) -> list[str]:
    """Lets the scripts judge the names of datasets and strategies, and the settings.

    Returns:
        What they refuse, with the file and the key.
    """

    def ask(task: str, *flags: str) -> Future[Answer]:
        return pool.submit(call_script, TASK_SCRIPTS[task], [*flags, "--list-strategies"])

    listings = {task: ask(task) for task in dict.fromkeys(table.task for table in experiment.tables)}
    judged = {
        f"{experiment.where(table)}: {key}": ask(table.task, *flags)
        for table in experiment.tables
        for key, flags in named_flags(table).items()
    }
    problems = []
    for task, listing in listings.items():
        script, answer = TASK_SCRIPTS[task].name, listing.result()
        if answer.code:
            return [f"{experiment.path}: task: {script}: {problem}" for problem in answer.problems]
        listed = re.sub(r"-\n\s+", "-", answer.out)  # a name may be broken over two lines
        for table in experiment.tables:
            for name in table.strategies if table.task == task else ():
                if not re.search(rf"(?<![\w+-]){re.escape(name)}(?![\w+-])", listed):
                    where, command = experiment.where(table), f"python {script} --list-strategies"
                    problems.append(f"{where}: strategies: {name}: unknown; `{command}` prints those of {task}")
    return problems + [f"{key}: {problem}" for key, answer in judged.items() for problem in answer.result().problems]


def named_flags(table: Table) -> dict[str, list[str]]:
    """Key of the file -> the flags that it becomes."""
    flags = {f"datasets: {name}": ["--dataset", name] for name in table.datasets}
    flags |= {f"settings: {name}": flags_of(name, value) for name, value in table.settings.items()}
    for strategy, settings in table.per_strategy.items():
        flags |= {f"per_strategy: {strategy}: {name}": flags_of(name, value) for name, value in settings.items()}
    return flags


def find_folders(experiment: Experiment, chosen: Sequence[Cell], pool: ProcessPoolExecutor) -> dict[Cell, Path]:
    """Lets the scripts check every run with ``--dry-run``, which names its folder.

    Returns:
        The folders of all runs that the scripts accept, those that are not to be run now included.

    Raises:
        UserError: with the file and the run of everything that they refuse among the chosen ones.
    """
    from tqdm import tqdm

    print(f"checking {count(len(experiment.cells), 'run')} (--no-check leaves this out)", flush=True)
    asked = {
        cell: pool.submit(call_script, TASK_SCRIPTS[cell.task], [*cell.argv, "--dry-run"]) for cell in experiment.cells
    }
    folders: dict[Cell, Path] = {}
    owners: dict[Path, Cell] = {}
    refused: dict[str, list[Cell]] = {}
    for cell, future in tqdm(asked.items(), desc="checked", leave=False, disable=None):  # None: if a terminal
        answer = future.result()
        folder, problems = run_folder(answer.out), answer.problems
        if not problems and folder is None:
            problems = [f"{TASK_SCRIPTS[cell.task].name} names no run folder with these settings"]
        elif folder is not None and owners.setdefault(folder, cell) is not cell:
            problems.append(f"this is the same run as {owners[folder].label}; leave one of them out")
        for problem in problems:
            refused.setdefault(problem, []).append(cell)
        if folder is not None and not problems:
            folders[cell] = folder
    found = {problem: [cell for cell in cells if cell in chosen] for problem, cells in refused.items()}
    problems = [f"{experiment.path}: {_some(cells)}: {problem}" for problem, cells in found.items() if cells]
    if problems:
        raise UserError(problems)
    return folders


def _some(cells: Sequence[Cell]) -> str:
    return cells[0].label + (f" and {count(len(cells) - 1, 'other run')}" if len(cells) > 1 else "")


def count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def state_of(folder: Path) -> str:
    if is_complete(folder):
        return COMPLETE
    return TO_GO_ON if (folder / "config.json").exists() else TO_DO


def show_states(cells: Sequence[Cell], folders: Mapping[Cell, Path]) -> None:
    """What ``--dry-run`` prints."""
    rows = [["run", "state", "folder"], *([c.label, state_of(folders[c]), shown(folders[c])] for c in cells)]
    print(aligned(rows))
    states = Counter(row[1] for row in rows[1:])
    print(f"\n{count(len(cells), 'run')}: {', '.join(f'{states[s]} {s}' for s in (COMPLETE, TO_GO_ON, TO_DO))}")


# ---------------------------------------------------------------------------------------------------------------------
# Running
# ---------------------------------------------------------------------------------------------------------------------


def run_cells(
    experiment: Experiment, chosen: Sequence[Cell], folders: dict[Cell, Path], settings: RunnerSettings,
    signals: Signals,
) -> list[Ended]:  # fmt: skip
    """Runs those of the chosen cells that are not complete, and says how each ended.

    Args:
        folders: of the cells that are known; those of finished runs are added.

    Returns:
        The runs that failed.
    """
    complete = {cell: folder for cell, folder in folders.items() if is_complete(folder)}
    known = {cell: read_metrics(folder)["cost"]["total_seconds"] for cell, folder in complete.items()}
    cells = {cell.label: cell for cell in chosen if cell not in known}
    done = len(chosen) - len(cells)
    print(f"{count(len(chosen), 'run')}: {done} complete, {len(cells)} to do", flush=True)
    calls = [make_call(cell, experiment.output_dir) for cell in cells.values()]
    failed = []
    stop_at = (lambda ended: False) if settings.continue_on_error else has_failed
    for ended in run_side_by_side(calls, settings.jobs, signals, stop_at):
        done += 1
        cell = cells.pop(ended.call.label)
        if has_failed(ended):
            failed.append(ended)
            result = f"failed: {ended.error}"
        else:
            assert ended.folder is not None
            folders[cell], known[cell] = ended.folder, ended.seconds
            result = f"{result_line(read_metrics(ended.folder))}, {duration(ended.seconds)}"
        left = seconds_left(list(cells.values()), known, settings.jobs)
        rest = f"; about {duration(left)} left" if left else ""
        print(f"[{done}/{len(chosen)}] {cell.label}: {result}{rest}", flush=True)
    return failed


def make_call(cell: Cell, output_dir: Path) -> Call:
    name = re.sub(r"[^\w.+-]+", "-", cell.label)
    return Call(cell.label, TASK_SCRIPTS[cell.task], cell.argv, output_dir / "logs" / f"{name}.log")


def has_failed(ended: Ended) -> bool:
    return ended.code != 0 or ended.folder is None or not is_complete(ended.folder)


KINDS: tuple[Callable[[Cell], object], ...] = (  # the closest first
    lambda cell: (cell.table, cell.dataset, cell.strategy),
    lambda cell: (cell.table, cell.dataset),
    lambda cell: cell.dataset,
    lambda cell: None,
)


def seconds_left(waiting: Sequence[Cell], known: Mapping[Cell, float], jobs: int) -> float:
    """How long the cells that wait will take, from what cells of the closest known kind took; 0 where none is known."""
    total = 0.0
    for cell in waiting if known else ():
        similar = ([seconds for other, seconds in known.items() if kind(other) == kind(cell)] for kind in KINDS)
        total += statistics.fmean(next(seconds for seconds in similar if seconds))
    return total / min(jobs, max(len(waiting), 1))


if __name__ == "__main__":
    sys.exit(run_script(main))
