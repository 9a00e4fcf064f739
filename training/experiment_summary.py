"""What a table of experiments found: scores over seeds, time and memory, from the run folders alone."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage import write_json, write_text
from training.experiment_table import Cell, Experiment

SCHEMA = 1
SHOWN_MISSING = 12
SCORES = {  # of metrics.json -> in tables
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "perplexity": "perplexity",
    "generated_perplexity": "perplexity of poems",
    "rhyme_accuracy": "rhyme",
    "ten_syllable_lines": "ten syllables",
    "iambic_lines": "iambic",
    "distinct_2": "distinct-2",
    "chrf_endings": "chrF of endings",
}


def is_complete(folder: Path) -> bool:
    """Whether a run folder holds a finished run."""
    return (folder / "metrics.json").exists()


def read_metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Row:
    """The complete runs of one strategy on one dataset, over its seeds.

    Attributes:
        dataset, model: as the runs call them: a bundled sample never goes by the real set's name.
        strategy: as the table calls it.
        runs: their folders.
        scores: dev score -> its mean, its standard deviation over the seeds (n - 1; None for one seed), its values.
        best_epochs, epochs: the best one of each run, and how many it had.
    """

    table: str
    task: str
    dataset: str
    model: str
    strategy: str
    seeds: list[int]
    runs: list[str]
    scores: dict[str, dict[str, Any]]
    best_epochs: list[int]
    epochs: list[int]
    trainable_parameters: int
    total_parameters: int
    median_seconds: float
    peak_memory_bytes: int


def write_summary(experiment: Experiment, folders: Mapping[Cell, Path]) -> str:
    """Writes ``summary.json`` and ``summary.md`` from the ``metrics.json`` of all complete runs; returns it as text."""
    done = {cell: folders[cell] for cell in experiment.cells if cell in folders and is_complete(folders[cell])}
    missing = [cell.label for cell in experiment.cells if cell not in done]
    rows = summary_rows(done)
    record = {"schema": SCHEMA, "file": str(experiment.path), "rows": [dataclasses.asdict(row) for row in rows]}
    write_json(experiment.output_dir / "summary.json", record | {"missing": missing})
    pages, texts = [f"# {experiment.path.name}\n"], []
    for table in experiment.tables:
        columns = summary_columns([row for row in rows if row.table == table.name])
        heading = len(experiment.tables) > 1
        texts.append((f"== {table.name}\n" if heading else "") + aligned(columns) + "\n")
        pages.append((f"## {table.name}\n\n" if heading else "") + markdown(columns) + "\n")
    more = f" and {len(missing) - SHOWN_MISSING} more" if len(missing) > SHOWN_MISSING else ""
    note = f"Not complete: {', '.join(missing[:SHOWN_MISSING])}{more}.\n" if missing else ""
    legend = "Mean ± standard deviation over the seeds, on dev, of each run's best epoch; median time of a run.\n"
    write_text(experiment.output_dir / "summary.md", "\n".join([*pages, legend, *filter(None, [note])]))
    return "\n".join([*texts, *filter(None, [note])])


def summary_rows(done: Mapping[Cell, Path]) -> list[Row]:
    """One row per table, dataset, model and strategy, in the order of the cells."""
    grouped: dict[tuple[str, str, str, str, str], list[tuple[Cell, Path, dict[str, Any]]]] = {}
    for cell, folder in done.items():
        metrics = read_metrics(folder)
        key = (cell.table, cell.task, metrics["dataset"], metrics["model"], cell.strategy)
        grouped.setdefault(key, []).append((cell, folder, metrics))
    rows = []
    for key, runs in grouped.items():
        results = [metrics for _, _, metrics in runs]
        costs = [metrics["cost"] for metrics in results]
        rows.append(
            Row(
                *key,
                seeds=[cell.seed for cell, _, _ in runs],
                runs=[str(folder) for _, folder, _ in runs],
                scores={name: spread([result["dev"][name] for result in results]) for name in score_names(results)},
                best_epochs=[result["best_epoch"] for result in results],
                epochs=[result["epochs"] for result in results],
                trainable_parameters=costs[0]["trainable_parameters"],
                total_parameters=costs[0]["total_parameters"],
                median_seconds=statistics.median(cost["total_seconds"] for cost in costs),
                peak_memory_bytes=max(cost["peak_memory_bytes"] for cost in costs),
            )
        )
    return rows


def score_names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dev scores that all results have: the known ones, or, in a task without them, all."""
    shared = [name for name in results[0]["dev"] if all(name in result["dev"] for result in results)]
    return [name for name in SCORES if name in shared] or [name for name in shared if name not in ("n", "loss")]


def spread(values: list[float]) -> dict[str, Any]:
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "values": values}


def summary_columns(rows: Sequence[Row]) -> list[list[str]]:
    """The cells of the printed table, its head first."""
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    head = ["dataset", "model", "strategy", "seeds", *(SCORES.get(name, name) for name in names)]
    lines = [[*head, "best epochs", "trained", "time", "memory"]]
    for row in rows:
        scores = [_mean_and_std(row.scores[name]) if name in row.scores else "" for name in names]
        lines.append(
            [row.dataset, row.model, row.strategy, str(len(row.seeds)), *scores, " ".join(map(str, row.best_epochs)),
             f"{row.trainable_parameters:,}", duration(row.median_seconds), f"{row.peak_memory_bytes / 2**30:.1f} GiB"]
        )  # fmt: skip
    return lines


def _mean_and_std(score: Mapping[str, Any]) -> str:
    return f"{score['mean']:.3f}" + ("" if score["std"] is None else f" ± {score['std']:.3f}")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{x:<{w}}" for x, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def result_line(metrics: Mapping[str, Any]) -> str:
    scores = ", ".join(f"{SCORES.get(name, name)} {metrics['dev'][name]:.3f}" for name in score_names([metrics]))
    return f"dev {scores}, epoch {metrics['best_epoch']} of {metrics['epochs']}"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
