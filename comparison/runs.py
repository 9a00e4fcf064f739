"""Run folders as a comparison sees them, and the shape of a comparison: runs, entries, pairs."""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from config import UserError
from storage import shown, walk_folders

if TYPE_CHECKING:
    from comparison.statistics import Difference

SCHEMA = 1  # the newest metrics.json that is understood
ALPHA = 0.05
NUMBERS = ("dev", "dev_last", "test", "cost")  # what metrics.json measures
SAME_SCORE = 0.01  # relative: measured again, on a GPU, it may differ in rounding


# ---------------------------------------------------------------------------------------------------------------------
# One run
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One complete run folder: what its ``config.json`` and ``metrics.json`` say."""

    folder: Path
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def task(self) -> str:
        return str(self.metrics["task"])

    @property
    def dataset(self) -> str:
        return str(self.metrics["dataset"])

    @property
    def model(self) -> str:
        return str(self.metrics["model"])

    @property
    def strategy(self) -> str:
        return str(self.metrics["strategy"])

    @property
    def seed(self) -> int:
        return int(self.metrics["seed"])

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.config.get("settings", {})

    @property
    def identity(self) -> Mapping[str, Any]:
        """Whatever can change the results."""
        return self.config.get("identity", {})

    @property
    def is_comparator(self) -> bool:
        """Whether the model is none of this project's GPT-2s."""
        return bool(self.metrics.get("comparator"))

    @property
    def dev(self) -> Mapping[str, float]:
        """The dev scores of the best epoch."""
        return self.metrics["dev"]

    @property
    def cost(self) -> Mapping[str, float]:
        return self.metrics.get("cost") or {}

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """One record per epoch: ``epoch, train_loss, dev, seconds``."""
        return self.metrics.get("history") or []

    @property
    def probes(self) -> Mapping[str, Mapping[str, float]]:
        """Accuracy on examples of known kinds, where the task has some."""
        return self.metrics.get("probes") or {}

    @property
    def label_names(self) -> list[str]:
        names = self.config.get("data", {}).get("label_names") or []
        return list(names) or [str(row["class"]) for row in self.metrics.get("classes") or []]

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Split -> path, checksum and rows of its data file."""
        return self.config.get("data", {}).get("files") or {}

    def files_of(self, split: str) -> list[Mapping[str, Any]]:
        """The files of a split, in order; several of one are called ``train-1`` and so on."""
        return [file for name, file in sorted(self.files.items()) if name.partition("-")[0] == split]

    @property
    def training_rows(self) -> int | None:
        """How many examples it trained on; None if it does not say."""
        return next((file["rows"] for file in self.files_of("train") if "rows" in file), None)

    @property
    def machine(self) -> str:
        """Device and threads, which its times depend on; empty where they are not recorded."""
        told = self.config.get("environment", {})
        device = str(told.get("device") or "").removesuffix(f", {self.metrics.get('precision')}")
        threads = told.get("threads")
        return f"{device}, {threads} threads" if device and threads and "thread" not in device else device

    def measured_alike(self, name: str) -> bool:
        """Whether an epoch's record means by ``name`` what the score does: the best epoch's is that score.

        A task may measure something else by the same name at the end. True where there is no such record.
        """
        best = self.metrics.get("best_epoch")
        records = [epoch.get("dev", {}) for epoch in self.history if epoch.get("epoch") == best]
        then, score = records[0].get(name) if records else None, self.dev.get(name)
        return then is None or score is None or math.isclose(then, score, rel_tol=SAME_SCORE)

    @property
    def command(self) -> list[str]:
        """The words of the command that started it."""
        return [str(word) for word in self.config.get("environment", {}).get("argv") or []]

    @cached_property
    def vocabulary(self) -> str:
        """A checksum of its model's tokens, added ones left out; empty where ``best/`` does not tell any more."""
        try:
            tokenizer = _read_object(self.folder / "best" / "tokenizer.json")
            text = json.dumps(tokenizer["model"]["vocab"], sort_keys=True)
        except (ValueError, KeyError, TypeError):
            return ""
        return hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# What is compared
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """What a comparison is about.

    Attributes:
        name: as in the ``dev`` of ``metrics.json``.
        label: in tables.
        is_share: lies between 0 and 1, so that differences are told in points of a hundred.
        is_mean: what ``metrics.json`` says is the mean over examples, not the measure of all texts together.
    """

    name: str
    label: str
    higher_is_better: bool = True
    is_share: bool = True
    is_mean: bool = True

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is a better score than ``b``."""
        return a > b if self.higher_is_better else a < b


@dataclass(frozen=True)
class Entry:
    """One row of a table: the runs that differ in nothing but the seed, or a floor, or a published number.

    Attributes:
        name: unique in its comparison, such as "lora", "lora (lora-rank 4)", "distilbert full".
        kind: "run", "comparator", "floor" or "published".
        runs: by seed; none for floors and published numbers.
        scores: (n_seeds, n_examples), the measure of every dev example, in the order of the comparison's ids; None for
            published numbers.
        value: the mean of the measure over seeds; of a published result the number itself, NaN where it has
            other measures only.
        interval: 95 % interval of ``value``, over examples and seeds; None for published numbers.
        probabilities: (n_seeds, n_examples, n_classes); None where the task has no classes.
        predicted: (n_seeds, n_examples), the class that each run chose; None where there are none.
        exact: (n_seeds, n_examples), 1 where the answer that a run wrote is right to the letter; None where nothing is
            asked.
        settings: those that tell it from other entries of its strategy, under the names of their flags.
        tested: the measure of each run on the test rows; empty unless all runs have one, on the rows that most runs of
            the comparison were tested on.
        note: what a floor is; of a published number, that it was not measured here.
        published: what ``experiments/published.yaml`` says of it.
    """

    name: str
    kind: str
    model: str
    strategy: str
    runs: tuple[Run, ...]
    scores: np.ndarray | None
    value: float
    interval: tuple[float, float] | None = None
    probabilities: np.ndarray | None = None
    predicted: np.ndarray | None = None
    exact: np.ndarray | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tested: tuple[float, ...] = ()
    note: str = ""
    published: Mapping[str, Any] | None = None

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def values(self) -> list[float]:
        """The measure of each run; of a floor its own, of a published number none."""
        return [] if self.scores is None else [float(x) for x in self.scores.mean(axis=1)]

    @property
    def std(self) -> float | None:
        """The standard deviation over seeds (n - 1); None for fewer than two runs."""
        return statistics.stdev(self.values) if len(self.runs) > 1 else None

    def scores_like(self, other: Entry) -> bool:
        """Whether each of its runs has the same score as one of another entry on every example: most likely they share
        their models, which write in two ways."""
        return self.scores is not None and other.scores is not None and np.array_equal(self.scores, other.scores)

    def cost(self, name: str) -> float | None:
        """The median of a figure of ``metrics.json``'s ``cost`` over the runs, None where they don't all have it.

        Of ``peak_memory_bytes`` the largest.
        """
        found = [run.cost.get(name) for run in self.runs]
        numbers = [float(x) for x in found if x is not None]
        if not numbers or len(numbers) < len(found):
            return None
        return max(numbers) if name == "peak_memory_bytes" else statistics.median(numbers)

    @property
    def correct(self) -> np.ndarray | None:
        """(n_examples,) bool: right in the majority of its seeds; None where scores are not right or wrong."""
        if self.scores is None or not np.isin(self.scores, (0.0, 1.0)).all():
            return None
        return self.scores.mean(axis=0) > 0.5


@dataclass(frozen=True)
class Pair:
    """Two entries of a comparison. ``a`` has the better score, or comes first where both are the same.

    Attributes:
        difference: of a and b, in that order.
        p_adjusted: by Holm, over all pairs of the comparison.
        verdict: one plain sentence.
        would_change: what would change it, in one or two.
        detectable: the smallest true difference that is shown, with 80 % power, at the level that the pairs which are
            not shown had to reach among all pairs; ``difference.detectable`` is that of this pair tested alone.
        mcnemar: the exact McNemar test's p-value, where both are single runs.
        seed_share: the part of the squared standard error that comes from the seeds, 0 to 1.
    """

    a: str
    b: str
    difference: Difference
    p_adjusted: float
    verdict: str
    would_change: str
    detectable: float
    mcnemar: float | None = None
    seed_share: float = 0.0

    @property
    def is_shown(self) -> bool:
        """Whether the difference is shown: the adjusted p-value is below 0.05."""
        return self.p_adjusted < ALPHA


def machines_of(entries: Sequence[Entry]) -> set[str]:
    """What the runs were made on, as far as they say."""
    return {run.machine for entry in entries for run in entry.runs} - {""}


@dataclass(frozen=True)
class Comparison:
    """One task on one dev set.

    Attributes:
        dataset: as the runs call it: a bundled sample never goes by the real set's name.
        ids: of the dev examples, sorted.
        labels: (n_examples,), None where the task has no classes.
        texts: by id; empty where the data files are gone or have changed.
        entries: the best score first; published numbers among the others.
        pairs: all pairs of what was measured here, the best entry's first.
        problems: what is not compared, and why: other data, missing seeds, failed and unfinished runs.
        notes: what else a reader should know.
        baseline: the entry that the user asked to compare with.
        data: in a few words, what tells its data from those of the other comparisons of its dataset; empty where there
            are none.
        floors_by_rows: where runs differ in their number of training rows: a floor's name -> (rows, its score from so
            many), ascending.
    """

    task: str
    dataset: str
    measure: Measure
    ids: list[str]
    labels: np.ndarray | None
    label_names: list[str]
    texts: Mapping[str, str]
    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    baseline: str | None = None
    data: str = ""
    floors_by_rows: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)

    @property
    def measured_on(self) -> str:
        """The dataset, and what tells its data from others of that name."""
        return f"{self.dataset}, {self.data}" if self.data else self.dataset

    @property
    def measured(self) -> list[Entry]:
        """The entries that are no published numbers, the best first."""
        return [entry for entry in self.entries if entry.scores is not None]

    @property
    def best(self) -> Entry:
        return self.measured[0]

    @property
    def machines(self) -> set[str]:
        """What its runs were made on: see :func:`machines_of`."""
        return machines_of(self.entries)

    def entry(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.name == name)

    def pair(self, one: str, other: str) -> Pair | None:
        """The pair of two entries, whichever of them is the better one; None for two floors."""
        return next((pair for pair in self.pairs if {pair.a, pair.b} == {one, other}), None)

    def runner_up(self, first: Entry) -> Entry | None:
        """The best entry with runs behind ``first``; one with the same scores only where there is no other."""
        others = [entry for entry in self.measured[self.measured.index(first) + 1 :] if entry.runs]
        return next((entry for entry in others if not entry.scores_like(first)), others[0] if others else None)

    @cached_property
    def not_worse(self) -> frozenset[str]:
        """The best entry, and those that are tested and not shown to be worse."""
        tested = {pair.b: pair for pair in self.pairs if pair.a == self.best.name}  # two floors are no pair
        return frozenset({self.best.name} | {name for name, pair in tested.items() if not pair.is_shown})


# ---------------------------------------------------------------------------------------------------------------------
# Finding and reading
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refused:
    """A run folder that can't be compared, and why, with what to do."""

    folder: Path
    task: str
    dataset: str
    why: str

    def __str__(self) -> str:
        return f"{shown(self.folder)}: {self.why}"


def find_runs(folders: Sequence[Path]) -> tuple[list[Run], list[Refused]]:
    """Reads the run folders among and below ``folders``, each once, in the order of their paths.

    What is inside a run folder (its saved state, its stage of language modelling) is no run of its own.

    Raises:
        UserError: a folder is not there, or holds no run.
    """
    found: dict[Path, Path] = {}
    closed: list[Refused] = []
    problems = []
    for folder in folders:
        if not os.path.isdir(folder):  # noqa: PTH112 (never raises)
            problems.append(f"{folder}: no such folder; give run folders, or a folder that holds some")
            continue
        n_before = len(closed)
        below = _run_folders(folder, closed)
        if not below and len(closed) == n_before:
            problems.append(f"{folder}: holds no run (no folder with a config.json of this project's); give another")
        for path in below:
            found.setdefault(path.resolve(), path)
    if problems:
        raise UserError(problems)
    read = [_read_run(path) for _, path in sorted(found.items())]
    return [run for run in read if isinstance(run, Run)], [*closed, *(run for run in read if isinstance(run, Refused))]


def _run_folders(folder: Path, closed: list[Refused]) -> list[Path]:
    """Those in a folder, at any depth; ``closed`` gets the folders that can't be looked into."""

    def close(error: OSError) -> None:
        why = f"can't be read ({error.strerror}), so runs in it are not compared; mend that, or name other folders"
        closed.append(Refused(Path(error.filename), "", "", why))

    found = []
    for path, below, files in walk_folders(folder, close):
        below.sort()
        if "config.json" in files and _is_run(path / "config.json"):
            found.append(path)
            below.clear()
    return found


def _is_run(path: Path) -> bool:
    """A run's ``config.json`` names a task; that of a model does not. One that can't be read is looked at later."""
    try:
        return "task" in _read_object(path)
    except ValueError:
        return True


def _read_object(path: Path) -> dict[str, Any]:
    """Raises ValueError where the file is no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path.name} can't be read ({error.strerror})") from None
    except ValueError:
        raise ValueError(f"{path.name} is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return value


def _read_run(folder: Path) -> Run | Refused:
    config: dict[str, Any] = {}
    try:
        config = _read_object(folder / "config.json")
        parts = [config.get(name, {}) for name in ("data", "settings", "identity", "model", "environment")]
        if not all(isinstance(part, dict) for part in parts) or not _is_mapping_of_objects(parts[0].get("files")):
            raise ValueError("config.json is broken")
        if (folder / "metrics.json").exists():
            metrics = _read_object(folder / "metrics.json")
            why = _problem_of(metrics)
        elif (folder / "failed.json").exists():
            error = str(_read_object(folder / "failed.json").get("error", "no reason given"))
            why = f"failed: {' '.join(error.split())}; run its command again"
        else:
            why = "not finished; run its command again, and it goes on"
    except ValueError as error:
        why = f"{error}; restore it, or run its command again with --overwrite"
    if why:
        return Refused(folder, str(config.get("task", "")), str(config.get("dataset", "")), why)
    return Run(folder, config, metrics | {name: _finite(metrics[name]) for name in NUMBERS if metrics.get(name)})


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Those that are numbers: any other was not measured."""
    return {name: x for name, x in values.items() if isinstance(x, int | float) and math.isfinite(x)}


def _is_mapping_of_objects(value: Any) -> bool:
    return not value or (isinstance(value, dict) and all(isinstance(one, dict) for one in value.values()))


def _problem_of(metrics: Mapping[str, Any]) -> str:
    """What keeps a ``metrics.json`` from being used. Fields that are not known here do no harm."""
    schema = metrics.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        return f"metrics.json has schema {schema}, newer than {SCHEMA}, the newest known here; update this program"
    kinds = {"task": str, "dataset": str, "model": str, "strategy": str, "seed": int, "dev": dict}
    missing = [name for name, kind in kinds.items() if not isinstance(metrics.get(name), kind)]
    if missing:
        return f"metrics.json lacks {', '.join(missing)}; run its command again with --overwrite"
    shapes = {
        **{name: isinstance(metrics.get(name) or {}, dict) for name in (*NUMBERS, "reference_model")},
        "probes": _is_mapping_of_objects(metrics.get("probes")),
        "history": _is_history(metrics.get("history")),
    }
    broken = [name for name, is_whole in shapes.items() if not is_whole]
    return f"metrics.json is broken ({', '.join(broken)}); run its command again with --overwrite" if broken else ""


def _is_history(value: Any) -> bool:
    return not value or (
        isinstance(value, list)
        and all(isinstance(epoch, dict) and isinstance(epoch.get("dev", {}), dict) for epoch in value)
    )


@dataclass(frozen=True)
class Examples:
    """What a run saved of each dev example.

    Attributes:
        ids: in the order of the file, each once.
        values: measure -> (n,); NaN where it says nothing of an example.
        labels, predicted: (n,), and ``probabilities``: (n, n_classes); None where the task has no classes.
    """

    ids: list[str]
    values: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None
    predicted: np.ndarray | None = None
    probabilities: np.ndarray | None = None


def read_examples(run: Run, split: str = "dev") -> Examples:
    """Reads ``predictions/<split>-scores.jsonl``. Where an id has several records (several texts), they are averaged.

    Raises:
        ValueError: it is missing or broken; with what to do.
    """
    path = run.folder / "predictions" / f"{split}-scores.jsonl"
    remedy = "restore the file, or run its command again with --overwrite"
    try:
        records = read_records(path)
        found = _classified(records) if records and "probabilities" in records[0] else _measured(records)
    except FileNotFoundError:
        why = f"has no scores of single examples (predictions/{path.name}), so nothing can be tested on it"
        raise ValueError(why) from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):  # rows of several lengths, too
        raise ValueError(f"predictions/{path.name} is broken; {remedy}") from None
    if not records:
        raise ValueError(f"predictions/{path.name} is empty; {remedy}")
    if why := _problem_of_classes(found, len(records)):
        raise ValueError(why)
    return found


def read_records(path: Path) -> list[Any]:
    """Of a file with an object of JSON in each line. Only line feeds end one: ``str.splitlines`` knows others, which
    stand in texts."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _problem_of_classes(found: Examples, n_records: int) -> str:
    """What keeps the answers of a classification from being compared."""
    if found.probabilities is None or found.labels is None:
        return ""
    if not np.isfinite(found.probabilities).all():
        return "its predictions have probabilities that are no numbers, so nothing can be told from them"
    if (found.labels < 0).any():
        return "its dev examples have no labels, so there is nothing to compare; give a labelled dev file"
    if len(set(found.ids)) < n_records:
        return "an id occurs twice in predictions/dev-scores.jsonl; give each dev example its own"
    return ""


def _classified(records: Sequence[Mapping[str, Any]]) -> Examples:
    labels = np.array([-1 if record["label"] is None else record["label"] for record in records])
    predicted = np.array([record["prediction"] for record in records])
    probabilities = np.array([record["probabilities"] for record in records], dtype=float)
    ids = [str(record["id"]) for record in records]
    return Examples(ids, scores_of_classes(labels, predicted, probabilities), labels, predicted, probabilities)


def scores_of_classes(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """What a classification is measured by, of each example: right or wrong, and the loss in nats."""
    of_truth = probabilities[np.arange(len(labels)), labels]
    return {"accuracy": (predicted == labels).astype(float), "loss": -np.log(np.clip(of_truth, 1e-12, None))}


def _measured(records: Sequence[Mapping[str, Any]]) -> Examples:
    rows: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        rows.setdefault(str(record["id"]), []).append(i)
    numbers = [
        {name: float(x) for name, x in record.items() if name != "id" and isinstance(x, int | float)}
        for record in records
    ]
    names = dict.fromkeys(name for record in numbers for name in record)
    values = {}
    for name in names:
        column = np.array([record.get(name, np.nan) for record in numbers])
        values[name] = np.array([column[row].mean() for row in rows.values()])
    return Examples(list(rows), values)
