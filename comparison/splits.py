"""The data files of compared runs, read back where they still hold what the runs read: for texts and floors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comparison.runs import Run
from config import TextTaskSettings, UserError
from datasets import (
    PARAPHRASE_TASKS,
    SENTIMENT_TASKS,
    ClassificationTask,
    DataSource,
    Example,
    Split,
    fraction_of,
    read_splits,
)
from storage import file_sha256, shown
from training.writing.task_cli import chosen_rows

TABLES = {"sentiment": SENTIMENT_TASKS, "paraphrase": PARAPHRASE_TASKS}


@dataclass(frozen=True)
class ReadBack:
    """What could be read: ``splits`` of a classification, ``texts`` by id; ``problem`` says why there is nothing."""

    splits: dict[str, Split]
    texts: dict[str, str]
    problem: str = ""


def read_back(runs: Sequence[Run], ids: Sequence[str], labels: np.ndarray | None) -> ReadBack:
    """The training and dev rows of runs that share their files; of training rows as many as the run with the most has.

    A file that is gone, or is another one now, is not read; nor are those whose dev rows are not the runs'.

    Args:
        ids, labels: of the runs' dev examples; labels (n,) or None.
    """
    run = max(runs, key=lambda run: run.files.get("train", {}).get("rows", 0))
    if run.task not in (*TABLES, "sonnet", "inference"):
        return ReadBack({}, {})
    splits = {"train"} if run.settings.get("hold_out") else {"train", "dev", "truth"}
    needed = [name for name in run.files if _split_of(name) in splits]
    if not splits - {"truth"} <= set(map(_split_of, needed)):
        return ReadBack({}, {}, "config.json names no data files")
    back = _read(run, needed)
    if back.splits and labels is not None:
        known = {example.id: example.label for example in back.splits["dev"].examples}
        if any(known.get(id_) != label for id_, label in zip(ids, labels.tolist(), strict=True)):
            return ReadBack({}, {}, "the dev rows of the data files are not those that the runs were measured on")
    return back


def _read(run: Run, needed: Sequence[str]) -> ReadBack:
    for name in needed:
        if problem := changed(run.files[name]):
            return ReadBack({}, {}, problem)
    try:
        if run.task == "sonnet":
            return ReadBack({}, _given_lines(run))
        if run.task == "inference":
            return _inference(run, needed)
        task = task_of(run)
        return ReadBack({}, {}) if task is None else _classification(run, task)
    except UserError as error:
        return ReadBack({}, {}, error.problems[0])


def _split_of(name: str) -> str:
    """Of a file that ``config.json`` names; several of one split are called ``train-1`` and so on."""
    return name.partition("-")[0]


def changed(file: Any) -> str:
    """Empty if a data file that ``config.json`` names is still the same."""
    path = Path(file["path"])
    if path.is_file() and file_sha256(path) == file["sha256"]:
        return ""
    return f"{shown(path)} is gone or has changed"


def task_of(run: Run) -> ClassificationTask | None:
    """What is fixed about a run's dataset; None where this program has no table of it."""
    return TABLES.get(run.task, {}).get(run.dataset.removesuffix("-sample"))


def _classification(run: Run, task: ClassificationTask) -> ReadBack:
    source = DataSource("files", {name: Path(run.files[name]["path"]) for name in ("train", "dev")})
    settings = run.settings
    splits = read_splits(
        task,
        source,
        keep_case=bool(settings.get("keep_case")),
        skip_bad_rows=bool(settings.get("skip_bad_rows")),
        limits={"train": settings.get("limit_train"), "dev": settings.get("limit_dev")},
    )
    splits |= {"train": fraction_of(splits["train"], settings.get("train_fraction"), run.seed)}
    dev = splits["dev"].examples
    return ReadBack(splits, {e.id: e.text if e.second is None else f"{e.text} | {e.second}" for e in dev})


def _given_lines(run: Run) -> dict[str, str]:
    from poetry.sonnets import N_GIVEN, read_sonnets

    name = "train" if run.settings.get("hold_out") else "truth" if "truth" in run.files else "dev"
    path = Path(run.files[name]["path"])
    return {str(poem.number): "\n".join(poem.lines[:N_GIVEN]) for poem in read_sonnets(path)}


def _inference(run: Run, needed: Sequence[str]) -> ReadBack:
    """Premises and hypotheses, as pairs of texts."""
    from tasks.inference import DATASETS, read_pairs

    paths: dict[str, list[Path]] = {}
    for name in needed:
        paths.setdefault(_split_of(name), []).append(Path(run.files[name]["path"]))
    dataset = DATASETS.get(run.dataset)
    found = read_pairs(paths, dataset.label_names if dataset else None)
    chosen: dict[str, Any] = {name: run.settings.get(name) for name in ("limit_train", "limit_dev", "hold_out")}
    splits = {}
    for name, pairs in chosen_rows(found.splits, TextTaskSettings(**chosen)).items():
        examples = [Example(pair.id, pair.premise, pair.label, pair.line, pair.hypothesis) for pair in pairs]
        splits[name] = Split(paths.get(name, paths["train"])[0], examples, [], "", found.label_names)
    return ReadBack(splits, {e.id: f"{e.text} | {e.second}" for e in splits["dev"].examples})
