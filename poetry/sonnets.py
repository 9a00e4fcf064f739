"""Files of sonnets, in the layout of the CS 224N course: found, read, checked and written.

A file begins with a header of any length. Each poem stands after a line that holds its number and nothing else, with
blank lines around it as one likes. Blank lines inside a poem are left out; everything else in its lines is kept, the
indentation of the couplet too. Line ends may be LF or CRLF, the encoding is UTF-8.

Generated files begin with the line ``--Generated Sonnets-- `` and a blank line; then, for every poem, come a blank
line, its number, its lines, and a blank line. The course's own reader splits such files at the numbers, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from config import UserError
from datasets import ClassificationTask, DataSource, find_task_data, is_published
from downloads import Timeouts
from storage import decoded, write_text

N_GIVEN = 3  # lines of a held-out sonnet that are given
N_LINES = 14
GENERATED_HEADER = "--Generated Sonnets-- \n\n"
NUMBER = re.compile(r"\s*([0-9]{1,6})\s*")

TASK, DATASET = "sonnet", "shakespeare"
SONNETS = ClassificationTask(
    name="sonnets",
    label_names=(),
    files={
        "train": "sonnets.txt",
        "dev": "sonnets_held_out_dev.txt",
        "truth": "TRUE_sonnets_held_out_dev.txt",
        "test": "sonnets_held_out.txt",
    },
    licence="Shakespeare's sonnets, public domain, in the edition of the Folger Shakespeare Library, as distributed by "
    "CS 224N",
    git_blobs={
        "train": "66bffc291ace4660043b9aaeb21ddd5af6638f13",
        "dev": "be351ef6b0ea29a0095010809cf3f0ac4fafbd0d",
        "truth": "a68bd172ce56e3afdda72008dcf07a47b8e87e70",
        "test": "802fcca369fbce749e1a9d0d8f61c3e2fa8a9118",
    },
)
"""The files; ``dev`` and ``test`` hold the first three lines of each sonnet, ``truth`` the whole sonnets of ``dev``."""
PUBLISHED_NOTE = (
    "each held-out file has twelve sonnets: few, so look at the intervals; of those to complete in "
    f"{SONNETS.files['test']}, 155 is 138 of {SONNETS.files['dev']} but for two commas, and 156 is a version of "
    "Shakespeare's 144, which is in none of the files"
)


@dataclass(frozen=True)
class Sonnet:
    """A poem: its number in the file, and its lines without those that are blank."""

    number: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines, joined by newlines; spaces before the first and after the last are left out."""
        return "\n".join(self.lines).strip()

    def after(self, n_given: int) -> Sonnet:
        """What follows the first lines."""
        return Sonnet(self.number, self.lines[n_given:])


@dataclass(frozen=True)
class SonnetFiles:
    """What the files of a run hold. ``truth`` and ``test`` are empty where their file is missing."""

    train: list[Sonnet]
    dev: list[Sonnet]
    truth: list[Sonnet]
    test: list[Sonnet]
    notes: tuple[str, ...]  # sentences to show the user


# ---------------------------------------------------------------------------------------------------------------------
# Finding
# ---------------------------------------------------------------------------------------------------------------------


def find_sonnets(
    data_dir: Path | None,
    *,
    root: Path,
    allow_download: bool = True,
    timeouts: Timeouts | None = None,
    say: Callable[[str], None] = print,
) -> DataSource:
    """Finds the files as :func:`datasets.find_task_data` does, and says so if the true endings are missing."""
    source = find_task_data(SONNETS, data_dir, root=root, allow_download=allow_download, timeouts=timeouts, say=say)
    if "truth" in source.paths:
        return source
    missing = source.paths["dev"].with_name(SONNETS.files["truth"])
    return replace(
        source, notes=(*source.notes, f"{missing} is missing: nothing will be compared with the true endings.")
    )


def read_files(source: DataSource) -> SonnetFiles:
    """Reads and checks all files of ``source``.

    Raises:
        UserError: with the problems of all files at once.
    """
    poems: dict[str, list[Sonnet]] = {split: [] for split in SONNETS.files}
    problems: list[str] = []
    notes: list[str] = []
    for split, path in source.paths.items():
        try:
            poems[split] = read_sonnets(path)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    if "truth" in source.paths:
        check_held_out(source.paths["dev"], poems["dev"], source.paths["truth"], poems["truth"])
    notes = unusual_lengths(source.paths["train"], poems["train"])
    if "test" in source.paths and is_published(SONNETS, source):
        notes.append(PUBLISHED_NOTE)
    return SonnetFiles(poems["train"], poems["dev"], poems["truth"], poems["test"], tuple(notes))


def check_held_out(prompts_path: Path, prompts: Sequence[Sonnet], truth_path: Path, truth: Sequence[Sonnet]) -> None:
    """Makes sure that both files hold the same sonnets: the same numbers, and the same first lines.

    Raises:
        UserError: naming every sonnet in which they differ.
    """
    whole = {sonnet.number: sonnet for sonnet in truth}
    given = {sonnet.number: sonnet for sonnet in prompts}
    remedy = "the two files must hold the same sonnets; take both from the same source"
    problems = [
        f"{truth_path}: has no sonnet {n}, which {prompts_path.name} has; {remedy}" for n in given.keys() - whole
    ]
    problems += [
        f"{prompts_path}: has no sonnet {n}, which {truth_path.name} has; {remedy}" for n in whole.keys() - given.keys()
    ]
    for number in given.keys() & whole.keys():
        lines = given[number].lines
        if [line.strip() for line in whole[number].lines[: len(lines)]] != [line.strip() for line in lines]:
            problems.append(f"{truth_path}: sonnet {number} begins otherwise than in {prompts_path.name}; {remedy}")
    if problems:
        raise UserError(sorted(problems))


def unusual_lengths(path: Path, poems: Iterable[Sonnet]) -> list[str]:
    """One sentence for each sonnet that has not fourteen lines; it is used like the others."""
    return [
        f"{path}: sonnet {poem.number} has {len(poem.lines)} lines; it is kept"
        for poem in poems
        if len(poem.lines) != N_LINES
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Reading and writing
# ---------------------------------------------------------------------------------------------------------------------


def read_sonnets(path: Path) -> list[Sonnet]:
    """The numbered poems of a file, in its order.

    Raises:
        UserError: the file can't be read or is not UTF-8, has no numbers, repeats one, or has a number without a poem.
    """
    return _numbered(path, _read_lines(path))


def read_poems(path: Path) -> list[Sonnet]:
    """The same for a file that may also have no numbers: then its poems are separated by blank lines.

    They are numbered from 1; a poem may begin with a line like ``--Generated Sonnets--``, which is left out.

    Raises:
        UserError: as :func:`read_sonnets`; or the file is empty.
    """
    lines = _read_lines(path)
    if any(NUMBER.fullmatch(line) for line in lines):
        return _numbered(path, lines)
    kept = [line for line in lines if line.strip() != GENERATED_HEADER.strip()]
    blocks = re.split(r"\n(?:[ \t]*\n)+", "\n".join(kept).strip("\n"))
    poems = [tuple(line for line in block.split("\n") if line.strip()) for block in blocks]
    poems = [lines for lines in poems if lines]
    if not poems:
        raise UserError(f"{path}: holds no poem; write numbered poems, or poems with a blank line between them")
    return [Sonnet(number, lines) for number, lines in enumerate(poems, start=1)]


def write_sonnets(path: Path, poems: Iterable[Sonnet]) -> None:
    """Writes poems in the course's layout for generated sonnets, whole or not at all."""
    write_text(path, format_sonnets(poems))


def format_sonnets(poems: Iterable[Sonnet]) -> str:
    """What :func:`write_sonnets` writes."""
    return GENERATED_HEADER + "".join(f"\n{poem.number}\n{chr(10).join(poem.lines)}\n\n" for poem in poems)


def _read_lines(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); give the path of a text file") from None
    text = decoded(content, path)
    # Not splitlines(): it would also split at characters that are no line ends in any editor.
    return [line.rstrip() for line in re.split("\r\n|\r|\n", text)]


def _numbered(path: Path, lines: list[str]) -> list[Sonnet]:
    heads = [(i, int(match[1])) for i, line in enumerate(lines) if (match := NUMBER.fullmatch(line))]
    if not heads:
        raise UserError(
            f"{path}: has no numbered poems; write a line with a number, and nothing else, before each of them"
        )
    problems: list[str] = []
    first_at: dict[int, int] = {}
    poems: list[Sonnet] = []
    for (start, number), end in zip(heads, [i for i, _ in heads[1:]] + [len(lines)], strict=True):
        poem = tuple(line for line in lines[start + 1 : end] if line)
        if number in first_at:
            problems.append(
                f"{path}:{start + 1}: number {number} again, after line {first_at[number]}; give each poem its own"
            )
        elif not poem:
            problems.append(f"{path}:{start + 1}: no poem after number {number}; write it, or delete the number")
        first_at.setdefault(number, start + 1)
        poems.append(Sonnet(number, poem))
    if problems:
        raise UserError(problems)
    return poems
