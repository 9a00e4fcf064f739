"""A model under another vocabulary: what both know stays, what is new begins as what it is made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_corpus import make_tokenizer

from config import GPT2Config
from models.gpt2 import GPT2Model
from models.tokenizer import load_tokenizer, save_tokenizer
from models.vocabulary import change_vocabulary

pytestmark = pytest.mark.usefixtures("one_thread")

OLD = GPT2Config(vocab_size=300, n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
NEW = dataclasses.replace(OLD, vocab_size=330, embd_pdrop=0.0)


@pytest.fixture
def gpt2() -> GPT2Model:
    torch.manual_seed(0)
    return GPT2Model(OLD)


@pytest.fixture
def old(tmp_path: Path) -> Any:
    make_tokenizer(tmp_path / "old", 300)
    return load_tokenizer(tmp_path / "old", OLD)


@pytest.fixture
def new(tmp_path: Path) -> Any:
    """Other texts, so other merges, and more of them."""
    make_tokenizer(tmp_path / "new", 330, seed=3)
    return load_tokenizer(tmp_path / "new", NEW)


def test_tokens_of_the_same_spelling_keep_their_embedding(gpt2: GPT2Model, old: Any, new: Any) -> None:
    """Single bytes among them, also those that are no character by themselves."""
    changed = change_vocabulary(gpt2, old, new, NEW)
    assert changed.wte.weight.shape == (330, 8)
    both = old.get_vocab().keys() & new.get_vocab().keys()
    assert len(both) > 270 and "Ġactor" in both and "Ã" in both
    for token in both:
        kept = changed.wte.weight[new.get_vocab()[token]]
        torch.testing.assert_close(kept, gpt2.wte.weight[old.get_vocab()[token]], rtol=0, atol=0, msg=token)


def test_other_tokens_are_the_mean_of_their_pieces(gpt2: GPT2Model, old: Any, new: Any) -> None:
    changed = change_vocabulary(gpt2, old, new, NEW)
    others = new.get_vocab().keys() - old.get_vocab().keys()
    assert len(others) > 10
    for token in others:
        text = token.replace("Ġ", " ")  # these are plain words, with their leading space
        pieces = old.encode(text, add_special_tokens=False)
        assert len(pieces) > 1
        embedding = changed.wte.weight[new.get_vocab()[token]]
        torch.testing.assert_close(embedding, gpt2.wte.weight[pieces].mean(dim=0), msg=token)


def test_everything_else_is_the_checkpoints(gpt2: GPT2Model, old: Any, new: Any) -> None:
    changed = change_vocabulary(gpt2, old, new, NEW)
    assert changed.config == NEW
    before, after = gpt2.state_dict(), changed.state_dict()
    assert before.keys() == after.keys()
    assert [name for name in before if name != "wte.weight" and not torch.equal(before[name], after[name])] == []
    assert all(parameter.isfinite().all() and parameter.requires_grad for parameter in changed.parameters())


def test_the_end_token_follows_the_end_token(tmp_path: Path, gpt2: GPT2Model, old: Any) -> None:
    """Whatever it is called; tokens without text get the mean of all."""
    tokenizer = make_tokenizer(tmp_path / "renamed", 300, seed=3)
    raw = tokenizer.to_str().replace("<|endoftext|>", "</s>")
    (tmp_path / "renamed" / "tokenizer.json").write_text(raw)
    config = dataclasses.replace(OLD, vocab_size=304)
    new = load_tokenizer(tmp_path / "renamed", config)
    new.add_special_tokens({"additional_special_tokens": ["<pad>", "<question>"]})
    changed = change_vocabulary(gpt2, old, new, config)
    assert torch.equal(changed.wte.weight[0], gpt2.wte.weight[0])
    for token_id in (*new.convert_tokens_to_ids(["<pad>", "<question>"]), 302, 303):  # the last two are no tokens
        torch.testing.assert_close(changed.wte.weight[token_id], gpt2.wte.weight.mean(dim=0))


def test_the_same_vocabulary_changes_nothing(tmp_path: Path, gpt2: GPT2Model, old: Any) -> None:
    """Nor does a copy as a finished run saves it."""
    save_tokenizer(load_tokenizer(tmp_path / "old", OLD), tmp_path / "saved")
    assert "\n" not in (tmp_path / "saved" / "tokenizer.json").read_text(encoding="utf-8")
    for tokenizer in (load_tokenizer(tmp_path / "old", OLD), load_tokenizer(tmp_path / "saved", OLD)):
        for pair in ((old, tokenizer), (tokenizer, old)):
            assert torch.equal(change_vocabulary(gpt2, *pair, OLD).wte.weight, gpt2.wte.weight)


def metaspace_tokenizer(folder: Path) -> Any:
    """SentencePiece's kind of BPE: a leading ▁ for a space, bytes for what it has no token for."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = ["<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "c", "t", "o", "r"]
    merges = [("a", "c"), ("ac", "t"), ("act", "o"), ("acto", "r"), ("▁", "actor")]
    pieces += ["".join(pair) for pair in merges]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def test_to_a_vocabulary_of_sentencepieces_kind(tmp_path: Path, gpt2: GPT2Model, old: Any) -> None:
    size = metaspace_tokenizer(tmp_path / "pieces").get_vocab_size()
    config = dataclasses.replace(OLD, vocab_size=size, bos_token_id=0, eos_token_id=1)
    new = load_tokenizer(tmp_path / "pieces", config)
    changed = change_vocabulary(gpt2, old, new, config)
    ours, theirs = new.get_vocab(), old.get_vocab()
    for token, same in (("▁actor", "Ġactor"), ("▁", "Ġ"), ("a", "a"), ("<0x41>", "A"), ("</s>", "<|endoftext|>")):
        assert torch.equal(changed.wte.weight[ours[token]], gpt2.wte.weight[theirs[same]]), token
    pieces = [theirs[piece] for piece in old.tokenize("act")]
    torch.testing.assert_close(changed.wte.weight[ours["act"]], gpt2.wte.weight[pieces].mean(dim=0))
    assert changed.wte.weight.isfinite().all()
