"""The folder of one corpus: what it is built from, which process works on it, and what of it is still good.

``settings.json`` comes first and says what the folder is for, ``manifest.json`` comes last: a folder that has it is
complete. In between, every stage leaves its finished pieces for the next run.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import UserError
from storage import lock_folder, refuse_differences, remove_leftovers, write_json

SCHEMA = 1
_WORKING_FILES = 2  # the version of what the stages leave for the next run; that of another one is made anew


@dataclass(frozen=True)
class Source:
    """One input: the folder name of its documents, where it is, and how often its documents occur."""

    key: str
    path: str
    weight: float


class CorpusFolder:
    """A corpus folder. Nothing is created before :meth:`lock`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.documents = path / "documents"
        self.selection = path / "selection"  # working files, removed at the end
        self.tokens = path / "tokens"
        self.token_parts = path / "tokens" / "parts"  # working files, removed at the end
        self.tokenizer = path / "tokenizer"
        self.manifest = path / "manifest.json"
        self._lock: Any = None

    @property
    def is_complete(self) -> bool:
        return self.manifest.exists()

    def settings(self) -> dict[str, Any]:
        """What the folder was begun with; empty where it is new.

        Raises:
            UserError: its settings.json can't be read.
        """
        path = self.path / "settings.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            return raw | {"sources": [Source(**source) for source in raw["sources"]]}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: can't be read ({error}); start anew with --overwrite") from None

    def refuse_other_settings(self, identity: dict[str, Any]) -> None:
        """Compares what decides a corpus's content with what the folder was begun with.

        Raises:
            UserError: naming each difference.
        """
        theirs = self.settings()["identity"]
        refuse_differences(self.path, "corpus", theirs, identity, "leave it as it was")

    def lock(self) -> None:
        """Makes the folder, and makes sure that no other process works on it; the lock goes with the process.

        What one that was killed had half written is removed.

        Raises:
            UserError: another process does, or the folder can't be made.
        """
        self._lock = lock_folder(self.path, "building this corpus")
        remove_leftovers(self.path)

    def unlock(self) -> None:
        if self._lock:
            self._lock.close()

    def begin(self, identity: dict[str, Any], sources: list[Source]) -> None:
        """Writes ``settings.json``; what was made with other settings is removed, extracted documents are not."""
        self.remove_results()
        write_json(
            self.path / "settings.json",
            {"schema": SCHEMA, "identity": identity, "sources": [vars(source) for source in sources]},
        )

    def keep_what_fits(self, extracted: list[dict[str, Any]]) -> None:
        """Removes what later stages made of other documents: a source may have changed since."""
        facts = [[about[name] for name in ("sha256", "settings", "counts", "parts")] for about in extracted]
        key = hashlib.sha256(json.dumps([_WORKING_FILES, facts], sort_keys=True).encode()).hexdigest()
        path = self.path / "extracted.json"
        if not path.exists() or json.loads(path.read_text(encoding="utf-8")).get("key") != key:
            self.remove_results()
            write_json(path, {"key": key})

    def remove_results(self) -> None:
        self.manifest.unlink(missing_ok=True)
        (self.path / "excluded.tsv").unlink(missing_ok=True)
        (self.path / "extracted.json").unlink(missing_ok=True)
        for folder in (self.tokens, self.selection, self.tokenizer, self.path / "tokenizer.partial"):
            shutil.rmtree(folder, ignore_errors=True)

    def remove_working_files(self) -> None:
        shutil.rmtree(self.token_parts, ignore_errors=True)
        shutil.rmtree(self.selection, ignore_errors=True)


def name_sources(paths: list[Path], weights: list[float]) -> list[Source]:
    """Sources with folder names: a file's own name, and a hash of its path where two are called the same."""
    names = [re.sub(r"[^\w.-]+", "_", path.name) for path in paths]
    count = Counter(name.lower() for name in names)
    sources = []
    for path, name, weight in zip(paths, names, weights, strict=True):
        if count[name.lower()] > 1:
            name += "-" + hashlib.sha256(str(path).encode()).hexdigest()[:6]
        sources.append(Source(name, str(path), weight))
    return sources
