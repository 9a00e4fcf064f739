"""The data files of compared runs, read back where they still hold what the runs read: for texts and floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    Split,
    fraction_of,
    read_splits,
)
from storage import file_sha256, shown
from training.writing.task_cli import chosen_rows

TABLES = {"sentiment": SENTIMENT_TASKS, "paraphrase": PARAPHRASE_TASKS}
WRITTEN = ("summarization", "question-answering", "text-generation")
OTHER_ROWS = "the dev rows of the data files are not those that the runs were measured on"


@dataclass(frozen=True)
class ReadBack:
    """What could be read: ``splits`` of a classification, ``rows`` of each split of a task in which the model writes,
    ``texts`` of dev by id; ``problem`` says why there is nothing."""

    splits: dict[str, Split]
    texts: dict[str, str]
    problem: str = ""
    rows: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def read_back(
    runs: Sequence[Run], ids: Sequence[str], labels: np.ndarray | None, tested: Run | None = None
) -> ReadBack:
    """The training and dev rows of runs that share their files; of training rows as many as the run with the most has.

    A file that is gone, or is another one now, is not read; nor are those whose dev rows are not the runs'.

    Args:
        ids, labels: of the runs' dev examples; labels (n,) or None.
        tested: whose test rows are read too, where they are still there.
    """
    run = with_most_rows(runs)
    if run.task not in (*TABLES, *WRITTEN, "sonnet", "inference"):
        return ReadBack({}, {})
    is_held_out = run.settings.get("hold_out") or (run.task == "sonnet" and "dev" not in run.files)
    is_one_file = run.task in WRITTEN and not run.files_of("dev")  # split when it is read
    splits = {"train", "dev", "truth"}
    if (is_held_out or is_one_file) and run.task not in TABLES:
        splits = {"train"}
    needed = {name: file for name, file in run.files.items() if _split_of(name) in splits}
    if not splits - {"truth"} <= set(map(_split_of, needed)):
        return ReadBack({}, {}, "config.json names no data files")
    for file in needed.values():
        if problem := changed(file):
            return ReadBack({}, {}, problem)
    tests = {name: file for name, file in (tested.files if tested else {}).items() if _split_of(name) == "test"}
    if any(map(changed, tests.values())):
        tests = {}
    back = _read(run, needed | tests, tested.settings.get("limit_test") if tested else None)
    if back.splits and labels is not None:
        known = {example.id: example.label for example in back.splits["dev"].examples}
        if any(known.get(id_) != label for id_, label in zip(ids, labels.tolist(), strict=True)):
            return ReadBack({}, {}, OTHER_ROWS)
    if back.rows and not {row.id for row in back.rows["dev"]} >= set(ids):
        return ReadBack({}, {}, OTHER_ROWS)
    return back


def with_most_rows(runs: Sequence[Run]) -> Run:
    """The run that trained on most rows: floors are made from all of them."""
    return max(runs, key=lambda run: run.training_rows or 0)


def _read(run: Run, files: Mapping[str, Mapping[str, Any]], limit_test: int | None) -> ReadBack:
    paths: dict[str, list[Path]] = {}
    for name, file in files.items():
        paths.setdefault(_split_of(name), []).append(Path(file["path"]))
    try:
        if run.task == "sonnet":
            return ReadBack({}, _given_lines(run))
        if run.task in ("inference", *WRITTEN):
            return _READERS[run.task](run, paths, _chosen(run, limit_test, "test" in paths))
        task = task_of(run)
        return ReadBack({}, {}) if task is None else _classification(run, task, paths, limit_test)
    except UserError as error:
        return ReadBack({}, {}, error.problems[0])


def _split_of(name: str) -> str:
    """Of a file that ``config.json`` names; several of one split are called ``train-1`` and so on."""
    return name.partition("-")[0]


def changed(file: Any) -> str:
    """Empty if a data file that ``config.json`` names is still the same."""
    if not file.get("path"):
        return "config.json does not say where the data files are"
    path = Path(file["path"])
    try:
        if path.exists() and file_sha256(path) == file.get("sha256"):
            return ""
    except OSError as error:  # in a folder that one may not look into, say
        return f"{shown(path)} can't be read ({error.strerror})"
    return f"{shown(path)} is gone or has changed"


def task_of(run: Run) -> ClassificationTask | None:
    """What is fixed about a run's dataset; None where this program has no table of it."""
    return TABLES.get(run.task, {}).get(run.dataset.removesuffix("-sample"))


def _classification(
    run: Run, task: ClassificationTask, paths: Mapping[str, Sequence[Path]], limit_test: int | None
) -> ReadBack:
    source = DataSource("files", {name: of_split[0] for name, of_split in paths.items()})
    settings = run.settings
    splits = read_splits(
        task,
        source,
        keep_case=bool(settings.get("keep_case")),
        skip_bad_rows=bool(settings.get("skip_bad_rows")),
        limits={"train": settings.get("limit_train"), "dev": settings.get("limit_dev"), "test": limit_test},
    )
    splits |= {"train": fraction_of(splits["train"], settings.get("train_fraction"), run.seed)}
    dev = splits["dev"].examples
    return ReadBack(splits, {e.id: e.text if e.second is None else f"{e.text} | {e.second}" for e in dev})


def _given_lines(run: Run) -> dict[str, str]:
    from poetry.sonnets import N_GIVEN, read_sonnets

    name = "truth" if "truth" in run.files and not run.settings.get("hold_out") else "train"
    if problem := changed(run.files[name]):
        raise UserError(problem)
    path = Path(run.files[name]["path"])
    return {str(poem.number): "\n".join(poem.lines[:N_GIVEN]) for poem in read_sonnets(path)}


def _chosen(run: Run, limit_test: int | None, has_test: bool) -> TextTaskSettings:
    """Which rows of its files a run of a task with task tokens took."""
    chosen: dict[str, Any] = {name: run.settings.get(name) for name in ("limit_train", "limit_dev", "hold_out")}
    # A test file of its own stays where training texts are held out.
    return TextTaskSettings(**chosen, limit_test=limit_test, test_file="test" if has_test else None)


def _inference(run: Run, paths: Mapping[str, Sequence[Path]], chosen: TextTaskSettings) -> ReadBack:
    """Premises and hypotheses, as pairs of texts."""
    from tasks.inference import DATASETS, read_pairs, split_of

    dataset = DATASETS.get(run.dataset)
    found = read_pairs(paths, dataset.label_names if dataset else None)
    splits = {
        name: split_of(pairs, paths.get(name, paths["train"])[0], found.label_names)
        for name, pairs in chosen_rows(found.splits, chosen).items()
    }
    splits |= {"train": fraction_of(splits["train"], run.settings.get("train_fraction"), run.seed)}
    return ReadBack(splits, {e.id: f"{e.text} | {e.second}" for e in splits["dev"].examples})


def _summaries(run: Run, paths: Mapping[str, Sequence[Path]], chosen: TextTaskSettings) -> ReadBack:
    from tasks.summaries import read_dataset

    rows = chosen_rows(read_dataset(paths, run.settings.get("dataset")).splits, chosen)
    return ReadBack({}, {row.id: row.document for row in rows["dev"]}, rows=rows)


def _questions(run: Run, paths: Mapping[str, Sequence[Path]], chosen: TextTaskSettings) -> ReadBack:
    from tasks.questions import read_dataset

    rows = chosen_rows(read_dataset(paths, run.settings.get("dataset")).splits, chosen)
    return ReadBack({}, {row.id: row.question for row in rows["dev"]}, rows=rows)


def _passages(run: Run, paths: Mapping[str, Sequence[Path]], chosen: TextTaskSettings) -> ReadBack:
    from tasks.passages import read_dataset

    settings = run.settings
    separator, field_of_text = str(settings.get("document_separator") or ""), str(settings.get("text_field") or "text")
    rows = chosen_rows(read_dataset(paths, settings.get("dataset"), separator, field_of_text).splits, chosen)
    return ReadBack({}, {row.id: row.source for row in rows["dev"]}, rows=rows)


_READERS = {
    "inference": _inference,
    "summarization": _summaries,
    "question-answering": _questions,
    "text-generation": _passages,
}
