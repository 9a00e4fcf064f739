"""The learning-rate search behind a bundled model's card: the same for every strategy, on the training set alone.

    python experiments/search_rates.py --dataset sst --data-dir FOLDER --model mini

Every fifth row of the published training file is held out, the model trains on the others with each rate of the grid,
and the rate whose best epoch scores highest on the held-out rows wins. The dev set is never looked at. Every strategy
gets a grid of the same size, around a centre of its own. Runs that are complete are not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from datasets import SENTIMENT_TASKS, read_split  # noqa: E402
from strategies import STRATEGIES  # noqa: E402

HELD_OUT_EVERY = 5
GRID = (0.25, 0.5, 1.0, 2.0, 4.0)
CENTRES = {"full": 5e-4, "head": 1e-2}  # for models of a few million parameters, in batches of 64
SMALL_BATCH_FACTOR = 0.25  # on the centre, for CFIMDB's batches of 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=("sst", "cfimdb", "nsmc"), required=True)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder with the published files")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--strategies", nargs="+", choices=tuple(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--limit", type=int, help="use only the first N training rows")
    parser.add_argument("--output-dir", type=Path, default=ROOT / "runs" / "search")
    arguments = parser.parse_args()

    folder = arguments.output_dir / arguments.dataset
    train, held_out = split_training_file(arguments.dataset, arguments.data_dir, arguments.limit, folder)
    for strategy in arguments.strategies:
        published = STRATEGIES[strategy].settings[arguments.dataset]
        results = []
        for factor in GRID:
            rate = CENTRES[strategy] * factor * (SMALL_BATCH_FACTOR if published["batch_size"] <= 8 else 1.0)
            command = [
                sys.executable, str(ROOT / "classifier.py"), "--model", arguments.model, "--strategy", strategy,
                "--train-file", str(train), "--dev-file", str(held_out), "--output-dir", str(folder),
                "--lr", repr(rate), "--epochs", str(published["epochs"]), "--batch-size", str(published["batch_size"]),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            run = Path(done.stdout.rstrip().splitlines()[-1].removeprefix("results: "))
            metrics = json.loads((run / "metrics.json").read_text())
            results.append((metrics["dev"]["accuracy"], rate, metrics["best_epoch"]))
            print(f"{arguments.dataset}  {strategy:<8} lr {rate:<8.3g} held-out accuracy {results[-1][0]:.4f}  "
                  f"best epoch {results[-1][2]} of {published['epochs']}", flush=True)  # fmt: skip
        best = max(results)
        print(f"{arguments.dataset}  {strategy:<8} chosen: lr {best[1]:g}\n", flush=True)


def split_training_file(dataset: str, data_dir: Path, limit: int | None, folder: Path) -> tuple[Path, Path]:
    """Writes the rows to train on and the held-out ones as two files with columns id, sentence, label."""
    task = SENTIMENT_TASKS[dataset]
    examples = read_split(task, data_dir / task.files["train"], limit=limit).examples
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        folder / "train.tsv": [e for i, e in enumerate(examples) if i % HELD_OUT_EVERY],
        folder / "held_out.tsv": examples[::HELD_OUT_EVERY],
    }
    for path, rows in parts.items():
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(["id", "sentence", "label"])
            writer.writerows([example.id, example.text, example.label] for example in rows)
    train, held_out = parts
    return train, held_out


if __name__ == "__main__":
    main()
