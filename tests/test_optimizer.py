"""AdamW against its formulas and against torch's, parameter groups, and schedules."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from config import GPT2Config
from models.classifier import GPT2Classifier
from models.gpt2 import GPT2Model
from optimizer import (
    SCHEDULES,
    AdamW,
    constant,
    cosine,
    linear,
    parameter_groups,
    slanted_triangular,
    warmup_stable_decay,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def parameters(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    torch.manual_seed(seed)
    return [nn.Parameter(torch.randn(shape).to(dtype)) for shape in ((5, 3), (3,), (2, 3, 4), ())]


def train(optimizer: torch.optim.Optimizer, steps: int, seed: int = 1) -> list[Tensor]:
    """Steps on random gradients of very different sizes; returns the parameters."""
    torch.manual_seed(seed)
    tensors = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for _ in range(steps):
        for parameter in tensors:
            parameter.grad = (torch.randn(parameter.shape) * 10.0 ** torch.randint(-4, 2, ())).to(parameter.dtype)
        optimizer.step()
    return [parameter.detach().clone() for parameter in tensors]


# ---------------------------------------------------------------------------------------------------------------------
# The step
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [None, False], ids=["fused", "written out"])
def test_two_steps_by_hand(fused):
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = AdamW([parameter], lr=0.1, betas=(0.5, 0.75), eps=0.01, weight_decay=0.2, fused=fused)
    parameter.grad = torch.tensor([2.0], dtype=torch.float64)
    optimizer.step()
    # m = 1, v = 1, rate = 0.1 * sqrt(0.25) / 0.5 = 0.1, update 0.1 * 1 / 1.01, then decay by 1 - 0.1 * 0.2
    first = (1 - 0.1 / 1.01) * 0.98
    assert parameter.item() == pytest.approx(first, rel=1e-12)
    parameter.grad = torch.tensor([-4.0], dtype=torch.float64)
    optimizer.step()
    # m = 0.5 * 1 - 0.5 * 4 = -1.5, v = 0.75 * 1 + 0.25 * 16 = 4.75, rate = 0.1 * sqrt(7 / 16) / 0.75
    rate = 0.1 * math.sqrt(7 / 16) / 0.75
    assert parameter.item() == pytest.approx((first + rate * 1.5 / (math.sqrt(4.75) + 0.01)) * 0.98, rel=1e-12)


def test_a_step_without_bias_correction():
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = AdamW([parameter], lr=0.1, betas=(0.5, 0.75), eps=0.01, correct_bias=False)
    parameter.grad = torch.tensor([2.0], dtype=torch.float64)
    optimizer.step()
    assert parameter.item() == pytest.approx(1 - 0.1 * 1 / 1.01, rel=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_fused_branch_equals_the_written_out_step(dtype, weight_decay):
    settings: dict[str, Any] = {"lr": 3e-2, "weight_decay": weight_decay}
    fused = train(AdamW(parameters(dtype=dtype), **settings), steps=40)
    written_out = train(AdamW(parameters(dtype=dtype), fused=False, **settings), steps=40)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(fused, written_out, **tolerance)


def test_the_fused_branch_in_bfloat16():
    fused = train(AdamW(parameters(dtype=torch.bfloat16), lr=1e-2), steps=5)
    written_out = train(AdamW(parameters(dtype=torch.bfloat16), lr=1e-2, fused=False), steps=5)
    torch.testing.assert_close(fused, written_out, rtol=2e-2, atol=2e-2)


def test_the_fused_branch_is_taken(monkeypatch):
    calls = []
    monkeypatch.setattr(AdamW, "_step", lambda *args: calls.append(args))
    train(AdamW(parameters(), weight_decay=0.1), steps=2)
    assert not calls
    train(AdamW(parameters(), correct_bias=False), steps=1)
    train(AdamW(parameters(), fused=False), steps=1)
    train(AdamW(parameters(), lr=1.0, weight_decay=1.0), steps=1)
    assert len(calls) == 3 * 4


@pytest.mark.parametrize("transposed", ["gradient", "parameter"])
def test_memory_layouts_that_differ(transposed):
    """torch's kernel runs through memory in order, whatever the strides."""
    values, gradient = torch.randn(4, 6), torch.randn(4, 6)
    results = []
    for fused in (None, False):
        parameter = nn.Parameter(values.clone() if transposed == "gradient" else values.t().contiguous().t())
        parameter.grad = gradient.t().contiguous().t() if transposed == "gradient" else gradient
        AdamW([parameter], lr=0.1, fused=fused).step()
        results.append(parameter.detach().contiguous())
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("fused", [None, False], ids=["fused", "written out"])
def test_against_torch(fused):
    """torch adds eps to the corrected root, so they agree where eps is nothing; without decay they do the same."""
    ours = train(AdamW(parameters(dtype=torch.float64), lr=1e-2, eps=0.0, fused=fused), steps=30)
    theirs = train(torch.optim.AdamW(parameters(dtype=torch.float64), lr=1e-2, eps=0.0, weight_decay=0.0), steps=30)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_decay_against_torch():
    """torch decays before the update, we after it: (p - u)(1 - d) = p (1 - d) - u (1 - d)."""
    before = parameters(dtype=torch.float64)
    lr, decay = 0.1, 0.5
    kept = 1 - lr * decay
    ours = train(AdamW(parameters(dtype=torch.float64), lr=lr, eps=0.0, weight_decay=decay), steps=1)
    theirs = train(torch.optim.AdamW(parameters(dtype=torch.float64), lr=lr, eps=0.0, weight_decay=decay), steps=1)
    for start, own, other in zip(before, ours, theirs, strict=True):
        update = start * kept - other
        torch.testing.assert_close(own, (start - update) * kept, rtol=1e-10, atol=1e-12)


def test_parameters_that_rest_and_join_later():
    def steps(fused: bool | None) -> tuple[list[Tensor], list[int]]:
        tensors = parameters(dtype=torch.float64)
        optimizer = AdamW(tensors, lr=1e-2, weight_decay=0.1, fused=fused)
        torch.manual_seed(4)
        for step in range(12):
            optimizer.zero_grad()
            for i, parameter in enumerate(tensors):
                if (i == 1 and step < 5) or (i == 2 and 3 <= step < 8):
                    continue
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        return [t.detach() for t in tensors], [optimizer.state[t]["step"] for t in tensors]

    fused, counts = steps(None)
    assert counts == [12, 7, 7, 12]
    torch.testing.assert_close(fused, steps(False)[0], rtol=1e-12, atol=1e-13)


def test_a_resting_parameter_does_not_decay():
    resting, moving = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    moving.grad = torch.ones(2)
    AdamW([resting, moving], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(resting, torch.ones(2))
    assert moving.max() < 0.9


# CS 224N's optimizer_test.py, whose reference values come from a file; here from the formulas in float64.


def course_test(step: Callable[[np.ndarray, np.ndarray], np.ndarray], weight: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        x = rng.uniform(size=[3]).astype(np.float32).astype(np.float64)
        error = weight @ x - np.array([x[0] + x[1], -x[2]])
        weight = step(weight, 2 * np.outer(error, x))
    return weight


def numpy_adamw(lr: float, weight_decay: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Kingma & Ba 2015, algorithm 1, in the more efficient order of section 2, and the decay at the end."""
    m, v, t = np.zeros((2, 3)), np.zeros((2, 3)), 0

    def step(weight: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        nonlocal m, v, t
        t += 1
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        rate = lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weight = weight - rate * m / (np.sqrt(v) + 1e-6)
        return weight - lr * weight_decay * weight

    return step


@pytest.mark.parametrize("fused", [None, False], ids=["fused", "written out"])
def test_the_course_test(fused):
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False)
    start = model.weight.detach().double().numpy()
    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, correct_bias=True, fused=fused)
    for _ in range(1000):
        optimizer.zero_grad()
        x = torch.FloatTensor(rng.uniform(size=[model.weight.size(1)]))
        y_hat = model(x)
        y = torch.Tensor([x[0] + x[1], -x[2]])
        loss = ((y - y_hat) ** 2).sum()
        loss.backward()
        optimizer.step()
    expected = course_test(numpy_adamw(lr=1e-3, weight_decay=1e-4), start)
    np.testing.assert_allclose(model.weight.detach().numpy(), expected, atol=1e-6, rtol=1e-4)  # the course's tolerance


@pytest.mark.parametrize("settings", [{}, {"fused": False}, {"correct_bias": False}], ids=str)
def test_saved_state_continues_bit_for_bit(settings, tmp_path):
    def make(tensors: list[nn.Parameter]) -> AdamW:
        groups = [{"params": tensors[:2], "lr": 1e-2}, {"params": tensors[2:], "weight_decay": 0.1}]
        return AdamW(groups, lr=1e-3, **settings)

    optimizer = make(parameters())
    train(optimizer, steps=5)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = make([nn.Parameter(p.detach().clone()) for group in optimizer.param_groups for p in group["params"]])
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for never, again in zip(train(optimizer, 5, seed=7), train(resumed, 5, seed=7), strict=True):
        assert torch.equal(never, again)


def test_a_copy_steps_like_the_original():
    optimizer = AdamW(parameters(), lr=1e-2, fused=False)
    train(optimizer, steps=2)
    twin = copy.deepcopy(optimizer)
    assert all(torch.equal(a, b) for a, b in zip(train(optimizer, 3), train(twin, 3), strict=True))


def test_it_is_deterministic():
    runs = [train(AdamW(parameters(), weight_decay=0.1), steps=10) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_a_closure_is_called_and_its_loss_returned():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = AdamW([parameter])

    def closure() -> Tensor:
        loss = parameter.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert (parameter < 1).all()


def test_a_sparse_gradient_is_refused():
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="does not take sparse gradients"):
        AdamW(embedding.parameters()).step()


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", -1.0), ("betas", (1.0, 0.9)), ("betas", (0.9, -0.1)), ("eps", -1e-8), ("weight_decay", -0.1)],
)
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=f"^{name} must "):
        AdamW(parameters(), **{name: value})


def test_the_course_defaults():
    defaults = AdamW(parameters()).defaults
    expected = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0, "correct_bias": True}
    assert defaults.items() >= expected.items()


# ---------------------------------------------------------------------------------------------------------------------
# Parameter groups
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def model() -> GPT2Classifier:
    return GPT2Classifier(GPT2Model(GPT2Config(vocab_size=9, n_positions=8, n_embd=6, n_layer=3, n_head=2)), 2)


def test_groups_are_disjoint_and_complete(model):
    groups = parameter_groups(model.layer_groups(), model, lr=0.1, weight_decay=0.01)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(map(id, model.parameters()))
    assert [group["name"] for group in groups] == [
        "embeddings",
        *(f"block {i}{suffix}" for i in range(3) for suffix in ("", " (biases, norms)")),
        "final norm (biases, norms)",
        "head",
    ]


def test_weight_decay_goes_by_type(model):
    groups = parameter_groups(model.layer_groups(), model, lr=0.1, weight_decay=0.01)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying = {names[id(p)] for group in groups if group["weight_decay"] == 0.01 for p in group["params"]}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.01}
    # In GPT-2 the parameters of linear maps and embeddings that are no biases are those with two dimensions.
    assert decaying == {name for name, parameter in model.named_parameters() if parameter.dim() == 2}


def test_rates_by_layer_group(model):
    groups = parameter_groups(model.layer_groups(), model, lr=0.1, rate_factors={"block 1": 0.5, "head": 10.0})
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates["block 1"] == rates["block 1 (biases, norms)"] == 0.05
    assert rates["head"] == 1.0
    assert rates["block 2"] == 0.1
    assert all(group["base_lr"] == group["lr"] for group in groups)


def test_frozen_parameters_are_in_no_group(model):
    model.gpt2.requires_grad_(False)
    (group,) = parameter_groups(model.layer_groups(), model, lr=0.1)
    assert group["name"] == "head"
    assert group["params"] == [model.score.weight]


def test_many_parameters_are_grouped_at_once():
    many = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(20_000))
    started = time.process_time()
    assert len(parameter_groups({"all": list(many)}, many, lr=0.1)[0]["params"]) == 20_000
    assert time.process_time() - started < 3


def test_a_forgotten_parameter_is_an_error(model):
    layer_groups = model.layer_groups()
    del layer_groups["block 1"]
    with pytest.raises(AssertionError, match=r"in no optimizer group: gpt2\.h\.1\.ln_1\.weight"):
        parameter_groups(layer_groups, model, lr=0.1)


def test_a_parameter_in_two_groups_is_an_error(model):
    layer_groups = model.layer_groups() | {"again": [model.score.weight]}
    with pytest.raises(AssertionError, match="in two optimizer groups"):
        parameter_groups(layer_groups, model, lr=0.1)


def test_a_rate_for_an_unknown_group_is_an_error(model):
    with pytest.raises(AssertionError, match="no layer group is called 'blok 1'"):
        parameter_groups(model.layer_groups(), model, lr=0.1, rate_factors={"blok 1": 0.5})


# ---------------------------------------------------------------------------------------------------------------------
# Schedules
# ---------------------------------------------------------------------------------------------------------------------


def test_constant():
    assert [constant(step, 10) for step in (0, 5, 9)] == [1.0, 1.0, 1.0]
    assert [constant(step, 10, warmup=3) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear():
    assert [linear(step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert [linear(step, 8, warmup=3) for step in range(9)] == [
        0.25,
        0.5,
        0.75,
        1.0,
        0.8,
        0.6,
        0.4,
        pytest.approx(0.2),
        0.0,
    ]
    assert linear(99, 8) == 0.0


def test_cosine():
    expected = [1.0, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4]
    assert [cosine(step, 4) for step in range(4)] == pytest.approx(expected)
    assert [cosine(step, 5, warmup=1) for step in range(5)] == pytest.approx([0.5, *expected])
    assert cosine(99, 4) == pytest.approx(0.0)


def test_warmup_stable_decay():
    factors = [warmup_stable_decay(step, 20, warmup=4) for step in range(21)]
    assert factors[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert factors[4:17] == [1.0] * 13  # the last fifth begins after step 16
    assert factors[16:] == pytest.approx([1 - math.sqrt(i / 4) for i in range(5)])
    assert factors[20] == 0.0 == warmup_stable_decay(99, 20)
    assert warmup_stable_decay(16.5, 20) == pytest.approx(1 - math.sqrt(0.5 / 4))  # between two steps
    assert warmup_stable_decay(9, 10, decay_share=0.5) == pytest.approx(1 - math.sqrt(4 / 5))


def test_a_run_can_be_prolonged_from_its_constant_part():
    assert all(warmup_stable_decay(step, 50, warmup=3) == warmup_stable_decay(step, 90, warmup=3) for step in range(40))


@pytest.mark.parametrize("total", [10, 100, 250, 1000])
@pytest.mark.parametrize("cut_frac", [0.1, 0.2, 0.5])
def test_slanted_triangular_is_equation_3(total, cut_frac):
    """Howard & Ruder 2018, eq. 3, written down again; where total * cut_frac is whole, as the paper has it."""
    ratio, rate_max = 32, 0.01
    cut = math.floor(total * cut_frac)
    assert cut == pytest.approx(total * cut_frac)
    for t in range(total):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        rate = rate_max * (1 + p * (ratio - 1)) / ratio
        assert rate_max * slanted_triangular(t, total, cut_frac, ratio) == pytest.approx(rate)


@pytest.mark.parametrize("total", [1, 2, 3, 9, 17, 101])
def test_slanted_triangular_for_any_total(total):
    factors = [slanted_triangular(step, total) for step in range(total + 1)]
    cut = max(1, math.floor(total * 0.1))
    assert factors[0] == 1 / 32
    assert factors[cut] == max(factors) == 1.0
    assert all(1 / 32 <= factor <= 1 for factor in factors)
    if total > 1:
        assert factors[total] == pytest.approx(1 / 32)


@pytest.mark.parametrize("name", SCHEDULES)
def test_factors_stay_between_0_and_1_whatever_the_total(name):
    for total in (0, 1, 2, 7):
        for step in range(total + 2):
            assert 0.0 <= SCHEDULES[name](step, total) <= 1.0
    if name != "slanted-triangular":
        assert all(0.0 < SCHEDULES[name](step, 3, warmup=5) <= 1.0 for step in range(3))  # never past the warmup
