"""How long runs take: times of runs that are known, scaled to the size and the strategy of those that are not."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.table import Cell
from storage import walk_folders
from training.estimate import LOADING
from training.terminal import duration

# What every script prints of a run before it starts, with --dry-run too.
TITLE = re.compile(r"^== (\S+) on (\S+): (\S+)", re.MULTILINE)
MODEL = re.compile(r"^model {2,}(.+?) \(", re.MULTILINE)
EXAMPLES = re.compile(r"^data {2,}([\d,]+) ", re.MULTILINE)
EPOCHS = re.compile(r"^training {2,}epochs (\d+)", re.MULTILINE)
THREADS = re.compile(r"^device {2,}CPU, (\d+) thread", re.MULTILINE)
TIME = re.compile(r"^time {2,}about ([\d.]+) (s|min|h) ", re.MULTILINE)
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
ON_CPU = re.compile(r"\bCPU, \d+ thread")  # in what a run records of its device
# A row of --list-strategies: name, share that trains, cost of an epoch beside full fine-tuning's.
COST = re.compile(r"^(\S+) +[\d.]+% +([\d.]+)  ", re.MULTILINE)
SEED = re.compile(r"-s\d+(?=-|$)")  # in a run folder's name; behind it, what differs from the strategy's settings

Costs = Mapping[tuple[str, str], float]  # task and strategy -> cost of an epoch beside full fine-tuning's


@dataclass(frozen=True)
class Work:
    """What is known of a run that its time depends on.

    Attributes:
        kind: what it shares with runs that differ in nothing but the seed.
        size: training examples times epochs; None where that is not known.
        expected: the seconds that its script expects.
        threads: with so many threads; None on a GPU.
        settings: a name for what differs from its strategy's settings, the same for all strategies; None where that is
            not known.
    """

    kind: str
    task: str
    dataset: str
    model: str
    strategy: str
    size: float | None = None
    expected: float | None = None
    threads: float | None = None
    settings: str | None = None


@dataclass(frozen=True)
class Timed:
    """A run that has ended, and its seconds.

    Attributes:
        training: how many of them went into training; None where that is not known.
        threads: it ran with so many; None where that is not known.
        on_gpu: whether it ran on a GPU; None where that is not known.
    """

    work: Work
    seconds: float
    training: float | None = None
    threads: float | None = None
    on_gpu: bool | None = None


@dataclass(frozen=True)
class TimeLeft:
    """The seconds that runs will take, as far as they can be told, and for how many of the runs they can't."""

    seconds: float
    unknown: int

    def __str__(self) -> str:
        if self.unknown:
            return f"more than {duration(self.seconds)}" if self.seconds else "unknown"
        return f"about {duration(self.seconds)}"


# ---------------------------------------------------------------------------------------------------------------------
# Known runs
# ---------------------------------------------------------------------------------------------------------------------


def planned_work(cell: Cell, output: str = "", folder: Path | None = None) -> Work:
    """What a script says of a run before it starts; where it says nothing, the table's own words.

    Args:
        output: what it printed.
        folder: the run folder that it named.
    """
    kind = SEED.sub("", folder.name) if folder else cell.label.removesuffix(f" s{cell.seed}")
    title, model = TITLE.search(output), MODEL.search(output)
    examples, epochs = EXAMPLES.search(output), EPOCHS.search(output)
    names = title.groups() if title else (cell.task, str(cell.dataset), cell.strategy)
    size = float(examples[1].replace(",", "")) * int(epochs[1]) if examples and epochs else None
    time, threads = TIME.search(output), THREADS.search(output)
    return Work(
        kind, names[0], names[1], model[1] if model else str(cell.model), names[2], size,
        expected=float(time[1]) * UNITS[time[2]] if time else None,
        threads=float(threads[1]) if threads else None,
        settings=_settings(folder) if folder else None,
    )  # fmt: skip


def read_costs(task: str, listing: str) -> Costs:
    """The costs in a script's ``--list-strategies``."""
    return {(task, name): float(cost) for name, cost in COST.findall(listing)}


def known_runs(root: Path) -> Iterator[Timed]:
    """The complete runs in a folder, at any depth, behind links too; each once."""
    for folder, folders, files in walk_folders(root):
        if "config.json" in files:  # a run; what is below belongs to it
            folders.clear()
            timed = read_timed(folder) if "metrics.json" in files else None
            if timed is not None:
                yield timed


def read_timed(folder: Path) -> Timed | None:
    """A complete run's time; None where its files do not say."""
    try:
        metrics, config = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("metrics", "config"))
        task, dataset, model, strategy = (str(metrics[name]) for name in ("task", "dataset", "model", "strategy"))
        seconds = float(metrics["cost"]["total_seconds"])
        training, environment = metrics["cost"].get("train_seconds"), config.get("environment", {})
        threads, device = environment.get("threads"), environment.get("device")
        on_gpu = None if device is None else not ON_CPU.search(device)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    try:
        size = float(config["data"]["files"]["train"]["rows"] * metrics["epochs"])
    except (KeyError, TypeError):
        size = None
    work = Work(SEED.sub("", folder.name), task, dataset, model, strategy, size, settings=_settings(folder))
    return Timed(work, seconds, training, threads, on_gpu)


def _settings(folder: Path) -> str | None:
    return SEED.split(folder.name)[-1] if SEED.search(folder.name) else None


# ---------------------------------------------------------------------------------------------------------------------
# Estimates
# ---------------------------------------------------------------------------------------------------------------------

CLOSEST_FIRST: tuple[Callable[[Work], object], ...] = (
    lambda work: work.kind,
    # Writing in form, say, takes longer than any strategy's training.
    lambda work: (work.task, work.dataset, work.model, work.kind if work.settings is None else work.settings),
    lambda work: (work.task, work.dataset, work.model, work.strategy),
    lambda work: (work.task, work.dataset, work.model),
    lambda work: (work.task, work.model, work.strategy),
    lambda work: (work.task, work.model),
)


def estimate(work: Work, known: Sequence[Timed], costs: Costs, threads: float | None = None) -> float | None:
    """Seconds, from the known runs of the closest kind, and among these from those that come nearest in arithmetic.

    A run on a GPU says nothing of one on a CPU, nor the other way round. Without any, what the run's script expects,
    unless it speaks of a CPU and the run will have a GPU.

    Args:
        costs: what strategies cost; with the sizes, they scale the known runs' training.
        threads: what the run will have; fewer than a known run had take longer in proportion, but for loading. None on
            a GPU.
    """
    known = [timed for timed in known if timed.on_gpu in (None, threads is None)]
    for aspect in CLOSEST_FIRST:
        alike = [(timed, _ratio(work, timed.work, costs)) for timed in known if aspect(timed.work) == aspect(work)]
        if alike:
            nearest = min(abs(math.log(ratio)) for _, ratio in alike)
            return statistics.fmean(
                _scaled(timed, ratio, threads) for timed, ratio in alike if abs(math.log(ratio)) <= nearest
            )
    if work.expected is None or (work.threads is None) != (threads is None):
        return None
    return _scaled(Timed(work, work.expected, threads=work.threads), 1.0, threads)


def _scaled(timed: Timed, ratio: float, threads: float | None) -> float:
    """A known run's seconds, with so many times its training, on so many threads."""
    loading = min(timed.seconds, LOADING)
    training = min(timed.seconds if timed.training is None else timed.training, timed.seconds - loading)
    slower = timed.threads / threads if timed.threads and threads else 1.0
    return loading + (timed.seconds - loading - training + training * ratio) * slower


def _ratio(work: Work, other: Work, costs: Costs) -> float:
    """The arithmetic of a run beside another's, as far as it is known."""
    size = work.size / other.size if work.size and other.size else 1.0
    ours, theirs = (costs.get((x.task, x.strategy)) for x in (work, other))
    return size * (ours / theirs if ours and theirs else 1.0)


@dataclass
class Times:
    """The times of an experiment's runs; those that end join the known ones.

    Attributes:
        works: what is known of the runs that are not complete.
        places: how many run at once.
        threads: what each of them gets of the cores that they share; None where each has a GPU of its own.
    """

    works: Mapping[Cell, Work]
    known: list[Timed]
    costs: Costs
    places: int
    threads: float | None = None

    def of(self, cell: Cell) -> float | None:
        """The seconds that a run will take."""
        return estimate(self.works[cell], self.known, self.costs, self.threads)

    def left(self, cells: Sequence[Cell], running: Mapping[str, float] | None = None) -> TimeLeft:
        """The time that runs will take together.

        Args:
            running: label -> the seconds that a run has been running for.
        """
        whole = {cell: self.of(cell) for cell in cells}
        rest = [max(x - (running or {}).get(cell.label, 0.0), 0.0) for cell, x in whole.items() if x is not None]
        seconds = max([sum(rest) / self.places, *rest], default=0.0)  # one run can't be split
        return TimeLeft(seconds, len(whole) - len(rest))

    def learn(self, cell: Cell, seconds: float, training: float | None = None) -> None:
        """A run has ended: its seconds, and how many of them went into training."""
        self.known.append(Timed(self.works[cell], seconds, training, self.threads, self.threads is None))
