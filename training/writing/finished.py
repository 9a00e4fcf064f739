"""A finished run of a task with task tokens, asked about the user's own text."""

from __future__ import annotations

import dataclasses
import sys
from functools import cache

from config import DECODING, TextTaskSettings
from models.gpt2 import GPT2Model
from training.cli import names_in_group, unused_flags
from training.device import open_device
from training.run_folder import RunFolder
from training.setup import Problems, finished_run, saved_settings
from training.terminal import warn_once
from training.writing.decoding import decoding_of, unused_filters
from training.writing.run import Writer
from training.writing.task import TextTask
from training.writing.task_texts import TaskEncoder
from training.writing.task_tokens import saved_task_tokens

USED_WITH_RUN = {  # beside the flags of decoding and the user's own text
    "from_run", "output_dir", "config", "keep", "stride", "seed", "use_gpu", "precision",
}  # fmt: skip


def asked_run(task: TextTask, settings: TextTaskSettings, given: set[str]) -> tuple[RunFolder, TextTaskSettings]:
    """The run of ``--from-run``, or the task's run that was finished last, for the user's own text.

    Returns:
        Its folder, and its settings under those that the user gave.

    Raises:
        UserError: with all settings that change nothing there, and where there is no such run.
    """
    folder, note, problems = None, "", Problems()
    with problems.collect():
        folder = finished_run(settings.from_run, settings.output_dir, task.name)
    used = names_in_group(task.settings_class, DECODING) | USED_WITH_RUN | {*task.asks}
    problems.found += unused_flags(task.settings_class, given, used, f"--{task.asks[0]}")
    if folder is not None:
        with problems.collect():
            saved = saved_settings(task.settings_class, folder, folder.config())
            known = (given | {"use_gpu"}) & {field.name for field in dataclasses.fields(settings)}
            if saved.precision == "fp16" and not settings.use_gpu:
                known.add("precision")  # the run's needs a GPU
            settings = dataclasses.replace(saved, **{name: getattr(settings, name) for name in known})
            if settings.temperature == 0 and "samples" not in given:
                settings = dataclasses.replace(settings, samples=1)  # the run's would all be the same
            drawn = settings.temperature > 0 and "temperature" in given
            if drawn and (settings.beams or 1) > 1 and "beams" not in given:
                note = f"--temperature {settings.temperature} draws; the run's --beams {settings.beams} is left out"
                settings = dataclasses.replace(settings, beams=None)
            decoding_of(settings)
            problems.found += unused_filters(settings, given)
    problems.raise_any()
    assert folder is not None
    if note:
        print(f"note: {note}", file=sys.stderr)
    return folder, settings


def open_writer(task: TextTask, folder: RunFolder, settings: TextTaskSettings) -> Writer:
    """The model of a finished run; which run, and what it has to cut of the user's text, is said on stderr, once."""
    print(f"run: {folder.path}", file=sys.stderr)
    device = open_device(settings.use_gpu, settings.precision)
    if device.warning:
        warn_once(device.warning)
    gpt2 = GPT2Model.from_pretrained(folder.best).to(device.accelerator.device)
    vocabulary = saved_task_tokens(folder.best, task.task_tokens)
    say = cache(lambda note: print(f"note: {note}", file=sys.stderr))
    encoder = TaskEncoder(vocabulary.tokenizer, vocabulary.ids, vocabulary.end, gpt2.max_tokens, settings.keep, say)
    return Writer(gpt2, vocabulary.tokenizer, device, lambda: None, encoder)
