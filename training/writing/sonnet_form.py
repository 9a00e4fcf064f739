"""Sonnets that keep the form: a search over lines that scan and rhyme, by the model's own probability.

Line after line the model draws many candidates. Where the line opens a rhyme, each candidate is cut behind a word that
completes ten syllables and that other words rhyme with. Where it answers a rhyme, each candidate is cut a word earlier
and closed by each word of a vocabulary that rhymes, scans and does not end a line yet; the model's probability of that
word in that place decides which are looked at. All that are left are scored whole, and the likeliest is taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.generation import prefill, score_continuations, step
from models.gpt2 import GPT2Model
from models.logits import Decoding, draw
from modules.cache import Cache
from poetry.meter import has_ten_syllables, is_iambic, scan
from poetry.pronunciation import pronounce, words_of
from poetry.rhyme import SHAKESPEARE, RhymeIndex, ending, rhymes
from training.device import derive_seed
from training.interrupt import Check

LONGEST_LINE = 16  # tokens; what is left of a longer one is not needed
LINE_ENDS = (",", "", ";", ":", ".")
LAST_LINE_END = (".",)
PLAIN = re.compile(r"[A-Za-z'’]+((?:[,;:]? |-)[A-Za-z'’]+)*")  # words and marks between them, and nothing else
FEW_RHYMES = 3  # a word that opens a rhyme has at least so many
OFF_METER, OFF_LENGTH, NEAR_RHYME = 0.3, 1.0, 2.0  # nats per token that a line loses for it
WORDS_TRIED = 12  # rhyming words at the end of each candidate
FEWEST_WORDS = 3
ATTEMPTS = 4  # the last one takes whatever rhymes
LAST_RESORTS = (
    "And so it was and so it is with",
    "There is no more to say of this than",
    "And all the world is nothing but the",
)
LAST_WORDS = (  # of which no two rhyme, and more than a sonnet has lines before its last
    "me", "day", "night", "heart", "mind", "all", "you", "stone", "air", "dream", "gold", "hand", "rose", "year",
)  # fmt: skip


@dataclass(frozen=True)
class Form:
    """How hard the search is.

    Attributes:
        candidates: lines that are drawn for each line of the poem.
        rescored: of the lines made from them, how many are scored whole.
        meter: "hard" takes lines of iambic pentameter only, as long as there are any; "soft" prefers them; "off" does
            not look at stresses or syllables.
        scheme: the rhyme scheme, a letter per line.
    """

    candidates: int = 24
    rescored: int = 64
    meter: str = "soft"
    scheme: str = SHAKESPEARE


@dataclass(frozen=True)
class _Candidate:
    """A line that the poem may go on with, and what the model has said of it so far."""

    text: str
    estimate: float  # nats per token
    penalty: float


class SonnetWriter:
    """Completes sonnets.

    Args:
        gpt2: the model, made ready for writing.
        tokenizer: its tokenizer.
        end: the token before a text.
        vocabulary: words that may close a line, the most usual first.
        indent: what the couplet's lines begin with.
    """

    def __init__(
        self,
        gpt2: GPT2Model,
        tokenizer: Any,
        end: int,
        vocabulary: Iterable[str],
        decoding: Decoding,
        form: Form | None = None,
        indent: str = "",
    ) -> None:
        self.gpt2, self.tokenizer, self.end = gpt2, tokenizer, end
        self.decoding, self.form, self.indent = decoding, form or Form(), indent
        self.index = RhymeIndex(vocabulary)
        self.line_break = self._ids("\n")
        self._pieces: dict[int, str] = {}
        self._firsts: dict[str, int] = {}

    def complete(self, given: Sequence[str], seed: int, check: Check = lambda: None) -> list[str]:
        """The given lines and those that follow, to the end of the scheme."""
        lines = list(given)
        while len(lines) < len(self.form.scheme):
            check()
            lines.append(self._next_line(lines, seed))
        return lines

    def _next_line(self, lines: list[str], seed: int) -> str:
        number = len(lines)
        letter = self.form.scheme[number]
        partner = self.form.scheme.find(letter, 0, number)
        indent = self.indent if self.form.scheme.count(letter) == 2 and number >= len(self.form.scheme) - 2 else ""
        # A space before a word is in the word's own token, so the last one of the indent is the line's.
        text = "".join(line + "\n" for line in lines) + indent[:-1]
        before = [self.end, *self._ids(text)]
        cache, logits = prefill(self.gpt2, [before], room=LONGEST_LINE)
        rhyming = self._rhyming(lines, lines[partner]) if partner >= 0 else []
        firsts = self._first_tokens([word for word, _ in rhyming])
        is_open = partner < 0 and self.form.scheme.count(letter) > 1  # another line will have to rhyme with this one
        found: list[_Candidate] = []
        for attempt in range(ATTEMPTS):
            seed_of_lines = derive_seed("line", seed, number, attempt)
            drawn = _Drawn.draw(self, before, cache, logits, firsts, bool(indent), seed_of_lines)
            relaxed = attempt == ATTEMPTS - 1 and not found
            if rhyming:
                found += self._answers(drawn, rhyming, relaxed)
            else:
                found += self._openings(drawn, lines, FEW_RHYMES if is_open and not relaxed else 0, relaxed)
            if any(not candidate.penalty for candidate in found):
                break
        said = {_bare(line) for line in lines}
        found = [candidate for candidate in found if _bare(candidate.text) not in said]
        if self.form.meter == "hard":
            found = [candidate for candidate in found if is_iambic(candidate.text)] or found
        marks = LAST_LINE_END if number == len(self.form.scheme) - 1 else LINE_ENDS
        if not found:  # a word that ends no line yet makes a line that is not there yet
            used = {ending(line) for line in lines}
            closing = rhyming[0][0] if rhyming else next(word for word in LAST_WORDS if word not in used)
            return f"{indent}{LAST_RESORTS[number % len(LAST_RESORTS)]} {closing}{marks[0]}"
        found.sort(key=lambda candidate: candidate.estimate - candidate.penalty, reverse=True)
        return indent + self._likeliest(cache, logits, found[: self.form.rescored], marks, indent[-1:])

    # -- candidates -----------------------------------------------------------------------------------------------

    def _rhyming(self, lines: list[str], partner: str) -> list[tuple[str, float]]:
        """The words that may answer a line, and what a line loses by each: perfect rhymes, or near ones if none."""
        used = {ending(line) for line in lines}
        asked = ending(partner)
        words = [(word, 0.0) for word in self.index.perfect(asked) if ending(word) not in used]
        return words or [(word, NEAR_RHYME) for word in self.index.near(asked) if ending(word) not in used]

    def _openings(self, drawn: _Drawn, lines: list[str], few: int, relaxed: bool) -> list[_Candidate]:
        """Lines that end where they have their length, with a word that at least ``few`` others rhyme with."""
        used = {ending(line) for line in lines}
        found = []
        for row in range(drawn.rows):
            for cut in drawn.word_ends(row):
                text = capitalized(drawn.text(row, cut))
                last = ending(text)
                if not last or last in used or any(rhymes(last, other) == "perfect" for other in used):
                    continue
                penalty = self._off_meter(text, relaxed)
                if penalty is not None and sum(word not in used for word in self.index.perfect(last)) >= few:
                    found.append(_Candidate(text, drawn.mean_log_probability(row, cut), penalty))
        return found

    def _answers(self, drawn: _Drawn, rhyming: list[tuple[str, float]], relaxed: bool) -> list[_Candidate]:
        """Lines that are cut a word before they have their length, and closed with a word that rhymes."""
        found = []
        for row in range(drawn.rows):
            for cut in drawn.word_ends(row):
                head = capitalized(drawn.text(row, cut))
                if self.form.meter != "off" and not 1 <= 10 - scan(head).n_syllables <= 4:
                    continue
                log_p = drawn.log_probabilities_after(row, cut)
                for place in log_p.argsort(descending=True)[:WORDS_TRIED].tolist():
                    word, loss = rhyming[place]
                    penalty = self._off_meter(f"{head} {word}", relaxed)
                    if penalty is not None:
                        total = drawn.total_log_probability(row, cut) + float(log_p[place])
                        found.append(_Candidate(f"{head} {word}", total / (cut + 1), penalty + loss))
        return found

    def _off_meter(self, text: str, relaxed: bool) -> float | None:
        """What a line loses by its meter; None where it may not be taken at all: it has a word that is none, say.

        Args:
            relaxed: take whatever is a line of words, where no other was found.
        """
        if not PLAIN.fullmatch(text) or len(text.split()) < FEWEST_WORDS:
            return None
        if relaxed:
            return OFF_LENGTH
        if any(_is_unknown(word) for word in words_of(text)):
            return None
        if self.form.meter == "off":
            return 0.0
        if not has_ten_syllables(text):
            return None if abs(scan(text).n_syllables - 10) > 1 or self.form.meter == "hard" else OFF_LENGTH
        if is_iambic(text):
            return 0.0
        return OFF_LENGTH if self.form.meter == "hard" else OFF_METER

    def _likeliest(self, cache: Cache, logits: Tensor, found: list[_Candidate], marks: Sequence[str], lead: str) -> str:
        """Scores candidates whole, then the marks that may follow the best of them; ``lead`` stands before a line."""
        losses = {candidate.text: candidate.penalty for candidate in reversed(found)}
        values = self._values(cache, logits, lead, losses)
        best = sorted(losses, key=lambda text: -values[text])[:4]
        closed = {text + mark: losses[text] for text in best for mark in marks}
        values = self._values(cache, logits, lead, closed)
        return max(closed, key=values.__getitem__)

    def _values(self, cache: Cache, logits: Tensor, lead: str, losses: dict[str, float]) -> dict[str, float]:
        """Nats per token, the line's end included, less what each line loses by its form."""
        ids = [[*self._ids(lead + line), *self.line_break] for line in losses]
        scores = score_continuations(self.gpt2, cache, logits, ids)
        return {line: float(score.mean()) - losses[line] for line, score in zip(losses, scores, strict=True)}

    # -- tokens ---------------------------------------------------------------------------------------------------

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else []

    def _first_tokens(self, words: Sequence[str]) -> Tensor:
        """(words,) with which token each begins within a line."""
        new = [word for word in words if word not in self._firsts]
        if new:
            ids = self.tokenizer([f" {word}" for word in new], add_special_tokens=False, verbose=False)["input_ids"]
            self._firsts |= {word: tokens[0] for word, tokens in zip(new, ids, strict=True)}
        return torch.tensor([self._firsts[word] for word in words], dtype=torch.long)

    def piece(self, token: int) -> str:
        """What a token writes."""
        if token not in self._pieces:
            self._pieces[token] = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return self._pieces[token]


def _is_unknown(word: str) -> bool:
    ways = pronounce(word)
    return not ways or ways[0].origin == "guess"


def _bare(line: str) -> str:
    """A line as it is compared with others, so that none is repeated."""
    return line.strip(" ,;:.!?").lower()


def capitalized(line: str) -> str:
    return line[:1].upper() + line[1:]


@dataclass(frozen=True)
class _Drawn:
    """Lines that the model drew, without their ends.

    Attributes:
        pieces: what each token of each row writes.
        indented: whether the lines begin with a space.
        log_p: (rows, tokens) the log-probability of each drawn token.
        after: (rows, tokens + 1, words) log-probabilities of words that may close the line, before each token and after
            the last.
    """

    pieces: list[list[str]]
    indented: bool
    log_p: Tensor
    after: Tensor

    @classmethod
    def draw(
        cls, writer: SonnetWriter, before: list[int], cache: Cache, logits: Tensor, firsts: Tensor, indented: bool,
        seed: int,
    ) -> _Drawn:  # fmt: skip
        """Draws the writer's number of lines.

        Args:
            before: the text so far, for the penalties of repetition.
            cache, logits: of that text, and of what comes after it.
            firsts: (words,) the first tokens of words that may close the line.
        """
        count = writer.form.candidates
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(LONGEST_LINE, count, generator=generator, dtype=torch.float64)
        rows = cache.copy([0] * count)
        now, firsts = logits.expand(count, -1), firsts.to(logits.device)
        lines: list[list[int]] = [[] for _ in range(count)]
        log_p: list[Tensor] = []
        after: list[Tensor] = []
        for i in range(LONGEST_LINE):
            filtered = writer.decoding.apply(now, [before + line for line in lines])
            new = draw(filtered, uniform[i])
            values = now.log_softmax(dim=-1)
            log_p.append(values.gather(1, new[:, None]))
            after.append(values[:, firsts])
            for line, token in zip(lines, new.tolist(), strict=True):
                line.append(token)
            if all(any("\n" in writer.piece(token) for token in line) for line in lines):
                break
            now = step(writer.gpt2, rows, new)
        else:
            after.append(now.log_softmax(dim=-1)[:, firsts])
        pieces = [[writer.piece(token) for token in line] for line in lines]
        return cls(pieces, indented, torch.cat(log_p, dim=1).cpu(), torch.stack(after, dim=1).cpu())

    @property
    def rows(self) -> int:
        return len(self.pieces)

    def word_ends(self, row: int) -> list[int]:
        """The numbers of tokens after which the line's first words are whole, without marks at their end.

        None where the line does not begin with a word of its own.
        """
        ends: list[int] = []
        pieces = self.pieces[row]
        if self.indented and not pieces[0].startswith(" "):
            return ends
        for i, piece in enumerate(pieces):
            if "\n" in piece or "\ufffd" in piece or i + 1 >= self.after.shape[1]:
                break
            following = pieces[i + 1] if i + 1 < len(pieces) else " "
            if piece[-1:].isalpha() and not (following[:1].isalpha() or following[:1] in "'’-"):
                ends.append(i + 1)
        return ends

    def text(self, row: int, cut: int) -> str:
        return "".join(self.pieces[row][:cut]).strip()

    def total_log_probability(self, row: int, cut: int) -> float:
        return float(self.log_p[row, :cut].sum())

    def mean_log_probability(self, row: int, cut: int) -> float:
        return self.total_log_probability(row, cut) / cut if cut else -math.inf

    def log_probabilities_after(self, row: int, cut: int) -> Tensor:
        """(words,) that may close the line, after the first ``cut`` tokens."""
        return self.after[row, cut]
