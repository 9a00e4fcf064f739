#!/usr/bin/env python3
"""Measures poems in any text file: rhyme, meter, variety, repetition, copying, and likeness to the true poems.

python measure_poems.py predictions/generated_sonnets_dev.txt --truth data/TRUE_sonnets_held_out_dev.txt
python measure_poems.py poems.txt --given 0 --calibrate --show
python measure_poems.py poems.txt --model mini                 # also how likely a language model finds them
python measure_poems.py --list-measures                        # what each measure means

The file has the layout of the course's sonnets, each poem after a line with its number, or poems with blank lines
between them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import DATA, NOT_NEGATIVE, ROOT, RUN, UserError, setting
from poetry.sonnets import N_GIVEN, SONNETS, Sonnet, find_sonnets, read_poems, read_sonnets
from storage import output_file_problems, write_json, writing_output
from training.cli import build_parser, parse_settings, run_script

if TYPE_CHECKING:
    from models.sources import Checkpoint

SCHEMA = 1
MEASURING = "measuring"
EXAMPLES = """\
  python measure_poems.py predictions/generated_sonnets_dev.txt --truth data/TRUE_sonnets_held_out_dev.txt
  python measure_poems.py predictions/generated_sonnets.txt --training data/sonnets.txt --calibrate
  python measure_poems.py poems.txt --given 0 --show --json measures.json"""


@dataclass(frozen=True)
class PoemSettings:
    """What measure_poems.py lets the user set, beside the file."""

    truth: str | None = setting(
        None, "the true poems, matched by number: adds chrF, with the score of an unrelated ending as its floor",
        group=DATA, metavar="FILE",
    )  # fmt: skip
    training: str | None = setting(
        None, "the poems that a model was trained on: adds the longest copied run of words", group=DATA, metavar="FILE"
    )
    given: int = setting(
        N_GIVEN, "lines at the beginning of each poem that were given, and are not measured", group=MEASURING,
        metavar="N", within=NOT_NEGATIVE,
    )  # fmt: skip
    calibrate: bool = setting(
        False, "also measure real sonnets (of --truth, --training, the file itself if it is called as either is, or "
        "data/), two shuffles of them, and prose", group=MEASURING,
    )  # fmt: skip
    model: str | None = setting(
        None, "also the perplexity of the poems, after their given lines, by this model: a folder, a bundled model or "
        "a Hub id", group=MEASURING, metavar="MODEL",
    )  # fmt: skip
    seed: int = setting(0, "seed of the confidence intervals", group=MEASURING, within=NOT_NEGATIVE)
    show: bool = setting(False, "print each poem with its rhyme letters and stresses", group=RUN)
    json: str | None = setting(None, "also write the numbers to this file", group=RUN, metavar="FILE")
    config: str | None = setting(None, "YAML file with defaults for any of these settings", group=RUN, metavar="FILE")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser(PoemSettings, "Poems, measured.", EXAMPLES)
    parser.add_argument("file", metavar="FILE", help="the poems")
    parser.add_argument("--list-measures", action="store_true", help="print what each measure means and stop")
    if "--list-measures" in arguments:
        from poetry.show import explained_measures

        print(explained_measures())
        return 0
    settings, _ = parse_settings(PoemSettings, parser, arguments)
    file = Path(parser.parse_args(arguments).file)

    poems, truth, training = read(file, settings)
    checkpoint = None
    if settings.model is not None:
        from models.sources import find_checkpoint

        checkpoint = find_checkpoint(settings.model)
    measure_and_report(file, settings, poems, truth, training, checkpoint)
    return 0


def read(file: Path, settings: PoemSettings) -> tuple[list[Sonnet], list[Sonnet] | None, list[Sonnet] | None]:
    """The poems, the true ones and the training ones.

    Raises:
        UserError: with the problems of all files at once.
    """
    found: list[list[Sonnet] | None] = []
    problems: list[str] = []
    for name, reader in ((str(file), read_poems), (settings.truth, read_sonnets), (settings.training, read_poems)):
        try:
            found.append(reader(Path(name)) if name else None)
        except UserError as error:
            problems += error.problems
            found.append(None)
    problems += output_file_problems("--json", settings.json)
    if problems:
        raise UserError(problems)
    poems, truth, training = found
    assert poems is not None
    if truth is not None:
        from poetry.measures import match_truth

        try:
            match_truth(poems, truth)
        except UserError as error:
            raise UserError([f"--truth {settings.truth}: {problem}" for problem in error.problems]) from None
    return poems, truth, training


def measure_and_report(
    file: Path,
    settings: PoemSettings,
    poems: list[Sonnet],
    truth: list[Sonnet] | None,
    training: list[Sonnet] | None,
    checkpoint: Checkpoint | None,
) -> None:
    from poetry.calibration import calibrate
    from poetry.measures import confidence_intervals, measure
    from poetry.overlap import chrf_signature
    from poetry.show import LEGEND, show_poem, table

    n_empty = sum(len(poem.lines) <= settings.given for poem in poems)
    if n_empty:
        poems_have = "1 poem has" if n_empty == 1 else f"{n_empty} poems have"
        print(f"note: {poems_have} no line after the given ones; --given 0 measures whole poems", file=sys.stderr)
    values = measure(poems, truth, training, n_given=settings.given)
    intervals = confidence_intervals(poems, truth, training, n_given=settings.given, seed=settings.seed)
    reference = None
    if checkpoint is not None:
        found, interval, reference = _likelihood(checkpoint, poems, settings)
        values |= found
        intervals |= interval
    others = {}
    if settings.calibrate:
        is_real = file.name in (SONNETS.files["train"], SONNETS.files["truth"])
        sonnets = truth or training or (poems if is_real else _real_sonnets())
        others = calibrate(sonnets[: len(poems)], _prose(), n_given=settings.given)
    if settings.show:
        print(LEGEND + "\n")
        print("\n\n".join(show_poem(poem, settings.given) for poem in poems) + "\n")
    print(f"{file}: {len(poems)} poem{'s' * (len(poems) != 1)}, {settings.given} given lines each")
    print(table(values, intervals, others))
    signature = chrf_signature() if truth is not None else None
    if signature:
        print(f"chrF: {signature}")
    if reference:
        print(f"generated_perplexity: by {reference['name']}, weights {reference['weights_sha256'][0][:12]}")
    if settings.json:
        result: dict[str, Any] = {"schema": SCHEMA, "file": str(file), "n": len(poems), "given": settings.given}
        result |= {"measures": values, "ci": intervals, "calibration": others, "chrf_signature": signature}
        result |= {"reference_model": reference}
        with writing_output("--json", Path(settings.json)):
            write_json(Path(settings.json), result)
        print(f"numbers: {settings.json}")


def _likelihood(
    checkpoint: Checkpoint, poems: list[Sonnet], settings: PoemSettings
) -> tuple[dict[str, float], dict[str, list[float]], dict[str, Any]]:
    """Perplexity by a model, its interval, and which model exactly; computed as runs do."""
    from training.device import open_device
    from training.setup import model_record
    from training.writing.poems import (
        beginning,
        interval_of_perplexity,
        likelihoods_of_generated,
        perplexity_of_generated,
        reference_of,
    )

    record = model_record(checkpoint, to_train=False)
    texts = [beginning(poem, settings.given) for poem in poems]
    found = likelihoods_of_generated(checkpoint.folder, texts, open_device(False))
    interval = {"generated_perplexity": interval_of_perplexity(found, settings.seed)} if found else {}
    return perplexity_of_generated(found, len(poems)), interval, reference_of(record)


def _real_sonnets() -> list[Sonnet]:
    source = find_sonnets(None, root=ROOT, allow_download=False)
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    return read_sonnets(source.paths["train"])


def _prose() -> str:
    """The bundled sentences about films, which were written for this project."""
    from datasets import SENTIMENT_TASKS, read_split

    task = SENTIMENT_TASKS["sst"]
    split = read_split(task, ROOT / "data" / "sample" / task.files["train"], labelled=True, keep_case=True)
    return " ".join(example.text for example in split.examples)


if __name__ == "__main__":
    sys.exit(run_script(main))
