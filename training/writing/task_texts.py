"""The texts of tasks with task tokens: a source, task tokens, and a target that the language model learns to write.

    <begin> document <summarize> summary <end>

A text's parts become tokens that fit the model; where they don't, its sources are cut, never a task token, a question
or a target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from config import UserError
from datasets import encode, token_ids
from models.tokenizer import unknown_token_id
from training.writing.job import EncodedText

MAX_PROBLEMS = 20
SPARE = 4  # tokens: a piece of a text by itself may have a few more than within it


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
class Fitted:
    """Texts as tokens that fit the model.

    Attributes:
        texts, rows: those that fit, as they were and as tokens.
        cut: how many sources were cut.
        left_out: how many texts did not fit, whatever was cut.
        unknown, unwritable: in how many prompts, and in how many targets, the vocabulary lacks a character.
    """

    texts: list[TaskText]
    rows: list[EncodedText]
    cut: int
    left_out: int
    unknown: int = 0
    unwritable: int = 0


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
        return token_ids(list(texts), self.tokenizer)

    def offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """The places of each text's tokens, the same tokens as those of :meth:`token_ids`."""
        return list(encode(list(texts), self.tokenizer, "offset_mapping"))

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
        unknown_id = unknown_token_id(self.tokenizer)
        if unknown_id == self.end:  # as GPT-2's files may name it, which can write everything
            unknown_id = None
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
        unknown = sum(unknown_id in row.tokens[: row.n_prompt] for row in fitted.rows)
        unwritable = sum(unknown_id in row.tokens[row.n_prompt :] for row in fitted.rows)
        return Fitted(fitted.texts, fitted.rows, cut, len(problems), unknown, unwritable)

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
        remedy = "shorten it" + (", or leave such texts out with --skip-long" if self.say is None else "")
        return (
            f"text {text.id}: what can't be cut takes {length} tokens, more than the model's context of "
            f"{self.context}; {remedy}"
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
