"""From a task script's settings to its runs: strategy, model, files and defaults, and all that is wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import ROOT, ClassificationSettings, GPT2Config, UserError
from datasets import (
    ClassificationTask,
    DataSource,
    Split,
    custom_task_data,
    find_task_data,
    fraction_of,
    is_published,
    read_splits,
)
from models.card import fine_tuning_defaults, notes_of_guess
from models.checkpoint import read_config
from models.comparator import ComparatorConfig, is_comparator, read_comparator
from models.sources import Checkpoint, find_model
from models.tokenizer import load_tokenizer
from pairs import check_room
from strategies import Strategy, choose_strategy
from training.classification.encoding import answer_tokens
from training.classification.run import ClassificationRun
from training.fine_tuning import GPT2_HEAD_KNOBS, combination_problems, comparator_problems, context_of
from training.run_folder import RunFolder
from training.setup import (
    FREE_WHEN_RESUMED,
    Problems,
    begun_with,
    model_record,
    new_folder,
    resumed_settings,
    saved_run,
    with_defaults,
)


@dataclass(frozen=True)
class TaskScript:
    """What is particular to a task's script.

    Attributes:
        script: its file's name, for the command that resumes a run.
        task: the task's name.
        datasets: name -> what is fixed about a dataset; ``custom`` is for the user's own files.
        settings_class: its settings.
        predictions_column: the header of the predictions files' second column.
        example: a text, or the two of a pair, for the model's card.
        predictions_file: (settings, strategy, dataset) -> the files' name, with ``{split}`` in it.
        complete: adds to a run what is particular to the task.
        own_files_as: the dataset whose defaults a run on the user's own files has.
    """

    script: str
    task: str
    datasets: Mapping[str, ClassificationTask]
    settings_class: type[ClassificationSettings]
    predictions_column: str
    example: tuple[str, ...]
    predictions_file: Callable[[Any, Strategy, str], str]
    complete: Callable[[ClassificationRun], ClassificationRun] = lambda run: run
    own_files_as: str = "custom"


def prepare_runs(script: TaskScript, settings: ClassificationSettings, given: set[str]) -> list[ClassificationRun]:
    """The runs that the flags ask for, one per dataset, or the one that ``--resume`` goes on with.

    Whatever can be checked is checked, for all of them, and reported at once.

    Args:
        given: the names of the settings that the user chose.

    Raises:
        UserError: with everything that is wrong.
    """
    if settings.resume:
        return [_prepare_resumed(script, settings, given)]
    problems = Problems()
    if settings.from_run is not None:
        problems.found.append(
            f"--from-run {settings.from_run}: goes with --predict or --predict-file; without them a new run is trained"
        )
    strategy = checkpoint = None
    sources: list[tuple[ClassificationTask, DataSource]] = []
    with problems.collect():
        strategy = choose_strategy(settings.strategy, settings.fine_tune_mode, script.task)
    if strategy and not settings.model:  # one that is named may be a comparator, which takes other flags
        problems.found += flag_problems(script, settings, given, strategy, None)
    if not (settings.model and settings.data_dir):
        problems.raise_any()  # before anything is downloaded
    with problems.collect():
        checkpoint = find_model(settings.model, language_of(script, settings))
        if strategy:
            problems.found += flag_problems(script, settings, given, strategy, checkpoint)
    if not (settings.data_dir or has_own_files(settings)):
        problems.raise_any()
    with problems.collect():
        sources = find_data(script, settings, given)
    runs = []
    for task, source in sources:
        with problems.collect():
            splits = read_data(settings, task, source)
            if strategy and checkpoint:
                runs.append(_prepare_run(script, settings, given, strategy, checkpoint, task, source, splits))
    problems.raise_any()
    return runs


def language_of(script: TaskScript, settings: ClassificationSettings) -> str:
    """The default model's language: "ko" if every dataset is Korean, else "en"; the user's own files are English."""
    languages = {task.language for task in tasks_of(script, settings) if task.name != "custom"}
    return "ko" if languages == {"ko"} else "en"


def has_own_files(settings: ClassificationSettings) -> bool:
    return any((settings.train_file, settings.dev_file, settings.test_file))


def tasks_of(script: TaskScript, settings: ClassificationSettings) -> list[ClassificationTask]:
    """The datasets that were asked for, each once."""
    names = ["custom"] if has_own_files(settings) else dict.fromkeys(settings.dataset)
    return [script.datasets[name] for name in names]


def find_data(
    script: TaskScript, settings: ClassificationSettings, given: set[str]
) -> list[tuple[ClassificationTask, DataSource]]:
    """The files of every dataset that was asked for."""
    own = {"--train-file": settings.train_file, "--dev-file": settings.dev_file}
    if has_own_files(settings):
        missing = [flag for flag, value in own.items() if not value]
        if missing:
            raise UserError(f"{' and '.join(missing)}: missing; your own data need a training and a dev file")
        twice = [flag for flag in ("dataset", "data_dir") if flag in given]
        if twice:
            flags = " and ".join(f"--{flag.replace('_', '-')}" for flag in twice)
            raise UserError(f"{flags}: your own files are named already; leave it out")
        test = Path(settings.test_file) if settings.test_file else None
        source = custom_task_data(Path(str(settings.train_file)), Path(str(settings.dev_file)), test)
        return [(script.datasets["custom"], source)]
    data_dir = Path(settings.data_dir) if settings.data_dir else None
    found: list[tuple[ClassificationTask, DataSource]] = []
    problems = Problems()
    for task in tasks_of(script, settings):
        # Where one download has just failed, the next would only cost the same wait again.
        allow_download = all(source.origin != "sample" for _, source in found)
        with problems.collect():
            found.append((task, find_task_data(task, data_dir, root=ROOT, allow_download=allow_download)))
    problems.raise_any()
    return found


def read_data(settings: ClassificationSettings, task: ClassificationTask, source: DataSource) -> dict[str, Split]:
    """Checks and reads the files; the limits cut first, and --train-fraction takes its share of what they leave."""
    limits = {"train": settings.limit_train, "dev": settings.limit_dev, "test": settings.limit_test}
    splits = read_splits(
        task, source, keep_case=settings.keep_case, skip_bad_rows=settings.skip_bad_rows, limits=limits
    )
    return splits | {"train": fraction_of(splits["train"], settings.train_fraction, settings.seed)}


def _prepare_run(
    script: TaskScript,
    settings: ClassificationSettings,
    given: set[str],
    strategy: Strategy,
    checkpoint: Checkpoint,
    task: ClassificationTask,
    source: DataSource,
    splits: dict[str, Split],
    folder: RunFolder | None = None,
) -> ClassificationRun:
    """Fills in the defaults and names the run's folder, unless one is given."""
    defaults, config = defaults_of(script, strategy, checkpoint, task), config_of(checkpoint)
    comparator = isinstance(config, ComparatorConfig)
    is_bundled = checkpoint.origin == "bundled" and not comparator
    guess = notes_of_guess(checkpoint.folder, task.name, strategy.name, given, script.task) if is_bundled else ()
    resolved = dataclasses.replace(
        with_defaults(settings, given, *defaults), strategy=strategy.name, dataset=[task.name]
    )
    if folder is None:
        problems = class_problems(resolved, splits["train"])
        if problems:
            raise UserError(problems)
    if isinstance(config, ComparatorConfig):
        checkpoint, strategy = as_comparator(checkpoint, strategy, config)
    record = model_record(checkpoint) | ({"comparator": True} if comparator else {})
    model = checkpoint.name + ("-random" if settings.random_init else "")
    dataset = f"{task.name}-sample" if source.origin == "sample" else task.name
    if folder is None:
        usual = with_defaults(script.settings_class(), set(), *defaults)
        is_own = source.origin != "sample" and not is_published(task, source)
        hashes = {name: split.sha256 for name, split in splits.items()} if is_own else {}
        folder = new_folder(script.task, dataset, model, resolved, usual, checkpoint, record, hashes)
    run = script.complete(
        ClassificationRun(
            script=script.script,
            task=script.task,
            dataset=dataset,
            settings=resolved,
            strategy=strategy,
            splits=splits,
            data_origin=source.origin,
            data_notes=tuple(dict.fromkeys((*source.notes, *guess))),  # a resumed run's source has it already
            checkpoint=checkpoint,
            model_name=model,
            model_record=record,
            config=config,
            folder=folder,
            predictions_file=script.predictions_file(settings, strategy, dataset),
            predictions_column=script.predictions_column,
            example=script.example,
        )
    )
    if isinstance(config, GPT2Config):
        check_tokens(run, config)
    if run.folder.exists and not settings.overwrite:
        run.folder.refuse_other_run(run.identity)
    return run


def config_of(checkpoint: Checkpoint) -> GPT2Config | ComparatorConfig:
    return (read_comparator if is_comparator(checkpoint.folder) else read_config)(checkpoint.folder)


def defaults_of(
    script: TaskScript, strategy: Strategy, checkpoint: Checkpoint | None, task: ClassificationTask
) -> list[dict[str, Any]]:
    """The strategy's settings, and over them those that a bundled model brings."""
    defaults = strategy.defaults(script.own_files_as if task.name == "custom" else task.name)
    if checkpoint is None:
        return [defaults]
    if is_comparator(checkpoint.folder):  # what a strategy says of the head is said of GPT-2's
        defaults = {name: value for name, value in defaults.items() if name not in GPT2_HEAD_KNOBS}
    if checkpoint.origin != "bundled":
        return [defaults]
    return [defaults, fine_tuning_defaults(checkpoint.folder, task.name, strategy.name, defaults, script.task)]


def flag_problems(
    script: TaskScript,
    settings: ClassificationSettings,
    given: set[str],
    strategy: Strategy,
    checkpoint: Checkpoint | None,
) -> list[str]:
    """What :func:`problems_of` finds on any of the datasets, before their files are there."""
    config = None if checkpoint is None else config_of(checkpoint)
    found = []
    for task in tasks_of(script, settings):
        resolved = with_defaults(settings, given, *defaults_of(script, strategy, checkpoint, task))
        found += problems_of(resolved, given, strategy, config)
    return found


def problems_of(
    settings: ClassificationSettings,
    given: set[str],
    strategy: Strategy,
    config: GPT2Config | ComparatorConfig | None,
) -> list[str]:
    """Settings that contradict this strategy or model; one message each.

    Args:
        config: None before the model is there: what depends on it is left for later.
    """
    if isinstance(config, ComparatorConfig):
        return comparator_problems(settings, given, strategy, config)
    found = []
    if settings.lm_epochs and config is not None and config.eos_token_id is None:
        found.append("--lm-epochs: this model names no end token (eos_token_id in its config.json); use --lm-epochs 0")
    return found + combination_problems(settings, given, strategy, config)


def class_problems(settings: ClassificationSettings, train: Split) -> list[str]:
    """The classes that can't count as much as the others, because no training row has them."""
    if not settings.class_weights:
        return []
    found = {example.label for example in train.examples}
    return [
        f"--class-weights {settings.class_weights}: class {name!r} has no training row; leave the flag out, or train "
        "on rows of every class"
        for label, name in enumerate(train.label_names)
        if label not in found
    ]


def check_tokens(run: ClassificationRun, config: GPT2Config) -> None:
    """Refuses a GPT-2 without a tokenizer, or one that can't read pairs or answer in words with the one it has."""
    tokenizer, problems = load_tokenizer(run.checkpoint.folder, config), Problems()
    if len(run.example) == 2:
        with problems.collect():
            check_room(tokenizer, context_of(config, run.settings))
    if run.strategy.is_cloze:
        with problems.collect():
            answer_tokens(run.answers, tokenizer)
    problems.raise_any()


def as_comparator(checkpoint: Checkpoint, strategy: Strategy, config: ComparatorConfig) -> tuple[Checkpoint, Strategy]:
    """The checkpoint with a note that it is a comparator, and the strategy with a summary that fits one."""
    note = f"comparator: {config.model_type}, a model that transformers runs, to compare GPT-2 with"
    summary = "everything but the classification head is frozen" if strategy.trains == "head" else strategy.summary
    return dataclasses.replace(checkpoint, note=note), dataclasses.replace(strategy, summary=summary)


def _prepare_resumed(script: TaskScript, settings: ClassificationSettings, given: set[str]) -> ClassificationRun:
    """``--resume FOLDER``: the run goes on with its own settings; flags may not contradict them."""
    folder = RunFolder(Path(str(settings.resume)))
    saved = saved_run(folder, script.task, f"--resume {settings.resume}")
    files = ("data_dir", "train_file", "dev_file", "test_file")  # their checksums are compared
    free = (*FREE_WHEN_RESUMED, *files)
    own, everything = resumed_settings(settings, given, folder, saved, free)
    checkpoint, source = begun_with(saved)
    task = script.datasets[own.dataset[0]]
    if given & set(files):
        ((task, source),) = find_data(script, own, given)
    strategy = choose_strategy(own.strategy, None, script.task)
    splits = read_data(own, task, source)
    run = _prepare_run(script, own, everything, strategy, checkpoint, task, source, splits, folder)
    return dataclasses.replace(run, predictions_file=saved["predictions_file"])
