"""What a script of a task with task tokens brings; ``training/writing/task_preparation.py`` does the rest.

In between, a script lets the model write or choose among given answers (``training/writing/targets.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import TextTaskSettings
from tasks.published import PublishedDataset
from training.writing.run import Writer, WritingRun
from training.writing.task_texts import TaskData, TaskEncoder


@dataclass(frozen=True)
class TextTask:
    """What is a script's own.

    Attributes:
        name: as folders and tables have it: ``summarization``.
        script: its file name, for the resume command.
        settings_class: a subclass of :class:`config.TextTaskSettings`.
        task_tokens: all that its texts use, in a fixed order.
        template: what stands before the target, in order: words that say what, and task tokens.
        sample_ending: of the bundled files ``data/sample/<name>-<language>-<split>.<ending>``.
        datasets: what ``--dataset`` may name.
        read: (split -> its files, settings) -> records, read and checked without a tokenizer; the settings' language
            is settled, and the limits are for it to apply. A split without files is not among the keys.
        make: (records, settings, encoder) -> the texts.
        finish: (run, writer, data) -> what is merged into ``metrics.json`` (``dev``, ``test``, ``dev_ci``, and whatever
            else); files of predictions go to ``run.folder.predictions``, inside ``with run.folder.writing():``.
        show: prints the task's own results.
        asks: the settings that give a finished run the user's own text; nothing is trained then.
        evaluate: (writer, data) -> further metrics of the dev set after each epoch, plain numbers.
        score: which metric chooses the epoch.
        lower_is_better: whether it is a loss.
    """

    name: str
    script: str
    settings_class: type[TextTaskSettings]
    task_tokens: tuple[str, ...]
    template: tuple[str, ...]
    sample_ending: str
    datasets: Mapping[str, PublishedDataset]
    read: Callable[[Mapping[str, Sequence[Path]], Any], Any]
    make: Callable[[Any, Any, TaskEncoder], TaskData]
    finish: Callable[[WritingRun, Writer, TaskData], dict[str, Any]]
    show: Callable[[dict[str, Any]], None]
    asks: tuple[str, ...]
    evaluate: Callable[[Writer, TaskData], dict[str, float]] | None = None
    score: str = "perplexity"
    lower_is_better: bool = True
