"""Summaries with GPT-2: fine-tuned on documents with their summaries, it writes the summary behind <summarize>.

python summarization.py                                         # trains on the bundled English sample
python summarization.py --dataset bbc --data-dir FOLDER --strategy lora --skip-long
python summarization.py --document article.txt                  # writes with the run that was finished last
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from config import AT_LEAST_ONE, DATA, DECODING, RUN, TextTaskSettings, setting
from tasks.files import nfc, read_text
from tasks.summaries import BBC, Summaries, Summary, copied_share, lead, read_dataset, sentences
from training.cli import run_script
from training.writing.task_cli import chosen_rows, text_task_main

if TYPE_CHECKING:
    from training.writing.run import Writer, WritingRun
    from training.writing.task import TextTask
    from training.writing.task_texts import TaskData, TaskEncoder, TaskText

TASK = "summarization"
SUMMARIZE = "<summarize>"
EXAMPLES = """\
  python summarization.py --language ko --strategy lora
  python summarization.py --dataset bbc --data-dir data/bbc --epochs 3 --max-new-tokens 200 --skip-long
  python summarization.py --train-file a.jsonl --dev-file b.csv --keep end
  python summarization.py --document article.txt --from-run runs/summarization-...
  python summarization.py --strategy full --temperature 0 --num-beams 4 --no-repeat-ngram 3"""


@dataclass(frozen=True)
class SummarizationSettings(TextTaskSettings):
    """The settings of a summarization run."""

    refused: ClassVar[Mapping[str, str]] = {**TextTaskSettings.refused, "samples": "a document gets one summary"}

    dataset: str | None = setting(
        None, "a published dataset in --data-dir: bbc, English news", group=DATA, choices=("bbc",), identity=False
    )
    max_new_tokens: int = setting(96, "longest summary that is written", group=DECODING, within=AT_LEAST_ONE)
    document: str | None = setting(
        None, "don't train: summarize this file with a finished run", group=RUN, metavar="FILE", identity=False
    )


def main(argv: Sequence[str] | None = None) -> int:
    return text_task_main(
        TASK, SummarizationSettings, "Summarization with GPT-2.", EXAMPLES, argv, make_task, summarize_document
    )


def make_task() -> TextTask:
    from training.writing.task import TextTask

    return TextTask(
        name=TASK,
        script="summarization.py",
        settings_class=SummarizationSettings,
        task_tokens=(SUMMARIZE,),
        template=("document", SUMMARIZE),
        sample_ending="jsonl",
        datasets={"bbc": BBC},
        read=read,
        make=make,
        finish=finish,
        show=show,
        asks=("document",),
    )


# ---------------------------------------------------------------------------------------------------------------------
# The texts
# ---------------------------------------------------------------------------------------------------------------------


def read(paths: Mapping[str, Sequence[Path]], settings: SummarizationSettings) -> Summaries:
    """Reads the files; of the first rows so many as ``--limit-*`` say."""
    found = read_dataset(paths, settings.dataset)
    return Summaries(chosen_rows(found.splits, settings), found.notes)


def make(found: Summaries, settings: SummarizationSettings, encoder: TaskEncoder) -> TaskData:
    from training.writing.task_texts import TaskData

    texts = {split: [text_of(row) for row in rows] for split, rows in found.splits.items()}
    sources = {split: [(row.id, row.document) for row in rows] for split, rows in found.splits.items()}
    return TaskData(
        texts["train"], texts["dev"], texts.get("test", []), found.notes, extra=found.splits, sources=sources,
        sources_are="documents",
    )  # fmt: skip


def text_of(row: Summary) -> TaskText:
    from training.writing.task_texts import Part, TaskText

    return TaskText(row.id, (Part(row.document, "source"), Part(SUMMARIZE, "token")), row.summary)


# ---------------------------------------------------------------------------------------------------------------------
# Writing and measuring
# ---------------------------------------------------------------------------------------------------------------------


def finish(run: WritingRun, writer: Writer, data: TaskData) -> dict[str, Any]:
    """Summarizes the dev and test documents; beside it, their first sentences are measured in the same way."""
    from training.writing.targets import write_targets
    from training.writing.written import save_written

    settings: Any = run.settings
    n_lead = max(1, round(sum(len(sentences(row.summary)) for row in data.extra["train"]) / len(data.extra["train"])))
    found: dict[str, Any] = {"lead_sentences": n_lead, "baseline": {}}
    seconds, count = 0.0, 0
    for split in ("dev", "test"):
        rows = data.extra.get(split, [])
        if not rows:
            continue
        texts = [text_of(row) for row in rows]
        started = time.perf_counter()
        written = list(zip(texts, write_targets(writer, texts, settings), strict=True))
        seconds, count = seconds + time.perf_counter() - started, count + len(written)
        columns = measure(rows, [new.text for _, new in written], settings.language)
        columns["stopped"] = [float(new.stopped) for _, new in written]
        found[split], found[f"{split}_ci"] = together(rows, [new.text for _, new in written], columns, settings.seed)
        found[split]["n"] = len(rows)
        leads = [lead(row.document, n_lead) for row in rows]
        found["baseline"][split], _ = together(rows, leads, measure(rows, leads, settings.language), settings.seed)
        with run.folder.writing():
            save_written(run, split, written, columns)
    found["seconds_per_text"] = round(seconds / max(count, 1), 3)
    return found


def measure(rows: Sequence[Summary], summaries: Sequence[str], language: str) -> dict[str, list[float]]:
    """Each summary's measures. ``copied``: the share of its word 3-grams that stand in the document."""
    from tasks.rouge import rouge, words_of

    documents, own = [words_of(row.document) for row in rows], [words_of(text) for text in summaries]
    return {
        **rouge(summaries, [row.summary for row in rows], language),
        "words": [float(len(words)) for words in own],
        "compression": [len(words) / max(len(document), 1) for words, document in zip(own, documents, strict=True)],
        "copied": [copied_share(words, document) for words, document in zip(own, documents, strict=True)],
    }


def together(
    rows: Sequence[Summary], summaries: Sequence[str], columns: Mapping[str, Sequence[float]], seed: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The means of the measures, chrF over all summaries, and 95 % intervals over documents."""
    from poetry.overlap import chrf, chrf_counts, chrf_of_counts
    from tasks.intervals import interval, mean_intervals

    truth = [row.summary for row in rows]
    counts = chrf_counts(summaries, truth)
    said = {name: [value for value in column if value == value] for name, column in columns.items()}  # not NaN
    values = {name: sum(column) / len(column) for name, column in said.items() if column}
    intervals = mean_intervals(columns, seed)
    intervals["chrf"] = interval(len(counts), lambda drawn: chrf_of_counts(counts[drawn].sum(axis=1)), seed)
    return values | {"chrf": chrf(summaries, truth)}, intervals


def summarize_document(task: TextTask, settings: SummarizationSettings, given: set[str]) -> bool:
    """``--document``: no training; a finished run summarizes the file, token by token on the terminal."""
    if settings.document is None:
        return False
    from training.writing.finished import asked_run, open_writer
    from training.writing.targets import stream_target

    folder, chosen = asked_run(task, settings, given)
    document = nfc(read_text(Path(settings.document)).strip())
    stream_target(
        open_writer(task, folder, chosen), text_of(Summary(settings.document, document, "")), chosen,
        lambda piece: print(piece, end="", flush=True),
    )  # fmt: skip
    print()
    return True


# ---------------------------------------------------------------------------------------------------------------------
# For a person's eyes
# ---------------------------------------------------------------------------------------------------------------------

SHOWN = ("perplexity", "rouge_1", "rouge_2", "rouge_l", "chrf", "copied", "words", "compression", "stopped")


def show(metrics: dict[str, Any]) -> None:
    from training.writing.written import measures_table

    n = metrics["lead_sentences"]
    baseline = f"first {n} sentences" if n > 1 else "first sentence"
    print(measures_table(metrics, SHOWN, baseline))
    dev = metrics["dev"]
    print(
        f"\n{metrics['dataset']}, {metrics['model']}, {metrics['strategy']}: dev ROUGE-L {dev['rouge_l']:.1f} "
        f"({baseline}: {metrics['baseline']['dev']['rouge_l']:.1f}), perplexity {dev['perplexity']:.1f}, "
        f"epoch {metrics['best_epoch']} of {metrics['epochs']}; {metrics['seconds_per_text']:.2f} s per summary"
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
