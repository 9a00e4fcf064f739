"""What language models say of the same documents, side by side: numbers, a table, a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from storage import write_text
from training.language_models.documents import POSITION_EDGES, Document
from training.language_models.language_modeling import DocumentScores

BOOTSTRAP_SAMPLES = 1000
MIN_DOCUMENTS = 10  # fewer say little about how much a number would vary


@dataclass
class ModelScores:
    """What one model says of all documents.

    Attributes:
        about: name, parameters, vocabulary, context, and whatever else ``results.json`` says of the model.
        nats, tokens, hits: of each document.
        position_nats: summed over all documents, by where a token begins: :data:`POSITION_EDGES`.
        inexact: documents whose text the tokens don't give back.
        seconds: of scoring, without loading and tokenizing.
    """

    about: dict[str, Any]
    nats: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)
    position_nats: np.ndarray = field(default_factory=lambda: np.zeros(len(POSITION_EDGES)))
    inexact: int = 0
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.about["name"]

    def add(self, losses: np.ndarray, hits: np.ndarray, cuts: np.ndarray) -> None:
        """Takes in a document.

        Args:
            losses, hits: of its tokens, (n,).
            cuts: the first token at or behind each of :data:`POSITION_EDGES`.
        """
        total = np.concatenate([[0.0], np.cumsum(losses, dtype=np.float64)])
        self.nats.append(float(total[-1]))
        self.tokens.append(len(losses))
        self.hits.append(int(hits.sum()))
        self.position_nats += np.diff(total[[*cuts, len(losses)]])


@dataclass(frozen=True)
class Report:
    """All models, in the order of the command, on all documents."""

    title: str
    documents: list[Document]
    models: list[ModelScores]

    def metrics(self, model: ModelScores) -> dict[str, float]:
        return DocumentScores(
            nats=sum(model.nats),
            tokens=sum(model.tokens),
            utf8_bytes=sum(document.utf8_bytes for document in self.documents),
            hits=sum(model.hits),
            documents=len(self.documents),
        ).metrics(words=sum(document.words for document in self.documents))

    def bits_per_byte(self, model: ModelScores) -> float:
        return self.metrics(model)["bits_per_byte"]

    @property
    def best(self) -> ModelScores:
        """The model that needs the fewest bits, among those that keep the text whole if there is any."""
        return min(self.models, key=lambda model: (model.inexact > 0, self.bits_per_byte(model)))

    def by_position(self, model: ModelScores) -> list[dict[str, Any]]:
        """Bits per byte by where in its document a token begins; places that no document reaches are left out."""
        lengths = np.array([document.utf8_bytes for document in self.documents])
        edges = [*POSITION_EDGES, math.inf]
        found = []
        for i, nats in enumerate(model.position_nats):
            size = int((np.minimum(lengths, edges[i + 1]) - np.minimum(lengths, edges[i])).sum())
            if size:
                end = None if math.isinf(edges[i + 1]) else edges[i + 1]
                bits = nats / math.log(2) / size
                found.append({"start": edges[i], "end": end, "utf8_bytes": size, "bits_per_byte": float(bits)})
        return found

    def intervals(self) -> dict[str, dict[str, list[float]]]:
        """95 % percentile intervals from a bootstrap over documents (Efron 1979): of each model's bits per byte, and of
        what it needs more than the best; the same documents are drawn for all models. Empty for few documents."""
        if len(self.documents) < MIN_DOCUMENTS:
            return {}
        sizes = np.array([document.utf8_bytes for document in self.documents], dtype=np.float64)
        bits = np.array([model.nats for model in self.models]) / math.log(2)  # (models, documents)
        random = np.random.default_rng(0)
        drawn = np.empty((BOOTSTRAP_SAMPLES, len(self.models)))
        for i in range(BOOTSTRAP_SAMPLES):
            rows = random.integers(0, len(sizes), len(sizes))
            drawn[i] = bits[:, rows].sum(axis=1) / sizes[rows].sum()
        more = drawn - drawn[:, [self.models.index(self.best)]]
        return {
            model.name: {
                "bits_per_byte": _percentile_interval(drawn[:, i]),
                "more_than_best": _percentile_interval(more[:, i]),
            }
            for i, model in enumerate(self.models)
        }


# ---------------------------------------------------------------------------------------------------------------------
# For a person
# ---------------------------------------------------------------------------------------------------------------------


def table(report: Report) -> str:
    """One aligned row per model; the best is marked, and what limits the comparison is said."""
    head = ["model", "parameters", "vocabulary", "context", "bits/byte", "loss", "perplexity", "word perplexity",
            "accuracy", "tokens/s"]  # fmt: skip
    rows = [head]
    for model in report.models:
        metrics, about = report.metrics(model), model.about
        several = len(report.models) > 1
        rows.append(
            [
                model.name,
                f"{about['parameters']:,}",
                f"{about['vocabulary']:,}",
                f"{about['context']:,}",
                f"{metrics['bits_per_byte']:.4f}" + (" *" if several and model is report.best else "  " * several),
                f"{metrics['loss']:.4f}",
                _shown(metrics["perplexity"]),
                _shown(metrics["word_perplexity"]) if "word_perplexity" in metrics else "-",
                f"{metrics['accuracy']:.3f}",
                f"{sum(model.tokens) / max(model.seconds, 1e-9):,.0f}",
            ]
        )
    if len(report.models) > 1:
        head[4] += "  "
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([*lines, *_notes(report)])


def _shown(perplexity: float) -> str:
    return f"{perplexity:,.2f}" if perplexity < 1e6 else f"{perplexity:.2e}"


def _notes(report: Report) -> Iterator[str]:
    if len(report.models) > 1:
        yield "* the best; between models with other vocabularies only bits/byte and word perplexity can be compared"
    intervals = report.intervals()
    for model in report.models:
        if intervals and model is not report.best:
            low, high = intervals[model.name]["more_than_best"]
            more = report.bits_per_byte(model) - report.bits_per_byte(report.best)
            yield (
                f"{model.name} needs {more:+.4f} bits/byte compared with {report.best.name} "
                f"(95 % CI {low:+.4f} to {high:+.4f}, {len(report.documents):,} documents)"
            )
    for model in report.models:
        if model.inexact:
            yield (
                f"{model.name}: its tokens don't give back the text of {model.inexact:,} of {len(report.documents):,} "
                "documents, so that its numbers are of another text"
            )


def plot(report: Report, path: Path) -> None:
    """Bars of bits per byte, and bits per byte by the position in the document."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from training.fonts import save_png

    count = len(report.models)
    colors = [plt.get_cmap("tab10")(i % 10) for i in range(count)]
    marks = "osD^vP"
    intervals = report.intervals()
    figure, (bars, lines) = plt.subplots(
        1, 2, figsize=(12, max(4.2, 1.2 + 0.5 * count)), width_ratios=(1, 1.25), layout="constrained"
    )
    values = [report.bits_per_byte(model) for model in report.models]
    bars.barh(range(count), values, color=colors, height=min(0.6, 0.2 * count))
    for i, (model, value) in enumerate(zip(report.models, values, strict=True)):
        reach = value
        if intervals:
            low, high = intervals[model.name]["bits_per_byte"]
            bars.plot([low, high], [i, i], color="#404040", linewidth=1.2, solid_capstyle="butt")
            bars.plot([low, high], [i, i], "|", color="#404040", markersize=7)
            reach = max(reach, high)
        is_best = count > 1 and model is report.best
        bars.annotate(
            f"{value:.3f}", (reach, i), xytext=(6, 0), textcoords="offset points", va="center",
            fontweight="bold" if is_best else "normal",
        )  # fmt: skip
    bars.set_yticks(range(count), [_short(model.name) for model in report.models])
    bars.set_ylim(max(count, 2) - 0.4 - (count == 1) * 0.5, -0.6 - (count == 1) * 0.5)
    bars.set_xlim(0, max(values) * 1.22)
    bars.set_xlabel("bits per byte" + (", with 95 % CI over documents" if intervals else ""))
    bars.set_title("The whole text (less is better)")

    shown = report.by_position(report.models[0])
    for i, model in enumerate(report.models):
        lines.plot(
            range(len(shown)),
            [place["bits_per_byte"] for place in report.by_position(model)],
            marker=marks[i // 10 % len(marks)], markersize=5, color=colors[i], label=_short(model.name),
        )  # fmt: skip
    lines.set_xticks(range(len(shown)), [_place(place) for place in shown])
    lines.set_xlabel("byte of the document (later ones are of longer documents only)")
    lines.set_ylabel("bits per byte")
    lines.set_title("What context gives")
    if 1 < count <= 20:
        lines.legend(frameon=False)
    for axes, direction in ((bars, "x"), (lines, "y")):
        axes.grid(axis=direction, alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(report.title)
    save_png(figure, path, dpi=120)
    plt.close(figure)


def _short(name: str) -> str:
    """A name that a plot has room for."""
    return name if len(name) <= 28 else f"…{name[-27:]}"


def _place(place: dict[str, Any]) -> str:
    start, end = (None if edge is None else f"{edge // 1024}k" if edge >= 1024 else str(edge)
                  for edge in (place["start"], place["end"]))  # fmt: skip
    return f"{start}+" if end is None else f"{start}–{end}"


# ---------------------------------------------------------------------------------------------------------------------
# For programs
# ---------------------------------------------------------------------------------------------------------------------


def results(report: Report) -> list[dict[str, Any]]:
    """Every model's part of ``results.json``; what no number can hold is null."""
    intervals = report.intervals()
    found = []
    for model in report.models:
        metrics: dict[str, float | None] = {
            name: value if math.isfinite(value) else None for name, value in report.metrics(model).items()
        }
        found.append(
            model.about
            | {
                "metrics": metrics,
                "intervals": intervals.get(model.name),
                "by_position": report.by_position(model),
                "inexact_documents": model.inexact,
                "seconds": round(model.seconds, 3),
                "tokens_per_second": round(sum(model.tokens) / max(model.seconds, 1e-9), 1),
            }
        )
    return found


def write_by_document(report: Report, path: Path) -> None:
    """One line of JSON per document: its length, and nats, tokens and hits of every model."""
    write_text(path, "".join(_document_lines(report.documents, report.models)))


def _document_lines(documents: Sequence[Document], models: Sequence[ModelScores]) -> Iterator[str]:
    for i, document in enumerate(documents):
        scores = {
            model.name: {"nats": model.nats[i], "tokens": model.tokens[i], "hits": model.hits[i]} for model in models
        }
        record = {"document": document.name, "words": document.words, "utf8_bytes": document.utf8_bytes}
        yield json.dumps(record | {"scores": scores}, ensure_ascii=False) + "\n"


def _percentile_interval(values: np.ndarray) -> list[float]:
    """The interval that holds the middle 95 % of the values."""
    return [float(x) for x in np.percentile(values, [2.5, 97.5])]
