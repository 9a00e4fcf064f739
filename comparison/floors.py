"""What any classifier should beat: the majority class, and a linear model on word counts.

Both are made from the data files alone and are the same whenever they are made again.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets import Example, Split
from training.classification.metrics import Predictions

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MAJORITY = "majority class"
TFIDF = "TF-IDF + logistic regression"
MOST_ITERATIONS = 1000
TEXTS_LOOKED_AT = 1000  # to tell the script that they are written in


def floor_scores(train: Split, dev: Split, seed: int) -> dict[str, Predictions]:
    """What both floors say of the dev examples.

    The majority class answers with the classes' shares of the training examples, so its likeliest class is the largest
    one (of equal ones the first).

    The linear classifier is scikit-learn's logistic regression with its defaults (L2 with C = 1, lbfgs) on TF-IDF with
    sublinear counts (1 + log tf), each text's vector of length 1. The terms are lower-cased words and pairs of
    neighbouring words, one letter or syllable being a word too; where most letters are not Latin, runs of one to three
    characters within words, because a Korean word carries its particles and endings. What a pair of texts a, b is
    described by is a, b, |a - b| and the product a * b, term by term, and two numbers: the cosine of a and b, and the
    share of all their terms that they have in common.

    Args:
        seed: for solvers that draw; lbfgs does not.
    """
    n_classes = len(train.label_names)
    labels = np.array([example.label for example in train.examples])
    shares = np.bincount(labels, minlength=n_classes) / len(labels)
    found = {MAJORITY: np.tile(shares, (len(dev.examples), 1))}
    found[TFIDF] = (
        found[MAJORITY] if shares.max() == 1.0 else _linear(train.examples, dev.examples, labels, shares, seed)
    )
    return {name: _predictions(dev.examples, probabilities) for name, probabilities in found.items()}


def _linear(
    train: Sequence[Example], dev: Sequence[Example], labels: np.ndarray, shares: np.ndarray, seed: int
) -> np.ndarray:
    """(n_dev, n_classes); a class that the training examples do not have gets probability 0."""
    from sklearn.linear_model import LogisticRegression

    vectorizer = vectorizer_for([example.text for example in train])
    seconds = [example.second for example in train if example.second is not None]
    vectorizer.fit([example.text for example in train] + seconds)
    model = LogisticRegression(C=1.0, max_iter=MOST_ITERATIONS, random_state=seed)
    model.fit(_features(vectorizer, train), labels)
    probabilities = np.zeros((len(dev), len(shares)))
    probabilities[:, model.classes_] = model.predict_proba(_features(vectorizer, dev))
    return probabilities


def vectorizer_for(texts: Sequence[str]) -> Any:
    """TF-IDF in the terms of the texts' script, yet to be fitted; each text becomes a vector of length 1."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if is_mostly_latin(texts):
        return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"\w+")
    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 3), analyzer="char_wb")


def is_mostly_latin(texts: Sequence[str]) -> bool:
    """Whether more than half of the letters are Latin ones; False where there are no letters."""
    letters = [character for text in texts[:TEXTS_LOOKED_AT] for character in text if character.isalpha()]
    latin = sum(character.isascii() or "LATIN" in unicodedata.name(character, "") for character in letters)
    return 2 * latin > len(letters)


def _features(vectorizer: Any, examples: Sequence[Example]) -> csr_matrix:
    """(n, terms), and of pairs (n, 4 * terms + 2)."""
    from scipy.sparse import csr_matrix, hstack

    first = vectorizer.transform([example.text for example in examples])
    if examples[0].second is None:
        return first
    second = vectorizer.transform([example.second for example in examples])
    product = first.multiply(second)
    cosine = product.sum(axis=1)
    both = ((first > 0).multiply(second > 0)).sum(axis=1)
    either = ((first + second) > 0).sum(axis=1)
    overlap = np.asarray(both) / np.maximum(np.asarray(either), 1)
    return hstack([first, second, abs(first - second), product, csr_matrix(cosine), csr_matrix(overlap)]).tocsr()


def _predictions(examples: Sequence[Example], probabilities: np.ndarray) -> Predictions:
    labels = [example.label for example in examples]
    return Predictions(
        ids=[example.id for example in examples],
        texts=[e.text if e.second is None else f"{e.text} | {e.second}" for e in examples],
        probabilities=probabilities,
        labels=None if None in labels else np.array(labels),
    )
