"""--train-fraction: a stratified, nested share of the training rows, and runs on it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny_run import Result, make_rows, only_run, results_of

from comparison.comparing import make_comparisons
from comparison.floors import TFIDF
from comparison.pictures import score_against_examples
from config import UserError
from datasets import SENTIMENT_TASKS, Split, fraction_of, read_split
from training.loop import _Loop

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """397 rows of five classes."""
    path = tmp_path_factory.mktemp("rows") / "train.csv"
    rows = [f"{i}\trow{i}\t{text}\t{label}" for i, (text, label) in enumerate(make_rows(397, seed=3))]
    path.write_text("\n".join(["\tid\tsentence\tsentiment", *rows]) + "\n")
    return read_split(SENTIMENT_TASKS["sst"], path)


def ids(split: Split) -> list[str]:
    return [example.id for example in split.examples]


def classes(split: Split) -> Counter[int | None]:
    return Counter(example.label for example in split.examples)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5, 0.999])
def test_each_class_gives_its_share_in_the_files_order(train: Split, share: float) -> None:
    part = fraction_of(train, share, seed=1)
    everyone = classes(train)
    assert all(abs(n - share * everyone[label]) <= 0.5 for label, n in classes(part).items())
    assert len(classes(part)) == 5 and len(set(ids(part))) == len(ids(part))
    assert ids(part) == [id_ for id_ in ids(train) if id_ in set(ids(part))]
    assert (part.sha256, part.label_names) == (train.sha256, train.label_names)


def test_the_shares_of_a_seed_are_nested_and_other_seeds_draw_others(train: Split) -> None:
    shares = [set(ids(fraction_of(train, share, seed=1))) for share in (0.05, 0.1, 0.25, 0.5)]
    assert all(small < large for small, large in pairwise(shares))
    other = set(ids(fraction_of(train, 0.25, seed=2)))
    assert len(other) == len(shares[2])
    assert len(other & shares[2]) < 0.45 * len(other)  # a quarter by chance
    assert fraction_of(train, None, seed=1) is train


def test_a_class_without_an_example_is_an_error(train: Split) -> None:
    with pytest.raises(UserError) as error:
        fraction_of(train, 0.001, seed=1)
    assert len(error.value.problems) == 5
    assert "--train-fraction 0.001: leaves no example of the class 'very negative', of which" in str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def flags(tiny_model: Path, tiny_data: Path) -> list[Any]:
    return ["--model", tiny_model, "--data-dir", tiny_data, "--dataset", "sst", "--epochs", 2, "--batch-size", 4,
            "--lr", 1e-3, "--strategy", "full"]  # fmt: skip


def test_a_killed_run_on_a_share_goes_on_to_the_same_bytes(
    run: Run, flags: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*flags, "--limit-train", 40, "--train-fraction", 0.5, "--save-every", 1e-6]
    done = run(*command, "--output-dir", tmp_path / "whole")
    assert done.code == 0, done.err
    whole = only_run(tmp_path / "whole")
    record = json.loads((whole / "config.json").read_text())
    of_limit = Counter(label for _, label in make_rows(45, 0, 5)[:40])
    n = sum(int(0.5 * count + 0.5) for count in of_limit.values())
    assert record["settings"]["train_fraction"] == record["identity"]["train_fraction"] == 0.5
    assert record["data"]["files"]["train"]["rows"] == n < 30
    assert f"{n} train" in done.out and "a share of 0.5 of each class" in done.out

    update = _Loop._update

    def kill(self: Any, indices: list[int], position: float) -> float:
        if (self.progress.epoch, self.progress.window) == (1, 2):
            raise SystemExit("killed")
        return update(self, indices, position)

    monkeypatch.setattr(_Loop, "_update", kill)
    with pytest.raises(SystemExit):
        run(*command, "--output-dir", tmp_path / "cut")
    monkeypatch.setattr(_Loop, "_update", update)
    cut = only_run(tmp_path / "cut")
    assert cut.name == whole.name
    refused = run("--resume", cut, "--train-fraction", 0.6)
    assert refused.code == 2 and "has train_fraction 0.5, not 0.6" in refused.errors[0]
    assert run("--resume", cut).code == 0
    assert results_of(cut) == results_of(whole)


def test_floors_are_drawn_from_as_many_rows_as_the_runs_have(run: Run, flags: list[Any], tmp_path: Path) -> None:
    folders = []
    for share in (1, 0.5):
        done = run(*flags, "--train-fraction", share, "--output-dir", tmp_path / str(share))
        assert done.code == 0, done.err
        folders.append(only_run(tmp_path / str(share)))
    (both,) = make_comparisons(folders)
    rows = [json.loads((folder / "config.json").read_text())["data"]["files"]["train"]["rows"] for folder in folders]
    assert f"the table's floors are made from {rows[0]} training rows" in both.notes
    for folder, n in zip(folders, rows, strict=True):
        (alone,) = make_comparisons([folder])
        assert not alone.floors_by_rows
        for name, points in both.floors_by_rows.items():
            assert dict(points)[n] == alone.entry(name).value
    assert [n for n, _ in both.floors_by_rows[TFIDF]] == rows[::-1]
    picture = score_against_examples(both)
    assert picture is not None
    lines = [list(line.get_ydata()) for line in picture.panels[0][1].axes[0].lines]
    assert any([score for _, score in points] in lines for points in both.floors_by_rows.values())


def test_every_share_has_a_folder_of_its_own_and_all_is_no_share(run: Run, flags: list[Any], tmp_path: Path) -> None:
    names = {}
    for share in (None, 0.5, 0.6, 1):
        more = [] if share is None else ["--train-fraction", share]
        done = run(*flags, *more, "--output-dir", tmp_path, "--dry-run")
        assert done.code == 0, done.err
        names[share] = next(line.split("/")[-1] for line in done.out.splitlines() if line.startswith("run  "))
    assert names[None] == names[1] and len({*names.values()}) == 3


@pytest.mark.parametrize(
    ("share", "problem"),
    [(0, "must be greater than 0 and at most 1"), (1.5, "must be"), (0.01, "leaves no example of the class")],
)
def test_a_share_that_cannot_be(share: float, problem: str, run: Run, flags: list[Any], tmp_path: Path) -> None:
    done = run(*flags, "--train-fraction", share, "--output-dir", tmp_path)
    assert done.code == 2 and not list(tmp_path.iterdir())
    assert all(error.startswith("error: --train-fraction ") and problem in error for error in done.errors)
