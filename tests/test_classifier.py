"""classifier.py from the command line to the files that it leaves."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import OFFLINE, ROOT, SIZES, Result, make_checkpoint, make_rows, only_run, said_by_card

from training import setup
from training.classification import preparation
from training.classification import run as classification

Run = Callable[..., Result]
QUICK = ["--batch-size", 8, "--lr", 1e-3, "--precision", "fp32"]


def shell(script: Path, *flags: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *map(str, flags)],
        env=os.environ | OFFLINE | {"OMP_NUM_THREADS": "1"} | environment,
        cwd=script.parent, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of output of one command over both datasets, and what it printed."""
    output = tmp_path_factory.mktemp("finished")
    done = shell(
        ROOT / "classifier.py", "--fine-tune-mode", "full-model", "--model", tiny_model, "--data-dir", tiny_data,
        "--epochs", 2, "--batch-size", 8, "--lr", 1e-3, "--precision", "fp32", "--output-dir", output,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return output, done.stdout


@pytest.fixture
def sst(finished: tuple[Path, str]) -> Path:
    (folder,) = finished[0].glob("sentiment-sst-*")
    return folder


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


# ---------------------------------------------------------------------------------------------------------------------
# What a run leaves
# ---------------------------------------------------------------------------------------------------------------------


def test_one_folder_per_dataset_with_everything_in_it(finished: tuple[Path, str], sst: Path) -> None:
    names = sorted(path.name for path in finished[0].iterdir())
    assert [re.sub("-[0-9a-f]{6}$", "", name) for name in names] == [
        "sentiment-cfimdb-tiny-full-s11711", "sentiment-sst-tiny-full-s11711",
    ]  # fmt: skip
    found = sorted(str(path.relative_to(sst)) for path in sst.rglob("*") if path.is_file())
    (events,) = [name for name in found if name.startswith("tensorboard/")]
    assert events.startswith("tensorboard/events.out.tfevents.")
    assert [name for name in found if name != events] == [
        ".lock", "best/README.md", "best/config.json", "best/model.safetensors", "best/tokenizer.json",
        "best/tokenizer_config.json", "config.json", "confusion.png", "log.jsonl", "metrics.json",
        "predictions/dev-scores.jsonl", "predictions/full-model-sst-dev-out.csv",
        "predictions/full-model-sst-test-out.csv", "predictions/test-scores.jsonl",
    ]  # fmt: skip
    assert (sst / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_predictions_have_the_courses_format(sst: Path) -> None:
    for split in ("dev", "test"):
        text = (sst / "predictions" / f"full-model-sst-{split}-out.csv").read_text()
        head, *rows = text.split("\n")
        assert head == "id \t Predicted_Sentiment " and rows.pop() == ""
        assert [row.split(", ")[0] for row in rows] == [f"sst{split}{i}" for i in range(SIZES[split])]
        assert all(re.fullmatch(rf"sst{split}\d+, [0-4] ", row) for row in rows)


def test_scores_of_every_example_agree_with_predictions_and_metrics(sst: Path) -> None:
    metrics = metrics_of(sst)
    for split in ("dev", "test"):
        lines = (sst / "predictions" / f"{split}-scores.jsonl").read_text().splitlines()
        scores = [json.loads(line) for line in lines]
        assert [score["id"] for score in scores] == [f"sst{split}{i}" for i in range(SIZES[split])]
        for score in scores:
            assert sum(score["probabilities"]) == pytest.approx(1) and len(score["probabilities"]) == 5
            assert score["prediction"] == int(np.argmax(score["probabilities"]))
        rows = (sst / "predictions" / f"full-model-sst-{split}-out.csv").read_text().splitlines()[1:]
        assert [int(row.split(", ")[1]) for row in rows] == [score["prediction"] for score in scores]
        truth = [label for _, label in make_rows(21, 1, 5)] if split == "dev" else [None] * 11
        assert [score["label"] for score in scores] == truth
    dev = [json.loads(line) for line in (sst / "predictions" / "dev-scores.jsonl").read_text().splitlines()]
    assert metrics["dev"]["accuracy"] == pytest.approx(np.mean([s["prediction"] == s["label"] for s in dev]))
    loss = -np.mean([np.log(s["probabilities"][s["label"]]) for s in dev])
    assert metrics["dev"]["loss"] == pytest.approx(loss)


def test_metrics_hold_every_field_of_the_contract(sst: Path) -> None:
    metrics = metrics_of(sst)
    expected = {
        "schema": int, "task": str, "dataset": str, "model": str, "strategy": str, "seed": int, "epochs": int,
        "best_epoch": int, "dev": dict, "dev_last": dict, "dev_ci": dict, "history": list, "cost": dict,
    }  # fmt: skip
    assert {name: type(metrics[name]) for name in expected} == expected
    assert (metrics["schema"], metrics["task"], metrics["dataset"]) == (1, "sentiment", "sst")
    assert (metrics["model"], metrics["strategy"], metrics["seed"], metrics["epochs"]) == ("tiny", "full", 11711, 2)
    assert "test" not in metrics  # no labels
    assert [entry["epoch"] for entry in metrics["history"]] == [1, 2]
    for entry in metrics["history"]:
        assert entry.keys() >= {"epoch", "train_loss", "dev", "seconds"} and entry["seconds"] > 0
        assert {type(value) for value in entry["dev"].values()} <= {int, float} and entry["dev"]["n"] == 21
    accuracies = [entry["dev"]["accuracy"] for entry in metrics["history"]]
    assert metrics["best_epoch"] == accuracies.index(max(accuracies)) + 1
    assert metrics["dev"] == pytest.approx(metrics["history"][metrics["best_epoch"] - 1]["dev"])
    assert metrics["dev_last"] == metrics["history"][-1]["dev"]
    low, high = metrics["dev_ci"]["accuracy"]
    assert low <= metrics["dev"]["accuracy"] <= high
    cost = metrics["cost"]
    assert cost.keys() == {
        "train_seconds", "total_seconds", "examples_per_second", "tokens_per_second", "peak_memory_bytes",
        "trainable_parameters", "total_parameters", "stored_parameters",
    }  # fmt: skip
    assert 0 < cost["train_seconds"] <= cost["total_seconds"] < 100
    assert cost["examples_per_second"] == pytest.approx(90 / cost["train_seconds"], rel=0.01)
    assert cost["tokens_per_second"] > cost["examples_per_second"] and cost["peak_memory_bytes"] > 10**7
    assert cost["trainable_parameters"] == cost["total_parameters"] > 30_000
    assert np.sum(metrics["confusion"]) == 21 and [row["n"] for row in metrics["classes"]] == [4, 7, 2, 4, 4]


def test_config_tells_what_was_run_on_what(sst: Path, tiny_model: Path, tiny_data: Path) -> None:
    import hashlib

    config = json.loads((sst / "config.json").read_text())
    settings = config["settings"]
    assert (settings["lr"], settings["epochs"], settings["batch_size"], settings["dropout"]) == (1e-3, 2, 8, 0.3)
    assert (settings["strategy"], settings["dataset"], settings["schedule"]) == ("full", ["sst"], "constant")
    assert not [name for name, value in settings.items() if value is None and name in ("weight_decay", "warmup")]
    model = config["model"]
    assert (model["requested"], model["used"], model["origin"]) == (str(tiny_model), "tiny", "folder")
    assert model["weights_sha256"] == [hashlib.sha256((tiny_model / "model.safetensors").read_bytes()).hexdigest()]
    for split, size in SIZES.items():
        file = config["data"]["files"][split]
        assert file["rows"] == size and Path(file["path"]).parent == tiny_data
        assert file["sha256"] == hashlib.sha256(Path(file["path"]).read_bytes()).hexdigest()
    environment = config["environment"]
    assert environment["packages"]["torch"] == version("torch")
    assert environment["argv"][1:3] == ["--fine-tune-mode", "full-model"] and environment["threads"] == 1
    assert environment.keys() >= {"python", "platform", "device", "git_commit", "started"}
    assert "repeats" in config["data"]


def test_the_terminal_tells_the_story(finished: tuple[Path, str], sst: Path) -> None:
    text = finished[1]
    assert text.count("== sentiment on ") == 2 and text.count("best so far") >= 2
    first = text.split("== sentiment on cfimdb")[0].strip().splitlines()
    assert first[0].startswith("== sentiment on sst: full") and first[1].startswith("device    CPU, 1 thread, fp32")
    metrics = metrics_of(sst)
    assert f"dev accuracy {metrics['dev']['accuracy']:.3f} (95 % CI " in text
    assert first[-1] == f"results: {sst}"
    for word in ("embeddings", "blocks 0-1", "final norm", "head", "precision", "most confident mistakes"):
        assert word in text
    assert "\x1b" not in text and "\r" not in text  # no progress bar where it is not a terminal


def test_tensorboard_shows_the_curves(sst: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(sst / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("dev/accuracy")] == [6, 12]
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 13))


def test_transformers_loads_the_best_model_and_predicts_the_same(sst: Path, tiny_data: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(sst / "best", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(sst / "best")
    assert model.config.id2label[4] == "very positive"
    texts = [text for text, _ in make_rows(21, 1, 5)]
    batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=False)
    with torch.no_grad():
        probabilities = model(**batch).logits.softmax(dim=-1)
    scores = [json.loads(line) for line in (sst / "predictions" / "dev-scores.jsonl").read_text().splitlines()]
    ours = torch.tensor([score["probabilities"] for score in scores])
    torch.testing.assert_close(probabilities, ours, rtol=0, atol=1e-5)
    card = (sst / "best" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers") and "tiny for sentiment on sst" in card


def test_the_cards_code_gives_what_the_script_gives(run: Run, sst: Path) -> None:
    done = run("--predict", "a film to fall in love with", "--from-run", sst)
    said = said_by_card(sst / "best")
    assert done.out.startswith(f"{said['label']}\t{said['label']} {said['score']:.3f}, ")


def test_the_card_of_a_model_that_transformers_cant_compute_names_the_script(
    run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--dataset", "sst", "--output-dir", tmp_path, *QUICK]
    assert run(*flags, "--epochs", 1, "--limit-train", 8, "--pooling", "mean").code == 0
    folder = only_run(tmp_path)
    card = (folder / "best" / "README.md").read_text()
    (command,) = re.findall("^python classifier.py (.+)$", card, re.MULTILINE)
    assert "pipeline(" not in card
    assert run(*shlex.split(command.replace("RUN", str(folder)))).code == 0


# ---------------------------------------------------------------------------------------------------------------------
# Other data
# ---------------------------------------------------------------------------------------------------------------------


def own_files(data: Path) -> list[Any]:
    return ["--train-file", data / "own-train.tsv", "--dev-file", data / "own-dev.tsv"]


def test_own_files_with_test_labels_and_a_model_that_learns(
    run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = ["--train-file", tiny_data / "own-train.tsv", "--dev-file", tiny_data / "own-train.tsv"]
    flags += ["--test-file", tiny_data / "own-test.tsv", "--model", tiny_model, "--output-dir", tmp_path, *QUICK]
    done = run(*flags, "--lr", 1e-2, "--epochs", 15, "--dropout", 0)
    assert done.code == 0, done.err
    metrics = metrics_of(only_run(tmp_path))
    assert metrics["dataset"] == "custom" and metrics["dev"]["accuracy"] > 0.9
    assert metrics["test"]["n"] == 11 and 0 <= metrics["test"]["accuracy"] <= 1
    assert "test accuracy" in done.out and "dev texts that also stand in train: 45" in done.out
    rows = (only_run(tmp_path) / "predictions" / "full-model-custom-test-out.csv").read_text().splitlines()
    assert len(rows) == 12 and rows[1].startswith("2, ")  # without an id column the line is the id


def test_a_comma_separated_test_file_without_labels(
    run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "test.csv").write_text('id,sentence\na,"good, warm film"\nb,plain\n')
    flags = ["--model", tiny_model, "--output-dir", tmp_path / "runs", *QUICK, "--epochs", 1]
    done = run(*own_files(tiny_data), "--test-file", tmp_path / "test.csv", *flags)
    assert done.code == 0 and "test" not in metrics_of(only_run(tmp_path / "runs"))
    rows = (only_run(tmp_path / "runs") / "predictions" / "full-model-custom-test-out.csv").read_text().splitlines()
    assert [row[:2] for row in rows[1:]] == ["a,", "b,"]


def test_test_rows_whose_label_is_empty_are_predicted(
    run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = ["--model", tiny_model, "--output-dir", tmp_path / "runs", *QUICK, "--epochs", 1]
    for name, labels, note in (("none", ["", ""], False), ("some", ["1", ""], True)):
        path = tmp_path / f"{name}.csv"
        path.write_text(f"id,sentence,label\na,a warm film,{labels[0]}\nb,plain,{labels[1]}\n")
        done = run(*own_files(tiny_data), "--test-file", path, *flags)
        assert done.code == 0, done.err
        told = f"{path}: 1 of 2 rows have no label, so this file is predicted, and not scored"
        assert (told in done.out) == note
        folder = Path(done.out.rstrip().splitlines()[-1].removeprefix("results: "))
        rows = (folder / "predictions" / "full-model-custom-test-out.csv").read_text().splitlines()
        assert "test" not in metrics_of(folder) and [row[:2] for row in rows[1:]] == ["a,", "b,"]


def test_own_files_that_are_incomplete(run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    flags = ["--model", tiny_model, "--output-dir", tmp_path / "runs"]
    for some, missing in (
        (["--train-file", tiny_data / "own-train.tsv"], "--dev-file: missing"),
        (["--test-file", tiny_data / "own-test.tsv"], "--train-file and --dev-file: missing"),
        (["--train-file", tmp_path / "none.tsv", "--dev-file", tiny_data / "own-dev.tsv"], "none.tsv: no such file"),
        ([*own_files(tiny_data), "--dataset", "sst", "--data-dir", tiny_data], "--dataset and --data-dir: your own"),
    ):
        done = run(*flags, *some)
        assert done.code == 2 and len(done.errors) == 1 and missing in done.errors[0]


def test_a_model_that_can_not_be_used_is_found_by_the_dry_run(
    run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = ["--dataset", "sst", "--data-dir", tiny_data, "--output-dir", tmp_path / "runs", "--dry-run"]
    whole = (tiny_model / "model.safetensors").read_bytes()
    torch.save({"wte.weight": torch.zeros(99)}, tmp_path / "weights")
    whole_bin = (tmp_path / "weights").read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\n"
    for name, content, problem in (
        ("tokenizer.json", None, "tokenizer"),
        ("model.safetensors", whole[:-100], "not a whole safetensors file"),
        ("model.safetensors", pointer, "not a whole safetensors file"),
        ("pytorch_model.bin", pointer, "pytorch_model.bin: not a whole file of weights; fetch it again"),
        ("pytorch_model.bin", whole_bin[:-100], "pytorch_model.bin: not a whole file of weights; fetch it again"),
    ):
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tiny_model, folder)
        if name == "pytorch_model.bin":
            (folder / "model.safetensors").unlink()
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        done = run(*flags, "--model", folder)
        assert done.code == 2 and len(done.errors) == 1 and problem in done.errors[0], done.err
    assert not (tmp_path / "runs").exists()


def test_a_misspelt_strategy_is_told_before_anything_is_looked_up(run: Run) -> None:
    done = run("--strategy", "lorra", "--model", "no/such")
    assert done.code == 2 and len(done.errors) == 1 and "lorra" in done.errors[0]


def test_korean_reviews_have_a_korean_model_by_default(run: Run, tmp_path: Path) -> None:
    for name in ("ratings_train.txt", "ratings_test.txt"):
        (tmp_path / name).write_text("id\tdocument\tlabel\n1\t좋은 영화\t1\n2\t지루하다\t0\n", encoding="utf-8")
    done = run("--dataset", "nsmc", "--data-dir", tmp_path, "--dry-run")
    assert done.code == 0, done.err
    assert "bundled model ko-mini" in done.out + done.err


def test_korean_reviews(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    rows = ["정말 좋은 영화 1", "지루하고 재미없다 0", '"따옴표 최고 1', "돈이 아깝다 0"]
    lines = [f"{i}\t{row[:-2]}\t{row[-1]}" for i, row in enumerate(rows * 3)]
    for name in ("ratings_train.txt", "ratings_test.txt"):
        (tmp_path / name).write_text("\n".join(["id\tdocument\tlabel", *lines]) + "\n", encoding="utf-8")
    done = run(
        "--dataset", "nsmc", "--model", tiny_model, "--data-dir", tmp_path, "--output-dir", tmp_path / "runs", *QUICK,
        "--epochs", 1,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "published without a dev set" in done.out
    folder = only_run(tmp_path / "runs")
    assert metrics_of(folder)["dev"]["n"] == 12
    assert [path.name for path in (folder / "predictions").glob("*.csv")] == ["full-model-nsmc-dev-out.csv"]


def test_limits_take_the_first_rows(run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--output-dir", tmp_path, "--dataset", "sst", *QUICK]
    done = run(*flags, "--epochs", 1, "--limit-train", 9, "--limit-dev", 5, "--limit_test", 3)
    assert done.code == 0 and "9 train, 5 dev, 3 test" in done.out
    folder = only_run(tmp_path)
    rows = (folder / "predictions" / "full-model-sst-test-out.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["ssttest0", "ssttest1", "ssttest2"]
    assert metrics_of(folder)["dev"]["n"] == 5
    assert json.loads((folder / "config.json").read_text())["data"]["files"]["train"]["rows"] == 9


def test_bad_rows_stop_the_run_or_are_left_out_and_listed(
    run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    train = Path(shutil.copy(tiny_data / "own-train.tsv", tmp_path / "train.tsv"))
    with open(train, "a") as file:
        file.write("a good film\tgreat\n\t2\n")
    flags = ["--train-file", train, "--dev-file", tiny_data / "own-dev.tsv", "--model", tiny_model]
    flags += ["--output-dir", tmp_path / "runs", *QUICK, "--epochs", 1]
    done = run(*flags)
    assert done.code == 2 and f"{train}:47: " in done.errors[0] and f"{train}:48: " in done.errors[1]
    assert not (tmp_path / "runs").exists()

    done = run(*flags, "--skip-bad-rows")
    assert done.code == 0 and "bad rows left out: 2; skipped_rows.tsv lists them" in done.out
    folder = only_run(tmp_path / "runs")
    head, first, second = (folder / "skipped_rows.tsv").read_text().splitlines()
    assert head == "place\twhy\trow"
    assert first.startswith(f"{train}:47\tthe label 'great'") and second.startswith(
        f"{train}:48\tthe sentence is empty"
    )
    assert json.loads(first.split("\t")[2]) == "a good film\tgreat"


@pytest.mark.parametrize("keep", ["start", "end"])
def test_long_texts_are_cut_counted_and_told(
    run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path, keep: str
) -> None:
    long = "superb " + "the film " * 60 + "awful"
    (tmp_path / "train.tsv").write_text(f"sentence\tlabel\n{long}\t1\nplain\t0\n")
    flags = ["--train-file", tmp_path / "train.tsv", "--dev-file", tmp_path / "train.tsv", "--model", tiny_model]
    done = run(*flags, "--keep", keep, "--show-examples", 1, "--output-dir", tmp_path / "runs", *QUICK, "--epochs", 1)
    assert done.code == 0, done.err
    assert f"train texts longer than the model's 48 tokens: 1; cut, their {keep} kept" in done.out
    (tokens,) = re.findall(r"\n  48 tokens: (.+)", done.out)
    assert ("superb" in tokens.replace(" ", "")) == (keep == "start")
    assert ("awful" in tokens.replace(" ", "")) == (keep == "end")
    assert metrics_of(only_run(tmp_path / "runs"))["cut_texts"] == {"train": 1, "dev": 1}


def test_a_class_without_training_rows_cant_be_balanced(
    run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--dataset", "sst", "--output-dir", tmp_path, *QUICK]
    labels = [label for _, label in make_rows(45, 0, 5)]
    missing = sorted(set(range(5)) - set(labels[:4]))
    names = ["very negative", "negative", "neutral", "positive", "very positive"]
    done = run(*flags, "--class-weights", "balanced", "--limit-train", 4, "--dry-run")
    assert done.code == 2 and missing
    assert [error.partition(";")[0] for error in done.errors] == [
        f"error: --class-weights balanced: class {names[label]!r} has no training row" for label in missing
    ]
    assert run(*flags, "--class-weights", "balanced", "--dry-run").code == 0
    assert run(*flags, "--limit-train", 4, "--dry-run").code == 0


def test_show_examples_shows_what_the_model_sees(run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--dataset", "sst", "--output-dir", tmp_path, *QUICK]
    done = run(*flags, "--epochs", 1, "--show-examples", 2)
    text, label = make_rows(45, 0, 5)[0]
    shown = re.findall(
        r"example (\S+), label (\d) \((.+?)\): (.+)\n  (\d+) tokens: (.+)\n  .+position (\d+): (\S+)", done.out
    )
    assert len(shown) == 2
    id_, number, name, sentence, count, tokens, position, last = shown[0]
    assert (id_, number, sentence) == ("ssttrain0", str(label), text)
    assert name == ("very negative", "negative", "neutral", "positive", "very positive")[label]
    assert len(tokens.split()) == int(count) == int(position) + 1 and tokens.split()[-1] == last
    assert tokens.replace(" ", "").replace("Ġ", " ") == text
    dry = run(*flags, "--epochs", 2, "--show-examples", 2, "--dry-run")
    examples = re.findall(r"^example .+\n  .+\n  .+$", done.out, re.M)
    assert dry.code == 0 and re.findall(r"^example .+\n  .+\n  .+$", dry.out, re.M) == examples


def test_a_bundled_model_is_the_same_by_name_and_by_path(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    def told(model: object) -> list[str]:
        done = run("--model", model, "--data-dir", tiny_data, "--dataset", "sst", "--output-dir", tmp_path, "--dry-run")
        assert done.code == 0, done.err
        return done.out.splitlines()

    (tmp_path / "link").symlink_to(ROOT / "data" / "checkpoints" / "mini")
    by_name = told("mini")
    assert "model     mini (bundled: data/checkpoints/mini)" in by_name
    assert told(ROOT / "data" / "checkpoints" / "mini") == told(tmp_path / "link") == by_name


def test_a_dry_run_checks_everything_and_writes_nothing(
    run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--output-dir", tmp_path / "runs", "--dry-run"]
    done = run(*flags)
    assert done.code == 0 and done.err == ""
    told = "dry run: everything is in order; nothing was trained, and no run folder was made\n"
    assert done.out.count(told) == 2 and "blocks 0-1" in done.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("train_losses", "dev_losses", "best", "told"),
    [
        ([1.2, 0.9, 0.5], [1.1, 1.0, 1.3], 2, "note: overfitting from epoch 3 on"),
        ([1.2, 0.9, 0.5], [1.1, 1.0, 1.3], 3, ""),  # accuracy still rose
        ([1.2, 0.9, 0.5], [1.1, 1.0, 0.9], 2, ""),
        ([1.2, 0.9, 1.4], [1.1, 1.0, 1.3], 2, ""),  # it diverged
    ],
)
def test_overfitting_is_told_beside_the_results(
    train_losses: list[float], dev_losses: list[float], best: int, told: str, tmp_path: Path,
    run: Run, tiny_model: Path, tiny_data: Path,
) -> None:  # fmt: skip
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--dataset", "sst", "--output-dir", tmp_path, *QUICK]
    assert run(*flags, "--strategy", "head", "--epochs", 1).code == 0
    metrics = metrics_of(only_run(tmp_path))
    (entry,) = metrics["history"]
    metrics["history"] = [
        entry | {"epoch": epoch, "train_loss": train, "dev": entry["dev"] | {"loss": dev}}
        for epoch, train, dev in zip((1, 2, 3), train_losses, dev_losses, strict=True)
    ]
    (only_run(tmp_path) / "metrics.json").write_text(json.dumps(metrics | {"best_epoch": best, "epochs": 3}))
    shown = run(*flags, "--strategy", "head", "--epochs", 1).out.splitlines()  # complete: its results are shown
    notes = [line for line in shown if line.startswith("note: overfitting")]
    assert [":".join(note.split(":")[:2]) for note in notes] == ([told] if told else [])
    assert all("0.900 to 0.500" in note and "1.000 to 1.300" in note and "epoch 2 is kept" in note for note in notes)


def test_a_model_without_an_end_token_is_told_before_the_stage_that_needs_one(
    run: Run, tiny_data: Path, tmp_path: Path
) -> None:
    model = make_checkpoint(tmp_path / "model", eos_token_id=None)
    flags = ["--model", model, "--data-dir", tiny_data, "--dataset", "sst", "--output-dir", tmp_path / "runs"]
    done = run(*flags, "--lm-epochs", 1, "--dry-run")
    assert done.code == 2 and len(done.errors) == 1 and "--lm-epochs: this model names no end token" in done.errors[0]
    assert done.errors[0].endswith("; use --lm-epochs 0")  # that leaves it out of ulmfit too


# ---------------------------------------------------------------------------------------------------------------------
# Labels for new texts
# ---------------------------------------------------------------------------------------------------------------------


def test_predict_reads_composed_text(run: Run, sst: Path) -> None:
    texts = [unicodedata.normalize(form, "un café") for form in ("NFC", "NFD")]
    composed, apart = (run("--predict", text, "--from-run", sst).out.split("\t")[:2] for text in texts)
    assert composed == apart


def test_predict_prints_label_and_probabilities(run: Run, sst: Path) -> None:
    text, _ = make_rows(21, 1, 5)[3]
    done = run("--predict", text.upper(), "--from-run", sst)
    assert done.code == 0 and done.err == f"run: {sst}\n"
    label, probabilities, shown = done.out.rstrip("\n").split("\t")
    score = json.loads((sst / "predictions" / "dev-scores.jsonl").read_text().splitlines()[3])
    names = ["very negative", "negative", "neutral", "positive", "very positive"]
    assert (label, shown) == (names[score["prediction"]], text.upper())
    found = dict(part.rsplit(" ", 1) for part in probabilities.split(", "))
    assert {name: float(p) for name, p in found.items()} == pytest.approx(
        dict(zip(names, score["probabilities"], strict=True)), abs=6e-4
    )
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_predict_file_labels_every_line_with_the_latest_run(
    run: Run, finished: tuple[Path, str], tmp_path: Path
) -> None:
    path = tmp_path / "texts.txt"
    texts = ["a superb film", "an\u2028aw\x0cful\x85film", "a dull one"]  # inside a sentence these end no line
    path.write_bytes("\ufeff{}\n{}\r\n{}\n".format(*texts).encode())
    done = run("--predict-file", path, "--output-dir", finished[0])
    assert done.code == 0 and "sentiment-cfimdb-tiny" in done.err  # which was finished last
    rows = [row.split("\t") for row in done.out.removesuffix("\n").split("\n")]
    assert [row[2] for row in rows] == texts
    assert {row[0] for row in rows} <= {"negative", "positive"}


def test_predict_says_what_is_missing(run: Run, sst: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(sst / "config.json", unfinished)
    stage = tmp_path / "lm-stage"  # has metrics of its own
    stage.mkdir()
    shutil.copy(sst / "metrics.json", stage)
    for flags, message in (
        (["--predict", " ", "--from-run", sst], "--predict: there is no text"),
        (["--predict-file", tmp_path / "none.txt", "--from-run", sst], "none.txt: can't be read"),
        (["--predict-file", tmp_path / "empty.txt", "--from-run", sst], "empty.txt: is empty"),
        (["--predict-file", tmp_path / "latin.txt", "--from-run", sst], "latin.txt: is not UTF-8"),
        (["--predict", "a", "--predict-file", "b", "--from-run", sst], "give one of them"),
        (["--predict", "a", "--from-run", unfinished], "is no finished run"),
        (["--predict", "a", "--from-run", stage], "holds no run (no config.json); give the folder of one"),
        (["--predict", "a", "--from-run", sst / "best"], "is not the folder of a run"),
        (["--predict", "a", "--output-dir", tmp_path], "holds no finished sentiment run"),
        (["--from-run", sst], "goes with --predict or --predict-file; without them a new run is trained"),
    ):
        done = run(*flags)
        assert done.code == 2 and len(done.errors) == 1 and message in done.errors[0], flags
        assert done.out == ""


def test_every_blank_line_to_label_is_named(run: Run, sst: Path, tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("a film\n  \nanother\n\n")
    done = run("--predict-file", tmp_path / "blank.txt", "--from-run", sst)
    expected = [f"error: {tmp_path}/blank.txt:{line}: there is no text to label; write some" for line in (2, 4)]
    assert done.code == 2 and done.errors == expected


def test_a_text_to_label_is_not_cut_in_silence(run: Run, sst: Path) -> None:
    done = run("--predict", "a superb film " * 60, "--from-run", sst)
    assert done.code == 0 and "note: texts longer than the model's 48 tokens: 1; cut, their end kept" in done.err


def test_predict_refuses_what_would_say_nothing(run: Run, sst: Path, tmp_path: Path) -> None:
    unused = ["--model", "mini", "--strategy", "lora", "--dataset", "sst", "--seed", 2, "--precision", "bf16"]
    done = run("--predict", "a film", "--from-run", sst, *unused)
    assert done.code == 2 and done.out == ""
    assert sorted(done.errors) == [
        f"error: {flag}: nothing is trained with --predict; leave it out" for flag in sorted(unused[::2])
    ]
    (tmp_path / "texts.txt").write_text("a film\n")
    done = run("--predict-file", tmp_path / "texts.txt", "--from-run", sst, "--epochs", 3)
    assert done.errors == ["error: --epochs: nothing is trained with --predict-file; leave it out"]
    assert run("--predict-file", tmp_path / "texts.txt", "--from-run", sst, "--no-use-gpu").code == 0


def test_a_run_of_another_version_is_told(run: Run, sst: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sst, tmp_path / "later")
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["sharpness"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    for flags in (["--predict", "a", "--from-run", folder], ["--resume", folder]):
        done = run(*flags)
        assert done.code == 2 and len(done.errors) == 1
        assert f"{folder}/config.json: another version" in done.errors[0] and "sharpness" in done.errors[0]


# ---------------------------------------------------------------------------------------------------------------------
# On what is in the repository
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_root(tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The flags of a short run; the repository's root is the test's folder."""
    for module in (preparation, classification, setup):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return ["--model", tiny_model, "--data-dir", tiny_data, "--dataset", "sst", *QUICK, "--epochs", 1]


def test_a_models_long_name_is_shortened_in_the_folders(
    run: Run, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = ["--data-dir", tiny_data, "--dataset", "sst", "--output-dir", tmp_path / "runs", *QUICK, "--epochs", 1]
    for end in "ab":
        model = shutil.copytree(tiny_model, tmp_path / ("m" * 239 + end))
        assert run("--model", model, *flags, "--limit-train", 8, "--fine-tune-mode", "last-linear-layer").code == 0
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2 and {json.loads((one / "metrics.json").read_text())["model"][-1] for one in folders} == {
        *"ab"
    }


def test_without_an_output_folder_predictions_are_copied_to_the_root(
    run: Run, at_root: list[Any], tmp_path: Path
) -> None:
    assert run(*at_root, "--fine-tune-mode", "last-linear-layer").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions", "runs"]
    folder = only_run(tmp_path / "runs")
    names = [f"last-linear-layer-sst-{split}-out.csv" for split in ("dev", "test")]
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == names
    for name in names:
        assert (tmp_path / "predictions" / name).read_bytes() == (folder / "predictions" / name).read_bytes()
    assert run("--predict", "a good film").code == 0


def test_a_root_that_takes_no_predictions_is_told_before_training(run: Run, at_root: list[Any], tmp_path: Path) -> None:
    (tmp_path / "predictions").write_text("")
    done = run(*at_root)
    assert done.code == 2 and not (tmp_path / "runs").exists()
    (error,) = done.errors
    assert error.startswith(f"error: {tmp_path}/predictions: ") and "give an --output-dir" in error
    assert run(*at_root, "--output-dir", tmp_path / "elsewhere", "--dry-run").code == 0


def test_what_an_earlier_run_predicted_does_not_stay_beside_a_later_ones(
    run: Run, at_root: list[Any], tiny_data: Path, tmp_path: Path
) -> None:
    folder, names = tmp_path / "predictions", [f"full-model-sst-{split}-out.csv" for split in ("dev", "test")]
    folder.mkdir()
    for name in (names[1], "full-model-sst-sample-test-out.csv", "lora-sst-test-out.csv"):
        (folder / name).write_text("of an earlier run")
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "ids-sst-test-student.csv").unlink()
    assert run(*at_root, "--data-dir", data).code == 0
    kept = ["full-model-sst-sample-test-out.csv", "lora-sst-test-out.csv"]
    assert sorted(path.name for path in folder.iterdir()) == [names[0], *kept]


def test_the_courses_names_are_there_whichever_way_the_run_was_asked_for(
    run: Run, at_root: list[Any], tmp_path: Path
) -> None:
    """The mode is another name for a strategy, so both commands mean one run."""
    assert run(*at_root).code == 0
    assert "complete since" in run(*at_root, "--fine-tune-mode", "full-model").out
    names = [f"full-model-sst-{split}-out.csv" for split in ("dev", "test")]
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == names


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_as_typed_on_a_machine_without_network_and_gpu(tmp_path: Path) -> None:
    """The bundled model on the bundled sample, in a copy of the repository."""
    root = tmp_path / "project"
    for folder in ("models", "modules", "training", "corpus", "data/sample", "data/checkpoints", "data/probes"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.py"):
        shutil.copy(path, root)
    short = ["--epochs", 1, "--limit-train", 8, "--limit-dev", 6, "--limit-test", 4]
    done = shell(
        root / "classifier.py", "--fine-tune-mode", "full-model", "--use_gpu", *short,
        HF_HOME=str(tmp_path / "empty"), HF_HUB_OFFLINE="0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "warning: --use-gpu: torch finds no usable GPU on this machine; this run uses the CPU\n"
    told = "gpt2 (124M) could not be had, so this run uses the bundled model mini"
    assert done.stdout.count(told) == 4  # at the start of both runs, and beside their results
    assert done.stdout.count("the small bundled sample stands in for the real sst data") == 2
    assert done.stdout.count("Downloading") == 1  # where one download failed, the next is not tried
    names = sorted(path.name for path in (root / "predictions").iterdir())
    assert names == [f"full-model-{d}-sample-{s}-out.csv" for d in ("cfimdb", "sst") for s in ("dev", "test")]
    for folder in (root / "runs").iterdir():
        model = json.loads((folder / "config.json").read_text())["model"]
        assert (model["requested"], model["used"], model["origin"]) == (None, "mini", "bundled")
    assert done.stdout.rstrip().splitlines()[-1].strip().startswith("runs/sentiment-cfimdb-sample-mini-full-s11711")
