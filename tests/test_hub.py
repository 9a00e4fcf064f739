"""Finding a model: folders, bundled checkpoints, and a local server that imitates the HuggingFace Hub and its failures.

The Hub's client reads its settings when it is imported, so it runs in processes of its own, with an empty HOME.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from config import BUNDLED_CHECKPOINTS, UserError
from models import sources
from models.checkpoint import read_config, save_prefix
from models.files import PREFIX_FILE
from models.gpt2 import GPT2Model
from models.sources import find_checkpoint, find_default_checkpoint
from models.tokenizer import load_tokenizer
from modules.prefix import FixedPrefix

ROOT = Path(__file__).resolve().parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ASK = """
import json, sys, time
from pathlib import Path
from config import UserError
from models import sources

names, sources.SECONDS_TO_REACH_HUB, bundled = json.loads(sys.argv[1])
sources.BUNDLED_CHECKPOINTS = Path(bundled)
for name in names:
    start = time.monotonic()
    try:
        found = sources.find_model(name)
        answer = {"name": found.name, "folder": str(found.folder), "origin": found.origin, "note": found.note}
        answer["requested"] = found.requested
    except UserError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer | {"seconds": time.monotonic() - start}), flush=True)
"""


@dataclass
class Hub:
    """Serves ``repositories`` as the Hub does; sends no file in ``cut`` beyond its middle."""

    url: str = ""
    repositories: dict[str, Path] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            repository, _, file = self.path.lstrip("/").partition("/resolve/main/")
            state.requests.append(f"{self.command} {file}")
            if repository not in state.repositories:
                return self.missing("RepoNotFound")
            path = state.repositories[repository] / file
            if not path.is_file():
                return self.missing("EntryNotFound")
            content = path.read_bytes()
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if with_body:
                is_cut = file in state.cut
                self.wfile.write(content[start : len(content) // 2 if is_cut else None])
                self.close_connection = is_cut
            return None

        def missing(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def handle(self) -> None:
            with suppress(OSError):  # the client has gone
                super().handle()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def silence() -> Iterator[str]:
    """An address that accepts connections and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def model_folder(tiny_folder: Path) -> Path:
    """A tiny GPT-2 with a tokenizer whose ids fit."""
    return add_tokenizer(tiny_folder)


def add_tokenizer(folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {f"word{i}": i for i in range(60)} | {"<|endoftext|>": 60}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def bundled(tmp_path: Path, tiny_folder: Path) -> Path:
    """A folder of bundled checkpoints with a tiny ``mini`` in it."""
    shutil.copytree(tiny_folder, tmp_path / "bundled" / "mini")
    return tmp_path / "bundled"


@pytest.fixture
def ask(tmp_path: Path, bundled: Path) -> Callable[..., list[dict[str, Any]]]:
    """Looks for models (None: the default) in a process of its own, whose cache lasts as long as the test."""

    def run(url: str, *names: str | None, seconds: float = 10.0, bundled: Path = bundled) -> list[dict[str, Any]]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_"))}
        home = {"HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "home" / "hf"), "HF_ENDPOINT": url}
        command = [sys.executable, "-c", ASK, json.dumps([names, seconds, str(bundled)])]
        done = subprocess.run(command, cwd=ROOT, env=kept | home, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


# ---------------------------------------------------------------------------------------------------------------------
# The Hub
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "someone/tiny"])
def test_a_download_and_then_the_cache(name, hub, ask, model_folder, nobody):
    hub.repositories[name] = model_folder
    (found,) = ask(hub.url, name)
    assert (found["name"], found["origin"], found["requested"]) == (name.split("/")[-1], "hub", name)
    assert found["note"] == ""
    folder = Path(found["folder"])
    assert torch.equal(GPT2Model.from_pretrained(folder).wte.weight, GPT2Model.from_pretrained(model_folder).wte.weight)
    assert load_tokenizer(folder, read_config(folder))("word3 word7")["input_ids"] == [3, 7]

    (again,) = ask(nobody, name)
    assert (again["origin"], again["folder"]) == ("cache", found["folder"])


def test_a_prefix_comes_with_its_model(hub, ask, model_folder):
    save_prefix(FixedPrefix(*torch.randn(2, 2, 3, 5, 8)), model_folder / PREFIX_FILE)
    hub.repositories["someone/prefixed"] = model_folder
    (found,) = ask(hub.url, "someone/prefixed")
    loaded, own = (GPT2Model.from_pretrained(folder).prefix for folder in (found["folder"], model_folder))
    assert torch.equal(loaded.keys, own.keys)


def test_shards_pickles_and_the_old_tokenizer_files(hub, ask, model_folder, tmp_path, make_reference, shared):
    sharded = tmp_path / "sharded"
    make_reference().save_pretrained(sharded, max_shard_size="20KB")
    add_tokenizer(sharded)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(shared / "gpt2" / name, pickled)
    for name in ("added_tokens.json", "special_tokens_map.json"):  # of a tokenizer that was given tokens later
        (pickled / name).write_text("{}")
    shutil.copy(model_folder / "config.json", pickled)
    torch.save(make_reference().state_dict(), pickled / "pytorch_model.bin")
    hub.repositories |= {"a/sharded": sharded, "a/pickled": pickled}
    for answer in ask(hub.url, "a/sharded", "a/pickled"):
        ours = GPT2Model.from_pretrained(answer["folder"])
        assert torch.equal(ours.wte.weight, GPT2Model.from_pretrained(model_folder).wte.weight)
    names = {"merges.txt", "added_tokens.json", "special_tokens_map.json"}
    assert names <= {path.name for path in Path(answer["folder"]).iterdir()}


def test_what_the_hub_does_not_have(hub, ask, model_folder, tmp_path, make_reference):
    for name, missing in (
        ("a/config", "config.json"),
        ("a/words", "tokenizer.json"),
        ("a/weights", "model.safetensors"),
    ):
        hub.repositories[name] = tmp_path / name
        shutil.copytree(model_folder, tmp_path / name)
        (tmp_path / name / missing).unlink()
    hub.repositories["a/shard"] = tmp_path / "a/shard"
    make_reference().save_pretrained(tmp_path / "a/shard", max_shard_size="20KB")
    add_tokenizer(tmp_path / "a/shard")
    (last := sorted((tmp_path / "a/shard").glob("*.safetensors"))[-1]).unlink()
    names = ("a/nowhere", "a/config", "a/words", "a/weights", "a/shard")
    nowhere, config, words, weights, shard = ask(hub.url, *names)
    assert shard["error"] == f"a/shard: the model on the Hub is not whole: {last.name} is missing"
    assert nowhere["error"] == "a/nowhere: the HuggingFace Hub has no such model, or it is private; check the name"
    assert "a/config: the model on the Hub has no config.json" in config["error"]
    assert "a/words: the model on the Hub has no tokenizer (vocab.json is missing)" in words["error"]
    assert "a/weights: the model on the Hub has no weights" in weights["error"]


@pytest.mark.slow
def test_a_cut_download_does_not_count_and_the_next_one_works(hub, ask, model_folder):
    hub.repositories["gpt2"] = model_folder
    hub.cut.add("model.safetensors")
    (broken,) = ask(hub.url, "gpt2")
    assert broken["error"].startswith("gpt2: the download of model.safetensors ")
    assert broken["error"].endswith("run the command again")

    hub.cut.clear()
    (found,) = ask(hub.url, None)
    assert (found["name"], found["origin"]) == ("gpt2", "hub")
    content = (Path(found["folder"]) / "model.safetensors").read_bytes()
    assert content == (model_folder / "model.safetensors").read_bytes()


def test_a_server_that_never_answers(ask, silence):
    start = time.monotonic()
    named, default = ask(silence, "gpt2", None, seconds=1.5)
    assert time.monotonic() - start < 30  # the process ends too
    assert "gpt2: the HuggingFace Hub did not answer within 2 seconds" in named["error"]
    assert "pass its folder with --model" in named["error"]
    assert max(named["seconds"], default["seconds"]) < 6  # the import of the client included
    assert (default["name"], default["origin"], default["requested"]) == ("mini", "bundled", None)
    assert "gpt2 (124M) could not be had, so this run uses the bundled model mini" in default["note"]
    assert "did not answer" in default["note"]


def test_no_server_at_all(ask, nobody, tmp_path):
    named, other, default = ask(nobody, "gpt2", "skt/kogpt2-base-v2", None)
    for name, answer in (("gpt2", named), ("skt/kogpt2-base-v2", other)):
        assert answer["error"].startswith(f"{name}: not in the local cache, and the HuggingFace Hub can't be reached; ")
    assert (default["name"], default["origin"]) == ("mini", "bundled")
    assert all(answer["seconds"] < 8 for answer in (named, other, default))  # no need to wait for the limit
    (nothing,) = ask(nobody, None, bundled=tmp_path / "nothing here")
    assert nothing["error"].startswith("neither gpt2 nor the bundled model can be had (gpt2: not in the local cache")


def test_a_default_that_can_be_had_is_not_replaced(hub, ask, model_folder):
    hub.repositories["gpt2"] = model_folder
    (found,) = ask(hub.url, None)
    assert (found["name"], found["origin"], found["note"]) == ("gpt2", "hub", "")


@pytest.mark.parametrize("whole", [True, False])
def test_a_folder_of_the_defaults_name_is_not_the_default(whole, bundled, tiny_folder, tmp_path, monkeypatch):
    """It is what ``--model gpt2`` names."""
    monkeypatch.setattr(sources, "BUNDLED_CHECKPOINTS", bundled)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if whole:
        shutil.copytree(tiny_folder, "gpt2")
    else:
        Path("gpt2").mkdir()
    found = find_default_checkpoint()
    assert (found.name, found.origin) == ("mini", "bundled") and found.note.startswith("gpt2 (124M) could not be had")
    assert find_checkpoint("gpt2").origin == "folder"


def test_the_default_limit():
    assert sources.SECONDS_TO_REACH_HUB <= 10


# ---------------------------------------------------------------------------------------------------------------------
# Without the Hub (conftest.py keeps this process offline, without a cache)
# ---------------------------------------------------------------------------------------------------------------------


def test_folders(tiny_folder, monkeypatch):
    found = find_checkpoint(str(tiny_folder))
    assert (found.name, found.folder, found.origin) == ("tiny", tiny_folder, "folder")
    monkeypatch.chdir(tiny_folder.parent)
    assert find_checkpoint("tiny").folder == tiny_folder
    assert find_checkpoint("./tiny/").folder == tiny_folder
    monkeypatch.setenv("HOME", str(tiny_folder.parent))
    assert find_checkpoint("~/tiny").folder == tiny_folder


def test_the_model_of_a_run_is_called_after_the_run(tiny_folder, tmp_path):
    run = tmp_path / "pretrain-wiki"
    shutil.copytree(tiny_folder, run / "best")
    (run / "config.json").write_text('{"task": "pretrain"}')
    for named in (run, run / "best"):
        found = find_checkpoint(str(named))
        assert (found.name, found.folder) == ("pretrain-wiki", run / "best")


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "../nowhere", "~/nowhere", "a/b/c", "~nobody/x"])
def test_folders_that_are_not_there_are_not_looked_up(name, monkeypatch):
    monkeypatch.setattr(sources, "_from_hub", lambda name: pytest.fail("asked the Hub"))
    with pytest.raises(UserError, match="no such folder|give the folder's full path"):
        find_checkpoint(name)


@pytest.mark.parametrize("name", ["", "a b", "gpt2?", "-gpt2", "x" * 100], ids=repr)
def test_names_that_cannot_be(name):
    with pytest.raises(UserError, match="neither a folder nor a valid Hub id"):
        find_checkpoint(name)


def test_bundled_checkpoints_are_names(bundled, monkeypatch):
    monkeypatch.setattr(sources, "BUNDLED_CHECKPOINTS", bundled)
    found = find_checkpoint("mini")
    assert (found.name, found.folder, found.origin, found.requested) == ("mini", bundled / "mini", "bundled", "mini")
    assert GPT2Model.from_pretrained("mini").config.n_embd == 24


def test_only_the_default_is_replaced(bundled, monkeypatch):
    monkeypatch.setattr(sources, "BUNDLED_CHECKPOINTS", bundled)
    assert find_default_checkpoint().name == "mini"
    for name in ("gpt2", "gpt2-medium", "no/such"):
        with pytest.raises(UserError, match=f"^{name}: not in the local cache"):
            find_checkpoint(name)
    with pytest.raises(UserError, match=r"^gpt2: not in the local cache"):
        GPT2Model.from_pretrained()


@pytest.mark.skipif(not BUNDLED_CHECKPOINTS.is_dir(), reason="no bundled checkpoints in this copy")
def test_every_bundled_checkpoint_is_whole():
    for folder in BUNDLED_CHECKPOINTS.iterdir():
        config = read_config(folder)
        tokenizer = load_tokenizer(folder, config)
        ids = torch.tensor([tokenizer("A film.")["input_ids"]])
        assert torch.isfinite(GPT2Model.from_pretrained(folder.name)(ids)["last_hidden_state"]).all()
