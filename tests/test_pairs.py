"""Question pairs: reading them, the text that the model gets, cutting long ones, and what train shares with dev."""

from __future__ import annotations

import csv
import io
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pairs as pairs_module
from config import UserError
from datasets import (
    PARAPHRASE_TASKS,
    Example,
    Split,
    clean_question,
    custom_task_data,
    find_task_data,
    overlap_report,
    read_split,
    read_splits,
)
from downloads import git_blob_hash
from pairs import PAIR_FORMAT, question_overlap, tokenize_pairs

ROOT = Path(__file__).resolve().parents[1]
QQP, CUSTOM = PARAPHRASE_TASKS["qqp"], PARAPHRASE_TASKS["custom"]
HEADER = "\tid\tsentence1\tsentence2\tis_duplicate\n"
TEST_HEADER = "id\tsentence1\tsentence2\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def problems_of(path: Path, task=QQP, **options) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_split(task, path, **options)
    return caught.value.problems


def pairs_of(split: Split) -> list[tuple[str, str | None]]:
    return [(example.text, example.second) for example in split.examples]


# ---------------------------------------------------------------------------------------------------------------------
# Good rows
# ---------------------------------------------------------------------------------------------------------------------


def test_rows_are_read_by_the_names_of_their_columns(tmp_path):
    path = write(tmp_path / "quora-train.csv", HEADER + "7\ta1\tWho?\t Why ? \t1.0\n12\tb2\tWho?\tWho?\t0.0\n")
    assert read_split(QQP, path).examples == [
        Example("a1", "who ?", 1, 2, "why ?"),
        Example("b2", "who ?", 0, 3, "who ?"),
    ]
    assert read_split(QQP, path).label_names == ("not a duplicate", "duplicate")
    path = write(tmp_path / "other.csv", "is_duplicate\tsentence2\tid\tsentence1\n1\tWhy?\t7 a1-b2\tWho?\n")
    assert read_split(QQP, path).examples == [Example("7 a1-b2", "who ?", 1, 2, "why ?")]


def test_case_can_be_kept(tmp_path):
    path = write(tmp_path / "quora-dev.csv", HEADER + "7\ta1\tWho's  he?\t Why, Ann? \t1.0\n")
    assert pairs_of(read_split(QQP, path, keep_case=True)) == [("Who's  he?", "Why, Ann?")]


@pytest.mark.parametrize(("written", "label"), [("0", 0), ("1", 1), ("0.0", 0), ("1.0", 1), (" 1.0 ", 1)])
def test_labels_may_have_a_decimal(tmp_path, written, label):
    path = write(tmp_path / "quora-dev.csv", HEADER + f"7\ta1\tWho?\tWhy?\t{written}\n")
    assert read_split(QQP, path).examples[0].label == label


def test_a_test_file_needs_no_label(tmp_path):
    path = write(tmp_path / "quora-test-student.csv", TEST_HEADER + "7 a1\tWho?\tWhy?\n")
    assert read_split(QQP, path, labelled=False).examples == [Example("7 a1", "who ?", None, 2, "why ?")]
    with_column = write(tmp_path / "test.csv", HEADER + "7\ta1\tWho?\tWhy?\t\n")
    assert read_split(QQP, with_column, labelled=False).examples == [Example("a1", "who ?", None, 2, "why ?")]
    assert "no column 'is_duplicate'" in problems_of(path)[0]


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("ids", [True, False])
def test_own_files_with_commas_or_tabs(tmp_path, delimiter, ids):
    columns = ["sentence1", "sentence2", "label"] + ["id"] * ids
    row = ["Why?", '"Why, then?"', "1"] + ["a1"] * ids
    text = delimiter.join(columns) + "\n" + delimiter.join(row) + "\n"
    train, dev = write(tmp_path / "a.csv", text), write(tmp_path / "b.csv", text)
    splits = read_splits(CUSTOM, custom_task_data(train, dev, None))
    assert splits["dev"].examples == [Example("a1" if ids else "2", "why ?", 1, 2, "why , then ?")]
    assert splits["dev"].label_names == ("not a duplicate", "duplicate")


# ---------------------------------------------------------------------------------------------------------------------
# Quotation marks and line breaks
# ---------------------------------------------------------------------------------------------------------------------


def in_csv(rows: list[list[str]], line_end: str = "\n") -> str:
    """Rows as pandas writes them: quoted where it is needed."""
    file = io.StringIO()
    csv.writer(file, delimiter="\t", lineterminator=line_end).writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("labelled", [True, False])
def test_any_question_without_a_tab_is_read_as_it_was_written(tmp_path, seed, labelled):
    """Quotation marks and line breaks in any place; questions end without white space, which is stripped."""
    draw = random.Random(seed)
    rows = [
        [f"a{i}", *("".join(draw.choices('xy"" \n\'', k=draw.randint(0, 6))) + draw.choice('x"') for _ in range(2))]
        for i in range(300)
    ]
    rows = [[name, first.strip(), second.strip()] + ["1.0"] * labelled for name, first, second in rows]
    header = ["id", "sentence1", "sentence2"] + ["is_duplicate"] * labelled
    path = write(tmp_path / "quora.csv", in_csv([header, *rows]))
    split = read_split(QQP, path, labelled=labelled, keep_case=True)
    assert [[e.id, e.text, e.second] for e in split.examples] == [row[:3] for row in rows]
    lines = path.read_text().split("\n")
    assert all(lines[example.line - 1].startswith(example.id + "\t") for example in split.examples)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_line_break_in_a_question_becomes_a_space(tmp_path, line_end):
    rows = [["id", "sentence1", "sentence2"], ["a", "Who?\n\nAnd why?\n", "So\nwhat?"], ["b", "Who?", "Why?\n"]]
    path = write(tmp_path / "quora.csv", in_csv(rows).replace("\n", line_end))
    split = read_split(QQP, path, labelled=False)
    assert pairs_of(split) == [("who ? and why ?", "so what ?"), ("who ?", "why ?")]
    assert [example.line for example in split.examples] == [2, 7]


BROKEN_QUOTES = {  # rows that are bad, each with the lines that are reported
    "never closed": ('0\ta\t"Who?\tWhy?\t1.0\n', [2]),
    "closed too early": ('0\ta\t"Who" is he?\tWhy?\t1.0\n', [2]),
    "closed in a later row": ('0\ta\t"Who?\tWhy?\t1.0\n0\tb\tWho?"\tWhy?"\t1\n', [2]),
    "two in a row, closed together": ('0\ta\t"Who?\tWhy?\t1.0\n0\tb\t"Who?\tWhy?\t1.0\n', [2, 3]),
    "cut off": ('0\ta\t"Who?\n', [2]),
    "cut off before a mark that is a letter": ('"Who\n0\tb\tIs 5" long?\tWhy?\t1.0\n', [2]),
    "cut off and its rest lost": ('0\ta\tWho?\t"Why?\nand"\n', [2, 3]),
    "with too many tabs after the break": ('0\ta\tWho?\t"Why?\nand\thow"\t1.0\n', [2, 3]),
}


@pytest.mark.parametrize("kind", BROKEN_QUOTES)
def test_a_broken_quote_swallows_no_other_row(tmp_path, kind):
    rows, bad = BROKEN_QUOTES[kind]
    path = write(tmp_path / "quora-train.csv", HEADER + rows + '9\tz\t"Who ""is"" it?"\tWhy?\t0.0\n')
    split = read_split(QQP, path, skip_bad_rows=True)
    assert [row.line for row in split.skipped] == bad
    assert [example.line for example in split.examples] == [
        line for line in range(2, rows.count("\n") + 3) if line not in bad
    ]
    assert split.examples[-1] == Example("z", 'who "is" it ?', 0, rows.count("\n") + 2, "why ?")
    assert [problem.split(": ")[0] for problem in problems_of(path)[:-1]] == [f"{path}:{line}" for line in bad]


def test_a_quotation_mark_within_a_field_is_a_letter(tmp_path):
    rows = '0\ta\tIs 5" long?\tIs 6" long?\t1.0\n1\tb\tIs 7" long?\tWhy?\t1.0\n'
    path = write(tmp_path / "quora-train.csv", HEADER + rows)
    assert pairs_of(read_split(QQP, path)) == [('is 5" long ?', 'is 6" long ?'), ('is 7" long ?', "why ?")]
    path = write(tmp_path / "quora-test-student.csv", TEST_HEADER + 'a\tWho?\tIs 5" long?\nlost"\n')
    split = read_split(QQP, path, labelled=False, skip_bad_rows=True)
    assert pairs_of(split) == [("who ?", 'is 5" long ?')] and [row.line for row in split.skipped] == [3]


# ---------------------------------------------------------------------------------------------------------------------
# Bad rows
# ---------------------------------------------------------------------------------------------------------------------

GOOD_ROW = "9\tz\tWho?\tWhy?\t0.0\n"
BAD_ROWS = {
    "first question empty": ("0\ta\t \tWhy?\t1.0\n", "the first question is empty"),
    "second question empty": ("0\ta\tWho?\t\t1.0\n", "the second question is empty"),
    "id empty": ("0\t\tWho?\tWhy?\t1.0\n", "the id is empty"),
    "label too high": ("0\ta\tWho?\tWhy?\t2.0\n", "the label '2.0' is not a whole number from 0 to 1"),
    "label not whole": ("0\ta\tWho?\tWhy?\t0.5\n", "the label '0.5' is not"),
    "label in words": ("0\ta\tWho?\tWhy?\tyes\n", "the label 'yes' is not"),
    "label with two points": ("0\ta\tWho?\tWhy?\t1.0.0\n", "the label '1.0.0' is not"),
    "a tab too many": ("0\ta\tWho?\tWhy?\tHow?\t1.0\n", "6 fields where the header has 5"),
    "a tab too few": ("0\ta\tWho?\t1.0\n", "4 fields where the header has 5"),
    "not UTF-8": (b"0\ta\tcaf\xe9?\tWhy?\t1.0\n", "byte 0xe9 (number 8 of the line) is not UTF-8"),
    "empty line": ("\n", "the line is empty"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_stops_the_run_and_is_named(tmp_path, kind):
    row, what = BAD_ROWS[kind]
    content = HEADER.encode() + (row if isinstance(row, bytes) else row.encode()) + GOOD_ROW.encode()
    path = write(tmp_path / "quora-train.csv", content)
    problem, summary = problems_of(path)
    assert problem.startswith(f"{path}:2: {what}") and "; " in problem
    assert summary == f"{path}: 1 bad row; mend the file, or leave bad rows out with --skip-bad-rows"
    split = read_split(QQP, path, skip_bad_rows=True)
    assert [example.id for example in split.examples] == ["z"]
    assert [(row.line, row.why) for row in split.skipped] == [(2, problem.removeprefix(f"{path}:2: "))]


def test_rows_without_a_label_are_left_out_of_quora_files_unasked(tmp_path):
    rows = "0\ta\tWho?\tWhy?\t\n1\tb\t\t\t\n" + GOOD_ROW + '2\tc\tWho?\t"Why\nnot?"\t\n'
    path = write(tmp_path / "quora-train.csv", HEADER + rows)
    split = read_split(QQP, path)
    assert [example.id for example in split.examples] == ["z"]
    assert [(row.line, row.text) for row in split.skipped] == [
        (2, "0\ta\tWho?\tWhy?\t"),
        (3, "1\tb\t\t\t"),
        (5, '2\tc\tWho?\t"Why\nnot?"\t'),
    ]
    assert {row.why for row in split.skipped} == {"the label is missing; write it or delete the line"}


def test_other_bad_rows_beside_them_still_stop_the_run(tmp_path):
    path = write(tmp_path / "quora-train.csv", HEADER + "0\ta\tWho?\tWhy?\t\n1\tb\tWho?\t\t1.0\n" + GOOD_ROW)
    problem, summary = problems_of(path)
    assert problem.startswith(f"{path}:3: ") and summary.startswith(f"{path}: 1 bad row; ")


def test_own_files_have_no_such_exception(tmp_path):
    path = write(tmp_path / "train.csv", "sentence1\tsentence2\tlabel\nWho?\tWhy?\t\nWho?\tHow?\t1\n")
    assert problems_of(path, CUSTOM)[0].startswith(f"{path}:2: the label is missing")


def test_whatever_is_bad_in_a_published_file_is_left_out(tmp_path):
    content = HEADER + "0\ta\tWho?\t\t1.0\n" + GOOD_ROW
    path = write(tmp_path / "quora-train.csv", content)
    task = replace(QQP, git_blobs={"train": git_blob_hash(content.encode())})
    split = read_split(task, path)
    assert [row.why for row in split.skipped] == ["the second question is empty; write one or delete the line"]
    write(path, content + "10\ty\tWho?\tWhy?\t1.0\n")
    assert problems_of(path, task)[0].startswith(f"{path}:2: the second question is empty")


def test_a_repeated_id_is_an_error(tmp_path):
    path = write(tmp_path / "quora-train.csv", HEADER + GOOD_ROW + GOOD_ROW)
    assert problems_of(path) == [f"{path}:3: the id 'z' already stands on line 2; give each row its own id"]


def test_missing_columns_are_named(tmp_path):
    path = write(tmp_path / "train.csv", "question1,question2,label\na,b,1\n")
    assert "no column 'sentence1' and no column 'sentence2'" in problems_of(path, CUSTOM)[0]
    assert problems_of(path, CUSTOM)[0].endswith(
        "the header must name sentence1, sentence2, label, separated by tabs or commas"
    )


def test_bundled_sample_is_read_without_a_complaint():
    source = find_task_data(QQP, ROOT / "data" / "sample", root=ROOT)
    splits = read_splits(QQP, source)
    assert source.origin == "sample" and not any(split.skipped for split in splits.values())
    assert {example.label for example in splits["dev"].examples} == {0, 1}


def test_real_rows_agree_with_an_independent_reader(shared):
    source = find_task_data(QQP, shared / "data" / "qqp", root=ROOT)
    splits = read_splits(QQP, source, keep_case=True)
    assert {name: (len(split.examples), len(split.skipped)) for name, split in splits.items()} == {
        "train": (12_022, 1),  # 12,023 rows
        "dev": (3_016, 0),
    }
    assert splits["train"].skipped[0].line == 1496
    for name, path in source.paths.items():
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file, delimiter="\t", strict=True) if row["is_duplicate"]]
        for example, row in zip(splits[name].examples, rows, strict=True):
            assert (example.id, example.text) == (row["id"], row["sentence1"].strip())
            assert (example.second, example.label) == (row["sentence2"].strip(), float(row["is_duplicate"]))
    overlap = question_overlap(splits)["dev"]
    assert overlap["questions_in_train"] == overlap["pairs_in_train"] == 0


# ---------------------------------------------------------------------------------------------------------------------
# The text
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "cleaned"),
    [
        ("What's this?", "what 's this ?"),
        ("Rice, or  BREAD...", "rice , or bread . . ."),
        ("how?why", "how ?why"),
        (' "ÉTÉ" (1.5%)\u00a0!\nRight ', '"été" (1 .5%) ! right'),
        ("C++: yes/no", "c++: yes/no"),
    ],
)
def test_clean_question(question, cleaned):
    assert clean_question(question) == cleaned
    assert clean_question(cleaned) == cleaned


def test_the_text_leads_to_the_answer():
    assert PAIR_FORMAT.count("{first}") == PAIR_FORMAT.count("{second}") == 1
    assert PAIR_FORMAT.index("{first}") < PAIR_FORMAT.index("{second}")
    assert not PAIR_FORMAT[-1].isspace()


@pytest.fixture(scope="module")
def byte_pairs() -> Any:
    """The bundled model's tokenizer."""
    from transformers import PreTrainedTokenizerFast

    path = ROOT / "data" / "checkpoints" / "mini" / "tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(path), clean_up_tokenization_spaces=False)


@pytest.fixture(scope="module")
def words() -> Any:
    """One token per word or run of marks."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [f"{letter}{i}" for letter in "ab" for i in range(100)]
    known += PAIR_FORMAT.replace(":", " : ").replace("?", " ? ").replace(".", " . ").split()
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(["<unk>", *known]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def ids_of(tokenizer: Any, first: str, second: str) -> list[int]:
    return tokenizer(PAIR_FORMAT.format(first=first, second=second))["input_ids"]


def question(letter: str, n_words: int) -> str:
    return " ".join(f"{letter}{i}" for i in range(n_words))


def test_yes_and_no_are_the_next_token(byte_pairs):
    ids = ids_of(byte_pairs, "who ?", "why ?")
    for answer in (" yes", " no"):
        assert byte_pairs(PAIR_FORMAT.format(first="who ?", second="why ?") + answer)["input_ids"][:-1] == ids


def test_short_pairs_have_the_tokens_of_the_text(byte_pairs, monkeypatch):
    monkeypatch.setattr("datasets.TEXTS_PER_CALL", 2)
    pairs = [("who ?", "why ?"), ("{second} {0}", "{first} %s \\"), ("왜 ?", "🙂 ?"), ("a\nb", "a  b"), ("x", "x")]
    tokenized = tokenize_pairs(pairs, byte_pairs, max_length=100)
    texts = [
        PAIR_FORMAT.replace("{first}", "\0").replace("{second}", second).replace("\0", first) for first, second in pairs
    ]
    assert tokenized.ids == [byte_pairs(text)["input_ids"] for text in texts]
    assert tokenized.n_cut == 0
    longest = max(map(len, tokenized.ids))
    assert tokenize_pairs(pairs, byte_pairs, max_length=longest) == tokenized
    assert tokenize_pairs([], byte_pairs, max_length=100).ids == []


@pytest.mark.parametrize(
    ("lengths", "room", "kept"),
    [
        ((9, 3), 4, (3, 1)),
        ((3, 9), 4, (1, 3)),
        ((9, 3), 11, (8, 3)),
        ((6, 2), 7, (5, 2)),
        ((5, 5), 9, (5, 4)),
        ((90, 1), 12, (11, 1)),
        ((1, 90), 12, (1, 11)),
        ((90, 90), 2, (1, 1)),
        ((1, 2), 2, (1, 1)),
    ],
)
def test_long_pairs_lose_tokens_in_proportion_and_keep_their_beginnings(words, lengths, room, kept):
    frame = len(ids_of(words, "", ""))
    pairs = [("a0", "b0"), (question("a", lengths[0]), question("b", lengths[1])), ("a1", "b1")]
    tokenized = tokenize_pairs(pairs, words, frame + room)
    assert tokenized.n_cut == 1
    assert tokenized.ids[0] == ids_of(words, "a0", "b0") and tokenized.ids[2] == ids_of(words, "a1", "b1")
    assert tokenized.ids[1] == ids_of(words, question("a", kept[0]), question("b", kept[1]))
    assert len(tokenized.ids[1]) == frame + room


def test_a_frame_that_does_not_fit_is_an_error(words):
    frame = len(ids_of(words, "", ""))
    assert len(tokenize_pairs([("a0 a1", "b0")], words, frame + 2).ids[0]) == frame + 2
    with pytest.raises(UserError) as caught:
        tokenize_pairs([("a0 a1", "b0")], words, frame + 1)
    (problem,) = caught.value.problems
    assert f"the model reads {frame + 1} tokens" in problem and f"take {frame + 2}; " in problem


MESSY_PAIRS = [
    ("what is the best way to learn c++ , in your opinion ?", "how do i learn c++ ?"),
    ("🙂🙃 why do people use ﷽ and 🙂 so often ?", "왜 사람들은 이모티콘을 그렇게 자주 쓰나요 ?"),
    ("two  spaces\nand a line break \n here ?", "nothing of the kind\t?"),
    ("one question: is this fair? the answer is", "another question: is it? do they ask the same thing?"),
]


@pytest.mark.parametrize("pair", MESSY_PAIRS)
def test_cutting_never_touches_the_frame(byte_pairs, pair):
    head, middle, tail = PAIR_FORMAT.replace("{second}", "{first}").split("{first}")
    whole = ids_of(byte_pairs, *pair)
    shortest = len(ids_of(byte_pairs, "a", "a")) + 2  # before some letters the frame's space is a token of its own
    for max_length in range(shortest, len(whole)):
        (ids,) = tokenize_pairs([pair], byte_pairs, max_length).ids
        assert len(ids) == max_length
        text = byte_pairs.decode(ids)
        assert text.startswith(head) and text.endswith(tail) and middle in text
        first, _, second = text.removeprefix(head).removesuffix(tail).partition(middle)
        assert first and pair[0].startswith(first.rstrip("\ufffd"))  # a token may be a part of a character
        assert second and pair[1].startswith(second.rstrip("\ufffd"))


def test_a_token_of_question_and_frame_stays(one_token_per_letter):
    """Where a question's last letter and the line break after it are one token, that token belongs to the frame."""
    pair = ("xxxxx", "yyyyy")
    frame = len(PAIR_FORMAT.format(first="", second="")) - 1  # the line break is in the same token as the last x
    (ids,) = tokenize_pairs([pair], one_token_per_letter, frame + 5).ids
    text = "".join(one_token_per_letter.convert_ids_to_tokens(ids))
    assert text == PAIR_FORMAT.format(first="xxx", second="yy")
    (ids,) = tokenize_pairs([("x", "yyyyy")], one_token_per_letter, frame + 4).ids
    text = "".join(one_token_per_letter.convert_ids_to_tokens(ids))
    assert text == PAIR_FORMAT.format(first="x", second="yyy")  # the first question's only letter needs no room


@pytest.fixture
def one_token_per_letter() -> Any:
    """But x and a line break after it are one token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    letters = sorted(set(PAIR_FORMAT) | set("xy"))
    vocabulary = {letter: i for i, letter in enumerate([*letters, "x\n"])}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, merges=[("x", "\n")])))


# ---------------------------------------------------------------------------------------------------------------------
# What train shares with dev and test
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def splits(tmp_path) -> dict[str, Split]:
    rows = {
        "train": [("Why?", "Who?"), ("Where?", "When?"), ("How  far?", "How far?")],
        "dev": [
            ("who?", "WHY?"),
            ("why?", "who?"),
            ("who?", "when?"),  # both questions, but not as a pair
            ("who?", "What?"),
            ("what?", "Which?"),
            ("how far?", "how  far?"),
        ],
        "test": [("Whose?", "Whose?")],
    }
    read = {}
    for name, pairs in rows.items():
        lines = "".join(f"{i}\t{name}{i}\t{first}\t{second}\t0.0\n" for i, (first, second) in enumerate(pairs))
        read[name] = read_split(QQP, write(tmp_path / f"quora-{name}.csv", HEADER + lines), keep_case=True)
    return read


def test_question_overlap(splits, monkeypatch):
    report = question_overlap(splits)
    assert report == {
        "dev": {
            "questions": 6,  # who, why, when, what, which, how far
            "questions_in_train": 4,
            "pairs": 6,
            "both_in_train": 4,
            "one_in_train": 1,
            "none_in_train": 1,
            "pairs_in_train": 3,
            "examples": [
                {"questions": ["who?", "why?"], "line": 2, "train_lines": [2]},
                {"questions": ["why?", "who?"], "line": 3, "train_lines": [2]},
                {"questions": ["how far?", "how far?"], "line": 7, "train_lines": [4]},
            ],
        },
        "test": {
            "questions": 1,
            "questions_in_train": 0,
            "pairs": 1,
            "both_in_train": 0,
            "one_in_train": 0,
            "none_in_train": 1,
            "pairs_in_train": 0,
            "examples": [],
        },
    }
    assert json.loads(json.dumps(report)) == report
    monkeypatch.setattr(pairs_module, "REPEATS_SHOWN", 1)
    assert question_overlap(splits)["dev"]["examples"] == report["dev"]["examples"][:1]


def test_a_repeated_text_is_a_repeated_pair(splits):
    report = overlap_report(splits)
    assert report["repeated"]["dev"]["rows"] == 0, "pairs that share one question are different texts"
    assert report["in_train"]["dev"] == {
        "rows": 2,
        "examples": [
            {"text": "why?\nwho?", "lines": [3], "train_lines": [2]},
            {"text": "how far?\nhow far?", "lines": [7], "train_lines": [4]},
        ],
    }
