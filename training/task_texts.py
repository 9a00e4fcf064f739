"""Tasks that are text: a source, task tokens, and a target that the language model learns to write.

    <begin> document <summarize> summary <end>

A task's script brings its files, its template and its measures as a :class:`TextTask`; ``training/task_run.py`` does
the rest, by the same flow as every run that fine-tunes a language model. In between, a script lets the model write
(:func:`write_targets`) or choose among given answers (:func:`score_targets`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from config import TextTaskSettings, UserError
from datasets import encode, token_ids
from models.generation import generate, prefill, step
from models.language_model import GPT2LanguageModel
from strategies import Strategy
from tasks.published import PublishedDataset
from training.decoding import decoding_of
from training.device import derive_seed
from training.writing import Writer, WritingRun
from training.writing_job import EncodedText, batch_of

AT_ONCE = 16  # texts that are written or scored together
MAX_PROBLEMS = 20
SPARE = 4  # tokens: a piece of a text by itself may have a few more than within it


# ---------------------------------------------------------------------------------------------------------------------
# Texts
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A piece of what stands before the target.

    Attributes:
        text: as it is tokenized, by itself.
        kind: ``token``: a task token, such as ``<summarize>``; ``source``: may be cut to the context; ``begun``: the
            same, but it is the end that stays, because what is written goes on there; ``given``: is never cut.
    """

    text: str
    kind: Literal["token", "source", "begun", "given"]


@dataclass(frozen=True)
class TaskText:
    """One example: the begin token, the parts, the target, and the end token.

    Attributes:
        id: for messages and files of predictions.
        parts: what stands before the target, in order.
        target: what the model learns to write; empty where it is only to be written (then the text is no part of
            training).
        ends: whether the end token follows: not where a document goes on in the next text.
    """

    id: str
    parts: tuple[Part, ...]
    target: str
    ends: bool = True


@dataclass(frozen=True)
class TaskData:
    """A task's texts.

    Attributes:
        train: what is trained on.
        dev: what chooses the best epoch, by the perplexity of the targets unless the task says otherwise.
        test: whose perplexity is reported too; empty where there is none.
        notes: what the user should know of the data, counts of what was left out among them.
        extra: whatever the task's ``finish`` needs.
        prompted: what is written after or scored, split -> groups of texts, such as the windows of one question; None:
            the dev and test texts, each by itself.
        longest_answer: tokens of the longest candidate; 0: answers are generated, not scored.
        sources: what must not stand in train and dev alike: split -> the id and the text of each.
        sources_are: what they are called.
    """

    train: list[TaskText]
    dev: list[TaskText]
    test: list[TaskText]
    notes: tuple[str, ...] = ()
    extra: Any = None
    prompted: Mapping[str, Sequence[Sequence[TaskText]]] | None = None
    longest_answer: int = 0
    sources: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    sources_are: str = "texts"


@dataclass(frozen=True)
class TextTask:
    """What is a script's own.

    Attributes:
        name: as folders and tables have it: ``summarization``.
        script: its file name, for the resume command.
        settings_class: a subclass of :class:`config.TextTaskSettings`.
        task_tokens: all that its texts use, in a fixed order.
        template: what stands before the target, in order: words that say what, and task tokens.
        sample_ending: of the bundled files ``data/sample/<name>-<language>-<split>.<ending>``.
        datasets: what ``--dataset`` may name.
        read: (split -> its files, settings) -> records, read and checked without a tokenizer; the settings' language
            is settled, and the limits are for it to apply. A split without files is not among the keys.
        make: (records, settings, encoder) -> the texts.
        finish: (run, writer, data) -> what is merged into ``metrics.json`` (``dev``, ``test``, ``dev_ci``, and whatever
            else); files of predictions go to ``run.folder.predictions``, inside ``with run.folder.writing():``.
        show: prints the task's own results.
        asks: the settings that give a finished run the user's own text; nothing is trained then.
        check: raises a UserError about settings that change nothing in this task.
        evaluate: (writer, data) -> further metrics of the dev set after each epoch, plain numbers.
        score: which metric chooses the epoch.
        lower_is_better: whether it is a loss.
        aliases: the task's own names of strategies.
    """

    name: str
    script: str
    settings_class: type[TextTaskSettings]
    task_tokens: tuple[str, ...]
    template: tuple[str, ...]
    sample_ending: str
    datasets: Mapping[str, PublishedDataset]
    read: Callable[[Mapping[str, Sequence[Path]], Any], Any]
    make: Callable[[Any, Any, TaskEncoder], TaskData]
    finish: Callable[[WritingRun, Writer, TaskData], dict[str, Any]]
    show: Callable[[dict[str, Any]], None]
    asks: tuple[str, ...]
    check: Callable[[Any], None] = lambda settings: None
    evaluate: Callable[[Writer, TaskData], dict[str, float]] | None = None
    score: str = "perplexity"
    lower_is_better: bool = True
    aliases: Mapping[str, Strategy] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """Texts as tokens that fit the model.

    Attributes:
        texts, rows: those that fit, as they were and as tokens.
        cut: how many sources were cut.
        left_out: how many texts did not fit, whatever was cut.
    """

    texts: list[TaskText]
    rows: list[EncodedText]
    cut: int
    left_out: int


@dataclass(frozen=True)
class Prompts:
    """What stands before targets, as tokens.

    Attributes:
        tokens: of each text; also of those that don't fit.
        cut: how many sources were cut; ``lost``: how many tokens that took away.
        problems: number of a text -> why it does not fit, whatever is cut.
    """

    tokens: list[list[int]]
    cut: int
    lost: int
    problems: dict[int, str]


@dataclass(frozen=True)
class TaskEncoder:
    """Turns texts into tokens that fit the model.

    Attributes:
        tokenizer: knows the task tokens.
        ids: task token -> its id.
        end: the end token, with which texts begin, too.
        context: the most tokens that the model reads.
        keep: which end of a source stays where it is cut.
        say: is told what is cut of what the model is to answer; None where it was told and recorded before.
    """

    tokenizer: Any
    ids: Mapping[str, int]
    end: int
    context: int
    keep: str = "start"
    say: Callable[[str], None] | None = None

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text's tokens. A special token that is spelled out in a text is text like any other."""
        with self._plain():
            return token_ids(list(texts), self.tokenizer)

    def offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """The places of each text's tokens, the same tokens as those of :meth:`token_ids`."""
        with self._plain():
            return list(encode(list(texts), self.tokenizer, "offset_mapping"))

    @contextmanager
    def _plain(self) -> Iterator[None]:
        before = self.tokenizer.split_special_tokens
        self.tokenizer.split_special_tokens = True
        try:
            yield
        finally:
            self.tokenizer.split_special_tokens = before

    def prompts(self, texts: Sequence[TaskText], room: int, needed: int = 1) -> list[list[int]]:
        """What stands before the targets, begin token included; see :meth:`fit_prompts`.

        Raises:
            UserError: naming each text that does not fit.
        """
        found = self.fit_prompts(texts, room, needed)
        _raise_some(list(found.problems.values()))
        if found.lost and self.say is not None:
            begun = any(part.kind == "begun" for text in texts for part in text.parts)
            end = "beginning" if begun or self.keep == "end" else "end"
            self.say(f"context of {self.context} tokens: {found.lost} are cut from the {end} of what is given")
        return found.tokens

    def fit_prompts(self, texts: Sequence[TaskText], room: int, needed: int = 1) -> Prompts:
        """What stands before the targets; sources are cut so that ``room`` tokens may follow.

        Where given parts leave less room than that, no more than a token of a source stays.

        Args:
            needed: tokens that must fit behind a prompt.
        """
        found, cut, lost, problems = [], 0, 0, {}
        for number, (text, parts) in enumerate(zip(texts, self._parts(texts), strict=True)):
            prompt, fits, too_many = self._prompt(text, parts, self.context - room)
            if not fits:
                prompt, fits, too_many = self._prompt(text, parts, self.context - needed, least=True)
            if not fits:
                problems[number] = self._too_long(text, len(prompt) + needed)
            elif too_many:
                cut, lost = cut + 1, lost + too_many
            found.append(prompt)
        return Prompts(found, cut, lost, problems)

    def fit(self, texts: Sequence[TaskText], skip_long: bool = False) -> Fitted:
        """Whole texts, targets included; their sources are cut where that is needed.

        Args:
            skip_long: leave out what does not fit.

        Raises:
            UserError: naming each text whose given parts and target don't fit, or whose target is empty.
        """
        fitted, problems, cut = Fitted([], [], 0, 0), [], 0
        targets = self.token_ids([text.target for text in texts])
        for text, parts, target in zip(texts, self._parts(texts), targets, strict=True):
            if not target:
                problems.append(f"text {text.id}: its target is empty; write one, or delete the text")
                continue
            prompt, fits, too_many = self._prompt(text, parts, self.context - len(target))
            if not fits:
                problems.append(self._too_long(text, len(prompt) + len(target)))
                continue
            end = [self.end] if text.ends else []
            fitted.texts.append(text)
            fitted.rows.append(EncodedText([*prompt, *target, *end], len(prompt), len(text.target.split()), text.ends))
            cut += too_many > 0
        if not skip_long:
            _raise_some(problems)
        return Fitted(fitted.texts, fitted.rows, cut, len(problems))

    def pieces(self, text: str, room: int) -> list[str]:
        """Cuts a text at white space into pieces of at most ``room`` tokens each; a word that is longer is cut, too."""
        (ids,) = self.token_ids([text])
        if len(ids) <= room:
            return [text]
        (offsets,) = self.offsets([text])
        pieces, start, first = [], 0, 0  # of the next piece: its first character, and its first token
        while first < len(offsets):
            after = first + max(room - SPARE, 1)
            stop = len(text)
            if after < len(offsets):
                stop = offsets[after][0]
                space = max(text.rfind(mark, start + 1, stop + 1) for mark in (" ", "\n"))
                stop = space if space > start else max(stop, start + 1)
            pieces.append(text[start:stop].strip())
            start = stop
            while first < len(offsets) and offsets[first][0] < stop:
                first += 1
        return [piece for piece in pieces if piece]

    def _parts(self, texts: Sequence[TaskText]) -> Iterator[list[list[int]]]:
        """The tokens of each text's parts."""
        plain = [part.text for text in texts for part in text.parts if part.kind != "token"]
        ids = iter(self.token_ids(plain))
        for text in texts:
            yield [[self.ids[part.text]] if part.kind == "token" else next(ids) for part in text.parts]

    def _prompt(
        self, text: TaskText, parts: list[list[int]], limit: int, least: bool = False
    ) -> tuple[list[int], bool, int]:
        """The prompt in at most ``limit`` tokens, whether it fits, and how many tokens of its sources were cut.

        Args:
            least: no more than a token of each source stays.
        """
        is_source = [part.kind in ("source", "begun") for part in text.parts]
        sources = [len(ids) for ids, source in zip(parts, is_source, strict=True) if source]
        room = limit - 1 - sum(len(ids) for ids, source in zip(parts, is_source, strict=True) if not source)
        longest = 1 if least else _longest_that_fits(sources, room)
        prompt = [self.end]
        for ids, part, source in zip(parts, text.parts, is_source, strict=True):
            keep = "end" if part.kind == "begun" else self.keep
            window = slice(longest) if keep == "start" else slice(max(len(ids) - longest, 0), None)
            prompt += ids[window] if source else ids
        too_many = sum(max(length - longest, 0) for length in sources)
        return prompt, len(prompt) <= limit and (longest > 0 or not sources), too_many

    def _too_long(self, text: TaskText, length: int) -> str:
        return (
            f"text {text.id}: what can't be cut takes {length} tokens, more than the model's context of "
            f"{self.context}; shorten it, or leave such texts out with --skip-long"
        )


def _longest_that_fits(lengths: list[int], room: int) -> int:
    """The largest number of tokens per source with which all fit into ``room``, by bisection; 0 if there is none."""
    longest = max(lengths, default=1)
    if sum(lengths) <= room:
        return longest
    low, high = 0, longest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(min(n, middle) for n in lengths) <= room else (low, middle - 1)
    return low


def some_of(problems: list[str]) -> list[str]:
    """The first problems, and how many more there are."""
    more = [f"... and {len(problems) - MAX_PROBLEMS} more such texts"] if len(problems) > MAX_PROBLEMS else []
    return problems[:MAX_PROBLEMS] + more


def _raise_some(problems: list[str]) -> None:
    if problems:
        raise UserError(some_of(problems))


# ---------------------------------------------------------------------------------------------------------------------
# Writing and choosing
# ---------------------------------------------------------------------------------------------------------------------


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
            stop_ids=[writer.end],
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
        stop=grow if one_at_a_time else None,
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
