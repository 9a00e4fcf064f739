"""The fine-tuning strategies, as data.

A strategy says what of the model trains, and brings each task's published defaults for the 124M model. Scripts and
``training/`` read this table; any single setting can be overridden by its flag. To add a strategy, add an entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from config import UserError

Settings = Mapping[str, Any]

# Published runs on the CS 224N files use no weight decay, no clipping and a constant rate.
_SENTIMENT: dict[str, Any] = {"weight_decay": 0.0, "schedule": "constant", "warmup": 0.0, "dropout": 0.3}


@dataclass(frozen=True)
class Strategy:
    """One way of fine-tuning.

    Attributes:
        name: as ``--strategy`` takes it.
        summary: one line for ``--list-strategies``.
        source: where it was published.
        trains: the layer groups that train: "all", or "head" only.
        settings: dataset -> default settings for the 124M model.
    """

    name: str
    summary: str
    source: str
    trains: str
    settings: Mapping[str, Settings] = field(default_factory=dict)


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            name="full",
            summary="every parameter trains, at one rate",
            source="Radford et al. 2018, section 3.2",
            trains="all",
            settings={
                "sst": _SENTIMENT | {"lr": 2e-5, "epochs": 6, "batch_size": 64},
                "cfimdb": _SENTIMENT | {"lr": 2e-5, "epochs": 6, "batch_size": 8},
                "nsmc": _SENTIMENT | {"lr": 2e-5, "epochs": 3, "batch_size": 64},
                "custom": _SENTIMENT | {"lr": 2e-5, "epochs": 6, "batch_size": 32},
            },
        ),
        Strategy(
            name="head",
            summary="GPT-2 is frozen and runs once; only the linear head trains, on its cached features",
            source="Peters et al. 2019 (feature extraction)",
            trains="head",
            settings={
                "sst": _SENTIMENT | {"lr": 1e-3, "epochs": 10, "batch_size": 64},
                "cfimdb": _SENTIMENT | {"lr": 1e-3, "epochs": 10, "batch_size": 8},
                "nsmc": _SENTIMENT | {"lr": 1e-3, "epochs": 10, "batch_size": 64},
                "custom": _SENTIMENT | {"lr": 1e-3, "epochs": 10, "batch_size": 32},
            },
        ),
    )
}

FINE_TUNE_MODES = {"full-model": "full", "last-linear-layer": "head"}


def choose_strategy(name: str | None, fine_tune_mode: str | None, aliases: Mapping[str, str]) -> Strategy:
    """The strategy that ``--strategy`` and ``--fine-tune-mode`` ask for together.

    Args:
        name: a strategy or one of the task's aliases; None leaves the choice to the mode, or to ``full``.
        fine_tune_mode: ``full-model`` restricts nothing beside a strategy; ``last-linear-layer`` allows the head only.
        aliases: the task's own names, such as ``baseline``.

    Raises:
        UserError: an unknown name, or a strategy that trains what the mode freezes.
    """
    if name is None:
        return STRATEGIES[FINE_TUNE_MODES[fine_tune_mode or "full-model"]]
    resolved = aliases.get(name, name)
    if resolved not in STRATEGIES:
        raise UserError(f"--strategy {name}: unknown; choose from {', '.join([*STRATEGIES, *aliases])}")
    strategy = STRATEGIES[resolved]
    if fine_tune_mode == "last-linear-layer" and strategy.trains != "head":
        raise UserError(
            f"--fine-tune-mode last-linear-layer freezes GPT-2, but --strategy {name} trains it; leave one of them out"
        )
    return strategy


def strategy_table(aliases: Mapping[str, str]) -> str:
    """What ``--list-strategies`` prints."""
    names = {name: [alias for alias, target in aliases.items() if target == name] for name in STRATEGIES}
    rows = [
        (name + (f" ({', '.join(names[name])})" if names[name] else ""), strategy.summary, strategy.source)
        for name, strategy in STRATEGIES.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}" for row in rows)
