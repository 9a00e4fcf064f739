"""Measures of poems, their calibration, and measure_poems.py."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from config import UserError
from poetry import reference
from poetry.calibration import calibrate, prose_in_lines, shuffled_lines, shuffled_words
from poetry.copying import CopyIndex
from poetry.measures import (
    MEASURES,
    confidence_intervals,
    distinct,
    measure,
    per_poem,
    perplexity_interval,
    rhyme_share,
    seq_rep,
)
from poetry.overlap import chrf, chrf_counts, chrf_of_counts, chrf_signature, self_bleu
from poetry.show import show_poem
from poetry.sonnets import Sonnet, format_sonnets, read_sonnets

ROOT = Path(__file__).resolve().parents[1]
ENDS = [
    "day",
    "night",
    "away",
    "light",
    "love",
    "tree",
    "dove",
    "sea",
    "rain",
    "song",
    "pain",
    "long",
    "fire",
    "desire",
]
FORMED = Sonnet(1, tuple(f"And so I say to you and you the {end}" for end in ENDS))


def test_seven_pairs_of_which_six_have_a_generated_line() -> None:
    assert rhyme_share(FORMED.lines, 3) == 1.0 and rhyme_share(FORMED.lines, 3, given=True) == 1.0
    lines = list(FORMED.lines)
    lines[13] = "and nothing else"
    assert rhyme_share(lines, 3) == pytest.approx(5 / 6)
    assert rhyme_share(lines[:4], 3) == pytest.approx(1 / 6)  # what was not written does not rhyme
    lines[0] = "and nothing else"
    assert rhyme_share(lines, 3, given=True) == 0.0
    lines[13] = "and this is higher"
    assert rhyme_share([*FORMED.lines[:13], "the admirer"], 3, "near") == 0.0
    assert rhyme_share([*lines[:1], "we move", "x", "my love"], 3, "near") == pytest.approx(1 / 6)
    assert math.isnan(rhyme_share(lines, 0, given=True))


def test_counts_of_n_grams() -> None:
    assert distinct([["a", "b", "a"], ["a", "c"]], 1) == 3 / 5
    assert distinct([["a", "b", "a"], ["a", "b"]], 2) == 2 / 3  # no pair goes across poems
    assert seq_rep(list("abcdabcd"), 4) == pytest.approx(1 - 4 / 5)
    assert seq_rep(list("abc"), 4) == 0.0 == distinct([], 1)


def test_self_bleu_is_sacrebleus() -> None:
    from sacrebleu.metrics import BLEU

    generator = random.Random(3)
    texts = [[generator.choice("abcdef") for _ in range(generator.randint(3, 20))] for _ in range(6)]
    texts.append(["z", "a"])
    metric = BLEU(tokenize="none", effective_order=True)
    expected = [
        metric.sentence_score(" ".join(text), [" ".join(other) for j, other in enumerate(texts) if j != i]).score
        for i, text in enumerate(texts)
    ]
    assert self_bleu(texts) == pytest.approx(expected, abs=1e-9)
    assert self_bleu([["a"] * 6] * 2) == pytest.approx([100, 100])
    assert self_bleu([["a"]]).tolist() == [0.0]


def test_chrf_for_the_bootstrap_is_sacrebleus() -> None:
    texts = ["the cat sat", "a\n  dog", "xyz", "yes, it is", "no it is not"]
    truth = ["the cat sits here", "a dog", "abc", "yes", ""]  # some are shorter than the longest n-grams
    assert chrf_of_counts(chrf_counts(texts, truth).sum(axis=0)) == pytest.approx(chrf(texts, truth), abs=1e-9)
    assert chrf(["ab"], ["ab"]) == 100.0 and chrf(["ab"], ["cd"]) == 0.0
    assert chrf_signature().startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_longest_run_against_a_plain_search() -> None:
    generator = random.Random(5)
    for _ in range(60):
        texts = [[generator.choice("abc") for _ in range(generator.randint(0, 9))] for _ in range(3)]
        words = [generator.choice("abcd") for _ in range(8)]
        runs = {tuple(text[i:j]) for text in texts for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
        expected = max((j - i for i in range(8) for j in range(i + 1, 9) if tuple(words[i:j]) in runs), default=0)
        assert CopyIndex(texts).longest_run(words) == expected


def test_the_reference_reports_measures() -> None:
    assert reference.unigram_perplexity("A a b, b c c d d") == pytest.approx(4.0)
    assert reference.distinct("a b a b", 2) == pytest.approx(2 / 3)
    # Pairs 1-2, 3-4, 1-3, 2-4: the last two have equal letters from the last a, e, i, o, u on.
    assert reference.orthographic_rhyme(["a cat", "a dog", "the hat", "the fog"]) == 0.5
    assert reference.orthographic_rhyme(["cat", "hat", "mat"]) == 0.0  # fewer than four lines
    assert reference.orthographic_rhyme(["my", "my", "by", "thy"]) == 0.25  # y is no vowel there
    # Six of the rhymes by sound, not tree and sea; but love and tree, which stand side by side.
    assert reference.orthographic_rhyme(FORMED.lines) == pytest.approx(7 / 13)


def test_given_lines_are_not_measured() -> None:
    other = Sonnet(1, ("Of lots of syllables 1609, and more of them", "x x x x x", "love love", *FORMED.lines[3:]))
    names = ("ten_syllable_lines", "iambic_lines", "distinct_1", "distinct_2", "seq_rep_4", "lines_14")
    for name in names:
        assert measure([FORMED])[name] == measure([other])[name]
    assert measure([FORMED])["iambic_lines"] == pytest.approx(10 / 11)  # "desire" adds a syllable
    assert measure([FORMED], n_given=0)["rhyme_accuracy"] == 1.0
    assert "given_rhyme" not in measure([FORMED], n_given=0)


def test_measures_have_names_and_empty_endings_score_nothing() -> None:
    whole = [FORMED, Sonnet(2, FORMED.lines[::-1])]
    empty = Sonnet(3, FORMED.lines[:3])
    values = measure([*whole, empty], [*whole, Sonnet(3, FORMED.lines)], [FORMED])
    assert list(values) == list(MEASURES)
    assert all(math.isfinite(value) for value in values.values())
    columns = per_poem([*whole, empty], [FORMED])
    for name in ("rhyme_accuracy", "lines_14", "ten_syllable_lines", "iambic_lines", "longest_copy"):
        assert columns[name][2] == 0.0 and values[name] == pytest.approx(columns[name].mean())
    with pytest.raises(UserError, match="no poem to measure"):
        measure([])


def test_what_was_not_written_has_no_repetition_and_no_variety() -> None:
    """It would be the best value of some, and is none of the others."""
    whole = [FORMED, Sonnet(2, FORMED.lines[::-1])]
    empty = [Sonnet(number, FORMED.lines[:3]) for number in (3, 4)]
    both, without = measure([*whole, *empty]), measure(whole)
    for name in ("guessed_endings", "distinct_1", "distinct_2", "self_bleu", "seq_rep_4"):
        assert both[name] == without[name], name
    of_none = measure(empty, [Sonnet(number, FORMED.lines) for number in (3, 4)])
    of_lines = ["guessed_endings", "ten_syllable_lines", "iambic_lines", "seq_rep_4"]
    assert not {*of_lines, "distinct_1", "distinct_2", "self_bleu"} & of_none.keys()
    assert of_none["rhyme_accuracy"] == of_none["lines_14"] == of_none["chrf_endings"] == 0.0
    assert not {*of_lines} & confidence_intervals(empty).keys()
    assert "self_bleu" not in measure([FORMED]) and "self_bleu" not in measure([FORMED, empty[0]])


def test_truth_is_matched_by_number() -> None:
    a, b = FORMED, Sonnet(2, tuple(f"Of kings and crowns {i}" for i in range(14)))
    assert measure([a, b], [b, a])["chrf_course"] == 100.0
    assert measure([a, b], [b, a])["chrf_endings_floor"] < 50.0
    with pytest.raises(UserError, match="lack number 3"):
        measure([Sonnet(3, a.lines)], [a, b])


def test_a_floor_takes_another_poems_ending_however_many_samples_there_are() -> None:
    a, b = FORMED, Sonnet(2, tuple(f"Of kings and crowns {i}" for i in range(14)))
    floors = ("chrf_course_floor", "chrf_endings_floor")
    once, thrice = measure([a, b], [a, b]), measure([a, a, a, b, b, b], [a, b])
    assert [thrice[name] for name in floors] == pytest.approx([once[name] for name in floors])
    assert not {*floors} & {*measure([a, a], [a, b]), *confidence_intervals([a, a], [a, b])}


def test_copying_counts_across_line_ends_and_whatever_the_line_breaks() -> None:
    poem = Sonnet(1, ("x", "x", "x", "when forty winters shall", "besiege thy face"))
    training = [Sonnet(1, ("When forty winters", "shall besiege thy brow"))]
    values = measure([poem], training=training)
    assert values["longest_copy"] == values["longest_copy_max"] == 6


def test_intervals_hold_the_values_and_repeat() -> None:
    poems = [FORMED, Sonnet(2, FORMED.lines[:8]), Sonnet(3, shuffled_lines([FORMED])[0].lines)]
    truth = [Sonnet(poem.number, FORMED.lines) for poem in poems]
    values, intervals = measure(poems, truth), confidence_intervals(poems, truth, seed=4)
    assert intervals == confidence_intervals(poems, truth, seed=4)
    assert {"rhyme_accuracy", "chrf_course", "report_rhyme"} <= intervals.keys() <= values.keys()
    assert not {"distinct_1", "self_bleu"} & intervals.keys()
    for name, (low, high) in intervals.items():
        assert low - 1e-9 <= values[name] <= high + 1e-9, name
    # Three samples of each prompt say no more of the prompts than one does.
    for name, interval in confidence_intervals(poems * 3, truth, seed=4).items():
        assert interval == pytest.approx(intervals[name]), name
    alone = confidence_intervals([FORMED])
    assert all(low == high for low, high in alone.values())


# ---------------------------------------------------------------------------------------------------------------------
# Calibration
# ---------------------------------------------------------------------------------------------------------------------


def test_shuffles_change_order_and_nothing_else() -> None:
    (lines,), (words,) = shuffled_lines([FORMED], seed=1), shuffled_words([FORMED], seed=1)
    assert lines.lines != FORMED.lines and sorted(lines.lines) == sorted(FORMED.lines)
    assert words.lines != FORMED.lines
    assert [sorted(line.split()) for line in words.lines] == [sorted(line.lower().split()) for line in FORMED.lines]
    assert shuffled_lines([FORMED], seed=1) == [lines]


def test_prose_is_cut_into_whole_poems() -> None:
    text = " ".join(map(str, range(8 * 14 * 2 + 5)))
    poems = prose_in_lines(text, 5)
    assert [len(poem.lines) for poem in poems] == [14, 14]
    assert poems[1].lines[0] == "112 113 114 115 116 117 118 119"


def test_measures_tell_shakespeare_from_shuffles_and_prose(shared: Path) -> None:
    from datasets import SENTIMENT_TASKS, read_split

    sample = ROOT / "data" / "sample" / "ids-sst-train.csv"
    examples = read_split(SENTIMENT_TASKS["sst"], sample, labelled=True, keep_case=True).examples
    sonnets = read_sonnets(shared / "data" / "cs224n" / "sonnets.txt")[:40]
    rows = calibrate(sonnets, " ".join(example.text for example in examples))
    for name, values in rows.items():
        print(name, {key: round(values[key], 3) for key in ("rhyme_accuracy", "near_rhyme", "iambic_lines")})
    rhyme = {name: values["rhyme_accuracy"] for name, values in rows.items()}
    assert rhyme["sonnets"] > 0.75
    assert all(rhyme[name] < 0.15 for name in ("lines shuffled", "words shuffled", "prose"))
    iambic = {name: values["iambic_lines"] for name, values in rows.items()}
    assert iambic["sonnets"] > 0.85 and abs(iambic["lines shuffled"] - iambic["sonnets"]) < 0.03
    assert 0.3 < iambic["words shuffled"] < 0.6 and iambic["prose"] < 0.25
    assert rows["sonnets"]["ten_syllable_lines"] > 0.95 > 0.5 > rows["prose"]["ten_syllable_lines"]


def test_the_floors_are_those_of_the_published_task(shared: Path) -> None:
    """An unrelated ending after the given lines is known to score about 42, and about 27 by itself."""
    truth = read_sonnets(shared / "data" / "cs224n" / "TRUE_sonnets_held_out_dev.txt")
    values = measure(truth, truth)
    assert values["chrf_course"] == values["chrf_endings"] == 100.0
    assert values["chrf_course_floor"] == pytest.approx(42, abs=2)
    assert values["chrf_endings_floor"] == pytest.approx(27, abs=2)
    assert np.isclose(values["rhyme_accuracy"], 62 / 72)


# ---------------------------------------------------------------------------------------------------------------------
# The script
# ---------------------------------------------------------------------------------------------------------------------


def call(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    import measure_poems
    from training.cli import run_script

    code = run_script(lambda: measure_poems.main([str(argument) for argument in argv]))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def poems_file(tmp_path: Path) -> Path:
    path = tmp_path / "poems.txt"
    path.write_text(format_sonnets([FORMED, Sonnet(2, FORMED.lines[:9])]), encoding="utf-8")
    return path


def test_the_script_prints_and_writes_the_measures(
    capsys: pytest.CaptureFixture[str], poems_file: Path, tmp_path: Path
) -> None:
    code, out, err = call(
        capsys, poems_file, "--truth", poems_file, "--training", poems_file, "--show", "--json", tmp_path / "m.json"
    )
    assert (code, err) == (0, "")
    written = json.loads((tmp_path / "m.json").read_text())
    poems = read_sonnets(poems_file)
    assert written["measures"] == measure(poems, poems, poems) and written["n"] == 2
    assert "rhyme_accuracy" in out and written["chrf_signature"] in out
    assert show_poem(FORMED, 3) in out


def test_show_has_letter_and_stresses_beside_each_line() -> None:
    rows = show_poem(FORMED, 3).split("\n")
    assert rows[0] == "1" and len(rows) == 15
    assert [row[2] for row in rows[1:]] == list("ABABCDCDEFEFGG")
    assert [row[0] for row in rows[1:]] == ["|"] * 3 + [" "] * 11
    assert rows[1].split("  ", 1)[1].startswith("10 + x / x / x / x / x /")


def test_calibration_beside_the_poems(capsys: pytest.CaptureFixture[str], poems_file: Path) -> None:
    code, out, _ = call(capsys, poems_file, "--training", poems_file, "--calibrate")
    assert code == 0 and all(name in out for name in ("sonnets", "lines shuffled", "words shuffled", "prose"))


def test_calibration_on_the_file_itself(capsys: pytest.CaptureFixture[str], poems_file: Path) -> None:
    """Where it is called as the course calls its sonnets."""
    for name, is_itself in (("sonnets.txt", True), ("TRUE_sonnets_held_out_dev.txt", True), ("mine.txt", False)):
        path = poems_file.rename(poems_file.with_name(name))
        measures = poems_file.with_name("m.json")
        code, _, _ = call(capsys, path, "--given", 0, "--calibrate", "--json", measures)
        written = json.loads(measures.read_text())
        assert code == 0 and (written["measures"] == written["calibration"]["sonnets"]) == is_itself
        poems_file = path


def test_perplexity_by_a_model_that_is_named(
    capsys: pytest.CaptureFixture[str], poems_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    measures = tmp_path / "m.json"
    poems_file.write_text(format_sonnets([Sonnet(1, ("a", "the film")), Sonnet(2, ("a", "every scene"))]))
    code, out, err = call(capsys, poems_file, "--given", 1, "--model", tiny_model, "--json", measures)
    written = json.loads(measures.read_text())
    assert (code, err) == (0, "") and "generated_perplexity: by " in out
    low, high = written["ci"]["generated_perplexity"]
    assert 1 < low <= written["measures"]["generated_perplexity"] <= high
    assert len(written["reference_model"]["weights_sha256"]) == 1
    code, _, err = call(capsys, poems_file, "--model", tmp_path / "none")
    assert code == 2 and err.startswith("error: ")


def test_poems_that_end_with_their_given_lines(
    capsys: pytest.CaptureFixture[str], poems_file: Path, tiny_model: Path
) -> None:
    short = [Sonnet(number, ("the film", "every scene", "a story")) for number in (1, 2)]
    for poems, have in ((short, "2 poems have"), ([FORMED, short[1]], "1 poem has")):
        poems_file.write_text(format_sonnets(poems))
        code, out, err = call(capsys, poems_file)
        note = f"note: {have} no line after the given ones; --given 0 measures whole poems\n"
        assert (code, err) == (0, note) and ("iambic_lines" in out) == (poems is not short)
    assert call(capsys, poems_file, "--given", 0)[2] == ""
    poems_file.write_text(format_sonnets(short))
    code, out, _ = call(capsys, poems_file, "--model", tiny_model)
    assert code == 0 and "generated_left_out" in out and "generated_perplexity  " not in out


def test_intervals_of_a_perplexity_are_over_prompts() -> None:
    """Between those of the likeliest and the unlikeliest poem; samples of one prompt are drawn together."""
    numbers, nats, tokens = [1, 2], [2.0, 12.0], [2, 4]
    low, high = perplexity_interval(numbers, nats, tokens)
    assert (low, high) == pytest.approx((math.exp(2 / 2), math.exp(12 / 4)))
    assert perplexity_interval(numbers * 2, nats * 2, tokens * 2) == pytest.approx([low, high])
    assert perplexity_interval([7, 7], nats, tokens) == pytest.approx([math.exp(14 / 6)] * 2)


def test_everything_wrong_is_said_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = call(capsys, tmp_path / "no.txt", "--truth", tmp_path / "none.txt", "--json", tmp_path / "x" / "m")
    assert code == 2 and [line[:7] for line in err.splitlines()] == ["error: "] * 3


def test_numbers_that_can_not_be_written(capsys: pytest.CaptureFixture[str], poems_file: Path, tmp_path: Path) -> None:
    code, out, err = call(capsys, poems_file, "--json", tmp_path)
    assert (code, out, err) == (2, "", f"error: --json {tmp_path}: is a folder; name a file\n")  # before all the work
    long = tmp_path / ("m" * 253)  # too long only with the ending of its temporary name
    code, out, err = call(capsys, poems_file, "--json", long)
    assert code == 2 and "rhyme_accuracy" in out
    assert err == f"error: --json {long}: can't be written (File name too long); choose another file\n"


def test_a_truth_of_other_poems_is_refused(
    capsys: pytest.CaptureFixture[str], poems_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "true.txt").write_text("1\nA line\n", encoding="utf-8")
    code, _, err = call(capsys, poems_file, "--truth", tmp_path / "true.txt")
    assert code == 2 and err.startswith(f"error: --truth {tmp_path / 'true.txt'}: the true poems lack number 2;")


def test_what_is_printed_is_explained(capsys: pytest.CaptureFixture[str], poems_file: Path) -> None:
    code, explained, err = call(capsys, "--list-measures")
    assert (code, err) == (0, "")
    _, printed, _ = call(capsys, poems_file, "--truth", poems_file, "--training", poems_file, "--model", "mini")
    names = {line.split()[0] for line in printed.splitlines()[2:] if re.match(r"\w*_\w* ", line)}
    assert len(names) > 15 and names <= {line.split()[0] for line in explained.splitlines() if line}


def test_help_imports_nothing_slow() -> None:
    program = (
        "import sys, measure_poems\ntry: measure_poems.main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'pronouncing', 'sacrebleu'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
