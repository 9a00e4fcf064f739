"""Reading, validating and batching: on small files written here, and on the published ones where they are at hand."""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from config import BUNDLED_CHECKPOINTS, UserError
from datasets import (
    SENTIMENT_TASKS,
    DataSource,
    Split,
    collate,
    custom_task_data,
    find_task_data,
    overlap_report,
    read_split,
    read_splits,
    token_ids,
    tokenize,
)

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
SST, NSMC, CUSTOM = (SENTIMENT_TASKS[name] for name in ("sst", "nsmc", "custom"))
HEADER = "\tid\tsentence\tsentiment\n"

needs_published_files = pytest.mark.skipif(
    not (SHARED_DATA / "cs224n").is_dir(), reason="the published data files are not at ../shared/data"
)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def problems_of(path: Path, task=SST, **options) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_split(task, path, **options)
    return caught.value.problems


def texts(split: Split) -> list[str]:
    return [example.text for example in split.examples]


# ---------------------------------------------------------------------------------------------------------------------
# The published files
# ---------------------------------------------------------------------------------------------------------------------

PUBLISHED = [
    ("sst", "cs224n", {"train": 8544, "dev": 1101, "test": 2210}),
    ("cfimdb", "cs224n", {"train": 1707, "dev": 245, "test": 488}),
    ("nsmc", "korean/nsmc", {"train": 40000, "dev": 8000}),
]


@needs_published_files
@pytest.mark.parametrize(("name", "folder", "rows"), PUBLISHED)
def test_published_files_agree_with_an_independent_reader(name, folder, rows):
    task = SENTIMENT_TASKS[name]
    source = find_task_data(task, SHARED_DATA / folder, root=ROOT)
    splits = read_splits(task, source, keep_case=True)
    assert {split: len(data.examples) for split, data in splits.items()} == rows
    for split, path in source.paths.items():
        with path.open(encoding="utf-8", newline="") as file:
            quoting = csv.QUOTE_MINIMAL if task.quoting else csv.QUOTE_NONE
            expected = list(csv.DictReader(file, delimiter="\t", quoting=quoting, strict=True))
        for example, row in zip(splits[split].examples, expected, strict=True):
            assert example.id == row["id"]
            assert example.text == unicodedata.normalize("NFC", row[task.text_column]).strip()
            assert example.label == (None if split == "test" else int(row[task.label_column]))
    for split in ("train", "dev"):
        assert {example.label for example in splits[split].examples} == set(range(len(task.label_names)))


@needs_published_files
def test_published_reviews_keep_their_quotation_marks():
    train = read_split(SENTIMENT_TASKS["cfimdb"], SHARED_DATA / "cs224n" / "ids-cfimdb-train.csv")
    assert train.examples[1].text.startswith('""" i vaguely remember ben')
    nsmc = read_split(NSMC, SHARED_DATA / "korean" / "nsmc" / "ratings_train.txt")
    assert sum('"' in text for text in texts(nsmc)) == 148


@needs_published_files
def test_published_sst_repeats_sentences_across_splits():
    source = find_task_data(SST, SHARED_DATA / "cs224n", root=ROOT)
    report = overlap_report(read_splits(SST, source))
    assert {split: entry["rows"] for split, entry in report["repeated"].items()} == {"train": 10, "dev": 1, "test": 0}
    assert {split: entry["rows"] for split, entry in report["in_train"].items()} == {"dev": 2, "test": 2}
    assert report["in_train"]["dev"]["examples"] == [
        {"text": "hey arnold !", "lines": [626, 665], "train_lines": [8179]}
    ]


@pytest.mark.parametrize("name", ["sst", "cfimdb"])
def test_bundled_sample_is_read_without_a_complaint(name):
    task = SENTIMENT_TASKS[name]
    if not (ROOT / "data" / "sample" / task.files["train"]).is_file():
        pytest.skip("no bundled sample in data/sample")
    folder = ROOT / "data" / "sample"
    splits = read_splits(task, DataSource("sample", {split: folder / name for split, name in task.files.items()}))
    assert {example.label for example in splits["dev"].examples} == set(range(len(task.label_names)))


# ---------------------------------------------------------------------------------------------------------------------
# Good files
# ---------------------------------------------------------------------------------------------------------------------


def test_text_is_stripped_and_lower_cased_unless_the_case_is_kept(tmp_path):
    path = write(tmp_path / "train.csv", HEADER + "0\ta1\t A Fine Film . \t3\n")
    assert texts(read_split(SST, path)) == ["a fine film ."]
    assert texts(read_split(SST, path, keep_case=True)) == ["A Fine Film ."]


def test_korean_is_composed(tmp_path):
    """Taken apart, as files exported on macOS have it, a review would have ten times as many tokens."""
    review = "영화가 정말 재미있다"
    rows = f"id\tdocument\tlabel\n한\t{review}\t1\n"
    apart = write(tmp_path / "a.txt", unicodedata.normalize("NFD", rows))
    assert review.encode() not in apart.read_bytes()
    (example,) = read_split(NSMC, apart).examples
    assert (example.id, example.text) == ("한", review)


def test_composing_changes_no_ascii_and_no_composed_letter(tmp_path):
    ascii_ = "".join(map(chr, range(0x21, 0x7F))).replace('"', "")
    for text in (ascii_, "un café noir", "½ £ ﬁ Å ㅋㅋ"):
        path = write(tmp_path / "train.csv", HEADER + f"0\ta\t{text}\t3\n")
        assert texts(read_split(SST, path, keep_case=True)) == [text]


@needs_published_files
@pytest.mark.parametrize(
    "name", [f"cs224n/ids-{task}-{split}.csv" for task in ("sst", "cfimdb") for split in ("train", "dev")]
    + ["qqp/quora-train.csv", "qqp/quora-dev.csv"],
)  # fmt: skip
def test_published_english_files_are_composed_already(name):
    assert unicodedata.is_normalized("NFC", (SHARED_DATA / name).read_text(encoding="utf-8"))


def test_columns_are_found_by_name(tmp_path):
    path = write(tmp_path / "train.csv", "sentiment\tsentence\tnote\tid\n4\tgreat\tx\ta1\n")
    (example,) = read_split(SST, path).examples
    assert (example.id, example.text, example.label, example.line) == ("a1", "great", 4, 2)


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("tail", ["", "\n", "\n\n\n"])
def test_line_ends_and_byte_order_mark_do_not_matter(tmp_path, bom, line_end, tail):
    content = "id\tsentence\tsentiment\na\tgood\t3\nb\tbad\t1" + tail
    path = write(tmp_path / "train.csv", bom + content.replace("\n", line_end).encode())
    assert [(e.id, e.text, e.label) for e in read_split(SST, path).examples] == [("a", "good", 3), ("b", "bad", 1)]


def test_only_line_feeds_end_a_line(tmp_path):
    sentence = "one\u2028two\x85three\x0bfour\x1cfive"
    path = write(tmp_path / "train.csv", HEADER + f"0\ta\t{sentence}\t3\n1\tb\tnext\t2\n")
    assert texts(read_split(SST, path)) == [sentence, "next"]


def test_quoted_fields_are_unwrapped_where_the_format_has_quoting(tmp_path):
    quoted = write(tmp_path / "a.csv", HEADER + '0\ta\t"a ""very""\tgood film"\t3\n1\tb\tsay "no"\t1\n')
    assert texts(read_split(SST, quoted)) == ['a "very"\tgood film', 'say "no"']
    literal = write(tmp_path / "b.txt", 'id\tdocument\tlabel\n1\t"최고"의 영화\t1\n2\t"그냥\t0\n')
    assert texts(read_split(NSMC, literal)) == ['"최고"의 영화', '"그냥']


def test_labels_are_read_as_asked(tmp_path):
    with_labels = write(tmp_path / "a.csv", HEADER + "0\ta\tgood\t3\n")
    without = write(tmp_path / "b.csv", "0\t\tid\tsentence\n1\t0.0\ta\tgood\n")
    for labelled in (True, False):
        assert read_split(SST, with_labels, labelled=labelled).examples[0].label == 3
    assert read_split(SST, without, labelled=False).examples[0].label is None
    assert "no column 'sentiment'" in problems_of(without)[0]


def test_an_empty_label_in_a_test_file_means_that_there_is_none(tmp_path):
    path = write(tmp_path / "test.csv", HEADER + "0\ta\tgood\t\n1\tb\tbad\t1\n")
    split = read_split(SST, path, labelled=False)
    assert [example.label for example in split.examples] == [None, 1] and not split.skipped
    assert "the label is missing" in problems_of(path)[0]


def test_limit_takes_the_first_rows_of_a_file_that_is_checked_whole(tmp_path):
    rows = "".join(f"{i}\tid{i}\ttext {i}\t{i % 5}\n" for i in range(9))
    path = write(tmp_path / "train.csv", HEADER + rows)
    source = custom_task_data(path, path, None)
    splits = read_splits(SST, source, limits={"train": 2, "dev": 100})
    assert texts(splits["train"]) == ["text 0", "text 1"] and len(splits["dev"].examples) == 9
    write(path, HEADER + rows + "9\tid9\t\t1\n")
    with pytest.raises(UserError, match="the sentence is empty") as caught:
        read_splits(SST, source, limits={"train": 2})
    assert caught.value.problems[0].startswith(f"{path}:11: ")


def test_checksum_is_that_of_the_file(tmp_path):
    path = write(tmp_path / "train.csv", "id\tsentence\tsentiment\r\na\tgood\t3\r\n")
    assert read_split(SST, path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# Damaged files
# ---------------------------------------------------------------------------------------------------------------------

GOOD_ROW = "9\tlast\ta good row\t2\n"
DAMAGED_ROWS = {
    "empty sentence": ("0\ta\t   \t3\n", "the sentence is empty"),
    "empty id": ("0\t\tgood\t3\n", "the id is empty"),
    "empty line": ("\n", "the line is empty"),
    "label too high": ("0\ta\tgood\t5\n", "the label '5' is not a whole number from 0 to 4"),
    "label negative": ("0\ta\tgood\t-1\n", "the label '-1' is not a whole number from 0 to 4"),
    "label with point": ("0\ta\tgood\t3.0\n", "the label '3.0' is not"),
    "label with foreign digits": ("0\ta\tgood\t٣\n", "is not a whole number"),
    "label far too long": (f"0\ta\tgood\t{'9' * 5000}\n", "is not a whole number"),
    "label empty": ("0\ta\tgood\t \n", "the label is missing"),
    "field missing": ("0\ta\tgood\n", "3 fields where the header has 4"),
    "field too many": ("0\ta\tgood\tvery\t3\n", "5 fields where the header has 4"),
    "quote never closed": ('0\ta\t"good\t3\n', "broken quoting"),
    "text after a quote": ('0\ta\t"good" film\t3\n', "broken quoting"),
    "not UTF-8": (b"0\ta\tcaf\xe9 noir\t3\n", "byte 0xe9 (number 8 of the line) is not UTF-8"),
    "carriage return": ("0\ta\tgood\rfilm\t3\n", "a carriage return inside the line"),
}


def with_damaged_row(path: Path, row: str | bytes) -> Path:
    return write(path, HEADER.encode() + (row if isinstance(row, bytes) else row.encode()) + GOOD_ROW.encode())


@pytest.mark.parametrize("kind", DAMAGED_ROWS)
def test_damaged_row_is_named_with_its_line_and_remedy(tmp_path, kind):
    row, what = DAMAGED_ROWS[kind]
    path = with_damaged_row(tmp_path / "train.csv", row)
    problem, summary = problems_of(path)
    assert problem.startswith(f"{path}:2: ") and what in problem and "; " in problem
    assert summary == f"{path}: 1 bad row; mend the file, or leave bad rows out with --skip-bad-rows"


@pytest.mark.parametrize("kind", DAMAGED_ROWS)
def test_damaged_row_is_skipped_on_request_and_never_silently(tmp_path, kind):
    row, what = DAMAGED_ROWS[kind]
    path = with_damaged_row(tmp_path / "train.csv", row)
    split = read_split(SST, path, skip_bad_rows=True)
    assert texts(split) == ["a good row"] and split.examples[0].line == 3
    (skipped,) = split.skipped
    assert (skipped.path, skipped.line) == (path, 2) and what in skipped.why
    if isinstance(row, str):
        assert skipped.text == row.removesuffix("\n")


def test_repeated_id_is_an_error_even_when_bad_rows_are_skipped(tmp_path):
    path = write(tmp_path / "train.csv", HEADER + "0\ta\tone\t1\n1\tb\ttwo\t2\n2\ta\tthree\t3\n")
    expected = [f"{path}:4: the id 'a' already stands on line 2; give each row its own id"]
    assert problems_of(path) == expected
    assert problems_of(path, skip_bad_rows=True) == expected


FILE_DAMAGES = {
    "empty": ("", ":1: the file is empty"),
    "only a byte order mark": (b"\xef\xbb\xbf\n", ":1: the file is empty"),
    "no rows": (HEADER, ": no usable row below the header"),
    "missing columns": (
        "nr\ttext\tsentiment\n1\ta\t2\n",
        ":1: no column 'id' and no column 'sentence' (found: 'nr', 'text', 'sentiment'); "
        "the header must name id, sentence, sentiment, separated by tabs",
    ),
    "no header": ("0\ta\tgood\t3\n", ":1: no column 'id'"),
    "commas": ("id,sentence,sentiment\na,good,3\n", ":1: no column 'id'"),
    "column twice": ("id\tsentence\tsentence\tsentiment\n", ":1: the column 'sentence' occurs twice"),
    "header not closed": ('id\t"sentence\tsentiment\n', ":1: broken quoting"),
    "empty header": ("\n" + HEADER, ":1: the line is empty"),
    "UTF-16": (HEADER.encode("utf-16"), ":1: byte 0xff (number 1 of the line) is not UTF-8"),
    "old Mac line ends": ("id\tsentence\tsentiment\ra\tgood\t3\r", ":1: a carriage return inside the line"),
}


@pytest.mark.parametrize("kind", FILE_DAMAGES)
@pytest.mark.parametrize("skip_bad_rows", [False, True])
def test_damaged_file_is_an_error_even_when_bad_rows_are_skipped(tmp_path, kind, skip_bad_rows):
    content, what = FILE_DAMAGES[kind]
    path = write(tmp_path / "train.csv", content)
    (problem,) = problems_of(path, skip_bad_rows=skip_bad_rows)
    assert problem.startswith(f"{path}{what}") and "; " in problem


def test_file_without_one_good_row_is_an_error(tmp_path):
    path = write(tmp_path / "train.csv", HEADER + "0\ta\t\t3\n1\tb\t\t3\n")
    assert "no usable row below the header (2 bad ones)" in problems_of(path, skip_bad_rows=True)[0]


def test_missing_file_and_folder_in_its_place(tmp_path):
    assert problems_of(tmp_path / "none.csv")[0].startswith(f"{tmp_path / 'none.csv'}: no such file")
    assert problems_of(tmp_path)[0].startswith(f"{tmp_path}: cannot be read (Is a directory)")


def test_broken_quote_does_not_swallow_the_following_rows(tmp_path):
    rows = '0\ta\t"good\t3\n1\tb\tfine\t3\n2\tc\tbad"\t9\n3\td\tfine\t3\n'
    path = write(tmp_path / "train.csv", HEADER + rows)
    assert [problem.split(": ")[0] for problem in problems_of(path)[:2]] == [f"{path}:2", f"{path}:4"]
    assert [e.line for e in read_split(SST, path, skip_bad_rows=True).examples] == [3, 5]


def test_a_long_field_in_quotation_marks_is_read(tmp_path):
    review = "word " * 30_000  # more than the csv module takes by itself
    (text,) = texts(read_split(SST, write(tmp_path / "a.csv", HEADER + f'0\ta\t"{review}"\t3\n')))
    assert text == review.strip()


def test_a_long_list_is_cut(tmp_path):
    path = write(tmp_path / "train.csv", HEADER + "0\ta\t\t3\n" * 50)
    problems = problems_of(path)
    assert len(problems) == 22
    assert problems[19].startswith(f"{path}:21: ")
    assert problems[20] == f"{path}: ... and 30 more problems in this file"
    assert problems[21].startswith(f"{path}: 50 bad rows; ")


def test_problems_of_all_files_come_at_once(tmp_path):
    paths = {
        "train": write(tmp_path / "train.csv", HEADER + "0\ta\t\t3\n"),
        "dev": tmp_path / "dev.csv",
        "test": write(tmp_path / "test.csv", "id\ttext\n1\ta\n"),
    }
    with pytest.raises(UserError) as caught:
        read_splits(SST, DataSource("files", paths))
    starts = [problem.split(": ")[0] for problem in caught.value.problems]
    assert starts == [f"{paths['train']}:2", str(paths["train"]), str(paths["dev"]), f"{paths['test']}:1"]


def test_rows_are_not_dropped_from_nsmc_in_silence(tmp_path):
    path = write(tmp_path / "ratings_train.txt", "id\tdocument\tlabel\n1\t좋다\t1\n2\t\t0\n")
    assert problems_of(path, NSMC)[0].startswith(f"{path}:3: the sentence is empty")


# ---------------------------------------------------------------------------------------------------------------------
# The user's own files
# ---------------------------------------------------------------------------------------------------------------------


def read_custom(folder: Path, train: str, dev: str, test: str | None = None, **options) -> dict[str, Split]:
    paths = [write(folder / "train.csv", train), write(folder / "dev.csv", dev)]
    paths.append(None if test is None else write(folder / "test.csv", test))
    return read_splits(CUSTOM, custom_task_data(*paths), **options)


def test_custom_files_with_commas_or_tabs_and_without_ids(tmp_path):
    splits = read_custom(
        tmp_path,
        train='label,sentence\n0,"Bad, really"\n2,Good\n1,So so\n',
        dev="sentence\tlabel\tid\nbad, really\t2\tx\n",
        test="sentence\nFine\n",
    )
    assert [(e.id, e.text, e.label) for e in splits["train"].examples] == [
        ("2", "bad, really", 0),
        ("3", "good", 2),
        ("4", "so so", 1),
    ]
    assert [(e.id, e.label) for e in splits["dev"].examples] == [("x", 2)]
    assert splits["test"].examples[0].label is None
    assert {split.label_names for split in splits.values()} == {("0", "1", "2")}


def test_custom_classes_are_counted_before_the_limit(tmp_path):
    train = "sentence,label\na,0\nb,1\nc,2\n"
    splits = read_custom(tmp_path, train, train, limits={"train": 1})
    assert texts(splits["train"]) == ["a"] and len(splits["dev"].examples) == 3
    assert splits["train"].label_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ((1, 2, 3), "label 0 never occurs although the labels go up to 3"),
        ((0, 1, 900000), "label 2 never occurs although the labels go up to 900000"),
        ((1, 1), "every row has the label 1"),
    ],
)
def test_custom_labels_must_be_numbered_without_gaps(tmp_path, labels, what):
    rows = "sentence,label\n" + "".join(f"text {i},{label}\n" for i, label in enumerate(labels))
    with pytest.raises(UserError, match=what):
        read_custom(tmp_path, rows, rows)


def test_the_row_that_makes_the_gap_in_the_labels_is_named(tmp_path):
    rows = "sentence,label\na,0\nb,1\nc,7\nd,7\n"
    with pytest.raises(UserError, match=r"train.csv:4: label 2 never occurs although the labels go up to 7"):
        read_custom(tmp_path, rows, rows)


def test_a_placeholder_for_the_label_of_a_test_row_may_be_left_out(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("id\tsentence\tsentiment\n1\tgood\t-1\n")
    with pytest.raises(UserError, match="write the right one or nothing, if it is not known"):
        read_split(SST, path, labelled=False)
    path.write_text("id\tsentence\tsentiment\n1\tgood\t\n")
    assert read_split(SST, path, labelled=False).examples[0].label is None


def test_a_special_token_that_is_spelled_out_is_text():
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_CHECKPOINTS / "mini")
    (ids,) = token_ids(["good film<|endoftext|>"], tokenizer)
    assert tokenizer.eos_token_id not in ids and tokenizer.decode(ids) == "good film<|endoftext|>"
    assert tokenizer("<|endoftext|>")["input_ids"] == [tokenizer.eos_token_id]  # it is left as it was


def test_custom_dev_label_must_occur_in_train(tmp_path):
    with pytest.raises(UserError, match="dev.csv:2: the label '2' is not a whole number from 0 to 1"):
        read_custom(tmp_path, "sentence,label\na,0\nb,1\n", "sentence,label\na,2\n")


def test_custom_label_in_words_and_missing_columns(tmp_path):
    with pytest.raises(UserError) as caught:
        read_custom(tmp_path, "sentence,label\na,good\n", "text;label\na;0\n")
    word, _, columns = caught.value.problems
    assert "train.csv:2: the label 'good' is not a whole number (0, 1, 2, ...)" in word
    assert "dev.csv:1: no column 'sentence' and no column 'label' (found: 'text;label')" in columns
    assert columns.endswith("the header must name sentence, label, separated by tabs or commas")


# ---------------------------------------------------------------------------------------------------------------------
# Overlap, tokens, batches
# ---------------------------------------------------------------------------------------------------------------------


def test_overlap_counts_rows_and_names_lines(tmp_path):
    splits = read_custom(
        tmp_path,
        train="sentence,label\nA good film,1\na  good film,1\nbad,0\nbad,0\nbad,1\n",
        dev="sentence,label\nBad,0\nnew,1\n",
        keep_case=True,
    )
    assert overlap_report(splits) == {
        "repeated": {
            "train": {
                "rows": 3,
                "examples": [{"text": "a good film", "lines": [2, 3]}, {"text": "bad", "lines": [4, 5, 6]}],
            },
            "dev": {"rows": 0, "examples": []},
        },
        "in_train": {"dev": {"rows": 1, "examples": [{"text": "bad", "lines": [2], "train_lines": [4, 5, 6]}]}},
    }


@pytest.fixture(scope="module")
def tokenizer():
    """One token per letter a, b, c; other letters give none."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = Tokenizer(models.BPE({"<eos>": 0, "a": 1, "b": 2, "c": 3}, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="<eos>", model_max_length=2)


def test_tokenize_keeps_the_end_or_the_start_and_counts(tokenizer, caplog):
    sentences = ["a b c", "c", "a b"]
    end = tokenize(sentences, tokenizer, max_length=2)
    assert (end.ids, end.n_cut) == ([[2, 3], [3], [1, 2]], 1)
    start = tokenize(sentences, tokenizer, max_length=2, keep="start")
    assert (start.ids, start.n_cut) == ([[1, 2], [3], [1, 2]], 1)
    assert not caplog.records, "the library's own warning about long texts must not reach the user"


def test_tokenize_names_a_text_without_tokens(tokenizer):
    with pytest.raises(UserError, match=r"text 2: 'xyz' gives no tokens"):
        tokenize(["a", "xyz"], tokenizer, max_length=2)
    with pytest.raises(UserError, match=r"dev.csv:7: 'xyz' gives no tokens"):
        tokenize(["a", "xyz"], tokenizer, max_length=2, places=["dev.csv:3", "dev.csv:7"])


def test_collate_pads_on_the_right():
    import torch

    input_ids, attention_mask = collate([[5, 6, 7], [8]], pad_id=9)
    assert input_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert input_ids.dtype == attention_mask.dtype == torch.int64


# ---------------------------------------------------------------------------------------------------------------------
# The module
# ---------------------------------------------------------------------------------------------------------------------


def test_import_stays_light():
    slow = ("torch", "transformers", "numpy", "tqdm", "requests", "urllib.request")
    code = f"import datasets, sys; print([name for name in {slow} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_task_is_data_that_can_be_varied(tmp_path):
    task = replace(SST, label_column="stars", label_names=("bad", "good"))
    path = write(tmp_path / "train.csv", "id\tsentence\tstars\na\tgood\t1\n")
    assert read_split(task, path).label_names == ("bad", "good")
