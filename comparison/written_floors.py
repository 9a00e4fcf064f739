"""What any model that writes should beat: first sentences, the words nearest to a question's, the nearest answer.

All are made from the data files alone and are the same whenever they are made again.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from comparison.floors import vectorizer_for
from comparison.runs import Run
from tasks.summaries import lead, sentences

if TYPE_CHECKING:
    from tasks.passages import Passage
    from tasks.questions import Question
    from tasks.summaries import Summary

NEAREST_WORDS = "nearest words"
NEAREST_ANSWER = "nearest question's answer"

Rows = Sequence[Any]  # of the task: summaries, questions or passages


@dataclass(frozen=True)
class WrittenFloor:
    """How a floor writes a text for each row, and how good its texts are: measure -> a number for each row.

    Rows without the right text have no scores.
    """

    name: str
    note: str
    write: Callable[[Rows], list[str]]
    score: Callable[[Rows, Sequence[str]], dict[str, list[float]]]


def has_floor(run: Run) -> bool:
    """Nothing simple writes a poem, or goes on with a text that asks nothing."""
    return run.task in _FLOORS and bool(run.metrics.get(_FLOORS[run.task][0]))


def floor_of(run: Run, train: Rows) -> WrittenFloor | None:
    """The floor of a run's task, made from its training rows; None where it has none."""
    return _FLOORS[run.task][1](run, train) if has_floor(run) else None


# ---------------------------------------------------------------------------------------------------------------------
# Summaries
# ---------------------------------------------------------------------------------------------------------------------


def lead_name(n_sentences: int) -> str:
    return f"first {n_sentences} sentences" if n_sentences > 1 else "first sentence"


def _first_sentences(run: Run, train: Sequence[Summary]) -> WrittenFloor:
    """Each document's first sentences, as many as the run says that its training summaries have."""
    from tasks.rouge import rouge

    n_sentences, language = int(run.metrics["lead_sentences"]), str(run.settings.get("language") or "en")
    return WrittenFloor(
        lead_name(n_sentences),
        "a floor, the beginning of each document",
        write=lambda rows: [lead(row.document, n_sentences) for row in rows],
        score=lambda rows, texts: rouge(texts, [row.summary for row in rows], language),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Answers that stand in a text
# ---------------------------------------------------------------------------------------------------------------------


def _nearest_words(run: Run, train: Sequence[Question]) -> WrittenFloor:
    """In the sentence most like the question, as many words as training answers have, near to the question's words.

    In the spirit of the sliding window that SQuAD was published with (Rajpurkar et al. 2016, section 5.1; Richardson et
    al. 2013), without its parser: :func:`nearest_words`.
    """
    from tasks.answer_scores import exact_match, f1_score

    rules = str(run.metrics["rules"])
    n_words = round(statistics.median(len(row.answers[0].split()) for row in train))
    asked = [row.question for row in train]
    vectorizer = vectorizer_for(asked).fit([*asked, *dict.fromkeys(row.context for row in train)])

    def score(rows: Sequence[Question], texts: Sequence[str]) -> dict[str, list[float]]:
        if not all(row.answers for row in rows):
            return {}
        pairs = list(zip(texts, rows, strict=True))
        return {
            "exact_match": [exact_match(text, row.answers, rules) for text, row in pairs],
            "f1": [f1_score(text, row.answers, rules) for text, row in pairs],
        }

    return WrittenFloor(
        NEAREST_WORDS,
        f"a floor, of the sentence most like the question the {n_words} words that stand nearest to the question's"
        if n_words > 1
        else "a floor, of the sentence most like the question the word that stands nearest to the question's",
        write=lambda rows: [nearest_words(row.context, row.question, n_words, vectorizer) for row in rows],
        score=score,
    )


def nearest_words(context: str, question: str, n_words: int, vectorizer: Any) -> str:
    """As many words in a row, of the sentence most like the question, that stand among its words and are none of them.

    A word of the sentence is as much like the question as it is like one of its words, by the cosine of their TF-IDF.
    Of the words outside of the chosen ones, likeness counts by one over the distance; of those inside, it is taken off.
    """
    found = sentences(context)
    likest = int((vectorizer.transform(found) @ vectorizer.transform([question]).T).toarray().argmax())
    words = found[likest].split()
    likeness = (vectorizer.transform(words) @ vectorizer.transform(question.split()).T).toarray().max(axis=1)
    places = np.arange(len(words))

    def value(start: int) -> float:
        distance = np.maximum(start - places, places - (start + n_words - 1))
        return float(np.where(distance > 0, likeness / np.maximum(distance, 1), -likeness).sum())

    start = max(range(max(len(words) - n_words + 1, 1)), key=value)
    return " ".join(words[start : start + n_words])


# ---------------------------------------------------------------------------------------------------------------------
# Answers to questions without a text
# ---------------------------------------------------------------------------------------------------------------------


def _nearest_answer(run: Run, train: Sequence[Passage]) -> WrittenFloor:
    """The answer to the training question that is most like the question, by the cosine of their TF-IDF."""
    from poetry.overlap import chrf_counts, chrf_of_counts

    asked = [str(row.question) for row in train]
    vectorizer = vectorizer_for(asked)
    known = vectorizer.fit_transform(asked)

    def write(rows: Sequence[Passage]) -> list[str]:
        likeness = vectorizer.transform([str(row.question) for row in rows]) @ known.T
        return [train[int(place)].text for place in np.asarray(likeness.argmax(axis=1)).ravel()]

    return WrittenFloor(
        NEAREST_ANSWER,
        f"a floor, from {len(train):,} training pairs",
        write=write,
        score=lambda rows, texts: {"chrf": chrf_of_counts(chrf_counts(texts, [row.text for row in rows])).tolist()},
    )


# Task -> what metrics.json must say for a floor, and what makes it.
_FLOORS: dict[str, tuple[str, Callable[[Run, Any], WrittenFloor]]] = {
    "summarization": ("lead_sentences", _first_sentences),
    "question-answering": ("rules", _nearest_words),
    "text-generation": ("pairs", _nearest_answer),
}
