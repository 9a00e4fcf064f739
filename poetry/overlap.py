"""How alike texts are: chrF against true texts, and BLEU of texts against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

CHAR_ORDER = 6  # of chrF
BETA = 2.0
BLEU_ORDER = 4


def chrf(texts: Sequence[str], truth: Sequence[str]) -> float:
    """sacrebleu's corpus chrF with its defaults (Popović 2015), from 0 to 100: what the course's script computes."""
    from sacrebleu.metrics import CHRF

    return float(CHRF().corpus_score(list(texts), [list(truth)]).score)


def chrf_signature() -> str:
    """The settings and the version behind :func:`chrf`, as sacrebleu writes them in reports."""
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    metric.corpus_score(["a"], [["a"]])  # the signature knows the number of references only afterwards
    return str(metric.get_signature())


def chrf_counts(texts: Sequence[str], truth: Sequence[str]) -> np.ndarray:
    """What chrF adds up over a corpus: (n_texts, 6, 3), n-grams of the text, of the truth, and of both, per order.

    As in sacrebleu, a text's n-grams count only where its truth is long enough to have any of that order.
    """
    counts = np.zeros((len(texts), CHAR_ORDER, 3))
    for i, (text, true) in enumerate(zip(texts, truth, strict=True)):
        ours, theirs = "".join(text.split()), "".join(true.split())
        for n in range(1, CHAR_ORDER + 1):
            a, b = _ngrams(ours, n), _ngrams(theirs, n)
            counts[i, n - 1] = (
                a.total() if b else 0,
                b.total(),
                sum(min(count, b[gram]) for gram, count in a.items() if gram in b),
            )
    return counts


def chrf_of_counts(counts: np.ndarray) -> np.ndarray:
    """chrF of summed counts (..., 6, 3) -> (...); for a bootstrap, where sacrebleu would count everything anew."""
    ours, theirs, both = counts[..., 0], counts[..., 1], counts[..., 2]
    counted = (ours > 0) & (theirs > 0)
    precision = np.where(counted, both / np.maximum(ours, 1), 0.0)
    recall = np.where(counted, both / np.maximum(theirs, 1), 0.0)
    orders = np.maximum(counted.sum(-1), 1)
    p, r = precision.sum(-1) / orders, recall.sum(-1) / orders
    return 100 * (1 + BETA**2) * p * r / np.maximum(BETA**2 * p + r, 1e-16)


def self_bleu(texts: Sequence[Sequence[str]]) -> np.ndarray:
    """BLEU-4 of each text against all others, from 0 to 100 (Zhu et al. 2018, section 3.3): high means all alike.

    As sacrebleu's sentence BLEU: exponential smoothing, orders only up to the text's length, the reference of the
    closest length. Zeros for fewer than two texts.

    Args:
        texts: their words.
    """
    if len(texts) < 2:
        return np.zeros(len(texts))
    grams = [[_ngrams(tuple(words), n) for n in range(1, BLEU_ORDER + 1)] for words in texts]
    limits = [_two_largest([one[n] for one in grams]) for n in range(BLEU_ORDER)]
    lengths = [len(words) for words in texts]
    return np.array([_bleu(i, grams[i], limits, lengths) for i in range(len(texts))])


def _ngrams(sequence: str | tuple[str, ...], n: int) -> Counter:
    return Counter(sequence[i : i + n] for i in range(len(sequence) - n + 1))


Largest = dict[object, tuple[int, int, int]]  # n-gram -> its largest count, in which text, and the next largest


def _two_largest(counters: list[Counter]) -> Largest:
    found: Largest = {}
    for i, counter in enumerate(counters):
        for gram, count in counter.items():
            first, owner, second = found.get(gram, (0, -1, 0))
            found[gram] = (count, i, first) if count > first else (first, owner, max(second, count))
    return found


def _bleu(i: int, grams: list[Counter], limits: list[Largest], lengths: list[int]) -> float:
    logs, smoothing = [], 1.0
    for n, counter in enumerate(grams):
        total = counter.total()
        if not total:
            break
        hits = 0
        for gram, count in counter.items():
            first, owner, second = limits[n][gram]
            hits += min(count, second if owner == i else first)
        if n == 0 and not hits:
            return 0.0
        if not hits:
            smoothing *= 2
        logs.append(np.log(hits / total if hits else 1 / (smoothing * total)))
    if not logs:
        return 0.0
    others = lengths[:i] + lengths[i + 1 :]
    closest = min(others, key=lambda length: (abs(length - lengths[i]), length))
    brevity = min(0.0, 1 - closest / lengths[i])
    return 100 * float(np.exp(brevity + np.mean(logs)))
