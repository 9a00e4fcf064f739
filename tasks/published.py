"""What is fixed about a published dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedTexts:
    """A published dataset of texts to learn to write.

    Attributes:
        files: split -> the names of its files.
        note: what a reader of the results has to know.
    """

    language: str
    files: Mapping[str, tuple[str, ...]]
    homepage: str
    note: str = ""
