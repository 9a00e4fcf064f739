"""Natural language inference with GPT-2: does the hypothesis follow from the premise, contradict it, or neither?

The model learns to continue ``premise <sep> hypothesis <nli> label``. A pair's label is the one whose word it finds
the most likely there; nothing is parsed out of free text.

python natural_language_inference.py                                    # the bundled English sample; --language ko
python natural_language_inference.py --dataset kornli --data-dir FOLDER --strategy lora
python natural_language_inference.py --premise "A dog runs." --hypothesis "An animal moves."
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from config import DATA, DECODING, NO_UNLIKELIHOOD, ROOT, RUN, TextTaskSettings, UserError, setting
from datasets import fraction_of
from tasks.files import nfc
from tasks.inference import DATASETS, LABEL_WORDS, Pair, PairSplits, read_pairs, split_of
from training.cli import names_in_group, run_script
from training.writing.task_cli import chosen_rows, text_task_main

if TYPE_CHECKING:
    from training.classification.metrics import Predictions
    from training.writing.run import Writer, WritingRun
    from training.writing.task import TextTask
    from training.writing.task_texts import TaskData, TaskEncoder, TaskText

TASK = "inference"
SEP, NLI = "<sep>", "<nli>"
PREDICTIONS_FILE, PREDICTIONS_COLUMN = "inference-{dataset}-{split}-output.csv", "Predicted_Label"
EXAMPLES = """\
  python natural_language_inference.py --language ko --strategy full
  python natural_language_inference.py --dataset sick --data-dir FOLDER --strategy prefix --label-score mean
  python natural_language_inference.py --train-file train.jsonl --dev-file dev.jsonl --label-words yes maybe no
  python natural_language_inference.py --premise "A dog runs." --hypothesis "An animal moves.\""""


@dataclass(frozen=True)
class InferenceSettings(TextTaskSettings):
    """The settings of a run of natural language inference."""

    refused: ClassVar[Mapping[str, str]] = {
        **TextTaskSettings.refused,
        **NO_UNLIKELIHOOD,
        **dict.fromkeys(names_in_group(TextTaskSettings, DECODING), "labels are scored, nothing is written"),
    }

    dataset: str | None = setting(
        None, "a published dataset in --data-dir", group=DATA, choices=tuple(DATASETS), identity=False
    )
    label_words: list[str] | None = setting(
        None, "what the model writes for each label, in the order entailment, neutral, contradiction, or, where there "
        "are two, entailment, not entailment (default: those words, 함의 중립 모순, yes no, or 예 아니요)",
        group=DATA, metavar="WORD",
    )  # fmt: skip
    label_score: str = setting(
        "sum", "of the log-probabilities of a label's tokens: their sum, or their mean, which does not favour short "
        "labels", group=DECODING, choices=("sum", "mean"),
    )  # fmt: skip
    train_fraction: float | None = setting(
        None, "train on this share of each label's pairs, drawn by the seed; a smaller share is part of a larger one "
        "(default: 1)", group=DATA, metavar="SHARE", within=("greater than 0 and at most 1", lambda x: 0 < x <= 1),
        like_unset=1.0,
    )  # fmt: skip

    premise: str | None = setting(
        None, "with --hypothesis: label this pair with a finished run, and stop", group=RUN, metavar="TEXT",
        identity=False,
    )  # fmt: skip
    hypothesis: str | None = setting(None, "see --premise", group=RUN, metavar="TEXT", identity=False)


def main(argv: Sequence[str] | None = None) -> int:
    return text_task_main(
        TASK, InferenceSettings, "Natural language inference with GPT-2.", EXAMPLES, argv, make_task, label_pair
    )


def make_task() -> TextTask:
    from training.writing.task import TextTask

    return TextTask(
        name=TASK,
        script="natural_language_inference.py",
        settings_class=InferenceSettings,
        task_tokens=(SEP, NLI),
        template=("premise", SEP, "hypothesis", NLI),
        sample_ending="tsv",
        datasets=DATASETS,
        read=read,
        make=make_texts,
        finish=finish,
        show=show,
        asks=("premise", "hypothesis"),
        evaluate=evaluate,
        score="accuracy",
        lower_is_better=False,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Texts
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """Pairs, and the texts that stand for them.

    Attributes:
        splits: the pairs of each split, and ``texts`` of the same order.
        label_names: as tables show them; ``words``: as the model writes them.
        score: ``--label-score``.
    """

    splits: Mapping[str, list[Pair]]
    texts: Mapping[str, list[TaskText]]
    label_names: tuple[str, ...]
    words: tuple[str, ...]
    score: str


def read(paths: Mapping[str, Sequence[Path]], settings: InferenceSettings) -> PairSplits:
    """Reads the files; of the first rows so many as ``--limit-*`` say, and of these the share to train on."""
    dataset = DATASETS.get(settings.dataset or "")
    found = read_pairs(paths, dataset.label_names if dataset else None)
    words_of(settings, found.label_names)
    splits, notes, share = chosen_rows(found.splits, settings), found.notes, settings.train_fraction
    if share is not None:
        train = fraction_of(split_of(splits["train"], paths["train"][0], found.label_names), share, settings.seed)
        kept = {example.id for example in train.examples}
        splits["train"] = [pair for pair in splits["train"] if pair.id in kept]
        notes += (f"train is a share of {share:g} of each label's pairs, drawn by the seed",)
    return PairSplits(splits, found.label_names, notes)


def words_of(settings: InferenceSettings, label_names: Sequence[str]) -> tuple[str, ...]:
    """What the model writes for each label."""
    words = tuple(nfc(word).strip() for word in settings.label_words or ())
    if not words:
        return LABEL_WORDS[settings.language or "en", len(label_names)]
    if len(words) != len(label_names) or len(set(words)) < len(words) or not all(words):
        raise UserError(
            f"--label-words {' '.join(words)}: give {len(label_names)} different words, for {', '.join(label_names)}"
        )
    return words


def check_tokens(words: Sequence[str], tokens: Sequence[Sequence[int]], by_mean: bool = False) -> None:
    """Refuses labels that can't be told apart.

    By the sum of log-probabilities these are labels of which one's tokens begin with all of the other's: it is never
    likelier, and would never be chosen. By their mean it may be, unless the tokens are the same.
    """
    problems = []
    for of_one, of_other in combinations(zip(words, tokens, strict=True), 2):
        (shorter, its), (longer, theirs) = sorted((of_one, of_other), key=lambda label: len(label[1]))
        if list(its) == list(theirs[: len(its)]) and not (by_mean and len(theirs) > len(its)):
            problems.append(
                f"--label-words: in this vocabulary the tokens of {longer!r} begin with all of those of {shorter!r}, "
                "so it could never be chosen; give words of which none begins another"
            )
    if problems:
        raise UserError(problems)


def make_texts(records: PairSplits, settings: InferenceSettings, encoder: TaskEncoder) -> TaskData:
    from training.writing.targets import needed_for_scoring
    from training.writing.task_texts import TaskData

    words = words_of(settings, records.label_names)
    tokens = encoder.token_ids([written(word) for word in words])
    check_tokens(words, tokens, settings.label_score == "mean")
    longest = max(map(len, tokens))
    pairs, notes = dict(records.splits), list(records.notes)
    for split in [split for split in pairs if split != "train" and settings.skip_long]:
        prompts = [text_of(pair, words) for pair in pairs[split]]
        too_long = encoder.fit_prompts(prompts, longest, needed_for_scoring(longest)).problems
        if too_long:
            notes.append(
                f"{split}: {len(too_long)} of {len(pairs[split])} pairs do not fit the context and are left out"
            )
            pairs[split] = [pair for number, pair in enumerate(pairs[split]) if number not in too_long]
    pairs = {split: of_split for split, of_split in pairs.items() if of_split or split != "test"}
    texts = {split: [text_of(pair, words) for pair in of_split] for split, of_split in pairs.items()}
    sources = {
        split: [(pair.id, f"{pair.premise}\n{pair.hypothesis}") for pair in of_split]
        for split, of_split in records.splits.items()
    }
    measured = {split: [text for text in of_split if text.target] for split, of_split in texts.items()}
    return TaskData(
        train=measured["train"],
        dev=measured["dev"],
        test=measured.get("test", []),
        notes=tuple(notes),
        extra=Labelled(pairs, texts, records.label_names, words, settings.label_score),
        prompted={split: [(text,) for text in of_split] for split, of_split in texts.items() if split != "train"},
        longest_answer=longest,
        sources=sources,
        sources_are="pairs",
    )


def text_of(pair: Pair, words: Sequence[str]) -> TaskText:
    from training.writing.task_texts import Part, TaskText

    parts = (Part(pair.premise, "source"), Part(SEP, "token"), Part(pair.hypothesis, "given"), Part(NLI, "token"))
    return TaskText(pair.id, parts, "" if pair.label is None else written(words[pair.label]))


def written(word: str) -> str:
    """A label as the model writes it: with the space that stands before a word inside a text."""
    return f" {word}"


# ---------------------------------------------------------------------------------------------------------------------
# Choosing and measuring
# ---------------------------------------------------------------------------------------------------------------------


def predict(writer: Writer, own: Labelled, split: str) -> Predictions:
    """Probabilities of the labels: each one's share of what all of them get."""
    import numpy as np
    from scipy.special import softmax

    from training.classification.metrics import Predictions
    from training.writing.targets import score_targets

    pairs, texts = own.splits[split], own.texts[split]
    candidates = [[written(word) for word in own.words]] * len(texts)
    scores = score_targets(writer, texts, candidates, mean=own.score == "mean")
    labels = [pair.label for pair in pairs]
    return Predictions(
        ids=[pair.id for pair in pairs],
        texts=[f"{pair.premise} | {pair.hypothesis}" for pair in pairs],
        probabilities=softmax(scores, axis=1),
        labels=None if None in labels else np.array(labels),
    )


def evaluate(writer: Writer, data: TaskData) -> dict[str, float]:
    """After each epoch: accuracy, which chooses the best one, and macro-F1 on the dev set."""
    from training.classification.metrics import classification_metrics

    found = predict(writer, data.extra, "dev")
    assert found.labels is not None
    measured = classification_metrics(found.labels, found.probabilities)
    return {name: measured[name] for name in ("accuracy", "macro_f1")}


def finish(run: WritingRun, writer: Writer, data: TaskData) -> dict[str, Any]:
    """Labels dev and test with the best epoch's model; measures and saves what it says."""
    from training.classification.metrics import classification_metrics
    from training.classification.run import dev_results

    own: Labelled = data.extra
    found = {split: predict(writer, own, split) for split in own.splits if split != "train"}
    metrics = dev_results(found["dev"], list(own.label_names), run.settings.seed)
    metrics |= {"label_words": list(own.words), "majority": majority(own)}
    if "test" in found and found["test"].labels is not None:
        metrics["test"] = classification_metrics(found["test"].labels, found["test"].probabilities)
    for of_split in (metrics["dev"], metrics.get("test", {})):
        if of_split:  # beside `loss`, the targets' nats per token
            of_split["label_loss"] = of_split.pop("loss")
    with run.folder.writing():
        save(run, found, metrics["confusion"], list(own.label_names))
    return metrics


def majority(own: Labelled) -> dict[str, Any]:
    """What always saying the most frequent training label would give."""
    labels = [pair.label for pair in own.splits["train"]]
    most = max(range(len(own.label_names)), key=labels.count)
    found: dict[str, Any] = {"label": own.label_names[most]}
    for split in ("dev", "test"):
        truth = [pair.label for pair in own.splits.get(split, []) if pair.label is not None]
        if truth:
            found[split] = {"accuracy": truth.count(most) / len(truth), "n": len(truth)}
    return found


def save(run: WritingRun, found: Mapping[str, Predictions], confusion: list[list[int]], labels: list[str]) -> None:
    """The same files as a classification run's."""
    from storage import copy_files
    from training.classification.plots import plot_confusion
    from training.classification.predictions import write_predictions, write_scores

    folder = run.folder.predictions
    folder.mkdir(parents=True, exist_ok=True)
    names = {split: PREDICTIONS_FILE.format(dataset=run.dataset, split=split) for split in ("dev", "test")}
    for split, predictions in found.items():
        write_predictions(predictions, PREDICTIONS_COLUMN, folder / names[split])
        write_scores(predictions, folder / f"{split}-scores.jsonl")
    title = f"{run.dataset}, {run.model_name}, {run.strategy.name}: dev"
    plot_confusion(confusion, labels, title, run.folder.path / "confusion.png")
    if run.settings.output_dir is None:
        copy_files(folder, ROOT / "predictions", names.values())


def show(metrics: dict[str, Any]) -> None:
    from training.classification.metrics import headline, report_text

    always = metrics["majority"]
    print(f"\n{report_text(metrics)}\n\n{headline(metrics)}")
    print(f"always {always['label']}, the majority class of the training pairs: {always['dev']['accuracy']:.3f}")
    if "test" in metrics and "accuracy" in metrics["test"]:
        test = metrics["test"]
        beside = f"majority class {always['test']['accuracy']:.3f}, n {test['n']}"
        print(f"test accuracy {test['accuracy']:.3f}, macro-F1 {test['macro_f1']:.3f} ({beside})")


# ---------------------------------------------------------------------------------------------------------------------
# A pair of the user's
# ---------------------------------------------------------------------------------------------------------------------


def label_pair(task: TextTask, settings: InferenceSettings, given: set[str]) -> bool:
    """``--premise`` and ``--hypothesis``: no training; the finished run's model labels the pair."""
    if settings.premise is None and settings.hypothesis is None:
        return False
    premise, hypothesis = (nfc(text or "").strip() for text in (settings.premise, settings.hypothesis))
    if not premise or not hypothesis:
        raise UserError("--premise and --hypothesis: one is missing or empty; give a text for each")

    from training.writing.finished import asked_run, open_writer

    folder, used = asked_run(task, settings, given)
    assert isinstance(used, InferenceSettings)
    saved = folder.metrics()
    writer = open_writer(task, folder, used)
    names, words = tuple(row["class"] for row in saved["classes"]), tuple(saved["label_words"])
    pair = Pair("pair", premise, hypothesis, None, 1)
    own = Labelled({"pair": [pair]}, {"pair": [text_of(pair, words)]}, names, words, used.label_score)
    (shares,) = predict(writer, own, "pair").probabilities
    for share, name, word in sorted(zip(shares, names, words, strict=True), reverse=True):
        print(f"{share:.3f}  {name}" + (f" ({word})" if word != name else ""))
    return True


if __name__ == "__main__":
    sys.exit(run_script(main))
