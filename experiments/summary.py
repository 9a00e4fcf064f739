"""What the runner says of single runs, from their folders: how far they are, and their scores in a line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.terminal import display_width, pad

COMPLETE, TO_GO_ON, TO_TRY_AGAIN, TO_DO = "complete", "to go on", "to try again", "to do"
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


def result_line(metrics: Mapping[str, Any]) -> str:
    """The dev scores of a run: the known ones, or, in a task without them, all."""
    scores = {name: x for name, x in metrics["dev"].items() if isinstance(x, int | float) and name not in ("n", "loss")}
    shown = [name for name in SCORES if name in scores] or list(scores)
    text = ", ".join(f"{SCORES.get(name, name)} {scores[name]:.3f}" for name in shown)
    return f"dev {text}, epoch {metrics['best_epoch']} of {metrics['epochs']}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(pad, row, widths)).rstrip() for row in rows)


def count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def state_of(folder: Path) -> str:
    if is_complete(folder):
        return COMPLETE
    if (folder / "failed.json").exists():
        return TO_TRY_AGAIN
    return TO_GO_ON if (folder / "config.json").exists() else TO_DO
