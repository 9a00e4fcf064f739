"""The tokenizer that belongs to a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import GPT2Config, UserError
from models.files import read_json
from storage import write_json

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

# What names special tokens in the files beside a tokenizer.
_NAMING = (
    *(f"{kind}_token" for kind in ("bos", "eos", "unk", "pad", "sep", "cls", "mask")),
    "additional_special_tokens", "extra_special_tokens",
)  # fmt: skip


def load_tokenizer(folder: Path, config: GPT2Config) -> PreTrainedTokenizerFast:
    """Loads ``tokenizer.json`` (or GPT-2's ``vocab.json`` and ``merges.txt``) exactly as it is.

    Only a template that would put tokens around every text is left out. No tokenizer class is guessed from the model's
    type: KoGPT-2 is a GPT-2 whose tokenizer is not GPT-2's. The special tokens are those that the config's ids stand
    for. An id that stands for an ordinary word names none, or texts would be split at that word; it is in the config
    alone.

    Raises:
        UserError: there is no tokenizer, it can't be read, or its ids don't fit the model's vocabulary.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    if not path.exists():
        path = folder / "vocab.json"
    try:
        raw = Tokenizer.from_file(str(path)) if path.name == "tokenizer.json" else _byte_level_bpe(folder)
    except UserError:
        raise
    except Exception as error:  # the Rust library raises plain Exceptions
        raise UserError(f"{path}: can't be read as a tokenizer ({error}); fetch the checkpoint again") from None

    problems = []
    highest = max(raw.get_vocab().values(), default=-1)
    if highest >= config.vocab_size:
        problems.append(
            f"{path}: has token id {highest}, but the model's vocabulary ends at {config.vocab_size - 1}; "
            "this tokenizer belongs to another model"
        )
    specials = {}
    special = {token.content for token in raw.get_added_tokens_decoder().values()} | _named_special(folder)
    for kind in ("bos", "eos", "pad"):
        token_id = getattr(config, f"{kind}_token_id")
        if token_id is None:
            continue
        token = raw.id_to_token(token_id) if 0 <= token_id < config.vocab_size else None
        if token is None:
            problems.append(
                f"{path}: has no token for config.json's {kind}_token_id {token_id}; fetch the checkpoint again"
            )
        elif token in special:
            specials[f"{kind}_token"] = token
    if raw.token_to_id("<unk>") is not None and "<unk>" in special:
        specials["unk_token"] = "<unk>"
    if problems:
        raise UserError(problems)
    raw.no_truncation()
    raw.no_padding()
    raw = _without_template(raw)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, model_max_length=config.n_positions, clean_up_tokenization_spaces=False, **specials
    )


def _byte_level_bpe(folder: Path) -> Tokenizer:
    """GPT-2's own tokenizer, from the two files that it was published in."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocab.exists() and merges.exists()):
        raise UserError(f"{folder}: has no tokenizer; expected tokenizer.json, or vocab.json and merges.txt")
    read_json(vocab)
    tokenizer = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if tokenizer.token_to_id("<|endoftext|>") is not None:
        tokenizer.add_special_tokens(["<|endoftext|>"])
    path, added = _added_tokens(folder)
    for token_id, token in sorted(added.items()):
        tokenizer.add_tokens([token])
        given = tokenizer.token_to_id(token.content)
        if given != token_id:
            raise UserError(
                f"{path}: gives {token.content!r} the id {token_id}, but it would get {given}; fetch the checkpoint "
                "again"
            )
    return tokenizer


def _added_tokens(folder: Path) -> tuple[Path, dict[int, AddedToken]]:
    """The tokens that a slow tokenizer of ``transformers`` was given later, by id, and the file that names them."""
    from tokenizers import AddedToken

    path = folder / "tokenizer_config.json"
    decoder = _read_if_there(path).get("added_tokens_decoder")
    try:
        if decoder is not None:
            return path, {int(token_id): AddedToken(**token) for token_id, token in decoder.items()}
        path, special = folder / "added_tokens.json", _named_special(folder)
        tokens = {int(token_id): token for token, token_id in _read_if_there(path).items()}
        return path, {token_id: AddedToken(token, special=token in special) for token_id, token in tokens.items()}
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path}: names no ids of added tokens; fetch the checkpoint again") from None


def _named_special(folder: Path) -> set[str]:
    """The tokens that the files beside a tokenizer name as special."""
    found = set()
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        raw = _read_if_there(folder / file)
        for value in map(raw.get, _NAMING):
            for token in value if isinstance(value, list) else [value]:
                content = token.get("content") if isinstance(token, dict) else token
                if isinstance(content, str):
                    found.add(content)
    return found


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _without_template(raw: Tokenizer) -> Tokenizer:
    """The same tokenizer, which adds no token to a text.

    The scripts put the end token in front of a text where the model was trained so; a saved model must read a text as
    they do.
    """
    if not raw.num_special_tokens_to_add(is_pair=False):
        return raw
    from tokenizers import Tokenizer

    state = json.loads(raw.to_str())
    processor = state["post_processor"]
    parts = processor["processors"] if processor["type"] == "Sequence" else [processor]
    state["post_processor"] = next((part for part in parts if part["type"] == "ByteLevel"), None)  # of offsets alone
    return Tokenizer.from_str(json.dumps(state))


def readable_tokens(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[str]:
    """A vocabulary's own spelling of tokens, but letters where a byte-level one writes a character as several others.

    A token that is no whole character stays as it is, and so do the marks of a space (Ġ) and a line break (Ċ).
    """
    from tokenizers.pre_tokenizers import ByteLevel

    bytes_ = set(ByteLevel.alphabet())
    spelled: list[str] = []
    for token, id_ in zip(tokenizer.convert_ids_to_tokens(list(ids)), ids, strict=True):
        text = token
        if not token.isascii() and bytes_.issuperset(token):
            text = str(tokenizer.decode([id_], clean_up_tokenization_spaces=False)).replace(" ", "Ġ").replace("\n", "Ċ")
        spelled.append(token if "\ufffd" in text else text)
    return spelled


def unknown_token_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The token that stands for what a vocabulary can't write; a byte-level one has none."""
    model = tokenizer.backend_tokenizer.model
    token = getattr(model, "unk_token", None)
    return getattr(model, "unk_id", None) if token is None else tokenizer.backend_tokenizer.token_to_id(token)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes ``tokenizer.json`` and ``tokenizer_config.json``, which ``transformers.AutoTokenizer`` loads.

    A tokenizer without a padding token gets its end token, as the saved config does. Where ``config.json`` is there
    already and names another token for padding, it gets the tokenizer's: ``transformers`` classifies from the last
    token that is not padding, so it would pass over an ordinary word that pads. ``tokenizer.json`` has no line breaks,
    for less than half of the bytes.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    config = _read_if_there(folder / "config.json")
    if config.get("pad_token_id") not in (None, tokenizer.pad_token_id):
        write_json(folder / "config.json", config | {"pad_token_id": tokenizer.pad_token_id})
    with saving_tokenizer(folder):
        tokenizer.save_pretrained(folder)
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


@contextmanager
def saving_tokenizer(folder: Path) -> Iterator[None]:
    """Within it a tokenizer is saved; what can't be written is an OSError, as for any other file."""
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:  # the Rust library raises plain ones
            raise
        raise OSError(f"{folder}: the tokenizer could not be saved ({error})") from None
