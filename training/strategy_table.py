"""What ``--list-strategies`` prints."""

from __future__ import annotations

import textwrap

from config import GPT2Config
from strategies import ALIASES, named_strategies_of
from training.fine_tuning import relative_cost, trainable_share

WIDTH = 110
TEXT_TASKS = ("text-generation", "summarization", "inference", "question-answering")
TASKS = {"sentiment": ("sst", 5), "paraphrase": ("qqp", 2), "sonnet": ("shakespeare", 0)}  # dataset, labels of the head
TASKS |= {task: (task, 0) for task in TEXT_TASKS}


def strategy_table(task: str) -> str:
    """Name, trained share of the 124M model, arithmetic beside full fine-tuning, what it does, and its source."""
    config = GPT2Config()
    rows, aliases = named_strategies_of(task), ALIASES.get(task, {})
    others = {name: [alias for alias, target in aliases.items() if target.name == name != alias] for name in rows}
    width = 1 + max(map(len, rows))
    lines = [f"{'strategy':<{width}}{'trains':>8}{'cost':>6}  what it does (source)"]
    dataset, num_labels = TASKS[task]
    for name, strategy in rows.items():
        also = f" (= {', '.join(others[name])})" if others[name] else ""
        share = trainable_share(strategy, config, num_labels)
        cost = relative_cost(strategy, strategy.defaults(dataset), config.n_layer)
        text = f"{strategy.summary}{also}. {strategy.source}."
        first, *rest = textwrap.wrap(text, WIDTH - width - 16)
        lines.append(f"{name:<{width}}{share:>8.2%}{cost:>6.2f}  {first}")
        lines += [" " * (width + 16) + line for line in rest]
    lines.append("trains: parameters of the 124M model. cost: arithmetic of an epoch beside full fine-tuning's.")
    return "\n".join(lines)
