"""A file of experiments: tables of datasets x models x settings x strategies x seeds, and the runs they ask for."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config import ROOT, UserError
from experiments.children import TASK_SCRIPTS
from training.cli import read_yaml

# What a table's own keys decide, and what would make every start a new run, or none.
RESERVED = {"dataset", "strategy", "seed", "model", "data-dir", "output-dir", "overwrite", "resume", "dry-run"}


@dataclass(frozen=True)
class Table:
    """Datasets x models x varied settings x strategies x seeds, all of one task.

    Attributes:
        datasets: as --dataset takes them; None leaves the flag out, for the user's own files or a bundled sample.
        models: as --model takes them; None leaves the choice to the script.
        settings: flag, without its hyphens -> value, for all runs.
        per_strategy: strategy -> the same for its runs, where they differ.
        vary: flag -> the values that it takes in turn.
    """

    name: str
    task: str
    strategies: tuple[str, ...]
    datasets: tuple[str | None, ...] = (None,)
    seeds: tuple[int, ...] = (11711,)
    models: tuple[str | None, ...] = (None,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    per_strategy: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    data_dir: str | None = None

    @property
    def variants(self) -> list[dict[str, Any]]:
        """Every combination of the varied settings; a single empty one where nothing varies."""
        return [dict(zip(self.vary, values, strict=True)) for values in itertools.product(*self.vary.values())]


@dataclass(frozen=True)
class Cell:
    """One run: where it stands in its table, and the flags of its script.

    Attributes:
        varied: the flags that vary in its table, with this run's values as text.
    """

    table: str
    task: str
    dataset: str | None
    model: str | None
    strategy: str
    varied: tuple[tuple[str, str], ...]
    seed: int
    label: str
    argv: tuple[str, ...]

    @property
    def places(self) -> dict[str, str]:
        """What tells it from the other runs: key -> value, as ``--only`` names them."""
        named: dict[str, Any] = {"table": self.table} | ({"dataset": self.dataset} if self.dataset else {})
        named |= {"model": self.model, "strategy": self.strategy, **dict(self.varied), "seed": self.seed}
        return {key: str(value) for key, value in named.items()}


@dataclass(frozen=True)
class Experiment:
    """What a file asks for.

    Attributes:
        tables, cells: those that could be read.
        problems: what is wrong with the file, with its name and the key; with any, nothing should be run.
        output_dir: for the comparison and the logs.
        runs_dir: for the run folders; the same one, unless the file shares those of another.
        replaced: of a file with several models, those that another one stands for.
    """

    path: Path
    tables: tuple[Table, ...]
    output_dir: Path
    runs_dir: Path
    cells: tuple[Cell, ...]
    problems: tuple[str, ...]
    replaced: tuple[str, ...] = ()

    def where(self, table: Table) -> str:
        """The place of a table, for messages."""
        return str(self.path) if len(self.tables) == 1 else f"{self.path}: table {table.name}"


def read_experiment(
    path: Path, seeds: Sequence[int] | None = None, data_dir: str | None = None, output_dir: str | None = None,
    model: str | None = None,
) -> Experiment:  # fmt: skip
    """Reads a file.

    Args:
        seeds, data_dir, output_dir, model: replace what the file says.

    Raises:
        UserError: it can't be read at all, or is no YAML.
    """
    problems: list[str] = []
    tables, top = read_tables(path, problems)
    changes: dict[str, Any] = {"seeds": tuple(dict.fromkeys(seeds))} if seeds else {}
    changes |= {"data_dir": data_dir} if data_dir else {}
    changes |= {"models": (model,)} if model else {}
    models = dict.fromkeys(one for table in tables for one in table.models if one)
    replaced = tuple(one for one in models if one != model) if model and len(models) > 1 else ()
    tables = [dataclasses.replace(table, **changes) for table in tables]
    own = output_dir or top.get("output_dir")
    folder = Path(os.path.expanduser(own or ROOT / "runs" / path.stem)).absolute()  # noqa: PTH111
    runs_dir = folder if own else folder.with_name(top.get("runs_of", folder.name))
    cells = [cell for table in tables for cell in make_cells(table, runs_dir, is_alone=len(tables) == 1)]
    first: dict[tuple[str, tuple[str, ...]], Cell] = {}
    for cell in cells:
        other = first.setdefault((cell.task, cell.argv), cell)
        if other is not cell:
            problems.append(f"{path}: {other.label} and {cell.label} are the same run; leave one of them out")
    return Experiment(path, tuple(tables), folder, runs_dir, tuple(cells), tuple(problems), replaced)


def make_cells(table: Table, runs_dir: Path, is_alone: bool) -> Iterator[Cell]:
    """The runs of a table.

    Their labels name it where the file holds others or where no dataset has a name, and the model where it has several.
    """
    columns = (table.datasets, table.models, table.variants, table.strategies, table.seeds)
    for dataset, model, variant, strategy, seed in itertools.product(*columns):
        argv = [*(["--dataset", dataset] if dataset else []), "--strategy", strategy, "--seed", str(seed)]
        argv += ["--model", model] if model else []
        argv += ["--data-dir", table.data_dir] if table.data_dir else []
        argv += ["--output-dir", str(runs_dir)]
        for name, value in {**table.settings, **table.per_strategy.get(strategy, {}), **variant}.items():
            argv += flags_of(name, value)
        varied = tuple((name, text_of(value)) for name, value in variant.items())
        named = [dataset or (table.name if is_alone else ""), str(model) if len(table.models) > 1 else ""]
        words = [*filter(None, named), strategy, *map(" ".join, varied)]
        label = " ".join([*([] if is_alone else [f"{table.name}:"]), *words, f"s{seed}"])
        yield Cell(table.name, table.task, dataset, model, strategy, varied, seed, label, tuple(argv))


def text_of(value: Any) -> str:
    """A setting's value as labels show it; commas stand between the values of ``--only``."""
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def flags_of(name: str, value: Any) -> list[str]:
    """A setting as flags of a script's command line."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}={value}"]


def read_tables(path: Path, problems: list[str]) -> tuple[list[Table], dict[str, str]]:
    """The tables of a file that could be read, and what else it says of all of them."""
    raw = {str(key).replace("-", "_"): value for key, value in load_yaml(path).items()}
    entries, top = raw.pop("tables", [{}]), {}
    for key in ("output_dir", "runs_of"):
        value = raw.pop(key, None)
        if isinstance(value, str):
            top[key] = value
        elif value is not None:
            problems.append(f"{path}: {key}: {value!r} is not a text")
    if top.get("output_dir") == "":
        problems.append(f"{path}: output_dir: is empty; name a folder, or leave it out")
    if len(top) > 1:
        problems.append(f"{path}: output_dir and runs_of: each says where the runs go; leave one of them out")
    other = top.get("runs_of")
    if other is not None and (not other or Path(other).name != other):
        problems.append(f"{path}: runs_of: {other!r} is not the bare name of a file beside this one")
        del top["runs_of"]
    elif other is not None and not path.with_name(f"{other}.yaml").is_file():
        problems.append(f"{path}: runs_of: {other!r} is no file of experiments beside this one: {other}.yaml")
        del top["runs_of"]
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        problems.append(f"{path}: tables: must be a list of tables, each with keys of its own")
        entries = [{}]
    above = read_values(str(path), raw, problems)
    tables = []
    for number, entry in enumerate(entries, start=1):
        where = str(path) if entries == [{}] else f"{path}: table {number}"
        keys = {str(key).replace("-", "_"): value for key, value in entry.items()}
        values = {"name": path.stem if len(entries) == 1 else str(number)} | above | read_values(where, keys, problems)
        missing = [key for key in ("task", "strategies") if key not in values and key not in keys | raw]
        problems += [f"{where}: {key}: is missing" for key in missing]
        if values.keys() >= {"task", "strategies"} and ("datasets" in values or "datasets" not in keys | raw):
            tables.append(Table(**values))
            problems += contradictions(where, tables[-1])
    names = Counter(table.name for table in tables)
    problems += [f"{path}: name: {name!r} is the name of {n} tables" for name, n in names.items() if n > 1]
    return tables, top


def contradictions(where: str, table: Table) -> list[str]:
    """What the keys of a table say against each other."""
    own_files = "train-file" in {**table.settings, **table.vary}
    problems = []
    if own_files and table.datasets != (None,):
        problems.append(f"{where}: datasets: your own files are named already, by train-file; leave it out")
    if table.task == "sentiment" and table.datasets == (None,) and not own_files:  # one call would train on two
        problems.append(f"{where}: datasets: is missing; or name your own files: settings: train-file, dev-file")
    unused = sorted(table.per_strategy.keys() - set(table.strategies))
    problems += [f"{where}: per_strategy: {name}: is not among the strategies" for name in unused]
    fixed = {"settings": table.settings}
    fixed |= {f"per_strategy: {strategy}": settings for strategy, settings in table.per_strategy.items()}
    for key, settings in fixed.items():
        for name in sorted(table.vary.keys() & settings.keys()):
            problems.append(f"{where}: vary: {name}: stands in {key} too; leave one of them out")
    return problems


def load_yaml(path: Path) -> dict[Any, Any]:
    raw = read_yaml(path, "give a YAML file with a table")
    if not isinstance(raw, dict):
        raise UserError(f"{path}: must hold 'key: value' lines; see the head of run_experiments.py")
    return raw


def read_values(where: str, raw: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The keys of a table that are in order; the others become problems."""
    values: dict[str, Any] = {}
    if raw.keys() >= {"model", "models"}:
        problems.append(f"{where}: model and models: say the same; leave one of them out")
    for key, value in raw.items():
        if key not in READERS:
            problems.append(f"{where}: unknown key {key!r}; the keys are {', '.join([*READERS, *TOP_KEYS])}")
            continue
        try:
            values["models" if key == "model" else key] = READERS[key](value)
        except ValueError as error:
            problems += [f"{where}: {key}: {problem}" for problem in error.args]
    return values


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a text")
    return value


def _task(value: Any) -> str:
    if value not in TASK_SCRIPTS:
        raise ValueError(f"{value!r} is none of {', '.join(TASK_SCRIPTS)}")
    return value


def _names(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{value!r} is not a list of names")
    return tuple(dict.fromkeys(names))


def _seeds(value: Any) -> tuple[int, ...]:
    seeds = value if isinstance(value, list) else [value]
    if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ValueError(f"{value!r} is not a list of whole numbers, 0 or more")
    return tuple(dict.fromkeys(seeds))


def _settings(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a list of 'flag: value' lines")
    settings = {str(name).replace("_", "-"): x for name, x in value.items()}
    problems = [f"{name}: can't be set here" for name in settings if name in RESERVED]
    for name, x in settings.items():
        parts = x if isinstance(x, list) else [x]
        if not parts or not all(isinstance(part, bool | int | float | str) for part in parts):
            problems.append(f"{name}: {x!r} is no number, no text and no list of them")
    if problems:
        raise ValueError(*problems)
    return settings


def _vary(value: Any) -> dict[str, list[Any]]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a list of 'flag: [value, value]' lines")
    varied, problems = {str(name).replace("_", "-"): values for name, values in value.items()}, []
    for name, values in varied.items():
        if not isinstance(values, list) or not values:
            problems.append(f"{name}: {values!r} is not a list of values")
            continue
        for one in values:
            try:
                _settings({name: one})
            except ValueError as error:
                problems += error.args
    if problems:
        raise ValueError(*dict.fromkeys(problems))
    return varied


def _per_strategy(value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} has no settings under the names of strategies")
    settings, problems = {}, []
    for name, of_strategy in value.items():
        try:
            settings[str(name)] = _settings(of_strategy)
        except ValueError as error:
            problems += [f"{name}: {problem}" for problem in error.args]
    if problems:
        raise ValueError(*problems)
    return settings


TOP_KEYS = ("output_dir", "runs_of", "tables")
READERS: dict[str, Callable[[Any], Any]] = {
    "name": _text, "task": _task, "datasets": _names, "strategies": _names, "model": lambda value: (_text(value),),
    "models": _names, "seeds": _seeds, "settings": _settings, "per_strategy": _per_strategy, "vary": _vary,
    "data_dir": _text,
}  # fmt: skip
