"""Giving a checkpoint another vocabulary, so that it can be trained on in another language or domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from config import GPT2Config
from models.gpt2 import GPT2Model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def change_vocabulary(
    gpt2: GPT2Model, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast, config: GPT2Config
) -> GPT2Model:
    """The same blocks under new token embeddings, by fast vocabulary transfer (Gee et al. 2022, section 3).

    A new token gets the mean of the embeddings of the old tokens that spell it, so one that both vocabularies have
    keeps its own; a token without text gets the mean of all, but the end token follows the end token.

    Args:
        gpt2: the checkpoint's model.
        old, new: the tokenizers.
        config: the new model's configuration; only the vocabulary and the dropouts may differ.
    """
    changed = GPT2Model.empty(config)
    changed.load_state_dict(
        {name: tensor for name, tensor in gpt2.state_dict().items() if name != "wte.weight"}, strict=False
    )
    embeddings = gpt2.wte.weight.detach()
    with torch.no_grad():
        if old.backend_tokenizer.to_str() == new.backend_tokenizer.to_str():
            changed.wte.weight.copy_(embeddings[: config.vocab_size])
            return changed
        changed.wte.weight.copy_(embeddings.mean(dim=0).expand_as(changed.wte.weight))
        special, old_ids = set(new.all_special_ids), old.get_vocab()
        for token_id in range(min(config.vocab_size, len(new))):
            if token_id in special:
                continue
            text = token_text(new, token_id)
            if text:
                spelling = old.encode(text, add_special_tokens=False)
            else:  # bytes that are no whole characters: only the same token will do
                same = old_ids.get(str(new.convert_ids_to_tokens(token_id)))
                spelling = [] if same is None or token_text(old, same) else [same]
            if spelling:
                changed.wte.weight[token_id] = embeddings[spelling].mean(dim=0)
        if gpt2.config.eos_token_id is not None and config.eos_token_id is not None:
            changed.wte.weight[config.eos_token_id] = embeddings[gpt2.config.eos_token_id]
    return changed


def grow_vocabulary(gpt2: GPT2Model, config: GPT2Config) -> GPT2Model:
    """The same model with room for more tokens; the new rows start at the mean of the old ones.

    Args:
        gpt2: the model, which has no adapters.
        config: the new model's configuration; only the vocabulary, which is larger, and the end token may differ.
    """
    grown = GPT2Model.empty(config)
    others = {name: tensor for name, tensor in gpt2.state_dict().items() if name != "wte.weight"}
    grown.load_state_dict(others, strict=False)
    old = gpt2.wte.weight.detach()
    with torch.no_grad():
        grown.wte.weight[: len(old)] = old
        grown.wte.weight[len(old) :] = old.mean(dim=0)
    return grown.train(gpt2.training)


def token_text(tokenizer: PreTrainedTokenizerFast, token_id: int) -> str:
    """What a token spells, with its leading space; empty where its bytes are no whole characters."""
    anchor = tokenizer.encode("a", add_special_tokens=False)  # a decoder may drop a space at the very beginning
    text = str(tokenizer.decode([*anchor, token_id])).removeprefix(str(tokenizer.decode(anchor)))
    return "" if "\ufffd" in text else text
