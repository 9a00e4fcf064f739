"""Measures of a classifier, their uncertainty, and how they are shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

from training.terminal import display_width, pad, shorten

BOOTSTRAP_SAMPLES = 2000
CALIBRATION_BINS = 15
MANY_CLASSES = 20  # with more, a confusion matrix is too wide to be read cell by cell
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))


@dataclass(frozen=True)
class Predictions:
    """A model's answers on one split.

    Attributes:
        ids, texts: of the examples, in the file's order.
        probabilities: (n, n_classes).
        labels: (n,), or None where the file has none.
    """

    ids: list[str]
    texts: list[str]
    probabilities: np.ndarray
    labels: np.ndarray | None

    @property
    def predicted(self) -> np.ndarray:
        return self.probabilities.argmax(axis=1)


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Accuracy, macro-F1, mean cross-entropy in nats, and calibration error.

    With two classes also precision, recall and F1 of the second, the positive one, and, where both occur, the area
    under the ROC curve. Where a probability is not a number, as after weights have exploded, no score is one.
    """
    if not np.isfinite(probabilities).all():
        return {"loss": math.nan, "accuracy": math.nan, "macro_f1": math.nan, "n": len(labels)}
    predicted = probabilities.argmax(axis=1)
    of_truth = probabilities[np.arange(len(labels)), labels]
    metrics = {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(_macro_f1(labels, predicted, probabilities.shape[1])),
        "loss": float(-np.log(np.clip(of_truth, 1e-12, None)).mean()),
        "calibration_error": calibration_error(labels, probabilities),
        "n": len(labels),
    }
    if probabilities.shape[1] == 2:
        metrics |= _of_positive(labels == 1, predicted == 1)
        if 0 < labels.sum() < len(labels):
            metrics["roc_auc"] = float(roc_auc_score(labels, probabilities[:, 1]))
    return metrics


def _of_positive(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    hits = float((labels & predicted).sum())
    precision, recall = hits / max(predicted.sum(), 1), hits / max(labels.sum(), 1)
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(precision + recall, 1e-12)}


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017, section 2): |accuracy - confidence|, over bins of confidence."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    gaps = np.bincount(confidence_bins(confidence), weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """Which of the equally wide bins each confidence, from 0 to 1, falls into; 1 is in the last."""
    return np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)


def threshold_curve(labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, float]]:
    """What other thresholds than 0.5 on the positive class's probability would give."""
    rows = []
    for threshold in THRESHOLDS:
        predicted = probabilities[:, 1] >= threshold
        scores = _of_positive(labels == 1, predicted)
        rows.append({"threshold": threshold, "accuracy": float((predicted == (labels == 1)).mean()), **scores})
    return rows


def _macro_f1(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """The mean of the F1 scores of the classes that have examples or predictions, as in scikit-learn."""
    counts = np.bincount(labels * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)
    hits = counts.diagonal()
    total = counts.sum(axis=0) + counts.sum(axis=1)
    occurs = total > 0
    return float((2 * hits[occurs] / total[occurs]).mean())


def confidence_intervals(labels: np.ndarray, probabilities: np.ndarray, seed: int) -> dict[str, list[float]]:
    """95 % percentile intervals from a bootstrap over the examples (Efron 1979).

    They say how much the score would vary with other examples, not with other seeds.
    """
    random = np.random.default_rng(seed)
    predicted = probabilities.argmax(axis=1)
    draws = {"accuracy": [], "macro_f1": []}  # type: dict[str, list[float]]
    for _ in range(BOOTSTRAP_SAMPLES):
        rows = random.integers(0, len(labels), len(labels))
        draws["accuracy"].append(float((predicted[rows] == labels[rows]).mean()))
        draws["macro_f1"].append(_macro_f1(labels[rows], predicted[rows], probabilities.shape[1]))
    return {name: [float(x) for x in np.percentile(values, [2.5, 97.5])] for name, values in draws.items()}


def class_table(labels: np.ndarray, predicted: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and number of examples of each class."""
    columns = precision_recall_fscore_support(labels, predicted, labels=range(len(names)), zero_division=0)
    return [
        {"class": name, "precision": float(p), "recall": float(r), "f1": float(f), "n": int(n)}
        for name, p, r, f, n in zip(names, *columns, strict=True)
    ]


def confusion(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> list[list[int]]:
    """Rows are the true classes, columns the predicted ones."""
    return confusion_matrix(labels, predicted, labels=range(n_classes)).tolist()


def worst_mistakes(predictions: Predictions, names: list[str], count: int = 10) -> list[dict[str, Any]]:
    """The wrong answers that gave the true class the least probability."""
    assert predictions.labels is not None
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    of_truth = predictions.probabilities[wrong, predictions.labels[wrong]]
    return [
        {
            "id": predictions.ids[i],
            "text": predictions.texts[i],
            "label": names[predictions.labels[i]],
            "predicted": names[predictions.predicted[i]],
            "probability_of_label": float(predictions.probabilities[i, predictions.labels[i]]),
        }
        for i in wrong[np.argsort(of_truth, kind="stable")][:count]
    ]


# ---------------------------------------------------------------------------------------------------------------------
# For a person's eyes
# ---------------------------------------------------------------------------------------------------------------------


def report_text(metrics: dict[str, Any]) -> str:
    """Per-class scores, the confusion matrix unless it is too wide, and the worst mistakes, for the terminal."""
    names = [row["class"] for row in metrics["classes"]]
    width = max(12, *(display_width(name) for name in names))
    few = len(names) <= MANY_CLASSES
    columns = "   predicted as " + " ".join(f"{i:>5}" for i in range(len(names))) if few else ""
    lines = [f"{'':<{width}}  precision  recall     F1      n{columns}"]
    for i, (row, counts) in enumerate(zip(metrics["classes"], metrics["confusion"], strict=True)):
        scores = f"{row['precision']:>9.3f} {row['recall']:>7.3f} {row['f1']:>6.3f} {row['n']:>6}"
        columns = f"   {i:>12} " + " ".join(f"{count:>5}" for count in counts) if few else ""
        lines.append(f"{pad(row['class'], width)}  {scores}{columns}")
    if metrics["worst_mistakes"]:
        lines += ["", "the most confident mistakes (probability of the true class, truth -> prediction):"]
        for mistake in metrics["worst_mistakes"]:
            text = shorten(mistake["text"], 76)
            lines.append(
                f"  {mistake['probability_of_label']:.3f}  {mistake['label']} -> {mistake['predicted']}:  {text}"
            )
    return "\n".join(lines)


def headline(metrics: dict[str, Any]) -> str:
    """A run's result in one line."""
    dev, interval = metrics["dev"], metrics["dev_ci"]["accuracy"]
    return (
        f"{metrics['dataset']}, {metrics['model']}, {metrics['strategy']}: dev accuracy {dev['accuracy']:.3f} "
        f"(95 % CI {interval[0]:.3f}-{interval[1]:.3f}), macro-F1 {dev['macro_f1']:.3f}, n {dev['n']}, "
        f"epoch {metrics['best_epoch']} of {metrics['epochs']}"
    )
