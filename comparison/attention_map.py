"""What a finished run's GPT-2 looks at in a text: its attention, layer by layer, as a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comparison.drawing import Picture, plain_axes, shaded_matrix
from config import UserError
from storage import write_text

if TYPE_CHECKING:
    from models.gpt2 import GPT2Model

MOST_TOKENS = 48
FAINT = 0.005  # less is not drawn
PAIR_SEPARATOR = " | "


def draw_attention_map(folder: Path, text: str, output_dir: Path) -> Path:
    """Writes ``attention.html`` and a PNG per layer into ``output_dir``; returns the page.

    Args:
        folder: of a finished run.
        text: as its model would get it; the two questions of a pair with " | " between them, task tokens written out.

    Raises:
        UserError: the run is not finished or its model is no GPT-2 of this project, or the text does not fit.
    """
    from comparison.report import picture_page

    tokens, attentions = read_attention(folder, text)
    picture = attention_picture(tokens, attentions)
    output_dir.mkdir(parents=True, exist_ok=True)
    picture.write_png(output_dir)
    page = output_dir / "attention.html"
    write_text(page, picture_page(picture, f"Attention of {folder.name}", text))
    return page


def attention_picture(tokens: Sequence[str], attentions: np.ndarray) -> Picture:
    """A panel per layer: the mean over heads of how much each token looks at itself and those before it.

    Args:
        tokens: the T tokens.
        attentions: (n_layer, n_head, T, S), rows that add up to 1; S - T keys of a prefix stand before the tokens' own.
    """
    means = np.asarray(attentions, dtype=float).mean(axis=1)  # (n_layer, T, S)
    n_prefix = means.shape[2] - len(tokens)
    columns = list(tokens)
    if n_prefix:
        means = np.concatenate([means[:, :, :n_prefix].sum(axis=2, keepdims=True), means[:, :, n_prefix:]], axis=2)
        columns.insert(0, "(prefix)")
    side = 1.1 + 0.2 * len(tokens)
    panels = []
    for layer, weights in enumerate(means, start=1):
        figure, axes = plain_axes(height=max(side, 2.4), width=max(side, 2.6))
        shaded_matrix(axes, np.where(weights < FAINT, np.nan, weights), None, tokens, columns, deepest=0.85)
        axes.tick_params(axis="x", rotation=90, labelsize=7.5)
        axes.tick_params(axis="y", labelsize=7.5)
        for label in axes.get_xticklabels():
            label.set(ha="center", rotation_mode="default")
        axes.set_title(f"layer {layer}", fontsize=9)
        axes.set_ylabel("this token")
        axes.set_xlabel("looks at")
        last = int(weights[-1].argmax())
        panels.append((f"Attention in layer {layer}; the last token looks most at “{columns[last]}”", figure))
    return Picture(
        "attention",
        "What each token looks at",
        "Each row adds up to 1; no token sees what comes after it. Heads that find nothing rest on the first token: "
        "look at what else is dark in the last row, from which the answer is read. Mean over heads.",
        tuple(panels),
    )


def read_attention(folder: Path, text: str) -> tuple[list[str], np.ndarray]:
    """The tokens of a text, and the attention (n_layer, n_head, T, S) that a finished run's best model pays to them.

    S is T, and with a prefix its length more.

    Raises:
        UserError: as :func:`draw_attention_map`.
    """
    import torch

    from models.files import read_json
    from models.tokenizer import load_tokenizer
    from modules.attention import CausalSelfAttention
    from modules.layout import TokenLayout

    if not (folder / "metrics.json").exists():
        raise UserError(f"{folder}: is no finished run (no metrics.json); finish it first")
    config = read_json(folder / "config.json")
    metrics = read_json(folder / "metrics.json")
    if metrics.get("comparator"):
        raise UserError(f"{folder}: its model is no GPT-2 of this project; choose another run")
    gpt2 = _load(folder / "best", bool(config.get("data", {}).get("label_names")))
    tokenizer = load_tokenizer(folder / "best", gpt2.config)
    task_tokens: dict[str, int] = config.get("task_tokens", {}) if metrics.get("pairs", True) else {}
    ids = _task_ids(folder / "best", task_tokens, text) if task_tokens else _token_ids(config, text, tokenizer)
    most = min(MOST_TOKENS, gpt2.max_tokens)
    if not 1 <= len(ids) <= most:
        raise UserError(f"--attention: the text has {len(ids)} tokens; give one with 1 to {most}, to be drawn")
    weights: list[torch.Tensor] = []
    attentions = [module for module in gpt2.modules() if isinstance(module, CausalSelfAttention)]
    hooks = [module.register_forward_pre_hook(_keep_weights(weights)) for module in attentions]
    layout = TokenLayout.from_mask(torch.ones(1, len(ids), dtype=torch.long))
    with torch.inference_mode():
        gpt2.encode(layout.pack(torch.tensor([ids])), layout)
    for hook in hooks:
        hook.remove()
    names = {id_: name for name, id_ in task_tokens.items()}
    return [names.get(id_) or _shown(str(tokenizer.decode([id_]))) for id_ in ids], torch.stack(weights).numpy()


def _load(best: Path, is_classifier: bool) -> GPT2Model:
    from models.classifier import load_classifier
    from models.gpt2 import GPT2Model

    if is_classifier:
        return load_classifier(best).gpt2
    return GPT2Model.from_pretrained(best)


def _token_ids(config: dict[str, Any], text: str, tokenizer: Any) -> list[int]:
    """As the run's own texts became tokens."""
    from datasets import clean_question, nfc, token_ids
    from pairs import tokenize_pairs

    text, keep_case = nfc(text), config.get("settings", {}).get("keep_case")
    if config["task"] == "paraphrase":
        if text.count(PAIR_SEPARATOR) != 1:
            raise UserError(f'--attention: this run reads pairs; write "one question{PAIR_SEPARATOR}another"')
        first, second = (part.strip() if keep_case else clean_question(part) for part in text.split(PAIR_SEPARATOR))
        return tokenize_pairs([(first, second)], tokenizer, 10**6).ids[0]
    return token_ids([text.lower() if config["task"] == "sentiment" and not keep_case else text], tokenizer)[0]


def _task_ids(best: Path, names: Mapping[str, int], text: str) -> list[int]:
    """As the texts of a run with task tokens became tokens, up to where its model answers."""
    from datasets import nfc
    from training.writing.task_texts import Part, TaskEncoder, TaskText
    from training.writing.task_tokens import saved_task_tokens

    pieces = [piece.strip() for piece in re.split(f"({'|'.join(map(re.escape, names))})", nfc(text))]
    if pieces[1::2] != list(names) or pieces[-1] or not all(pieces[:-1]):
        template = " ".join(f"… {name}" for name in names)
        raise UserError(f'--attention: this run reads texts with task tokens; write "{template}"')
    vocabulary = saved_task_tokens(best, list(names))
    encoder = TaskEncoder(vocabulary.tokenizer, vocabulary.ids, vocabulary.end, vocabulary.config.n_positions)
    parts = tuple(Part(piece, "token" if piece in names else "given") for piece in pieces[:-1])
    return encoder.fit_prompts([TaskText("--attention", parts, "")], room=0).tokens[0]


def _keep_weights(kept: list[Any]) -> Any:
    """A hook that computes a block's attention weights (n_head, T, S) by their definition, beside what it does."""
    import torch
    from einops import rearrange

    def hook(attention: Any, inputs: tuple[Any, ...]) -> None:
        x, _, prefix, _ = inputs  # one text: the packed tokens are the sequence
        query, key, _ = rearrange(attention.c_attn(x), "t (three h d) -> three h t d", three=3, h=attention.n_head)
        if prefix is not None:
            key = torch.cat([prefix[0].to(key.dtype), key], dim=1)
        before = key.shape[1] - query.shape[1]
        future = torch.ones(query.shape[1], key.shape[1], dtype=torch.bool).triu(diagonal=before + 1)
        scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        kept.append(scores.masked_fill(future, float("-inf")).softmax(dim=-1))

    return hook


def _shown(token: str) -> str:
    return token.strip() or ("↵" if "\n" in token else "·")
