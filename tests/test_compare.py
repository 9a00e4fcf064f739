"""compare.py on small made-up run folders: what is compared, what is said of it, and what is not compared."""

from __future__ import annotations

import csv
import dataclasses
import errno
import html
import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import ROOT, call

from comparison.comparing import commands, make_comparisons, make_pairs
from comparison.mistakes import compare_mistakes, quartiles
from comparison.pictures import training_rows
from comparison.report import report_page, write_report
from comparison.runs import Comparison, Entry, Measure
from comparison.statistics import paired_difference
from comparison.tables import (
    Column,
    aligned,
    columns,
    comparison_record,
    csv_page,
    heading,
    latex_page,
    markdown_page,
    terminal_page,
    tex,
)
from comparison.verdicts import headline, leading_pairs, level_of, p_text, variance_parts
from config import UserError
from storage import file_sha256
from tasks.passages import read_dataset

N, CLASSES = 60, 3
LABELS = [i % CLASSES for i in range(N)]
IDS = [f"e{i:02d}" for i in range(N)]
CLASS_NAMES = ["bad", "so_so", "good"]
# Strategy -> the examples that it gets wrong, and how many more each seed does.
WRONG = {"full": range(0, 6), "lora": range(3, 11), "head": range(0, 40)}
SEEDS = (1, 2, 3)


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_data(folder: Path, splits: Sequence[str] = ("train", "dev")) -> dict[str, dict[str, Any]]:
    """SST files: the words of an example give its class away."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split in splits:
        lines = ["\tid\tsentence\tsentiment"]
        for i, label in enumerate(LABELS):
            text = " ".join([["awful", "usual", "superb"][label], *["word"] * (i % 8)])
            lines.append(f"{i}\t{IDS[i] if split == 'dev' else f't{i}'}\t{text}\t{label}")
        path = folder / f"ids-sst-{split}.csv"
        path.write_text("\n".join(lines) + "\n")
        files[split] = {"path": str(path), "sha256": file_sha256(path), "rows": N, "skipped_rows": 0}
    return files


def wrong_of(strategy: str, seed: int) -> set[int]:
    """A strategy's wrong examples: its own, and two more that differ from seed to seed."""
    own = set(WRONG[strategy])
    free = [i for i in range(N) if i not in own]
    return own | set(random.Random(f"{strategy}{seed}").sample(free, 2))


def make_run(
    output: Path,
    files: dict[str, Any],
    strategy: str = "full",
    seed: int = 1,
    *,
    wrong: set[int] | None = None,
    identity: dict[str, Any] | None = None,
    suffix: str = "",
    settings: dict[str, Any] | None = None,
    shuffle: int | None = None,
    **metrics: Any,
) -> Path:
    """A complete run folder. ``metrics`` replaces what metrics.json says."""
    dataset, model = metrics.get("dataset", "sst"), metrics.get("model", "mini")
    folder = output / f"sentiment-{dataset}-{model}-{strategy}-s{seed}{suffix}"
    wrong = wrong_of(strategy, seed) if wrong is None else wrong
    settings = {"seed": seed, "strategy": strategy, "epochs": 4, "limit_dev": None} | (settings or {})
    lora = {"lora_rank": 8} if strategy == "lora" else {}
    write(
        folder / "config.json",
        {
            "schema": 1, "task": metrics.get("task", "sentiment"), "dataset": dataset, "settings": settings,
            "identity": {"seed": seed, "strategy": strategy, "epochs": 4, "limit_dev": settings["limit_dev"],
                         "dataset": dataset, "model": model, "model weights": ["42cc3f"], **lora, **(identity or {})},
            "data": {"files": files, "label_names": CLASS_NAMES},
            "environment": {"argv": ["/home/me/classifier.py", "--strategy", strategy, "--seed", str(seed)]},
        },
    )  # fmt: skip
    accuracy = (N - len(wrong)) / N
    write(
        folder / "metrics.json",
        {
            "schema": 1, "task": "sentiment", "dataset": dataset, "model": model, "strategy": strategy, "seed": seed,
            "precision": "fp32", "epochs": 4, "best_epoch": 2 + seed % 2,
            "dev": {"accuracy": accuracy, "macro_f1": accuracy, "n": N}, "dev_last": {"accuracy": accuracy - 0.1},
            "history": [], "finished": "2026-01-01T00:00:00+0000",
            "cost": {"train_seconds": 10.0 * seed, "total_seconds": 20.0 * seed * (1 + (strategy == "full")),
                     "examples_per_second": 99.5, "tokens_per_second": 1000.0, "peak_memory_bytes": 2**30 * seed,
                     "trainable_parameters": 1280, "total_parameters": 5_000_000},
            **metrics,
        },
    )  # fmt: skip
    records = []
    for i, (id_, label) in enumerate(zip(IDS, LABELS, strict=True)):
        chosen = (label + 1) % CLASSES if i in wrong else label
        probabilities = [0.1, 0.1, 0.1]
        probabilities[chosen] = 0.8
        records.append({"id": id_, "label": label, "prediction": chosen, "probabilities": probabilities})
    random.Random(seed if shuffle is None else shuffle).shuffle(records)  # every run has an order of its own
    write_scores(folder, records)
    return folder


def write_scores(folder: Path, records: Sequence[dict[str, Any]], split: str = "dev") -> None:
    (folder / "predictions").mkdir(exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "predictions" / f"{split}-scores.jsonl").write_text(lines)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Any]) -> Path:
    """Three strategies, three seeds each; the rightmost columns of metrics.json are from the future."""
    folder = tmp_path_factory.mktemp("runs")
    for strategy in WRONG:
        for seed in SEEDS:
            make_run(folder, files, strategy, seed, of_tomorrow={"a": [1]})
    stage = folder / "sentiment-sst-mini-full-s1" / "lm-stage"
    write(stage / "config.json", {"task": "lm", "dataset": "sst"})
    write(stage / "metrics.json", {"schema": 1})
    write(folder / "sentiment-sst-mini-full-s1" / "best" / "config.json", {"model_type": "gpt2"})
    return folder


@pytest.fixture(scope="module")
def compared(runs: Path) -> Comparison:
    (comparison,) = make_comparisons([runs], floors=False)
    return comparison


def only(folder: Path, **options: Any) -> Comparison:
    (comparison,) = make_comparisons([folder], **({"floors": False} | options))
    return comparison


def names_of(comparison: Comparison) -> list[str]:
    return [entry.name for entry in comparison.entries if entry.kind != "published"]


def errors_of(capsys: pytest.CaptureFixture[str], *argv: object) -> list[str]:
    assert call(*argv, script="compare") == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines), lines
    return lines


# ---------------------------------------------------------------------------------------------------------------------
# Scores
# ---------------------------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_the_seed_alone_are_one_entry(compared: Comparison) -> None:
    assert names_of(compared) == ["full", "lora", "head"]  # the best first
    assert all(entry.seeds == list(SEEDS) for entry in compared.measured)
    assert compared.ids == IDS and compared.labels is not None and compared.labels.tolist() == LABELS
    # 52, 50 and 18 of 60 right in every seed.
    assert [entry.values for entry in compared.measured] == [[n / 60] * 3 for n in (52, 50, 18)]
    assert [entry.std for entry in compared.measured] == [0.0] * 3
    assert compared.best.cost("total_seconds") == 80.0 and compared.best.cost("peak_memory_bytes") == 3 * 2**30


def test_a_number_is_a_choice_even_if_it_is_zero(tmp_path: Path, files: dict[str, Any]) -> None:
    """Unset, the share of the mean is 0.7: runs with 0 are no seeds of those without."""
    for seed in (1, 2):
        make_run(tmp_path, files, "full", seed, identity={"pooling": "mix", "mean_weight": None})
        make_run(tmp_path, files, "full", seed, identity={"pooling": "mix", "mean_weight": 0.0}, suffix="-0abcde",
                 wrong=set(range(20)))  # fmt: skip
    assert names_of(only(tmp_path)) == ["full", "full (mean-weight 0)"]
    close = tmp_path / "close"
    for i, rate in enumerate((1e-4, 1.0000001e-4)):
        make_run(close, files, "full", 1, identity={"lr": rate}, suffix=f"-{i}", wrong=set(range(i)))
    assert len(set(names_of(only(close)))) == 2


def test_chrf_of_all_texts_is_not_the_mean_of_each(tmp_path: Path, files: dict[str, Any]) -> None:
    folder = make_run(tmp_path, files, dev={"chrf": 38.8}, task="text-generation", dataset="chatbot")
    write_scores(folder, [{"id": str(i), "chrf": 39.9 + i} for i in range(5)])
    comparison = only(tmp_path)
    assert comparison.measure.name == "chrf" and comparison.best.value == pytest.approx(41.9)
    heads = {column.head: column.values for column in columns(comparison)}
    assert heads["chrF of each text"] == ["41.9"] and heads["chrF"] == ["38.8"]


def test_the_test_column_has_the_measure_of_the_scores(tmp_path: Path, files: dict[str, Any]) -> None:
    chatbot = {"task": "text-generation", "dataset": "chatbot", "test": {"chrf": 20.0}}
    for strategy in ("full", "lora"):
        folder = make_run(tmp_path, files, strategy, dev={"chrf": 38.8}, **chatbot)
        write_scores(folder, [{"id": str(i), "chrf": 30.0 + i} for i in range(5)])
        if strategy == "full":
            write_scores(folder, [{"id": str(i), "chrf": 24.0 + i} for i in range(3)], "test")
    comparison = only(tmp_path)
    assert {column.head: column.values for column in columns(comparison)}["test"] == ["25", ""]
    assert [entry["test"] for entry in comparison_record(comparison)["entries"]] == [25.0, None]


def test_scores_of_no_known_measure_are_not_blamed_on_the_run(tmp_path: Path, files: dict[str, Any]) -> None:
    folder = make_run(tmp_path, files, dev={"words": 3.0}, task="text-generation", dataset="custom")
    write_scores(folder, [{"id": str(i), "words": 3.0} for i in range(5)])
    with pytest.raises(UserError) as caught:
        make_comparisons([tmp_path])
    (problem,) = caught.value.problems
    assert "has none of the measures that can be compared: accuracy, f1" in problem and "--overwrite" not in problem


def test_test_scores_are_of_the_same_rows(tmp_path: Path, files: dict[str, Any]) -> None:
    """Where a single entry's runs were tested on different rows, their mean says nothing, either."""
    limits = {"full": (None, None), "lora": (None, None), "head": (5, 5), "bitfit": (None, 5)}
    for strategy, of_seeds in limits.items():
        for seed, limit in enumerate(of_seeds, start=1):
            tested = files | {"test": {"path": "x", "sha256": "abc", "rows": 9}}
            make_run(tmp_path, tested, strategy, seed, wrong=set(range(seed)), settings={"limit_test": limit},
                     test={"accuracy": 0.25 * seed})  # fmt: skip
    comparison = only(tmp_path)
    heads = {column.head: column.values for column in columns(comparison)}
    shown = dict(zip(heads[""], heads["test"], strict=True))
    assert {name: shown[name] for name in limits} == {
        "full": "0.375 ± 0.177", "lora": "0.375 ± 0.177", "head": "", "bitfit": "",
    }  # fmt: skip
    recorded = {entry["name"]: entry["test"] for entry in comparison_record(comparison)["entries"]}
    assert (recorded["full"], recorded["head"], recorded["bitfit"]) == (0.375, None, None)
    assert "test scores left out, of other rows than most runs were tested on: bitfit, head" in comparison.notes


def test_epochs_that_measure_something_else_by_the_same_name_are_not_shown(tmp_path: Path, files: Any) -> None:
    """Inference: a language model's loss per token while it learns, that of the labels at the end."""
    from comparison.pictures import learning_curves, styles_of

    loss = -float(9 * np.log(0.8) + np.log(0.1)) / 10
    records = [{"id": f"e{i}", "label": 0, "prediction": int(i == 0), "probabilities": [0.8, 0.1, 0.1]}
               for i in range(10)]  # fmt: skip
    records[0]["probabilities"] = [0.1, 0.8, 0.1]
    for name, last in (("other", 0.2), ("same", loss)):
        history = [{"epoch": e, "train_loss": 1.0, "dev": {"accuracy": 0.9, "loss": last}} for e in (1, 2, 3)]
        dev = {"accuracy": 0.9, "loss": loss}
        folder = make_run(tmp_path / name, files, history=history, dev=dev, dev_last=history[-1]["dev"], best_epoch=3)
        write_scores(folder, records)
        comparison = only(tmp_path / name, measure="loss")
        assert ("last epoch" in [column.head for column in columns(comparison)]) == (name == "same")
        curves = learning_curves(comparison, styles_of(comparison))
        assert curves is not None and len(curves.panels) == (2 if name == "same" else 1)
    by_accuracy = [column.head for column in columns(only(tmp_path / "other"))]
    assert "last epoch" in by_accuracy


def test_one_floor_does_not_shield_the_other(compared: Comparison) -> None:
    """Two floors are not tested against each other, so nothing says that the worse one is as good as the best."""
    floors = [dataclasses.replace(compared.entry(name), kind="floor", runs=()) for name in ("full", "head")]
    pairs = tuple(pair for pair in compared.pairs if {pair.a, pair.b} != {"full", "head"})
    made = dataclasses.replace(compared, entries=(floors[0], compared.entry("lora"), floors[1]), pairs=pairs)
    assert made.not_worse == {"full", "lora"}
    shown = tuple(dataclasses.replace(pair, p_adjusted=0.0) for pair in pairs)
    assert headline(dataclasses.replace(made, pairs=shown)).endswith("and is shown to be better than all runs.")


def test_what_can_not_be_said_is_not_said(tmp_path: Path, files: dict[str, Any]) -> None:
    for name, score in (("full", 1.0), ("head", 0.0), ("lora", 0.0)):
        folder = make_run(tmp_path, files, name, 1, dev={"rhyme_accuracy": score}, task="sonnet", dataset="shakespeare")
        write_scores(folder, [{"id": str(i), "rhyme_accuracy": score} for i in range(6)])
    verdicts = [pair.verdict for pair in only(tmp_path).pairs]
    assert verdicts and not [verdict for verdict in verdicts if "inf" in verdict]


@pytest.mark.parametrize(
    "broken", [{"metrics.json": {"dev": None}}, {"metrics.json": {"seed": "one"}}, {"config.json": {"data": None}}]
)
def test_a_broken_folder_is_named_and_breaks_nothing(
    tmp_path: Path, files: dict[str, Any], broken: dict[str, dict[str, Any]]
) -> None:
    make_run(tmp_path, files, "lora", 1)
    folder = make_run(tmp_path, files, "full", 1)
    for name, change in broken.items():
        write(folder / name, json.loads((folder / name).read_text()) | change)
    comparison = only(tmp_path)
    assert names_of(comparison) == ["lora"] and folder.name in comparison.problems[0]


def test_folders_that_can_not_be_written_to_are_told_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    flags = ("--output-dir", tmp_path / "file" / "below", "--pictures", tmp_path / "file")
    errors = errors_of(capsys, tmp_path / "no-runs", *flags)
    assert [error.partition("file is no folder that can be written to; ")[2] for error in errors] == [
        "choose another --output-dir", "choose another --pictures"
    ]  # fmt: skip


def test_a_line_of_json_ends_with_a_line_feed_and_nothing_else(tmp_path: Path, files: dict[str, Any]) -> None:
    folder, name = make_run(tmp_path, files), "a\u2028b\u2029c\u0085d"
    path = folder / "predictions" / "dev-scores.jsonl"
    path.write_text(path.read_text().replace("e00", name), encoding="utf-8")
    assert name in only(tmp_path).ids


def test_linked_runs_are_found_and_loops_are_not_followed(tmp_path: Path, files: dict[str, Any]) -> None:
    make_run(tmp_path / "elsewhere", files)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "runs")
    assert only(tmp_path / "runs").best.seeds == [1]


def test_folders_that_can_not_be_looked_into_are_named(
    tmp_path: Path, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, files)
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
    (problem,) = only(tmp_path).problems
    assert "closed: can't be read (Permission denied)" in problem


def test_scores_are_aligned_by_id(compared: Comparison) -> None:
    for entry in compared.measured:
        assert entry.scores is not None
        for row, seed in zip(entry.scores, SEEDS, strict=True):
            assert set(np.flatnonzero(row == 0)) == wrong_of(entry.name, seed)


def test_the_order_in_the_files_changes_nothing(tmp_path: Path, files: dict[str, Any]) -> None:
    results = []
    for shuffle in (0, 1):
        for strategy in WRONG:
            for seed in SEEDS:
                make_run(tmp_path / str(shuffle), files, strategy, seed, shuffle=shuffle * 100 * seed)
        comparison = only(tmp_path / str(shuffle))
        results.append([(pair.verdict, pair.p_adjusted, pair.would_change) for pair in comparison.pairs])
    assert results[0] == results[1]


def test_what_is_shown_and_what_is_not(compared: Comparison) -> None:
    assert compared.not_worse == {"full", "lora"}
    assert {(pair.a, pair.b) for pair in compared.pairs} == {("full", "lora"), ("full", "head"), ("lora", "head")}
    shown, not_shown = compared.pair("head", "full"), compared.pair("full", "lora")
    assert shown is not None and not_shown is not None
    assert shown.verdict.startswith("full is better than head by 56.7 points (95 % CI ")
    assert not_shown.verdict.startswith("No difference shown between full and lora (3.3 points, 95 % CI -")
    assert "points would have been seen" in not_shown.verdict
    assert "If the true difference is 3.3 points, about " in not_shown.would_change
    assert "dev examples instead of 60 would show it" in not_shown.would_change  # the seeds have equal scores
    assert not_shown.mcnemar is None  # for single runs only
    text = headline(compared)
    assert text.startswith("full has the best accuracy, 0.867 ± 0.000 (3 seeds); not shown to be worse: lora.")
    assert "The quickest of these is lora, 2.0 times as fast." in text


def test_single_runs_are_compared_by_mcnemar_too_and_told_apart_from_seeds(
    tmp_path: Path, files: dict[str, Any]
) -> None:
    make_run(tmp_path, files, "full", wrong=set(range(10)))
    make_run(tmp_path, files, "lora", wrong=set(range(10, 12)))
    (pair,) = only(tmp_path).pairs
    assert (pair.a, pair.b) == ("lora", "full")
    assert pair.mcnemar == pytest.approx(0.03857, abs=1e-4)  # 10 against 2: 2 * (1 + 12 + 66) / 4096
    assert "McNemar p 0.039" in pair.verdict
    assert "Other seeds of lora and full may turn this around" in pair.would_change


def test_variance_is_divided_between_seeds_and_examples() -> None:
    examples = np.tile(np.array([1.0, 0.0] * 50), (3, 1))
    assert variance_parts(examples, np.ones((3, 100))).examples == pytest.approx(1.0)
    seeds = np.repeat([[0.0], [0.5], [1.0]], 100, axis=1)
    parts = variance_parts(seeds, np.ones((1, 100)))  # the other side has one row: no part of the seeds' noise
    assert (parts.seeds, parts.examples, parts.rest) == pytest.approx((1.0, 0.0, 0.0))
    assert variance_parts(np.ones((2, 5)), np.ones((2, 5))).seeds == 0.0


def test_seeds_that_carry_the_noise_are_what_more_is_asked_of(tmp_path: Path, files: dict[str, Any]) -> None:
    for seed, (n_full, n_lora) in enumerate([(0, 14), (16, 18), (8, 10)]):
        make_run(tmp_path, files, "full", seed, wrong=set(range(n_full)))
        make_run(tmp_path, files, "lora", seed, wrong=set(range(n_lora)))
    (pair,) = only(tmp_path).pairs
    assert not pair.is_shown and pair.seed_share > 0.5
    assert "seeds each instead of 3 would show it" in pair.would_change


def seeds_alone(seeds: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two strategies that differ by ``gap``, with a deviation of one point between seeds and nothing else."""
    steps = np.linspace(-1, 1, seeds)
    rows = np.repeat((0.5 + 0.01 * steps / steps.std(ddof=1))[:, None], 200, axis=1)
    return rows + gap, rows


@pytest.mark.parametrize(
    ("seeds", "gap", "n_entries", "needed"),
    [(2, 0.02, 2, 6), (3, 0.015, 2, 9), (3, 0.015, 10, 18), (3, 0.0030, 2, 176), (3, 0.0002, 2, None)],
)
def test_so_many_seeds_as_are_asked_for_show_the_difference(
    seeds: int, gap: float, n_entries: int, needed: int | None
) -> None:
    """With more of them their noise is known better, too: t's quantile falls with the standard error."""
    better, worse = seeds_alone(seeds, gap)
    others = [worse - 1e-12 * i for i in range(n_entries - 1)]  # equal ones would be one test
    entries = [
        Entry(f"e{i}", "run", "mini", "full", (Any,) * seeds, scores, float(scores.mean()))  # type: ignore[arg-type]
        for i, scores in enumerate([better, *others])
    ]
    pair = make_pairs(entries, Measure("accuracy", "accuracy"))[0]
    if needed is None:
        assert pair.would_change.startswith("Nothing within reach")
        return
    assert f"about {needed} seeds each instead of {seeds} would show it" in pair.would_change
    level = 0.05 / math.comb(n_entries, 2)
    shown = [paired_difference(*seeds_alone(n, gap), alpha=level).detectable <= gap for n in (needed - 1, needed)]
    assert shown == [False, True]


def test_entries_with_the_same_scores_make_one_test() -> None:
    """As those of one model that writes in two ways: their pairs with others are not more tests."""
    generator = np.random.default_rng(0)
    a, b, c = (generator.normal(size=(3, 40)) + shift for shift in (0.0, 0.3, 1.2))

    def adjusted(**scores: np.ndarray) -> dict[tuple[str, str], float]:
        entries = [
            Entry(name, "run", "mini", name, (Any,) * 3, of_one, float(of_one.mean()))  # type: ignore[arg-type]
            for name, of_one in scores.items()
        ]
        pairs = make_pairs(entries, Measure("accuracy", "accuracy"))
        return {(pair.a, pair.b): pair.p_adjusted for pair in pairs}

    alone, twice = adjusted(a=a, b=b, c=c), adjusted(a=a, b=b, c=c, z=a, y=b)
    assert len(twice) == 10 and twice["a", "z"] == twice["b", "y"] == 1.0
    assert {pair: twice[pair] for pair in alone} == alone and twice["c", "z"] == alone["c", "a"] < 0.05


def test_so_many_examples_as_are_asked_for_show_the_difference() -> None:
    lead = np.tile([1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0], 6)  # 0.1 on average
    both = [np.repeat(scores[None], 2, axis=0) for scores in (np.maximum(lead, 0), np.maximum(-lead, 0))]
    entries = [
        Entry(name, "run", "mini", name, (Any, Any), scores, float(scores.mean()))  # type: ignore[arg-type]
        for name, scores in zip("ab", both, strict=True)
    ]
    (pair,) = make_pairs(entries, Measure("accuracy", "accuracy"))
    assert "about 240 dev examples instead of 60 would show it" in pair.would_change  # two digits, rounded up
    exactly = (2.8016 * pair.difference.standard_error * math.sqrt(60) / 0.1) ** 2  # with a normal distribution
    assert exactly == pytest.approx(231.5, abs=0.1)


def test_what_would_have_been_seen_counts_all_pairs(compared: Comparison, tmp_path: Path, files: Any) -> None:
    assert level_of([0.001, 0.2, 0.5]) == pytest.approx(0.025)  # the second of three: alpha / 2
    assert level_of([0.001]) == pytest.approx(0.05)
    pair = compared.pair("full", "lora")  # the only one that is not shown: it stands alone
    assert pair is not None and pair.detectable == pytest.approx(pair.difference.detectable)
    for strategy, wrong in (("full", range(3)), ("lora", range(2, 6)), ("llrd", range(5, 10))):
        make_run(tmp_path, files, strategy, wrong=set(wrong))
    pairs = only(tmp_path).pairs  # none is shown: each needs p < alpha / 3
    ratios = [pair.detectable / pair.difference.detectable for pair in pairs]
    assert ratios == pytest.approx([1.163] * 3, abs=0.01)  # of normal data: (2.394 + 0.842) / (1.960 + 0.842) = 1.155


def test_equal_scores_are_no_difference(tmp_path: Path, files: dict[str, Any]) -> None:
    for strategy in ("full", "lora"):
        for seed in SEEDS:
            make_run(tmp_path, files, strategy, seed, wrong={1, 2})
    (pair,) = only(tmp_path).pairs
    assert pair.verdict == "No difference shown between full and lora: they have the same score on every example."
    assert pair.p_adjusted == 1.0 and pair.seed_share == 0.0


def as_runs(**scores: np.ndarray) -> list[Entry]:
    return [
        Entry(name, "run", "mini", name, (Any,) * len(of_one), of_one, float(of_one.mean()))  # type: ignore[arg-type]
        for name, of_one in scores.items()
    ]


def test_a_model_that_writes_in_two_ways_is_told_from_the_next_one(compared: Comparison) -> None:
    scores = np.random.default_rng(0).normal(size=(3, 40))
    entries = as_runs(free=scores, form=scores, other=scores - 1)
    pairs = {(pair.a, pair.b): pair for pair in make_pairs(entries, Measure("chrf", "chrF", is_share=False))}
    twins = pairs["form", "free"]
    assert twins.verdict.endswith("they have the same score on every example.") and not twins.would_change
    made = dataclasses.replace(compared, entries=tuple(entries))
    assert made.runner_up(entries[0]) is entries[2]
    assert dataclasses.replace(compared, entries=tuple(entries[:2])).runner_up(entries[0]) is entries[1]


def test_an_interval_without_width_is_none() -> None:
    ones = np.ones((2, 40))
    (pair,) = make_pairs(as_runs(full=ones, head=ones * 0), Measure("accuracy", "accuracy"))
    assert pair.verdict == "full is better than head by 100.0 points (adjusted p below 0.001)."


def test_no_two_shares_differ_by_more_than_all(compared: Comparison) -> None:
    rows = np.repeat([[1.0], [0.0]], 40, axis=1)
    entries = as_runs(full=rows, head=rows[::-1])
    (pair,) = make_pairs(entries, Measure("accuracy", "accuracy"))
    assert pair.detectable > 1
    assert pair.verdict.endswith("; so few seeds and examples could hardly have shown any difference.")
    assert "would have been seen" in make_pairs(entries, Measure("chrf", "chrF", is_share=False))[0].verdict


def test_the_quickest_is_named_where_all_times_are_known(compared: Comparison) -> None:
    lora = compared.entry("lora")
    runs = tuple(dataclasses.replace(run, metrics=run.metrics | {"cost": {}}) for run in lora.runs)
    entries = tuple(dataclasses.replace(lora, runs=runs) if one is lora else one for one in compared.entries)
    assert "quickest" in headline(compared)
    assert "quickest" not in headline(dataclasses.replace(compared, entries=entries))


def test_too_few_examples_say_nothing(tmp_path: Path) -> None:
    for strategy, rhyme in (("full", 0.1), ("lora", 0.5)):
        make_poems(tmp_path, strategy, 1, [rhyme])
    comparison = only(tmp_path)
    (pair,) = comparison.pairs
    assert pair.verdict == "No difference shown between lora and full: too few examples to say anything of others."
    assert comparison.best.interval is None and "Infinity" not in json.dumps(comparison_record(comparison))


def test_another_measure_may_be_compared(runs: Path) -> None:
    comparison = only(runs, measure="loss")
    assert comparison.measure.higher_is_better is False
    assert names_of(comparison) == ["full", "lora", "head"]  # the lowest first
    assert comparison.best.value == pytest.approx(-(52 * np.log(0.8) + 8 * np.log(0.1)) / 60)
    pair = comparison.pair("full", "head")
    assert pair is not None and pair.a == "full" and pair.difference.mean < 0
    assert pair.verdict.startswith("full is better than head by 1.18 (95 % CI ")


# ---------------------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------------------


def test_names_tell_what_entries_differ_in(tmp_path: Path, files: dict[str, Any]) -> None:
    make_run(tmp_path, files, "lora", identity={"lora_rank": 4, "both": True}, suffix="-a")
    make_run(tmp_path, files, "lora", identity={"lora_rank": 16}, suffix="-b")
    make_run(tmp_path, files, "full", identity={"train_fraction": None, "keep_case": False})
    make_run(tmp_path, files, "full", 2, identity={"keep_case": False, "both": False})
    make_run(tmp_path, files, "full", identity={"train_fraction": 0.1}, suffix="-c")
    make_run(tmp_path, files, "full", identity={"limit_test": 3, "test file": "other"}, seed=3)
    assert set(names_of(only(tmp_path))) == {
        "lora (both, lora-rank 4)", "lora (lora-rank 16)", "full", "full (train-fraction 0.1)",
    }  # fmt: skip
    entry = only(tmp_path).entry("full")
    assert entry.seeds == [1, 2, 3]  # a setting that is not in use, or is of the test set alone, makes no difference
    assert only(tmp_path).entry("full (train-fraction 0.1)").settings == {"train-fraction": 0.1}


def test_models_are_named_where_there_are_several_and_comparators_always(tmp_path: Path, files: dict[str, Any]) -> None:
    make_run(tmp_path, files, "full")
    make_run(tmp_path, files, "full", model="distilbert", comparator=True)
    comparison = only(tmp_path)
    assert set(names_of(comparison)) == {"full", "distilbert full"}
    assert comparison.entry("distilbert full").kind == "comparator"
    make_run(tmp_path, files, "full", model="gpt2")
    assert set(names_of(only(tmp_path))) == {"mini full", "gpt2 full", "distilbert full"}


# ---------------------------------------------------------------------------------------------------------------------
# What is not compared
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        {"cost": None}, {"history": None}, {"probes": None, "test": None, "dev_last": None},
        {"dev": {"accuracy": 54 / 60, "macro_f1": math.nan, "calibration_error": math.inf}},
        {"cost": {"total_seconds": math.nan, "train_seconds": None}},
    ],
    ids=str,
)  # fmt: skip
def test_what_a_run_does_not_know_was_not_measured(odd: dict[str, Any], tmp_path: Path, files: dict[str, Any]) -> None:
    for seed in (1, 2):
        make_run(tmp_path / "runs", files, "full", seed, wrong=set(range(6)), **odd)
        make_run(tmp_path / "runs", files, "lora", seed, wrong=set(range(5, 15)))
    assert call(tmp_path / "runs", "--no-floors", "--output-dir", tmp_path / "out", script="compare") == 0
    text = (tmp_path / "out" / "comparison.json").read_text()
    (record,) = json.loads(text, parse_constant=pytest.fail)["comparisons"]
    assert {"full", "lora"} <= {entry["name"] for entry in record["entries"]}


@pytest.mark.parametrize(
    ("odd", "named"),
    [({"cost": [1]}, "cost"), ({"history": [3], "probes": {"all": 1}}, "probes, history"),
     ({"history": [{"dev": None}]}, "history"), ({"test": "none"}, "test")],
)  # fmt: skip
def test_results_of_another_shape_are_named(odd: Any, named: str, tmp_path: Path, files: dict[str, Any]) -> None:
    make_run(tmp_path, files, "lora")
    make_run(tmp_path, files, "full", **odd)
    comparison = only(tmp_path)
    assert names_of(comparison) == ["lora"]
    said = f"full-s1: metrics.json is broken ({named}); run its command again with --overwrite"
    assert said in comparison.problems[0]


def test_probabilities_of_several_lengths_are_refused(tmp_path: Path, files: dict[str, Any]) -> None:
    make_run(tmp_path, files)
    folder = make_run(tmp_path, files, "lora")
    record = {"label": 0, "prediction": 0}
    write_scores(
        folder, [{"id": "a", "probabilities": [0.5, 0.5]} | record, {"id": "b", "probabilities": [1]} | record]
    )
    assert "predictions/dev-scores.jsonl is broken; restore the file" in only(tmp_path).problems[0]


def test_infinite_scores_are_refused(tmp_path: Path, files: dict[str, Any]) -> None:
    make_poems(tmp_path / "poems", "lora", 1, [0.1, 0.2])
    write_scores(make_poems(tmp_path / "poems", "full", 1, [0.1, 0.2]),
                 [{"id": "0", "rhyme_accuracy": math.inf}, {"id": "1", "rhyme_accuracy": 0.2}])  # fmt: skip
    made = only(tmp_path / "poems")
    assert names_of(made) == ["lora"] and "predictions/dev-scores.jsonl has an infinite rhyme" in made.problems[0]
    make_run(tmp_path / "classes", files, "lora")
    folder = make_run(tmp_path / "classes", files, "full")
    path = folder / "predictions" / "dev-scores.jsonl"
    path.write_text(path.read_text().replace("0.8", "NaN", 1))
    made = only(tmp_path / "classes")
    assert names_of(made) == ["lora"] and "full-s1: its predictions have probabilities that are no" in made.problems[0]


def test_a_data_file_without_its_place_makes_no_floors(tmp_path: Path, files: dict[str, Any]) -> None:
    nowhere = {name: {"sha256": file["sha256"], "rows": N} for name, file in files.items()}
    make_run(tmp_path, nowhere, "full")
    comparison = only(tmp_path, floors=True)
    assert names_of(comparison) == ["full"]
    assert "floors left out: config.json does not say where the data files are" in comparison.notes


def make_documents(output: Path, strategy: str, model: str, vocabulary: Any = None, added: int = 0) -> Path:
    """A run of text generation on documents; its model's tokens are in ``best/``."""
    weights = {"model weights": [model]}
    run = make_run(output, {}, strategy, task="text-generation", dataset="custom", model=model, identity=weights,
                   dev={"chrf": 30.0, "log_likelihood": -3.0, "perplexity": 20.0})  # fmt: skip
    write_scores(run, [{"id": str(i), "chrf": 30.0 + i, "log_likelihood": -3.0 + (i - 2) / 10} for i in range(5)])
    if vocabulary is not None:
        tokens = {"added_tokens": [{"id": 99 + i} for i in range(added)], "model": {"vocab": vocabulary}}
        write(run / "best" / "tokenizer.json", tokens)
    return run


def test_scores_per_token_are_compared_within_one_vocabulary(tmp_path: Path) -> None:
    """Which is not told by its size: those of mini and ko-mini have 8,192 tokens each."""
    ours, theirs = {"a": 0, "b": 1}, [["c", -1.0], ["d", -2.0]]
    make_documents(tmp_path, "full", "mini", ours)
    make_documents(tmp_path, "lora", "mini")  # its best model is gone, but it began with the same
    make_documents(tmp_path, "full", "twin", {"b": 1, "a": 0}, added=1)
    assert set(names_of(only(tmp_path, measure="log_likelihood"))) == {"mini full", "mini lora", "twin full"}
    assert "perplexity" in [column.head for column in columns(only(tmp_path))]
    assert not any("vocabular" in note for note in only(tmp_path).notes)

    make_documents(tmp_path, "full", "ko-mini", theirs)
    comparison = only(tmp_path, measure="log_likelihood")
    assert set(names_of(comparison)) == {"mini full", "mini lora", "twin full"}
    said = "ko-mini-full-s1: its model has another vocabulary than most runs', so its log-likelihood is a mean over"
    assert said in comparison.problems[0]
    comparison = only(tmp_path)
    assert comparison.measure.name == "chrf" and "ko-mini full" in names_of(comparison)
    assert "perplexity" not in [column.head for column in columns(comparison)]
    assert "perplexity" not in comparison_record(comparison)["entries"][0]["further"]
    note = "perplexity left out: it is a mean over tokens, and the models have different vocabularies"
    assert note in comparison.notes


def test_a_vocabulary_that_is_not_known_is_said(tmp_path: Path) -> None:
    make_documents(tmp_path, "full", "mini", {"a": 0})
    make_documents(tmp_path, "full", "other")
    note, _ = only(tmp_path, measure="log_likelihood").notes
    assert note == "log-likelihood is a mean over tokens, and the vocabulary is not known of: other"


def test_what_can_not_be_compared_is_named(tmp_path: Path, files: dict[str, Any]) -> None:
    for seed in SEEDS:
        make_run(tmp_path, files, "full", seed)
    make_run(tmp_path, files, "lora", 1)
    failed = make_run(tmp_path, files, "lora", 2)
    (failed / "metrics.json").unlink()
    write(failed / "failed.json", {"error": "the loss is not finite\n(step 12)", "step": 12})
    (make_run(tmp_path, files, "lora", 3) / "metrics.json").unlink()
    make_run(tmp_path, files, "head", 1, schema=99)
    (make_run(tmp_path, files, "head", 2) / "metrics.json").write_text('{"task": ')
    (make_run(tmp_path, files, "head", 3) / "predictions" / "dev-scores.jsonl").unlink()
    make_run(tmp_path, files, "bitfit", 1, wrong=set(), dev={"accuracy": 0.5})
    other_ids = make_run(tmp_path, files, "llrd", 1, wrong=set())
    write_scores(other_ids, [{"id": "x", "label": 0, "prediction": 0, "probabilities": [1.0, 0.0, 0.0]}])
    (make_run(tmp_path, files, "prefix", 1, wrong=set()) / "predictions" / "dev-scores.jsonl").write_text("{}\n")
    shutil.copytree(tmp_path / "sentiment-sst-mini-full-s1", tmp_path / "z-copy")
    write(tmp_path / "pretrain-x" / "config.json", {"task": "pretrain", "dataset": "wiki"})

    comparison = only(tmp_path)
    assert names_of(comparison) == ["full", "lora"]
    said = {
        "lora-s2": "failed: the loss is not finite (step 12); run its command again",
        "lora-s3": "not finished; run its command again, and it goes on",
        "head-s1": "metrics.json has schema 99, newer than 1",
        "head-s2": "metrics.json is not JSON; restore it, or run its command again with --overwrite",
        "head-s3": "has no scores of single examples (predictions/dev-scores.jsonl)",
        "bitfit-s1": "predictions/dev-scores.jsonl gives accuracy 1.0000, metrics.json 0.5000",
        "llrd-s1": "its dev examples are others (61 ids differ, such as e00)",
        "prefix-s1": "predictions/dev-scores.jsonl is broken",
        "z-copy": "is the same run as",
        "pretrain-x": "not finished",
    }
    for name, why in said.items():
        assert any(f"{name}: {why}" in problem for problem in comparison.problems), (name, comparison.problems)
    assert "lora: has 1 of 3 seeds; seeds 2, 3 missing" in comparison.problems
    assert len(comparison.problems) == len(said) + 1


def test_other_data_are_another_comparison(tmp_path: Path, files: dict[str, Any]) -> None:
    make_run(tmp_path, files, "full")
    changed = {**files, "train": files["train"] | {"sha256": "0" * 64}}
    make_run(tmp_path, changed, "lora")
    make_run(tmp_path, files, "head", settings={"limit_dev": 60})
    make_run(tmp_path, files, "full", dataset="cfimdb")
    comparisons = make_comparisons([tmp_path], floors=False)
    assert [(c.dataset, names_of(c)) for c in comparisons] == [
        ("cfimdb", ["full"]), ("sst", ["full"]), ("sst", ["head"]), ("sst", ["lora"]),
    ]  # fmt: skip
    assert [heading(comparison) for comparison in comparisons] == [
        "sentiment on cfimdb (60 dev examples)",
        f"sentiment on sst, no limit-dev, train file {files['train']['sha256'][:6]} (60 dev examples)",
        f"sentiment on sst, limit-dev 60, train file {files['train']['sha256'][:6]} (60 dev examples)",
        "sentiment on sst, no limit-dev, train file 000000 (60 dev examples)",
    ]
    rows = list(csv.DictReader(csv_page(comparisons).splitlines()))
    assert {row["data"] for row in rows if row["name"] == "lora"} == {"no limit-dev, train file 000000"}
    assert {row["n_examples"] for row in rows} == {"60"}
    assert comparison_record(comparisons[0])["data"] == ""
    pages = (terminal_page(comparisons), markdown_page(comparisons, "t"), latex_page(comparisons))
    assert all("train file 000000" in page for page in pages)
    page = report_page(comparisons, title="t", commands=[])
    assert "Sentiment on sst, no limit-dev, train file 000000</h2>" in page
    assert not comparisons[0].problems
    assert [problem.split(":")[0] for problem in comparisons[1].problems] == [
        "compared apart, for they have another --limit-dev",
        "compared apart, for they have another training file",
    ]


def test_all_files_of_a_split_are_looked_at(tmp_path: Path, files: dict[str, Any]) -> None:
    """RTE's training files are train-1 to train-3: another one among them is other data, and no strategy."""
    for strategy, last in (("full", "c" * 64), ("lora", "c" * 64), ("head", "d" * 64)):
        hashes = {"train-1": "a" * 64, "train-2": "b" * 64, "train-3": last, "dev": "e" * 64}
        own = {name: {"path": name, "sha256": sha256, "rows": 9} for name, sha256 in hashes.items()}
        identity = {f"{name} file": sha256 for name, sha256 in hashes.items()}
        make_run(tmp_path, own, strategy, task="inference", dataset="rte", identity=identity)
    both, alone = sorted(make_comparisons([tmp_path], floors=False), key=lambda found: -len(found.entries))
    assert names_of(both) == ["full", "lora"] and names_of(alone) == ["head"]
    assert both.problems[0].startswith("compared apart, for they have another training file: ")
    assert (both.data, alone.data) == ("train file cccccc", "train file dddddd")  # the one that differs
    assert training_rows(both.best) == 9


def test_different_precisions_are_said(tmp_path: Path, files: dict[str, Any]) -> None:
    make_run(tmp_path, files, "full", 1)
    make_run(tmp_path, files, "full", 2, precision="bf16")
    assert "full: its runs were computed in different precisions (bf16, fp32)" in only(tmp_path).notes


def test_times_of_different_machines_are_not_told_apart(tmp_path: Path, files: dict[str, Any]) -> None:
    machines = {"full": ("CPU, 2 threads, fp32", 2), "lora": ("A GPU, fp32", 8)}
    for strategy, (device, threads) in machines.items():
        for seed in (1, 2):
            folder = make_run(tmp_path, files, strategy, seed)
            config = json.loads((folder / "config.json").read_text())
            environment = config["environment"] | {"device": device, "threads": threads}
            write(folder / "config.json", config | {"environment": environment})
    comparison = only(tmp_path)
    note = "times and speeds are of different machines (A GPU, 8 threads; CPU, 2 threads)"
    assert [one for one in comparison.notes if one.startswith(note)]
    assert "not shown to be worse: lora" in headline(comparison) and "quickest" not in headline(comparison)
    alike = make_comparisons([tmp_path / f"sentiment-sst-mini-full-s{seed}" for seed in (1, 2)], floors=False)[0]
    assert not [one for one in alike.notes if "machines" in one]


# ---------------------------------------------------------------------------------------------------------------------
# Texts, floors, published numbers, mistakes
# ---------------------------------------------------------------------------------------------------------------------


def test_floors_stand_in_the_table_while_the_data_files_are_there(tmp_path: Path) -> None:
    files = write_data(tmp_path / "data")
    make_run(tmp_path / "runs", files, "head", 1)
    make_run(tmp_path / "runs", files, "head", 2)
    comparison = only(tmp_path / "runs", floors=True)
    floors = [entry for entry in comparison.entries if entry.kind == "floor"]
    assert {floor.name for floor in floors} == {"majority class", "TF-IDF + logistic regression"}
    assert comparison.entry("majority class").value == pytest.approx(1 / 3)
    assert comparison.best.name == "TF-IDF + logistic regression"  # the words give the class away
    assert len(comparison.pairs) == 2  # not the two floors with each other
    assert "two floors are not tested against each other: nothing shows that one is worse" in comparison.notes
    pair = comparison.pair("head", "TF-IDF + logistic regression")
    assert pair is not None and pair.is_shown and "Other seeds" not in pair.would_change
    make_run(tmp_path / "runs", files, "lora", wrong=set(range(45)))
    leading = {frozenset((one.a, one.b)) for one in leading_pairs(only(tmp_path / "runs", floors=True))}
    assert frozenset(("head", "lora")) in leading  # the best run's pairs, though a floor is the best
    assert comparison.texts["e02"] == "superb word word"

    (tmp_path / "data" / "ids-sst-dev.csv").write_text("changed")
    comparison = only(tmp_path / "runs", floors=True)
    assert comparison.texts == {} and not [entry for entry in comparison.entries if entry.kind == "floor"]
    assert any(note.startswith("floors left out: ") and "gone or has changed" in note for note in comparison.notes)


def test_floors_are_tested_on_the_rows_that_the_runs_were(tmp_path: Path) -> None:
    files = write_data(tmp_path / "data", ("train", "dev", "test"))
    for strategy in ("full", "lora"):
        make_run(tmp_path / "runs", files, strategy, test={"accuracy": 0.5}, settings={"limit_test": 4})
    comparison = only(tmp_path / "runs", floors=True)
    assert comparison.entry("majority class").tested == (0.5,)  # two of the first four rows are of class 0
    assert comparison.entry("TF-IDF + logistic regression").tested == (1.0,)
    heads = {column.head: column.values for column in columns(comparison)}
    assert "0.500" in heads["test"] and "1.000" in heads["test"]
    (tmp_path / "data" / "ids-sst-test.csv").write_text("changed")
    comparison = only(tmp_path / "runs", floors=True)
    assert comparison.entry("majority class").tested == ()


def test_the_first_sentences_are_the_floor_of_summaries(tmp_path: Path) -> None:
    files = {}
    for split in ("train", "dev", "test"):
        rows = [
            {"id": f"{split}{i}", "document": f"It is {word}. So there. Nothing more.", "summary": f"It is {word}. No."}
            for i, word in enumerate(["one", "two", "three"])
        ]
        path = tmp_path / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files[split] = {"path": str(path), "sha256": file_sha256(path), "rows": 3}
    for strategy in ("full", "lora"):
        run = make_run(
            tmp_path / "runs", files, strategy, task="summarization", dataset="custom", lead_sentences=2,
            settings={"language": "en", "limit_test": 2}, dev={"rouge_l": 50.0}, test={"rouge_l": 40.0},
        )  # fmt: skip
        write_scores(run, [{"id": f"dev{i}", "rouge_l": 50.0} for i in range(3)])
    comparison = only(tmp_path / "runs", floors=True)
    floor = comparison.entry("first 2 sentences")
    # "it is one so there" and "it is one no": three words in common of five and of four.
    assert floor.kind == "floor" and floor.scores == pytest.approx(np.full((1, 3), 200 * 3 / 9))
    assert floor.tested == pytest.approx((200 * 3 / 9,)) and comparison.notes == ()
    pair = comparison.pair("first 2 sentences", "full")
    assert pair is not None and pair.a == "first 2 sentences"
    assert [entry.kind for entry in only(tmp_path / "runs").entries] == ["run", "run"]


def test_the_words_nearest_to_the_questions_are_the_floor_of_answers(tmp_path: Path) -> None:
    files, facts = {}, {"train": ("Ann", "Oslo", 20), "dev": ("Bob", "Rome", 45), "test": ("Eve", "Bonn", 10)}
    for split, (name, town, age) in facts.items():
        context = f"The weather was fine. {name} was born in {town} long ago. There were {age} guests."
        rows = [
            {"id": f"{split}1", "context": context, "question": f"Where was {name} born?", "answers": [town]},
            {"id": f"{split}2", "context": context, "question": "How many guests were there?", "answers": [str(age)]},
        ]
        path = tmp_path / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files[split] = {"path": str(path), "sha256": file_sha256(path), "rows": 2}
    run = make_run(
        tmp_path / "runs", files, task="question-answering", dataset="custom", rules="squad",
        settings={"language": "en"}, dev={"f1": 0.0}, test={"f1": 0.0},
    )  # fmt: skip
    write_scores(run, [{"id": f"dev{i}", "f1": 0.0, "exact_match": 0.0} for i in (1, 2)])
    comparison = only(tmp_path / "runs", floors=True)
    floor = comparison.entry("nearest words")
    assert floor.kind == "floor" and floor.scores is not None and floor.tested
    # "in" stands among the question's words, "Rome" behind them; "45" stands beside "were" and "guests".
    assert floor.scores.tolist() == [[0.0, 1.0]] and floor.tested == (0.5,)
    assert comparison.texts["dev1"] == "Where was Bob born?" and comparison.notes == ()


@pytest.mark.parametrize("setting", ["language", "text_field"])
def test_own_files_measured_by_other_rules_are_compared_apart(tmp_path: Path, setting: str) -> None:
    for value in ("ko", "en"):
        settings = {setting: value}
        run = make_run(
            tmp_path, {}, task="text-generation", dataset="custom", suffix=value, settings=settings, identity=settings
        )
        write_scores(run, [{"id": "1", "chrf": 1.0}])
    found = make_comparisons([tmp_path], floors=False)
    assert sorted(comparison.data for comparison in found) == [
        f"{setting.replace('_', '-')} en",
        f"{setting.replace('_', '-')} ko",
    ]
    assert all(f"another --{setting.replace('_', '-')}" in comparison.problems[0] for comparison in found)


def test_the_answer_of_the_nearest_question_is_the_floor_of_pairs(tmp_path: Path) -> None:
    pairs = {
        "train": [("How are you?", "I am fine."), ("What is your name?", "It is Sam.")],
        "dev": [("What is his name?", "It is Sam."), ("And how are you?", "Tired, thank you.")],
    }
    files = {}
    for split, rows in pairs.items():
        path = tmp_path / f"{split}.jsonl"
        path.write_text(
            "".join(json.dumps({"id": f"{split}{i}", "Q": q, "A": a}) + "\n" for i, (q, a) in enumerate(rows))
        )
        files[split] = {"path": str(path), "sha256": file_sha256(path), "rows": 2}
    run = make_run(
        tmp_path / "runs", files, task="text-generation", dataset="custom", pairs=True,
        settings={"language": "en", "text_field": "text", "document_separator": ""}, dev={"chrf": 1.0},
    )  # fmt: skip
    write_scores(run, [{"id": f"dev{i}", "chrf": 1.0, "log_likelihood": -1.0} for i in (0, 1)])
    comparison = only(tmp_path / "runs", floors=True)
    floor = comparison.entry("nearest question's answer")
    assert floor.scores is not None and floor.note == "a floor, from 2 training pairs"
    assert floor.scores[0, 0] == pytest.approx(100) and 0 < floor.scores[0, 1] < 20
    assert names_of(only(tmp_path / "runs", floors=True, measure="log_likelihood")) == ["full"]


def test_texts_that_answer_nothing_have_no_floor(tmp_path: Path) -> None:
    files = {}
    for split in ("train", "dev"):
        path = tmp_path / f"{split}.jsonl"
        path.write_text(json.dumps({"id": split, "text": "One two three four five six."}) + "\n")
        files[split] = {"path": str(path), "sha256": file_sha256(path), "rows": 1}
    run = make_run(
        tmp_path / "runs", files, task="text-generation", dataset="custom", pairs=False,
        settings={"text_field": "text"}, dev={"log_likelihood": -1.0},
    )  # fmt: skip
    write_scores(run, [{"id": "dev", "log_likelihood": -1.0}])
    comparison = only(tmp_path / "runs", floors=True)
    assert names_of(comparison) == ["full"] and comparison.texts == {"dev": "One two three four five six."}
    assert comparison.notes == ()


def make_inference(folder: Path, output: Path, **settings: Any) -> Path:
    """A run that is measured on every third of nine training pairs; their ids are line numbers, as the dev file's."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"train": "ENCENCNNN", "dev": "CCC"}
    names = {"E": "entailment", "N": "neutral", "C": "contradiction"}
    files = {}
    for split, classes in labels.items():
        rows = [f"{split} premise {i}\thypothesis {i}\t{names[label]}" for i, label in enumerate(classes)]
        path = folder / f"{split}.tsv"
        path.write_text("\n".join(["premise\thypothesis\tlabel", *rows]) + "\n")
        files[split] = {"path": str(path), "sha256": file_sha256(path), "rows": 6 if split == "train" else 3}
    run = make_run(output, files, task="inference", dataset="custom", settings=settings, dev={"accuracy": 1.0})
    truth = [(str(i + 2), "ENC".index(labels["train"][i])) for i in (0, 3, 6)]
    write_scores(run, [{"id": id_, "label": label, "prediction": label, "probabilities": np.eye(3)[label].tolist()}
                       for id_, label in truth])  # fmt: skip
    return run


def test_rows_held_out_of_training_are_read_back_as_such(tmp_path: Path) -> None:
    make_inference(tmp_path / "data", tmp_path / "runs", hold_out=3)
    comparison = only(tmp_path / "runs", floors=True)
    assert comparison.texts == {str(i + 2): f"train premise {i} | hypothesis {i}" for i in (0, 3, 6)}
    floor = comparison.entry("majority class")
    assert floor.note == "a floor, from 6 training rows" and floor.value == pytest.approx(1 / 3)
    assert floor.probabilities is not None and floor.probabilities[0, 0].tolist() == [0.0, 4 / 6, 2 / 6]


def test_a_data_file_that_can_not_be_read_makes_no_floors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    make_run(tmp_path / "runs", write_data(tmp_path / "data"))
    monkeypatch.setattr("comparison.splits.file_sha256", refuse)  # root may read everything
    comparison = only(tmp_path / "runs", floors=True)
    assert names_of(comparison) == ["full"]
    assert [note for note in comparison.notes if note.endswith("can't be read (Permission denied)")]


def test_other_rows_than_the_runs_make_no_floors(tmp_path: Path) -> None:
    make_inference(tmp_path / "data", tmp_path / "runs")  # the dev file has two of the three ids, with other labels
    comparison = only(tmp_path / "runs", floors=True)
    assert comparison.texts == {} and [entry.kind for entry in comparison.entries] == ["run"]
    problem = "the dev rows of the data files are not those that the runs were measured on"
    assert f"floors left out: {problem}" in comparison.notes


def test_another_share_held_out_is_another_comparison(tmp_path: Path, files: dict[str, Any]) -> None:
    for hold_out in (None, 5):
        make_run(
            tmp_path, files, settings={"hold_out": hold_out}, identity={"hold_out": hold_out}, suffix=f"-{hold_out}"
        )
    found = make_comparisons([tmp_path], floors=False)
    assert [names_of(comparison) for comparison in found] == [["full"], ["full"]]
    assert found[0].problems[0].startswith("compared apart, for they have another --hold-out: ")
    assert [comparison.data for comparison in found] == ["hold-out 5", "no hold-out"]


def test_the_dev_pairs_of_a_chatbot_are_taken_from_its_only_file(tmp_path: Path) -> None:
    path = tmp_path / "ChatbotData.csv"
    path.write_text("Q,A,label\n" + "".join(f"question {i},answer {i},0\n" for i in range(60)))
    dev = read_dataset({"train": [path]}, "chatbot", "", "text").splits["dev"]
    files = {"train": {"path": str(path), "sha256": file_sha256(path), "rows": 60}}
    folder = make_run(
        tmp_path / "runs", files, dev={"chrf": 38.8}, task="text-generation", dataset="chatbot", pairs=True,
        settings={"dataset": "chatbot"},
    )  # fmt: skip
    write_scores(folder, [{"id": row.id, "chrf": 30.0} for row in dev])
    comparison = only(tmp_path / "runs", floors=True)
    assert comparison.notes == () and comparison.texts == {row.id: row.question for row in dev}
    assert set(names_of(comparison)) == {"nearest question's answer", "full"}


def test_published_numbers_stand_beside_real_data_only(compared: Comparison, tmp_path: Path, files: Any) -> None:
    published = [entry for entry in compared.entries if entry.kind == "published"]
    assert {(entry.name, entry.value) for entry in published} >= {("full (reference report)", 0.518)}
    assert all(entry.scores is None and entry.interval is None for entry in published)
    assert published[0].note == "published, not measured here; on another dev file"
    assert "the published numbers are of other examples: on another dev file" in compared.notes
    heads = {column.head: column.values for column in columns(compared)}
    assert "published, not measured here" in heads["kind"]
    assert not {pair.a for pair in compared.pairs} & {entry.name for entry in published}
    make_run(tmp_path, files, dataset="sst-sample")
    assert names_of(only(tmp_path)) == [entry.name for entry in only(tmp_path).entries] == ["full"]


PUBLISHED_DATA = {"SST-5": "sst", "CFIMDB": "cfimdb", "QQP": "qqp", None: "shakespeare"}
PUBLISHED_SCORES = {
    "orthographic_rhyme": "report_rhyme", "unigram_perplexity": "report_unigram_perplexity", "chrf": "chrf_course",
    "distinct_1": "report_distinct_1", "distinct_2": "report_distinct_2",
    **{name: name for name in ("accuracy", "macro_f1", "precision", "recall")},
}  # fmt: skip


def test_every_published_number_can_be_shown(shared: Path) -> None:
    """The figures are those of the sources' own list."""
    from comparison.published import published_results

    def figures(scores: Any, prefix: str = "") -> dict[str, float]:
        return {ours: scores[prefix + name] for name, ours in PUBLISHED_SCORES.items() if prefix + name in scores}

    listed = json.loads((shared / "reference" / "published_results.json").read_text())
    for task, rows in (("sentiment", "sentiment"), ("paraphrase", "paraphrase"), ("sonnet", "sonnets")):
        for name in {PUBLISHED_DATA[row.get("dataset")] for row in listed[rows]}:
            expected = [
                (row["source"], figures(row), figures(row, "test_"), row.get("epochs"), row.get("best_epoch"))
                for row in listed[rows]
                if PUBLISHED_DATA[row.get("dataset")] == name
            ]
            found = [
                (one["source"], one["scores"], one.get("test", {}), one.get("epochs"), one.get("best_epoch"))
                for one in published_results(task, name)
            ]
            assert sorted(found, key=str) == sorted(expected, key=str) and found


def test_a_result_that_was_published_for_the_test_set_alone(compared: Comparison) -> None:
    entry = compared.entry("full (arXiv 2005.13619)")
    assert entry.model == "RoBERTa-large" and math.isnan(entry.value) and entry.published is not None
    assert entry.published["test"] == {"accuracy": 0.602}
    assert not [note for note in compared.notes if "2005.13619" in note]


def test_mistakes_of_one_that_another_does_not_make(compared: Comparison) -> None:
    found = compare_mistakes(compared, "full", "lora", count=2)
    assert found is not None
    # In the majority of seeds, full is wrong on 0-5 and lora on 3-10.
    assert (found.n_only_a, found.n_only_b, found.n_both, found.n_neither) == (5, 3, 49, 3)
    gaps = [example.a_probability - example.b_probability for example in found.only_a]
    assert {example.id for example in found.only_a} <= {"e06", "e07", "e08", "e09", "e10"}
    assert gaps == sorted(gaps, reverse=True) == pytest.approx([0.7, 0.7])  # the clearest two
    example = found.only_b[0]
    assert (example.id, example.label, example.a_says, example.b_says) == ("e00", "bad", "so_so", "bad")
    assert example.text == "awful" and example.b_probability == pytest.approx(0.8)
    assert [(one.label, one.n) for one in found.slices["class"]] == [(name, 20) for name in CLASS_NAMES]
    assert sum(one.n for one in found.slices["length"]) == N
    assert [one.label for one in found.slices["length"]] == [
        "1 to 2 words",
        "3 to 4 words",
        "5 to 6 words",
        "7 to 8 words",
    ]
    assert sum(one.only_a for one in found.slices["confidence"]) == 5


def make_answers(output: Path, files: dict[str, Any], strategy: str, seed: int, right: set[int]) -> Path:
    """A run of question answering on eight questions, of which it answers some to the letter."""
    run = make_run(output, files, strategy, seed, task="question-answering", dataset="custom",
                   dev={"f1": 0.2 + 0.1 * len(right), "exact_match": len(right) / 8})  # fmt: skip
    scores = [{"id": f"q{i}", "exact_match": float(i in right), "f1": 1.0 if i in right else 0.2} for i in range(8)]
    write_scores(run, scores)
    written = [
        {
            "id": f"q{i}",
            "prompt": "",
            "target": f" word{i}",
            "written": f"word{i}" if i in right else f"{strategy} {seed}",
        }
        for i in range(8)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in written)
    (run / "predictions" / "dev-written.jsonl").write_text(lines)
    return run


def test_answers_are_contrasted_question_by_question(tmp_path: Path) -> None:
    rows = [{"id": f"q{i}", "context": f"A word{i}.", "question": "what " * (i + 1), "answers": [f"word{i}"]}
            for i in range(8)]  # fmt: skip
    files = {}
    for split in ("train", "dev"):
        path = tmp_path / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files[split] = {"path": str(path), "sha256": file_sha256(path), "rows": 8}
    for seed, (full, lora) in enumerate([({0, 1, 2, 3, 4, 5}, {6}), ({1, 2, 3, 4, 5}, {5, 6})], start=1):
        make_answers(tmp_path / "runs", files, "full", seed, full)
        make_answers(tmp_path / "runs", files, "lora", seed, lora)
    (comparison,) = make_comparisons([tmp_path / "runs"])
    assert comparison.measure.name == "f1" and comparison.texts["q1"] == "what what" and comparison.notes == ()
    found = compare_mistakes(comparison, "full", "lora")
    assert found is not None
    assert (found.n_only_a, found.n_only_b, found.n_both, found.n_neither) == (
        5,
        1,
        0,
        2,
    )  # q0, q5: in one of two seeds
    assert list(found.slices) == ["length"] and [one.n for one in found.slices["length"]] == [2, 2, 2, 2]
    (only_b,) = found.only_b
    assert (only_b.text, only_b.label, only_b.a_says, only_b.b_says) == (
        "what " * 6 + "what",
        "word6",
        "full 1",
        "word6",
    )
    assert only_b.a_probability is None
    write_report([comparison], tmp_path / "report.html", title="Answers", commands=[])
    page = html.unescape((tmp_path / "report.html").read_text())
    assert "Right is “word6”. full writes “full 1”; lora writes “word6”." in page
    assert "of 8 questions, by exact match, 5 are right with full only" in page.replace("Of 8", "of 8")
    for run in (tmp_path / "runs").iterdir():
        (run / "predictions" / "dev-written.jsonl").unlink()
    (tmp_path / "dev.jsonl").write_text("gone")
    (comparison,) = make_comparisons([tmp_path / "runs"])
    write_report([comparison], tmp_path / "report.html", title="Answers", commands=[])
    assert "What they wrote is gone." in (tmp_path / "report.html").read_text()


def test_equal_values_are_never_parted() -> None:
    parts = quartiles(np.array([1, 1, 1, 1, 1, 2, 3, 9]))
    assert [part.sum() for part in parts] == [5, 1, 2]


# ---------------------------------------------------------------------------------------------------------------------
# Poems
# ---------------------------------------------------------------------------------------------------------------------


def make_poems(output: Path, strategy: str, seed: int, rhymes: Sequence[float]) -> Path:
    folder = output / f"sonnet-shakespeare-mini-{strategy}-s{seed}"
    dev = {"rhyme_accuracy": float(np.mean(rhymes)), "perplexity": 50.0, "report_rhyme": 0.25}
    made = make_run(output, {}, strategy, seed, wrong=set(), task="sonnet", dataset="shakespeare", dev=dev)
    made.rename(folder)
    records = []
    for i, rhyme in enumerate(rhymes):  # two poems of each number
        records += [
            {"id": str(i), "rhyme_accuracy": rhyme + d, "near_rhyme": 0.1, "seq_rep_4": 0.2} for d in (0.1, -0.1)
        ]
    write_scores(folder, records)
    return folder


def test_perplexities_under_different_models_are_not_compared(tmp_path: Path, files: dict[str, Any]) -> None:
    def heads(**reference: Any) -> list[str]:
        metrics = {"dev": {"accuracy": 54 / 60, "generated_perplexity": 90.0}, **reference}
        make_run(tmp_path, files, "lora", wrong=set(range(6)), **metrics)
        comparison = only(tmp_path)
        said = [note for note in comparison.notes if note.startswith("perplexity of poems left out")]
        assert len(said) == ("perplexity of poems" not in [column.head for column in columns(comparison)])
        return said

    dev = {"accuracy": 54 / 60, "generated_perplexity": 80.0}
    make_run(tmp_path, files, "full", wrong=set(range(6)), dev=dev)  # of a version that did not record it
    assert heads() == heads(reference_model={"name": "mini", "weights_sha256": ["42cc3f"]}) == []
    (said,) = heads(reference_model={"name": "gpt2", "weights_sha256": ["aa11bb"]})
    assert said.endswith("gpt2 (aa11bb), mini (42cc3f)") or said.endswith("mini (42cc3f), gpt2 (aa11bb)")


def test_poems_are_compared_by_rhyme_the_mean_of_a_prompts_poems(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_poems(tmp_path, "full", seed, [0.1, 0.2, 0.3, 0.2])
        make_poems(tmp_path, "lora", seed, [0.5, 0.6, 0.7, 0.6])
    comparison = only(tmp_path)
    assert comparison.measure.name == "rhyme_accuracy" and comparison.labels is None
    assert names_of(comparison) == ["lora", "full"]
    assert comparison.best.scores is not None
    assert comparison.best.scores == pytest.approx(np.array([[0.5, 0.6, 0.7, 0.6]] * 2))
    assert compare_mistakes(comparison, "lora", "full") is None
    heads = {column.head: column.values for column in columns(comparison)}
    place = [entry.name for entry in comparison.entries].index("taskA (unlikelihood) (reference report)")
    assert place > 1 and comparison.entries[place].kind == "published"
    assert heads["kind"][place] == "published, not measured here"
    shown = {head: values[place] for head, values in heads.items() if head.startswith("report's")}
    assert shown == {
        "report's unigram perplexity": "51.68", "report's rhyme": "0.215", "report's distinct-1": "0.613",
        "report's distinct-2": "0.919",
    }  # fmt: skip
    assert heads["rhyme"][place] == heads.get("distinct-2", [""] * 9)[place] == ""
    assert heads["report's rhyme"][:2] == ["0.250 ± 0.000"] * 2  # of the runs too
    assert comparison_record(comparison)["entries"][place]["value"] is None


def test_a_measure_without_a_better_direction_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_poems(tmp_path, "full", 1, [0.1, 0.2])
    (error,) = errors_of(capsys, tmp_path, "--measure", "near_rhyme")
    assert "--measure near_rhyme: has no better direction" in error and "rhyme_accuracy, seq_rep_4" in error


def test_examples_of_which_a_measure_says_nothing_are_left_out_everywhere(tmp_path: Path) -> None:
    make_poems(tmp_path, "full", 1, [0.1, 0.2, 0.3])
    lora = make_poems(tmp_path, "lora", 1, [0.5, 0.6, 0.7])
    write_scores(lora, [{"id": "0", "rhyme_accuracy": 0.5}, {"id": "1"}, {"id": "2", "rhyme_accuracy": 0.7}])
    comparison = only(tmp_path)
    assert comparison.ids == ["0", "2"]
    assert "1 of 3 dev examples are left out: rhyme says nothing of them in some run" in comparison.notes


# ---------------------------------------------------------------------------------------------------------------------
# Files and the command line
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "comparison"
    assert call(runs, "--output_dir", folder, "--no-floors", "--title", "Of today", script="compare") == 0
    return folder


def test_all_files_are_written_and_written_again_the_same(written: Path, runs: Path, tmp_path: Path) -> None:
    names = ["comparison.csv", "comparison.json", "comparison.md", "comparison.tex", "report.html"]
    assert sorted(path.name for path in written.iterdir()) == names
    before = {name: (written / name).read_bytes() for name in names}
    for name in names:
        (written / name).unlink()
    assert call(runs, "--output_dir", written, "--no-floors", "--title", "Of today", script="compare") == 0
    assert {name: (written / name).read_bytes() for name in names} == before


def test_json_holds_every_pair_and_csv_every_figure(written: Path) -> None:
    (record,) = json.loads((written / "comparison.json").read_text())["comparisons"]
    assert [(pair["a"], pair["b"], pair["is_shown"]) for pair in record["pairs"]] == [
        ("full", "lora", False), ("full", "head", True), ("lora", "head", True),
    ]  # fmt: skip
    rows = list(csv.DictReader((written / "comparison.csv").open(encoding="utf-8")))
    row = next(row for row in rows if row["name"] == "lora")
    assert (float(row["value"]), row["seeds"], row["not_worse"], row["trainable_parameters"]) == (
        pytest.approx(50 / 60), "1 2 3", "True", "1280",
    )  # fmt: skip
    assert (row["measure"], row["best_epochs"], row["kind"]) == ("accuracy", "3 2 3", "run")


def test_csv_and_json_have_all_that_the_table_shows(written: Path, compared: Comparison) -> None:
    rows = {row["name"]: row for row in csv.DictReader((written / "comparison.csv").open(encoding="utf-8"))}
    (record,) = json.loads((written / "comparison.json").read_text())["comparisons"]
    entries = {entry["name"]: entry for entry in record["entries"]}
    accuracy = 50 / 60
    assert float(rows["lora"]["last_epoch"]) == pytest.approx(accuracy - 0.1) and rows["lora"]["last_epoch_std"]
    assert float(rows["lora"]["macro_f1"]) == pytest.approx(accuracy)
    assert entries["lora"]["further"] == {"macro_f1": [pytest.approx(accuracy), pytest.approx(0.0)]}
    assert (rows["lora"]["test"], entries["lora"]["test"]) == ("", None)
    for entry in compared.entries:
        if entry.published is not None and entry.published.get("best_epoch"):
            assert rows[entry.name]["best_epochs"] == str(entry.published["best_epoch"])
    of_test = {
        e.name: e.published["test"]["accuracy"] for e in compared.entries if e.published and e.published.get("test")
    }
    assert of_test and of_test == {name: float(rows[name]["test"]) for name in of_test}


def test_markdown_has_the_not_worse_in_bold(written: Path) -> None:
    text = (written / "comparison.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("# Of today\n")
    assert lines[0].startswith("|  | kind | model | accuracy | seeds | 95 % CI | macro-F1 | best epoch | last epoch |")
    assert len({line.count("|") for line in lines}) == 1
    assert any(line.startswith("| **full** |") for line in lines) and any("| **lora** |" in line for line in lines)
    assert any(line.startswith("| head |") and "0.300 ± 0.000" in line and "0.200" in line for line in lines)
    assert "3 2 3 of 4" in text


def test_every_pair_has_its_sentence(written: Path, compared: Comparison) -> None:
    """Those that are not with the best entry or the baseline too: lora with head."""
    texts = {name: html.unescape((written / name).read_text()) for name in ("comparison.md", "report.html")}
    assert len(compared.pairs) == 3 and len(leading_pairs(compared)) == 2
    for pair in compared.pairs:
        for sentence in (pair.verdict, pair.would_change):
            assert all(sentence in text for text in texts.values()), sentence


def test_latex_is_escaped(written: Path) -> None:
    text = (written / "comparison.tex").read_text()
    assert r"\toprule" in text and r"\textbf{full}" in text and r"$\pm$" in text and r"95 \% CI" in text
    assert tex(r"a_b & 50% {x} \y #1 $2 ^ ~") == (
        r"a\_b \& 50\% \{x\} \textbackslash{}y \#1 \$2 \textasciicircum{} \textasciitilde{}"
    )


def test_the_terminal_shows_it_all(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(runs, "--no-floors", "--baseline", "head", script="compare") == 0
    out = capsys.readouterr().out
    assert "== sentiment on sst (60 dev examples)" in out
    for line in ("* full  ", "* lora  ", "  head  ", "lora is better than head by ", "full is better than head by "):
        assert line in out, line
    assert "of 60 examples, 34 are right with full only" in out  # beside the baseline
    assert call(runs, "--no-floors", "--format", "csv", script="compare") == 0
    assert capsys.readouterr().out.startswith("task,dataset,data,n_examples,measure,name,kind,")


def test_a_floor_may_be_the_baseline(tmp_path: Path) -> None:
    files = write_data(tmp_path / "data")
    for strategy in ("full", "lora"):
        make_run(tmp_path / "runs", files, strategy)
    flags = ("--baseline", "majority class", "--output-dir", tmp_path / "out", "--pictures", tmp_path / "pictures")
    assert call(tmp_path / "runs", *flags, script="compare") == 0
    assert "Where full and majority class differ" in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "pictures" / "sentiment-sst" / "slices.png").exists()


def test_columns_are_aligned_with_wide_characters() -> None:
    text = aligned([Column("", ["한국어", "full"]), Column("n", ["1", "2"])])
    assert text.splitlines() == ["        n", "한국어  1", "full    2"]


def test_commands_are_those_that_a_user_types(compared: Comparison) -> None:
    found = commands([compared], ["python", "compare.py", "my runs"])
    assert "python classifier.py --strategy full --seed 1" in found
    assert found[-1] == "python compare.py 'my runs'"


def test_mistakes_on_the_command_line_are_said(
    runs: Path, tmp_path: Path, files: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    errors = errors_of(capsys, tmp_path / "gone", tmp_path / "empty")
    assert "gone: no such folder" in errors[0] and "empty: holds no run" in errors[1]
    (make_run(tmp_path / "cut", files) / "metrics.json").unlink()
    (error,) = errors_of(capsys, tmp_path / "cut")
    assert error.endswith("not finished; run its command again, and it goes on")
    (error,) = errors_of(capsys, runs, "--measure", "rouge_l")
    assert error == "error: --measure rouge_l: no run has it for single examples; choose among accuracy, loss"
    (error,) = errors_of(capsys, runs, "--no-floors", "--baseline", "nothing")
    assert error == "error: --baseline nothing: no such entry; choose among full, lora, head"
    (error,) = errors_of(capsys, runs, "--output-dir", runs / "sentiment-sst-mini-full-s1")
    assert "is a run's folder" in error
    errors = errors_of(capsys, runs, runs, "--attention", " ")
    assert len(errors) == 3 and "the text is empty" in errors[0]
    (error,) = errors_of(capsys, runs, "--format", "pdf")
    assert "--format" in error


def test_help_needs_none_of_the_slow_packages() -> None:
    code = "import sys, compare\ntry: compare.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'numpy', 'scipy', 'sklearn', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]") and "--baseline NAME" in done.stdout


def test_a_p_value_is_on_its_side_of_the_threshold() -> None:
    told = {0.0004: "below 0.001", 0.0123: "0.012", 0.05: "0.050", 0.04998: "0.04998", 0.0502: "0.0502",
            0.0509: "0.051", 0.2345: "0.23"}  # fmt: skip
    assert {p: p_text(p) for p in told} == told


def test_shares_are_told_in_points_and_others_as_they_are() -> None:
    from comparison.verdicts import amount, number

    assert amount(Measure("accuracy", "accuracy"), 0.0123) == "1.2 points"
    assert number(Measure("accuracy", "accuracy"), -0.0001) == "0.0"
    assert amount(Measure("loss", "loss", False, False), 0.0123) == "0.0123"
