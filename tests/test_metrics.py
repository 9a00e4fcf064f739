"""Metrics of a classifier, against scikit-learn and by hand, and how they are shown."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

from training.classification.metrics import (
    MANY_CLASSES,
    Predictions,
    class_table,
    classification_metrics,
    confidence_intervals,
    confusion,
    report_text,
    worst_mistakes,
)
from training.classification.plots import plot_confusion
from training.terminal import display_width, pad, shorten


def random_case(seed: int, n: int = 60, n_classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(n, n_classes))
    return draw.integers(0, n_classes, n), np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def certain(predicted: list[int], n_classes: int) -> np.ndarray:
    return np.eye(n_classes)[predicted]


@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_scikit_learn(seed: int) -> None:
    labels, probabilities = random_case(seed, n=9 if seed == 4 else 60)  # nine examples miss some class
    predicted = probabilities.argmax(axis=1)
    found = classification_metrics(labels, probabilities)
    classes = range(5)
    f1 = reference.f1_score(labels, predicted, average="macro")
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(f1)
    assert found["loss"] == pytest.approx(reference.log_loss(labels, probabilities, labels=classes))
    assert found["n"] == len(labels)
    assert confusion(labels, predicted, 5) == reference.confusion_matrix(labels, predicted, labels=classes).tolist()
    table = class_table(labels, predicted, list("abcde"))
    assert [row["recall"] for row in table] == pytest.approx(
        reference.recall_score(labels, predicted, labels=classes, average=None, zero_division=0).tolist()
    )


def test_metrics_by_hand() -> None:
    """Truth 0 0 1 1, predicted 0 1 1 1: F1 is 2/3 and 4/5; class 2 has neither examples nor predictions."""
    labels, predicted = np.array([0, 0, 1, 1]), [0, 1, 1, 1]
    two = classification_metrics(labels, certain(predicted, 2))
    assert (two["accuracy"], two["macro_f1"], two["n"]) == (0.75, pytest.approx((2 / 3 + 4 / 5) / 2), 4)
    assert two["loss"] == pytest.approx(-math.log(1e-12) / 4)
    three = classification_metrics(labels, certain(predicted, 3))
    assert three["macro_f1"] == two["macro_f1"]
    assert confusion(labels, np.array(predicted), 3) == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert class_table(labels, np.array(predicted), ["a", "b", "c"])[2] == {
        "class": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "n": 0,
    }  # fmt: skip


def test_macro_f1_is_over_the_classes_that_occur() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        n, used = int(draw.integers(1, 12)), draw.permutation(6)[: draw.integers(1, 7)]
        labels, predicted = draw.choice(used, n), draw.choice(used, n)
        found = classification_metrics(labels, certain(predicted.tolist(), 6))["macro_f1"]
        assert found == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    labels = np.array([0, 1, 0, 1])  # two of five classes, and nothing wrong
    assert confidence_intervals(labels, certain(labels.tolist(), 5), 0)["macro_f1"] == [1.0, 1.0]


@pytest.mark.parametrize("n_classes", [2, 5])
def test_answers_that_are_no_numbers_have_no_scores(n_classes: int) -> None:
    found = classification_metrics(np.array([0, 1]), np.full((2, n_classes), math.nan))
    assert found.pop("n") == 2 and found and all(map(math.isnan, found.values()))


def test_plain_numbers_only() -> None:
    labels, probabilities = random_case(0)
    values = [*classification_metrics(labels, probabilities).values()]
    values += [x for pair in confidence_intervals(labels, probabilities, 0).values() for x in pair]
    values += [x for row in class_table(labels, probabilities.argmax(axis=1), list("abcde")) for x in row.values()]
    assert {type(value) for value in values} == {float, int, str}


def test_intervals_are_deterministic_and_contain_the_estimate() -> None:
    labels, probabilities = random_case(1)
    found = confidence_intervals(labels, probabilities, seed=3)
    assert found == confidence_intervals(labels, probabilities, seed=3)
    assert found != confidence_intervals(labels, probabilities, seed=4)
    point = classification_metrics(labels, probabilities)
    for name, (low, high) in found.items():
        assert 0 <= low < point[name] < high <= 1
    sure = confidence_intervals(np.array([1, 0]), certain([1, 0], 2), 0)
    assert sure["accuracy"] == [1.0, 1.0]


def test_intervals_have_the_width_that_theory_gives() -> None:
    """For accuracy the bootstrap is binomial: 1.96 standard errors to either side."""
    n, accuracy = 1000, 0.7
    labels = np.zeros(n, dtype=int)
    low, high = confidence_intervals(labels, certain([0] * 700 + [1] * 300, 2), 0)["accuracy"]
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / n)
    assert (low, high) == (pytest.approx(accuracy - half, abs=0.004), pytest.approx(accuracy + half, abs=0.004))


def test_intervals_cover_the_true_accuracy_about_as_often_as_they_say() -> None:
    draw, covered = np.random.default_rng(0), 0
    for seed in range(40):
        right = draw.random(150) < 0.8
        low, high = confidence_intervals(np.zeros(150, dtype=int), certain((~right).astype(int).tolist(), 2), seed)[
            "accuracy"
        ]
        covered += low <= 0.8 <= high
    assert 34 <= covered <= 40


def example_predictions() -> Predictions:
    truth = [0, 1, 1, 0, 1, 0]
    of_one = [0.1, 0.2, 0.45, 0.9, 0.2, 0.5]  # the last is a tie, which goes to class 0: right
    return Predictions(
        ids=[f"id{i}" for i in range(6)],
        texts=[f"text {i}" for i in range(6)],
        probabilities=np.array([[1 - p, p] for p in of_one]),
        labels=np.array(truth),
    )


def test_the_worst_mistakes_come_first() -> None:
    found = worst_mistakes(example_predictions(), ["no", "yes"])
    assert [mistake["id"] for mistake in found] == ["id3", "id1", "id4", "id2"]  # equal ones in the file's order
    assert found[0] == {
        "id": "id3", "text": "text 3", "label": "no", "predicted": "yes",
        "probability_of_label": pytest.approx(0.1),
    }  # fmt: skip
    assert len(worst_mistakes(example_predictions(), ["no", "yes"], count=2)) == 2


def test_wide_characters_take_two_columns() -> None:
    assert (display_width("film"), display_width("영화"), display_width("映画!")) == (4, 4, 5)
    assert pad("영화", 6) == "영화  " and pad("too long", 3) == "too long"
    assert shorten("short", 10) == "short"
    assert shorten("a long sentence", 8) == "a long …"
    assert shorten("정말 좋은 영화", 8) == "정말 좋…"
    assert display_width(shorten("정말 좋은 영화" * 9, 20)) <= 20


def test_the_table_stays_aligned() -> None:
    predictions = example_predictions()
    assert predictions.labels is not None
    names = ["부정적인 영화 평가", "positive"]
    metrics = {
        "classes": class_table(predictions.labels, predictions.predicted, names),
        "confusion": confusion(predictions.labels, predictions.predicted, 2),
        "worst_mistakes": worst_mistakes(predictions, names),
    }
    head, *rows = report_text(metrics).split("\n\n")[0].splitlines()
    assert {display_width(row) for row in rows} == {display_width(head)}
    assert rows[1].split() == ["positive", "0.000", "0.000", "0.000", "3", "1", "3", "0"]
    mistakes = report_text(metrics).split("\n\n")[1].splitlines()
    assert len(mistakes) == 5 and mistakes[1] == "  0.100  부정적인 영화 평가 -> positive:  text 3"
    assert "mistakes" not in report_text(metrics | {"worst_mistakes": []})


def test_the_matrix_of_many_classes_is_no_table() -> None:
    n = MANY_CLASSES + 1
    row = {"class": "x", "precision": 1.0, "recall": 1.0, "f1": 1.0, "n": 1}
    metrics = {"classes": [row] * n, "confusion": np.eye(n, dtype=int).tolist(), "worst_mistakes": []}
    lines = report_text(metrics).splitlines()
    assert len(lines) == n + 1 and max(map(len, lines)) < 60 and "predicted as" not in lines[0]


def test_the_picture_of_many_classes_is_of_bounded_size(tmp_path: Path) -> None:
    from matplotlib import image

    n = 150
    plot_confusion(np.eye(n, dtype=int).tolist(), [f"class {i}" for i in range(n)], "dev", tmp_path / "confusion.png")
    height, width, _ = image.imread(tmp_path / "confusion.png").shape
    assert max(height, width) < 2200


def test_the_confusion_matrix_is_drawn(tmp_path: Path) -> None:
    from matplotlib import image

    plot_confusion([[3, 1], [0, 0]], ["negative", "very positive"], "title", tmp_path / "confusion.png")
    assert [path.name for path in tmp_path.iterdir()] == ["confusion.png"]
    picture = image.imread(tmp_path / "confusion.png")
    assert picture.shape[0] > 200 and picture.std() > 0.05
