"""Pairs of a premise and a hypothesis: KorNLI and XNLI, SICK, RTE, and files of one's own.

Every reader gives the same :class:`Pair`. Files are told by their ending: ``.xml`` is RTE, ``.jsonl`` has the fields
premise, hypothesis and label, and tables have the columns of KorNLI (``sentence1``, ``sentence2``, ``gold_label``), of
SICK (``sentence_A``, ``sentence_B``, ``entailment_judgment``), or the names of the JSON fields. A label of three is a
word, in English or Korean, or the number that SNLI, MNLI and KLUE give it on the HuggingFace Hub.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from config import UserError
from datasets import Example, Split
from tasks.files import JSON_LINES, TABLES, FileProblems, nfc, read_records, read_text
from tasks.published import PublishedDataset

THREE_WAY = ("entailment", "neutral", "contradiction")
TWO_WAY = ("entailment", "not entailment")
HIDDEN = "-1"  # on the HuggingFace Hub: no gold label, or the whole test set's are kept back
NO_LABEL = ("-", HIDDEN)  # the annotators did not agree
_EITHER = " or ".join(NO_LABEL)

_NUMBERS = {"0": 0, "1": 1, "2": 2}
_THREE = {"entailment": 0, "neutral": 1, "contradiction": 2, "함의": 0, "중립": 1, "모순": 2, **_NUMBERS}
_TWO = {"entailment": 0, "yes": 0, "true": 0, "not entailment": 1, "not_entailment": 1, "no": 1, "false": 1}

LABEL_WORDS: dict[tuple[str, int], tuple[str, ...]] = {
    ("en", 3): ("entailment", "neutral", "contradiction"),
    ("ko", 3): ("함의", "중립", "모순"),
    ("en", 2): ("yes", "no"),
    ("ko", 2): ("예", "아니요"),
}
"""(language, number of classes) -> what the model writes for each class."""

COLUMNS = (  # premise, hypothesis, label, id
    ("sentence1", "sentence2", "gold_label", "id"),
    ("sentence_A", "sentence_B", "entailment_judgment", "pair_ID"),
    ("premise", "hypothesis", "label", "id"),
)


@dataclass(frozen=True, kw_only=True)
class PairDataset(PublishedDataset):
    """A published dataset of pairs.

    Attributes:
        label_names: :data:`THREE_WAY` or :data:`TWO_WAY`.
    """

    label_names: tuple[str, ...]


DATASETS = {
    "kornli": PairDataset(  # CC BY-SA 4.0
        "ko",
        {"train": ("xnli.test.ko.tsv",), "dev": ("xnli.dev.ko.tsv",)},
        "https://github.com/kakaobrain/kor-nlu-datasets",
        "kornli here trains on XNLI's Korean test file and is scored on its dev file; the best epoch is chosen on the "
        "same rows that are scored, and published KorNLI numbers, trained on 942,854 machine-translated pairs, are no "
        "comparison",
        label_names=THREE_WAY,
    ),
    "sick": PairDataset(  # CC BY-NC-SA 3.0
        "en",
        {"train": ("SICK_train.txt",), "dev": ("SICK_trial.txt",), "test": ("SICK_test_annotated.txt",)},
        "https://zenodo.org/records/2787612",
        label_names=THREE_WAY,
    ),
    "rte": PairDataset(  # research use
        "en",
        {
            "train": ("rte1_dev.xml", "rte2_dev.xml", "rte3_dev.xml"),
            "dev": ("rte2_test.xml",),
            "test": ("rte3_test.xml",),
        },
        "https://tac.nist.gov/data/RTE/",
        "rte here trains on the development sets of RTE-1, 2 and 3, chooses by RTE-2's test set and tests on RTE-3's: "
        "not the split of GLUE",
        label_names=TWO_WAY,
    ),
}


@dataclass(frozen=True)
class Pair:
    """``label`` counts in the order of the label names; None where the file has none. ``line`` counts from 1."""

    id: str
    premise: str
    hypothesis: str
    label: int | None
    line: int

    @property
    def source(self) -> str:
        return self.premise


@dataclass(frozen=True)
class _Row:
    """A pair whose label is still as the file writes it."""

    id: str
    premise: str
    hypothesis: str
    written: str | None
    line: int


@dataclass(frozen=True)
class PairSplits:
    """The pairs of all splits; ``notes`` are sentences to show the user."""

    splits: dict[str, list[Pair]]
    label_names: tuple[str, ...]
    notes: tuple[str, ...]


def read_pairs(paths: Mapping[str, Sequence[Path]], label_names: tuple[str, ...] | None = None) -> PairSplits:
    """Reads and checks all files.

    Args:
        paths: the files of each split; ``test`` may come without labels.
        label_names: :data:`THREE_WAY` or :data:`TWO_WAY`; None: whatever the training files have.

    Raises:
        UserError: with the problems of all files at once.
    """
    problems: list[str] = []
    rows: dict[tuple[str, Path], list[_Row]] = {}
    for split, files in paths.items():
        for path in files:
            try:
                rows[split, path] = _read_rows(path, labelled=split != "test")
            except UserError as error:
                problems += error.problems
    if label_names is None and not all(("train", path) in rows for path in paths.get("train", ())):
        raise UserError(problems)  # which labels there are is not known
    train = [row.written for (split, _), found in rows.items() if split == "train" for row in found]
    names = label_names or labels_of(train)
    if label_names is None and {"0", "1"} <= set(train) and set(train) <= {"0", "1", *NO_LABEL, None}:
        problems += [
            f"{path}: the labels 0 and 1 may mean two classes, but numbers are read as three (0 entailment, 1 neutral, "
            "2 contradiction); write entailment and not_entailment, or neutral, in their place"
            for path in paths["train"]
        ]
    splits: dict[str, list[Pair]] = {split: [] for split in paths}
    notes = []
    for (split, path), found in rows.items():
        try:
            pairs, n_open = _labelled(path, found, names, split == "test")
        except UserError as error:
            problems += error.problems
            continue
        if n_open:
            notes.append(f"{path.name}: {n_open} pairs with the label {_EITHER} (no agreement) are left out")
        prefix = f"{path.stem}/" if len(paths[split]) > 1 else ""
        splits[split] += [Pair(prefix + row.id, row.premise, row.hypothesis, label, row.line) for row, label in pairs]
    if problems:
        raise UserError(problems)
    return PairSplits(splits, names, tuple(notes))


def split_of(pairs: Sequence[Pair], path: Path, label_names: tuple[str, ...]) -> Split:
    """Pairs as a classification has them."""
    examples = [Example(pair.id, pair.premise, pair.label, pair.line, pair.hypothesis) for pair in pairs]
    return Split(path, examples, [], "", label_names)


def labels_of(written: Sequence[str | None]) -> tuple[str, ...]:
    """Two classes if words that only they have (yes, false) are more than words that only three have (neutral)."""
    found = [text.lower() for text in written if text]
    n_two = sum(text in _TWO and text not in _THREE for text in found)
    return TWO_WAY if n_two > sum(text in _THREE and text not in _TWO for text in found) else THREE_WAY


def _labelled(
    path: Path, rows: Sequence[_Row], names: tuple[str, ...], optional: bool
) -> tuple[list[tuple[_Row, int | None]], int]:
    """The rows with their labels as numbers, and how many have none because the annotators did not agree.

    A file has a label on every line, or on none where that is allowed.
    """
    numbers, problems = (_THREE if names == THREE_WAY else _TWO), FileProblems(path)
    unlabelled = optional and {row.written for row in rows} <= {None, HIDDEN}
    kept: list[tuple[_Row, int | None]] = []
    n_open = 0
    for row in rows:
        if unlabelled:
            kept.append((row, None))
        elif row.written in NO_LABEL:
            n_open += 1
        elif row.written is None:
            problems.add(row.line, "no label; write it, or delete the line")
        elif row.written.lower() in numbers:
            kept.append((row, numbers[row.written.lower()]))
        else:
            problems.add(row.line, f"the label {row.written!r} is unknown; the labels are {', '.join(numbers)}")
    if not kept and not len(problems):
        problems.add(None, f"every pair has the label {_EITHER}; give a file with labels")
    problems.raise_any()
    return kept, n_open


# ---------------------------------------------------------------------------------------------------------------------
# Formats
# ---------------------------------------------------------------------------------------------------------------------


def _read_rows(path: Path, labelled: bool) -> list[_Row]:
    if path.suffix.lower() == ".xml":
        return _read_rte(path)
    premise, hypothesis, label, id_field = _columns(path)
    optional = [] if path.suffix.lower() in JSON_LINES else [label]  # in JSON lines it may be a number
    rows = [
        _Row(record.id, record[premise], record[hypothesis], _as_written(record.raw.get(label)), record.line)
        for record in read_records(path, [premise, hypothesis], optional, id_field=id_field)
    ]
    if labelled and not any(row.written for row in rows):
        raise UserError(f"{path}:1: no {label!r} anywhere; training and dev files need the labels")
    return rows


def _as_written(label: Any) -> str | None:
    """A label as text: a number's digits; None where there is none."""
    return (nfc(label).strip() if isinstance(label, str) else json.dumps(label) if label is not None else "") or None


def _columns(path: Path) -> tuple[str, str, str, str]:
    """Which of the known layouts a file has, by its first line."""
    ending = path.suffix.lower()
    if ending not in (*JSON_LINES, *TABLES):
        raise UserError(f"{path}: the ending {ending!r} says no format; name it .tsv, .csv, .jsonl or .xml")
    first = next(line for line in read_text(path).split("\n") if line.strip())
    for layout in COLUMNS:
        if ending in JSON_LINES and f'"{layout[0]}"' in first:
            return layout
        if ending in TABLES and layout[0] in {name.strip().strip('"') for name in first.split(TABLES[ending])}:
            return layout
    return COLUMNS[-1 if ending in JSON_LINES else 0]


def _read_rte(path: Path) -> list[_Row]:
    """RTE-1's ``value="TRUE"`` and the later years' ``entailment="YES"``; a test file may have neither."""
    problems = FileProblems(path)
    rows: list[_Row] = []
    first_line_of: dict[str, int] = {}
    for element, line in _elements(path, "pair"):
        premise, hypothesis = _text(element.find("t")), _text(element.find("h"))
        if not premise or not hypothesis:
            problems.add(line, "a pair without text in <t> or <h>; write both, or delete the pair")
            continue
        id_ = (element.get("id") or str(line)).strip()
        first = first_line_of.setdefault(id_, line)
        if first != line:
            problems.add(line, f"the id {id_!r} already stands on line {first}; give each pair its own")
        label = (element.get("entailment") or element.get("value") or "").strip()
        rows.append(_Row(id_, premise, hypothesis, label or None, line))
    if not rows and not len(problems):
        problems.add(None, "holds no <pair>; give a file of RTE")
    problems.raise_any()
    return rows


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None else nfc(" ".join("".join(element.itertext()).split()))


def _elements(path: Path, tag: str) -> list[tuple[ElementTree.Element, int]]:
    """The elements of one name, each with the line where it begins.

    Nothing is fetched: the DTD that a DOCTYPE line names is not read. Entities that the file declares itself are
    refused, because a few lines of them can stand for gigabytes, and so are those that nothing declares.
    """
    parser, builder = expat.ParserCreate(), ElementTree.TreeBuilder()
    found: list[tuple[ElementTree.Element, int]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        element = builder.start(name, attributes)
        if name == tag:
            found.append((element, parser.CurrentLineNumber))

    def refuse(name: str, *_: object) -> None:
        raise UserError(f"{path}:{parser.CurrentLineNumber}: the entity {name!r}; write the characters that it means")

    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = parser.SkippedEntityHandler = refuse
    try:
        parser.Parse(read_text(path), True)
    except expat.ExpatError as error:
        why = expat.ErrorString(error.code)
        raise UserError(f"{path}:{error.lineno}: {why}; mend the XML: what opens must close, in order") from None
    return found
