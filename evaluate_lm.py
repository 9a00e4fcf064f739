#!/usr/bin/env python3
"""Measures language models on any text: loss, perplexity, bits per byte, next-token accuracy; several side by side.

python evaluate_lm.py --model mini gpt2 --text book.txt.xz more.jsonl
python evaluate_lm.py --model mini runs/pretrain-en-mini-scratch-s11711/best --corpus corpora/en --split validation

Every document is read after the end token, so that its first token is measured too; the end token behind it is not.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import ROOT, EvaluateSettings, GPT2Config, RunFailed, UserError
from training.cli import build_parser, parse_settings, run_script

if TYPE_CHECKING:  # torch is imported where it is first needed, so that --help is quick
    from tokenizers import Tokenizer

    from models.gpt2 import GPT2Model
    from models.sources import Checkpoint
    from training.device import Device
    from training.language_models.documents import Data
    from training.language_models.report import ModelScores, Report

SCHEMA = 1
SHOWN_PROBLEMS = 5
EXAMPLES = """\
  python evaluate_lm.py --model mini gpt2 --text book.txt.xz more.jsonl
  python evaluate_lm.py --model mini runs/OTHER/best --corpus corpora/en --split test --use_gpu
  python evaluate_lm.py --model gpt2 --text book.txt --document-separator '' --stride 64
  python evaluate_lm.py --model mini gpt2 --corpus corpora/en --limit-documents 200 --by-document"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser(EvaluateSettings, "Language models, measured on a text.", EXAMPLES)
    settings, given = parse_settings(EvaluateSettings, parser, sys.argv[1:] if argv is None else argv)

    from training.interrupt import Signals

    signals = Signals().install()
    evaluation = prepare(settings, given, signals.check)
    evaluate(evaluation, signals.check)
    return 0


@dataclass(frozen=True)
class Candidate:
    """A model to be measured.

    Attributes:
        name: what it is called in table, plot and files.
        tokenizer: takes what looks like a special token for ordinary text.
        window, stride: tokens that are read at a time, and from one window's beginning to the next one's.
    """

    name: str
    checkpoint: Checkpoint
    config: GPT2Config
    tokenizer: Tokenizer
    end_token_id: int
    window: int
    stride: int


@dataclass(frozen=True)
class Evaluation:
    """Everything about an evaluation that is known before a model is loaded."""

    settings: EvaluateSettings
    candidates: list[Candidate]
    data: Data
    device: Device
    folder: Path
    records: list[dict[str, Any]]  # of the models, for results.json


# ---------------------------------------------------------------------------------------------------------------------
# What will be measured, and everything that is wrong with it
# ---------------------------------------------------------------------------------------------------------------------


def prepare(settings: EvaluateSettings, given: set[str], check: Callable[[], None]) -> Evaluation:
    """Checks all there is to check, and reads the documents."""
    from storage import check_folder
    from training.device import open_device
    from training.language_models.documents import read_corpus, read_files
    from training.run_folder import settings_hash
    from training.setup import Problems, identity_of

    problems = Problems()
    candidates: list[Candidate] = []
    data: Data | None = None
    device: Device | None = None
    with problems.collect():
        check_sources(settings, given)
    for name, label in zip(settings.model or [], model_names(settings.model or []), strict=True):
        with problems.collect():
            candidates.append(find_candidate(name, label, settings))
    with problems.collect():
        device = open_device(settings.use_gpu, settings.precision)
        if device.world_size > 1:
            raise UserError("evaluate_lm.py runs in one process; start it without accelerate launch")
    with problems.collect():
        if settings.corpus is not None and settings.text is None:
            data = read_corpus(Path(settings.corpus), settings.split, settings.limit_documents, check)
        elif settings.text is not None and settings.corpus is None:
            data = read_files([Path(name) for name in settings.text], settings, check)
    records = []
    for candidate in candidates:
        with problems.collect():
            records.append(model_record(candidate))
    problems.raise_any()
    assert data is not None and device is not None

    identity = {"settings": identity_of(settings), "models": records, "sources": data.sources}
    hashed = settings_hash(json.loads(json.dumps(identity)))
    folder = Path(settings.output_dir) if settings.output_dir else ROOT / "runs" / f"evaluate-lm-{hashed}"
    check_folder(folder)
    return Evaluation(settings, candidates, data, device, folder, records)


def check_sources(settings: EvaluateSettings, given: set[str]) -> None:
    """Flags that are missing, or don't go together."""
    problems = []
    if not settings.model:
        problems.append("--model: missing; name one model or several: folders, bundled models or Hub ids")
    if settings.corpus is None and not settings.text:
        problems.append("--text FILE... or --corpus FOLDER: missing; say what to measure on")
    if settings.corpus is not None and settings.text:
        problems.append("--text and --corpus: give one of them; texts and corpora are measured separately")
    if settings.corpus is None and "split" in given:
        problems.append("--split: goes with --corpus; a text has no splits")
    if settings.corpus is not None and not settings.text:
        problems += [
            f"--{name.replace('_', '-')}: goes with --text; a corpus holds its documents as they are"
            for name in sorted({"document_separator", "text_field"} & given)
        ]
    twice = [name for name, count in Counter(settings.model or []).items() if count > 1]
    problems += [f"--model {name}: given twice; once is enough" for name in twice]
    texts = [(Path(name).resolve(), name) for name in settings.text or []]
    counts = Counter(path for path, _ in texts)
    problems += [
        f"--text {name}: given twice; it would count twice" for path, name in dict(texts).items() if counts[path] > 1
    ]
    if "\n" in settings.document_separator:
        problems.append("--document-separator: must be one line")
    if problems:
        raise UserError(problems)


def model_names(requested: Sequence[str]) -> list[str]:
    """Short names, different from each other."""
    from models.sources import short_name

    names = [short_name(name) for name in requested]
    return [name if names.count(name) == 1 else asked for name, asked in zip(names, requested, strict=True)]


def find_candidate(requested: str, name: str, settings: EvaluateSettings) -> Candidate:
    """Finds a model, and loads its tokenizer.

    Raises:
        UserError: it can't be had, has no end token, or can't read such windows.
    """
    from models.checkpoint import load_prefix, read_config
    from models.files import PREFIX_FILE
    from models.sources import find_checkpoint
    from models.tokenizer import load_tokenizer

    checkpoint = find_checkpoint(requested)
    config = read_config(checkpoint.folder)
    tokenizer = load_tokenizer(checkpoint.folder, config).backend_tokenizer
    tokenizer.encode_special_tokens = True
    prefix = checkpoint.folder / PREFIX_FILE
    context = config.n_positions - (load_prefix(prefix, config).length if prefix.exists() else 0)
    window = settings.window or context
    stride = settings.stride or max(1, window // 2)
    problems = []
    if window > context:
        problems.append(f"--window {window}: longer than the context of {requested}, {context}")
    if stride > window:
        problems.append(
            f"--stride {stride}: beyond the window of {window} that {requested} reads; choose a smaller one"
        )
    known = (config.eos_token_id, config.bos_token_id, *map(tokenizer.token_to_id, ("<|endoftext|>", "</s>")))
    end_token_id = next((token_id for token_id in known if token_id is not None), None)
    if end_token_id is None:
        problems.append(
            f"{requested}: has no end token, after which documents are read; name it in "
            f"{checkpoint.folder / 'config.json'} (eos_token_id)"
        )
    if problems:
        raise UserError(problems)
    assert end_token_id is not None
    return Candidate(name, checkpoint, config, tokenizer, end_token_id, window, stride)


def model_record(candidate: Candidate) -> dict[str, Any]:
    """What ``results.json`` says of a model.

    Its weights are loaded and dropped again: damaged ones are found now, and not after the hours that others take.
    """
    from models.gpt2 import GPT2Model
    from training import setup

    gpt2 = GPT2Model.from_pretrained(candidate.checkpoint.folder)
    return {
        "name": candidate.name,
        "model": setup.model_record(candidate.checkpoint, to_train=False),
        "parameters": sum(parameter.numel() for parameter in gpt2.parameters()),
        "vocabulary": candidate.config.vocab_size,
        "context": gpt2.max_tokens,
        "window": candidate.window,
        "stride": candidate.stride,
        "end_token_id": candidate.end_token_id,
    }


# ---------------------------------------------------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------------------------------------------------


def evaluate(evaluation: Evaluation, check: Callable[[], None]) -> None:
    """Measures every model, prints the table, and writes everything."""
    from storage import shown
    from training.language_models.report import Report, table

    describe(evaluation)
    if evaluation.settings.dry_run:
        print("dry run: everything is in order; nothing was measured")
        return
    models = [
        measure(candidate, record, evaluation, check)
        for candidate, record in zip(evaluation.candidates, evaluation.records, strict=True)
    ]
    documents = evaluation.data.documents
    utf8_bytes = sum(document.utf8_bytes for document in documents)
    title = f"{evaluation.data.name}: {len(documents):,} document{'s' * (len(documents) > 1)}, {utf8_bytes:,} bytes"
    report = Report(title, documents, models)
    print(f"\n{table(report)}")
    write(evaluation, report)
    print(f"plot:    {shown(evaluation.folder / 'comparison.png')}")
    print(f"results: {shown(evaluation.folder / 'results.json')}")


def describe(evaluation: Evaluation) -> None:
    """Says what is about to be measured, and what is left out."""
    data, device = evaluation.data, evaluation.device
    if device.warning:
        print(f"warning: {device.warning}", file=sys.stderr)
    print(f"device    {device.description}")
    words = sum(document.words for document in data.documents)
    utf8_bytes = sum(document.utf8_bytes for document in data.documents)
    print(f"data      {data.name}: {len(data.documents):,} documents, {words:,} words, {utf8_bytes:,} bytes of UTF-8")
    for candidate in evaluation.candidates:
        reading = f"windows of {candidate.window} tokens, {candidate.stride} apart"
        print(f"model     {candidate.name} ({candidate.checkpoint.folder}): {reading}")
    if data.counts["empty"]:
        print(f"left out  {data.counts['empty']:,} empty documents")
    if data.counts["cut"]:
        from corpus.documents import TEXT_LIMIT

        print(f"cut       {data.counts['cut']:,} times, in documents of more than {TEXT_LIMIT >> 20} MiB")
    if data.skipped:
        shown = "; ".join(f"{where}: {reason}" for where, reason in data.skipped[:SHOWN_PROBLEMS])
        more = ", ..." if len(data.skipped) > SHOWN_PROBLEMS else ""
        print(
            f"warning: {len(data.skipped):,} documents can't be read, and are left out: {shown}{more}", file=sys.stderr
        )


def measure(
    candidate: Candidate, record: dict[str, Any], evaluation: Evaluation, check: Callable[[], None]
) -> ModelScores:
    """Reads all documents with one model.

    Raises:
        RunFailed: what it says is not a number.
    """
    from tqdm import tqdm

    from models.gpt2 import GPT2Model
    from models.language_model import GPT2LanguageModel
    from training.language_models.documents import encode, encodes_alike
    from training.language_models.language_modeling import token_scores
    from training.language_models.report import ModelScores

    scores = ModelScores(record)
    same = evaluation.data.tokenizer is not None and encodes_alike(candidate.tokenizer, evaluation.data.tokenizer)
    tokens, cuts = [], []
    for document in evaluation.data.documents:
        check()
        ids, cut, is_exact = encode(document, candidate.tokenizer, same)
        tokens.append(ids)
        cuts.append(cut)
        scores.inexact += not is_exact
    if not any(map(len, tokens)):
        raise UserError(f"{candidate.name}: its tokenizer makes no token of these documents; give other text")

    device = evaluation.device
    gpt2: GPT2Model = GPT2Model.from_pretrained(candidate.checkpoint.folder)
    model = GPT2LanguageModel(gpt2).to(device.accelerator.device).eval()
    start = time.perf_counter()
    total = sum(map(len, tokens))
    with tqdm(total=total, desc=candidate.name, unit="tok", unit_scale=True, leave=False, disable=None) as bar:
        found = token_scores(
            model, tokens, candidate.end_token_id, candidate.window, candidate.stride, device, check,
            evaluation.settings.batch_tokens, bar.update,
        )  # fmt: skip
        for (losses, hits), cut in zip(found, cuts, strict=True):
            scores.add(losses, hits, cut)
    scores.seconds = time.perf_counter() - start
    if not math.isfinite(sum(scores.nats)):
        raise RunFailed(
            f"{candidate.name}: its loss is not a number in {device.precision}; with --precision fp32 it may be one"
        )
    return scores


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def write(evaluation: Evaluation, report: Report) -> None:
    """Writes the folder; ``results.json`` comes last.

    Raises:
        RunFailed: it can't be written.
    """
    from storage import write_json
    from training.language_models.report import plot, results, write_by_document
    from training.setup import environment_record, now

    folder, data = evaluation.folder, evaluation.data
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if evaluation.settings.by_document:
            write_by_document(report, folder / "by_document.jsonl")
        else:
            (folder / "by_document.jsonl").unlink(missing_ok=True)  # of another evaluation
        plot(report, folder / "comparison.png")
        write_json(
            folder / "results.json",
            {
                "schema": SCHEMA,
                "settings": dataclasses.asdict(evaluation.settings),
                "precision": evaluation.device.precision,
                "sources": data.sources,
                "skipped": [{"where": where, "reason": reason} for where, reason in data.skipped],
                "left_out": {"empty": data.counts["empty"], "cut": data.counts["cut"]},
                "models": results(report),
                "best": report.best.name,
                "environment": environment_record(evaluation.device),
                "finished": now(),
            },
        )
    except OSError as error:
        raise RunFailed(f"{folder}: could not be written ({error.strerror or error}); free some space") from None


if __name__ == "__main__":
    sys.exit(run_script(main))
