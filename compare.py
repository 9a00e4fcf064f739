#!/usr/bin/env python3
"""Compares finished runs: which strategy is better, by how much, how sure that is, and what it costs.

python compare.py runs                                     # every run below a folder, a table for each dataset
python compare.py runs --output-dir comparison-of-today    # also as Markdown, CSV, LaTeX, JSON and report.html
python compare.py runs/sst runs/more --baseline full --format markdown

docs/comparing.md says how to read the tables and the verdicts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from config import RUN, UserError, setting
from storage import check_folder
from training.cli import build_parser, parse_settings, run_script

COMPARING = "comparing"
EXAMPLES = """\
  python compare.py runs
  python compare.py runs/sst --baseline full --format latex > table.tex
  python compare.py runs --measure loss --no-floors --output-dir comparison-by-loss
  python compare.py runs/sentiment-sst-mini-full-s1 --attention "not a bad film" --output-dir attention"""


@dataclass(frozen=True)
class CompareSettings:
    """How runs are compared, beside the folders that hold them."""

    measure: str | None = setting(
        None, "compare by this measure of single examples (default: accuracy, or the task's usual one)",
        group=COMPARING, metavar="NAME",
    )  # fmt: skip
    baseline: str | None = setting(
        None, "also show the pairs of this entry of the tables", group=COMPARING, metavar="NAME"
    )
    floors: bool = setting(
        True, "also measure what needs no GPT-2, where the data files are still there: the majority class, TF-IDF with "
        "logistic regression; of summaries the documents' first sentences", group=COMPARING,
    )  # fmt: skip

    format: str = setting("terminal", "of what is printed", group=RUN, choices=("terminal", "markdown", "csv", "latex"))
    output_dir: str | None = setting(
        None, "write comparison.md, .csv, .tex, .json and report.html to this folder", group=RUN, metavar="FOLDER"
    )
    report: bool = setting(True, "with --output-dir: write report.html, too", group=RUN)
    pictures: str | None = setting(
        None, "also write the report's pictures to this folder, as PNG", group=RUN, metavar="FOLDER"
    )
    title: str = setting("Comparison of runs", "of the report", group=RUN)
    attention: str | None = setting(
        None, "don't compare: draw the attention of one run's best model on this text, into --output-dir; a pair of "
        "questions with ' | ' between them, task tokens as they are called", group=RUN, metavar="TEXT",
    )  # fmt: skip
    config: str | None = setting(None, "YAML file with defaults for any of these settings", group=RUN, metavar="FILE")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser(CompareSettings, "Finished runs, compared.", EXAMPLES)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="run folders, or folders that hold some")
    settings, _ = parse_settings(CompareSettings, parser, arguments)
    hyphens = [re.sub(r"^--[^=]+", lambda flag: flag[0].replace("_", "-"), argument) for argument in arguments]
    folders = [Path(folder) for folder in parser.parse_args(hyphens).folders]
    problems = setting_problems(settings, folders)
    if problems:
        raise UserError(problems)
    if settings.attention is not None:
        draw_attention(folders[0], settings.attention, Path(str(settings.output_dir)))
        return 0

    from comparison.comparing import compare_runs

    text = compare_runs(
        folders,
        Path(settings.output_dir) if settings.output_dir else None,
        title=settings.title,
        measure=settings.measure,
        baseline=settings.baseline,
        floors=settings.floors,
        report=settings.report,
        pictures=Path(settings.pictures) if settings.pictures else None,
        form=settings.format,
        command=["python", "compare.py", *arguments],
    )
    print(text)
    # Not among the output: it may go to a file.
    for line in where_to_look(settings):
        print(line, file=sys.stderr)
    return 0


def setting_problems(settings: CompareSettings, folders: Sequence[Path]) -> list[str]:
    """What is wrong with the flags together."""
    problems = []
    for flag, folder in (("--output-dir", settings.output_dir), ("--pictures", settings.pictures)):
        path = Path(folder) if folder else None
        if path is None:
            continue
        try:
            check_folder(path, f"choose another {flag}")
        except UserError as error:
            problems += error.problems
            continue
        if (path / "config.json").exists():
            problems.append(f"{flag} {folder}: is a run's folder; choose one of its own")
    if settings.attention is not None:
        if not settings.attention.strip():
            problems.append("--attention: the text is empty; write one")
        if not settings.output_dir:
            problems.append("--attention: needs --output-dir, where the picture goes")
        if len(folders) > 1:
            problems.append(f"--attention: takes one run, not {len(folders)} folders")
    return problems


def draw_attention(folder: Path, text: str, output_dir: Path) -> None:
    from comparison.attention_map import draw_attention_map

    print(f"attention: {draw_attention_map(folder, text, output_dir)}")


def where_to_look(settings: CompareSettings) -> list[str]:
    lines = []
    if settings.output_dir:
        name = "report.html" if settings.report else "comparison.md"
        lines.append(f"{'report' if settings.report else 'tables'}: {Path(settings.output_dir) / name}")
    if settings.pictures:
        lines.append(f"pictures: {settings.pictures}")
    if not lines and settings.format == "terminal":
        lines.append("--output-dir FOLDER writes this as report.html, Markdown, CSV, LaTeX and JSON")
    return lines


if __name__ == "__main__":
    sys.exit(run_script(main))
