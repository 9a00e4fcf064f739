"""ROUGE (Lin 2004), computed by the package rouge-score."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

KINDS = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l"}  # the package's names -> ours


class WordTokenizer:
    """Words between white space, lower-cased, without the punctuation at their ends.

    The package's own tokenizer keeps Latin letters and digits alone: of a Korean text nothing would be left.
    """

    def tokenize(self, text: str) -> list[str]:
        words = (_strip(word) for word in unicodedata.normalize("NFC", text).lower().split())
        return [word for word in words if word]


def _strip(word: str) -> str:
    start, end = 0, len(word)
    while start < end and _is_mark(word[start]):
        start += 1
    while end > start and _is_mark(word[end - 1]):
        end -= 1
    return word[start:end]


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def words_of(text: str) -> list[str]:
    """The words that n-grams are made of, in any language."""
    return WordTokenizer().tokenize(text)


def rouge(texts: Sequence[str], truth: Sequence[str], language: str) -> dict[str, list[float]]:
    """F-measures of ROUGE-1, ROUGE-2 and ROUGE-L of each text, from 0 to 100, by name.

    English words are stemmed (Porter), as usual in published figures; Korean ones stay as they are.
    """
    from rouge_score.rouge_scorer import RougeScorer

    tokenizer = WordTokenizer() if language == "ko" else None
    scorer = RougeScorer(list(KINDS), use_stemmer=language == "en", tokenizer=tokenizer)
    scores = [scorer.score(true, text) for text, true in zip(texts, truth, strict=True)]
    return {name: [100 * score[kind].fmeasure for score in scores] for kind, name in KINDS.items()}
