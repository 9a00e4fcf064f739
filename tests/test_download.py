"""Where the data comes from: the order of the sources, and the download against a local server that misbehaves."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import datasets
import downloads
from config import UserError
from datasets import PARAPHRASE_TASKS, SENTIMENT_TASKS, DataSource
from downloads import DownloadError, Timeouts, download_files, git_blob_hash

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT.parent / "shared" / "data" / "cs224n"
IMPATIENT = Timeouts(answer=0.5, stall=0.5, total=1.0)
CONTENTS = {
    "ids-sst-train.csv": b"\tid\tsentence\tsentiment\n0\ta\tgood\t3\n" * 3000,  # more than one read
    "ids-sst-dev.csv": b"\tid\tsentence\tsentiment\n0\tb\tbad\t1\n",
    "ids-sst-test-student.csv": b"0\t\tid\tsentence\n1\t0.0\tc\tfine\n",
}
TRAIN, DEV, TEST = CONTENTS
GIT_BLOBS = {split: git_blob_hash(CONTENTS[name]) for split, name in SENTIMENT_TASKS["sst"].files.items()}
SST = replace(SENTIMENT_TASKS["sst"], git_blobs=GIT_BLOBS)
Behaviour = Callable[[BaseHTTPRequestHandler, bytes], None]


@dataclass
class Server:
    """Serves ``contents``; ``behaviours`` replaces what happens for single files."""

    url: str
    contents: dict[str, bytes]
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            state.requests.append(name)
            try:
                state.behaviours.get(name, serve)(self, state.contents[name])
            except OSError:
                pass  # the client has gone, as it should

        def log_message(self, *args: object) -> None:
            pass

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http_server.daemon_threads = True
    state = Server(f"http://127.0.0.1:{http_server.server_port}/data", dict(CONTENTS))
    thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("CS224N_DATA_URL", state.url)
    monkeypatch.setenv("no_proxy", "*")
    yield state
    http_server.shutdown()
    http_server.server_close()


@pytest.fixture
def root(tmp_path) -> Path:
    sample = tmp_path / "data" / "sample"
    sample.mkdir(parents=True)
    for name in CONTENTS:
        (sample / name).write_text("sample")
    return tmp_path


def serve(handler: BaseHTTPRequestHandler, content: bytes, length: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(length or len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def find(root: Path, data_dir: Path | None = None, task=SST, **options) -> DataSource:
    options.setdefault("say", lambda line: None)
    return datasets.find_task_data(task, data_dir, root=root, **options)


# ---------------------------------------------------------------------------------------------------------------------
# A server that works
# ---------------------------------------------------------------------------------------------------------------------


def test_download_fetches_all_files_once(root, server):
    said = []
    source = find(root, say=said.append)
    assert source == DataSource("download", {s: root / "data" / name for s, name in SST.files.items()})
    assert files_in(root / "data") == CONTENTS
    assert any(SST.licence in line for line in said) and any(server.url in line for line in said)
    n_requests = len(server.requests)
    assert find(root).origin == "local" and len(server.requests) == n_requests


def test_licence_is_shown_before_the_first_request(root, server):
    requests_when_said = []
    find(root, say=lambda line: requests_when_said.append(len(server.requests)))
    assert requests_when_said == [0, 0]


def test_question_pairs_come_with_their_terms(root, server):
    names = dict(zip(CONTENTS, PARAPHRASE_TASKS["qqp"].files.values(), strict=True))
    server.contents = {names[name]: content for name, content in CONTENTS.items()}
    said = []
    source = find(root, task=replace(PARAPHRASE_TASKS["qqp"], git_blobs=GIT_BLOBS), say=said.append)
    assert source == DataSource("download", {s: root / "data" / PARAPHRASE_TASKS["qqp"].files[s] for s in GIT_BLOBS})
    assert "Quora's terms: non-commercial research" in said[1]


def test_no_file_has_its_name_before_all_are_verified(root, server):
    seen = []

    def look_then_serve(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        seen.append(files_in(root / "data"))
        serve(handler, content)

    server.behaviours[TEST] = look_then_serve
    assert find(root).origin == "download" and seen == [{}]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_bar_shows_on_a_terminal_only(root, server, monkeypatch, terminal):
    stderr = io.StringIO()
    stderr.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stderr)
    find(root)
    assert (TRAIN in stderr.getvalue()) == terminal


def test_a_folder_can_be_the_mirror(root, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name, content in CONTENTS.items():
        (mirror / name).write_bytes(content)
    monkeypatch.setenv("CS224N_DATA_URL", mirror.as_uri() + "/")
    assert find(root).origin == "download" and files_in(root / "data") == CONTENTS


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published data files are not at ../shared/data")
@pytest.mark.parametrize("name", ["sst", "cfimdb"])
def test_published_files_have_the_pinned_hashes(root, server, name):
    task = SENTIMENT_TASKS[name]
    server.contents = {file: (PUBLISHED / file).read_bytes() for file in task.files.values()}
    source = find(root, task=task)
    assert source.origin == "download"
    assert files_in(root / "data") == server.contents


def test_git_blob_hash_is_gits():
    assert git_blob_hash(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_blob_hash(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


# ---------------------------------------------------------------------------------------------------------------------
# A server that does not
# ---------------------------------------------------------------------------------------------------------------------


def cut(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    serve(handler, content[: len(content) // 2], length=len(content))


def cut_chunked(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"10\r\n" + content[:8])


def refuse(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_error(404)


def falsify(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    serve(handler, content.replace(b"\n", b"\r\n"))


def hang_up(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def never_answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    time.sleep(3)


def stall(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    serve(handler, content[:10], length=len(content))
    handler.wfile.flush()
    time.sleep(3)


def trickle(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(60):
        handler.wfile.write(b"x")
        time.sleep(0.05)


def trickle_headers(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    for _ in range(60):
        handler.wfile.write(b"H")
        time.sleep(0.05)


FAILURES = {
    cut: "the connection was cut after",
    cut_chunked: "IncompleteRead",
    refuse: "Not Found",
    falsify: "is not the published file: expected git blob hash",
    hang_up: "without response",
}
DELAYS = {
    never_answer: "timed out|no answer",
    stall: "timed out",
    trickle: "too slow",
    trickle_headers: "no answer",
}


@pytest.mark.parametrize("behaviour", FAILURES, ids=lambda behaviour: behaviour.__name__)
@pytest.mark.parametrize("name", [TRAIN, TEST])
def test_a_failed_download_leaves_nothing_and_the_sample_is_used(root, server, behaviour, name):
    server.behaviours[name] = behaviour
    check_that_the_sample_is_used(root, find(root), f"{server.url}/{name}", FAILURES[behaviour])


@pytest.mark.parametrize("behaviour", DELAYS, ids=lambda behaviour: behaviour.__name__)
def test_a_server_that_lets_us_wait_is_given_up(root, server, behaviour):
    server.behaviours[TRAIN] = behaviour
    started = time.monotonic()
    source = find(root, timeouts=IMPATIENT)
    assert time.monotonic() - started < 2.5
    check_that_the_sample_is_used(root, source, f"{server.url}/{TRAIN}", DELAYS[behaviour])


def check_that_the_sample_is_used(root: Path, source: DataSource, url: str, reasons: str) -> None:
    assert files_in(root / "data") == {}
    assert source.origin == "sample"
    assert set(source.paths.values()) == {root / "data" / "sample" / file for file in CONTENTS}
    why, remedy = source.notes
    assert "stands in for the real sst data" in why and url in why
    assert re.search(reasons, why), why
    assert "--data-dir" in remedy and SST.homepage in remedy


def test_a_wrong_hash_is_told_with_both_hashes(root, server):
    server.contents[DEV] = b"something else"
    note = find(root).notes[0]
    assert SST.git_blobs["dev"] in note and git_blob_hash(b"something else") in note


def test_a_file_without_end_is_given_up(root, server, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_DOWNLOAD_BYTES", 1000)
    assert "far larger" in find(root).notes[0]


def test_the_largest_published_file_is_not_far_larger(shared):
    sample = (shared / "data" / "qqp" / "quora-train.csv").read_bytes()
    bytes_per_row = len(sample) / sample.count(b"\n")
    assert 2 * bytes_per_row * 283_003 < downloads.MAX_DOWNLOAD_BYTES


def test_no_server_at_all(root, server, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("CS224N_DATA_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert "Connection refused" in find(root).notes[0]


def test_a_name_look_up_that_hangs_is_bounded(root, server, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: time.sleep(3))
    started = time.monotonic()
    assert "no answer" in find(root, timeouts=IMPATIENT).notes[0]
    assert time.monotonic() - started < 2.5


def test_an_address_that_is_none(root, server, monkeypatch):
    monkeypatch.setenv("CS224N_DATA_URL", "no-address")
    assert "unknown url type" in find(root).notes[0]


def test_two_datasets_from_an_unreachable_server_are_given_up_within_ten_seconds():
    assert 2 * Timeouts().answer <= 10


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing(root, server, monkeypatch, function):
    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if function == "fsync" else (Path, "replace")), fail)
    source = find(root)
    assert source.origin == "sample" and "No space left on device" in source.notes[0]
    assert files_in(root / "data") == {}


def test_a_folder_that_cannot_be_made(tmp_path, server):
    (tmp_path / "data").write_text("a file in the folder's place")
    with pytest.raises(DownloadError, match="cannot be made"):
        download_files(server.url, {DEV: GIT_BLOBS["dev"]}, tmp_path / "data", Timeouts())


def test_two_processes_download_at_once(root, server):
    both = threading.Barrier(2, timeout=20)

    def serve_both_at_once(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        both.wait()
        serve(handler, content)

    server.behaviours[TEST] = serve_both_at_once
    code = f"""if True:
        from dataclasses import replace
        from pathlib import Path
        from datasets import SENTIMENT_TASKS, find_task_data
        from downloads import Timeouts
        task = replace(SENTIMENT_TASKS["sst"], git_blobs={GIT_BLOBS!r})
        root = Path({str(root)!r})
        print(find_task_data(task, None, root=root, timeouts=Timeouts(20, 20, 20), say=lambda line: None).origin)
    """
    command = [sys.executable, "-c", code]
    runs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate(timeout=30)[0].strip() for run in runs] == ["download", "download"]
    assert files_in(root / "data") == CONTENTS


# ---------------------------------------------------------------------------------------------------------------------
# The order of the sources
# ---------------------------------------------------------------------------------------------------------------------


def put(folder: Path, *names: str, content: bytes | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(CONTENTS[name] if content is None else content)
    return folder


def test_data_dir_comes_before_everything(root, server):
    put(root / "data", *CONTENTS)
    folder = put(root / "mine", *CONTENTS)
    assert find(root, folder) == DataSource("data-dir", {s: folder / name for s, name in SST.files.items()})


def test_data_dir_is_never_replaced(root, server):
    folder = put(root / "mine", TEST)
    with pytest.raises(UserError) as caught:
        find(root, folder)
    assert [p.split(": ")[0] for p in caught.value.problems] == [str(folder / TRAIN), str(folder / DEV)]
    assert all("; put it there" in problem for problem in caught.value.problems)
    with pytest.raises(UserError, match="no such folder; --data-dir"):
        find(root, root / "nowhere")
    assert not server.requests


def test_a_missing_test_file_is_said(root, server):
    folder = put(root / "mine", TRAIN, DEV)
    source = find(root, folder)
    assert set(source.paths) == {"train", "dev"}
    assert source.notes == (f"{folder / TEST} is missing: there will be no test results.",)


def test_local_files_come_before_the_download(root, server):
    put(root / "data", TRAIN, DEV, content=b"my own")
    assert find(root).origin == "local" and not server.requests


@pytest.mark.parametrize("name", [TRAIN, DEV, TEST])
def test_sources_are_not_mixed(root, server, name):
    put(root / "data", name, content=b"my own")
    with pytest.raises(UserError) as caught:
        find(root)
    missing = [file for file in (TRAIN, DEV) if file != name]
    assert [p.split(": ")[0] for p in caught.value.problems] == [str(root / "data" / file) for file in missing]
    assert all(name in problem and "never mixed" in problem for problem in caught.value.problems)
    assert files_in(root / "data") == {name: b"my own"} and not server.requests


def test_an_interrupted_set_of_published_files_is_completed(root, server):
    put(root / "data", DEV)
    assert find(root).origin == "download" and files_in(root / "data") == CONTENTS


def test_no_download_on_request(root, server):
    source = find(root, allow_download=False)
    assert source.origin == "sample" and "no download was tried" in source.notes[0] and not server.requests


def test_the_sample_is_the_sample_by_whatever_name(root, server):
    source = find(root, root / "data" / "sample")
    assert source.origin == "sample" and "--data-dir asks for it" in source.notes[0] and not server.requests


def test_no_source_at_all(tmp_path, server):
    with pytest.raises(UserError, match="no download was tried, and the bundled sample lacks .*; put its files"):
        find(tmp_path, allow_download=False)


def test_nsmc_is_not_downloaded_but_pointed_to(root, server):
    nsmc = SENTIMENT_TASKS["nsmc"]
    with pytest.raises(UserError, match="https://github.com/e9t/nsmc"):
        find(root, task=nsmc)
    assert not server.requests
    for name in nsmc.files.values():
        (root / "data" / name).write_text("id\tdocument\tlabel\n")
    source = find(root, task=nsmc)
    assert source.origin == "local" and source.paths["dev"].name == "ratings_test.txt"
    assert source.notes == (nsmc.note,)
