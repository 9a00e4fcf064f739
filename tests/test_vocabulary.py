"""Vocabularies: every text survives, no text forges a special token, and transformers reads what is saved."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from config import UserError
from corpus import vocabulary
from corpus.vocabulary import BPE, BYTE_LEVEL_BPE, BYTE_TOKENS, PIECE_SPECIALS, UNIGRAM, VOCAB_TYPES, Vocabulary

SIZE = 600
TASK_TOKENS = ["<summarize>", "<question>"]
NASTY = [
    "", " ", "  ", "   a", "a   ", "\n", "\n\n\n", "\r\n", "\r", "\t\t", " \n \n", "a  b   c\t\t\n\n d", "\xa0",
    "\u2028", "\x85",
    "▁", "▁▁ ▁a", "a▁b", " ▁", "▁ ", "Ġthe", "Ċ",
    "<s>", "</s>", "<pad><unk>", "<s>x</s> </s>", "<|endoftext|>", "a<|endoftext|>b", "<summarize> this", "<question>",
    "<0x41>", "<0xE2><0x96><0x81>", "<0x4", "0x41", "[PAD]", "##s",
    "한국어 텍스트.  다", "文學", "ཨོཾ་", "אָלֶף", "नमस्ते", "😀👨‍👩‍👧‍👦🇻🇳",
    "e\u0301é", "Ａﬁ½", "\u200b\u200d", "\ufeff", "\ufffd",
    "\0", "a\0b", "\x01\x7f", "\U0010ffff", "\ue000", "x" * 3000, "한" * 500, "<" * 300 + "s" + ">" * 300,
]  # fmt: skip


def make_texts(count: int = 300, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    syllables = [a + b for a in "bcdfghjklmnprstvwyz" for b in ("a", "e", "i", "o", "u", "an", "er", "ing")]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(1500)]
    words += ["영화는", "영화"] * 20 + ["정말", "<s>", "</s>", "<0x41>", "▁", "12", "1999", "don't"]
    return [
        " ".join(draw.choices(words, k=40)) + ".\n" + " ".join(draw.choices(words, k=20)) + "!" for _ in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Vocabulary]:
    made = {}
    for kind in VOCAB_TYPES:
        folder = tmp_path_factory.mktemp("tokenizers") / kind
        tokenizer = vocabulary.train(make_texts(), kind, SIZE, TASK_TOKENS)
        vocabulary.save(tokenizer, vocabulary.end_token(kind), folder)
        made[kind] = vocabulary.load(folder)
    return made


def random_texts(count: int) -> list[str]:
    """Texts of pieces that are likely to be mistaken for each other."""
    draw = random.Random(3)
    pieces = [text for text in NASTY if len(text) < 30] + list(" \n<>/▁s0x41한.")
    return ["".join(draw.choices(pieces, k=draw.randint(1, 12))) for _ in range(count)]


@pytest.mark.parametrize("kind", VOCAB_TYPES)
def test_every_text_survives_and_forges_nothing(tokenizers: dict[str, Vocabulary], kind: str) -> None:
    tokenizer = tokenizers[kind].tokenizer()
    special = {tokenizer.token_to_id(token) for token in [*PIECE_SPECIALS, "<|endoftext|>", *TASK_TOKENS]} - {None}
    byte_of = {tokenizer.token_to_id(token): value for value, token in enumerate(BYTE_TOKENS)}
    for text in NASTY + random_texts(400) + make_texts(20, seed=9):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert not special & set(ids), text
        spelled = {byte_of[token_id] for token_id in ids if kind != BYTE_LEVEL_BPE and token_id in byte_of}
        assert spelled <= set(text.encode()), text  # a byte token stands for nothing but that byte of the text


@pytest.mark.parametrize("kind", VOCAB_TYPES)
def test_transformers_reads_it(tokenizers: dict[str, Vocabulary], kind: str) -> None:
    from transformers import AutoTokenizer

    ours = tokenizers[kind]
    theirs = AutoTokenizer.from_pretrained(ours.folder)
    assert len(theirs) == ours.vocab_size == SIZE
    assert theirs.eos_token_id == ours.end_token_id
    names = (theirs.bos_token, theirs.eos_token, theirs.pad_token, theirs.unk_token)
    if kind == BYTE_LEVEL_BPE:
        assert names == ("<|endoftext|>", "<|endoftext|>", "<|endoftext|>", None)
        assert theirs.convert_tokens_to_ids(["<|endoftext|>", *TASK_TOKENS]) == [0, 1, 2]
    else:
        assert names == ("<s>", "</s>", "<pad>", "<unk>")
        assert theirs.convert_tokens_to_ids([*PIECE_SPECIALS, *TASK_TOKENS]) == [0, 1, 2, 3, 4, 5]
    raw = ours.tokenizer()
    for text in NASTY:
        ids = theirs(text)["input_ids"]
        assert theirs.decode(ids) == text
        if "<" not in text:
            assert ids == raw.encode(text, add_special_tokens=False).ids
    assert theirs("<question>")["input_ids"] == [theirs.convert_tokens_to_ids("<question>")]


@pytest.mark.parametrize("kind", VOCAB_TYPES)
def test_the_same_texts_give_the_same_bytes(tokenizers: dict[str, Vocabulary], kind: str, tmp_path: Path) -> None:
    again = vocabulary.train(make_texts(), kind, SIZE, TASK_TOKENS)
    vocabulary.save(again, vocabulary.end_token(kind), tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tokenizers[kind].folder / name).read_bytes(), name


@pytest.mark.parametrize("kind", [UNIGRAM, BPE])
def test_pieces_are_sentencepieces(tokenizers: dict[str, Vocabulary], kind: str) -> None:
    """No normalizer, Metaspace, byte fallback; frequent words are one piece that begins with their space."""
    raw = json.loads((tokenizers[kind].folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert raw["normalizer"] is None
    assert raw["pre_tokenizer"]["pretokenizers"][0]["type"] == "Metaspace"
    assert raw["model"]["byte_fallback"] is True
    tokenizer = tokenizers[kind].tokenizer()
    pieces = tokenizer.encode("  영화는 영화.", add_special_tokens=False).tokens
    assert pieces[0] == " "
    assert pieces[1] in (" 영화", " 영화는")
    assert pieces[-2:] == [" 영화", "."]
    assert tokenizer.encode("é", add_special_tokens=False).tokens == ["<0xC3>", "<0xA9>"]


@pytest.mark.parametrize("kind", VOCAB_TYPES)
def test_a_vocabulary_larger_than_the_text_gives_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match=r"--vocab-size 30000: .* no more than (\d+) tokens") as caught:
        vocabulary.train(make_texts(30), kind, 30_000, [])
    reached = int(str(caught.value).split("no more than ")[1].split()[0])
    assert vocabulary.train(make_texts(30), kind, reached, []).get_vocab_size() == reached


@pytest.mark.parametrize("kind", VOCAB_TYPES)
@pytest.mark.parametrize("more", [0, 4])
def test_the_smallest_vocabularies_have_the_size_that_is_asked_for(kind: str, more: int) -> None:
    """Many special tokens leave no room for the many characters of this text."""
    special = [f"<task{number}>" for number in range(100)]
    texts = ["".join(map(chr, range(0x4E00, 0x4E80))), *make_texts(30)]
    size = vocabulary.smallest_size(kind, special) + more
    assert vocabulary.train(texts, kind, size, special).get_vocab_size() == size


@pytest.mark.parametrize("kind", VOCAB_TYPES)
def test_words_of_any_length_are_trained_on_in_pieces(kind: str) -> None:
    """The trainers' time grows with the square of a word's length; where all are short, the text arrives as it is."""
    text = "한국어 ΑΒΓ" + "".join(random.Random(0).choices("ACGT", k=20_000)) + " x" + "-" * 2500
    arrived = [*vocabulary._WithoutLongRuns([text], kind)]
    assert "".join(arrived) == text
    assert max(map(len, arrived)) < 2010
    unspaced = "안녕하세요," * 400
    assert [*vocabulary._WithoutLongRuns([unspaced, "a b"], kind)] == [unspaced, "a b"]


def test_the_many_characters_of_a_text_do_not_fill_its_vocabulary() -> None:
    texts = ["".join(chr(0x4E00 + number) for number in range(start, start + 100)) for start in range(0, 2000, 50)]
    for kind in (UNIGRAM, BPE):
        tokenizer = vocabulary.train(texts + make_texts(), kind, SIZE, [])
        assert tokenizer.get_vocab_size() == SIZE
        assert sum(len(piece) > 1 and piece not in BYTE_TOKENS for piece in tokenizer.get_vocab()) > 100


@pytest.mark.parametrize(
    "tokens", [["PAD"], ["<>"], ["<|>"], ["<a b>"], ["<a>", "<a>"], ["</s>"], ["<0x41>"], ["x<a>"], ["<<a>>"]]
)
def test_special_tokens_that_text_could_forge_are_refused(tokens: list[str]) -> None:
    assert len(vocabulary.special_token_problems(UNIGRAM, tokens)) == 1
    assert vocabulary.special_token_problems(UNIGRAM, ["<a>", "<|b|>", "<task-1>"]) == []


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    from tokenizers import models

    with pytest.raises(UserError, match="no such file"):
        vocabulary.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="can't be read as a tokenizer"):
        vocabulary.load(tmp_path)
    Tokenizer(models.BPE({"a": 0}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="no end token"):
        vocabulary.load(tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", "{"])
def test_a_damaged_tokenizer_config_is_named(content: str, tokenizers: dict[str, Vocabulary], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((tokenizers[BPE].folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(content)
    for read in (vocabulary.load, vocabulary.special_token_ids):
        with pytest.raises(UserError, match=r"tokenizer_config\.json: can't be read"):
            read(tmp_path)


def test_another_checkpoints_tokenizer_is_taken_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    theirs = vocabulary.load(tiny_model)
    vocabulary.refuse_forgeable(theirs)
    vocabulary.copy_tokenizer((theirs, tmp_path / "copy"))
    ours = vocabulary.load(tmp_path / "copy")
    assert (ours.vocab_size, ours.end_token) == (theirs.vocab_size, "<|endoftext|>")
    for text in NASTY:
        assert ours.tokenizer().encode(text).ids == theirs.tokenizer().encode(text).ids
