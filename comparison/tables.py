"""A comparison as a table: for the terminal, as Markdown, CSV and LaTeX, and as plain data for JSON."""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comparison.entries import MEASURES, REFERRED, has_mixed_vocabularies, reference_models
from comparison.mistakes import mistakes_text
from comparison.runs import Comparison, Entry, Measure
from comparison.verdicts import headline, leading_pairs, pair_lines, score
from storage import shown
from training import terminal
from training.terminal import display_width, pad

FORMATS = ("terminal", "markdown", "csv", "latex")
KINDS = {"run": "", "comparator": "comparator", "floor": "floor", "published": "published, not measured here"}
BEYOND = {  # further dev scores: name in metrics.json -> measure
    measure.name: measure
    for measure in (
        Measure("accuracy", "accuracy"),
        Measure("macro_f1", "macro-F1"),
        Measure("f1", "F1"),
        Measure("calibration_error", "calibration error", higher_is_better=False),
        Measure("perplexity", "perplexity", higher_is_better=False, is_share=False),
        Measure(REFERRED, "perplexity of poems", higher_is_better=False, is_share=False),
        Measure("rhyme_accuracy", "rhyme"),
        Measure("iambic_lines", "iambic"),
        Measure("distinct_2", "distinct-2"),
        Measure("chrf", "chrF", is_share=False),
        Measure("chrf_endings", "chrF of endings", is_share=False),
        Measure("chrf_course", "chrF of whole poems", is_share=False),
        # As the reference report defines them; dev's own distinct_n are of all poems together.
        Measure("report_unigram_perplexity", "report's unigram perplexity", is_share=False),
        Measure("report_rhyme", "report's rhyme"),
        Measure("report_distinct_1", "report's distinct-1"),
        Measure("report_distinct_2", "report's distinct-2"),
        MEASURES["exact_match"],
        MEASURES["rouge_l"],
    )
}
LEGEND = (
    "Mean ± standard deviation over seeds, on dev, of each run's best epoch; 95 % intervals over examples and seeds. "
    "{bold}: not shown to be worse than the best (p of 0.05 or more, adjusted by Holm)."
)
COST_LEGEND = "Median time and speed, largest memory."


@dataclass(frozen=True)
class Column:
    """A column of the printed table: its head, and a text for each entry."""

    head: str
    values: list[str]
    is_cost: bool = False


def columns(comparison: Comparison) -> list[Column]:
    """Everything that a table shows, without columns in which no entry has anything."""
    measure, entries = comparison.measure, comparison.entries
    models = {entry.model for entry in entries if entry.model}

    def over_runs(measure: Measure, values: Callable[[Measure, Entry], list[float]]) -> Callable[[Entry], str]:
        return lambda entry: _mean_and_std_of(measure, values(measure, entry))

    def column(head: str, text: Callable[[Entry], str], is_cost: bool = False) -> Column:
        return Column(head, [text(entry) for entry in entries], is_cost)

    found = [
        column("", lambda entry: entry.name),
        column("kind", lambda entry: KINDS[entry.kind]),
        *([column("model", lambda entry: entry.model)] if len(models) > 1 else []),
        column(measure.label, lambda entry: _mean_and_std(measure, entry.value, entry.std)),
        column("seeds", lambda entry: str(len(entry.runs)) if entry.runs else ""),
        column("95 % CI", lambda entry: _interval(measure, entry)),
        *(column(other.label, over_runs(other, on_dev)) for other in further_measures(comparison)),
        column("best epoch", _best_epochs),
        *([column("last epoch", over_runs(measure, at_last))] if measured_in_epochs(comparison) else []),
        column("test", over_runs(measure, on_test)),
        column("trained", lambda entry: _count(entry.cost("trainable_parameters")), True),
        column("training", lambda entry: duration(entry.cost("train_seconds")), True),
        column("in all", lambda entry: duration(entry.cost("total_seconds")), True),
        column("examples/s", lambda entry: _speed(entry.cost("examples_per_second")), True),
        column("memory", lambda entry: memory(entry.cost("peak_memory_bytes")), True),
    ]
    return [one for one in found if any(one.values)]


def measured_in_epochs(comparison: Comparison) -> bool:
    """Whether what the records of epochs call as the measure is called is the measure."""
    runs = [run for entry in comparison.entries for run in entry.runs]
    return comparison.measure.is_mean and all(run.measured_alike(comparison.measure.name) for run in runs)


def _mean_and_std(measure: Measure, value: float, std: float | None) -> str:
    """Nothing for a published result that has other measures only."""
    if math.isnan(value):
        return ""
    return score(measure, value) + ("" if std is None else f" ± {score(measure, std)}")


def _interval(measure: Measure, entry: Entry) -> str:
    return "" if entry.interval is None else " to ".join(score(measure, end) for end in entry.interval)


def further_measures(comparison: Comparison) -> list[Measure]:
    """The measures of all dev texts that stand beside the compared one."""
    measure = comparison.measure
    left_out = {REFERRED} if len(reference_models(comparison.entries)) > 1 else set()
    if has_mixed_vocabularies(comparison.entries):
        left_out.add("perplexity")
    if measure.is_mean:
        left_out.add(measure.name)
    return [other for name, other in BEYOND.items() if name not in left_out]


def on_dev(measure: Measure, entry: Entry) -> list[float]:
    """A dev score of each run, or the published one; empty where not all have it."""
    if entry.published is not None:
        return _known([entry.published["scores"].get(measure.name)])
    return _known([run.dev.get(measure.name) for run in entry.runs])


def at_last(measure: Measure, entry: Entry) -> list[float]:
    """The dev score of each run's last epoch; empty where not all have it."""
    return _known([(run.metrics.get("dev_last") or {}).get(measure.name) for run in entry.runs])


def on_test(measure: Measure, entry: Entry) -> list[float]:
    """The test score of each run, or the published one; empty where not all have it."""
    if entry.published is not None:
        return _known([entry.published.get("test", {}).get(measure.name)])
    return list(entry.tested)


def _known(values: Sequence[float | None]) -> list[float]:
    return [] if None in values else [float(value) for value in values if value is not None]


def _mean_and_std_of(measure: Measure, values: Sequence[float]) -> str:
    if not values:
        return ""
    return _mean_and_std(measure, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def _best_epochs(entry: Entry) -> str:
    best = [str(epoch) for epoch in best_epochs(entry) if epoch]
    epochs = sorted({int(record["epochs"]) for record in _records(entry) if record.get("epochs")})
    return " ".join(best) + (f" of {' or '.join(map(str, epochs))}" if epochs else "") if best else ""


def best_epochs(entry: Entry) -> list[Any]:
    return [record["best_epoch"] for record in _records(entry) if "best_epoch" in record]


def _records(entry: Entry) -> list[Mapping[str, Any]]:
    """What runs, or a published result, say of themselves."""
    return [run.metrics for run in entry.runs] or [entry.published or {}]


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _speed(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return terminal.duration(seconds) if seconds >= 10 else f"{seconds:.1f} s"


def memory(size: float | None) -> str:
    return "" if size is None else f"{size / 2**30:.1f} GiB"


# ---------------------------------------------------------------------------------------------------------------------
# The terminal
# ---------------------------------------------------------------------------------------------------------------------


def terminal_page(comparisons: Sequence[Comparison]) -> str:
    """All comparisons; scores and costs in a table each, so that they fit side by side with nothing else."""
    return "\n\n".join(_terminal_section(comparison) for comparison in comparisons)


def _terminal_section(comparison: Comparison) -> str:
    found = columns(comparison)
    found[0] = Column(
        "",
        [f"{'*' if is_bold else ' '} {name}" for name, is_bold in zip(found[0].values, bold(comparison), strict=True)],
    )
    scores = [column for column in found if not column.is_cost]
    costs = [found[0], *(column for column in found if column.is_cost)]
    parts = [f"== {heading(comparison)}", headline(comparison), aligned(scores)]
    if len(costs) > 1:
        has_cost = [any(column.values[i] for column in costs[1:]) for i in range(len(comparison.entries))]
        parts.append(aligned([_chosen(column, has_cost) for column in costs]))
    parts.append(LEGEND.format(bold="*"))
    blocks = [
        ("Tested", pair_lines(comparison, leading_pairs(comparison))),
        ("Not compared", comparison.problems),
        ("Notes", comparison.notes),
    ]
    blocks.insert(1, ("Where they differ", mistakes_text(comparison)))
    parts += ["\n".join([f"{name}:", *(f"- {line}" for line in lines)]) for name, lines in blocks if lines]
    return "\n\n".join(parts)


def _chosen(column: Column, is_chosen: Sequence[bool]) -> Column:
    values = [value for value, is_in in zip(column.values, is_chosen, strict=True) if is_in]
    return Column(column.head, values, column.is_cost)


def aligned(table: Sequence[Column]) -> str:
    """Text columns to the left, the others too: their numbers have units and spreads."""
    texts = [[column.head, *column.values] for column in table]
    widths = [max(map(display_width, text)) for text in texts]
    rows = zip(*texts, strict=True)
    return "\n".join("  ".join(pad(x, width) for x, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def heading(comparison: Comparison) -> str:
    return f"{comparison.task} on {comparison.measured_on} ({len(comparison.ids):,} dev examples)"


def bold(comparison: Comparison) -> list[bool]:
    """For each entry, whether it is not shown to be worse than the best."""
    return [entry.name in comparison.not_worse and entry.scores is not None for entry in comparison.entries]


# ---------------------------------------------------------------------------------------------------------------------
# Markdown
# ---------------------------------------------------------------------------------------------------------------------


def markdown_page(comparisons: Sequence[Comparison], title: str) -> str:
    return "\n\n".join([f"# {_md(title)}", *(_markdown_section(comparison) for comparison in comparisons)]) + "\n"


def _markdown_section(comparison: Comparison) -> str:
    texts = [[column.head, *map(_md, column.values)] for column in columns(comparison)]
    head, *rows = zip(*texts, strict=True)
    emphasized = [
        (_strong(row[0]), *row[1:]) if is_bold else row for row, is_bold in zip(rows, bold(comparison), strict=True)
    ]
    lines = [f"| {' | '.join(row)} |" for row in (head, *emphasized)]
    table = "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])
    legend = f"{LEGEND.format(bold='Bold')} {COST_LEGEND}"
    parts = [f"## {_md(heading(comparison))}", _md(headline(comparison)), table, legend]
    blocks = [
        ("Tested", pair_lines(comparison, comparison.pairs)),
        ("Where they differ", mistakes_text(comparison)),
        ("Not compared", comparison.problems),
        ("Notes", comparison.notes),
    ]
    for name, lines_of in blocks:
        if lines_of:
            parts += [f"### {name}", "\n".join(f"- {_md(line)}" for line in lines_of)]
    return "\n\n".join(parts)


def _md(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)


def _strong(text: str) -> str:
    return f"**{text}**"


# ---------------------------------------------------------------------------------------------------------------------
# LaTeX
# ---------------------------------------------------------------------------------------------------------------------

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$",
}  # fmt: skip
WORDS = ("", "kind", "model")  # columns that hold no numbers


def latex_page(comparisons: Sequence[Comparison]) -> str:
    head = "% \\usepackage{booktabs}\n"
    return head + "\n".join(_latex_table(comparison) for comparison in comparisons)


def _latex_table(comparison: Comparison) -> str:
    found = columns(comparison)
    rows = list(zip(*([tex(value) for value in column.values] for column in found), strict=True))
    rows = [
        (rf"\textbf{{{row[0]}}}", *row[1:]) if is_bold else row
        for row, is_bold in zip(rows, bold(comparison), strict=True)
    ]
    caption = f"{tex(heading(comparison))}. {tex(LEGEND.format(bold='Bold'))} {COST_LEGEND}"
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{{''.join('l' if column.head in WORDS else 'r' for column in found)}}}", r"\toprule",
        " & ".join(tex(column.head) for column in found) + r" \\", r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def tex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


# ---------------------------------------------------------------------------------------------------------------------
# CSV and JSON
# ---------------------------------------------------------------------------------------------------------------------

COSTS = ("trainable_parameters", "total_parameters", "stored_parameters", "train_seconds", "total_seconds",
         "examples_per_second", "tokens_per_second", "peak_memory_bytes")  # fmt: skip


def csv_page(comparisons: Sequence[Comparison]) -> str:
    """All figures as they are, a row for each entry."""
    rows = [row for comparison in comparisons for row in map(_flat, comparison_record(comparison)["entries"])]
    prefixed = [
        {
            "task": comparison.task,
            "dataset": comparison.dataset,
            "data": comparison.data,
            "n_examples": len(comparison.ids),
            "measure": comparison.measure.name,
        }
        for comparison in comparisons
        for _ in comparison.entries
    ]
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, [*prefixed[0], *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows(a | b for a, b in zip(prefixed, rows, strict=True))
    return file.getvalue()


def _flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    low, high = entry["interval"] or (None, None)
    left_out = ("interval", "values", "cost", "settings", "runs", "further")
    row = {name: value for name, value in entry.items() if name not in left_out}
    row |= {"low": low, "high": high}
    for name, (mean, std) in entry["further"].items():
        row |= {name: mean, f"{name}_std": std}
    row["seeds"], row["best_epochs"] = " ".join(map(str, entry["seeds"])), " ".join(map(str, entry["best_epochs"]))
    return row | entry["cost"]


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Everything but texts and scores of single examples, as plain data."""
    beside = [other for other in further_measures(comparison) if any(on_dev(other, one) for one in comparison.entries)]
    return {
        "task": comparison.task,
        "dataset": comparison.dataset,
        "data": comparison.data,
        "measure": comparison.measure.name,
        "higher_is_better": comparison.measure.higher_is_better,
        "n_examples": len(comparison.ids),
        "headline": headline(comparison),
        "entries": [_entry_record(comparison, entry, beside) for entry in comparison.entries],
        "pairs": [
            {
                "a": pair.a,
                "b": pair.b,
                "difference": pair.difference.mean,
                "interval": [_finite(pair.difference.low), _finite(pair.difference.high)],
                "p_value": pair.difference.p_value,
                "p_adjusted": pair.p_adjusted,
                "mcnemar": pair.mcnemar,
                "standard_error": _finite(pair.difference.standard_error),
                "detectable": _finite(pair.detectable),
                "detectable_alone": _finite(pair.difference.detectable),
                "seed_share": pair.seed_share,
                "is_shown": pair.is_shown,
                "method": pair.difference.method,
                "verdict": pair.verdict,
                "would_change": pair.would_change,
            }
            for pair in comparison.pairs
        ],
        "floors_by_training_rows": comparison.floors_by_rows,
        "baseline": comparison.baseline,
        "problems": list(comparison.problems),
        "notes": list(comparison.notes),
    }


def _whole(value: float | None) -> float | None:
    """A count stays a whole number."""
    return int(value) if value is not None and value.is_integer() else value


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation over runs, as far as there are any."""
    return statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None


def _entry_record(comparison: Comparison, entry: Entry, beside: Sequence[Measure]) -> dict[str, Any]:
    """``beside``: further measures, of which every entry's record tells."""
    measure = comparison.measure
    test, test_std = _spread(on_test(measure, entry))
    last_epoch, last_epoch_std = _spread(at_last(measure, entry) if measured_in_epochs(comparison) else [])
    return {
        "name": entry.name,
        "kind": entry.kind,
        "model": entry.model,
        "strategy": entry.strategy,
        "settings": dict(entry.settings),
        "value": None if math.isnan(entry.value) else entry.value,
        "std": entry.std,
        "interval": None if entry.interval is None else list(entry.interval),
        "not_worse": entry.scores is not None and entry.name in comparison.not_worse,
        "seeds": entry.seeds,
        "values": entry.values,
        "best_epochs": best_epochs(entry),
        "last_epoch": last_epoch,
        "last_epoch_std": last_epoch_std,
        "test": test,
        "test_std": test_std,
        "further": {other.name: _spread(on_dev(other, entry)) for other in beside},
        "cost": {name: _whole(entry.cost(name)) for name in COSTS},
        "runs": [shown(run.folder) for run in entry.runs],
        "note": entry.note,
    }
