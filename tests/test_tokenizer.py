"""The tokenizer of a checkpoint: GPT-2's own, a bundled one, and a Korean one that no class name announces."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from config import GPT2Config, UserError
from models.checkpoint import read_config
from models.tokenizer import load_tokenizer

ENGLISH = [
    "A film that's neither good nor bad.",
    "  two  spaces, a tab\tand a\nnewline ",
    "naïve café — “quotes” … 한국어 🙂",
    "It's 3.14 o'clock; don't can't we'll",
    "<|endoftext|> in the middle <|endoftext|>",
    "",
]
KOREAN = [
    "이 영화는 정말 재미있었습니다.",
    "배우들의 연기가 훌륭하고 이야기도 좋았다.",
    "처음부터 끝까지 지루해서 시간이 아까웠다.",
    "음악은 좋았지만 이야기가 조금 아쉬웠습니다.",
]
KOREAN_SPECIALS = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>", "<d>", "</d>"]
KOREAN_IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 3}


@pytest.mark.parametrize("name", ["gpt2", "mini-gpt2"])
def test_published_tokenizers_are_used_as_they_are(name, shared):
    folder = shared / name
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = read_config(folder)
    tokenizer = load_tokenizer(folder, config)
    for text in ENGLISH:
        assert tokenizer(text)["input_ids"] == raw.encode(text).ids
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == config.vocab_size
    assert tokenizer.eos_token == tokenizer.bos_token == "<|endoftext|>"
    assert tokenizer.eos_token_id == config.eos_token_id
    assert tokenizer.pad_token is None
    assert tokenizer.model_max_length == config.n_positions


def test_vocab_and_merges_give_the_same_tokenizer(shared, tmp_path):
    for name in ("config.json", "vocab.json", "merges.txt"):
        shutil.copy(shared / "gpt2" / name, tmp_path)
    config = read_config(tmp_path)
    whole, parts = load_tokenizer(shared / "gpt2", config), load_tokenizer(tmp_path, config)
    for text in ENGLISH:
        assert parts(text)["input_ids"] == whole(text)["input_ids"]
        assert parts.decode(parts(text)["input_ids"]) == text
    assert parts.eos_token_id == 50256
    assert parts("a<|endoftext|>b", add_special_tokens=False)["input_ids"] == [64, 50256, 65]


@pytest.fixture
def korean_folder(tmp_path: Path) -> Path:
    """Like KoGPT-2's on the Hub: a Metaspace BPE in tokenizer.json, and nothing that says what class it is."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special_tokens = KOREAN_SPECIALS + [f"<unused{i}>" for i in range(20)]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special_tokens, show_progress=False)
    tokenizer.train_from_iterator(KOREAN, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    raw = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_ctx": 64, "n_positions": 64, "n_embd": 8}
    raw |= {"n_layer": 1, "n_head": 2, "vocab_size": tokenizer.get_vocab_size(), **KOREAN_IDS}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    return tmp_path


def test_a_korean_tokenizer_without_a_class(korean_folder):
    config = read_config(korean_folder)
    raw = Tokenizer.from_file(str(korean_folder / "tokenizer.json"))
    tokenizer = load_tokenizer(korean_folder, config)
    for text in KOREAN:
        ids = tokenizer(text)["input_ids"]
        assert ids == raw.encode(text).ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 3)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")
    assert tokenizer.unk_token_id == KOREAN_SPECIALS.index("<unk>")
    assert len(tokenizer) == config.vocab_size  # nothing was added


def test_special_tokens_in_korean_text(korean_folder):
    tokenizer = load_tokenizer(korean_folder, read_config(korean_folder))
    ids = tokenizer("<usr>" + KOREAN[0] + "</s>")["input_ids"]
    assert (ids[0], ids[-1]) == (KOREAN_SPECIALS.index("<usr>"), 1)
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == KOREAN[0]
    batch = tokenizer(KOREAN[:2], padding=True)
    assert {len(row) for row in batch["input_ids"]} == {max(map(sum, batch["attention_mask"]))}


def test_a_saved_tokenizer_loads_again(korean_folder, tmp_path):
    from transformers import AutoTokenizer

    config = read_config(korean_folder)
    saved = tmp_path / "saved"
    load_tokenizer(korean_folder, config).save_pretrained(saved)
    shutil.copy(korean_folder / "config.json", saved)
    expected = load_tokenizer(korean_folder, config)(KOREAN)["input_ids"]
    assert load_tokenizer(saved, config)(KOREAN)["input_ids"] == expected
    theirs = AutoTokenizer.from_pretrained(saved)
    assert theirs(KOREAN)["input_ids"] == expected
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 1, 3)


def test_stored_truncation_and_padding_do_not_apply(korean_folder):
    raw = Tokenizer.from_file(str(korean_folder / "tokenizer.json"))
    expected = raw.encode(KOREAN[1]).ids
    raw.enable_truncation(3)
    raw.enable_padding(length=50)
    raw.save(str(korean_folder / "tokenizer.json"))
    tokenizer = load_tokenizer(korean_folder, read_config(korean_folder))
    assert tokenizer(KOREAN[1])["input_ids"] == expected
    assert tokenizer.pad_token == "<pad>"


def refused(folder: Path, **changes: int | None) -> str:
    config = GPT2Config.from_dict(json.loads((folder / "config.json").read_text()) | changes)
    with pytest.raises(UserError) as caught:
        load_tokenizer(folder, config)
    return str(caught.value)


def test_ids_beyond_the_vocabulary(korean_folder):
    highest = read_config(korean_folder).vocab_size - 1
    message = refused(korean_folder, vocab_size=100)
    assert message.startswith(f"{korean_folder / 'tokenizer.json'}: has token id {highest}, ")
    assert "the model's vocabulary ends at 99" in message


@pytest.mark.parametrize("token_id", [5000, -1])
@pytest.mark.parametrize("kind", ["bos", "eos", "pad"])
def test_special_ids_beyond_the_vocabulary(kind, token_id, korean_folder):
    message = refused(korean_folder, **{f"{kind}_token_id": token_id})
    assert message.endswith(f"has no token for config.json's {kind}_token_id {token_id}; fetch the checkpoint again")


def test_every_problem_at_once(korean_folder):
    assert len(refused(korean_folder, vocab_size=100, bos_token_id=101, pad_token_id=102).splitlines()) == 3


def test_no_tokenizer(korean_folder):
    (korean_folder / "tokenizer.json").unlink()
    expected = "has no tokenizer; expected tokenizer.json, or vocab.json and merges.txt"
    assert refused(korean_folder) == f"{korean_folder}: {expected}"
    (korean_folder / "vocab.json").write_text("{}")
    assert refused(korean_folder) == f"{korean_folder}: {expected}"


@pytest.mark.parametrize("content", ["", "{", "{}", '{"version": "1.0", "model": 3}'])
def test_a_damaged_tokenizer(content, korean_folder):
    path = korean_folder / "tokenizer.json"
    path.write_text(content)
    assert refused(korean_folder).startswith(f"{path}: can't be read as a tokenizer")


@pytest.mark.parametrize(("vocab", "merges"), [("{", ""), ('{"a": 0}', "a b\n"), ('{"a": "b"}', "")])
def test_damaged_vocab_and_merges(vocab, merges, korean_folder):
    (korean_folder / "tokenizer.json").unlink()
    (korean_folder / "vocab.json").write_text(vocab)
    (korean_folder / "merges.txt").write_text(merges)
    assert refused(korean_folder).startswith(f"{korean_folder / 'vocab.json'}: ")
