"""Files of predictions."""

from __future__ import annotations

import json
from pathlib import Path

from storage import write_text
from training.classification.metrics import Predictions


def write_predictions(predictions: Predictions, column: str, path: Path) -> None:
    """The course's format: the header ``id \\t <column>``, then ``id, label`` lines."""
    lines = [f"{id_}, {label} \n" for id_, label in zip(predictions.ids, predictions.predicted, strict=True)]
    write_text(path, f"id \t {column} \n" + "".join(lines))


def write_scores(predictions: Predictions, path: Path) -> None:
    """One JSON object per example, so that statistics can be done anew later, aligned by id."""
    lines = []
    for i, id_ in enumerate(predictions.ids):
        record = {
            "id": id_,
            "label": None if predictions.labels is None else int(predictions.labels[i]),
            "prediction": int(predictions.predicted[i]),
            "probabilities": [float(p) for p in predictions.probabilities[i]],
        }
        lines.append(json.dumps(record) + "\n")
    write_text(path, "".join(lines))
