"""Command lines: flags made from a settings dataclass, defaults from a YAML file, and errors that a user can act on.

Nothing here imports torch, so ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from config import GROUP_ORDER, UserError, as_text

S = TypeVar("S")


class _Parser(argparse.ArgumentParser):
    """argparse with this project's form of errors: one ``error: `` line, exit code 2."""

    def error(self, message: str) -> typing.NoReturn:
        raise UserError(f"{message} (see --help)")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # so that no flag is broken


def build_parser(
    settings_class: type[Any], description: str, examples: str, defaults: Mapping[str, str] | None = None
) -> argparse.ArgumentParser:
    """A parser with one flag for each field of a settings dataclass, grouped as the fields say.

    A flag that is not given leaves no trace in the parsed namespace, so that what the user set can be told from
    defaults. What the script always refuses is parsed, and not shown.

    Args:
        defaults: what ``--help`` says of settings whose default is not the dataclass's: name -> text.
    """
    parser = _Parser(
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    hints = typing.get_type_hints(settings_class)
    fields = dataclasses.fields(settings_class)
    titles = dict.fromkeys(field.metadata["group"] for field in fields)
    others = [title for title in titles if title not in GROUP_ORDER]
    order = [*GROUP_ORDER[:-2], *others, *GROUP_ORDER[-2:]]
    groups = {title: parser.add_argument_group(title) for title in order if title in titles}
    for field in fields:
        about = field.metadata
        group = groups[about["group"]]
        flag = "--" + field.name.replace("_", "-")
        kind, is_list = _kind(hints[field.name])
        help_text = about["help"] + _default_text(field, defaults or {})
        if field.name in refused_by(settings_class):
            help_text = argparse.SUPPRESS
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=help_text)
        else:
            metavar = None if about["choices"] else about["metavar"] or {int: "N", float: "X", str: "TEXT"}[kind]
            group.add_argument(
                flag, type=kind, choices=about["choices"], metavar=metavar, help=help_text,
                nargs="+" if is_list else None,
            )  # fmt: skip
    return parser


def parse_settings(settings_class: type[S], parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[S, set[str]]:
    """Reads flags, and under them the ``--config`` file.

    Returns:
        The settings, and the names of what the user set by flag or file; flags that a script added to the parser
        itself are among the names.

    Raises:
        UserError: an unknown flag or key, a value of the wrong type, one outside its range, a setting that the script
            always refuses, an empty name of a file, folder or model, or a text that is no UTF-8.
    """
    flags = vars(parser.parse_args([_hyphens(argument) for argument in argv]))
    known = {field.name for field in dataclasses.fields(settings_class)}  # type: ignore[arg-type]
    extra = {name for name in flags if name not in known}
    flags = {name: value for name, value in flags.items() if name in known}
    given = _read_config_file(settings_class, Path(flags["config"]).expanduser()) if flags.get("config") else {}
    given = _with_home(settings_class, given | flags)
    settings = settings_class(**given)
    problems = unreadable_texts(settings) + empty_names(settings) + range_problems(settings)
    problems += refused_settings(settings, set(given))
    if problems:
        raise UserError(problems)
    return settings, set(given) | extra


def unreadable_texts(settings: Any) -> list[str]:
    """Values that can't be written as UTF-8, one message each: the shell gave bytes of another encoding."""
    problems = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
                flag = field.name.replace("_", "-")
                problems.append(f"--{flag} {text!r}: is not UTF-8; write it in the encoding UTF-8")
    return problems


def empty_names(settings: Any) -> list[str]:
    """Files, folders and models whose name is empty, one message each: as an unset variable of the shell leaves it.

    It must not stand for the default, because what is named is never replaced.
    """
    problems = []
    for field in dataclasses.fields(settings):
        value, metavar = getattr(settings, field.name), field.metadata["metavar"] or ""
        kind = next((word.lower() for word in ("FILE", "FOLDER", "PATH", "MODEL") if word in metavar), None)
        if kind and "" in (value if isinstance(value, list) else [value]):
            problems.append(f"--{field.name.replace('_', '-')}: is empty; name a {kind}, or leave it out")
    return problems


def refused_by(settings_class: type[Any]) -> Mapping[str, str]:
    """The settings that contradict a script's task whatever else is set -> why."""
    refused: Mapping[str, str] = getattr(settings_class, "refused", {})
    return refused


def refused_settings(settings: Any, given: set[str]) -> list[str]:
    """What the user set of those, one message each; 0 sets nothing."""
    problems = []
    for name, why in refused_by(type(settings)).items():
        value = getattr(settings, name)
        if name in given and (value or value is False):
            flag = ("--no-" if value is False else "--") + name.replace("_", "-")
            problems.append(f"{flag}: {why}; leave it out")
    return problems


def names_in_group(settings_class: type[Any], group: str) -> set[str]:
    """The settings that ``--help`` shows together."""
    return {field.name for field in dataclasses.fields(settings_class) if field.metadata["group"] == group}


def unused_flags(settings_class: type[Any], given: set[str], used: set[str], flag: str) -> list[str]:
    """What the user set that says nothing where a finished run is all that is used, one message each.

    Args:
        flag: what makes it so, for the messages.
    """
    return [
        f"--{field.name.replace('_', '-')}: nothing is trained with {flag}; leave it out"
        for field in dataclasses.fields(settings_class)
        if field.name in given - used
    ]


def range_problems(settings: Any) -> list[str]:
    """What is outside its range, one message per setting."""
    problems = []
    for field in dataclasses.fields(settings):
        value, within = getattr(settings, field.name), field.metadata.get("within")
        if within is not None and value is not None and not within[1](value):
            problems.append(f"--{field.name.replace('_', '-')} {value}: must be {within[0]}")
    return problems


def run_script(body: Callable[[], int]) -> int:
    """Runs a script's main part; turns errors that a user can mend into ``error: `` lines and an exit code."""
    from training.interrupt import Interrupted

    # torch's threads spin for milliseconds while they wait for each other, which costs most of the speed as soon as two
    # jobs share the cores; spinning briefly costs a job that is alone a few per cent. Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        return body()
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return error.exit_code
    except RuntimeError as error:
        from training.device import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        remedy = "give it less at a time, or a device with more of it (without --use-gpu the CPU)"
        print(f"error: the device's memory is too small for this; {remedy}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        print(interrupted.message, file=sys.stderr)
        return 128 + interrupted.signal_number
    except KeyboardInterrupt:  # before the script listens for signals itself
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone: `| head`
        sys.stderr.close()
        return 141


def _hyphens(argument: str) -> str:
    """``--use_gpu`` is ``--use-gpu``; values are left alone."""
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value


def _kind(hint: Any) -> tuple[type, bool]:
    """``int | None`` -> (int, False); ``list[str]`` -> (str, True)."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is list:
        return typing.get_args(hint)[0], True
    return hint, False


def _with_home(settings_class: type[Any], given: dict[str, Any]) -> dict[str, Any]:
    """The settings with ``~`` spelt out in paths: shells leave it alone behind ``=``, and YAML knows nothing of it."""
    metavars = {field.name: field.metadata["metavar"] or "" for field in dataclasses.fields(settings_class)}

    def spelt_out(name: str, value: Any) -> Any:
        if not any(word in metavars[name] for word in ("FILE", "FOLDER", "PATH")):
            return value
        if isinstance(value, list):
            return [spelt_out(name, item) for item in value]
        return os.path.expanduser(value)  # noqa: PTH111 (as it is where nobody has that name)

    return {name: spelt_out(name, value) for name, value in given.items()}


def _default_text(field: dataclasses.Field, elsewhere: Mapping[str, str]) -> str:
    default = field.default
    if default is dataclasses.MISSING and callable(field.default_factory):
        default = field.default_factory()
    text = elsewhere.get(field.name) or (None if default is None else as_text(default))
    return f" (default: {text})" if text and "default" not in field.metadata["help"] else ""


def read_yaml(path: Path, remedy: str) -> Any:
    """What a YAML file holds. A key that stands there twice is refused: YAML takes the last one and says nothing.

    Args:
        remedy: what to do where it can't be read.

    Raises:
        UserError: it can't be read, or is no YAML, or with every key that stands there twice.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        problems = list(_repeated_keys(yaml.compose(text, yaml.SafeLoader)))
        raw = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); {remedy}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    if problems:
        raise UserError([f"{path}: {problem}" for problem in dict.fromkeys(problems)])
    return raw


def _repeated_keys(node: Any) -> Iterator[str]:
    import yaml

    first: dict[str, int] = {}
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        if isinstance(node, yaml.MappingNode):
            key, child = child
            line = key.start_mark.line + 1
            name = str(key.value).replace("-", "_")
            if name in first:
                yield f"{key.value}: stands there twice, in line {first[name]} and line {line}; leave one of them out"
            first.setdefault(name, line)
        yield from _repeated_keys(child)


def _read_config_file(settings_class: type[Any], path: Path) -> dict[str, Any]:
    raw = read_yaml(path, "--config takes a YAML file")
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UserError(f"{path}: must hold 'name: value' lines")
    fields = {field.name: field for field in dataclasses.fields(settings_class)}
    hints = typing.get_type_hints(settings_class)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in raw.items():
        name = str(key).replace("-", "_")
        if name not in fields or name == "config":
            problems.append(f"{path}: unknown key {key!r}; the keys are the flags of --help")
            continue
        if value is None:  # "lr:" says nothing, as if the line were not there
            continue
        try:
            values[name] = _check_value(value, hints[name], fields[name].metadata["choices"])
        except ValueError as error:
            problems.append(f"{path}: {key}: {error}")
    if problems:
        raise UserError(problems)
    return values


def _check_value(value: Any, hint: Any, choices: tuple[Any, ...] | None) -> Any:
    kind, is_list = _kind(hint)
    if is_list:
        return [_check_value(item, kind, choices) for item in (value if isinstance(value, list) else [value])]
    if kind is float and isinstance(value, str):  # YAML reads 1e-5 as text
        value = float(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ValueError(f"{value!r} is not of type {kind.__name__}")
    if choices and value not in choices:
        raise ValueError(f"{value!r} is none of {', '.join(map(str, choices))}")
    return value
