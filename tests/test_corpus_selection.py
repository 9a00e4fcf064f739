"""Which documents are kept, how often, and in which split."""

from __future__ import annotations

import gzip
import json
import re
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import zstandard
from tqdm import tqdm

from config import UserError
from corpus.selection import (
    DUPLICATE,
    EXCLUDED,
    RECORD_FIELDS,
    RUN_WORDS,
    TEST,
    TRAIN,
    VALIDATION,
    Part,
    Selection,
    describe,
    digest,
    evaluation_note,
    evaluation_runs,
    matching_file,
    select,
    uniform,
    word_runs,
)

WORDS = [f"word{number}" for number in range(40)]


def write_part(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    path.write_bytes(zstandard.compress(lines.encode()))
    return path


def make_selection(
    folder: Path, sources: list[list[str]], weights: list[float] | None = None, exclude: list[Path] | None = None,
    workers: int = 1,
) -> Selection:  # fmt: skip
    parts = [
        Part(write_part(folder / f"{number}.jsonl.zst", texts), number, folder / "records" / f"{number}.npy")
        for number, texts in enumerate(sources)
    ]
    describe(parts, exclude or [], workers, lambda: None, tqdm(disable=True))
    return select(parts, weights or [1.0] * len(sources), validation_share=0.1, test_share=0.05)


def test_a_run_of_13_words_is_found(tmp_path: Path) -> None:
    (tmp_path / "dev.csv").write_text("id\tsentence\n7\t" + " ".join(WORDS[:20]) + "\n")
    runs = evaluation_runs([tmp_path / "dev.csv"])
    assert matching_file("Before it, " + ", ".join(WORDS[5:18]).upper() + "!", runs) == 0
    assert matching_file(" ".join(WORDS[5:17]), runs) == -1  # only 12
    assert matching_file(" ".join([*WORDS[5:11], "other", *WORDS[11:18]]), runs) == -1
    assert matching_file("", runs) == -1
    assert RUN_WORDS == 13


def test_evaluation_files_may_be_json_or_compressed(tmp_path: Path) -> None:
    text = " ".join(WORDS[:13])
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"context": text.replace("word1 ", "낱말 ")}]}))
    (tmp_path / "b.jsonl").write_text(json.dumps({"x": text}) + "\n\n" + json.dumps({"x": "short"}) + "\n")
    (tmp_path / "c.txt").write_bytes(gzip.compress(text.replace("word2 ", "zwei ").encode()))
    runs = evaluation_runs([tmp_path / name for name in ("a.json", "b.jsonl", "c.txt")])
    assert matching_file(text.replace("word1 ", "낱말 "), runs) == 0
    assert matching_file(text, runs) == 1
    assert matching_file(text.replace("word2 ", "zwei "), runs) == 2


@pytest.mark.parametrize(
    "content",
    [
        '{"x": "%s"}\n{"x": "a\u2028line"}\n',
        '{"x": "%s"}\r\n{"x": "a\u0085line"}\r\n',
        '{"x": "%s"}\n{"x": "the last line is c',
        'a line of text\n{"x": "%s"}\n',
        '\ufeff{"x": "%s"}\n{"x": "short"}\n',
    ],
)
def test_a_line_that_is_no_json_is_the_only_one_taken_as_text(content: str, tmp_path: Path) -> None:
    text = "\n".join(WORDS[:13])  # as JSON writes it, a line break would spoil the next word
    (tmp_path / "dev.jsonl").write_text(content % json.dumps(text)[1:-1], encoding="utf-8")
    assert matching_file(text, evaluation_runs([tmp_path / "dev.jsonl"])) == 0


@pytest.mark.parametrize("content", ['["Enter HAMLET"]\n%s\n[1]', '{"x": "short"}\n{"x": "%s'])
def test_lines_in_a_row_that_are_no_json_are_one_text(content: str, tmp_path: Path) -> None:
    text = "\n".join(WORDS[:13])
    (tmp_path / "dev.txt").write_text(content % text)
    assert matching_file(text.replace("word0", "x word0"), evaluation_runs([tmp_path / "dev.txt"])) == 0


def test_the_tokens_of_a_text_are_put_together(tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(json.dumps([["other"], WORDS[:13]]))
    runs = evaluation_runs([tmp_path / "dev.json"])
    assert matching_file(" ".join(WORDS[:13]), runs) == 0


KOREAN = "오늘은 정말 재미있는 영화를 보았다 그래서 기분이 매우 좋았고 친구와 함께 저녁도 먹고 집에 왔다"


@pytest.mark.parametrize(
    "theirs, ours",
    [
        (KOREAN, unicodedata.normalize("NFD", KOREAN)),
        ("It does n't " + " ".join(WORDS[:11]), "it doesn't " + " ".join(WORDS[:11])),
        ("It does n’t " + " ".join(WORDS[:11]), "It doesn’t " + " ".join(WORDS[:11])),
        ("-LRB- one -RRB- " + " ".join(WORDS[:12]), "(one) " + " ".join(WORDS[:12])),
        (" ".join(WORDS[:13]), "_word0_ " + " ".join(WORDS[1:13])),
        (" ".join(WORDS[:13]), " ".join(WORDS[:13]).replace("word", "w\u00ador\u200bd")),
    ],
)
def test_the_writing_of_a_text_hides_no_copy(theirs: str, ours: str, tmp_path: Path) -> None:
    for text, copy in ((theirs, ours), (ours, theirs)):
        (tmp_path / "dev.txt").write_text(text, encoding="utf-8")
        assert matching_file(copy, evaluation_runs([tmp_path / "dev.txt"])) == 0


def test_words_are_split_in_a_time_that_grows_with_the_text() -> None:
    assert list(word_runs("a" + " " * 300_000 + "b")) == []


@pytest.mark.parametrize(
    "raw, why",
    [
        (KOREAN.encode("cp949"), r"is not UTF-8 \(byte 0xbf in line 1\); convert it first"),
        ("text".encode("utf-16"), "is UTF-16, not UTF-8; convert it first"),
        ("text".encode("utf-16-le"), r"is binary data, not text \(a NUL in line 1\)"),
    ],
)
def test_evaluation_files_that_are_not_utf8_are_refused(raw: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_bytes(raw)
    with pytest.raises(UserError, match=rf"dev\.txt: {why}"):
        evaluation_runs([tmp_path / "dev.txt"])


def test_evaluation_files_that_leave_out_nothing_are_told(tmp_path: Path) -> None:
    japanese = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 9
    for text, note in ((japanese, "warning: .* no spaces"), ("short\n", "note: .* 13 words"), (KOREAN, "$")):
        (tmp_path / "dev.txt").write_text(text, encoding="utf-8")
        assert re.match(note, evaluation_note(tmp_path / "dev.txt"))


def test_evaluation_files_that_are_nested_too_deeply_are_taken_as_text(tmp_path: Path) -> None:
    text = " ".join(WORDS[:13])
    (tmp_path / "deep.json").write_text("[" * 100_000 + f'"{text}"' + "]" * 100_000)
    assert matching_file(text, evaluation_runs([tmp_path / "deep.json"])) == 0


def test_evaluation_texts_take_little_memory(tmp_path: Path) -> None:
    """12 bytes for each run of words; the text itself is gone by then."""
    count = 50_000
    (tmp_path / "dev.txt").write_text(" ".join(f"w{number}" for number in range(count)))
    tracemalloc.start()
    runs = evaluation_runs([tmp_path / "dev.txt"])
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 20 * count
    assert matching_file(" ".join(f"w{number}" for number in range(count - 13, count)), runs) == 0


def test_evaluation_files_are_not_read_where_nothing_is_to_do(tmp_path: Path) -> None:
    selection = make_selection(tmp_path, [["a", "b"]])
    describe(selection.parts, [tmp_path / "gone.txt"], 1, lambda: None, tqdm(disable=True))


def test_evaluation_files_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"text " * 1000)[:-20])
    with pytest.raises(UserError) as caught:
        evaluation_runs([tmp_path / "none.txt", tmp_path / "cut.gz"])
    assert ["none.txt" in caught.value.problems[0], "cut.gz" in caught.value.problems[1]] == [True, True]


def test_documents_that_overlap_are_left_out_and_listed(tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text(" ".join(WORDS))
    texts = ["first document", "second: " + " ".join(WORDS[10:30]), "third document"]
    selection = make_selection(tmp_path, [texts, texts], exclude=[tmp_path / "dev.txt"])
    assert [outcome[1] for outcome in selection.outcomes] == [EXCLUDED, EXCLUDED]
    assert EXCLUDED not in (selection.outcomes[0][0], selection.outcomes[0][2])
    assert [counts["excluded"] for counts in selection.counts] == [1, 1]
    listed = selection.parts[0].excluded.read_text()
    assert listed.startswith("second: word10")
    assert listed.endswith("\tdev.txt\n")


def test_of_equal_documents_the_first_stays(tmp_path: Path) -> None:
    selection = make_selection(tmp_path, [["a", "b", "a"], ["b", "c", "a", "c"]])
    duplicate = [(outcome == DUPLICATE).tolist() for outcome in selection.outcomes]
    assert duplicate == [[False, False, True], [True, False, True, True]]
    assert [counts["duplicates"] for counts in selection.counts] == [1, 3]


def test_a_document_takes_less_than_16_bytes_of_memory(tmp_path: Path) -> None:
    parts, digests = [], np.random.default_rng(0).integers(0, 250_000, (25, 10_000), dtype=np.uint64)
    for number, row in enumerate(digests):
        part = Part(tmp_path / "none", 0, tmp_path / f"{number}.npy")
        records = np.zeros(len(row), dtype=RECORD_FIELDS)
        records["digest"], records["evaluation_file"] = row, -1
        np.save(part.records, records)
        parts.append(part)
    tracemalloc.start()
    selection = select(parts, [1.0], 0.1, 0.1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * digests.size
    assert digests.size - selection.counts[0]["duplicates"] == len(np.unique(digests))
    kept = np.concatenate([row[codes != DUPLICATE] for row, codes in zip(digests, selection.outcomes, strict=True)])
    assert (kept == digests.ravel()[np.sort(np.unique(digests, return_index=True)[1])]).all()  # the first of each


def test_added_inputs_change_no_documents_split(tmp_path: Path) -> None:
    old = [f"document {number}" for number in range(3000)]
    new = [f"another {number}" for number in range(500)]
    before = make_selection(tmp_path / "before", [old])
    after = make_selection(tmp_path / "after", [new, old])
    assert (before.outcomes[0] == after.outcomes[1]).all()
    shares = [float((before.outcomes[0] == split).mean()) for split in (TRAIN, VALIDATION, TEST)]
    assert shares == pytest.approx([0.85, 0.1, 0.05], abs=0.02)


def test_the_pieces_of_a_cut_text_are_in_one_split(tmp_path: Path) -> None:
    documents = [{"text": f"{text} {piece}", "piece_of": str(text)} for text in range(300) for piece in range(3)]
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    (tmp_path / "0.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    part = Part(tmp_path / "0.jsonl.zst", 0, tmp_path / "records" / "0.npy")
    describe([part], [], 1, lambda: None, tqdm(disable=True))
    outcome = select([part], [1.0], validation_share=0.3, test_share=0.3).outcomes[0].reshape(300, 3)
    assert (outcome == outcome[:, :1]).all()
    assert set(outcome[:, 0].tolist()) == {TRAIN, VALIDATION, TEST}


def test_weights_say_how_often_a_training_document_occurs(tmp_path: Path) -> None:
    texts = [[f"{source} {number}" for number in range(2000)] for source in range(3)]
    selection = make_selection(tmp_path, texts, weights=[2.25, 1.0, 0.5])
    for number, (allowed, mean) in enumerate([({2, 3}, 2.25), ({1}, 1.0), ({0, 1}, 0.5)]):
        copies, in_train = selection.copies(number), selection.outcomes[number] == TRAIN
        assert set(copies[in_train].tolist()) == allowed
        assert copies[in_train].mean() == pytest.approx(mean, abs=0.05)
        assert (copies[~in_train] == 1).all()


@pytest.mark.parametrize("weights", [[0.1, 2.0], [2.0, 0.1]])
def test_a_document_of_several_sources_has_their_largest_weight(weights: list[float], tmp_path: Path) -> None:
    both = [f"both {number}" for number in range(500)]
    sources = [[*both, *(f"{source} {number}" for number in range(500))] for source in range(2)]
    selection = make_selection(tmp_path, sources, weights)
    copies = [selection.copies(number)[outcome == TRAIN] for number, outcome in enumerate(selection.outcomes)]
    in_both = int((selection.outcomes[0][:500] == TRAIN).sum())
    assert (copies[0][:in_both] == 2).all()
    means = [copies[0][in_both:].mean(), copies[1].mean()]
    assert means == pytest.approx(weights, abs=0.06)
    assert selection.counts[1]["duplicates"] == 500


def test_duplicates_make_the_sample_no_smaller(tmp_path: Path) -> None:
    texts = [f"{number} " + "x" * 90 for number in range(3000)]
    once, often = make_selection(tmp_path / "once", [texts]), make_selection(tmp_path / "often", [texts * 5])
    assert often.train_bytes == once.train_bytes
    assert often.sample(0, 100_000).sum() == once.sample(0, 100_000).sum()


def test_weights_may_leave_out_every_document(tmp_path: Path) -> None:
    assert make_selection(tmp_path / "some", [["a", "b", "c"]]).has_training_text
    assert not make_selection(tmp_path / "none", [["a", "b", "c"]], weights=[1e-9]).has_training_text


def test_the_sample_is_of_training_documents_and_of_the_asked_size(tmp_path: Path) -> None:
    texts = [[f"{source} {number} " + "x" * 90 for number in range(3000)] for source in range(2)]
    selection = make_selection(tmp_path, texts, weights=[1.0, 0.5])
    chosen = [selection.sample(number, 100_000) for number in range(2)]
    assert all((outcome[mask] == TRAIN).all() for outcome, mask in zip(selection.outcomes, chosen, strict=True))
    sizes = [100 * int(mask.sum()) for mask in chosen]
    assert sum(sizes) == pytest.approx(100_000, rel=0.1)
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=0.2)
    assert selection.sample(0, 1e12)[selection.outcomes[0] == TRAIN].all()


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, 9.0]])
def test_the_sample_is_never_empty(weights: list[float], tmp_path: Path) -> None:
    texts = [[f"{source} {number}" for number in range(20)] for source in range(2)]
    selection = make_selection(tmp_path, texts, weights)

    def sample(size: float) -> list[bool]:
        return [bool(chosen) for number in range(2) for chosen in selection.sample(number, size)]

    smallest = sample(1e-9)
    assert sum(smallest) == 1
    sizes = [size for size in np.linspace(1, 200, 50) if any(sample(size))]
    assert all(sample(size)[smallest.index(True)] for size in sizes)  # one that any sample holds


def test_one_document_is_told_from_several(tmp_path: Path) -> None:
    assert make_selection(tmp_path / "one", [["a"], ["a"]]).is_one_document
    assert not make_selection(tmp_path / "two", [["a"], ["b"]]).is_one_document
    assert not make_selection(tmp_path / "none", [[]]).is_one_document


def test_numbers_from_digests_are_uniform_and_differ_with_the_salt() -> None:
    digests = np.array([digest(str(number).encode()) for number in range(20_000)], dtype=np.uint64)
    first, second = uniform(digests), uniform(digests, salt=5)
    for numbers in (first, second):
        assert np.histogram(numbers, bins=10, range=(0, 1))[0] == pytest.approx([2000] * 10, rel=0.1)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_processes_change_nothing_and_finished_parts_are_kept(tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text(" ".join(WORDS))
    sources = [[f"{source} {number}" for number in range(50)] + [" ".join(WORDS)] for source in range(5)]
    one = make_selection(tmp_path / "one", sources, exclude=[tmp_path / "dev.txt"])
    two = make_selection(tmp_path / "two", sources, exclude=[tmp_path / "dev.txt"], workers=2)
    for a, b in zip(one.parts, two.parts, strict=True):
        assert a.records.read_bytes() == b.records.read_bytes()
        assert a.excluded.read_bytes() == b.excluded.read_bytes()
    times = [part.records.stat().st_mtime_ns for part in one.parts]
    one.parts[3].records.unlink()
    describe(one.parts, [tmp_path / "dev.txt"], 1, lambda: None, tqdm(disable=True))
    again = [part.records.stat().st_mtime_ns for part in one.parts]
    assert [a == b for a, b in zip(times, again, strict=True)] == [True, True, True, False, True]
