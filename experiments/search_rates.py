"""The learning-rate search behind a bundled model's card: the same for every strategy, on the training set alone.

    python experiments/search_rates.py --dataset sst --data-dir FOLDER --model mini
    python experiments/search_rates.py --dataset qqp --data-dir FOLDER --limit 4000 --epochs 3 --jobs 2
    python experiments/search_rates.py --dataset kornli --data-dir FOLDER --model ko-mini --limit 1500 --epochs 3
    python experiments/search_rates.py --dataset nsmc --data-dir FOLDER --model ko-mini -- --skip-bad-rows
    python experiments/search_rates.py --dataset bbc --data-dir FOLDER -- --skip-long --max-new-tokens 256

Every fifth row of the training file is held out (or of ``--limit`` rows: from all over the file for classification, the
first ones for the other tasks), the model trains on the others with each rate of the grid, and the rate whose best
epoch scores best on the held-out rows wins: by accuracy, or by perplexity where texts are written. The dev set is never
looked at. Every strategy gets a grid of the same size, around a centre of its own: its rate for the 124M model on the
dataset, times a factor for a small one. Runs that are complete are not done again. The results, and what a card says of
them, are printed and kept in ``rates.json``, those of the last call at its end.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from config import RunFailed, UserError  # noqa: E402
from datasets import PARAPHRASE_TASKS, SENTIMENT_TASKS, ClassificationTask, read_split  # noqa: E402
from experiments.children import TASK_SCRIPTS, Call, Ended, run_side_by_side  # noqa: E402
from poetry.sonnets import SONNETS  # noqa: E402
from storage import file_sha256, lock_folder, write_bytes, write_json  # noqa: E402
from strategies import Strategy, named_strategies_of  # noqa: E402
from tasks import inference, passages, questions, summaries  # noqa: E402
from training.cli import run_script  # noqa: E402
from training.interrupt import Signals  # noqa: E402

HELD_OUT_EVERY = 5
GRID = (0.25, 0.5, 1.0, 2.0, 4.0)
# Times a strategy's rate for the 124M model, they are the centres for models of a few million parameters in batches of
# 64, by what trains. They are smaller where the published rate is large already, as two strategies' own are.
FACTORS = {"all": 25, "lora": 25, "last-n": 10, "bitfit": 10, "prefix": 10, "head": 10}
OWN_FACTORS = {"ulmfit": 10, "ulmfit-static": 1}
SMALL_BATCH = 8
SMALL_BATCH_FACTOR = 0.25  # on the centre


@dataclass(frozen=True)
class Dataset:
    """What rates are searched on.

    Attributes:
        task: whose script takes it.
        defaults: what a strategy's own settings of it are found by: its name, or the task's.
        train: the names of its training files.
        rows: how its rows are read, to be cut into files here; without, the script's ``--hold-out`` does it.
    """

    task: str
    defaults: str
    train: tuple[str, ...]
    rows: ClassificationTask | None = None

    @property
    def measure(self) -> str:
        """Of ``metrics.json``, by which the rates are compared."""
        return "accuracy" if self.rows or self.task == "inference" else "perplexity"

    @property
    def sign(self) -> int:
        return -1 if self.measure == "perplexity" else 1


DATASETS = {
    name: Dataset(task, name, (rows.files["train"],), rows)
    for task, datasets in (("sentiment", SENTIMENT_TASKS), ("paraphrase", PARAPHRASE_TASKS))
    for name, rows in datasets.items()
    if rows.files
}
DATASETS["shakespeare"] = Dataset("sonnet", "shakespeare", (SONNETS.files["train"],))
DATASETS |= {
    name: Dataset(task, task, published.files["train"])
    for task, datasets in (
        ("inference", inference.DATASETS),
        ("question-answering", questions.DATASETS),
        ("text-generation", {"chatbot": passages.CHATBOT}),
        ("summarization", {"bbc": summaries.BBC}),
    )
    for name, published in datasets.items()
}


@dataclass(frozen=True)
class Trial:
    """One rate of a strategy, and what came of it.

    Attributes:
        score: accuracy or perplexity on the held-out rows.
        run: its folder.
        error: why it has no result.
        lm_lr: the rate of the strategy's language-model stage, which is not searched.
    """

    strategy: str
    lr: float
    score: float | None = None
    best_epoch: int | None = None
    epochs: int | None = None
    lm_lr: float | None = None
    run: str | None = None
    error: str | None = None


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    dataset = DATASETS[arguments.dataset]
    names = arguments.strategies or list(named_strategies_of(dataset.task))
    for text in arguments.centre:
        if text.partition("=")[0] not in names:
            raise UserError(f"--centre {text}: that strategy is not searched; there are {', '.join(names)}")
    centres = {name: centre_of(name, dataset, arguments.centre) for name in names}
    folder = (arguments.output_dir / arguments.dataset).absolute()
    lock = lock_folder(folder, "searching in it")
    flags = ["--dataset", arguments.dataset, "--model", arguments.model, "--output-dir", str(folder)]
    flags += ["--patience", str(arguments.patience)] if arguments.patience else []
    flags += ["--epochs", str(arguments.epochs)] if arguments.epochs else []
    flags += ["--use-gpu"] if arguments.use_gpu else []
    if dataset.rows:
        skips = known_flags(arguments.flags).skip_bad_rows
        data = split_training_file(dataset.rows, arguments.data_dir, arguments.limit, folder / "data", skips)
        flags += ["--data-dir", str(data)]
    else:
        flags += ["--data-dir", str(arguments.data_dir.absolute()), "--hold-out", str(HELD_OUT_EVERY)]
        flags += ["--limit-train", str(arguments.limit)] if arguments.limit else []
    flags += arguments.flags
    left_out = refused(centres, dataset, flags, folder / "logs", arguments.jobs)
    for name, why in left_out.items():
        print(f"{name}: left out, because it is refused: {why}")
    searched = {name: centre for name, centre in centres.items() if name not in left_out}
    rates = [(name, round_rate(centre * factor)) for name, centre in searched.items() for factor in GRID]
    trials = run_trials(rates, dataset, flags, folder / "logs", arguments.jobs)

    files = [path for path in (arguments.data_dir / name for name in dataset.train) if path.is_file()]
    search = {"dataset": arguments.dataset, "model": arguments.model, "weights_sha256": weights_of(trials),
              "limit": arguments.limit, "epochs": arguments.epochs, "patience": arguments.patience,
              "flags": arguments.flags, "measure": dataset.measure, "held_out_every": HELD_OUT_EVERY,
              "train_sha256": [file_sha256(path) for path in files]}  # fmt: skip
    found = merge(folder / "rates.json", search, trials, dataset)
    lock.close()
    print(f"\n{card_text(arguments.dataset, found)}\nresults: {folder / 'rates.json'}")
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=tuple(DATASETS), required=True)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder with the published files")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--strategies", nargs="+", metavar="NAME", help="(default: all of the task)")
    parser.add_argument(
        "--centre", nargs="+", default=[], metavar="STRATEGY=RATE",
        help="centres of grids, where a winner stood at the edge, or for a task's own names of strategies",
    )  # fmt: skip
    parser.add_argument("--limit", type=positive, help="use only N training rows")
    parser.add_argument("--epochs", type=positive, help="(default: the strategy's)")
    parser.add_argument("--patience", type=int, default=2, help="as in classifier.py; 0: never stop (default: 2)")
    parser.add_argument("--use-gpu", action="store_true")
    parser.add_argument("--jobs", type=positive, default=1, help="runs side by side (default: 1)")
    parser.add_argument("--output-dir", type=Path, default=ROOT / "runs" / "search")
    parser.add_argument("flags", nargs="*", metavar="FLAG", help="behind --: further flags of the task's script")
    return parser.parse_args(argv)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def centre_of(name: str, dataset: Dataset, given: Sequence[str]) -> float:
    """The middle of a strategy's grid.

    Raises:
        UserError: the strategy is none of the task's and has no centre among the given ones, or that is no number.
    """
    for text in given:
        strategy, _, rate = text.partition("=")
        if strategy == name:
            try:
                return float(rate)
            except ValueError:
                raise UserError(f"--centre {text}: must be STRATEGY=RATE, such as lora=0.005") from None
    known = named_strategies_of(dataset.task)
    if name not in known:
        raise UserError(f"--strategies {name}: has no rate in strategies.py; give its centre, --centre {name}=RATE")
    defaults = known[name].defaults(dataset.defaults)
    is_small = defaults["batch_size"] <= SMALL_BATCH
    return defaults["lr"] * factor_of(known[name]) * (SMALL_BATCH_FACTOR if is_small else 1.0)


def factor_of(strategy: Strategy) -> float:
    return OWN_FACTORS.get(strategy.name, FACTORS[strategy.trains])


def round_rate(rate: float) -> float:
    """Four digits, so that 0.001 * 0.5 is 0.0005."""
    return float(f"{rate:.4g}")


def known_flags(flags: Sequence[str]) -> argparse.Namespace:
    """Of the further flags, those that the search has to know of."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--skip-bad-rows", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--lm-epochs")
    hyphens = [re.sub(r"^--[^=]+", lambda found: found[0].replace("_", "-"), flag) for flag in flags]
    return parser.parse_known_args(hyphens)[0]


def split_training_file(
    task: ClassificationTask, data_dir: Path, limit: int | None, folder: Path, skip_bad_rows: bool = False
) -> Path:
    """Writes the rows to train on and the held-out ones, as they stand, under the names of the train and dev file.

    Returns:
        The folder, for ``--data-dir``.
    """
    path = data_dir / task.files["train"]
    split = read_split(task, path, skip_bad_rows=skip_bad_rows)
    if split.skipped:
        print(f"{path}: bad rows left out: {len(split.skipped)}")
    lines = path.read_bytes().split(b"\n")
    starts = sorted([e.line for e in split.examples] + [row.line for row in split.skipped])
    ends = dict(zip(starts, [*starts[1:], len(lines) + 1], strict=True))
    rows = [b"\n".join(lines[e.line - 1 : ends[e.line] - 1]).rstrip(b"\n") for e in spread_out(split.examples, limit)]
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": [row for i, row in enumerate(rows) if i % HELD_OUT_EVERY], "dev": rows[::HELD_OUT_EVERY]}
    for name, part in parts.items():
        write_bytes(folder / task.files[name], b"\n".join([lines[0], *part, b""]))
    return folder


def spread_out(rows: Sequence[Any], limit: int | None) -> list[Any]:
    """At most so many rows, at equal distances: a file may be sorted, as SST's is by sentiment."""
    n = min(limit or len(rows), len(rows))
    return [rows[i * len(rows) // n] for i in range(n)]


def flags_of(name: str, rate: float, dataset: Dataset, flags: Sequence[str]) -> tuple[str, ...]:
    """The flags that all runs have, a strategy and its rate.

    The rate of its language-model stage, unless the flags leave that out, is not searched: it is the published one,
    scaled.
    """
    strategy = named_strategies_of(dataset.task).get(name)
    lm_lr = strategy.settings.get("lm_lr") if strategy and known_flags(flags).lm_epochs != "0" else None
    stage = ("--lm-lr", repr(round_rate(lm_lr * factor_of(strategy)))) if strategy and lm_lr else ()
    return (*flags, "--strategy", name, "--lr", repr(rate), *stage)


def refused(
    centres: Mapping[str, float], dataset: Dataset, flags: Sequence[str], logs: Path, jobs: int
) -> dict[str, str]:
    """The strategies that the script refuses with these flags, and why, found out before anything trains.

    Raises:
        UserError: it refuses all.
    """
    script = TASK_SCRIPTS[dataset.task]
    calls = {
        Call(name, script, (*flags_of(name, centre, dataset, flags), "--dry-run"), logs / f"{name}-check.log"): name
        for name, centre in centres.items()
    }
    found = [ended for ended in run_side_by_side(list(calls), jobs, Signals().install()) if ended.code]
    why = {calls[ended.call]: f"{ended.error} (log: {ended.call.log})" for ended in found}
    if len(found) == len(centres):
        one_of_each = {ended.error: calls[ended.call] for ended in found}
        raise UserError([why[name] for name in one_of_each.values()])
    return why


def run_trials(
    rates: Sequence[tuple[str, float]], dataset: Dataset, flags: Sequence[str], logs: Path, jobs: int
) -> list[Trial]:
    """Trains with every rate. A rate that makes training fail, as too large a one can, has no score.

    Raises:
        UserError: the script refuses its flags or its data.
    """
    calls = {}
    for name, rate in rates:
        argv = flags_of(name, rate, dataset, flags)
        call = Call(f"{name} lr {rate:g}", TASK_SCRIPTS[dataset.task], argv, logs / f"{name}-{rate:g}.log")
        calls[call] = (name, rate)
    trials = {}
    for ended in run_side_by_side(list(calls), jobs, Signals().install(), stop_at=was_refused):
        if was_refused(ended):
            raise UserError(f"{ended.error} (log: {ended.call.log})")
        trials[ended.call] = trial = read_trial(*calls[ended.call], ended, dataset.measure)
        result = f"failed: {trial.error}"
        if trial.score is not None:
            result = f"held-out {dataset.measure} {trial.score:.4f}, epoch {trial.best_epoch} of {trial.epochs}"
        print(f"[{len(trials)}/{len(calls)}] {ended.call.label}: {result}, {ended.seconds:.0f} s", flush=True)
    return [trials[call] for call in calls]


def was_refused(ended: Ended) -> bool:
    """Whether it was the flags or the data, and not the training, that made a run fail."""
    return ended.code not in (0, RunFailed.exit_code)


def read_trial(strategy: str, lr: float, ended: Ended, measure: str) -> Trial:
    """A trial from the run folder that it left."""
    if ended.code or ended.folder is None:
        return Trial(strategy, lr, run=str(ended.folder) if ended.folder else None, error=ended.error)
    metrics = json.loads((ended.folder / "metrics.json").read_text(encoding="utf-8"))
    settings = json.loads((ended.folder / "config.json").read_text(encoding="utf-8"))["settings"]
    return Trial(
        strategy=strategy,
        lr=lr,
        score=metrics["dev"][measure],
        best_epoch=metrics["best_epoch"],
        epochs=metrics["epochs"],
        lm_lr=settings.get("lm_lr") if settings.get("lm_epochs") else None,
        run=str(ended.folder),
    )


def weights_of(trials: Sequence[Trial]) -> list[str] | None:
    """The checksums of the weights that they started from: another checkpoint may come to stand under a name."""
    paths = [Path(trial.run) / "config.json" for trial in trials if trial.run]
    found = next((path for path in paths if path.is_file()), None)
    return json.loads(found.read_text(encoding="utf-8"))["model"]["weights_sha256"] if found else None


def merge(path: Path, search: dict[str, Any], trials: Sequence[Trial], dataset: Dataset) -> dict[str, list[Trial]]:
    """Adds the trials to those that an earlier search of the same kind left, and writes all; the file keeps a search
    with another model, limit, or whatever else differs.

    Returns:
        Strategy -> its trials, by rate.
    """
    searches = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    others = [one for one in searches if one["search"] != search]
    entries = [entry for one in searches if one["search"] == search for entry in one["strategies"].values()]
    earlier = [Trial(**trial) for entry in entries for trial in entry["trials"]]
    known = {(trial.strategy, trial.lr): trial for trial in [*earlier, *trials]}
    found: dict[str, list[Trial]] = {}
    for trial in sorted(known.values(), key=lambda trial: trial.lr):
        found.setdefault(trial.strategy, []).append(trial)
    found = {name: found[name] for name in dict.fromkeys(name for name, _ in known)}
    record = {}
    for name, of_one in found.items():
        best = best_of(of_one, dataset.sign)
        record[name] = {"chosen": best.lr if best else None, "trials": [asdict(trial) for trial in of_one]}
    write_json(path, [*others, {"search": search, "strategies": record}])
    return found


def best_of(trials: Sequence[Trial], sign: int) -> Trial | None:
    """The trial with the best score on the held-out rows; of equal ones the largest rate."""
    scored = [(sign * trial.score, trial.lr, trial) for trial in trials if trial.score is not None]
    return max(scored, key=lambda entry: entry[:2])[2] if scored else None


def card_text(dataset: str, found: dict[str, list[Trial]]) -> str:
    """What goes into a model's card: the block at its head, and the rows of its table."""
    import yaml

    rates: dict[str, dict[str, float]] = {}
    measure, sign = DATASETS[dataset].measure, DATASETS[dataset].sign
    rows, notes = [f"| training set | strategy | rate: held-out {measure} | chosen |", "|---|---|---|---|"], [""]
    for name, trials in found.items():
        best = best_of(trials, sign)
        scores = [f"{t.lr:.3g}: {'failed' if t.score is None else f'{t.score:.3f}'}" for t in trials]
        rows.append(f"| {dataset} | `{name}` | {' · '.join(scores)} | {f'{best.lr:g}' if best else 'none'} |")
        if best is not None:
            rates[name] = {"lr": best.lr} | ({"lm_lr": best.lm_lr} if best.lm_lr else {})
        if best is not None and best.lm_lr:
            notes.append(f"{name}: lm_lr, the rate of its language-model stage, was not searched")
        if best in (trials[0], trials[-1]):
            notes.append(f"{name}: the best rate stands at the grid's edge; --centre {name}={best.lr:g} looks further")
    block = yaml.safe_dump({"fine_tuning": {dataset: rates}}, default_flow_style=None, sort_keys=False, width=1000)
    return "\n".join([block, *rows, *notes[len(notes) == 1 :]])


if __name__ == "__main__":
    sys.exit(run_script(main))
