"""Learning curves of a pretraining run, drawn from its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def read_log(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The records of steps, and those of evaluations."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [r for r in records if "loss" in r], [r for r in records if "dev" in r]


def plot_curves(log: Path, tokens_per_step: int, title: str, path: Path) -> None:
    """Training and validation loss over the tokens seen, and below them the learning rate and the speed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from training.fonts import save_png

    steps, evaluations = read_log(log)
    millions = np.array([record["step"] for record in steps]) * tokens_per_step / 1e6
    losses = np.array([record["loss"] for record in steps])
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 6), height_ratios=(3, 1), sharex=True, layout="constrained")
    upper.plot(millions, losses, color="#9ecae1", linewidth=1, label="training, each logged batch")
    if len(losses) >= 10:
        upper.plot(millions, _smoothed(losses), color="#2171b5", label="training, smoothed")
    upper.plot(
        [record["step"] * tokens_per_step / 1e6 for record in evaluations],
        [record["dev"]["loss"] for record in evaluations],
        "o-", color="#d94801", markersize=4, label="validation",
    )  # fmt: skip
    late = losses[len(losses) // 20 :]
    if len(late):  # a very short run logs no step
        upper.set_ylim(late.min() * 0.97, np.quantile(late, 0.99) * 1.05)
    upper.set_ylabel("loss (nats per token)")
    upper.set_title(title)
    upper.legend()
    upper.grid(alpha=0.3)
    lower.plot(millions, [max(record["lr"]) for record in steps], color="#238b45")
    lower.set_ylabel("learning rate", color="#238b45")
    lower.set_xlabel("tokens seen (millions)")
    lower.grid(alpha=0.3)
    speed = lower.twinx()
    speed.plot(millions, [record["tokens_per_second"] / 1000 for record in steps], color="#969696", linewidth=0.8)
    speed.set_ylabel("thousand tokens/s", color="#636363")
    speed.set_ylim(bottom=0)
    save_png(figure, path, dpi=120)
    plt.close(figure)


def _smoothed(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """An exponential moving average, corrected for its start."""
    keep = 1.0 - 1.0 / max(2.0, share * len(values))
    average, weight, found = 0.0, 0.0, []
    for value in values:
        average = keep * average + (1.0 - keep) * value
        weight = keep * weight + (1.0 - keep)
        found.append(average / weight)
    return np.array(found)
