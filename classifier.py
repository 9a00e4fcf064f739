"""Sentiment classification with GPT-2: SST-5, CFIMDB, NSMC, or your own files.

python classifier.py --fine-tune-mode full-model            # SST, then CFIMDB, on the CPU
python classifier.py --fine-tune-mode last-linear-layer --use_gpu
python classifier.py --predict "a film to fall in love with"
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import DATA, MODEL, ROOT, RUN, RunSettings, UserError, setting
from datasets import (
    SENTIMENT_TASKS,
    ClassificationTask,
    DataSource,
    Split,
    custom_task_data,
    find_task_data,
    is_published,
    read_splits,
)
from strategies import FINE_TUNE_MODES, Strategy, choose_strategy, strategy_table
from training.cli import build_parser, parse_settings, run_script

if TYPE_CHECKING:  # torch is imported where it is first needed, so that --help is quick
    from models.sources import Checkpoint
    from training.classification import ClassificationRun
    from training.run_folder import RunFolder

TASK = "sentiment"
PREDICTIONS_COLUMN = "Predicted_Sentiment"
ALIASES = {"baseline": "full"}
EXAMPLES = """\
  python classifier.py --fine-tune-mode full-model --use_gpu
  python classifier.py --fine-tune-mode last-linear-layer --dataset cfimdb
  python classifier.py --model ./my-gpt2 --data-dir ./cs224n --dataset sst --epochs 3 --seed 1
  python classifier.py --train-file train.tsv --dev-file dev.tsv --model mini
  python classifier.py --predict "a film to fall in love with\""""


@dataclass(frozen=True)
class ClassifierSettings(RunSettings):
    """The settings of a sentiment run."""

    fine_tune_mode: str | None = setting(
        None, "full-model trains everything; last-linear-layer freezes GPT-2 and trains the head on its features",
        group=MODEL, choices=tuple(FINE_TUNE_MODES), identity=False,
    )  # fmt: skip
    dataset: list[str] = setting(
        ["sst", "cfimdb"], "datasets, one run each", group=DATA, choices=("sst", "cfimdb", "nsmc"), identity=False
    )
    train_file: str | None = setting(
        None, "your own training file, tab- or comma-separated, with columns sentence and label (and id)",
        group=DATA, metavar="FILE", identity=False,
    )  # fmt: skip
    dev_file: str | None = setting(None, "its dev file", group=DATA, metavar="FILE", identity=False)
    test_file: str | None = setting(
        None, "its test file; labels are optional", group=DATA, metavar="FILE", identity=False
    )
    predict: str | None = setting(
        None, "label this text with a finished run, and stop", group=RUN, metavar="TEXT", identity=False
    )
    predict_file: str | None = setting(
        None, "label every line of this file with a finished run, and stop", group=RUN, metavar="FILE", identity=False
    )
    from_run: str | None = setting(
        None, "the finished run that --predict uses; by default the latest one", group=RUN, metavar="FOLDER",
        identity=False,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser(ClassifierSettings, "Sentiment classification with GPT-2.", EXAMPLES)
    parser.add_argument("--list-strategies", action="store_true", help="print the table of strategies and stop")
    settings, given = parse_settings(ClassifierSettings, parser, sys.argv[1:] if argv is None else argv)
    if "list_strategies" in given:
        print(strategy_table(ALIASES))
        return 0

    from training.interrupt import Signals

    signals = Signals().install()
    if settings.predict is not None or settings.predict_file is not None:
        return predict_with_run(settings)

    from training.classification import run_classification, show_summary
    from training.device import leave_process_group

    runs = prepare_resumed(settings, given) if settings.resume else prepare_runs(settings, given)
    for run in runs:
        run_classification(run, signals)
    if not settings.dry_run:
        show_summary(runs)
    leave_process_group()
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# What will be run, on what, and everything that is wrong with it
# ---------------------------------------------------------------------------------------------------------------------


def prepare_runs(settings: ClassifierSettings, given: set[str]) -> list[ClassificationRun]:
    """One run per dataset. Whatever can be checked is checked, for all of them, and reported at once."""
    from models.sources import find_checkpoint, find_default_checkpoint
    from training.setup import Problems

    problems = Problems()
    strategy = checkpoint = None
    sources: list[tuple[ClassificationTask, DataSource]] = []
    with problems.collect():
        strategy = choose_strategy(settings.strategy, settings.fine_tune_mode, ALIASES)
    with problems.collect():
        checkpoint = find_checkpoint(settings.model) if settings.model else find_default_checkpoint()
    with problems.collect():
        sources = find_data(settings)
    runs = []
    for task, source in sources:
        with problems.collect():
            splits = read_data(settings, task, source)
            if strategy and checkpoint:
                runs.append(prepare_run(settings, given, strategy, checkpoint, task, source, splits))
    problems.raise_any()
    return runs


def find_data(settings: ClassifierSettings) -> list[tuple[ClassificationTask, DataSource]]:
    """The files of every dataset that was asked for."""
    from training.setup import Problems

    own = {"--train-file": settings.train_file, "--dev-file": settings.dev_file}
    if any(own.values()) or settings.test_file:
        missing = [flag for flag, value in own.items() if not value]
        if missing:
            raise UserError(f"{' and '.join(missing)}: missing; your own data need a training and a dev file")
        test = Path(settings.test_file) if settings.test_file else None
        source = custom_task_data(Path(str(settings.train_file)), Path(str(settings.dev_file)), test)
        return [(SENTIMENT_TASKS["custom"], source)]
    data_dir = Path(settings.data_dir) if settings.data_dir else None
    found: list[tuple[ClassificationTask, DataSource]] = []
    problems = Problems()
    for name in dict.fromkeys(settings.dataset):
        # Where one download has just failed, the next would only cost the same wait again.
        allow_download = all(source.origin != "sample" for _, source in found)
        task = SENTIMENT_TASKS[name]
        with problems.collect():
            found.append((task, find_task_data(task, data_dir, root=ROOT, allow_download=allow_download)))
    problems.raise_any()
    return found


def read_data(settings: ClassifierSettings, task: ClassificationTask, source: DataSource) -> dict[str, Split]:
    limits = {"train": settings.limit_train, "dev": settings.limit_dev, "test": settings.limit_test}
    return read_splits(task, source, keep_case=settings.keep_case, skip_bad_rows=settings.skip_bad_rows, limits=limits)


def prepare_run(
    settings: ClassifierSettings,
    given: set[str],
    strategy: Strategy,
    checkpoint: Checkpoint,
    task: ClassificationTask,
    source: DataSource,
    splits: dict[str, Split],
    folder: Path | None = None,
) -> ClassificationRun:
    """Fills in the defaults and names the run's folder, unless one is given."""
    from models.card import fine_tuning_defaults
    from models.checkpoint import read_config
    from training.classification import ClassificationRun
    from training.run_folder import RunFolder
    from training.setup import model_record, run_name, with_defaults

    defaults = [strategy.settings[task.name]]
    if checkpoint.origin == "bundled":
        defaults.append(fine_tuning_defaults(checkpoint.folder, task.name, strategy.name))
    resolved = dataclasses.replace(
        with_defaults(settings, given, *defaults), strategy=strategy.name, dataset=[task.name]
    )
    record = model_record(checkpoint)
    model = checkpoint.name + ("-random" if settings.random_init else "")
    dataset = f"{task.name}-sample" if source.origin == "sample" else task.name
    if folder is None:
        usual = with_defaults(ClassifierSettings(), set(), *defaults)
        files = {} if source.origin == "sample" or is_published(task, source) else {s: splits[s].sha256 for s in splits}
        weights = {"weights": record["weights_sha256"]} if checkpoint.origin == "folder" else {}
        usual = dataclasses.replace(usual, random_init=settings.random_init)  # the name says it
        name = run_name(TASK, dataset, model, strategy.name, resolved, usual, files | weights)
        folder = Path(settings.output_dir or ROOT / "runs") / name
    mode = settings.fine_tune_mode if settings.strategy is None else None
    run = ClassificationRun(
        script="classifier.py",
        task=TASK,
        dataset=dataset,
        settings=resolved,
        strategy=strategy,
        splits=splits,
        data_origin=source.origin,
        data_notes=source.notes,
        checkpoint=checkpoint,
        model_name=model,
        model_record=record,
        config=read_config(checkpoint.folder),
        folder=RunFolder(folder),
        predictions_name=f"{mode or strategy.name}-{dataset}",
        predictions_column=PREDICTIONS_COLUMN,
    )
    if run.folder.exists and not settings.overwrite:
        run.folder.refuse_other_run(run.identity)
    return run


def prepare_resumed(settings: ClassifierSettings, given: set[str]) -> list[ClassificationRun]:
    """``--resume FOLDER``: the run goes on with its own settings; flags may not contradict them."""
    from models.sources import Checkpoint
    from training.run_folder import RunFolder
    from training.setup import Problems, identity_of

    problems = Problems()
    folder = RunFolder(Path(str(settings.resume)))
    if not folder.exists:
        raise UserError(f"--resume {settings.resume}: holds no run (no config.json); give the folder of one")
    saved = folder.config()
    if "settings" not in saved:
        raise UserError(f"--resume {settings.resume}: is not the folder of a run; give the one that holds log.jsonl")
    if saved["task"] != TASK:
        raise UserError(f"--resume {settings.resume}: is a run of another task, {saved['task']}; use its script")
    own = ClassifierSettings(**saved["settings"] | {"overwrite": False})
    asked: dict[str, Any] = {name: value for name, value in identity_of(settings).items() if name in given}
    if given & {"strategy", "fine_tune_mode"}:
        asked["strategy"] = choose_strategy(settings.strategy, settings.fine_tune_mode, ALIASES).name
    if "model" in given:
        asked["model"] = Path(str(settings.model)).resolve().name
    if "dataset" in given and settings.dataset != own.dataset:
        asked["dataset"] = " ".join(settings.dataset)
    with problems.collect():
        folder.refuse_other_run(asked)
    if "output_dir" in given and Path(str(settings.output_dir)).resolve() != folder.path.resolve().parent:
        problems.found.append(f"--output-dir {settings.output_dir}: {folder.path} is not in there; leave it out")
    problems.raise_any()

    files = ("data_dir", "train_file", "dev_file", "test_file")  # their checksums are compared
    free = ("use_gpu", "save_every", "show_examples", "dry_run", "overwrite", *files)
    own = dataclasses.replace(own, **{name: getattr(settings, name) for name in free if name in given})
    model = saved["model"]
    checkpoint = Checkpoint(model["used"], Path(model["folder"]), model["requested"], model["origin"], model["note"])
    if given & set(files):
        ((task, source),) = find_data(own)
    else:  # what the run began with, whatever can be had today
        data = saved["data"]
        paths = {split: Path(file["path"]) for split, file in data["files"].items()}
        task, source = SENTIMENT_TASKS[own.dataset[0]], DataSource(data["origin"], paths, tuple(data["notes"]))
    strategy = choose_strategy(own.strategy, None, ALIASES)
    everything = {field.name for field in dataclasses.fields(own)}
    splits = read_data(own, task, source)
    run = prepare_run(own, everything, strategy, checkpoint, task, source, splits, folder.path)
    return [dataclasses.replace(run, predictions_name=saved["predictions_name"])]


# ---------------------------------------------------------------------------------------------------------------------
# Using a finished run
# ---------------------------------------------------------------------------------------------------------------------


def predict_with_run(settings: ClassifierSettings) -> int:
    """``--predict`` and ``--predict-file``: prints the label, the probabilities and the text, one line each."""
    if settings.predict is not None and settings.predict_file is not None:
        raise UserError("--predict and --predict-file: give one of them")
    texts = [settings.predict] if settings.predict is not None else read_lines(Path(str(settings.predict_file)))
    if not texts:
        raise UserError(f"{settings.predict_file}: is empty; give a file with one text per line")
    blank = [str(number) for number, text in enumerate(texts, start=1) if not text.strip()]
    if blank:
        where = "--predict" if settings.predict is not None else f"{settings.predict_file}: line {', '.join(blank)}"
        raise UserError(f"{where}: there is no text to label; write some")
    folder = finished_run(settings)
    print(f"run: {folder.path}", file=sys.stderr)

    from training.classification import label_texts

    for text, (probabilities, names) in zip(texts, label_texts(folder, texts, settings.use_gpu), strict=True):
        ranked = sorted(zip(probabilities, names, strict=True), reverse=True)
        print(f"{ranked[0][1]}\t{', '.join(f'{name} {p:.3f}' for p, name in ranked)}\t{text}")
    return 0


def read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); --predict-file takes a text file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from None


def finished_run(settings: ClassifierSettings) -> RunFolder:
    """The run of ``--from-run``, or the sentiment run that was finished last."""
    from training.run_folder import RunFolder

    if settings.from_run is not None:
        folder = RunFolder(Path(settings.from_run))
        if not folder.is_complete:
            raise UserError(f"--from-run {settings.from_run}: is no finished run (no metrics.json); finish it first")
        return folder
    runs = Path(settings.output_dir or ROOT / "runs")
    finished = sorted(runs.glob(f"{TASK}-*/metrics.json"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise UserError(f"{runs}: holds no finished {TASK} run; train one, or name one with --from-run")
    return RunFolder(finished[-1].parent)


if __name__ == "__main__":
    sys.exit(run_script(main))
