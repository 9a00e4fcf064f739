"""Model cards: the README.md of a checkpoint, with facts that programs read in the YAML block at its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from config import UserError


def read_card(folder: Path) -> dict[str, Any]:
    """The YAML block at the head of a card; empty where there is no card, or no block.

    Raises:
        UserError: the block is not YAML.
    """
    import yaml

    path = folder / "README.md"
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    if not text.startswith("---\n"):
        return {}
    block = text[4:].partition("\n---")[0]
    try:
        return yaml.safe_load(block) or {}
    except yaml.YAMLError as error:
        raise UserError(
            f"{path}: the block between the --- lines is not YAML ({' '.join(str(error).split())})"
        ) from None


def fine_tuning_defaults(folder: Path, dataset: str, strategy: str) -> dict[str, Any]:
    """The settings that a bundled checkpoint brings for a dataset and a strategy: ``fine_tuning: {dataset: {...}}``."""
    return read_card(folder).get("fine_tuning", {}).get(dataset, {}).get(strategy, {})


def write_classifier_card(folder: Path, metrics: dict[str, Any], base_model: str) -> None:
    """The card of a fine-tuned classifier: what it is, how it was made, and how good it is."""
    from models.checkpoint import write_text

    dev, interval = metrics["dev"], metrics["dev_ci"]["accuracy"]
    write_text(
        folder / "README.md",
        f"""---
library_name: transformers
pipeline_tag: text-classification
---

# {base_model} for {metrics["task"]} on {metrics["dataset"]}

Fine-tuned with the strategy `{metrics["strategy"]}`, seed {metrics["seed"]}; this is epoch {metrics["best_epoch"]} of \
{metrics["epochs"]}, the one with the best dev accuracy.

| split | accuracy | macro-F1 | n |
|---|---|---|---|
| dev | {dev["accuracy"]:.3f} (95 % CI {interval[0]:.3f}-{interval[1]:.3f}) | {dev["macro_f1"]:.3f} | {dev["n"]} |

The text is {"kept as it is" if metrics.get("keep_case") else "lower-cased and stripped"} before it is tokenized.

```python
from transformers import pipeline

pipeline("text-classification", model=".")("a film to fall in love with")
```
""",
    )
