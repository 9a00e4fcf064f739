"""One set of pinned versions, wherever a user takes them from."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def pins(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def test_env_yml_pins_what_requirements_txt_pins():
    environment = yaml.safe_load((ROOT / "env.yml").read_text(encoding="utf-8"))
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == pins(ROOT / "requirements.txt")


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_to_one_version(file):
    for line in pins(ROOT / file):
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_what_is_installed_is_what_is_pinned():
    for line in pins(ROOT / "requirements.txt"):
        name, wanted = line.split("==")
        assert version(name).partition("+")[0] == wanted  # torch calls its CPU build 2.13.0+cpu
