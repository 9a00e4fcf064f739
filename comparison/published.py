"""Results that others published, for the tables: never mixed with what was measured here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from comparison.runs import Entry, Measure, Run
from comparison.splits import changed, task_of
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
    """One entry for each result in the measure that is compared.

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
            value=float(result["scores"][measure.name]),
            note=MARK + (f"; {other}" if other else ""),
            published=result,
        )
        for result in published_results(run.task, run.dataset)
        if measure.name in result["scores"]
    ]


def published_notes(run: Run, measure: Measure) -> list[str]:
    """What a reader must know of the published results, and those that have only other measures than the compared."""
    results = published_results(run.task, run.dataset)
    other = other_dev_set(run)
    notes = [f"the published numbers are of other examples: {other}"] if results and other else []
    for result in results:
        if measure.name not in result["scores"]:
            scores = ", ".join(f"{name} {value:g}" for name, value in result["scores"].items())
            notes.append(f"{MARK}: {result['strategy']} ({result['source']}): {scores}")
    return notes


def other_dev_set(run: Run) -> str:
    """Empty if the dev examples are those of the published file, as far as that can be seen."""
    if run.settings.get("limit_dev"):
        return "on the whole dev set"
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
