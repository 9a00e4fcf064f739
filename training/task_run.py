"""The run of a task with task tokens: which model, which files, everything that is wrong with them, and the flow."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from config import DECODING, ROOT, TextTaskSettings, UserError
from datasets import DataSource, count_repeats
from models.card import fine_tuning_defaults
from models.checkpoint import read_config
from models.gpt2 import GPT2Model
from models.sources import Checkpoint, find_model
from storage import file_sha256, write_text
from strategies import Strategy, choose_strategy, strategies_of
from training.cli import names_in_group, unused_flags
from training.decoding import decoding_of, unused_filters
from training.device import open_device
from training.fine_tuning import context_of, writing_problems
from training.run_folder import RunFolder
from training.setup import (
    Problems,
    begun_with,
    finished_run,
    model_record,
    resumed_settings,
    run_name,
    saved_run,
    saved_settings,
    with_defaults,
)
from training.task_texts import (
    Fitted,
    TaskData,
    TaskEncoder,
    TaskText,
    TextTask,
    Written,
    needed_for_scoring,
    room_for_writing,
    some_of,
)
from training.task_tokens import TaskVocabulary, find_task_tokens, saved_task_tokens
from training.terminal import shorten
from training.writing import TaskPart, Writer, WritingRun
from training.writing_job import Text

WHOLE_TEXT = ("how a text begins",)  # in the place of a template, where nothing stands before the target
WHEN_TOO_LONG = {
    "cut": "sources were cut",
    "left_out": "texts were left out of training and perplexity, because what can't be cut does not fit",
}
HANGUL = re.compile("[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]")
ENOUGH_TEXTS = 1000  # say which language it is
USED_WITH_RUN = {  # beside the flags of decoding and the user's own text
    "from_run", "output_dir", "config", "keep", "stride", "seed", "use_gpu", "precision",
}  # fmt: skip
SHOWN_OF_REPEATS = 100  # columns of a text in config.json
KOREAN_NOTE = (
    "the training texts look Korean, but the measures, and the model unless one is named, are those for English; add "
    "--language ko"
)


# ---------------------------------------------------------------------------------------------------------------------
# What will be run, on what, and everything that is wrong with it
# ---------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TaskFiles:
    """The files of a run.

    Attributes:
        dataset: its name in folders and tables.
        language: en or ko.
        source: where they are; its paths are called ``train``, or ``train-1`` and so on where there are several.
    """

    dataset: str
    language: str
    source: DataSource

    def by_split(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for name, path in self.source.paths.items():
            found.setdefault(name.partition("-")[0], []).append(path)
        return found


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
        settings, given = resumed_settings(settings, given, folder, saved, task.aliases)
        checkpoint, source = begun_with(saved)
        files = TaskFiles(saved["dataset"], settings.language or "en", source)
    with problems.collect():
        task.check(settings)
    with problems.collect():
        strategy = choose_strategy(settings.strategy, None, task.name, task.aliases)
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


def find_files(task: TextTask, settings: TextTaskSettings) -> TaskFiles:
    """The user's own files, a published dataset's, or the bundled sample.

    Raises:
        UserError: flags that contradict each other, or files that are not there.
    """
    own = {name: getattr(settings, f"{name}_file") for name in ("train", "dev", "test")}
    if any(own.values()):
        return own_files(settings, own)
    if settings.data_dir and Path(settings.data_dir).is_file():
        raise UserError(f"--data-dir {settings.data_dir}: is a file; name the folder that it is in")
    named = settings.dataset or (only_dataset(task, Path(settings.data_dir)) if settings.data_dir else None)
    if named is not None:
        return published_files(task, settings, named)
    if settings.data_dir:
        raise UserError(f"--data-dir {settings.data_dir}: say which --dataset is there: {', '.join(task.datasets)}")
    language = settings.language or "en"
    folder = ROOT / "data" / "sample"
    used = own if settings.hold_out is None else ("train",)
    paths = {name: folder / f"{task.name}-{language}-{name}.{task.sample_ending}" for name in used}
    missing = [path for path in paths.values() if not path.exists()]
    if missing:
        raise UserError(
            [f"{path}: the bundled sample lacks it; name your own --train-file and --dev-file" for path in missing]
        )
    note = (
        "the bundled sample is small and made up, so the numbers say little; name real data by --dataset and "
        "--data-dir, or by --train-file and --dev-file"
    )
    return TaskFiles(f"{language}-sample", language, DataSource("sample", paths, (note,)))


def own_files(settings: TextTaskSettings, own: Mapping[str, str | None]) -> TaskFiles:
    needed = ("train", "dev") if settings.hold_out is None else ("train",)
    problems = [
        f"--{name}-file: missing; your own data need a file to train on and one to choose the epoch by, or --hold-out 5"
        for name in needed
        if not own[name]
    ]
    if settings.hold_out is not None and own["dev"]:
        problems.append("--dev-file: --hold-out takes training texts in its place; leave one of the two out")
    problems += [
        f"--{flag.replace('_', '-')}: your own files are named already; leave it out"
        for flag in ("dataset", "data_dir")
        if getattr(settings, flag)
    ]
    if problems:
        raise UserError(problems)
    paths = {name: Path(path) for name, path in own.items() if path}
    return TaskFiles("custom", settings.language or "en", DataSource("files", paths))


def only_dataset(task: TextTask, folder: Path) -> str | None:
    """The dataset of a task that has but one, if any of its files is in a folder."""
    if len(task.datasets) > 1:
        return None
    ((name, dataset),) = task.datasets.items()
    return name if any((folder / file).exists() for file in chain(*dataset.files_in(folder).values())) else None


def published_files(task: TextTask, settings: TextTaskSettings, name: str) -> TaskFiles:
    dataset = task.datasets[name]
    folder = Path(settings.data_dir) if settings.data_dir else ROOT / "data"
    if settings.language not in (None, dataset.language):
        raise UserError(f"--language {settings.language}: {name} is in {dataset.language}; leave the flag out")
    paths: dict[str, Path] = {}
    problems: list[str] = []
    names = dataset.files_in(folder)
    notes = [dataset.note] if dataset.note else []
    if settings.hold_out is not None:
        unused = {file for files in names.values() for file in files} - {*names["train"]}
        notes = [] if unused else notes  # they say what is chosen by, and measured on, which files
        names = {"train": names["train"]}
    for split, files in names.items():
        found = {f"{split}-{i + 1}" if len(files) > 1 else split: folder / file for i, file in enumerate(files)}
        missing = [path for path in found.values() if not path.exists()]
        if missing and split == "test":
            notes.append(f"{missing[0]}: no such file, so nothing is measured on test data")
            continue
        problems += [
            f"{path}: missing; name the folder with {name}'s files ({dataset.homepage}) by --data-dir"
            for path in missing
        ]
        paths |= found
    if problems:
        raise UserError(problems)
    return TaskFiles(
        name, dataset.language, DataSource("data-dir" if settings.data_dir else "local", paths, tuple(notes))
    )


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
    problems = Problems()
    with problems.collect():
        decoding_of(resolved)
    if folder is None:
        problems.found += unused_filters(resolved, given)
        problems.found += writing_problems(resolved, given, strategy, config)
        problems.found += unlikelihood_problems(task, resolved)
    problems.raise_any()
    vocabulary = find_task_tokens(checkpoint.folder, config, task.task_tokens)
    encoder = TaskEncoder(
        vocabulary.tokenizer, vocabulary.ids, vocabulary.end, context_of(config, resolved), resolved.keep
    )
    data = task.make(records, resolved, encoder)
    fitted, cut_later = fit_texts(data, encoder, resolved)
    repeats = repeats_of(data.sources)
    notes = [
        *notes_of_hold_out(resolved, data),
        *notes_of_repeats(repeats, data),
        *notes_of_fit(fitted, encoder.context),
        *notes_of_writing(cut_later, encoder.context, bool(data.longest_answer)),
    ]
    if files.source.origin == "files" and "language" not in given and looks_korean(data):
        notes.append(KOREAN_NOTE)
    record = model_record(checkpoint)
    model = checkpoint.name + ("-random" if settings.random_init else "")
    hashes = {name: file_sha256(path) for name, path in files.source.paths.items()}
    if folder is None:
        usual = with_defaults(task.settings_class(), set(), *defaults)
        usual = dataclasses.replace(
            usual, random_init=settings.random_init, language=files.language
        )  # the name says it
        extra: dict[str, Any] = {"weights": record["weights_sha256"]} if checkpoint.origin == "folder" else {}
        if files.source.origin == "files":
            extra |= hashes
        name = run_name(task.name, files.dataset, model, strategy.name, resolved, usual, extra)
        folder = RunFolder(Path(settings.output_dir or ROOT / "runs") / name)
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


def fit_texts(
    data: TaskData, encoder: TaskEncoder, settings: TextTaskSettings
) -> tuple[dict[str, Fitted], dict[str, tuple[int, int]]]:
    """The tokens of each split; and of dev and test, how many sources of how many texts are cut when the model answers.

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
        problems.found += own.found
    problems.found += [
        f"no text to {purpose} is left; give more, or lower what is cut off"
        for name, purpose in (("train", "train on"), ("dev", "choose the epoch by"))
        if name in fitted and not fitted[name].rows
    ]
    problems.raise_any()
    return fitted, cut_later


def unlikelihood_problems(task: TextTask, settings: TextTaskSettings) -> list[str]:
    """Refuses the knobs of the strategies that a task has not, because what it writes is too short for them."""
    if "unlikelihood" in strategies_of(task.name):
        return []
    return [
        f"--{name.replace('_', '-')}: there is no unlikelihood for {task.name}, whose texts are too short to repeat "
        "themselves; leave it out"
        for name in ("ul_alpha", "ul_sequence")
        if getattr(settings, name)
    ]


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


def files_record(files: TaskFiles, data: TaskData, hashes: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What ``config.json`` says of the files: name -> path, sha256, and how many texts were made of a split's file."""
    found: dict[str, dict[str, Any]] = {}
    for name, path in files.source.paths.items():
        found[name] = {"path": str(path.absolute()), "sha256": hashes[name]}
        if name in ("train", "dev", "test"):
            found[name]["rows"] = len(getattr(data, name))
    return found


def repeats_of(sources: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, Any]:
    """What stands twice in the data: as :func:`datasets.overlap_report`, by ids, and with long texts cut.

    Args:
        sources: split -> (id, text) of each.
    """
    places: dict[str, dict[str, list[str]]] = {}
    for split, texts in sources.items():
        found = places.setdefault(split, {})
        for id_, text in texts:
            found.setdefault(" ".join(text.lower().split()), []).append(id_)
    report = count_repeats(places, "ids")
    for kind in report.values():
        for counted in kind.values():
            counted["examples"] = [
                entry | {"text": shorten(entry["text"][: SHOWN_OF_REPEATS + 1], SHOWN_OF_REPEATS)}
                for entry in counted["examples"]
            ]
    return report


def notes_of_repeats(repeats: Mapping[str, Mapping[str, Any]], data: TaskData) -> list[str]:
    """How many texts stand twice in the data, where there are any."""
    notes = []
    for kind, what in (("repeated", "that repeat another"), ("in_train", "that also stand in train")):
        parts = [
            f"{split} {found['rows']:,} of {len(data.sources[split]):,}"
            for split, found in repeats[kind].items()
            if found["rows"]
        ]
        notes += [f"{data.sources_are} {what}: {', '.join(parts)}"] if parts else []
    return ["; ".join([*notes, "config.json lists some"])] if notes else []


def notes_of_hold_out(settings: TextTaskSettings, data: TaskData) -> list[str]:
    if settings.hold_out is None:
        return []
    n_held = len(data.dev if data.prompted is None else data.prompted["dev"])
    return [f"--hold-out {settings.hold_out}: {n_held} of the training texts are kept back to measure on"]


def notes_of_fit(fitted: Mapping[str, Fitted], context: int) -> list[str]:
    """How many sources were cut and how many texts left out, where there are any."""
    notes = []
    for field, what in WHEN_TOO_LONG.items():
        counts = {name: getattr(fit, field) for name, fit in fitted.items()}
        if any(counts.values()):
            parts = ", ".join(f"{name} {counts[name]} of {_n_texts(fitted[name])}" for name in counts if counts[name])
            notes.append(f"context of {context} tokens: {what}: {parts}")
    return notes


def notes_of_writing(cut: Mapping[str, tuple[int, int]], context: int, scored: bool) -> list[str]:
    """How many sources are cut where the model is to answer, which may be more than where the answer is known."""
    parts = ", ".join(f"{split} {count} of {of}" for split, (count, of) in cut.items() if count)
    what = "scores the answers" if scored else "writes"
    return [f"context of {context} tokens: sources are cut when the model {what}: {parts}"] if parts else []


def looks_korean(data: TaskData) -> bool:
    """Whether most letters that are learnt from are Hangul; where labels are scored, those of what they belong to."""
    n_letters = n_hangul = 0
    for text in data.train[:ENOUGH_TEXTS]:
        learnt = (
            " ".join(part.text for part in text.parts if part.kind != "token") if data.longest_answer else text.target
        )
        n_letters += sum(map(str.isalpha, learnt))
        n_hangul += len(HANGUL.findall(learnt))
    return n_hangul > n_letters / 2


def _n_texts(fit: Fitted) -> int:
    return len(fit.rows) + fit.left_out


# ---------------------------------------------------------------------------------------------------------------------
# Runs that are there already
# ---------------------------------------------------------------------------------------------------------------------


def asked_run(task: TextTask, settings: TextTaskSettings, given: set[str]) -> tuple[RunFolder, TextTaskSettings]:
    """The run of ``--from-run``, or the task's run that was finished last, for the user's own text.

    Returns:
        Its folder, and its settings under those that the user gave.

    Raises:
        UserError: with all settings that change nothing there, and where there is no such run.
    """
    folder, problems = None, Problems()
    with problems.collect():
        task.check(settings)
    with problems.collect():
        folder = finished_run(settings.from_run, settings.output_dir, task.name)
    used = names_in_group(task.settings_class, DECODING) | USED_WITH_RUN | {*task.asks}
    problems.found += unused_flags(task.settings_class, given, used, f"--{task.asks[0]}")
    if folder is not None:
        with problems.collect():
            saved = saved_settings(task.settings_class, folder, folder.config())
            known = given & {field.name for field in dataclasses.fields(settings)}
            settings = dataclasses.replace(saved, **{name: getattr(settings, name) for name in known})
            if settings.temperature == 0 and "samples" not in given:
                settings = dataclasses.replace(settings, samples=1)  # the run's would all be the same
            decoding_of(settings)
            problems.found += unused_filters(settings, given)
    problems.raise_any()
    assert folder is not None
    return folder, settings


def open_writer(task: TextTask, folder: RunFolder, settings: TextTaskSettings) -> Writer:
    """The model of a finished run; which run, and what it has to cut of the user's text, is said on stderr, once."""
    print(f"run: {folder.path}", file=sys.stderr)
    device = open_device(settings.use_gpu, settings.precision)
    gpt2 = GPT2Model.from_pretrained(folder.best).to(device.accelerator.device)
    vocabulary = saved_task_tokens(folder.best, task.task_tokens)
    say = cache(lambda note: print(f"note: {note}", file=sys.stderr))
    encoder = TaskEncoder(vocabulary.tokenizer, vocabulary.ids, vocabulary.end, gpt2.max_tokens, settings.keep, say)
    return Writer(gpt2, vocabulary.tokenizer, device, lambda: None, encoder)


# ---------------------------------------------------------------------------------------------------------------------
# What was written, kept and shown
# ---------------------------------------------------------------------------------------------------------------------


def save_written(
    run: WritingRun, split: str, written: Sequence[tuple[TaskText, Written]], columns: Mapping[str, Sequence[float]]
) -> None:
    """``<split>-written.jsonl``: prompts, true texts and written ones; ``<split>-scores.jsonl``: each text's measures.

    Args:
        columns: name -> one value per text; NaN, which says nothing, is left out.
    """
    texts, scores = [], []
    for i, (text, new) in enumerate(written):
        prompt = " ".join(part.text for part in text.parts)
        texts.append({"id": text.id, "prompt": prompt, "target": text.target, "written": new.text})
        values = {name: column[i] for name, column in columns.items() if column[i] == column[i]}
        scores.append({"id": text.id, **values})
    run.folder.predictions.mkdir(parents=True, exist_ok=True)
    for name, records in (("written", texts), ("scores", scores)):
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        write_text(run.folder.predictions / f"{split}-{name}.jsonl", "".join(lines))


def measures_table(metrics: Mapping[str, Any], names: Sequence[str], baseline: str = "") -> str:
    """The measures of dev and test with their 95 % intervals over texts.

    Args:
        baseline: what ``metrics["baseline"]`` is; empty: there is none.
    """
    lines = []
    for split in ("dev", "test"):
        if split not in metrics:
            continue
        values, intervals = metrics[split], metrics.get(f"{split}_ci", {})
        beside = metrics["baseline"][split] if baseline else {}
        lines.append(f"\n{split:<18}{'value':>9}   {'95 % interval':<20}{baseline}".rstrip())
        for name in names:
            if name in values:
                low_high = "{:.3f} to {:.3f}".format(*intervals[name]) if name in intervals else ""
                other = f"{beside[name]:.3f}" if name in beside else ""
                lines.append(f"{name:<18}{values[name]:>9.3f}   {low_high:<20}{other}".rstrip())
    return "\n".join(lines)
