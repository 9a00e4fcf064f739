"""A checkpoint with KoGPT-2's layout, for the tests of tasks with task tokens; shrunk unless told otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KOGPT2_VOCABULARY = 51_200
SPECIALS = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>", "<d>", "</d>"]
SPECIALS += [f"<unused{i}>" for i in range(100)]
TEXTS = [
    "오늘 점심은 뭘 먹을까요?",
    "따뜻한 국수가 좋겠어요.",
    "비가 오니까 우산을 챙기세요.",
    "주말에는 공원에서 책을 읽었습니다.",
]


def make_kogpt2(folder: Path, texts: Sequence[str] = TEXTS, n_merged: int = 300, **shape: Any) -> Path:
    """KoGPT-2's special ids, spare tokens, vocabulary, context and dropout; random weights.

    Args:
        texts: what the first ``n_merged`` tokens are made from.
        shape: changes to a config of 2 blocks, 16 wide.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from models.checkpoint import read_config
    from models.gpt2 import GPT2Model

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=n_merged, special_tokens=SPECIALS, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    raw = json.loads(tokenizer.to_str())
    vocabulary = raw["model"]["vocab"]
    for number in range(len(vocabulary), KOGPT2_VOCABULARY):  # words that no merge makes
        vocabulary[f"▁채움{number}"] = number
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")
    config = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new",
        "attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1, "bos_token_id": 0, "eos_token_id": 1,
        "pad_token_id": 3, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "n_ctx": 1024, "n_embd": 16,
        "n_head": 2, "n_inner": None, "n_layer": 2, "n_positions": 1024, "vocab_size": KOGPT2_VOCABULARY,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | shape))
    torch.manual_seed(0)
    GPT2Model(read_config(folder)).save_pretrained(folder)
    return folder
