#!/usr/bin/env python3
"""Runs a table of experiments, datasets x strategies x seeds, and ends with their comparison.

python run_experiments.py experiments/quick.yaml --jobs 2
python run_experiments.py experiments/sst.yaml --only strategy=full,head --seeds 1 2
python run_experiments.py experiments/sst.yaml --dry-run          # what is complete, what is to do, how long it takes
python run_experiments.py experiments/sst.yaml --devices cuda:0,cuda:1
python run_experiments.py experiments/sst.yaml --print-commands   # for a cluster's job array: docs/experiments.md

Started again, it does what is missing: a complete run is left alone, one that was cut off goes on. The file is YAML:

    task: sentiment                # which script
    datasets: [sst, cfimdb]
    strategies: [full, lora]       # as --strategy takes them, aliases included
    model: mini                    # or models: [mini, gpt2]; optional, as data_dir, output_dir and everything below
    seeds: [11711, 1, 2]
    settings: {epochs: 3}          # any flag of the script, for all runs
    per_strategy: {lora: {lora-rank: 4}}
    vary: {limit-train: [1000, 4000]}   # flags that take several values, each with every strategy and seed
    tables:                        # several tables; a key of a table replaces the one above
      - {name: small, settings: {batch-size: 16}}

Relative paths begin at the current folder, as those of flags do.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import runpy
import shlex
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from config import AT_LEAST_ONE, DATA, DEVICE, ROOT, RUN, UserError, setting
from storage import lock_folder, shown, write_json
from training.children import (
    GPUS,
    TASK_SCRIPTS,
    Call,
    Ended,
    Place,
    device_places,
    die_with_parent,
    last_error,
    run_folder,
    run_side_by_side,
    share_of_threads,
)
from training.cli import build_parser, empty_names, range_problems, run_script
from training.experiment_summary import aligned, is_complete, read_metrics, result_line
from training.experiment_table import Cell, Experiment, Table, flags_of, read_experiment, text_of
from training.experiment_times import Costs, Times, Work, duration, known_runs, planned_work, read_costs, read_timed
from training.interrupt import Interrupted, Signals

COMPLETE, TO_GO_ON, TO_TRY_AGAIN, TO_DO = "complete", "to go on", "to try again", "to do"
RUNS = ROOT / "runs"
SHOWN_MISSING = 12
STANDS_IN = re.compile("note: .*(bundled|for real results)")  # what a script says of its model or its data
EXAMPLES = """\
  python run_experiments.py experiments/quick.yaml --jobs 2
  python run_experiments.py experiments/sst.yaml --dry-run
  python run_experiments.py experiments/sst.yaml --devices cuda:0,cuda:1
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
        None, "run only these: table=..., dataset=..., model=..., strategy=..., seed=..., or a flag that varies; "
        "several values with commas, those of a list with +", group=RUN, metavar="KEY=VALUE",
    )  # fmt: skip
    jobs: int = setting(
        1, "runs side by side; they share the cores (or OMP_NUM_THREADS) evenly", group=RUN, within=AT_LEAST_ONE
    )
    devices: list[str] | None = setting(
        None, "one run at a time on each of these: cuda:0, cuda:1, ..., cpu; instead of --jobs", group=DEVICE,
        metavar="DEVICE",
    )  # fmt: skip
    continue_on_error: bool = setting(True, "go on with the other runs when one fails", group=RUN)
    check: bool = setting(
        True, "ask the script about every run before the first one starts; without, only names and settings are "
        "checked, complete runs are started again to find them, and this call's runs are compared", group=RUN,
    )  # fmt: skip
    output_dir: str | None = setting(
        None, "where run folders, logs and the comparison go (default: the file's, or runs/NAME)", group=RUN,
        metavar="FOLDER",
    )  # fmt: skip
    dry_run: bool = setting(False, "print the state of every run and an estimate of its time, and stop", group=RUN)
    print_commands: bool = setting(False, "print a command for every run that is not complete, and stop", group=RUN)


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    command = ["python", sys.argv[0], *argv]
    settings, path, places = parse_arguments(argv)
    experiment = read_experiment(path, settings.seeds, settings.data_dir, settings.output_dir)
    signals = Signals().install()
    try:
        with open_pool(len(places)) as pool:
            costs = check_names(experiment, places if settings.check else [], pool)
            chosen = choose_cells(experiment.cells, settings.only or [])
            if settings.check:
                screen = sys.stderr if settings.print_commands else sys.stdout
                print(f"checking {count(len(experiment.cells), 'run')} (--no-check leaves this out)", file=screen)
                checked = check_runs(experiment, chosen, pool)
                print("".join(f"{note}\n" for note in checked.notes), end="", file=screen)
            else:
                checked = Checked({}, {cell: planned_work(cell) for cell in experiment.cells})
        if settings.print_commands:
            print_commands(chosen, checked.folders)
            return 0
        root = RUNS if experiment.output_dir.is_relative_to(RUNS) else experiment.output_dir
        threads = None if settings.devices else share_of_threads(len(places))
        times = Times(checked.works, list(known_runs(root)), costs, len(places), threads)
        if settings.dry_run:
            show_states(chosen, checked.folders, times)
            return 0
        lock = lock_folder(experiment.output_dir, "running experiments in it")
        failed = run_cells(experiment, chosen, checked.folders, times, places, settings, signals)
        try:
            compare(experiment, checked, command)
        finally:
            for ended in failed:
                print(f"error: {ended.call.label}: {ended.error} (log: {shown(ended.call.log)})", file=sys.stderr)
        lock.close()
    except Interrupted as interrupted:
        message = f"interrupted; to go on, run the same command again: {shlex.join(command)}"
        raise Interrupted(interrupted.signal_number, message) from None
    return 1 if failed else 0


def parse_arguments(argv: Sequence[str]) -> tuple[RunnerSettings, Path, list[Place]]:
    """The settings, the file, and where runs go: so many of them run at once."""
    parser = build_parser(RunnerSettings, "Runs a table of experiments, and compares them.", EXAMPLES)
    parser.add_argument("file", metavar="FILE", help="YAML file, such as experiments/sst.yaml")
    hyphens = [re.sub(r"^--[^=]+", lambda flag: flag[0].replace("_", "-"), argument) for argument in argv]
    flags = vars(parser.parse_args(hyphens))
    path = Path(flags.pop("file"))
    settings = RunnerSettings(**flags)
    problems = empty_names(settings) + range_problems(settings)
    for asked, flag in ((settings.dry_run, "--dry-run"), (settings.print_commands, "--print-commands")):
        if asked and not settings.check:
            problems.append(
                f"{flag} and --no-check: the check is what finds the state of the runs; leave one of them out"
            )
    if settings.dry_run and settings.print_commands:
        problems.append("--dry-run and --print-commands: both print, and stop; leave one of them out")
    places = [Place()] * settings.jobs
    if settings.devices is not None:
        if "jobs" in flags:
            problems.append("--jobs and --devices: each device takes one run at a time; leave one of them out")
        if settings.print_commands:
            problems.append("--print-commands and --devices: whoever runs the commands chooses; leave --devices out")
        try:
            places = device_places([name for text in settings.devices for name in text.split(",") if name])
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return settings, path, places


def choose_cells(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells that ``--only`` leaves.

    Raises:
        UserError: a condition without a key or value that the cells have.
    """
    chosen, problems = list(cells), []
    keys = list(dict.fromkeys(key for cell in cells for key in cell.places))
    for condition in only:
        key, _, text = condition.partition("=")
        if key not in keys:
            problems.append(f"--only {condition}: must be {', '.join(f'{key}=...' for key in keys)}")
            continue
        known, wanted = {cell.places.get(key, "") for cell in cells}, set(text.split(","))
        for value in sorted(wanted - known):
            problems.append(f"--only {condition}: no run has {key} {value!r}; there are {', '.join(sorted(known))}")
        chosen = [cell for cell in chosen if cell.places.get(key) in wanted]
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
    flags = {f"datasets: {name}": ["--dataset", name] for name in table.datasets}
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


def count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def state_of(folder: Path) -> str:
    if is_complete(folder):
        return COMPLETE
    if (folder / "failed.json").exists():
        return TO_TRY_AGAIN
    return TO_GO_ON if (folder / "config.json").exists() else TO_DO


def show_states(cells: Sequence[Cell], folders: Mapping[Cell, Path], times: Times) -> None:
    """What ``--dry-run`` prints."""
    rows, to_do = [["run", "state", "time", "folder"]], []
    for cell in cells:
        folder, state = folders[cell], state_of(folders[cell])
        if state == COMPLETE:
            timed = read_timed(folder)
            seconds = duration(timed.seconds) if timed else ""
        else:
            to_do.append(cell)
            seconds = str(times.left([cell]))
        rows.append([cell.label, state, seconds, shown(folder)])
    states = Counter(row[1] for row in rows[1:])
    counts = [f"{states[state]} {state}" for state in (COMPLETE, TO_GO_ON, TO_DO)]
    counts += [f"{states[TO_TRY_AGAIN]} {TO_TRY_AGAIN}"] if states[TO_TRY_AGAIN] else []
    at_once = f", {times.places} at a time" if times.places > 1 else ""
    left = f"; time: {times.left(to_do)}{at_once}" if to_do else ""
    print(f"{aligned(rows)}\n\n{count(len(cells), 'run')}: {', '.join(counts)}{left}")


def print_commands(cells: Sequence[Cell], folders: Mapping[Cell, Path]) -> None:
    """A command for each run that is not complete, one a line."""
    for cell in cells:
        if not is_complete(folders[cell]):
            print(shlex.join(["python", shown(TASK_SCRIPTS[cell.task]), *cell.argv]))


# ---------------------------------------------------------------------------------------------------------------------
# Running
# ---------------------------------------------------------------------------------------------------------------------


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
    settings: RunnerSettings, signals: Signals,
) -> list[Ended]:  # fmt: skip
    """Runs those of the chosen cells that are not complete, and says how each ended.

    Args:
        folders: of the cells that are known; those of runs that end are added.

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
    stop_at = (lambda ended: False) if settings.continue_on_error else has_failed

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
                times.learn(cell, ended.seconds, metrics.get("cost", {}).get("train_seconds"))
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


# ---------------------------------------------------------------------------------------------------------------------
# Comparing
# ---------------------------------------------------------------------------------------------------------------------


def compare(experiment: Experiment, checked: Checked, command: Sequence[str]) -> None:
    """Compares the runs of all cells, those of earlier calls included, and names what is missing.

    Args:
        command: what the user typed, for the report.
    """
    folders = checked.folders
    begun = [cell for cell in experiment.cells if cell in folders and state_of(folders[cell]) != TO_DO]
    missing = [cell.label for cell in experiment.cells if cell not in begun or not is_complete(folders[cell])]
    if len(missing) < len(experiment.cells):
        from comparison.comparing import compare_runs

        print(f"\ncomparing {count(len(experiment.cells) - len(missing), 'run')}\n", flush=True)
        paths = [folders[cell] for cell in begun]  # the failed ones too: the report says so
        print(compare_runs(paths, experiment.output_dir, title=experiment.path.stem, command=command).rstrip())
        print("".join(f"\n{note}" for note in checked.notes), end="")
        print(f"\nreport: {shown(experiment.output_dir / 'report.html')}")
    if missing:
        more = f" and {len(missing) - SHOWN_MISSING} more" if len(missing) > SHOWN_MISSING else ""
        print(f"not complete: {', '.join(missing[:SHOWN_MISSING])}{more}")


if __name__ == "__main__":
    sys.exit(run_script(main))
