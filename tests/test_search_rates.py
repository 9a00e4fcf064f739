"""The search of learning rates, on a script that answers at once: the best rate is known beforehand."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tiny_run import ROOT, Result

from experiments.children import TASK_SCRIPTS
from strategies import STRATEGIES, named_strategies_of, strategies_of
from training.cli import run_script

# The nearer a rate is to BEST, by its factor, the better; above 0.01 training fails. It also keeps its flags.
FAKE = """
import json, math, os, sys
from pathlib import Path

pairs = zip(sys.argv[1:], [*sys.argv[2:], ""])
flags = {name.replace("_", "-"): value for name, value in pairs if name.startswith("--")}
if not (Path(flags["--data-dir"]) / "ids-sst-dev.csv").exists() and flags.get("--hold-out") != "5":
    sys.exit("error: no dev file")
rate = float(flags["--lr"])
if rate > 0.01:
    print("error: the loss is nan", file=sys.stderr)
    sys.exit(1)
if flags.get("--lm-epochs") == "0" and "--lm-lr" in flags:
    print("error: --lm-lr: there is no stage of language modelling", file=sys.stderr)
    sys.exit(2)
if flags["--model"] == "none" or (flags["--strategy"], flags.get("--epochs")) == ("ulmfit", "2"):
    print("error: --model none: no such model" if flags["--model"] == "none" else "error: --epochs 2: too few",
          file=sys.stderr)
    sys.exit(2)
if sys.argv[-1] == "--dry-run":
    sys.exit(0)
folder = Path(flags["--output-dir"]) / f"{flags['--strategy']}-{rate:g}"
folder.mkdir(parents=True, exist_ok=True)
accuracy = round(0.9 - abs(math.log2(rate / float(os.environ["BEST"]))) / 100, 4)
settings = {"lm_epochs": 3, "lm_lr": float(flags["--lm-lr"])} if "--lm-lr" in flags else {}
model = {"weights_sha256": [os.environ.get("WEIGHTS", "a")]}
(folder / "config.json").write_text(json.dumps({"settings": settings, "model": model}))
(folder / "flags.json").write_text(json.dumps(flags))
metrics = {"dev": {"accuracy": accuracy, "perplexity": round(10 - accuracy, 4)}, "best_epoch": 2, "epochs": 4}
(folder / "metrics.json").write_text(json.dumps(metrics))
print(f"results: {folder}")
"""
Start = Callable[..., Result]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("search_rates", ROOT / "experiments" / "search_rates.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["search_rates"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


search_rates = load()


@pytest.fixture
def start(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Start]:
    script = tmp_path / "fake_task.py"
    script.write_text(FAKE)
    for task in ("sentiment", "sonnet", "inference"):
        monkeypatch.setitem(TASK_SCRIPTS, task, script)
    monkeypatch.setenv("BEST", "0.0005")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def search(*flags: object) -> Result:
        argv = ["--dataset", "sst", "--data-dir", tiny_data, "--output-dir", tmp_path, *flags]
        capsys.readouterr()
        code = run_script(lambda: search_rates.main([str(argument) for argument in argv]))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    yield search
    for number, handler in before.items():
        signal.signal(number, handler)


def block_of(output: str) -> dict[str, Any]:
    """The YAML that is printed for the card."""
    return yaml.safe_load(output[output.index("fine_tuning:") : output.index("| training set")])


def test_the_best_rate_of_the_grid_is_chosen(start: Start, tmp_path: Path) -> None:
    done = start("--strategies", "full", "head")
    assert done.code == 0 and done.err == ""
    assert block_of(done.out) == {"fine_tuning": {"sst": {"full": {"lr": 0.0005}, "head": {"lr": 0.0025}}}}
    rows = [line for line in done.out.splitlines() if line.startswith("| sst")]
    scores = "0.000125: 0.880 · 0.00025: 0.890 · 0.0005: 0.900 · 0.001: 0.890 · 0.002: 0.880"
    assert rows[0] == f"| sst | `full` | {scores} | 0.0005 |"
    assert (
        rows[1]
        == "| sst | `head` | 0.0025: 0.877 · 0.005: 0.867 · 0.01: 0.857 · 0.02: failed · 0.04: failed | 0.0025 |"
    )
    assert "head: the best rate stands at the grid's edge; --centre head=0.0025 looks further" in done.out
    assert "full: the best" not in done.out
    assert "[1/10] full lr 0.000125: held-out accuracy 0.8800, epoch 2 of 4, " in done.out
    assert "[10/10] head lr 0.04: failed: the loss is nan, " in done.out

    (saved,) = json.loads((tmp_path / "sst" / "rates.json").read_text())
    assert {name: entry["chosen"] for name, entry in saved["strategies"].items()} == {"full": 0.0005, "head": 0.0025}
    trials = saved["strategies"]["full"]["trials"]
    assert [trial["lr"] for trial in trials] == [0.000125, 0.00025, 0.0005, 0.001, 0.002]
    assert trials[2]["run"] == str(tmp_path / "sst" / "full-0.0005") and trials[2]["epochs"] == 4


def test_a_rate_is_a_number_in_yaml(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEST", "5e-05")  # YAML takes 5e-05 for a text
    done = start("--strategies", "ulmfit", "--centre", "ulmfit=5e-5")
    found = block_of(done.out)["fine_tuning"]["sst"]["ulmfit"]
    assert found == {"lr": 5e-5, "lm_lr": 5e-4}  # with the rate of the other stage, as it was used


def test_later_searches_add_to_the_earlier_ones(start: Start, tmp_path: Path) -> None:
    assert start("--strategies", "full").code == 0
    done = start("--strategies", "lora", "--centre", "lora=0.002")
    assert block_of(done.out)["fine_tuning"]["sst"] == {"full": {"lr": 0.0005}, "lora": {"lr": 0.0005}}
    done = start("--strategies", "lora", "--centre", "lora=0.0005")  # the edge, looked at further
    rates = [
        trial["lr"]
        for trial in json.loads((tmp_path / "sst" / "rates.json").read_text())[-1]["strategies"]["lora"]["trials"]
    ]
    assert rates == [0.000125, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008]
    assert "grid's edge" not in done.out
    done = start("--strategies", "lora", "--limit", 10)  # another search: what was found before says nothing of it
    assert block_of(done.out)["fine_tuning"]["sst"].keys() == {"lora"}


def test_another_training_file_is_another_search(start: Start, tmp_path: Path, tiny_data: Path) -> None:
    assert start("--strategies", "full").code == 0
    other = tmp_path / "other"
    other.mkdir()
    lines = (tiny_data / "ids-sst-train.csv").read_text().splitlines()[:-1]
    (other / "ids-sst-train.csv").write_text("\n".join([*lines, ""]))
    done = start("--strategies", "head", "--data-dir", other)
    assert block_of(done.out)["fine_tuning"]["sst"].keys() == {"head"}


def test_other_weights_under_the_same_name_are_another_search(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start("--strategies", "full").code == 0
    assert block_of(start("--strategies", "lora").out)["fine_tuning"]["sst"].keys() == {"full", "lora"}
    monkeypatch.setenv("WEIGHTS", "b")
    assert block_of(start("--strategies", "last-n").out)["fine_tuning"]["sst"].keys() == {"last-n"}
    kept = json.loads((tmp_path / "sst" / "rates.json").read_text())
    assert [one["search"]["weights_sha256"] for one in kept] == [["a"], ["b"]]
    monkeypatch.setenv("WEIGHTS", "a")
    assert block_of(start("--strategies", "head").out)["fine_tuning"]["sst"].keys() == {"full", "lora", "head"}


@pytest.mark.parametrize("flags", [["--lm-epochs", "0"], ["--lm_epochs=0"]])
def test_a_stage_that_is_left_out_has_no_rate(flags: list[str], start: Start) -> None:
    done = start("--strategies", "ulmfit", "--centre", "ulmfit=5e-4", "--", *flags)
    assert done.code == 0 and block_of(done.out)["fine_tuning"]["sst"] == {"ulmfit": {"lr": 0.0005}}


@pytest.mark.parametrize("flag", ["--skip-bad-rows", "--skip_bad_rows"])
def test_bad_rows_stop_the_search_or_are_left_out_and_counted(
    flag: str, start: Start, tmp_path: Path, tiny_data: Path
) -> None:
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "ids-sst-train.csv"
    good = (tiny_data / "ids-sst-train.csv").read_text()
    header, *rows = good.splitlines()
    path.write_text("\n".join([header, rows[0], "x\tbad\t\t3", *rows[1:], ""]))
    asked = ["--strategies", "full", "--data-dir", path.parent]
    done = start(*asked)
    assert done.code == 2 and f"{path}:3: the sentence is empty" in done.errors[0]
    done = start(*asked, "--", flag)
    assert done.code == 0 and f"{path}: bad rows left out: 1\n" in done.out
    kept = [(tmp_path / "sst" / "data" / f"ids-sst-{name}.csv").read_text().splitlines() for name in ("train", "dev")]
    assert kept == [[header, *(row for i, row in enumerate(rows) if i % 5)], [header, *rows[::5]]]


def test_every_strategy_is_searched_with_the_same_effort(start: Start, tmp_path: Path) -> None:
    done = start("--jobs", 2, "--epochs", 3)
    names = strategies_of("sentiment").keys()
    saved = json.loads((tmp_path / "sst" / "rates.json").read_text())[-1]["strategies"]
    assert done.code == 0 and saved.keys() == names
    assert {len(entry["trials"]) for entry in saved.values()} == {5}
    flags = json.loads((tmp_path / "sst" / "full-0.0005" / "flags.json").read_text())
    assert flags["--patience"] == "2" and flags["--epochs"] == "3" and flags["--dataset"] == "sst"


def test_what_is_written_is_judged_by_its_perplexity(start: Start, tmp_path: Path, tiny_data: Path) -> None:
    done = start("--dataset", "shakespeare", "--strategies", "full", "--centre", "full=5e-4", "--limit", 20)
    assert block_of(done.out) == {"fine_tuning": {"shakespeare": {"full": {"lr": 0.0005}}}}
    scores = "0.000125: 9.120 · 0.00025: 9.110 · 0.0005: 9.100 · 0.001: 9.110 · 0.002: 9.120"
    assert "| training set | strategy | rate: held-out perplexity | chosen |" in done.out
    assert f"| shakespeare | `full` | {scores} | 0.0005 |" in done.out
    flags = json.loads((tmp_path / "shakespeare" / "full-0.0005" / "flags.json").read_text())
    assert flags["--hold-out"] == "5" and flags["--limit-train"] == "20" and flags["--data-dir"] == str(tiny_data)


def test_further_flags_go_to_the_script_and_make_another_search(start: Start, tmp_path: Path) -> None:
    assert start("--dataset", "sick", "--strategies", "full").code == 0
    done = start("--dataset", "sick", "--strategies", "lora", "--", "--label-score", "mean")
    assert block_of(done.out)["fine_tuning"]["sick"].keys() == {"lora"}
    (run,) = (tmp_path / "sick").glob("lora-0.005")
    assert json.loads((run / "flags.json").read_text())["--label-score"] == "mean"
    assert "held-out accuracy" in done.out


def test_a_slice_is_taken_from_all_over_the_file(start: Start, tmp_path: Path, tiny_data: Path) -> None:
    assert start("--strategies", "full", "--limit", 10).code == 0

    def rows(folder: Path, split: str) -> list[bytes]:
        return (folder / f"ids-sst-{split}.csv").read_bytes().splitlines()[1:]

    whole, slice_ = rows(tiny_data, "train"), {*rows(tmp_path / "sst" / "data", "train")}
    slice_ |= {*rows(tmp_path / "sst" / "data", "dev")}
    half = len(whole) // 2
    assert len(slice_) == 10 and len(slice_ & {*whole[:half]}) == 5 == len(slice_ & {*whole[half:]})


def test_centres_follow_the_published_rate_and_the_batch() -> None:
    assert search_rates.centre_of("full", search_rates.DATASETS["sst"], []) == pytest.approx(5e-4)
    assert search_rates.centre_of("head", search_rates.DATASETS["sst"], []) == pytest.approx(1e-2)
    assert search_rates.centre_of("full", search_rates.DATASETS["cfimdb"], []) == pytest.approx(1.25e-4)  # batches of 8
    assert search_rates.centre_of("head", search_rates.DATASETS["nsmc"], []) == pytest.approx(1e-2)
    assert search_rates.centre_of("full", search_rates.DATASETS["qqp"], []) == pytest.approx(6.25e-5)  # half the rate
    assert search_rates.centre_of("taskA", search_rates.DATASETS["qqp"], ["full=1", "taskA=3e-4"]) == 3e-4
    assert search_rates.centre_of("lora", search_rates.DATASETS["sst"], []) == pytest.approx(
        STRATEGIES["lora"].lr * search_rates.FACTORS["lora"]
    )


def test_what_trains_the_same_at_the_same_rate_has_the_same_centre() -> None:
    shakespeare, chatbot = (search_rates.DATASETS[name] for name in ("shakespeare", "chatbot"))
    centres = {name: search_rates.centre_of(name, shakespeare, []) for name in named_strategies_of("sonnet")}
    assert centres["baseline"] == centres["last-n"] == centres["unlikelihood"] == pytest.approx(1e-5 * 10 / 4)
    for dataset in (shakespeare, chatbot):
        pair = (search_rates.centre_of(name, dataset, []) for name in ("prefix", "unlikelihood+prefix"))
        assert len({*pair}) == 1


def test_the_bundled_cards_searches_are_those_of_their_commands() -> None:
    """Where a command names no centre, the card's grid is around the one that it has here."""
    for dataset, centres in (
        ("sst", {"full": 5e-4, "head": 1e-2}),
        ("cfimdb", {"full": 1.25e-4, "head": 2.5e-3}),
        ("nsmc", {"full": 5e-4, "head": 1e-2}),
        ("chatbot", {"full": 5e-4, "lora": 5e-3}),
    ):
        for name, centre in centres.items():
            assert search_rates.centre_of(name, search_rates.DATASETS[dataset], []) == pytest.approx(centre)


def test_a_strategy_that_is_refused_is_left_out_before_anything_trains(start: Start, tmp_path: Path) -> None:
    done = start("--strategies", "ulmfit", "full", "--epochs", 2)
    assert done.code == 0 and "ulmfit: left out, because it is refused: --epochs 2: too few" in done.out
    assert block_of(done.out) == {"fine_tuning": {"sst": {"full": {"lr": 0.0005}}}}
    assert done.out.index("left out") < done.out.index("[1/5] full")


def test_the_published_variants_are_searched_too() -> None:
    qqp = search_rates.DATASETS["qqp"]
    assert {"taskA", "taskB", "taskC"} <= named_strategies_of("paraphrase").keys()
    assert search_rates.centre_of("taskC", qqp, []) == search_rates.centre_of("llrd-zones", qqp, [])


def test_what_is_refused(start: Start, tmp_path: Path) -> None:
    for flags, message in (
        (["--strategies", "fulll"], "--strategies fulll: has no rate in strategies.py; give its centre"),
        (["--strategies", "cloze"], "--strategies cloze: has no rate"),  # not a strategy of this task
        (["--strategies", "full", "--centre", "full=big"], "--centre full=big: must be STRATEGY=RATE"),
        (["--strategies", "full", "--centre", "lora=1"], "--centre lora=1: that strategy is not searched"),
        (["--strategies", "full", "--model", "none"], "--model none: no such model (log: "),
    ):
        done = start(*flags)
        assert done.code == 2 and len(done.errors) == 1 and message in done.errors[0], flags
    assert not (tmp_path / "sst" / "rates.json").exists()


# ---------------------------------------------------------------------------------------------------------------------
# The rows
# ---------------------------------------------------------------------------------------------------------------------


def test_every_fifth_row_is_held_out_as_it_stands(tiny_data: Path, tmp_path: Path) -> None:
    files = search_rates.DATASETS["sst"].rows
    header, *rows = (tiny_data / "ids-sst-train.csv").read_text().splitlines()
    found = search_rates.split_training_file(files, tiny_data, None, tmp_path / "data")
    held_out = (found / "ids-sst-dev.csv").read_text().splitlines()
    assert held_out == [header, *rows[::5]]
    trained = (found / "ids-sst-train.csv").read_text().splitlines()
    assert trained == [header, *(row for i, row in enumerate(rows) if i % 5)]
    assert sorted(path.name for path in found.iterdir()) == ["ids-sst-dev.csv", "ids-sst-train.csv"]


def test_rows_of_pairs_that_span_lines_stay_whole(tmp_path: Path) -> None:
    files = search_rates.DATASETS["qqp"].rows
    rows = [f'{i}\tid{i}\tHow {i}?\t"Why {i}\n  and When?"\t{i % 2}.0' if i % 3 else f"{i}\tid{i}\tHow {i}?\tWhy?\t1.0"
            for i in range(12)]  # fmt: skip
    rows.insert(4, "99\tid99\tWithout a label?\tWhy?\t")
    header = "\tid\tsentence1\tsentence2\tis_duplicate"
    (tmp_path / "quora-train.csv").write_text("\n".join([header, *rows, ""]))
    found = search_rates.split_training_file(files, tmp_path, None, tmp_path / "data")
    del rows[4]
    assert (found / "quora-dev.csv").read_text() == "\n".join([header, *rows[::5], ""])
    rest = [row for i, row in enumerate(rows) if i % 5]
    assert (found / "quora-train.csv").read_text() == "\n".join([header, *rest, ""])


def test_the_real_pairs_are_read_again_as_they_were(shared: Path, tmp_path: Path) -> None:
    from datasets import read_split

    files = search_rates.DATASETS["qqp"].rows
    folder = shared / "data" / "qqp"
    if not folder.is_dir():
        pytest.skip("the Quora files are not here")
    found = search_rates.split_training_file(files, folder, 300, tmp_path)
    whole = search_rates.spread_out(read_split(files, folder / "quora-train.csv").examples, 300)
    parts = {name: read_split(files, found / files.files[name]) for name in ("train", "dev")}
    key = lambda example: (example.id, example.text, example.second, example.label)  # noqa: E731
    assert [key(e) for e in parts["dev"].examples] == [key(e) for e in whole[::5]]
    assert [key(e) for e in parts["train"].examples] == [key(e) for i, e in enumerate(whole) if i % 5]
    assert not parts["train"].skipped and not parts["dev"].skipped
