"""A tiny checkpoint, tiny data files, and ways of running a script on them, for the tests of training."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import random
import resource
import sys
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9", "CS224N_DATA_URL": "http://127.0.0.1:9"}
OPINIONS = ("awful terrible hateful", "bad weak dull", "plain usual fair", "good fine warm", "superb great perfect")
THINGS = ["film", "story", "scene", "actor", "ending", "music", "script", "dialogue", "picture", "comedy"]
FILLERS = ["the", "a", "this", "every", "some", "in", "of", "with", "and", "its", "rather", "quite"]
SIZES = {"train": 45, "dev": 21, "test": 11}  # nothing divides evenly by a batch


def make_checkpoint(folder: Path, **changes: Any) -> Path:
    """A GPT-2 of 2 blocks, 32 wide, random weights, with a byte-level tokenizer of its own."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from config import GPT2Config
    from models.gpt2 import GPT2Model

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text for text, _ in make_rows(300, seed=0)], trainer)

    sizes = {"vocab_size": tokenizer.get_vocab_size(), "n_positions": 48, "n_embd": 32, "n_layer": 2, "n_head": 2}
    torch.manual_seed(0)
    gpt2 = GPT2Model(GPT2Config(**(sizes | {"bos_token_id": 0, "eos_token_id": 0} | changes)))
    gpt2.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def make_rows(count: int, seed: int, n_labels: int = 5) -> list[tuple[str, int]]:
    """Sentences of different lengths, each with one opinion that gives its label."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        label = draw.randrange(n_labels)
        opinion = draw.choice(OPINIONS[round(label * 4 / (n_labels - 1))].split())
        words = draw.choices(FILLERS + THINGS, k=draw.randint(1, 14))
        words.insert(draw.randint(0, len(words)), opinion)
        rows.append((" ".join(words), label))
    return rows


def make_data(folder: Path) -> Path:
    """SST and CFIMDB files in the course's format, the test files without labels, and files of the user's own."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate(SIZES.items()):
        name = "test-student" if split == "test" else split
        for dataset, n_labels in (("sst", 5), ("cfimdb", 2)):
            rows = make_rows(count, seed, n_labels)
            labelled = split != "test"
            lines = ["\tid\tsentence" + ("\tsentiment" if labelled else "")]
            for i, (text, label) in enumerate(rows):
                lines.append(f"{i}\t{dataset}{split}{i}\t{text}" + (f"\t{label}" if labelled else ""))
            (folder / f"ids-{dataset}-{name}.csv").write_text("\n".join(lines) + "\n")
        own = [f"{text}\t{label}" for text, label in make_rows(count, seed, 3)]
        (folder / f"own-{split}.tsv").write_text("\n".join(["sentence\tlabel", *own]) + "\n")
    return folder


def read_log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def results_of(run: Path) -> dict[str, bytes]:
    """Every file of ``predictions/`` and ``best/``, by name."""
    files = [path for folder in ("predictions", "best") for path in sorted((run / folder).rglob("*"))]
    assert files, run
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def only_run(output_dir: Path) -> Path:
    (run,) = output_dir.iterdir()
    return run


def said_by_card(best: Path) -> dict[str, Any]:
    """What the Python of a classifier's card gives, where the card is."""
    code = (best / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    *setup, call = code.strip().splitlines()
    names: dict[str, Any] = {}
    with contextlib.chdir(best):
        exec("\n".join(setup), names)
        found = eval(call, names)
    return found[0] if isinstance(found, list) else found


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The ``error: `` lines; anything else on stderr but warnings is refused."""
        lines = self.err.splitlines()
        assert all(line.startswith(("error: ", "warning: ")) for line in lines), self.err
        return [line for line in lines if line.startswith("error: ")]


def call(*argv: object, script: str = "classifier") -> int:
    """``python classifier.py ...`` in this process, or another script."""
    from training.cli import run_script

    main = importlib.import_module(script).main
    return run_script(functools.partial(main, [str(argument) for argument in argv]))


def _in_child(script: str, argv: list[str], output: Path, file_limit: int | None) -> None:
    for descriptor, name in ((1, "out"), (2, "err")):
        opened = os.open(output.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
    if file_limit is not None:  # it holds for the file of stdout too
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    sys.argv = [f"{script}.py", *argv]
    sys.exit(call(*argv, script=script))


def _forkserver() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["classifier", "tiny_run", "training.classification.run", "training.language_models.pretraining",
         "matplotlib.pyplot", "torch.utils.tensorboard", "transformers.tokenization_utils_tokenizers", "torch._dynamo"]
    )  # fmt: skip
    settings = OFFLINE | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return context


class Child:
    """A ``python classifier.py ...``, or another script, in a process forked from one that has loaded torch already.

    So it starts at once, and a kill after a random time hits the run and not the imports.
    """

    _context: Any = None
    _count = 0

    def __init__(
        self, argv: list[object], scratch: Path, file_limit: int | None = None, script: str = "classifier"
    ) -> None:
        if Child._context is None:
            Child._context = _forkserver()
        Child._count += 1
        self.output = scratch / f"child-{Child._count}"
        arguments = (script, [str(argument) for argument in argv], self.output, file_limit)
        self.process = Child._context.Process(target=_in_child, args=arguments)
        self.process.start()

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    @property
    def is_running(self) -> bool:
        return self.process.is_alive()

    def wait(self, seconds: float = 120) -> Result:
        self.process.join(seconds)
        assert not self.process.is_alive(), "the run hangs"
        texts = [self.output.with_suffix(f".{name}").read_text() for name in ("out", "err")]
        return Result(self.process.exitcode, *texts)
