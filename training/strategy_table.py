"""What ``--list-strategies`` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from config import GPT2Config
from strategies import Strategy, strategies_of
from training.fine_tuning import relative_cost, trainable_share

WIDTH = 110


def strategy_table(task: str, aliases: Mapping[str, Strategy]) -> str:
    """Name, trained share of the 124M model, arithmetic beside full fine-tuning, what it does, and its source."""
    config = GPT2Config()
    table = strategies_of(task)
    rows = {**table, **{name: strategy for name, strategy in aliases.items() if strategy.name == name}}
    others = {name: [alias for alias, target in aliases.items() if target.name == name != alias] for name in rows}
    lines = [f"{'strategy':<16}{'trains':>9}{'cost':>7}  what it does (source)"]
    dataset = "qqp" if task == "paraphrase" else "sst"
    for name, strategy in rows.items():
        also = f" (= {', '.join(others[name])})" if others[name] else ""
        share, cost = trainable_share(strategy, config), relative_cost(strategy, dataset, config.n_layer)
        text = f"{strategy.summary}{also}. {strategy.source}."
        first, *rest = textwrap.wrap(text, WIDTH - 34)
        lines.append(f"{name:<16}{share:>9.2%}{cost:>7.2f}  {first}")
        lines += [" " * 34 + line for line in rest]
    lines.append("trains: parameters of the 124M model. cost: arithmetic of the run beside full fine-tuning's.")
    return "\n".join(lines)
