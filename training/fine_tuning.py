"""A strategy applied to a model: what is added to it, what trains, at which rates, and from which epoch on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from config import ClassificationSettings, FineTuneSettings, GPT2Config, WritingSettings
from models.classifier import Classifier, GPT2Classifier, GPT2Cloze, Head
from models.comparator import Comparator, ComparatorConfig
from models.gpt2 import GPT2Model
from modules.lora import add_lora
from modules.prefix import Prefix
from optimizer import (
    SCHEDULES,
    Schedule,
    by_epoch,
    cosine,
    geometric_rates,
    layers_of,
    parameter_groups,
    slanted_triangular,
    zone_rates,
)
from strategies import STRATEGIES, Strategy

COMPARATOR_STRATEGIES = ("full", "head")
LORA_KNOBS = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
PREFIX_KNOBS = ("prefix_length", "prefix_hidden")
GPT2_KNOBS = ("last_n", "layer_decay", "zone_rates", "published_groups", "unfreeze_groups", "lm_epochs", "lm_lr")
GPT2_HEAD_KNOBS = ("pooling", "mean_weight", "dropout", "dropout_growth", "dropout_samples", "dropout_average")
REFUSED_WITH_CLOZE = ("pooling", "dropout", "dropout_growth", "dropout_samples", "label_smoothing", "class_weights")
WITHOUT_WARMUP = ("cosine-per-epoch", "slanted-triangular")


# ---------------------------------------------------------------------------------------------------------------------
# Settings that contradict each other
# ---------------------------------------------------------------------------------------------------------------------


class _Refusals:
    """Messages on settings that can't be, or would do nothing."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, setting: str, why: str, off: int | None = None) -> None:
        """Refuses a setting; ``off`` is the value that leaves it out where the strategy may be what sets it."""
        flag = f"--{setting.replace('_', '-')}"
        self.found.append(f"{flag}: {why}; {'leave it out' if off is None else f'use {flag} {off}'}")


def training_problems(
    settings: FineTuneSettings, given: set[str], strategy: Strategy, config: GPT2Config | None
) -> list[str]:
    """Settings of the trainable parameters that contradict the strategy, the model or each other; one message each.

    Args:
        given: the names of the settings that the user chose.
        config: None before the model is there: what depends on its size is left for later.
    """
    s, name, refusals = settings, strategy.name, _Refusals()
    found, refuse = refusals.found, refusals.add
    for kind, knobs in (("lora", LORA_KNOBS), ("prefix", PREFIX_KNOBS), ("last-n", ("last_n",))):
        if strategy.trains != kind:
            for knob in sorted(_wanted(s, given) & set(knobs)):
                refuse(knob, f"it belongs to --strategy {kind}, not {name}")
    if strategy.trains in ("head", "prefix"):
        for knob in ("layer_decay", "zone_rates", "published_groups"):
            if getattr(s, knob):
                refuse(knob, f"strategy {name} trains no layer of GPT-2")
    if s.published_groups and s.lm_epochs:
        refuse("published_groups", "the stage of language modelling trains the embeddings and the final norm")
    if strategy.trains == "lora" and s.published_groups:
        refuse("published_groups", f"strategy {name} trains neither the embeddings nor the final norm")
    if strategy.trains != "all":
        if s.unfreeze_groups:
            refuse("unfreeze_groups", f"strategy {name} does not train all of GPT-2, so there is nothing to unfreeze")
        if s.lm_epochs:
            refuse("lm_epochs", f"strategy {name} keeps GPT-2, or parts of it, as it was pretrained")
    if s.layer_decay and s.zone_rates:
        found.append("--layer-decay and --zone-rates: both set the rates of the layers; use one")
    _refuse_of_other_schedules(s, given, refusals)
    if s.lm_lr is not None and not s.lm_epochs and "lm_lr" in given:
        refuse("lm_lr", "there is no stage of language modelling; it belongs to --lm-epochs 1 or more")
    return found + ([] if config is None else _size_problems(s, given, strategy, config))


def _size_problems(s: FineTuneSettings, given: set[str], strategy: Strategy, config: GPT2Config) -> list[str]:
    found = []
    if s.last_n is not None and s.last_n > config.n_layer and "last_n" in given:
        found.append(f"--last-n {s.last_n}: the model has {config.n_layer} blocks")
    if strategy.trains == "last-n" and s.zone_rates and "zone_rates" in given:
        lower, upper, _ = s.zone_rates
        if (s.last_n or 0) <= config.n_layer - config.n_layer // 2 and lower != upper:
            found.append(
                f"--zone-rates {lower:g} ...: the last {s.last_n} of {config.n_layer} blocks are all in the upper "
                f"zone; give the first factor as {upper:g}"
            )
    if s.unfreeze_groups and strategy.trains == "all":
        groups = min(s.unfreeze_groups, config.n_layer)
        if (s.epochs or 0) < groups + 2:
            found.append(
                f"--epochs {s.epochs}: an epoch for the head, one for each of {groups} groups and one more for all of "
                f"them make {groups + 2}; raise it, or lower --unfreeze-groups"
            )
    if s.prefix_length is not None and s.prefix_length >= config.n_positions:
        found.append(f"--prefix-length {s.prefix_length}: leaves no room for text in {config.n_positions} positions")
    if s.lora_rank is not None and s.lora_rank > config.n_embd:
        found.append(f"--lora-rank {s.lora_rank}: is no low rank in a model {config.n_embd} wide; lower it")
    return found


def writing_problems(
    settings: WritingSettings, given: set[str], strategy: Strategy, config: GPT2Config | None
) -> list[str]:
    """:func:`training_problems`, and what needs a classification head, or unlikelihood."""
    refusals = _Refusals()
    usual = STRATEGIES["llrd-zones"].settings["zone_rates"]
    if "zone_rates" in given and settings.zone_rates and settings.zone_rates[2] != usual[2]:
        lower, upper, head = (f"{factor:g}" for factor in settings.zone_rates)
        refusals.found.append(
            f"--zone-rates {lower} {upper} {head}: there is no head for the third factor; give it as {usual[2]:g}"
        )
    if settings.ul_line_breaks is not None and not settings.ul_alpha:
        flag = "ul_line_breaks" if settings.ul_line_breaks else "no_ul_line_breaks"
        refusals.add(flag, "there is no unlikelihood of earlier tokens; it belongs to --ul-alpha above 0")
    return training_problems(settings, given, strategy, config) + refusals.found


def combination_problems(
    settings: ClassificationSettings, given: set[str], strategy: Strategy, config: GPT2Config | None
) -> list[str]:
    """:func:`training_problems`, and contradictions among the settings of the head."""
    s, name, refusals = settings, strategy.name, _Refusals()
    found, refuse = refusals.found, refusals.add
    if strategy.is_cloze:
        for knob in sorted(_wanted(s, given) & set(REFUSED_WITH_CLOZE)):
            refuse(knob, f"strategy {name} has no head; the model answers in words")
        if s.zone_rates:
            refuse("zone_rates", f"strategy {name} has no head for the third factor; --layer-decay needs none")
        if s.unfreeze_groups:
            refuse("unfreeze_groups", f"strategy {name} has no head to begin with")
        if s.lm_epochs:
            refuse("lm_epochs", "it would teach that a text ends where the answer stands")
    if s.mean_weight is not None and s.pooling != "mix":
        refuse("mean_weight", f"it belongs to --pooling mix, not {s.pooling or 'last'}")
    if s.dropout_average is not None and (s.dropout_samples or 1) == 1:
        refuse("dropout_average", "there is one sample of dropout; it belongs to --dropout-samples 2 or more")
    if (s.dropout_samples or 1) > 1 and not (s.dropout or s.dropout_growth):
        refuse("dropout_samples", "without --dropout all samples are the same", off=1)
    if (s.dropout or 0.0) + (s.dropout_growth or 0.0) >= 1.0:
        found.append(f"--dropout-growth {s.dropout_growth}: dropout would reach 1; lower it, or --dropout")
    return training_problems(settings, given, strategy, config) + found


def comparator_problems(
    settings: ClassificationSettings, given: set[str], strategy: Strategy, config: ComparatorConfig
) -> list[str]:
    """Settings that a comparator can't have: it supports only ``full`` and ``head``, with its own head and dropout."""
    s, kind, refusals = settings, config.model_type, _Refusals()
    if strategy.name not in COMPARATOR_STRATEGIES:
        refusals.found.append(
            f"--strategy {strategy.name}: works on this project's GPT-2; a comparator ({kind}) takes "
            f"{' or '.join(COMPARATOR_STRATEGIES)}"
        )
    for knob in sorted(_wanted(s, given) & {*LORA_KNOBS, *PREFIX_KNOBS, *GPT2_KNOBS}):
        refusals.add(knob, f"it works on this project's GPT-2, not on a comparator ({kind})")
    for knob in sorted(given & set(GPT2_HEAD_KNOBS)):
        if getattr(s, knob) is not None:  # 0 too: the comparator's own dropout would stay
            refusals.add(knob, f"a comparator ({kind}) keeps the head and the dropout of its own config.json")
    _refuse_of_other_schedules(s, given, refusals)
    return refusals.found


def _refuse_of_other_schedules(settings: FineTuneSettings, given: set[str], refusals: _Refusals) -> None:
    """Refuses the numbers that the chosen schedule does not read."""
    for knob in ("cut_frac", "rate_ratio"):
        if getattr(settings, knob) is not None and settings.schedule != "slanted-triangular":
            refusals.add(knob, f"it belongs to --schedule slanted-triangular, not {settings.schedule}")
    if "warmup" in _wanted(settings, given) and settings.schedule in WITHOUT_WARMUP:
        refusals.add("warmup", f"--schedule {settings.schedule} has none")


def _wanted(settings: FineTuneSettings, given: set[str]) -> set[str]:
    return {name for name in given if getattr(settings, name, None) not in (None, False)}


# ---------------------------------------------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------------------------------------------


def make_classifier(
    gpt2: GPT2Model,
    strategy: Strategy,
    settings: ClassificationSettings,
    num_labels: int,
    class_weights: Sequence[float] | None = None,
    answer_ids: Sequence[int] = (),
) -> Classifier:
    """Puts head and adapters on a GPT-2, and freezes what the strategy does not train. New weights are drawn.

    Args:
        class_weights: (num_labels,) for --class-weights.
        answer_ids: the classes' tokens, for a strategy that answers in words.
    """
    classifier: Classifier
    if strategy.is_cloze:
        classifier = GPT2Cloze(gpt2, answer_ids)
    else:
        classifier = GPT2Classifier(gpt2, num_labels, head_of(settings), class_weights)
        if strategy.trains == "head":
            classifier.freeze_gpt2()
    freeze(gpt2, strategy, settings)
    return classifier


def make_comparator(
    model: Any, strategy: Strategy, settings: ClassificationSettings, class_weights: Sequence[float] | None = None
) -> Comparator:
    """Wraps a classifier of ``transformers``; strategy ``head`` freezes everything but its classification head."""
    comparator = Comparator(model, settings.label_smoothing or 0.0, class_weights)
    if strategy.trains == "head":
        comparator.freeze_body()
    return comparator


def head_of(settings: ClassificationSettings) -> Head:
    chosen = {
        "pooling": settings.pooling,
        "mean_weight": settings.mean_weight,
        "dropout": settings.dropout,
        "dropout_samples": settings.dropout_samples,
        "dropout_average": settings.dropout_average,
        "label_smoothing": settings.label_smoothing,
    }
    return Head(**{name: value for name, value in chosen.items() if value is not None})  # type: ignore[arg-type]


def freeze(gpt2: GPT2Model, strategy: Strategy, settings: FineTuneSettings) -> None:
    """Freezes the parameters of GPT-2 that the strategy does not train, and adds the adapters that it needs."""
    groups = gpt2.layer_groups()
    blocks = [name for name in groups if name.startswith("block ")]
    if strategy.trains != "all":
        gpt2.requires_grad_(False)
    if strategy.trains == "last-n":
        assert settings.last_n is not None
        for name in [*blocks[-settings.last_n :], "final norm"]:
            _require(groups[name], True)
    elif strategy.trains == "bitfit":
        _require([p for name, p in gpt2.named_parameters() if name.endswith("bias")], True)
    elif strategy.trains == "lora":
        assert settings.lora_rank and settings.lora_alpha and settings.lora_targets
        add_lora(
            gpt2, settings.lora_rank, settings.lora_alpha, settings.lora_dropout or 0.0, targets=settings.lora_targets
        )
    elif strategy.trains == "prefix":
        assert settings.prefix_length and settings.prefix_hidden
        gpt2.prefix = Prefix(gpt2.config, settings.prefix_length, settings.prefix_hidden)
    if settings.published_groups:
        _require([*groups["embeddings"], *groups["final norm"]], False)


def _require(parameters: Sequence[nn.Parameter], trains: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(trains)


def context_of(config: GPT2Config, settings: FineTuneSettings) -> int:
    """The longest text that the model can read, in tokens: a prefix takes positions of its own."""
    return config.n_positions - (settings.prefix_length or 0)


# ---------------------------------------------------------------------------------------------------------------------
# Rates
# ---------------------------------------------------------------------------------------------------------------------


def rate_factors(names: Sequence[str], settings: FineTuneSettings) -> dict[str, float]:
    """The factor on the rate of each of a model's layer groups; 1 where there is none."""
    if settings.zone_rates:
        lower, upper, head = settings.zone_rates
        return zone_rates(names, lower, upper, head)
    if settings.layer_decay:
        return geometric_rates(layers_of(names, rate_groups(settings)), settings.layer_decay)
    return {}


def rate_groups(settings: FineTuneSettings) -> int | None:
    """How many groups of blocks have a rate each: those of gradual unfreezing; None where each block has its own.

    Where 0 leaves the unfreezing out, the groups are the strategy's own, so that its rates stay as they were.
    """
    own = STRATEGIES.get(settings.strategy or "")
    if settings.unfreeze_groups == 0 and own is not None:
        return own.settings.get("unfreeze_groups")
    return settings.unfreeze_groups


def optimizer_groups_of(
    layers: Mapping[str, list[nn.Parameter]], model: nn.Module, settings: FineTuneSettings, lr: float
) -> list[dict[str, Any]]:
    """The optimizer groups of a model's layer groups, with the strategy's rates.

    Args:
        layers: the layer groups that the model publishes.
        lr: the base rate, which :func:`rate_factors` multiplies.
    """
    return parameter_groups(layers, model, lr, settings.weight_decay or 0.0, rate_factors(list(layers), settings))


def make_schedule(settings: FineTuneSettings) -> Schedule:
    """(step, total steps) -> factor on every rate."""
    epochs, warmup, name = settings.epochs or 1, settings.warmup or 0.0, settings.schedule or "constant"
    cut_frac, ratio = settings.cut_frac or 0.1, settings.rate_ratio or 32.0

    def schedule(step: float, total: int) -> float:
        if name == "slanted-triangular":
            return slanted_triangular(step, total, cut_frac, ratio)
        if name == "cosine-per-epoch":
            return by_epoch(cosine, step, total, epochs)
        return SCHEDULES[name](step, total, warmup=round(warmup * total))

    return schedule


# ---------------------------------------------------------------------------------------------------------------------
# What changes from epoch to epoch
# ---------------------------------------------------------------------------------------------------------------------


def make_epoch_hook(
    classifier: Classifier | Comparator, settings: ClassificationSettings
) -> Callable[[int], None] | None:
    """The function to call at the start of each epoch, counted from 1; None where nothing changes.

    Dropout grows linearly: dropout + growth * (epoch - 1) / epochs, as in the published taskC. Gradual unfreezing
    (Howard & Ruder 2018, section 3.3) trains the head alone in the first epoch and takes one more layer from the top in
    each further one, until all train.
    """
    growth, epochs = settings.dropout_growth or 0.0, settings.epochs or 1
    if not growth and not settings.unfreeze_groups:
        return None
    groups = classifier.layer_groups()
    layers = layers_of(groups, settings.unfreeze_groups)
    unfrozen = {name: [p for p in groups[name] if p.requires_grad] for name in groups}

    def begin_epoch(epoch: int) -> None:
        if growth:
            assert isinstance(classifier, GPT2Classifier)
            classifier.dropout.p = (settings.dropout or 0.0) + growth * (epoch - 1) / epochs
        if settings.unfreeze_groups:
            for depth, layer in enumerate(reversed(layers)):
                for name in layer:
                    _require(unfrozen[name], depth < epoch)

    return begin_epoch


# ---------------------------------------------------------------------------------------------------------------------
# What a strategy costs
# ---------------------------------------------------------------------------------------------------------------------


def trainable_share(strategy: Strategy, config: GPT2Config, num_labels: int) -> float:
    """Trainable parameters divided by GPT-2's own; with 0 labels those of a task that has no head."""
    with torch.device("meta"):
        gpt2 = GPT2Model(config)
        total = sum(p.numel() for p in gpt2.parameters())
        model: nn.Module = gpt2
        if num_labels:
            settings = ClassificationSettings(**strategy.defaults("custom"))
            model = make_classifier(gpt2, strategy, settings, num_labels, answer_ids=range(num_labels))
        else:
            freeze(gpt2, strategy, WritingSettings(**strategy.defaults("shakespeare")))
    return sum(p.numel() for p in model.parameters() if p.requires_grad) / total


def relative_cost(strategy: Strategy, settings: Mapping[str, Any], n_layer: int) -> float:
    """Arithmetic of an epoch beside full fine-tuning's, from what has to be computed; the head is not counted.

    A step is three equal parts: the forward pass, the gradients of the states, and those of the weights. A stage of
    language modelling counts as so many epochs.

    Args:
        settings: the strategy's own or a run's, by their names.
    """
    epochs = settings["epochs"]
    if strategy.trains == "head":
        return 1 / 3 if settings.get("pooling") == "attention" else 1 / (3 * epochs)  # else one forward pass in all
    if strategy.trains == "last-n":
        return (1 + 2 * min(settings["last_n"], n_layer) / n_layer) / 3
    if strategy.trains != "all":
        return 2 / 3
    groups = min(settings.get("unfreeze_groups") or 0, n_layer)
    shares = [min(epoch / groups, 1.0) if groups else 1.0 for epoch in range(epochs)]
    return (sum((1 + 2 * share) / 3 for share in shares) + (settings.get("lm_epochs") or 0)) / epochs
