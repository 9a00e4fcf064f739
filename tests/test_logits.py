"""Filters against transformers' processors, the order that they apply in, and draws against their distribution."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import scipy.stats
import torch
import transformers
from torch import Tensor

from config import UserError
from models.logits import (
    Decoding,
    draw,
    encourage_line_end,
    forbid_repeated_ngrams,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    least_by_numpy,
    least_by_torch,
    penalize_repetition,
    stop_after_lines,
)

pytestmark = pytest.mark.usefixtures("one_thread")
LONG = 6000
FILTERS = [
    (keep_top_k, transformers.TopKLogitsWarper, [1, 5, 60, 61, 4000]),
    (keep_top_p, transformers.TopPLogitsWarper, [1e-9, 0.3, 0.9, 0.999]),
    (keep_min_p, transformers.MinPLogitsWarper, [0.0, 0.05, 0.5, 1.0]),
    (keep_typical, transformers.TypicalLogitsWarper, [0.01, 0.2, 0.9, 0.999]),
]
CASES = [(ours, theirs, value) for ours, theirs, values in FILTERS for value in values]


def random_logits(vocabulary: int, spread: float, seed: int = 0) -> Tensor:
    return torch.randn(7, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


def random_texts(vocabulary: int, length: int = 30) -> list[list[int]]:
    return torch.randint(vocabulary, (7, length), generator=torch.Generator().manual_seed(3)).tolist()


@pytest.mark.parametrize(("ours", "theirs", "value"), CASES, ids=lambda x: getattr(x, "__name__", str(x)))
@pytest.mark.parametrize("vocabulary", [61, LONG])
@pytest.mark.parametrize("spread", [0.3, 3.0, 12.0])
def test_filters_are_those_of_transformers(ours, theirs, value, vocabulary, spread):
    logits = random_logits(vocabulary, spread)
    before = logits.clone()
    if theirs is transformers.TypicalLogitsWarper:
        logits[:, ::3] = -math.inf  # as an earlier filter may leave them
        before = logits.clone()
    filtered = ours(logits, value)
    assert torch.equal(filtered, theirs(value)(None, logits))
    assert torch.equal(logits, before)
    assert (filtered > -math.inf).any(dim=-1).all()


@pytest.mark.parametrize("p", [1e-9, 0.3, 0.9, 0.999])
def test_top_p_is_the_same_on_both_kinds_of_device(p):
    logits = torch.cat([random_logits(LONG, spread) for spread in (0.0, 0.3, 3.0, 12.0)])
    logits[3, 100:] = -math.inf
    probabilities = logits.softmax(dim=-1)
    assert torch.equal(least_by_numpy(probabilities, p), least_by_torch(probabilities, p))


def test_top_p_keeps_all_tokens_that_are_as_likely_as_the_last():
    logits = torch.tensor([[0.0, 1.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    assert torch.equal(keep_top_p(logits, 0.4) > -math.inf, torch.tensor([[False, True, False, True], [True] * 4]))


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3])
def test_repetition_penalty_is_that_of_transformers(penalty):
    logits, texts = random_logits(61, 3.0), random_texts(61)
    expected = transformers.RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor(texts), logits)
    assert torch.equal(penalize_repetition(logits, texts, penalty), expected)
    assert torch.equal(logits, random_logits(61, 3.0))


@pytest.mark.parametrize("n", [1, 2, 3, 31])
def test_no_repeated_ngram_is_that_of_transformers(n):
    logits, texts = random_logits(6, 3.0), random_texts(6)
    expected = transformers.NoRepeatNGramLogitsProcessor(n)(torch.tensor(texts), logits)
    result = forbid_repeated_ngrams(logits, texts, n)
    assert torch.equal(result, expected)
    assert n == 31 or (result == -math.inf).any()


def test_texts_of_unequal_length_are_penalized_by_their_own_tokens():
    logits = torch.ones(2, 5)
    assert penalize_repetition(logits, [[0, 1], [4, 4, 4, 4]], 2.0).tolist() == [[0.5, 0.5, 1, 1, 1], [1, 1, 1, 1, 0.5]]
    assert forbid_repeated_ngrams(logits, [[0, 1], [2, 3, 2]], 2).isinf().nonzero().tolist() == [[1, 3]]


def test_what_stands_before_a_continuation_need_not_count():
    logits, texts = torch.ones(2, 5), [[0, 1, 2, 3, 2], [4, 4, 0, 4]]
    penalized = Decoding(repetition_penalty=2.0).apply(logits, texts, starts=[3, 4])
    assert penalized.tolist() == [[1, 1, 0.5, 0.5, 1], [1] * 5]
    assert Decoding(no_repeat_ngram=2).apply(logits, texts, starts=[2, 2]).isinf().nonzero().tolist() == [[0, 3]]
    assert Decoding(no_repeat_ngram=2).apply(logits, texts).isinf().nonzero().tolist() == [[0, 3], [1, 0], [1, 4]]


def test_the_order_is_that_of_transformers():
    """Each step changes what the next one sees, so another order gives other logits."""
    logits, texts = random_logits(61, 3.0), random_texts(61)
    decoding = Decoding(0.7, 40, 0.9, 0.02, 0.8, 1.4, 2)
    processor = encourage_line_end(0, 2.0, [3, 5])
    chain = transformers.LogitsProcessorList(
        [
            transformers.RepetitionPenaltyLogitsProcessor(1.4),
            transformers.NoRepeatNGramLogitsProcessor(2),
            lambda ids, scores: processor(scores, ids.tolist()),
            transformers.TemperatureLogitsWarper(0.7),
            transformers.TopKLogitsWarper(40),
            transformers.TopPLogitsWarper(0.9),
            transformers.MinPLogitsWarper(0.02),
            transformers.TypicalLogitsWarper(0.8),
        ]
    )
    expected = chain(torch.tensor(texts), logits.clone())
    assert torch.equal(decoding.apply(logits, texts, [processor]), expected)
    assert torch.equal(decoding.change(logits, texts, [processor]), transformers.LogitsProcessorList(chain[:3])(
        torch.tensor(texts), logits.clone()))  # fmt: skip


def test_nothing_asked_changes_nothing():
    logits = random_logits(61, 3.0)
    assert torch.equal(Decoding().apply(logits, random_texts(61)), logits)
    # Without drawing, filters decide nothing and are left out.
    assert torch.equal(Decoding(temperature=0, top_k=3).apply(logits, random_texts(61)), logits)


# ---------------------------------------------------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -0.1}, "--temperature -0.1: must be 0, for the likeliest token, or a number above it"),
        ({"temperature": math.nan}, "--temperature nan: must be 0, for the likeliest token, or a number above it"),
        ({"top_k": 0}, "--top-k 0: must be a whole number, at least 1"),
        ({"top_p": 0.0}, "--top-p 0.0: must be greater than 0 and at most 1"),
        ({"top_p": 1.1}, "--top-p 1.1: must be greater than 0 and at most 1"),
        ({"min_p": 1.5}, "--min-p 1.5: must be between 0 and 1"),
        ({"typical_p": 0.0}, "--typical-p 0.0: must be greater than 0 and at most 1"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty 0.0: must be a number above 0; 1 changes nothing"),
        ({"no_repeat_ngram": 0}, "--no-repeat-ngram 0: must be a whole number, at least 1"),
        ({"temperature": 0, "beams": 0}, "--beams 0: must be a whole number, at least 1"),
        ({"length_penalty": math.inf}, "--length-penalty inf: must be a number"),
    ],
)
def test_values_out_of_range(wrong, message):
    with pytest.raises(UserError) as caught:
        Decoding(**wrong)
    assert caught.value.problems == [message]


def test_beams_are_refused_with_a_temperature_and_all_problems_are_said():
    with pytest.raises(UserError, match=r"--beams 4: .* use --temperature 0"):
        Decoding(beams=4)
    assert Decoding(temperature=0, beams=4).beams == Decoding(temperature=0.5, beams=1).beams * 4
    with pytest.raises(UserError) as caught:
        Decoding(temperature=-1, top_p=2)
    assert len(caught.value.problems) == 2


# ---------------------------------------------------------------------------------------------------------------------
# Drawing
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [{}, {"temperature": 0.6}, {"top_p": 0.8}, {"top_k": 4, "temperature": 1.5}])
def test_draws_follow_the_softmax(filters):
    logits = random_logits(12, 1.5)[:1]
    decoding = Decoding(**filters)
    shaped = decoding.apply(logits, [[0]])
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    counts = torch.bincount(draw(shaped.expand(len(uniform), -1), uniform), minlength=12)
    possible = shaped[0] > -math.inf
    assert counts[~possible].sum() == 0
    expected = shaped[0].softmax(-1)[possible].double()
    test = scipy.stats.chisquare(counts[possible].numpy(), (expected / expected.sum() * len(uniform)).numpy())
    assert test.pvalue > 0.01
    wrong = (logits * 1.3).softmax(-1)[0, possible].double()  # the test can tell a slightly sharper distribution
    assert scipy.stats.chisquare(counts[possible], (wrong / wrong.sum() * len(uniform)).numpy()).pvalue < 1e-6


def test_the_ends_of_the_unit_interval_draw_no_impossible_token():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 1.0, -math.inf]])
    uniform = torch.tensor([0.0, 1.0 - 2.0**-53, 0.2689, 0.2690], dtype=torch.float64)
    assert draw(logits.expand(4, -1), uniform).tolist() == [1, 3, 1, 3]  # 1 / (1 + e) = 0.26894...


# ---------------------------------------------------------------------------------------------------------------------
# Lines of verse
# ---------------------------------------------------------------------------------------------------------------------


def test_stop_after_lines():
    stop = stop_after_lines(3, [10, 11])
    assert [stop(text) for text in ([10, 10], [10, 1, 11, 2, 10], [10, 10, 10, 10], [])] == [False, True, True, False]


ENDS, COMMA = [10], [7]
boost_cases: list[tuple[list[int], bool]] = [
    ([1, 2, 3], True),  # three words where each token is one
    ([1, 2], False),
    ([1, 2, 3, 10], False),  # a new line
    ([1, 2, 3, 10, 1, 2, 3], True),
]


def check_boost(processor: Callable, text: list[int], boosted: bool) -> None:
    logits = random_logits(12, 1.0)[:1]
    added = processor(logits, [text]) - logits
    expected = torch.zeros(1, 12)
    if boosted:
        expected[0, [7, 10]] = 1.5
    torch.testing.assert_close(added, expected)


@pytest.mark.parametrize(("text", "boosted"), boost_cases)
def test_line_ends_become_likelier_after_some_words(text, boosted):
    check_boost(encourage_line_end(3, 1.5, ENDS, COMMA), text, boosted)


@pytest.mark.parametrize(
    ("text", "boosted"),
    [
        ([10, 1, 2, 3, 4], False),  # 1 begins the line, 2 a word; 3 and 4 go on with it
        ([10, 1, 2, 3, 2], True),
        ([10, 2, 2, 3], False),  # the first token counts once
        ([10, 2, 2, 2], True),
        ([2, 2, 2, 10], False),
    ],
)
def test_words_of_several_tokens_count_once(text, boosted):
    check_boost(encourage_line_end(3, 1.5, ENDS, COMMA, word_starts=[2]), text, boosted)


def test_each_text_of_a_batch_is_boosted_by_its_own_line():
    processor = encourage_line_end(2, 1.0, ENDS)
    logits = torch.zeros(3, 12)
    assert processor(logits, [[1], [1, 1], [1, 1, 10]])[:, 10].tolist() == [0, 1, 0]
