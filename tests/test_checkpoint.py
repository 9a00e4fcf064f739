"""Checkpoints: every layout that is published, every damage with the name of what is wrong, and the way back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor

from config import GPT2Config, UserError
from models.checkpoint import read_config, save_language_model
from models.classifier import GPT2Classifier, Head, load_classifier
from models.files import check_weights, read_safetensors, write_tensors
from models.gpt2 import GPT2Model

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(0))
Tensors = dict[str, Tensor]


def states(model: GPT2Model) -> Tensor:
    with torch.no_grad():
        return model(IDS)["last_hidden_state"]


def tensors_of(folder: Path) -> Tensors:
    return load_file(folder / "model.safetensors")


def rewrite(folder: Path, change: Callable[[Tensors], object]) -> Tensors:
    """Changes the tensors of a folder in place."""
    tensors = tensors_of(folder)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return tensors


def write_sharded(folder: Path, tensors: Tensors, suffix: str) -> list[Path]:
    """Three shards and their index, as transformers writes them."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = sorted(tensors)
    weight_map, shards = {}, []
    for i in range(3):
        shard = folder / f"{stem}-{i + 1:05}-of-00003.{suffix}"
        part = {name: tensors[name].contiguous() for name in names[i::3]}
        save_file(part, shard) if suffix == "safetensors" else torch.save(part, shard)
        weight_map |= dict.fromkeys(part, shard.name)
        shards.append(shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return shards


def write_bin(folder: Path, content: Any) -> Path:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def without_prefix(tensors: Tensors) -> Tensors:
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def rename(folder: Path, change: Callable[[str], str]) -> None:
    tensors = {change(name): tensor for name, tensor in tensors_of(folder).items()}
    save_file(tensors, folder / "model.safetensors")


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        GPT2Model.from_pretrained(folder)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------------------------
# Layouts
# ---------------------------------------------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[Path, Tensors], object]] = {
    "sharded safetensors": lambda folder, tensors: write_sharded(folder, tensors, "safetensors"),
    "sharded bin": lambda folder, tensors: write_sharded(folder, tensors, "bin"),
    "bin": write_bin,
    "bin, old format": lambda folder, tensors: (
        (folder / "model.safetensors").unlink(),
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False),
    ),
    "of torch.compile": lambda folder, tensors: rename(folder, lambda name: f"_orig_mod.{name}"),
    "of DDP": lambda folder, tensors: rename(folder, lambda name: f"module._orig_mod.{name}"),
    "no prefix": lambda folder, tensors: save_file(without_prefix(tensors), folder / "model.safetensors"),
    "bin, no prefix": lambda folder, tensors: write_bin(folder, without_prefix(tensors)),
    "safetensors beside bin": lambda folder, tensors: torch.save({"wrong": IDS}, folder / "pytorch_model.bin"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_model(layout, tiny_folder):
    expected = states(GPT2Model.from_pretrained(tiny_folder))
    LAYOUTS[layout](tiny_folder, tensors_of(tiny_folder))
    check_weights(tiny_folder)
    assert torch.equal(states(GPT2Model.from_pretrained(tiny_folder)), expected)


@pytest.mark.parametrize("prefix", ["", "transformer."], ids=["gpt2", "kogpt2"])
def test_the_hubs_old_files(prefix, tiny_folder):
    """Published before 2021: causal masks among the weights, a copy of the tied embedding, a config with extras."""
    expected = states(GPT2Model.from_pretrained(tiny_folder))
    old = {prefix + name: tensor for name, tensor in without_prefix(tensors_of(tiny_folder)).items()}
    for i in range(2):
        old[f"{prefix}h.{i}.attn.bias"] = torch.ones(40, 40, dtype=torch.uint8).tril().view(1, 1, 40, 40)
        old[f"{prefix}h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    old["lm_head.weight"] = old[f"{prefix}wte.weight"].clone()
    write_bin(tiny_folder, old)
    config = {"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    config |= {"n_ctx": 40, "n_embd": 24, "n_head": 3, "n_layer": 2, "n_positions": 40, "vocab_size": 61}
    config |= {"author": "someone", "gradient_checkpointing": False, "task_specific_params": {"text-generation": {}}}
    (tiny_folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(states(GPT2Model.from_pretrained(tiny_folder)), expected)


def test_the_tied_embedding_under_the_outputs_name_alone(tiny_folder, make_reference):
    """``safetensors.torch.save_model`` keeps the first of the names that share a tensor."""
    expected = states(GPT2Model.from_pretrained(tiny_folder))
    save_model(make_reference(), str(tiny_folder / "model.safetensors"))
    assert "transformer.wte.weight" not in tensors_of(tiny_folder)
    assert torch.equal(states(GPT2Model.from_pretrained(tiny_folder)), expected)

    rewrite(tiny_folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(60, 24)}))
    assert "tensor 'wte.weight' is missing" in refused(tiny_folder)


@pytest.mark.parametrize(
    "head", ["GPT2Model", "GPT2ForSequenceClassification", "GPT2DoubleHeadsModel", "GPT2ForTokenClassification",
             "GPT2ForQuestionAnswering"],
)  # fmt: skip
@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "sharded"])
def test_whatever_transformers_saves(head, sharded, tmp_path, make_reference):
    reference = make_reference(head, pad_token_id=60)
    reference.save_pretrained(tmp_path, max_shard_size="20KB" if sharded else "1GB")
    base = reference if head == "GPT2Model" else reference.transformer
    torch.testing.assert_close(
        states(GPT2Model.from_pretrained(tmp_path)), base(IDS).last_hidden_state, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_other_precisions_load_as_fp32(dtype, tiny_folder):
    stored = rewrite(tiny_folder, lambda tensors: tensors.update({k: v.to(dtype) for k, v in tensors.items()}))
    model = GPT2Model.from_pretrained(tiny_folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.wte.weight, stored["transformer.wte.weight"].float())


def test_a_loaded_model_is_in_evaluation_mode(tiny_folder):
    assert not any(module.training for module in GPT2Model.from_pretrained(tiny_folder).modules())


# ---------------------------------------------------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------------------------------------------------

WEIGHT = "transformer.h.1.mlp.c_fc.weight"


def test_missing_tensors_are_named(tiny_folder):
    rewrite(tiny_folder, lambda tensors: [tensors.pop(WEIGHT), tensors.pop("transformer.ln_f.bias")])
    message = refused(tiny_folder)
    assert "tensor 'h.1.mlp.c_fc.weight' is missing" in message
    assert "tensor 'ln_f.bias' is missing" in message
    assert len(message.splitlines()) == 2


def test_an_unknown_tensor_is_named(tiny_folder):
    rewrite(tiny_folder, lambda tensors: tensors.update({"transformer.h.0.attn.rotary": IDS}))
    assert "model.safetensors: unknown tensor 'h.0.attn.rotary'" in refused(tiny_folder)


def test_of_many_unknown_tensors_the_first_are_named(tiny_folder):
    rewrite(tiny_folder, lambda tensors: tensors.update({f"h.0.attn.extra{i}": IDS.clone() for i in range(30)}))
    message = refused(tiny_folder)
    assert len(message.splitlines()) == 11
    assert message.endswith("20 more tensors are unknown")


def test_more_blocks_than_the_config_says(tiny_folder):
    rewrite(tiny_folder, lambda tensors: tensors.update({"h.2.ln_1.weight": torch.ones(24)}))
    assert "unknown tensor 'h.2.ln_1.weight'" in refused(tiny_folder)


def test_a_misshapen_tensor_is_named_with_its_stored_shape(tiny_folder):
    rewrite(tiny_folder, lambda tensors: tensors.update({WEIGHT: tensors[WEIGHT][:, :7]}))
    message = refused(tiny_folder)
    assert "tensor 'h.1.mlp.c_fc.weight' has shape (24, 7), but config.json asks for (24, 96)" in message
    assert "missing" not in message


@pytest.mark.parametrize("shape", [(24, 96, 1), (2304,), ()], ids=str)
def test_a_tensor_with_another_number_of_dimensions_is_named(shape, tiny_folder):
    rewrite(tiny_folder, lambda tensors: tensors.update({WEIGHT: torch.ones(shape)}))
    message = refused(tiny_folder)
    assert f"tensor 'h.1.mlp.c_fc.weight' has shape {shape}, but config.json asks for (24, 96)" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_tensor_is_named(value, tiny_folder):
    rewrite(tiny_folder, lambda tensors: tensors[WEIGHT].view(-1)[5:6].fill_(value))
    message = refused(tiny_folder)
    assert "tensor 'h.1.mlp.c_fc.weight' holds NaN or infinite values" in message
    assert "missing" not in message


def test_a_tensor_with_two_names(tiny_folder):
    rewrite(tiny_folder, lambda tensors: tensors.update({"wpe.weight": torch.zeros(40, 24)}))
    assert "tensor 'wpe.weight' occurs twice" in refused(tiny_folder)


def test_an_output_of_its_own(tiny_folder):
    rewrite(tiny_folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(61, 24)}))
    assert "tensor 'lm_head.weight' is not tied to 'wte.weight'" in refused(tiny_folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_truncated_files(kind, share, tiny_folder):
    path = tiny_folder / "model.safetensors"
    if kind == "bin":
        path = write_bin(tiny_folder, tensors_of(tiny_folder))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refused(tiny_folder).startswith(f"{path}: ")


def test_a_shard_is_missing(tiny_folder):
    shards = write_sharded(tiny_folder, tensors_of(tiny_folder), "safetensors")
    shards[1].unlink()
    assert refused(tiny_folder) == f"{shards[1]}: this shard is missing; fetch the checkpoint again"


@pytest.mark.parametrize("weight_map", [None, {}, {"a": 3}, {"a": "../model.safetensors"}, ["a"]], ids=str)
def test_a_damaged_index(weight_map, tiny_folder):
    write_sharded(tiny_folder, tensors_of(tiny_folder), "safetensors")
    (tiny_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    message = refused(tiny_folder)
    assert "model.safetensors.index.json: " in message
    assert "weight_map" in message


class Code:
    """Pickles to something that creates a file when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.marker, "ran")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_does_not_run(zipped, tiny_folder):
    path, marker = tiny_folder / "pytorch_model.bin", tiny_folder / "ran"
    tensors = tensors_of(tiny_folder)
    (tiny_folder / "model.safetensors").unlink()
    torch.save(tensors | {"extra": Code(marker)}, path, _use_new_zipfile_serialization=zipped)
    message = refused(tiny_folder)
    assert message.startswith(f"{path}: refused: damaged, or a pickle that holds more than tensors; fetch it again")
    assert "weights_only" not in message  # torch's advice on how to read it nevertheless
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()  # it would have run


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"wte.weight": torch.zeros(1)}}, torch.zeros(3)], ids=repr)
def test_a_pickle_of_something_else(content, tiny_folder):
    path = write_bin(tiny_folder, content)
    assert refused(tiny_folder).startswith(f"{path}: holds something else than named tensors")


def test_no_weights_no_config_no_folder(tiny_folder):
    (tiny_folder / "model.safetensors").unlink()
    assert f"{tiny_folder}: holds no weights; expected one of model.safetensors" in refused(tiny_folder)
    (tiny_folder / "config.json").unlink()
    assert f"{tiny_folder / 'config.json'}: no such file" in refused(tiny_folder)
    assert "no such folder" in refused(tiny_folder / "nowhere")


def test_a_file_instead_of_its_folder(tiny_folder):
    assert "is a file; give the folder" in refused(tiny_folder / "model.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"], ids=repr)
def test_a_config_that_is_no_json_object(text, tiny_folder):
    (tiny_folder / "config.json").write_text(text, encoding="latin-1")
    assert refused(tiny_folder).startswith(f"{tiny_folder / 'config.json'}: ")


BAD_CONFIGS = {
    "model_type is 'bert', not 'gpt2'": {"model_type": "bert"},
    "model_type is None, not 'gpt2' of architectures ['BertModel']": {
        "model_type": None,
        "architectures": ["BertModel"],
    },
    "activation_function is 'relu'": {"activation_function": "relu"},
    "activation_function is 'gelu'": {"activation_function": "gelu"},
    "scale_attn_weights is False": {"scale_attn_weights": False},
    "scale_attn_by_inverse_layer_idx is True": {"scale_attn_by_inverse_layer_idx": True},
    "add_cross_attention is True": {"add_cross_attention": True},
    "tie_word_embeddings is False": {"tie_word_embeddings": False},
    "n_embd 24 is not a multiple of n_head 5": {"n_head": 5},
    "n_layer must be a positive whole number, not 0": {"n_layer": 0},
    "n_layer must be a positive whole number, not 2.0": {"n_layer": 2.0},
    "vocab_size must be a positive whole number, not '61'": {"vocab_size": "61"},
    "n_head must be a positive whole number, not True": {"n_head": True},
    "n_inner must be a positive whole number or null, not 0": {"n_inner": 0},
    "attn_pdrop must be in [0, 1), not 1.0": {"attn_pdrop": 1.0},
    "resid_pdrop must be in [0, 1), not '0.1'": {"resid_pdrop": "0.1"},
    "embd_pdrop must be in [0, 1), not nan": {"embd_pdrop": float("nan")},
    "layer_norm_epsilon must be a positive number, not 0": {"layer_norm_epsilon": 0},
    "layer_norm_epsilon must be a positive number, not None": {"layer_norm_epsilon": None},
    "initializer_range must be a positive number, not -1": {"initializer_range": -1},
    "pad_token_id must be a whole number or null, not '<pad>'": {"pad_token_id": "<pad>"},
}


@pytest.mark.parametrize("expected", BAD_CONFIGS)
def test_bad_config_values(expected, tiny_folder):
    path = tiny_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | BAD_CONFIGS[expected]))
    message = refused(tiny_folder)
    assert message.startswith(f"{path}: ")
    assert expected in message


def test_what_transformers_reads_in_a_config(tiny_folder):
    path = tiny_folder / "config.json"
    raw = json.loads(path.read_text()) | {"eos_token_id": [3, 5], "pad_token_id": -1}
    path.write_text(
        json.dumps({key: value for key, value in raw.items() if key not in ("model_type", "architectures")})
    )
    config = read_config(tiny_folder)
    assert (config.eos_token_id, config.pad_token_id) == (3, None)
    path.write_text(json.dumps(raw | {"model_type": None, "architectures": ["GPT2LMHeadModel"], "eos_token_id": []}))
    assert read_config(tiny_folder).eos_token_id is None


def test_every_problem_of_a_config_at_once(tiny_folder):
    path = tiny_folder / "config.json"
    raw = json.loads(path.read_text()) | {"activation_function": "relu", "scale_attn_weights": False}
    path.write_text(json.dumps({key: value for key, value in raw.items() if key not in ("n_embd", "n_head")}))
    message = refused(tiny_folder)
    for part in (
        "activation_function is 'relu'",
        "scale_attn_weights is False",
        "n_embd is missing",
        "n_head is missing",
    ):
        assert part in message


def test_the_config_must_fit_the_tensors(tiny_folder):
    path = tiny_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 62, "n_positions": 41}))
    message = refused(tiny_folder)
    assert "tensor 'wte.weight' has shape (61, 24), but config.json asks for (62, 24)" in message
    assert "tensor 'wpe.weight' has shape (40, 24), but config.json asks for (41, 24)" in message


# ---------------------------------------------------------------------------------------------------------------------
# The way back
# ---------------------------------------------------------------------------------------------------------------------


def test_transformers_loads_a_saved_language_model(tiny_folder, tmp_path):
    model = GPT2Model.from_pretrained(tiny_folder)
    model.save_pretrained(tmp_path / "saved")
    theirs, info = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path / "saved", dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    logits = model.hidden_state_to_token(model(IDS)["last_hidden_state"])
    torch.testing.assert_close(theirs(IDS).logits, logits, atol=1e-5, rtol=0)
    auto = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert isinstance(auto, transformers.GPT2LMHeadModel)
    assert auto.dtype == torch.float32


def test_further_entries_of_the_config(tiny_folder, tmp_path):
    """transformers keeps them, and they change nothing."""
    model = GPT2Model.from_pretrained(tiny_folder)
    save_language_model(model, tmp_path, extra={"classification": {"answers": [3, 5]}})
    assert transformers.GPT2Config.from_pretrained(tmp_path).classification == {"answers": [3, 5]}
    assert torch.equal(states(GPT2Model.from_pretrained(tmp_path)), states(model))


def test_reading_one_file_of_tensors(tmp_path):
    written = {"a": torch.arange(3), "b": torch.randn(2, 5).bfloat16()}
    write_tensors(tmp_path / "head.safetensors", written)
    read = read_safetensors(tmp_path / "head.safetensors")
    assert read.keys() == written.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in written.items())
    with pytest.raises(UserError, match=r"tail\.safetensors: no such file"):
        read_safetensors(tmp_path / "tail.safetensors")
    (tmp_path / "tail.safetensors").write_bytes(b"{}")
    with pytest.raises(UserError, match=r"tail\.safetensors: not a whole safetensors file"):
        read_safetensors(tmp_path / "tail.safetensors")


def test_saving_and_loading_change_nothing(tiny_folder, tmp_path):
    model = GPT2Model.from_pretrained(tiny_folder)
    first, second = tmp_path / "first", tmp_path / "second"
    model.save_pretrained(first)
    again = GPT2Model.from_pretrained(first)
    assert again.config == model.config
    assert torch.equal(states(again), states(model))
    again.save_pretrained(second)
    for name in ("model.safetensors", "config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert tensors_of(first).keys() == tensors_of(tiny_folder).keys()
    assert all(torch.equal(tensor, tensors_of(tiny_folder)[name]) for name, tensor in tensors_of(first).items())


@pytest.mark.parametrize("pad_token_id", [None, 3])
def test_transformers_loads_a_saved_classifier(pad_token_id, tmp_path, make_reference):
    make_reference(pad_token_id=pad_token_id).save_pretrained(tmp_path / "gpt2")
    classifier = GPT2Classifier(GPT2Model.from_pretrained(tmp_path / "gpt2"), num_labels=3).eval()
    torch.nn.init.normal_(classifier.score.weight)
    classifier.save_pretrained(tmp_path / "saved", ["bad", "so so", "good"])
    theirs, info = transformers.GPT2ForSequenceClassification.from_pretrained(
        tmp_path / "saved", dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert theirs.config.id2label == {0: "bad", 1: "so so", 2: "good"}
    assert theirs.config.label2id == {"bad": 0, "so so": 1, "good": 2}

    pad = theirs.config.pad_token_id
    ids = torch.randint(4, 60, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    for i, length in enumerate((5, 12, 1)):
        ids[i, length:], mask[i, length:] = pad, 0
    with torch.no_grad():
        logits = classifier(ids, mask)
        torch.testing.assert_close(theirs(ids, attention_mask=mask).logits, logits, atol=1e-5, rtol=0)
        again = load_classifier(tmp_path / "saved")
        assert torch.equal(again(ids, mask), logits)
    again.save_pretrained(tmp_path / "twice", ["bad", "so so", "good"])
    assert (tmp_path / "saved/model.safetensors").read_bytes() == (tmp_path / "twice/model.safetensors").read_bytes()


def test_a_classifier_that_transformers_saved(tmp_path, make_reference):
    reference = make_reference("GPT2ForSequenceClassification", num_labels=4, pad_token_id=60)
    reference.save_pretrained(tmp_path)
    classifier = load_classifier(tmp_path)
    torch.testing.assert_close(classifier(IDS), reference(IDS).logits, atol=1e-5, rtol=0)


def test_a_classifier_without_its_head(tiny_folder):
    with pytest.raises(UserError, match=r"holds no classification head \(tensor 'score.weight'\)"):
        load_classifier(tiny_folder)


@pytest.mark.parametrize("shape", [(5, 1), (5, 23), (24,), (5, 24, 1)], ids=str)
def test_a_misshapen_head(shape, tiny_folder):
    rewrite(tiny_folder, lambda tensors: tensors.update({"score.weight": torch.zeros(shape)}))
    with pytest.raises(UserError, match=re.escape(f"tensor 'score.weight' has shape {shape}")):
        load_classifier(tiny_folder)


def test_the_head_trains_with_dropout_and_answers_without(tiny_folder):
    classifier = GPT2Classifier(GPT2Model.from_pretrained(tiny_folder), num_labels=2, head=Head(dropout=0.5))
    features = classifier.features(IDS)
    assert torch.equal(classifier.eval()(features=features), features @ classifier.score.weight.T)
    assert not torch.equal(classifier.train()(features=features), features @ classifier.score.weight.T)
    assert list(classifier.layer_groups()) == ["embeddings", "block 0", "block 1", "final norm", "head"]


def test_the_config_survives(tmp_path):
    config = GPT2Config(n_embd=24, n_head=3, n_inner=7, layer_norm_epsilon=1e-4, attn_pdrop=0.0, eos_token_id=5)
    assert GPT2Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    theirs = transformers.GPT2Config(**config.to_dict())
    theirs.save_pretrained(tmp_path)
    assert read_config(tmp_path) == config


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"a": torch.zeros(3)})
    before = path.read_bytes()

    def full_disk(*args: object, **kwargs: object) -> None:
        Path(args[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.files.save_file", full_disk)
    with pytest.raises(OSError, match=r"model\.safetensors: could not be written .*No space left"):
        write_tensors(path, {"a": torch.ones(3)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
