"""The task scripts, asked what they think of the runs of a table before any of them starts."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from config import UserError
from experiments.children import GPUS, TASK_SCRIPTS, Place, die_with_parent, last_error, run_folder
from experiments.summary import count
from experiments.table import Cell, Experiment, Table, flags_of, text_of
from experiments.times import Costs, Work, planned_work, read_costs

STANDS_IN = re.compile("note: .*(bundled|for real results)")  # what a script says of its model or its data


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
    with ProcessPoolExecutor(jobs, context, initializer=_belong_to_the_runner) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            message = "the process that checks the runs has died, perhaps for want of memory"
            raise UserError(f"{message}; try --jobs 1, or --no-check") from None
        except BaseException:  # nobody waits for the answers any more
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise


def _belong_to_the_runner() -> None:
    die_with_parent(signal.SIGKILL)
    _leave_signals_to_the_runner()


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


def check_names(experiment: Experiment, places: Sequence[Place], pool: ProcessPoolExecutor) -> Costs:
    """Lets the scripts judge the names of datasets and strategies, and the settings.

    Args:
        places: whose GPUs must be here.

    Returns:
        What the strategies cost.

    Raises:
        UserError: what they refuse, with the file and the key, beside everything else that is wrong with it.
    """

    def ask(task: str, *flags: str) -> Future[Answer]:
        return pool.submit(call_script, TASK_SCRIPTS[task], [*flags, "--list-strategies"])

    gpus = {int(gpu) for place in places for gpu in [place.environment.get(GPUS, "")] if gpu.isdigit()}
    listings = {task: ask(task) for task in dict.fromkeys(table.task for table in experiment.tables)}
    portions = [(table, portion) for table in experiment.tables for portion in in_portions(named_flags(table))]
    judged = [ask(table.task, *chain(*portion.values())) for table, portion in portions]
    there = pool.submit(count_gpus) if gpus else None
    problems, costs = list(experiment.problems), dict[tuple[str, str], float]()
    for task, listing in listings.items():
        script, answer = TASK_SCRIPTS[task].name, listing.result()
        if answer.code:
            problems += [f"{experiment.path}: task: {script}: {problem}" for problem in answer.problems]
            raise UserError(problems)
        costs |= read_costs(task, answer.out)
        listed = re.sub(r"-\n\s+", "-", answer.out)  # a name may be broken over two lines
        for table in experiment.tables:
            for name in table.strategies if table.task == task else ():
                if not re.search(rf"(?<![\w+-]){re.escape(name)}(?![\w+-])", listed):
                    where, command = experiment.where(table), f"python {script} --list-strategies"
                    problems.append(f"{where}: strategies: {name}: unknown; `{command}` prints those of {task}")
    refused = [portion for portion, answer in zip(portions, judged, strict=True) if answer.result().problems]
    again = {
        f"{experiment.where(table)}: {key}": ask(table.task, *flags)
        for table, portion in refused
        for key, flags in portion.items()
    }
    problems += [f"{key}: {problem}" for key, answer in again.items() for problem in answer.result().problems]
    if there is not None:
        # Where CUDA_VISIBLE_DEVICES is set, these are not numbers of what torch finds; its length was looked at.
        least = len(gpus) if GPUS in os.environ else max(gpus) + 1
        if (found := there.result()) < least:
            asked = " and ".join(f"GPU {gpu}" for gpu in sorted(gpus))
            problems.append(f"--devices: {asked} asked for, and torch finds {count(found, 'GPU')} here; name others")
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    return costs


def count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def named_flags(table: Table) -> dict[str, list[str]]:
    """Key of the file -> the flags that it becomes."""
    flags = {f"datasets: {name}": ["--dataset", name] for name in table.datasets if name}
    flags |= {f"settings: {name}": flags_of(name, value) for name, value in table.settings.items()}
    flags |= {f"vary: {name}: {text_of(x)}": flags_of(name, x) for name, values in table.vary.items() for x in values}
    for strategy, settings in table.per_strategy.items():
        flags |= {f"per_strategy: {strategy}: {name}": flags_of(name, value) for name, value in settings.items()}
    return flags


def in_portions(flags: Mapping[str, list[str]]) -> list[dict[str, list[str]]]:
    """Flags in as few portions as have no flag twice: what is in order is judged by one call for each portion."""
    portions: list[dict[str, list[str]]] = []
    for key, words in flags.items():
        name = flag_name(words)
        free = (portion for portion in portions if name not in map(flag_name, portion.values()))
        portion = next(free, None)
        if portion is None:
            portions.append(portion := {})
        portion[key] = words
    return portions


def flag_name(words: Sequence[str]) -> str:
    return words[0].partition("=")[0].replace("--no-", "--")


@dataclass(frozen=True)
class Checked:
    """What the scripts say of the runs: their folders, as far as they are known, and the work of each.

    Attributes:
        notes: what stands in for the data or the model that they would take if these could be had.
    """

    folders: dict[Cell, Path] = field(default_factory=dict)
    works: dict[Cell, Work] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_runs(experiment: Experiment, chosen: Sequence[Cell], pool: ProcessPoolExecutor) -> Checked:
    """Lets the scripts check the runs with ``--dry-run``, which names their folders.

    Of runs that differ in the seed alone, one is asked for, and those whose folders are there already, which may hold
    something else.

    Returns:
        What they say of all runs that they accept, those that are not to be run now included.

    Raises:
        UserError: with the file and the run of everything that they refuse among the chosen ones.
    """
    answers = ask_scripts(list({without_seed(cell): cell for cell in reversed(experiment.cells)}.values()), pool)
    of_kind = {without_seed(cell): (cell, answer) for cell, answer in answers.items()}
    told: dict[Cell, tuple[str, Path | None, list[str]]] = {}
    begun = []
    for cell in experiment.cells:
        first, answer = of_kind[without_seed(cell)]
        folder = run_folder(answer.out)
        if folder is not None and cell is not first:
            folder = of_seed(folder, first.seed, cell.seed)
            begun += [cell] if folder is None or (folder / "config.json").exists() else []
        told[cell] = answer.out, folder, answer.problems
    for cell, answer in ask_scripts(begun, pool).items():
        told[cell] = answer.out, run_folder(answer.out), answer.problems

    lines = chain(*(output.splitlines() for output, _, _ in told.values()))
    checked = Checked(notes=tuple(dict.fromkeys(filter(STANDS_IN.match, lines))))
    owners: dict[Path, Cell] = {}
    refused: dict[str, list[Cell]] = {}
    for cell, (output, folder, problems) in told.items():
        problems = list(problems)
        if not problems and folder is None:
            problems = [f"{TASK_SCRIPTS[cell.task].name} names no run folder with these settings"]
        elif folder is not None and owners.setdefault(folder, cell) is not cell:
            problems.append(f"this is the same run as {owners[folder].label}; leave one of them out")
        for problem in problems:
            refused.setdefault(problem, []).append(cell)
        if folder is not None and not problems:
            checked.folders[cell], checked.works[cell] = folder, planned_work(cell, output, folder)
    found = {problem: [cell for cell in cells if cell in chosen] for problem, cells in refused.items()}
    problems = [f"{experiment.path}: {_some(cells)}: {problem}" for problem, cells in found.items() if cells]
    if problems:
        raise UserError(problems)
    return checked


def ask_scripts(cells: Sequence[Cell], pool: ProcessPoolExecutor) -> dict[Cell, Answer]:
    """What the scripts answer to ``--dry-run``."""
    from tqdm import tqdm

    asked = {cell: pool.submit(call_script, TASK_SCRIPTS[cell.task], [*cell.argv, "--dry-run"]) for cell in cells}
    waiting = tqdm(asked.items(), desc="checked", leave=False, disable=None)  # None: if a terminal
    return {cell: future.result() for cell, future in waiting}


def without_seed(cell: Cell) -> tuple[str, ...]:
    """What runs share that differ in the seed alone."""
    place = cell.argv.index("--seed")
    return (cell.task, *cell.argv[:place], *cell.argv[place + 2 :])


def of_seed(folder: Path, seed: int, other: int) -> Path | None:
    """The run folder that another seed has; None where the name does not tell."""
    name, n = re.subn(rf"-s{seed}(?=-[0-9a-f]{{6}}$|$)", f"-s{other}", folder.name)
    return folder.with_name(name) if n == 1 else None


def _some(cells: Sequence[Cell]) -> str:
    return cells[0].label + (f" and {count(len(cells) - 1, 'other run')}" if len(cells) > 1 else "")
