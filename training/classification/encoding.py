"""Texts and pairs as the tokens that a model reads, GPT-2 or a comparator."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from config import ClassificationSettings, GPT2Config, UserError
from datasets import Example, tokenize
from models.comparator import ComparatorConfig, ComparatorTokenizer
from models.tokenizer import load_tokenizer
from pairs import tokenize_pairs
from training.classification.job import EncodedSplit


def answer_tokens(answers: Sequence[str], tokenizer: Any) -> list[int]:
    """The token of each answer.

    Raises:
        UserError: the vocabulary has no single token for one.
    """
    ids = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    missing = [repr(answer) for answer, tokens in zip(answers, ids, strict=True) if len(tokens) != 1]
    if missing:
        raise UserError(
            f"--strategy cloze: this model's vocabulary has no single token for {' and '.join(missing)}; "
            "choose another strategy or model"
        )
    return [tokens[0] for tokens in ids]


def encode_examples(
    examples: Sequence[Example],
    tokenizer: Any,
    context: int,
    settings: ClassificationSettings,
    symmetric: bool = False,
    path: str = "",
) -> tuple[EncodedSplit, int]:
    """The examples with their tokens, and how many were cut.

    Args:
        symmetric: pairs also in the other order.
        path: the file that they are from, for messages.

    Raises:
        UserError: an example gives no tokens.
    """
    if symmetric:
        split, n_cut = encode_examples(examples, tokenizer, context, settings, path=path)
        split.swapped, _ = encode_examples([swap(example) for example in examples], tokenizer, context, settings)
        return split, n_cut
    if isinstance(tokenizer, ComparatorTokenizer):
        seconds = None if examples[0].second is None else [example.second or "" for example in examples]
        encoded = tokenizer.encode([example.text for example in examples], seconds, settings.keep)
        return EncodedSplit(examples, encoded.ids, batch=partial(tokenizer.batch, encoded)), encoded.n_cut
    if examples[0].second is None:
        places = [f"{path}:{example.line}" if path else f"text {i}" for i, example in enumerate(examples, start=1)]
        tokenized = tokenize([example.text for example in examples], tokenizer, context, settings.keep, places)
    else:
        pairs = [(example.text, example.second or "") for example in examples]
        tokenized = tokenize_pairs(pairs, tokenizer, context)
    return EncodedSplit(examples, tokenized.ids), tokenized.n_cut


def cut_note(split: EncodedSplit, n_cut: int, context: int, settings: ClassificationSettings) -> str:
    """How many texts were cut to the model's context, and which part of them stays."""
    kept = f"their {settings.keep} kept" if split.examples[0].second is None else "both texts keep their share"
    return f"texts longer than the model's {context} tokens: {n_cut}; cut, {kept}"


def swap(pair: Example) -> Example:
    """The same pair in the other order."""
    return dataclasses.replace(pair, text=pair.second or "", second=pair.text)


def tokenizer_of(folder: Path, config: GPT2Config | ComparatorConfig) -> Any:
    """The tokenizer of a checkpoint, in the form that its model's texts are encoded with."""
    return load_tokenizer(folder, config) if isinstance(config, GPT2Config) else ComparatorTokenizer(folder, config)
