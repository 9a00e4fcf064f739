"""Natural language inference: the formats, and whole runs that score labels as continuations."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_korean import TEXTS, make_kogpt2
from tiny_run import Result, make_checkpoint, only_run

import natural_language_inference
from config import UserError
from natural_language_inference import InferenceSettings, read
from tasks.inference import DATASETS, THREE_WAY, TWO_WAY, Pair, read_pairs
from training.writing.task_cli import chosen_rows

Run = Callable[..., Result]


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def read_train(path: Path) -> list[Pair]:
    return read_pairs({"train": [path]}).splits["train"]


# ---------------------------------------------------------------------------------------------------------------------
# Formats
# ---------------------------------------------------------------------------------------------------------------------


def test_all_formats_give_the_same_pairs(tmp_path: Path) -> None:
    """A quotation mark is a letter in the tables, however unbalanced."""
    rows = [('A "dog runs', "it moves", "entailment"), ("A cat", "a car", "contradiction"), ("x", "y", "neutral")]
    kornli = "\n".join("\t".join(row) for row in [("sentence1", "sentence2", "gold_label"), *rows])
    sick = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    sick += "\n".join(f"{i}\t{a}\t{b}\t3.2\t{label.upper()}" for i, (a, b, label) in enumerate(rows, start=2))
    names = ("premise", "hypothesis", "label")
    jsonl = "\n" + "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)
    snli = jsonl.replace("premise", "sentence1").replace("hypothesis", "sentence2").replace('"label"', '"gold_label"')
    expected = [
        Pair("2", 'A "dog runs', "it moves", 0, 2),
        Pair("3", "A cat", "a car", 2, 3),
        Pair("4", "x", "y", 1, 4),
    ]
    for name, content in (("a.tsv", kornli), ("a.txt", sick), ("a.jsonl", jsonl), ("b.jsonl", snli)):
        assert read_train(write(tmp_path, name, content)) == expected, name


RTE = """<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE entailment-corpus SYSTEM "nowhere.dtd">
<entailment-corpus>
<pair id="7" {yes} task="IR">
  <t>One &amp; two
     are "three" &#163;.</t>
  <h>So é.</h>
</pair>
<pair id="8" {no} task="IR"><t>a</t><h>b</h></pair>
</entailment-corpus>
"""


@pytest.mark.parametrize(("yes", "no"), [('value="TRUE"', 'value="FALSE"'), ('entailment="YES"', 'entailment="NO"')])
def test_every_year_of_rte(tmp_path: Path, yes: str, no: str) -> None:
    found = read_pairs({"train": [write(tmp_path, "a.xml", RTE.format(yes=yes, no=no))]})
    assert found.label_names == TWO_WAY
    assert found.splits["train"] == [Pair("7", 'One & two are "three" £.', "So é.", 0, 4), Pair("8", "a", "b", 1, 9)]


def test_files_of_one_split_are_put_together(tmp_path: Path) -> None:
    text = RTE.format(yes='value="TRUE"', no='value="FALSE"')
    files = [write(tmp_path, "one.xml", text), write(tmp_path, "two.xml", text)]
    assert [p.id for p in read_pairs({"train": files}).splits["train"]] == ["one/7", "one/8", "two/7", "two/8"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("<a>\n<pair id='1' value='TRUE'>\n<t>x</t><h>y</h>\n</a>", "a.xml:4: mismatched tag"),
        ("<a>\n<pair id='1' value='TRUE'><t>x</t><h>y</h></pair>\n", "a.xml:3: no element found"),
        ('<!DOCTYPE a [\n<!ENTITY b "bbbb">]>\n<a>&b;</a>', "a.xml:2: the entity 'b'"),
        ("<!DOCTYPE a SYSTEM 'b'>\n<a>\n<pair><t>&eacute;</t></pair></a>", "a.xml:3: the entity 'eacute'"),
        ("<a>\n<pair id='1' value='TRUE'><t>x</t>\n</pair></a>", "a.xml:2: a pair without text"),
        ("<a>\n<pair value='TRUE'><t>x</t><h>y</h></pair>\n<pair value='YESS'><t>x</t><h>y</h></pair></a>",
         "a.xml:3: the label 'YESS' is unknown"),
        ("<a/>", "a.xml: holds no <pair>"),
    ],
)  # fmt: skip
def test_bad_xml_is_named_by_its_line(tmp_path: Path, content: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        read_train(write(tmp_path, "a.xml", content))
    (found,) = caught.value.problems
    assert found.startswith(f"{tmp_path}/{problem}") and "; " in found


def test_unknown_and_missing_labels_are_named(tmp_path: Path) -> None:
    train = write(tmp_path, "train.tsv", "sentence1\tsentence2\tgold_label\na\tb\tneutral\na\tb\tmaybe\na\tb\t\n")
    dev = write(tmp_path, "dev.tsv", "sentence1\tsentence2\na\tb\n")
    with pytest.raises(UserError) as caught:
        read_pairs({"train": [train], "dev": [dev]}, THREE_WAY)
    assert [problem.removeprefix(f"{tmp_path}/").split(";")[0] for problem in caught.value.problems] == [
        "dev.tsv:1: no 'gold_label' anywhere",
        "train.tsv:3: the label 'maybe' is unknown",
        "train.tsv:4: no label",
    ]


def test_pairs_without_agreement_are_counted_and_a_test_file_may_have_no_labels(tmp_path: Path) -> None:
    header = "sentence1\tsentence2\tgold_label\n"
    train = write(tmp_path, "train.tsv", header + "a\tb\t-\na\tc\tneutral\n")
    test = write(tmp_path, "test.tsv", header + "a\tb\t\n")
    found = read_pairs({"train": [train], "test": [test]})
    assert found.splits == {"train": [Pair("3", "a", "c", 1, 3)], "test": [Pair("2", "a", "b", None, 2)]}
    assert found.notes == ("train.tsv: 1 pairs with the label - or -1 (no agreement) are left out",)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_labels_may_be_the_hub_s_numbers(tmp_path: Path, ending: str) -> None:
    """As SNLI, MNLI and KLUE have them there; -1 is a pair without a label, and in a test set all may have it."""
    numbers = {"train": [2, 0, -1, 1], "dev": [0, 1], "test": [-1, -1]}
    paths = {}
    for split, labels in numbers.items():
        lines = [json.dumps({"premise": "a", "hypothesis": "b", "label": label}) for label in labels]
        if ending == "csv":
            lines = ["premise,hypothesis,label", *(f"a,b,{label}" for label in labels)]
        paths[split] = [write(tmp_path, f"{split}.{ending}", "\n".join(lines))]
    found = read_pairs(paths)
    assert found.label_names == THREE_WAY
    labels_read = {split: [pair.label for pair in pairs] for split, pairs in found.splits.items()}
    assert labels_read == {"train": [2, 0, 1], "dev": [0, 1], "test": [None, None]}
    assert found.notes == (f"train.{ending}: 1 pairs with the label - or -1 (no agreement) are left out",)


def test_two_classes_in_numbers_are_refused(tmp_path: Path) -> None:
    """GLUE's RTE has them: 1 would be read as neutral."""
    train = write(tmp_path, "train.csv", "premise,hypothesis,label\na,b,0\na,c,1\n")
    with pytest.raises(UserError) as caught:
        read_pairs({"train": [train]})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{train}: the labels 0 and 1 may mean two classes") and "not_entailment" in problem


def test_labels_may_be_korean_words(tmp_path: Path) -> None:
    lines = [f"a\tb\t{unicodedata.normalize('NFD', word)}" for word in ("모순", "함의", "중립")]
    train = write(tmp_path, "train.tsv", "\n".join(["sentence1\tsentence2\tgold_label", *lines]))
    assert [pair.label for pair in read_train(train)] == [2, 0, 1]


def test_what_is_no_label_gets_the_labels_that_are(tmp_path: Path) -> None:
    lines = [json.dumps({"premise": "a", "hypothesis": "b", "label": label}) for label in (7, [0], 0.5, "E")]
    with pytest.raises(UserError) as caught:
        read_train(write(tmp_path, "a.jsonl", "\n".join(lines)))
    remedy = "is unknown; the labels are entailment, neutral, contradiction, 함의, 중립, 모순, 0, 1, 2"
    assert caught.value.problems == [
        f"{tmp_path}/a.jsonl:{i}: the label {label!r} {remedy}"
        for i, label in enumerate(("7", "[0]", "0.5", "E"), start=1)
    ]


@pytest.mark.parametrize(
    ("name", "sizes"), [("kornli", (5010, 2490)), ("sick", (4500, 500, 4927)), ("rte", (1767, 800, 800))]
)
def test_the_published_files(shared: Path, name: str, sizes: tuple[int, ...]) -> None:
    dataset = DATASETS[name]
    folder = shared / "data" / ("korean" if dataset.language == "ko" else "english") / name
    paths = {split: [folder / file for file in files] for split, files in dataset.files.items()}
    found = read_pairs(paths)
    assert found.label_names == dataset.label_names
    assert tuple(len(pairs) for pairs in found.splits.values()) == sizes


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs
# ---------------------------------------------------------------------------------------------------------------------

SAID = {"entailment": "superb", "neutral": "usual", "contradiction": "awful"}


def rows(count: int, start: int = 0) -> str:
    """Pairs whose label a word of the hypothesis gives away; every second is an entailment."""
    lines = ["sentence1\tsentence2\tgold_label"]
    for i in range(start, start + count):
        label = THREE_WAY[(i // 2) % 2 + 1 if i % 2 else 0]
        lines.append(f"this film has {'the story ' * (i % 4)}{i}\tthe {SAID[label]} scene\t{label}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("data")
    unlabelled = "\n".join(line.rpartition("\t")[0] for line in rows(5).splitlines())
    return ["--train-file", write(folder, "train.tsv", rows(40)), "--dev-file", write(folder, "dev.tsv", rows(13, 40)),
            "--test-file", write(folder, "test.tsv", unlabelled)]  # fmt: skip


@pytest.fixture
def infer(script: Callable[[str], Run]) -> Run:
    return script("natural_language_inference")


def metrics_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


def test_a_share_of_the_training_pairs_is_stratified_nested_and_by_the_seed(files: list[Any]) -> None:
    def ids(share: float | None, seed: int = 1) -> set[str]:
        settings = InferenceSettings(train_fraction=share, seed=seed)
        found = read({"train": [files[1]], "dev": [files[3]]}, settings)
        labels = [pair.label for pair in found.splits["train"]]
        n = round(40 * (share or 1))
        assert [labels.count(label) for label in range(3)] == [n / 2, n / 4, n / 4]
        assert len(found.splits["dev"]) == 13 and len(found.notes) == (settings.train_fraction is not None)
        return {pair.id for pair in found.splits["train"]}

    shares = [ids(share) for share in (0.2, 0.4, 0.8, None)]
    assert all(small < large for small, large in pairwise(shares))
    assert ids(0.4, seed=2) != shares[1] and ids(1.0) == shares[-1]
    with pytest.raises(UserError, match="--train-fraction 0.01: leaves no example of the class 'entailment'"):
        read({"train": [files[1]]}, InferenceSettings(train_fraction=0.01))


def test_a_share_has_a_folder_of_its_own_and_says_its_rows(infer: Run, model: Path, files: list[Any]) -> None:
    names = {}
    for share in (None, 0.4, 1):
        more = [] if share is None else ["--train-fraction", share]
        done = infer(*files, "--model", model, *more, "--dry-run")
        assert done.code == 0, done.err
        names[share] = next(line.split("/")[-1] for line in done.out.splitlines() if line.startswith("run  "))
        assert ("a share of 0.4 of each label's pairs" in done.out) == (share == 0.4)
        assert f"{16 if share == 0.4 else 40} texts to train on" in done.out
    assert names[None] == names[1] != names[0.4]


def test_a_label_that_could_never_be_chosen_is_refused(infer: Run, files: list[Any], tmp_path: Path) -> None:
    words = ["--label-words", "implied", "implied not", "odd"]
    done = infer(*files, *words, "--dry-run")
    assert done.code == 2 and done.errors == [
        "error: --label-words: in this vocabulary the tokens of 'implied not' begin with all of those of 'implied', so "
        "it could never be chosen; give words of which none begins another"
    ]
    assert infer(*files, *words, "--label-score", "mean", "--dry-run").code == 0  # the longer one's mean may be higher
    kogpt2 = make_kogpt2(tmp_path / "kogpt2")
    done = infer(*files, "--language", "ko", "--model", kogpt2, "--label-words", "✓", "✗", "비가", "--dry-run")
    assert (
        done.code == 2 and "the tokens of '✗' begin with all of those of '✓'" in done.errors[0]
    )  # both are unknown to it


def test_held_out_rows_leave_the_dev_and_test_set_of_a_dataset_alone(files: list[Any]) -> None:
    paths = {split: [Path(files[2 * number + 1])] for number, split in enumerate(("train", "dev", "test"))}
    whole = natural_language_inference.read(paths, InferenceSettings()).splits
    held = natural_language_inference.read(paths, InferenceSettings(hold_out=4, limit_train=20, limit_dev=3)).splits
    assert held["dev"] == whole["train"][:20:4][:3] and held.keys() == {"train", "dev"}
    assert held["train"] == [pair for number, pair in enumerate(whole["train"][:20]) if number % 4]
    own = InferenceSettings(hold_out=4, train_file=str(paths["train"][0]), test_file=str(paths["test"][0]))
    assert natural_language_inference.read(paths, own).splits["test"] == whole["test"]  # the user named it


def test_no_premise_is_trained_on_and_held_out() -> None:
    pairs = [Pair(str(i), f"premise  {i // 3 % 4}", "it is good", 0, i + 1) for i in range(20)]
    found = chosen_rows({"train": pairs}, InferenceSettings(hold_out=3))
    assert {pair.premise for pair in found["dev"]} == {"premise  0", "premise  3"}
    assert not {pair.premise for pair in found["dev"]} & {pair.premise for pair in found["train"]}
    assert sorted([*found["train"], *found["dev"]], key=lambda pair: pair.line) == pairs


def test_a_run_learns_and_its_scores_are_those_of_transformers(
    infer: Run, model: Path, files: list[Any], tmp_path: Path
) -> None:
    command = [*files, "--model", model, "--epochs", 4, "--lr", 0.02, "--batch-size", 4, "--output-dir", tmp_path,
               "--precision", "fp32", "--show-examples", 1]  # fmt: skip
    done = infer(*command)
    assert done.code == 0, done.err
    again = infer(*command)
    assert again.code == 0 and again.out.splitlines()[-8:-5] == done.out.splitlines()[-8:-5]
    run = only_run(tmp_path)
    metrics = metrics_of(run)
    assert metrics["majority"] == {"label": "entailment", "dev": {"accuracy": 7 / 13, "n": 13}}
    assert metrics["dev"]["accuracy"] > 0.9 and "always entailment, the majority class" in done.out
    assert metrics["dev"]["perplexity"] > 1 and metrics["dev_ci"]["accuracy"][1] <= 1
    assert metrics["chosen_by"]["accuracy"] == max(epoch["dev"]["accuracy"] for epoch in metrics["history"])
    assert np.trace(metrics["confusion"]) == round(metrics["dev"]["accuracy"] * 13)
    assert "test" not in metrics and (run / "predictions" / "inference-custom-test-output.csv").exists()
    assert "<sep>" in done.out and "[<|endoftext|>]" in done.out

    records = [json.loads(line) for line in (run / "predictions" / "dev-scores.jsonl").read_text().splitlines()]
    pair = read_pairs({"dev": [files[3]]}, THREE_WAY).splits["dev"][0]
    logs = label_log_probabilities(run / "best", pair.premise, pair.hypothesis, [f" {word}" for word in THREE_WAY])
    shares = np.exp([sum(row) for row in logs])
    assert records[0]["id"] == "2" and records[0]["label"] == pair.label
    np.testing.assert_allclose(records[0]["probabilities"], shares / shares.sum(), rtol=1e-4, atol=1e-6)

    for flags, each in (([], sum), (["--label-score", "mean"], np.mean)):
        said = infer("--premise", pair.premise, "--hypothesis", pair.hypothesis, "--output-dir", tmp_path, *flags)
        assert said.code == 0, said.err
        shares = np.exp([each(row) for row in logs])
        shares = dict(zip(THREE_WAY, shares / shares.sum(), strict=True))
        found = {name: float(share) for share, name in (line.split() for line in said.out.splitlines())}
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert found == pytest.approx(shares, abs=6e-4)
    assert said.err.startswith("run: ") and said.err.count("\n") == 1
    said = infer("--premise", "the film " * 80, "--hypothesis", pair.hypothesis, "--output-dir", tmp_path)
    assert said.code == 0 and " are cut from the end of what is given" in said.err, said.err


def label_log_probabilities(folder: Path, premise: str, hypothesis: str, words: list[str]) -> list[list[float]]:
    """Of each token of each label, by transformers, one text at a time."""
    import torch
    from transformers import AutoTokenizer, GPT2LMHeadModel

    tokenizer, lm = AutoTokenizer.from_pretrained(folder), GPT2LMHeadModel.from_pretrained(folder).float().eval()
    begin = "<|endoftext|>"
    prompt = tokenizer(f"{begin}{premise}<sep>{hypothesis}<nli>", add_special_tokens=False)["input_ids"]
    found = []
    for word in words:
        label = tokenizer(word, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            log_p = lm(torch.tensor([prompt + label])).logits[0].log_softmax(dim=-1)
        found.append([float(log_p[len(prompt) - 1 + i, token]) for i, token in enumerate(label)])
    assert any(len(row) > 1 for row in found)  # or the mean would be the sum
    return found


def test_an_adapter_on_two_classes_with_own_words(infer: Run, model: Path, tmp_path: Path) -> None:
    """RTE's files by their published names; ``lora`` trains the rows of <sep> and <nli>, too."""
    (tmp_path / "rte").mkdir()
    pair = "<pair id='{i}' value='{value}'><t>this film {i}</t><h>the {word} scene</h></pair>\n"
    for name in (name for names in DATASETS["rte"].files.values() for name in names):
        pairs = [pair.format(i=i, value=str(i % 2 == 0).upper(), word=("superb", "awful")[i % 2]) for i in range(6)]
        write(tmp_path / "rte", name, f"<corpus>\n{''.join(pairs)}</corpus>")
    done = infer("--dataset", "rte", "--data-dir", tmp_path / "rte", "--model", model, "--strategy", "lora",
                 "--epochs", 1, "--lora-rank", 2, "--label-words", "right", "wrong",
                 "--output-dir", tmp_path / "runs")  # fmt: skip
    assert done.code == 0, done.err
    assert "18 texts to train on, 6 dev, 6 test" in done.out and "not the split of GLUE" in done.out
    run = only_run(tmp_path / "runs")
    metrics = metrics_of(run)
    assert metrics["label_words"] == ["right", "wrong"] and metrics["test"]["n"] == 6
    assert [row["class"] for row in metrics["classes"]] == ["entailment", "not entailment"]
    assert (run / "predictions" / "inference-rte-dev-output.csv").read_text().startswith("id \t Predicted_Label \n0, ")


def test_a_model_of_kogpt2_s_layout_takes_its_spare_tokens(infer: Run, tmp_path: Path) -> None:
    names = ("premise", "hypothesis", "label")
    lines = [json.dumps(dict(zip(names, (TEXTS[i], TEXTS[i - 1], THREE_WAY[i % 3]), strict=True))) for i in range(4)]
    path = write(tmp_path, "a.jsonl", "\n".join(lines))
    kogpt2 = make_kogpt2(tmp_path / "m", [*TEXTS, "함의 중립 모순"])
    done = infer("--train-file", path, "--dev-file", path, "--language", "ko", "--model", kogpt2,
                 "--epochs", 1, "--strategy", "bitfit", "--output-dir", tmp_path / "runs")  # fmt: skip
    assert done.code == 0, done.err
    assert "<sep> as <unused0>, <nli> as <unused1>" in done.out
    assert metrics_of(only_run(tmp_path / "runs"))["label_words"] == ["함의", "중립", "모순"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--label-words", "yes", "no"], "--label-words yes no: give 3 different words"),
        (["--label-words", "a", "b", "b"], "--label-words a b b: give 3 different words"),
        (["--temperature", "1", "--num-beams", "2"], "--beams: labels are scored, nothing is written"),
        (["--premise", "x", "--hypothesis", "y", "--temperature", 1], "--temperature: labels are scored"),
        (["--premise", "x", "--hypothesis", "y", "--skip-long"], "--skip-long: nothing is trained with --premise"),
        (["--from-run", "x"], "--from-run x: goes with --premise and --hypothesis; without, a new run is trained"),
        (["--ul-alpha", 1], "--ul-alpha: there is no unlikelihood for this task"),
        (["--ul-sequence", 0.5], "--ul-sequence: there is no unlikelihood for this task"),
        (["--no-ul-line-breaks"], "--no-ul-line-breaks: there is no unlikelihood for this task"),
        (["--premise", "x"], "--premise and --hypothesis: one is missing"),
        (["--premise", "x", "--hypothesis", " "], "--premise and --hypothesis: one is missing"),
        (["--dataset", "rte", "--data-dir", "."], "rte1_dev.xml: missing"),
    ],
)
def test_wrong_flags(flags: list[str], words: str, infer: Run, model: Path, files: list[Any], tmp_path: Path) -> None:
    own = [] if "--dataset" in flags else files
    done = infer(*own, *flags, "--model", model, "--output-dir", tmp_path / "runs")
    assert done.code == 2 and any(words in error for error in done.errors), done.err
    assert not (tmp_path / "runs").exists()


def test_pairs_that_do_not_fit_are_named_before_training_or_left_out(
    infer: Run, model: Path, files: list[Any], tmp_path: Path
) -> None:
    long = "a film\t" + "story " * 70
    dev = write(tmp_path, "dev.tsv", rows(4) + f"{long}\tneutral\n")
    test = write(tmp_path, "test.tsv", f"sentence1\tsentence2\na film\ta film\n{long}\n")
    command = [*files[:2], "--dev-file", dev, "--test-file", test, "--model", model, "--limit-train", 4, "--epochs", 1,
               "--output-dir", tmp_path / "runs"]  # fmt: skip
    done = infer(*command)
    assert done.code == 2 and not (tmp_path / "runs").exists()
    found = [error.split(":")[1:3] for error in done.errors]
    assert found == [[f" {dev}", " text 6"], [f" {test}", " text 3"]], done.err
    done = infer(*command, "--skip-long")
    assert done.code == 0, done.err
    for split, count in (("dev", "1 of 5"), ("test", "1 of 2")):
        assert f"{split}: {count} pairs do not fit the context and are left out" in done.out
    run = only_run(tmp_path / "runs")
    assert metrics_of(run)["dev"]["n"] == 4
    assert len((run / "predictions" / "test-scores.jsonl").read_text().splitlines()) == 1


def test_problems_of_all_files_are_reported_together(infer: Run, model: Path, tmp_path: Path) -> None:
    train = write(tmp_path, "train.tsv", rows(4) + "a\tb\tperhaps\n")
    dev = write(tmp_path, "dev.xml", "<corpus>\n<pair><t>x</t></corpus>")
    done = infer("--train-file", train, "--dev-file", dev, "--model", model, "--output-dir", tmp_path / "runs")
    assert done.code == 2
    assert [error.split("; ")[0].removeprefix(f"error: {tmp_path}/") for error in done.errors] == [
        "dev.xml:2: mismatched tag",
        "train.tsv:6: the label 'perhaps' is unknown",
    ]
