"""The house rules: which module may import which, and that `datasets` is this project's file."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {  # each part -> the parts of this project that it may import
    "config": set(),
    "storage": {"config"},
    "modules": {"config"},
    "models": {"config", "storage", "modules"},
    "optimizer": set(),
    "strategies": {"config"},
    "downloads": set(),
    "datasets": {"config", "downloads"},
    "pairs": {"config", "datasets"},
    "corpus": {"config", "storage"},
    "poetry": {"config", "storage", "datasets", "downloads"},
    "tasks": {"config", "storage", "datasets"},
    "training": {
        "poetry",
        "tasks",
        "config",
        "storage",
        "modules",
        "models",
        "optimizer",
        "strategies",
        "datasets",
        "pairs",
        "corpus",
    },
    "comparison": {
        "config",
        "storage",
        "datasets",
        "downloads",
        "pairs",
        "poetry",
        "tasks",
        "modules",
        "models",
        "training",
    },
    "experiments": {"config", "storage", "strategies", "datasets", "poetry", "tasks", "training"},
}
TRAINING = ("classification", "writing", "language_models")  # its rooms; what they share stands beside them
SCRIPTS = {path.stem for path in ROOT.glob("*.py")} - LAYERS.keys()
QUICK = sorted(SCRIPTS | {"config", "strategies", "datasets", "downloads", "pairs", "storage"})
SLOW = {"torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy", "sklearn", "scipy", "matplotlib"}


def files_of(part: str) -> list[Path]:
    files = [ROOT / f"{part}.py"] if (ROOT / f"{part}.py").exists() else sorted((ROOT / part).rglob("*.py"))
    assert files, f"{part} is gone; mend LAYERS"
    return files


def imports(path: Path, module_level: bool = False) -> set[str]:
    """The top-level packages that a file imports, in functions too; not those under ``if TYPE_CHECKING``."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}:{node.lineno}: relative import"
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not (module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("part", sorted(LAYERS))
def test_arrows_point_one_way(part: str) -> None:
    ours = LAYERS.keys() | SCRIPTS
    for path in files_of(part):
        wrong = (imports(path) & ours) - LAYERS[part] - {part}
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_the_rooms_of_training_know_what_they_share_and_not_each_other() -> None:
    for path in files_of("training"):
        own = path.relative_to(ROOT / "training").parts[0]
        others = re.findall(rf"\bfrom training\.({'|'.join(TRAINING)})\b", path.read_text(encoding="utf-8"))
        assert not {*others} - {own}, path.relative_to(ROOT)


def test_nothing_imports_a_script() -> None:
    assert "classifier" in SCRIPTS
    for path in [ROOT / f"{script}.py" for script in SCRIPTS]:
        assert not imports(path) & SCRIPTS, path.name


@pytest.mark.parametrize("name", QUICK)
def test_flags_are_plain_python(name: str) -> None:
    """So that --help is quick: what is imported at module level, and what that imports, is not slow."""
    seen: set[Path] = set()
    waiting = [ROOT / f"{name}.py"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        slow = imports(path, module_level=True) & SLOW
        assert not slow, f"{path.relative_to(ROOT)} imports {', '.join(sorted(slow))} at module level"
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                candidate = ROOT / Path(*node.module.split("."))
                waiting += [p for p in (candidate.with_suffix(".py"), candidate / "__init__.py") if p.exists()]


def test_datasets_is_this_projects_file() -> None:
    import datasets

    assert Path(str(datasets.__file__)) == ROOT / "datasets.py"
    assert Path(str(sys.modules["datasets"].__file__)).parent == ROOT


def test_no_module_of_transformers_is_used_but_tokenizers() -> None:
    """The model is written by hand: of transformers the tokenizer classes are used at run time, and nothing else.

    Encoders, which are there to be compared with, are the one exception.
    """
    used = set()
    for part in [*LAYERS, *SCRIPTS]:
        for path in files_of(part):
            if path == ROOT / "models" / "comparator.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "transformers":
                    used |= {alias.name for alias in node.names}
                elif isinstance(node, ast.Import):
                    assert all(alias.name.split(".")[0] != "transformers" for alias in node.names), path
    assert used <= {"PreTrainedTokenizerFast"}
