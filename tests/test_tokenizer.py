"""The tokenizer of a checkpoint: GPT-2's own, a bundled one, and a Korean one that no class name announces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from config import GPT2Config, UserError
from models.checkpoint import read_config, save_sequence_classifier
from models.gpt2 import GPT2Model
from models.tokenizer import load_tokenizer, save_tokenizer

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


ORDINARY = "nding"  # a word of the tiny vocabulary, and no special token
TEXTS = ["Wow!! ... an ending, endings, endless", "a good end!!", "<|endoftext|>a good ending!<|endoftext|>"]


@pytest.fixture
def word_model(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Names of special ids -> a copy of the tiny checkpoint whose config names these tokens' ids."""

    def make(**tokens: str) -> Path:
        folder = Path(shutil.copytree(tiny_model, tmp_path / "words"))
        vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
        change_config(folder, **{name: vocabulary[token] for name, token in tokens.items()})
        return folder

    return make


def change_config(folder: Path, **changes: int | None) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | changes))


@pytest.mark.parametrize(("kind", "word"), [("pad", "!"), ("eos", ORDINARY), ("bos", "Ġgood")])
def test_a_word_that_the_config_names_stays_a_word(kind, word, word_model, tmp_path):
    """``pad_token_id: 0`` is GPT-2's "!"; default ids may mean any word of a vocabulary of one's own."""
    from transformers import AutoTokenizer

    folder = word_model(**{f"{kind}_token_id": word})
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = read_config(folder)
    tokenizer = load_tokenizer(folder, config)
    assert getattr(tokenizer, f"{kind}_token") is None
    save_tokenizer(tokenizer, tmp_path / "saved")
    again, theirs = load_tokenizer(tmp_path / "saved", config), AutoTokenizer.from_pretrained(tmp_path / "saved")
    for found in (tokenizer, again, theirs):
        for text in TEXTS:
            ids = found(text, add_special_tokens=False)["input_ids"]
            assert ids == raw.encode(text).ids
            assert found.decode(ids, skip_special_tokens=True) == text.replace("<|endoftext|>", "")


def test_a_special_token_that_only_the_tokenizers_config_names(word_model):
    folder = word_model(pad_token_id="!", eos_token_id=ORDINARY)
    names = {"pad_token": {"content": "!", "special": True}, "eos_token": None, "extra_special_tokens": []}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    tokenizer = load_tokenizer(folder, read_config(folder))
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.bos_token) == ("!", None, "<|endoftext|>")


@pytest.mark.parametrize("ids", [{"pad_token_id": "!"}, {"pad_token_id": "!", "eos_token_id": "."}], ids=str)
def test_transformers_classifies_a_saved_models_texts_that_end_in_such_a_word(ids, word_model, tmp_path):
    from transformers import AutoTokenizer, GPT2ForSequenceClassification

    gpt2 = GPT2Model.from_pretrained(folder := word_model(**ids))
    tokenizer = load_tokenizer(folder, gpt2.config)
    head = torch.nn.Linear(gpt2.config.n_embd, 2, bias=False)
    save_sequence_classifier(gpt2, head, ["bad", "good"], tmp_path / "saved")
    save_tokenizer(tokenizer, tmp_path / "saved")
    theirs = GPT2ForSequenceClassification.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    their_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    texts = ["not good!!", "It is a very good film."]
    batches = [[text] for text in texts]
    if "eos_token_id" not in ids:  # a special token is left, to pad with
        batches.append(texts)
    with torch.no_grad():
        states = [gpt2(torch.tensor([tokenizer(text)["input_ids"]]))["last_token"] for text in texts]
        expected = dict(zip(texts, head(torch.cat(states)), strict=True))
        for batch in batches:
            logits = theirs(**their_tokenizer(batch, padding=len(batch) > 1, return_tensors="pt")).logits
            torch.testing.assert_close(logits, torch.stack([expected[text] for text in batch]), atol=1e-5, rtol=0)


ADDED = {"[PAD]": 400, "<speaker1>": 401, "<speaker2>": 402}


@pytest.fixture
def slow_model(word_model: Callable[..., Path]) -> Path:
    """As transformers 4 saved a fine-tuned model's slow tokenizer: added tokens in a file of their own."""
    folder = word_model()
    raw = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(raw["model"]["vocab"]))
    (folder / "merges.txt").write_text("\n".join(" ".join(pair) for pair in raw["model"]["merges"]) + "\n")
    (folder / "added_tokens.json").write_text(json.dumps(dict(reversed(ADDED.items()))))  # in any order
    names = {"pad_token": "[PAD]", "eos_token": "<|endoftext|>", "additional_special_tokens": ["<speaker1>"]}
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"} | names))
    change_config(folder, vocab_size=403, pad_token_id=400)
    return folder


def as_decoder(folder: Path) -> None:
    """As later versions of transformers 4 wrote it."""
    tokens = {
        str(number): {"content": token, "lstrip": token == "<speaker2>", "normalized": False, "special": number != 402}
        for token, number in {"<|endoftext|>": 0, **ADDED}.items()
    }
    raw = json.loads((folder / "tokenizer_config.json").read_text())
    raw |= {"pad_token": "[PAD]", "eos_token": "<|endoftext|>", "added_tokens_decoder": tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(raw))


@pytest.mark.parametrize("decoder", [False, True], ids=["added_tokens.json", "added_tokens_decoder"])
def test_added_tokens_beside_vocab_and_merges(decoder, slow_model):
    from transformers import AutoTokenizer

    if decoder:
        as_decoder(slow_model)
    theirs = AutoTokenizer.from_pretrained(slow_model)
    ours = load_tokenizer(slow_model, read_config(slow_model))
    text = "<speaker1>good film <speaker2> not good<|endoftext|>[PAD][PAD]"
    ids = ours(text)["input_ids"]
    assert ids == theirs(text)["input_ids"]
    assert (ids[0], ids[-1], ADDED["<speaker2>"] in ids, ours.pad_token) == (401, 400, True, "[PAD]")
    assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ({"[PAD]": 400, "<speaker1>": 402}, "gives '<speaker1>' the id 402, but it would get 401"),
        ({"film": 400}, "gives 'film' the id 400, but it would get "),  # a word, which has an id
        ({"[PAD]": "x"}, "names no ids of added tokens"),
        ({"[PAD]": None}, "names no ids of added tokens"),
    ],
    ids=str,
)
def test_added_tokens_that_do_not_fit(added, message, slow_model):
    (slow_model / "added_tokens.json").write_text(json.dumps(added))
    assert refused(slow_model).startswith(f"{slow_model / 'added_tokens.json'}: {message}")


def test_damaged_files_beside_the_tokenizer(slow_model):
    (slow_model / "added_tokens.json").write_text("{")
    assert "added_tokens.json: can't be read as JSON" in refused(slow_model)
    (slow_model / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"400": "x"}}))
    assert "tokenizer_config.json: names no ids of added tokens" in refused(slow_model)


def test_no_token_is_put_in_front_of_a_text(word_model, tmp_path):
    """The scripts encode a text without what a tokenizer's template adds, so the saved one must not add it either."""
    from transformers import AutoTokenizer

    folder = word_model()
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = [raw.encode(text).ids for text in ENGLISH]
    template = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    byte_level = processors.ByteLevel(trim_offsets=True)
    for post_processor in (template, processors.Sequence([byte_level, template])):
        raw.post_processor = post_processor
        raw.save(str(folder / "tokenizer.json"))
        tokenizer = load_tokenizer(folder, read_config(folder))
        save_tokenizer(tokenizer, tmp_path / "saved")
        for found in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
            assert found(ENGLISH)["input_ids"] == expected
    raw.post_processor = byte_level  # what it says about offsets stays
    offsets = tokenizer(ENGLISH[0], return_offsets_mapping=True)["offset_mapping"]
    assert offsets == raw.encode(ENGLISH[0]).offsets


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_an_error_of_the_disk(word_model, tmp_path):
    """So that a run's folder can tell it in one line; the Rust library raises plain Exceptions."""
    folder = word_model()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "tokenizer.json").symlink_to("/dev/full")
    with pytest.raises(OSError, match="saved: the tokenizer could not be saved .*No space left"):
        save_tokenizer(load_tokenizer(folder, read_config(folder)), tmp_path / "saved")


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


def test_the_default_ids_beside_a_smaller_vocabulary(korean_folder):
    """``transformers.GPT2Config(vocab_size=8192)`` keeps bos = eos = 50256; that names no token."""
    size = read_config(korean_folder).vocab_size
    change_config(korean_folder, bos_token_id=50256, eos_token_id=50256, pad_token_id=size)
    config = read_config(korean_folder)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, None, None)
    tokenizer = load_tokenizer(korean_folder, config)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (None, None, None)


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
