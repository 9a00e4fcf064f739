"""The README's commands are commands: each is understood, and everything it names is there."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "RESULTS.md"]
CLASSIFYING = ("classifier.py", "paraphrase_detection.py")
OFFLINE = {"HF_ENDPOINT": "http://127.0.0.1:9", "CS224N_DATA_URL": "http://127.0.0.1:9/"}


def commands(tool: str) -> list[str]:
    """The lines of the pages' shell blocks that call a tool."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += [line.split("  #")[0].strip() for line in lines if line.startswith(tool)]
    return sorted(set(found))


def test_the_commands_are_found():
    assert "make demo" in commands("make")
    assert any("--fine-tune-mode full-model --use_gpu" in command for command in commands("python"))


@pytest.mark.parametrize("command", commands("make"))
def test_make_commands_have_a_target(command):
    done = subprocess.run(["make", "--dry-run", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in commands("python") if c.split()[1] not in CLASSIFYING])
def test_other_scripts_understand_their_command(command):
    script, *arguments = shlex.split(command)[1:]
    understood = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert understood.returncode == 0
    for flag in (argument for argument in arguments if argument.startswith("--")):
        assert flag in understood.stdout


@pytest.mark.parametrize("command", [c for c in commands("python") if c.split()[1] in CLASSIFYING])
def test_the_classifying_scripts_understand_their_commands(command):
    """Flags and values are read; what the reader would put in place of a capitalized word is left out."""
    from classifier import ClassifierSettings
    from paraphrase_detection import ParaphraseSettings
    from training.cli import build_parser, parse_settings

    script, *arguments = shlex.split(command)[1:]
    settings_class = ClassifierSettings if script == "classifier.py" else ParaphraseSettings
    parser = build_parser(settings_class, "", "")
    parser.add_argument("--list-strategies", action="store_true")
    with pytest.raises(SystemExit) if "--help" in arguments else contextlib.nullcontext():
        parse_settings(settings_class, parser, arguments)


def test_the_first_command_runs_dry_as_typed(tmp_path):
    environment = os.environ | OFFLINE | {"HOME": str(tmp_path), "HF_HOME": str(tmp_path)}
    command = [sys.executable, "classifier.py", "--fine-tune-mode", "full-model", "--use_gpu", "--dry-run"]
    command += ["--output-dir", str(tmp_path / "runs")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "bundled model mini" in done.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_files_are_there(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
