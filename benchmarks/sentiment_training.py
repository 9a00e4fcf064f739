"""Training speed beside transformers' Trainer, in one run: the 124M shape with random weights, real sentences.

    python benchmarks/sentiment_training.py
    python benchmarks/sentiment_training.py --data-dir FOLDER --tokenizer gpt2

Ours is ``classifier.py --strategy full`` at its defaults, and once more in fp32; the peer is
GPT2ForSequenceClassification under Trainer in fp32, padded to the longest sentence of a batch. Same sentences, same
batch size, one epoch each, in processes of their own, one after the other; once with the checkpoint's dropouts and once
with all of them off. Rates count examples over the time of the training steps (Trainer: its own
``train_samples_per_second``); memory is the process's largest resident set.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from config import GPT2Config, UserError  # noqa: E402
from datasets import SENTIMENT_TASKS, read_split  # noqa: E402
from models.gpt2 import GPT2Model  # noqa: E402
from models.sources import find_checkpoint  # noqa: E402
from models.tokenizer import load_tokenizer, save_tokenizer  # noqa: E402
from training.cli import run_script  # noqa: E402

END = "<|endoftext|>"
PEER_NAME = "transformers' Trainer, fp32"
# Run with -P in an empty folder: Trainer may look for the package `datasets`, and must not find this project's file.
PEER = """
import json, resource, sys, time
import torch
from transformers import (AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer,
                          TrainingArguments)
folder, data, batch_size = sys.argv[1], sys.argv[2], int(sys.argv[3])
rows = json.load(open(data))
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5, dtype=torch.float32)
model.config.pad_token_id = tokenizer.pad_token_id
examples = [dict(tokenizer(text), labels=label) for text, label in rows]
arguments = TrainingArguments(output_dir="out", per_device_train_batch_size=batch_size, num_train_epochs=1,
                              learning_rate=2e-5, use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
                              logging_strategy="no", weight_decay=0.0, max_grad_norm=0.0)
trainer = Trainer(model, arguments, train_dataset=examples, data_collator=DataCollatorWithPadding(tokenizer))
result = trainer.train()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"examples_per_second": result.metrics["train_samples_per_second"], "peak_memory_bytes": peak}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data" / "sample", help="the folder with the SST files")
    parser.add_argument("--tokenizer", default="mini", help="a folder with a tokenizer, a bundled model or a Hub id")
    parser.add_argument("--examples", type=int, default=640)
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()

    task = SENTIMENT_TASKS["sst"]
    examples = read_split(task, arguments.data_dir / task.files["train"]).examples[: arguments.examples]
    print(f"{len(examples)} sentences, batch {arguments.batch_size}, {torch.get_num_threads()} threads, torch "
          f"{torch.__version__}\n{'dropout':<9}{'':<28}{'examples/s':>12}{'peak GiB':>10}{'ratio':>8}")  # fmt: skip
    for label, dropout in (("0.1", 0.1), ("off", 0.0)):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = write_checkpoint(Path(folder), arguments.tokenizer, dropout)
            rows = {
                "ours": train_ours(checkpoint, arguments, dropout, "auto"),
                "ours, fp32": train_ours(checkpoint, arguments, dropout, "fp32"),
                PEER_NAME: train_peer(checkpoint, arguments, [(e.text, e.label) for e in examples]),
            }
        for name, found in rows.items():
            name += f" ({found['precision']})" if name == "ours" else ""
            rate, memory = found["examples_per_second"], found["peak_memory_bytes"] / 2**30
            ratio = rate / rows[PEER_NAME]["examples_per_second"]
            print(f"{label:<9}{name:<28}{rate:>12.2f}{memory:>10.2f}{ratio:>8.2f}", flush=True)
    return 0


def write_checkpoint(folder: Path, tokenizer: str, dropout: float) -> Path:
    """The 124M shape with random weights; a smaller vocabulary than GPT-2's leaves rows of its embeddings unused."""
    config = replace(GPT2Config(), embd_pdrop=dropout, attn_pdrop=dropout, resid_pdrop=dropout)
    source = Path(tokenizer) if Path(tokenizer).is_dir() else find_checkpoint(tokenizer).folder
    end = load_tokenizer(source, config).get_vocab().get(END)
    if end is None:
        raise UserError(f"--tokenizer {tokenizer}: has no {END}; give GPT-2's, or a bundled model's")
    config = replace(config, bos_token_id=end, eos_token_id=end, pad_token_id=end)
    torch.manual_seed(0)
    path = folder / "random-124m"
    GPT2Model(config).save_pretrained(path)
    save_tokenizer(load_tokenizer(source, config), path)
    return path


def train_ours(checkpoint: Path, arguments: argparse.Namespace, dropout: float, precision: str) -> dict:
    runs = checkpoint.parent / f"runs-{precision}"
    command = [
        sys.executable, str(ROOT / "classifier.py"), "--strategy", "full", "--dataset", "sst",
        "--model", str(checkpoint), "--data-dir", str(arguments.data_dir), "--epochs", "1",
        "--limit-train", str(arguments.examples), "--limit-dev", "64", "--limit-test", "64",
        "--batch-size", str(arguments.batch_size), "--output-dir", str(runs), "--precision", precision,
    ]  # fmt: skip
    if dropout == 0.0:
        command += ["--dropout", "0"]
    run(command, ROOT)
    (metrics,) = runs.glob("*/metrics.json")
    found = json.loads(metrics.read_text())
    return found["cost"] | {"precision": found["precision"]}


def train_peer(checkpoint: Path, arguments: argparse.Namespace, rows: list[tuple[str, int | None]]) -> dict:
    data = checkpoint.parent / "rows.json"
    data.write_text(json.dumps(rows))
    command = [sys.executable, "-P", "-c", PEER, str(checkpoint), str(data), str(arguments.batch_size)]
    return json.loads(run(command, checkpoint.parent).splitlines()[-1])


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


if __name__ == "__main__":
    sys.exit(run_script(main))
