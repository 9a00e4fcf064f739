"""Summarization from the command line, and what is said of summaries without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_korean import TEXTS, make_kogpt2
from tiny_run import ROOT, Result, only_run

from config import UserError
from storage import file_sha256
from summarization import SummarizationSettings, read
from tasks.rouge import rouge, words_of
from tasks.summaries import BBC, copied_share, lead, read_summaries, sentences, separate

Run = Callable[..., Result]
SMALL = ["--epochs", 2, "--batch-size", 3, "--lr", 1e-2, "--max-new-tokens", 8]


@pytest.fixture
def summarization(script: Callable[[str], Run]) -> Run:
    return script("summarization")


def write_rows(path: Path, count: int, texts: list[str] = TEXTS) -> Path:
    rows = [
        {"id": f"a{i}", "document": " ".join(texts * 2), "summary": f"{texts[i % 4]} {texts[(i + 1) % 4]}"}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["full", "prefix"])
def test_a_kogpt2_learns_to_summarize(strategy: str, summarization: Run, tmp_path: Path) -> None:
    flags: list[Any] = ["--model", make_kogpt2(tmp_path / "kogpt2"), "--language", "ko", *SMALL]
    for split, count in (("train", 6), ("dev", 2), ("test", 2)):
        flags += [f"--{split}-file", write_rows(tmp_path / f"{split}.jsonl", count)]
    if strategy == "prefix":
        flags += ["--prefix-length", 3, "--prefix-hidden", 8]
    out = tmp_path / "runs"
    done = summarization(*flags, "--strategy", strategy, "--output-dir", out)
    assert done.code == 0, done.err
    assert "<summarize> as <unused0>" in done.out and "first 2 sentences" in done.out
    metrics = json.loads((only_run(out) / "metrics.json").read_text())
    assert metrics["history"][-1]["train_loss"] < metrics["history"][0]["train_loss"]
    measures = {"rouge_1", "rouge_2", "rouge_l", "chrf", "words", "compression"}
    for split in ("dev", "test"):
        assert measures <= metrics[split].keys() and measures <= metrics["baseline"][split].keys()
    # Documents and summaries are made of the same four sentences: of the first summary the baseline has all.
    assert metrics["baseline"]["dev"]["copied"] == 1.0 and metrics["baseline"]["dev"]["rouge_1"] > 50
    (tmp_path / "document.txt").write_text(" ".join(TEXTS * 2), encoding="utf-8")
    done = summarization("--document", tmp_path / "document.txt", "--output-dir", out)
    written = json.loads((only_run(out) / "predictions/dev-written.jsonl").read_text().splitlines()[0])["written"]
    assert done.code == 0 and done.out.strip() == written and done.err.startswith("run: ")
    (tmp_path / "long.txt").write_text(" ".join(TEXTS * 300), encoding="utf-8")
    done = summarization("--document", tmp_path / "long.txt", "--output-dir", out)
    assert done.code == 0 and " are cut from the end of what is given" in done.err
    card = (only_run(out) / "best/README.md").read_text()
    assert ("</s>document<unused0>" in card) and ("can't hold the prefix" in card) == (strategy == "prefix")


def test_long_documents_are_cut_and_long_summaries_left_out_only_if_asked(
    summarization: Run, still_model: Path, tmp_path: Path
) -> None:
    words = ["the film is good.", "its music was warm.", "a dull scene.", "every actor is superb."]
    train, dev = write_rows(tmp_path / "train.jsonl", 4, words), write_rows(tmp_path / "dev.jsonl", 2, words)
    with open(train, "a") as file:
        file.write(json.dumps({"id": "long", "document": "a film", "summary": "good " * 60}) + "\n")
    flags = [
        "--model",
        still_model,
        "--train-file",
        train,
        "--dev-file",
        dev,
        *SMALL,
        "--output-dir",
        tmp_path / "runs",
    ]
    done = summarization(*flags)
    assert done.code == 2 and len(done.errors) == 1 and f"{train}: text long: what can't be cut takes" in done.errors[0]
    done = summarization(*flags, "--skip-long", "--strategy", "bitfit")
    assert done.code == 0, done.err
    assert "texts were left out of training and perplexity" in done.out and "train 1 of 5" in done.out
    assert "sources were cut: " in done.out
    with open(dev, "a") as file:
        file.write(json.dumps({"id": "long", "document": "a film", "summary": "good " * 60}) + "\n")
    done = summarization(*flags)
    assert [error.split(": ")[1] for error in done.errors] == [str(train), str(dev)]
    done = summarization(*flags, "--skip-long", "--strategy", "bitfit", "--seed", 2)
    (found,) = (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*-s2-*/metrics.json"))
    rows = (tmp_path / "runs").glob("*-s2-*/predictions/dev-scores.jsonl")
    assert found["dev"]["n"] == len(next(rows).read_text().splitlines()) == 3 and found["dev"]["n_perplexity"] == 2


def test_a_document_has_one_summary(summarization: Run, tmp_path: Path) -> None:
    for flags in ([], ["--document", tmp_path / "a.txt"]):
        done = summarization("--samples", 3, "--dry-run", *flags)
        assert done.code == 2 and "--samples: a document gets one summary" in done.errors[0]


def test_filters_of_drawing_are_refused_where_nothing_is_drawn(
    summarization: Run, still_model: Path, tmp_path: Path
) -> None:
    words = ["it is good.", "it was warm.", "a dull scene.", "it is superb."]
    train, dev = write_rows(tmp_path / "train.jsonl", 4, words), write_rows(tmp_path / "dev.jsonl", 2, words)
    flags = ["--model", still_model, "--train-file", train, "--dev-file", dev, "--output-dir", tmp_path, "--dry-run"]
    filters = ["--top-k", 5, "--top-p", 0.5, "--min-p", 0.1, "--typical-p", 0.5]
    done = summarization(*flags, *filters)
    named = ("--top-k 5", "--top-p 0.5", "--min-p 0.1", "--typical-p 0.5")
    remedy = "nothing is drawn at --temperature 0; give one above 0, or leave it out"
    assert done.code == 2 and done.errors == [f"error: {flag}: {remedy}" for flag in named]
    assert summarization(*flags, *filters, "--temperature", 0.7).code == 0


def test_bad_records_are_named(summarization: Run, still_model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"document": "", "summary": "a"}\n{"document": "a"}\nnot json\n')
    dev = write_rows(tmp_path / "dev.jsonl", 2)
    done = summarization("--model", still_model, "--train-file", bad, "--dev-file", dev)
    assert (
        done.code == 2 and [f"bad.jsonl:{i}: " in error for i, error in enumerate(done.errors, start=1)] == [True] * 3
    )


# ---------------------------------------------------------------------------------------------------------------------
# Measures
# ---------------------------------------------------------------------------------------------------------------------


def test_rouge_on_cases_worked_out_by_hand() -> None:
    english = rouge(
        ["the cats sat on a mat"], ["the cat sat"], "en"
    )  # 3 of 6 and 3 of 3 stemmed words, 2 of 5 and 2 of 2
    assert [round(english[name][0], 2) for name in ("rouge_1", "rouge_2", "rouge_l")] == [66.67, 57.14, 66.67]
    korean = rouge(
        ["비가 왔습니다, 많이."], ["어제 비가 왔습니다."], "ko"
    )  # 2 of 3 and 2 of 3 words, 1 of 2 and 1 of 2
    assert [round(korean[name][0], 2) for name in ("rouge_1", "rouge_2", "rouge_l")] == [66.67, 50.0, 66.67]
    assert rouge([""], ["네"], "ko")["rouge_1"] == [0.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Lee paid 3.5 pounds. Why? He said: \"Fine!\" Then J. Smith left.", 4),
        ("It rose... slowly, e.g. in May. The end", 2),
        ("오늘 비가 왔다. 그래서 집에 있었어요! \"좋네요.\" 끝.", 4),
        ("한 줄\n두 줄", 2),
        ('그는 "가자." 하고 말했다. "싫다!"라고 했다. "왜?" 라며 울었다.', 3),
        ('그는 "가자." 하늘이 맑았다.', 2),
        ("", 0),
    ],
)  # fmt: skip
def test_sentences(text: str, expected: int) -> None:
    found = sentences(text)
    assert len(found) == expected and "".join("".join(found).split()) == "".join(text.split())
    assert lead(text, 1) == (found[0] if found else "")


def test_copied_share_counts_word_3_grams() -> None:
    document = words_of("The cat sat on the mat.")
    assert copied_share(words_of("the cat sat down"), document) == 0.5
    assert copied_share(words_of("the cat sat on"), document) == 1.0
    short = copied_share(words_of("the cat"), document)
    assert short != short  # NaN: no 3-gram


def test_spaces_between_joined_sentences_are_put_back() -> None:
    document = 'In the U.S. it rose. "It is new," he said. Then it fell. A Zafi.B virus came.'
    joined = 'In the U.S. it rose."It is new," he said.Then it fell.A Zafi.B virus came.'
    assert separate(joined, document) == document


# ---------------------------------------------------------------------------------------------------------------------
# BBC's tree of articles
# ---------------------------------------------------------------------------------------------------------------------


def write_tree(folder: Path, count: int = 60) -> Path:
    """As Kaggle's archive unpacks: the last repeats the first but for a line break, the one before is Latin-1."""
    for number in range(1, count + 1):
        text = f"Title {number}\n\nIt cost £{number}. It rose. It fell.\n"
        if number == count:
            text = "Title 1\n\n\nIt cost £1. It rose. It fell."
        place = Path("business" if number % 2 else "tech", f"{number:03}.txt")
        for half, content in (("News Articles", text), ("Summaries", "It rose.It fell.")):
            (folder / half / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / half / place).write_bytes(content.encode("latin-1" if number == count - 1 else "utf-8"))
    (folder / "News Articles/business/._001.txt").write_bytes(b"\xff")  # macOS leaves such files behind
    return folder


def test_bbcs_tree_is_read_and_split_without_what_stands_in_it_twice(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "BBC News Summary")
    found = read({"train": [tree]}, SummarizationSettings(dataset="bbc"))
    rows = {row.id: row for split in found.splits.values() for row in split}
    assert sum(map(len, found.splits.values())) == len(rows) == 59 and "tech/060.txt" not in rows
    assert rows["business/059.txt"].document == "Title 59\n\nIt cost £59. It rose. It fell."
    assert {row.summary for row in rows.values()} == {"It rose. It fell."}
    assert 1 <= len(found.splits["dev"]) <= 15 and 1 <= len(found.splits["test"]) <= 15
    assert found.notes[1].startswith("1 of 60 articles repeat another and are left out")
    smaller = read({"train": [write_tree(tmp_path / "smaller", 40)]}, SummarizationSettings(dataset="bbc"))
    assert {row.id for row in smaller.splits["dev"]} <= {row.id for row in found.splits["dev"]}  # its own hash decides


@pytest.mark.parametrize("below", [".", "BBC News Summary"])
def test_bbcs_files_are_the_json_lines_or_else_the_tree(below: str, tmp_path: Path) -> None:
    assert BBC.files_in(tmp_path) == BBC.files
    write_tree(tmp_path / below, 2)
    assert BBC.files_in(tmp_path) == {"train": (below,)}
    write_rows(tmp_path / "dev.jsonl", 1)
    assert BBC.files_in(tmp_path) == BBC.files


def test_what_is_missing_in_bbcs_tree_is_named(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "bbc", 60)
    (tree / "Summaries/tech/002.txt").unlink()
    (tree / "News Articles/tech/004.txt").write_text(" ")
    with pytest.raises(UserError) as caught:
        read_summaries({"train": [tree], "dev": [tmp_path]})
    assert [problem.removeprefix(f"{tmp_path}").split(";")[0] for problem in caught.value.problems] == [
        "/bbc/Summaries/tech/002.txt: no such file",
        "/bbc/News Articles/tech/004.txt:1: the file is empty",
        ": holds no file News Articles/CATEGORY/NUMBER.txt",
    ]


def test_a_trees_checksum_is_that_of_its_names_and_contents(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "a", 4)
    before = file_sha256(tree)
    assert file_sha256(write_tree(tmp_path / "b", 4)) == before
    for half in ("News Articles", "Summaries"):
        (tree / half / ".ipynb_checkpoints").mkdir()  # what an editor leaves behind
        (tree / half / ".ipynb_checkpoints" / "001.txt").write_text("It fell.")
    (tree / ".DS_Store").write_bytes(b"x")
    assert file_sha256(tree) == before
    assert len(read_summaries({"train": [tree]})["train"]) == 4
    (tree / "Summaries/tech/004.txt").write_text("It rose.")
    assert file_sha256(tree) != before


def test_the_samples_are_in_the_format_that_is_read() -> None:
    for language in ("en", "ko"):
        paths = {s: [ROOT / f"data/sample/summarization-{language}-{s}.jsonl"] for s in ("train", "dev", "test")}
        assert all(read_summaries(paths).values())
