"""The pages of docs/ say what the code does: snippets print what is shown, quotations are true, files exist.

A ```python block is either run or quoted. It is run if a ```text block with its output follows; the blocks of a page
share one session, in order. Otherwise it is quoted, from the file that the line above it names.

A block without a language is a tree of files. It is held against the repository, or, if its first line is a folder
with a name in <>, against the code that writes such a folder.
"""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"`([\w.*-]+(?:/[\w.*-]+)*(?:/|\.(?:py|md|toml|txt|yaml|json|jsonl|safetensors)))`")
PACKAGES = ("comparison", "corpus", "experiments", "models", "modules", "poetry", "tasks", "training")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line that its text begins on, and what stands just above it."""

    language: str
    text: str
    line: int
    above: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text[: found.start()].count("\n") + 2, text[: found.start()].rstrip().split("\n")[-1])
        for found in FENCE.finditer(text)
    ]


def snippets_of(page: Path) -> list[tuple[Block, str]]:
    """The blocks that are run, each with the output that the page shows."""
    blocks = blocks_of(page)
    return [
        (block, after.text)
        for block, after in pairwise(blocks)
        if block.language == "python" and after.language == "text" and after.above == "```"
    ]


def quotations_of(page: Path) -> list[Block]:
    run = {block.line for block, _ in snippets_of(page)}
    return [block for block in blocks_of(page) if block.language == "python" and block.line not in run]


def tree_of(block: Block) -> list[str]:
    """The paths of a tree: every two spaces of indentation lead into the last folder above."""
    folders: list[str] = []
    paths = []
    for line in block.text.splitlines():
        depth = (len(line) - len(line.lstrip(" "))) // 2
        name = line.split()[0]
        folders[depth:] = [name]
        paths.append("".join(folders[: depth + 1]))
    return paths


def trees_of(page: Path) -> tuple[list[str], list[str]]:
    """The paths of the repository, and those of folders that the code writes, named in a page's trees."""
    trees = [tree_of(block) for block in blocks_of(page) if not block.language]
    written = [tree for tree in trees if "<" in tree[0]]
    return list(chain(*(tree for tree in trees if tree not in written))), list(chain(*written))


def squeezed(text: str) -> str:
    return " ".join(text.split())


@each_page
def test_snippets_print_what_the_page_says(page, monkeypatch, one_thread):
    monkeypatch.chdir(ROOT)
    session: dict[str, Any] = {"__name__": "__main__"}
    for block, expected in snippets_of(page):
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")  # so that errors name the page's line
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, session)
        assert printed.getvalue().rstrip() == expected.rstrip(), f"{page.name}:{block.line}"


@each_page
def test_quoted_code_is_in_the_file_named_above_it(page):
    for block in quotations_of(page):
        named = FILE_NAME.findall(block.above)
        assert len(named) == 1, f"{page.name}:{block.line}: neither run nor quoted; the line above must name one file"
        source = (ROOT / named[0]).read_text(encoding="utf-8")
        assert squeezed(block.text) in squeezed(source), f"{page.name}:{block.line}: not in {named[0]}"


def test_the_pages_hold_what_is_checked():
    guide = ROOT / "docs" / "gpt2.md"
    assert len(snippets_of(guide)) >= 5
    assert len(quotations_of(guide)) >= 5
    repository, written = trees_of(ROOT / "docs" / "architecture.md")
    assert "models/gpt2.py" in repository
    assert "runs/<name>/checkpoint/state.json" in written


@each_page
def test_named_files_exist(page):
    repository, _ = trees_of(page)
    _, written = trees_of(ROOT / "docs" / "architecture.md")
    # Files that a run, a corpus or a checkpoint consists of are named by themselves; they are checked below.
    made = {part for path in written for part in (path.split("/", 2)[2], Path(path).name, Path(path).name + "/")}
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    named = [name for name in FILE_NAME.findall(prose) if name not in made | {"config.json", "model.safetensors"}]
    missing = [name for name in named + repository if not (ROOT / name).exists()]
    assert not missing


@each_page
def test_links_within_the_repository_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_run_folder_is_what_the_code_writes():
    _, written = trees_of(ROOT / "docs" / "architecture.md")
    files = [path for folder in ("training", "corpus", "models") for path in (ROOT / folder).rglob("*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in files)
    names = [Path(path).name for path in written if not path.endswith(">/")]
    assert not [name for name in names if f'"{name.split("*")[0]}' not in code]


def test_every_room_is_on_the_plan():
    repository, _ = trees_of(ROOT / "docs" / "architecture.md")
    files = [*ROOT.glob("*.py"), *(path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py"))]
    names = [path.relative_to(ROOT).as_posix() for path in files if path.name != "__init__.py"]
    assert not [name for name in names if name not in repository], "new files get a line in docs/architecture.md"


def test_the_files_of_every_dataset_are_listed():
    from datasets import PARAPHRASE_TASKS, SENTIMENT_TASKS
    from poetry.sonnets import SONNETS
    from sonnet_generation import DATASET
    from tasks import inference, passages, questions, summaries

    classification = [*SENTIMENT_TASKS.values(), *PARAPHRASE_TASKS.values()]
    names = {task.name: set(task.files.values()) for task in classification if task.files}
    names[DATASET] = set(SONNETS.files.values())
    text = {"chatbot": passages.CHATBOT, "bbc": summaries.BBC, **inference.DATASETS, **questions.DATASETS}
    names |= {name: set(chain(*dataset.files.values())) for name, dataset in text.items()}
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    rows = {
        found[1]: set(re.findall(r"`([^`]+)`", found[0])) for found in re.finditer(r"^\| `(\w+)` \|.*", readme, re.M)
    }
    assert rows.keys() == names.keys()
    assert not {name: files - rows[name] for name, files in names.items() if files - rows[name]}
