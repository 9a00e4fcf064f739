"""Generation: transformers' texts, the same with and without cache, alone and in a batch; stops, beams, scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from config import GPT2Config, UserError
from models import generation
from models.generation import generate, prefill, ready, score_continuations, score_tokens, step
from models.gpt2 import GPT2Model
from models.logits import Decoding, draw, stop_after_lines
from modules.cache import CHUNK
from modules.lora import add_lora
from modules.packed_linear import PackedLinear
from modules.prefix import FixedPrefix, Prefix

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {"vocab_size": 61, "n_positions": 90, "n_embd": 24, "n_layer": 2, "n_head": 3}
GREEDY = Decoding(temperature=0)
END = 60


def tiny(seed: int = 0, spread: float = 0.3, **changes: Any) -> GPT2Model:
    """Random weights that are large enough for predictions to be far from even."""
    torch.manual_seed(seed)
    return GPT2Model(GPT2Config(**SIZES | changes, initializer_range=spread)).eval()


def prompts(*lengths: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(END, (length,), generator=generator).tolist() for length in lengths]


def logits_of(gpt2: GPT2Model, text: list[int]) -> Tensor:
    """(T, V), without a cache."""
    with torch.no_grad():
        return gpt2.hidden_state_to_token(gpt2(torch.tensor([text]))["last_hidden_state"][0])


def without_cache(
    gpt2: GPT2Model, prompt: list[int], decoding: Decoding, seed: int, count: int, stop_ids: tuple[int, ...] = ()
) -> list[int]:
    """The definition: the whole text is read again for each token."""
    text = list(prompt)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        logits = decoding.apply(logits_of(gpt2, text)[-1:], [text])
        uniform = torch.rand(1, generator=generator, dtype=torch.float64)
        token = int(draw(logits, uniform) if decoding.draws else logits.argmax())
        if token in stop_ids:
            break
        text.append(token)
    return text[len(prompt) :]


@pytest.fixture
def pair(make_reference: Callable[..., Any], tmp_path: Path) -> Callable[[int], tuple[GPT2Model, Any]]:
    """The same random weights here and in transformers, by seed."""

    def make(seed: int) -> tuple[GPT2Model, Any]:
        reference = make_reference(seed=seed, n_positions=90, initializer_range=0.3)
        reference.save_pretrained(tmp_path / str(seed))
        return GPT2Model.from_pretrained(tmp_path / str(seed)), reference

    return make


def left_padded(rows: list[list[int]]) -> dict[str, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[END] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def reference_texts(reference: Any, rows: list[list[int]], **options: Any) -> list[list[int]]:
    """What transformers writes, cut at the end token."""
    with torch.no_grad():
        found = reference.generate(**left_padded(rows), do_sample=False, pad_token_id=END, eos_token_id=END, **options)
    texts = found[:, max(map(len, rows)) :].tolist()
    return [text[: text.index(END)] if END in text else text for text in texts]


# ---------------------------------------------------------------------------------------------------------------------
# Beside transformers, and beside the definition
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_greedy_texts_are_those_of_transformers(seed, pair):
    gpt2, reference = pair(seed)
    rows = prompts(5, 1, 12, 7, seed=seed)
    ours = generate(gpt2, rows, GREEDY, max_new_tokens=40, stop_ids=[END])
    assert ours == reference_texts(reference, rows, max_new_tokens=40)
    assert len({tuple(text) for text in ours}) == 4


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("beams", "length_penalty"), [(2, 1.0), (3, 0.0), (4, 2.0), (5, -1.0)])
def test_beam_search_finds_the_texts_of_transformers(seed, beams, length_penalty, pair):
    gpt2, reference = pair(seed)
    rows = prompts(5, 1, 9, seed=seed)
    decoding = Decoding(temperature=0, beams=beams, length_penalty=length_penalty)
    ours = generate(gpt2, rows, decoding, max_new_tokens=12, stop_ids=[END])
    expected = reference_texts(reference, rows, max_new_tokens=12, num_beams=beams, length_penalty=length_penalty)
    assert ours == expected


def test_beam_search_with_penalties_is_that_of_transformers(pair):
    gpt2, reference = pair(5)
    rows = prompts(6, 6)  # transformers counts padding among the tokens of a text
    decoding = Decoding(temperature=0, beams=3, repetition_penalty=1.5, no_repeat_ngram=2)
    options = {"num_beams": 3, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2}
    expected = reference_texts(reference, rows, max_new_tokens=15, **options)
    assert generate(gpt2, rows, decoding, max_new_tokens=15, stop_ids=[END]) == expected
    assert generate(gpt2, rows, Decoding(temperature=0, beams=3), max_new_tokens=15, stop_ids=[END]) != expected


@pytest.mark.parametrize("beams", [None, 3])
def test_a_source_may_be_said_again(beams, pair):
    """Here no token may stand twice, unless the first time is in the source."""
    gpt2, _ = pair(3)
    (prompt,) = prompts(9)
    decoding = Decoding(temperature=0, beams=beams, no_repeat_ngram=1)
    (apart,) = generate(gpt2, [prompt], decoding, max_new_tokens=20)
    (free,) = generate(gpt2, [prompt], decoding, max_new_tokens=20, penalize_prompt=False)
    assert len(set(apart)) == len(set(free)) == 20
    assert not set(apart) & set(prompt) and set(free) & set(prompt)


def test_beam_search_finds_the_likeliest_of_all_texts():
    gpt2 = tiny(vocab_size=4)
    (found,) = generate(gpt2, [[1]], Decoding(temperature=0, beams=64), max_new_tokens=4)
    every = list(itertools.product(range(4), repeat=4))
    scores = [float(score.sum()) for score in score_tokens(gpt2, [1], every)]
    assert tuple(found) == every[scores.index(max(scores))]


@pytest.mark.parametrize(
    "decoding",
    [GREEDY, Decoding(), Decoding(1.3, top_p=0.9), Decoding(0.8, top_k=9, repetition_penalty=1.3, no_repeat_ngram=3)],
    ids=["greedy", "plain", "top-p", "penalties"],
)
def test_the_cache_changes_nothing(decoding):
    gpt2, rows, seeds = tiny(), prompts(3, 30, 1, 11), [4, 5, 6, 7]
    ours = generate(gpt2, rows, decoding, seeds=seeds, max_new_tokens=45, stop_ids=[END])
    expected = [without_cache(gpt2, *pair, 45, (END,)) for pair in zip(rows, [decoding] * 4, seeds, strict=True)]
    assert ours == expected


@pytest.mark.parametrize("count", [1, 3])
def test_of_equally_likely_tokens_the_first_is_taken(count):
    gpt2 = tiny()
    with torch.no_grad():
        gpt2.wte.weight[[30, 50]] = gpt2.wte.weight[7].clone()
        gpt2.ln_f.weight.zero_()
        gpt2.ln_f.bias.copy_(10 * gpt2.wte.weight[7])  # the likeliest tokens everywhere
    assert generate(gpt2, prompts(4, 9, 2)[:count], GREEDY, max_new_tokens=3) == [[7, 7, 7]] * count


def test_a_text_depends_on_its_prompt_and_seed_alone():
    gpt2, rows, seeds = tiny(), prompts(3, 30, 1, 11, 3), [4, 5, 6, 7, 8]
    rows[4] = rows[0]

    def texts(order: list[int], count: int = 40) -> list[list[int]]:
        chosen, own = [rows[i] for i in order], [seeds[i] for i in order]
        return generate(gpt2, chosen, Decoding(top_p=0.95), seeds=own, max_new_tokens=count, stop_ids=[END])

    together = texts([0, 1, 2, 3, 4])
    assert together[0] != together[4]  # the same prompt with another seed
    assert len({len(text) for text in together}) > 1  # some ended before others
    for i in range(5):
        assert texts([i]) == [together[i]]
    order = [3, 0, 4, 2, 1]
    assert texts(order) == [together[i] for i in order]
    assert texts([0, 1], count=9) == [text[:9] for text in together[:2]]


# ---------------------------------------------------------------------------------------------------------------------
# Prefix, adapters, types
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixed", [False, True])
def test_a_prefix_comes_before_every_prompt(fixed, monkeypatch):
    gpt2, rows = tiny(), prompts(3, 30, 1)
    plain = generate(gpt2, rows, GREEDY, max_new_tokens=20)
    gpt2.prefix = Prefix(gpt2.config, 5, hidden=16)
    with torch.no_grad():
        gpt2.prefix.mlp[2].weight.mul_(10)
    if fixed:
        gpt2.prefix = gpt2.prefix.drop_mlp()
    expected = [without_cache(gpt2, row, GREEDY, 0, 20) for row in rows]
    calls, make = [], Prefix.forward
    monkeypatch.setattr(Prefix, "forward", lambda self: calls.append(self) or make(self))
    assert generate(gpt2, rows, GREEDY, max_new_tokens=20) == expected != plain
    assert not calls  # only its keys and values are used
    assert isinstance(gpt2.prefix, FixedPrefix if fixed else Prefix)  # the model itself stays as it is


def test_adapters_are_merged_into_the_copy_alone():
    gpt2 = tiny()
    add_lora(gpt2, rank=2, alpha=4)
    torch.nn.init.normal_(gpt2.h[0].attn.c_attn.lora_B.weight)
    before = {name: tensor.clone() for name, tensor in gpt2.state_dict().items()}
    row = prompts(8)[0]
    assert generate(gpt2, [row], GREEDY, max_new_tokens=20) == [without_cache(gpt2, row, GREEDY, 0, 20)]
    after = gpt2.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_ready_model_is_the_same_function(dtype, packs, monkeypatch):
    if not packs:
        monkeypatch.setattr("modules.packed_linear.can_pack", lambda device, dtype: False)
    gpt2, (row,) = tiny(spread=0.1), prompts(30)
    gpt2.train()  # dropout must be off in the copy
    fast = ready(gpt2, dtype)
    assert ready(fast, dtype) is fast and gpt2.training and not fast.training
    exact = logits_of(gpt2.eval(), row)
    with torch.no_grad():
        states = fast(torch.tensor([row]))["last_hidden_state"][0]
        logits = fast.hidden_state_to_token(states)
    assert states.dtype == torch.float32 and logits.dtype == dtype
    assert (logits.float() - exact).norm() / exact.norm() < (1e-5 if dtype == torch.float32 else 2e-2)
    assert fast.wte.weight is gpt2.wte.weight  # embeddings are shared
    with pytest.raises(ValueError, match="made ready in"):
        ready(fast, torch.float16)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("rows", [1, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gelu_within_the_packed_map_is_gelu_after_it(dtype, rows, packs, monkeypatch):
    """Over the range where GELU bends: its exact form differs from the tanh form by up to 5e-4 there."""
    if not packs:
        monkeypatch.setattr("modules.packed_linear.can_pack", lambda device, dtype: False)
    torch.manual_seed(0)
    weight, bias, x = 0.3 * torch.randn(96, 24), torch.randn(96), torch.randn(rows, 24)
    expected = F.gelu(F.linear(x, weight, bias), approximate="tanh")
    found = PackedLinear(weight, bias, dtype, gelu=True)(x)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)


def test_bf16_is_close_to_fp32():
    gpt2, rows = tiny(spread=0.1), prompts(20, 3, 11)
    fast = ready(gpt2, torch.bfloat16)
    cache, logits = prefill(fast, rows)
    assert cache.states.dtype == torch.bfloat16 and logits.dtype == torch.float32
    after = step(fast, cache, torch.tensor([1, 2, 3]))
    exact = torch.stack([logits_of(gpt2, row + [i])[-1] for i, row in enumerate(rows, start=1)])
    assert (after - exact).norm() / exact.norm() < 0.02
    texts = generate(gpt2, rows, Decoding(), seeds=[1, 2, 3], max_new_tokens=30, dtype=torch.bfloat16)
    assert [len(text) for text in texts] == [30, 30, 30]


# ---------------------------------------------------------------------------------------------------------------------
# Where texts end
# ---------------------------------------------------------------------------------------------------------------------


def test_end_tokens_and_stop_rules_end_a_text_by_itself():
    gpt2, rows, seeds = tiny(), prompts(4, 9, 2), [1, 2, 3]
    whole = generate(gpt2, rows, Decoding(), seeds=seeds, max_new_tokens=30)
    assert [len(text) for text in whole] == [30, 30, 30]
    end = whole[0][6]
    cut = generate(gpt2, rows, Decoding(), seeds=seeds, max_new_tokens=30, stop_ids=[end])
    assert cut == [text[: text.index(end)] if end in text else text for text in whole]
    assert len(cut[0]) <= 6
    # A stop rule sees prompt and continuation, and its last token stays.
    line = whole[1][5]
    rule = stop_after_lines(1 + rows[1].count(line), [line])
    (text,) = generate(gpt2, rows[1:2], Decoding(), seeds=seeds[1:2], max_new_tokens=30, stop=rule)
    assert text == whole[1][: whole[1].index(line) + 1]
    seen: list[list[int]] = []
    generate(gpt2, rows[:1], GREEDY, max_new_tokens=3, stop=lambda text: bool(seen.append(list(text))))
    assert [len(text) for text in seen] == [5, 6, 7] and seen[0][:4] == rows[0]


class OnApple(Tensor):
    """A tensor that says that it is on Apple's GPU, where there is no float64."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("mps")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(function, types, args, kwargs or {})
        if isinstance(result, cls) and result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return result.as_subclass(Tensor) if function is Tensor.cpu else result


def test_drawing_needs_no_float64_of_an_apple_gpu(monkeypatch):
    def moved(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args != (torch.device("mps"),):
            return to(tensor.as_subclass(Tensor), *args, **kwargs)
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return tensor.as_subclass(OnApple)

    gpt2, texts, seeds = ready(tiny()), prompts(5, 3, 8), [1, 2, 3]
    stop_ids = list(range(20))  # some end before the others
    expected = generate(gpt2, texts, seeds=seeds, max_new_tokens=9, stop_ids=stop_ids)
    to, logits = Tensor.to, generation._logits
    monkeypatch.setattr(Tensor, "to", moved)
    monkeypatch.setattr(generation, "_logits", lambda *given: logits(*given).as_subclass(OnApple))
    assert generate(gpt2, texts, seeds=seeds, max_new_tokens=9, stop_ids=stop_ids) == expected


def test_what_has_ended_is_not_computed(monkeypatch):
    gpt2, rows, seeds = ready(tiny()), prompts(4, 9, 2), [1, 2, 3]
    sizes, forward = [], type(gpt2.unembedding).forward

    def spy(self: Any, x: Tensor) -> Tensor:
        if self is gpt2.unembedding:
            sizes.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(type(gpt2.unembedding), "forward", spy)
    texts = generate(gpt2, rows, Decoding(), seeds=seeds, max_new_tokens=25, stop=lambda text: text[-1] % 7 == 0)
    lengths = [len(text) for text in texts]
    assert sizes == [sum(length > i for length in lengths) for i in range(max(lengths))] and len(set(lengths)) == 3


@pytest.mark.parametrize("prefix", [0, 5])
@pytest.mark.parametrize("beams", [1, 2])
def test_a_text_stops_where_the_context_ends(prefix, beams):
    gpt2 = tiny(n_positions=40)
    if prefix:
        gpt2.prefix = Prefix(gpt2.config, prefix, hidden=8)
    rows = prompts(gpt2.max_tokens - 3, 30, gpt2.max_tokens)
    texts = generate(gpt2, rows, Decoding(temperature=0, beams=beams), max_new_tokens=20)
    assert [len(text) for text in texts] == [3, gpt2.max_tokens - 30, 0]
    if beams == 1:
        assert texts == [without_cache(gpt2, row, GREEDY, 0, gpt2.max_tokens - len(row)) for row in rows]


def test_wrong_prompts_are_refused():
    gpt2 = tiny(n_positions=40)
    with pytest.raises(UserError) as caught:
        generate(gpt2, [[1], [], [2] * 41], GREEDY, max_new_tokens=3)
    assert caught.value.problems == [
        "prompt 2 is empty; begin with a token at least, such as the end token",
        "prompt 3 has 41 tokens, more than the model's context of 40; cut it",
    ]
    with pytest.raises(UserError, match="--max-new-tokens 0: must be at least 1"):
        generate(gpt2, [[1]], GREEDY, max_new_tokens=0)
    for seeds in (None, [1]):
        with pytest.raises(ValueError, match="2 prompts need as many seeds"):
            generate(gpt2, [[1], [2]], Decoding(), seeds=seeds, max_new_tokens=3)
    assert generate(gpt2, [], GREEDY, max_new_tokens=3) == []


# ---------------------------------------------------------------------------------------------------------------------
# The parts
# ---------------------------------------------------------------------------------------------------------------------


def test_steps_of_one_and_of_several_tokens_give_the_models_logits():
    gpt2, rows = tiny(), prompts(3, 60, 1)
    cache, logits = prefill(gpt2, rows)
    expected = [logits_of(gpt2, row)[-1] for row in rows]
    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-4, rtol=1e-4)
    several = torch.tensor(prompts(5, 5, 5, seed=2))
    one = torch.tensor([7, 8, 9])
    found = [step(gpt2, cache, several), step(gpt2, cache, one)[:, None]]
    assert cache.capacity == 2 * CHUNK and cache.lengths == [9, 66, 7]  # it had to grow
    texts = torch.cat([several, one[:, None]], dim=1).tolist()
    expected = [logits_of(gpt2, row + text)[-6:] for row, text in zip(rows, texts, strict=True)]
    torch.testing.assert_close(torch.cat(found, dim=1), torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_rows_of_a_cache_are_selected_repeated_and_cut():
    gpt2, rows = tiny(), prompts(3, 20, 8)
    cache, _ = prefill(gpt2, rows)
    some = cache.select([2, 0, 2])
    assert (some.lengths, some.batch_size, cache.lengths) == ([8, 3, 8], 3, [3, 20, 8])
    found = step(gpt2, some, torch.tensor([5, 6, 7]))
    for row, prompt, token in zip(found, (rows[2], rows[0], rows[2]), (5, 6, 7), strict=True):
        torch.testing.assert_close(row, logits_of(gpt2, [*prompt, token])[-1], atol=1e-4, rtol=1e-4)
    some.cut([4, 4, 8])
    found = step(gpt2, some, torch.tensor([[1, 2], [3, 4], [5, 6]]))
    expected = [[*rows[2][:4], 1, 2], [*rows[0], 6, 3, 4], [*rows[2], 5, 6]]
    torch.testing.assert_close(found, torch.stack([logits_of(gpt2, text)[-2:] for text in expected]), atol=1e-4, rtol=0)
    # The cache that they were selected from has not changed.
    torch.testing.assert_close(
        step(gpt2, cache, torch.tensor([1, 2, 3]))[1], logits_of(gpt2, [*rows[1], 2])[-1], atol=1e-4, rtol=1e-4
    )
    with pytest.raises(ValueError, match="can't be cut"):
        some.cut([1, 99, 1])


def test_a_copy_of_a_cache_is_another_one():
    """Also of all its rows in their order, which are the same cache where they are selected."""
    gpt2, (prompt,) = tiny(), prompts(8)
    cache, _ = prefill(gpt2, [prompt])
    assert cache.select([0]) is cache
    step(gpt2, cache.copy([0]), torch.tensor([5]))
    assert cache.lengths == [8]
    torch.testing.assert_close(
        step(gpt2, cache, torch.tensor([6]))[0], logits_of(gpt2, [*prompt, 6])[-1], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("prefix", [0, 5])
def test_scores_of_continuations(prefix, monkeypatch):
    gpt2, (prompt,) = tiny(), prompts(17)
    if prefix:
        gpt2.prefix = Prefix(gpt2.config, prefix, hidden=8)
    candidates = [*prompts(4, 1, 30, 4, 2, seed=5), []]
    expected = []
    for candidate in candidates:
        log_p = logits_of(gpt2, prompt + candidate).log_softmax(dim=-1)[len(prompt) - 1 : -1]
        expected.append(log_p.gather(1, torch.tensor(candidate, dtype=torch.long)[:, None]).squeeze(1))
    monkeypatch.setattr("models.generation.SCORED_AT_ONCE", 8)  # so that there are several groups, one of them too long
    cache, logits = prefill(ready(gpt2), [prompt])
    for found in (score_tokens(gpt2, prompt, candidates), score_continuations(ready(gpt2), cache, logits, candidates)):
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    # Scoring has left the text as it was.
    torch.testing.assert_close(
        step(gpt2, cache, torch.tensor([9]))[0], logits_of(gpt2, [*prompt, 9])[-1], atol=1e-4, rtol=1e-4
    )


def test_parts_refuse_what_does_not_fit():
    gpt2 = tiny(n_positions=40)
    cache, logits = prefill(gpt2, prompts(39, 4))
    with pytest.raises(UserError, match="a text of 41 tokens is longer than the model's context of 40; stop before"):
        step(gpt2, cache, torch.zeros(2, 2, dtype=torch.long))
    assert cache.lengths == [39, 4]
    with pytest.raises(ValueError, match="of one text are scored, not of 2"):
        score_continuations(gpt2, cache, logits, [[1]])
    with pytest.raises(UserError, match="a text of 41 tokens"):
        score_continuations(gpt2, cache.select([0]), logits[:1], [[1], [1, 2, 3]])
    with pytest.raises(ValueError, match="call eval"):
        prefill(tiny().train(), [[1]])
