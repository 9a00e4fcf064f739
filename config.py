"""What the whole project agrees on: the model's architecture, a run's settings, and how a user's mistake is reported.

Nothing here imports torch, so that every ``--help`` answers at once.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

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

        Raises:
            UserError: the configuration describes another architecture, or lacks its sizes.
        """
        model_type = raw.get("model_type")
        if model_type != "gpt2":
            raise UserError(f"{source}: model_type is {model_type!r}, not 'gpt2'; give a GPT-2 checkpoint")
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


def setting(
    default: Any,
    help: str,
    *,
    group: str,
    choices: tuple[Any, ...] | None = None,
    metavar: str | None = None,
    identity: bool = True,
) -> Any:
    """A field of a settings dataclass that is a command-line flag and a key of ``--config`` files at once.

    Args:
        default: the value where nothing else sets one; None means that the strategy or the model's card does.
        help: what ``--help`` says.
        group: the heading of ``--help`` under which it stands.
        choices: the allowed values.
        metavar: the name of the value in ``--help``.
        identity: whether it can change the results, so that runs which differ in it are different runs.
    """
    metadata = {"help": help, "group": group, "choices": choices, "metavar": metavar, "identity": identity}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


MODEL, DATA, TRAINING, DEVICE, RUN = "model and strategy", "data", "training", "device and precision", "run"


@dataclass(frozen=True)
class RunSettings:
    """What every task script lets the user set. A task adds its own fields by subclassing."""

    model: str | None = setting(
        None,
        "a folder, a bundled model (mini) or a Hub id; by default gpt2, or mini where gpt2 can't be had",
        group=MODEL,
        identity=False,  # config.json and the folder's name hold the model that was found
    )
    strategy: str | None = setting(None, "named fine-tuning strategy (--list-strategies); default full", group=MODEL)

    data_dir: str | None = setting(
        None,
        "folder with the data files; by default data/, else a download, else the bundled sample",
        group=DATA,
        identity=False,  # the files' checksums count, not where they lie
    )
    limit_train: int | None = setting(None, "use only the first N training rows", group=DATA, metavar="N")
    limit_dev: int | None = setting(None, "use only the first N dev rows", group=DATA, metavar="N")
    limit_test: int | None = setting(None, "use only the first N test rows", group=DATA, metavar="N")
    keep_case: bool = setting(False, "keep capital letters (the published runs lower-case the text)", group=DATA)
    keep: str = setting(
        "end", "which end of a text is kept where it is longer than the model's context", group=DATA,
        choices=("start", "end"),
    )  # fmt: skip
    skip_bad_rows: bool = setting(False, "leave bad rows out and list them, instead of stopping", group=DATA)
    show_examples: int = setting(
        0, "print what the model sees of the first N training examples", group=DATA, metavar="N", identity=False
    )

    epochs: int | None = setting(None, "passes over the training set", group=TRAINING, metavar="N")
    batch_size: int | None = setting(None, "examples per batch", group=TRAINING, metavar="N")
    accumulate: int = setting(1, "batches whose gradients make one update", group=TRAINING, metavar="N")
    lr: float | None = setting(None, "learning rate", group=TRAINING, metavar="RATE")
    weight_decay: float | None = setting(None, "decoupled weight decay of matrices", group=TRAINING, metavar="X")
    schedule: str | None = setting(
        None, "how the rate changes over the steps", group=TRAINING,
        choices=("constant", "linear", "cosine", "slanted-triangular"),
    )  # fmt: skip
    warmup: float | None = setting(
        None, "share of the steps over which the rate rises from 0", group=TRAINING, metavar="SHARE"
    )
    dropout: float | None = setting(None, "dropout before the head", group=TRAINING, metavar="P")
    max_grad_norm: float | None = setting(
        None, "clip the gradient's norm to this (default: no clipping)", group=TRAINING, metavar="NORM"
    )
    patience: int | None = setting(
        None, "stop after N epochs without a better dev score (default: never)", group=TRAINING, metavar="N"
    )
    seed: int = setting(11711, "seed of the data order, the dropout and the new weights", group=TRAINING)

    use_gpu: bool = setting(False, "use the GPU (default: the CPU)", group=DEVICE, identity=False)
    precision: str = setting(
        "auto", "auto: bf16 where the hardware does it, fp16 on older GPUs, else fp32", group=DEVICE,
        choices=("auto", "fp32", "bf16", "fp16"),
    )  # fmt: skip

    output_dir: str | None = setting(None, "where run folders go (default: runs)", group=RUN, identity=False)
    save_every: float = setting(
        5.0, "minutes between saved states, from which an interrupted run goes on", group=RUN, metavar="MINUTES",
        identity=False,
    )  # fmt: skip
    overwrite: bool = setting(False, "start anew where a run folder exists", group=RUN, identity=False)
    resume: str | None = setting(
        None, "go on with this run folder, with its own settings", group=RUN, metavar="FOLDER", identity=False
    )
    dry_run: bool = setting(False, "check everything, print what would be done, and stop", group=RUN, identity=False)
    config: str | None = setting(
        None, "YAML file with defaults for any of these settings", group=RUN, metavar="FILE", identity=False
    )
