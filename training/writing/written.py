"""What a model wrote, as files and as a table of measures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from storage import write_text
from training.writing.run import WritingRun
from training.writing.targets import Written
from training.writing.task_texts import TaskText


def save_written(
    run: WritingRun, split: str, written: Sequence[tuple[TaskText, Written]], columns: Mapping[str, Sequence[float]]
) -> None:
    """``<split>-written.jsonl``: prompts, true texts and written ones; ``<split>-scores.jsonl``: each text's measures.

    Args:
        columns: name -> one value per text; NaN, which says nothing, is left out.
    """
    texts, scores = [], []
    for i, (text, new) in enumerate(written):
        prompt = " ".join(part.text for part in text.parts)
        texts.append({"id": text.id, "prompt": prompt, "target": text.target, "written": new.text})
        values = {name: column[i] for name, column in columns.items() if column[i] == column[i]}
        scores.append({"id": text.id, **values})
    run.folder.predictions.mkdir(parents=True, exist_ok=True)
    for name, records in (("written", texts), ("scores", scores)):
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        write_text(run.folder.predictions / f"{split}-{name}.jsonl", "".join(lines))


def measures_table(metrics: Mapping[str, Any], names: Sequence[str], baseline: str = "") -> str:
    """The measures of dev and test with their 95 % intervals over texts.

    Args:
        baseline: what ``metrics["baseline"]`` is; empty: there is none.
    """
    lines = []
    for split in ("dev", "test"):
        if split not in metrics:
            continue
        values, intervals = metrics[split], metrics.get(f"{split}_ci", {})
        beside = metrics["baseline"][split] if baseline else {}
        lines.append(f"\n{split:<18}{'value':>9}   {'95 % interval':<20}{baseline}".rstrip())
        for name in names:
            if name in values:
                low_high = "{:.3f} to {:.3f}".format(*intervals[name]) if name in intervals else ""
                other = f"{beside[name]:.3f}" if name in beside else ""
                lines.append(f"{name:<18}{values[name]:>9.3f}   {low_high:<20}{other}".rstrip())
    return "\n".join(lines)
