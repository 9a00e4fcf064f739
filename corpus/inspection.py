"""A look into a finished corpus: statistics of its splits and sources, and documents as the model will see them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.shards import Corpus, TokenSplit, open_corpus
from corpus.vocabulary import BYTE_TOKENS

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

PERCENTILES = (5, 25, 50, 75, 95)
FREQUENT = 30  # tokens that are listed
SAMPLES = 3  # documents of each split that are shown
SAMPLE_TOKENS = 80  # of each
_STRETCH = 1 << 22  # tokens that are counted at once


def inspect(folder: Path) -> None:
    """Prints what a corpus holds.

    Raises:
        UserError: it is not finished, or damaged.
    """
    from tokenizers import Tokenizer

    corpus = open_corpus(folder)
    manifest = corpus.manifest
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_folder / "tokenizer.json"))
    print(f"{folder}, built {manifest['created']}")
    print(
        f"vocabulary: {manifest['tokenizer']['type']}, {corpus.vocab_size:,} tokens, "
        f"end token {manifest['end_token']} ({corpus.end_token_id}), tokens stored as {manifest['dtype']}"
    )
    show_sources(manifest)
    show_splits(corpus)
    for name, split in corpus.splits.items():
        if split.n_tokens:
            show_tokens(name, split, corpus, tokenizer)
    for name, split in corpus.splits.items():
        starts = split.index()["start"]
        for number in sample_numbers(split.n_documents):
            stop = int(starts[number + 1]) if number + 1 < len(starts) else split.n_tokens
            show_document(name, split, number, int(starts[number]), stop - 1, tokenizer)


def show_sources(manifest: dict[str, Any]) -> None:
    """Where the documents come from, and what became of those that are in no split."""
    print("\nsources")
    for source in manifest["sources"]:
        counts = ", ".join(f"{name} {count:,}" for name, count in source["counts"].items() if count)
        print(f"  {source['path']} ({source['format']}, weight {source['weight']:g})\n    {counts}")


def show_splits(corpus: Corpus) -> None:
    """Sizes of every split, and of every source within it."""
    import numpy as np

    heads = "".join(f"{f'{percentile} %':>8}" for percentile in PERCENTILES)
    print(f"\n{'':<77}  tokens per document, percentiles")
    print(f"{'split / source':<30}{'documents':>11}{'tokens':>14}{'MB':>9}{'bytes/token':>13}{heads}")
    names = [source["key"] for source in corpus.manifest["sources"]]
    for split_name, split in corpus.splits.items():
        index = split.index()
        lengths = np.diff(index["start"], append=np.uint64(split.n_tokens)).view(np.int64)
        lengths -= 1  # without the end token
        _show_row(split_name, lengths, index["utf8_bytes"])
        for number, name in enumerate(names):
            of_source = index["source"] == number
            if of_source.any() and len(names) > 1:
                _show_row(f"  {name[-28:]}", lengths[of_source], index["utf8_bytes"][of_source])


def _show_row(name: str, lengths: np.ndarray, utf8_bytes: np.ndarray) -> None:
    import numpy as np

    tokens, size = int(lengths.sum()), int(utf8_bytes.sum())
    ratio = f"{size / tokens:.2f}" if tokens else "-"
    row = f"{name:<30}{len(lengths):>11,}{tokens + len(lengths):>14,}{size / 1e6:>9.1f}{ratio:>13}"
    if len(lengths):
        row += "".join(f"{value:>8,.0f}" for value in np.percentile(lengths, PERCENTILES))
    print(row)


def show_tokens(name: str, split: TokenSplit, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """The most frequent tokens, and how many there are of which kind."""
    import numpy as np

    counts = np.zeros(corpus.vocab_size, dtype=np.int64)
    for start in range(0, split.n_tokens, _STRETCH):
        tokens = split.read(start, min(split.n_tokens, start + _STRETCH))
        counts += np.bincount(tokens, minlength=corpus.vocab_size)
    byte_ids = [token_id for token in BYTE_TOKENS if (token_id := tokenizer.token_to_id(token)) is not None]
    frequent = np.argsort(-counts, kind="stable")[:FREQUENT]
    print(f"\n{name}: {int((counts > 0).sum()):,} of {corpus.vocab_size:,} tokens occur", end="")
    if byte_ids:
        print(f"; {counts[byte_ids].sum() / split.n_tokens:.3%} of the text's tokens are single bytes", end="")
    shown = [f"{show_token(tokenizer, int(i))!r} {counts[i] / split.n_tokens:.2%}" for i in frequent]
    print(f"\n  most frequent: {', '.join(shown)}")


def show_document(name: str, split: TokenSplit, number: int, start: int, stop: int, tokenizer: Tokenizer) -> None:
    """The beginning of a document with a bar between two tokens; at ``stop`` is its end token."""
    length = stop - start
    tokens = split.read(start, start + min(length, SAMPLE_TOKENS)).tolist()
    shown = "|".join(show_token(tokenizer, token) for token in tokens).replace("\n", "\\n").replace("\r", "\\r")
    print(f"\n{name}, document {number:,} ({length:,} tokens)\n  {shown}{'|...' if length > SAMPLE_TOKENS else ''}")


def sample_numbers(n_documents: int) -> list[int]:
    """Which documents are shown: a few, evenly spread."""
    return sorted({n_documents * (2 * i + 1) // (2 * SAMPLES) for i in range(SAMPLES)}) if n_documents else []


def show_token(tokenizer: Tokenizer, token_id: int) -> str:
    """A token's text; a part of a character as it stands in the vocabulary."""
    text = tokenizer.decode([token_id], skip_special_tokens=False)
    if "\ufffd" in text:
        text = f"<{(tokenizer.id_to_token(token_id) or '').strip('<>')}>"
    return text
