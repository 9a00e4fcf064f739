"""Sonnet runs from the command line on the bundled sonnets: training, writing, measuring, and the form."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_run import ROOT, Result, make_checkpoint, only_run, results_of

from models.generation import generate, prefill, ready
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from models.logits import Decoding
from models.tokenizer import load_tokenizer
from modules.cross_entropy import IGNORED
from poetry.measures import measure, rhyme_share
from poetry.rhyme import SHAKESPEARE, ending, pairs_of, rhymes
from poetry.sonnets import Sonnet, SonnetFiles, read_sonnets, write_sonnets
from sonnet_generation import SonnetSettings, training_sonnets
from storage import file_sha256
from strategies import strategies_of
from training.device import open_device
from training.loop import _Loop
from training.writing import job as writing_job
from training.writing import sonnet_form
from training.writing.job import Text, batch_of, encode_texts
from training.writing.poems import (
    closing_words,
    likelihoods_of_endings,
    likelihoods_of_generated,
    make_completer,
    perplexity_of_generated,
)
from training.writing.run import Writer
from training.writing.sonnet_files import publish_poems
from training.writing.sonnet_form import LAST_RESORTS, LAST_WORDS, OFF_LENGTH, Form, SonnetWriter, _Candidate
from training.writing.sonnet_preparation import find_data, limited

Run = Callable[..., Result]
SAMPLE = ROOT / "data" / "sample"
STRATEGIES = list(strategies_of("sonnet"))
SMALL = {"lora": ["--lora-rank", 2], "prefix": ["--prefix-length", 3, "--prefix-hidden", 8]}
SMALL["unlikelihood+prefix"] = SMALL["prefix"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose context holds a sonnet."""
    still = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
    return make_checkpoint(tmp_path_factory.mktemp("models") / "poet", n_positions=640, **still)


@pytest.fixture(scope="module")
def flags(model: Path) -> list[Any]:
    return ["--model", model, "--data-dir", SAMPLE, "--limit-train", 6, "--epochs", 2, "--batch-size", 3, "--lr", 2e-3,
            "--max-new-tokens", 40]  # fmt: skip


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_killed_run_goes_on_to_the_same_bytes(
    name: str, sonnets: Run, flags: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*flags, *SMALL.get(name, []), "--strategy", name, "--save-every", 1e-6]
    done = sonnets(*command, "--output-dir", tmp_path / "whole")
    assert done.code == 0, done.err
    update = _Loop._update

    def kill(self: Any, indices: list[int], position: float) -> float:
        if (self.progress.epoch, self.progress.window) == (1, 1):
            raise SystemExit("killed")
        return update(self, indices, position)

    monkeypatch.setattr(_Loop, "_update", kill)
    with pytest.raises(SystemExit):
        sonnets(*command, "--output-dir", tmp_path / "cut")
    monkeypatch.setattr(_Loop, "_update", update)
    cut = only_run(tmp_path / "cut")
    going_on = ["--resume", cut] if name == "unlikelihood" else [*command, "--output-dir", tmp_path / "cut"]
    done = sonnets(*going_on)
    assert done.code == 0 and "going on at epoch 2, step 3 of 4" in done.out, done.err
    whole = only_run(tmp_path / "whole")
    assert results_of(cut) == results_of(whole)

    metrics = metrics_of(whole)
    assert metrics["history"][-1]["train_loss"] < metrics["history"][0]["train_loss"]
    for part in (
        "perplexity",
        "word_perplexity",
        "generated_perplexity",
        "rhyme_accuracy",
        "chrf_endings",
        "distinct_2",
    ):
        assert metrics["dev"][part] >= 0
    assert metrics["chosen_by"]["n"] == 1 and metrics["dev"]["n"] == 1  # one true ending chooses, the other is reported


def test_the_table_of_strategies(sonnets: Run) -> None:
    done = sonnets("--list-strategies")
    assert done.code == 0
    names = [line.split()[0] for line in done.out.splitlines() if line and not line.startswith(" ")]
    assert names == ["strategy", *STRATEGIES, "baseline", "trains:", "rate:", "defaults,"]
    text = " ".join(done.out.split())
    assert "unlikelihood 22.78% 0.56 1e-05" in text  # four of twelve blocks and the final norm
    assert "last-n 22.78% 0.56 1e-05 the upper blocks (--last-n) and the final norm train." in text
    assert not re.search(r"\bhead\b", text)  # there is none


def test_a_resumed_run_refuses_other_settings(sonnets: Run, flags: list[Any], tmp_path: Path) -> None:
    assert sonnets(*flags, "--strategy", "full", "--output-dir", tmp_path).code == 0
    done = sonnets("--resume", only_run(tmp_path), "--lr", 1, "--strategy", "lora")
    assert done.code == 2
    assert ["has lr 0.002, not 1.0" in done.err, "has strategy 'full', not 'lora'" in done.err] == [True, True]


def test_the_poems_keep_what_was_given_and_go_where_they_were_asked_to(
    sonnets: Run, flags: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "mine.txt"
    done = sonnets(*flags, "--strategy", "full", "--samples", 2, "--sonnet_out", out, "--output-dir", tmp_path / "runs")
    assert done.code == 0, done.err
    folder = only_run(tmp_path / "runs") / "predictions"
    scores = [json.loads(line) for line in (folder / "dev-scores.jsonl").read_text().splitlines()]
    assert [score["id"] for score in scores] == ["26", "26"]  # both samples of the poem that is reported on
    perplexity = json.loads((folder.parent / "metrics.json").read_text())["dev"]["perplexity"]
    assert [score["log_likelihood"] for score in scores] == [pytest.approx(-math.log(perplexity))] * 2
    names = ["generated_sonnets.txt", "generated_sonnets_dev.txt", "generated_sonnets_dev_sample2.txt"]
    assert sorted(path.name for path in folder.glob("*.txt")) == [*names, "generated_sonnets_sample2.txt"]
    for generated, beginnings in (("", "sonnets_held_out"), ("_dev", "sonnets_held_out_dev")):
        poems = read_sonnets(folder / f"generated_sonnets{generated}.txt")
        given = read_sonnets(SAMPLE / f"{beginnings}.txt")
        assert [poem.number for poem in poems] == [poem.number for poem in given]
        for poem, beginning in zip(poems, given, strict=True):
            assert poem.lines[:3] == beginning.lines and len(poem.lines) <= 14
    first, second = (folder / name for name in names[1:])
    assert first.read_bytes() != second.read_bytes()

    def is_written(path: Path) -> bool:
        pairs = {path: "generated_sonnets.txt", path.with_stem(f"{path.stem}_sample2"): "generated_sonnets_sample2.txt"}
        return all(copy.read_bytes() == (folder / name).read_bytes() for copy, name in pairs.items())

    assert is_written(out)
    done = sonnets("--resume", folder.parent, "--sonnet-out", tmp_path / "later.txt")
    assert done.code == 0 and "complete since" in done.out and is_written(tmp_path / "later.txt"), done.err


def test_a_finished_run_writes_without_training(sonnets: Run, flags: list[Any], tmp_path: Path) -> None:
    assert sonnets(*flags, "--strategy", "prefix", *SMALL["prefix"], "--output-dir", tmp_path / "runs").code == 0
    folder = only_run(tmp_path / "runs")
    asked = ["--from-run", folder, "--held-out-sonnet-path", SAMPLE / "sonnets_held_out.txt", "--max-new-tokens", 40]
    done = sonnets(*asked, "--sonnet-out", tmp_path / "out.txt")
    assert done.code == 0, done.err
    assert (tmp_path / "out.txt").read_bytes() == (folder / "predictions/generated_sonnets.txt").read_bytes()
    assert GPT2Model.from_pretrained(folder / "best").prefix is not None

    done = sonnets(*asked, "--sonnet-out", tmp_path / "two.txt", "--samples", 2, "--limit-test", 1)
    assert done.code == 0, done.err
    poems = [read_sonnets(tmp_path / name) for name in ("two.txt", "two_sample2.txt")]
    assert [len(sample) for sample in poems] == [1, 1] and poems[0] != poems[1]

    done = sonnets(*asked, "--epochs", 3, "--strategy", "lora", "--beams", 4, "--sonnet-out", tmp_path / "no/x.txt")
    beginnings = ("--strategy: nothing is trained", "--epochs: nothing is", "--sonnet-out ", "--beams 4: beam search")
    assert done.code == 2 and len(done.errors) == len(beginnings)
    assert all(error.startswith(f"error: {begin}") for error, begin in zip(done.errors, beginnings, strict=True))
    assert "dry run" in sonnets(*asked, "--dry-run").out
    unused = ["--limit-train", 2, "--limit-dev", 1, "--data-dir", SAMPLE, "--dry-run"]
    assert [error.split(";")[0] for error in sonnets(*asked, *unused).errors] == [
        f"error: --{flag}: nothing is trained with --from-run" for flag in ("data-dir", "limit-train", "limit-dev")
    ]

    def n_completed(data_dir: Path, limit: str) -> int | list[str]:
        done = sonnets(*asked[:2], "--data-dir", data_dir, limit, 1, *asked[4:], "--sonnet-out", tmp_path / "one.txt")
        return done.errors if done.code else len(read_sonnets(tmp_path / "one.txt"))

    without_test = tmp_path / "data"
    shutil.copytree(SAMPLE, without_test, ignore=lambda *_: ["sonnets_held_out.txt"])
    assert n_completed(SAMPLE, "--limit-test") == n_completed(without_test, "--limit-dev") == 1
    for data_dir, limit in ((SAMPLE, "--limit-dev"), (without_test, "--limit-test")):
        assert n_completed(data_dir, limit) == [f"error: {limit}: nothing is trained with --from-run; leave it out"]


def test_own_sonnets_without_true_endings_are_measured_on_some_kept_back(
    sonnets: Run, flags: list[Any], tmp_path: Path
) -> None:
    done = sonnets(
        *flags[:2], *flags[6:], "--sonnet_path", SAMPLE / "sonnets.txt", "--held_out_sonnet_path",
        SAMPLE / "sonnets_held_out.txt", "--strategy", "baseline", "--output-dir", tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "there are no true endings: 3 of the training sonnets are kept back" in done.out
    poems = read_sonnets(only_run(tmp_path) / "predictions" / "generated_sonnets.txt")  # the name of the course
    assert [poem.lines[:3] for poem in poems] == [poem.lines for poem in read_sonnets(SAMPLE / "sonnets_held_out.txt")]
    metrics = metrics_of(only_run(tmp_path))
    assert metrics["dataset"] == "custom"
    assert metrics["strategy"] == "baseline" and metrics["chosen_by"]["n"] == 2 and metrics["dev"]["n"] == 1
    assert metrics["dev_ci"] == {} and "interval" not in done.out  # one prompt says nothing of others


def test_a_file_that_is_not_named_comes_from_the_usual_source() -> None:
    def found(**paths: Path) -> dict[str, Path]:
        folder = None if {"sonnet_path", "held_out_sonnet_path"} <= paths.keys() else str(SAMPLE)
        settings: dict[str, Any] = {name: str(path) for name, path in paths.items()}
        return find_data(SonnetSettings(data_dir=folder, **settings)).paths

    usual = found()
    test, dev = (SAMPLE / f"sonnets_held_out{name}.txt" for name in ("", "_dev"))
    own = SAMPLE / "sonnets.txt"
    assert found(sonnet_path=test) == usual | {"train": test}
    assert found(held_out_sonnet_path=test) == usual | {"test": test}  # the true file beside it is of other sonnets
    truth = SAMPLE / "TRUE_sonnets_held_out_dev.txt"
    assert found(held_out_sonnet_path=dev) == usual | {"test": dev, "dev": dev, "truth": truth}
    assert found(sonnet_path=own, held_out_sonnet_path=test) == {"train": own, "test": test}
    named = {"train": own, "dev": dev, "truth": truth, "test": dev}
    assert found(sonnet_path=own, held_out_sonnet_path=dev) == named
    assert found(sonnet_path=own, held_out_sonnet_path=dev, true_sonnet_path=own) == named | {"truth": own}


def test_own_beginnings_are_measured_by_the_true_endings_beside_them(
    sonnets: Run, flags: list[Any], tmp_path: Path
) -> None:
    done = sonnets(
        *flags[:2], *flags[4:], "--sonnet_path", SAMPLE / "sonnets.txt", "--held_out_sonnet_path",
        SAMPLE / "sonnets_held_out_dev.txt", "--sonnet_out", tmp_path / "out.txt", "--show", "--samples", 2,
        "--output-dir", tmp_path / "runs",
    )  # fmt: skip
    assert done.code == 0, done.err
    folder = only_run(tmp_path / "runs") / "predictions"
    assert "kept back" not in done.out
    written = (folder / "generated_sonnets.txt").read_bytes()
    assert written == (folder / "generated_sonnets_dev.txt").read_bytes() == (tmp_path / "out.txt").read_bytes()
    names = [name for name in ("generated_sonnets", "generated_sonnets_dev") for name in (name, f"{name}_sample2")]
    assert all(f"\n== {name}.txt\n" in done.out for name in names)  # --show prints every sample of both


def test_copies_under_the_well_known_names(tmp_path: Path) -> None:
    one, two = [Sonnet(1, ("a",))], [Sonnet(1, ("b",))]
    publish_poems({"test": [one, two], "dev": [one]}, tmp_path, "")
    publish_poems({"test": [two]}, tmp_path, "-sample")
    publish_poems({"test": [two]}, tmp_path, "")
    names = ["generated_sonnets-sample.txt", "generated_sonnets.txt", "generated_sonnets_dev.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names  # no second sample of an earlier run
    assert read_sonnets(tmp_path / names[1]) == two


def test_there_is_room_for_what_will_be_written(sonnets: Run, flags: list[Any], model: Path, tmp_path: Path) -> None:
    """Whether a run will train or has been trained, and also for lines in form."""
    assert sonnets(*flags, "--strategy", "full", "--epochs", 1, "--output-dir", tmp_path / "runs").code == 0
    long = tmp_path / "long.txt"
    write_sonnets(long, [Sonnet(5, ("a film " * 220,)), Sonnet(6, ("the film",))])
    for command in (
        ["--from-run", only_run(tmp_path / "runs")],
        ["--model", model, "--sonnet-path", SAMPLE / "sonnets.txt", "--output-dir", tmp_path / "other"],
    ):
        command += ["--held-out-sonnet-path", long, "--dry-run"]
        assert sonnets(*command).code == 0
        done = sonnets(*command, "--decode", "sonnet")
        assert done.code == 2 and len(done.errors) == 1
        assert f"{long}: poem 5: its " in done.errors[0] and "room for 13 lines in form" in done.errors[0]
        assert "more than the model's context of 640" in done.errors[0]


def test_held_out_sonnets_stand_in_for_the_true_endings(sonnets: Run, flags: list[Any], tmp_path: Path) -> None:
    argv = [*flags, "--limit-train", 12, "--hold-out", 3, "--output-dir", tmp_path]
    done = sonnets(*argv)
    assert done.code == 0 and "--hold-out 3: 4 of the training sonnets are kept back to measure on" in done.out
    run = only_run(tmp_path)
    assert metrics_of(run)["chosen_by"]["n"] == 2 and metrics_of(run)["dev"]["n"] == 2
    metrics = metrics_of(run)
    assert "95 % interval over 2 prompts" in done.out
    for name in ("perplexity", "word_perplexity", "generated_perplexity", "rhyme_accuracy"):
        low, high = metrics["dev_ci"][name]
        assert low - 1e-4 <= metrics["dev"][name] <= high + 1e-4, name
    assert metrics["chrf_signature"] in done.out
    recorded = json.loads((run / "config.json").read_text())["model"]
    reference = {"name": recorded["used"], "weights_sha256": recorded["weights_sha256"]}
    assert metrics["reference_model"] == reference and f"generated_perplexity: by {reference['name']}" in done.out
    poems = read_sonnets(run / "predictions" / "generated_sonnets_dev.txt")
    own = read_sonnets(SAMPLE / "sonnets.txt")[:12]
    kept_back = own[3:12:6]
    assert [poem.lines[:3] for poem in poems] == [poem.lines[:3] for poem in kept_back]
    assert not (run / "predictions" / "generated_sonnets.txt").exists()  # no beginnings but those
    trained_on = [poem for i, poem in enumerate(own) if i % 3]
    assert training_sonnets(json.loads((run / "config.json").read_text())) == trained_on


def test_sonnets_that_are_kept_back_are_no_training_sonnets(
    sonnets: Run, flags: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copying is looked for, and closing words are taken, in what was trained on alone."""
    seen: list[list[Sonnet]] = []

    def watched(writer: Any, settings: Any, training: list[Sonnet], indent: str) -> Any:
        seen.append(training)
        return lambda given, seeds: [[*lines, *kept_back[0].lines[3:]] for lines in given]

    own = read_sonnets(SAMPLE / "sonnets.txt")[:12]
    kept_back, trained_on = own[::3], [poem for i, poem in enumerate(own) if i % 3]
    monkeypatch.setattr("training.writing.poems.make_completer", watched)
    done = sonnets(*flags, "--limit-train", 12, "--hold-out", 3, "--output-dir", tmp_path)
    assert done.code == 0, done.err
    assert seen == [trained_on]
    metrics = metrics_of(only_run(tmp_path))
    written = [Sonnet(1, kept_back[0].lines)]
    assert metrics["dev"]["longest_copy"] == measure(written, training=trained_on)["longest_copy"]
    assert metrics["dev"]["longest_copy"] < measure(written, training=own)["longest_copy"]


def test_held_out_sonnets_that_are_trained_on_too_are_told(sonnets: Run, flags: list[Any], tmp_path: Path) -> None:
    """Whole ones where the true endings are known, given lines where they are not; case and spaces don't matter."""
    train = read_sonnets(SAMPLE / "sonnets.txt")
    held_out, truth, test = (tmp_path / f"{name}.txt" for name in ("held_out", "truth", "test"))
    true = [Sonnet(101, tuple(line.upper() for line in train[1].lines)), Sonnet(102, (*train[2].lines[:13], "other"))]
    write_sonnets(truth, true)
    write_sonnets(held_out, [Sonnet(poem.number, poem.lines[:3]) for poem in true])
    command = [*flags[:2], *flags[4:], "--sonnet-path", SAMPLE / "sonnets.txt", "--held-out-sonnet-path", held_out,
               "--true-sonnet-path", truth, "--epochs", 1, "--output-dir", tmp_path / "runs"]  # fmt: skip
    done = sonnets(*command)
    assert done.code == 0, done.err
    note = "that also stand in train: dev 1 of 2, test 2 of 2; config.json lists some"
    assert done.out.count(f"note: sonnets (by their given lines in test) {note}") == 2  # before and after
    repeats = json.loads((only_run(tmp_path / "runs") / "config.json").read_text())["data"]["repeats"]
    (example,) = repeats["in_train"]["dev"]["examples"]
    assert (example["ids"], example["train_ids"]) == (["101"], ["2"])
    assert [found["ids"] for found in repeats["in_train"]["test"]["examples"]] == [["101"], ["102"]]
    again = sonnets("--resume", only_run(tmp_path / "runs"))
    assert again.out.count(note) == 1, again.out  # what the run has recorded already

    write_sonnets(test, [Sonnet(1, ("no line", "of any", "sonnet"))])
    done = sonnets(*flags[:2], *flags[6:], "--sonnet-path", SAMPLE / "sonnets.txt", "--held-out-sonnet-path", test,
                   "--output-dir", tmp_path / "other", "--dry-run")  # fmt: skip
    assert done.code == 0 and "stand in train" not in done.out and "that repeat" not in done.out, done.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--temperature", -1], "--temperature -1.0: must be at least 0"),
        (["--top_p", 0], "--top-p 0.0: must be greater than 0 and at most 1"),
        (["--top_p", 1.5], "--top-p 1.5: must be greater than 0 and at most 1"),
        (["--strategy", "head"], "--strategy head: unknown for sonnet; choose from full"),
        (["--strategy", "full", "--prefix-length", 3], "--prefix-length: it belongs to --strategy prefix, not full"),
        (["--lm-epochs", 2], "--lm-epochs: belongs to classification"),
        (["--strategy", "full", "--no-ul-line-breaks"], "--no-ul-line-breaks: there is no unlikelihood of earlier"),
        (["--strategy", "full", "--ul-sequence", 1, "--ul-line-breaks"], "--ul-line-breaks: there is no unlikelihood"),
        (["--strategy", "unlikelihood", "--ul-alpha", 0, "--no-ul-line-breaks"], "--no-ul-line-breaks: there is no"),
        (["--sonnet_path", "x.txt"], "x.txt: can't be read"),
        (["--held_out_sonnet_path", "x.txt", "--dry-run"], "x.txt: can't be read"),
        (["--true-sonnet-path", "x.txt"], "--true-sonnet-path: belongs to --held-out-sonnet-path"),
        (["--sonnet_path", "x", "--held-out-sonnet-path", "y", "--data-dir", SAMPLE], "--data-dir: your own files"),
        (["--from-run", "nowhere"], "--from-run nowhere: holds no run"),
        (["--beams", 4, "--dry-run"], "--beams 4: beam search takes the likeliest texts"),
        (["--decode", "sonnet", "--dry-run"], "--max-new-tokens 40: --decode sonnet writes fourteen lines"),
        (["--temperature", 0, "--top-k", 5, "--dry-run"], "--top-k 5: nothing is drawn at --temperature 0"),
        (["--temperature", 0, "--samples", 3], "--samples 3: at --temperature 0 all are the same; give one above 0"),
        (["--temperature", 0, "--beams", 2, "--samples", 3], "--samples 3: at --temperature 0 all are the same"),
        (["--meter", "hard", "--dry-run"], "--meter: goes with --decode sonnet"),
        (["--line-words", 6, "--dry-run"], "--line-words: says from where on --line-end-boost holds"),
        (["--sonnet-out", "nowhere/out.txt", "--dry-run"], "--sonnet-out nowhere/out.txt: no folder"),
        (["--sonnet-out", SAMPLE, "--dry-run"], "is a folder; name a file"),
        (["--limit-dev", 1, "--dry-run"], "--limit-dev 1: leaves one true ending"),
    ],
)
def test_mistakes_get_one_clear_line(
    argv: list[Any], message: str, sonnets: Run, flags: list[Any], tmp_path: Path
) -> None:
    done = sonnets(*flags, *argv, "--output-dir", tmp_path)
    assert done.code == 2 and len(done.errors) == 1 and message in done.errors[0]


def test_line_breaks_may_be_left_out_of_unlikelihood(sonnets: Run, flags: list[Any], tmp_path: Path) -> None:
    command = [*flags, "--strategy", "unlikelihood", "--output-dir", tmp_path, "--dry-run"]
    assert "weight 1, line breaks left out" in sonnets(*command, "--no-ul-line-breaks").out
    assert "line breaks" not in sonnets(*command, "--ul-line-breaks").out


def test_a_sonnet_longer_than_the_context_is_told(
    sonnets: Run, flags: list[Any], tiny_model: Path, tmp_path: Path
) -> None:
    done = sonnets(*flags, "--model", tiny_model, "--output-dir", tmp_path)
    assert done.code == 2
    assert all("more than the model's context of 48; shorten it" in error for error in done.errors)
    assert any("text 1 of sonnets.txt: its" in error for error in done.errors)
    assert any(f"{SAMPLE / 'sonnets_held_out.txt'}: poem 27: its" in error for error in done.errors)


def test_an_end_token_beyond_the_vocabulary_is_none(
    sonnets: Run, flags: list[Any], tiny_model: Path, tmp_path: Path
) -> None:
    """As ``transformers`` saves a model whose vocabulary is smaller than GPT-2's and whose ids are its defaults."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"bos_token_id": 50256, "eos_token_id": 50256}))
    done = sonnets(*flags, "--model", folder, "--output-dir", tmp_path)
    assert done.code == 2 and len(done.errors) == 1 and "names no end token of its vocabulary" in done.errors[0]


def test_drawing_lines_goes_with_no_search_for_the_likeliest(sonnets: Run, model: Path, tmp_path: Path) -> None:
    command = ["--model", model, "--data-dir", SAMPLE, "--decode", "sonnet", "--output-dir", tmp_path, "--dry-run"]
    assert sonnets(*command).code == 0
    done = sonnets(*command, "--temperature", 0, "--beams", 2, "--line-end-boost", 2)
    assert [error.split(": ")[1] for error in done.errors] == ["--temperature 0", "--beams 2", "--line-end-boost"]


def test_what_can_not_be_completed_or_measured_is_told_before_training(
    sonnets: Run, model: Path, tmp_path: Path
) -> None:
    own, held_out = tmp_path / "own.txt", tmp_path / "held_out.txt"
    write_sonnets(own, [Sonnet(number, (f"line {number}",) * 3) for number in range(1, 23)])
    write_sonnets(held_out, [Sonnet(7, ("the film",)), Sonnet(8, ("far too long " * 300,))])
    command = ["--model", model, "--held-out-sonnet-path", held_out, "--output-dir", tmp_path / "runs", "--dry-run"]
    done = sonnets(*command, "--sonnet-path", own)
    assert done.code == 2 and len(done.errors) == 1
    assert f"{own}: no line is left to measure where 3 are given, of poem 1, 21, 11;" in done.errors[0]
    done = sonnets(*command, "--sonnet-path", SAMPLE / "sonnets.txt")
    assert done.code == 2 and len(done.errors) == 1
    assert f"{held_out}: poem 8: its" in done.errors[0] and "more than the model's context of 640" in done.errors[0]
    done = sonnets(*command, "--sonnet-path", SAMPLE / "sonnets.txt", "--limit-dev", 1, "--limit-train", 6)
    assert done.errors == [
        "error: --limit-train 6: 6 sonnets to train on: too few to keep some back for choosing the epoch; it takes 11"
    ]


def test_beginnings_that_are_measured_have_as_many_lines_as_are_given(
    sonnets: Run, model: Path, tmp_path: Path
) -> None:
    held_out, truth = tmp_path / "held_out.txt", tmp_path / "truth.txt"
    whole = read_sonnets(SAMPLE / "sonnets.txt")[:3]
    write_sonnets(truth, whole)
    write_sonnets(held_out, [Sonnet(poem.number, poem.lines[: i + 1]) for i, poem in enumerate(whole)])
    command = ["--model", model, "--sonnet-path", SAMPLE / "sonnets.txt", "--held-out-sonnet-path", held_out,
               "--output-dir", tmp_path / "runs", "--dry-run"]  # fmt: skip
    assert sonnets(*command, "--true-sonnet-path", truth).errors == [
        f"error: {held_out}: poem 1 has 1 line, where 3 are given; give its first 3",
        f"error: {held_out}: poem 2 has 2 lines, where 3 are given; give its first 3",
    ]
    assert sonnets(*command).code == 0  # without true endings they are only completed


def test_a_limit_takes_the_true_endings_of_the_beginnings_that_it_leaves() -> None:
    poems = [Sonnet(number, (str(number),) * 14) for number in range(4)]
    files = SonnetFiles(poems, poems, poems[::-1], poems, ())
    left = limited(files, SonnetSettings(limit_dev=2, limit_train=3))
    assert [poem.number for poem in left.truth] == [1, 0] and len(left.train) == 3 and len(left.test) == 4


def test_texts_without_a_perplexity_are_counted_and_give_no_number(model: Path, as_new_process: None) -> None:
    device = open_device(False, "fp32")

    def measured(*texts: Text) -> dict[str, float]:
        return perplexity_of_generated(likelihoods_of_generated(model, texts, device), len(texts))

    empty, long, usual = Text("1", "a\n", " "), Text("2", "a\n", "film " * 700), Text("3", "a\n", "the film")
    assert measured(empty, empty) == measured(empty, long) == {"generated_left_out": 2}
    found = measured(empty, usual)
    assert found["generated_left_out"] == 1 and math.isfinite(found["generated_perplexity"])
    assert [*measured(usual)] == ["generated_perplexity"]


def test_perplexities_of_a_run_by_hand(model: Path, as_new_process: None) -> None:
    """From the logits, without a batch, a cache or the loss of training: given lines and the end token don't count."""
    gpt2 = GPT2Model.from_pretrained(model).eval()
    tokenizer = load_tokenizer(model, gpt2.config)
    writer = Writer(gpt2, tokenizer, open_device(False, "fp32"), lambda: None)
    texts = [Text("1", "a dull\n", "the film\nis good"), Text("2", "every scene\n", "of the music\nand its story")]
    nats, tokens = [], []
    for text in texts:
        prompt, rest = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text.prompt, text.rest))
        with torch.no_grad():
            states = gpt2(torch.tensor([[0, *prompt, *rest]]))["last_hidden_state"]
            log_p = gpt2.hidden_state_to_token(states)[0].log_softmax(dim=-1)
        nats.append(-sum(float(log_p[len(prompt) + i, token]) for i, token in enumerate(rest)))
        tokens.append(len(rest))
    expected = math.exp(sum(nats) / sum(tokens))

    encoded = encode_texts(texts, tokenizer, 0, 640)
    found = writing_job.perplexity(GPT2LanguageModel(gpt2), encoded, 2, writer.device, lambda: None)
    assert found["perplexity"] == pytest.approx(expected, rel=1e-4)
    assert found["word_perplexity"] == pytest.approx(math.exp(sum(nats) / (4 + 6)), rel=1e-4)
    generated = likelihoods_of_generated(model, texts, writer.device)
    assert perplexity_of_generated(generated, 2) == {"generated_perplexity": pytest.approx(expected, rel=1e-4)}
    run: Any = SimpleNamespace(texts={"report": texts})
    endings = likelihoods_of_endings(run, writer)
    assert [(one.id, one.n_tokens, one.n_words) for one in endings] == [("1", tokens[0], 4), ("2", tokens[1], 6)]
    assert [one.nats for one in endings] == pytest.approx(nats, rel=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Loss and perplexity by position
# ---------------------------------------------------------------------------------------------------------------------


def test_every_token_but_the_first_is_a_target_and_padding_never_is(model: Path) -> None:
    tokenizer = load_tokenizer(model, GPT2Model.from_pretrained(model).config)
    texts = encode_texts([Text("a", "the film\n", "is good"), Text("b", "", "a")], tokenizer, 0, 640)
    assert [text.tokens[0] for text in texts] == [text.tokens[-1] for text in texts] == [0, 0]
    input_ids, targets, mask = batch_of(texts, torch.device("cpu"))
    for row, text in enumerate(texts):
        n = len(text.tokens) - 1
        assert input_ids[row, :n].tolist() == text.tokens[:-1] and targets[row, :n].tolist() == text.tokens[1:]
        assert (targets[row, n:] == IGNORED).all() and int(mask[row].sum()) == n
    _, after, _ = batch_of(texts[:1], torch.device("cpu"), continuation_only=True)
    rest = tokenizer("is good", add_special_tokens=False)["input_ids"]
    assert [t for t in after[0].tolist() if t != IGNORED] == rest  # neither the prompt nor the end token


def test_unlikelihood_raises_the_loss_of_a_text_that_repeats_itself(model: Path) -> None:
    from modules.unlikelihood import earlier_tokens

    language_model = GPT2LanguageModel(GPT2Model.from_pretrained(model)).eval()
    ids = torch.tensor([[5, 6, 7, 5, 6]])
    targets = torch.tensor([[6, 7, 5, 6, 7]])
    with torch.no_grad():
        plain = language_model(ids, targets)
        with_it = language_model(ids, targets, candidates=earlier_tokens(ids, targets), alpha=1.0)
    assert with_it > plain


def test_sequence_unlikelihood_goes_on_from_the_training_texts(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From their prompts, or, where they have none, from their first halves; as far as each goes."""
    gpt2 = GPT2Model.from_pretrained(model)
    texts = [
        Text("a", "", "the film is good"),
        Text("b", "", "every scene is dull"),
        Text("c", "a story\n", "with wit"),
    ]
    encoded = encode_texts(texts, load_tokenizer(model, gpt2.config), 0, 640)
    asked: list[tuple[Any, int]] = []

    def spy(gpt2: GPT2Model, prompts: Any, *rest: Any, max_new_tokens: int, **options: Any) -> list[list[int]]:
        asked.append((prompts, max_new_tokens))
        return generate(gpt2, prompts, *rest, max_new_tokens=max_new_tokens, **options)

    monkeypatch.setattr(writing_job, "generate", spy)
    loss = writing_job.own_repeats(GPT2LanguageModel(gpt2), gpt2, encoded, torch.device("cpu"))
    ((prompts, longest),) = asked
    first, second = (text.tokens[: len(text.tokens) // 2] for text in encoded[:2])
    assert prompts == [first, second, encoded[2].tokens[: encoded[2].n_prompt]] and first != second
    assert longest == max(len(text.tokens) - len(prompt) for text, prompt in zip(encoded, prompts, strict=True))
    assert loss.isfinite() and loss.requires_grad


# ---------------------------------------------------------------------------------------------------------------------
# The form
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def poet(tmp_path_factory: pytest.TempPathFactory) -> tuple[GPT2Model, Any]:
    """The bundled model."""
    folder = ROOT / "data" / "checkpoints" / "mini"
    gpt2 = GPT2Model.from_pretrained(folder).eval()
    return gpt2, load_tokenizer(folder, gpt2.config)


GIVEN = (
    "The sun has left the garden for the night,",
    "And all the roses sleep beside the sea,",
    "The moon has come to lend her borrowed light,",
)


def test_a_poem_in_form_has_fourteen_lines_that_rhyme_and_scan(poet: tuple[GPT2Model, Any], one_thread: None) -> None:
    gpt2, tokenizer = ready(poet[0]), poet[1]
    words = closing_words(read_sonnets(SAMPLE / "sonnets.txt"), tokenizer)
    form = Form(candidates=12)
    writer = SonnetWriter(gpt2, tokenizer, gpt2.config.eos_token_id, words, Decoding(top_p=0.9), form, indent="  ")
    lines = writer.complete(GIVEN, seed=5)
    assert len(lines) == 14 and tuple(lines[:3]) == GIVEN and len(set(lines)) == 14
    ends = [ending(line) for line in lines]
    assert len(set(ends)) == 14  # no word rhymes with itself
    assert measure([Sonnet(1, tuple(lines))])["rhyme_accuracy"] >= 0.95  # the given pair apart
    kinds = [rhymes(ends[i], ends[j]) for i, j in pairs_of(SHAKESPEARE)]
    assert kinds.count("perfect") >= 6 and "none" not in kinds
    assert [line.startswith("  ") for line in lines] == [False] * 12 + [True] * 2
    assert lines[-1].endswith(".") and all(line.strip()[0].isupper() for line in lines)
    assert measure([Sonnet(1, tuple(lines))])["ten_syllable_lines"] > 0.8
    assert writer.complete(GIVEN, seed=5) == lines  # a function of prompt and seed


def test_what_the_meter_asks_for_is_what_the_lines_have(poet: tuple[GPT2Model, Any], one_thread: None) -> None:
    gpt2, tokenizer = ready(poet[0]), poet[1]
    iambic = {}
    for meter in ("hard", "off"):
        form = Form(candidates=10, meter=meter, scheme="ABAB")
        writer = SonnetWriter(gpt2, tokenizer, gpt2.config.eos_token_id, ["light", "bright"], Decoding(top_p=0.9), form)
        lines = writer.complete(GIVEN[:2], seed=3)
        iambic[meter] = measure([Sonnet(1, tuple(lines[2:]))], n_given=0)["iambic_lines"]
    assert iambic == {"hard": 1.0, "off": 0.0}


def test_hard_meter_takes_an_iambic_line_however_unlikely(
    scribbler: Callable[..., SonnetWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    iambic, other = "And so I say to you and you the day", "And golden desire of the morning day"
    found = [_Candidate(iambic, -10.0, 0.0), _Candidate(other, -0.1, OFF_LENGTH)]
    monkeypatch.setattr(SonnetWriter, "_openings", lambda *_: found)
    monkeypatch.setattr(SonnetWriter, "_likeliest", lambda self, cache, logits, found, marks, lead: found[0].text)
    for meter, line in (("hard", iambic), ("soft", other)):
        assert scribbler([], Form(candidates=2, meter=meter, scheme="A")).complete([], seed=1) == [line]


def test_a_single_candidate_is_no_part_of_the_poem(
    scribbler: Callable[..., SonnetWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[Any, int]] = []

    def watched(gpt2: GPT2Model, prompts: Any, room: int = 0) -> Any:
        cache, logits = prefill(gpt2, prompts, room)
        read.append((cache, len(prompts[0])))
        return cache, logits

    monkeypatch.setattr(sonnet_form, "prefill", watched)
    scribbler([], Form(candidates=1, scheme="ABCDE")).complete(GIVEN, seed=1)
    assert len(read) == 2 and all(cache.lengths == [n_tokens] for cache, n_tokens in read)


def test_a_near_rhyme_where_there_is_no_other_is_counted_apart(poet: tuple[GPT2Model, Any], one_thread: None) -> None:
    form = Form(candidates=4, scheme="AA", meter="off")
    given = "And so I say to you and you the love"
    for vocabulary, kind in ((["prove", "stone"], "near"), (["prove", "dove"], "perfect")):
        writer = SonnetWriter(ready(poet[0]), poet[1], poet[0].config.eos_token_id, vocabulary, Decoding(), form)
        lines = writer.complete([given], seed=1)
        shares = {kind: rhyme_share(lines, 1, kind, scheme="AA") for kind in ("perfect", "near")}
        assert shares == {"perfect": 0.0, "near": 0.0, kind: 1.0}, lines


def test_words_that_may_close_a_line_are_words() -> None:
    class Pieces(list):
        def decode(self, ids: list[int]) -> str:
            return self[ids[0]]

    pieces: Any = Pieces([" env", " rose", "rose", " lov", " night", " the"])
    assert closing_words([Sonnet(1, ("O 'tis thy fearful night", "my night"))], pieces) == [
        "night", "o", "tis", "thy", "fearful", "my", "rose", "the",
    ]  # fmt: skip
    assert closing_words([Sonnet(1, ("Thy beauty’s self-same ‘rose’, belovèd",))], Pieces([])) == [
        "thy", "beauty's", "self", "same", "rose",
    ]  # fmt: skip


def test_a_finished_run_brings_the_sonnets_that_it_was_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    poems = [Sonnet(number, ("a line",)) for number in (1, 2, 3)]
    write_sonnets(path, poems)
    file = {"path": str(path), "sha256": file_sha256(path)}
    saved = {"data": {"files": {"train": file, "truth": {"rows": 2}}}, "settings": {"limit_train": 2}}
    assert training_sonnets(saved) == poems[:2]
    one_true: Any = {"data": {"files": {"train": file, "truth": {"rows": 1}}}, "settings": {"limit_train": None}}
    assert training_sonnets(one_true) == poems[1:]  # the first was kept back
    one_true["settings"]["hold_out"] = 2
    assert training_sonnets(one_true) == poems[1:2]
    write_sonnets(path, poems[:1])
    assert training_sonnets(saved) == []  # it is another file now
    path.unlink()
    assert training_sonnets(saved) == []


def test_lines_end_where_their_end_is_encouraged(model: Path, as_new_process: None) -> None:
    gpt2 = GPT2Model.from_pretrained(model).eval()
    writer = Writer(gpt2, load_tokenizer(model, gpt2.config), open_device(False, "fp32"), lambda: None)

    def lines(**settings: Any) -> list[str]:
        completer = make_completer(writer, SonnetSettings(top_p=1.0, max_new_tokens=60, **settings), [], "")
        return completer([GIVEN], [5])[0][3:]

    assert max(len(line.split()) for line in lines()) > 3
    assert max(len(line.split()) for line in lines(line_end_boost=60.0, line_words=3)) <= 3
    assert lines(line_end_boost=0.0) == lines()


@pytest.fixture
def scribbler(model: Path) -> Callable[..., SonnetWriter]:
    """Makes a writer in form of the tiny model, whose lines are hardly ever words."""
    gpt2 = GPT2Model.from_pretrained(model).eval()
    tokenizer = load_tokenizer(model, gpt2.config)

    def make(vocabulary: list[str], form: Form, decoding: Decoding | None = None) -> SonnetWriter:
        return SonnetWriter(ready(gpt2), tokenizer, 0, vocabulary, decoding or Decoding(), form)

    return make


@pytest.mark.parametrize("vocabulary", [[], ["sea", "tree", "delight"]], ids=["no rhyme", "few rhymes"])
def test_last_resorts_keep_the_promises_too(
    vocabulary: list[str], scribbler: Callable[..., SonnetWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sonnet_form, "ATTEMPTS", 1)
    lines = scribbler(vocabulary, Form(candidates=1)).complete(GIVEN, seed=1)
    assert any(line.startswith(LAST_RESORTS) for line in lines)
    assert len(set(lines)) == 14 and len({ending(line) for line in lines}) == 14
    assert lines[-1].endswith(".")


def test_last_words_do_not_rhyme_with_each_other() -> None:
    assert {rhymes(a, b) for a in LAST_WORDS for b in LAST_WORDS} <= {"none", "near"}
    assert len(set(LAST_WORDS)) >= len(SHAKESPEARE)


def test_a_line_whose_partner_has_no_rhyme_asks_for_none(poet: tuple[GPT2Model, Any], one_thread: None) -> None:
    """It has its length like any other, where one that opens a rhyme would find no word that others rhyme with."""
    form = Form(candidates=8, scheme="AA")
    writer = SonnetWriter(ready(poet[0]), poet[1], poet[0].config.eos_token_id, [], Decoding(top_p=0.9), form)
    line = writer.complete(GIVEN[:1], seed=2)[1]
    assert measure([Sonnet(1, (line,))], n_given=0)["ten_syllable_lines"] == 1.0


def test_repetition_is_looked_for_in_the_whole_poem(scribbler: Callable[..., SonnetWriter]) -> None:
    seen: list[list[int]] = []

    class Watched(Decoding):
        def apply(self, logits: torch.Tensor, sequences: Any, processors: Any = ()) -> torch.Tensor:
            seen.extend(sequences)
            return super().apply(logits, sequences, processors)

    writer = scribbler([], Form(candidates=2, scheme="ABCD"), Watched())
    writer.complete(GIVEN, seed=1)
    text = "".join(f"{line}\n" for line in GIVEN)
    begin = [0, *writer.tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert seen and all(sequence[: len(begin)] == begin for sequence in seen) and len(max(seen, key=len)) > len(begin)


@pytest.mark.slow
def test_form_decoding_from_the_command_line(sonnets: Run, tmp_path: Path) -> None:
    one = tmp_path / "one.txt"
    write_sonnets(one, read_sonnets(SAMPLE / "sonnets_held_out.txt")[:1])
    done = sonnets(
        "--model", "mini", "--sonnet-path", SAMPLE / "sonnets.txt", "--held-out-sonnet-path", one, "--epochs", 1,
        "--strategy", "last-n", "--decode", "sonnet", "--candidates", 6, "--show", "--output-dir", tmp_path / "runs",
    )  # fmt: skip
    assert done.code == 0, done.err
    metrics = metrics_of(only_run(tmp_path / "runs"))
    assert metrics["dev"]["lines_14"] == 1.0 and metrics["dev"]["rhyme_accuracy"] + metrics["dev"]["near_rhyme"] >= 0.95
    assert metrics["seconds_per_poem"] > 0 and "rhyme letter" in done.out
