"""build_corpus.py from its flags to the finished folder."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import build_corpus
from corpus.shards import open_corpus
from training.cli import run_script
from training.interrupt import Interrupted, Signals

ROOT = Path(__file__).resolve().parents[1]
SIZE = "450"
Run = Callable[..., tuple[int, str, str]]


def make_texts(count: int, seed: int, words: int = 30) -> list[str]:
    draw = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    vocabulary = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(300)]
    return [f"{seed}-{number}: " + " ".join(draw.choices(vocabulary, k=words)) + "." for number in range(count)]


def write_text(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(f"{text}\n<|endoftext|>\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four sources: plain, gzipped, JSON lines in bz2, and one with documents that the first has too."""
    folder = tmp_path_factory.mktemp("sources")
    first = write_text(folder / "first.txt", make_texts(150, seed=1))
    second = write_text(folder / "second.txt", make_texts(120, seed=2))
    second.write_bytes(gzip.compress(second.read_bytes()))
    lines = "".join(json.dumps({"text": text, "title": f"T {text[:4]}"}) + "\n" for text in make_texts(100, seed=3))
    third = folder / "third"
    third.write_bytes(bz2.compress(lines.encode()))
    fourth = write_text(folder / "fourth.txt", make_texts(20, seed=1) + make_texts(30, seed=4))
    return [first, second, third, fourth]


@pytest.fixture
def build(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Calls the script in this process: flags -> exit code, output, errors."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def start(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_script(lambda: build_corpus.main([str(argument) for argument in argv]))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield start
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def finished(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus that was built in one go with two processes."""
    folder = tmp_path_factory.mktemp("finished") / "corpus"
    result = in_new_process(*flags(sources, folder, workers=2))
    assert result.returncode == 0, result.stderr
    return folder


def flags(sources: list[Path], folder: Path, workers: int = 1) -> list[object]:
    weights = ["", "=2.5", "", "=0.5"]
    inputs = [f"{path}{weight}" for path, weight in zip(sources, weights, strict=False)]
    sizes = ["--vocab-size", SIZE, "--shard-tokens", "5000", "--validation-share", "0.1", "--test-share", "0.1"]
    return ["--input", *inputs, "--output-dir", folder, "--workers", workers, *sizes]


def in_new_process(*argv: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "build_corpus.py"), *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def results(folder: Path) -> dict[str, bytes]:
    """Everything that a corpus is, but for the time of its making."""
    files = sorted([*(folder / "tokens").rglob("*"), *(folder / "tokenizer").rglob("*"), folder / "excluded.tsv"])
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("created")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}
    return found | {"manifest": json.dumps(manifest, sort_keys=True).encode()}


def documents_by_split(folder: Path) -> dict[str, list[str]]:
    from tokenizers import Tokenizer

    corpus = open_corpus(folder)
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_folder / "tokenizer.json"))
    return {
        name: [tokenizer.decode(tokens.tolist(), skip_special_tokens=False) for tokens, _ in split.documents()]
        for name, split in corpus.splits.items()
    }


# ---------------------------------------------------------------------------------------------------------------------
# What comes out
# ---------------------------------------------------------------------------------------------------------------------


def test_every_document_is_there_as_often_as_it_should(finished: Path) -> None:
    splits = documents_by_split(finished)
    everything = make_texts(150, 1) + make_texts(120, 2) + make_texts(100, 3) + make_texts(30, 4)
    unique = {name: set(texts) for name, texts in splits.items()}
    assert not unique["train"] & unique["validation"]
    assert not (unique["train"] | unique["validation"]) & unique["test"]
    assert unique["train"] | unique["validation"] | unique["test"] <= set(everything)
    missing = set(everything) - unique["train"] - unique["validation"] - unique["test"]
    assert all(text.startswith("4-") for text in missing)  # of weight 0.5
    assert 3 <= len(missing) <= 25
    times = {text: splits["train"].count(text) for text in unique["train"]}
    assert {count for text, count in times.items() if text[0] in "134"} == {1}
    assert {count for text, count in times.items() if text[0] == "2"} == {2, 3}
    assert all(len(splits[name]) == len(unique[name]) for name in ("validation", "test"))
    assert all(a != b for a, b in zip(splits["train"], splits["train"][1:], strict=False))


def test_the_manifest_tells_what_the_corpus_is(finished: Path, sources: list[Path]) -> None:
    corpus = open_corpus(finished)
    about = corpus.manifest
    assert [source["format"] for source in about["sources"]] == ["text", "text", "jsonl", "text"]
    assert [source["compression"] for source in about["sources"]] == ["none", "gz", "bz2", "none"]
    assert [source["counts"]["duplicates"] for source in about["sources"]] == [0, 0, 0, 20]
    assert (about["vocab_size"], about["end_token_id"], about["dtype"]) == (int(SIZE), 0, "<u2")
    for name, split in corpus.splits.items():
        documents = list(split.documents())
        assert len(documents) == split.n_documents
        assert sum(len(tokens) + 1 for tokens, _ in documents) == split.n_tokens
        assert sum(size for _, size in documents) == split.utf8_bytes
        tokens = split.read(0, split.n_tokens)
        assert int((tokens == 0).sum()) == split.n_documents, name
    assert len(corpus.splits["train"].shards) > 1
    assert not (finished / "tokens" / "parts").exists()


def test_transformers_agrees_with_the_shards(finished: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(finished / "tokenizer")
    texts = documents_by_split(finished)["validation"]
    corpus = open_corpus(finished)
    for text, (tokens, size) in zip(texts, corpus.splits["validation"].documents(), strict=True):
        assert tokenizer(text)["input_ids"] == tokens.tolist()
        assert size == len(text.encode())


def test_processes_and_repetition_change_no_byte(
    finished: Path, sources: list[Path], tmp_path: Path, build: Run
) -> None:
    assert build(*flags(sources, tmp_path / "again", workers=1))[0] == 0
    assert results(tmp_path / "again") == results(finished)


def test_an_added_input_moves_no_document(finished: Path, sources: list[Path], tmp_path: Path, build: Run) -> None:
    extra = write_text(tmp_path / "extra.txt", make_texts(80, seed=9))
    argv = flags(sources, tmp_path / "more")
    argv.insert(1, extra)
    assert build(*argv)[0] == 0
    old, new = documents_by_split(finished), documents_by_split(tmp_path / "more")
    assert all(set(old[name]) <= set(new[name]) for name in old)


def test_a_document_cannot_forge_a_boundary(tmp_path: Path, build: Run) -> None:
    forged = ["before <|endoftext|> after </s> <s>", "<|endoftext|>", "x <question> y <0x41>"]
    texts = forged + make_texts(100, seed=5)
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for kind, size in (("byte-level-bpe", 400), ("unigram", 480)):
        folder = tmp_path / kind
        options = ["--vocab-type", kind, "--vocab-size", size, "--special-tokens", "<question>"]
        code, _, errors = build("--input", path, "--output-dir", folder, "--workers", 1, *options)
        assert code == 0, errors
        found = [text for texts in documents_by_split(folder).values() for text in texts]
        assert sorted(found) == sorted(texts)


def test_evaluation_texts_are_left_out(sources: list[Path], tmp_path: Path, build: Run) -> None:
    seen = make_texts(150, seed=1)[7]
    (tmp_path / "dev.csv").write_text(f"id\tsentence\n1\t{seen}\n")
    argv = ["--input", sources[0], "--output-dir", tmp_path / "corpus", "--workers", 1, "--vocab-size", SIZE]
    code, _, _ = build(*argv, "--exclude", tmp_path / "dev.csv")
    assert code == 0
    assert seen not in {text for texts in documents_by_split(tmp_path / "corpus").values() for text in texts}
    assert (tmp_path / "corpus" / "excluded.tsv").read_text() == f"{seen[:80].strip()}\tdev.csv\n"
    assert open_corpus(tmp_path / "corpus").manifest["sources"][0]["counts"]["excluded"] == 1

    # The same documents with another vocabulary: what is excluded stays excluded.
    other = ["--documents", tmp_path / "corpus", "--output-dir", tmp_path / "other", "--workers", 1]
    code, _, errors = build(*other, "--tokenizer", tmp_path / "corpus" / "tokenizer", "--shard-tokens", 1000)
    assert code == 0, errors
    assert documents_by_split(tmp_path / "other") == documents_by_split(tmp_path / "corpus")


def test_inspection_shows_statistics_and_documents(finished: Path, build: Run) -> None:
    code, out, _ = build("--inspect", finished)
    assert code == 0
    assert "byte-level-bpe, 450 tokens" in out
    assert "duplicates 20" in out
    assert "tokens per document" in out
    assert "most frequent: '" in out
    shown = out.split("train, document ")[1].split("\n")[1].strip()
    text = shown.replace("|", "").removesuffix("...")
    assert any(document.startswith(text) for document in documents_by_split(finished)["train"])


# ---------------------------------------------------------------------------------------------------------------------
# Stopping and going on
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        "documents/second.txt/extraction.json",
        "selection/third/*.npy",
        "tokenizer/*",
        "tokens/parts/000002.npz",
        "tokens/*.bin",
    ],
)
def test_an_interrupted_build_goes_on(
    made: str, finished: Path, sources: list[Path], tmp_path: Path, build: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped as soon as a file is there, which is the first thing that a stage leaves, or one of several."""

    def check(signals: Signals) -> None:
        if any((tmp_path / "corpus").glob(made)):
            raise Interrupted(signal.SIGTERM, at_check=True)

    with monkeypatch.context() as patch:
        patch.setattr(Signals, "check", check)
        code, _, errors = build(*flags(sources, tmp_path / "corpus"))
    assert code == 143
    assert "run the same command again" in errors
    assert not (tmp_path / "corpus" / "manifest.json").exists()
    assert build(*flags(sources, tmp_path / "corpus"))[0] == 0
    assert results(tmp_path / "corpus") == results(finished)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_build_goes_on(number: int, finished: Path, sources: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    command = [sys.executable, str(ROOT / "build_corpus.py"), *map(str, flags(sources, folder, workers=2))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (folder / "extracted.json").exists():
        time.sleep(0.01)
    os.kill(process.pid, number)
    assert process.wait(timeout=30) == (143 if number == signal.SIGTERM else -number)
    result = in_new_process(*flags(sources, folder, workers=2))
    assert result.returncode == 0, result.stderr
    assert results(folder) == results(finished)


def test_a_complete_corpus_is_shown_and_other_settings_are_refused(
    finished: Path, sources: list[Path], build: Run
) -> None:
    before = results(finished)
    code, out, _ = build(*flags(sources, finished))
    assert code == 0
    assert "is complete since 20" in out
    assert "pretrain.py --corpus" in out
    code, _, errors = build(*flags(sources[:3], finished), "--vocab-size", "500")
    assert code == 2
    assert len(errors.splitlines()) == 2
    assert "input" in errors
    assert "vocab_size 450, not 500" in errors
    assert results(finished) == before


def test_what_a_kill_left_of_a_complete_corpus_is_removed(
    finished: Path, sources: list[Path], tmp_path: Path, build: Run
) -> None:
    shutil.copytree(finished, tmp_path / "corpus")
    leftovers = [tmp_path / "corpus" / "selection" / "0.npy", tmp_path / "corpus" / "tokens" / "parts" / "0.npz"]
    for path in leftovers:
        path.parent.mkdir()
        path.touch()
    code, out, _ = build(*flags(sources, tmp_path / "corpus"))
    assert code == 0
    assert "is complete since 20" in out
    assert not any(path.parent.exists() for path in leftovers)


def test_overwriting_keeps_extracted_documents(sources: list[Path], tmp_path: Path, build: Run) -> None:
    argv = ["--input", sources[0], "--output-dir", tmp_path / "corpus", "--workers", 1]
    assert build(*argv, "--vocab-size", 400)[0] == 0
    part = next((tmp_path / "corpus" / "documents").rglob("part-*.zst"))
    time_before = part.stat().st_mtime_ns
    assert build(*argv, "--vocab-size", 420, "--overwrite")[0] == 0
    assert part.stat().st_mtime_ns == time_before
    assert open_corpus(tmp_path / "corpus").vocab_size == 420


def test_a_changed_source_is_noticed_by_an_unfinished_build(tmp_path: Path, build: Run, monkeypatch: Any) -> None:
    source = write_text(tmp_path / "text.txt", make_texts(100, seed=1))
    argv = ["--input", source, "--output-dir", tmp_path / "corpus", "--workers", 1, "--vocab-size", 400]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "shard")

    with monkeypatch.context() as patch:
        patch.setattr("corpus.tokenization.assemble", full)
        code, _, errors = build(*argv)
    assert code == 1
    assert "No space left on device" in errors
    assert "run the same command again" in errors
    write_text(source, make_texts(100, seed=2))
    assert build(*argv)[0] == 0
    found = {text for texts in documents_by_split(tmp_path / "corpus").values() for text in texts}
    assert found == set(make_texts(100, seed=2))


def test_a_changed_source_is_noticed_by_a_finished_corpus(tmp_path: Path, build: Run) -> None:
    source, corpus, other = write_text(tmp_path / "text.txt", make_texts(60, seed=1)), tmp_path / "a", tmp_path / "b"
    argv = ["--input", source, "--output-dir", corpus, "--workers", 1, "--vocab-size", 400]
    of_documents = ["--documents", corpus, "--output-dir", other, "--workers", 1, "--vocab-size", 420]
    assert build(*argv)[0] == 0 and build(*of_documents)[0] == 0
    source.touch()
    assert build(*argv)[0] == 0
    text = source.read_text(encoding="utf-8")
    for changed in (text.replace("1-30: ", "1-31: "), text + "one more\n"):
        source.write_text(changed, encoding="utf-8")
        for more in ([], ["--dry-run"]):
            code, _, errors = build(*argv, *more)
            assert code == 2 and errors.startswith(f"error: {source}: has changed since 20"), errors
            assert f"when {corpus} was built; --overwrite builds it anew" in errors
    assert build(*argv, "--overwrite")[0] == 0 and build(*argv)[0] == 0
    code, _, errors = build(*of_documents)
    assert code == 2 and errors.startswith(f"error: {corpus / 'documents' / 'text.txt'}: has changed since 20"), errors


# ---------------------------------------------------------------------------------------------------------------------
# Mistakes
# ---------------------------------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_told_at_once(sources: list[Path], tmp_path: Path, build: Run) -> None:
    (tmp_path / "empty.txt").touch()
    inputs = [sources[0], sources[0], f"{sources[1]}=0", tmp_path / "none.xml", tmp_path / "empty.txt"]
    more = ["--exclude", tmp_path / "dev.csv", "--vocab-size", 200, "--special-tokens", "PAD"]
    shares = ["--validation-share", 0.6, "--test-share", 0.5]
    code, _, errors = build("--input", *inputs, *more, *shares)
    assert code == 2
    expected = (
        "--output-dir",
        "given twice",
        "greater than 0",
        "none.xml",
        "empty.txt",
        "nothing to train on",
        "dev.csv",
    )
    for text in (*expected, "PAD", "--vocab-size 200"):
        assert sum(text in line for line in errors.splitlines()) == 1, text
    assert len(errors.splitlines()) == 9


def test_one_document_is_told_with_what_cuts_it(tmp_path: Path, build: Run) -> None:
    remedy = "all is one document, which is in one split as a whole; --document-separator LINE or several files"
    argv = ["--output-dir", tmp_path / "corpus", "--vocab-size", 300, "--workers", 1, "--test-share", 0]
    (tmp_path / "text.txt").write_text("\n".join(make_texts(300, seed=1)))
    code, out, errors = build("--input", tmp_path / "text.txt", *argv, "--validation-share", 0.001)
    assert code == 0, errors
    assert f"no document fell into the validation split; {remedy}" in out
    code, _, errors = build("--input", tmp_path / "text.txt", *argv, "--validation-share", 0.999, "--overwrite")
    assert code == 2
    assert f"(excluded 0, duplicates 0, train 0, validation 1, test 0); {remedy}" in errors


def test_a_pipe_and_a_separator_of_two_lines_are_errors(tmp_path: Path, build: Run) -> None:
    os.mkfifo(tmp_path / "pipe")
    code, _, errors = build(
        "--input", tmp_path / "pipe", "--document-separator", "\n\n", "--output-dir", tmp_path / "c"
    )
    assert code == 2
    assert "--document-separator: must be one line" in errors
    assert f"{tmp_path / 'pipe'}: is a pipe; write it to a file first" in errors


def test_neither_or_both_inputs_is_an_error(finished: Path, sources: list[Path], tmp_path: Path, build: Run) -> None:
    for more in ([], ["--input", sources[0], "--documents", finished]):
        code, _, errors = build("--output-dir", tmp_path / "corpus", *more)
        assert (code, errors) == (2, "error: give either --input or --documents\n")
    code, _, errors = build("--documents", tmp_path, "--output-dir", tmp_path / "corpus")
    assert code == 2
    assert "is no corpus folder" in errors


@pytest.mark.parametrize("weight", ["", "=2"])
def test_a_name_that_is_too_long_is_an_error(weight: str, tmp_path: Path, build: Run) -> None:
    code, _, errors = build("--input", f"{'a' * 300}{weight}", "--output-dir", tmp_path / "corpus")
    assert code == 2 and errors.count("\n") == 1 and "can't be opened (File name too long)" in errors


def test_flags_of_extraction_are_refused_beside_documents(sources: list[Path], tmp_path: Path, build: Run) -> None:
    argv = ["--input", sources[0], "--output-dir", tmp_path / "corpus", "--workers", 1, "--vocab-size", SIZE]
    assert build(*argv, "--min-chars", 150)[0] == 0
    argv = ["--documents", tmp_path / "corpus", "--output-dir", tmp_path / "other", "--workers", 1]
    more = ["--min-chars", 9, "--document-separator", "-", "--text-field", "body", "--page-seconds", 3]
    code, _, errors = build(*argv, *more, "--skip-damaged")
    assert code == 2
    refused = ("document-separator", "min-chars", "page-seconds", "skip-damaged", "text-field")
    for flag, error in zip(refused, errors.splitlines(), strict=True):
        assert error.startswith(f"error: --{flag}: has no effect beside --documents")
    code, _, errors = build(*argv, "--vocab-size", 400)
    assert code == 0, errors
    assert open_corpus(tmp_path / "other").manifest["settings"]["min_chars"] == 150  # as the documents were made


def test_documents_with_a_missing_part_are_refused(finished: Path, tmp_path: Path, build: Run) -> None:
    shutil.copytree(finished, tmp_path / "corpus")
    next((tmp_path / "corpus" / "documents" / "third").glob("part-*.zst")).unlink()
    argv = ["--documents", tmp_path / "corpus", "--output-dir", tmp_path / "other", "--vocab-size", SIZE]
    code, _, errors = build(*argv, "--workers", 1)
    assert code == 2
    assert "third is not extracted yet, or files of it are gone; run its command again" in errors
    assert "with --overwrite" in errors
    assert len(errors.splitlines()) == 1


def test_weights_that_leave_out_everything_are_an_error(tmp_path: Path, build: Run) -> None:
    source = write_text(tmp_path / "text.txt", make_texts(30, seed=1))
    code, _, errors = build("--input", f"{source}=1e-9", "--output-dir", tmp_path / "corpus", "--workers", 1)
    assert code == 2
    assert "no document is left to train on" in errors
    assert "raise the weights" in errors


def test_a_tokenizer_that_takes_text_for_its_end_token_is_refused(tmp_path: Path, build: Run) -> None:
    source = write_text(tmp_path / "text.txt", make_texts(30, seed=1))
    folder = make_unigram(tmp_path / "theirs", ["</s>"])
    argv = ["--input", source, "--output-dir", tmp_path / "corpus", "--tokenizer", folder]
    code, _, errors = build(*argv)
    assert code == 2
    assert "tokenizer.json: takes </s> in a text for the end of its document; leave --tokenizer out" in errors


def test_text_that_a_tokenizer_cannot_spell_is_told(tmp_path: Path, build: Run) -> None:
    source = write_text(tmp_path / "text.txt", [*make_texts(30, seed=1), "한국어"])
    folder = make_unigram(tmp_path / "theirs", [])
    argv = ["--input", source, "--output-dir", tmp_path / "corpus", "--tokenizer", folder, "--workers", 1]
    code, _, errors = build(*argv)
    assert code == 0
    assert "% of the tokens stand for text that the tokenizer can't spell" in errors


def make_unigram(folder: Path, more: list[str]) -> Path:
    """A tokenizer without byte fallback that has lower case letters, digits and more as its pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = [("<unk>", 0.0), *((piece, -1.0) for piece in [*more, *"▁abcdefghijklmnopqrstuvwxyz0123456789-:.<>/|"])]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_corpus_that_is_too_small_is_an_error(tmp_path: Path, build: Run) -> None:
    source = write_text(tmp_path / "text.txt", make_texts(60, seed=1))
    code, _, errors = build("--input", source, "--output-dir", tmp_path / "a", "--vocab-size", 30000, "--workers", 1)
    assert code == 2
    assert "no more than" in errors
    (tmp_path / "dev.txt").write_text(source.read_text())
    argv = ["--input", source, "--output-dir", tmp_path / "b", "--workers", 1]
    code, _, errors = build(*argv, "--exclude", tmp_path / "dev.txt")
    assert code == 2
    assert "no document is left to train on (excluded 60" in errors
    korean = tmp_path / "korean.txt"
    korean.write_bytes("정말 재미있는 영화\n<|endoftext|>\n".encode("cp949") * 9)
    code, _, errors = build("--input", korean, "--output-dir", tmp_path / "c", "--workers", 1)
    assert code == 2
    assert "no document is left to train on" in errors
    assert "not UTF-8 (byte 0xc1)" in errors
    assert "skipped.tsv" in errors


def test_a_source_that_is_cut_off_ends_the_build_until_that_is_allowed(tmp_path: Path, build: Run) -> None:
    source = write_text(tmp_path / "text.txt.gz", make_texts(3000, seed=1))
    source.write_bytes(gzip.compress(source.read_bytes())[:-5000])
    argv = ["--input", source, "--output-dir", tmp_path / "corpus", "--workers", 1, "--vocab-size", 400]
    code, _, errors = build(*argv)
    assert code == 1
    assert "text.txt.gz: damaged or cut off" in errors
    code, out, errors = build(*argv, "--skip-damaged")
    assert code == 0, errors
    assert "damaged places passed over: 1" in out
    assert 1000 < open_corpus(tmp_path / "corpus").manifest["sources"][0]["counts"]["documents"] < 3000


def test_a_dry_run_tells_formats_and_writes_nothing(sources: list[Path], tmp_path: Path, build: Run) -> None:
    code, out, _ = build(*flags(sources, tmp_path / "corpus"), "--dry-run")
    assert code == 0
    assert "third: jsonl, compression bz2" in out
    assert "second.txt: text, compression gz" in out
    assert not (tmp_path / "corpus").exists()


def test_a_dry_run_refuses_what_the_run_would_refuse(finished: Path, sources: list[Path], build: Run) -> None:
    code, _, errors = build(*flags(sources, finished), "--vocab-size", "500", "--dry-run")
    assert code == 2
    assert "vocab_size 450, not 500" in errors
    code, out, _ = build(*flags(sources, finished), "--vocab-size", "500", "--overwrite", "--dry-run")
    assert code == 0
    assert "is built anew" in out
    code, out, _ = build(*flags(sources, finished), "--dry-run")
    assert code == 0
    assert "is complete" in out


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--overwrite"]])
def test_a_file_in_the_corpus_folders_place_is_told(
    more: list[str], sources: list[Path], tmp_path: Path, build: Run
) -> None:
    (tmp_path / "corpus").write_text("")
    code, _, errors = build(*flags(sources, tmp_path / "corpus"), *more)
    assert code == 2 and "is no folder that can be written to; choose another --output-dir" in errors
    assert "--overwrite" not in errors


def test_inspecting_takes_no_other_flag(finished: Path, build: Run) -> None:
    code, out, errors = build("--inspect", finished, "--vocab-size", 400, "--dry-run")
    assert code == 2 and out == ""
    assert [line.partition(":")[2] for line in errors.splitlines()] == [
        f" --{flag}: has no effect beside --inspect; leave one of them out" for flag in ("dry-run", "vocab-size")
    ]


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_evaluation_files_are_looked_at_before_the_work(
    more: list[str], sources: list[Path], tmp_path: Path, build: Run
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").touch()
    (tmp_path / "korean.txt").write_bytes("정말 재미있는 영화".encode("cp949"))
    files = [tmp_path / name for name in ("folder", "empty.txt", "korean.txt")]
    code, _, errors = build("--input", sources[0], "--output-dir", tmp_path / "corpus", "--exclude", *files, *more)
    assert code == 2
    reasons = ("can't be opened (Is a directory)", "is empty", "is not UTF-8")
    for file, reason, line in zip(files, reasons, errors.splitlines(), strict=True):
        assert line.startswith(f"error: --exclude {file}: {reason}")
    assert not (tmp_path / "corpus").exists()


def test_an_evaluation_file_that_leaves_out_nothing_is_told(sources: list[Path], tmp_path: Path, build: Run) -> None:
    (tmp_path / "short.txt").write_text("five words are not enough\n")
    argv = ["--input", sources[0], "--output-dir", tmp_path / "corpus", "--exclude", tmp_path / "short.txt"]
    code, _, errors = build(*argv, "--dry-run")
    assert code == 0
    assert errors.startswith(f"note: --exclude {tmp_path / 'short.txt'}: none of its texts has 13 words")


def test_a_wrong_shard_is_named(finished: Path, sources: list[Path], tmp_path: Path, build: Run) -> None:
    shutil.copytree(finished, tmp_path / "corpus")
    shard = tmp_path / "corpus" / "tokens" / "train-00001.bin"
    tokens = np.fromfile(shard, dtype="<u2")
    tokens[5] += 1
    tokens.tofile(shard)
    code, _, errors = build("--inspect", tmp_path / "corpus")
    assert code == 2
    assert "train-00001.bin: is not the file that its manifest describes" in errors


def test_a_vocabulary_too_small_for_its_own_characters(sources: list[Path], build: Run, tmp_path: Path) -> None:
    flags = ["--input", sources[0], "--output-dir", tmp_path / "corpus", "--vocab-type", "unigram"]
    code, _, errors = build(*flags, "--vocab-size", 350)
    assert code == 2 and "--vocab-size 350: must be at least 356" in errors
    assert not (tmp_path / "corpus").exists()


def test_a_link_that_leads_to_itself_is_an_error(tmp_path: Path, build: Run) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "link")
    code, _, errors = build("--input", tmp_path / "link", "--output-dir", tmp_path / "c")
    assert code == 2 and f"{tmp_path / 'link'}: can't be opened" in errors
