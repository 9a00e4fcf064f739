#!/usr/bin/env python3
"""Trains a GPT-2 from scratch, or goes on training one, on a corpus made by ``build_corpus.py``.

python pretrain.py --corpus corpora/en --size mini --time-budget 1h
python pretrain.py --corpus corpora/ko --layers 6 --heads 4 --dims 256 --context 512 --max-tokens 30_000_000
python pretrain.py --corpus corpora/law --init-from gpt2 --lr 1e-4 --use_gpu
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import PRETRAIN_SCHEDULES, ROOT, SIZES, GPT2Config, PretrainSettings, UserError
from training.cli import build_parser, parse_settings, run_script

if TYPE_CHECKING:  # torch is imported where it is first needed, so that --help is quick
    from corpus.shards import Corpus
    from models.sources import Checkpoint
    from training.language_models.pretraining import PretrainingRun, PretrainSchedule

TASK = "pretrain"
EXAMPLES = """\
  python pretrain.py --corpus corpora/en --size mini --time-budget 1h
  python pretrain.py --corpus corpora/en --layers 6 --heads 4 --dims 256 --context 512 --max-tokens 30_000_000
  python pretrain.py --corpus corpora/law --init-from gpt2 --lr 1e-4 --use_gpu
  python pretrain.py --corpus corpora/en --size mini --schedule runs/OTHER/schedule.json
  accelerate launch --num_processes 4 pretrain.py --corpus corpora/en --size small --use_gpu"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser(PretrainSettings, "GPT-2 from scratch, or continued.", EXAMPLES)
    settings, given = parse_settings(PretrainSettings, parser, sys.argv[1:] if argv is None else argv)

    from training.device import leave_process_group
    from training.interrupt import Signals
    from training.language_models.pretraining import run_pretraining

    signals = Signals().install()
    run = prepare_resumed(settings, given) if settings.resume else prepare_run(settings, given)
    run_pretraining(run, signals)
    leave_process_group()
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# What will be trained, and everything that is wrong with it
# ---------------------------------------------------------------------------------------------------------------------


def prepare_run(settings: PretrainSettings, given: set[str], folder: Path | None = None) -> PretrainingRun:
    """Checks whatever can be checked before a weight is made, and names the run's folder, unless one is given."""
    from models.checkpoint import read_config
    from models.sources import find_checkpoint
    from training.language_models.pretraining import PretrainingRun, dropouts_of
    from training.run_folder import RunFolder
    from training.setup import Problems, identity_of, model_record, run_name

    problems = Problems()
    corpus: Corpus | None = None
    checkpoint: Checkpoint | None = None
    start: GPT2Config | None = None
    budget: float | None = None
    schedule: PretrainSchedule | None = None
    with problems.collect():
        corpus = find_corpus(settings.corpus)
    with problems.collect():
        budget = None if settings.time_budget is None else parse_time(settings.time_budget)
    with problems.collect():
        schedule = read_schedule(settings, given)
    with problems.collect():
        if settings.init_from is not None:
            checkpoint = find_checkpoint(settings.init_from)
            start = read_config(checkpoint.folder)
    problems.raise_any()
    assert corpus is not None and schedule is not None

    with problems.collect():
        config = model_config(settings, corpus, start)
        settings = dataclasses.replace(fill_in(settings, config), warmup=schedule.warmup)
        settings = with_whole_paths(settings, checkpoint)
        check_amounts(settings, corpus, config)
    problems.raise_any()
    named = checkpoint is not None and checkpoint.origin != "folder"  # a folder's name is often just "best"
    shape = checkpoint.name if checkpoint and named else shape_name(config)
    identity = identity_of(settings) | {"corpus": fingerprint(corpus), "schedule": schedule.summary()}
    if checkpoint is not None:
        identity |= {"weights": model_record(checkpoint)["weights_sha256"], "dropout": dropouts_of(config)}
    if folder is None:
        usual = fill_in(PretrainSettings(size=settings.size, init_from=settings.init_from), config)
        # The corpus's name alone does not say what it holds.
        extra: dict[str, Any] = {name: identity[name] for name in ("corpus", "schedule", "weights") if name in identity}
        origin = "continued" if checkpoint else "scratch"
        name = run_name(TASK, corpus.folder.resolve().name, shape, origin, settings, usual, extra)
        folder = Path(settings.output_dir or ROOT / "runs") / name
    run = PretrainingRun(
        settings=settings,
        corpus=corpus,
        config=config,
        shape=shape,
        checkpoint=checkpoint,
        time_budget=budget,
        schedule=schedule,
        identity=json.loads(json.dumps(identity)),
        folder=RunFolder(folder),
    )
    if run.folder.exists and not settings.overwrite:
        run.folder.refuse_other_run(run.identity)
    return run


def shape_name(config: GPT2Config) -> str:
    """``mini``, ``small``, ... where the shape is one of those, else layers and width, such as ``4x320``."""
    shape = (config.n_layer, config.n_head, config.n_embd, config.n_positions)
    for name, size in SIZES.items():
        if shape == (size.layers, size.heads, size.dims, size.context):
            return name
    return f"{config.n_layer}x{config.n_embd}"


def find_corpus(folder: str | None) -> Corpus:
    from corpus.shards import open_corpus

    if folder is None:
        raise UserError("--corpus: missing; give a folder made by build_corpus.py")
    return open_corpus(Path(folder), ("train", "validation"))


def fingerprint(corpus: Corpus) -> str:
    """A hash of everything that a run reads of a corpus."""
    from training.run_folder import settings_hash

    manifest = corpus.manifest
    return settings_hash({"splits": manifest["splits"], "tokenizer": manifest["tokenizer"]["sha256"]})


def model_config(settings: PretrainSettings, corpus: Corpus, start: GPT2Config | None) -> GPT2Config:
    """The model's architecture: the size's or the given checkpoint's, with the corpus's vocabulary."""
    from corpus.vocabulary import special_token_ids

    own: dict[str, Any] = {"n_layer": settings.layers, "n_head": settings.heads, "n_embd": settings.dims}
    own = {name: value for name, value in own.items() if value is not None}
    ends: dict[str, Any] = {"bos_token_id": corpus.end_token_id, "pad_token_id": None}
    ends |= special_token_ids(corpus.tokenizer_folder) | {"eos_token_id": corpus.end_token_id}
    drops: dict[str, Any] = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), settings.dropout or 0.0)
    if start is not None:
        if own or settings.size or settings.context:
            raise UserError("--init-from brings its own shape; leave out --size, --layers, --heads, --dims, --context")
        drops = {} if settings.dropout is None else drops
        return dataclasses.replace(start, vocab_size=corpus.vocab_size, **ends, **drops)
    size = SIZES[settings.size or "mini"]
    shape = {"n_layer": size.layers, "n_head": size.heads, "n_embd": size.dims} | own
    if shape["n_embd"] % shape["n_head"]:
        raise UserError(
            f"--dims {shape['n_embd']}: no multiple of --heads {shape['n_head']}; all heads must be equally wide"
        )
    return GPT2Config(
        vocab_size=corpus.vocab_size, n_positions=settings.context or size.context, **shape, **ends, **drops
    )


def fill_in(settings: PretrainSettings, config: GPT2Config) -> PretrainSettings:
    """The size's usual rate and batch where the user set none."""
    is_small = config.n_embd < 768
    size = SIZES[settings.size or ("mini" if is_small else "small")]
    window = settings.window or config.n_positions
    return dataclasses.replace(
        settings,
        lr=settings.lr or size.lr,
        window=window,
        batch_tokens=settings.batch_tokens or size.batch_tokens,
        batch_size=settings.batch_size or max(1, 8192 // window),
        dropout=0.0 if settings.dropout is None and settings.init_from is None else settings.dropout,
    )


def with_whole_paths(settings: PretrainSettings, checkpoint: Checkpoint | None) -> PretrainSettings:
    """The same files and folders, named so that the run can be resumed from wherever the user is."""
    corpus, init_from, schedule = Path(str(settings.corpus)), settings.init_from, settings.schedule
    if checkpoint is not None and Path(str(init_from)).is_dir():  # and no name of a bundled model, or on the Hub
        init_from = str(checkpoint.folder)
    if schedule not in PRETRAIN_SCHEDULES:
        schedule = str(Path(schedule).absolute())
    return dataclasses.replace(settings, corpus=str(corpus.absolute()), init_from=init_from, schedule=schedule)


def check_amounts(settings: PretrainSettings, corpus: Corpus, config: GPT2Config) -> None:
    """Refuses windows that the model can't read and a corpus that holds less than one batch."""
    problems = []
    window, batch_tokens = settings.window or 0, settings.batch_tokens or 0
    if window > config.n_positions:
        problems.append(f"--window {window}: longer than the model's context of {config.n_positions}")
    for name in ("train", "validation"):
        if name not in corpus.splits or corpus.splits[name].n_tokens <= window:
            count = corpus.splits[name].n_tokens if name in corpus.splits else 0
            remedy = "build a larger corpus (or a larger --validation-share), or choose a smaller --window"
            if not count or sum(split.n_documents for split in corpus.splits.values()) == 1:
                remedy = (
                    "a document is in one split as a whole: build a corpus of more documents (give several files, or "
                    "cut one with --document-separator LINE), or with a larger --validation-share"
                )
            problems.append(
                f"{corpus.folder}: its {name} split holds {count:,} tokens, less than one window of {window}; {remedy}"
            )
    train = corpus.splits.get("train")
    if not problems and train is not None and train.n_tokens <= batch_tokens:
        problems.append(
            f"{corpus.folder}: its train split holds {train.n_tokens:,} tokens, less than one batch of "
            f"{batch_tokens:,}; build a larger corpus, or choose a smaller --batch-tokens"
        )
    if batch_tokens < window:
        problems.append(f"--batch-tokens {batch_tokens}: less than one window of {window}")
    batch = batch_tokens // window * window
    if settings.max_tokens is not None and settings.max_tokens < batch:
        problems.append(
            f"--max-tokens {settings.max_tokens}: less than one batch of {batch:,} tokens; give more, or choose a "
            "smaller --batch-tokens"
        )
    if problems:
        raise UserError(problems)


def parse_time(text: str) -> float:
    """``90m``, ``2h``, ``1h30m``, ``45s`` -> seconds."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    )
    if seconds <= 0:
        raise UserError(f"--time-budget {text}: not a time; write 90m, 2h or 1h30m")
    return seconds


def read_schedule(settings: PretrainSettings, given: set[str]) -> PretrainSchedule:
    """The form that ``--schedule`` names, or what the named file recorded.

    Args:
        given: the names of what the user set.

    Raises:
        UserError: neither a form nor such a file; or other settings that contradict it.
    """
    from training.language_models.pretraining import PretrainSchedule
    from training.loop import RecordedSchedule

    if settings.schedule in PRETRAIN_SCHEDULES:
        return PretrainSchedule(settings.schedule, settings.warmup, None)
    try:
        raw = json.loads(Path(settings.schedule).read_text(encoding="utf-8"))
        total = int(raw["total_steps"])
        recorded = RecordedSchedule(total, [float(position) for position in raw["positions"]])
        if not recorded.positions:
            raise ValueError
        schedule = PretrainSchedule(
            PRETRAIN_SCHEDULES[PRETRAIN_SCHEDULES.index(raw["form"])], float(raw["warmup"]), recorded
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        names = ", ".join(PRETRAIN_SCHEDULES)
        raise UserError(
            f"--schedule {settings.schedule}: neither a form ({names}) nor the schedule.json of a run"
        ) from None
    in_order = all(earlier <= later for earlier, later in pairwise(recorded.positions))  # NaN is never in order
    if not (in_order and recorded.positions[0] >= 0 and recorded.positions[-1] < total and 0 <= schedule.warmup < 1):
        raise UserError(
            f"--schedule {settings.schedule}: was changed; its positions must not fall and be at least 0 and below "
            f"its total_steps of {total}, and its warmup at least 0 and below 1; give the schedule.json of a run"
        )
    if settings.time_budget is not None or settings.max_tokens is not None:
        raise UserError(f"--schedule {settings.schedule}: repeats a schedule; leave out --time-budget and --max-tokens")
    if "warmup" in given and settings.warmup != schedule.warmup:
        raise UserError(f"--schedule {settings.schedule}: repeats a warmup of {schedule.warmup:g}; leave out --warmup")
    return schedule


def prepare_resumed(settings: PretrainSettings, given: set[str]) -> PretrainingRun:
    """``--resume FOLDER``: the run goes on with its own settings; flags may not contradict them."""
    from training.language_models.pretraining import SCHEDULE_FILE
    from training.run_folder import RunFolder
    from training.setup import Problems, identity_of, saved_run, saved_settings

    problems = Problems()
    folder = RunFolder(Path(str(settings.resume)))
    saved = saved_run(folder, TASK, f"--resume {settings.resume}")
    own = saved_settings(PretrainSettings, folder, saved)
    kept = folder.path / SCHEDULE_FILE
    repeats_one = own.schedule not in PRETRAIN_SCHEDULES and kept.exists()
    own = dataclasses.replace(
        own, overwrite=False, resume=settings.resume, init_only=settings.init_only, corpus=saved["data"]["folder"],
        schedule=str(kept) if repeats_one else own.schedule,
    )  # fmt: skip
    asked = {name: value for name, value in identity_of(settings).items() if name in given}
    with problems.collect():
        if "schedule" in given:
            asked["schedule"] = read_schedule(
                dataclasses.replace(own, schedule=settings.schedule), given - {"warmup"}
            ).summary()
    with problems.collect():
        folder.refuse_other_run(asked, resumed=True)
    if "output_dir" in given and Path(str(settings.output_dir)).resolve() != folder.path.resolve().parent:
        problems.found.append(f"--output-dir {settings.output_dir}: {folder.path} is not in there; leave it out")
    problems.raise_any()
    # Where files lie may have changed; that they hold what they did is seen by their checksums.
    free = ("corpus", "init_from", "schedule", "use_gpu", "save_every", "dry_run", "overwrite", "recompute",
            "sample_prompt", "sample_tokens")  # fmt: skip
    own = dataclasses.replace(own, **{name: getattr(settings, name) for name in free if name in given})
    return prepare_run(own, set(), folder.path)


if __name__ == "__main__":
    sys.exit(run_script(main))
