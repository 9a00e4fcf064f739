"""The files of a task with task tokens: the user's own, a published dataset's, or the bundled sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from config import ROOT, TextTaskSettings, UserError
from datasets import DataSource
from training.writing.task import TextTask
from training.writing.task_texts import TaskData


@dataclasses.dataclass(frozen=True)
class TaskFiles:
    """The files of a run.

    Attributes:
        dataset: its name in folders and tables.
        language: en or ko.
        source: where they are; its paths are called ``train``, or ``train-1`` and so on where there are several.
    """

    dataset: str
    language: str
    source: DataSource

    def by_split(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for name, path in self.source.paths.items():
            found.setdefault(name.partition("-")[0], []).append(path)
        return found


def find_files(task: TextTask, settings: TextTaskSettings) -> TaskFiles:
    """The user's own files, a published dataset's, or the bundled sample.

    Raises:
        UserError: flags that contradict each other, or files that are not there.
    """
    own = {name: getattr(settings, f"{name}_file") for name in ("train", "dev", "test")}
    if any(own.values()):
        return own_files(settings, own)
    if settings.data_dir and Path(settings.data_dir).is_file():
        raise UserError(f"--data-dir {settings.data_dir}: is a file; name the folder that it is in")
    named = settings.dataset or (only_dataset(task, Path(settings.data_dir)) if settings.data_dir else None)
    if named is not None:
        return published_files(task, settings, named)
    if settings.data_dir:
        raise UserError(f"--data-dir {settings.data_dir}: say which --dataset is there: {', '.join(task.datasets)}")
    language = settings.language or "en"
    folder = ROOT / "data" / "sample"
    used = own if settings.hold_out is None else ("train",)
    paths = {name: folder / f"{task.name}-{language}-{name}.{task.sample_ending}" for name in used}
    missing = [path for path in paths.values() if not path.exists()]
    if missing:
        raise UserError(
            [f"{path}: the bundled sample lacks it; name your own --train-file and --dev-file" for path in missing]
        )
    note = (
        "the bundled sample is small and made up, so the numbers say little; name real data by --dataset and "
        "--data-dir, or by --train-file and --dev-file"
    )
    return TaskFiles(f"{language}-sample", language, DataSource("sample", paths, (note,)))


def own_files(settings: TextTaskSettings, own: Mapping[str, str | None]) -> TaskFiles:
    needed = ("train", "dev") if settings.hold_out is None else ("train",)
    problems = [
        f"--{name}-file: missing; your own data need a file to train on and one to choose the epoch by, or --hold-out 5"
        for name in needed
        if not own[name]
    ]
    if settings.hold_out is not None and own["dev"]:
        problems.append("--dev-file: --hold-out takes training texts in its place; leave one of the two out")
    problems += [
        f"--{flag.replace('_', '-')}: your own files are named already; leave it out"
        for flag in ("dataset", "data_dir")
        if getattr(settings, flag)
    ]
    if problems:
        raise UserError(problems)
    paths = {name: Path(path) for name, path in own.items() if path}
    return TaskFiles("custom", settings.language or "en", DataSource("files", paths))


def only_dataset(task: TextTask, folder: Path) -> str | None:
    """The dataset of a task that has but one, if any of its files is in a folder."""
    if len(task.datasets) > 1:
        return None
    ((name, dataset),) = task.datasets.items()
    return name if any((folder / file).exists() for file in chain(*dataset.files_in(folder).values())) else None


def published_files(task: TextTask, settings: TextTaskSettings, name: str) -> TaskFiles:
    dataset = task.datasets[name]
    folder = Path(settings.data_dir) if settings.data_dir else ROOT / "data"
    if settings.language not in (None, dataset.language):
        raise UserError(f"--language {settings.language}: {name} is in {dataset.language}; leave the flag out")
    paths: dict[str, Path] = {}
    problems: list[str] = []
    names = dataset.files_in(folder)
    notes = [dataset.note] if dataset.note else []
    if settings.hold_out is not None:
        unused = {file for files in names.values() for file in files} - {*names["train"]}
        notes = [] if unused else notes  # they say what is chosen by, and measured on, which files
        names = {"train": names["train"]}
    for split, files in names.items():
        found = {f"{split}-{i + 1}" if len(files) > 1 else split: folder / file for i, file in enumerate(files)}
        missing = [path for path in found.values() if not path.exists()]
        if missing and split == "test":
            notes.append(f"{missing[0]}: no such file, so nothing is measured on test data")
            continue
        problems += [
            f"{path}: missing; name the folder with {name}'s files ({dataset.homepage}) by --data-dir"
            for path in missing
        ]
        paths |= found
    if problems:
        raise UserError(problems)
    return TaskFiles(
        name, dataset.language, DataSource("data-dir" if settings.data_dir else "local", paths, tuple(notes))
    )


def files_record(files: TaskFiles, data: TaskData, hashes: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What ``config.json`` says of the files: name -> path, sha256, and how many texts were made of all its split's."""
    return {
        name: {
            "path": str(path.absolute()),
            "sha256": hashes[name],
            "rows": len(getattr(data, name.partition("-")[0])),
        }
        for name, path in files.source.paths.items()
    }
