"""The fine-tuning strategies, as data.

A strategy names the parameters that are trained and sets the knobs of the techniques that it combines. Its defaults,
one set per dataset, are for the 124M model. Scripts and ``training/`` read this table; any single knob can be
overridden by its flag. To add a strategy, add an entry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from config import UserError, as_text

Settings = Mapping[str, Any]

# Published runs on the CS 224N files use no weight decay, no clipping and a constant rate.
_COMMON: Settings = {"weight_decay": 0.0, "schedule": "constant", "warmup": 0.0}
_DATASETS: Mapping[str, Settings] = {
    "sst": {"epochs": 6, "batch_size": 64, "dropout": 0.3},
    "cfimdb": {"epochs": 6, "batch_size": 8, "dropout": 0.3},
    "nsmc": {"epochs": 3, "batch_size": 64, "dropout": 0.3},
    "qqp": {"epochs": 10, "batch_size": 8, "dropout": 0.0},
    "custom": {"epochs": 6, "batch_size": 32, "dropout": 0.3},
    "shakespeare": {"epochs": 10, "batch_size": 8},
    "text-generation": {"epochs": 5, "batch_size": 16},
    "summarization": {"epochs": 4, "batch_size": 4},
    "inference": {"epochs": 6, "batch_size": 16},
    "question-answering": {"epochs": 4, "batch_size": 8},
}
_DATASETS_OF = {  # a task's own datasets; that of a task which is not here is called like it
    "sentiment": ("sst", "cfimdb", "nsmc", "custom"),
    "paraphrase": ("qqp",),
    "sonnet": ("shakespeare",),
}
CLASSIFICATION = ("sentiment", "paraphrase")
FREE_TEXT = ("sonnet", "text-generation", "summarization")  # what is written is long enough to repeat itself


@dataclass(frozen=True)
class Strategy:
    """One way of fine-tuning.

    Attributes:
        name: as ``--strategy`` takes it.
        summary: one line for ``--list-strategies``.
        source: where it was published.
        lr: the base learning rate for the 124M model (at its peak, where the schedule changes it).
        trains: which part of GPT-2 trains beside the head: "all", "last-n" blocks, "bitfit" (biases), "lora" or
            "prefix" (and nothing of GPT-2 itself), or "head" (nothing).
        settings: the knobs that make the strategy, for every dataset.
        by_dataset: dataset -> what differs there.
        is_cloze: whether the model answers in words, instead of by a linear head.
        tasks: the tasks it makes sense for; empty: all.
        without_head: the summary for tasks that add no head, where it differs.
    """

    name: str
    summary: str
    source: str
    lr: float
    trains: str = "all"
    settings: Settings = field(default_factory=dict)
    by_dataset: Mapping[str, Settings] = field(default_factory=dict)
    is_cloze: bool = False
    tasks: tuple[str, ...] = ()
    without_head: str = ""

    def defaults(self, dataset: str) -> dict[str, Any]:
        """Every setting that the strategy decides for a dataset."""
        return {**_COMMON, **_DATASETS[dataset], "lr": self.lr, **self.settings, **self.by_dataset.get(dataset, {})}


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            name="full",
            summary="every parameter trains, at one rate",
            source="Radford et al. 2018, section 3.2",
            lr=2e-5,
            by_dataset={"qqp": {"lr": 1e-5}},
        ),
        Strategy(
            name="head",
            summary="GPT-2 is frozen and runs once; only the linear head trains, on its cached features",
            source="Peters et al. 2019 (feature extraction)",
            lr=1e-3,
            trains="head",
            tasks=CLASSIFICATION,
            by_dataset={name: {"epochs": 10} for name in ("sst", "cfimdb", "nsmc", "custom")},
        ),
        Strategy(
            name="last-n",
            summary="the upper blocks (--last-n), the final norm and the head train",
            source="Howard & Ruder 2018, section 4.2 ('last'); Lee et al. 2019",
            lr=5e-5,
            trains="last-n",
            settings={"last_n": 4},
            by_dataset={"shakespeare": {"lr": 1e-5}},
            without_head="the upper blocks (--last-n) and the final norm train",
        ),
        Strategy(
            name="bitfit",
            summary="only biases, LayerNorm's among them, and the head train",
            source="Ben Zaken et al. 2022",
            lr=1e-3,
            trains="bitfit",
            without_head="only biases, LayerNorm's among them, train",
        ),
        Strategy(
            name="lora",
            summary="low-rank updates of the attention's input maps; GPT-2 itself is frozen",
            source="Hu et al. 2022",
            lr=2e-4,
            trains="lora",
            settings={"lora_rank": 8, "lora_alpha": 16.0, "lora_dropout": 0.0, "lora_targets": "c_attn"},
        ),
        Strategy(
            name="prefix",
            summary="trained keys and values before the text in every block; GPT-2 itself is frozen",
            source="Li & Liang 2021",
            lr=5e-4,
            trains="prefix",
            settings={"prefix_length": 10, "prefix_hidden": 512},
        ),
        Strategy(
            name="llrd",
            summary="rates that fall geometrically from the head down, one step per block",
            source="Clark et al. 2020 (ELECTRA), table 7; Zhang et al. 2021",
            lr=5e-5,
            settings={"layer_decay": 0.9, "schedule": "linear", "warmup": 0.1},
            without_head="rates that fall geometrically from the top block down, one step per block",
        ),
        Strategy(
            name="llrd-zones",
            summary="lower half of the blocks at half the rate, upper half at the rate, the head at twice the rate",
            source="published QQP runs; after Howard & Ruder 2018, section 3.2",
            lr=2e-5,
            settings={"zone_rates": [0.5, 1.0, 2.0]},
            by_dataset={"qqp": {"lr": 1e-5}},
            without_head="lower half of the blocks at half the rate, upper half at the rate",
        ),
        Strategy(
            name="ulmfit",
            summary="language-model stage on the task's text, gradual unfreezing, discriminative slanted rates",
            source="Howard & Ruder 2018",
            lr=1e-4,
            settings={
                "lm_epochs": 3,
                "lm_lr": 5e-5,
                "layer_decay": 1 / 2.6,
                "unfreeze_groups": 4,
                "schedule": "slanted-triangular",
                "pooling": "concat",
            },
            tasks=CLASSIFICATION,
            by_dataset={"nsmc": {"epochs": 6}},  # one more group each epoch, then two with all of them
        ),
        Strategy(
            name="ulmfit-static",
            summary="only the top two blocks (rate x0.5) and the head (x5) train throughout; rates up, then down",
            source="published SST-5 runs, after Howard & Ruder 2018",
            lr=1e-3,
            trains="last-n",
            settings={
                "last_n": 2,
                "published_groups": True,
                "zone_rates": [0.5, 0.5, 5.0],
                "schedule": "linear",
                "warmup": 0.1,
            },
            tasks=CLASSIFICATION,
            by_dataset={"sst": {"epochs": 10}, "cfimdb": {"epochs": 10}},
        ),
        Strategy(
            name="cloze",
            summary="no head: the model answers ' yes' or ' no' as the next token; every parameter trains",
            source="Schick & Schuetze 2021; CS 224N",
            lr=1e-5,
            settings={"dropout": 0.0},
            is_cloze=True,
            tasks=("paraphrase",),
        ),
        Strategy(
            name="unlikelihood",
            summary="the upper blocks train, also on which earlier tokens not to say again",
            source="Welleck et al. 2019",
            lr=1e-5,
            trains="last-n",
            settings={"last_n": 4, "ul_alpha": 1.0},
            tasks=FREE_TEXT,
        ),
        Strategy(
            name="unlikelihood+prefix",
            summary="prefix-tuning with the unlikelihood loss",
            source="Welleck et al. 2019; Li & Liang 2021",
            lr=5e-4,
            trains="prefix",
            settings={"prefix_length": 10, "prefix_hidden": 512, "ul_alpha": 1.0},
            tasks=FREE_TEXT,
        ),
    )
}


def variant(strategy: str, name: str, summary: str, source: str, settings: Settings) -> Strategy:
    """A strategy of the table under a name of its own, with further settings."""
    base = STRATEGIES[strategy]
    return dataclasses.replace(base, name=name, summary=summary, source=source, settings={**base.settings, **settings})


_ZONES = {"label_smoothing": 0.1, "published_groups": True}
_PUBLISHED_PAIRS = "published QQP runs"
# A task's own names, after the published experiments: task -> name -> strategy.
ALIASES: dict[str, dict[str, Strategy]] = {
    "sentiment": {"baseline": STRATEGIES["full"], "taskA": STRATEGIES["ulmfit-static"]},
    "paraphrase": {
        "baseline": STRATEGIES["full"],
        "taskA": variant(
            "llrd-zones",
            "taskA",
            "zones, last token, dropout 0.3, label smoothing",
            _PUBLISHED_PAIRS,
            {**_ZONES, "dropout": 0.3},
        ),
        "taskB": variant(
            "llrd-zones",
            "taskB",
            "zones, mean pooling, 5-sample dropout 0.3, label smoothing, warmup and cosine per step, clipping",
            _PUBLISHED_PAIRS,
            {
                **_ZONES,
                "pooling": "mean",
                "dropout": 0.3,
                "dropout_samples": 5,
                "schedule": "cosine",
                "warmup": 0.06,
                "max_grad_norm": 1.0,
            },
        ),
        "taskC": variant(
            "llrd-zones",
            "taskC",
            "zones, 0.7 mean + 0.3 last, 3-sample dropout that grows from 0.1, label smoothing, cosine per epoch",
            _PUBLISHED_PAIRS,
            {
                **_ZONES,
                "pooling": "mix",
                "dropout": 0.1,
                "dropout_growth": 0.2,
                "dropout_samples": 3,
                "schedule": "cosine-per-epoch",
            },
        ),
    },
    "sonnet": {
        "baseline": variant("last-n", "baseline", "the last four blocks train", "published sonnet runs", {"lr": 1e-5}),
        "taskA": STRATEGIES["unlikelihood"],
        "taskB": STRATEGIES["prefix"],
        "taskC": STRATEGIES["unlikelihood+prefix"],
    },
}

FINE_TUNE_MODES = {"full-model": "full", "last-linear-layer": "head"}


def choose_strategy(name: str | None, fine_tune_mode: str | None, task: str) -> Strategy:
    """The strategy that ``--strategy`` and ``--fine-tune-mode`` ask for together.

    Args:
        name: a strategy or one of the task's aliases; None leaves the choice to the mode, or to ``full``.
        fine_tune_mode: ``full-model`` restricts nothing beside a strategy; ``last-linear-layer`` allows the head only.
        task: sentiment, paraphrase, sonnet, text-generation, summarization, inference or question-answering.

    Raises:
        UserError: an unknown name, or a strategy that trains what the mode freezes.
    """
    if name is None:
        return STRATEGIES[FINE_TUNE_MODES[fine_tune_mode or "full-model"]]
    known = strategies_of(task) | ALIASES.get(task, {})
    if name not in known:
        where = f" for {task}" if name in STRATEGIES else ""
        is_headless = name in STRATEGIES and STRATEGIES[name].tasks == CLASSIFICATION and task not in CLASSIFICATION
        why = f" ({name} is made for a new classification head, and {task} adds none)" if is_headless else ""
        raise UserError(f"--strategy {name}: unknown{where}; choose from {', '.join(known)}{why}")
    strategy = known[name]
    if fine_tune_mode == "last-linear-layer" and strategy.trains != "head":
        raise UserError(
            f"--fine-tune-mode last-linear-layer freezes GPT-2, but --strategy {name} trains it; leave one of them out"
        )
    return strategy


def strategies_of(task: str) -> dict[str, Strategy]:
    """The strategies that make sense for a task, summed up as they are there."""
    known = {name: strategy for name, strategy in STRATEGIES.items() if not strategy.tasks or task in strategy.tasks}
    if task in CLASSIFICATION:
        return known
    return {name: dataclasses.replace(one, summary=one.without_head or one.summary) for name, one in known.items()}


def named_strategies_of(task: str) -> dict[str, Strategy]:
    """Those, and the ones that only the task's own names stand for."""
    return strategies_of(task) | {name: one for name, one in ALIASES.get(task, {}).items() if one.name == name}


# ---------------------------------------------------------------------------------------------------------------------
# As people read them
# ---------------------------------------------------------------------------------------------------------------------


def datasets_of(task: str) -> tuple[str, ...]:
    """The datasets of a task that have defaults."""
    return _DATASETS_OF.get(task, (task,))


def as_flags(settings: Settings) -> str:
    """Settings as one would type them; what is true is a flag without a value."""
    flags = {"--" + name.replace("_", "-"): value for name, value in settings.items()}
    return " ".join(flag if value is True else f"{flag} {as_text(value)}" for flag, value in flags.items())


def shown_defaults(task: str) -> dict[str, str]:
    """What ``--help`` says of the settings that the strategies of a task decide: setting -> its default."""
    datasets = datasets_of(task)
    rows = [(name, one.defaults(dataset)) for name, one in named_strategies_of(task).items() for dataset in datasets]
    found = {}
    for setting in set(chain.from_iterable(row for _, row in rows)):
        values = {as_text(row[setting]) for _, row in rows if setting in row}
        names = list(dict.fromkeys(name for name, row in rows if setting in row))
        if len(values) > 1:
            found[setting] = "the strategy's, see --list-strategies"
        else:
            (value,) = values
            found[setting] = value if len(names) == len(dict(rows)) else f"{value} with {', '.join(names)}"
    return found
