"""run_experiments.py on a task of its own: a script that takes the flags of the others and leaves their run folders."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_run import ROOT, Result, call, only_run

import datasets
from run_experiments import call_script, seconds_left
from strategies import strategies_of
from training.children import TASK_SCRIPTS, run_folder
from training.experiment_summary import duration
from training.experiment_table import read_experiment

# Its accuracy is 0.5 + seed / 100, and 0.1 more with lora. The seed 13 fails, and what happens from 66 on is
# FAKE_FIFO's: two runs meet there, then one does what Ctrl-C does to its parent, and both end when it comes back.
FAKE = """
import json, os, signal, sys
from dataclasses import dataclass
from pathlib import Path
from config import DATA, MODEL, RunFailed, RunSettings, UserError, setting
from training.cli import build_parser, parse_settings, run_script

@dataclass(frozen=True)
class Settings(RunSettings):
    dataset: list[str] = setting(["red"], "datasets", group=DATA, choices=("red", "blue"), identity=False)
    lora_rank: int | None = setting(None, "rank", group=MODEL)

def main():
    parser = build_parser(Settings, "A task.", "")
    parser.add_argument("--list-strategies", action="store_true", help="print them")
    settings, given = parse_settings(Settings, parser, sys.argv[1:])
    if "list_strategies" in given:
        print("full   every parameter (= baseline)\\\\nlora   low rank")
        return 0
    strategy = {"baseline": "full"}.get(settings.strategy, settings.strategy)
    if settings.data_dir and not Path(settings.data_dir).is_dir():
        raise UserError(f"{settings.data_dir}: no such folder")
    name = f"fake-{settings.dataset[0]}-{strategy}-s{settings.seed}-e{settings.epochs}-r{settings.lora_rank}"
    folder = Path(settings.output_dir) / name
    if not (folder / "metrics.json").exists():
        print(f"run       {folder}")
        if settings.dry_run:
            return 0
        train(settings, strategy, folder)
    print(f"results: {folder}")
    return 0

def train(settings, strategy, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"argv": sys.argv[1:]}))
    with open(folder / "starts", "a") as file:
        file.write(os.environ.get("OMP_NUM_THREADS", "-") + "\\\\n")
    if settings.seed == 13:
        print("error: an earlier one", file=sys.stderr)
        raise RunFailed("step 7: the loss is nan; try a smaller rate")
    if settings.seed >= 66 and not (folder / "saved").exists():
        stop_and_save(settings, folder)
    accuracy = 0.5 + settings.seed / 100 + 0.1 * (strategy == "lora")
    dev = {"accuracy": accuracy, "macro_f1": accuracy / 2, "loss": 1.0, "n": 100}
    cost = {"train_seconds": 1.0, "total_seconds": 10.0 + settings.seed, "trainable_parameters": 1234,
            "total_parameters": 5678, "peak_memory_bytes": (1 + settings.seed) * 2**30}
    metrics = {"schema": 1, "task": "fake", "dataset": settings.dataset[0] + "-sample", "model": settings.model or "m",
               "strategy": strategy, "seed": settings.seed, "epochs": 3, "best_epoch": 1 + settings.seed % 3,
               "dev": dev, "cost": cost}
    (folder / "metrics.json").write_text(json.dumps(metrics))

def stop_and_save(settings, folder):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with open(os.environ["FAKE_FIFO"], "w" if settings.seed == 66 else "r"):
        pass
    if settings.seed == 67:
        os.killpg(os.getpgid(os.getppid()), signal.SIGINT)
    signal.sigwait({signal.SIGINT})
    (folder / "saved").write_text("alone" if os.getpgrp() == os.getpid() else "reached by the terminal too")
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(run_script(main))
""".replace("\\\\", "\\")
TABLE = {"task": "fake", "datasets": ["red"], "strategies": ["full", "lora"], "seeds": [1, 2, 4]}
Start = Callable[..., Result]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "fake_task.py"
    script.write_text(FAKE)
    monkeypatch.setitem(TASK_SCRIPTS, "fake", script)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return script


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def start(fake: Path, handlers: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Start:
    """Calls run_experiments.py in this process with a table, and changes to it: flags -> how it ended."""

    def run(*flags: object, **changes: Any) -> Result:
        path = write_table(tmp_path, **changes)
        capsys.readouterr()
        code = call(path, "--output-dir", tmp_path / "out", *flags, script="run_experiments")
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


def write_table(folder: Path, **changes: Any) -> Path:
    path = folder / "colours.yaml"
    path.write_text(json.dumps({**TABLE, **changes}))  # JSON is YAML
    return path


def cell(folder: Path, strategy: str = "full", seed: int = 1, dataset: str = "red") -> Path:
    return folder / "out" / f"fake-{dataset}-{strategy}-s{seed}-eNone-rNone"


def starts(run: Path) -> int:
    return len((run / "starts").read_text().splitlines()) if run.exists() else 0


# ---------------------------------------------------------------------------------------------------------------------
# Running and summing up
# ---------------------------------------------------------------------------------------------------------------------


def test_every_cell_is_run_once_and_summed_up(start: Start, tmp_path: Path) -> None:
    done = start()
    assert done.code == 0 and done.err == "", done.err
    for strategy in ("full", "lora"):
        for seed in (1, 2, 4):
            assert starts(cell(tmp_path, strategy, seed)) == 1
            log = (tmp_path / "out" / "logs" / f"red-{strategy}-s{seed}.log").read_text()
            assert log.endswith(f"results: {cell(tmp_path, strategy, seed)}\n")
    assert "[1/6] red full s1: dev accuracy 0.510, macro-F1 0.255, epoch 2 of 3, " in done.out
    assert "[6/6] red lora s4: dev accuracy 0.640" in done.out and done.out.count(" left\n") == 5

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["missing"] == [] and [row["strategy"] for row in summary["rows"]] == ["full", "lora"]
    full = summary["rows"][0]
    values = [0.51, 0.52, 0.54]
    accuracy = full["scores"]["accuracy"]
    assert accuracy["values"] == pytest.approx(values)
    assert accuracy["mean"] == pytest.approx(1.57 / 3)
    assert accuracy["std"] == pytest.approx(statistics.stdev(values)) == pytest.approx(0.0152753, abs=1e-6)
    assert full["seeds"] == [1, 2, 4] and full["best_epochs"] == [2, 3, 2] and full["epochs"] == [3, 3, 3]
    assert (full["dataset"], full["trainable_parameters"]) == ("red-sample", 1234)  # as the run calls its data
    assert full["median_seconds"] == 12.0 and full["peak_memory_bytes"] == 5 * 2**30
    assert full["runs"] == [str(cell(tmp_path, "full", seed)) for seed in (1, 2, 4)]

    page = (tmp_path / "out" / "summary.md").read_text()
    row = "| red-sample | m | full | 3 | 0.523 ± 0.015 | 0.262 ± 0.008 | 2 3 2 | 1,234 | 12 s | 5.0 GiB |"
    assert row in page.splitlines()
    assert "red-sample  m      lora      3      0.623 ± 0.015  0.312 ± 0.008  2 3 2" in done.out


def test_what_is_complete_is_left_alone_and_what_was_cut_off_goes_on(start: Start, tmp_path: Path) -> None:
    assert start(seeds=[1, 2]).code == 0
    (cell(tmp_path, "lora", 2) / "metrics.json").unlink()
    before = (tmp_path / "out" / "summary.md").read_text()

    states = start("--dry-run")
    shown = [line.split()[:-1] for line in states.out.splitlines() if line.startswith("red ")]
    assert [" ".join(words) for words in shown] == [
        "red full s1 complete", "red full s2 complete", "red full s4 to do",
        "red lora s1 complete", "red lora s2 to go on", "red lora s4 to do",
    ]  # fmt: skip
    assert "6 runs: 3 complete, 1 to go on, 2 to do" in states.out
    assert not cell(tmp_path, "full", 4).exists() and (tmp_path / "out" / "summary.md").read_text() == before

    done = start()
    assert done.code == 0 and "6 runs: 3 complete, 3 to do" in done.out
    found = {(strategy, seed): starts(cell(tmp_path, strategy, seed)) for strategy in ("full", "lora")
             for seed in (1, 2, 4)}  # fmt: skip
    assert found == {("full", 1): 1, ("full", 2): 1, ("full", 4): 1, ("lora", 1): 1, ("lora", 2): 2, ("lora", 4): 1}


def test_a_dry_run_writes_nothing(start: Start, tmp_path: Path) -> None:
    assert start("--dry-run").code == 0
    assert not (tmp_path / "out").exists()


def test_without_the_check_complete_runs_are_found_by_starting_them(start: Start, tmp_path: Path) -> None:
    assert start(seeds=[2]).code == 0
    done = start("--no-check")
    assert done.code == 0 and "checking" not in done.out and "6 runs: 0 complete, 6 to do" in done.out
    assert starts(cell(tmp_path, "full", 2)) == 1  # the script says that it is complete
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["rows"][0]["seeds"] == [1, 2, 4]
    assert "--dry-run and --no-check" in start("--no-check", "--dry-run").errors[0]


@pytest.mark.parametrize("flags", [[], ["--no-continue-on-error"]], ids=["goes on", "stops"])
def test_a_run_that_fails(start: Start, tmp_path: Path, flags: list[str]) -> None:
    done = start(*flags, seeds=[1, 13, 2], strategies=["full"])
    assert done.code == 1
    log = tmp_path / "out" / "logs" / "red-full-s13.log"
    assert done.errors == [f"error: red full s13: step 7: the loss is nan; try a smaller rate (log: {log})"]
    assert "[2/3] red full s13: failed: step 7: the loss is nan" in done.out
    missing = ["red full s13", "red full s2"] if flags else ["red full s13"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["missing"] == missing
    assert f"Not complete: {', '.join(missing)}." in (tmp_path / "out" / "summary.md").read_text()
    assert starts(cell(tmp_path, seed=2)) == (0 if flags else 1)


@pytest.mark.parametrize("jobs, threads", [(1, "6"), (4, "1")])
def test_runs_side_by_side_share_the_threads(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, threads: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    done = start("--jobs", jobs, "--no-check", seeds=[1], strategies=["full"])
    assert done.code == 0 and (cell(tmp_path) / "starts").read_text() == f"{threads}\n"


def test_ctrl_c_lets_every_run_save_and_the_same_command_goes_on(fake: Path, tmp_path: Path) -> None:
    path = write_table(tmp_path, strategies=["full"], seeds=[66, 67, 1])
    os.mkfifo(tmp_path / "fifo")
    code = f"""
import sys
from pathlib import Path
from run_experiments import main
from training.children import TASK_SCRIPTS
from training.cli import run_script
TASK_SCRIPTS["fake"] = Path({str(fake)!r})
sys.exit(run_script(main))
"""
    flags = [str(path), "--output-dir", str(tmp_path / "out"), "--jobs", "2", "--no-check"]

    def command() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=60,
            start_new_session=True, env=os.environ | {"FAKE_FIFO": str(tmp_path / "fifo")},
        )  # fmt: skip

    done = command()
    assert done.returncode == 130, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("interrupted; to go on, run the same command again: python ")
    assert line.endswith(" ".join(flags))
    for seed in (66, 67):  # the runner alone passes the signal on: a second one would end them without saving
        assert (cell(tmp_path, seed=seed) / "saved").read_text() == "alone"
    assert not cell(tmp_path, seed=1).exists()
    assert len(json.loads((tmp_path / "out" / "summary.json").read_text())["missing"]) == 3

    done = command()
    assert done.returncode == 0 and done.stderr == ""
    assert starts(cell(tmp_path, seed=66)) == 2 and (cell(tmp_path, seed=1) / "metrics.json").exists()


def test_two_runners_do_not_share_a_folder(start: Start, tmp_path: Path) -> None:
    from storage import lock_folder

    lock = lock_folder(tmp_path / "out", "testing")
    done = start("--no-check")
    assert done.code == 2 and "another process is running experiments in it" in done.errors[0]
    lock.close()


# ---------------------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------------------


def argv_of(run: Path) -> list[str]:
    return json.loads((run / "config.json").read_text())["argv"]


def test_settings_become_flags(start: Start, tmp_path: Path) -> None:
    done = start(
        "--data-dir", tmp_path, "--seeds", 7,
        datasets="blue", model="tiny",
        settings={"epochs": 3, "random_init": True, "use-gpu": False, "lr": "1e-3"},
        per_strategy={"lora": {"lora-rank": 2, "epochs": 5}}, data_dir="nowhere",
    )  # fmt: skip
    assert done.code == 0, done.err
    common = ["--seed", "7", "--model", "tiny", "--data-dir", str(tmp_path), "--output-dir", str(tmp_path / "out")]
    others = ["--random-init", "--no-use-gpu", "--lr=1e-3"]
    full, lora = (tmp_path / "out" / f"fake-blue-{name}" for name in ("full-s7-e3-rNone", "lora-s7-e5-r2"))
    assert argv_of(full) == ["--dataset", "blue", "--strategy", "full", *common, "--epochs=3", *others]
    assert argv_of(lora) == ["--dataset", "blue", "--strategy", "lora", *common, "--epochs=5", *others, "--lora-rank=2"]


def test_several_tables_share_what_stands_above_them(start: Start, tmp_path: Path) -> None:
    tables = [{"name": "short", "settings": {"epochs": 1}}, {"name": "long", "seeds": [9], "strategies": "baseline"}]
    done = start(seeds=[1], settings={"epochs": 4}, tables=tables)
    assert done.code == 0, done.err
    names = ["fake-red-full-s1-e1-rNone", "fake-red-full-s9-e4-rNone", "fake-red-lora-s1-e1-rNone"]
    assert sorted(path.name for path in (tmp_path / "out").glob("fake-*")) == names
    assert "[1/3] short: red full s1: dev" in done.out and "[3/3] long: red baseline s9: dev" in done.out
    page = (tmp_path / "out" / "summary.md").read_text()
    short, long = page.split("## long")
    assert (
        short.count("| red-sample |") == 2 and long.count("| red-sample |") == 1 and "| baseline | 1 | 0.590 |" in long
    )


def test_only_some_are_run_and_the_summary_is_of_all(start: Start, tmp_path: Path) -> None:
    assert start("--only", "strategy=full", "seed=1,2").code == 0
    done = start("--only", "strategy=lora", "seed=4")
    assert done.code == 0 and "1 run: 0 complete, 1 to do" in done.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["seeds"] for row in summary["rows"]] == [[1, 2], [4]]
    assert summary["missing"] == ["red full s4", "red lora s1", "red lora s2"]
    refused = start("--only", "strategy=head", "colour=red")
    assert refused.code == 2 and refused.errors == [
        "error: --only strategy=head: no run has strategy 'head'; there are full, lora",
        "error: --only colour=red: must be table=..., dataset=..., strategy=... or seed=...",
    ]


def test_what_is_not_to_be_run_now_may_be_refused(start: Start, tmp_path: Path) -> None:
    tables = [{"name": "here"}, {"name": "elsewhere", "data_dir": "nowhere"}]
    refused = start(tables=tables)
    path = tmp_path / "colours.yaml"
    message = "elsewhere: red full s1 and 5 other runs: nowhere: no such folder"
    assert refused.code == 2 and refused.errors == [f"error: {path}: {message}"]
    assert not (tmp_path / "out").exists()
    assert start("--only", "table=here", tables=tables).code == 0


def test_everything_that_is_wrong_is_told_at_once(start: Start, tmp_path: Path) -> None:
    done = start(
        seed=3, seeds=[1, "x"], datasets=["red", "green"], strategies=["full", "lora", "fulll"], model=7,
        settings={"epochs": "many", "colour": 1}, per_strategy={"lora": {"lora-rank": 1.5}, "head": {"seed": 1}},
        output_dir=["a"],
    )  # fmt: skip
    path = tmp_path / "colours.yaml"
    assert done.code == 2 and not (tmp_path / "out").exists()
    found = [line.removeprefix(f"error: {path}: ") for line in done.errors]
    assert [message.partition(" ")[0] for message in found if "unknown key" in message] == ["unknown"]
    for start_of_message in (
        "output_dir: ['a'] is not a text",
        "unknown key 'seed'; the keys are ",
        "seeds: [1, 'x'] is not a list of whole numbers",
        "model: 7 is not a text",
        "per_strategy: head: seed: can't be set here",
        "strategies: fulll: unknown; `python fake_task.py --list-strategies` prints those of fake",
        "datasets: green: argument --dataset: invalid choice: 'green'",
        "settings: epochs: argument --epochs: invalid int value: 'many'",
        "settings: colour: unrecognized arguments: --colour=1",
    ):
        assert [message for message in found if message.startswith(start_of_message)], start_of_message
    assert len(found) == 9


@pytest.mark.parametrize(
    "text, message",
    [
        ("task: [", "is not YAML"),
        ("- a\n- b", "must hold 'key: value' lines"),
        ("task: fake\ndatasets: red", "strategies: is missing"),
        ("{task: dance, datasets: red, strategies: full}", "task: 'dance' is none of sentiment, paraphrase"),
        ("{task: fake, datasets: red, strategies: full, tables: 3}", "tables: must be a list of tables"),
        ("{task: fake, datasets: red, strategies: []}", "strategies: [] is not a list of names"),
        ("{task: fake, datasets: red, strategies: full, settings: [1]}", "settings: [1] is not a list of"),
        ("{task: fake, datasets: red, strategies: full, settings: {lr: {}}}", "settings: lr: {} is no number"),
        ("{task: fake, datasets: red, strategies: full, per_strategy: {lora: {lr: 1}}}", "per_strategy: lora: is not"),
        ("{task: fake, datasets: red, strategies: full, seeds: true}", "seeds: True is not a list of whole numbers"),
        ("{task: fake, datasets: red, strategies: full, tables: [{name: a}, {name: a}]}", "'a' is the name of 2"),
        ("{task: fake, datasets: red, strategies: full, tables: [{}, {}]}", "are the same run; leave one of them out"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong(fake: Path, tmp_path: Path, text: str, message: str) -> None:
    from config import UserError

    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    try:
        problems = list(read_experiment(path).problems)
    except UserError as error:
        problems = error.problems
    assert all(problem.startswith(f"{path}: ") for problem in problems)
    assert len([problem for problem in problems if message in problem]) == 1, problems


def test_two_names_of_one_run_are_told(start: Start, tmp_path: Path) -> None:
    done = start(strategies=["full", "baseline"], seeds=[1])
    path = tmp_path / "colours.yaml"
    message = f"{path}: red baseline s1: this is the same run as red full s1; leave one of them out"
    assert done.code == 2 and done.errors == [f"error: {message}"]


def test_a_file_or_script_that_is_not_there(start: Start, fake: Path, tmp_path: Path) -> None:
    code = call(tmp_path / "none.yaml", script="run_experiments")
    assert code == 2
    fake.unlink()
    done = start()
    assert done.code == 2 and "task: fake_task.py: FileNotFoundError" in done.errors[0]


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.name)
def test_the_files_of_the_repository_are_in_order(path: Path) -> None:
    import importlib

    experiment = read_experiment(path)
    assert experiment.problems == () and experiment.output_dir == ROOT / "runs" / path.stem
    for table in experiment.tables:
        aliases = importlib.import_module(TASK_SCRIPTS[table.task].stem).ALIASES
        assert set(table.strategies) <= strategies_of(table.task).keys() | aliases.keys()
        known = {
            "sentiment": datasets.SENTIMENT_TASKS.keys(), "paraphrase": datasets.PARAPHRASE_TASKS.keys(),
            "sonnet": {"shakespeare"},
        }  # fmt: skip
        assert set(table.datasets) <= known[table.task] - {"custom"}
        assert table.model == "mini"
    runs = {"sst.yaml": 50, "cfimdb.yaml": 18, "qqp.yaml": 18, "full-grid.yaml": 36, "sonnets.yaml": 80}
    assert len(experiment.cells) == runs[path.name]


def test_the_tables_have_every_strategy() -> None:
    found: dict[str, set[str]] = {}
    for path in (ROOT / "experiments").glob("*.yaml"):
        for one in read_experiment(path).cells:
            found.setdefault(one.dataset, set()).add(one.strategy)
    assert found["sst"] == found["cfimdb"] == strategies_of("sentiment").keys()
    assert found["shakespeare"] == (strategies_of("sonnet").keys() | {"baseline"}) - {"last-n", "llrd-zones"}
    assert found["qqp"] == strategies_of("paraphrase").keys() | {"taskA", "taskB", "taskC"}


# ---------------------------------------------------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------------------------------------------------


def test_the_time_left_is_of_the_closest_kind(fake: Path, tmp_path: Path) -> None:
    cells = read_experiment(write_table(tmp_path, datasets=["red", "blue"], seeds=[1, 2])).cells
    full, full2, lora, lora2, blue = cells[:5]
    assert [c.label for c in (full, lora2, blue)] == ["red full s1", "red lora s2", "blue full s1"]
    assert seconds_left([full2, lora], {}, jobs=1) == 0
    known = {full: 10.0}
    assert seconds_left([full2], known, jobs=1) == 10
    known[lora] = 40.0
    assert seconds_left([full2, lora2], known, jobs=1) == 10 + 40  # each as its own strategy
    assert seconds_left([full2, lora2], known, jobs=2) == 25
    assert seconds_left([blue], known, jobs=4) == 25  # of another dataset: the mean, and one run can't be split
    known[cells[6]] = 100.0  # blue lora
    assert seconds_left([blue], known, jobs=1) == 100
    assert [duration(x) for x in (99, 600, 7200)] == ["99 s", "10 min", "2.0 h"]


def test_the_scripts_name_the_folder_of_a_run_before_and_after_it(
    run: Start, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """What the runner relies on in the scripts of tasks."""
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--output-dir", tmp_path, "--dataset", "sst"]
    flags = [str(flag) for flag in [*flags, "--strategy", "head", "--epochs", 1, "--precision", "fp32"]]
    script = TASK_SCRIPTS["sentiment"]
    planned = call_script(script, [*flags, "--dry-run"])
    assert planned.code == 0 and planned.problems == [] and list(tmp_path.iterdir()) == []
    done = run(*flags)
    assert done.code == 0, done.err
    again = call_script(script, [*flags, "--dry-run"])
    assert only_run(tmp_path) == run_folder(planned.out) == run_folder(done.out) == run_folder(again.out)
    refused = call_script(script, [*flags, "--epochs", "0"])
    assert refused.code == 2 and refused.problems == ["--epochs 0: must be at least 1"]
