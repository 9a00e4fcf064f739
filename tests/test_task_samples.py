"""The bundled samples of text generation, summarization, inference and question answering, in English and Korean."""

from __future__ import annotations

import csv
import itertools
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"
LANGUAGES = ("en", "ko")
SPLITS = ("train", "dev", "test")
EXTENSIONS = {"text-generation": "csv", "summarization": "jsonl", "inference": "tsv", "question-answering": "json"}
LABELS = ("entailment", "neutral", "contradiction")
FILES = [
    f"{task}-{language}-{split}.{extension}"
    for task, extension in EXTENSIONS.items()
    for language in LANGUAGES
    for split in SPLITS
]
# So many words in a row are no accident. A Korean word carries its particle and says more than an English one.
RUN_OF_WORDS = {"en": 6, "ko": 4}
NEGATION = {
    "en": r"\b(?:not|no|never|none|nobody|nothing|nowhere|neither|nor|without|cannot|hardly)\b|n't\b",
    "ko": r"않|못|없|아니|\b안\b|말고|대신",
}


@dataclass(frozen=True)
class Inference:
    premise: str
    hypothesis: str
    label: str


@dataclass(frozen=True)
class Question:
    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]  # text and start


def path_of(task: str, language: str, split: str) -> Path:
    return SAMPLE / f"{task}-{language}-{split}.{EXTENSIONS[task]}"


def read_chat(language: str, split: str) -> list[tuple[str, str]]:
    with path_of("text-generation", language, split).open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, strict=True)
    assert header == ["Q", "A"]
    return [(question, answer) for question, answer in rows]


def read_summaries(language: str, split: str) -> list[dict[str, str]]:
    lines = path_of("summarization", language, split).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def read_inference(language: str, split: str) -> list[Inference]:
    header, *lines = path_of("inference", language, split).read_text(encoding="utf-8").splitlines()
    assert header == "sentence1\tsentence2\tgold_label"
    return [Inference(*line.split("\t")) for line in lines]


def read_articles(language: str, split: str) -> list[dict[str, Any]]:
    content = json.loads(path_of("question-answering", language, split).read_text(encoding="utf-8"))
    assert list(content) == ["version", "data"] and content["version"] == "1.1"
    return content["data"]


def read_paragraphs(language: str, split: str) -> list[dict[str, Any]]:
    return [paragraph for article in read_articles(language, split) for paragraph in article["paragraphs"]]


def read_questions(language: str, split: str) -> list[Question]:
    return [
        Question(
            asked["id"],
            asked["question"],
            paragraph["context"],
            tuple((answer["text"], answer["answer_start"]) for answer in asked["answers"]),
        )
        for paragraph in read_paragraphs(language, split)
        for asked in paragraph["qas"]
    ]


def texts_of(task: str, language: str, split: str) -> list[str]:
    """Every text of a file that somebody has written, once for each place where it stands."""
    if task == "text-generation":
        return [text for pair in read_chat(language, split) for text in pair]
    if task == "summarization":
        return [row[field] for row in read_summaries(language, split) for field in ("document", "summary")]
    if task == "inference":
        return [text for row in read_inference(language, split) for text in (row.premise, row.hypothesis)]
    contexts = [paragraph["context"] for paragraph in read_paragraphs(language, split)]
    return contexts + [asked.question for asked in read_questions(language, split)]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def runs(texts: Iterable[str], length: int) -> set[tuple[str, ...]]:
    """All sequences of so many words that follow each other in a text."""
    split = [words(text) for text in texts]
    return {tuple(text[i : i + length]) for text in split for i in range(len(text) - length + 1)}


def n_sentences(text: str) -> int:
    without_titles = re.sub(r"\b(Mr|Mrs|Ms)\.", r"\1", text)
    return len(re.findall(r"[.!?]\"?(?: |$)", without_titles))


def all_splits(read: Any, language: str) -> Iterator[Any]:
    return itertools.chain.from_iterable(read(language, split) for split in SPLITS)


# ---------------------------------------------------------------------------------------------------------------------
# Format
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_bytes_are_composed_utf8_with_plain_line_ends(name: str) -> None:
    text = (SAMPLE / name).read_bytes().decode("utf-8")
    assert unicodedata.is_normalized("NFC", text)
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert sorted(set(text) & set("\r\ufeff\u00a0\u200b")) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", EXTENSIONS)
def test_texts_are_not_empty_and_have_single_spaces_only(task: str, language: str) -> None:
    texts = [text for split in SPLITS for text in texts_of(task, language, split)]
    assert len(texts) > 100 and [text for text in texts if not text or text != " ".join(text.split())] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_of_examples(language: str) -> None:
    readers = (read_chat, read_summaries, read_inference, read_questions)
    counts = [[len(read(language, split)) for split in SPLITS] for read in readers]
    assert counts == [[60, 20, 20], [60, 20, 20], [63, 21, 21], [60, 20, 20]]


@pytest.mark.parametrize("task", EXTENSIONS)
def test_korean_files_are_written_in_hangul_and_english_ones_in_ascii(task: str) -> None:
    assert all(text.isascii() for split in SPLITS for text in texts_of(task, "en", split))
    for text in (text for split in SPLITS for text in texts_of(task, "ko", split)):
        letters = [character for character in text if character.isalpha()]
        assert all("가" <= letter <= "힣" for letter in letters), text


# ---------------------------------------------------------------------------------------------------------------------
# Splits
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", EXTENSIONS)
def test_no_text_stands_in_two_splits(task: str, language: str) -> None:
    """Neither a whole text, whatever its punctuation, nor a longer run of words."""
    texts = [texts_of(task, language, split) for split in SPLITS]
    for first, second in itertools.combinations(texts, 2):
        assert {" ".join(words(text)) for text in first} & {" ".join(words(text)) for text in second} == set()
        assert runs(first, RUN_OF_WORDS[language]) & runs(second, RUN_OF_WORDS[language]) == set()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", ["text-generation", "summarization", "question-answering"])
def test_no_text_stands_twice(task: str, language: str) -> None:
    count = Counter(" ".join(words(text)) for split in SPLITS for text in texts_of(task, language, split))
    assert [text for text, n in count.items() if n > 1] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_ids_are_unique_over_the_splits(language: str) -> None:
    summaries = [row["id"] for row in all_splits(read_summaries, language)]
    questions = [asked.id for asked in all_splits(read_questions, language)]
    assert len(set(summaries)) == len(summaries) == len(set(questions)) == len(questions) == 100


def test_no_chat_line_stands_in_the_published_korean_pairs(shared: Path) -> None:
    with (shared / "data" / "korean" / "chatbot" / "ChatbotData.csv").open(encoding="utf-8", newline="") as file:
        published = {"".join(words(text)) for row in csv.reader(file) for text in row[:2]}
    ours = {"".join(words(text)) for pair in all_splits(read_chat, "ko") for text in pair}
    assert len(published) > 10_000 and ours & published == set()


# ---------------------------------------------------------------------------------------------------------------------
# Text generation and summarization
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_have_one_or_two_sentences(language: str) -> None:
    pairs = list(all_splits(read_chat, language))
    assert [answer for _, answer in pairs if n_sentences(answer) not in (1, 2)] == []
    assert [question for question, _ in pairs if n_sentences(question) != 1] == []


def test_every_sentence_of_a_korean_answer_is_polite() -> None:
    sentences = [part for _, answer in all_splits(read_chat, "ko") for part in re.split(r"(?<=[.!?]) ", answer)]
    assert len(sentences) > 100 and [part for part in sentences if not re.search(r"(?:요|죠)[.!?]$", part)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_documents_and_summaries_have_their_lengths(language: str) -> None:
    for row in all_splits(read_summaries, language):
        assert list(row) == ["id", "document", "summary"]
        assert 60 <= len(row["document"].split()) <= 130 and 4 <= n_sentences(row["document"]) <= 8, row["id"]
        assert n_sentences(row["summary"]) in (1, 2), row["id"]
        assert len(row["summary"].split()) < 0.5 * len(row["document"].split()), row["id"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_summaries_are_in_own_words(language: str) -> None:
    for row in all_splits(read_summaries, language):
        assert runs([row["summary"]], 4) & runs([row["document"]], 4) == set(), row["id"]


# ---------------------------------------------------------------------------------------------------------------------
# Inference
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_are_balanced(language: str, split: str) -> None:
    rows = read_inference(language, split)
    assert set(Counter(row.label for row in rows).items()) == {(label, len(rows) // 3) for label in LABELS}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_hypothesis_alone_says_nothing_about_its_label(language: str, split: str) -> None:
    """Each hypothesis has all three labels equally often, so whatever sees no premise is right on a third."""
    labels_of = defaultdict(list)
    for row in read_inference(language, split):
        labels_of[row.hypothesis].append(row.label)
    assert all(sorted(labels) == sorted(LABELS) for labels in labels_of.values())


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_premise_has_up_to_three_hypotheses_one_per_label(language: str, split: str) -> None:
    labels_of = defaultdict(list)
    for row in read_inference(language, split):
        labels_of[row.premise].append(row.label)
    assert all(len(set(labels)) == len(labels) for labels in labels_of.values())
    assert len(labels_of) == {"train": 21, "dev": 9, "test": 9}[split]


@pytest.mark.parametrize("language", LANGUAGES)
def test_negation_does_not_mark_contradictions(language: str) -> None:
    rows = list(all_splits(read_inference, language))
    with_negation = Counter(
        row.label for row in rows if re.search(NEGATION[language], f"{row.premise} {row.hypothesis}".lower())
    )
    assert min(with_negation.values()) >= 5 and max(with_negation.values()) - min(with_negation.values()) <= 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_hold_no_quotation_mark(language: str) -> None:
    """So the files read the same under every quoting rule."""
    assert not any('"' in path_of("inference", language, split).read_text(encoding="utf-8") for split in SPLITS)


# ---------------------------------------------------------------------------------------------------------------------
# Question answering
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_answer_stands_where_its_start_says(language: str) -> None:
    for asked in all_splits(read_questions, language):
        assert asked.answers
        for text, start in asked.answers:
            assert text and asked.context[start : start + len(text)] == text, asked.id


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_are_whole_words_or_whole_up_to_a_particle(language: str) -> None:
    """An answer begins where a word begins; in English it also ends where one ends."""
    for asked in all_splits(read_questions, language):
        for text, start in asked.answers:
            before, after = asked.context[:start][-1:], asked.context[start + len(text) :][:1]
            assert before in ("", " "), asked.id
            assert language == "ko" or not after.isalnum(), asked.id


@pytest.mark.parametrize("language", LANGUAGES)
def test_training_questions_have_one_answer_and_others_may_have_several(language: str) -> None:
    several = {split: sum(len(row.answers) > 1 for row in read_questions(language, split)) for split in SPLITS}
    assert several["train"] == 0 and several["dev"] >= 5 and several["test"] >= 5


@pytest.mark.parametrize("language", LANGUAGES)
def test_paragraphs_have_their_length_and_three_to_five_questions(language: str) -> None:
    for paragraph in all_splits(read_paragraphs, language):
        assert 60 <= len(paragraph["context"].split()) <= 120, paragraph["context"]
        assert 3 <= len(paragraph["qas"]) <= 5
        assert all(asked["question"].endswith("?") for asked in paragraph["qas"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_article_stands_in_two_splits(language: str) -> None:
    titles = [article["title"] for article in all_splits(read_articles, language)]
    assert len(set(titles)) == len(titles) == 25
