"""Results that others published, for the tables: never mixed with what was measured here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from comparison.runs import Entry, Measure, Run
from comparison.splits import changed, task_of
from comparison.tables import BEYOND
from config import ROOT
from downloads import git_blob_hash

FILE = ROOT / "experiments" / "published.yaml"
MARK = "published, not measured here"
MODEL = "gpt2 (124M)"


@cache
def read_published(path: Path = FILE) -> tuple[Mapping[str, Any], ...]:
    import yaml

    return tuple(yaml.safe_load(path.read_text(encoding="utf-8"))["results"])


def published_results(task: str, dataset: str) -> list[Mapping[str, Any]]:
    """What was published for a dataset; nothing for a bundled sample, which has a name of its own."""
    return [result for result in read_published() if (result["task"], result["dataset"]) == (task, dataset)]


def published_entries(run: Run, measure: Measure) -> list[Entry]:
    """One entry for each result that the table has a column for; its value is NaN where that is another measure's.

    Args:
        run: any run of the comparison: its dev set is looked at, so that another one than the published is said.
    """
    other = other_dev_set(run)
    return [
        Entry(
            name=f"{result['strategy']} ({result['source']})",
            kind="published",
            model=result.get("model", MODEL),
            strategy=result["strategy"],
            runs=(),
            scores=None,
            value=float(result["scores"].get(measure.name, math.nan)),
            note=MARK + (f"; {other}" if other else ""),
            published=result,
        )
        for result in published_results(run.task, run.dataset)
        if _has_a_column(result, measure)
    ]


def _has_a_column(result: Mapping[str, Any], measure: Measure) -> bool:
    return measure.name in result.get("test", {}) or not result["scores"].keys().isdisjoint({measure.name, *BEYOND})


def published_notes(run: Run, measure: Measure) -> list[str]:
    """What a reader must know of the published results, and those that have only measures which no table shows."""
    results = published_results(run.task, run.dataset)
    other = other_dev_set(run)
    notes = [f"the published numbers are of other examples: {other}"] if results and other else []
    for result in results:
        if not _has_a_column(result, measure):
            scores = ", ".join(f"{name} {value:g}" for name, value in result["scores"].items())
            notes.append(f"{MARK}: {result['strategy']} ({result['source']}): {scores}")
    return notes


def other_dev_set(run: Run) -> str:
    """Empty if the dev examples are those of the published file, as far as that can be seen."""
    if run.settings.get("limit_dev"):
        return "on the whole dev set"
    if run.task == "sonnet" and not run.settings.get("hold_out") and "truth" in run.files:
        return "on all beginnings of the dev file, here on every other one"
    blobs: Mapping[str, str] = {}
    if run.task == "sonnet":
        from poetry.sonnets import SONNETS

        blobs = SONNETS.git_blobs
    else:
        task = task_of(run)
        blobs = task.git_blobs if task else {}
    file = run.files.get("dev")
    if file is None or "dev" not in blobs or changed(file):
        return ""
    return "" if git_blob_hash(Path(file["path"]).read_bytes()) == blobs["dev"] else "on another dev file"
