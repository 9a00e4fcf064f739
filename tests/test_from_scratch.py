"""A GPT-2 from scratch as a user makes one: dump or text -> corpus -> vocabulary -> model -> evaluation -> curves."""

from __future__ import annotations

import bz2
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import build_corpus
import evaluate_lm
import pretrain
from training.cli import run_script

SHAPE = [
    "--layers", "2", "--heads", "2", "--dims", "32", "--context", "64", "--batch-tokens", "256", "--eval-every", "10",
    "--eval-tokens", "300", "--precision", "fp32", "--lr", "1e-2", "--sample-tokens", "8",
]  # fmt: skip
TASK_TOKENS = ["<summarize>", "<question>", "<answer>", "<classify>", "<nli>"]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], as_new_process: None) -> Callable[..., str]:
    """Runs a script in this process; returns what it printed."""

    def start(script: Any, *argv: object) -> str:
        code = run_script(lambda: script.main([str(argument) for argument in argv]))
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return start


def article(draw: random.Random, number: int) -> str:
    """Wikitext in which each colour is followed by its own fruit."""
    fruits = {"red": "cherry", "green": "apple", "yellow": "lemon", "blue": "plum"}
    pairs = [f"{colour} [[{fruit}]]" for colour, fruit in (draw.choice(list(fruits.items())) for _ in range(120))]
    return (
        f"{{{{Infobox|n={number}}}}}'''Page {number}'''<ref>A book.</ref> is {' and '.join(pairs)}.\n"
        f"[[File:Some.jpg|thumb|A caption]]\n== See also ==\n[[Category:Fruit]]"
    )


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multistream dump of 80 articles and a redirect."""
    draw = random.Random(0)
    texts = [article(draw, number) for number in range(80)] + ["#REDIRECT [[Page 1]]"]
    pages = [
        f"<page><title>Page {i}</title><ns>0</ns><revision><text>{text.replace('<', '&lt;')}</text></revision></page>"
        for i, text in enumerate(texts)
    ]
    streams = ["<mediawiki>\n", *("\n".join(pages[i : i + 20]) for i in range(0, len(pages), 20)), "</mediawiki>\n"]
    path = tmp_path_factory.mktemp("dump") / "wiki"
    path.write_bytes(b"".join(bz2.compress(stream.encode()) for stream in streams))
    return path


@pytest.mark.slow
def test_from_a_dump_to_an_evaluated_model(dump: Path, call: Callable[..., str], tmp_path: Path) -> None:
    corpus = tmp_path / "corpora" / "fruit"
    shares = ["--validation-share", 0.1, "--test-share", 0.1]
    built = call(build_corpus, "--input", dump, "--output-dir", corpus, "--vocab-size", 300, "--workers", 1, *shares)
    assert "redirect" in built and f"python pretrain.py --corpus {corpus}" in built
    trained = call(pretrain, "--corpus", corpus, *SHAPE, "--max-tokens", 60 * 256, "--output-dir", tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    assert f"results: {run}" in trained
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    losses = [entry["dev"]["loss"] for entry in json.loads((run / "metrics.json").read_text())["history"]]
    assert losses == sorted(losses, reverse=True)

    out = tmp_path / "measured"
    table = call(
        evaluate_lm, "--model", run / "best", "mini", "--corpus", corpus, "--split", "test", "--output-dir", out
    )
    assert "bits/byte" in table
    own, other = json.loads((out / "results.json").read_text())["models"]
    assert own["metrics"]["utf8_bytes"] == other["metrics"]["utf8_bytes"] > 0
    # A model that has seen nothing but these pages knows them better than one that has read everything else.
    assert own["metrics"]["bits_per_byte"] < other["metrics"]["bits_per_byte"]


@pytest.mark.slow
def test_korean_with_a_vocabulary_of_52000(call: Callable[..., str], tmp_path: Path) -> None:
    """KoGPT-2's size of vocabulary and special tokens, from text to a folder that transformers loads."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    draw = random.Random(0)
    syllables = [chr(code) for code in range(0xAC00, 0xD7A4, 5)]
    words = ["".join(draw.choices(syllables, k=draw.choice((2, 2, 3, 3, 4)))) for _ in range(60_000)]
    texts = [" ".join(draw.choices(words, k=200)) + "." for _ in range(2000)]
    source = tmp_path / "korean.txt"
    source.write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    corpus = tmp_path / "ko"
    vocabulary = ["--vocab-type", "bpe", "--vocab-size", 52_000, "--special-tokens", *TASK_TOKENS]
    call(build_corpus, "--input", source, "--output-dir", corpus, *vocabulary)
    manifest = json.loads((corpus / "manifest.json").read_text())
    assert manifest["vocab_size"] == 52_000 and manifest["dtype"] == "<u2"

    call(pretrain, "--corpus", corpus, *SHAPE, "--max-tokens", 512, "--output-dir", tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    tokenizer = AutoTokenizer.from_pretrained(run / "best")
    model = AutoModelForCausalLM.from_pretrained(run / "best", dtype=torch.float32)
    assert model.config.vocab_size == len(tokenizer) == 52_000
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")
    assert tokenizer.convert_ids_to_tokens(model.config.eos_token_id) == "</s>"
    assert all(len(tokenizer.encode(token, add_special_tokens=False)) == 1 for token in TASK_TOKENS)
    ids = tokenizer(texts[0], return_tensors="pt", add_special_tokens=False).input_ids
    assert tokenizer.decode(ids[0]) == texts[0]
    assert model(ids[:, :64]).logits.isfinite().all()
