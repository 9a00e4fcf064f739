"""Vocabularies: trained on a corpus, saved so that ``transformers.AutoTokenizer`` loads them, every text kept whole.

Two families. *Byte-level BPE* is GPT-2's (Radford et al. 2019, section 2.2): bytes written as printable characters. The
*SentencePiece-style* ones, Unigram (Kudo 2018) and BPE, work on characters, and spell what is not in the vocabulary as
bytes, ``<0xE2><0x96><0x81>`` (Kudo and Richardson 2018).

SentencePiece writes a space as "▁", so that a "▁" of the text comes back as a space. Here the Metaspace pre-tokenizer's
replacement for a space is the space itself: pieces read " the" instead of "▁the", nothing is replaced and nothing has
to be undone, so every text comes back exactly. No normalizer changes the text either.

No text can forge a special token: each holds letters between "<" and ">", which both pre-tokenizers take apart before
the model sees them. (The Unigram model matches whatever is in its vocabulary, special tokens and byte tokens too.)
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import BUNDLED_CHECKPOINTS, RunFailed, UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTE_LEVEL_BPE, UNIGRAM, BPE = VOCAB_TYPES = ("byte-level-bpe", "unigram", "bpe")
END_OF_TEXT = "<|endoftext|>"
START, END, PAD, UNKNOWN = PIECE_SPECIALS = ("<s>", "</s>", "<pad>", "<unk>")
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
ALWAYS_PIECES = [" ", "\n", *map(chr, range(33, 127))]  # characters that need no spelling by bytes
SPECIAL_TOKEN = re.compile(r"<[^<>\s]*[A-Za-z0-9][^<>\s]*>")

# As SentencePiece's: a space begins a piece; digits, punctuation and letters don't share one. Line breaks stand alone.
_PIECE_PATTERN = r"\n+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+"
_LONGEST_WORD = 1000  # characters
_LONG_RUN = re.compile(rf"(?<!\S)\S{{{_LONGEST_WORD + 1}}}|(?<!\s)\s{{{_LONGEST_WORD + 1}}}")
_CHARACTER_COVERAGE = 0.9995  # of the text; rarer characters are spelled as bytes (SentencePiece's default)
_CHARACTER_SHARE = 4  # at most one in so many pieces is there to cover a character


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


def train(texts: Iterable[str], kind: str, vocab_size: int, special_tokens: list[str]) -> Tokenizer:
    """Trains a tokenizer with exactly ``vocab_size`` tokens.

    Args:
        texts: read twice by the piece models, so a list, or something else that can be iterated over again.
        kind: one of VOCAB_TYPES.
        special_tokens: task tokens, added to the kind's own.

    Raises:
        UserError: the text does not give that many tokens; the message says how many it gives.
    """
    texts = _WithoutLongRuns(texts, kind)
    tokenizer = _train_byte_level(texts, vocab_size, special_tokens) if kind == BYTE_LEVEL_BPE else None
    tokenizer = tokenizer or _train_pieces(texts, kind, vocab_size, special_tokens)
    reached = tokenizer.get_vocab_size()
    if reached < vocab_size:
        raise UserError(
            f"--vocab-size {vocab_size}: the vocabulary's sample gives no more than {reached} tokens; "
            f"choose --vocab-size {reached} or less, a larger --vocab-sample, or more text, with --overwrite "
            "(documents that are extracted already are kept)"
        )
    return tokenizer


@dataclass(frozen=True)
class _WithoutLongRuns:
    """Texts in which no word for the trainers is longer than ``_LONGEST_WORD``: their time grows with its square.

    Such are DNA, encoded files or a row of dashes; a text without any is given as it is.
    """

    texts: Iterable[str]
    kind: str

    def __iter__(self) -> Iterator[str]:
        pre_tokenizer = _byte_level_pre_tokenizer() if self.kind == BYTE_LEVEL_BPE else _piece_pre_tokenizer()
        for text in self.texts:
            start = 0
            if _LONG_RUN.search(text):
                for _, (begin, end) in pre_tokenizer.pre_tokenize_str(text):
                    for cut in range(begin + _LONGEST_WORD, end, _LONGEST_WORD):
                        yield text[start:cut]
                        start = cut
            yield text[start:]


@dataclass(frozen=True)
class Training:
    """What a tokenizer is trained on and how, where it goes, and with how many threads."""

    texts: Iterable[str]
    kind: str
    vocab_size: int
    special_tokens: list[str]
    folder: Path
    threads: int


def train_tokenizer(task: Training) -> None:
    """Trains and saves a tokenizer; to be called in a process of its own, whose number of threads it sets."""
    os.environ["RAYON_NUM_THREADS"] = str(task.threads)
    tokenizer = train(task.texts, task.kind, task.vocab_size, task.special_tokens)
    save(tokenizer, end_token(task.kind), task.folder)


def smallest_size(kind: str, special_tokens: list[str]) -> int:
    """The tokens that every vocabulary of a kind has: special ones, one for each byte, printable ASCII as pieces."""
    own = 1 if kind == BYTE_LEVEL_BPE else len(PIECE_SPECIALS) + len(ALWAYS_PIECES)
    return own + len(special_tokens) + 256


def special_token_problems(kind: str, special_tokens: list[str]) -> list[str]:
    """What is wrong with the task tokens that a user asks for."""
    own = (END_OF_TEXT,) if kind == BYTE_LEVEL_BPE else (*PIECE_SPECIALS, *BYTE_TOKENS)
    problems = [
        f"--special-tokens {token}: must be of the form <name>, so that no ordinary text is taken for it"
        for token in special_tokens
        if not SPECIAL_TOKEN.fullmatch(token)
    ]
    problems += [
        f"--special-tokens {token}: is part of every {kind} vocabulary" for token in special_tokens if token in own
    ]
    twice = [token for token, count in Counter(special_tokens).items() if count > 1]
    return problems + [f"--special-tokens {token}: is given twice" for token in twice]


def _train_byte_level(texts: Iterable[str], vocab_size: int, special_tokens: list[str]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _byte_level_pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT, *special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_pieces(texts: Iterable[str], kind: str, vocab_size: int, special_tokens: list[str]) -> Tokenizer:
    """A Unigram or BPE model of characters, with the special and the byte tokens put before its pieces."""
    from tokenizers import Tokenizer, decoders, models, trainers

    reserved = [*PIECE_SPECIALS, *special_tokens, *BYTE_TOKENS]
    n_pieces = vocab_size - len(reserved)
    common = _common_characters(texts, limit=min(vocab_size // _CHARACTER_SHARE, n_pieces))
    trainee = Tokenizer(models.Unigram() if kind == UNIGRAM else models.BPE())
    trainee.pre_tokenizer = _piece_pre_tokenizer()
    options: dict[str, Any] = {"initial_alphabet": sorted(common), "show_progress": False, "special_tokens": []}
    if kind == UNIGRAM:
        trainer: Any = trainers.UnigramTrainer(vocab_size=n_pieces, **options)
    else:
        trainer = trainers.BpeTrainer(vocab_size=n_pieces, min_frequency=2, **options)
    trainee.train_from_iterator(_without_rare_characters(texts, common), trainer)
    model = json.loads(trainee.to_str())["model"]

    if kind == UNIGRAM:
        pieces = _same_in_every_run(model["vocab"])[:n_pieces]
        lowest = pieces[-1][1] if pieces else 0.0
        vocab = [(token, lowest) for token in reserved] + pieces
        tokenizer = Tokenizer(models.Unigram(vocab, unk_id=PIECE_SPECIALS.index(UNKNOWN), byte_fallback=True))
    else:
        pieces = sorted(model["vocab"], key=model["vocab"].get)
        ids: Any = {token: token_id for token_id, token in enumerate([*reserved, *pieces])}
        merges = [tuple(merge) for merge in model["merges"]]
        tokenizer = Tokenizer(models.BPE(ids, merges, unk_token=UNKNOWN, byte_fallback=True))
    tokenizer.pre_tokenizer = _piece_pre_tokenizer()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([*PIECE_SPECIALS, *special_tokens])
    return tokenizer


def _same_in_every_run(vocab: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """A Unigram model's pieces and scores, best first, without what is random in their training.

    Sums come out differently in their last digits. And characters that were kept only because every character is get
    the lowest score plus 0.0001, 0.0002 and so on, in random order; here they all get the lowest.
    """
    lowest = round(min((score for _, score in vocab), default=0.0), 6)
    pieces = []
    for piece, score in vocab:
        steps = (score - lowest) / 0.0001
        kept_only = len(piece) == 1 and steps < len(vocab) and abs(steps - round(steps)) < 0.02
        pieces.append((piece, lowest if kept_only else round(score, 6)))
    return sorted(pieces, key=lambda entry: (-entry[1], entry[0]))


def _byte_level_pre_tokenizer() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _piece_pre_tokenizer() -> Any:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=" ", prepend_scheme="never"),
            pre_tokenizers.Split(Regex(_PIECE_PATTERN), "isolated"),
        ]
    )


def _common_characters(texts: Iterable[str], limit: int) -> set[str]:
    """The characters that become pieces: printable ASCII, and the most frequent others."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    common = set(ALWAYS_PIECES)
    covered, total = 0, counts.total()
    for character, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        if covered >= _CHARACTER_COVERAGE * total or len(common) >= limit:
            break
        covered += count
        if character != "\0":  # the Unigram trainer's own mark between words
            common.add(character)
    return common


def _without_rare_characters(texts: Iterable[str], common: set[str]) -> Iterator[str]:
    """The text with a line break for every rare character: the Unigram trainer keeps each character that it meets."""
    table = _BreakAtOthers({ord(character): character for character in common})
    for text in texts:
        yield text.translate(table)


class _BreakAtOthers(dict[int, str]):
    def __missing__(self, character: int) -> str:
        return "\n"


# ---------------------------------------------------------------------------------------------------------------------
# Saving and loading
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer folder, and what its tokens mean for a corpus."""

    folder: Path
    vocab_size: int
    end_token: str
    end_token_id: int

    def tokenizer(self) -> Tokenizer:
        """The tokenizer for documents: what looks like a special token there is ordinary text."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        return tokenizer


def end_token(kind: str) -> str:
    """What ends a document in a vocabulary of a kind."""
    return END_OF_TEXT if kind == BYTE_LEVEL_BPE else END


def save(tokenizer: Tokenizer, end: str, folder: Path) -> None:
    """Writes ``tokenizer.json`` and ``tokenizer_config.json``; the folder appears when both are whole."""
    from transformers import PreTrainedTokenizerFast

    if end == END:
        specials = {"bos_token": START, "eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN}
    else:
        specials = {"bos_token": end, "eos_token": end, "pad_token": end}
    known = {name: token for name, token in specials.items() if tokenizer.token_to_id(token) is not None}
    others = [
        added.content
        for _, added in sorted(tokenizer.get_added_tokens_decoder().items())
        if added.special and added.content not in known.values()
    ]
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, additional_special_tokens=others, **known
    )
    try:
        wrapped.save_pretrained(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except Exception as error:  # the Rust library raises plain Exceptions, for a full disk too
        shutil.rmtree(partial, ignore_errors=True)
        raise RunFailed(
            f"{folder}: could not be written ({error}); what is finished is kept: free some space and run the same "
            "command again"
        ) from None


def load(folder: Path) -> Vocabulary:
    """Reads a tokenizer folder: a corpus's own, or that of a checkpoint.

    Raises:
        UserError: there is no tokenizer, it can't be read, or it has no end token.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.exists():
        raise UserError(
            f"{path}: no such file; --tokenizer takes a folder with a tokenizer.json, or a bundled model's name"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises plain Exceptions
        raise UserError(f"{path}: can't be read as a tokenizer ({error})") from None
    named = _named_end_token(folder, tokenizer)
    for token in (named, END_OF_TEXT, END):
        token_id = tokenizer.token_to_id(token) if token else None
        if token and token_id is not None:
            return Vocabulary(folder, max(tokenizer.get_vocab().values()) + 1, token, token_id)
    raise UserError(f"{path}: has no end token ({END_OF_TEXT} or {END}); documents could not be told apart")


def refuse_forgeable(vocabulary: Vocabulary) -> None:
    """Makes sure that the end token written out in a document is text.

    In a tokenizer that comes from SentencePiece "</s>" may be a piece of the model too, which is then found in texts.

    Raises:
        UserError: it would end the document there.
    """
    end, tokenizer = vocabulary.end_token, vocabulary.tokenizer()
    for text in (end, f"a{end}b", f"a {end} b", f"a\n{end}\nb"):
        if vocabulary.end_token_id in tokenizer.encode(text, add_special_tokens=False).ids:
            raise UserError(
                f"{vocabulary.folder / 'tokenizer.json'}: takes {end} in a text for the end of its document; "
                "leave --tokenizer out, so that the corpus gets a vocabulary of its own"
            )


def unknown_token_id(tokenizer: Tokenizer) -> int:
    """What stands for text that the vocabulary can't spell; -1 where there is no such token."""
    model = json.loads(tokenizer.to_str())["model"]
    token = model.get("unk_token")
    found = tokenizer.token_to_id(token) if token else model.get("unk_id")
    return -1 if found is None else found


def special_token_ids(folder: Path) -> dict[str, int]:
    """``bos_token_id``, ``eos_token_id`` and ``pad_token_id`` of a corpus's tokenizer, as a model's config has them.

    Raises:
        UserError: the corpus's tokenizer_config.json is missing or damaged.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    try:
        raw = _read_object(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read ({error}); copy the corpus again") from None
    ids = {kind: tokenizer.token_to_id(raw.get(f"{kind}_token") or "") for kind in ("bos", "eos", "pad")}
    return {f"{kind}_token_id": token_id for kind, token_id in ids.items() if token_id is not None}


def copy_tokenizer(task: tuple[Vocabulary, Path]) -> None:
    """Saves a tokenizer that exists already as a corpus's own, in the given folder."""
    from tokenizers import Tokenizer

    vocabulary, folder = task
    tokenizer = Tokenizer.from_file(str(vocabulary.folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    save(tokenizer, vocabulary.end_token, folder)


def find(name: str) -> Path:
    """The folder of ``--tokenizer``: a folder, or the name of a bundled model."""
    return BUNDLED_CHECKPOINTS / name if (BUNDLED_CHECKPOINTS / name).is_dir() else Path(name)


def _named_end_token(folder: Path, tokenizer: Tokenizer) -> str | None:
    """What the folder's own files call the end token."""
    for name in ("tokenizer_config.json", "config.json"):
        try:
            raw = _read_object(folder / name)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / name}: can't be read ({error}); fetch the tokenizer again") from None
        token = raw.get("eos_token")
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            return token
        if isinstance(raw.get("eos_token_id"), int):
            return tokenizer.id_to_token(raw["eos_token_id"])
    return None


def _read_object(path: Path) -> dict[str, Any]:
    """Raises OSError, or ValueError where the file is no JSON object."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(raw, dict):
        raise ValueError("it is no JSON object")
    return raw
