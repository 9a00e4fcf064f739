"""Sources become parts: the same ones whatever happens on the way."""

from __future__ import annotations

import bz2
import json
import lzma
import multiprocessing
import os
import random
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from config import RunFailed, UserError
from corpus import extraction
from corpus.extraction import ExtractionSettings, extract, part_files, read_part

ROOT = Path(__file__).resolve().parents[1]
END = b"</mediawiki>"
START = b'<mediawiki><siteinfo><namespaces><namespace key="6">Datei</namespace></namespaces></siteinfo>'
EVIL = "\n{|\n|" * 20_000  # tables in tables without end: the parser takes minutes


class Bar:
    def __init__(self) -> None:
        self.bytes = 0

    def update(self, count: int) -> None:
        assert count >= 0
        self.bytes += count


class Stop(Exception):
    """What a test's check() raises, as Ctrl-C would."""


def run(source: Path, folder: Path, check: Callable[[], None] = lambda: None, **settings: Any) -> dict[str, Any]:
    bar = Bar()
    result = extract(source, folder, ExtractionSettings(**settings), check, bar)
    assert bar.bytes == source.stat().st_size
    return result


def documents(folder: Path) -> list[dict[str, Any]]:
    return [document for path in part_files(folder) for document in read_part(path)]


def titles(folder: Path) -> list[str]:
    return [document["title"] for document in documents(folder)]


def contents(folder: Path) -> dict[str, bytes]:
    """What has to be the same, byte for byte."""
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def page(title: str, text: str = "") -> bytes:
    text = text or f"The ''page'' {title} tells of [[a river|rivers]]. " * 10
    return f"<page><title>{title}</title><ns>0</ns><revision><text>{escape(text)}</text></revision></page>\n".encode()


def dump(count: int = 60) -> list[bytes]:
    return [page(f"Page {number}") for number in range(count)]


def multistream(pages: list[bytes]) -> list[bytes]:
    """The bz2 streams of a dump with ten pages in each."""
    bodies = [b"".join(pages[i : i + 10]) for i in range(0, len(pages), 10)]
    return [bz2.compress(body) for body in (START, *bodies, END)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "PART_BYTES", 8_000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(START + b"".join(dump()) + END)
    return path


# ---------------------------------------------------------------------------------------------------------------------
# What comes out
# ---------------------------------------------------------------------------------------------------------------------


def test_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(lzma.compress(b"One\r\ntext\n<|endoftext|>\nb\xe9d\n<|endoftext|>\n\n<|endoftext|>\nThree\n"))
    result = run(path, tmp_path / "out")
    assert documents(tmp_path / "out") == [{"text": "One\ntext"}, {"text": "Three"}]
    assert (result["format"], result["compression"], result["parts"]) == ("text", "xz", 1)
    counts = {name: count for name, count in result["counts"].items() if count}
    assert counts == {"records": 4, "documents": 2, "characters": 13, "empty": 1, "encoding": 1}
    assert (tmp_path / "out/skipped.tsv").read_text() == "text:4\tnot UTF-8 (byte 0xe9)\n"


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines = [
        '{"body": "One", "title": "T"}',
        "{no",
        '{"text": "x"}',
        '{"body": "half \\ud800"}',
        '{"body": "2\\u2028"}',
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    result = run(path, tmp_path / "out", text_field="body")
    assert documents(tmp_path / "out") == [{"text": "One", "title": "T"}, {"text": "2"}]
    assert (result["counts"]["broken"], result["counts"]["encoding"]) == (2, 1)
    skipped = (tmp_path / "out/skipped.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in skipped] == ["lines:2", "lines:3", "lines:4"]


def test_dump(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    others = page("Short", "short") + page("Moved", "#REDIRECT [[x]]") + page("Talk").replace(b"<ns>0", b"<ns>1")
    broken = page("Broken").replace(b"</text>", b"")
    path.write_bytes(START + others + broken + page("Picture", "[[Datei:x.jpg|x]]" + "Some text. " * 30) + END)
    result = run(path, tmp_path / "out")
    (document,) = documents(tmp_path / "out")
    assert document["title"] == "Picture" and document["text"].startswith("Picture\n\nSome text. Some text.")
    counts = {name: count for name, count in result["counts"].items() if count and name != "characters"}
    assert counts == {"records": 5, "documents": 1, "tiny": 1, "redirect": 1, "namespace": 1, "broken": 1}
    assert (tmp_path / "out/skipped.tsv").read_text().startswith("Broken\tnot XML")


def test_the_number_of_workers_changes_nothing(tmp_path: Path, source: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(source, one, workers=1) == run(source, two, workers=2)
    assert contents(one) == contents(two)
    assert len(part_files(one)) > 3
    assert titles(one) == [f"Page {number}" for number in range(60)]


def test_pages_that_hang_are_given_up(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(START + page("First") + page("Evil", EVIL) + page("Braces", "{{" * 50_000) + page("Last") + END)
    result = run(path, tmp_path / "out", page_seconds=1.0)
    assert titles(tmp_path / "out") == ["First", "Last"]
    assert "Evil\ttook over 1 s\n" in (tmp_path / "out/skipped.tsv").read_text()
    assert result["counts"]["timeout"] >= 1 and result["counts"]["records"] == 4


def test_more_time_is_given_to_pages_that_had_too_little(tmp_path: Path) -> None:
    path, out = tmp_path / "dump", tmp_path / "out"
    path.write_bytes(START + b"".join(dump(20)) + page("Evil", EVIL) + b"".join(dump(20)) + END)
    first = run(path, out, page_seconds=0.5)
    before = inodes(out)
    assert run(path, out, page_seconds=0.4) == first and inodes(out) == before
    run(path, out, page_seconds=0.6)
    assert "Evil\ttook over 0.6 s\n" in (out / "skipped.tsv").read_text()
    changed = [name for name, inode in inodes(out).items() if inode != before[name]]
    assert 1 <= len(changed) <= first["counts"]["timeout"] < len(before)


# ---------------------------------------------------------------------------------------------------------------------
# Going on
# ---------------------------------------------------------------------------------------------------------------------


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in part_files(folder)}


def test_a_complete_source_is_not_read_again(tmp_path: Path, source: Path) -> None:
    first = run(source, tmp_path / "out")
    before = inodes(tmp_path / "out")

    def check() -> None:
        raise AssertionError("was read again")

    assert run(source, tmp_path / "out", check) == first
    assert inodes(tmp_path / "out") == before
    assert run(source, tmp_path / "out", min_chars=100_000)["counts"]["documents"] == 0  # other settings, other parts


def test_a_stopped_run_goes_on(tmp_path: Path, source: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(source, whole)

    def check() -> None:
        if len(part_files(out)) >= 2:
            raise Stop

    with pytest.raises(Stop):
        run(source, out, check, workers=1)
    kept = inodes(out)
    assert kept and not (out / "extraction.json").exists()
    (out / "part-000009.jsonl.zst.tmp").write_bytes(b"half")
    run(source, out)
    assert contents(out) == contents(whole)
    assert kept.items() <= inodes(out).items()
    assert not list(out.glob("*.tmp"))


@pytest.mark.slow
def test_a_killed_run_goes_on_and_leaves_no_process(tmp_path: Path) -> None:
    source, out, whole = tmp_path / "source", tmp_path / "out", tmp_path / "whole"
    pages = dump()
    source.write_bytes(START + b"".join(pages[:40]) + page("Evil", EVIL) + b"".join(pages[40:]) + END)
    code = f"""
import sys
from pathlib import Path
from corpus import extraction
from corpus.extraction import ExtractionSettings, extract
class Bar:
    def update(self, count): pass
if __name__ == "__main__":
    extraction.PART_BYTES = 8_000
    extract(Path({str(source)!r}), Path({str(out)!r}), ExtractionSettings(page_seconds=1.0), lambda: None, Bar())
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, start_new_session=True)
    try:
        wait_for(lambda: len(part_files(out)) >= 2)
    finally:
        process.kill()
        process.wait()
    assert not (out / "extraction.json").exists()
    kept = {name: inode for name, inode in inodes(out).items() if (out / name.replace(".jsonl.zst", ".json")).exists()}
    wait_for(lambda: not alive(process.pid))  # the worker in the evil page too
    run(source, out, page_seconds=1.0)
    run(source, whole, page_seconds=1.0)
    assert contents(out) == contents(whole)
    assert kept.items() <= inodes(out).items()
    assert len(titles(out)) == 60


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# ---------------------------------------------------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [bytes, lzma.compress, lambda data: b"".join(multistream(dump()))])
def test_a_cut_dump_is_an_error_and_the_whole_one_goes_on(
    tmp_path: Path, compress: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, whole = tmp_path / "source", tmp_path / "out", tmp_path / "whole"
    data = compress(START + b"".join(dump()) + END)
    source.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(
        RunFailed, match=rf"{source}: damaged or cut off at byte \d+ of .*behind 'Page \d+'.*--skip-dam"
    ):
        run(source, out)
    kept = inodes(out)
    assert len(kept) >= 2 and not (out / "extraction.json").exists()
    capsys.readouterr()
    source.write_bytes(data)
    result = run(source, out)
    assert "has changed" in capsys.readouterr().err
    assert result["damaged"] == []
    run(source, whole)
    assert contents(out) == contents(whole)
    del kept[max(kept)]  # it ended where the file was cut
    assert kept.items() <= inodes(out).items()


def test_behind_a_damaged_stream_the_dump_goes_on(tmp_path: Path) -> None:
    streams = multistream(dump())
    damaged = bytearray(streams[3])
    damaged[len(damaged) // 2 : len(damaged) // 2 + 8] = bytes(8)
    source = tmp_path / "source"
    source.write_bytes(b"".join(streams[:3]) + damaged + b"".join(streams[4:]))
    with pytest.raises(RunFailed, match="behind 'Page 19'"):
        run(source, tmp_path / "out")
    result = run(source, tmp_path / "out", skip_damaged=True)
    assert titles(tmp_path / "out") == [f"Page {number}" for number in [*range(20), *range(30, 60)]]
    (damage,) = result["damaged"]
    assert damage["after"] == "Page 19" and "bz2" in damage["reason"]
    assert run(source, tmp_path / "out", skip_damaged=True) == result
    with pytest.raises(RunFailed):
        run(source, tmp_path / "out")


def test_a_dump_of_whole_streams_without_its_end_is_read_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"".join(multistream(dump())[:-1]))
    calls = iter(range(200))  # far more than one reading takes
    result = run(source, tmp_path / "out", lambda: next(calls) and None, skip_damaged=True)
    assert titles(tmp_path / "out") == [f"Page {number}" for number in range(60)]
    (damage,) = result["damaged"]
    assert damage["after"] == "Page 59" and "</mediawiki>" in damage["reason"]


def write_half(path: Path, data: bytes) -> Path:
    path.write_bytes(data[: len(data) // 2])
    return path


def test_a_cut_text_without_its_last_documents(tmp_path: Path) -> None:
    text = b"\n<|endoftext|>\n".join(os.urandom(2000).hex().encode() for _ in range(50))
    source = write_half(tmp_path / "source", lzma.compress(text))
    result = run(source, tmp_path / "out", skip_damaged=True)
    found = [document["text"] for document in documents(tmp_path / "out")]
    assert 15 < len(found) < 30 and found == text.decode().split("\n<|endoftext|>\n")[: len(found)]
    assert result["damaged"][0]["byte"] == source.stat().st_size


def test_of_a_text_that_is_cut_off_the_beginning_is_kept(tmp_path: Path) -> None:
    words = b" ".join(os.urandom(8).hex().encode() for _ in range(9_000))
    source = write_half(tmp_path / "source", lzma.compress(words))
    result = run(source, tmp_path / "out", skip_damaged=True)
    (document,) = documents(tmp_path / "out")
    assert words.startswith(document["text"].encode() + b" ") and len(document["text"]) > len(words) // 4
    assert (result["counts"]["cut"], result["counts"]["documents"]) == (1, 1)


def test_a_damaged_part_is_named(tmp_path: Path, source: Path) -> None:
    run(source, tmp_path / "out")
    path = part_files(tmp_path / "out")[1]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunFailed, match=f"{path}: is damaged.*delete it"):
        documents(tmp_path / "out")
    path.unlink()
    run(source, tmp_path / "out")
    assert len(documents(tmp_path / "out")) == 60


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.xml"):
        extract(tmp_path / "none.xml", tmp_path / "out", ExtractionSettings(), lambda: None, Bar())


# ---------------------------------------------------------------------------------------------------------------------
# Trouble with the machine
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def full_disk() -> Iterator[None]:
    """As if the disk were full: neither this process nor its workers may write a file of more than 3,000 bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_clear_error(tmp_path: Path, source: Path) -> None:
    out, text = tmp_path / "out", tmp_path / "text"
    # The first documents fit where the others don't: random letters can't be made much shorter.
    random_letters = "".join(random.Random(0).choices(string.ascii_letters, k=9_000))
    text.write_text("\n<|endoftext|>\n".join(["few words"] * 150 + [random_letters]))
    with full_disk():
        run(source, tmp_path / "small")
        with pytest.raises(RunFailed, match=f"{out}/part-000001.* could not be written.*free some space"):
            run(text, out, workers=1)
    kept = inodes(out)
    assert list(kept) == ["part-000000.jsonl.zst"] and not (out / "extraction.json").exists()
    assert not list(out.glob("*.tmp"))
    run(text, out)
    assert len(documents(out)) == 151
    assert kept.items() <= inodes(out).items()


@pytest.mark.parametrize(
    ("deaths", "page_seconds", "reason"), [(1, 3.0, "took over 3 s"), (2, 60.0, "its worker process died (signal 9)")]
)
def test_a_page_is_to_blame_for_the_second_death_only(
    tmp_path: Path, deaths: int, page_seconds: float, reason: str
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(START + page("First") + page("Evil", EVIL) + page("Last") + END)
    seen: dict[int, float] = {}

    def check() -> None:
        for child in multiprocessing.active_children():
            assert child.pid is not None
            since = seen.setdefault(child.pid, time.monotonic())
            if len(seen) <= deaths and time.monotonic() > since + 2:
                os.kill(child.pid, signal.SIGKILL)

    run(source, out, check, page_seconds=page_seconds, workers=1)
    assert titles(out) == ["First", "Last"]
    assert (out / "skipped.tsv").read_text() == f"Evil\t{reason}\n"
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("call", "ending", "code"),
    [("tasks", signal.SIGTERM, 143), ("tasks", signal.SIGINT, 143), ("one", signal.SIGTERM, 143), ("die", None, 1)],
)
def test_processes_end_at_once_and_as_the_main_one_says(
    tmp_path: Path, call: str, ending: signal.Signals | None, code: int
) -> None:
    """The signal goes to all of them, as Ctrl-C, ``timeout`` and job schedulers send it."""
    script = tmp_path / "script.py"
    script.write_text("""
import os, signal, sys, time
from config import RunFailed
from corpus.parallel import call_in_process, run_tasks
requests = []
def check():
    if requests: sys.exit(143)
def same(argument):
    return argument
def work(call, task=0):
    print("works", flush=True)
    if call == "die" and task == 0: os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, lambda *_: requests.append(1))
    try:
        if sys.argv[1] == "one": call_in_process(work, "one", check)
        else: list(run_tasks(work, range(9), same, sys.argv[1], 2, check))
    except RunFailed as error:
        sys.exit(str(error))
""")
    command = [sys.executable, str(script), call]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "works\n"
        if ending:
            os.killpg(process.pid, ending)
        _, errors = process.communicate(timeout=30)
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code
    assert ("ended from outside" in errors) == (call == "die") and "Traceback" not in errors


def test_what_is_written_can_be_read_by_others(tmp_path: Path, source: Path) -> None:
    result = run(source, tmp_path / "out")
    assert json.loads((tmp_path / "out/extraction.json").read_text()) == result
    assert {"source", "sha256", "format", "compression", "settings", "parts", "counts", "damaged"} <= result.keys()
