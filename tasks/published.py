"""What is fixed about a published dataset, and how one is split that is published without splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

SHARES = 10  # of a dataset without splits, two of which are dev and test

T = TypeVar("T")


class Sourced(Protocol):
    """A row of a task's file."""

    @property
    def source(self) -> str:
        """What it is about, a context or a premise; rows with the same one belong into the same split."""


@dataclass(frozen=True)
class PublishedDataset:
    """A published dataset.

    Attributes:
        files: split -> the names of its files; those of a split are read one after another.
        note: what a reader of the results has to know.
        trees: folders, one of which is there where the texts are a tree of files; the folder that holds it is the
            training file then, and the tree is split when it is read.
    """

    language: str
    files: Mapping[str, tuple[str, ...]]
    homepage: str
    note: str = ""
    trees: tuple[str, ...] = ()

    def files_in(self, folder: Path) -> Mapping[str, tuple[str, ...]]:
        """Split -> the names of its files, or of the tree that stands in a folder in the place of all of them."""
        if not any((folder / name).exists() for names in self.files.values() for name in names):
            for tree in self.trees:
                if (folder / tree).is_dir():
                    return {"train": (str(Path(tree).parent),)}
        return self.files


def by_hash(rows: Sequence[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """Train, dev and test of rows that come without splits; those with the same key stay together."""
    found: dict[str, list[T]] = {"train": [], "dev": [], "test": []}
    for row in rows:
        share = int(hashlib.sha256(key(row).encode()).hexdigest(), 16) % SHARES
        found[{0: "dev", 1: "test"}.get(share, "train")].append(row)
    return found
