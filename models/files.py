"""The files of a checkpoint in HuggingFace's layout, as JSON and tensors.

Nothing in a checkpoint is ever executed: weights are safetensors, or pickles read with ``weights_only=True``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from config import UserError
from storage import sync, temporary_name

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
PREFIX_FILE = "prefix.safetensors"  # beside the weights of a model that was tuned by a prefix


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: the file is missing, or is not a JSON object.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a checkpoint folder needs it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as JSON ({error}); fetch the checkpoint again") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: holds no JSON object; fetch the checkpoint again")
    return raw


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's tensors, all shards of it.

    Raises:
        UserError: there are none, or a shard is missing.
    """
    for name in WEIGHT_FILES:
        path = folder / name
        if not path.exists():
            continue
        if not name.endswith(".json"):
            return [path]
        shards = [folder / shard for shard in shard_names(path)]
        missing = [
            f"{shard}: this shard is missing; fetch the checkpoint again" for shard in shards if not shard.exists()
        ]
        if missing:
            raise UserError(missing)
        return shards
    raise UserError(f"{folder}: holds no weights; expected one of {', '.join(WEIGHT_FILES)}")


def shard_names(index: Path) -> list[str]:
    """The names of the files that an index of a sharded checkpoint lists.

    Raises:
        UserError: it lists none, or something else than files beside it.
    """
    weight_map = read_json(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise UserError(f"{index}: its weight_map names no files beside it; fetch the checkpoint again")
    return sorted(set(names))


def check_weights(folder: Path) -> None:
    """Looks at the beginnings of the weight files, which tell whether they are whole.

    Raises:
        UserError: one is missing or cut off, or holds something else, such as the pointer of an unfetched large file.
    """
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            next(_read_safetensors(path), None)
        elif not _is_saved_by_torch(path):
            raise UserError(f"{path}: not a whole file of weights; fetch it again, or use the safetensors file")


def _is_saved_by_torch(path: Path) -> bool:
    """Whether a file is a whole zip archive, or begins like a pickle, which is what older versions of torch wrote."""
    try:
        with open(path, "rb") as file:
            return file.read(1) == b"\x80" or is_zipfile(file)
    except OSError:
        return False


def read_tensors(folder: Path) -> Iterator[tuple[str, Tensor, Path]]:
    """Yields every tensor of a checkpoint: its name without a leading ``transformer.``, the tensor, its file."""
    for path in weight_files(folder):
        reader = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
        for name, tensor in reader(path):
            yield name.removeprefix("transformer."), tensor, path


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file by name.

    Raises:
        UserError: it is missing or damaged.
    """
    return dict(_read_safetensors(path))


def _read_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                yield name, file.get_tensor(name)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the folder that it belongs to is not whole") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); fetch it again") from None


def _read_pickle(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # of many kinds, for a damaged or hostile file; torch's own words say how to run what is in it
        raise UserError(
            f"{path}: refused: damaged, or a pickle that holds more than tensors; fetch it again, or use the "
            "safetensors file"
        ) from None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"{path}: holds something else than named tensors; use a file saved from a state_dict")
    yield from tensors.items()


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes a safetensors file under a temporary name and renames it: no reader ever sees half a file."""
    temporary = temporary_name(path)
    try:
        save_file(tensors, temporary, metadata={"format": "pt"})
        temporary.chmod(0o666 & ~_umask())  # safetensors writes for the owner alone
        sync(temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"{path}: could not be written ({error})") from error


def _umask() -> int:
    """The permissions that new files do not get; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
