"""Sonnets with GPT-2: fine-tuned on Shakespeare's, it completes sonnets of which three lines are given.

python sonnet_generation.py --strategy unlikelihood         # trains, then writes generated_sonnets.txt
python sonnet_generation.py --strategy prefix --decode sonnet --show
python sonnet_generation.py --from-run runs/sonnet-... --decode sonnet --samples 3
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import AT_LEAST_ONE, DATA, DECODING, ROOT, RUN, GPT2Config, UserError, WritingSettings, setting
from datasets import DataSource
from poetry.sonnets import Sonnet, SonnetFiles, find_sonnets, format_sonnets, read_files, read_sonnets, write_sonnets
from strategies import Strategy, choose_strategy
from training.cli import build_parser, names_in_group, parse_settings, run_script, unused_flags

if TYPE_CHECKING:
    from models.sources import Checkpoint
    from training.run_folder import RunFolder
    from training.writing.job import Text
    from training.writing.poems import Completer
    from training.writing.run import Writer, WritingRun

TASK, DATASET = "sonnet", "shakespeare"
N_GIVEN = 3
INDENT = "  "  # of the couplet, as in the course's files
USED_FROM_RUN = {  # beside the flags of decoding
    "from_run", "config", "data_dir", "held_out_sonnet_path", "limit_train", "limit_dev", "limit_test", "seed",
    "use_gpu", "precision", "dry_run", "sonnet_out", "show",
}  # fmt: skip
GENERATED = {"test": "generated_sonnets.txt", "dev": "generated_sonnets_dev.txt"}
LEAST_TRUTH = 2  # true endings: one chooses the epoch, another is reported on
HELD_OUT_EVERY = 10  # of the training sonnets, where there are no true endings to be measured on
EXAMPLES = """\
  python sonnet_generation.py --strategy unlikelihood
  python sonnet_generation.py --strategy taskC --decode sonnet --show --use_gpu
  python sonnet_generation.py --strategy lora --temperature 0.9 --top_p 0.95 --samples 5
  python sonnet_generation.py --sonnet_path sonnets.txt --held_out_sonnet_path held_out.txt --sonnet_out out.txt
  python sonnet_generation.py --from-run runs/sonnet-shakespeare-mini-full-s11711 --decode sonnet --meter hard"""


@dataclass(frozen=True)
class SonnetSettings(WritingSettings):
    """The settings of a sonnet run."""

    dataset: list[str] = setting([DATASET], "dataset", group=DATA, choices=(DATASET,), identity=False)
    sonnet_path: str | None = setting(
        None, "your own sonnets to train on, numbered as in sonnets.txt", group=DATA, metavar="FILE", identity=False
    )
    held_out_sonnet_path: str | None = setting(
        None, "the beginnings to complete, three lines each", group=DATA, metavar="FILE", identity=False
    )

    decode: str = setting(
        "free", "free: plain sampling; sonnet: fourteen lines that scan and rhyme", group=DECODING,
        choices=("free", "sonnet"),
    )  # fmt: skip
    meter: str = setting(
        "soft", "with --decode sonnet: prefer iambic pentameter, take nothing else while there is any, or don't look",
        group=DECODING, choices=("soft", "hard", "off"),
    )  # fmt: skip
    candidates: int = setting(
        24, "with --decode sonnet: lines that are drawn for each line", group=DECODING, within=AT_LEAST_ONE
    )

    sonnet_out: str | None = setting(
        None, "also write the completed sonnets to this file, and further samples beside it", group=RUN, metavar="FILE",
        identity=False,
    )  # fmt: skip
    show: bool = setting(False, "print the sonnets with rhyme letters and stress marks", group=RUN, identity=False)
    from_run: str | None = setting(
        None, "don't train: write with this finished run's model", group=RUN, metavar="FOLDER", identity=False
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser(SonnetSettings, "Sonnet generation with GPT-2.", EXAMPLES)
    parser.add_argument("--list-strategies", action="store_true", help="print the table of strategies and stop")
    settings, given = parse_settings(SonnetSettings, parser, sys.argv[1:] if argv is None else argv)
    if "list_strategies" in given:
        from training.strategy_table import strategy_table

        print(strategy_table(TASK))
        return 0

    from training.interrupt import Signals

    signals = Signals().install()
    from training.device import leave_process_group
    from training.writing.run import run_writing

    if settings.from_run is not None:
        write_with_run(settings, given)
        return 0
    run_writing(prepare_run(settings, given), signals)
    leave_process_group()
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# What will be run, on what, and everything that is wrong with it
# ---------------------------------------------------------------------------------------------------------------------


def prepare_run(settings: SonnetSettings, given: set[str]) -> WritingRun:
    """Whatever can be checked is checked, and reported at once."""
    from models.sources import find_model
    from training.run_folder import RunFolder
    from training.setup import FREE_WHEN_RESUMED, Problems, begun_with, resumed_settings, saved_run

    files = folder = checkpoint = source = None
    if settings.resume:
        folder = RunFolder(Path(settings.resume))
        saved = saved_run(folder, TASK, f"--resume {settings.resume}")
        free = (*FREE_WHEN_RESUMED, "show", "sonnet_out")
        settings, given = resumed_settings(settings, given, folder, saved, free)
        checkpoint, source = begun_with(saved)
    strategy = choose_strategy(settings.strategy, None, TASK)  # before anything is downloaded
    problems = Problems()
    with problems.collect():
        checkpoint = checkpoint or find_model(settings.model)
    with problems.collect():
        source = source or find_data(settings)
        files = read_files(source)
    problems.found += sonnet_out_problems(settings)
    problems.raise_any()
    assert source and files and checkpoint
    files = limited(files, settings)
    return make_run(settings, given, strategy, checkpoint, source, files, folder.path if folder else None)


def limited(files: SonnetFiles, settings: SonnetSettings) -> SonnetFiles:
    """The first of each file, as ``--limit-*`` says; of the true endings those of the beginnings that are left.

    With ``--hold-out`` there are no true endings, and no beginnings but the user's own.
    """
    if settings.hold_out is not None:
        files = dataclasses.replace(files, truth=[])
        files = files if settings.held_out_sonnet_path else dataclasses.replace(files, dev=[], test=[])
    dev = files.dev[: settings.limit_dev]
    numbers = {poem.number for poem in dev}
    return dataclasses.replace(
        files,
        train=files.train[: settings.limit_train],
        dev=dev,
        truth=[poem for poem in files.truth if poem.number in numbers],
        test=files.test[: settings.limit_test],
    )


def sonnet_out_problems(settings: SonnetSettings) -> list[str]:
    """Why ``--sonnet-out`` can't be written, while there is still time to choose another file."""
    if settings.sonnet_out is None:
        return []
    path = Path(settings.sonnet_out).absolute()
    if not path.parent.is_dir():
        return [f"--sonnet-out {settings.sonnet_out}: no folder {path.parent}; make it, or choose another"]
    if path.is_dir():
        return [f"--sonnet-out {settings.sonnet_out}: is a folder; name a file"]
    return []


def find_data(settings: SonnetSettings) -> DataSource:
    """The sonnets to train on, the beginnings to complete, and their true endings where they are known."""
    if not settings.sonnet_path and not settings.held_out_sonnet_path:
        return find_sonnets(Path(settings.data_dir) if settings.data_dir else None, root=ROOT)
    paths = {"train": settings.sonnet_path, "dev": settings.held_out_sonnet_path}
    flags = {"train": "--sonnet-path", "dev": "--held-out-sonnet-path"}
    for name, path in paths.items():
        if not path:
            raise UserError(f"{flags[name]}: missing; your own sonnets need a file to train on and one with beginnings")
    if settings.data_dir:
        raise UserError("--data-dir: your own files are named already; leave it out")
    return DataSource("files", {name: Path(str(path)) for name, path in paths.items()})


def make_run(
    settings: SonnetSettings,
    given: set[str],
    strategy: Strategy,
    checkpoint: Checkpoint,
    source: DataSource,
    files: SonnetFiles,
    folder: Path | None,
) -> WritingRun:
    """Fills in the defaults and names the run's folder, unless one is given."""
    from models.card import fine_tuning_defaults
    from models.checkpoint import read_config
    from storage import file_sha256
    from training.fine_tuning import context_of, writing_problems
    from training.run_folder import RunFolder
    from training.setup import Problems, model_record, run_name, with_defaults
    from training.writing.poems import decoding_problems
    from training.writing.run import WritingRun

    defaults = [strategy.defaults(DATASET)]
    if checkpoint.origin == "bundled":
        defaults.append(fine_tuning_defaults(checkpoint.folder, DATASET, strategy.name, defaults[0]))
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
        check_context(checkpoint, config, context_of(config, resolved), texts, source, files)
    problems.raise_any()
    record = model_record(checkpoint)
    model = checkpoint.name + ("-random" if settings.random_init else "")
    dataset = {"sample": f"{DATASET}-sample", "files": "custom"}.get(source.origin, DATASET)
    hashes = {name: file_sha256(path) for name, path in source.paths.items()}
    if folder is None:
        usual = with_defaults(SonnetSettings(), set(), *defaults)
        usual = dataclasses.replace(usual, random_init=settings.random_init)  # the name says it
        extra: dict[str, Any] = {"weights": record["weights_sha256"]} if checkpoint.origin == "folder" else {}
        if source.origin == "files":
            extra |= hashes
        name = run_name(TASK, dataset, model, strategy.name, resolved, usual, extra)
        folder = Path(settings.output_dir or ROOT / "runs") / name
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
        data_notes=tuple(dict.fromkeys((*source.notes, *files.notes, *notes))),  # a resumed run has them already
        checkpoint=checkpoint,
        model_name=model,
        model_record=record,
        config=config,
        folder=RunFolder(folder),
        finish=lambda run, writer: finish(run, writer, files, report),
        show=lambda metrics: show(resolved, metrics, RunFolder(folder)),
        example=("first line\nsecond line\nthird line\n",),
    )
    if run.folder.exists and not settings.overwrite:
        run.folder.refuse_other_run(run.identity)
    return run


def split(
    files: SonnetFiles, settings: SonnetSettings
) -> tuple[list[Sonnet], list[Sonnet], list[Sonnet], tuple[str, ...]]:
    """What is trained on, what chooses the epoch, what is reported on, and what the user should know of it.

    Of the true endings every other one chooses; the rest is reported on. Where there are none, or the user wants it so,
    training sonnets are kept back.
    """
    train = files.train
    if len(files.truth) >= LEAST_TRUTH:
        return train, files.truth[::2], files.truth[1::2], ()
    if files.truth and settings.limit_dev is not None:
        raise UserError(
            f"--limit-dev {settings.limit_dev}: leaves one true ending, but one is needed to choose the epoch by and "
            f"another to report on; give at least {LEAST_TRUTH}"
        )
    every = settings.hold_out or HELD_OUT_EVERY
    kept_back = train[::every]
    if len(kept_back) < 2:
        limit = "" if settings.limit_train is None else f"--limit-train {settings.limit_train}: "
        raise UserError(
            f"{limit}{len(train)} sonnets to train on: too few to keep some back for choosing the epoch; it takes "
            f"{every + 1}"
        )
    train = [poem for i, poem in enumerate(train) if i % every]
    why = "there is only one true ending" if files.truth else "there are no true endings"
    why = f"--hold-out {every}" if settings.hold_out else why
    note = f"{why}: {len(kept_back)} of the training sonnets are kept back to measure on"
    return train, kept_back[::2], kept_back[1::2], (note,)


def check_lengths(source: DataSource, files: SonnetFiles, measured: Sequence[Sonnet]) -> None:
    """Makes sure that the sonnets that choose and are reported on go on after what is given."""
    short = [str(poem.number) for poem in measured if len(poem.lines) <= N_GIVEN]
    if short:
        path = source.paths["truth" if len(files.truth) >= LEAST_TRUTH else "train"]
        raise UserError(
            f"{path}: no line is left to measure where {N_GIVEN} are given, of poem {', '.join(short)}; give poems of "
            "more lines"
        )


def check_context(
    checkpoint: Checkpoint,
    config: GPT2Config,
    context: int,
    texts: dict[str, list[Text]],
    source: DataSource,
    files: SonnetFiles,
) -> None:
    """Makes sure that the model's context holds every text, and every beginning that is to be completed."""
    from models.tokenizer import load_tokenizer
    from training.writing.job import Text, encode_texts
    from training.writing.run import end_token

    prompts = [
        Text(f"{poem.number} of {source.paths[name].name}", beginning(poem).prompt, "")
        for name in ("dev", "test")
        for poem in getattr(files, name)
    ]
    every = [text for split in texts.values() for text in split]
    encode_texts([*every, *prompts], load_tokenizer(checkpoint.folder, config), end_token(config), context)


def whole(poem: Sonnet) -> Text:
    from training.writing.job import Text

    return Text(str(poem.number), "", "\n".join(poem.lines))


def beginning(poem: Sonnet) -> Text:
    """A sonnet whose first lines are given."""
    from training.writing.job import Text

    return Text(
        str(poem.number), "".join(f"{line}\n" for line in poem.lines[:N_GIVEN]), "\n".join(poem.lines[N_GIVEN:])
    )


# ---------------------------------------------------------------------------------------------------------------------
# Writing and measuring
# ---------------------------------------------------------------------------------------------------------------------


def finish(run: WritingRun, writer: Writer, files: SonnetFiles, report: Sequence[Sonnet]) -> dict[str, Any]:
    """Completes the beginnings of both files, and measures what was made of those whose true endings are known."""
    from poetry.measures import confidence_intervals, measure
    from training.writing.poems import likelihoods_of_endings, make_completer, perplexity_of_generated

    settings: Any = run.settings
    started = time.perf_counter()
    completer = make_completer(writer, settings, files.train, INDENT)
    prompts = {"dev": files.dev or report, "test": files.test}
    poems = {name: complete(completer, settings, poems) for name, poems in prompts.items() if poems}
    measured = poems["dev"] if len(files.truth) >= LEAST_TRUTH else complete(completer, settings, report)
    numbers = {poem.number for poem in report}
    on_report = [poem for sample in measured for poem in sample if poem.number in numbers]
    n_poems = sum(len(sample) for samples in poems.values() for sample in samples)
    seconds = (time.perf_counter() - started) / max(n_poems, 1)
    values: dict[str, Any] = dict(measure(on_report, report, files.train))
    values |= perplexity_of_generated(run, writer, [beginning(poem) for poem in on_report])
    likelihoods = likelihoods_of_endings(run, writer)
    values["log_likelihood"] = sum(likelihoods.values()) / len(likelihoods)
    intervals: dict[str, Any] = {}
    if len(report) > 1:  # one prompt, drawn again and again, says nothing of others
        intervals = confidence_intervals(on_report, report, files.train, seed=settings.seed)
    with run.folder.writing():
        save_poems(run, poems)
        save_scores(run, on_report, files.train, likelihoods)
    return {
        "dev": values,
        "dev_ci": intervals,
        "seconds_per_poem": round(seconds, 3),
        "decode": settings.decode,
        "samples": settings.samples,
        "prompts": len(report),
    }


def complete(completer: Completer, settings: SonnetSettings, poems: Sequence[Sonnet]) -> list[list[Sonnet]]:
    """``--samples`` times all poems, each completed from its first lines."""
    from training.device import derive_seed

    given = [poem.lines[:N_GIVEN] for poem in poems]
    samples = []
    for sample in range(settings.samples):
        lines = completer(given, [derive_seed("poem", settings.seed, poem.number, sample) for poem in poems])
        samples.append([Sonnet(poem.number, tuple(new)) for poem, new in zip(poems, lines, strict=True)])
    return samples


def save_poems(run: WritingRun, poems: dict[str, list[list[Sonnet]]]) -> None:
    """The files of the run folder, and their copies under the course's names."""
    from storage import copy_files

    settings: Any = run.settings
    folder = run.folder.predictions
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples in poems.items():
        for number, sample in enumerate(samples):
            write_sonnets(sample_file(folder / GENERATED[name], number), sample)
    if settings.output_dir is None:
        copy_files(folder, ROOT / "predictions", "generated_sonnets*.txt")


def sample_file(path: Path, number: int) -> Path:
    """Where a sample of all poems is written: the first by the name itself, the others beside it."""
    return path.with_stem(f"{path.stem}_sample{number + 1}") if number else path


def write_out(settings: SonnetSettings, number: int, content: bytes) -> None:
    """``--sonnet-out``, of one of the samples."""
    from storage import write_bytes

    path = sample_file(Path(str(settings.sonnet_out)), number)
    try:
        write_bytes(path, content)
    except OSError as error:
        raise UserError(f"--sonnet-out {path}: can't be written ({error.strerror}); choose another file") from None


def save_scores(
    run: WritingRun, poems: Sequence[Sonnet], training: Sequence[Sonnet], likelihoods: dict[str, float]
) -> None:
    """Each reported poem's own measures, so that statistics can be done anew later, aligned by number."""
    from poetry.measures import per_poem
    from storage import write_text

    columns = per_poem(poems, training)
    lines = []
    for i, poem in enumerate(poems):
        values = {name: float(column[i]) for name, column in columns.items() if column[i] == column[i]}  # not NaN
        values["log_likelihood"] = likelihoods[str(poem.number)]
        lines.append(json.dumps({"id": str(poem.number), **values}) + "\n")
    write_text(run.folder.predictions / "dev-scores.jsonl", "".join(lines))


def write_with_run(settings: SonnetSettings, given: set[str]) -> None:
    """``--from-run``: no training; the finished run's model completes the beginnings."""
    from models.gpt2 import GPT2Model
    from models.tokenizer import load_tokenizer
    from training.device import open_device
    from training.setup import Problems, named_run
    from training.writing.poems import decoding_problems, make_completer
    from training.writing.run import Writer

    folder = named_run(str(settings.from_run), TASK)
    problems = Problems()
    used = names_in_group(SonnetSettings, DECODING) | USED_FROM_RUN
    problems.found += unused_flags(SonnetSettings, given, used, "--from-run")
    problems.found += sonnet_out_problems(settings) + decoding_problems(settings, given)
    files = SonnetFiles([], [], [], [], ())
    with problems.collect():
        if settings.held_out_sonnet_path:
            files = dataclasses.replace(files, dev=read_sonnets(Path(settings.held_out_sonnet_path)))
        else:
            files = read_files(find_sonnets(Path(settings.data_dir) if settings.data_dir else None, root=ROOT))
    problems.raise_any()
    files = limited(files, settings)
    prompts = files.test or files.dev
    device = open_device(settings.use_gpu, settings.precision)
    if settings.dry_run:
        device.say("dry run: everything is in order; nothing was written")
        return
    gpt2 = GPT2Model.from_pretrained(folder.best).to(device.accelerator.device)
    writer = Writer(gpt2, load_tokenizer(folder.best, gpt2.config), device, lambda: None)
    started = time.perf_counter()
    completer = make_completer(writer, settings, files.train, INDENT)
    for number, poems in enumerate(complete(completer, settings, prompts)):
        show_poems(poems, settings.show)
        if settings.sonnet_out is not None:
            write_out(settings, number, format_sonnets(poems).encode())
    n_poems = settings.samples * len(prompts)
    print(f"{(time.perf_counter() - started) / n_poems:.2f} s per poem", file=sys.stderr)


# ---------------------------------------------------------------------------------------------------------------------
# For a person's eyes
# ---------------------------------------------------------------------------------------------------------------------


def show(settings: SonnetSettings, metrics: dict[str, Any], folder: RunFolder) -> None:
    """The measures, and with ``--show`` the poems; ``--sonnet-out`` is written, whenever the run was finished."""
    from poetry.measures import MEASURES

    dev, intervals = metrics["dev"], metrics["dev_ci"]
    test, of_dev = (folder.predictions / name for name in GENERATED.values())
    if settings.sonnet_out is not None and not settings.dry_run:
        for number in range(settings.samples):
            write_out(settings, number, sample_file(test if test.exists() else of_dev, number).read_bytes())
    if settings.show:
        show_poems(read_sonnets(of_dev), marks=True)
    over = f"   95 % interval over {metrics['prompts']} prompts" if intervals else ""
    print(f"\n{'measure':<26}{'value':>9}{over}")
    for name in ("perplexity", "word_perplexity", "generated_perplexity", "generated_left_out", *MEASURES):
        if name in dev:
            interval = "{:.3f} to {:.3f}".format(*intervals[name]) if name in intervals else ""
            print(f"{name:<26}{dev[name]:>9.3f}   {interval}".rstrip())
    print(
        f"\n{metrics['dataset']}, {metrics['model']}, {metrics['strategy']}, {metrics['decode']} decoding: perplexity "
        f"{dev['perplexity']:.1f}, epoch {metrics['best_epoch']} of {metrics['epochs']}; "
        f"{metrics['seconds_per_poem']:.2f} s per poem"
    )


def show_poems(poems: Sequence[Sonnet], marks: bool) -> None:
    """The poems, with rhyme letters and stress marks beside each line if they are wanted."""
    from poetry.show import LEGEND, show_poem

    for poem in poems:
        print("\n" + (show_poem(poem, N_GIVEN) if marks else "\n".join([str(poem.number), *poem.lines])))
    if marks:
        print(f"\n{LEGEND}")


if __name__ == "__main__":
    sys.exit(run_script(main))
