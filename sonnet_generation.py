"""Sonnets with GPT-2: fine-tuned on Shakespeare's, it completes sonnets of which three lines are given.

python sonnet_generation.py --strategy unlikelihood         # trains, then writes generated_sonnets.txt
python sonnet_generation.py --strategy prefix --decode sonnet --show
python sonnet_generation.py --from-run runs/sonnet-... --decode sonnet --samples 3
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import AT_LEAST_ONE, DATA, DECODING, ROOT, RUN, WritingSettings, setting
from poetry.sonnets import (
    DATASET,
    N_GIVEN,
    TASK,
    Sonnet,
    SonnetFiles,
    find_sonnets,
    format_sonnets,
    read_files,
    read_sonnets,
)
from strategies import shown_defaults
from training.cli import build_parser, names_in_group, parse_settings, run_script, unused_flags

if TYPE_CHECKING:
    from training.run_folder import RunFolder
    from training.writing.poems import Completer
    from training.writing.run import Writer, WritingRun

INDENT = "  "  # of the couplet, as in the course's files
USED_FROM_RUN = {  # beside the flags of decoding, and those of the file that is completed
    "from_run", "config", "held_out_sonnet_path", "seed", "use_gpu", "precision", "dry_run", "sonnet_out", "show",
}  # fmt: skip
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
    true_sonnet_path: str | None = setting(
        None, "the whole sonnets of --held-out-sonnet-path, to measure by (default: the file beside it that the course "
        "gives them in, where it holds the same sonnets)", group=DATA, metavar="FILE", identity=False,
    )  # fmt: skip

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
    line_end_boost: float | None = setting(
        None, "with --decode free: add so much to the logits of punctuation and line ends where a line is long",
        group=DECODING, metavar="X",
    )  # fmt: skip
    line_words: int = setting(
        8, "with --line-end-boost: a line is long from so many words on", group=DECODING, within=AT_LEAST_ONE
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
    parser = build_parser(SonnetSettings, "Sonnet generation with GPT-2.", EXAMPLES, shown_defaults(TASK))
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
    from training.writing.sonnet_preparation import prepare_run

    if settings.from_run is not None:
        write_with_run(settings, given)
        return 0
    run_writing(prepare_run(settings, given, finish, show), signals)
    leave_process_group()
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# Writing and measuring
# ---------------------------------------------------------------------------------------------------------------------


def finish(run: WritingRun, writer: Writer, files: SonnetFiles, report: Sequence[Sonnet]) -> dict[str, Any]:
    """Completes the beginnings of both files, and measures what was made of those whose true endings are known."""
    from poetry.measures import confidence_intervals, measure
    from poetry.overlap import chrf_signature
    from training.writing.poems import (
        beginning,
        interval_of_perplexity,
        likelihoods_of_endings,
        likelihoods_of_generated,
        make_completer,
        perplexity_of_generated,
        reference_of,
    )
    from training.writing.sonnet_files import save_poems, save_scores
    from training.writing.sonnet_preparation import LEAST_TRUTH

    settings: Any = run.settings
    started = time.perf_counter()
    completer = make_completer(writer, settings, files.train, INDENT)
    to_complete = files.dev or report
    poems = {"dev": complete(completer, settings, to_complete)}
    if files.test:
        same = files.test == to_complete
        poems["test"] = poems["dev"] if same else complete(completer, settings, files.test)
    measured_there = len(files.truth) >= LEAST_TRUTH or not files.dev
    measured = poems["dev"] if measured_there else complete(completer, settings, report)
    numbers = {poem.number for poem in report}
    on_report = [poem for sample in measured for poem in sample if poem.number in numbers]
    made = {id(samples): samples for samples in (*poems.values(), measured)}
    n_poems = sum(len(sample) for samples in made.values() for sample in samples)
    seconds = (time.perf_counter() - started) / max(n_poems, 1)
    values: dict[str, Any] = dict(measure(on_report, report, files.train))
    texts = [beginning(poem) for poem in on_report]
    written = likelihoods_of_generated(run.checkpoint.folder, texts, writer.device, writer.check)
    values |= perplexity_of_generated(written, len(on_report))
    endings = likelihoods_of_endings(run, writer)
    likelihoods = {one.id: -one.nats / one.n_tokens for one in endings}
    values["log_likelihood"] = sum(likelihoods.values()) / len(likelihoods)
    intervals: dict[str, Any] = {}
    if len(report) > 1:  # one prompt, drawn again and again, says nothing of others
        intervals = confidence_intervals(on_report, report, files.train, seed=settings.seed)
        intervals["perplexity"] = interval_of_perplexity(endings, settings.seed)
        intervals["word_perplexity"] = interval_of_perplexity(endings, settings.seed, per_word=True)
        if written:
            intervals["generated_perplexity"] = interval_of_perplexity(written, settings.seed)
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
        "chrf_signature": chrf_signature(),
        "reference_model": reference_of(run.model_record),
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


def write_with_run(settings: SonnetSettings, given: set[str]) -> None:
    """``--from-run``: no training; the finished run's model completes the beginnings."""
    from models.checkpoint import read_config
    from models.gpt2 import GPT2Model
    from models.tokenizer import load_tokenizer
    from storage import output_file_problems
    from training.device import open_device
    from training.fine_tuning import context_of
    from training.setup import Problems, named_run
    from training.writing.poems import decoding_problems, make_completer, room_problems
    from training.writing.run import Writer
    from training.writing.sonnet_files import write_out
    from training.writing.sonnet_preparation import limited

    folder = named_run(str(settings.from_run), TASK)
    saved = folder.config()
    problems = Problems()
    files, path = SonnetFiles([], [], [], [], ()), Path(settings.held_out_sonnet_path or "")
    with problems.collect():
        if settings.held_out_sonnet_path:
            files = dataclasses.replace(files, test=read_sonnets(path))
        else:
            source = find_sonnets(Path(settings.data_dir) if settings.data_dir else None, root=ROOT)
            files, path = read_files(source), source.paths.get("test", source.paths["dev"])
    used = names_in_group(SonnetSettings, DECODING) | USED_FROM_RUN
    used |= {"limit_dev" if files.dev and not files.test else "limit_test"}
    used |= set() if settings.held_out_sonnet_path else {"data_dir"}
    problems.found += unused_flags(SonnetSettings, given, used, "--from-run")
    problems.found += output_file_problems("--sonnet-out", settings.sonnet_out) + decoding_problems(settings, given)
    problems.raise_any()
    files = limited(files, settings)
    prompts = files.test or files.dev
    config = read_config(folder.best)
    tokenizer = load_tokenizer(folder.best, config)
    context = context_of(config, dataclasses.replace(settings, prefix_length=saved["settings"].get("prefix_length")))
    problems.found += room_problems(settings, {path: prompts}, tokenizer, context)
    problems.raise_any()
    training = training_sonnets(saved) or files.train
    device = open_device(settings.use_gpu, settings.precision)
    if settings.dry_run:
        device.say("dry run: everything is in order; no sonnet was written")
        return
    gpt2 = GPT2Model.from_pretrained(folder.best).to(device.accelerator.device)
    writer = Writer(gpt2, tokenizer, device, lambda: None)
    started = time.perf_counter()
    completer = make_completer(writer, settings, training, INDENT)
    for number, poems in enumerate(complete(completer, settings, prompts)):
        show_poems(poems, settings.show)
        if settings.sonnet_out is not None:
            write_out(settings, number, format_sonnets(poems).encode())
    n_poems = settings.samples * len(prompts)
    print(f"{(time.perf_counter() - started) / n_poems:.2f} s per poem", file=sys.stderr)


def training_sonnets(saved: dict[str, Any]) -> list[Sonnet]:
    """What a run was trained on, of whose words its lines in form end; nothing where the file is gone or another now.

    Args:
        saved: the run's ``config.json``.
    """
    from storage import file_sha256
    from training.writing.sonnet_preparation import keep_back

    files, settings = saved["data"]["files"], saved["settings"]
    path = Path(files["train"]["path"])
    if not path.is_file() or file_sha256(path) != files["train"]["sha256"]:
        return []
    n_truth = files["truth"]["rows"] if "truth" in files else 0
    return keep_back(read_sonnets(path)[: settings["limit_train"]], n_truth, settings.get("hold_out"))[0]


# ---------------------------------------------------------------------------------------------------------------------
# For a person's eyes
# ---------------------------------------------------------------------------------------------------------------------


def show(settings: SonnetSettings, metrics: dict[str, Any], folder: RunFolder) -> None:
    """The measures, and with ``--show`` the poems; ``--sonnet-out`` is written, whenever the run was finished."""
    from poetry.measures import MEASURES
    from poetry.show import LIKELIHOODS
    from training.writing.sonnet_files import GENERATED, sample_file, write_out

    dev, intervals = metrics["dev"], metrics["dev_ci"]
    test, of_dev = (folder.predictions / name for name in GENERATED.values())
    if settings.sonnet_out is not None and not settings.dry_run:
        for number in range(settings.samples):
            write_out(settings, number, sample_file(test if test.exists() else of_dev, number).read_bytes())
    if settings.show:
        for path in (of_dev, test):
            for number in range(metrics["samples"] if path.exists() else 0):
                sample = sample_file(path, number)
                print(f"\n== {sample.name}")
                show_poems(read_sonnets(sample), marks=True)
    over = f"   95 % interval over {metrics['prompts']} prompts" if intervals else ""
    print(f"\n{'measure':<26}{'value':>9}{over}")
    for name in (*LIKELIHOODS, *MEASURES):
        if name in dev:
            interval = "{:.3f} to {:.3f}".format(*intervals[name]) if name in intervals else ""
            print(f"{name:<26}{dev[name]:>9.3f}   {interval}".rstrip())
    print("what they mean: python measure_poems.py --list-measures")
    if "chrf_signature" in metrics:  # of an older run there is none
        print(f"chrF: {metrics['chrf_signature']}\ngenerated_perplexity: by {metrics['reference_model']['name']}")
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
