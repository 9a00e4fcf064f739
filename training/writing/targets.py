"""What a language model writes as the target of a task's text, and which of given targets it finds likely."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from config import TextTaskSettings
from models.generation import generate, prefill, step
from models.language_model import GPT2LanguageModel
from training.device import derive_seed
from training.writing.decoding import decoding_of
from training.writing.job import EncodedText, batch_of
from training.writing.run import Writer
from training.writing.task_texts import TaskEncoder, TaskText

AT_ONCE = 16  # texts that are written or scored together


@dataclass(frozen=True)
class Written:
    """What the model wrote after a prompt.

    Attributes:
        text: without white space at its ends.
        mean_log_probability: of its tokens, the end token included if it was written; NaN unless it was asked for.
        tokens: how many, without the end token.
        stopped: whether the model ended it by itself.
    """

    text: str
    mean_log_probability: float
    tokens: int
    stopped: bool


def write_targets(
    writer: Writer, texts: Sequence[TaskText], settings: TextTaskSettings, *, with_scores: bool = False, sample: int = 0
) -> list[Written]:
    """Lets the model write the target of each text, by the settings' decoding.

    Args:
        with_scores: also compute the mean log-probability of what was written (one more pass over it).
        sample: which of several texts after the same prompt, where tokens are drawn.
    """
    prompts = prompts_for_writing(writer, texts, settings)
    found: dict[int, Written] = {}
    for rows in _batches(prompts):
        writer.check()
        chosen = [prompts[row] for row in rows]
        written = generate(
            writer.fast, chosen, decoding_of(settings), max_new_tokens=settings.max_new_tokens,
            seeds=[derive_seed("target", settings.seed, texts[row].id, sample) for row in rows],
            stop_ids=[writer.end], penalize_prompt=any(goes_on(texts[row]) for row in rows),
        )  # fmt: skip
        ended = [
            len(new) < min(settings.max_new_tokens, writer.gpt2.max_tokens - len(prompt))
            for prompt, new in zip(chosen, written, strict=True)
        ]
        means = [float("nan")] * len(rows)
        if with_scores:
            means = _mean_log_probabilities(writer, chosen, written, ended)
        for row, new, mean, stopped in zip(rows, written, means, ended, strict=True):
            found[row] = Written(decode(writer, new).strip(), mean, len(new), stopped)
    return [found[row] for row in range(len(texts))]


def goes_on(text: TaskText) -> bool:
    """Whether what is written goes on with the prompt's own text, which it may not repeat; else it is made from it."""
    return any(part.kind == "begun" for part in text.parts)


def prompts_for_writing(writer: Writer, texts: Sequence[TaskText], settings: TextTaskSettings) -> list[list[int]]:
    """The tokens before the targets, with as much room behind them as may be written, or half of the context."""
    encoder = encoder_of(writer)
    return encoder.prompts(texts, room_for_writing(settings.max_new_tokens, encoder.context))


def room_for_writing(max_new_tokens: int, context: int) -> int:
    """Tokens that are kept free behind a prompt whose source can be cut."""
    return min(max_new_tokens, context // 2)


def needed_for_scoring(longest: int) -> int:
    """Tokens that must fit behind a prompt: the model need not read an answer's last one."""
    return max(longest - 1, 1)


def stream_target(
    writer: Writer, text: TaskText, settings: TextTaskSettings, show: Callable[[str], None], sample: int = 0,
    *, begun: str | None = None,
) -> None:  # fmt: skip
    """Writes one target and shows it as it grows, a piece for each token that completes a character.

    Args:
        begun: a text that it goes on with, with a space or without; shown first. None: it stands by itself, without
            white space before it.
    """
    (prompt,) = prompts_for_writing(writer, [text], settings)
    shown, before = "", len(decode(writer, prompt))
    if begun is not None:
        show(begun)

    def text_of(new: Sequence[int]) -> str:
        return decode(writer, new).lstrip() if begun is None else decode(writer, [*prompt, *new])[before:]

    def grow(tokens: Sequence[int]) -> bool:
        nonlocal shown
        so_far = text_of(tokens[len(prompt) :])
        if not so_far.endswith("\ufffd") and len(so_far) > len(shown):  # a token may be part of a character
            show(so_far[len(shown) :])
            shown = so_far
        return False

    one_at_a_time = (settings.beams or 1) == 1
    (new,) = generate(
        writer.fast, [prompt], decoding_of(settings), max_new_tokens=settings.max_new_tokens,
        seeds=[derive_seed("target", settings.seed, text.id, sample)], stop_ids=[writer.end],
        stop=grow if one_at_a_time else None, penalize_prompt=goes_on(text),
    )  # fmt: skip
    show(text_of(new)[len(shown) :])


def score_targets(
    writer: Writer, texts: Sequence[TaskText], candidates: Sequence[Sequence[str]], mean: bool = False
) -> np.ndarray:
    """How likely each candidate is as the target of its text.

    Args:
        candidates: K for each text.
        mean: divide by the number of a candidate's tokens.

    Returns:
        (n_texts, K) log-probabilities in nats: the sum over the candidate's tokens, without the end token.
    """
    encoder = encoder_of(writer)
    n_candidates = len(candidates[0]) if candidates else 0
    flat = encoder.token_ids([candidate for row in candidates for candidate in row])
    empty = [i for i, ids in enumerate(flat) if not ids]
    if empty:
        raise ValueError(
            f"candidate {empty[0] % n_candidates + 1} of text {texts[empty[0] // n_candidates].id} is empty"
        )
    ids = [flat[row * n_candidates : (row + 1) * n_candidates] for row in range(len(texts))]
    longest = max(map(len, flat), default=1)
    prompts = encoder.prompts(texts, longest, needed_for_scoring(longest))
    scores = np.zeros((len(texts), n_candidates))
    for rows in _batches(prompts):
        writer.check()
        scores[rows] = _score(writer, [prompts[row] for row in rows], [ids[row] for row in rows])
    if mean:
        scores /= np.array([[len(candidate) for candidate in row] for row in ids]).reshape(scores.shape)
    return scores


@torch.no_grad()
def _score(writer: Writer, prompts: list[list[int]], candidates: list[list[list[int]]]) -> np.ndarray:
    """(B, K): prompts are read once; the candidates' tokens follow side by side, the longest one's number of steps."""
    flat = [candidate for row in candidates for candidate in row]
    width, lengths = len(candidates[0]), [len(candidate) for candidate in flat]
    cache, logits = prefill(writer.fast, prompts, room=max(lengths))
    owner = [row for row in range(len(prompts)) for _ in range(width)]
    log_p = logits.log_softmax(dim=-1)[owner]
    if max(lengths) > 1:
        cache = cache.select(owner)
    total = torch.zeros(len(flat), dtype=torch.float64)
    for place in range(max(lengths)):
        tokens = torch.tensor([candidate[min(place, len(candidate) - 1)] for candidate in flat])
        chosen = log_p.gather(1, tokens.to(log_p.device)[:, None]).squeeze(1).cpu().double()
        total += torch.where(torch.tensor(lengths) > place, chosen, 0.0)
        if place + 1 < max(lengths):
            log_p = step(writer.fast, cache, tokens).log_softmax(dim=-1)
    return total.view(len(prompts), width).numpy()


def _mean_log_probabilities(
    writer: Writer, prompts: list[list[int]], written: list[list[int]], ended: list[bool]
) -> list[float]:
    """Of what was written, the end token included where there is one; -inf where there is nothing."""
    rows = [
        EncodedText([*prompt, *new, *([writer.end] if end else [])], len(prompt), 0)
        for prompt, new, end in zip(prompts, written, ended, strict=True)
    ]
    device = writer.device.accelerator
    input_ids, targets, mask = batch_of(rows, device.device, continuation_only=True, with_end=True)
    with device.autocast():
        losses, _ = GPT2LanguageModel(writer.gpt2).token_losses(input_ids, targets, mask)
    counts = [len(row.tokens) - row.n_prompt for row in rows]
    sums = losses.cpu().double().sum(dim=1).tolist()
    return [-loss / count if count else float("-inf") for loss, count in zip(sums, counts, strict=True)]


def encoder_of(writer: Writer) -> TaskEncoder:
    assert writer.encoder is not None, "a writer of a task with task tokens has an encoder"
    return writer.encoder


def decode(writer: Writer, tokens: Sequence[int]) -> str:
    return writer.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _batches(prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of prompts of about the same length, which are computed together."""
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    yield from (order[start : start + AT_ONCE] for start in range(0, len(order), AT_ONCE))
