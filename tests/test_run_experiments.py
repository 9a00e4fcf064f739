"""run_experiments.py on a task of its own: a script that takes the flags of the others and leaves their run folders."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from tiny_run import ROOT, Child, Result, call, only_run, results_of

import datasets
import run_experiments
from classifier import ClassifierSettings
from config import BUNDLED_CHECKPOINTS, ClassificationSettings
from experiments import asking, children
from experiments.asking import call_script
from experiments.children import TASK_SCRIPTS, device_places, run_folder
from experiments.summary import aligned
from experiments.table import Cell, read_experiment
from experiments.times import Timed, Times, Work, known_runs, planned_work, read_costs, read_timed
from models.card import fine_tuning_defaults
from models.checkpoint import read_config
from paraphrase_detection import ParaphraseSettings
from run_experiments import choose_cells
from storage import lock_folder
from strategies import ALIASES, CLASSIFICATION, choose_strategy, strategies_of
from training.classification.preparation import problems_of
from training.cli import build_parser, parse_settings
from training.estimate import LOADING
from training.setup import with_defaults
from training.terminal import duration

# Its accuracy is 0.5 + seed / 100, and 0.1 more with lora. The seed 13 fails, 14
# is killed. What happens from 66 on is FAKE_FIFO's: two runs meet there, then one does what Ctrl-C does to its parent,
# and both end when it comes back. The seed 77 needs a while to save when it is asked to stop.
FAKE = """
import json, os, signal, sys, time
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
        print("strategy trains cost  what it does")
        print("full     100.00%  1.00  every parameter (= baseline)\\nlora       0.50%  0.60  low rank")
        return 0
    strategy = {"baseline": "full"}.get(settings.strategy, settings.strategy)
    if settings.data_dir and not Path(settings.data_dir).is_dir():
        raise UserError(f"{settings.data_dir}: no such folder")
    name = f"fake-{settings.dataset[0]}-{strategy}-e{settings.epochs}-r{settings.lora_rank}-s{settings.seed}"
    folder = Path(settings.output_dir) / name
    if not (folder / "metrics.json").exists():
        print(f"\\n== fake on {settings.dataset[0]}-sample: {strategy} (as said)\\nmodel     m (bundled: here)")
        say_notes(settings)
        print(f"data      {settings.limit_train or 1000:,} train, 1 dev")
        print(f"training  epochs {settings.epochs or 3}, batch 8")
        print(f"run       {folder}")
        if settings.dry_run:
            return 0
        train(settings, strategy, folder)
    say_notes(settings)
    print(f"results: {folder}")
    return 0

def say_notes(settings):
    if not settings.data_dir:
        print(f"note: the small bundled sample stands in for the real {settings.dataset[0]} data: no network")
        print(f"note: {settings.dataset[0]} texts that also stand in train: 3")

def train(settings, strategy, folder):
    folder.mkdir(parents=True, exist_ok=True)
    dataset, rows = settings.dataset[0] + "-sample", settings.limit_train or 1000
    config = {"task": "fake", "dataset": dataset, "argv": sys.argv[1:], "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
              "identity": {"lr": settings.lr}, "data": {"files": {"train": {"rows": rows}}}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "failed.json").unlink(missing_ok=True)
    with open(folder / "starts", "a") as file:
        file.write(os.environ.get("OMP_NUM_THREADS", "-") + "\\n")
    if settings.seed == 13:
        print("error: an earlier one", file=sys.stderr)
        raise RunFailed("step 7: the loss is nan; try a smaller rate")
    if settings.seed == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    if settings.seed == 77:
        stop_slowly(folder)
    elif settings.seed >= 66 and not (folder / "saved").exists():
        stop_and_save(settings, folder)
    accuracy = 0.5 + settings.seed / 100 + 0.1 * (strategy == "lora")
    dev = {"accuracy": accuracy, "macro_f1": accuracy / 2, "loss": 1.0, "n": 100}
    cost = {"train_seconds": 1.0, "total_seconds": 10.0 + settings.seed, "trainable_parameters": 1234,
            "total_parameters": 5678, "peak_memory_bytes": (1 + settings.seed) * 2**30}
    metrics = {"schema": 1, "task": "fake", "dataset": dataset, "model": settings.model or "m",
               "strategy": strategy, "seed": settings.seed, "epochs": 3, "best_epoch": 1 + settings.seed % 3,
               "dev": dev, "cost": cost}
    scores = [{"id": str(i), "label": 0, "prediction": int(i >= accuracy * 100), "probabilities": [0.5, 0.5]}
              for i in range(100)]
    (folder / "predictions").mkdir(exist_ok=True)
    (folder / "predictions" / "dev-scores.jsonl").write_text("".join(json.dumps(score) + "\\n" for score in scores))
    (folder / "metrics.json").write_text(json.dumps(metrics))

def stop_slowly(folder):
    if (folder / "busy").exists():
        raise UserError("another process is working on this run")
    if (folder / "saved").exists():
        return
    (folder / "busy").touch()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    (folder / "ready").touch()
    signal.sigwait({signal.SIGTERM})
    time.sleep(1)
    (folder / "saved").touch()
    (folder / "busy").unlink()
    sys.exit(143)

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
"""
TABLE = {"task": "fake", "datasets": ["red"], "strategies": ["full", "lora"], "seeds": [1, 2, 4]}
TWO = {"datasets": ["red", "blue"], "seeds": [1]}
LISTED: dict[str, Any] = {}  # a script and its flags -> what it said
Start = Callable[..., Result]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "fake_task.py"
    script.write_text(FAKE)
    monkeypatch.setitem(TASK_SCRIPTS, "fake", script)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return script


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the runner gave to the comparison, which is left out."""
    from comparison import comparing

    calls: list[dict[str, Any]] = []

    def record(folders: list[Path], output_dir: Path, **others: Any) -> str:
        calls.append({"folders": folders, "output_dir": output_dir, **others})
        return "the comparison\n"

    monkeypatch.setattr(comparing, "compare_runs", record)
    return calls


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def start(
    fake: Path, handlers: None, compared: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Start:
    """Calls run_experiments.py in this process with a table, and changes to it: flags -> how it ended."""

    def run(*flags: object, in_processes: bool = False, **changes: Any) -> Result:
        path = write_table(tmp_path, **changes)
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            if not in_processes:
                patch.setattr(run_experiments, "open_pool", ask_here)
            code = call(path, "--output-dir", tmp_path / "out", *flags, script="run_experiments")
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@contextlib.contextmanager
def ask_here(jobs: int) -> Iterator[Any]:
    """Stands for the runner's pool of processes: scripts are asked in this one, where torch may be loaded already.

    What they list is kept: it takes them a second.
    """

    def submit(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        argv, answer = sys.argv, Future[Any]()
        key = str(arguments)
        try:
            answer.set_result(LISTED[key] if key in LISTED else work(*arguments))
        finally:
            sys.argv = argv
        if "--list-strategies" in key:
            LISTED[key] = answer.result()
        return answer

    yield SimpleNamespace(submit=submit)


def write_table(folder: Path, **changes: Any) -> Path:
    path = folder / "colours.yaml"
    table = {name: value for name, value in {**TABLE, **changes}.items() if value is not None}
    path.write_text(json.dumps(table))  # JSON is YAML
    return path


def start_code(fake: Path) -> str:
    """What starts the runner in a process of its own; the comparison is left out."""
    return f"""
import sys
from pathlib import Path
from types import SimpleNamespace
from run_experiments import main
from experiments.children import TASK_SCRIPTS
from training.cli import run_script
sys.modules["comparison.comparing"] = SimpleNamespace(compare_runs=lambda *_, **__: "compared")
TASK_SCRIPTS["fake"] = Path({str(fake)!r})
sys.exit(run_script(main))
"""


def cell(folder: Path, strategy: str = "full", seed: int = 1, dataset: str = "red") -> Path:
    return folder / "out" / f"fake-{dataset}-{strategy}-eNone-rNone-s{seed}"


def starts(run: Path) -> int:
    return len((run / "starts").read_text().splitlines()) if run.exists() else 0


def test_of_runs_that_differ_in_the_seed_one_is_asked_for(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []
    real = asking.call_script
    monkeypatch.setattr(asking, "call_script", lambda script, argv: (asked.append(list(argv)), real(script, argv))[1])
    assert start("--dry-run").code == 0
    assert [argv[argv.index("--seed") + 1] for argv in asked if "--dry-run" in argv] == ["1", "1"]  # full and lora

    there = cell(tmp_path, "lora", 4)  # what is there already may hold something else
    there.mkdir(parents=True)
    (there / "config.json").write_text("{}")
    asked.clear()
    assert start("--dry-run").code == 0
    assert [argv[argv.index("--seed") + 1] for argv in asked if "--dry-run" in argv] == ["1", "1", "4"]


# ---------------------------------------------------------------------------------------------------------------------
# Running and comparing
# ---------------------------------------------------------------------------------------------------------------------


def test_every_cell_is_run_once_and_all_are_compared(
    start: Start, compared: list[dict[str, Any]], tmp_path: Path
) -> None:
    done = start("--no-check")
    assert done.code == 0 and done.err == "", done.err
    folders = [cell(tmp_path, strategy, seed) for strategy in ("full", "lora") for seed in (1, 2, 4)]
    for folder in folders:
        assert starts(folder) == 1
    log = (tmp_path / "out" / "logs" / "red-full-s1.log").read_text()
    assert log.startswith("\n== fake") and log.endswith(f"results: {folders[0]}\n")
    assert "[1/6] red full s1: dev accuracy 0.510, macro-F1 0.255, epoch 2 of 3, " in done.out
    assert "[6/6] red lora s4: dev accuracy 0.640" in done.out and done.out.count(" left\n") == 5
    (comparison,) = compared
    assert comparison["folders"] == folders and comparison["title"] == "colours"
    assert comparison["command"][0] == "python" and str(tmp_path / "colours.yaml") in comparison["command"]
    report = tmp_path / "out" / "report.html"
    assert done.out.endswith(f"comparing 6 runs\n\nthe comparison\n\nreport: {report}\n")


def test_it_ends_with_the_verdicts(
    fake: Path, handlers: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real comparison, on runs of which one failed."""
    path = write_table(tmp_path, seeds=[1, 2, 13])
    assert call(path, "--output-dir", tmp_path / "out", "--no-check", script="run_experiments") == 1
    printed = capsys.readouterr().out
    assert "lora is better than full by 10.0 points" in printed
    (found,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["comparisons"]
    assert [entry["name"] for entry in found["entries"] if entry["kind"] == "run"] == ["lora", "full"]
    assert len([problem for problem in found["problems"] if "the loss is nan" in problem]) == 2
    assert "step 7: the loss is nan" in (tmp_path / "out" / "report.html").read_text()
    assert printed.endswith("not complete: red full s13, red lora s13\n")


def test_what_is_complete_is_left_alone_and_what_was_cut_off_goes_on(start: Start, tmp_path: Path) -> None:
    assert start("--no-check", seeds=[1, 2]).code == 0
    (cell(tmp_path, "lora", 2) / "metrics.json").unlink()

    states = start("--dry-run", "--jobs", 2, in_processes=True, datasets=["red", "blue"])
    lines = [" ".join(line.split()[:-1]) for line in states.out.splitlines() if line.startswith(("red", "blue"))]
    assert lines == [
        "red full s1 complete 11 s", "red full s2 complete 12 s", "red full s4 to do about 12 s",
        "red lora s1 complete 11 s", "red lora s2 to go on about 11 s", "red lora s4 to do about 11 s",
        *(f"blue {strategy} s{seed} to do about {seconds} s"
          for strategy, seconds in (("full", 12), ("lora", 11)) for seed in (1, 2, 4)),
    ]  # fmt: skip
    assert "12 runs: 3 complete, 1 to go on, 8 to do; time: about 50 s, 2 at a time" in states.out
    assert not cell(tmp_path, "full", 4).exists()

    done = start()
    assert done.code == 0 and "6 runs: 3 complete, 3 to do; time: about 34 s" in done.out
    found = {(strategy, seed): starts(cell(tmp_path, strategy, seed)) for strategy in ("full", "lora")
             for seed in (1, 2, 4)}  # fmt: skip
    assert found == {("full", 1): 1, ("full", 2): 1, ("full", 4): 1, ("lora", 1): 1, ("lora", 2): 2, ("lora", 4): 1}


def test_a_dry_run_writes_nothing_and_says_what_it_does_not_know(start: Start, tmp_path: Path) -> None:
    done = start("--dry-run")
    assert done.code == 0 and not (tmp_path / "out").exists()
    assert "0 complete, 0 to go on, 6 to do; time: unknown" in done.out and done.out.count("unknown") == 7


def test_what_stands_in_for_data_and_model_is_said_before_the_runs_and_beside_the_result(
    start: Start, tmp_path: Path
) -> None:
    notes = [
        f"note: the small bundled sample stands in for the real {name} data: no network" for name in TWO["datasets"]
    ]

    def said(out: str) -> list[str]:
        return [line for line in out.splitlines() if line.startswith("note: ")]

    assert said(start("--dry-run", **TWO).out) == notes
    done = start(**TWO)
    assert said(done.out) == notes * 2
    before, _, beside = done.out.partition("[4/4]")
    assert said(before) == said(beside) == notes
    assert said(start(**TWO).out) == notes * 2  # all of them complete
    printed = start("--print-commands", "--seeds", 3, **TWO)
    assert said(printed.out) == [] and said(printed.err) == notes
    assert said(start("--dry-run", data_dir=str(tmp_path), **TWO).out) == []


def test_without_the_check_complete_runs_are_found_by_starting_them(
    start: Start, compared: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert start("--no-check", seeds=[2]).code == 0
    done = start("--no-check")
    assert done.code == 0 and "checking" not in done.out and "6 runs: 0 complete, 6 to do" in done.out
    assert starts(cell(tmp_path, "full", 2)) == 1  # the script says that it is complete
    assert len(compared[1]["folders"]) == 6
    # One that was complete took what its record says, not what it took to find that out.
    said = start("--no-check", seeds=[1, 2], strategies=["full"]).out
    assert said.partition("[2/2]")[0].rstrip().endswith("; about 11 s left")
    for flag in ("--dry-run", "--print-commands"):
        assert f"{flag} and --no-check" in start("--no-check", flag).errors[0]


@pytest.mark.parametrize("flags", [[], ["--no-continue-on-error"]], ids=["goes on", "stops"])
def test_a_run_that_fails(start: Start, compared: list[dict[str, Any]], tmp_path: Path, flags: list[str]) -> None:
    done = start("--no-check", *flags, seeds=[1, 13, 2], strategies=["full"])
    assert done.code == 1
    log = tmp_path / "out" / "logs" / "red-full-s13.log"
    assert done.errors == [f"error: red full s13: step 7: the loss is nan; try a smaller rate (log: {log})"]
    assert "[2/3] red full s13: failed: step 7: the loss is nan" in done.out
    missing = "red full s13, red full s2" if flags else "red full s13"
    assert f"not complete: {missing}\n" in done.out
    assert cell(tmp_path) in compared[0]["folders"]
    assert starts(cell(tmp_path, seed=2)) == (0 if flags else 1)


def test_a_run_that_is_killed_is_noted_and_tried_again(start: Start, tmp_path: Path) -> None:
    done = start("--no-check", seeds=[14], strategies=["full"])
    assert done.code == 1 and "killed by SIGKILL, perhaps for want of memory" in done.errors[0]
    note = json.loads((cell(tmp_path, seed=14) / "failed.json").read_text())
    assert note["error"] == "killed by SIGKILL, perhaps for want of memory" and note["step"] is None
    states = start("--dry-run", seeds=[14, 1], strategies=["full"])
    assert "red full s14  to try again" in states.out and "1 to do, 1 to try again" in states.out
    assert start("--no-check", seeds=[14], strategies=["full"]).code == 1
    assert starts(cell(tmp_path, seed=14)) == 2


class Terminal:
    """A standard error that is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start("--no-check", seeds=[1], strategies=["full"]).code == 0
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    done = start(seeds=[2], strategies=["full"])
    assert done.code == 0 and "[1/1] red full s2: dev accuracy 0.520" in done.out
    assert "0/1 runs" in terminal.text and "about 11 s left: red full s2" in terminal.text


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
    flags = [str(path), "--output-dir", str(tmp_path / "out"), "--jobs", "2", "--no-check"]

    def command() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", start_code(fake), *flags], cwd=tmp_path, capture_output=True, text=True, timeout=60,
            start_new_session=True, env=os.environ | {"FAKE_FIFO": str(tmp_path / "fifo")},
        )  # fmt: skip

    done = command()
    assert done.returncode == 130, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("interrupted; to go on, run the same command again: python ")
    assert line.endswith(" ".join(flags))
    for seed in (66, 67):  # the runner alone passes the signal on: a second one would end them without saving
        assert (cell(tmp_path, seed=seed) / "saved").read_text() == "alone"
    assert not cell(tmp_path, seed=1).exists() and not (tmp_path / "out" / "report.html").exists()

    done = command()
    assert done.returncode == 0 and done.stderr == ""
    assert starts(cell(tmp_path, seed=66)) == 2 and (cell(tmp_path, seed=1) / "metrics.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_a_runner_that_is_killed_takes_its_runs_along_and_the_next_one_waits_for_them(
    start: Start, fake: Path, tmp_path: Path
) -> None:
    flags = [str(write_table(tmp_path, strategies=["full"], seeds=[77])), "--output-dir", str(tmp_path / "out")]
    runner = subprocess.Popen([sys.executable, "-c", start_code(fake), *flags, "--no-check"], cwd=tmp_path)
    run = cell(tmp_path, seed=77)
    for _ in range(6000):
        if (run / "ready").exists():
            break
        time.sleep(0.01)
    runner.kill()
    runner.wait()
    done = start("--no-check", strategies=["full"], seeds=[77])
    assert done.code == 0 and starts(run) == 2 and (run / "metrics.json").exists()


def test_two_runners_do_not_share_a_folder(start: Start, tmp_path: Path) -> None:
    from storage import lock_folder

    lock = lock_folder(tmp_path / "out", "testing")
    done = start("--no-check")
    assert done.code == 2 and "another process is running experiments in it" in done.errors[0]
    lock.close()


def test_devices_take_one_run_each(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert start("--no-check", "--devices", "cuda:1,cpu", seeds=[1], strategies=["full", "lora"]).code == 0
    full, lora = (cell(tmp_path, strategy) for strategy in ("full", "lora"))
    first, second = (json.loads((run / "config.json").read_text()) for run in (full, lora))
    assert first["gpus"] == "7" and first["argv"][-1] == "--use-gpu"
    assert second["gpus"] == "5,7" and second["argv"][-1] == "--no-use-gpu"
    assert (full / "starts").read_text() == (lora / "starts").read_text() == "3\n"
    refused = start("--no-check", "--devices", "cpu", "cuda:2", "cuda", "cpu", "--jobs", 2)
    assert refused.code == 2 and [line.partition(": ")[2].partition(";")[0] for line in refused.errors] == [
        "--jobs and --devices: each device takes one run at a time",
        "--devices cpu: is named 2 times", "--devices cuda:2: CUDA_VISIBLE_DEVICES=5,7 leaves 2 to use",
        "--devices cuda: must be cpu, or cuda:0 for the first GPU, cuda:1 for the second, ...",
    ]  # fmt: skip
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [place.environment for place in device_places(["cuda:3", "cpu"])] == [{"CUDA_VISIBLE_DEVICES": "3"}, {}]


def test_a_gpu_that_is_not_there_is_refused(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    one = "from types import SimpleNamespace\ncuda = SimpleNamespace(device_count=lambda: 1)\n"
    (tmp_path / "torch.py").write_text(one)
    monkeypatch.syspath_prepend(tmp_path)
    for devices, asked in ((["cuda:0", "cuda:1"], "GPU 0 and GPU 1"), (["cuda:5"], "GPU 5")):
        done = start("--devices", *devices, in_processes=True, seeds=[1])
        message = f"error: --devices: {asked} asked for, and torch finds 1 GPU here; name others"
        assert done.code == 2 and done.errors == [message]


def test_printed_commands_run_elsewhere_and_count_here(start: Start, tmp_path: Path) -> None:
    assert start("--no-check", seeds=[1], strategies=["full"]).code == 0
    there = tmp_path / "it's a cluster"
    here, changes = tmp_path / "out", {"seeds": [1, 2], "strategies": ["full"], "settings": {"lr": 0.5}}
    assert start("--print-commands", "--output-dir", there, **changes).out.count("\n") == 2
    printed = start("--print-commands", "--output-dir", there, "--only", "seed=2", **changes).out
    (line,) = printed.splitlines()
    assert shlex.split(line)[:2] == ["python", str(tmp_path / "fake_task.py")]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(line, shell=True, check=True, env=environment, stdout=subprocess.DEVNULL)
    shutil.copytree(there, here, dirs_exist_ok=True)
    assert start("--print-commands", **changes).out == ""
    said = start("--print-commands", **changes).err.splitlines()
    assert said[0].startswith("checking 2 runs") and all(line.startswith("note: ") for line in said[1:])
    refused = start("--print-commands", "--dry-run", "--devices", "cpu")
    assert [line.split(": ")[1] for line in refused.errors] == [
        "--dry-run and --print-commands", "--print-commands and --devices"
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Real runs, killed
# ---------------------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """Stands for the end of the runner's process."""


class Forked:
    """What ``subprocess.Popen`` would start, forked from a process that has loaded torch already.

    Attributes:
        crash_at: lines in the logs of all runs at which the script is killed, and the runner with it.
    """

    scratch: ClassVar[Path] = Path()
    crash_at: ClassVar[float] = float("inf")

    def __init__(self, command: list[str], *, stdout: Any, **others: Any) -> None:
        self.log = Path(stdout.name)
        self.child = Child([*command[2:]], self.scratch, script=Path(command[1]).stem)

    def poll(self) -> int | None:
        logs = self.log.parents[1].glob("*/log.jsonl")
        if sum(log.read_bytes().count(b"\n") for log in logs) >= self.crash_at:
            self.child.process.kill()
            self.child.process.join()
            raise Crash
        return None if self.child.is_running else self.wait()

    def wait(self) -> int:
        done = self.child.wait()
        self.log.write_text(done.out + done.err)
        return done.code


def test_killed_at_any_moment_it_comes_to_the_same_scores_and_verdicts(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comparison import report

    monkeypatch.setattr(report, "write_report", lambda *_, **__: None)  # its pictures take longer than the runs
    popen = SimpleNamespace(Popen=Forked, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(children, "subprocess", popen)
    monkeypatch.setattr(Forked, "scratch", tmp_path)
    monkeypatch.setattr(run_experiments, "open_pool", ask_here)
    settings = {"epochs": 2, "batch-size": 8, "precision": "fp32", "save-every": 1e-6}
    table = {"task": "sentiment", "datasets": ["sst"], "model": str(tiny_model), "data_dir": str(tiny_data),
             "strategies": ["full", "head"], "seeds": [1, 2], "settings": settings}  # fmt: skip
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(table))

    def run(name: str, crash_at: float = float("inf")) -> int:
        monkeypatch.setattr(Forked, "crash_at", crash_at)
        gc.collect()  # with what is left of a runner that crashed goes its lock
        return call(path, "--output-dir", tmp_path / name, "--no-check", script="run_experiments")

    assert run("whole") == 0
    for lines in (3, 18, 40):  # of 56
        with pytest.raises(Crash):
            run("killed", lines)
    assert run("killed") == 0
    whole, killed = (sorted((tmp_path / name).glob("sentiment-*")) for name in ("whole", "killed"))
    assert [run.name for run in whole] == [run.name for run in killed] and len(whole) == 4
    assert [results_of(run) for run in whole] == [results_of(run) for run in killed]
    assert verdicts(tmp_path / "whole") == verdicts(tmp_path / "killed")


def verdicts(folder: Path) -> list[Any]:
    (found,) = json.loads((folder / "comparison.json").read_text())["comparisons"]
    names = ("name", "kind", "value", "std", "interval")
    return [[{name: entry[name] for name in names} for entry in found["entries"]], found["pairs"]]


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
    full, lora = (tmp_path / "out" / f"fake-blue-{name}" for name in ("full-e3-rNone-s7", "lora-e5-r2-s7"))
    assert argv_of(full) == ["--dataset", "blue", "--strategy", "full", *common, "--epochs=3", *others]
    assert argv_of(lora) == ["--dataset", "blue", "--strategy", "lora", *common, "--epochs=5", *others, "--lora-rank=2"]


def test_several_tables_share_what_stands_above_them(start: Start, tmp_path: Path) -> None:
    tables = [{"name": "short", "settings": {"epochs": 1}}, {"name": "long", "seeds": [9], "strategies": "baseline"}]
    done = start(seeds=[1], settings={"epochs": 4}, tables=tables)
    assert done.code == 0, done.err
    names = ["fake-red-full-e1-rNone-s1", "fake-red-full-e4-rNone-s9", "fake-red-lora-e1-rNone-s1"]
    assert sorted(path.name for path in (tmp_path / "out").glob("fake-*")) == names
    assert "[1/3] short: red full s1: dev" in done.out and "[3/3] long: red baseline s9: dev" in done.out


def test_only_some_are_run_and_the_comparison_is_of_all(
    start: Start, compared: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert start("--only", "strategy=full", "seed=1,2").code == 0
    done = start("--only", "strategy=lora", "seed=4")
    assert done.code == 0 and "1 run: 0 complete, 1 to do" in done.out
    assert compared[1]["folders"] == [cell(tmp_path, "full", 1), cell(tmp_path, "full", 2), cell(tmp_path, "lora", 4)]
    assert "not complete: red full s4, red lora s1, red lora s2\n" in done.out
    done = start("--only", "strategy=full", "strategy=lora", "seed=1", "--dry-run")
    assert done.code == 0 and "2 runs: 1 complete, 0 to go on, 1 to do" in done.out
    refused = start("--only", "strategy=head", "colour=red")
    tables = [{"name": "a", "vary": {"epochs": [1, 2]}}, {"name": "b"}]
    assert start("--no-check", "--only", "epochs=1", "table=b", tables=tables).errors == [
        "error: --only epochs=1 table=b: no run has all of it; --dry-run lists the runs"
    ]
    assert start("--no-check", "--only", "epochs=3", tables=tables).errors == [
        "error: --only epochs=3: no run has epochs '3'; there are 1, 2"
    ]
    keys = "table=..., dataset=..., model=..., strategy=..., seed=..."
    assert refused.code == 2 and refused.errors == [
        "error: --only strategy=head: no run has strategy 'head'; there are full, lora",
        f"error: --only colour=red: must be {keys}",
    ]


def test_models_and_varied_settings_are_crossed(start: Start, tmp_path: Path) -> None:
    table = {"models": ["m", "n"], "vary": {"epochs": [1, 2], "zone_rates": [[1, 2, 3]]}, "seeds": [1]}
    cells = read_experiment(write_table(tmp_path, **table)).cells
    assert len({one.label for one in cells}) == len(cells) == 8
    assert cells[0].label == "red m full epochs 1 zone-rates 1+2+3 s1"
    assert cells[0].argv[-5:] == ("--epochs=1", "--zone-rates", "1", "2", "3")
    assert [place for place in cells[-1].places.items() if place[0] not in ("table", "dataset", "seed")] == [
        ("model", "n"), ("strategy", "lora"), ("epochs", "2"), ("zone-rates", "1+2+3")
    ]  # fmt: skip
    done = start("--no-check", "--only", "epochs=2", "strategy=lora", seeds=[1], vary={"epochs": [1, 2]})
    assert done.code == 0 and "[1/1] red lora epochs 2 s1: dev" in done.out
    refused = start("--no-check", vary={"lora-rank": [1, 1.5], "colour": [1]})
    assert [line.split(".yaml: ")[1] for line in refused.errors] == [
        "vary: colour: 1: unrecognized arguments: --colour=1 (see --help)",
        "vary: lora-rank: 1.5: argument --lora-rank: invalid int value: '1.5' (see --help)",
    ]


def test_a_tilde_is_the_home_folder(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    nowhere = read_experiment(write_table(tmp_path, output_dir=""))
    assert nowhere.problems == (f"{nowhere.path}: output_dir: is empty; name a folder, or leave it out",)
    path = write_table(tmp_path, output_dir="~/x")
    assert read_experiment(path).output_dir == tmp_path / "x"
    assert read_experiment(path, output_dir="~/y").output_dir == tmp_path / "y"


def test_two_files_share_their_runs(
    fake: Path, handlers: None, compared: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("experiments.table.ROOT", tmp_path)
    monkeypatch.setattr(run_experiments, "open_pool", ask_here)
    first, second, own = tmp_path / "first.yaml", tmp_path / "second.yaml", tmp_path / "runs" / "second"
    write_table(tmp_path, seeds=[1, 2]).rename(first)
    write_table(tmp_path, seeds=[2, 4], strategies=["full"], runs_of="first").rename(second)
    assert call(first, script="run_experiments") == call(second, script="run_experiments") == 0
    assert "2 runs: 1 complete, 1 to do" in capsys.readouterr().out
    runs = tmp_path / "runs" / "first"
    assert sorted(path.name for path in runs.glob("fake-*")) == [
        f"fake-red-{strategy}-eNone-rNone-s{seed}" for strategy, seed in (("full", 1), ("full", 2), ("full", 4),
                                                                         ("lora", 1), ("lora", 2))
    ]  # fmt: skip
    assert starts(runs / "fake-red-full-eNone-rNone-s2") == 1
    assert compared[1]["output_dir"] == own and [path.parent for path in compared[1]["folders"]] == [runs, runs]
    with contextlib.closing(lock_folder(runs, "busy")):  # a runner of the first file
        assert call(second, script="run_experiments") == 2
    elsewhere = read_experiment(second, output_dir="~/y")
    assert elsewhere.runs_dir == elsewhere.output_dir


def test_a_file_that_shares_runs_names_one_beside_it(fake: Path, tmp_path: Path) -> None:
    path = write_table(tmp_path, runs_of="other", output_dir="out")
    assert read_experiment(path).problems == (
        f"{path}: output_dir and runs_of: each says where the runs go; leave one of them out",
        f"{path}: runs_of: 'other' is no file of experiments beside this one: other.yaml",
    )


@pytest.mark.parametrize("other", ["sub/sst", "/sst", "", ".", "sst/"])
def test_a_file_that_shares_runs_names_it_barely(fake: Path, tmp_path: Path, other: str) -> None:
    path = write_table(tmp_path, runs_of=other, output_dir=None)
    assert read_experiment(path).problems == (
        f"{path}: runs_of: {other!r} is not the bare name of a file beside this one",
    )


def test_folders_that_an_unset_variable_left_empty_are_told(start: Start) -> None:
    assert start("--data-dir", "", "--output-dir=").errors == [
        f"error: --{name}-dir: is empty; name a folder, or leave it out" for name in ("data", "output")
    ]


def test_a_list_is_one_value_for_only(fake: Path, tmp_path: Path) -> None:
    table = {"vary": {"lora-targets": [["q"], ["v"], ["q", "v"]]}, "strategies": ["lora"], "seeds": [1]}
    cells = read_experiment(write_table(tmp_path, **table)).cells
    chosen = {text: [cell.argv[-1] + str(len(cell.argv)) for cell in choose_cells(cells, [f"lora-targets={text}"])]
              for text in ("q", "q,v", "q+v", "v,q+v")}  # fmt: skip
    q, v, both = (cell.argv[-1] + str(len(cell.argv)) for cell in cells)
    assert chosen == {"q": [q], "q,v": [q, v], "q+v": [both], "v,q+v": [v, both]} and len({q, v, both}) == 3


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
        in_processes=True, model=7, seed=3,
        seeds=[1, "x"], datasets=["red", "green"], strategies=["full", "lora", "fulll"],
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


def test_without_datasets_the_script_takes_what_it_takes_without_the_flag(start: Start, tmp_path: Path) -> None:
    table = {"datasets": None, "strategies": ["full"], "seeds": [1]}
    done = start(**table)
    assert done.code == 0 and "[1/1] colours full s1: dev" in done.out
    assert "--dataset" not in argv_of(cell(tmp_path))
    tables = [{"name": "mine"}, {"name": "named", "datasets": "blue"}]
    cells = read_experiment(write_table(tmp_path, **table, tables=tables)).cells
    assert [one.label for one in cells] == ["mine: full s1", "named: blue full s1"]
    assert choose_cells(cells, ["dataset=blue"]) == [cells[1]] and "dataset" not in cells[0].places


def folders_of(path: Path) -> dict[str, str]:
    """The runs that a file asks for, and what the scripts call their folders."""
    experiment = read_experiment(path)
    assert experiment.problems == ()
    with ask_here(1) as pool:
        folders = asking.check_runs(experiment, experiment.cells, pool).folders
    return {one.label: folder.name for one, folder in folders.items()}


def test_a_table_of_the_users_own_files(tmp_path: Path, tiny_model: Path, handlers: None) -> None:
    rows = ["sentence\tlabel", "a fine film\t1", "a dull film\t0", "fine\t1", "dull\t0"]
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("\n".join([*rows, f"one for {name}\t1"]) + "\n")
    files = {f"{name}-file": str(tmp_path / f"{name}.tsv") for name in ("train", "dev")}
    table = {"task": "sentiment", "strategies": ["full", "head"], "seeds": [1], "model": str(tiny_model)}
    path = tmp_path / "reviews.yaml"
    path.write_text(json.dumps(table | {"settings": files}))
    name = f"sentiment-custom-{tiny_model.name}"
    assert {label: folder.rpartition("-")[0] for label, folder in folders_of(path).items()} == {
        "reviews full s1": f"{name}-full-s1", "reviews head s1": f"{name}-head-s1"
    }  # fmt: skip
    both = table | {"settings": files, "datasets": ["sst"]}
    for wrong, message in ((table, "is missing; or name your own"), (both, "your own files are named already")):
        path.write_text(json.dumps(wrong))
        (problem,) = read_experiment(path).problems
        assert problem.startswith(f"{path}: datasets: {message}")


def test_a_table_of_a_bundled_sample(tmp_path: Path, handlers: None) -> None:
    path = tmp_path / "pairs.yaml"
    path.write_text(json.dumps({"task": "inference", "strategies": ["lora"], "model": "mini", "seeds": [1]}))
    assert folders_of(path) == {"pairs lora s1": "inference-en-sample-mini-lora-s1"}


def test_another_model_than_the_files(start: Start, tmp_path: Path) -> None:
    changes = {"strategies": ["full"], "seeds": [1], "vary": {"epochs": [1, 2]}}
    done = start("--model", "mine", models=["a", "b"], **changes)
    assert done.code == 0 and "--model mine: instead of a, b, for all runs\n" in done.out
    argv = argv_of(tmp_path / "out" / "fake-red-full-e1-rNone-s1")
    assert argv[argv.index("--model") + 1] == "mine"
    assert "[2/2] red full epochs 2 s1: dev" in done.out
    assert "instead of" not in start("--model", "mine", "--dry-run", model="a", **changes).out
    printed = start("--model", "mine", "--print-commands", models=["a", "mine", "b"], **changes)
    assert "instead of a, b," in printed.err and "instead of" not in printed.out
    assert "--model a: instead of b, for" in start("--model", "a", "--dry-run", models=["a", "b"], **changes).out
    assert start("--model", "").errors == ["error: --model: is empty; name a model, or leave it out"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("task: [", "is not YAML"),
        ("- a\n- b", "must hold 'key: value' lines"),
        ("task: fake\nsettings:\n  lr: 1\n  lr: 2", "lr: stands there twice, in line 3 and line 4"),
        ("task: fake\ndatasets: red", "strategies: is missing"),
        ("{task: dance, datasets: red, strategies: full}", "task: 'dance' is none of sentiment, paraphrase"),
        ("{task: fake, datasets: red, strategies: full, tables: 3}", "tables: must be a list of tables"),
        ("{task: fake, datasets: red, strategies: []}", "strategies: [] is not a list of names"),
        ("{task: fake, datasets: red, strategies: full, settings: [1]}", "settings: [1] is not a list of"),
        ("{task: fake, datasets: red, strategies: full, settings: {lr: {}}}", "settings: lr: {} is no number"),
        ("{task: fake, datasets: red, strategies: full, per_strategy: {lora: {lr: 1}}}", "per_strategy: lora: is not"),
        ("{task: fake, datasets: red, strategies: full, vary: [1]}", "vary: [1] is not a list of 'flag: [value"),
        ("{task: fake, datasets: red, strategies: full, vary: {lr: 1}}", "vary: lr: 1 is not a list of values"),
        ("{task: fake, datasets: red, strategies: full, vary: {seed: [1]}}", "vary: seed: can't be set here"),
        ("{task: fake, datasets: red, strategies: full, vary: {lr: [1]}, settings: {lr: 2}}", "in settings too; leave"),
        ("{task: fake, datasets: red, strategies: full, model: a, models: [b]}", "model and models: say the same"),
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


def problems_with_mini(one: Cell) -> list[str]:
    """What the script of a classification would refuse of a run with the bundled model."""
    script: tuple[type[ClassificationSettings], Mapping[str, Any]] = {
        "sentiment": (ClassifierSettings, datasets.SENTIMENT_TASKS),
        "paraphrase": (ParaphraseSettings, datasets.PARAPHRASE_TASKS),
    }[one.task]
    settings_class, tasks = script
    settings, given = parse_settings(settings_class, build_parser(settings_class, "", ""), one.argv)
    strategy, task = choose_strategy(settings.strategy, settings.fine_tune_mode, one.task), tasks[settings.dataset[0]]
    defaults = strategy.defaults(task.name)
    card = fine_tuning_defaults(BUNDLED_CHECKPOINTS / "mini", task.name, strategy.name, defaults, one.task)
    config = read_config(BUNDLED_CHECKPOINTS / "mini")
    return problems_of(with_defaults(settings, given, defaults, card), given, strategy, config)


def test_a_cell_that_its_script_would_refuse_is_found(fake: Path, tmp_path: Path) -> None:
    table = {"task": "sentiment", "datasets": "sst", "strategies": "ulmfit", "settings": {"epochs": 3}, "seeds": [1]}
    (short,) = read_experiment(write_table(tmp_path, **table)).cells
    assert problems_with_mini(short)[0].startswith("--epochs 3: ")


FILES = sorted(path for path in (ROOT / "experiments").glob("*.yaml") if path.name != "published.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_files_of_the_repository_are_in_order(path: Path) -> None:
    experiment = read_experiment(path)
    assert experiment.problems == () and experiment.output_dir == ROOT / "runs" / path.stem
    for table in experiment.tables:
        assert set(table.strategies) <= strategies_of(table.task).keys() | ALIASES.get(table.task, {}).keys()
        known = {
            "sentiment": datasets.SENTIMENT_TASKS.keys(), "paraphrase": datasets.PARAPHRASE_TASKS.keys(),
            "sonnet": {"shakespeare"}, "inference": {"sick", "rte", "kornli"}, "question-answering": {"korquad"},
            "summarization": {"bbc"}, "text-generation": {"chatbot"},
        }  # fmt: skip
        assert set(table.datasets) <= known[table.task] - {"custom"}
        models = {"published": "gpt2", "nsmc.yaml": "ko-mini"}
        usual = "ko-mini" if set(table.datasets) & {"kornli", "korquad", "chatbot"} else "mini"
        if path.name != "comparators.yaml":
            assert table.models == (models.get(path.name, models.get(path.name.partition("-")[0], usual)),)
    refused = {one.label: problems_with_mini(one) for one in experiment.cells if one.task in CLASSIFICATION}
    assert not any(refused.values()), refused
    runs = {
        "sst.yaml": 50, "cfimdb.yaml": 18, "qqp.yaml": 18, "full-grid.yaml": 36, "sonnets.yaml": 80, "quick.yaml": 12,
        "nsmc.yaml": 9, "sst-fractions.yaml": 60, "published-sentiment.yaml": 9, "published-qqp.yaml": 12,
        "published-sonnets.yaml": 15, "text-tasks.yaml": 54, "mini.yaml": 18, "ablations.yaml": 15,
        "comparators.yaml": 12,
    }  # fmt: skip
    assert len(experiment.cells) == runs[path.name]


def test_tables_of_sst_share_their_runs() -> None:
    names = ("sst", "sst-fractions", "ablations")
    found = {name: read_experiment(ROOT / "experiments" / f"{name}.yaml") for name in names}
    assert {experiment.runs_dir for experiment in found.values()} == {ROOT / "runs" / "sst"}


def test_the_tables_have_every_strategy() -> None:
    found: dict[str, set[str]] = {}
    for name in ("sst", "cfimdb", "qqp", "full-grid", "sonnets"):
        for one in read_experiment(ROOT / "experiments" / f"{name}.yaml").cells:
            found.setdefault(one.dataset, set()).add(one.strategy)
    assert found["sst"] == found["cfimdb"] == strategies_of("sentiment").keys()
    assert found["shakespeare"] == (strategies_of("sonnet").keys() | {"baseline"}) - {"last-n", "llrd-zones"}
    assert found["qqp"] == strategies_of("paraphrase").keys() | {"taskA", "taskB", "taskC"}


@pytest.mark.parametrize("page", ["findings", "experiments"])
def test_the_commands_of_the_pages_name_what_is_there(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python run_experiments\.py ([^#>\n]+)", text, re.MULTILINE)
    assert len(commands) > 3
    for command in commands:
        settings, path, _ = run_experiments.parse_arguments(shlex.split(command))
        experiment = read_experiment(path, settings.seeds, settings.data_dir, settings.output_dir, settings.model)
        assert experiment.problems == () and choose_cells(experiment.cells, settings.only or [])


# ---------------------------------------------------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------------------------------------------------


def test_wide_letters_take_two_columns() -> None:
    lines = aligned([["run", "state"], ["감성분석: full", "to do"], ["red: full", "complete"]]).splitlines()
    assert lines == ["run             state", "감성분석: full  to do", "red: full       complete"]


def test_runs_behind_links_are_known_once(tmp_path: Path) -> None:
    run = tmp_path / "elsewhere" / "fake-red-full-s1"
    run.mkdir(parents=True)
    names = {"task": "fake", "dataset": "red", "model": "m", "strategy": "full"}
    (run / "metrics.json").write_text(json.dumps({**names, "cost": {"total_seconds": 30}}))
    (run / "config.json").write_text("{}")
    (tmp_path / "runs").mkdir()
    for name in ("one", "two"):
        (tmp_path / "runs" / name).symlink_to(run.parent)
    (run.parent / "back").symlink_to(tmp_path / "runs")
    assert [timed.seconds for timed in known_runs(tmp_path / "runs")] == [30]


def test_the_time_left_is_of_the_closest_kind(fake: Path, tmp_path: Path) -> None:
    cells = read_experiment(write_table(tmp_path, datasets=["red", "blue"], seeds=[1, 2])).cells
    full, full2, lora, lora2, blue = cells[:5]
    assert [c.label for c in (full, lora2, blue)] == ["red full s1", "red lora s2", "blue full s1"]
    costs = {("fake", "full"): 1.0, ("fake", "lora"): 0.5}
    times = Times({one: planned_work(one) for one in cells}, [], costs, places=1)
    assert times.of(full) is None and str(times.left([full])) == "unknown" and times.left([]).seconds == 0
    times.learn(full, 30.0)  # 10 of these are taken for loading
    assert (
        times.of(full2) == 30 and times.of(lora2) == 10 + 20 / 2 and times.of(blue) == 30
    )  # the closest that is known
    times.learn(lora, 40.0)
    assert times.left([full2, lora2]).seconds == 30 + 40  # each as its own strategy
    assert times.left([full2, lora2], {"red full s2": 4.0}).seconds == 26 + 40
    assert times.left([full2, lora2], {"red full s2": 99.0}).seconds == 40
    times.places = 2
    assert times.left([full2, lora2]).seconds == 40  # one run can't be split
    times.works = {**times.works, blue: Work("x", "other", "blue", "m", "full")}
    assert str(times.left([full2, blue])) == "more than 30 s"
    assert [duration(x) for x in (99, 600, 7200)] == ["99 s", "10 min", "2.0 h"]


def test_runs_with_the_same_settings_come_before_those_of_the_strategy(fake: Path, tmp_path: Path) -> None:
    full, lora = read_experiment(write_table(tmp_path, seeds=[1])).cells
    plain, in_form = (
        {
            cell.strategy: planned_work(cell, "", tmp_path / f"fake-red-m-{cell.strategy}-s1{end}")
            for cell in (full, lora)
        }
        for end in ("", "-abcdef")
    )
    known = [Timed(plain["lora"], 30.0, 20.0), Timed(in_form["full"], 300.0, 20.0)]
    assert Times({lora: in_form["lora"]}, known, {}, places=1).of(lora) == 300.0
    assert Times({full: plain["full"]}, known, {}, places=1).of(full) == 30.0


def test_times_are_scaled_from_the_nearest_size(fake: Path, tmp_path: Path) -> None:
    (cell_,) = read_experiment(write_table(tmp_path, strategies=["full"], seeds=[1])).cells

    def work(examples: int, seed: int) -> Work:
        output = (
            f"== fake on red: full (..)\nmodel     m (x: y)\ndata      {examples:,} train\ntraining  epochs 2, ..\n"
        )
        return planned_work(cell_, output, tmp_path / f"fake-red-m-full-s{seed}-{examples:06x}")

    assert work(1000, 7) == Work("fake-red-m-full-0003e8", "fake", "red", "m", "full", 2000.0, settings="-0003e8")
    known = [Timed(work(100, 1), 10.0), Timed(work(1000, 1), 30.0)]
    times = Times({cell_: work(2000, 1)}, known, {}, places=1)
    assert times.of(cell_) == 10.0 + 2 * 20.0
    times.works = {cell_: work(100, 2)}
    assert times.of(cell_) == 10.0  # another seed of what is known


@pytest.mark.parametrize(
    ("device", "threads", "seconds"),
    [("CPU, 2 threads", 2.0, 610), ("CPU, 2 threads", 0.5, 10 + 4 * 600), ("CPU, 2 threads", None, None),
     ("a GPU", None, 610), ("a GPU", 2.0, None)],
)  # fmt: skip
def test_before_any_run_is_known_the_script_says_how_long_it_takes(
    device: str, threads: float | None, seconds: float | None, fake: Path, tmp_path: Path
) -> None:
    one, other = read_experiment(write_table(tmp_path, seeds=[1])).cells
    output = f"device    {device}, fp32\ntime      about 610 s on this machine, from 3 TFLOP of training\n"
    times = Times({cell_: planned_work(cell_, output) for cell_ in (one, other)}, [], {}, 1, threads)
    assert times.of(one) == seconds
    times.learn(one, 20.0)
    assert times.of(other) == 20
    assert planned_work(one, output.replace("610 s", "1.5 h")).expected == 5400


def test_only_training_grows_with_the_data(fake: Path, tmp_path: Path) -> None:
    cells = read_experiment(write_table(tmp_path, seeds=[1])).cells
    full, lora = cells
    costs = {("fake", "full"): 1.0, ("fake", "lora"): 0.5}
    times = Times({one: planned_work(one) for one in cells}, [], costs, places=1)
    times.learn(full, 100.0, 60.0)
    assert times.of(full) == 100 and times.of(lora) == 40 + 60 / 2


def test_runs_that_share_the_cores_gain_no_time_by_it(fake: Path, tmp_path: Path) -> None:
    cells = read_experiment(write_table(tmp_path, strategies=["full"], seeds=[1, 2])).cells
    works = {one: planned_work(one) for one in cells}
    known = [Timed(works[cells[0]], 110.0, 60.0, 2)]  # 10 of these are taken for loading
    alone, shared, crowded = (Times(works, known, {}, places, 2 / places) for places in (1, 2, 4))
    assert alone.of(cells[1]) == 110 and alone.left(cells).seconds == 220
    assert shared.of(cells[1]) == 10 + 200 and shared.left(cells).seconds == 210
    assert crowded.of(cells[1]) == 10 + 400
    devices = Times(works, known, {}, 2)
    assert devices.left(cells).seconds == 110
    unknown = Times(works, [Timed(works[cells[0]], 110.0)], {}, 2, 1.0)
    assert unknown.of(cells[1]) == 110


def test_a_gpus_times_say_nothing_of_a_cpus(fake: Path, tmp_path: Path) -> None:
    cells = read_experiment(write_table(tmp_path, strategies=["full"], seeds=[1, 2])).cells
    works = {one: planned_work(one) for one in cells}
    for name, device, seconds in (("g-s3", "Tesla T4, bf16", 20.0), ("c-s3", "CPU, 2 threads, fp32", 600.0)):
        (tmp_path / name).mkdir()
        about = {"task": "fake", "dataset": "red", "model": works[cells[0]].model, "strategy": "full", "epochs": 3}
        metrics = about | {"cost": {"total_seconds": seconds}}
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
        config = {"environment": {"threads": 2, "device": device}}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    known = [timed for name in ("g-s3", "c-s3") if (timed := read_timed(tmp_path / name))]
    assert [timed.on_gpu for timed in known] == [True, False]
    on_cpu, on_gpu = Times(works, known, {}, 1, 2.0), Times(works, known, {}, 1)
    assert on_cpu.of(cells[1]) == 600 and on_gpu.of(cells[1]) == 20
    assert Times(works, known[:1], {}, 1, 2.0).of(cells[1]) is None
    on_gpu.learn(cells[0], 40.0)
    assert Times(works, on_gpu.known, {}, 1, 2.0).of(cells[1]) == 600


@pytest.mark.parametrize("jobs, share", [(1, 6), (2, 3), (4, 1), (12, 0.5)])
def test_the_share_of_the_processor(monkeypatch: pytest.MonkeyPatch, jobs: int, share: float) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert children.share_of_threads(jobs) == share


def test_the_scripts_name_the_folder_of_a_run_before_and_after_it(
    run: Start, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """What the runner relies on in the scripts of tasks."""
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--output-dir", tmp_path, "--dataset", "sst"]
    flags = [str(flag) for flag in [*flags, "--strategy", "head", "--epochs", 1, "--precision", "fp32"]]
    script = TASK_SCRIPTS["sentiment"]
    planned = call_script(script, [*flags, "--dry-run"])
    assert planned.code == 0 and planned.problems == [] and list(tmp_path.iterdir()) == []
    listed = call_script(script, ["--list-strategies"])
    costs = read_costs("sentiment", listed.out)
    assert costs.keys() == {("sentiment", name) for name in strategies_of("sentiment")}
    assert costs["sentiment", "full"] == 1.0 > costs["sentiment", "lora"]
    done = run(*flags)
    assert done.code == 0, done.err
    again = call_script(script, [*flags, "--dry-run"])
    assert only_run(tmp_path) == run_folder(planned.out) == run_folder(done.out) == run_folder(again.out)
    (one,) = read_experiment(write_table(tmp_path.parent, task="sentiment", strategies=["baseline"], seeds=[1])).cells
    work = planned_work(one, planned.out, run_folder(planned.out))
    timed = read_timed(only_run(tmp_path))
    assert timed is not None and timed.seconds > 0
    assert timed.work == replace(work, expected=None, threads=None)
    assert work.expected is not None and LOADING <= work.expected < 60 and work.threads == 1
    assert (work.task, work.dataset, work.model, work.strategy, work.size) == ("sentiment", "sst", "tiny", "head", 45.0)
    refused = call_script(script, [*flags, "--epochs", "0"])
    assert refused.code == 2 and refused.problems == ["--epochs 0: must be at least 1"]
