"""The command line: flags, configuration files, errors, help."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_run import OFFLINE, ROOT, only_run

import config
from classifier import EXAMPLES, ClassifierSettings
from config import UserError
from experiments.children import TASK_SCRIPTS
from strategies import STRATEGIES, choose_strategy, strategies_of
from training.cli import build_parser, parse_settings, run_script
from training.run_folder import RunFolder

COMMON = (
    "--model --data-dir --output-dir --strategy --epochs --batch-size --lr --seed --precision --use-gpu --limit-train "
    "--limit-dev --limit-test --save-every --overwrite --resume --dry-run --config"
)


def parser() -> argparse.ArgumentParser:
    return build_parser(ClassifierSettings, "About.", EXAMPLES)


def parse(*argv: object) -> tuple[ClassifierSettings, set[str]]:
    return parse_settings(ClassifierSettings, parser(), [str(argument) for argument in argv])


def problems_of(*argv: object) -> list[str]:
    with pytest.raises(UserError) as error:
        parse(*argv)
    return error.value.problems


def in_shell(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | OFFLINE | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


# ---------------------------------------------------------------------------------------------------------------------
# Flags
# ---------------------------------------------------------------------------------------------------------------------


def test_every_flag_of_the_design_is_there_with_help_and_a_group() -> None:
    flags = {option: action for action in parser()._actions for option in action.option_strings}
    assert set(COMMON.split()) <= flags.keys()
    assert all(action.help and len(action.help) > 8 for action in parser()._actions if action.dest != "help")
    grouped = {action.dest for group in parser()._action_groups[2:] for action in group._group_actions}
    assert grouped == {field.name for field in dataclasses.fields(ClassifierSettings)}


def test_help_names_types_defaults_and_ends_with_examples() -> None:
    text = parser().format_help()
    for part in ("--epochs N", "--lr RATE", "--keep {start,end}", "(default: 11711)", "(default: sst cfimdb)"):
        assert part in text
    assert text.rstrip().endswith(EXAMPLES.rstrip()) and EXAMPLES.count("python classifier.py") >= 4
    assert "(default: None)" not in text and "(default: False)" not in text


def test_the_examples_of_help_are_commands_that_parse() -> None:
    import shlex

    for line in EXAMPLES.splitlines():
        python, script, *flags = shlex.split(line)
        assert (python, script) == ("python", "classifier.py")
        parse(*flags)


def test_hyphens_and_underscores_are_the_same() -> None:
    assert parse("--use_gpu", "--batch_size", 3, "--limit_train=7") == parse(
        "--use-gpu", "--batch-size", 3, "--limit-train=7"
    )
    assert parse("--predict", "a_b", "--from_run=my_run/x_y")[0].from_run == "my_run/x_y"
    assert parse("--predict", "a_b")[0].predict == "a_b"


def test_what_was_given_is_told_from_defaults() -> None:
    settings, given = parse("--seed", 11711, "--no-keep-case", "--dataset", "cfimdb", "sst")
    assert given == {"seed", "keep_case", "dataset"}
    assert settings == ClassifierSettings(dataset=["cfimdb", "sst"])
    assert parse() == (ClassifierSettings(), set())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--learning-rate", "1"], "--learning-rate"),
        (["--epoch", "3"], "--epoch"),  # no abbreviations
        (["--epochs", "three"], "argument --epochs: invalid int value: 'three'"),
        (["--epochs"], "--epochs: expected one argument"),
        (["--precision", "fp8"], "--precision: invalid choice: 'fp8'"),
        (["--dataset", "imdb"], "--dataset: invalid choice: 'imdb'"),
        (["surplus"], "surplus"),
        (["--epochs", "0"], "--epochs 0: must be at least 1"),
        (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--accumulate", "0"], "--accumulate 0: must be at least 1"),
        (["--patience", "0"], "--patience 0: must be at least 1"),
        (["--limit-train", "0"], "--limit-train 0: must be at least 1"),
        (["--limit-dev", "-3"], "--limit-dev -3: must be at least 1"),
        (["--lr", "0"], "--lr 0.0: must be greater than 0"),
        (["--lr", "nan"], "--lr nan: must be greater than 0"),
        (["--lr", "inf"], "--lr inf: must be greater than 0 and finite"),
        (["--max-grad-norm", "0"], "--max-grad-norm 0.0: must be greater than 0"),
        (["--save-every", "0"], "--save-every 0.0: must be greater than 0"),
        (["--weight-decay", "-1"], "--weight-decay -1.0: must be at least 0"),
        (["--seed", "-1"], "--seed -1: must be at least 0"),
        (["--seed", str(2**63)], "--seed 9223372036854775808: must be at least 0 and below 2^63"),
        (["--show-examples", "-1"], "--show-examples -1: must be at least 0"),
        (["--dropout", "1"], "--dropout 1.0: must be at least 0 and below 1"),
        (["--warmup", "1"], "--warmup 1.0: must be at least 0 and below 1"),
        (["--predict", "caf\udce9"], "--predict 'caf\\udce9': is not UTF-8"),
        (["--data-dir", ""], "--data-dir: is empty; name a folder, or leave it out"),
        (["--model="], "--model: is empty; name a model, or leave it out"),
        (["--output-dir", ""], "--output-dir: is empty; name a folder, or leave it out"),
        (["--config", ""], "--config: is empty; name a file, or leave it out"),
    ],
)
def test_a_wrong_flag_is_one_clear_problem(argv: list[str], message: str) -> None:
    (problem,) = problems_of(*argv)
    assert message in problem and "\n" not in problem


def test_values_that_an_unset_variable_left_empty_are_told_at_once(tmp_path: Path) -> None:
    found = problems_of("--train-file", "", "--config", yaml_file(tmp_path, "dev_file: ''\nresume: \"\"\n"))
    assert {problem.partition(";")[0] for problem in found} == {
        "--train-file: is empty", "--dev-file: is empty", "--resume: is empty"
    }  # fmt: skip


def test_all_values_out_of_range_are_told_at_once() -> None:
    assert len(problems_of("--epochs", 0, "--lr", -1, "--dropout", 2)) == 3


# ---------------------------------------------------------------------------------------------------------------------
# Configuration files
# ---------------------------------------------------------------------------------------------------------------------


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_a_file_gives_defaults_and_a_flag_wins(tmp_path: Path) -> None:
    path = yaml_file(
        tmp_path, "lr: 1e-5\nbatch-size: 4\nlimit_train: 20\nuse_gpu: true\ndataset: sst\nmodel: mini\nsave_every: 2\n"
    )
    settings, given = parse("--config", path, "--batch-size", 16, "--no-use-gpu")
    assert (settings.lr, settings.batch_size, settings.limit_train) == (1e-5, 16, 20)
    assert (settings.use_gpu, settings.dataset, settings.model, settings.save_every) == (False, ["sst"], "mini", 2.0)
    assert isinstance(settings.save_every, float)
    assert given == {"lr", "batch_size", "limit_train", "use_gpu", "dataset", "model", "save_every", "config"}


def test_an_empty_file_and_empty_values_set_nothing(tmp_path: Path) -> None:
    assert parse("--config", yaml_file(tmp_path, "# nothing\n"))[1] == {"config"}
    path = yaml_file(tmp_path, "lr: null\nepochs:\nseed: ~\nuse_gpu:\ndataset: [sst, nsmc]\n")
    settings, given = parse("--config", path)
    assert given == {"config", "dataset"}
    assert settings == ClassifierSettings(dataset=["sst", "nsmc"], config=str(path))


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells leave it alone behind ``=``, and YAML knows nothing of it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    yaml_file(tmp_path, "data_dir: ~/data\ntrain-file: ~/train.tsv\npredict: ~/text\n")
    settings, _ = parse("--config=~/run.yaml", "--output-dir=~/runs", "--resume=a~b", "--dev-file=~nobody-here/x")
    assert (settings.data_dir, settings.train_file) == (f"{tmp_path}/data", f"{tmp_path}/train.tsv")
    assert (settings.output_dir, settings.config) == (f"{tmp_path}/runs", f"{tmp_path}/run.yaml")
    assert (settings.predict, settings.resume, settings.dev_file) == ("~/text", "a~b", "~nobody-here/x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 1", "unknown key 'learning_rate'"),
        ("config: other.yaml", "unknown key 'config'"),
        ("epochs: 2.5", "epochs: 2.5 is not of type int"),
        ("epochs: true", "epochs: True is not of type int"),
        ("lr: fast", "lr: could not convert string to float: 'fast'"),
        ("lr: [1]", "lr: [1] is not of type float"),
        ("use_gpu: 1", "use_gpu: 1 is not of type bool"),
        ("model: 3", "model: 3 is not of type str"),
        ("dataset: [null]", "dataset: None is not of type str"),
        ("keep: middle", "keep: 'middle' is none of start, end"),
        ("dataset: [sst, imdb]", "dataset: 'imdb' is none of sst, cfimdb, nsmc"),
        ("epochs: 0", "--epochs 0: must be at least 1"),
        ("- a\n- b", "must hold 'name: value' lines"),
        ("lr: 1e-5\nlr: 1e-4", "lr: stands there twice, in line 1 and line 2; leave one of them out"),
        ("batch-size: 4\nbatch_size: 8", "batch_size: stands there twice, in line 1 and line 2"),
        ("a: [", "is not YAML"),
        ("\x00", "is not YAML"),
    ],
)
def test_a_wrong_file_is_one_clear_problem(tmp_path: Path, text: str, message: str) -> None:
    (problem,) = problems_of("--config", yaml_file(tmp_path, text))
    assert message in problem and "\n" not in problem
    assert "run.yaml" in problem or message.startswith("--")


def test_a_file_with_several_mistakes_is_told_in_full(tmp_path: Path) -> None:
    assert len(problems_of("--config", yaml_file(tmp_path, "epoch: 1\nlr: x\nseed: 1.5\n"))) == 3
    assert "can't be read" in problems_of("--config", tmp_path / "none.yaml")[0]
    assert "can't be read" in problems_of("--config", tmp_path)[0]


# ---------------------------------------------------------------------------------------------------------------------
# Strategies
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        (None, None, "full"),
        (None, "full-model", "full"),
        (None, "last-linear-layer", "head"),
        ("baseline", None, "full"),
        ("head", None, "head"),
        ("head", "full-model", "head"),  # full-model restricts nothing
        ("head", "last-linear-layer", "head"),
        ("full", "full-model", "full"),
    ],
)
def test_strategy_and_mode_together(name: str | None, mode: str | None, expected: str) -> None:
    assert choose_strategy(name, mode, "sentiment").name == expected


@pytest.mark.parametrize("name", ["full", "baseline", "lora", "taskA"])
def test_a_mode_that_freezes_what_the_strategy_trains_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"last-linear-layer freezes GPT-2, but --strategy {name} trains it"):
        choose_strategy(name, "last-linear-layer", "sentiment")


def test_an_unknown_strategy_is_told_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="--strategy best: unknown; choose from full, head.*baseline"):
        choose_strategy("best", None, "sentiment")


def test_a_strategy_of_another_task_is_told() -> None:
    with pytest.raises(UserError, match="--strategy cloze: unknown for sentiment; choose from full"):
        choose_strategy("cloze", None, "sentiment")
    assert choose_strategy("cloze", None, "paraphrase").is_cloze


ZONES = {"zone_rates": [0.5, 1.0, 2.0], "published_groups": True, "label_smoothing": 0.1}


@pytest.mark.parametrize(
    ("task", "name", "published"),
    [
        ("paraphrase", "baseline", {"dropout": 0.0, "schedule": "constant"}),
        ("paraphrase", "taskA", {**ZONES, "dropout": 0.3, "schedule": "constant"}),
        (
            "paraphrase", "taskB", {**ZONES, "pooling": "mean", "dropout": 0.3, "dropout_samples": 5,
                                    "schedule": "cosine", "warmup": 0.06, "max_grad_norm": 1.0},
        ),
        (
            "paraphrase", "taskC", {**ZONES, "pooling": "mix", "dropout": 0.1, "dropout_growth": 0.2,
                                    "dropout_samples": 3, "schedule": "cosine-per-epoch"},
        ),
        (
            "sentiment", "taskA", {"lr": 1e-3, "epochs": 10, "last_n": 2, "zone_rates": [0.5, 0.5, 5.0],
                                   "published_groups": True, "schedule": "linear", "warmup": 0.1, "dropout": 0.3},
        ),
        ("sonnet", "baseline", {"last_n": 4, "lr": 1e-5, "batch_size": 8, "epochs": 10}),
    ],
)  # fmt: skip
def test_the_published_experiments_are_those_that_were_published(
    task: str, name: str, published: dict[str, Any]
) -> None:
    """Each setting as its report has it, and nothing else beside what all runs have."""
    dataset = {"paraphrase": "qqp", "sentiment": "sst", "sonnet": "shakespeare"}[task]
    common = {"weight_decay": 0.0, "warmup": 0.0}
    common |= {"lr": 1e-5, "batch_size": 8, "epochs": 10} if task == "paraphrase" else {}
    common |= {"batch_size": 64} if task == "sentiment" else {"schedule": "constant"} if task == "sonnet" else {}
    assert choose_strategy(name, None, task).defaults(dataset) == common | published


def test_every_strategy_has_complete_defaults_and_a_source() -> None:
    fields = {field.name for field in dataclasses.fields(ClassifierSettings)}
    needed = {"lr", "epochs", "batch_size", "weight_decay", "schedule", "warmup", "dropout"}
    for name, strategy in (strategies_of("sentiment") | strategies_of("paraphrase")).items():
        assert strategy.name == name and strategy.summary and re.search(r"\d{4}|published", strategy.source)
        for dataset in ("sst", "cfimdb", "nsmc", "qqp", "custom"):
            assert needed <= strategy.defaults(dataset).keys() <= fields


def test_the_published_rates_are_the_defaults() -> None:
    for name, lr, epochs in (("full", 2e-5, 6), ("head", 1e-3, 10)):
        for dataset, batch_size in (("sst", 64), ("cfimdb", 8)):
            found = STRATEGIES[name].defaults(dataset)
            assert (found["lr"], found["epochs"], found["batch_size"]) == (lr, epochs, batch_size)
            assert (found["dropout"], found["weight_decay"], found["schedule"]) == (0.3, 0.0, "constant")
    assert ClassifierSettings().seed == 11711 and ClassifierSettings().max_grad_norm is None


# ---------------------------------------------------------------------------------------------------------------------
# As a user types it
# ---------------------------------------------------------------------------------------------------------------------


def test_help_needs_no_torch() -> None:
    scripts = ["classifier", "paraphrase_detection"]
    modules = [*scripts, "config", "strategies", "datasets", "training.cli", "training.interrupt"]
    slow = ["torch", "transformers", "accelerate", "numpy", "sklearn", "matplotlib", "yaml"]
    lines = [
        "import sys",
        *(f"import {module}" for module in modules),
        *(f"try: {script}.main(['--help'])\nexcept SystemExit as stop: assert stop.code == 0" for script in scripts),
        f"print('loaded:', [name for name in {slow} if name in sys.modules])",
    ]
    done = in_shell(sys.executable, "-c", "\n".join(lines))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage:") == 2
    assert done.stdout.splitlines()[-1] == "loaded: []"


def help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """A script's ``--help``, with single spaces."""
    with pytest.raises(SystemExit):
        importlib.import_module(name).main(["--help"])
    return " ".join(capsys.readouterr().out.split())


def test_help_says_what_the_strategies_set(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("classifier", capsys)
    for part in (
        "learning rate (default: the strategy's, see --list-strategies)",
        "examples per batch (default: the strategy's, see --list-strategies)",
        "matrices (default: 0)", "before the head (default: 0.3)", "rank of the updates (default: 8 with lora)",
        "learning rate of that stage (default: 5e-05 with ulmfit)", "(default: yes with ulmfit-static)",
    ):  # fmt: skip
        assert part in text
    text = help_of("sonnet_generation", capsys)
    assert "earlier token again (default: 1 with unlikelihood, unlikelihood+prefix)" in text
    assert "passes over the training set (default: 10)" in text and "examples per batch (default: 8)" in text


def test_help_of_pretraining_names_what_each_size_brings(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("pretrain", capsys)
    for part in ("mini 4x256, small 12x768", "mini 0.001, small 0.0006", "mini 2,048, small 524,288"):
        assert part in text


@pytest.mark.parametrize("name", [path.stem for path in ROOT.glob("*.py") if "def main(" in path.read_text("utf-8")])
def test_help_names_defaults_in_words(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(name, capsys)
    assert re.search(r"\(default: (yes|no)\)", text)
    assert not re.search(r"\(default: (|True|False|None|\[.*?\])\)", text)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("sonnet_generation", "--unfreeze-groups --lm-epochs --lm-lr"),
        ("text_generation", "--unfreeze-groups --lm-epochs --lm-lr"),
        ("summarization", "--lm-epochs --samples"),
        ("question_answering", "--lm-epochs --samples --ul-alpha --ul-sequence"),
        (
            "natural_language_inference",
            "--lm-epochs --ul-alpha --ul-sequence --temperature --top-p --top-k --min-p --typical-p "
            "--repetition-penalty --no-repeat-ngram --beams --max-new-tokens --samples",
        ),
        ("paraphrase_detection", "--keep"),
    ],
)
def test_what_a_script_always_refuses_is_not_in_its_help(
    name: str, flags: str, script: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    text, value = help_of(name, capsys), {"--keep": "end", "--min-p": 0.5}
    for flag in flags.split():
        assert not re.search(rf"{flag}(?![\w-])", text.replace("of --unfreeze-groups", "").replace("with --unf", ""))
        done = script(name)(flag, value.get(flag, 1))
        assert done.code == 2 and len(done.errors) == 1 and done.errors[0].endswith("; leave it out")
        assert done.errors[0].startswith(f"error: {flag}: ")


def test_without_unlikelihood_its_flags_are_refused() -> None:
    for task, name in (("inference", "InferenceSettings"), ("question-answering", "QuestionSettings"),
                       ("summarization", "SummarizationSettings"), ("text-generation", "TextGenerationSettings"),
                       ("sonnet", "SonnetSettings")):  # fmt: skip
        script = importlib.import_module(Path(TASK_SCRIPTS[task]).stem)
        assert ("ul_alpha" in getattr(script, name).refused) == ("unlikelihood" not in strategies_of(task))


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("classifier", ["--strategy", "head", "--layer-decay", 0.9], "--layer-decay: strategy head trains no layer"),
        ("classifier", ["--train-fraction", 1, "--lora-rank", 4], "--lora-rank: it belongs to --strategy lora"),
        ("classifier", ["--model", "mini", "--last-n", 9, "--strategy", "last-n"], "--last-n 9: the model has 4"),
        ("paraphrase_detection", ["--strategy", "cloze", "--pooling", "mean"], "--pooling: strategy cloze has no head"),
        ("sonnet_generation", ["--lora-rank", 4], "--lora-rank: it belongs to --strategy lora"),
        ("sonnet_generation", ["--candidates", 4], "--candidates: goes with --decode sonnet"),
        ("text_generation", ["--lora-rank", 4], "--lora-rank: it belongs to --strategy lora"),
        ("summarization", ["--beams", 2, "--temperature", 1], "--beams 2"),
    ],
)
def test_flags_that_contradict_each_other_are_refused_before_anything_is_fetched(
    name: str, flags: list[Any], message: str, script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from models import sources
    from poetry import sonnets
    from training.classification import preparation
    from training.writing import sonnet_preparation

    def fetch(*arguments: Any, **options: Any) -> None:
        pytest.fail("fetched")

    monkeypatch.setattr(sources, "_from_hub", fetch)
    monkeypatch.setattr(preparation, "find_task_data", fetch)
    monkeypatch.setattr(sonnet_preparation, "find_sonnets", fetch)
    assert sonnets.find_sonnets is not fetch
    done = script(name)(*flags)
    assert done.code == 2 and len(done.errors) == 1 and done.errors[0].startswith(f"error: {message}")


@pytest.mark.parametrize("flags", [["--use_gpus"], ["--epochs", "0"], ["--config", "none.yaml"], ["--dataset"]])
def test_a_mistake_ends_with_one_line_and_code_2(flags: list[str]) -> None:
    done = in_shell(sys.executable, "classifier.py", *flags)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"error: .+\n", done.stderr)


def test_too_small_a_memory_ends_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    def body(error: Exception) -> int:
        raise error

    assert run_script(lambda: body(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "memory" in line and "--use-gpu" in line
    with pytest.raises(RuntimeError, match="shapes"):
        run_script(lambda: body(RuntimeError("shapes do not fit")))


def test_the_reader_of_a_pipe_may_go() -> None:
    done = in_shell("bash", "-c", f"set -o pipefail; {sys.executable} classifier.py --help | head -1")
    assert done.stdout.startswith("usage: classifier.py") and "Traceback" not in done.stderr


def test_everything_that_is_wrong_is_told_at_once(run: Callable[..., Any], tmp_path: Path) -> None:
    done = run(
        "--model", tmp_path / "no-model", "--data-dir", tmp_path, "--output-dir", tmp_path / "runs",
        "--strategy", "full", "--fine-tune-mode", "last-linear-layer",
    )  # fmt: skip
    assert done.code == 2 and done.out == ""
    assert len(done.errors) == 6
    text = "\n".join(done.errors)
    for part in ("last-linear-layer freezes", "no-model", "ids-sst-train.csv", "ids-sst-dev.csv", "ids-cfimdb-train"):
        assert part in text
    assert list(tmp_path.iterdir()) == []


def test_bad_rows_of_both_datasets_are_told_at_once(
    run: Callable[..., Any], tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    import shutil

    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    for dataset in ("sst", "cfimdb"):
        with open(data / f"ids-{dataset}-dev.csv", "a") as file:
            file.write("99\tnew\ta film\t7\n")
    done = run("--model", tiny_model, "--data-dir", data, "--output-dir", tmp_path / "runs")
    assert done.code == 2
    text = "\n".join(done.errors)
    assert "ids-sst-dev.csv:23" in text and "ids-cfimdb-dev.csv:23" in text
    assert not (tmp_path / "runs").exists()


def test_a_precision_the_cpu_lacks_is_refused(
    run: Callable[..., Any], tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--output-dir", tmp_path / "runs"]
    done = run(*flags, "--precision", "fp16")
    assert done.code == 2 and "--precision fp16 needs a GPU" in done.errors[0] and not (tmp_path / "runs").exists()


def test_an_output_folder_that_cannot_be_made_is_told(
    run: Callable[..., Any], tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--dataset", "sst", "--dry-run"]
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        done = run(*flags, "--output-dir", output)
        assert done.code == 2 and len(done.errors) == 1 and "in order" not in done.out
        assert f"{tmp_path / 'file'} is no folder that can be written to; choose another --output-dir" in done.err


@pytest.mark.parametrize("name", ["classifier", "sonnet_generation"])
def test_a_file_in_the_place_of_the_data_folder_is_told(name: str, script: Callable[[str], Any]) -> None:
    done = script(name)("--model", "mini", "--data-dir", ROOT / "README.md", "--dry-run")
    message = f"{ROOT / 'README.md'}: is a file; --data-dir names the folder that it is in"
    assert done.code == 2 and done.errors == [f"error: {message}"]


def test_a_configuration_file_drives_a_run(
    run: Callable[..., Any], tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    path = yaml_file(
        tmp_path,
        f"model: {tiny_model}\ndata-dir: {tiny_data}\noutput-dir: {tmp_path / 'runs'}\ndataset: cfimdb\n"
        "epochs: 1\nlr: 1e-3\nstrategy: head\n",
    )
    assert run("--config", path, "--epochs", 2).code == 0
    folder = only_run(tmp_path / "runs")
    settings = RunFolder(folder).config()["settings"]
    assert (settings["epochs"], settings["lr"], settings["strategy"]) == (2, 1e-3, "head")
    assert folder.name.startswith("sentiment-cfimdb-tiny-head-s11711-")
    assert config.ROOT == ROOT
