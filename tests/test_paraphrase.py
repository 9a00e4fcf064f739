"""Paraphrase runs from the command line, on made pairs and on the bundled ones."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import FILLERS, ROOT, THINGS, Result, only_run, read_log, results_of, said_by_card

from paraphrase_detection import ParaphraseSettings, predictions_file
from strategies import STRATEGIES
from training import setup
from training.classification import preparation
from training.classification import run as classification
from training.classification.metrics import Predictions
from training.classification.probes import read_probes
from training.loop import _Loop

Run = Callable[..., Result]
SIZES = {"train": 40, "dev": 18, "test-student": 7}


def make_pairs(count: int, seed: int) -> list[tuple[str, str, int]]:
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        first = draw.choices(FILLERS + THINGS, k=draw.randint(2, 9))
        second = draw.sample(first, len(first)) if i % 3 == 0 else draw.choices(FILLERS + THINGS, k=draw.randint(2, 9))
        rows.append((" ".join(first).capitalize() + "?", " ".join(second) + "?", int(i % 3 == 0)))
    return rows


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in the course's format."""
    folder = tmp_path_factory.mktemp("pairs")
    for seed, (split, count) in enumerate(SIZES.items()):
        labelled = split != "test-student"
        lines = ["\tid\tsentence1\tsentence2" + ("\tis_duplicate" if labelled else "")]
        for i, (first, second, label) in enumerate(make_pairs(count, seed)):
            lines.append(f"{i}\t{split}{i}\t{first}\t{second}" + (f"\t{label}.0" if labelled else ""))
        (folder / f"quora-{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def flags(still_model_with_answers: Path, pairs: Path) -> list[Any]:
    return ["--model", still_model_with_answers, "--data-dir", pairs, "--epochs", 2, "--batch-size", 8, "--lr", 1e-3]


@pytest.fixture(scope="module")
def still_model_with_answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model without dropout, of more positions than the frame of a pair takes, that knows " yes" and " no"."""
    from tiny_run import make_checkpoint
    from tokenizers import AddedToken, Tokenizer

    folder = tmp_path_factory.mktemp("models") / "answers"
    still = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
    make_checkpoint(folder, n_positions=160, vocab_size=402, **still)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(" yes", normalized=False), AddedToken(" no", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() <= 402
    return folder


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def scores_of(folder: Path, split: str) -> np.ndarray:
    lines = (folder / "predictions" / f"{split}-scores.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["probabilities"] for line in lines])


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["baseline", "taskA", "taskB", "taskC", "cloze", "lora"])
def test_a_strategys_run(name: str, paraphrase: Run, flags: list[Any], tmp_path: Path) -> None:
    done = paraphrase(*flags, "--strategy", name, "--output-dir", tmp_path)
    assert done.code == 0, done.err
    folder = only_run(tmp_path)
    metrics = metrics_of(folder)
    assert metrics["strategy"] == {"baseline": "full"}.get(name, name)
    suffix = "" if name == "baseline" else f"_{name}"
    with open(folder / "predictions" / f"para-dev-output{suffix}.csv") as file:
        header, *rows = file.read().splitlines()
    assert header == "id \t Predicted_Is_Paraphrase " and len(rows) == SIZES["dev"]
    assert {row.split(", ")[1].strip() for row in rows} <= {"0", "1"}
    assert (folder / "predictions" / f"para-test-output{suffix}.csv").exists()
    assert {"precision", "recall", "f1", "roc_auc", "calibration_error"} <= metrics["dev"].keys()
    assert metrics["threshold_curve"][9]["threshold"] == 0.5
    assert metrics["threshold_curve"][9]["recall"] == pytest.approx(metrics["dev"]["recall"])
    assert metrics["probes"]["all"]["n"] == 120 and len(metrics["probes"]) == 9
    card = (folder / "best" / "README.md").read_text()
    assert ("pipeline(" in card) == (name in ("baseline", "taskA", "lora"))
    assert ("pipeline(" in card) != ("python paraphrase_detection.py --predict" in card)
    assert (folder / "thresholds.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["cloze", "taskB", "taskC"])
def test_a_killed_run_goes_on_to_the_same_bytes(
    name: str, paraphrase: Run, flags: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second epoch, which for taskC has a dropout and a rate of its own."""
    command = [*flags, "--strategy", name, "--save-every", 1e-6]
    assert paraphrase(*command, "--output-dir", tmp_path / "whole").code == 0
    update = _Loop._update

    def kill(self: Any, indices: list[int], position: float) -> float:
        if (self.progress.epoch, self.progress.window) == (1, 2):
            raise SystemExit("killed")
        return update(self, indices, position)

    monkeypatch.setattr(_Loop, "_update", kill)
    with pytest.raises(SystemExit):
        paraphrase(*command, "--output-dir", tmp_path / "cut")
    monkeypatch.setattr(_Loop, "_update", update)
    assert paraphrase(*command, "--output-dir", tmp_path / "cut").code == 0
    assert results_of(only_run(tmp_path / "cut")) == results_of(only_run(tmp_path / "whole"))


def test_own_pairs_have_the_settings_of_quoras(paraphrase: Run, still_model_with_answers: Path, tmp_path: Path) -> None:
    rows = ["sentence1\tsentence2\tlabel", "Is it?\tIs it so?\t1", "Is it?\tWhere is it?\t0"]
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("\n".join(rows) + "\n")
    own = ["--train-file", tmp_path / "train.tsv", "--dev-file", tmp_path / "dev.tsv"]
    done = paraphrase("--model", still_model_with_answers, *own, "--strategy", "baseline", "--dry-run")
    assert done.code == 0 and "training  epochs 10, batch 8, constant rate" in done.out and "dropout 0\n" in done.out


def test_a_symmetric_prediction_does_not_depend_on_the_order(
    paraphrase: Run, flags: list[Any], pairs: Path, tmp_path: Path
) -> None:
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    for path in pairs.iterdir():
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        if path.name != "quora-train.csv":
            rows = [rows[0], *([row[0], row[1], row[3], row[2], *row[4:]] for row in rows[1:])]
        (swapped / path.name).write_text("\n".join("\t".join(row) for row in rows) + "\n")
    for name, more in (("one", []), ("both", ["--symmetric"])):
        for folder, data in (("a", pairs), ("b", swapped)):
            done = paraphrase(*flags, "--data-dir", data, *more, "--output-dir", tmp_path / name / folder)
            assert done.code == 0, done.err
    one = [scores_of(only_run(tmp_path / "one" / folder), "test") for folder in "ab"]
    both = [scores_of(only_run(tmp_path / "both" / folder), "test") for folder in "ab"]
    assert np.abs(one[0] - one[1]).max() > 1e-5
    run = only_run(tmp_path / "both" / "a")
    questions = ("the actor?", "every story of this film, rather dull")
    said = [
        paraphrase("--predict", *order, "--from-run", run).out.rstrip("\n") for order in (questions, questions[::-1])
    ]
    assert [text.split("\t")[2:] for text in said] == [[*questions], [*questions[::-1]]]
    assert said[0].split("\t")[:2] == said[1].split("\t")[:2]
    assert "pipeline(" not in (run / "best" / "README.md").read_text()
    np.testing.assert_allclose(both[0], both[1], atol=1e-6)
    np.testing.assert_allclose(both[0], (one[0] + one[1]) / 2, atol=1e-6)


def test_both_orders_train_on_twice_as_many_pairs(paraphrase: Run, flags: list[Any], tmp_path: Path) -> None:
    assert paraphrase(*flags, "--both-orders", "--output-dir", tmp_path).code == 0
    steps = [record["step"] for record in read_log(only_run(tmp_path)) if "dev" not in record]
    assert max(steps) == 2 * 2 * SIZES["train"] / 8


def test_what_the_model_sees_is_shown(paraphrase: Run, flags: list[Any], tmp_path: Path) -> None:
    done = paraphrase(*flags, "--strategy", "cloze", "--show-examples", 1, "--output-dir", tmp_path)
    shown = next(line for line in done.out.splitlines() if "tokens:" in line)
    assert shown.strip().startswith("73 tokens: O n e Ġ qu e s t i o n :") and shown.endswith("a n s w er Ġ is")
    assert "by ' yes'" in done.out  # the first pair is a duplicate


def test_a_model_without_a_token_for_an_answer_is_refused(
    paraphrase: Run, flags: list[Any], tiny_model: Path, tmp_path: Path
) -> None:
    from tiny_run import make_checkpoint

    folder = make_checkpoint(tmp_path / "model", n_positions=160)
    command = [*flags, "--model", folder, "--strategy", "cloze", "--output-dir", tmp_path / "runs"]
    for more in ([], ["--dry-run"]):
        done = paraphrase(*command, *more)
        assert done.code == 2 and not (tmp_path / "runs").exists()
    (error,) = done.errors
    assert "this model's vocabulary has no single token for ' no' and ' yes'" in error


def test_a_frame_that_does_not_fit_is_refused(
    paraphrase: Run, flags: list[Any], tiny_model: Path, tmp_path: Path
) -> None:
    done = paraphrase(*flags, "--model", tiny_model, "--output-dir", tmp_path / "runs", "--dry-run")
    assert done.code == 2 and len(done.errors) == 1 and "the words around two questions" in done.errors[0]


def test_an_end_to_keep_is_refused(paraphrase: Run, flags: list[Any], tmp_path: Path) -> None:
    done = paraphrase(*flags, "--keep", "end", "--output-dir", tmp_path / "runs", "--dry-run")
    assert done.code == 2 and len(done.errors) == 1 and done.errors[0].startswith("error: --keep: ")


def test_predictions_on_own_pairs_have_a_name_of_their_own() -> None:
    named = {
        dataset: predictions_file(ParaphraseSettings(), STRATEGIES["lora"], dataset)
        for dataset in ("qqp", "qqp-sample", "custom")
    }
    assert named == {
        "qqp": "para-{split}-output_lora.csv",
        "qqp-sample": "para-{split}-output-sample_lora.csv",
        "custom": "para-{split}-output-custom_lora.csv",
    }


# ---------------------------------------------------------------------------------------------------------------------
# Using a finished run
# ---------------------------------------------------------------------------------------------------------------------


def test_pairs_are_labelled_with_a_finished_run(paraphrase: Run, flags: list[Any], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert paraphrase(*flags, "--output-dir", runs).code == 0
    folder = only_run(runs)
    with open(flags[3] / "quora-test-student.csv") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    (tmp_path / "pairs.tsv").write_text("".join(f"{row['sentence1']}\t{row['sentence2']}\n" for row in rows))
    done = paraphrase("--predict-file", tmp_path / "pairs.tsv", "--output-dir", runs)
    assert done.code == 0 and len(done.out.splitlines()) == len(rows)
    for line, (no, yes) in zip(done.out.splitlines(), scores_of(folder, "test"), strict=True):
        label, probabilities, *texts = line.split("\t")
        assert label == ("duplicate" if yes > no else "not a duplicate") and len(texts) == 2
        likelier = float(probabilities.partition(",")[0].rsplit(" ", 1)[1])
        assert likelier == pytest.approx(max(yes, no), abs=0.005)  # the run may have had bf16
    first = paraphrase("--predict", rows[0]["sentence1"], rows[0]["sentence2"], "--from-run", folder)
    assert first.out == done.out.splitlines(keepends=True)[0]
    questions = ("How do I learn Java?", "What is the best way to learn Java?")  # the card's
    example = paraphrase("--predict", *questions, "--from-run", folder)
    said = said_by_card(folder / "best")
    assert example.out.startswith(f"{said['label']}\t{said['label']} {said['score']:.3f}, ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--predict", "one question"], "--predict ['one question']: must be two questions"),
        (["--predict", "one question", " "], "--predict:1: two questions with a tab between them are needed"),
        (["--predict", "one", "another", "--symmetric"], "--symmetric: nothing is trained with --predict; leave it"),
        (["--predict", "one", "another", "--predict-file", "b"], "--predict and --predict-file: give one of them"),
        (["--strategy", "best"], "--strategy best: unknown; choose from full, head"),
        (["--dataset", "sst"], "argument --dataset: invalid choice: 'sst'"),
    ],
)
def test_mistakes_get_one_clear_line(argv: list[str], message: str, paraphrase: Run, tmp_path: Path) -> None:
    done = paraphrase(*argv, "--output-dir", tmp_path)
    assert done.code == 2 and len(done.errors) == 1 and message in done.errors[0]


def test_a_run_of_the_other_task_is_told(run: Run, paraphrase: Run, flags: list[Any], tmp_path: Path) -> None:
    assert paraphrase(*flags, "--strategy", "head", "--output-dir", tmp_path).code == 0
    folder = only_run(tmp_path)
    assert "is a run of another task, paraphrase" in run("--predict", "x", "--from-run", folder).errors[0]
    assert "is a run of another task, paraphrase" in run("--resume", folder).errors[0]


# ---------------------------------------------------------------------------------------------------------------------
# The probe set, and what is in the repository
# ---------------------------------------------------------------------------------------------------------------------


def test_accuracy_per_kind() -> None:
    probes = read_probes(ROOT / "data/probes/paraphrase.tsv", ["no", "yes"], str.lower)
    labels = np.array([example.label for example in probes.split.examples])
    always_no = Predictions([], [], np.tile([0.9, 0.1], (len(labels), 1)), labels)
    measured = probes.measure(always_no)
    for kind in ("negation", "antonym", "swapped roles"):
        assert measured[kind] == {"accuracy": pytest.approx(0.8), "n": 15}
    assert measured["no shared words"] == {"accuracy": pytest.approx(0.2), "n": 15}
    assert measured["all"] == {"accuracy": pytest.approx((labels == 0).mean()), "n": 120}


def test_the_sample_by_itself(paraphrase: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a data folder and network: the bundled pairs, under a name of their own."""
    for module in (classification, setup):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setenv("CS224N_DATA_URL", "http://127.0.0.1:9")
    done = paraphrase("--model", "mini", "--strategy", "head", "--limit-train", 16, "--limit-dev", 8, "--epochs", 1,
                      "--output-dir", tmp_path / "runs")  # fmt: skip
    assert done.code == 0, done.err
    assert "the small bundled sample stands in for the real qqp data" in done.out
    assert only_run(tmp_path / "runs").name.startswith("paraphrase-qqp-sample-mini-head-s11711-")
    assert preparation.ROOT == ROOT
