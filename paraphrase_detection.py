"""Paraphrase detection with GPT-2: do two questions ask the same? Quora question pairs, or your own files.

python paraphrase_detection.py                              # full fine-tuning, on the CPU
python paraphrase_detection.py --strategy taskC --use_gpu
python paraphrase_detection.py --predict "How do I learn Java?" "What is the best way to learn Java?"
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from config import DATA, ROOT, RUN, TRAINING, ClassificationSettings, UserError, setting
from datasets import PARAPHRASE_TASKS, Example, Split, clean_question, overlap_report
from pairs import question_overlap
from strategies import Strategy, shown_defaults
from training.cli import build_parser, parse_settings, run_script

if TYPE_CHECKING:
    from training.classification.metrics import Predictions
    from training.classification.run import ClassificationRun

TASK = "paraphrase"
ANSWERS = (" no", " yes")  # what --strategy cloze says for the labels 0 and 1
PROBES = ROOT / "data" / "probes" / "paraphrase.tsv"
EXAMPLES = """\
  python paraphrase_detection.py --strategy taskC
  python paraphrase_detection.py --strategy cloze --data-dir ./cs224n --use_gpu
  python paraphrase_detection.py --strategy lora --both-orders --symmetric --limit-train 4000
  python paraphrase_detection.py --model bert-base-uncased --limit-train 4000
  python paraphrase_detection.py --train-file train.tsv --dev-file dev.tsv --model mini
  python paraphrase_detection.py --predict "How do I learn Java?" "What is the best way to learn Java?\""""


@dataclass(frozen=True)
class ParaphraseSettings(ClassificationSettings):
    """The settings of a paraphrase run."""

    refused: ClassVar[Mapping[str, str]] = {"keep": "of a pair that is too long, the beginnings of both texts are kept"}

    dataset: list[str] = setting(["qqp"], "dataset", group=DATA, choices=("qqp",), identity=False)
    train_file: str | None = setting(
        None, "your own training file, tab- or comma-separated, with columns sentence1, sentence2 and label (and id)",
        group=DATA, metavar="FILE", identity=False,
    )  # fmt: skip
    keep_case: bool = setting(
        False, "keep questions as they are (default: lower-cased, with a space before . ? , and ')", group=DATA
    )
    both_orders: bool = setting(False, "train on each pair in both orders", group=TRAINING)
    symmetric: bool = setting(False, "predict with the mean of both orders of a pair", group=TRAINING)
    predict: list[str] | None = setting(
        None, "label this pair of questions with a finished run, and stop", group=RUN, metavar="QUESTION",
        identity=False, within=("two questions", lambda x: len(x) == 2),
    )  # fmt: skip
    predict_file: str | None = setting(
        None, "label every line of this file, two questions with a tab between them, with a finished run, and stop",
        group=RUN, metavar="FILE", identity=False,
    )  # fmt: skip


def predictions_file(settings: ParaphraseSettings, strategy: Strategy, dataset: str) -> str:
    """The course's name, with the data behind it unless they are the course's, and the strategy unless it is full."""
    data = "" if dataset == "qqp" else f"-{dataset.removeprefix('qqp-')}"
    return f"para-{{split}}-output{data}{'' if strategy.name == 'full' else '_' + strategy.name}.csv"


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser(ParaphraseSettings, "Paraphrase detection with GPT-2.", EXAMPLES, shown_defaults(TASK))
    parser.add_argument("--list-strategies", action="store_true", help="print the table of strategies and stop")
    settings, given = parse_settings(ParaphraseSettings, parser, sys.argv[1:] if argv is None else argv)
    if "list_strategies" in given:
        from training.strategy_table import strategy_table

        print(strategy_table(TASK))
        return 0

    from training.interrupt import Signals

    signals = Signals().install()
    if settings.predict is not None or settings.predict_file is not None:
        return label_pairs(settings, given)

    from training.classification.preparation import TaskScript, prepare_runs
    from training.classification.run import run_classification
    from training.device import leave_process_group

    script = TaskScript(
        script="paraphrase_detection.py",
        task=TASK,
        datasets=PARAPHRASE_TASKS,
        settings_class=ParaphraseSettings,
        own_files_as="qqp",
        predictions_column="Predicted_Is_Paraphrase",
        example=("How do I learn Java?", "What is the best way to learn Java?"),
        predictions_file=predictions_file,
        complete=complete,
    )
    for run in prepare_runs(script, settings, given):
        run_classification(run, signals)
    leave_process_group()
    return 0


def complete(run: ClassificationRun) -> ClassificationRun:
    """Adds what is special about pairs: their orders, the answers in words, and the probe set."""
    from training.classification.probes import read_probes

    settings: Any = run.settings
    probes = read_probes(PROBES, run.label_names, str.strip if settings.keep_case else clean_question)

    def measure_probes(predictions: dict[str, Predictions]) -> dict[str, Any]:
        return {"probes": probes.measure(predictions["probes"])}

    return replace(
        run,
        answers=ANSWERS,
        both_orders=settings.both_orders,
        symmetric=settings.symmetric,
        overlap=overlap_of_pairs,
        extra_splits={"probes": probes.split},
        measure_more=measure_probes,
    )


def overlap_of_pairs(splits: dict[str, Split]) -> dict[str, Any]:
    """Repeated pairs, as for any text, and how many single questions of dev and test the model has seen in train."""
    return {**overlap_report(splits), "questions": question_overlap(splits)}


def label_pairs(settings: ParaphraseSettings, given: set[str]) -> int:
    """``--predict`` and ``--predict-file``: prints the label, the probabilities and both questions, a line per pair."""
    from training.classification.labelling import check_flags, print_labels, read_lines

    check_flags(settings, given)
    if settings.predict is not None:
        where, rows = "--predict", [tuple(settings.predict)]
    else:
        where = str(settings.predict_file)
        rows = [tuple(line.split("\t")) for line in read_lines(Path(where))]
    problems = [
        f"{where}:{number}: two questions with a tab between them are needed, and none may be empty"
        for number, row in enumerate(rows, start=1)
        if len(row) != 2 or not all(text.strip() for text in row)
    ]
    if problems:
        raise UserError(problems[:20])

    def clean(row: tuple[str, ...], keep_case: bool) -> Example:
        first, second = (text.strip() if keep_case else clean_question(text) for text in row)
        return Example("", first, None, 0, second=second)

    print_labels(settings, TASK, rows, clean)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
