"""Prefix-tuning: transformers with the same past keys and values, whatever the padding; what is trained and saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_run import make_checkpoint
from torch import Tensor

from config import GPT2Config, UserError
from models.checkpoint import load_prefix, save_prefix
from models.files import PREFIX_FILE
from models.gpt2 import GPT2Model
from modules import attention
from modules.dropout import Dropout
from modules.lora import add_lora
from modules.prefix import FixedPrefix, Prefix
from optimizer import parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {"vocab_size": 61, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 3}
LENGTH, LENGTHS = 5, [9, 1, 30, 17]
NO_DROPOUT = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0)
CONFIG = GPT2Config(**SIZES, **NO_DROPOUT)


def model_with_prefix(length: int = LENGTH, dropout: float = 0.0) -> GPT2Model:
    torch.manual_seed(0)
    gpt2 = GPT2Model(GPT2Config(**SIZES, **dict.fromkeys(NO_DROPOUT, dropout)))
    gpt2.prefix = Prefix(gpt2.config, length, hidden=16)
    return gpt2


def random_prefix() -> FixedPrefix:
    generator = torch.Generator().manual_seed(4)
    return FixedPrefix(*(torch.randn(2, 3, LENGTH, 8, generator=generator) for _ in range(2)))


def batch(side: str, junk: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids and mask of sequences of :data:`LENGTHS`."""
    ids, mask = (
        torch.full((len(LENGTHS), max(LENGTHS)), junk),
        torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long),
    )
    generator = torch.Generator().manual_seed(1)
    for i, length in enumerate(LENGTHS):
        place = slice(0, length) if side == "right" else slice(max(LENGTHS) - length, None)
        ids[i, place], mask[i, place] = torch.randint(61, (length,), generator=generator), 1
    return ids, mask


# ---------------------------------------------------------------------------------------------------------------------
# Beside transformers
# ---------------------------------------------------------------------------------------------------------------------


def reference_states(reference: Any, prefix: FixedPrefix, ids: Tensor, mask: Tensor) -> Tensor:
    cache = transformers.DynamicCache()
    for block, (key, value) in enumerate(prefix()):
        cache.update(key.expand(len(ids), -1, -1, -1), value.expand(len(ids), -1, -1, -1), block)
    return reference.transformer(
        ids,
        attention_mask=torch.cat([torch.ones(len(ids), prefix.length, dtype=torch.long), mask], dim=1),
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0) + prefix.length,
        past_key_values=cache,
    ).last_hidden_state * mask.unsqueeze(-1)


@pytest.mark.parametrize("form", ["softmax_attention", "batched_attention", "fused_attention"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_states_and_gradients_are_those_of_past_keys_and_values(
    side: str, form: str, tmp_path: Path, make_reference: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "choose_attention", lambda query, dropout: getattr(attention, form))
    reference = make_reference()
    reference.save_pretrained(tmp_path)
    gpt2 = GPT2Model.from_pretrained(tmp_path)
    without = gpt2(*batch(side))["last_hidden_state"]
    results = []
    for run in (lambda prefix: reference_states(reference, prefix, *batch(side)), None):
        prefix = random_prefix()
        prefix.keys.requires_grad_()
        prefix.values.requires_grad_()
        if run is None:
            gpt2.prefix = prefix
            states = gpt2(*batch(side, junk=-1))["last_hidden_state"]
        else:
            states = run(prefix)
        upstream = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
        (states * upstream).sum().backward()
        results.append((states.detach(), prefix.keys.grad, prefix.values.grad))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert (results[1][0] - without).abs().max() > 0.1  # the prefix does something
    # Each position of every block's prefix matters.
    for gradient in results[1][1:]:
        assert gradient.norm(dim=-1).count_nonzero() == 2 * 3 * LENGTH
    theirs = dict(reference.transformer.named_parameters())
    for name in ("wte.weight", "wpe.weight", "ln_f.weight", "h.0.ln_1.bias"):
        torch.testing.assert_close(gpt2.get_parameter(name).grad, theirs[name].grad, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Positions, padding, precision
# ---------------------------------------------------------------------------------------------------------------------


def test_padding_on_either_side_and_none_agree():
    gpt2 = model_with_prefix().eval()
    right, left = gpt2(*batch("right")), gpt2(*batch("left", junk=-1))
    assert torch.equal(right["last_token"], left["last_token"])
    ids, _ = batch("right")
    for i, length in enumerate(LENGTHS):
        alone = gpt2(ids[i : i + 1, :length])
        torch.testing.assert_close(right["last_hidden_state"][i, :length], alone["last_hidden_state"][0])
        torch.testing.assert_close(left["last_hidden_state"][i, -length:], alone["last_hidden_state"][0])


def test_the_text_begins_after_the_prefix():
    gpt2 = model_with_prefix()
    gpt2(torch.arange(7)[None])["last_hidden_state"].square().sum().backward()
    used = gpt2.wpe.weight.grad.norm(dim=-1).nonzero().squeeze(1)
    assert used.tolist() == list(range(LENGTH, LENGTH + 7))


def test_no_token_looks_ahead():
    gpt2 = model_with_prefix().eval()
    ids = torch.arange(20)[None]
    changed = torch.cat([ids[:, :12], ids[:, 12:] + 20], dim=1)
    before, after = (gpt2(x)["last_hidden_state"][0] for x in (ids, changed))
    torch.testing.assert_close(after[:12], before[:12])
    assert ((after - before)[12:].norm(dim=-1) > 0.1).all()


def test_the_longest_text():
    gpt2 = model_with_prefix()
    assert gpt2.max_tokens == 35
    gpt2(torch.zeros(1, 35, dtype=torch.long))
    expected = r"36 tokens is longer than the model's context of 35 \(40 positions, of which a prefix takes 5\)"
    with pytest.raises(UserError, match=expected):
        gpt2(torch.zeros(1, 36, dtype=torch.long))
    gpt2.prefix = None
    assert gpt2.max_tokens == 40
    gpt2(torch.zeros(1, 40, dtype=torch.long))


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputed_activations_give_the_same_bits(dropout: float, bf16: bool, deterministic: None) -> None:
    results = []
    for recompute in (False, True):
        gpt2 = model_with_prefix(dropout=dropout).train()
        gpt2.recompute = recompute
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            states = gpt2(*batch("left"))["last_hidden_state"]
        states.square().sum().backward()
        results.append([states.detach(), *(parameter.grad for parameter in gpt2.parameters())])
    assert all(torch.equal(kept, again) for kept, again in zip(*results, strict=True))


def test_bf16_is_close_to_fp32():
    gpt2 = model_with_prefix().eval()
    exact = gpt2(*batch("right"))["last_hidden_state"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = gpt2(*batch("right"))["last_hidden_state"]
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize("fixed", [False, True])
def test_attention_stays_in_autocasts_type(fixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fp32 part would carry every key and value of the text over to fp32, and cost the speed of bfloat16."""
    types = set()

    def spy(query: Tensor, key: Tensor, value: Tensor, dropout: Dropout) -> Tensor:
        types.update({query.dtype, key.dtype, value.dtype})
        return attention.softmax_attention(query, key, value, dropout)

    monkeypatch.setattr(attention, "choose_attention", lambda query, dropout: spy)
    gpt2 = model_with_prefix()
    if fixed:
        gpt2.prefix = random_prefix()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gpt2(*batch("right"))
    assert types == {torch.bfloat16}


# ---------------------------------------------------------------------------------------------------------------------
# The parametrization
# ---------------------------------------------------------------------------------------------------------------------


def test_keys_and_values_are_cut_from_the_mlps_output():
    torch.manual_seed(0)
    prefix = Prefix(CONFIG, LENGTH, hidden=16)
    first, second = prefix.mlp[0], prefix.mlp[2]
    hidden = torch.tanh(prefix.embedding.weight @ first.weight.T + first.bias)
    flat = hidden @ second.weight.T + second.bias
    assert hidden.shape == (LENGTH, 16) and flat.shape == (LENGTH, 2 * 2 * 24)
    for block, pair in enumerate(prefix()):
        for i, part in enumerate(pair):
            assert part.shape == (3, LENGTH, 8)
            for head in range(3):
                start = block * 48 + i * 24 + head * 8
                torch.testing.assert_close(part[head], flat[:, start : start + 8])


def test_every_parameter_of_the_prefix_learns():
    gpt2 = model_with_prefix()
    gpt2.requires_grad_(False)
    gpt2.prefix.requires_grad_()
    gpt2(*batch("right"))["last_token"].square().sum().backward()
    for name, parameter in gpt2.prefix.named_parameters():
        assert parameter.grad.norm() > 0, name
    assert gpt2.prefix.embedding.weight.grad.norm(dim=-1).count_nonzero() == LENGTH
    assert {name.split(".")[0] for name, p in gpt2.named_parameters() if p.grad is not None} == {"prefix"}


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_without_its_mlp_it_is_the_same_prefix(bf16):
    gpt2 = model_with_prefix().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        expected = gpt2(*batch("right"))["last_hidden_state"].detach()
        gpt2.prefix = gpt2.prefix.drop_mlp()
        assert torch.equal(gpt2(*batch("right"))["last_hidden_state"], expected)
    assert gpt2.prefix.length == LENGTH and gpt2.max_tokens == 35
    assert not list(gpt2.prefix.parameters())


def test_layer_groups_begin_with_the_prefix():
    gpt2 = model_with_prefix()
    groups = gpt2.layer_groups()
    assert list(groups) == ["prefix", "embeddings", "block 0", "block 1", "final norm"]
    assert [id(p) for p in groups["prefix"]] == [id(p) for p in gpt2.prefix.parameters()]
    grouped = [id(parameter) for parameters in groups.values() for parameter in parameters]
    assert sorted(grouped) == sorted(id(parameter) for parameter in gpt2.parameters())
    gpt2.requires_grad_(False)
    gpt2.prefix.requires_grad_()
    optimized = parameter_groups(groups, gpt2, lr=0.1, weight_decay=0.01)
    assert [(g["name"], len(g["params"])) for g in optimized] == [("prefix", 3), ("prefix (biases, norms)", 2)]
    gpt2.prefix = None
    assert next(iter(gpt2.layer_groups())) == "embeddings"


# ---------------------------------------------------------------------------------------------------------------------
# Saving and loading
# ---------------------------------------------------------------------------------------------------------------------


def test_a_saved_prefix_is_the_same_prefix(tmp_path):
    gpt2 = model_with_prefix().eval()
    expected = gpt2(*batch("right"))["last_hidden_state"]
    path, again = tmp_path / "new" / PREFIX_FILE, tmp_path / "again.safetensors"
    save_prefix(gpt2.prefix, path)
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(path).items()}
    assert shapes == dict.fromkeys(("keys", "values"), (2, 3, LENGTH, 8))
    gpt2.prefix = load_prefix(path, gpt2.config)
    assert torch.equal(gpt2(*batch("right"))["last_hidden_state"], expected)
    save_prefix(gpt2.prefix, again)
    assert path.read_bytes() == again.read_bytes()


def test_a_checkpoint_is_loaded_with_its_prefix_and_is_a_plain_one_without(tmp_path):
    gpt2 = model_with_prefix().eval()
    gpt2.save_pretrained(tmp_path)
    loaded = GPT2Model.from_pretrained(tmp_path)
    assert torch.equal(loaded(*batch("left"))["last_token"], gpt2(*batch("left"))["last_token"])
    assert loaded.max_tokens == gpt2.max_tokens and not any(module.training for module in loaded.modules())
    loaded.save_pretrained(tmp_path / "again")
    own = {name: tensor for name, tensor in gpt2.state_dict().items() if not name.startswith("prefix.")}
    loaded.prefix = None
    assert loaded.state_dict().keys() == own.keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.state_dict().items())
    for name in ("model.safetensors", PREFIX_FILE):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    gpt2.prefix = None
    gpt2.save_pretrained(tmp_path / "without")
    assert not (tmp_path / "without" / PREFIX_FILE).exists()


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory):
    """A whole checkpoint folder with a prefix, and room for any text."""
    folder = make_checkpoint(tmp_path_factory.mktemp("models") / "prefixed", n_positions=1024)
    save_prefix(FixedPrefix(*torch.randn(2, 2, 2, 5, 16)), folder / PREFIX_FILE)
    return folder


@pytest.mark.parametrize("name", ["classifier", "paraphrase_detection", "sonnet_generation", "text_generation"])
def test_no_task_trains_a_model_with_a_prefix_further(name, script, prefixed, tmp_path, monkeypatch):
    """Its prefix would be lost without a word."""
    monkeypatch.setenv("CS224N_DATA_URL", "http://127.0.0.1:9")
    done = script(name)("--model", prefixed, "--output-dir", tmp_path / "runs", "--dry-run")
    told = "this model is a GPT-2 with a prefix, which can't be trained further here; give the model that"
    assert done.code == 2 and len(done.errors) == 1
    assert done.errors[0].startswith(f"error: {prefixed / PREFIX_FILE}: {told}")


def test_pretraining_refuses_a_prefix_too(pretrain, prefixed, tiny_corpus, tmp_path):
    flags = ["--corpus", tiny_corpus, "--window", 32, "--batch-tokens", 64, "--output-dir", tmp_path, "--dry-run"]
    done = pretrain(*flags, "--init-from", prefixed)
    assert done.code == 2 and len(done.errors) == 1 and "is a GPT-2 with a prefix" in done.errors[0]


def test_beside_adapters():
    """Adding adapters freezes a prefix that is there already; one that comes later trains with them."""
    gpt2 = model_with_prefix()
    add_lora(gpt2, rank=2, alpha=2.0)
    assert not any(p.requires_grad for p in gpt2.prefix.parameters())
    gpt2.prefix = Prefix(gpt2.config, 3, hidden=8)
    gpt2(*batch("right"))["last_token"].square().sum().backward()
    learning = {name.split(".")[0] for name, p in gpt2.named_parameters() if p.grad is not None}
    assert learning == {"prefix", "h"}


DAMAGE: dict[str, tuple[dict[str, Tensor], str]] = {
    "values are missing": ({"keys": torch.zeros(2, 3, 5, 8)}, "holds no prefix"),
    "another name": ({"keys": torch.zeros(2, 3, 5, 8), "value": torch.zeros(2, 3, 5, 8)}, "holds no prefix"),
    "shapes differ": ({"keys": torch.zeros(2, 3, 5, 8), "values": torch.zeros(2, 3, 4, 8)}, "holds no prefix"),
    "flat": ({"keys": torch.zeros(5, 8), "values": torch.zeros(5, 8)}, "holds no prefix"),
    "not finite": (
        {"keys": torch.zeros(2, 3, 5, 8), "values": torch.full((2, 3, 5, 8), float("nan"))},
        "tensor 'values' holds NaN or infinite values",
    ),
    "more blocks": (
        dict.fromkeys(("keys", "values"), torch.zeros(4, 3, 5, 8)),
        "is a prefix for 4 blocks with 3 heads of 8, but the model has 2 with 3 of 8",
    ),
    "as long as the context": (
        dict.fromkeys(("keys", "values"), torch.zeros(2, 3, 40, 8)),
        "is a prefix of 40 positions, but the model has 40",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_prefix_is_refused(damage, tmp_path):
    tensors, message = DAMAGE[damage]
    path = tmp_path / PREFIX_FILE
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    with pytest.raises(UserError) as caught:
        load_prefix(path, CONFIG)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_no_file_and_half_a_file(tmp_path):
    path = tmp_path / PREFIX_FILE
    with pytest.raises(UserError, match=r"prefix\.safetensors: no such file"):
        load_prefix(path)
    save_prefix(random_prefix(), path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"prefix\.safetensors: not a whole safetensors file"):
        load_prefix(path)


@pytest.mark.parametrize("length", [0, -1, 40, 41])
def test_a_length_that_does_not_fit(length):
    with pytest.raises(UserError, match=f"the prefix takes {length} positions; it must take from 1 to 39"):
        Prefix(CONFIG, length)


def test_a_width_that_does_not_fit():
    with pytest.raises(UserError, match="hidden width is 0; it must be at least 1"):
        Prefix(CONFIG, 5, hidden=0)
    with pytest.raises(ValueError, match="keys and values of one shape"):
        FixedPrefix(torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 4, 8))
