"""The floors of a comparison: the majority class, and TF-IDF with logistic regression."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from tiny_run import make_rows

from comparison.floors import MAJORITY, TFIDF, floor_scores, is_mostly_latin
from datasets import Example, Split

DRAW = random.Random(0)
KOREAN = (["재미없", "지루하", "별로"], ["재미있", "훌륭하", "최고"])


def split(rows: list[tuple[str, int | None]], n_classes: int = 2, seconds: list[str] | None = None) -> Split:
    examples = [
        Example(f"id{i}", text, label, i + 2, seconds[i] if seconds else None) for i, (text, label) in enumerate(rows)
    ]
    return Split(Path("x"), examples, [], "", tuple(map(str, range(n_classes))))


def accuracy(train: Split, dev: Split, name: str = TFIDF) -> float:
    found = floor_scores(train, dev, 0)[name]
    assert found.labels is not None
    return float((found.predicted == found.labels).mean())


def test_the_majority_class_answers_with_the_shares_of_train() -> None:
    train = split([("a", 0), ("b", 2), ("c", 2), ("d", 1)], n_classes=4)
    found = floor_scores(train, split([("c", 1), ("d", None)], n_classes=4), 0)[MAJORITY]
    assert found.probabilities.tolist() == [[0.25, 0.25, 0.5, 0.0]] * 2
    assert found.predicted.tolist() == [2, 2] and found.ids == ["id0", "id1"] and found.labels is None


def test_words_that_tell_the_class_are_learnt_whatever_the_seed() -> None:
    train, dev = split(make_rows(300, 0), 5), split(make_rows(100, 1), 5)
    assert accuracy(train, dev) > 0.95 > 0.5 > accuracy(train, dev, MAJORITY)
    first, again = (floor_scores(train, dev, seed)[TFIDF].probabilities for seed in (0, 1))
    assert np.array_equal(first, again)
    np.testing.assert_allclose(first.sum(axis=1), 1)


def test_it_is_scikit_learns_own() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    rows, dev = make_rows(80, 0, 2), make_rows(20, 1, 2)
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern="[a-z]+")
    model = LogisticRegression().fit(vectorizer.fit_transform([t for t, _ in rows]), [label for _, label in rows])
    expected = model.predict_proba(vectorizer.transform([t for t, _ in dev]))
    np.testing.assert_allclose(floor_scores(split(rows), split(dev), 0)[TFIDF].probabilities, expected, atol=1e-5)


def test_korean_stems_are_found_under_endings_that_train_does_not_have() -> None:
    def sentences(count: int, endings: list[str]) -> list[tuple[str, int | None]]:
        labels = [DRAW.randrange(2) for _ in range(count)]
        return [(f"이 영화는 {DRAW.choice(KOREAN[label])}{DRAW.choice(endings)}", label) for label in labels]

    assert accuracy(split(sentences(80, ["다", "네요"])), split(sentences(40, ["습니다", "군", "었어요"]))) == 1.0


@pytest.mark.parametrize(
    ("text", "latin"), [("Ça va, été", True), ("영화 good 좋아요", False), ("кино", False), ("123 !?", False)]
)
def test_the_script_is_told_by_the_letters(text: str, latin: bool) -> None:
    assert is_mostly_latin([text]) is latin


def test_pairs_are_told_by_what_they_share() -> None:
    """Every question occurs in duplicates and in others alike, so no word says anything by itself."""

    def pairs(count: int, seed: int) -> Split:
        draw = random.Random(seed)
        words = [f"word{i}" for i in range(40)]
        first = [draw.sample(words, 5) for _ in range(count)]
        second = [draw.sample(a, 5) if i % 2 else draw.sample(words, 5) for i, a in enumerate(first)]
        return split([(" ".join(a), i % 2) for i, a in enumerate(first)], 2, [" ".join(b) for b in second])

    assert accuracy(pairs(300, 0), pairs(100, 1)) > 0.9


def test_odd_training_sets_have_floors_too() -> None:
    one = floor_scores(split([("a", 1), ("b", 1)]), split([("a", 0)]), 0)
    assert one[TFIDF].probabilities.tolist() == one[MAJORITY].probabilities.tolist() == [[0.0, 1.0]]
    no_letters = floor_scores(split([("!!", 0), ("??", 1)]), split([("!!", 0), ("…", 1)]), 0)[TFIDF]
    assert no_letters.predicted[0] == 0
    without_a_class = floor_scores(split([("good", 2), ("bad", 0)], 3), split([("good", 2)], 3), 0)[TFIDF]
    assert without_a_class.probabilities[0, 1] == 0.0 and without_a_class.predicted[0] == 2
