"""Text with GPT-2: fine-tuned on texts, or on pairs of a question and its answer, it goes on with what is begun.

python text_generation.py                                       # trains on the bundled English pairs
python text_generation.py --language ko --strategy lora
python text_generation.py --prompt "How was your day?"          # writes with the run that was finished last
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import AT_LEAST_ONE, DATA, DECODING, NOT_NEGATIVE, RUN, TextTaskSettings, UserError, setting
from tasks.files import JSON_LINES, nfc
from tasks.passages import CHATBOT, PLAIN_TEXT, Passage, Passages, read_dataset
from training.cli import run_script
from training.writing.task_cli import chosen_rows, text_task_main

if TYPE_CHECKING:
    from training.writing.run import Writer, WritingRun
    from training.writing.targets import Written
    from training.writing.task import TextTask
    from training.writing.task_texts import TaskData, TaskEncoder, TaskText

TASK = "text-generation"
ANSWER = "<answer>"
REPEATED = 4  # words in a row
EXAMPLES = """\
  python text_generation.py --language ko --strategy lora
  python text_generation.py --dataset chatbot --data-dir data --epochs 3
  python text_generation.py --train-file poems.txt --dev-file more.txt --document-separator ''
  python text_generation.py --prompt "How was your day?" --temperature 0.9 --top-k 40
  python text_generation.py --prompt "How was your day?" --temperature 0 --num-beams 4"""


@dataclass(frozen=True)
class TextGenerationSettings(TextTaskSettings):
    """The settings of a text generation run."""

    dataset: str | None = setting(
        None, "a published dataset in --data-dir: chatbot, Korean questions and answers", group=DATA,
        choices=("chatbot",), identity=False,
    )  # fmt: skip
    document_separator: str = setting(
        "<|endoftext|>", "the line between two documents of a plain text; '' makes each file one document "
        "(default: <|endoftext|>)", group=DATA,
    )  # fmt: skip
    text_field: str = setting("text", "the field of JSON lines that holds the text", group=DATA, metavar="NAME")
    begin_words: int = setting(
        8, "words of each dev and test document that are given when the model goes on with it", group=DATA,
        within=AT_LEAST_ONE,
    )  # fmt: skip

    temperature: float = setting(
        0.7, "of sampling: below 1 sharper, above 1 flatter; 0 takes the likeliest token", group=DECODING,
        within=NOT_NEGATIVE,
    )  # fmt: skip

    prompt: str | None = setting(
        None, "don't train: write after this text with a finished run, shown as it grows", group=RUN, identity=False
    )


def main(argv: Sequence[str] | None = None) -> int:
    return text_task_main(
        TASK, TextGenerationSettings, "Text generation with GPT-2.", EXAMPLES, argv, make_task, write_after_prompt
    )


def make_task() -> TextTask:
    from training.writing.task import TextTask

    return TextTask(
        name=TASK,
        script="text_generation.py",
        settings_class=TextGenerationSettings,
        task_tokens=(ANSWER,),
        template=("question", ANSWER),
        sample_ending="csv",
        datasets={"chatbot": CHATBOT},
        read=read,
        make=make,
        finish=finish,
        show=show,
        asks=("prompt",),
    )


# ---------------------------------------------------------------------------------------------------------------------
# The texts
# ---------------------------------------------------------------------------------------------------------------------


def read(paths: Mapping[str, Sequence[Path]], settings: TextGenerationSettings) -> Passages:
    found = read_dataset(paths, settings.dataset, settings.document_separator, settings.text_field)
    problems = unused(paths, found, settings)
    if problems:
        raise UserError(problems)
    rows = chosen_rows(found.splits, settings)
    if settings.hold_out is not None and settings.limit_train is None and not rows["train"]:
        raise UserError(held_out_all(paths["train"][0], found.splits["train"], settings))
    return Passages(rows, found.notes)


def unused(paths: Mapping[str, Sequence[Path]], found: Passages, settings: TextGenerationSettings) -> list[str]:
    """Refuses flags that change nothing about what was read: the run would have another folder for nothing."""
    usual, endings = TextGenerationSettings(), {path.suffix.lower() for files in paths.values() for path in files}
    are_pairs = any(passage.question is not None for passages in found.splits.values() for passage in passages)
    has_no_use = {
        "begin_words": "of pairs, the whole question is given" if are_pairs else "",
        "keep": "" if are_pairs else "long texts are read in pieces, not cut",
        "loss_on": "" if are_pairs else "a text that answers nothing is a target as a whole",
        "text_field": "" if endings & {*JSON_LINES} and not are_pairs else "no JSON lines with texts are read",
        "document_separator": "" if endings & {*PLAIN_TEXT} else "no plain text is read",
    }
    return [
        f"--{name.replace('_', '-')}: {why}; leave it out"
        for name, why in has_no_use.items()
        if why and getattr(settings, name) != getattr(usual, name)
    ]


def held_out_all(path: Path, passages: Sequence[Passage], settings: TextGenerationSettings) -> str:
    """Why no text to train on is left, and what to do: mostly, all of a book is one document."""
    plain, one = path.suffix.lower() in PLAIN_TEXT, len(passages) == 1
    count = f"1 {'document' if plain else 'text'}" if one else f"all {len(passages)} texts are the same"
    if plain and one and settings.document_separator:
        remedy = f"put a line {settings.document_separator!r} between documents, or name their separator by "
        remedy += "--document-separator"
    elif plain and one:
        remedy = "name a line that stands between documents by --document-separator"
    else:
        remedy = f"give {'more' if one else 'others too'}, or a --dev-file"
    return f"{path}: {count}, and --hold-out {settings.hold_out} keeps {'it' if one else 'them'} back; {remedy}"


@dataclass(frozen=True)
class Own:
    """The passages of each split; and split -> id of a text that is learnt -> that of the passage it is a piece of."""

    passages: dict[str, list[Passage]]
    passage_of: dict[str, dict[str, str]]


def make(found: Passages, settings: TextGenerationSettings, encoder: TaskEncoder) -> TaskData:
    from training.writing.task_texts import TaskData

    passages = found.splits
    pieces = {
        split: [(passage.id, text) for passage in of_split for text in whole(passage, encoder)]
        for split, of_split in passages.items()
    }
    texts = {split: [text for _, text in of_split] for split, of_split in pieces.items()}
    n_passages = sum(map(len, passages.values()))
    n_texts = sum(map(len, texts.values()))
    notes = found.notes
    if n_texts > n_passages:
        notes += (f"documents longer than the context of {encoder.context} tokens are read in {n_texts} pieces",)
    own = Own(passages, {split: {text.id: id_ for id_, text in of_split} for split, of_split in pieces.items()})
    return TaskData(
        texts["train"], texts["dev"], texts.get("test", []), notes, extra=own,
        prompted={
            split: [(begun(passage, settings.begin_words),) for passage in of_split]
            for split, of_split in passages.items()
            if split != "train"
        },
        sources={split: [(one.id, one.source) for one in of_split] for split, of_split in passages.items()},
    )  # fmt: skip


def whole(passage: Passage, encoder: TaskEncoder) -> list[TaskText]:
    """What is learnt: the answer to a question, or a text, in pieces that fit the context."""
    from training.writing.task_texts import TaskText

    if passage.question is not None:
        return [after_question(passage)]
    pieces = encoder.pieces(passage.text, encoder.context - 1)
    last = len(pieces) - 1
    return [
        TaskText(f"{passage.id}, piece {i + 1}" if last else passage.id, (), piece, ends=i == last)
        for i, piece in enumerate(pieces)
    ]


def after_question(passage: Passage) -> TaskText:
    from training.writing.task_texts import Part, TaskText

    return TaskText(passage.id, (Part(str(passage.question), "source"), Part(ANSWER, "token")), passage.text)


def begun(passage: Passage, n_words: int) -> TaskText:
    """What is to be written: the answer, or the rest of a text whose first words are given."""
    from training.writing.task_texts import Part, TaskText

    if passage.question is not None:
        return after_question(passage)
    *_, last = islice(re.finditer(r"\S+", passage.text), n_words)
    given, rest = passage.text[: last.end()], passage.text[last.end() :]
    return TaskText(passage.id, (Part(given, "begun"),), rest.lstrip())


# ---------------------------------------------------------------------------------------------------------------------
# Writing and measuring
# ---------------------------------------------------------------------------------------------------------------------


def finish(run: WritingRun, writer: Writer, data: TaskData) -> dict[str, Any]:
    """Lets the model write after each dev and test prompt, and measures what it wrote."""
    from tasks.intervals import mean_intervals
    from training.writing.targets import write_targets
    from training.writing.written import save_written

    settings: Any = run.settings
    own: Own = data.extra
    found: dict[str, Any] = {"samples": settings.samples, "pairs": own.passages["train"][0].question is not None}
    seconds, count = 0.0, 0
    for split in ("dev", "test"):
        texts = [begun(passage, settings.begin_words) for passage in own.passages.get(split, [])]
        if not texts:
            continue
        started = time.perf_counter()
        written = [
            (text, new)
            for sample in range(settings.samples)
            for text, new in zip(texts, write_targets(writer, texts, settings, sample=sample), strict=True)
        ]
        seconds, count = seconds + time.perf_counter() - started, count + len(written)
        found[split], columns, found[f"{split}_ci"] = measure(written, found["pairs"], settings.seed, settings.samples)
        found[split]["n"] = len(texts)
        likely = likelihoods(run, writer, split, own.passage_of[split])
        by_text = [likely.get(text.id, (math.nan, 0)) for text in texts]
        said = [mean for mean, n_tokens in by_text if n_tokens]
        if said:  # with --skip-long there may be none of test
            found[split]["log_likelihood"] = sum(said) / len(said)
        found[f"{split}_ci"] |= mean_intervals({"log_likelihood": said}, settings.seed)
        columns["log_likelihood"] = [mean for mean, _ in by_text] * settings.samples
        columns["target_tokens"] = [float(n_tokens) for _, n_tokens in by_text] * settings.samples
        with run.folder.writing():
            save_written(run, split, written, columns)
    found["seconds_per_text"] = round(seconds / max(count, 1), 3)
    return found


def likelihoods(
    run: WritingRun, writer: Writer, split: str, passage_of: Mapping[str, str]
) -> dict[str, tuple[float, int]]:
    """How likely the model finds each true text or answer that its perplexity counts.

    Returns:
        Passage's id -> the mean log-probability of its tokens, in nats, those of all its pieces together, and how many
        tokens these are; without the end token.
    """
    from models.language_model import GPT2LanguageModel
    from training.writing import job

    name = "report" if split == "dev" else split
    assert run.task_part is not None and run.settings.batch_size is not None
    texts, encoded, model = run.texts[name], run.task_part.encoded[name], GPT2LanguageModel(writer.gpt2)
    sums: dict[str, tuple[float, int]] = {}
    for one in job.likelihoods(model, texts, encoded, run.settings.batch_size, writer.device, writer.check):
        nats, n_tokens = sums.get(passage_of[one.id], (0.0, 0))
        sums[passage_of[one.id]] = nats + one.nats, n_tokens + one.n_tokens
    return {id_: (-nats / n_tokens, n_tokens) for id_, (nats, n_tokens) in sums.items()}


def measure(
    written: Sequence[tuple[TaskText, Written]], pairs: bool, seed: int, samples: int = 1
) -> tuple[dict[str, float], dict[str, list[float]], dict[str, list[float]]]:
    """The measures of all texts together, those of each text, and 95 % intervals over prompts.

    Args:
        written: one text after each prompt, then the next sample of each, and so on.
        samples: texts after each prompt; as they are alike, a prompt is drawn with all of them.
    """
    import numpy as np

    from poetry.measures import distinct, seq_rep
    from poetry.overlap import chrf, chrf_counts, chrf_of_counts
    from tasks.intervals import interval, mean_intervals
    from tasks.rouge import words_of

    words = [words_of(new.text) for _, new in written]
    columns: dict[str, list[float]] = {
        "repetition": [seq_rep(text, REPEATED) for text in words],
        "stopped": [float(new.stopped) for _, new in written],
        "words": [float(len(text)) for text in words],
    }
    values = {name: sum(column) / len(column) for name, column in columns.items()}
    values |= {f"distinct_{n}": distinct(words, n) for n in (1, 2)}
    by_prompt = {name: np.reshape(column, (samples, -1)).mean(axis=0).tolist() for name, column in columns.items()}
    intervals = mean_intervals(by_prompt, seed)
    if pairs:
        answers, truth = [new.text for _, new in written], [text.target for text, _ in written]
        counts = chrf_counts(answers, truth)
        values["chrf"] = chrf(answers, truth)
        columns["chrf"] = [float(x) for x in chrf_of_counts(counts)]
        together = counts.reshape(samples, -1, *counts.shape[1:]).sum(axis=0)  # (prompts, ...)
        intervals["chrf"] = interval(len(together), lambda rows: chrf_of_counts(together[rows].sum(axis=1)), seed)
    return values, columns, intervals


def write_after_prompt(task: TextTask, settings: TextGenerationSettings, given: set[str]) -> bool:
    """``--prompt``: no training; a finished run goes on with the text, token by token on the terminal."""
    if settings.prompt is None:
        return False
    from training.writing.finished import asked_run, open_writer
    from training.writing.targets import stream_target

    folder, chosen = asked_run(task, settings, given)
    pairs = folder.metrics()["pairs"]
    writer = open_writer(task, folder, chosen)
    prompt = nfc(settings.prompt)
    passage = Passage("prompt", "", prompt if pairs else None)
    for sample in range(chosen.samples):
        text = prompt_text(passage, prompt)
        stream_target(writer, text, chosen, print_piece, sample, begun=None if pairs else prompt)
        print()
    return True


def prompt_text(passage: Passage, prompt: str) -> TaskText:
    from training.writing.task_texts import Part, TaskText

    if passage.question is not None:
        return after_question(passage)
    return TaskText(passage.id, (Part(prompt, "begun"),), "")


def print_piece(piece: str) -> None:
    print(piece, end="", flush=True)


# ---------------------------------------------------------------------------------------------------------------------
# For a person's eyes
# ---------------------------------------------------------------------------------------------------------------------

SHOWN = ("perplexity", "chrf", "distinct_1", "distinct_2", "repetition", "stopped", "words")


def show(metrics: dict[str, Any]) -> None:
    from training.writing.written import measures_table

    print(measures_table(metrics, SHOWN))
    print(
        f"\n{metrics['dataset']}, {metrics['model']}, {metrics['strategy']}: dev perplexity "
        f"{metrics['dev']['perplexity']:.1f}, epoch {metrics['best_epoch']} of {metrics['epochs']}; "
        f"{metrics['seconds_per_text']:.2f} s per text"
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
