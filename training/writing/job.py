"""Fine-tuning a language model on short texts, as the training loop sees it: batches, loss, perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from config import UserError, WritingSettings
from datasets import collate
from models.generation import Decoding, generate
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from modules.cross_entropy import IGNORED
from modules.unlikelihood import earlier_tokens, repeated_ngrams
from optimizer import AdamW
from training.device import Device, derive_seed
from training.fine_tuning import make_schedule
from training.interrupt import Check
from training.loop import Job, epoch_order
from training.writing.task_tokens import optimizer_groups

REPEATED_NGRAM = 4


@dataclass(frozen=True)
class Text:
    """A text to learn from, or whose end is to be written.

    Attributes:
        prompt: how it begins; nothing where it has no beginning of its own.
        rest: how it goes on.
    """

    id: str
    prompt: str
    rest: str


@dataclass(frozen=True)
class EncodedText:
    """A tokenized text between two end tokens.

    Attributes:
        tokens: the first end token, prompt, rest, and the last end token.
        n_prompt: how many of them come before the rest.
        n_words: of the rest, separated by white space.
        ends: whether the last end token is there; not where the rest goes on in another text.
    """

    tokens: list[int]
    n_prompt: int
    n_words: int
    ends: bool = True


@dataclass(frozen=True)
class Choice:
    """What decides which epoch is best.

    Attributes:
        score: a metric of the dev set.
        lower_is_better: whether it is a loss.
        shown: the metrics on the screen after an epoch.
        evaluate: the model, in evaluation -> metrics beside the perplexity; None where that is all.
    """

    score: str = "perplexity"
    lower_is_better: bool = True
    shown: tuple[str, ...] = ("perplexity", "word_perplexity")
    evaluate: Callable[[GPT2Model], dict[str, float]] | None = None


def encode_texts(texts: Sequence[Text], tokenizer: object, end: int, context: int) -> list[EncodedText]:
    """Tokenizes texts; where a prompt ends, a token ends.

    Raises:
        UserError: a text is longer than the model's context.
    """
    prompts = _ids([text.prompt for text in texts], tokenizer)
    rests = _ids([text.rest for text in texts], tokenizer)
    encoded = [
        EncodedText([end, *prompt, *rest, end], 1 + len(prompt), len(text.rest.split()))
        for text, prompt, rest in zip(texts, prompts, rests, strict=True)
    ]
    problems = [
        f"text {text.id}: its {len(row.tokens) - 1} tokens are more than the model's context of {context}; shorten it"
        for text, row in zip(texts, encoded, strict=True)
        if len(row.tokens) - 1 > context
    ]
    if problems:
        raise UserError(problems)
    return encoded


def _ids(texts: list[str], tokenizer: object) -> list[list[int]]:
    options = {"add_special_tokens": False, "padding": False, "truncation": False, "verbose": False}
    return tokenizer(texts, **options)["input_ids"] if texts else []  # type: ignore[operator]


def batch_of(
    texts: Sequence[EncodedText], where: torch.device, continuation_only: bool = False, with_end: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids, targets, attention_mask, each (B, T), padded on the right.

    Args:
        continuation_only: only the tokens after each prompt are targets.
        with_end: then the final end token is a target too.
    """
    input_ids, mask = collate([text.tokens[:-1] for text in texts])
    targets, _ = collate([text.tokens[1:] for text in texts], pad_id=IGNORED)
    if continuation_only:
        for row, text in enumerate(texts):
            targets[row, : text.n_prompt - 1] = IGNORED
            if text.ends and not with_end:
                targets[row, len(text.tokens) - 2 :] = IGNORED
    return input_ids.to(where), targets.to(where), mask.to(where)


def make_job(
    gpt2: GPT2Model,
    train: list[EncodedText],
    dev: list[EncodedText],
    settings: WritingSettings,
    device: Device,
    check: Check,
    save_best: Callable[[Path], None],
    line_break: int | None,
    choice: Choice,
    names: Sequence[str],
    continuation_only: bool = False,
) -> Job:
    """Next-token loss, with unlikelihood where it is asked for; scored by the dev texts' perplexity, or as chosen.

    Args:
        names: the ids of ``train``.
        line_break: its token, for ``--no-ul-line-breaks``.
        choice: what decides which epoch is best.
        continuation_only: only the tokens after each prompt and the end token are targets, and unlikelihood looks at
            nothing before them; else whole texts.
    """
    model = GPT2LanguageModel(gpt2)
    where = device.accelerator.device
    assert settings.lr is not None and settings.batch_size is not None
    left_out = [] if settings.ul_line_breaks in (None, True) or line_break is None else [line_break]

    def loss(model: nn.Module, indices: list[int]) -> Tensor:
        texts = [train[i] for i in indices]
        if settings.ul_sequence and _draw(settings.seed, indices) < settings.ul_sequence:
            return own_repeats(model, device.accelerator.unwrap_model(model).gpt2, texts, where)
        input_ids, targets, mask = batch_of(texts, where, continuation_only, with_end=True)
        if not settings.ul_alpha:
            return model(input_ids, targets, mask)
        starts = torch.tensor([text.n_prompt for text in texts], device=where) if continuation_only else None
        candidates = earlier_tokens(input_ids, targets, left_out, starts)
        return model(input_ids, targets, mask, candidates=candidates, alpha=settings.ul_alpha)

    def n_tokens(indices: list[int]) -> int:
        return sum(len(train[i].tokens) - 1 for i in indices)

    def n_targets(indices: list[int]) -> int:
        return (
            sum(len(train[i].tokens) - train[i].n_prompt for i in indices) if continuation_only else n_tokens(indices)
        )

    def evaluate(model: nn.Module) -> dict[str, float]:
        own = device.accelerator.unwrap_model(model)
        found = perplexity(own, dev, settings.batch_size or 8, device, check)
        return found if choice.evaluate is None else found | choice.evaluate(own.gpt2)

    return Job(
        model=model,
        optimizer=AdamW(optimizer_groups(gpt2, model, settings), lr=settings.lr),
        n_examples=len(train),
        order=lambda epoch: epoch_order(settings.seed, epoch, len(train)),
        name=lambda i: f"text {names[i]}",
        loss=loss,
        count_items=n_targets,
        count_tokens=n_tokens,
        evaluate=evaluate,
        score=choice.score,
        shown=choice.shown,
        lower_is_better=choice.lower_is_better,
        save_best=save_best,
        schedule=make_schedule(settings),
    )


def _draw(seed: int, indices: list[int]) -> float:
    """A number in [0, 1) that is a function of the batch alone, so that a resumed run draws it again."""
    return derive_seed("sequence", seed, *indices) / 2**63


def own_repeats(model: nn.Module, gpt2: GPT2Model, texts: Sequence[EncodedText], where: torch.device) -> Tensor:
    """Sequence-level unlikelihood: the model goes on from each prompt greedily, as far as the text goes.

    Where a text has no prompt, its first half is taken for one: after the end token alone all would go on alike. Every
    token of what the model wrote that belongs to a repeated 4-gram is made less likely at its place (Welleck et al.
    2019, section 4.2); the sum stands in the place of the texts' own.
    """
    was_training = gpt2.training
    gpt2.eval()
    starts = [text.n_prompt if text.n_prompt > 1 else len(text.tokens) // 2 for text in texts]
    lengths = [len(text.tokens) - start for text, start in zip(texts, starts, strict=True)]
    prompts = [text.tokens[:start] for text, start in zip(texts, starts, strict=True)]
    with torch.no_grad():
        written = generate(
            gpt2, prompts, Decoding(temperature=0.0), seeds=[0] * len(texts), max_new_tokens=max(lengths), stop_ids=()
        )
    gpt2.train(was_training)
    rows = [prompt + new[:length] for prompt, new, length in zip(prompts, written, lengths, strict=True)]
    input_ids, mask = collate([row[:-1] for row in rows])
    repeats = torch.full((*input_ids.shape, 1), IGNORED)
    for row, (tokens, prompt) in enumerate(zip(rows, prompts, strict=True)):
        for place, repeated in enumerate(repeated_ngrams(tokens[len(prompt) :], REPEATED_NGRAM), start=len(prompt)):
            if repeated:
                repeats[row, place - 1, 0] = tokens[place]
    targets = torch.full_like(input_ids, IGNORED)
    return model(input_ids.to(where), targets.to(where), mask.to(where), candidates=repeats.to(where), alpha=1.0)


@torch.no_grad()
def perplexity(
    model: GPT2LanguageModel, texts: Sequence[EncodedText], batch_size: int, device: Device, check: Check
) -> dict[str, float]:
    """Perplexity of the continuations (the tokens after each prompt), per token and per word, without the end token.

    Returns:
        ``perplexity``, ``word_perplexity``, ``loss`` (nats per token), ``n_tokens``, ``n`` (texts).
    """
    model.eval()
    nats, n_tokens = 0.0, 0
    for start in range(0, len(texts), batch_size):
        check()
        input_ids, targets, mask = batch_of(
            texts[start : start + batch_size], device.accelerator.device, continuation_only=True
        )
        with device.accelerator.autocast():
            nats += float(model(input_ids, targets, mask))
        n_tokens += int((targets != IGNORED).sum())
    words = sum(text.n_words for text in texts)
    return {
        "perplexity": math.exp(min(nats / n_tokens, 700.0)),
        "word_perplexity": math.exp(min(nats / words, 700.0)),
        "loss": nats / n_tokens,
        "n_tokens": n_tokens,
        "n": len(texts),
    }


@dataclass(frozen=True)
class Likelihood:
    """Of a text's continuation, without the end token: its negative log-likelihood, its tokens and its words."""

    id: str
    nats: float
    n_tokens: int
    n_words: int


@torch.no_grad()
def likelihoods(
    model: GPT2LanguageModel,
    texts: Sequence[Text],
    encoded: Sequence[EncodedText],
    batch_size: int,
    device: Device,
    check: Check,
) -> list[Likelihood]:
    """Of texts, whose tokens are given, in their order."""
    model.eval()
    found: list[Likelihood] = []
    for start in range(0, len(encoded), batch_size):
        check()
        rows = encoded[start : start + batch_size]
        input_ids, targets, mask = batch_of(rows, device.accelerator.device, continuation_only=True)
        with device.accelerator.autocast():
            losses, _ = model.token_losses(input_ids, targets, mask)
        nats, counts = losses.cpu().double().sum(dim=1).tolist(), (targets != IGNORED).sum(dim=1).tolist()
        found += [
            Likelihood(text.id, total, count, row.n_words)
            for text, row, total, count in zip(texts[start : start + batch_size], rows, nats, counts, strict=True)
        ]
    return found
