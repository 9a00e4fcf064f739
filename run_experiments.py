#!/usr/bin/env python3
"""Runs a table of experiments, datasets x strategies x seeds, and ends with their comparison.

python run_experiments.py experiments/quick.yaml --jobs 2
python run_experiments.py experiments/sst.yaml --only strategy=full,head --seeds 1 2
python run_experiments.py experiments/sst.yaml --dry-run          # what is complete, what is to do, how long it takes
python run_experiments.py experiments/sst.yaml --devices cuda:0,cuda:1
python run_experiments.py experiments/sst.yaml --print-commands   # for a cluster's job array: docs/experiments.md

Started again, it does what is missing: a complete run is left alone, one that was cut off goes on. The file is YAML:

    task: sentiment                # which script
    strategies: [full, lora]       # as --strategy takes them, aliases included
    datasets: [sst, cfimdb]        # optional, as everything below: without, settings name your own files, or the
                                   # script takes its bundled sample
    model: mini                    # or models: [mini, gpt2]; also data_dir and output_dir
    runs_of: sst                   # run folders go to runs/sst, as those of sst.yaml: what both ask for is run once
    seeds: [11711, 1, 2]
    settings: {epochs: 3}          # any flag of the script, for all runs
    per_strategy: {lora: {lora-rank: 4}}
    vary: {limit-train: [1000, 4000]}   # flags that take several values, each with every strategy and seed
    tables:                        # several tables; a key of a table replaces the one above
      - {name: small, settings: {batch-size: 16}}

Relative paths begin at the current folder, as those of flags do.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from config import AT_LEAST_ONE, DATA, DEVICE, MODEL, ROOT, RUN, UserError, setting
from experiments.asking import Checked, check_names, check_runs, open_pool
from experiments.children import TASK_SCRIPTS, Place, device_places, share_of_threads
from experiments.running import run_cells
from experiments.summary import COMPLETE, TO_DO, TO_GO_ON, TO_TRY_AGAIN, aligned, count, is_complete, state_of
from experiments.table import Cell, Experiment, read_experiment
from experiments.times import Times, known_runs, planned_work, read_timed
from storage import lock_folder, shown
from training.cli import build_parser, empty_names, range_problems, run_script
from training.interrupt import Interrupted, Signals
from training.terminal import duration

RUNS = ROOT / "runs"
SHOWN_MISSING = 12
EXAMPLES = """\
  python run_experiments.py experiments/quick.yaml --jobs 2
  python run_experiments.py experiments/sst.yaml --dry-run
  python run_experiments.py experiments/sst.yaml --devices cuda:0,cuda:1
  python run_experiments.py experiments/sst.yaml --model gpt2 --devices cuda:0
  python run_experiments.py experiments/cfimdb.yaml --jobs 2 --data-dir ./cs224n --output-dir runs/cfimdb
  python run_experiments.py experiments/qqp.yaml --only strategy=lora,taskA seed=1"""


@dataclass(frozen=True)
class RunnerSettings:
    """How a file of experiments is run."""

    data_dir: str | None = setting(
        None, "folder with the data files, instead of the file's data_dir", group=DATA, metavar="FOLDER"
    )
    model: str | None = setting(
        None, "model of all runs, instead of the file's model or models: as the scripts take it", group=MODEL,
        metavar="MODEL",
    )  # fmt: skip
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
    experiment = read_experiment(path, settings.seeds, settings.data_dir, settings.output_dir, settings.model)
    screen = sys.stderr if settings.print_commands else sys.stdout
    if experiment.replaced:
        print(f"--model {settings.model}: instead of {', '.join(experiment.replaced)}, for all runs", file=screen)
    signals = Signals().install()
    try:
        with open_pool(len(places)) as pool:
            costs = check_names(experiment, places if settings.check else [], pool)
            chosen = choose_cells(experiment.cells, settings.only or [])
            if settings.check:
                print(f"checking {count(len(experiment.cells), 'run')} (--no-check leaves this out)", file=screen)
                checked = check_runs(experiment, chosen, pool)
                print("".join(f"{note}\n" for note in checked.notes), end="", file=screen)
            else:
                checked = Checked({}, {cell: planned_work(cell) for cell in experiment.cells})
        if settings.print_commands:
            print_commands(chosen, checked.folders)
            return 0
        root = RUNS if experiment.runs_dir.is_relative_to(RUNS) else experiment.runs_dir
        on_gpu = any(place.environment for place in places)
        threads = None if on_gpu else share_of_threads(len(places))
        times = Times(checked.works, list(known_runs(root)), costs, len(places), threads)
        if settings.dry_run:
            show_states(chosen, checked.folders, times)
            return 0
        folders = sorted({experiment.output_dir, experiment.runs_dir})
        locks = [lock_folder(folder, "running experiments in it") for folder in folders]
        failed = run_cells(experiment, chosen, checked.folders, times, places, signals, settings.continue_on_error)
        try:
            compare(experiment, checked, command)
        finally:
            for ended in failed:
                print(f"error: {ended.call.label}: {ended.error} (log: {shown(ended.call.log)})", file=sys.stderr)
        for lock in locks:
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
    wanted: dict[str, set[str]] = {}
    problems = []
    keys = list(dict.fromkeys(key for cell in cells for key in cell.places))
    for condition in only:
        key, _, text = condition.partition("=")
        if key not in keys:
            problems.append(f"--only {condition}: must be {', '.join(f'{key}=...' for key in keys)}")
            continue
        known, values = {cell.places[key] for cell in cells if key in cell.places}, set(text.split(","))
        for value in sorted(values - known):
            problems.append(f"--only {condition}: no run has {key} {value!r}; there are {', '.join(sorted(known))}")
        wanted.setdefault(key, set()).update(values)
    chosen = [cell for cell in cells if all(cell.places.get(key) in values for key, values in wanted.items())]
    if not chosen and not problems:
        problems.append(f"--only {' '.join(only)}: no run has all of it; --dry-run lists the runs")
    if problems:
        raise UserError(problems)
    return chosen


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
