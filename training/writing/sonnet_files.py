"""What a sonnet run writes: poems under the course's names, and each poem's measures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config import ROOT
from poetry.measures import per_poem
from poetry.sonnets import (
    Sonnet,
    write_sonnets,
)
from storage import write_bytes, write_text, writing_output
from training.writing.run import WritingRun

GENERATED = {"test": "generated_sonnets.txt", "dev": "generated_sonnets_dev.txt"}


def save_poems(run: WritingRun, poems: dict[str, list[list[Sonnet]]]) -> None:
    """The files of the run folder, and their copies under the course's names."""
    settings: Any = run.settings
    folder = run.folder.predictions
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples in poems.items():
        for number, sample in enumerate(samples):
            write_sonnets(sample_file(folder / GENERATED[name], number), sample)
    if settings.output_dir is None:
        publish_poems(poems, ROOT / "predictions", "-sample" if run.data_origin == "sample" else "")


def publish_poems(poems: dict[str, list[list[Sonnet]]], folder: Path, mark: str) -> None:
    """The copies, without further samples of an earlier run beside them.

    Args:
        mark: stands behind the well-known names where the data are not the real ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples in poems.items():
        path = folder / GENERATED[name]
        path = path.with_stem(path.stem + mark)
        for old in folder.glob(f"{path.stem}_sample[0-9]*{path.suffix}"):
            old.unlink()
        for number, sample in enumerate(samples):
            write_sonnets(sample_file(path, number), sample)


def sample_file(path: Path, number: int) -> Path:
    """Where a sample of all poems is written: the first by the name itself, the others beside it."""
    return path.with_stem(f"{path.stem}_sample{number + 1}") if number else path


def write_out(settings: Any, number: int, content: bytes) -> None:
    """``--sonnet-out``, of one of the samples."""
    path = sample_file(Path(str(settings.sonnet_out)), number)
    with writing_output("--sonnet-out", path):
        write_bytes(path, content)


def save_scores(
    run: WritingRun, poems: Sequence[Sonnet], training: Sequence[Sonnet], likelihoods: dict[str, float]
) -> None:
    """Each reported poem's own measures, so that statistics can be done anew later, aligned by number."""
    columns = per_poem(poems, training)
    lines = []
    for i, poem in enumerate(poems):
        values = {name: float(column[i]) for name, column in columns.items() if column[i] == column[i]}  # not NaN
        values["log_likelihood"] = likelihoods[str(poem.number)]
        lines.append(json.dumps({"id": str(poem.number), **values}) + "\n")
    write_text(run.folder.predictions / "dev-scores.jsonl", "".join(lines))
