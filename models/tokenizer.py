"""The tokenizer that belongs to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from config import GPT2Config, UserError
from models.checkpoint import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


def load_tokenizer(folder: Path, config: GPT2Config) -> PreTrainedTokenizerFast:
    """Loads ``tokenizer.json`` (or GPT-2's ``vocab.json`` and ``merges.txt``) exactly as it is.

    No tokenizer class is guessed from the model's type: KoGPT-2 is a GPT-2 whose tokenizer is not GPT-2's. The special
    tokens are those that the config's ids stand for.

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
    for kind in ("bos", "eos", "pad"):
        token_id = getattr(config, f"{kind}_token_id")
        if token_id is None:
            continue
        token = raw.id_to_token(token_id) if 0 <= token_id < config.vocab_size else None
        if token is None:
            problems.append(
                f"{path}: has no token for config.json's {kind}_token_id {token_id}; fetch the checkpoint again"
            )
        specials[f"{kind}_token"] = token
    if raw.token_to_id("<unk>") is not None:
        specials["unk_token"] = "<unk>"
    if problems:
        raise UserError(problems)
    raw.no_truncation()
    raw.no_padding()
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
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes ``tokenizer.json`` and ``tokenizer_config.json``, which ``transformers.AutoTokenizer`` loads.

    A tokenizer without a padding token gets its end token, as the saved config does. ``tokenizer.json`` has no line
    breaks, for less than half of the bytes.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
