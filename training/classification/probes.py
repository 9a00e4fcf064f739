"""A probe set: examples of known kinds, each made to test one thing, measured beside the dev set."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import UserError
from datasets import Example, Split
from storage import file_sha256
from training.classification.metrics import Predictions

COLUMNS = ["id", "kind", "sentence1", "sentence2", "is_duplicate"]


@dataclass(frozen=True)
class Probes:
    """Pairs, and the kind of each."""

    split: Split
    kinds: list[str]

    def measure(self, predictions: Predictions) -> dict[str, dict[str, float]]:
        """Accuracy per kind, and over all: what the dev set's headline hides."""
        right = [bool(hit) for hit in predictions.predicted == predictions.labels]
        rows = {kind: [hit for hit, own in zip(right, self.kinds, strict=True) if own == kind] for kind in self.kinds}
        rows["all"] = right
        return {kind: {"accuracy": sum(hits) / len(hits), "n": len(hits)} for kind, hits in rows.items()}


def read_probes(path: Path, label_names: Sequence[str], clean: Callable[[str], str]) -> Probes:
    """Reads a tab-separated file with the columns id, kind, sentence1, sentence2, is_duplicate.

    Raises:
        UserError: it can't be read, or is no such file.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); it is part of this project, get it again") from None
    if not rows or list(rows[0]) != COLUMNS or any(row["is_duplicate"] not in ("0", "1") for row in rows):
        raise UserError(f"{path}: must have the columns {', '.join(COLUMNS)}, the last one 0 or 1; get it again")
    examples = [
        Example(row["id"], clean(row["sentence1"]), int(row["is_duplicate"]), line, second=clean(row["sentence2"]))
        for line, row in enumerate(rows, start=2)
    ]
    return Probes(Split(path, examples, [], file_sha256(path), tuple(label_names)), [row["kind"] for row in rows])


def probes_text(measured: dict[str, dict[str, Any]]) -> str:
    """The table of accuracies, for the terminal."""
    width = max(map(len, measured))
    lines = [f"{'on the probe set':<{width}}  accuracy    n"]
    lines += [f"{kind:<{width}}  {row['accuracy']:>8.3f} {row['n']:>4}" for kind, row in measured.items()]
    return "\n".join(lines)
