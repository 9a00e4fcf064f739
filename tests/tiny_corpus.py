"""A tiny corpus folder, made directly, and flags of a tiny model to train on it."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from tiny_run import FILLERS, THINGS

END = 0
N_DOCUMENTS = {"train": 160, "validation": 14}
WORD_AFTER = {word: THINGS[(3 * i + 1) % len(THINGS)] for i, word in enumerate(THINGS)}
STRANGE = ["한국어 문장 하나", "\u00e9t\u00e9 \U0001f600", "two\nlines\tand  spaces"]
# 2 blocks, 16 wide; 5 evaluations of 4 updates, 4 sequences of 16 tokens each
SHAPE = ["--layers", 2, "--heads", 2, "--dims", 16, "--context", 32, "--window", 16]
SMALL = [
    "--batch-tokens", 64, "--batch-size", 2, "--eval-every", 4, "--eval-tokens", 160, "--sample-tokens", 4,
    "--precision", "fp32", "--lr", 1e-2,
]  # fmt: skip
STEPS = 20
LENGTH = ["--max-tokens", STEPS * 64]


def make_texts(count: int, seed: int) -> list[str]:
    """Documents with much to learn: after each thing the same other thing follows."""
    draw = random.Random(seed)
    texts = []
    for number in range(count):
        thing, words = draw.choice(THINGS), []
        for _ in range(draw.randint(2, 12)):
            words += [draw.choice(FILLERS), thing]
            thing = WORD_AFTER[thing]
        texts.append(STRANGE[number % len(STRANGE)] if number % 20 == 7 else " ".join(words))
    return texts


def make_tokenizer(folder: Path, vocab_size: int = 300, seed: int = 0) -> Any:
    """A byte-level tokenizer in ``folder``, and the ``tokenizers`` object; the end token is 0."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(make_texts(200, seed), trainer)
    folder.mkdir(parents=True)
    kinds = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **kinds).save_pretrained(folder)
    return tokenizer


def make_corpus(
    folder: Path, documents: dict[str, int] | None = None, vocab_size: int = 300, seed: int = 0, shard_tokens: int = 999
) -> Path:
    """A corpus of some thousand tokens in several shards.

    Args:
        documents: how many each split has.
        seed: of the texts, and so of the vocabulary.
    """
    import numpy as np

    from corpus.shards import ShardWriter
    from storage import file_sha256

    tokenizer = make_tokenizer(folder / "tokenizer", vocab_size, seed)
    (folder / "tokens").mkdir()
    splits = {}
    for number, (split, count) in enumerate((documents or N_DOCUMENTS).items()):
        texts = make_texts(count, seed=100 * seed + number)
        writer = ShardWriter(folder / "tokens", split, "<u2", shard_tokens)
        rows = [[*tokenizer.encode(text).ids, END] for text in texts]
        lengths = np.array([len(row) for row in rows])
        utf8_bytes = np.array([len(text.encode()) for text in texts])
        writer.add(np.array([token for row in rows for token in row]), lengths, utf8_bytes, source=0)
        splits[split] = writer.close()
    manifest = {
        "schema": 1,
        "dtype": "<u2",
        "vocab_size": tokenizer.get_vocab_size(),
        "end_token_id": END,
        "splits": splits,
        "tokenizer": {"type": "byte-level-bpe", "sha256": file_sha256(folder / "tokenizer" / "tokenizer.json")},
        "sources": [{"path": "texts.txt", "weight": 1.0, "sha256": hashlib.sha256(b"").hexdigest()}],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
