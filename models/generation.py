"""Text from a GPT-2: batches of prompts continued with a cache, by drawing tokens or by beam search; texts scored.

    gpt2 = ready(gpt2)                                   # once, for many calls
    texts = generate(gpt2, prompts, Decoding(top_p=0.9), seeds=[1, 2, 3], max_new_tokens=130, stop_ids=[50256])

For a search of one's own there are the parts of it:

    cache, logits = prefill(gpt2, [prompt])              # (1, V): what comes after the prompt
    cache = cache.select([0] * 8)                        # eight copies of it, to be continued differently
    logits = step(gpt2, cache, tokens)                   # (8,) one more token for each -> (8, V)
    cache.cut(lengths)                                   # take tokens back
    score_continuations(gpt2, cache, logits, candidates) # many continuations of one text, which is not copied
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn

from config import UserError
from models.gpt2 import GPT2Model
from models.logits import Decoding, LogitsProcessor, Sequences, StopRule, draw
from modules.cache import Cache
from modules.lora import merge_lora
from modules.packed_linear import PackedLinear
from modules.prefix import Prefix

SCORED_AT_ONCE = 256  # tokens, so that their logits stay small

# ---------------------------------------------------------------------------------------------------------------------
# The model, made ready
# ---------------------------------------------------------------------------------------------------------------------


def ready(gpt2: GPT2Model, dtype: torch.dtype = torch.float32) -> GPT2Model:
    """A copy of a model for generation: the same function, several times faster one token at a time.

    Linear maps are merged with their adapters and, on CPU, packed; a prefix becomes its keys and values; dropout is
    off. LayerNorms and the sums of the residual stream stay in fp32. The copy shares tensors with the model, and has
    packed weights of its own, which do not follow when the model is trained further: make it anew then.

    Args:
        gpt2: a whole model (not sharded); one that is ready is returned as it is.
        dtype: of linear maps, keys and values: bfloat16 is half as much to read per step, where the hardware has it.

    Raises:
        ValueError: the model is ready already, in another type.
    """
    if gpt2.unembedding is not None:
        if _dtype_of(gpt2) != dtype:
            raise ValueError(f"the model was made ready in {_dtype_of(gpt2)}, not in {dtype}")
        return gpt2
    shared = {id(tensor): tensor for tensor in chain(gpt2.parameters(), gpt2.buffers())}
    fast = copy.deepcopy(gpt2, shared).eval()  # what is in the second argument is not copied
    merge_lora(fast)
    if isinstance(fast.prefix, Prefix):
        fast.prefix = fast.prefix.drop_mlp()
    for block in fast.h:
        for part, name in (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj")):
            linear = getattr(block.get_submodule(part), name)
            packed = PackedLinear(linear.weight, linear.bias, dtype, gelu=name == "c_fc")
            setattr(block.get_submodule(part), name, packed)
        block.get_submodule("mlp").act = nn.Identity()  # c_fc does it
    fast.unembedding = PackedLinear(fast.wte.weight, None, dtype)
    return fast


def _dtype_of(gpt2: GPT2Model) -> torch.dtype:
    return gpt2.wte.weight.dtype if gpt2.unembedding is None else gpt2.unembedding.dtype


# ---------------------------------------------------------------------------------------------------------------------
# Reading and going on
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def prefill(gpt2: GPT2Model, prompts: Sequence[Sequence[int]], room: int = 0) -> tuple[Cache, Tensor]:
    """Reads prompts of any lengths, at once and without padding, after the model's prefix if it has one.

    Args:
        gpt2: in evaluation; best made :func:`ready`.
        prompts: B >= 1 of them, token ids.
        room: tokens that will follow, if known: the cache then needs not grow.

    Returns:
        The cache, and the logits of what comes after each prompt: (B, V), fp32.

    Raises:
        UserError: a prompt is empty, or longer than the model's context.
        ValueError: there is no prompt, or dropout is on.
    """
    if not prompts or gpt2.training:
        raise ValueError("generation needs a prompt, and a model in evaluation (call eval())")
    _check_prompts(gpt2, prompts)
    counts = [len(prompt) for prompt in prompts]
    start = gpt2.config.n_positions - gpt2.max_tokens
    capacity = min(start + max(counts) + room, gpt2.config.n_positions)
    cache = Cache(gpt2.config, len(prompts), capacity, _dtype_of(gpt2), gpt2.wte.weight.device)
    if gpt2.prefix is not None:
        cache.begin_with(gpt2.prefix())
    states = _read(gpt2, cache, prompts)
    last = torch.tensor(counts).cumsum(0) - 1
    return cache, _logits(gpt2, states[last.to(states.device)])


@torch.no_grad()
def step(gpt2: GPT2Model, cache: Cache, tokens: Tensor) -> Tensor:
    """Goes on with each text of a cache, which then holds the new tokens too.

    Args:
        gpt2: the model that the cache was made with.
        cache: B texts.
        tokens: (B,) or (B, T), one token per text or T of them.

    Returns:
        The logits of what comes after each token: (B, V) or (B, T, V), fp32.

    Raises:
        UserError: a text outgrows the model's context.
    """
    device = gpt2.wte.weight.device
    rectangle = tokens.to(device).view(cache.batch_size, -1)
    counts = [rectangle.shape[1]] * cache.batch_size
    _check_room(gpt2, cache, counts)
    window = cache.window(counts)
    states = gpt2.extend(rectangle, window)
    cache.advance(counts)
    return _logits(gpt2, states).view(*tokens.shape, -1)


def score_tokens(gpt2: GPT2Model, prompt: Sequence[int], continuations: Sequences) -> list[Tensor]:
    """The log-probability of each token of many continuations of one prompt, which is read once.

    Returns:
        For each continuation (length,) natural logarithms, fp32 on the CPU; their sum is the continuation's.

    Raises:
        UserError: the prompt is empty, or a continuation outgrows the model's context.
    """
    cache, logits = prefill(gpt2, [prompt])
    return score_continuations(gpt2, cache, logits, continuations)


@torch.no_grad()
def score_continuations(gpt2: GPT2Model, cache: Cache, logits: Tensor, continuations: Sequences) -> list[Tensor]:
    """:func:`score_tokens` after a text that was read: nothing of it is copied, and the cache's text stays as it is.

    Args:
        gpt2: the model that the cache was made with.
        cache: a single text.
        logits: (1, V), of what comes after it.
        continuations: token ids.
    """
    if cache.batch_size != 1:
        raise ValueError(f"continuations of one text are scored, not of {cache.batch_size}; select one")
    for continuation in continuations:
        _check_room(gpt2, cache, [len(continuation) - 1])
    first = logits[0].log_softmax(dim=-1)
    return [scores for group in _groups(continuations, SCORED_AT_ONCE) for scores in _score(gpt2, cache, first, group)]


def _score(gpt2: GPT2Model, cache: Cache, first: Tensor, continuations: Sequences) -> list[Tensor]:
    """The scores of as many continuations as are read together, side by side behind the text that they share."""
    device = first.device
    read = [tokens[:-1] for tokens in continuations if len(tokens) > 1]
    targets = torch.tensor([token for tokens in continuations for token in tokens[1:]], device=device)
    rest = first.new_zeros(0)
    if read:
        window = cache.branches([len(tokens) for tokens in read])
        states = gpt2.extend(torch.tensor([list(chain(*read))], device=device), window)
        rest = _logits(gpt2, states).log_softmax(dim=-1).gather(1, targets[:, None]).squeeze(1)
    parts = rest.split([max(len(tokens) - 1, 0) for tokens in continuations])
    return [torch.cat([first[list(tokens[:1])], part]).cpu() for tokens, part in zip(continuations, parts, strict=True)]


def _groups(continuations: Sequences, size: int) -> Iterator[Sequences]:
    """Cuts a list of continuations into parts of at most ``size`` tokens, or of one continuation."""
    group: list[Sequence[int]] = []
    count = 0
    for tokens in continuations:
        if group and count + len(tokens) > size:
            yield group
            group, count = [], 0
        group.append(tokens)
        count += len(tokens)
    if group:
        yield group


def _read(gpt2: GPT2Model, cache: Cache, texts: Sequences) -> Tensor:
    """The final states (N, n_embd) of texts of any lengths, text after text."""
    counts = [len(text) for text in texts]
    rectangle = torch.zeros(len(texts), max(counts), dtype=torch.long)
    for row, text in zip(rectangle, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    states = gpt2.extend(rectangle.to(gpt2.wte.weight.device), cache.window(counts))
    cache.advance(counts)
    return states


def _logits(gpt2: GPT2Model, states: Tensor) -> Tensor:
    return gpt2.hidden_state_to_token(states).float()


def _check_prompts(gpt2: GPT2Model, prompts: Sequences) -> None:
    problems = []
    for number, prompt in enumerate(prompts, start=1):
        if not prompt:
            problems.append(f"prompt {number} is empty; begin with a token at least, such as the end token")
        elif len(prompt) > gpt2.max_tokens:
            problems.append(
                f"prompt {number} has {len(prompt)} tokens, more than the model's context of {gpt2.max_tokens}; cut it"
            )
    if problems:
        raise UserError(problems)


def _check_room(gpt2: GPT2Model, cache: Cache, counts: Sequence[int]) -> None:
    longest = max(length + count for length, count in zip(cache.lengths, counts, strict=True))
    if longest > gpt2.config.n_positions:
        start = gpt2.config.n_positions - gpt2.max_tokens
        raise UserError(
            f"a text of {longest - start} tokens is longer than the model's context of {gpt2.max_tokens}; stop before"
        )


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def generate(
    gpt2: GPT2Model,
    prompts: Sequences,
    decoding: Decoding | None = None,
    *,
    seeds: Sequence[int] | None = None,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
    stop: StopRule | None = None,
    processors: Sequence[LogitsProcessor] = (),
    penalize_prompt: bool = True,
    dtype: torch.dtype = torch.float32,
) -> list[list[int]]:
    """Continues prompts, each until it ends by itself; one that has ended is not computed any more.

    A text ends with a token of ``stop_ids``, when ``stop`` says so, after ``max_new_tokens``, or when prompt and
    continuation fill the model's context (``gpt2.max_tokens``). What becomes of a prompt depends on the prompt, its
    seed and the settings: not on the other prompts, up to the rounding of sums, and not on ``max_new_tokens`` but for
    where it is cut. With beams, what is returned is the text with the best score.

    Args:
        gpt2: the model; where it is not :func:`ready`, that is done first, which takes as long as some tens of steps.
        prompts: token ids, of any lengths.
        decoding: how tokens are chosen; None draws from the model's own distribution.
        seeds: one per prompt, each for a generator of its own on the CPU; not needed where nothing is drawn.
        max_new_tokens: at least 1.
        stop_ids: tokens that end a text, such as the end token; not part of what is returned.
        stop: called with each text (prompt and continuation) after every token; the last one stays part of it.
        processors: change the logits, after the penalties of ``decoding`` and before its temperature.
        penalize_prompt: whether the prompt counts as said for the repetition penalty and ``no_repeat_ngram``, as in
            ``transformers``; not where it is a source that the continuation is made from.
        dtype: in which the model computes, as in :func:`ready`; a model that is ready keeps its own.

    Returns:
        The continuation of each prompt, without the prompt.

    Raises:
        UserError: a prompt is empty or longer than the model's context.
        ValueError: tokens are to be drawn, and there is not one seed per prompt.
    """
    decoding = decoding or Decoding()
    if max_new_tokens < 1:
        raise UserError(f"--max-new-tokens {max_new_tokens}: must be at least 1")
    if decoding.draws and (seeds is None or len(seeds) != len(prompts)):
        raise ValueError(f"{len(prompts)} prompts need as many seeds")
    _check_prompts(gpt2, prompts)
    texts = [
        _Text(
            number,
            list(prompt),
            len(prompt),
            min(max_new_tokens, gpt2.max_tokens - len(prompt)),
            said_from=0 if penalize_prompt else len(prompt),
        )
        for number, prompt in enumerate(prompts)
    ]
    going = [text for text in texts if text.limit > 0]
    if going:
        gpt2 = gpt2 if gpt2.unembedding is not None else ready(gpt2, dtype)
        ending = _Ending(frozenset(stop_ids), stop)
        if (decoding.beams or 1) > 1:
            _search(gpt2, going, decoding, ending, processors)
        else:
            _write(gpt2, going, decoding, _random_numbers(seeds, going) if decoding.draws else None, ending, processors)
    return [text.tokens[text.start :] for text in texts]


@dataclass
class _Text:
    """A prompt and its continuation.

    Attributes:
        number: its place in the batch that the caller gave.
        tokens: both.
        start: where the continuation begins.
        limit: tokens that it may have.
        said_from: where what counts as said begins.
    """

    number: int
    tokens: list[int]
    start: int
    limit: int
    said_from: int

    @property
    def is_full(self) -> bool:
        return len(self.tokens) - self.start >= self.limit


@dataclass(frozen=True)
class _Ending:
    stop_ids: frozenset[int]
    stop: StopRule | None

    def __call__(self, text: list[int]) -> bool:
        """Whether a text ends with its last token."""
        return text[-1] in self.stop_ids or (self.stop is not None and self.stop(text))


def _random_numbers(seeds: Sequence[int] | None, texts: Sequence[_Text]) -> Tensor:
    """(B, longest limit): each text's own, one per token, on the CPU."""
    assert seeds is not None
    generators = [torch.Generator().manual_seed(seeds[text.number]) for text in texts]
    count = max(text.limit for text in texts)
    return torch.stack([torch.rand(count, generator=generator, dtype=torch.float64) for generator in generators])


def _write(
    gpt2: GPT2Model,
    texts: list[_Text],
    decoding: Decoding,
    uniform: Tensor | None,
    ending: _Ending,
    processors: Sequence[LogitsProcessor],
) -> None:
    """Continues all texts token by token, in place."""
    cache, logits = prefill(gpt2, [text.tokens for text in texts], max(text.limit for text in texts))
    for number in range(max(text.limit for text in texts)):
        said_from = [text.said_from for text in texts]
        logits = decoding.apply(logits, [text.tokens for text in texts], processors, said_from)
        # Of equally likely tokens max finds the first, as argmax does, but faster.
        chosen = logits.max(dim=-1).indices if uniform is None else draw(logits, uniform[:, number])
        going = []
        for row, (text, token) in enumerate(zip(texts, chosen.tolist(), strict=True)):
            text.tokens.append(token)
            if ending(text.tokens):
                if token in ending.stop_ids:
                    text.tokens.pop()
            elif not text.is_full:
                going.append(row)
        if not going:
            return
        if len(going) < len(texts):
            texts, cache = [texts[row] for row in going], cache.select(going)
            chosen, uniform = chosen[going], None if uniform is None else uniform[going]
        logits = step(gpt2, cache, chosen)


# ---------------------------------------------------------------------------------------------------------------------
# Beam search
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Beam:
    """A text of a search, finished or not.

    Attributes:
        score: its log-probability; of a finished one divided by length ** length_penalty.
        tokens: prompt and continuation.
        parent: which of the search's texts of one token less it continues.
    """

    score: float
    tokens: list[int]
    parent: int = 0


@dataclass
class _Search:
    """The search for the continuation of one text; ``beams`` and ``finished`` are sorted, the best first."""

    text: _Text
    beams: list[_Beam]
    finished: list[_Beam] = field(default_factory=list)

    def advance(self, scores: Tensor, width: int, spare: int, length_penalty: float, ending: _Ending) -> None:
        """One step: ``scores`` (number of beams, V) are the log-probabilities of all texts that are a token longer."""
        best = scores.flatten().topk(min((1 + spare) * width, scores.numel()))
        length = len(self.beams[0].tokens) + 1 - self.text.start
        going: list[_Beam] = []
        for rank, (score, index) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            parent, token = divmod(index, scores.shape[-1])
            tokens = [*self.beams[parent].tokens, token]
            if length < self.text.limit and not ending(tokens):
                going.append(_Beam(score, tokens, parent))
            elif rank < width:
                self.finished.append(_Beam(score / length**length_penalty, tokens))
        self.finished = sorted(self.finished, key=lambda beam: -beam.score)[:width]
        self.beams = going[:width]
        if going and len(self.finished) == width and going[0].score / length**length_penalty <= self.finished[-1].score:
            self.beams = []


def _search(
    gpt2: GPT2Model, texts: list[_Text], decoding: Decoding, ending: _Ending, processors: Sequence[LogitsProcessor]
) -> None:
    """Beam search for the likeliest continuation of each text, in place (Sutskever et al. 2014, section 3.2).

    As ``transformers`` does it: of the ``beams`` best texts that are a token longer those that have ended are finished;
    the ``beams`` best that have not ended go on. The search for a text ends when the best unfinished one, divided by
    its present length ** length_penalty, scores no better than the worst of ``beams`` finished ones.
    """
    width, spare = decoding.beams or 1, max(1, len(ending.stop_ids))
    cache, logits = prefill(gpt2, [text.tokens for text in texts], max(text.limit for text in texts))
    searches = [_Search(text, [_Beam(0.0, text.tokens)]) for text in texts]
    while True:
        beams = [beam for search in searches for beam in search.beams]
        said_from = [search.text.said_from for search in searches for _ in search.beams]
        log_p = logits.log_softmax(dim=-1)
        log_p = decoding.change(log_p, [beam.tokens for beam in beams], processors, said_from)
        log_p = log_p + torch.tensor([beam.score for beam in beams], device=log_p.device)[:, None]
        rows: list[int] = []
        first = 0  # row of the search's first text
        for search in searches:
            count = len(search.beams)
            search.advance(log_p[first : first + count], width, spare, decoding.length_penalty, ending)
            rows += [first + beam.parent for beam in search.beams]
            first += count
            if not search.beams:
                best = search.finished[0].tokens
                search.text.tokens = best[:-1] if best[-1] in ending.stop_ids else best
        searches = [search for search in searches if search.beams]
        if not searches:
            return
        cache = cache.select(rows)
        logits = step(gpt2, cache, torch.tensor([beam.tokens[-1] for search in searches for beam in search.beams]))
