"""evaluate_lm.py from the command line: numbers, table, plot, files, and what is wrong with the input."""

from __future__ import annotations

import bz2
import functools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import Result, make_rows

import evaluate_lm
from corpus.shards import ShardWriter
from models.checkpoint import save_prefix
from models.files import PREFIX_FILE
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from models.tokenizer import load_tokenizer
from modules.prefix import FixedPrefix
from storage import file_sha256
from training.cli import run_script
from training.language_models.documents import POSITION_EDGES, Document, encode
from training.language_models.report import ModelScores, Report

KOREAN = "서울은 한국의 수도이다. 인구가 많고, 강이 흐른다."
LONG = " ".join(text for text, _ in make_rows(60, seed=5))  # far beyond the context
TEXTS = [LONG, KOREAN, "a film <|endoftext|> of plain text\nand a second line"]


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str], as_new_process: None, tmp_path: Path) -> Callable[..., Result]:
    """Calls evaluate_lm.py in this process, with an output folder of its own."""

    def start(*argv: object) -> Result:
        capsys.readouterr()
        arguments = [*map(str, argv), "--output-dir", str(tmp_path / "out")]
        code = run_script(functools.partial(evaluate_lm.main, arguments))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return start


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n<|endoftext|>\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def byte_model(tmp_path: Path) -> Path:
    """A model whose vocabulary is the bytes, and whose config names no end token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from config import GPT2Config
    from models.gpt2 import GPT2Model

    folder = tmp_path / "bytes"
    torch.manual_seed(1)
    GPT2Model(GPT2Config(vocab_size=257, n_positions=64, n_embd=16, n_layer=1, n_head=2)).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def corpus(tmp_path: Path, tiny_model: Path) -> Path:
    """A corpus of TEXTS as its validation split, in the tokens of ``tiny_model``."""
    from tokenizers import Tokenizer

    folder = tmp_path / "corpus"
    (folder / "tokens").mkdir(parents=True)
    (folder / "tokenizer").mkdir()
    raw = (tiny_model / "tokenizer.json").read_bytes()
    (folder / "tokenizer" / "tokenizer.json").write_bytes(raw)
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    rows = [[*tokenizer.encode(text).ids, 0] for text in TEXTS]
    writer = ShardWriter(folder / "tokens", "validation", "<u2", 1000)
    writer.add(
        np.concatenate(rows), np.array([len(row) for row in rows]), np.array([len(text.encode()) for text in TEXTS]), 0
    )
    sha256 = file_sha256(folder / "tokenizer" / "tokenizer.json")
    manifest = {
        "schema": 1, "splits": {"validation": writer.close()}, "dtype": "<u2", "end_token_id": 0,
        "vocab_size": tokenizer.get_vocab_size(), "tokenizer": {"sha256": sha256}, "sources": [],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def results(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))


def test_one_document_has_the_loss_of_transformers(
    evaluate: Callable[..., Result], tiny_model: Path, tmp_path: Path
) -> None:
    import transformers

    short = "a good story, and rather the plain music"
    (tmp_path / "short.txt").write_text(short)
    assert evaluate("--model", tiny_model, "--text", tmp_path / "short.txt").code == 0
    (found,) = results(tmp_path)["models"]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tiny_model / "tokenizer.json"))
    reference = transformers.GPT2LMHeadModel.from_pretrained(tiny_model, dtype=torch.float32).eval()
    ids = torch.tensor([[0, *tokenizer.encode(short, add_special_tokens=False)]])
    loss = reference(input_ids=ids, labels=ids).loss.item()
    metrics = found["metrics"]
    assert metrics["loss"] == pytest.approx(loss, abs=1e-4)
    assert metrics["tokens"] == ids.shape[1] - 1
    nats = metrics["loss"] * metrics["tokens"]
    assert metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(short))
    assert metrics["word_perplexity"] == pytest.approx(math.exp(nats / 8), rel=1e-6)


def test_models_side_by_side(
    evaluate: Callable[..., Result], tiny_model: Path, byte_model: Path, text: Path, tmp_path: Path
) -> None:
    done = evaluate("--model", tiny_model, byte_model, "--text", text, "--by-document")
    assert done.code == 0, done.err
    found = results(tmp_path)
    size = sum(len(text.encode()) for text in TEXTS)
    words = sum(len(text.split()) for text in TEXTS)
    assert found["schema"] == 1
    assert found["sources"][0] | {"sha256": ""} == {
        "path": str(text), "sha256": "", "format": "text", "compression": "none", "documents": 3,
    }  # fmt: skip
    for model in found["models"]:
        metrics = model["metrics"]
        assert (metrics["utf8_bytes"], metrics["words"], metrics["documents"]) == (size, words, 3)
        assert model["inexact_documents"] == 0
        places = model["by_position"]
        assert sum(place["utf8_bytes"] for place in places) == size
        bits = sum(place["utf8_bytes"] * place["bits_per_byte"] for place in places)
        assert bits == pytest.approx(metrics["bits_per_byte"] * size)
    tiny, by_bytes = found["models"]
    assert by_bytes["metrics"]["tokens"] == size  # what looks like the end token is ordinary text
    assert tiny["metrics"]["tokens"] < size
    assert (tiny["window"], tiny["stride"], by_bytes["window"], by_bytes["stride"]) == (48, 24, 64, 32)

    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    lines = done.out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("model ") and line.endswith("tokens/s"))
    for line, model in zip(lines[head + 1 : head + 3], found["models"], strict=True):
        assert line.startswith(model["name"])
        assert f"{model['metrics']['bits_per_byte']:.4f}{' *' if model['name'] == found['best'] else ''}" in line

    records = [json.loads(line) for line in (tmp_path / "out" / "by_document.jsonl").read_text().splitlines()]
    assert [record["document"] for record in records] == [f"{text}:{line}" for line in (1, 3, 5)]
    for model in found["models"]:
        nats = sum(record["scores"][model["name"]]["nats"] for record in records)
        assert nats / math.log(2) / size == pytest.approx(model["metrics"]["bits_per_byte"])

    assert evaluate("--model", tiny_model, byte_model, "--text", text).code == 0
    assert not (tmp_path / "out" / "by_document.jsonl").exists()


def test_a_model_is_measured_with_its_prefix(
    evaluate: Callable[..., Result], tiny_model: Path, text: Path, tmp_path: Path
) -> None:
    """A run's model is the plain one that it began with, and keys and values beside it."""
    prefix = FixedPrefix(*torch.randn(2, 2, 2, 3, 16, generator=torch.Generator().manual_seed(0)))
    prefixed = Path(shutil.copytree(tiny_model, tmp_path / "prefixed"))
    save_prefix(prefix, prefixed / PREFIX_FILE)
    short = "a good story, and rather the plain music"
    (tmp_path / "short.txt").write_text(short)
    done = evaluate("--model", tiny_model, prefixed, "--text", tmp_path / "short.txt")
    assert done.code == 0, done.err
    plain, found = results(tmp_path)["models"]
    gpt2 = GPT2Model.from_pretrained(tiny_model)
    gpt2.prefix = prefix
    tokenizer = load_tokenizer(tiny_model, gpt2.config)
    ids = torch.tensor([[0, *tokenizer.encode(short, add_special_tokens=False)]])
    with torch.no_grad():
        loss = float(GPT2LanguageModel(gpt2)(ids[:, :-1], ids[:, 1:])) / (ids.shape[1] - 1)
    assert found["metrics"]["loss"] == pytest.approx(loss, abs=1e-4)
    assert abs(found["metrics"]["loss"] - plain["metrics"]["loss"]) > 1e-3
    assert (plain["window"], found["window"], found["context"]) == (48, 45, 45)
    assert found["model"]["weights_sha256"][0] == plain["model"]["weights_sha256"][0]
    assert found["model"]["weights_sha256"] != plain["model"]["weights_sha256"]

    assert evaluate("--model", tiny_model, prefixed, "--text", text).code == 0  # documents longer than the context
    done = evaluate("--model", prefixed, "--text", text, "--window", 46)
    assert done.errors == [f"error: --window 46: longer than the context of {prefixed}, 45"]


def test_a_corpus_gives_the_numbers_of_its_text(
    evaluate: Callable[..., Result], tiny_model: Path, byte_model: Path, text: Path, corpus: Path, tmp_path: Path
) -> None:
    assert evaluate("--model", tiny_model, byte_model, "--text", text).code == 0
    expected = [model["metrics"] for model in results(tmp_path)["models"]]
    done = evaluate("--model", tiny_model, byte_model, "--corpus", corpus)
    assert done.code == 0, done.err
    found = results(tmp_path)
    assert [model["metrics"] for model in found["models"]] == [pytest.approx(metrics) for metrics in expected]
    assert found["sources"][0]["split"] == "validation"
    empty = evaluate("--model", tiny_model, "--corpus", corpus, "--split", "test")
    assert empty.code == 2 and "its test split holds no document" in empty.err


def test_forms_of_text_make_no_difference(evaluate: Callable[..., Result], tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bz2.compress("\n---\n".join(TEXTS).encode()))
    lines = [json.dumps({"body": text}) for text in TEXTS]
    (tmp_path / "b").write_text("\n".join(lines))
    for i, text in enumerate(TEXTS):
        (tmp_path / f"c{i}").write_text(text, encoding="utf-8")
    found = []
    for flags in (
        ["--text", tmp_path / "a", "--document-separator=---"],
        ["--text", tmp_path / "b", "--text-field", "body"],
        ["--text", *[tmp_path / f"c{i}" for i in range(3)], "--document-separator", ""],
    ):
        done = evaluate("--model", tiny_model, *flags)
        assert done.code == 0, done.err
        found.append(results(tmp_path)["models"][0]["metrics"])
    assert found[0] == pytest.approx(found[1])
    assert found[0] == pytest.approx(found[2])
    assert evaluate("--model", tiny_model, "--text", tmp_path / "b", "--text-field", "body", "--limit-documents", 2,
                    "--window", 16, "--stride", 4, "--batch-tokens", 50).code == 0  # fmt: skip
    (model,) = results(tmp_path)["models"]
    assert (model["metrics"]["documents"], model["window"], model["stride"]) == (2, 16, 4)


def test_documents_that_cannot_be_read_are_counted(
    evaluate: Callable[..., Result], tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mixed.txt"
    path.write_bytes(b"good film\n<|endoftext|>\n\n<|endoftext|>\nfine\nna\xefve\n<|endoftext|>\nthe end")
    done = evaluate("--model", tiny_model, "--text", path)
    assert done.code == 0
    assert "1 documents can't be read" in done.err and f"{path}:6: not UTF-8 (byte 0xef)" in done.err
    found = results(tmp_path)
    assert found["skipped"] == [{"where": f"{path}:6", "reason": "not UTF-8 (byte 0xef)"}]
    assert found["left_out"]["empty"] == 1 and found["models"][0]["metrics"]["documents"] == 2


def test_a_tokenizer_that_loses_text_is_told(
    evaluate: Callable[..., Result], tiny_model: Path, byte_model: Path, text: Path, tmp_path: Path
) -> None:
    raw = json.loads((byte_model / "tokenizer.json").read_text())
    raw["normalizer"] = {"type": "Lowercase"}
    (byte_model / "tokenizer.json").write_text(json.dumps(raw))
    (tmp_path / "capital.txt").write_text("A Film")
    done = evaluate("--model", tiny_model, byte_model, "--text", tmp_path / "capital.txt")
    assert "bytes: its tokens don't give back the text of 1 of 1 documents" in done.out
    assert results(tmp_path)["best"] == tiny_model.name


def test_everything_wrong_is_said_at_once(evaluate: Callable[..., Result], tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "cut.bz2").write_bytes(bz2.compress(LONG.encode())[:-20])
    (tmp_path / "dump").write_text("<mediawiki><page></page></mediawiki>")
    done = evaluate("--model", tiny_model, "/no/such/model", "--window", 50, "--split", "test",
                    "--text", *[tmp_path / name for name in ("empty", "cut.bz2", "dump", "absent")])  # fmt: skip
    assert done.code == 2
    parts = [
        "/no/such/model: no such folder", "--window 50: longer than the context", "--split: goes with --corpus",
        "empty: is empty", "cut.bz2: the file ends in the middle", "dump: is a MediaWiki dump",
        "absent: can't be opened",
    ]  # fmt: skip
    for part in parts:
        assert sum(part in line for line in done.errors) == 1, (part, done.err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--model: missing"),
        (["--model", "mini"], "--text FILE... or --corpus FOLDER: missing"),
        (["--model", "mini", "mini", "--text", "x"], "--model mini: given twice"),
        (["--model", "mini", "--text", "x", "y", "./x"], "--text ./x: given twice"),
        (["--model", "mini", "--text", "x", "--corpus", "y"], "--text and --corpus: give one"),
        (["--model", "mini", "--corpus", "/no/corpus"], "is no finished corpus"),
        (["--model", "mini", "--corpus", "y", "--text-field", "body"], "--text-field: goes with --text"),
        (["--model", "mini", "--corpus", "y", "--document-separator", ""], "--document-separator: goes with --text"),
        (["--model", "mini", "--text", "x", "--window", "8", "--stride", "9"], "--stride 9: beyond the window"),
    ],
)
def test_flags_that_do_not_go_together(evaluate: Callable[..., Result], flags: list[str], message: str) -> None:
    done = evaluate(*flags)
    assert done.code == 2
    assert any(message in line for line in done.errors), done.err


def test_files_beyond_the_limit_are_looked_for_too(
    evaluate: Callable[..., Result], tiny_model: Path, text: Path, tmp_path: Path
) -> None:
    done = evaluate("--model", tiny_model, "--text", text, tmp_path / "absent", "--limit-documents", 1)
    assert done.code == 2 and len(done.errors) == 1 and "absent: can't be opened" in done.errors[0]


def test_no_text_at_all(evaluate: Callable[..., Result], tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "blank").write_text("\n\n<|endoftext|>\n")
    assert "blank: no document with any text" in evaluate("--model", tiny_model, "--text", tmp_path / "blank").err
    (tmp_path / "latin").write_bytes("naïve".encode("latin-1"))
    done = evaluate("--model", tiny_model, "--text", tmp_path / "latin")
    assert done.code == 2 and "not UTF-8" in done.err


def test_a_model_without_end_token_is_named(evaluate: Callable[..., Result], byte_model: Path, text: Path) -> None:
    raw = json.loads((byte_model / "tokenizer.json").read_text())
    raw["added_tokens"] = []
    (byte_model / "tokenizer.json").write_text(json.dumps(raw))
    done = evaluate("--model", byte_model, "--text", text)
    assert done.code == 2 and f"{byte_model}: has no end token" in done.err


def test_dry_run_writes_nothing(evaluate: Callable[..., Result], tiny_model: Path, text: Path, tmp_path: Path) -> None:
    done = evaluate("--model", tiny_model, "--text", text, "--dry-run")
    assert done.code == 0 and "3 documents" in done.out and not (tmp_path / "out").exists()


def test_interrupted_while_measuring(
    evaluate: Callable[..., Result], tiny_model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    from training.language_models import language_modeling

    original = language_modeling.losses_of

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(language_modeling, "losses_of", interrupted)
    assert evaluate("--model", tiny_model, "--text", text).code == 130
    assert not (tmp_path / "out").exists()


def test_names_tell_models_apart(tmp_path: Path) -> None:
    for name in ("a/best", "b/best", "c/mini"):
        (tmp_path / name).mkdir(parents=True)
    requested = [str(tmp_path / "a/best"), str(tmp_path / "b/best"), "mini", str(tmp_path / "c/mini"), "skt/kogpt2"]
    assert evaluate_lm.model_names(requested) == ["a", "b", "mini", str(tmp_path / "c/mini"), "kogpt2"]


def test_positions_are_bytes_of_the_text(tiny_model: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    text = KOREAN + " plain film. " + KOREAN * 200
    document = Document("", text, 0, len(text.encode()))
    ids, cuts, is_exact = encode(document, tokenizer, use_ids=False)
    assert is_exact
    for edge, cut in zip(POSITION_EDGES, cuts.tolist(), strict=True):
        before = len(tokenizer.decode(ids[:cut].tolist()).encode())
        assert edge <= before <= edge + 12, edge  # at the edge, or at the next character or word


def test_intervals_are_paired() -> None:
    documents = [Document(str(i), "x", 1, 100) for i in range(40)]
    random = np.random.default_rng(0)
    hard = random.uniform(50, 150, 40)  # documents differ far more than the models do
    models = []
    for name, more in (("worse", 3.0), ("best", 0.0)):
        model = ModelScores({"name": name})
        for nats in hard + more + random.uniform(-0.5, 0.5, 40):
            model.add(np.array([nats]), np.array([True]), np.array([0] + [1] * (len(POSITION_EDGES) - 1)))
        models.append(model)
    report = Report("", documents, models)
    intervals = report.intervals()
    assert report.best.name == "best"
    low, high = intervals["worse"]["more_than_best"]
    expected = 3 / math.log(2) / 100
    assert 0.9 * expected < low < high < 1.1 * expected
    assert intervals["best"]["more_than_best"] == [0.0, 0.0]
    low, high = intervals["worse"]["bits_per_byte"]
    assert high - low > 3 * expected
    assert Report("", documents[:5], models).intervals() == {}
