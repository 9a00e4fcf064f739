"""From the settings of a task with task tokens to its run: model, files, texts, and all that is wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config import GPT2Config, TextTaskSettings, UserError
from models.card import fine_tuning_defaults, notes_of_guess
from models.checkpoint import read_config
from models.sources import Checkpoint, find_model
from storage import file_sha256
from strategies import Strategy, choose_strategy
from training.fine_tuning import context_of, writing_problems
from training.run_folder import RunFolder
from training.setup import Problems, begun_with, model_record, new_folder, resumed_settings, saved_run, with_defaults
from training.writing.decoding import decoding_of, unused_filters
from training.writing.job import Text
from training.writing.run import TaskPart, WritingRun
from training.writing.targets import needed_for_scoring, room_for_writing
from training.writing.task import TextTask
from training.writing.task_files import TaskFiles, files_record, find_files
from training.writing.task_notes import (
    looks_korean,
    notes_of_fit,
    notes_of_hold_out,
    notes_of_repeats,
    notes_of_writing,
    repeats_of,
)
from training.writing.task_texts import Fitted, TaskData, TaskEncoder, TaskText, some_of
from training.writing.task_tokens import TaskVocabulary, find_task_tokens

WHOLE_TEXT = ("how a text begins",)  # in the place of a template, where nothing stands before the target
KOREAN_NOTE = (
    "the training texts look Korean, but the measures, and the model unless one is named, are those for English; add "
    "--language ko"
)


def prepare_run(task: TextTask, settings: TextTaskSettings, given: set[str]) -> WritingRun:
    """Whatever can be checked is checked, and reported at once."""
    strategy = folder = checkpoint = files = records = None
    problems = Problems()
    if settings.from_run is not None:
        asks = " and ".join(f"--{name}" for name in task.asks)
        problems.found.append(f"--from-run {settings.from_run}: goes with {asks}; without, a new run is trained")
    if settings.resume:
        folder = RunFolder(Path(settings.resume))
        saved = saved_run(folder, task.name, f"--resume {settings.resume}")
        settings, given = resumed_settings(settings, given, folder, saved)
        checkpoint, source = begun_with(saved)
        files = TaskFiles(saved["dataset"], settings.language or "en", source)
    with problems.collect():
        strategy = choose_strategy(settings.strategy, None, task.name)
        if folder is None:
            resolved = with_defaults(settings, given, strategy.defaults(task.name))
            problems.found += flag_problems(resolved, given, strategy, None)
    if files is None:
        with problems.collect():
            files = find_files(task, settings)
            if files.dataset in task.datasets:
                settings = dataclasses.replace(settings, dataset=files.dataset)  # there was but one in --data-dir
    if files is not None:
        settings = dataclasses.replace(settings, language=files.language)
        with problems.collect():
            records = task.read(files.by_split(), settings)
    problems.raise_any()  # before a model is downloaded
    assert strategy and files
    checkpoint = checkpoint or find_model(settings.model, files.language)
    return make_run(task, settings, given, strategy, checkpoint, files, records, folder)


def make_run(
    task: TextTask,
    settings: TextTaskSettings,
    given: set[str],
    strategy: Strategy,
    checkpoint: Checkpoint,
    files: TaskFiles,
    records: Any,
    folder: RunFolder | None,
) -> WritingRun:
    """Fills in the defaults, makes the texts' tokens, and names the run's folder, unless one is given."""
    defaults = [strategy.defaults(task.name)]
    if checkpoint.origin == "bundled":
        defaults.append(fine_tuning_defaults(checkpoint.folder, files.dataset, strategy.name, defaults[0], task.name))
    resolved = dataclasses.replace(with_defaults(settings, given, *defaults), strategy=strategy.name)
    config = read_config(checkpoint.folder)
    problems = flag_problems(resolved, given, strategy, config) if folder is None else []
    if problems:
        raise UserError(problems)
    vocabulary = find_task_tokens(checkpoint.folder, config, task.task_tokens)
    encoder = TaskEncoder(
        vocabulary.tokenizer, vocabulary.ids, vocabulary.end, context_of(config, resolved), resolved.keep
    )
    data = task.make(records, resolved, encoder)
    fitted, cut_later = fit_texts(data, encoder, resolved, files.by_split())
    repeats = repeats_of(data.sources)
    notes = [
        *notes_of_hold_out(resolved, data),
        *notes_of_repeats(repeats, data.sources, data.sources_are),
        *notes_of_fit(fitted, encoder.context),
        *notes_of_writing(cut_later, encoder.context, bool(data.longest_answer)),
    ]
    if checkpoint.origin == "bundled":
        notes += notes_of_guess(checkpoint.folder, files.dataset, strategy.name, given, task.name)
    if files.source.origin == "files" and "language" not in given and looks_korean(data):
        notes.append(KOREAN_NOTE)
    record = model_record(checkpoint)
    model = checkpoint.name + ("-random" if settings.random_init else "")
    hashes = {name: file_sha256(path) for name, path in files.source.paths.items()}
    if folder is None:
        usual = with_defaults(task.settings_class(), set(), *defaults)
        usual = dataclasses.replace(usual, language=files.language)  # the dataset's name says it
        own_files = hashes if files.source.origin == "files" else {}
        folder = new_folder(task.name, files.dataset, model, resolved, usual, checkpoint, record, own_files)
    encoded = {"train": fitted["train"], "choose": fitted["dev"], "report": fitted["dev"], "test": fitted["test"]}
    run = WritingRun(
        script=task.script,
        task=task.name,
        dataset=files.dataset,
        settings=resolved,
        strategy=strategy,
        texts={name: [Text(text.id, "", text.target) for text in fit.texts] for name, fit in encoded.items()},
        files=files_record(files, data, hashes),
        data_origin=files.source.origin,
        data_notes=tuple(dict.fromkeys((*files.source.notes, *data.notes, *notes))),
        checkpoint=checkpoint,
        model_name=model,
        model_record=record,
        config=vocabulary.config,
        folder=folder,
        finish=lambda run, writer: task.finish(run, writer, data),
        show=task.show,
        example=task.template if any(row.n_prompt > 1 for row in fitted["train"].rows) else WHOLE_TEXT,
        task_part=task_part(task, vocabulary, encoder, encoded, data),
        repeats=repeats,
        continuation_only=resolved.loss_on == "continuation",
    )
    if run.folder.exists and not settings.overwrite:
        run.folder.refuse_other_run(run.identity)
    return run


def flag_problems(
    settings: TextTaskSettings, given: set[str], strategy: Strategy, config: GPT2Config | None
) -> list[str]:
    """Settings that contradict each other, the strategy or the model; ``config`` is None before the model is there."""
    problems = Problems()
    with problems.collect():
        decoding_of(settings)
    return problems.found + unused_filters(settings, given) + writing_problems(settings, given, strategy, config)


def fit_texts(
    data: TaskData, encoder: TaskEncoder, settings: TextTaskSettings, paths: Mapping[str, Sequence[Path]]
) -> tuple[dict[str, Fitted], dict[str, tuple[int, int]]]:
    """The tokens of each split; and of dev and test, how many sources of how many texts are cut when the model answers.

    Args:
        paths: split -> its files; one that is taken from the training texts has none.

    Raises:
        UserError: with every text that does not fit, and for train or dev without a text.
    """
    problems = Problems()
    fitted: dict[str, Fitted] = {}
    cut_later: dict[str, tuple[int, int]] = {}
    for name in ("train", "dev", "test"):
        own = Problems()
        with own.collect():
            fitted[name] = encoder.fit(getattr(data, name), settings.skip_long)
        if name != "train":
            found, cut_later[name] = check_prompts(data, name, encoder, settings)
            named = {problem.partition(": ")[0] for problem in own.found}
            own.found += [problem for problem in found if problem.partition(": ")[0] not in named]
        where = ", ".join(str(path) for path in paths.get(name, paths["train"]))
        problems.found += [f"{where}: {problem}" for problem in own.found]
    for name, purpose in (("train", "train on"), ("dev", "choose the epoch by")):
        if name not in fitted or fitted[name].rows:
            continue
        why = "; give more, or lower what is cut off"
        if name == "train" and settings.hold_out and not data.train and data.dev:
            why = f": --hold-out {settings.hold_out} keeps back the only source that there is; give more, or a dev file"
        where = ", ".join(map(str, paths.get(name, paths["train"])))
        problems.found.append(f"{where}: no text to {purpose} is left{why}")
    problems.raise_any()
    return fitted, cut_later


def check_prompts(
    data: TaskData, split: str, encoder: TaskEncoder, settings: TextTaskSettings
) -> tuple[list[str], tuple[int, int]]:
    """Everything that will be written after or scored, as it will be cut then.

    Returns:
        What does not fit, one problem for each group of texts; how many sources are cut, and of how many texts.
    """
    own = [(text,) for text in getattr(data, split)]
    groups: Sequence[Sequence[TaskText]] = own if data.prompted is None else data.prompted.get(split, ())
    texts = [text for group in groups for text in group]
    if data.longest_answer:
        prompts = encoder.fit_prompts(texts, data.longest_answer, needed_for_scoring(data.longest_answer))
    else:
        prompts = encoder.fit_prompts(texts, room_for_writing(settings.max_new_tokens, encoder.context))
    of_group = [number for number, group in enumerate(groups) for _ in group]
    problems: dict[int, str] = {}
    for number, problem in prompts.problems.items():
        problems.setdefault(of_group[number], problem)
    return some_of(list(problems.values())), (prompts.cut, len(texts))


def task_part(
    task: TextTask, vocabulary: TaskVocabulary, encoder: TaskEncoder, encoded: Mapping[str, Fitted], data: TaskData
) -> TaskPart:
    evaluate = task.evaluate
    counts = {name: len(fit.rows) for name, fit in encoded.items()}
    return TaskPart(
        vocabulary=vocabulary,
        encoder=encoder,
        encoded={name: fit.rows for name, fit in encoded.items()},
        summary=f"{counts['train']} texts to train on, {counts['choose']} dev, {counts['test']} test",
        evaluate=None if evaluate is None else lambda writer: evaluate(writer, data),
        score=task.score,
        lower_is_better=task.lower_is_better,
    )
