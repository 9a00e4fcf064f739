"""Files: written whole or not at all, decoded, shown; and folders that one process works on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from config import UserError

ANEW = "choose another --output-dir, or start anew with --overwrite"


def output_file_problems(flag: str, file: str | None) -> list[str]:
    """Why the file that a flag names can't be written, while there is still time to choose another."""
    if file is None:
        return []
    path = Path(file).absolute()
    if not path.parent.is_dir():
        return [f"{flag} {file}: no folder {path.parent}; make it, or choose another"]
    return [f"{flag} {file}: is a folder; name a file"] if path.is_dir() else []


@contextmanager
def writing_output(flag: str, path: Path) -> Iterator[None]:
    """Within it the file that a flag names is written.

    Raises:
        UserError: it can't be.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{flag} {path}: can't be written ({error.strerror}); choose another file") from None


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write under a temporary name; it is renamed when it is whole, so that no reader ever sees half a file.

    Half of one is removed, whatever broke it off.
    """
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            yield file
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def temporary_name(path: Path) -> Path:
    """The name under which this process writes a file until it is whole: another one may write the same file."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def remove_leftovers(folder: Path) -> None:
    """Removes what processes left that were killed while they wrote, from a folder in which no other one works."""
    for path in folder.rglob("*.[0-9]*.tmp"):
        with suppress(OSError):
            path.unlink()


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a file, whole or not at all."""
    with replacing(path) as file:
        file.writelines(chunks)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, whole or not at all."""
    write_chunks(path, [data])


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def copy_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copies files of a folder, each whole or not at all; what the folder lacks of them goes from the target, too."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (source / name).exists():
            write_bytes(target / name, (source / name).read_bytes())
        else:
            (target / name).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file is on the disk: after a power cut, a renamed file must hold its bytes."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def file_sha256(path: Path) -> str:
    """Of a file's bytes; of a folder, of the names and hashes of the files below it, all that is hidden aside."""
    if path.is_dir():
        names = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
        files = sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))
        listing = "".join(f"{name} {file_sha256(path / name)}\n" for name in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_differences(
    path: Path, what: str, theirs: dict[str, Any], asked: dict[str, Any], remedy: str, otherwise: str = ANEW
) -> None:
    """Compares what decides a folder's content with what it was begun with.

    Args:
        what: what the folder holds, such as "run".
        theirs: name -> value that it was begun with.
        asked: name -> value that is wanted now.
        remedy: what to do about a flag that differs.
        otherwise: what to do if it is meant.

    Raises:
        UserError: naming each difference.
    """
    problems = [
        f"{path}: this {what} has {name} {theirs.get(name)!r}, not {value!r}; {remedy}, {otherwise}"
        for name, value in asked.items()
        if theirs.get(name) != value
    ]
    if problems:
        raise UserError(problems)


def check_folder(folder: Path, remedy: str = "choose another --output-dir") -> None:
    """Refuses a folder for output that can't be made or written to."""
    existing = nearest_existing(folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: {existing} is no folder that can be written to; {remedy}")


def nearest_existing(path: Path) -> Path:
    """A path, or the nearest one above it that is there."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if os.path.exists(parent))  # noqa: PTH110 (never raises)


def walk_folders(
    top: Path, on_error: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As ``os.walk``, behind links too; each folder once, for a link may lead back."""
    seen: set[Path] = set()
    for name, folders, files in os.walk(top, onerror=on_error, followlinks=True):
        folder = Path(name)
        if (real := folder.resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield folder, folders, files


def lock_folder(path: Path, work: str) -> IO[str]:
    """Makes a folder, and makes sure that no other process works in it.

    Args:
        work: what the other process would be doing, such as "working on this run".

    Returns:
        The lock: it holds until it is closed, or until the process ends, however it ends. Where there are no locks, the
        work goes on without one.

    Raises:
        UserError: another process does, or the folder can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / ".lock", "w")  # noqa: SIM115 (held by the caller)
    except OSError as error:
        raise UserError(f"{path}: can't be made ({error.strerror}); choose another --output-dir") from None
    try:
        import fcntl
    except ImportError:  # Windows
        return lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path}: another process is {work}; wait for it, or stop it") from None
    except OSError:  # a file system that has no locks, such as NFS without its daemon
        pass
    return lock


def decoded(content: bytes, path: Path) -> str:
    """The text of a file of the user's, without a byte order mark.

    Raises:
        UserError: it is not UTF-8, with the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file in the encoding UTF-8"
        ) from None


def shown(path: Path) -> str:
    """A path as a person reads it: relative where it lies below the current folder."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)
