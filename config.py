"""What the whole project agrees on: the model's architecture, a run's settings, and how a user's mistake is reported.

Nothing here imports torch, so that every ``--help`` answers at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parent
BUNDLED_CHECKPOINTS = ROOT / "data" / "checkpoints"


class UserError(Exception):
    """Something the user can mend: bad input, a wrong flag, a missing file.

    The scripts print every line with ``error: `` in front and leave with exit code 2; no traceback is shown.

    Args:
        problems: one message, or all that were found; each says what is wrong, where, and what to do.
    """

    exit_code = 2

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class RunFailed(UserError):
    """A run that was started rightly and could not be finished: a loss that is not finite, a full disk."""

    exit_code = 1


# ---------------------------------------------------------------------------------------------------------------------
# The architecture
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GPT2Config:
    """The shape of a GPT-2 (Radford et al. 2019), under the names of HuggingFace's ``config.json``.

    The defaults are the 124M model's. ``n_inner=None`` means four times ``n_embd``. GELU is always the tanh form,
    the one GPT-2 was trained with.
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    layer_norm_epsilon: float = 1e-5
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    resid_pdrop: float = 0.1
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            if not _is_whole(getattr(self, name)) or getattr(self, name) < 1:
                raise UserError(f"{name} must be a positive whole number, not {getattr(self, name)!r}")
        if self.n_inner is not None and (not _is_whole(self.n_inner) or self.n_inner < 1):
            raise UserError(f"n_inner must be a positive whole number or null, not {self.n_inner!r}")
        if self.n_embd % self.n_head:
            raise UserError(
                f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}; heads must be equally wide"
            )
        for name in ("embd_pdrop", "attn_pdrop", "resid_pdrop"):
            if not _is_number(getattr(self, name)) or not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"{name} must be in [0, 1), not {getattr(self, name)!r}")
        for name in ("layer_norm_epsilon", "initializer_range"):
            if not _is_number(getattr(self, name)) or not 0.0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be a positive number, not {getattr(self, name)!r}")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(self, name) is not None and not _is_whole(getattr(self, name)):
                raise UserError(f"{name} must be a whole number or null, not {getattr(self, name)!r}")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def inner_dim(self) -> int:
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @classmethod
    def from_dict(cls, raw: dict[str, Any], source: str | Path = "config.json") -> GPT2Config:
        """Reads a HuggingFace ``config.json``, refusing what this GPT-2 does not compute.

        As in ``transformers``, ``model_type`` may be missing and ``eos_token_id`` may be a list, whose first is taken.

        Raises:
            UserError: the configuration describes another architecture, or lacks its sizes.
        """
        model_type = raw.get("model_type")
        architectures = raw.get("architectures") or []
        is_gpt2 = model_type == "gpt2" or (
            model_type is None and all(str(architecture).startswith("GPT2") for architecture in architectures)
        )
        if not is_gpt2:
            of = f" of architectures {architectures!r}" if model_type is None else ""
            raise UserError(f"{source}: model_type is {model_type!r}, not 'gpt2'{of}; give a GPT-2 checkpoint")
        refused = {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
            "tie_word_embeddings": (True,),
        }
        problems = [
            f"{source}: {key} is {raw[key]!r}; only {' or '.join(map(repr, allowed))} is GPT-2"
            for key, allowed in refused.items()
            if key in raw and raw[key] not in allowed
        ]
        problems += [
            f"{source}: {key} is missing; it is part of every GPT-2's config"
            for key in ("vocab_size", "n_embd", "n_layer", "n_head")
            if key not in raw
        ]
        if problems:
            raise UserError(problems)
        raw = {"n_positions": raw.get("n_ctx", 1024), **raw}
        if isinstance(raw.get("eos_token_id"), list):
            raw["eos_token_id"] = next(iter(raw["eos_token_id"]), None)
        known = {f.name for f in fields(cls)}
        try:
            return cls(**{key: value for key, value in raw.items() if key in known})
        except UserError as error:
            raise UserError([f"{source}: {problem}" for problem in error.problems]) from None

    def to_dict(self) -> dict[str, Any]:
        """The configuration as ``transformers`` writes and reads it."""
        return {
            "model_type": "gpt2",
            "activation_function": "gelu_new",
            "tie_word_embeddings": True,
            "scale_attn_weights": True,
            **asdict(self),
        }


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or isinstance(value, float)


# ---------------------------------------------------------------------------------------------------------------------
# The settings of a run
# ---------------------------------------------------------------------------------------------------------------------


Range = tuple[str, Callable[[Any], bool]]  # what a value must be, in words and as a test

AT_LEAST_ONE: Range = ("at least 1", lambda x: x >= 1)
POSITIVE: Range = ("greater than 0 and finite", lambda x: 0 < x < math.inf)
NOT_NEGATIVE: Range = ("at least 0 and below 2^63", lambda x: 0 <= x < 2**63)
SHARE: Range = ("at least 0 and below 1", lambda x: 0 <= x < 1)


def setting(
    default: Any,
    help: str,
    *,
    group: str,
    choices: tuple[Any, ...] | None = None,
    metavar: str | None = None,
    identity: bool = True,
    within: Range | None = None,
    like_unset: Any = None,
) -> Any:
    """A field of a settings dataclass that is a command-line flag and a key of ``--config`` files at once.

    Args:
        default: the value where nothing else sets one; None means that the strategy or the model's card does.
        help: what ``--help`` says.
        group: the heading of ``--help`` under which it stands.
        choices: the allowed values.
        metavar: the name of the value in ``--help``.
        identity: whether it can change the results, so that runs which differ in it are different runs.
        within: what every value other than None must satisfy.
        like_unset: a value that says what None says, and is kept as None, so that both are one run.
    """
    metadata = {
        "help": help, "group": group, "choices": choices, "metavar": metavar, "identity": identity, "within": within,
        "like_unset": like_unset,
    }  # fmt: skip
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def as_text(value: Any) -> str:
    """A setting's value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(as_text, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


MODEL, DATA, TRAINING, DEVICE, RUN = "model and strategy", "data", "training", "device and precision", "run"
GROUP_ORDER = (MODEL, DATA, TRAINING, DEVICE, RUN)  # in --help; a script's own groups come before the last two
HEAD, RATES, ADAPTERS = "head", "what trains when, and how fast", "adapters"


@dataclass(frozen=True)
class BaseSettings:
    """What every script that trains lets the user set."""

    seed: int = setting(
        11711, "seed of the data order, the dropout and the new weights", group=TRAINING, within=NOT_NEGATIVE
    )

    use_gpu: bool = setting(False, "use the GPU (default: the CPU)", group=DEVICE, identity=False)
    precision: str = setting(
        "auto", "auto: bf16 where the hardware does it, fp16 on older GPUs, else fp32", group=DEVICE,
        choices=("auto", "fp32", "bf16", "fp16"),
    )  # fmt: skip

    output_dir: str | None = setting(
        None, "where run folders go (default: runs)", group=RUN, metavar="FOLDER", identity=False
    )
    save_every: float = setting(
        5.0, "minutes between saved states, from which an interrupted run goes on", group=RUN, metavar="MINUTES",
        identity=False, within=POSITIVE,
    )  # fmt: skip
    overwrite: bool = setting(False, "start anew where a run folder exists", group=RUN, identity=False)
    resume: str | None = setting(
        None, "go on with this run folder, with its own settings", group=RUN, metavar="FOLDER", identity=False
    )
    dry_run: bool = setting(
        False, "check everything, print what would be done, and stop; what is missing is downloaded", group=RUN,
        identity=False,
    )  # fmt: skip
    config: str | None = setting(
        None, "YAML file with defaults for any of these settings", group=RUN, metavar="FILE", identity=False
    )

    def __post_init__(self) -> None:
        for known in fields(self):
            like_unset = known.metadata["like_unset"]
            if like_unset is not None and getattr(self, known.name) == like_unset:
                object.__setattr__(self, known.name, None)


@dataclass(frozen=True)
class RunSettings(BaseSettings):
    """What every task script lets the user set. A task adds its own fields by subclassing."""

    model: str | None = setting(
        None,
        "a folder, a bundled model (mini, ko-mini) or a Hub id; by default gpt2, or mini where gpt2 can't be had",
        group=MODEL,
        metavar="MODEL",
        identity=False,  # config.json and the folder's name hold the model that was found
    )
    random_init: bool = setting(
        False, "start from random weights in the model's shape instead of its own: shows what pretraining gives",
        group=MODEL,
    )  # fmt: skip
    strategy: str | None = setting(None, "named fine-tuning strategy (--list-strategies); default full", group=MODEL)

    data_dir: str | None = setting(
        None,
        "folder with the data files; by default data/, else a download, else the bundled sample",
        group=DATA,
        metavar="FOLDER",
        identity=False,  # the files' checksums count, not where they lie
    )
    limit_train: int | None = setting(
        None, "use only the first N training rows", group=DATA, metavar="N", within=AT_LEAST_ONE
    )
    limit_dev: int | None = setting(None, "use only the first N dev rows", group=DATA, metavar="N", within=AT_LEAST_ONE)
    limit_test: int | None = setting(
        None, "use only the first N test rows", group=DATA, metavar="N", within=AT_LEAST_ONE
    )
    show_examples: int = setting(
        0,
        "print what the model sees of the first N training examples",
        group=DATA,
        metavar="N",
        identity=False,
        within=NOT_NEGATIVE,
    )

    epochs: int | None = setting(None, "passes over the training set", group=TRAINING, metavar="N", within=AT_LEAST_ONE)
    batch_size: int | None = setting(None, "examples per batch", group=TRAINING, metavar="N", within=AT_LEAST_ONE)
    accumulate: int = setting(
        1, "batches whose gradients make one update", group=TRAINING, metavar="N", within=AT_LEAST_ONE
    )
    lr: float | None = setting(None, "learning rate", group=TRAINING, metavar="RATE", within=POSITIVE)
    weight_decay: float | None = setting(
        None, "decoupled weight decay of matrices", group=TRAINING, metavar="X", within=NOT_NEGATIVE
    )
    schedule: str | None = setting(
        None, "how the rate changes over the steps", group=TRAINING,
        choices=("constant", "linear", "cosine", "cosine-per-epoch", "slanted-triangular"),
    )  # fmt: skip
    warmup: float | None = setting(
        None, "share of the steps over which the rate rises from 0", group=TRAINING, metavar="SHARE", within=SHARE
    )
    max_grad_norm: float | None = setting(
        None, "clip the gradient's norm to this (default: no clipping)", group=TRAINING, metavar="NORM", within=POSITIVE
    )
    patience: int | None = setting(
        None,
        "stop after N epochs without a better dev score; with --unfreeze-groups only those count in which all layers "
        "train (default: never)",
        group=TRAINING,
        metavar="N",
        within=AT_LEAST_ONE,
    )


POOLINGS = ("last", "mean", "mix", "max", "concat", "attention")


@dataclass(frozen=True)
class FineTuneSettings(RunSettings):
    """The settings of the scripts that fine-tune: which parameters train, how fast, and with which adapters.

    None means that the strategy does not use the technique.
    """

    last_n: int | None = setting(None, "upper blocks that train", group=RATES, within=AT_LEAST_ONE)
    layer_decay: float | None = setting(
        None, "each layer's rate as a share of the one's above, from the head down; layers are blocks, or the groups "
        "of --unfreeze-groups, or of the strategy's own where that is 0", group=RATES,
        within=("greater than 0 and at most 1", lambda x: 0 < x <= 1),
    )  # fmt: skip
    zone_rates: list[float] | None = setting(
        None, "factors on the rate of the lower half of the blocks, the upper half, and the head (2 where a task has "
        "none)", group=RATES, metavar="X",
        within=("three numbers above 0", lambda x: len(x) == 3 and all(0 < y < math.inf for y in x)),
    )  # fmt: skip
    published_groups: bool = setting(
        False, "freeze embeddings and final norm, which the published runs have in no parameter group", group=RATES
    )
    unfreeze_groups: int | None = setting(
        None, "gradual unfreezing: the head first, then one more of so many groups of blocks each epoch; 0: don't, at "
        "the same rates", group=RATES, within=NOT_NEGATIVE,
    )  # fmt: skip
    cut_frac: float | None = setting(
        None, "share of the steps over which slanted triangular rates rise (default: 0.1)", group=RATES,
        within=("greater than 0 and below 1", lambda x: 0 < x < 1),
    )  # fmt: skip
    rate_ratio: float | None = setting(
        None, "how much smaller the lowest of the slanted triangular rates is than the peak (default: 32)", group=RATES,
        within=("at least 1", lambda x: 1 <= x < math.inf),
    )  # fmt: skip
    lm_epochs: int | None = setting(
        None, "first fine-tune the language model on the task's own text for so many epochs; 0: don't", group=RATES,
        within=NOT_NEGATIVE,
    )  # fmt: skip
    lm_lr: float | None = setting(None, "learning rate of that stage", group=RATES, metavar="RATE", within=POSITIVE)

    lora_rank: int | None = setting(None, "rank of the updates", group=ADAPTERS, within=AT_LEAST_ONE)
    lora_alpha: float | None = setting(None, "updates are scaled by alpha / rank", group=ADAPTERS, within=POSITIVE)
    lora_dropout: float | None = setting(
        None, "dropout of the updates' input", group=ADAPTERS, metavar="P", within=SHARE
    )
    lora_targets: str | None = setting(
        None, "the maps that are updated: c_attn, the fused one to queries, keys and values, or query-value, as in the "
        "paper", group=ADAPTERS, choices=("c_attn", "query-value"),
    )  # fmt: skip
    prefix_length: int | None = setting(None, "positions of the prefix", group=ADAPTERS, within=AT_LEAST_ONE)
    prefix_hidden: int | None = setting(
        None, "width of the map that makes the prefix while it trains", group=ADAPTERS, within=AT_LEAST_ONE
    )


@dataclass(frozen=True)
class ClassificationSettings(FineTuneSettings):
    """What the scripts that classify texts let the user set: also the knobs of the head."""

    skip_bad_rows: bool = setting(False, "leave bad rows out and list them, instead of stopping", group=DATA)
    train_fraction: float | None = setting(
        None, "train on this share of each class's rows, drawn by the seed; a smaller share is part of a larger one "
        "(default: 1)", group=DATA, metavar="SHARE", within=("greater than 0 and at most 1", lambda x: 0 < x <= 1),
        like_unset=1.0,
    )  # fmt: skip
    keep_case: bool = setting(
        False, "keep capital letters (default: lower-cased, as in the published runs)", group=DATA
    )
    keep: str = setting(
        "end", "which end of a text is kept where it is longer than the model's context", group=DATA,
        choices=("start", "end"),
    )  # fmt: skip
    fine_tune_mode: str | None = setting(
        None, "full-model trains everything; last-linear-layer freezes GPT-2 and trains the head on its features",
        group=MODEL, choices=("full-model", "last-linear-layer"), identity=False,
    )  # fmt: skip
    dataset: list[str] = setting([], "datasets, one run each", group=DATA, identity=False)
    train_file: str | None = setting(None, "your own training file", group=DATA, metavar="FILE", identity=False)
    dev_file: str | None = setting(None, "its dev file", group=DATA, metavar="FILE", identity=False)
    test_file: str | None = setting(
        None, "its test file; labels are optional", group=DATA, metavar="FILE", identity=False
    )
    predict_file: str | None = setting(
        None, "label every line of this file with a finished run, and stop", group=RUN, metavar="FILE", identity=False
    )
    from_run: str | None = setting(
        None, "the finished run that --predict uses; by default the latest one", group=RUN, metavar="FOLDER",
        identity=False,
    )  # fmt: skip

    pooling: str | None = setting(
        None, "what of the text's states the head sees; concat: last, max and mean side by side; attention: a learned "
        "mean (default: last)", group=HEAD, choices=POOLINGS, like_unset="last",
    )  # fmt: skip
    dropout: float | None = setting(None, "dropout before the head", group=HEAD, metavar="P", within=SHARE)
    mean_weight: float | None = setting(
        None, "share of the mean with --pooling mix, the rest is the last token's (default: 0.7)", group=HEAD,
        within=("between 0 and 1", lambda x: 0 <= x <= 1),
    )  # fmt: skip
    dropout_growth: float | None = setting(
        None, "added to --dropout over the epochs: dropout + growth * epoch / epochs, from epoch 0", group=HEAD,
        within=SHARE,
    )  # fmt: skip
    dropout_samples: int | None = setting(
        None, "multi-sample dropout: so many dropout masks before the head, averaged", group=HEAD, within=AT_LEAST_ONE
    )
    dropout_average: str | None = setting(
        None, "what multi-sample dropout averages (default: logits)", group=HEAD, choices=("logits", "losses")
    )
    label_smoothing: float | None = setting(
        None, "share of the target that is spread evenly over the classes", group=HEAD, within=SHARE
    )
    class_weights: str | None = setting(
        None, "balanced: each class counts as much as the others, however rare", group=HEAD, choices=("balanced",)
    )


DECODING = "decoding"
NO_UNLIKELIHOOD = dict.fromkeys(
    ("ul_alpha", "ul_line_breaks", "ul_sequence"),
    "there is no unlikelihood for this task, whose texts are too short to repeat themselves",
)


@dataclass(frozen=True)
class WritingSettings(FineTuneSettings):
    """What the scripts that fine-tune a language model and let it write let the user set.

    Attributes:
        refused: settings that contradict the task whatever else is set -> why; ``--help`` does not show them.
    """

    refused: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("lm_epochs", "lm_lr", "unfreeze_groups"), "belongs to classification, where a head comes on top"
    )

    hold_out: int | None = setting(
        None, "choose the epoch by every Nth training text, with all rows about it, and measure on those: no dev file "
        "is needed, and a dataset's own dev and test set are left alone",
        group=DATA, within=("at least 2", lambda n: n >= 2),
    )  # fmt: skip

    ul_alpha: float | None = setting(
        None, "unlikelihood: weight of the loss of saying an earlier token again", group=TRAINING, within=NOT_NEGATIVE
    )
    ul_line_breaks: bool | None = setting(
        None, "count line breaks among the earlier tokens (default: yes)", group=TRAINING
    )
    ul_sequence: float | None = setting(
        None, "share of the updates on the model's own greedy text, whose repeated 4-grams are made unlikely",
        group=TRAINING, metavar="SHARE", within=("between 0 and 1", lambda x: 0 <= x <= 1),
    )  # fmt: skip

    temperature: float = setting(
        1.2, "of sampling: below 1 sharper, above 1 flatter; 0 takes the likeliest token", group=DECODING,
        within=NOT_NEGATIVE,
    )  # fmt: skip
    top_p: float = setting(
        0.9, "sample from the likeliest tokens that make up this probability", group=DECODING,
        within=("greater than 0 and at most 1", lambda x: 0 < x <= 1),
    )  # fmt: skip
    top_k: int | None = setting(
        None, "sample from so many of the likeliest tokens", group=DECODING, within=AT_LEAST_ONE
    )
    min_p: float | None = setting(
        None, "leave out tokens less likely than this share of the likeliest", group=DECODING, within=SHARE
    )
    typical_p: float | None = setting(
        None, "sample from the most typical tokens that make up this probability", group=DECODING,
        within=("greater than 0 and at most 1", lambda x: 0 < x <= 1),
    )  # fmt: skip
    repetition_penalty: float | None = setting(
        None, "divide the logits of tokens that were said before", group=DECODING, within=POSITIVE
    )
    no_repeat_ngram: int | None = setting(None, "say no n tokens in a row twice", group=DECODING, within=AT_LEAST_ONE)
    beams: int | None = setting(
        None, "beam search with so many beams, at temperature 0", group=DECODING, within=AT_LEAST_ONE
    )
    max_new_tokens: int = setting(200, "longest text that is written", group=DECODING, within=AT_LEAST_ONE)
    samples: int = setting(1, "texts per prompt that are written and measured", group=DECODING, within=AT_LEAST_ONE)


# ---------------------------------------------------------------------------------------------------------------------
# Pretraining
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """A shape, and what is usual for training it.

    Attributes:
        layers, heads, dims, context: n_layer, n_head, n_embd, n_positions.
        lr: the peak rate; GPT-3's for the model of the same size (Brown et al. 2020, table 2.1), compared for mini.
        batch_tokens: tokens per update.
    """

    layers: int
    heads: int
    dims: int
    context: int
    lr: float
    batch_tokens: int


SIZES = {  # Radford et al. 2019, table 2, with the heads of the released checkpoints
    "mini": Size(4, 4, 256, 512, 1e-3, 2_048),
    "small": Size(12, 12, 768, 1024, 6e-4, 524_288),
    "medium": Size(24, 16, 1024, 1024, 3e-4, 524_288),
    "large": Size(36, 20, 1280, 1024, 2.5e-4, 524_288),
    "xl": Size(48, 25, 1600, 1024, 2e-4, 1_048_576),
}

PRETRAIN_SCHEDULES = ("cosine", "warmup-stable-decay")


def _by_size(value: Callable[[Size], str]) -> str:
    return ", ".join(f"{name} {value(size)}" for name, size in SIZES.items())


@dataclass(frozen=True)
class PretrainSettings(BaseSettings):
    """The settings of a pretraining run, from scratch or from a checkpoint."""

    corpus: str | None = setting(
        None, "folder made by build_corpus.py (required)", group=DATA, metavar="FOLDER", identity=False
    )
    cross_documents: bool = setting(
        True, "let attention look back into earlier documents of the same window", group=DATA
    )

    size: str | None = setting(
        None, "the shape, blocks x width: " + _by_size(lambda size: f"{size.layers}x{size.dims}") + " (default: mini)",
        group=MODEL, choices=tuple(SIZES),
    )  # fmt: skip
    layers: int | None = setting(None, "number of blocks, instead of the size's", group=MODEL, within=AT_LEAST_ONE)
    heads: int | None = setting(None, "attention heads", group=MODEL, within=AT_LEAST_ONE)
    dims: int | None = setting(None, "width (n_embd)", group=MODEL, within=AT_LEAST_ONE)
    context: int | None = setting(None, "longest sequence that the model can read", group=MODEL, within=AT_LEAST_ONE)
    init_from: str | None = setting(
        None, "go on training this checkpoint: a folder, a bundled model or a Hub id; a corpus with another vocabulary "
        "gets new embeddings, tokens of the same text keep theirs", group=MODEL, metavar="MODEL",
        identity=False,  # the weights' checksums count, not where they lie
    )  # fmt: skip
    init_only: bool = setting(
        False, "write the untrained model, loadable like any other, and stop", group=MODEL, identity=False
    )
    dropout: float | None = setting(
        None, "dropout of embeddings, attention and residuals (default: 0, or what --init-from has)", group=MODEL,
        within=SHARE,
    )  # fmt: skip
    save_dtype: str = setting("fp32", "type of the saved weights", group=MODEL, choices=("fp32", "bf16"))

    max_tokens: int | None = setting(
        None, "train on this many tokens (default: one pass over the corpus)", group=TRAINING, within=AT_LEAST_ONE
    )
    time_budget: str | None = setting(
        None, "end the schedule at this time, whatever the speed: 90m, 2h, 1h30m", group=TRAINING, metavar="TIME"
    )
    lr: float | None = setting(
        None, "peak learning rate (default: the size's, " + _by_size(lambda size: f"{size.lr:g}") + "; without --size "
        "mini's below a width of 768, else small's)", group=TRAINING, metavar="RATE", within=POSITIVE,
    )  # fmt: skip
    schedule: str = setting(
        "cosine", "cosine, warmup-stable-decay, or the schedule.json of an earlier run, to repeat it", group=TRAINING,
        metavar="NAME|FILE",
    )  # fmt: skip
    warmup: float = setting(
        0.02, "share of the schedule over which the rate rises", group=TRAINING, metavar="SHARE", within=SHARE
    )
    weight_decay: float = setting(0.1, "decoupled weight decay of matrices", group=TRAINING, within=NOT_NEGATIVE)
    beta2: float = setting(
        0.95, "how much of its mean of squared gradients AdamW keeps at an update", group=TRAINING, metavar="SHARE",
        within=SHARE,
    )  # fmt: skip
    max_grad_norm: float = setting(
        1.0, "clip the gradient's norm to this", group=TRAINING, metavar="NORM", within=POSITIVE
    )
    window: int | None = setting(
        None, "tokens per training sequence (default: the context)", group=TRAINING, within=AT_LEAST_ONE
    )
    batch_tokens: int | None = setting(
        None, "tokens per update (default: the size's, " + _by_size(lambda size: f"{size.batch_tokens:,}")
        + "; without --size as for --lr)", group=TRAINING, within=AT_LEAST_ONE,
    )  # fmt: skip
    batch_size: int | None = setting(
        None, "sequences that each process computes at a time; as many such batches as make batch-tokens, of all "
        "processes together, are accumulated (default: about 8,192 tokens)", group=TRAINING, within=AT_LEAST_ONE,
    )  # fmt: skip
    eval_every: int = setting(200, "updates between evaluations", group=TRAINING, within=AT_LEAST_ONE)
    eval_tokens: int = setting(
        100_000, "validation tokens per evaluation; all at the end", group=TRAINING, within=AT_LEAST_ONE
    )
    sample_prompt: str = setting(
        "", "what the text shown after an evaluation begins with", group=TRAINING, metavar="TEXT", identity=False
    )
    sample_tokens: int = setting(48, "its length; 0 shows none", group=TRAINING, within=NOT_NEGATIVE, identity=False)

    recompute: bool = setting(
        False, "compute activations twice instead of keeping them (activation checkpointing)", group=DEVICE,
        identity=False,
    )  # fmt: skip
    compile: bool = setting(False, "compile the blocks with torch.compile; takes a minute to start", group=DEVICE)


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation of language models
# ---------------------------------------------------------------------------------------------------------------------

CORPUS_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class EvaluateSettings:
    """What evaluate_lm.py lets the user set."""

    model: list[str] | None = setting(
        None, "what is measured: folders, bundled models (mini) or Hub ids (required)", group=MODEL, metavar="MODEL"
    )

    text: list[str] | None = setting(
        None, "files to measure on, plain text or JSON lines, compressed or not; line ends become \\n, and empty lines "
        "at both ends of a document don't count", group=DATA, metavar="FILE",
    )  # fmt: skip
    corpus: str | None = setting(None, "or a folder made by build_corpus.py", group=DATA, metavar="FOLDER")
    split: str = setting("validation", "which part of the corpus", group=DATA, choices=CORPUS_SPLITS)
    document_separator: str = setting(
        "<|endoftext|>", "the line between two documents of a plain text; '' makes each file one document "
        "(default: <|endoftext|>)", group=DATA,
    )  # fmt: skip
    text_field: str = setting("text", "the field of JSON lines that holds the text", group=DATA, metavar="NAME")
    limit_documents: int | None = setting(
        None, "use only the first N documents; all that are used are held in memory", group=DATA, metavar="N",
        within=AT_LEAST_ONE,
    )  # fmt: skip

    window: int | None = setting(
        None, "tokens that are read at a time (default: each model's context)", group="measuring", within=AT_LEAST_ONE
    )
    stride: int | None = setting(
        None, "tokens from one window's beginning to the next one's in a long document: a smaller stride gives more "
        "context, and takes longer (default: half the window)", group="measuring", within=AT_LEAST_ONE,
    )  # fmt: skip
    batch_tokens: int = setting(
        8192, "tokens that are computed together", group="measuring", within=AT_LEAST_ONE, identity=False
    )
    by_document: bool = setting(
        False, "also write every document's scores, for statistics of your own", group="measuring", identity=False
    )

    use_gpu: bool = setting(False, "use the GPU (default: the CPU)", group=DEVICE, identity=False)
    precision: str = setting(
        "fp32", "auto: bf16 where the hardware does it, fp16 on older GPUs, else fp32", group=DEVICE,
        choices=("auto", "fp32", "bf16", "fp16"),
    )  # fmt: skip

    output_dir: str | None = setting(
        None, "where table, plot and numbers go (default: runs/evaluate-lm-HASH)", group=RUN, metavar="FOLDER",
        identity=False,
    )  # fmt: skip
    dry_run: bool = setting(
        False, "check everything, print what would be done, and stop; what is missing is downloaded", group=RUN,
        identity=False,
    )  # fmt: skip
    config: str | None = setting(
        None, "YAML file with defaults for any of these settings", group=RUN, metavar="FILE", identity=False
    )


# ---------------------------------------------------------------------------------------------------------------------
# Tasks by special tokens
# ---------------------------------------------------------------------------------------------------------------------

LANGUAGES = ("en", "ko")


@dataclass(frozen=True)
class TextTaskSettings(WritingSettings):
    """What the scripts of tasks that are text with task tokens let the user set."""

    model: str | None = setting(
        None,
        "a folder, a bundled model (mini, ko-mini) or a Hub id; by default gpt2, for Korean skt/kogpt2-base-v2, or "
        "mini and ko-mini where these can't be had",
        group=MODEL,
        metavar="MODEL",
        identity=False,
    )
    data_dir: str | None = setting(
        None, "folder with the published files of --dataset", group=DATA, metavar="FOLDER", identity=False
    )
    language: str | None = setting(
        None, "of the texts: the bundled sample, the default model and the measures follow it (default: the dataset's, "
        "else en)", group=DATA, choices=LANGUAGES,
    )  # fmt: skip
    dataset: str | None = setting(None, "a published dataset in --data-dir", group=DATA, metavar="NAME", identity=False)
    train_file: str | None = setting(None, "your own training file", group=DATA, metavar="FILE", identity=False)
    dev_file: str | None = setting(None, "its dev file", group=DATA, metavar="FILE", identity=False)
    test_file: str | None = setting(None, "its test file", group=DATA, metavar="FILE", identity=False)
    keep: str = setting(
        "start", "which end of a source is kept where it is longer than the model's context", group=DATA,
        choices=("start", "end"),
    )  # fmt: skip
    skip_long: bool = setting(
        False, "leave out, and count, texts whose target does not fit into the context, instead of stopping", group=DATA
    )

    loss_on: str = setting(
        "continuation", "what the model learns to write: the target and the end token, or the source too",
        group=TRAINING, choices=("continuation", "all"),
    )  # fmt: skip

    temperature: float = setting(
        0.0, "of sampling: below 1 sharper, above 1 flatter; 0 takes the likeliest token", group=DECODING,
        within=NOT_NEGATIVE,
    )  # fmt: skip
    beams: int | None = setting(
        None, "beam search with so many beams, at temperature 0 (also --num-beams)", group=DECODING, within=AT_LEAST_ONE
    )
    max_new_tokens: int = setting(64, "longest text that is written", group=DECODING, within=AT_LEAST_ONE)

    from_run: str | None = setting(
        None, "the finished run that writes where nothing is trained; by default the latest one", group=RUN,
        metavar="FOLDER", identity=False,
    )  # fmt: skip
