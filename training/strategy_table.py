"""What ``--list-strategies`` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from config import GPT2Config, as_text
from strategies import ALIASES, STRATEGIES, as_flags, datasets_of, named_strategies_of
from training.fine_tuning import relative_cost, trainable_share

WIDTH = 110
LABELS = {"sentiment": 5, "paraphrase": 2}  # of the head; other tasks have none


def strategy_table(task: str, datasets: Sequence[str] = ()) -> str:
    """Name, trained share of the 124M model, arithmetic beside full fine-tuning, rate, what it does, and its source.

    Args:
        datasets: whose defaults are shown; by default those of all that the task has. The arithmetic is the first's.
    """
    config, datasets = GPT2Config(), datasets or datasets_of(task)
    rows, aliases = named_strategies_of(task), ALIASES.get(task, {})
    others = {name: [alias for alias, target in aliases.items() if target.name == name != alias] for name in rows}
    width = 1 + max(map(len, rows))
    lines = [f"{'strategy':<{width}}{'trains':>8}{'cost':>6}{'rate':>8}  what it does (source)"]
    for name, strategy in rows.items():
        also = f" (= {', '.join(others[name])})" if others[name] else ""
        share = trainable_share(strategy, config, LABELS.get(task, 0))
        cost = relative_cost(strategy, strategy.defaults(datasets[0]), config.n_layer)
        rates = "/".join(dict.fromkeys(as_text(strategy.defaults(dataset)["lr"]) for dataset in datasets))
        about = f"{strategy.summary}{also}. {strategy.source}.", as_flags(without_rate(strategy.settings))
        first, *rest = chain(*(textwrap.wrap(text, WIDTH - width - 24, break_on_hyphens=False) for text in about))
        lines.append(f"{name:<{width}}{share:>8.2%}{cost:>6.2f}{rates:>8}  {first}")
        lines += [" " * (width + 24) + line for line in rest]
    lines.append("trains: parameters of the 124M model. cost: arithmetic of an epoch beside full fine-tuning's.")
    lines.append("rate: --lr. Bundled models have rates of their own, searched, in data/checkpoints/MODEL/README.md.")
    lines.append("defaults, where a row names no others:")
    for dataset in datasets:
        lines.append(f"  {dataset}: {as_flags(without_rate(STRATEGIES['full'].defaults(dataset)))}")
        others_there = {name: without_rate(strategy.by_dataset.get(dataset, {})) for name, strategy in rows.items()}
        lines += [f"    {name}: {as_flags(different)}" for name, different in others_there.items() if different]
    return "\n".join(lines)


def without_rate(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is told beside the column of rates."""
    return {name: value for name, value in settings.items() if name != "lr"}
