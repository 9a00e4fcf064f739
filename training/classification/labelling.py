"""New texts, labelled with a finished run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from config import ClassificationSettings, UserError
from datasets import Example, nfc
from models.comparator import Comparator, read_comparator
from training.classification.encoding import cut_note, encode_examples, tokenizer_of
from training.classification.job import predict
from training.classification.run import load_best
from training.cli import unused_flags
from training.device import open_device
from training.run_folder import RunFolder
from training.setup import finished_run, saved_settings
from training.terminal import warn_once

USED = {"predict", "predict_file", "from_run", "output_dir", "use_gpu", "config"}


def check_flags(settings: ClassificationSettings, given: set[str]) -> None:
    """Refuses ``--predict`` beside ``--predict-file``, and flags of training, which would say nothing."""
    both = {"predict", "predict_file"} <= given
    problems = ["--predict and --predict-file: give one of them"] if both else []
    flag = "--predict" if "predict" in given else "--predict-file"
    problems += unused_flags(type(settings), given, USED, flag)
    if problems:
        raise UserError(problems)


def read_lines(path: Path) -> list[str]:
    """The lines of ``--predict-file``, which end at LF or CRLF only, as those of data files do.

    Raises:
        UserError: it can't be read, is not UTF-8, or holds nothing.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); --predict-file takes a text file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from None
    if not text:
        raise UserError(f"{path}: is empty; give a file with one text per line")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def print_labels(
    settings: ClassificationSettings,
    task: str,
    rows: Sequence[tuple[str, ...]],
    clean: Callable[[tuple[str, ...], bool], Example],
) -> None:
    """Prints the label, the probabilities and the text of each row, a line each.

    Args:
        rows: texts, or pairs of them, as the user gave them.
        clean: (row, whether the case is kept) -> the example that the model reads.
    """
    folder = finished_run(settings.from_run, settings.output_dir, task)
    saved = replace(saved_settings(type(settings), folder, folder.config()), use_gpu=settings.use_gpu)
    print(f"run: {folder.path}", file=sys.stderr)
    examples = [clean(tuple(map(nfc, row)), saved.keep_case) for row in rows]
    probabilities, names = label_examples(folder, examples, saved)
    for row, of_row in zip(rows, probabilities, strict=True):
        ranked = sorted(zip(of_row, names, strict=True), reverse=True)
        print(f"{ranked[0][1]}\t{', '.join(f'{name} {p:.3f}' for p, name in ranked)}\t" + "\t".join(row))


def label_examples(
    folder: RunFolder, examples: Sequence[Example], settings: ClassificationSettings
) -> tuple[np.ndarray, list[str]]:
    """Classifies new texts or pairs with a finished run's best model.

    Args:
        examples: cleaned as the run's own were.
        settings: the run's.

    Returns:
        Probabilities (n, n_classes), and the names of the classes.

    Raises:
        UserError: the run is not complete, or a text is empty.
    """
    device = open_device(settings.use_gpu, "fp32")
    if device.warning:
        warn_once(device.warning)
    classifier = load_best(folder.best).to(device.accelerator.device)
    if isinstance(classifier, Comparator):
        tokenizer = tokenizer_of(folder.best, read_comparator(folder.best))
        context = tokenizer.max_tokens
    else:
        tokenizer = tokenizer_of(folder.best, classifier.gpt2.config)
        context = classifier.gpt2.max_tokens
    split, n_cut = encode_examples(examples, tokenizer, context, settings, getattr(settings, "symmetric", False))
    if n_cut:
        print(f"note: {cut_note(split, n_cut, context, settings)}", file=sys.stderr)
    probabilities = predict(classifier, split, settings, device, check=lambda: None)
    return probabilities, folder.config()["data"]["label_names"]
