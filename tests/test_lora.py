"""LoRA: nothing changes at first, only adapters train, and peft computes the same from the same matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from config import GPT2Config, UserError
from models.gpt2 import GPT2Model
from modules.lora import LORA_TARGETS, LoRALinear, add_lora, lora_state, merge_lora
from optimizer import parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {"vocab_size": 61, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 3}
IDS = torch.randint(61, (3, 11), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 11, [1] * 4 + [0] * 7, [1] * 8 + [0] * 3])
RANK, ALPHA = 4, 6.0
each_target = pytest.mark.parametrize("targets", LORA_TARGETS)


def plain_model(**changes: Any) -> GPT2Model:
    torch.manual_seed(0)
    rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0)
    return GPT2Model(GPT2Config(**(SIZES | rates | changes))).eval()


def adapted_model(targets: str, dropout: float = 0.0, trained: bool = True) -> GPT2Model:
    gpt2 = plain_model()
    add_lora(gpt2, RANK, ALPHA, dropout, targets)
    if trained:
        fill(gpt2)
    return gpt2


def fill(gpt2: GPT2Model) -> None:
    """Gives B values, as training would."""
    torch.manual_seed(1)
    for module in gpt2.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.lora_B.weight, std=0.3)


def states(gpt2: GPT2Model) -> Tensor:
    return gpt2(IDS, MASK)["last_hidden_state"]


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@each_target
def test_a_fresh_adapter_changes_nothing(targets, dropout, bf16):
    plain, adapted = plain_model().train(), adapted_model(targets, dropout, trained=False).train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        assert torch.equal(states(adapted), states(plain))


@pytest.mark.parametrize("parts", [None, (True, False, True), (False, True, False)], ids=str)
def test_the_formula(parts):
    torch.manual_seed(2)
    plain = nn.Linear(8, 12)
    adapted = LoRALinear(plain, rank=2, alpha=5.0, parts=parts)
    nn.init.normal_(adapted.lora_B.weight)
    x = torch.randn(7, 8)
    expected = x @ plain.weight.T + plain.bias
    size = 12 // len(parts or (True,))
    places = [part for part, yes in enumerate(parts or (True,)) if yes]
    for i, part in enumerate(places):
        a, b = adapted.lora_A.weight[2 * i : 2 * i + 2], adapted.lora_B.weight[size * i : size * (i + 1)]
        expected[:, part * size : (part + 1) * size] += 5.0 / 2 * x @ a.T @ b.T
    torch.testing.assert_close(adapted(x), expected)
    torch.testing.assert_close(x @ adapted.merged_weight().T + plain.bias, expected)


def test_query_value_leaves_the_keys_alone():
    layer = adapted_model("query-value").h[0].attn.c_attn
    x = torch.randn(5, 24)
    plain, adapted = nn.functional.linear(x, layer.weight, layer.bias), layer(x)
    assert torch.equal(adapted[:, 24:48], plain[:, 24:48])
    for third in (slice(0, 24), slice(48, 72)):
        assert not torch.allclose(adapted[:, third], plain[:, third], atol=0.1)


@each_target
def test_names_and_shapes(targets):
    pairs = 1 if targets == "c_attn" else 2
    state = lora_state(adapted_model(targets))
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        f"h.{block}.attn.c_attn.{matrix}.weight": shape
        for block in range(2)
        for matrix, shape in (("lora_A", (pairs * RANK, 24)), ("lora_B", (72 if pairs == 1 else 48, RANK)))
    }
    names = dict(adapted_model(targets).named_parameters()).keys()
    assert names == dict(plain_model().named_parameters()).keys() | state.keys()


def test_the_initialization():
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(400, 30), rank=100, alpha=1.0)
    bound = 1 / math.sqrt(400)  # a = sqrt(5): sqrt(6 / (1 + a^2)) / sqrt(fan_in)
    assert layer.lora_A.weight.abs().max() <= bound
    assert abs(layer.lora_A.weight.std() - bound / math.sqrt(3)) < 0.01 * bound
    assert layer.lora_B.weight.count_nonzero() == 0


@each_target
def test_only_the_adapters_train(targets):
    gpt2 = adapted_model(targets)
    before = {name: tensor.clone() for name, tensor in gpt2.state_dict().items()}
    trainable = {name for name, parameter in gpt2.named_parameters() if parameter.requires_grad}
    assert trainable == lora_state(gpt2).keys()

    groups = gpt2.layer_groups()
    assert list(groups) == ["embeddings", "block 0", "block 1", "final norm"]
    optimized = parameter_groups(groups, gpt2, lr=0.1, weight_decay=0.01)
    assert [(group["name"], len(group["params"]), group["weight_decay"]) for group in optimized] == [
        ("block 0", 2, 0.01),
        ("block 1", 2, 0.01),
    ]
    states(gpt2).square().sum().backward()
    torch.optim.SGD([p for group in optimized for p in group["params"]], lr=0.1).step()
    changed = {name for name, tensor in gpt2.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == trainable


def test_dropout_acts_on_the_adapters_input_in_training_only():
    layer = LoRALinear(nn.Linear(64, 5), rank=3, alpha=3.0, dropout=0.25)
    nn.init.normal_(layer.lora_B.weight)
    x = torch.ones(2000, 64)
    torch.manual_seed(0)
    noisy = layer.train()(x)
    torch.manual_seed(0)
    dropped = layer.dropout(x)
    torch.testing.assert_close(
        noisy, nn.functional.linear(x, layer.weight, layer.bias) + layer.lora_B(layer.lora_A(dropped))
    )
    assert abs((dropped == 0).float().mean() - 0.25) < 0.01
    assert torch.equal(layer.eval()(x)[0], layer(x)[1])


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_is_the_models(training):
    gpt2 = plain_model().train(training)
    add_lora(gpt2, RANK, ALPHA, dropout=0.5)
    assert {module.training for module in gpt2.modules()} == {training}
    merge_lora(gpt2)
    assert {module.training for module in gpt2.modules()} == {training}


# ---------------------------------------------------------------------------------------------------------------------
# Beside peft
# ---------------------------------------------------------------------------------------------------------------------


def in_peft(reference: Any, gpt2: GPT2Model, targets: str) -> Any:
    """The same adapters in peft. Query and value alone are one product of twice the rank, with zeros in its B."""
    import peft

    pairs = 1 if targets == "c_attn" else 2
    config = peft.LoraConfig(
        r=pairs * RANK, lora_alpha=pairs * ALPHA, target_modules=["c_attn"], fan_in_fan_out=True, lora_dropout=0.0
    )
    theirs = peft.get_peft_model(reference, config)
    state = lora_state(gpt2)
    for name, parameter in theirs.named_parameters():
        if "lora_" not in name:
            continue
        own = state[name.removeprefix("base_model.model.transformer.").replace(".default", "")]
        if pairs == 2 and "lora_B" in name:
            query, value = own.split(24)
            own = torch.block_diag(query, value)  # (48, 2 * rank)
            own = torch.cat([own[:24], torch.zeros(24, 2 * RANK), own[24:]])
        parameter.data.copy_(own)
    return theirs


def from_peft(gradient: Tensor, name: str, targets: str) -> Tensor:
    if targets == "c_attn" or "lora_A" in name:
        return gradient
    return torch.cat([gradient[:24, :RANK], gradient[48:, RANK:]])


@each_target
def test_states_and_gradients_are_those_of_peft(
    targets: str, tmp_path: Path, make_reference: Callable[..., Any]
) -> None:
    reference = make_reference()
    reference.save_pretrained(tmp_path)
    gpt2 = GPT2Model.from_pretrained(tmp_path)
    add_lora(gpt2, RANK, ALPHA, targets=targets)
    fill(gpt2)
    theirs = in_peft(reference, gpt2, targets)
    expected = theirs.base_model.model.transformer(IDS, attention_mask=MASK).last_hidden_state * MASK.unsqueeze(-1)
    ours = states(gpt2)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert (ours - states(GPT2Model.from_pretrained(tmp_path))).abs().max() > 0.1  # the adapters do something

    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    (ours * upstream).sum().backward()
    (expected * upstream).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    assert len(gradients) == 4
    for name, gradient in gradients.items():
        own = gpt2.get_parameter(name.removeprefix("base_model.model.transformer.").replace(".default", "")).grad
        torch.testing.assert_close(own, from_peft(gradient, name, targets), atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Merging and saving
# ---------------------------------------------------------------------------------------------------------------------


@each_target
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_a_score_in_evaluation_is_that_of_the_merged_model_to_the_bit(targets, bf16):
    gpt2 = adapted_model(targets).eval()
    found = []
    for _ in range(2):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            found.append(states(gpt2))
        merge_lora(gpt2)
    assert torch.equal(*found)


@each_target
def test_a_merged_model_is_a_plain_one_with_the_same_outputs(targets):
    gpt2 = adapted_model(targets)
    before = states(gpt2)
    merge_lora(gpt2)
    assert [type(block.attn.c_attn) for block in gpt2.h] == [nn.Linear, nn.Linear]
    assert gpt2.state_dict().keys() == plain_model().state_dict().keys()
    torch.testing.assert_close(states(gpt2), before, atol=1e-5, rtol=0)
    assert not torch.allclose(states(plain_model()), before, atol=0.1)
    assert lora_state(gpt2) == {}
    merged = states(gpt2)
    merge_lora(gpt2)
    assert torch.equal(states(gpt2), merged)


@each_target
def test_transformers_loads_a_saved_model_with_its_adapters(targets, tmp_path):
    gpt2 = adapted_model(targets)
    before = {name: tensor.clone() for name, tensor in gpt2.state_dict().items()}
    gpt2.save_pretrained(tmp_path)
    assert gpt2.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in gpt2.state_dict().items())

    theirs, info = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    logits = gpt2.hidden_state_to_token(gpt2(IDS)["last_hidden_state"])
    torch.testing.assert_close(theirs(IDS).logits, logits, atol=1e-5, rtol=0)
    plain = GPT2Model.from_pretrained(tmp_path)
    merge_lora(gpt2)
    assert torch.equal(states(plain), states(gpt2))


def test_a_fresh_adapter_is_saved_as_the_checkpoint_itself(tmp_path):
    plain_model().save_pretrained(tmp_path / "plain")
    adapted_model("c_attn", trained=False).save_pretrained(tmp_path / "adapted")
    plain, adapted = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "adapted"))
    assert plain.keys() == adapted.keys()
    assert all(torch.equal(plain[name], adapted[name]) for name in plain)


@each_target
def test_the_adapters_state_is_all_that_was_learned(targets):
    trained, fresh = adapted_model(targets), adapted_model(targets, trained=False)
    state = lora_state(trained)
    fresh.load_state_dict(state, strict=False)
    assert torch.equal(states(fresh), states(trained))
    for tensor in state.values():
        tensor.zero_()
    assert torch.equal(states(fresh), states(trained))  # copies: the model does not change with them


# ---------------------------------------------------------------------------------------------------------------------
# What is refused
# ---------------------------------------------------------------------------------------------------------------------

WRONG = {
    r"rank is 0; it must be from 1 to the model's width, 24": {"rank": 0},
    r"rank is -3; it must be": {"rank": -3},
    r"rank is 25; it must be": {"rank": 25},
    r"alpha is 0; it must be greater than 0": {"alpha": 0},
    r"alpha is nan; it must be": {"alpha": float("nan")},
    r"targets 'query': unknown; choose from c_attn, query-value": {"targets": "query"},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_settings_are_refused_and_nothing_is_changed(message):
    gpt2 = plain_model()
    with pytest.raises(UserError, match=message):
        add_lora(gpt2, **({"rank": RANK, "alpha": ALPHA} | WRONG[message]))
    assert type(gpt2.h[0].attn.c_attn) is nn.Linear
    assert all(parameter.requires_grad for parameter in gpt2.parameters())


def test_the_largest_rank_is_the_width():
    gpt2 = plain_model()
    add_lora(gpt2, rank=24, alpha=1.0)
    assert gpt2.h[0].attn.c_attn.lora_A.weight.shape == (24, 24)


def test_adapters_are_added_once():
    gpt2 = adapted_model("c_attn")
    with pytest.raises(ValueError, match="without adapters"):
        add_lora(gpt2, RANK, ALPHA)
    with pytest.raises(ValueError, match="without adapters"):
        add_lora(nn.Linear(2, 2), 1, ALPHA)
