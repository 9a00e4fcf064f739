"""What the user should know of a task's texts: which are repeated, cut or left out, and in which language they look."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Sized
from typing import Any

from config import TextTaskSettings
from datasets import count_repeats
from training.terminal import shorten
from training.writing.task_texts import Fitted, TaskData

WHEN_TOO_LONG = {
    "cut": "sources were cut",
    "left_out": "texts were left out of training and perplexity, because what can't be cut does not fit",
}
WHEN_UNKNOWN = {
    "unknown": "texts to read hold characters that this vocabulary lacks",
    "unwritable": "targets hold characters that this vocabulary lacks, and can't be written as they are",
}
HANGUL = re.compile("[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]")
ENOUGH_TEXTS = 1000  # say which language it is
SHOWN_OF_REPEATS = 100  # columns of a text in config.json


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


def notes_of_repeats(repeats: Mapping[str, Mapping[str, Any]], sources: Mapping[str, Sized], what: str) -> list[str]:
    """How many texts stand twice in the data, where there are any.

    Args:
        sources: split -> its texts.
        what: the texts are called.
    """
    notes = []
    for kind, which in (("repeated", "that repeat another"), ("in_train", "that also stand in train")):
        parts = [
            f"{split} {found['rows']:,} of {len(sources[split]):,}"
            for split, found in repeats[kind].items()
            if found["rows"]
        ]
        notes += [f"{what} {which}: {', '.join(parts)}"] if parts else []
    return ["; ".join([*notes, "config.json lists some"])] if notes else []


def notes_of_hold_out(settings: TextTaskSettings, data: TaskData) -> list[str]:
    if settings.hold_out is None:
        return []
    n_held = len(data.dev if data.prompted is None else data.prompted["dev"])
    return [f"--hold-out {settings.hold_out}: {n_held} of the training texts are kept back to measure on"]


def notes_of_fit(fitted: Mapping[str, Fitted], context: int) -> list[str]:
    """How many sources were cut, texts left out, and characters unknown, where there are any."""
    notes = []
    long = {field: f"context of {context} tokens: {what}" for field, what in WHEN_TOO_LONG.items()}
    for field, what in (long | WHEN_UNKNOWN).items():
        counts = {name: getattr(fit, field) for name, fit in fitted.items()}
        if any(counts.values()):
            parts = ", ".join(f"{name} {counts[name]} of {_n_texts(fitted[name])}" for name in counts if counts[name])
            notes.append(f"{what}: {parts}")
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
