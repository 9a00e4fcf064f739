"""Text generation from the command line: pairs and documents, any GPT-2 vocabulary, resuming, writing, mistakes."""

from __future__ import annotations

import csv
import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_korean import KOGPT2_VOCABULARY, TEXTS, make_kogpt2
from tiny_run import ROOT, Result, only_run, results_of

from config import UserError
from models.checkpoint import read_config
from modules.cross_entropy import IGNORED
from tasks.passages import Passage, read_passages, split_by_hash
from text_generation import begun, measure
from training.loop import _Loop
from training.writing import run as writing
from training.writing.job import EncodedText, batch_of
from training.writing.run import save_language_model
from training.writing.targets import Written
from training.writing.task_texts import TaskText
from training.writing.task_tokens import find_task_tokens, load_grown

Run = Callable[..., Result]
SMALL = ["--epochs", 2, "--batch-size", 4, "--lr", 1e-2, "--max-new-tokens", 6, "--temperature", 0]
LORA = ["--strategy", "lora", "--lora-rank", 2]


@pytest.fixture
def generation(script: Callable[[str], Run]) -> Run:
    return script("text_generation")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The flags that name files of pairs like the Korean chatbot's."""
    return write_pairs(tmp_path_factory.mktemp("pairs"), "{}, 네?", TEXTS)


@pytest.fixture(scope="module")
def english_pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Questions that are longer than the tiny model's context."""
    texts = ["It is warm.", "The actor.", "No music!", "A dull ending"]
    return write_pairs(tmp_path_factory.mktemp("english"), "the film with its music and every actor, {} " * 6, texts)


def write_pairs(folder: Path, question: str, texts: list[str]) -> list[Any]:
    flags: list[Any] = []
    for split, count in (("train", 10), ("dev", 3), ("test", 2)):
        path = folder / f"{split}.csv"
        with open(path, "w", encoding="utf-8", newline="") as file:
            rows = [(question.replace("{}", f"{texts[i % 4]} {i}"), texts[(i + 1) % 4], 0) for i in range(count)]
            csv.writer(file).writerows([("Q", "A", "label"), *rows])
        flags += [f"--{split}-file", path]
    return flags


@pytest.fixture(scope="module")
def kogpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kogpt2(tmp_path_factory.mktemp("models") / "kogpt2")


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs
# ---------------------------------------------------------------------------------------------------------------------


def test_a_kogpt2_learns_with_a_spare_token_and_goes_on_in_transformers_as_here(
    generation: Run, kogpt2: Path, pairs: list[Any], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, GPT2LMHeadModel

    done = generation(
        "--model", kogpt2, *pairs, *SMALL, *LORA, "--language", "ko", "--show-examples", 1, "--output-dir", tmp_path
    )
    assert done.code == 0, done.err
    assert "tokens    <answer> as <unused0>" in done.out
    shown = done.out.split("example 2: ")[1].splitlines()
    assert shown[1].split()[0] == "</s>" and shown[1].endswith(" [</s>]")
    before, behind = shown[1].split(" <unused0> ")
    assert "[" not in before and all(token.startswith("[") for token in behind.split())
    run = only_run(tmp_path)
    metrics = metrics_of(run)
    assert metrics["history"][-1]["train_loss"] < metrics["history"][0]["train_loss"]
    assert {"perplexity", "chrf", "distinct_1", "distinct_2", "repetition", "stopped"} <= metrics["dev"].keys()
    assert {"perplexity", "chrf"} <= metrics["test"].keys() and metrics["pairs"]
    low, high = metrics["dev_ci"]["chrf"]
    assert low <= metrics["dev"]["chrf"] <= high

    old = load_file(kogpt2 / "model.safetensors")["transformer.wte.weight"]
    new = load_file(run / "best/model.safetensors")["transformer.wte.weight"]
    changed = (old != new).any(dim=1).nonzero().flatten().tolist()
    assert changed == [9] and len(new) == KOGPT2_VOCABULARY
    assert metrics["cost"]["trainable_parameters"] == 16 + 2 * (16 * 2 + 2 * 48)  # a row, and in each block A and B

    card = (run / "best/README.md").read_text()
    assert "'</s>question<unused0>'" in card and "`lora`" in card and "| lora-rank | 2 |" in card
    theirs = GPT2LMHeadModel.from_pretrained(run / "best", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "best")
    for record in records(run / "predictions/dev-written.jsonl"):
        ids = tokenizer("</s>" + record["prompt"].replace(" <answer>", "<unused0>"), return_tensors="pt").input_ids
        with torch.no_grad():
            made = theirs.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=1, pad_token_id=3)
        assert tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip() == record["written"]


def test_a_killed_run_goes_on_to_the_same_bytes(
    generation: Run, still_model: Path, english_pairs: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["--model", still_model, *english_pairs, *SMALL, *LORA, "--save-every", 1e-6, "--keep", "end"]
    done = generation(*command, "--output-dir", tmp_path / "whole")
    assert done.code == 0, done.err
    assert "sources were cut: train 10 of 10, dev 3 of 3, test 2 of 2" in done.out and "<answer> added" in done.out
    update = _Loop._update

    def kill(self: Any, indices: list[int], position: float) -> float:
        if (self.progress.epoch, self.progress.window) == (1, 1):
            raise SystemExit("killed")
        return update(self, indices, position)

    monkeypatch.setattr(_Loop, "_update", kill)
    with pytest.raises(SystemExit):
        generation(*command, "--output-dir", tmp_path / "cut")
    monkeypatch.setattr(_Loop, "_update", update)
    cut = only_run(tmp_path / "cut")
    done = generation("--resume", cut)
    assert done.code == 0 and "going on at epoch 2, step 4 of 6" in done.out, done.err
    assert results_of(cut) == results_of(only_run(tmp_path / "whole"))
    assert generation("--resume", cut, "--lr", 1).code == 2
    again = generation("--resume", cut)
    assert again.code == 0 and "complete since" in again.out


def test_documents_are_learnt_whole_and_a_finished_run_goes_on_with_a_prompt(
    generation: Run, still_model: Path, tmp_path: Path
) -> None:
    texts = [f"the film {i} is good and warm with every actor\nand its music" for i in range(6)]
    texts[2] = "the music of this story " * 20
    (tmp_path / "train.txt").write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:2]))
    flags = ["--train-file", tmp_path / "train.txt", "--dev-file", tmp_path / "dev.jsonl"]
    out = tmp_path / "runs"
    done = generation("--model", still_model, *flags, *SMALL, "--strategy", "full", "--output-dir", out)
    assert done.code == 0, done.err
    assert "documents longer than the context of 48 tokens are read in" in done.out
    metrics = metrics_of(only_run(out))
    assert "chrf" not in metrics["dev"] and "test" not in metrics and not metrics["pairs"]
    written = records(only_run(out) / "predictions/dev-written.jsonl")
    assert written[0]["prompt"] == "the film 0 is good and warm with"
    done = generation("--prompt", written[0]["prompt"], "--output-dir", out, *SMALL[-4:])
    assert done.code == 0, done.err
    assert done.out.startswith(written[0]["prompt"])
    assert done.out == written[0]["prompt"] + continued(only_run(out) / "best", written[0]["prompt"]) + "\n"
    done = generation("--prompt", "the film", "--output-dir", out, "--temperature", 0, "--num_beams", 2)
    assert done.code == 0 and len(done.out.splitlines()) == 1 and done.err == f"run: {only_run(out)}\n"
    done = generation("--prompt", "the film", "--output-dir", out, "--samples", 2)  # the run's temperature is 0
    assert done.code == 2 and len(done.errors) == 1 and "--samples 2: at --temperature 0 all are" in done.errors[0]

    long = "every actor is superb and warm. " * 30 + "the music of this film"  # it goes on where it ends
    done = generation("--prompt", long, "--output-dir", out, *SMALL[-4:])
    assert done.out.splitlines() == [long + continued(only_run(out) / "best", long, 48 - 1 - 6)]
    _, note = done.err.splitlines()
    assert note.startswith("note: context of 48 tokens: ") and note.endswith(
        " are cut from the beginning of what is given"
    )
    done = generation("--prompt", "a", "--output-dir", out, "--beams", 2, "--temperature", 1, "--keep", "end")
    assert done.code == 2 and len(done.errors) == 1 and "--beams 2: beam search takes" in done.errors[0]
    done = generation("--prompt", "a", "--output-dir", out, "--top-k", 3)  # the run's temperature is 0
    assert done.code == 2 and len(done.errors) == 1 and "--top-k 3: nothing is drawn" in done.errors[0]


def test_a_finished_run_draws_where_it_searched_for_the_likeliest(
    generation: Run, still_model: Path, english_pairs: list[Any], tmp_path: Path
) -> None:
    done = generation("--model", still_model, *english_pairs, *SMALL, *LORA, "--beams", 2, "--output-dir", tmp_path)
    assert done.code == 0, done.err
    asked = ["--prompt", "the film", "--output-dir", tmp_path]
    assert generation(*asked, "--temperature", 0).err == f"run: {only_run(tmp_path)}\n"
    done = generation(*asked, "--temperature", 0.9)
    assert done.code == 0, done.err
    assert done.err.splitlines() == [
        "note: --temperature 0.9 draws; the run's --beams 2 is left out", f"run: {only_run(tmp_path)}"
    ]  # fmt: skip
    done = generation(*asked, "--temperature", 0.9, "--beams", 2)
    assert done.code == 2 and len(done.errors) == 1 and "--beams 2: beam search takes" in done.errors[0]


def test_documents_and_answers_are_compared_by_their_likelihood(
    generation: Run, still_model: Path, english_pairs: list[Any], tmp_path: Path
) -> None:
    from comparison.comparing import make_comparisons

    texts = ["the film is good and warm", "the music of this story " * 20, "one"]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.txt").write_text("\n***\n".join(texts), encoding="utf-8")
    documents = [part for split in ("train", "dev", "test") for part in (f"--{split}-file", tmp_path / f"{split}.txt")]
    documents += ["--document-separator", "***", "--samples", 2, "--temperature", 1]
    for kind, flags in (("documents", documents), ("pairs", english_pairs)):
        out = tmp_path / kind
        done = generation("--model", still_model, *flags, "--max-new-tokens", 2, "--epochs", 1, "--batch-size", 4,
                          "--lr", 1e-2, "--output-dir", out)  # fmt: skip
        assert done.code == 0, done.err
        run = only_run(out)
        for split in ("dev", "test"):
            saved = {one["id"]: one for one in records(run / f"predictions/{split}-scores.jsonl")}.values()
            nats = sum(one["log_likelihood"] * one["target_tokens"] for one in saved)
            tokens, measured = sum(one["target_tokens"] for one in saved), metrics_of(run)[split]
            assert tokens == measured["n_tokens"] and nats / tokens == pytest.approx(-measured["loss"], rel=1e-4)
        shutil.copytree(run, out / "other")
        (out / "other/metrics.json").write_text(json.dumps(metrics_of(run) | {"strategy": "other"}))
        (usual,) = make_comparisons([out])
        assert usual.measure.name == ("log_likelihood" if kind == "documents" else "chrf")
        (likely,) = make_comparisons([out], measure="log_likelihood")
        assert len(likely.entries) == 2 and len(likely.pairs) == 1 and not likely.problems
        dev = metrics_of(run)["dev"]
        assert len(likely.ids) == dev["n"] and len(likely.best.tested) == 1
        if kind == "documents":  # the second one is read in pieces
            assert dev["n"] == 3 < dev["n_perplexity"]
        else:
            assert "n_perplexity" not in dev


def test_flags_that_say_nothing_of_what_is_read_are_refused(
    generation: Run, still_model: Path, english_pairs: list[Any], tmp_path: Path
) -> None:
    flags = ["--begin-words", 3, "--text-field", "body", "--document-separator", "***"]
    done = generation("--model", still_model, *english_pairs, *flags, "--output-dir", tmp_path / "runs", "--dry-run")
    assert done.code == 2 and [error.split(": ")[1] for error in done.errors] == [
        "--begin-words", "--text-field", "--document-separator",
    ]  # fmt: skip
    (tmp_path / "a.txt").write_text("a film\n***\nthe story", encoding="utf-8")
    own = ["--train-file", tmp_path / "a.txt", "--dev-file", tmp_path / "a.txt", *flags, "--dry-run"]
    done = generation("--model", still_model, *own)
    assert done.code == 2 and [error.split(": ")[1] for error in done.errors] == ["--text-field"]
    done = generation("--model", still_model, *own[:4], "--keep", "end", "--loss-on", "all", "--dry-run")
    assert done.code == 2 and [error.split(": ")[1] for error in done.errors] == ["--keep", "--loss-on"]


def test_long_beginnings_are_cut_and_counted_before_training(
    generation: Run, still_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("the film is good and warm with every actor " * 3, encoding="utf-8")
    done = generation("--model", still_model, "--train-file", tmp_path / "a.txt", "--dev-file", tmp_path / "a.txt",
                      "--begin-words", 25, "--dry-run")  # fmt: skip
    assert done.code == 0, done.err
    assert "context of 48 tokens: sources are cut when the model writes: dev 1 of 1" in done.out
    assert "texts that also stand in train: dev 1 of 1; config.json lists some" in done.out


def test_every_fifth_text_can_stand_in_for_a_dev_file(generation: Run, still_model: Path, tmp_path: Path) -> None:
    texts = [f"the film {i} is good" for i in range(12)]
    (tmp_path / "train.txt").write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    flags = ["--model", still_model, "--train-file", tmp_path / "train.txt", "--hold-out", 5, "--strategy", "full"]
    done = generation(*flags, *SMALL, "--output-dir", tmp_path / "runs")
    assert done.code == 0 and "9 texts to train on, 3 dev, 0 test" in done.out, done.err
    written = records(only_run(tmp_path / "runs") / "predictions/dev-written.jsonl")
    assert [record["prompt"].split()[2] for record in written] == ["0", "5", "10"]
    done = generation(*flags, "--dev-file", tmp_path / "train.txt", "--output-dir", tmp_path / "runs")
    assert done.code == 2 and "--dev-file: --hold-out takes training texts in its place" in done.errors[0]


@pytest.mark.parametrize(
    ("name", "text", "flags", "message"),
    [
        ("book.txt", "the film is good\n\n***\n\nthe end\n" * 9, [], "book.txt: 1 document, and --hold-out 5 keeps it "
         "back; put a line '<|endoftext|>' between documents, or name their separator by --document-separator"),
        ("book.txt", "a\n", ["--document-separator", ""], "book.txt: 1 document, and --hold-out 5 keeps it back; "
         "name a line that stands between documents by --document-separator"),
        ("book.jsonl", '{"text": "the film"}\n' * 2, [], "book.jsonl: all 2 texts are the same, and --hold-out 5 keeps "
         "them back; give others too, or a --dev-file"),
        ("book.csv", "Q,A\na,b\n", [], "book.csv: 1 text, and --hold-out 5 keeps it back; give more, or a --dev-file"),
    ],
)  # fmt: skip
def test_a_single_text_can_not_be_held_out(
    name: str, text: str, flags: list[str], message: str, generation: Run, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    done = generation("--train-file", tmp_path / name, "--hold-out", 5, *flags, "--dry-run")
    assert done.code == 2 and done.errors == [f"error: {tmp_path}/{message}"]


def continued(folder: Path, prompt: str, last: int = 48) -> str:
    """By transformers, as the card says, after the prompt's last tokens."""
    from transformers import AutoTokenizer, GPT2LMHeadModel

    model: Any = GPT2LMHeadModel.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([[0, *tokenizer(prompt, add_special_tokens=False).input_ids[-last:]]])
    new = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=0, pad_token_id=0)[0, ids.shape[1] :]
    return str(tokenizer.decode(new, skip_special_tokens=True))


def test_a_piece_that_goes_on_in_another_is_scored_to_its_last_token() -> None:
    pieces = [EncodedText([0, 5], 1, 1, ends=False), EncodedText([0, 5, 6, 0], 1, 2)]
    _, targets, _ = batch_of(pieces, torch.device("cpu"), continuation_only=True)
    assert targets.tolist() == [[5, IGNORED, IGNORED], [5, 6, IGNORED]]


def test_the_first_words_keep_their_line_breaks() -> None:
    text = begun(Passage("1", "one\n two  three four"), 3)
    assert (text.parts[0].text, text.target) == ("one\n two  three", "four")
    text = begun(Passage("1", "one\n two"), 3)
    assert (text.parts[0].text, text.target) == ("one\n two", "")


def test_intervals_draw_prompts_with_all_their_samples() -> None:
    """Three samples that are the same say no more than one."""
    texts = ["one one", "a b c", "it is", "so it is said", "yes"]
    once = [(TaskText(str(i), (), "it is so"), Written(text, 0.0, 3, i % 2 == 0)) for i, text in enumerate(texts)]
    expected = measure(once, True, 1)[2]
    for name, found in measure(once * 3, True, 1, samples=3)[2].items():
        assert found == pytest.approx(expected[name])


def test_a_prompt_is_composed(generation: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from training.writing import finished, targets

    seen: list[TaskText] = []
    run = SimpleNamespace(metrics=lambda: {"pairs": True})
    monkeypatch.setattr(finished, "asked_run", lambda *_: (run, SimpleNamespace(samples=1)))
    monkeypatch.setattr(finished, "open_writer", lambda *_: None)
    monkeypatch.setattr(targets, "stream_target", lambda _, text, *__, **___: seen.append(text))
    assert generation("--prompt", unicodedata.normalize("NFD", "한국")).code == 0
    assert seen[0].parts[0].text == "한국"


def test_the_disk_has_to_hold_the_state_of_the_whole_embedding(
    generation: Run, still_model: Path, english_pairs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(writing, "check_disk_space", lambda _, total, trainable: seen.append(trainable))
    assert generation("--model", still_model, *english_pairs, *LORA, "--dry-run").code == 0
    config = read_config(still_model)
    assert seen[0] > config.vocab_size * config.n_embd


def test_a_model_keeps_what_its_tokens_stood_for_in_another_task(kogpt2: Path, tmp_path: Path) -> None:
    folder = kogpt2
    for number, name in enumerate(("<answer>", "<summarize>", "<nli>")):
        found = find_task_tokens(folder, read_config(folder), (name,))
        folder = tmp_path / str(number)
        save_language_model(load_grown(kogpt2, found), found.tokenizer, folder, found.recorded)
    assert found.recorded == {"<answer>": 9, "<summarize>": 10, "<nli>": 11}


def test_the_loss_may_fall_on_everything(
    generation: Run, still_model: Path, english_pairs: list[Any], tmp_path: Path
) -> None:
    done = generation(
        "--model", still_model, *english_pairs, *SMALL, "--strategy", "unlikelihood", "--last-n", 1, "--loss-on", "all",
        "--show-examples", 1, "--output-dir", tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "each but the first a target" in done.out


@pytest.mark.parametrize(("language", "model"), [("en", "mini"), ("ko", "ko-mini")])
def test_without_network_and_data_the_bundled_ones_are_used_and_said(
    language: str, model: str, generation: Run
) -> None:
    done = generation("--language", language, "--show-examples", 2, "--dry-run")
    assert done.code == 0, done.err
    assert len([line for line in done.out.splitlines() if line.startswith("example ")]) == 2
    assert f"model     {model} (bundled" in done.out and "could not be had, so this run uses the bundled" in done.out
    assert f"text-generation on {language}-sample" in done.out and "the bundled sample is small" in done.out


def test_the_table_of_strategies(generation: Run) -> None:
    done = generation("--list-strategies")
    assert done.code == 0
    names = [line.split()[0] for line in done.out.splitlines() if line and not line.startswith(" ")]
    assert {"full", "lora", "prefix", "unlikelihood"} <= set(names) and "head" not in names


# ---------------------------------------------------------------------------------------------------------------------
# Files and mistakes
# ---------------------------------------------------------------------------------------------------------------------


def test_a_table_without_splits_is_split_by_its_questions() -> None:
    rows = [Passage(str(i), "네", f"질문 {i // 2}{' ' * (i % 2)}?") for i in range(400)]
    found = split_by_hash(rows)
    assert sum(map(len, found.values())) == 400 and found == split_by_hash(rows)
    questions = {name: {"".join(str(row.question).split()) for row in part} for name, part in found.items()}
    assert not questions["train"] & (questions["dev"] | questions["test"]) and not questions["dev"] & questions["test"]
    assert 20 <= len(found["dev"]) <= 60 and 20 <= len(found["test"]) <= 60


def test_every_bad_line_is_named(generation: Run, still_model: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("Q,A\nhello,\n,yes\na,b\n", encoding="utf-8")
    (tmp_path / "dev.jsonl").write_text('{"text": "x"}\n{"Q": "only"}\n{\n', encoding="utf-8")
    flags = ["--train-file", tmp_path / "train.csv", "--dev-file", tmp_path / "dev.jsonl"]
    done = generation("--model", still_model, *flags, "--strategy", "head", "--output-dir", tmp_path / "runs")
    assert done.code == 2 and not (tmp_path / "runs").exists()
    for place in ("train.csv:2: ", "train.csv:3: ", "dev.jsonl:3: "):
        assert any(place in error for error in done.errors), (place, done.errors)
    (of_strategy,) = (error for error in done.errors if "--strategy head: unknown for text-generation" in error)
    assert of_strategy.endswith("(head is made for a new classification head, and text-generation adds none)")
    (tmp_path / "dev.jsonl").write_text('{"text": "x"}\n{"Q": "only"}\n', encoding="utf-8")
    assert any("dev.jsonl:2: neither a field 'text'" in error for error in generation(*flags).errors)


def test_documents_and_pairs_are_not_mixed(generation: Run, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("Q,A\na,b\n")
    (tmp_path / "dev.txt").write_text("a text\n")
    done = generation("--train-file", tmp_path / "train.csv", "--dev-file", tmp_path / "dev.txt")
    assert done.code == 2 and "hold documents and pairs of question and answer" in done.errors[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train-file", "a.csv"], "--dev-file: missing; your own data need"),
        (
            ["--train-file", "a", "--dev-file", "b", "--dataset", "chatbot"],
            "--dataset: your own files are named already",
        ),
        (["--dataset", "chatbot", "--data-dir", "nowhere"], "nowhere/ChatbotData.csv: missing; name the folder"),
        (["--data-dir", ROOT / "data/sample"], "data/sample: say which --dataset is there: chatbot"),
        (["--data-dir", __file__], f"--data-dir {__file__}: is a file; name the folder that it is in"),
        (["--dataset", "chatbot", "--language", "en"], "--language en: chatbot is in ko"),
        (["--from-run", "nowhere"], "--from-run nowhere: goes with --prompt; without, a new run is trained"),
        (["--beams", 2], "--beams 2: beam search takes the likeliest texts"),
        (["--samples", 3, "--temperature", 0], "--samples 3: at --temperature 0 all are the same; give one above 0"),
        (["--lm-epochs", 2], "--lm-epochs: belongs to classification"),
        (["--no-ul-line-breaks"], "--no-ul-line-breaks: there is no unlikelihood of earlier tokens"),
    ],
)
def test_mistakes_get_one_clear_line(
    flags: list[Any], message: str, generation: Run, still_model: Path, tmp_path: Path
) -> None:
    done = generation("--model", still_model, *flags, "--output-dir", tmp_path)
    assert done.code == 2 and len(done.errors) == 1 and message in done.errors[0], done.err


def test_what_says_nothing_where_nothing_is_trained_is_refused(generation: Run, tmp_path: Path) -> None:
    done = generation("--prompt", "a", "--from-run", tmp_path / "none", "--epochs", 5, "--strategy", "lora",
                      "--begin-words", 3, "--seed", 1, "--beams", 1, "--output-dir", tmp_path)  # fmt: skip
    assert done.code == 2
    assert [error.split(";")[0] for error in done.errors] == [
        f"error: --from-run {tmp_path / 'none'}: holds no run (no config.json)",
        "error: --strategy: nothing is trained with --prompt",
        "error: --epochs: nothing is trained with --prompt",
        "error: --begin-words: nothing is trained with --prompt",
    ]


def test_plain_texts_are_split_at_their_separator(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo\n---\n\n---\nthree\r\nfour\n", encoding="utf-8")
    found = read_passages({"train": [path]}, "---", "text")
    assert found.splits["train"] == [Passage("1", "one\n\ntwo"), Passage("7", "three\nfour")]
    assert found.notes == ("a.txt: an empty document between two separators, left out",)
    path.write_text("one\n--- \ntwo\n", encoding="utf-8")  # a space that nobody sees
    assert [passage.text for passage in read_passages({"train": [path]}, "---", "text").splits["train"]] == [
        "one",
        "two",
    ]
    whole = read_passages({"train": [path]}, "", "text")
    assert len(whole.splits["train"]) == 1 and whole.notes == ()
    path.write_text("---\none\n---\n\n---\n---\ntwo\n---\n", encoding="utf-8")  # at the ends of the file there is none
    assert read_passages({"dev": [path]}, "---", "text").notes == (
        "a.txt: 2 empty documents between two separators, left out",
    )


@pytest.mark.parametrize("ending", [".json", ".xml", ".html", ".gz", ".docx"])
def test_what_is_no_plain_text_is_not_learnt_as_such(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t{ending}"
    path.write_text('[{"text": "one"}]', encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_passages({"train": [path]}, "---", "text")
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: the ending '{ending}' says no format") and ".jsonl" in problem


def test_all_that_is_wrong_with_json_lines_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"Q": "only a question"}\n{\n5\n')
    with pytest.raises(UserError) as caught:
        read_passages({"train": [path]}, "", "text")
    assert sorted(caught.value.problems) == [
        f"{path}:1: neither a field 'text' nor both of 'Q' and 'A' with any text; write it, or delete the line",
        f"{path}:2: no JSON (Expecting property name enclosed in double quotes, column 2); mend the line, or delete it",
        f"{path}:3: no JSON object; write {{...}} with the fields text, Q, A",
    ]


@pytest.mark.parametrize("name", ["a.txt", "a.TEXT", "a.md", "a"])
def test_plain_text_has_one_of_its_endings_or_none(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("one", encoding="utf-8")
    assert read_passages({"train": [tmp_path / name]}, "---", "text").splits["train"] == [Passage("1", "one")]


def test_the_samples_are_in_the_formats_that_are_read() -> None:
    for language in ("en", "ko"):
        paths = [ROOT / f"data/sample/text-generation-{language}-{split}.csv" for split in ("train", "dev", "test")]
        found = read_passages({path.stem: [path] for path in paths}, "", "text").splits
        assert all(passage.question for passages in found.values() for passage in passages)
