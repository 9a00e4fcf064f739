"""New texts, labelled with a finished run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from config import ROOT, ClassificationSettings, UserError
from datasets import Example
from training.classification import label_examples
from training.run_folder import RunFolder

S = TypeVar("S", bound=ClassificationSettings)


def read_lines(path: Path) -> list[str]:
    """The lines of ``--predict-file``.

    Raises:
        UserError: it can't be read, is not UTF-8, or holds nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); --predict-file takes a text file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from None
    if not lines:
        raise UserError(f"{path}: is empty; give a file with one text per line")
    return lines


def finished_run(settings: ClassificationSettings, task: str) -> RunFolder:
    """The run of ``--from-run``, or the task's run that was finished last."""
    if settings.from_run is not None:
        folder = RunFolder(Path(settings.from_run))
        if not folder.is_complete:
            raise UserError(f"--from-run {settings.from_run}: is no finished run (no metrics.json); finish it first")
        if folder.config()["task"] != task:
            raise UserError(f"--from-run {settings.from_run}: is a run of another task, {folder.config()['task']}")
        return folder
    runs = Path(settings.output_dir or ROOT / "runs")
    finished = sorted(runs.glob(f"{task}-*/metrics.json"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise UserError(f"{runs}: holds no finished {task} run; train one, or name one with --from-run")
    return RunFolder(finished[-1].parent)


def print_labels(
    settings: S, task: str, rows: Sequence[tuple[str, ...]], clean: Callable[[tuple[str, ...], bool], Example]
) -> None:
    """Prints the label, the probabilities and the text of each row, a line each.

    Args:
        rows: texts, or pairs of them, as the user gave them.
        clean: (row, whether the case is kept) -> the example that the model reads.
    """
    folder = finished_run(settings, task)
    print(f"run: {folder.path}", file=sys.stderr)
    saved = type(settings)(**folder.config()["settings"] | {"use_gpu": settings.use_gpu})
    examples = [clean(row, saved.keep_case) for row in rows]
    for row, (probabilities, names) in zip(rows, label_examples(folder, examples, saved), strict=True):
        ranked = sorted(zip(probabilities, names, strict=True), reverse=True)
        print(f"{ranked[0][1]}\t{', '.join(f'{name} {p:.3f}' for p, name in ranked)}\t" + "\t".join(row))
