"""Model cards: the README.md of a checkpoint, with facts that programs read in the YAML block at its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from config import UserError
from storage import write_text


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


STANDS_FOR = {  # the task's other datasets take their rates
    "sentiment": ("sst", "nsmc"),
    "paraphrase": ("qqp",),
    "inference": ("sick", "kornli"),
    "question-answering": ("squad", "korquad"),
    "text-generation": ("chatbot",),
    "summarization": ("bbc",),
}


def fine_tuning_defaults(
    folder: Path, dataset: str, strategy: str, published: dict[str, Any], task: str | None = None
) -> dict[str, Any]:
    """The settings that a bundled checkpoint brings for a dataset and a strategy: ``fine_tuning: {dataset: {...}}``.

    A strategy that the card does not have for the dataset takes what it says of the task's first one. Where that has
    none either, the published rates, which are for the 124M model, times the card's ``rate_factor``.
    """
    rates = read_card(folder).get("fine_tuning", {})
    found = _searched(rates, dataset, strategy, task)
    if found is not None:
        return found
    factor = rates.get("rate_factor", 1.0)
    return {name: published[name] * factor for name in ("lr", "lm_lr") if published.get(name)}


def notes_of_guess(
    folder: Path, dataset: str, strategy: str, given: set[str], task: str | None = None
) -> tuple[str, ...]:
    """That the learning rate was never searched, where it is neither the user's nor the card's."""
    rates = read_card(folder).get("fine_tuning", {})
    if "lr" in given or "rate_factor" not in rates or _searched(rates, dataset, strategy, task) is not None:
        return ()
    return (
        f"the learning rate is a guess, the published one times {rates['rate_factor']:g}: {folder.name}'s card has "
        f"none for {strategy} on {dataset}; experiments/search_rates.py finds one, --lr sets it",
    )


def _searched(rates: dict[str, Any], dataset: str, strategy: str, task: str | None) -> dict[str, Any] | None:
    """What a card says of a strategy on a dataset, or else on the first of its task's that has it."""
    known = (rates.get(name, {}).get(strategy) for name in (dataset, *STANDS_FOR.get(task or "", ())))
    return next((found for found in known if found is not None), None)


def _heading(pipeline_tag: str, title: str) -> str:
    """The block that the Hub reads, and the title; a line break follows."""
    return f"---\nlibrary_name: transformers\npipeline_tag: {pipeline_tag}\n---\n\n# {title}\n"


def write_classifier_card(
    folder: Path,
    metrics: dict[str, Any],
    base_model: str,
    preparation: str,
    pipeline_reads: str | dict[str, str] | None,
    command: str,
) -> None:
    """The card of a fine-tuned classifier: what it is, how it was made, how good it is, and how it is used.

    Args:
        preparation: says what is done to a text before it is tokenized.
        pipeline_reads: a prepared example for the pipeline of ``transformers``; None where that can't compute what this
            model says.
        command: what labels the example instead, from the repository's root.
    """
    dev, interval = metrics["dev"], metrics["dev_ci"]["accuracy"]
    title = f"{base_model} for {metrics['task']} on {metrics['dataset']}"
    write_text(
        folder / "README.md",
        f"""{_heading("text-classification", title)}
Fine-tuned with the strategy `{metrics["strategy"]}`, seed {metrics["seed"]}; this is epoch {metrics["best_epoch"]} of \
{metrics["epochs"]}, the one with the best dev accuracy.

| split | accuracy | macro-F1 | n |
|---|---|---|---|
| dev | {dev["accuracy"]:.3f} (95 % CI {interval[0]:.3f}-{interval[1]:.3f}) | {dev["macro_f1"]:.3f} | {dev["n"]} |

{_about_comparator(metrics)}\
{preparation}

{_labelled(pipeline_reads, command)}
""",
    )


def _labelled(pipeline_reads: str | dict[str, str] | None, command: str) -> str:
    if pipeline_reads is None:
        return f"""`transformers` alone can't compute what this model says. In the project's folder, where RUN is the \
folder that holds this one:

```bash
{command}
```"""
    return f"""```python
from transformers import pipeline

pipeline("text-classification", model=".")({pipeline_reads!r})
```"""


def _about_comparator(metrics: dict[str, Any]) -> str:
    if not metrics.get("comparator"):
        return ""
    return "No GPT-2: it was trained to compare GPT-2 with, by the same loop on the same data.\n\n"


SHOWN_SETTINGS = (
    "lr", "epochs", "batch_size", "accumulate", "schedule", "warmup", "weight_decay", "dropout", "max_grad_norm",
    "last_n", "lora_rank", "lora_alpha", "prefix_length", "prefix_hidden", "ul_alpha", "ul_sequence", "loss_on", "keep",
    "seed",
)  # fmt: skip


def write_writer_card(folder: Path, facts: dict[str, Any]) -> None:
    """The card of a language model that was fine-tuned on a task's texts: what it is, how it was made and is used.

    Args:
        facts: task, dataset, model, strategy, settings, prompt (an example of what the model goes on with), names
            (task token -> what the vocabulary calls it), has_prefix.
    """
    settings = [(name, getattr(facts["settings"], name, None)) for name in SHOWN_SETTINGS]
    rows = "\n".join(f"| {name.replace('_', '-')} | {value} |" for name, value in settings if value is not None)
    tokens = "".join(f"`{name}` is `{token}`. " for name, token in facts["names"].items() if name != token)
    title = f"{facts['model']} for {facts['task']} on {facts['dataset']}"
    write_text(
        folder / "README.md",
        f"""{_heading("text-generation", title)}
Fine-tuned with the strategy `{facts["strategy"]}`.

| setting | value |
|---|---|
{rows}

The model goes on with texts like this one, without spaces around special tokens. {tokens}The first token has to be \
put in front by hand; the model ends with the same one.

```python
{_continued(facts["prompt"], facts["has_prefix"])}
```
""",
    )


def _continued(prompt: str, has_prefix: bool) -> str:
    if has_prefix:
        return f"prompt = {prompt!r}  # GPT2LMHeadModel can't hold the prefix beside it; use the project's script"
    return f"""from transformers import AutoTokenizer, GPT2LMHeadModel

tokenizer, model = AutoTokenizer.from_pretrained("."), GPT2LMHeadModel.from_pretrained(".")
ids = tokenizer({prompt!r}, add_special_tokens=False, return_tensors="pt").input_ids
new = model.generate(ids, max_new_tokens=40, eos_token_id=model.config.eos_token_id)[0, ids.shape[1] :]
print(tokenizer.decode(new, skip_special_tokens=True))"""


def write_language_model_card(folder: Path, facts: dict[str, Any]) -> None:
    """The card of a pretrained model: its data, settings, cost and measured quality.

    Args:
        facts: name, config, manifest (of the corpus), metrics, passes, settings, schedule, start, window,
            batch_tokens, dropout, device, command.
    """
    config, metrics, settings = facts["config"], facts["metrics"], facts["settings"]
    measured, cost, manifest = metrics["validation"], metrics["cost"], facts["manifest"]
    sources = "\n".join(
        f"| {Path(source['path']).name} | {source['weight']:g} | `{source['sha256'][:16]}` |"
        for source in manifest["sources"]
    )
    start = f"continued from {facts['start']}" if facts["start"] else "trained from scratch"
    best_tokens = metrics["best_step"] * facts["batch_tokens"]
    write_text(
        folder / "README.md",
        f"""{_heading("text-generation", facts["name"])}
A GPT-2 of {config.n_layer} blocks, {config.n_embd} wide, {config.n_head} heads, context {config.n_positions}, \
{config.vocab_size:,} tokens of vocabulary ({manifest["tokenizer"]["type"]}), {cost["total_parameters"]:,} parameters; \
{start}.

## Quality

On the corpus's validation split, {measured["documents"]:,} documents and {measured["tokens"]:,} tokens, each document \
read after the end token in windows of {facts["window"]} tokens that move by half of that:

| bits per byte | loss (nats per token) | perplexity | next-token accuracy |
|---|---|---|---|
| {measured["bits_per_byte"]:.4f} | {measured["loss"]:.4f} | {measured["perplexity"]:.2f} | {measured["accuracy"]:.4f} |

## Data

{manifest["splits"]["train"]["n_documents"]:,} documents, {manifest["splits"]["train"]["n_tokens"]:,} tokens.

| source | weight | sha256 (begins) |
|---|---|---|
{sources}

## Training

```bash
{facts["command"]}
```

{metrics["tokens"]:,} tokens ({facts["passes"]} passes over the corpus) in {metrics["steps"]:,} updates of \
{facts["batch_tokens"]:,} tokens, windows of {facts["window"]}; AdamW, peak rate {settings.lr:g}, {facts["schedule"]} \
schedule, beta2 {settings.beta2:g}, weight decay {settings.weight_decay:g}, gradient norm at most \
{settings.max_grad_norm:g}, dropout {facts["dropout"]}, seed {settings.seed}. \
{cost["total_seconds"] / 60:.0f} minutes on {facts["device"]}: {cost["tokens_per_second"]:,.0f} tokens per second, \
{cost["share_of_peak"]:.0%} of what matrix products reach there.

These weights are those after {metrics["best_step"]:,} updates, {best_tokens:,} tokens: of {metrics["epochs"]:,} \
evaluation{"s" * (metrics["epochs"] > 1)} along the way it was the one with the lowest validation loss.
""",
    )
