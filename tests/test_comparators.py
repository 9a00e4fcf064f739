"""Comparators: BERT, RoBERTa and DistilBERT of random weights, trained by the same commands as GPT-2."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import FILLERS, OPINIONS, THINGS, Result, call, only_run, results_of

from config import UserError
from models import comparator
from models.comparator import Comparator, ComparatorTokenizer, is_comparator, read_comparator, start_comparator
from optimizer import AdamW
from training.device import derive_seed
from training.loop import _Loop, epoch_order

Run = Callable[..., Result]
KINDS = ("bert", "roberta", "distilbert")
POSITIONS = 24  # of text and special tokens
QUICK = ["--batch-size", 8, "--lr", 2e-3, "--precision", "fp32"]


# ---------------------------------------------------------------------------------------------------------------------
# Small models and data
# ---------------------------------------------------------------------------------------------------------------------


def make_encoder(kind: str, folder: Path, **changes: Any) -> Path:
    """An encoder of 2 layers, 32 wide, without a classification head, with a tokenizer of its own."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers.utils import logging

    logging.disable_progress_bar()
    texts = [" ".join([*OPINIONS, *THINGS, *FILLERS])] * 3
    if kind == "roberta":
        specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
        )
        raw.train_from_iterator(texts, trainer)
        raw.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False)
    else:
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        raw.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
        raw.train_from_iterator(texts, trainer)
        raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer_class = {
        "bert": transformers.BertTokenizerFast,
        "roberta": transformers.RobertaTokenizerFast,
        "distilbert": transformers.DistilBertTokenizerFast,
    }[kind]
    sizes: dict[str, Any] = {"vocab_size": raw.get_vocab_size(), "max_position_embeddings": POSITIONS}
    if kind == "distilbert":
        sizes |= {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    else:
        sizes |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "roberta":  # positions count from behind the padding's
        sizes |= {"pad_token_id": 1, "max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **(sizes | {"initializer_range": 0.15} | changes))
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer_class(tokenizer_object=raw).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return {kind: make_encoder(kind, folder / kind) for kind in KINDS}


def make_text(draw: random.Random, label: int) -> str:
    words = [draw.choice(OPINIONS[4 * label].split()), *draw.choices(FILLERS + THINGS, k=draw.randint(1, 9))]
    return " ".join(words * (3 if draw.random() < 0.1 else 1))  # some are too long


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Flags of one's own files: good or bad, by a word at the beginning."""
    folder = tmp_path_factory.mktemp("own")
    flags: list[Any] = []
    for seed, (split, count) in enumerate({"train": 90, "dev": 31}.items()):
        draw = random.Random(seed)
        rows = [f"{make_text(draw, i % 2)}\t{i % 2}" for i in range(count)]
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
        flags += [f"--{split}-file", folder / f"{split}.tsv"]
    return [*flags, "--keep", "start"]


@pytest.fixture(scope="module")
def finished(
    encoders: dict[str, Path], own: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """The folder of a model's and strategy's uninterrupted run."""
    found: dict[tuple[str, str], Path] = {}

    def get(kind: str, strategy: str) -> Path:
        if (kind, strategy) not in found:
            output_dir = tmp_path_factory.mktemp("finished")
            rate = ["--lr", 2e-2] if strategy == "head" else []
            flags = ["--model", encoders[kind], *own, *QUICK, *rate, "--epochs", 3, "--strategy", strategy]
            assert call(*flags, "--output-dir", output_dir) == 0
            found[kind, strategy] = only_run(output_dir)
        return found[kind, strategy]

    return get


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).read_text())


def scores_of(folder: Path) -> np.ndarray:
    lines = (folder / "predictions" / "dev-scores.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["probabilities"] for line in lines])


def dev_texts(own: list[Any]) -> list[str]:
    return [line.split("\t")[0] for line in own[3].read_text().splitlines()[1:]]


def by_transformers(folder: Path, *texts: list[str]) -> np.ndarray:
    """What transformers' own classes make of texts, or of pairs, with the files in a folder."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    raw = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = [model(**raw(*row, truncation=True, max_length=POSITIONS, return_tensors="pt")).logits
                for row in zip(*texts, strict=True)]  # fmt: skip
    return torch.cat(rows).softmax(-1).numpy()


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("as_new_process")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_learns_says_what_it_is_and_leaves_what_transformers_loads(
    kind: str, finished: Callable[[str, str], Path], own: list[Any]
) -> None:
    folder = finished(kind, "full")
    metrics, config = read(folder, "metrics.json"), read(folder, "config.json")
    assert metrics["comparator"] is True and config["model"]["comparator"] is True
    assert config["model"]["note"].startswith(f"comparator: {kind}, ")
    assert folder.name.startswith(f"sentiment-custom-{kind}-full-s11711-")
    assert config["settings"]["dropout"] is None  # GPT-2's head has one, this is not it
    losses = [entry["train_loss"] for entry in metrics["history"]]
    assert losses[-1] < 0.75 * losses[0] and metrics["dev"]["accuracy"] > 0.8
    assert metrics["cut_texts"]["dev"] > 0
    np.testing.assert_allclose(scores_of(folder), by_transformers(folder / "best", dev_texts(own)), atol=1e-5)
    assert read(folder / "best", "config.json")["id2label"] == {"0": "0", "1": "1"}
    assert "No GPT-2" in (folder / "best" / "README.md").read_text()


@pytest.mark.usefixtures("as_new_process")
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_head_trains_the_head_alone(
    kind: str, finished: Callable[[str, str], Path], encoders: dict[str, Path], own: list[Any]
) -> None:
    from transformers import AutoModel, AutoModelForSequenceClassification

    folder = finished(kind, "head")
    metrics = read(folder, "metrics.json")
    losses = [entry["train_loss"] for entry in metrics["history"]]
    assert losses[-1] < losses[0]
    after = AutoModelForSequenceClassification.from_pretrained(folder / "best")
    before = AutoModel.from_pretrained(encoders[kind]).state_dict()
    body = after.base_model.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in body.items())
    assert ("pooler.dense.weight" in body) == (kind == "bert")  # frozen too
    in_head = sum(p.numel() for p in after.parameters()) - sum(p.numel() for p in after.base_model.parameters())
    assert metrics["cost"]["trainable_parameters"] == in_head
    assert metrics["cost"]["tokens_per_second"] == 0  # features were cached
    np.testing.assert_allclose(scores_of(folder), by_transformers(folder / "best", dev_texts(own)), atol=1e-5)


def test_cached_features_train_the_same_head_as_the_frozen_body_run_each_time(
    run: Run, encoders: dict[str, Path], own: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = make_encoder("bert", tmp_path / "bert", classifier_dropout=0.0)  # the body keeps its dropout, unused
    command = ["--model", still, *own, *QUICK, "--epochs", 2, "--strategy", "head"]
    done = run(*command, "--output-dir", tmp_path / "cached")
    assert done.code == 0 and "its features are computed once" in done.out
    monkeypatch.setattr(Comparator, "reads_features", lambda self, **inputs: False)
    done = run(*command, "--output-dir", tmp_path / "run")
    assert done.code == 0 and "its features are computed once" not in done.out
    cached, each_time = scores_of(only_run(tmp_path / "cached")), scores_of(only_run(tmp_path / "run"))
    np.testing.assert_allclose(cached, each_time, atol=1e-5)


def test_features_are_not_cached_where_the_head_reads_more_than_the_first_token(encoders: dict[str, Path]) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(encoders["distilbert"], num_labels=2)
    inputs = {"input_ids": torch.tensor([[2, 7, 9, 3], [2, 11, 5, 3]])}
    classifier = Comparator(model)
    assert classifier.reads_features(**inputs)
    model.pre_classifier.register_forward_pre_hook(lambda module, given: (given[0] + model.last_mean,))
    model.distilbert.register_forward_hook(
        lambda module, given, output: setattr(model, "last_mean", output.last_hidden_state.mean(1))
    )
    assert not classifier.reads_features(**inputs)


def test_training_equals_a_plain_loop(run: Run, own: list[Any], tmp_path: Path) -> None:
    """One epoch without dropout, written out with transformers' own classes."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    folder = make_encoder("bert", tmp_path / "bert", **still)
    done = run("--model", folder, *own, *QUICK, "--epochs", 1, "--limit-train", 44, "--weight-decay", 0.1,
               "--output-dir", tmp_path / "runs")  # fmt: skip
    assert done.code == 0, done.err

    raw = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, attn_implementation="eager")
    torch.manual_seed(derive_seed("weights", 11711))
    fresh = AutoModelForSequenceClassification.from_config(model.config)
    model.classifier.load_state_dict(fresh.classifier.state_dict())
    no_decay = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decay = [p for p in model.parameters() if all(p is not other for other in no_decay)]
    optimizer = AdamW([{"params": decay, "weight_decay": 0.1}, {"params": no_decay}], lr=2e-3)
    rows = [line.split("\t") for line in own[1].read_text().splitlines()[1:45]]
    order = epoch_order(11711, 1, len(rows))
    model.train()
    for start in range(0, len(order), 8):
        batch = [rows[i] for i in order[start : start + 8]]
        inputs = raw([text for text, _ in batch], padding=True, truncation=True, max_length=24, return_tensors="pt")
        labels = torch.tensor([int(label) for _, label in batch])
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = AutoModelForSequenceClassification.from_pretrained(only_run(tmp_path / "runs") / "best").state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("kind", "strategy"), [("distilbert", "full"), ("roberta", "head")])
def test_a_killed_run_goes_on_to_the_same_bytes(
    kind: str,
    strategy: str,
    run: Run,
    finished: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = finished(kind, strategy)
    update = _Loop._update

    def kill(self: Any, indices: list[int], position: float) -> float:
        if (self.progress.epoch, self.progress.window) == (1, 3):
            raise SystemExit("killed")
        return update(self, indices, position)

    settings = read(whole, "config.json")["settings"]
    command = ["--model", read(whole, "config.json")["model"]["folder"], *QUICK, "--epochs", 3, "--lr", settings["lr"],
               "--train-file", settings["train_file"], "--dev-file", settings["dev_file"], "--keep", "start",
               "--strategy", strategy, "--output-dir", tmp_path]  # fmt: skip
    monkeypatch.setattr(_Loop, "_update", kill)
    with pytest.raises(SystemExit):
        run(*command, "--save-every", 1e-6)
    monkeypatch.setattr(_Loop, "_update", update)
    assert run("--resume", only_run(tmp_path)).code == 0
    found, expected = results_of(only_run(tmp_path)), results_of(whole)
    assert [name for name in expected if found[name] != expected[name]] == [] and found.keys() == expected.keys()


def test_a_finished_run_labels_new_texts(run: Run, finished: Callable[[str, str], Path], own: list[Any]) -> None:
    folder = finished("distilbert", "full")
    for text, probabilities in list(zip(dev_texts(own), scores_of(folder), strict=True))[:2]:
        done = run("--predict", text, "--from-run", folder)
        assert done.code == 0 and done.out.startswith(f"{probabilities.argmax()}\t")
        assert f"{probabilities.max():.3f}" in done.out


# ---------------------------------------------------------------------------------------------------------------------
# Pairs
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("pairs")
    flags: list[Any] = []
    for seed, (split, count) in enumerate({"train": 24, "dev": 13}.items()):
        draw = random.Random(seed)
        rows = [
            "\t".join([*(" ".join(draw.choices(THINGS, k=draw.randint(1, 14))) for _ in range(2)), str(i % 2)])
            for i in range(count)
        ]
        (folder / f"{split}.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]) + "\n")
        flags += [f"--{split}-file", folder / f"{split}.tsv"]
    return flags


def test_pairs_are_read_as_the_tokenizer_reads_pairs(
    paraphrase: Run, encoders: dict[str, Path], pairs: list[Any], tmp_path: Path
) -> None:
    done = paraphrase("--model", encoders["bert"], *pairs, *QUICK, "--epochs", 1, "--output-dir", tmp_path)
    assert done.code == 0, done.err
    folder = only_run(tmp_path)
    rows = [line.split("\t") for line in pairs[3].read_text().splitlines()[1:]]
    first, second = [row[0] for row in rows], [row[1] for row in rows]
    expected = by_transformers(folder / "best", first, second)
    np.testing.assert_allclose(scores_of(folder), expected, atol=1e-5)
    raw = ComparatorTokenizer(folder / "best", read_comparator(folder / "best")).raw
    n_tokens = [len(raw.tokenize(a)) + len(raw.tokenize(b)) + 3 for a, b in zip(first, second, strict=True)]
    n_cut = sum(n > POSITIONS for n in n_tokens)
    assert read(folder, "metrics.json")["cut_texts"]["dev"] == n_cut > 0
    assert f"dev texts longer than the model's {POSITIONS} tokens: {n_cut}; cut, both texts keep" in done.out
    line = paraphrase("--predict", first[0], second[0], "--from-run", folder).out
    assert f"{expected[0].max():.3f}" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_an_error_of_the_disk(encoders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to("/dev/full")
    tokenizer = ComparatorTokenizer(encoders["bert"], read_comparator(encoders["bert"]))
    with pytest.raises(OSError, match="the tokenizer could not be saved .*No space left"):
        tokenizer.save(tmp_path)


def test_the_second_text_is_told_from_the_first(encoders: dict[str, Path]) -> None:
    tokenizers = {kind: ComparatorTokenizer(encoders[kind], read_comparator(encoders[kind])) for kind in KINDS}
    bert = tokenizers["bert"].encode(["film", "the film"], ["story of the actor", "music"], keep="end")
    batch = tokenizers["bert"].batch(bert, [1, 0])
    assert batch["token_type_ids"].tolist() == [[0] * 4 + [1] * 2 + [0] * 2, [0] * 3 + [1] * 5]
    assert batch["attention_mask"].tolist() == [[1] * 6 + [0] * 2, [1] * 8]
    for kind in ("roberta", "distilbert"):
        found = tokenizers[kind].encode(["film"], ["story"], keep="end")
        assert tokenizers[kind].batch(found, [0]).keys() == {"input_ids", "attention_mask"}


# ---------------------------------------------------------------------------------------------------------------------
# Texts that are too long
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", ["start", "end"])
def test_the_end_that_is_asked_for_stays_and_special_tokens_too(
    kind: str, keep: str, encoders: dict[str, Path]
) -> None:
    tokenizer = ComparatorTokenizer(encoders[kind], read_comparator(encoders[kind]))
    assert tokenizer.max_tokens == POSITIONS
    text = " ".join(THINGS * 5)
    found = tokenizer.encode([text, "film"], None, keep)
    whole = tokenizer.raw(text, verbose=False)["input_ids"]
    room = POSITIONS - 2
    middle = whole[1:-1][:room] if keep == "start" else whole[1:-1][-room:]
    assert found.n_cut == 1 and found.ids[0] == [whole[0], *middle, whole[-1]]
    assert found.ids[1] == tokenizer.raw("film")["input_ids"]
    assert tokenizer.raw.backend_tokenizer.truncation is None


# ---------------------------------------------------------------------------------------------------------------------
# What is said, and what is refused
# ---------------------------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_the_groups_and_loads_no_weight(
    run: Run, encoders: dict[str, Path], own: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparator, "_stored", lambda *given: pytest.fail("weights were loaded"))
    done = run("--model", encoders["bert"], *own, "--output-dir", tmp_path, "--dry-run")
    assert done.code == 0, done.err
    shown = " ".join(done.out.split())
    assert "note: comparator: bert, a model that transformers runs" in shown
    assert "blocks 0-1 17,088 2e-05 0 pooler 1,056 2e-05 0 head 66 2e-05 0" in shown
    done = run("--model", encoders["bert"], *own, "--fine-tune-mode", "last-linear-layer", "--output-dir", tmp_path,
               "--dry-run")  # fmt: skip
    shown = " ".join(done.out.split())
    assert "head (everything but the classification head is frozen)" in shown and "head 66 0.001 0 (frozen)" in shown


def test_what_works_on_gpt2_alone_is_refused_all_at_once(
    run: Run, encoders: dict[str, Path], own: list[Any], tmp_path: Path
) -> None:
    done = run("--model", encoders["bert"], *own, "--strategy", "lora", "--lora-rank", 2, "--layer-decay", 0.9,
               "--pooling", "mean", "--dropout", 0.1, "--lm-epochs", 1, "--schedule", "cosine-per-epoch",
               "--warmup", 0.1, "--output-dir", tmp_path)  # fmt: skip
    assert done.code == 2 and not list(tmp_path.iterdir())
    assert done.errors[0] == (
        "error: --strategy lora: works on this project's GPT-2; a comparator (bert) takes full or head"
    )
    told = {error.split(":")[1].strip() for error in done.errors[1:]}
    assert told == {"--lora-rank", "--layer-decay", "--lm-epochs", "--pooling", "--dropout", "--warmup"}
    done = run("--model", encoders["bert"], *own, "--dropout", 0, "--output-dir", tmp_path, "--dry-run")
    assert done.code == 2 and "--dropout: a comparator (bert) keeps the head and the dropout of its" in done.errors[0]
    done = run("--model", encoders["bert"], *own, "--strategy", "taskA", "--output-dir", tmp_path)
    assert done.code == 2 and "a comparator (bert) takes full or head" in done.errors[0]


@pytest.mark.parametrize("name", ["full", "llrd", "head"])
def test_gpt2_is_never_a_comparator(name: str, run: Run, tiny_model: Path, own: list[Any], tmp_path: Path) -> None:
    assert not is_comparator(tiny_model)
    done = run("--model", tiny_model, *own, "--strategy", name, "--output-dir", tmp_path, "--dry-run")
    assert done.code == 0 and "comparator" not in done.out


def spoil_config(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def drop_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def put_a_program_into_it(folder: Path) -> None:
    class Program:
        def __reduce__(self) -> Any:
            return (Path.touch, (folder / "ran",))

    (folder / "model.safetensors").unlink()
    torch.save({"embeddings": Program()}, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_config(model_type="nothing"), "model_type 'nothing' is neither GPT-2 nor a sequence classifier"),
        (spoil_config(model_type="clip"), "model_type 'clip' is neither GPT-2 nor a sequence classifier"),
        (spoil_config(quantization_config={"quant_method": "bitsandbytes"}), "the weights are quantized"),
        (spoil_config(vocab_size=20), "this tokenizer belongs to another model"),
        (spoil_config(intermediate_size=48), "tensors are missing, or have another shape than config.json says"),
        (drop_tensor, "bert.encoder.layer.1.output.dense.weight; fetch the checkpoint again"),
        (put_a_program_into_it, "the weights can't be read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no tensors"), "the weights can't be read"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "the tokenizer can't be loaded"),
    ],
)
def test_a_checkpoint_that_cannot_be_used(
    spoil: Callable[[Path], Any], message: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(encoders["bert"], folder)
    spoil(folder)
    with pytest.raises(UserError) as error:
        config = read_comparator(folder)
        start_comparator(config, 2, ComparatorTokenizer(folder, config).pad_token_id)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (folder / "ran").exists()


def test_a_head_is_always_new_and_a_pooler_that_is_missing_is_named(
    encoders: dict[str, Path], finished: Callable[[str, str], Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

    best = finished("bert", "full") / "best"
    trained = AutoModelForSequenceClassification.from_pretrained(best)
    for num_labels in (2, 5):  # as many as it has, and others
        torch.manual_seed(0)
        model, drawn = start_comparator(read_comparator(best), num_labels, 0)
        assert drawn == [] and torch.equal(model.bert.pooler.dense.weight, trained.bert.pooler.dense.weight)
        assert model.classifier.weight.shape[0] == num_labels
        assert num_labels == 5 or not torch.equal(model.classifier.weight, trained.classifier.weight)
    AutoModelForMaskedLM.from_pretrained(encoders["bert"]).save_pretrained(tmp_path)
    model, drawn = start_comparator(read_comparator(tmp_path), 2, 0)
    assert drawn == ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]
    _, drawn = start_comparator(replace(read_comparator(tmp_path), folder=Path("nowhere")), 2, 0, random_init=True)
    assert drawn == []


@pytest.mark.parametrize(
    "kind", ["albert", "electra", "deberta-v2", "xlnet", "bart", "mpnet", "llama", "t5", "xlm-roberta"]
)
def test_every_parameter_of_other_architectures_is_in_one_group(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 99, "d_model": 32}
    sizes |= {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"n_layer": 2, "n_head": 2, "num_layers": 2, "num_heads": 2, "d_kv": 16, "embedding_size": 32}
    AutoConfig.for_model(kind, **sizes).save_pretrained(tmp_path)
    groups = Comparator(comparator.comparator_skeleton(read_comparator(tmp_path), 3)).layer_groups()
    names = list(groups)
    assert names[0] == "embeddings" and "block 0" in names and names[-1] == "head"
    assert (kind == "albert") != ("block 1" in names)  # one layer, used twice
    everything = [id(p) for parameters in groups.values() for p in parameters]
    assert len(everything) == len(set(everything))


# ---------------------------------------------------------------------------------------------------------------------
# Where they come from
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Downloads from a Hub that has some files: which are fetched."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    from models import sources

    def download(kind: str, *names: str) -> list[str]:
        fetched = []

        def fetch(repository: str, file: str) -> str:
            if file not in names:
                raise EntryNotFoundError(file)
            fetched.append(file)
            return str(tmp_path / file)

        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
        sources._download_rest("someone/model", tmp_path)
        return fetched

    return download


def test_the_tokenizer_files_of_other_architectures_are_fetched(hub: Callable[..., list[str]]) -> None:
    weights = "model.safetensors"
    assert hub("bert", "vocab.txt", "added_tokens.json", weights) == ["added_tokens.json", "vocab.txt", weights]
    assert hub("roberta", "vocab.json", "merges.txt", weights) == ["vocab.json", "merges.txt", weights]
    for kind in ("bert", "gpt2"):
        with pytest.raises(UserError, match="the model on the Hub has no tokenizer"):
            hub(kind, weights, *(["vocab.txt"] if kind == "gpt2" else []))
