"""From the settings of a sonnet run to the run itself: files, texts, model, and all that is wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from config import ROOT, GPT2Config, UserError
from datasets import DataSource
from models.card import fine_tuning_defaults, notes_of_guess
from models.checkpoint import read_config
from models.sources import Checkpoint, find_model
from models.tokenizer import load_tokenizer
from poetry.sonnets import (
    DATASET,
    N_GIVEN,
    SONNETS,
    TASK,
    Sonnet,
    SonnetFiles,
    find_sonnets,
    read_files,
    read_sonnets,
)
from storage import file_sha256, output_file_problems
from strategies import Strategy, choose_strategy
from training.fine_tuning import context_of, writing_problems
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
from training.writing.job import Text, encode_texts
from training.writing.poems import beginning, decoding_problems, room_problems
from training.writing.run import Writer, WritingRun, end_token
from training.writing.task_notes import notes_of_repeats, repeats_of

# (run, writer, files, reported sonnets) -> what metrics.json gets; (settings, metrics, run folder): prints them. Of the
# training sonnets the files hold those that are trained on.
Finish = Callable[[WritingRun, Writer, SonnetFiles, Sequence[Sonnet]], dict[str, Any]]
Show = Callable[[Any, dict[str, Any], RunFolder], None]
LEAST_TRUTH = 2  # true endings: one chooses the epoch, another is reported on
HELD_OUT_EVERY = 10  # of the training sonnets, where there are no true endings to be measured on


def prepare_run(settings: Any, given: set[str], finish: Finish, show: Show) -> WritingRun:
    """Whatever can be checked is checked, and reported at once."""
    files = folder = checkpoint = source = None
    if settings.resume:
        folder = RunFolder(Path(settings.resume))
        saved = saved_run(folder, TASK, f"--resume {settings.resume}")
        free = (*FREE_WHEN_RESUMED, "show", "sonnet_out")
        settings, given = resumed_settings(settings, given, folder, saved, free)
        checkpoint, source = begun_with(saved)
    strategy = choose_strategy(settings.strategy, None, TASK)
    problems = Problems()
    if folder is None:
        resolved = with_defaults(settings, given, strategy.defaults(DATASET))
        problems.found += writing_problems(resolved, given, strategy, None) + decoding_problems(resolved, given)
    if not (settings.model and (settings.data_dir or (settings.sonnet_path and settings.held_out_sonnet_path))):
        problems.raise_any()  # before anything is downloaded
    with problems.collect():
        checkpoint = checkpoint or find_model(settings.model)
    with problems.collect():
        source = source or find_data(settings)
        files = read_files(source)
    problems.found += output_file_problems("--sonnet-out", settings.sonnet_out)
    problems.raise_any()
    assert source and files and checkpoint
    files = limited(files, settings)
    return make_run(settings, given, strategy, checkpoint, source, files, folder, finish, show)


def limited(files: SonnetFiles, settings: Any) -> SonnetFiles:
    """The first of each file, as ``--limit-*`` says; of the true endings those of the beginnings that are left.

    With ``--hold-out`` there are no true endings, and no beginnings but the user's own.
    """
    if settings.hold_out is not None:
        own = files.test if settings.held_out_sonnet_path else []
        files = dataclasses.replace(files, truth=[], dev=[], test=own)
    dev = files.dev[: settings.limit_dev]
    numbers = {poem.number for poem in dev}
    return dataclasses.replace(
        files,
        train=files.train[: settings.limit_train],
        dev=dev,
        truth=[poem for poem in files.truth if poem.number in numbers],
        test=files.test[: settings.limit_test],
    )


def find_data(settings: Any) -> DataSource:
    """The sonnets to train on, the beginnings to complete, and true endings to measure by where there are some.

    The user's own beginnings are completed whatever is measured on: as ``test``, and if their true endings are known as
    ``dev`` too. A file that is not named comes from the usual source.
    """
    own, beginnings, truth = settings.sonnet_path, settings.held_out_sonnet_path, settings.true_sonnet_path
    if truth and not beginnings:
        raise UserError("--true-sonnet-path: belongs to --held-out-sonnet-path; name that too")
    if own and beginnings and settings.data_dir:
        raise UserError("--data-dir: your own files are named already; leave it out")
    usual = DataSource("files", {})
    if not own or not beginnings:
        usual = find_sonnets(Path(settings.data_dir) if settings.data_dir else None, root=ROOT)
    if not own and not beginnings:
        return usual
    paths = dict(usual.paths)
    notes = list(usual.notes)
    if own:
        paths["train"] = Path(own)
        notes += [] if beginnings else [f"the sonnets to complete are the usual ones: {paths['dev'].parent}"]
    if beginnings:
        notes += [] if own else [f"the sonnets to train on are the usual ones: {paths['train']}"]
        paths["test"] = Path(beginnings)
        known = Path(truth) if truth else true_endings_beside(Path(beginnings))
        if known is not None:
            paths |= {"dev": Path(beginnings), "truth": known}
    return DataSource("files", {name: paths[name] for name in SONNETS.files if name in paths}, tuple(notes))


def true_endings_beside(beginnings: Path) -> Path | None:
    """The file in which the course gives true endings, where it is in the same folder and holds these sonnets."""
    path = beginnings.with_name(SONNETS.files["truth"])
    try:
        numbers = [{poem.number for poem in read_sonnets(one)} for one in (beginnings, path)]
    except UserError:  # it is missing, or no such file; of the beginnings that is told where they are read
        return None
    return path if numbers[0] == numbers[1] else None


def make_run(
    settings: Any,
    given: set[str],
    strategy: Strategy,
    checkpoint: Checkpoint,
    source: DataSource,
    files: SonnetFiles,
    folder: RunFolder | None,
    finish: Finish,
    show: Show,
) -> WritingRun:
    """Fills in the defaults and names the run's folder, unless one is given."""
    defaults = [strategy.defaults(DATASET)]
    guess: tuple[str, ...] = ()
    if checkpoint.origin == "bundled":
        defaults.append(fine_tuning_defaults(checkpoint.folder, DATASET, strategy.name, defaults[0]))
        guess = notes_of_guess(checkpoint.folder, DATASET, strategy.name, given)
    resolved = dataclasses.replace(with_defaults(settings, given, *defaults), strategy=strategy.name)
    config = read_config(checkpoint.folder)
    problems = Problems()
    if folder is None:
        problems.found += writing_problems(resolved, given, strategy, config)
    problems.found += decoding_problems(resolved, given if folder is None else ())
    with problems.collect():
        train, choose, report, notes = split(files, resolved)
        check_lengths(source, files, [*choose, *report])
        texts = {
            "train": [whole(poem) for poem in train],
            "choose": [beginning(poem) for poem in choose],
            "report": [beginning(poem) for poem in report],
        }
        prompts = {source.paths[name]: getattr(files, name) for name in ("dev", "test") if name in source.paths}
        measured_on = source.paths["truth" if len(files.truth) >= LEAST_TRUTH else "train"]
        where = {"train": source.paths["train"], "choose": measured_on, "report": measured_on}
        named = [
            dataclasses.replace(text, id=f"{text.id} of {where[name].name}") for name in texts for text in texts[name]
        ]
        check_context(checkpoint, config, resolved, named, prompts | {measured_on: report})
    problems.raise_any()
    repeats, of_repeats = find_repeats(train, [*choose, *report], files.test)
    record = model_record(checkpoint)
    model = checkpoint.name + ("-random" if settings.random_init else "")
    dataset = {"sample": f"{DATASET}-sample", "files": "custom"}.get(source.origin, DATASET)
    hashes = {name: file_sha256(path) for name, path in source.paths.items()}
    if folder is None:
        usual = with_defaults(type(settings)(), set(), *defaults)
        own_files = hashes if source.origin == "files" else {}
        folder = new_folder(TASK, dataset, model, resolved, usual, checkpoint, record, own_files)
    run = WritingRun(
        script="sonnet_generation.py",
        task=TASK,
        dataset=dataset,
        settings=resolved,
        strategy=strategy,
        texts=texts,
        files={
            name: {"path": str(path.absolute()), "sha256": hashes[name], "rows": len(getattr(files, name))}
            for name, path in source.paths.items()
        },
        data_origin=source.origin,
        # A resumed run's source has all of them already.
        data_notes=tuple(dict.fromkeys((*source.notes, *files.notes, *notes, *of_repeats, *guess))),
        checkpoint=checkpoint,
        model_name=model,
        model_record=record,
        config=config,
        folder=folder,
        finish=lambda run, writer: finish(run, writer, dataclasses.replace(files, train=train), report),
        show=lambda metrics: show(resolved, metrics, folder),
        example=("first line\nsecond line\nthird line\n",),
        repeats=repeats,
    )
    if run.folder.exists and not settings.overwrite:
        run.folder.refuse_other_run(run.identity)
    return run


def split(files: SonnetFiles, settings: Any) -> tuple[list[Sonnet], list[Sonnet], list[Sonnet], tuple[str, ...]]:
    """What is trained on, what chooses the epoch, what is reported on, and what the user should know of it.

    Of the true endings every other one chooses; the rest is reported on. Where there are none, or the user wants it so,
    training sonnets are kept back.
    """
    train, kept_back = keep_back(files.train, len(files.truth), settings.hold_out)
    if len(files.truth) >= LEAST_TRUTH:
        return train, files.truth[::2], files.truth[1::2], ()
    if files.truth and settings.limit_dev is not None:
        raise UserError(
            f"--limit-dev {settings.limit_dev}: leaves one true ending, but one is needed to choose the epoch by and "
            f"another to report on; give at least {LEAST_TRUTH}"
        )
    every = settings.hold_out or HELD_OUT_EVERY
    if len(kept_back) < 2:
        limit = "" if settings.limit_train is None else f"--limit-train {settings.limit_train}: "
        raise UserError(
            f"{limit}{len(files.train)} sonnets to train on: too few to keep some back for choosing the epoch; it "
            f"takes {every + 1}"
        )
    why = "there is only one true ending" if files.truth else "there are no true endings"
    why = f"--hold-out {every}" if settings.hold_out else why
    note = f"{why}: {len(kept_back)} of the training sonnets are kept back to measure on"
    return train, kept_back[::2], kept_back[1::2], (note,)


def keep_back(train: list[Sonnet], n_truth: int, hold_out: int | None) -> tuple[list[Sonnet], list[Sonnet]]:
    """What is trained on, and what is kept back of it to measure on where there are too few true endings.

    Args:
        n_truth: the true endings.
        hold_out: the user's ``--hold-out``.
    """
    if n_truth >= LEAST_TRUTH:
        return train, []
    every = hold_out or HELD_OUT_EVERY
    return [poem for i, poem in enumerate(train) if i % every], train[::every]


def find_repeats(
    train: Sequence[Sonnet], measured: Sequence[Sonnet], to_complete: Sequence[Sonnet]
) -> tuple[dict[str, Any], list[str]]:
    """Sonnets that stand in the data twice, for ``config.json``, and what the user should know of them.

    Of those to complete it is the given lines that count: their endings are not there.
    """
    wholes = {
        name: [(str(poem.number), poem.text) for poem in poems] for name, poems in (("train", train), ("dev", measured))
    }
    given = {
        name: [(str(poem.number), beginning(poem).prompt) for poem in poems]
        for name, poems in (("train", train), ("test", to_complete))
    }
    repeats, of_given = repeats_of(wholes), repeats_of(given)
    for kind, found in repeats.items():
        found["test"] = of_given[kind]["test"]
    what = "sonnets (by their given lines in test)" if to_complete else "sonnets"
    return repeats, notes_of_repeats(repeats, wholes | {"test": given["test"]}, what)


def check_lengths(source: DataSource, files: SonnetFiles, measured: Sequence[Sonnet]) -> None:
    """Makes sure that the sonnets that choose and are reported on begin with what is given, and go on after it."""
    has_truth = len(files.truth) >= LEAST_TRUTH
    problems = [
        f"{source.paths['dev']}: poem {poem.number} has {len(poem.lines)} line{'s' * (len(poem.lines) != 1)}, where "
        f"{N_GIVEN} are given; give its first {N_GIVEN}"
        for poem in (files.dev if has_truth else ())
        if len(poem.lines) < N_GIVEN
    ]
    short = [str(poem.number) for poem in measured if len(poem.lines) <= N_GIVEN]
    if short:
        problems.append(
            f"{source.paths['truth' if has_truth else 'train']}: no line is left to measure where {N_GIVEN} are given, "
            f"of poem {', '.join(short)}; give poems of more lines"
        )
    if problems:
        raise UserError(problems)


def check_context(
    checkpoint: Checkpoint,
    config: GPT2Config,
    settings: Any,
    texts: list[Text],
    prompts: dict[Path, list[Sonnet]],
) -> None:
    """Makes sure that the model's context holds every text, and what is to be written after every beginning.

    Args:
        prompts: file -> poems whose first lines will be completed.
    """

    tokenizer, context = load_tokenizer(checkpoint.folder, config), context_of(config, settings)
    end, problems = end_token(config), Problems()
    with problems.collect():
        encode_texts(texts, tokenizer, end, context)
    problems.found += room_problems(settings, prompts, tokenizer, context)
    problems.raise_any()


def whole(poem: Sonnet) -> Text:

    return Text(str(poem.number), "", "\n".join(poem.lines))
