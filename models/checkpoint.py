"""Loading and saving GPT-2s as checkpoints in HuggingFace's layout: a ``config.json`` and tensors.

HuggingFace stores the four maps of a block as (in, out) ("Conv1D"); here they are ``nn.Linear``, (out, in). So loading
transposes four matrices per block, and saving transposes them back.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from config import GPT2Config, UserError
from models.files import PREFIX_FILE, read_json, read_safetensors, read_tensors, write_tensors
from modules.lora import LoRALinear
from modules.prefix import FixedPrefix, Prefix
from storage import write_json

if TYPE_CHECKING:
    from models.gpt2 import GPT2Model

_TRANSPOSED = re.compile(r"^h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight$")
# Buffers that older versions of transformers stored beside the weights (the causal mask and its fill value), and the
# heads of its other GPT-2 classes, which nothing here uses.
_IGNORED = re.compile(r"^(h\.\d+\.attn\.(bias|masked_bias)|(multiple_choice_head|classifier|qa_outputs)\..+)$")
_HEADS = ("lm_head.weight", "score.weight")
# What torch.compile and DistributedDataParallel put before the names of a model that they wrap.
_WRAPPERS = re.compile(r"^(?:(?:_orig_mod|module|transformer)\.)+")
_LISTED = 10  # tensors of one kind of problem
# Parameters of a model that are no part of a GPT-2.
_ADDED = re.compile(r"^prefix\.|\.lora_[AB]\.")


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def read_config(folder: Path) -> GPT2Config:
    """The architecture of the checkpoint in a folder.

    A special token's id outside the vocabulary names no token: ``transformers`` writes GPT-2's, 50256, beside any, and
    others write -1 for none.
    """
    path = folder / "config.json"
    config = GPT2Config.from_dict(read_json(path), source=path)
    ids = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    outside: dict[str, Any] = {
        name: None for name, token_id in ids.items() if not 0 <= (token_id or 0) < config.vocab_size
    }
    return replace(config, **outside)


def load_into(gpt2: GPT2Model, folder: Path) -> dict[str, Tensor]:
    """Copies a checkpoint's tensors into a model, as fp32.

    Returns:
        The checkpoint's heads, if it has any: ``score.weight`` of a classifier.

    Raises:
        UserError: naming each tensor that is missing, unknown, of the wrong shape, or not finite.
    """
    own = _own_parameters(gpt2)
    heads: dict[str, Tensor] = {}
    problems: list[str] = []
    unknown: list[str] = []
    seen: set[str] = set()
    for name, tensor, path in read_tensors(folder):
        name = _WRAPPERS.sub("", name)
        if _IGNORED.match(name):
            continue
        if name not in own and name not in _HEADS:
            unknown.append(f"{path}: unknown tensor {name!r}; this is not a plain GPT-2 checkpoint")
            continue
        if name in seen:
            problems.append(f"{path}: tensor {name!r} occurs twice in this checkpoint; fetch it again")
            continue
        seen.add(name)
        tensor = tensor.float()
        if not torch.isfinite(tensor).all():
            problems.append(f"{path}: tensor {name!r} holds NaN or infinite values; fetch the checkpoint again")
            continue
        if name in _HEADS:
            heads[name] = tensor
            continue
        if tensor.shape != _stored_shape(name, own[name].shape):
            problems.append(
                f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}, but config.json asks for "
                f"{_stored_shape(name, own[name].shape)}"
            )
            continue
        with torch.no_grad():
            own[name].copy_(tensor.t() if _TRANSPOSED.match(name) else tensor)

    lm_head = heads.pop("lm_head.weight", None)
    if lm_head is not None and "wte.weight" not in seen and lm_head.shape == own["wte.weight"].shape:
        # One tensor with two names: safetensors' save_model keeps the first of them.
        seen.add("wte.weight")
        with torch.no_grad():
            own["wte.weight"].copy_(lm_head)
    problems += _first_few(unknown, folder, "unknown")
    missing = [f"{folder}: tensor {name!r} is missing; fetch the checkpoint again" for name in own if name not in seen]
    problems += _first_few(missing, folder, "missing")
    if lm_head is not None and not problems and not torch.equal(lm_head, own["wte.weight"]):
        problems.append(f"{folder}: tensor 'lm_head.weight' is not tied to 'wte.weight'; GPT-2's output is")
    score = heads.get("score.weight")
    if score is not None and (score.dim() != 2 or score.shape[1] != gpt2.config.n_embd):
        shape = f"(number of labels, {gpt2.config.n_embd})"
        problems.append(f"{folder}: tensor 'score.weight' has shape {tuple(score.shape)}, not {shape}")
    if problems:
        raise UserError(problems)
    return heads


def _own_parameters(gpt2: GPT2Model) -> dict[str, nn.Parameter]:
    """GPT-2's parameters by name, without those of adapters and prefix."""
    return {name: parameter for name, parameter in gpt2.named_parameters() if not _ADDED.search(name)}


def load_prefix(path: Path, config: GPT2Config | None = None) -> FixedPrefix:
    """Reads what :func:`save_prefix` wrote.

    Args:
        config: of the model that the prefix is for; None leaves it unchecked.

    Raises:
        UserError: the file is missing or damaged, holds something else, or the prefix of a model of another shape.
    """
    tensors = {name: tensor.float() for name, tensor in read_safetensors(path).items()}
    shapes = {tuple(tensor.shape) for tensor in tensors.values()}
    if tensors.keys() != {"keys", "values"} or len(shapes) != 1 or {len(shape) for shape in shapes} != {4}:
        raise UserError(f"{path}: holds no prefix (tensors 'keys' and 'values'); give a file from prefix-tuning")
    problems = [
        f"{path}: tensor {name!r} holds NaN or infinite values; train the prefix again"
        for name, tensor in tensors.items()
        if not torch.isfinite(tensor).all()
    ]
    n_layer, n_head, length, head_dim = shapes.pop()
    if config is not None and (n_layer, n_head, head_dim) != (config.n_layer, config.n_head, config.head_dim):
        problems.append(
            f"{path}: is a prefix for {n_layer} blocks with {n_head} heads of {head_dim}, but the model has "
            f"{config.n_layer} with {config.n_head} of {config.head_dim}; give the model that it was trained with"
        )
    elif config is not None and length >= config.n_positions:
        problems.append(
            f"{path}: is a prefix of {length} positions, but the model has {config.n_positions}; give the model that "
            "it was trained with"
        )
    if problems:
        raise UserError(problems)
    return FixedPrefix(tensors["keys"], tensors["values"])


def _first_few(problems: list[str], folder: Path, what: str) -> list[str]:
    """As many of one kind as a screen holds, and how many more there are."""
    left_out = len(problems) - _LISTED
    return problems[:_LISTED] + ([f"{folder}: {left_out} more tensors are {what}"] if left_out > 0 else [])


def _stored_shape(name: str, shape: torch.Size) -> tuple[int, ...]:
    """A parameter's shape as the file has it."""
    return tuple(reversed(shape)) if _TRANSPOSED.match(name) else tuple(shape)


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def save_language_model(
    gpt2: GPT2Model, folder: Path, dtype: torch.dtype = torch.float32, extra: dict[str, Any] | None = None
) -> None:
    """Writes what ``transformers.GPT2LMHeadModel`` loads, with the same logits: adapters are merged into the weights.

    A prefix, which that class can't hold, is written beside it, as :data:`PREFIX_FILE`.

    Args:
        dtype: of the weights in the file.
        extra: further entries of ``config.json``, which that class keeps and does not use.
    """
    tensors = {name: tensor.to(dtype) for name, tensor in _export(gpt2).items()}
    about = {"architectures": ["GPT2LMHeadModel"], "dtype": str(dtype).removeprefix("torch.")}
    if gpt2.prefix is not None:
        save_prefix(gpt2.prefix, folder / PREFIX_FILE)
    _save(folder, tensors, gpt2.config.to_dict() | about | (extra or {}))


def save_sequence_classifier(gpt2: GPT2Model, head: nn.Linear, label_names: list[str], folder: Path) -> None:
    """Writes what ``transformers.GPT2ForSequenceClassification`` loads, with the same logits.

    That class finds the last real token by comparing ids with ``pad_token_id``, so the config must name one; a
    checkpoint without one gets its end token.
    """
    config = gpt2.config
    pad_token_id = config.pad_token_id if config.pad_token_id is not None else config.eos_token_id
    raw = config.to_dict() | {
        "architectures": ["GPT2ForSequenceClassification"],
        "pad_token_id": pad_token_id,
        "id2label": {str(i): name for i, name in enumerate(label_names)},
        "label2id": {name: i for i, name in enumerate(label_names)},
    }
    _save(folder, _export(gpt2) | {"score.weight": head.weight.detach().cpu().contiguous()}, raw)


def save_prefix(prefix: Prefix | FixedPrefix, path: Path) -> None:
    """Writes what a prefix has become: ``keys`` and ``values``, each (n_layer, n_head, length, head_dim)."""
    fixed = prefix.drop_mlp() if isinstance(prefix, Prefix) else prefix
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {"keys": fixed.keys.cpu().contiguous(), "values": fixed.values.cpu().contiguous()})


def _export(gpt2: GPT2Model) -> dict[str, Tensor]:
    """The tensors of a plain GPT-2, adapters merged into its weights; the model itself stays as it is."""
    adapted = {f"{name}.weight": module for name, module in gpt2.named_modules() if isinstance(module, LoRALinear)}
    tensors = {}
    for name, parameter in _own_parameters(gpt2).items():
        tensor = (adapted[name].merged_weight() if name in adapted else parameter.detach()).cpu()
        tensors[f"transformer.{name}"] = (tensor.t() if _TRANSPOSED.match(name) else tensor).contiguous()
    return tensors


def _save(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", tensors)
    write_json(folder / "config.json", config)
