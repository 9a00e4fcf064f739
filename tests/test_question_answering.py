"""Question answering: the formats, the official scores, windows, and whole runs."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny_korean import TEXTS, make_kogpt2
from tiny_run import ROOT, Result, make_checkpoint, only_run

from config import TextTaskSettings, UserError
from models.checkpoint import read_config
from tasks.answer_scores import exact_match, f1_score, normalize_korquad, normalize_squad
from tasks.intervals import mean_intervals_over
from tasks.questions import DATASETS, Question, cut_windows, read_questions, read_split_titles, split_by_article
from training.writing import long_contexts
from training.writing.long_contexts import ANSWER, QUESTION, Asked, ask, target_of, write_answers
from training.writing.targets import Written
from training.writing.task_texts import TaskEncoder
from training.writing.task_tokens import find_task_tokens

Run = Callable[..., Result]


def squad(paragraphs: list[tuple[str, list[dict[str, Any]]]], title: str = "T") -> dict[str, Any]:
    return {"data": [{"title": title, "paragraphs": [{"context": c, "qas": qas} for c, qas in paragraphs]}]}


def asked(id_: str, text: str, start: int, **more: Any) -> dict[str, Any]:
    return {"id": id_, "question": f"What {id_}?", "answers": [{"text": text, "answer_start": start}], **more}


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    text = content if isinstance(content, str) else json.dumps(content, indent=1, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(path: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_questions(path)
    return [problem.replace(str(path), path.name) for problem in caught.value.problems]


# ---------------------------------------------------------------------------------------------------------------------
# The official rules, worked out by hand
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel  tower"], 1, 1),  # case, article, punctuation and white space don't count
        ("in the Eiffel tower", ["Eiffel Tower"], 0, 0.8),  # precision 2/3, recall 1
        ("new new york", ["New York"], 0, 0.8),  # a repeated word counts once
        ("1,000", ["1000"], 1, 1),
        ("well-known", ["well known"], 0, 0),  # punctuation leaves no space
        ("theatre", ["atre"], 0, 0),  # an article is a whole word
        ("a", ["the"], 1, 0),  # nothing is left of either: equal, but no word in common
        ("two dogs", ["cats", "dogs", "two big dogs"], 0, 0.8),  # the best of 0, 2/3 and 4/5
        ("서울시", ["서울"], 0, 0),
    ],
)
def test_squad_counts_words(answer: str, right: list[str], exact: int, f1: float) -> None:
    assert exact_match(answer, right, "squad") == exact
    assert f1_score(answer, right, "squad") == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("《삼국지》", ["삼국지"], 1, 1),
        ("‘춘향전’", ["<춘향전>", "심청전"], 1, 1),
        ("서울시", ["서울"], 0, 0.8),  # 2 of 3 characters, and both of 2
        ("1989년 2월 15일", ["2월 15일"], 0, 2 / 3),  # 5 of 10 characters, and all of 5; spaces are none
        ("서울(한양)", ["서울 한양"], 1, 1),  # a bracket leaves a space
        ("서울한양", ["서울 한양"], 0, 1),
        ("U.S.A.", ["usa"], 1, 1),
        ("the 책", ["책"], 0, 0.4),  # no articles in Korean: 1 of 4 characters, and 1 of 1
        ("“서울”", ["서울"], 0, 2 / 3),  # these quotation marks are not among those that the script removes
        ("부산", ["서울"], 0, 0),
    ],
)
def test_korquad_counts_characters(answer: str, right: list[str], exact: int, f1: float) -> None:
    assert exact_match(answer, right, "korquad") == exact
    assert f1_score(answer, right, "korquad") == pytest.approx(f1)


def test_what_is_left_of_an_answer() -> None:
    assert normalize_squad("  The U.S. -- an Answer, (a) ") == "us answer"
    assert normalize_korquad(" 'A'〈가〉 \"나\"(다)-라! ") == "a 가 나 다 라"


def test_intervals_draw_whole_contexts() -> None:
    """With two contexts of which one is always answered and one never, a draw holds both, or one of them twice."""
    groups, column = ["a"] * 30 + ["b"] * 30, [1.0] * 30 + [0.0] * 30
    assert mean_intervals_over(groups, {"f1": column}, seed=0) == {"f1": [0.0, 1.0]}
    (low, high) = mean_intervals_over([str(i) for i in range(60)], {"f1": column}, seed=0)["f1"]
    assert 0.3 < low < 0.45 and 0.55 < high < 0.7


# ---------------------------------------------------------------------------------------------------------------------
# Formats
# ---------------------------------------------------------------------------------------------------------------------


def test_squad_and_json_lines_give_the_same_questions(tmp_path: Path) -> None:
    context = "Anna lives in Rome. Rome is old."
    answers = [{"text": "Rome", "answer_start": 20}, {"text": "Rome", "answer_start": 14}]
    plain = write(tmp_path, "a.json", squad([(context, [{"id": "1", "question": " Where? ", "answers": answers}])]))
    rows = [{"id": "1", "title": "T", "context": context, "question": "Where?", "answers": answers},
            {"id": "1", "title": "T", "context": context, "question": "Where?",
             "answers": {"text": ["Rome", "Rome"], "answer_start": [20, 14]}}]  # fmt: skip
    (expected,) = read_questions(plain).questions
    assert (expected.answers, expected.start, expected.title, expected.question) == (
        ("Rome", "Rome"),
        20,
        "T",
        "Where?",
    )
    for row in rows:
        assert read_questions(write(tmp_path, "a.jsonl", json.dumps(row))).questions == [expected]
    (found,) = read_questions(write(tmp_path, "b.jsonl", json.dumps(rows[0] | {"answers": "Rome"}))).questions
    assert (found.answers, found.start) == (("Rome",), 14)


def test_a_context_in_another_form_is_composed_and_the_place_moves_with_it(tmp_path: Path) -> None:
    context = unicodedata.normalize("NFD", "한국의 수도는 서울이다.")
    text = unicodedata.normalize("NFD", " 서울")
    path = write(tmp_path, "a.json", squad([(context, [asked("1", text, context.index(text))])]))
    (question,) = read_questions(path).questions
    assert (question.context, question.answers, question.start) == ("한국의 수도는 서울이다.", ("서울",), 8)


@pytest.mark.parametrize(("form_of_context", "form_of_answer"), [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize("start", [None, 5])
def test_an_answer_may_be_in_another_form_than_its_context(
    tmp_path: Path, form_of_context: Any, form_of_answer: Any, start: int | None
) -> None:
    """They look the same on a screen."""
    context = unicodedata.normalize(form_of_context, "Ann은 로마에 산다.")
    place = context.index(unicodedata.normalize(form_of_context, "로마")) if start else None
    answer = {"text": unicodedata.normalize(form_of_answer, "로마"), "answer_start": place}
    row = {"context": context, "question": "어디?", "answers": [answer]}
    (found,) = read_questions(write(tmp_path, "a.jsonl", json.dumps(row))).questions
    assert (found.answers, found.start) == (("로마",), 5)


def test_a_test_file_that_is_partly_answered_is_refused_with_the_line(tmp_path: Path) -> None:
    rows = [{"context": "Rome is old.", "question": "What?", "answers": answers} for answers in (["Rome"], [], [])]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError) as caught:
        read_questions(path, labelled=False)
    assert caught.value.problems == [f"{path}:2: 2 of 3 questions have no answer, such as 2; answer all, or none"]


def test_bad_lines_and_bad_questions_are_named_together(tmp_path: Path) -> None:
    good = {"context": "Rome is old.", "question": "What?", "answers": ["Paris"]}
    path = write(tmp_path, "a.jsonl", json.dumps(good) + "\n{\n5\n")
    with pytest.raises(UserError) as caught:
        read_questions(path)
    assert sorted(problem.split(":")[1] for problem in caught.value.problems) == ["1", "2", "3"]


def test_questions_without_an_answer_in_their_text_are_counted(tmp_path: Path) -> None:
    impossible = {"id": "2", "question": "Why?", "answers": [], "is_impossible": True}
    path = write(tmp_path, "a.json", squad([("Rome is old.", [asked("1", "Rome", 0), impossible])]))
    found = read_questions(path)
    assert (len(found.questions), found.n_impossible) == (1, 1)


def test_all_bad_questions_are_named_by_id_and_line(tmp_path: Path) -> None:
    context = "Rome is old. 서울은 크다."
    questions = [asked("ok", "Rome", 0), asked("moved", "old", 3), asked("other", "Paris", 0), asked("none", "", 0),
                 asked("ok", "Rome", 0), {"id": "empty", "question": "Why?", "answers": []},
                 asked("negative", "Rome", -12), {"id": "x", "question": ""}]  # fmt: skip
    path = write(tmp_path, "a.json", squad([(context, questions), ("", [])]))
    written = path.read_text().split("\n")
    found = problems_of(path)
    for id_, words in [
        ("moved", "at 3 of the context stands 'e i', not the answer 'old', which stands at 8; correct answer_start"),
        ("other", "the answer 'Paris' does not stand in the context; mend the answer or the context"),
        ("none", "an answer is empty; write it, or delete the question"),
        ("empty", "it has no answer; write one, or delete it"),
        ("negative", "at -12 of the context stands '', not the answer 'Rome', which stands at 0; correct answer_start"),
    ]:
        line = next(number for number, text in enumerate(written, start=1) if f'"id": "{id_}"' in text)
        assert f"a.json:{line}: question {id_}: {words}" in found
    last = max(number for number, text in enumerate(written, start=1) if '"id": "ok"' in text)
    assert f"a.json:{last}: question ok: the id stands there twice; change one" in found
    assert len(found) == 8


def test_an_empty_context_or_question_is_told_by_the_nearest_line(tmp_path: Path) -> None:
    """The line of the first id in it, or of the last one before it."""
    nameless = {"question": "Where?", "answers": []}
    first = [asked("a", "Rome", 0), {"id": "x", "question": ""}, nameless]
    paragraphs = [("", []), ("Rome is old.", first), ("", []), ("", [nameless, asked("b", "Rome", 0)]), ("", [])]
    path = write(tmp_path, "a.json", squad(paragraphs))
    written = path.read_text().split("\n")
    line = {id_: next(n for n, text in enumerate(written, 1) if f'"id": "{id_}"' in text) for id_ in "axb"}
    context = "no context, or no list of questions (qas); write both, or delete it"
    question = "a question without its text or id; write both, or delete it"
    assert problems_of(path) == [
        f"a.json: paragraph 1 of the file (T): {context}",  # no id stands before it
        f"a.json:{line['x']}: paragraph 2 of the file (T): {question}",
        f"a.json:{line['x']}: paragraph 2 of the file (T): {question}",
        f"a.json:{line['x']}: paragraph 3 of the file (T): {context}",
        f"a.json:{line['b']}: paragraph 4 of the file (T): {context}",
        f"a.json:{line['b']}: paragraph 5 of the file (T): {context}",
    ]


def test_many_bad_questions_take_no_longer_than_reading(tmp_path: Path) -> None:
    """Looking through the file for each of them would take many times the limit."""
    path = write(tmp_path, "a.json", squad([("x", [asked(f"q{i}", "none", 0) for i in range(4000)])]))
    started = time.process_time()
    found = problems_of(path)
    assert time.process_time() - started < 2
    line = next(number for number, text in enumerate(path.read_text().split("\n"), start=1) if '"q19"' in text)
    assert len(found) == 21 and found[19].startswith(f"a.json:{line}: question q19: ")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", '{"data": [\n{"title" "T"}]}', "a.json:2: no JSON ("),
        ("a.json", '{"data": [1]}', "a.json: not SQuAD's layout"),
        ("a.json", "[]", "a.json: not SQuAD's layout"),
        ("a.json", '{"data": []}', "a.json: holds no question"),
        ("a.jsonl", '{"context": "x", "question": "y", "answers": ["z"]}', "a.jsonl:1: question 1: the answer 'z'"),
        ("a.jsonl", '{"context": "x", "answers": ["x"]}', "a.jsonl:1: no field 'question'"),
        ("a.csv", "x", "a.csv: the ending '.csv' says no format"),
    ],
)
def test_a_file_that_can_not_be_read(tmp_path: Path, name: str, content: str, words: str) -> None:
    (problem,) = problems_of(write(tmp_path, name, content))
    assert problem.startswith(words) and "; " in problem


def test_korquad_is_split_by_article(shared: Path) -> None:
    path = shared / "data" / "korean" / "korquad" / DATASETS["korquad"].files["dev"][0]
    questions = read_questions(path).questions
    titles = read_split_titles(ROOT / "data" / "splits" / "korquad.json")
    splits = split_by_article(path, questions, titles)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 3960, "dev": 709, "test": 1105}
    with pytest.raises(UserError, match="is missing") as caught:
        split_by_article(path, [q for q in questions if q.title != "금강산"], titles)
    assert len(caught.value.problems) == 1


def test_no_article_is_in_two_splits() -> None:
    titles = read_split_titles(ROOT / "data" / "splits" / "korquad.json")
    assert {split: len(names) for split, names in titles.items()} == {"train": 100, "dev": 20, "test": 20}
    assert len({name for names in titles.values() for name in names}) == 140


# ---------------------------------------------------------------------------------------------------------------------
# Windows
# ---------------------------------------------------------------------------------------------------------------------


def tokens_of(text: str) -> list[tuple[int, int]]:
    """Two letters each; a space belongs to the token after it."""
    found, at = [], 0
    while at < len(text):
        end = min(at + 2 + (text[at] == " "), len(text))
        end = next((i for i in range(at + 1, end) if text[i] == " "), end)
        found.append((at, end))
        at = end
    return found


def test_a_context_that_fits_is_one_window() -> None:
    assert cut_windows("aa bb cc", tokens_of("aa bb cc"), room=3) == [(0, 8)]


@pytest.mark.parametrize("stride", [None, 1, 3, 4, 100])
def test_windows_hold_every_word_and_no_more_than_fits(stride: int | None) -> None:
    text = "aa bbbb cc dddddd e ffff gg hhhh iiii jj kkkkkkkk ll"
    windows = cut_windows(text, tokens_of(text), room=5, stride=stride)
    pieces = [text[begin:end] for begin, end in windows]
    assert pieces[0].startswith("aa ") and pieces[-1].endswith(" ll")
    for piece in pieces:
        assert len(tokens_of(piece)) <= 5 and set(piece.split()) <= set(text.split())
    assert {word for piece in pieces for word in piece.split()} == set(text.split())
    begins = [len(tokens_of(text[:begin].rstrip())) for begin, _ in windows]
    steps = [later - earlier for earlier, later in pairwise(begins)]
    assert all(step >= 1 for step in steps) and (stride != 4 or max(steps) <= 4)  # no word is longer than 4


def test_a_word_longer_than_the_window_is_cut_between_tokens() -> None:
    text = "a" + "bcdefghij" * 3 + " z"
    windows = cut_windows(text, tokens_of(text), room=4, stride=4)
    assert all(len(tokens_of(text[begin:end])) <= 4 for begin, end in windows)
    assert "".join(text[begin:end] for begin, end in windows).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("stride", [None, 2, 20])
def test_windows_end_between_characters_that_have_several_tokens(stride: int | None) -> None:
    """As in byte-level BPE: here three tokens for each character."""
    text = "가나다라" * 30
    tokens = [(i, i + 1) for i in range(len(text)) for _ in range(3)]
    windows = cut_windows(text, tokens, room=20, stride=stride)
    assert all(3 * (end - begin) <= 20 for begin, end in windows)
    assert {place for begin, end in windows for place in range(begin, end)} == set(range(len(text)))


@pytest.mark.parametrize(("name", "language", "share"), [("mini", "en", 0.9), ("ko-mini", "ko", 0.7)])
def test_no_window_is_cut_and_answers_have_the_same_tokens_in_them(name: str, language: str, share: float) -> None:
    """The bundled tokenizers on the bundled questions, in a context that makes windows of most of them.

    Not all answers are whole words of the context: Korean ones often stand before a particle.
    """
    folder = ROOT / "data" / "checkpoints" / name
    vocabulary = find_task_tokens(folder, read_config(folder), (QUESTION, ANSWER))
    encoder = TaskEncoder(vocabulary.tokenizer, vocabulary.ids, vocabulary.end, context=96)
    path = ROOT / "data" / "sample" / f"question-answering-{language}-dev.json"
    asked = ask(read_questions(path).questions, encoder, max_new_tokens=24)
    assert sum(len(one.windows) > 1 for one in asked) > len(asked) / 2
    learnt = [text for one in asked for text in one.learnt]
    assert all(one.learnt for one in asked) and len(learnt) < sum(len(one.windows) for one in asked)
    assert encoder.fit(learnt).cut == 0
    same = 0
    for text in learnt:
        (window, target) = encoder.token_ids([text.parts[0].text, text.target])
        (question,) = encoder.token_ids([text.parts[2].text])
        assert len(encoder.prompts([text], room=24)[0]) == len(window) + len(question) + 3
        same += any(window[at : at + len(target)] == target for at in range(len(window)))
    assert same > share * len(learnt)


@pytest.fixture(scope="module")
def encoder(model: Path) -> TaskEncoder:
    vocabulary = find_task_tokens(model, read_config(model), (QUESTION, ANSWER))
    return TaskEncoder(vocabulary.tokenizer, vocabulary.ids, vocabulary.end, context=48)


def test_a_task_token_spelled_out_in_a_context_costs_no_window_its_answer(encoder: TaskEncoder) -> None:
    context = "the film " + "<answer> " * 5 + "is superb"
    (one,) = ask([Question("1", "", context, "what", ("superb",), context.index("superb"))], encoder, max_new_tokens=8)
    assert one.learnt and encoder.fit(one.learnt).cut == 0


def test_the_windows_that_are_answered_do_not_depend_on_the_known_answer(encoder: TaskEncoder) -> None:
    context = "the film is good " * 6
    answer = "the film is good the film is good the film is good"
    known, unknown = (Question("1", "", context, "what", *rest) for rest in (((answer,), 0), ((), None)))
    one, other = ask([known, unknown], encoder, max_new_tokens=2)
    assert one.windows == other.windows
    assert one.learnt and encoder.fit(one.learnt).cut == 0


def test_the_surest_answer_wins_and_silence_wins_last(monkeypatch: pytest.MonkeyPatch) -> None:
    context = "Rome is old. Oslo is cold."
    question = Question("7", "", context, "What?", ("Oslo",), 13)
    written = {"old": -2.0, "Oslo": -0.5, "": -0.1, "cold": -0.7}
    texts = [long_contexts.TaskText(f"7 {i}", (), "") for i in range(len(written))]
    answers = [Written(text, mean, 1, True) for text, mean in written.items()]
    monkeypatch.setattr(long_contexts, "write_targets", lambda *_, **__: [*answers, Written("", -3.0, 0, True)])
    rows = [Asked(question, tuple(texts), ()), Asked(question, (texts[0],), ())]
    ((window, first), (_, second)) = write_answers(None, rows, TextTaskSettings())  # type: ignore[arg-type]
    assert (first.text, window.id, window.target) == ("Oslo", "7", " Oslo")
    assert second.text == ""


def test_an_answer_is_learnt_with_the_space_before_it() -> None:
    for context, start, target in (
        ("in Rome", 3, " Rome"),
        ("Rome", 0, "Rome"),
        ("(Rome)", 1, "Rome"),
        ("a\nRome", 2, "Rome"),
    ):
        assert target_of(Question("1", "", context, "?", ("Rome",), start)) == target


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs
# ---------------------------------------------------------------------------------------------------------------------

FILLER = "the story of this film is rather plain and the music in every scene is quite usual " * 3


def questions(count: int, start: int = 0, n_words: int = 13) -> dict[str, Any]:
    """Contexts of different lengths; their second word answers."""
    paragraphs = []
    for i in range(start, start + count):
        answer = ("superb", "awful", "warm")[i % 3]
        context = f"the {answer} film {' '.join(FILLER.split()[: n_words * (i % 4)])}"
        paragraphs.append((context, [asked(f"q{i}", answer, 4)]))
    return squad(paragraphs)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0)


@pytest.fixture
def answer(script: Callable[[str], Run]) -> Run:
    return script("question_answering")


def metrics_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


def test_a_run_from_windows_to_scores(answer: Run, model: Path, tmp_path: Path) -> None:
    """The model of 48 tokens reads the longer ones in windows; what the run says of each question is recomputed."""
    train = write(tmp_path, "train.json", questions(12))
    dev = write(tmp_path, "dev.json", questions(7, start=12))
    no_answers = json.loads(json.dumps(questions(2)))
    for paragraph in no_answers["data"][0]["paragraphs"]:
        paragraph["qas"][0]["answers"] = []
    test = write(tmp_path, "test.json", no_answers)
    done = answer("--train-file", train, "--dev-file", dev, "--test-file", test, "--model", model, "--epochs", 2,
                  "--lr", 0.01, "--batch-size", 4, "--max-new-tokens", 6, "--stride", 8, "--show-examples", 1,
                  "--output-dir", tmp_path / "runs", "--precision", "fp32")  # fmt: skip
    assert done.code == 0, done.err
    assert "training windows" in done.out and "don't hold the answer and are skipped; 0 of 12 questions" in done.out
    assert "<question>" in done.out and "answers are measured by the rules of squad" in done.out
    run = only_run(tmp_path / "runs")
    metrics, predictions = metrics_of(run), run / "predictions"
    said = json.loads((predictions / "question-answering-custom-dev-predictions.json").read_text())
    rows = [json.loads(line) for line in (predictions / "dev-scores.jsonl").read_text().splitlines()]
    by_id = {question.id: question for question in read_questions(dev).questions}
    assert list(said) == [row["id"] for row in rows] == list(by_id)
    for row in rows:
        text, right = said[row["id"]], by_id[row["id"]].answers
        assert row["exact_match"] == exact_match(text, right, "squad") and row["f1"] == f1_score(text, right, "squad")
        assert row["in_context"] == (text != "" and text in by_id[row["id"]].context)
        assert row["log_probability"] < 0
    for name in ("exact_match", "f1", "in_context"):
        low, high = metrics["dev_ci"][name]
        assert metrics["dev"][name] == pytest.approx(sum(row[name] for row in rows) / 7)
        assert low <= metrics["dev"][name] <= high
    assert "test" not in metrics and "test_ci" not in metrics
    assert len(json.loads((predictions / "question-answering-custom-test-predictions.json").read_text())) == 2

    question = by_id["q15"]  # with several windows
    again = answer("--context", question.context, "--question", question.question, "--output-dir", tmp_path / "runs")
    assert again.code == 0 and again.out.strip() == said["q15"]


def test_a_model_of_kogpt2_s_layout_takes_its_spare_tokens(answer: Run, tmp_path: Path) -> None:
    paragraphs = [(text, [asked(f"q{i}", text.split()[1], text.index(" ") + 1)]) for i, text in enumerate(TEXTS)]
    path = write(tmp_path, "a.json", squad(paragraphs))
    done = answer("--train-file", path, "--dev-file", path, "--language", "ko", "--model", make_kogpt2(tmp_path / "m"),
                  "--epochs", 1, "--strategy", "bitfit", "--max-new-tokens", 3,
                  "--output-dir", tmp_path / "runs")  # fmt: skip
    assert done.code == 0, done.err
    assert "<question> as <unused0>, <answer> as <unused1>" in done.out
    assert metrics_of(only_run(tmp_path / "runs"))["rules"] == "korquad"


def test_questions_that_do_not_fit_are_named_before_training_or_left_out(
    answer: Run, model: Path, tmp_path: Path
) -> None:
    train = write(tmp_path, "train.json", questions(3))
    row = {"context": "the film is good " * 8, "question": "story " * 70, "answers": ["film"]}
    lines = [json.dumps(row | more) + "\n" for more in ({"question": "what"}, {"id": "long"})]
    dev, test = write(tmp_path, "dev.jsonl", "".join(lines)), write(tmp_path, "test.jsonl", lines[1])
    command = ["--train-file", train, "--dev-file", dev, "--test-file", test, "--model", model, "--epochs", 1,
               "--max-new-tokens", 4, "--output-dir", tmp_path / "runs"]  # fmt: skip
    done = answer(*command)
    assert done.code == 2 and len(done.errors) == 2, done.err
    for path, error in zip((dev, test), done.errors, strict=True):
        assert error.startswith(f"error: {path}: text long: what can't be cut") and "--skip-long" in error
    assert not (tmp_path / "runs").exists()
    done = answer(*command, "--skip-long")
    assert done.code == 0, done.err
    for split, count in (("dev", "1 of 2"), ("test", "1 of 1")):
        assert f"{split}: {count} questions do not fit the context and are left out" in done.out
    assert metrics_of(only_run(tmp_path / "runs"))["dev"]["n"] == 1
    done = answer("--context", row["context"], "--question", row["question"], "--output-dir", tmp_path / "runs")
    assert done.code == 2 and done.err.endswith("context of 48; shorten it\n")  # no flag leaves it out here


def test_mistakes_end_in_one_line_each(answer: Run, model: Path, tmp_path: Path) -> None:
    good = write(tmp_path, "good.json", questions(2))
    bad = write(tmp_path, "bad.json", squad([("Rome is old.", [asked("1", "Rome", 3)])]))
    one = write(tmp_path, "one.json", squad([("Rome is old.", [asked("1", "Rome", 0), asked("2", "old", 8)])]))
    row = {"context": "Rome is old.", "question": "what"}
    half = write(tmp_path, "half.jsonl", json.dumps(row | {"answers": ["Rome"]}) + "\n" + json.dumps(row) + "\n")
    common = ["--model", model, "--output-dir", tmp_path / "runs"]
    for flags, words in (
        (["--train-file", good, "--dev-file", bad], f"{bad}:10: question 1: at 3 of the context stands 'e is'"),
        (["--train-file", good, "--dev-file", good, "--samples", 2], "--samples: a question gets one answer"),
        (["--train-file", good, "--dev-file", good, "--keep", "end"], "--keep: a long context is read in windows"),
        (["--train-file", good, "--dev-file", good, "--test-file", half], f"{half}:2: 1 of 2 questions have no answer"),
        (
            ["--train-file", one, "--hold-out", 2],
            f"{one}: no text to train on is left: --hold-out 2 keeps back the only",
        ),
        (["--context", "x"], "--context and --question: one is missing or empty"),
        (["--question", "x", "--context", "y"], "holds no finished question-answering run"),
        (["--question", "x", "--context", "y", "--samples", 2], "--samples: a question gets one answer"),
        (["--from-run", "x"], "--from-run x: goes with --context and --question; without, a new run is trained"),
        (["--dataset", "korquad", "--data-dir", tmp_path], "KorQuAD_v1.0_dev.json: missing"),
    ):
        done = answer(*flags, *common)
        assert done.code == 2 and words in done.errors[0], done.err
    assert not (tmp_path / "runs").exists()
