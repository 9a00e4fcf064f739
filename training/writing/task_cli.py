"""What the scripts of tasks with task tokens have in common before anything slow is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from config import TextTaskSettings
from strategies import shown_defaults
from tasks.published import Sourced
from training.cli import build_parser, parse_settings

if TYPE_CHECKING:
    from training.writing.task import TextTask

T = TypeVar("T", bound=Sourced)


def text_task_main(
    name: str,
    settings_class: type[TextTaskSettings],
    description: str,
    examples: str,
    argv: Sequence[str] | None,
    make_task: Callable[[], TextTask],
    use_run: Callable[[TextTask, Any, set[str]], bool] | None = None,
) -> int:
    """A script's main part: flags, the table of strategies, and then the run.

    Args:
        name: the task's.
        argv: the flags; None: the process's own.
        make_task: called once the flags are in order.
        use_run: (task, settings, flags that were given) -> whether a finished run was all that was asked for, and used.
    """
    parser = build_parser(settings_class, description, examples, shown_defaults(name))
    parser.add_argument("--list-strategies", action="store_true", help="print the table of strategies and stop")
    flags = [_usual_name(flag) for flag in (sys.argv[1:] if argv is None else argv)]
    settings, given = parse_settings(settings_class, parser, flags)
    if "list_strategies" in given:
        from training.strategy_table import strategy_table

        print(strategy_table(name))
        return 0
    task = make_task()
    if use_run is not None and use_run(task, settings, given):
        return 0

    from training.device import leave_process_group
    from training.interrupt import Signals
    from training.writing.run import run_writing
    from training.writing.task_preparation import prepare_run

    signals = Signals().install()
    run_writing(prepare_run(task, settings, given), signals)
    leave_process_group()
    return 0


def chosen_rows(splits: Mapping[str, list[T]], settings: TextTaskSettings) -> dict[str, list[T]]:
    """Of each split's rows so many as ``--limit-train`` and so on say; with ``--hold-out`` the training rows alone.

    Every Nth source is held out, with all its rows: three hypotheses of a premise are not told apart by reading it
    again. A test file that the user names stays.
    """
    first = {split: rows[: getattr(settings, f"limit_{split}")] for split, rows in splits.items()}
    if settings.hold_out is None:
        return first
    numbers: dict[str, int] = {}
    found: dict[str, list[T]] = {"train": [], "dev": []}
    for row in first["train"]:
        number = numbers.setdefault("".join(row.source.split()), len(numbers))
        found["train" if number % settings.hold_out else "dev"].append(row)
    found["dev"] = found["dev"][: settings.limit_dev]
    return found | ({"test": first["test"]} if settings.test_file else {})


def _usual_name(flag: str) -> str:
    """``--num-beams`` is what other tools call ``--beams``."""
    name, equals, value = flag.partition("=")
    return "--beams" + equals + value if name.replace("_", "-") == "--num-beams" else flag
