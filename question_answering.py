"""Question answering with GPT-2: it reads a text and a question, and writes the answer.

The model learns to continue ``context <question> question <answer> answer``. A context that is too long is read in
windows; the answer that the model is surest of wins.

python question_answering.py                                            # the bundled English sample; --language ko
python question_answering.py --dataset korquad --data-dir FOLDER --strategy lora --stride 128
python question_answering.py --context "Anna lives in Rome." --question "Where does Anna live?"
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from config import AT_LEAST_ONE, DATA, DECODING, NO_UNLIKELIHOOD, ROOT, RUN, TextTaskSettings, UserError, setting
from tasks.answer_scores import exact_match, f1_score
from tasks.files import nfc
from tasks.questions import DATASETS, Question, QuestionSplits, read_dataset
from training.cli import run_script
from training.writing.task_cli import chosen_rows, text_task_main

if TYPE_CHECKING:
    from training.writing.run import Writer, WritingRun
    from training.writing.targets import Written
    from training.writing.task import TextTask
    from training.writing.task_texts import TaskData, TaskEncoder

TASK = "question-answering"
SHOWN = ("perplexity", "exact_match", "f1", "in_context", "stopped")
N_SHOWN = 5  # answers that are printed
EXAMPLES = """\
  python question_answering.py --language ko --strategy full
  python question_answering.py --dataset korquad --data-dir FOLDER --strategy lora --stride 128
  python question_answering.py --train-file train.jsonl --dev-file dev.jsonl --num-beams 4
  python question_answering.py --context "Anna lives in Rome." --question "Where does Anna live?\""""


@dataclass(frozen=True)
class QuestionSettings(TextTaskSettings):
    """The settings of a run of question answering."""

    refused: ClassVar[Mapping[str, str]] = {
        **TextTaskSettings.refused,
        **NO_UNLIKELIHOOD,
        "samples": "a question gets one answer",
        "keep": "a long context is read in windows, not cut",
    }

    dataset: str | None = setting(
        None, "a published dataset in --data-dir", group=DATA, choices=tuple(DATASETS), identity=False
    )
    stride: int | None = setting(
        None, "tokens, at most, from one window's beginning to the next one's, where a context is longer than the "
        "model's (default: half of what fits)", group=DATA, metavar="N", within=AT_LEAST_ONE,
    )  # fmt: skip
    max_new_tokens: int = setting(32, "longest answer that is written", group=DECODING, within=AT_LEAST_ONE)

    context: str | None = setting(
        None, "with --question: answer from this text with a finished run, and stop", group=RUN, metavar="TEXT",
        identity=False,
    )  # fmt: skip
    question: str | None = setting(None, "see --context", group=RUN, metavar="TEXT", identity=False)


def main(argv: Sequence[str] | None = None) -> int:
    return text_task_main(
        TASK, QuestionSettings, "Question answering with GPT-2.", EXAMPLES, argv, make_task, answer_question
    )


def make_task() -> TextTask:
    from training.writing.long_contexts import ANSWER, QUESTION
    from training.writing.task import TextTask

    return TextTask(
        name=TASK,
        script="question_answering.py",
        settings_class=QuestionSettings,
        task_tokens=(QUESTION, ANSWER),
        template=("context", QUESTION, "question", ANSWER),
        sample_ending="json",
        datasets=DATASETS,
        read=read,
        make=make,
        finish=finish,
        show=show,
        asks=("context", "question"),
    )


# ---------------------------------------------------------------------------------------------------------------------
# The texts
# ---------------------------------------------------------------------------------------------------------------------


def read(paths: Mapping[str, Sequence[Path]], settings: QuestionSettings) -> QuestionSplits:
    """Reads the files; of the first questions so many as ``--limit-*`` say."""
    found = read_dataset(paths, settings.dataset)
    return QuestionSplits(chosen_rows(found.splits, settings), found.notes)


def make(records: QuestionSplits, settings: QuestionSettings, encoder: TaskEncoder) -> TaskData:
    from training.writing.long_contexts import ask
    from training.writing.task_texts import TaskData

    asked = {
        split: ask(questions, encoder, settings.max_new_tokens, settings.stride)
        for split, questions in records.splits.items()
    }
    notes = [*records.notes, f"answers are measured by the rules of {rules_of(settings)}"]
    train = asked["train"]
    prompted = {split: [one.windows for one in found] for split, found in asked.items() if split != "train"}
    if settings.skip_long:
        for split, groups in prompted.items():
            too_long = encoder.fit_prompts([windows[0] for windows in groups], 1).problems  # all have the same question
            if too_long:
                notes.append(
                    f"{split}: {len(too_long)} of {len(groups)} questions do not fit the context and are left out"
                )
                asked[split] = [one for number, one in enumerate(asked[split]) if number not in too_long]
                prompted[split] = [one.windows for one in asked[split]]
    n_learnt, n_skipped = sum(len(one.learnt) for one in train), sum(one.skipped for one in train)
    if n_skipped:
        without = sum(not one.learnt for one in train)
        notes.append(
            f"of {n_learnt + n_skipped} training windows {n_skipped} don't hold the answer and are skipped; "
            f"{without} of {len(train)} questions have none that does"
        )
    return TaskData(
        train=[text for one in train for text in one.learnt],
        dev=[one.learnt[0] for one in asked["dev"] if one.learnt],
        test=[one.learnt[0] for one in asked.get("test", []) if one.learnt],
        notes=tuple(notes),
        extra=asked,
        prompted=prompted,
        sources={split: contexts_of(questions) for split, questions in records.splits.items()},
        sources_are="contexts",
    )


def contexts_of(questions: Sequence[Question]) -> list[tuple[str, str]]:
    """Each context once, with the id of the first question about it."""
    first: dict[str, str] = {}
    for question in questions:
        first.setdefault(question.context, question.id)
    return [(id_, context) for context, id_ in first.items()]


def rules_of(settings: QuestionSettings) -> str:
    """Whose evaluation script is followed: the dataset's, else the language's."""
    dataset = DATASETS.get(settings.dataset or "")
    return dataset.rules if dataset else "korquad" if settings.language == "ko" else "squad"


# ---------------------------------------------------------------------------------------------------------------------
# Answering and measuring
# ---------------------------------------------------------------------------------------------------------------------


def finish(run: WritingRun, writer: Writer, data: TaskData) -> dict[str, Any]:
    """Answers the questions of dev and test with the best epoch's model; measures and saves the answers."""
    from storage import copy_files, write_json
    from tasks.intervals import mean_intervals_over
    from training.writing.long_contexts import write_answers
    from training.writing.written import save_written

    settings: Any = run.settings
    metrics: dict[str, Any] = {"rules": rules_of(settings)}
    for split in ("dev", "test"):
        questions = [one.question for one in data.extra.get(split, [])]
        if not questions:
            continue
        written = write_answers(writer, data.extra[split], settings)
        answers = [new for _, new in written]
        columns = measure(questions, answers, metrics["rules"])
        with run.folder.writing():
            save_written(run, split, written, columns)
            write_json(
                run.folder.predictions / predictions_file(run, split),
                {one.id: new.text for one, new in zip(questions, answers, strict=True)},
            )
        if "f1" in columns:
            means = {name: sum(column) / len(column) for name, column in columns.items()}
            metrics[split] = means | {"n": len(questions)}
            metrics[f"{split}_ci"] = mean_intervals_over([one.context for one in questions], columns, settings.seed)
        if split == "dev":
            metrics["answers"] = [
                {"question": one.question, "answer": new.text, "right": one.answers[0]}
                for one, new in zip(questions[:N_SHOWN], answers, strict=False)
            ]
    if run.settings.output_dir is None:
        with run.folder.writing():
            names = [predictions_file(run, split) for split in ("dev", "test")]
            copy_files(run.folder.predictions, ROOT / "predictions", names)
    return metrics


def measure(questions: Sequence[Question], answers: Sequence[Written], rules: str) -> dict[str, list[float]]:
    """Each answer's measures; those that need the right answer only where the file has it for every question."""
    pairs = list(zip(questions, answers, strict=True))
    columns = {
        "in_context": [float(bool(new.text) and nfc(new.text) in one.context) for one, new in pairs],
        "stopped": [float(new.stopped) for new in answers],
        "log_probability": [new.mean_log_probability for new in answers],
    }
    if all(one.answers for one in questions):
        columns["exact_match"] = [exact_match(new.text, one.answers, rules) for one, new in pairs]
        columns["f1"] = [f1_score(new.text, one.answers, rules) for one, new in pairs]
    return columns


def predictions_file(run: WritingRun, split: str) -> str:
    """What the file is called that the datasets' own evaluation scripts read: id -> answer."""
    return f"question-answering-{run.dataset}-{split}-predictions.json"


def show(metrics: dict[str, Any]) -> None:
    from training.terminal import shorten
    from training.writing.written import measures_table

    print("\nanswers to the first dev questions:")
    for row in metrics["answers"]:
        print(f"  {shorten(row['question'], 60)}  {shorten(row['answer'], 40) or '-'}  (right: {row['right']})")
    print(measures_table(metrics, SHOWN))
    dev = metrics["dev"]
    print(
        f"\n{metrics['dataset']}, {metrics['model']}, {metrics['strategy']}: dev exact match {dev['exact_match']:.3f}, "
        f"F1 {dev['f1']:.3f} by the rules of {metrics['rules']}, n {dev['n']}, epoch {metrics['best_epoch']} of "
        f"{metrics['epochs']}"
    )


def answer_question(task: TextTask, settings: QuestionSettings, given: set[str]) -> bool:
    """``--context`` and ``--question``: no training; the finished run's model answers."""
    if settings.context is None and settings.question is None:
        return False
    context, question = (nfc(text or "").strip() for text in (settings.context, settings.question))
    if not context or not question:
        raise UserError("--context and --question: one is missing or empty; give a text for each")

    from training.writing.finished import asked_run, open_writer
    from training.writing.long_contexts import answer_one

    folder, used = asked_run(task, settings, given)
    assert isinstance(used, QuestionSettings)
    writer = open_writer(task, folder, used)
    print(answer_one(writer, context, question, used, used.stride).text)
    return True


if __name__ == "__main__":
    sys.exit(run_script(main))
