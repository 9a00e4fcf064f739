"""Sentiment classification with GPT-2: SST-5, CFIMDB, NSMC, or your own files.

python classifier.py --fine-tune-mode full-model            # SST, then CFIMDB, on the CPU
python classifier.py --strategy ulmfit --dataset sst --use_gpu
python classifier.py --predict "a film to fall in love with"
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from config import DATA, RUN, ClassificationSettings, UserError, setting
from datasets import SENTIMENT_TASKS, Example
from strategies import FINE_TUNE_MODES, Strategy, shown_defaults
from training.cli import build_parser, parse_settings, run_script

TASK = "sentiment"
MODES = {strategy: mode for mode, strategy in FINE_TUNE_MODES.items()}
EXAMPLES = """\
  python classifier.py --fine-tune-mode full-model --use_gpu
  python classifier.py --fine-tune-mode last-linear-layer --dataset cfimdb
  python classifier.py --strategy lora --lora-rank 4 --dataset sst --seed 1
  python classifier.py --model ./my-gpt2 --data-dir ./cs224n --dataset sst --strategy ulmfit
  python classifier.py --model distilbert-base-uncased --dataset sst
  python classifier.py --strategy full --dataset sst --train-fraction 0.1
  python classifier.py --train-file train.tsv --dev-file dev.tsv --model mini
  python classifier.py --predict "a film to fall in love with\""""


@dataclass(frozen=True)
class ClassifierSettings(ClassificationSettings):
    """The settings of a sentiment run."""

    dataset: list[str] = setting(
        ["sst", "cfimdb"], "datasets, one run each", group=DATA, choices=("sst", "cfimdb", "nsmc"), identity=False
    )
    train_file: str | None = setting(
        None, "your own training file, tab- or comma-separated, with columns sentence and label (and id)",
        group=DATA, metavar="FILE", identity=False,
    )  # fmt: skip
    predict: str | None = setting(
        None, "label this text with a finished run, and stop", group=RUN, metavar="TEXT", identity=False
    )


def predictions_file(settings: ClassifierSettings, strategy: Strategy, dataset: str) -> str:
    """The course's name: the mode, or the strategy where there is no mode for it, the dataset, the split."""
    return f"{MODES.get(strategy.name, strategy.name)}-{dataset}-{{split}}-out.csv"


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser(ClassifierSettings, "Sentiment classification with GPT-2.", EXAMPLES, shown_defaults(TASK))
    parser.add_argument("--list-strategies", action="store_true", help="print the table of strategies and stop")
    settings, given = parse_settings(ClassifierSettings, parser, sys.argv[1:] if argv is None else argv)

    if "list_strategies" in given:
        from training.strategy_table import strategy_table

        chosen = ["custom"] if settings.train_file else settings.dataset if "dataset" in given else ()
        print(strategy_table(TASK, chosen))
        return 0

    from training.interrupt import Signals

    signals = Signals().install()
    if settings.predict is not None or settings.predict_file is not None:
        return label_texts(settings, given)

    from training.classification.preparation import TaskScript, prepare_runs
    from training.classification.run import run_classification, show_summary
    from training.device import leave_process_group

    script = TaskScript(
        script="classifier.py",
        task=TASK,
        datasets=SENTIMENT_TASKS,
        settings_class=ClassifierSettings,
        predictions_column="Predicted_Sentiment",
        example=("a film to fall in love with",),
        predictions_file=predictions_file,
    )
    runs = prepare_runs(script, settings, given)
    for run in runs:
        run_classification(run, signals)
    if not settings.dry_run:
        show_summary(runs)
    leave_process_group()
    return 0


def label_texts(settings: ClassifierSettings, given: set[str]) -> int:
    """``--predict`` and ``--predict-file``: prints the label, the probabilities and the text, one line each."""
    from training.classification.labelling import check_flags, print_labels, read_lines

    check_flags(settings, given)
    texts = [settings.predict] if settings.predict is not None else read_lines(Path(str(settings.predict_file)))
    where = [
        "--predict" if settings.predict is not None else f"{settings.predict_file}:{number}"
        for number, text in enumerate(texts, start=1)
        if not text.strip()
    ]
    if where:
        raise UserError([f"{place}: there is no text to label; write some" for place in where[:20]])

    def clean(row: tuple[str, ...], keep_case: bool) -> Example:
        text = row[0].strip()
        return Example("", text if keep_case else text.lower(), None, 0)

    print_labels(settings, TASK, [(text,) for text in texts], clean)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
