"""Tasks by special tokens: task tokens, what is cut, the loss mask, the rows that train, writing and choosing."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny_korean import KOGPT2_VOCABULARY, TEXTS, make_kogpt2
from tiny_run import ROOT, Result, make_checkpoint

from config import TextTaskSettings, UserError
from models.checkpoint import read_config
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from models.tokenizer import load_tokenizer, readable_tokens
from modules.cross_entropy import IGNORED
from optimizer import AdamW
from strategies import STRATEGIES
from training.device import Device
from training.fine_tuning import freeze
from training.writing.job import batch_of
from training.writing.run import Writer, WritingRun, run_record, save_language_model
from training.writing.targets import score_targets, stream_target, write_targets
from training.writing.task_preparation import prepare_run
from training.writing.task_texts import Part, TaskEncoder, TaskText
from training.writing.task_tokens import (
    TaskVocabulary,
    count_trained,
    find_task_tokens,
    load_grown,
    optimizer_groups,
    train_rows,
)

TOKENS = ("<summarize>", "<answer>")
CONTEXT = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "still", embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0)


@pytest.fixture(scope="module")
def vocabulary(folder: Path) -> TaskVocabulary:
    return find_task_tokens(folder, read_config(folder), TOKENS)


@pytest.fixture(scope="module")
def encoder(vocabulary: TaskVocabulary) -> TaskEncoder:
    return TaskEncoder(vocabulary.tokenizer, vocabulary.ids, vocabulary.end, CONTEXT)


@pytest.fixture
def writer(folder: Path, vocabulary: TaskVocabulary, encoder: TaskEncoder, one_thread: None) -> Writer:
    device = Device(Accelerator(cpu=True), "fp32", "CPU")
    return Writer(load_grown(folder, vocabulary).eval(), vocabulary.tokenizer, device, lambda: None, encoder)


def summary_of(source: str, target: str, given: str = "") -> TaskText:
    parts = [Part(source, "source"), Part("<summarize>", "token")]
    if given:
        parts += [Part(given, "given"), Part("<answer>", "token")]
    return TaskText("7", tuple(parts), target)


# ---------------------------------------------------------------------------------------------------------------------
# Task tokens
# ---------------------------------------------------------------------------------------------------------------------


def test_tokens_are_added_and_their_rows_start_at_the_mean(folder: Path, vocabulary: TaskVocabulary) -> None:
    old, grown = GPT2Model.from_pretrained(folder), load_grown(folder, vocabulary)
    size = old.config.vocab_size
    assert vocabulary.ids == {"<summarize>": size, "<answer>": size + 1} and vocabulary.trained == (size, size + 1)
    assert torch.equal(grown.wte.weight[:size], old.wte.weight)
    assert torch.equal(grown.wte.weight[size:], old.wte.weight.mean(dim=0).expand(2, -1))
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(grown(ids)["last_token"], old.eval()(ids)["last_token"])


def test_tokens_start_at_the_mean_where_the_embedding_has_rows_for_them_already(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "padded", vocab_size=448)
    found, old = find_task_tokens(folder, read_config(folder), TOKENS), GPT2Model.from_pretrained(folder)
    size = len(load_tokenizer(folder, old.config))
    assert size < 440 and list(found.ids.values()) == [size, size + 1] and found.added == 0
    rows = load_grown(folder, found).wte.weight
    assert torch.equal(rows[size : size + 2], old.wte.weight[:size].mean(dim=0).expand(2, -1))
    assert torch.equal(rows[:size], old.wte.weight[:size]) and torch.equal(rows[size + 2 :], old.wte.weight[size + 2 :])


def test_spare_tokens_come_first_and_a_known_token_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = make_kogpt2(tmp_path / "kogpt2")
    found = find_task_tokens(folder, read_config(folder), ("<summarize>", "<usr>", "<answer>"))
    assert found.ids == {"<summarize>": 9, "<usr>": 2, "<answer>": 10} and found.trained == (9, 10)
    assert found.spare == {"<summarize>": "<unused0>", "<answer>": "<unused1>"} and found.added == 0
    assert found.config.vocab_size == len(found.tokenizer) == KOGPT2_VOCABULARY
    assert found.end == 1  # </s>
    assert found.note() == "<usr> known; <summarize> as <unused0>, <answer> as <unused1>"
    saved = tmp_path / "saved"
    save_language_model(load_grown(folder, found), found.tokenizer, saved, found.ids)
    again = find_task_tokens(saved, read_config(saved), ("<answer>", "<summarize>", "<sep>"))
    assert again.ids == {"<answer>": 10, "<summarize>": 9, "<sep>": 11} and again.trained == (11,)


def test_a_model_without_an_end_token_gets_one(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "endless", eos_token_id=None, bos_token_id=None)
    found = find_task_tokens(folder, read_config(folder), ("<answer>",))
    assert found.end == found.config.vocab_size - 1 and found.trained == (found.ids["<answer>"], found.end)
    save_language_model(load_grown(folder, found), found.tokenizer, tmp_path / "saved", found.ids)
    assert read_config(tmp_path / "saved").eos_token_id == found.end


# ---------------------------------------------------------------------------------------------------------------------
# Texts as tokens
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["start", "end"])
@pytest.mark.parametrize("n_words", [1, 20, 80])
def test_only_the_source_is_cut(n_words: int, keep: str, encoder: TaskEncoder) -> None:
    encoder = TaskEncoder(encoder.tokenizer, encoder.ids, encoder.end, CONTEXT, keep)
    source = " ".join(f"film {i}" for i in range(n_words))
    ids, given, target = encoder.token_ids([source, "is it good", "a superb story"])
    fit = encoder.fit([summary_of(source, "a superb story", "is it good")])
    ((row,), room) = fit.rows, CONTEXT - 1 - 2 - len(given) - len(target)
    kept = ids if len(ids) <= room else ids[:room] if keep == "start" else ids[-room:]
    task = [encoder.ids[name] for name in TOKENS]
    assert row.tokens == [0, *kept, task[0], *given, task[1], *target, 0]
    assert row.n_prompt == len(row.tokens) - len(target) - 1 and len(row.tokens) - 1 <= CONTEXT
    assert fit.cut == (len(ids) > room)


@pytest.mark.parametrize("keep", ["start", "end"])
def test_of_a_text_that_is_gone_on_with_the_end_stays(keep: str, encoder: TaskEncoder) -> None:
    encoder = TaskEncoder(encoder.tokenizer, encoder.ids, encoder.end, CONTEXT, keep)
    text = TaskText("1", (Part(" ".join(f"film {i}" for i in range(40)), "begun"),), "")
    (ids,) = encoder.token_ids([text.parts[0].text])
    found = encoder.fit_prompts([text], room=8)
    assert found.tokens == [[0, *ids[-(CONTEXT - 1 - 8) :]]]
    assert (found.cut, found.lost) == (1, len(ids) - (CONTEXT - 1 - 8))


def test_the_longer_of_two_sources_is_cut_first(encoder: TaskEncoder) -> None:
    long, short = "film " * 80, "a dull scene"
    text = TaskText("1", (Part(long, "source"), Part("<answer>", "token"), Part(short, "source")), "good")
    (prompt,) = encoder.prompts([text], room=1)
    (ids,) = encoder.token_ids([short])
    assert (
        len(prompt) == CONTEXT - 1 and prompt[-len(ids) :] == ids and prompt[-len(ids) - 1] == encoder.ids["<answer>"]
    )


def test_what_does_not_fit_is_named_or_left_out_and_counted(encoder: TaskEncoder) -> None:
    texts = [summary_of("a film", "good"), summary_of("a film", "good " * 60)]
    with pytest.raises(UserError, match="text 7: what can't be cut takes .* more than the model's context of 48"):
        encoder.fit(texts)
    fit = encoder.fit(texts, skip_long=True)
    assert fit.texts == texts[:1] and fit.left_out == 1
    with pytest.raises(UserError, match="text 7: its target is empty"):
        encoder.fit([summary_of("a film", "")])
    with pytest.raises(UserError, match="text 7: what can't be cut"):
        encoder.prompts([summary_of("a film", "", "is it good " * 40)], room=8)


def test_a_prompt_with_little_room_keeps_a_token_of_its_source(encoder: TaskEncoder) -> None:
    (given,) = encoder.token_ids(["the film " * 17])
    (prompt,) = encoder.prompts([summary_of("a superb film", "", "the film " * 17)], room=20)
    assert len(prompt) == 1 + 1 + 2 + len(given)


def test_a_prompt_leaves_the_room_that_an_answer_needs(encoder: TaskEncoder) -> None:
    (given,) = encoder.token_ids(["the film " * 17])
    text = summary_of("a superb film", "", "the film " * 17)
    needed = CONTEXT - len(given) - 4  # as much as fits behind a single token of the source
    assert len(encoder.prompts([text], needed + 1, needed)[0]) == CONTEXT - needed
    with pytest.raises(UserError, match=f"text 7: what can't be cut takes {CONTEXT + 1} tokens"):
        encoder.prompts([text], needed + 2, needed + 1)


def test_a_task_token_spelled_out_in_a_text_is_text(encoder: TaskEncoder) -> None:
    (prompt,) = encoder.prompts([summary_of("a <summarize> film <|endoftext|>", "")], room=1)
    assert prompt.count(encoder.ids["<summarize>"]) == 1 and prompt.count(0) == 1


def test_a_long_document_is_read_in_pieces_that_lose_nothing(encoder: TaskEncoder) -> None:
    text = "\n".join(f"the film {i} is <|endoftext|> superb" for i in range(40)) + " " + "x" * 200
    pieces = encoder.pieces(text, CONTEXT - 1)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(ids) < CONTEXT for ids in encoder.token_ids(pieces)) and len(pieces) > 3
    fit = encoder.fit([TaskText("1", (), pieces[0], ends=False), TaskText("2", (), pieces[-1])])
    assert fit.rows[0].tokens[-1] != 0 and fit.rows[1].tokens[-1] == 0


def test_the_loss_falls_on_the_target_and_the_end_token_by_position(encoder: TaskEncoder, writer: Writer) -> None:
    texts = [summary_of("good film", "good"), summary_of("a long dull story", "dull film")]  # the target occurs before
    rows = encoder.fit(texts).rows
    input_ids, targets, mask = batch_of(rows, torch.device("cpu"), continuation_only=True, with_end=True)
    expected = encoder.token_ids([text.target for text in texts])
    for line, row, target in zip(targets, rows, expected, strict=True):
        places = [place for place, token in enumerate(line.tolist()) if token != IGNORED]
        assert places == list(range(row.n_prompt - 1, len(row.tokens) - 1))
        assert line[places].tolist() == [*target, 0]
    model = GPT2LanguageModel(writer.gpt2)
    losses, _ = model.token_losses(input_ids, batch_of(rows, torch.device("cpu"))[1], mask)
    with torch.no_grad():
        assert torch.allclose(model(input_ids, targets, mask), losses[targets != IGNORED].sum())


# ---------------------------------------------------------------------------------------------------------------------
# Rows that train
# ---------------------------------------------------------------------------------------------------------------------

KNOBS: dict[str, dict[str, Any]] = {
    "last-n": {"last_n": 1},
    "bitfit": {},
    "lora": {"lora_rank": 2, "lora_alpha": 4.0, "lora_targets": "c_attn"},
    "prefix": {"prefix_length": 3, "prefix_hidden": 8},
}


@pytest.mark.parametrize("name", KNOBS)
def test_new_rows_train_where_the_embedding_is_frozen_and_no_other_row_changes(
    name: str, folder: Path, vocabulary: TaskVocabulary, encoder: TaskEncoder, tmp_path: Path, one_thread: None
) -> None:
    settings = TextTaskSettings(lr=1e-2, weight_decay=0.1, **KNOBS[name])
    gpt2 = load_grown(folder, vocabulary)
    plain = load_grown(folder, vocabulary)
    freeze(gpt2, STRATEGIES[name], settings)
    freeze(plain, STRATEGIES[name], settings)
    before = gpt2.wte.weight.detach().clone()
    train_rows(gpt2, vocabulary.trained)
    assert count_trained(gpt2)[0] == count_trained(plain)[0] + 2 * gpt2.config.n_embd
    optimizer = AdamW(optimizer_groups(gpt2, gpt2, settings), lr=1e-2)
    rows = encoder.fit([summary_of("a good film", "good", "well")]).rows
    for _ in range(3):
        GPT2LanguageModel(gpt2)(*batch_of(rows, torch.device("cpu"), continuation_only=True, with_end=True)).backward()
        optimizer.step()
        optimizer.zero_grad()
    after, changed = gpt2.wte.weight.detach(), list(vocabulary.trained)
    others = [row for row in range(len(before)) if row not in changed]
    assert torch.equal(after[others], before[others])
    assert (after[changed] != before[changed]).any(dim=1).all()
    save_language_model(gpt2, vocabulary.tokenizer, tmp_path, vocabulary.ids)
    assert torch.equal(GPT2Model.from_pretrained(tmp_path).wte.weight, after)


def test_where_the_embedding_trains_nothing_is_held_back(folder: Path, vocabulary: TaskVocabulary) -> None:
    gpt2 = load_grown(folder, vocabulary)
    train_rows(gpt2, vocabulary.trained)
    assert gpt2.trained_rows == () and count_trained(gpt2)[0] == count_trained(gpt2)[1]


# ---------------------------------------------------------------------------------------------------------------------
# Writing and choosing
# ---------------------------------------------------------------------------------------------------------------------


def test_candidates_score_as_if_each_were_read_by_itself(writer: Writer, encoder: TaskEncoder) -> None:
    texts = [summary_of("a good film", ""), summary_of("dull", ""), summary_of("the music of the ending", "")]
    candidates = [["good", "plain usual story", "bad"]] * 3
    found, means = score_targets(writer, texts, candidates), score_targets(writer, texts, candidates, mean=True)
    for i, text in enumerate(texts):
        for j, candidate in enumerate(candidates[i]):
            (row,) = encoder.fit([TaskText("1", text.parts, candidate)]).rows
            batch = batch_of([row], torch.device("cpu"), continuation_only=True)
            loss, length = GPT2LanguageModel(writer.gpt2)(*batch).item(), len(row.tokens) - row.n_prompt - 1
            assert np.allclose([found[i, j], means[i, j]], [-loss, -loss / length], atol=1e-4)


def test_what_is_written_is_the_likeliest_next_token_until_the_end(writer: Writer, encoder: TaskEncoder) -> None:
    texts = [summary_of("a good film", ""), summary_of("dull music " * 30, "")]
    settings = TextTaskSettings(max_new_tokens=6)
    written = write_targets(writer, texts, settings, with_scores=True)
    for new, prompt in zip(written, encoder.prompts(texts, 6), strict=True):
        tokens, ids, log_p = list(prompt), [], []
        while len(ids) < 6:
            logits = writer.gpt2.hidden_state_to_token(writer.gpt2(torch.tensor([tokens]))["last_token"])[0]
            ids.append(int(logits.argmax()))
            log_p.append(logits.log_softmax(-1)[ids[-1]].item())
            if ids[-1] == 0:
                break
            tokens.append(ids[-1])
        own = [token for token in ids if token != 0]
        assert new.text == writer.tokenizer.decode(own, skip_special_tokens=True).strip()
        assert (new.tokens, new.stopped) == (len(own), 0 in ids)
        assert new.mean_log_probability == pytest.approx(sum(log_p) / len(log_p), abs=1e-4)


def test_a_saved_model_with_added_tokens_goes_on_in_transformers_as_here(
    writer: Writer, vocabulary: TaskVocabulary, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, GPT2LMHeadModel

    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in writer.gpt2.parameters():  # far from the tiny model's uniform predictions
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    save_language_model(writer.gpt2, vocabulary.tokenizer, tmp_path, vocabulary.ids)
    theirs, tokenizer = GPT2LMHeadModel.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    for source in ("a good film", "dull", "the music of the ending"):
        ids = tokenizer(f"<|endoftext|>{source}<summarize>", return_tensors="pt").input_ids
        made = theirs.generate(ids, max_new_tokens=10, do_sample=False)[0, ids.shape[1] :]
        (written,) = write_targets(writer, [summary_of(source, "")], TextTaskSettings(max_new_tokens=10))
        assert written.text == tokenizer.decode(made, skip_special_tokens=True).strip() != ""


@pytest.mark.parametrize("decoding", [{}, {"temperature": 0.9, "top_k": 20}, {"beams": 2}])
def test_a_streamed_text_is_the_written_one_piece_by_piece(decoding: dict[str, Any], writer: Writer) -> None:
    settings, text = TextTaskSettings(max_new_tokens=12, **decoding), summary_of("영화 film", "")
    pieces: list[str] = []
    stream_target(writer, text, settings, pieces.append)
    (written,) = write_targets(writer, [text], settings)
    assert "".join(pieces).strip() == written.text
    assert (len(pieces) > 2) == ("beams" not in decoding)


# ---------------------------------------------------------------------------------------------------------------------
# What a run says of its data
# ---------------------------------------------------------------------------------------------------------------------


def write_summaries(folder: Path, rows: list[tuple[str, str]]) -> list[Any]:
    """The flags for own files."""
    lines = [json.dumps({"document": document, "summary": summary}) + "\n" for document, summary in rows]
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        (folder / f"{split}.jsonl").write_text("".join(lines))
    return ["--train-file", folder / "train.jsonl", "--dev-file", folder / "dev.jsonl"]


def test_what_is_cut_when_the_model_writes_is_said_before_training(
    script: Callable[[str], Callable[..., Result]], folder: Path, tmp_path: Path
) -> None:
    """The text fits with its summary, but not with the tokens that are kept free for writing."""
    own = write_summaries(tmp_path / "own", [("film " * 35, "film"), ("a film", "film")])
    done = script("summarization")(*own, "--model", folder, "--max-new-tokens", 20, "--dry-run")
    assert done.code == 0, done.err
    assert "context of 48 tokens: sources are cut when the model writes: dev 1 of 2" in done.out
    assert "sources were cut" not in done.out


@pytest.mark.parametrize(("flags", "said"), [([], True), (["--language", "en"], False)])
def test_korean_files_without_their_language_are_noticed(
    flags: list[str], said: bool, script: Callable[[str], Callable[..., Result]], folder: Path, tmp_path: Path
) -> None:
    own = write_summaries(tmp_path / "own", [("비가 내렸다.", "비 온다 2 mm")])
    done = script("summarization")(*own, *flags, "--model", folder, "--dry-run")
    assert done.code == 0, done.err
    assert ("look Korean" in done.out) == said


def test_the_only_published_set_in_a_folder_is_read_as_when_it_is_named(folder: Path, tmp_path: Path) -> None:
    from summarization import SummarizationSettings, make_task
    from training.writing.task_preparation import prepare_run

    write_summaries(tmp_path / "bbc", [("A film is good. It is bad.", "A film is good.It is bad.")])
    settings = SummarizationSettings(data_dir=str(tmp_path / "bbc"), model=str(folder))
    run = prepare_run(make_task(), settings, {"data_dir", "model"})
    assert isinstance(run.settings, SummarizationSettings) and run.settings.dataset == "bbc"
    assert run.texts["train"][0].rest == "A film is good. It is bad."


def test_bbcs_tree_of_articles_is_a_training_file_that_is_split(folder: Path, tmp_path: Path) -> None:
    from summarization import SummarizationSettings, make_task
    from training.writing.task_preparation import prepare_run

    for half, text in (("News Articles", "Film {}. It is bad."), ("Summaries", "Film {}.It is bad.")):
        (tmp_path / "BBC News Summary" / half / "tech").mkdir(parents=True)
        for i in range(40):
            (tmp_path / "BBC News Summary" / half / "tech" / f"{i:03}.txt").write_text(text.format(i))
    settings = SummarizationSettings(dataset="bbc", data_dir=str(tmp_path), model=str(folder))
    run = prepare_run(make_task(), settings, {"dataset", "data_dir", "model"})
    sizes = [len(run.texts[split]) for split in ("train", "choose", "test")]
    assert sum(sizes) == 40 and min(sizes) > 0 and list(run.files) == ["train"]
    assert any(note.startswith("0 of 40 articles repeat another") for note in run.data_notes)
    assert prepare_run(make_task(), settings, {"dataset", "data_dir", "model"}).identity == run.identity


def prepared(script: str, model: Path, **settings: Any) -> WritingRun:
    """What a script's flags ask for."""
    task = importlib.import_module(script).make_task()
    settings |= {"model": str(model)}
    return prepare_run(task, task.settings_class(**settings), set(settings))


def write_pairs(folder: Path, names: Sequence[str]) -> None:
    """KorNLI's layout, another premise on each of twelve lines."""
    folder.mkdir()
    for name in names:
        lines = [f"{name} film {i}\tit is good\t{('entailment', 'neutral')[i % 2]}\n" for i in range(12)]
        (folder / name).write_text("sentence1\tsentence2\tgold_label\n" + "".join(lines))


def test_the_rows_of_a_split_are_recorded_of_each_of_its_files(folder: Path, tmp_path: Path) -> None:
    for name, count in (("rte1_dev", 2), ("rte2_dev", 3), ("rte3_dev", 1), ("rte2_test", 4), ("rte3_test", 2)):
        pairs = [
            f'<pair id="{i}" entailment="{("YES", "NO")[i % 2]}"><t>film {name} {i}</t><h>good</h></pair>'
            for i in range(count)
        ]
        (tmp_path / f"{name}.xml").write_text(f"<a>{''.join(pairs)}</a>")
    run = prepared("natural_language_inference", folder, dataset="rte", data_dir=str(tmp_path))
    assert {name: file["rows"] for name, file in run.files.items()} == {
        "train-1": 6, "train-2": 6, "train-3": 6, "dev": 4, "test": 2,
    }  # fmt: skip


def test_a_run_that_holds_training_texts_out_names_no_other_files(folder: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "kornli", ["xnli.test.ko.tsv", "xnli.dev.ko.tsv"])
    data = {"dataset": "kornli", "data_dir": str(tmp_path / "kornli")}
    plain = prepared("natural_language_inference", folder, **data)
    held = prepared("natural_language_inference", folder, **data, hold_out=3)
    assert list(plain.files) == ["train", "dev"] and any(
        "is scored on its dev file" in note for note in plain.data_notes
    )
    assert list(held.files) == ["train"] and len(held.texts["choose"]) == 4 and len(held.texts["train"]) == 8
    assert held.data_notes == ("--hold-out 3: 4 of the training texts are kept back to measure on",)
    (tmp_path / "kornli/xnli.dev.ko.tsv").unlink()  # nobody needs it
    assert prepared("natural_language_inference", folder, **data, hold_out=3).files == held.files

    sample = prepared("text_generation", ROOT / "data/checkpoints/mini", hold_out=5)
    assert list(sample.files) == ["train"] and len(sample.texts["train"]) + len(sample.texts["choose"]) == 60
    assert any(note.startswith("--hold-out 5: 12 of") for note in sample.data_notes)


def test_a_set_in_one_file_is_split_before_training_texts_are_held_out(folder: Path, tmp_path: Path) -> None:
    rows = [f"question {i},answer {i},0\n" for i in range(100)]
    (tmp_path / "ChatbotData.csv").write_text("Q,A,label\n" + "".join(rows))
    data = {"dataset": "chatbot", "data_dir": str(tmp_path)}
    plain, held = (prepared("text_generation", folder, **data, **more) for more in ({}, {"hold_out": 4}))
    ids = {split: [text.id for text in texts] for split, texts in held.texts.items()}
    assert sorted([*ids["train"], *ids["choose"]]) == sorted(text.id for text in plain.texts["train"])
    assert held.texts["test"] == [] and list(held.files) == list(plain.files) == ["train"]
    assert any("one tenth is dev and one is test" in note for note in held.data_notes)

    write_summaries(tmp_path / "bbc", [(f"Film {i}. It is bad.", f"Film {i}.") for i in range(20)])
    held = prepared("summarization", folder, dataset="bbc", data_dir=str(tmp_path / "bbc"), hold_out=5)
    assert (len(held.texts["train"]), len(held.texts["choose"])) == (16, 4) and list(held.files) == ["train"]


def test_what_stands_twice_in_the_data_is_counted_said_and_recorded(folder: Path, tmp_path: Path) -> None:
    paths = {}
    for split, films in (("train", "aabcdd"), ("dev", "xAy"), ("test", "bz")):
        rows = [{"document": f"The film\n{film} is good.", "summary": film, "id": f"{split}{i}"}
                for i, film in enumerate(films)]  # fmt: skip
        paths[f"{split}_file"] = str(tmp_path / f"{split}.jsonl")
        Path(paths[f"{split}_file"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = prepared("summarization", folder, **paths)
    note = "documents that repeat another: train 2 of 6; documents that also stand in train: dev 1 of 3, test 1 of 2; "
    assert [note + "config.json lists some"] == [said for said in run.data_notes if "documents" in said]
    written = run_record(run, Device(Accelerator(cpu=True), "fp32", "CPU"))["data"]["repeats"]
    assert written["repeated"]["train"]["rows"] == 2 and written["repeated"]["dev"]["rows"] == 0
    assert written["in_train"]["dev"]["examples"] == [
        {"text": "the film a is good.", "ids": ["dev1"], "train_ids": ["train0", "train1"]}
    ]


@pytest.mark.parametrize(
    ("name", "ending", "what"),
    [("natural_language_inference", "tsv", "pairs"), ("question_answering", "json", "contexts"),
     ("text_generation", "csv", "texts"), ("summarization", "jsonl", "documents")],
)  # fmt: skip
def test_a_file_to_train_on_and_to_choose_by_is_noticed(name: str, ending: str, what: str, tmp_path: Path) -> None:
    task = importlib.import_module(name).make_task().name
    path = str(ROOT / f"data/sample/{task}-en-dev.{ending}")
    run = prepared(name, ROOT / "data/checkpoints/mini", train_file=path, dev_file=path)
    assert [note for note in run.data_notes if note.startswith(f"{what} that also stand in train: dev ")]
    assert not prepared(name, ROOT / "data/checkpoints/mini").repeats["in_train"]["dev"]["rows"]


def test_characters_that_a_vocabulary_lacks_are_counted(
    script: Callable[[str], Callable[..., Result]], tmp_path: Path
) -> None:
    folder = make_kogpt2(tmp_path / "kogpt2")
    own = write_summaries(tmp_path / "own", [(TEXTS[0], TEXTS[1]), (f"{TEXTS[0]} ✓", TEXTS[1]), (TEXTS[0], "✓")])
    done = script("summarization")(*own, "--language", "ko", "--model", folder, "--dry-run")
    assert done.code == 0, done.err
    assert "texts to read hold characters that this vocabulary lacks: train 1 of 3, dev 1 of 3" in done.out
    assert (
        "targets hold characters that this vocabulary lacks, and can't be written as they are: train 1 of 3" in done.out
    )


def test_letters_are_shown_where_a_vocabulary_spells_bytes() -> None:
    bundled = ROOT / "data" / "checkpoints"
    for name, text in (("mini", "the film’s story\n"), ("ko-mini", "비가 내렸다.")):
        tokenizer = load_tokenizer(bundled / name, read_config(bundled / name))
        ids = tokenizer(text)["input_ids"]
        assert "".join(readable_tokens(tokenizer, ids)).replace("Ġ", " ").replace("Ċ", "\n") in (text, f" {text}"), name


def test_line_breaks_that_are_no_token_can_not_be_left_out(
    script: Callable[[str], Callable[..., Result]], tmp_path: Path
) -> None:
    folder = make_kogpt2(tmp_path / "kogpt2")
    own = write_summaries(tmp_path / "own", [(TEXTS[0], TEXTS[1])])
    flags = ["--language", "ko", "--model", folder, "--strategy", "unlikelihood", "--no-ul-line-breaks", "--dry-run"]
    done = script("summarization")(*own, *flags)
    assert done.code == 2 and done.errors == [
        "error: --no-ul-line-breaks: in this vocabulary a line break is not a token of its own; leave it out"
    ]


def test_kogpt2s_text_survives_its_tokens(tmp_path: Path) -> None:
    folder = make_kogpt2(tmp_path / "kogpt2")
    found = find_task_tokens(folder, read_config(folder), ("<answer>",))
    encoder = TaskEncoder(found.tokenizer, found.ids, found.end, 64)
    (row,) = encoder.fit([TaskText("1", (Part(TEXTS[0], "source"), Part("<answer>", "token")), TEXTS[1])]).rows
    assert (row.tokens[0], row.tokens[row.n_prompt - 1], row.tokens[-1]) == (1, 9, 1)
    assert found.tokenizer.decode(row.tokens[row.n_prompt : -1]).strip() == TEXTS[1]
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == found.config.vocab_size
