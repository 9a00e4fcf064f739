"""The flags of decoding as the settings of :func:`models.generation.generate`, and which of them contradict others."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from models.logits import Decoding


def decoding_of(settings: Any) -> Decoding:
    return Decoding(
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
        typical_p=settings.typical_p,
        repetition_penalty=settings.repetition_penalty,
        no_repeat_ngram=settings.no_repeat_ngram,
        beams=settings.beams,
    )


def unused_filters(settings: Any, given: Collection[str]) -> list[str]:
    """The user's filters of what is drawn, and several samples, where nothing is drawn.

    Filters would change the run's name and nothing else; samples would all be the same and count as many texts.
    """
    values = {name: getattr(settings, name) for name in ("top_k", "top_p", "min_p", "typical_p") if name in given}
    problems = [
        f"--{name.replace('_', '-')} {value}: nothing is drawn at --temperature 0; give one above 0, or leave it out"
        for name, value in values.items()
        if value is not None and settings.temperature == 0
    ]
    if "samples" in given and settings.samples > 1 and settings.temperature == 0:
        flag = f"--samples {settings.samples}"
        problems.append(f"{flag}: at --temperature 0 all are the same; give one above 0, or leave it out")
    return problems
