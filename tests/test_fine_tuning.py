"""What a strategy makes of a model: which parameters move when, at which rates, and what the head computes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from config import ClassificationSettings, GPT2Config, WritingSettings
from models.card import fine_tuning_defaults, notes_of_guess
from models.classifier import Classifier, GPT2Classifier, GPT2Cloze, Head, load_classifier
from models.gpt2 import GPT2Model
from optimizer import AdamW, by_epoch, cosine, geometric_rates, layers_of, parameter_groups, zone_rates
from strategies import STRATEGIES, named_strategies_of, strategies_of
from training import fine_tuning
from training.fine_tuning import (
    combination_problems,
    context_of,
    make_classifier,
    make_epoch_hook,
    make_schedule,
    rate_factors,
    relative_cost,
    trainable_share,
    writing_problems,
)
from training.setup import group_table, identity_of, with_defaults

CONFIG = GPT2Config(
    vocab_size=50,
    n_positions=24,
    n_embd=16,
    n_layer=4,
    n_head=2,
    embd_pdrop=0,
    attn_pdrop=0,
    resid_pdrop=0,
    eos_token_id=0,
)
IDS = torch.randint(1, 50, (6, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
MASK[1, 5:] = MASK[3, 2:] = 0
LABELS = torch.tensor([0, 2, 1, 1, 0, 2])
BLOCKS = [f"block {i}" for i in range(4)]
ALL = ["embeddings", *BLOCKS, "final norm", "head"]


def settings_of(name: str, **changes: Any) -> ClassificationSettings:
    own = {"strategy": name, "epochs": 6, "dropout": 0.0}
    return ClassificationSettings(**(STRATEGIES[name].defaults("sst") | own | changes))


def make(name: str, **changes: Any) -> Classifier:
    torch.manual_seed(0)
    gpt2 = GPT2Model(CONFIG)
    return make_classifier(gpt2, STRATEGIES[name], settings_of(name, **changes), 3, answer_ids=[7, 8, 9]).train()


def groups_that_move(classifier: Classifier) -> list[str]:
    """The layer groups of which an update changes parameters: all those of a group that train at all, or none."""
    groups = classifier.layer_groups()
    before = {name: [p.detach().clone() for p in group] for name, group in groups.items()}
    optimizer = AdamW(parameter_groups(groups, classifier, 1e-2), lr=1e-2)
    for _ in range(2):  # LoRA's A has no gradient as long as B is zero
        optimizer.zero_grad()
        classifier(IDS, MASK, labels=LABELS).backward()
        optimizer.step()
    classifier.zero_grad()
    moved = []
    for name, group in groups.items():
        changed = [not torch.equal(old, new) for old, new in zip(before[name], group, strict=True)]
        assert changed == [parameter.requires_grad for parameter in group], name
        moved += [name] if any(changed) else []
    return moved


# ---------------------------------------------------------------------------------------------------------------------
# What moves
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "moving"),
    [
        ("full", ALL),
        ("llrd", ALL),
        ("llrd-zones", ALL),
        ("head", ["head"]),
        ("last-n", [*BLOCKS, "final norm", "head"]),
        ("ulmfit-static", ["block 2", "block 3", "head"]),
        ("bitfit", [*BLOCKS, "final norm", "head"]),
        ("lora", [*BLOCKS, "head"]),
        ("prefix", ["prefix", "head"]),
        ("cloze", ALL[:-1]),
    ],
)
def test_the_groups_that_move(name: str, moving: list[str]) -> None:
    assert groups_that_move(make(name)) == moving


def test_published_groups_freeze_embeddings_and_final_norm() -> None:
    assert groups_that_move(make("llrd-zones", published_groups=True)) == [*BLOCKS, "head"]


def test_bitfit_moves_biases_alone() -> None:
    names = {name for name, p in make("bitfit").gpt2.named_parameters() if p.requires_grad}
    assert names == {name for name, _ in make("full").gpt2.named_parameters() if name.endswith(".bias")}
    assert "h.0.ln_1.bias" in names and "h.3.mlp.c_proj.bias" in names and "ln_f.bias" in names


def test_last_n_counts_from_the_top() -> None:
    assert groups_that_move(make("last-n", last_n=1)) == ["block 3", "final norm", "head"]


def test_gradual_unfreezing_takes_one_more_group_each_epoch_and_ends_with_all() -> None:
    """Howard & Ruder 2018, section 3.3; embeddings with the lowest group, the final norm with the highest."""
    classifier = make("ulmfit")
    begin_epoch = make_epoch_hook(classifier, settings_of("ulmfit"))
    assert begin_epoch is not None
    moving = []
    for epoch in range(1, 7):
        begin_epoch(epoch)
        moving.append(groups_that_move(classifier))
    top = [["head"], ["block 3", "final norm", "head"], ["block 2", "block 3", "final norm", "head"]]
    assert moving == [*top, ["block 1", "block 2", "block 3", "final norm", "head"], ALL, ALL]
    begin_epoch(2)  # as a run does that goes on in its second epoch
    assert groups_that_move(classifier) == moving[1]


def test_gradual_unfreezing_can_be_left_out_and_nothing_else_with_it() -> None:
    settings = settings_of("ulmfit", unfreeze_groups=0, epochs=1)
    assert make_epoch_hook(make("ulmfit"), settings) is None
    assert combination_problems(settings, {"unfreeze_groups", "epochs"}, STRATEGIES["ulmfit"], CONFIG) == []
    assert rates("ulmfit", 1.0, unfreeze_groups=0) == rates("ulmfit", 1.0)
    by_block = rates("full", 1.0, layer_decay=0.5)
    assert rates("full", 1.0, layer_decay=0.5, unfreeze_groups=0) == by_block and by_block["embeddings"] == 0.5**5


def test_a_frozen_gpt2_is_computed_without_dropout() -> None:
    """Also where the pooling trains, so that its features can't be kept."""
    torch.manual_seed(0)
    gpt2 = GPT2Model(dataclasses.replace(CONFIG, embd_pdrop=0.5, attn_pdrop=0.5, resid_pdrop=0.5))

    def is_random(name: str, **changes: Any) -> bool:
        classifier = make_classifier(gpt2, STRATEGIES[name], settings_of(name, pooling="attention", **changes), 3)
        losses = []
        for _ in range(2):
            classifier.train()
            losses.append(classifier(IDS, MASK, labels=LABELS))
        return not torch.equal(*losses)

    assert is_random("full") and is_random("last-n", last_n=1)
    assert not is_random("head") and is_random("head", dropout=0.5)  # the head's own is on


def test_groups_of_several_blocks() -> None:
    names = ["embeddings", *(f"block {i}" for i in range(12)), "final norm", "head"]
    layers = layers_of(names, 4)
    assert [len(layer) for layer in layers] == [4, 3, 3, 4, 1]
    assert layers[0] == ["embeddings", "block 0", "block 1", "block 2"] and layers[3][-1] == "final norm"
    assert len(layers_of(names, 40)) == 13  # never more groups than blocks
    assert layers_of(names) == [
        ["embeddings"],
        *([f"block {i}"] for i in range(11)),
        ["block 11", "final norm"],
        ["head"],
    ]


def test_weights_that_a_strategy_freezes_get_no_gradient_at_all() -> None:
    classifier = make("lora")
    classifier(IDS, MASK, labels=LABELS).backward()
    assert {name for name, p in classifier.named_parameters() if p.grad is None} == {
        name for name, p in classifier.named_parameters() if not p.requires_grad
    }
    assert classifier.gpt2.h[0].attn.c_attn.lora_B.weight.grad.abs().sum() > 0


# ---------------------------------------------------------------------------------------------------------------------
# Rates
# ---------------------------------------------------------------------------------------------------------------------


def rates(name: str, lr: float, **changes: Any) -> dict[str, float]:
    classifier = make(name, **changes)
    groups = classifier.layer_groups()
    made = parameter_groups(groups, classifier, lr, 0.0, rate_factors(list(groups), settings_of(name, **changes)))
    return {group["name"].split(" (")[0]: group["lr"] for group in made}


def test_ulmfit_divides_the_rate_by_2_6_from_group_to_group() -> None:
    found = rates("ulmfit", 1.0)
    assert found["head"] == 1.0
    for depth, name in enumerate(["block 3", "block 2", "block 1", "block 0"], start=1):
        assert found[name] == pytest.approx(2.6**-depth)
    assert found["final norm"] == found["block 3"] and found["embeddings"] == found["block 0"]


def test_layer_decay_is_geometric_and_reaches_the_embeddings() -> None:
    found = rates("llrd", 1.0, layer_decay=0.5)
    assert [found[name] for name in reversed(ALL) if name != "final norm"] == [0.5**i for i in range(6)]


def test_zones() -> None:
    lower, upper = dict.fromkeys(ALL[:3], 0.5), dict.fromkeys(ALL[3:6], 1.0)
    assert rates("llrd-zones", 1.0) == lower | upper | {"head": 2.0}
    assert rates("ulmfit-static", 1.0) == {"block 2": 0.5, "block 3": 0.5, "head": 5.0}
    assert zone_rates(["block 0", "block 1", "block 2", "head"], 1, 2, 3) == {
        "block 0": 1, "block 1": 2, "block 2": 2, "head": 3
    }  # fmt: skip


def test_rates_without_a_head_begin_at_the_top_blocks() -> None:
    """So it is in the stage of language modelling."""
    found = geometric_rates(layers_of(["embeddings", *BLOCKS, "final norm"], 4), 0.5)
    assert found["block 3"] == found["final norm"] == 1.0 and found["block 0"] == found["embeddings"] == 0.125


def test_cosine_per_epoch_is_the_published_one() -> None:
    """0.5 (1 + cos(pi e / E)) throughout epoch e, counted from 0: torch's CosineAnnealingLR with T_max=E, per epoch."""
    schedule = make_schedule(settings_of("full", schedule="cosine-per-epoch", epochs=4))
    total, per_epoch = 28, 7
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([parameter], lr=1.0), T_max=4)
    for epoch in range(4):
        expected = theirs.get_last_lr()[0]
        assert {round(schedule(step, total), 9) for step in range(epoch * per_epoch, (epoch + 1) * per_epoch)} == {
            round(expected, 9)
        }
        theirs.optimizer.step()
        theirs.step()
    assert by_epoch(cosine, 27, 28, 4) == cosine(3, 4)


def test_slanted_rates_take_their_two_numbers() -> None:
    schedule = make_schedule(settings_of("ulmfit", cut_frac=0.5, rate_ratio=4.0))
    assert [schedule(step, 8) for step in (0, 2, 4, 6)] == [0.25, 0.625, 1.0, 0.625]
    usual = make_schedule(settings_of("ulmfit"))
    assert usual(0, 100) == 1 / 32 and usual(10, 100) == 1.0


# ---------------------------------------------------------------------------------------------------------------------
# The head
# ---------------------------------------------------------------------------------------------------------------------


def head_of(head: Head, **more: Any) -> GPT2Classifier:
    torch.manual_seed(0)
    return GPT2Classifier(GPT2Model(CONFIG), 3, head, **more)


FEATURES = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))


def test_multi_sample_dropout_equals_plain_in_evaluation() -> None:
    plain, many = head_of(Head(dropout=0.5)).eval(), head_of(Head(dropout=0.5, dropout_samples=5)).eval()
    assert torch.equal(plain(IDS, MASK), many(IDS, MASK)) and torch.equal(many(IDS, MASK), many(IDS, MASK))


@pytest.mark.parametrize("average", ["logits", "losses"])
def test_multi_sample_dropout_averages_logits_or_losses(average: str) -> None:
    classifier = head_of(Head(dropout=0.5, dropout_samples=4, dropout_average=average)).train()
    classifier.score.weight.data.mul_(50)
    torch.manual_seed(3)
    loss = classifier(features=FEATURES, labels=LABELS)
    torch.manual_seed(3)
    logits = classifier._logits(FEATURES)
    assert logits.shape == (4, 6, 3) and not torch.equal(logits[0], logits[1])
    mean_loss = torch.stack([F.cross_entropy(sample, LABELS, reduction="sum") for sample in logits]).mean()
    loss_of_mean = F.cross_entropy(logits.mean(0), LABELS, reduction="sum")
    assert mean_loss > loss_of_mean + 0.1  # Jensen: so the two can be told apart
    torch.testing.assert_close(loss, loss_of_mean if average == "logits" else mean_loss)


def test_label_smoothing_spreads_a_share_of_the_target() -> None:
    classifier = head_of(Head(label_smoothing=0.1)).train()
    log_p = classifier._logits(FEATURES)[0].log_softmax(-1)
    target = F.one_hot(LABELS, 3) * 0.9 + 0.1 / 3
    torch.testing.assert_close(classifier(features=FEATURES, labels=LABELS), -(target * log_p).sum())


def test_class_weights_weigh_the_examples_of_a_class() -> None:
    classifier = head_of(Head(), class_weights=[1.0, 2.0, 0.5])
    losses = F.cross_entropy(classifier._logits(FEATURES)[0], LABELS, reduction="none")
    expected = (losses * torch.tensor([1.0, 0.5, 2.0, 2.0, 1.0, 0.5])).sum()
    torch.testing.assert_close(classifier(features=FEATURES, labels=LABELS), expected)


def test_dropout_grows_from_epoch_to_epoch() -> None:
    settings = settings_of("full", dropout=0.1, dropout_growth=0.2, epochs=4)
    classifier = make("full", dropout=0.1)
    begin_epoch = make_epoch_hook(classifier, settings)
    assert begin_epoch is not None and isinstance(classifier, GPT2Classifier)
    found = []
    for epoch in range(1, 5):
        begin_epoch(epoch)
        found.append(classifier.dropout.p)
    assert found == pytest.approx([0.1, 0.15, 0.2, 0.25])
    assert make_epoch_hook(classifier, settings_of("full")) is None


# ---------------------------------------------------------------------------------------------------------------------
# Answers in words
# ---------------------------------------------------------------------------------------------------------------------


def next_token_logits(cloze: GPT2Cloze) -> Tensor:
    return cloze.gpt2.hidden_state_to_token(cloze.gpt2(IDS, MASK)["last_token"])


def test_cloze_trains_on_the_whole_vocabulary_and_answers_with_its_words_alone() -> None:
    cloze = make("cloze")
    assert isinstance(cloze, GPT2Cloze)
    expected = F.cross_entropy(next_token_logits(cloze), torch.tensor([7, 9, 8, 8, 7, 9]), reduction="sum")
    torch.testing.assert_close(cloze(IDS, MASK, labels=LABELS), expected)
    torch.testing.assert_close(cloze(IDS, MASK), next_token_logits(cloze)[:, [7, 8, 9]])


# ---------------------------------------------------------------------------------------------------------------------
# Saved and loaded
# ---------------------------------------------------------------------------------------------------------------------

KINDS = [("full", {"pooling": pooling}) for pooling in ("last", "mean", "mix", "max", "concat", "attention")]
KINDS += [("lora", {}), ("lora", {"pooling": "mean", "lora_targets": "query-value"}), ("prefix", {}), ("cloze", {})]


@pytest.mark.parametrize(("name", "changes"), KINDS, ids=lambda value: str(value))
def test_a_saved_classifier_gives_the_same_logits(name: str, changes: dict[str, Any], tmp_path: Any) -> None:
    classifier = make(name, **changes)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    classifier.eval().save_pretrained(tmp_path, ["a", "b", "c"])
    again = load_classifier(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(IDS, MASK), classifier(IDS, MASK), atol=1e-5, rtol=1e-5)
    assert (tmp_path / "adapter.safetensors").exists() == (name == "lora")
    assert (tmp_path / "prefix.safetensors").exists() == (name == "prefix")


# ---------------------------------------------------------------------------------------------------------------------
# What makes no sense
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("full", {"lora_rank": 4}, "--lora-rank: it belongs to --strategy lora, not full; leave it out"),
        ("lora", {"prefix_length": 4}, "--prefix-length: it belongs to --strategy prefix, not lora; leave it out"),
        ("full", {"last_n": 2}, "--last-n: it belongs to --strategy last-n, not full; leave it out"),
        ("last-n", {"last_n": 9}, "--last-n 9: the model has 4 blocks"),
        ("cloze", {"pooling": "mean"}, "--pooling: strategy cloze has no head"),
        ("head", {"layer_decay": 0.5}, "--layer-decay: strategy head trains no layer of GPT-2"),
        ("bitfit", {"unfreeze_groups": 2}, "--unfreeze-groups: strategy bitfit does not train all of GPT-2"),
        ("lora", {"lm_epochs": 2}, "--lm-epochs: strategy lora keeps GPT-2"),
        ("llrd", {"zone_rates": [1.0, 1.0, 1.0]}, "--layer-decay and --zone-rates: both set"),
        ("full", {"mean_weight": 0.5}, "--mean-weight: it belongs to --pooling mix, not last"),
        ("full", {"dropout_average": "losses"}, "--dropout-average: there is one sample of dropout"),
        ("full", {"dropout_samples": 5}, "--dropout-samples: without --dropout all samples are the same"),
        ("full", {"dropout": 0.9, "dropout_growth": 0.2}, "--dropout-growth 0.2: dropout would reach 1"),
        ("full", {"cut_frac": 0.2}, "--cut-frac: it belongs to --schedule slanted-triangular, not constant"),
        ("ulmfit", {"warmup": 0.2}, "--warmup: --schedule slanted-triangular has none; leave it out"),
        ("full", {"schedule": "cosine-per-epoch", "warmup": 0.2}, "--warmup: --schedule cosine-per-epoch has none"),
        ("lora", {"published_groups": True}, "--published-groups: strategy lora trains neither the embeddings nor"),
        (
            "full",
            {"published_groups": True, "lm_epochs": 1},
            "--published-groups: the stage of language modelling trains",
        ),
        ("last-n", {"last_n": 1, "zone_rates": [5.0, 1.0, 1.0]}, "--zone-rates 5 ...: the last 1 of"),
        ("cloze", {"zone_rates": [0.5, 1.0, 2.0]}, "--zone-rates: strategy cloze has no head for the third factor"),
        ("cloze", {"unfreeze_groups": 2}, "--unfreeze-groups: strategy cloze has no head to begin with"),
        ("cloze", {"lm_epochs": 2}, "--lm-epochs: it would teach that a text ends where the answer stands"),
        ("full", {"lm_lr": 1e-3}, "--lm-lr: there is no stage of language modelling"),
        (
            "ulmfit",
            {"epochs": 5},
            "--epochs 5: an epoch for the head, one for each of 4 groups and one more for all of",
        ),
        ("prefix", {"prefix_length": 24}, "--prefix-length 24: leaves no room for text in 24 positions"),
        ("lora", {"lora_rank": 17}, "--lora-rank 17: is no low rank in a model 16 wide"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(name: str, changes: dict[str, Any], message: str) -> None:
    (problem,) = combination_problems(settings_of(name, **changes), set(changes), STRATEGIES[name], CONFIG)
    assert problem.startswith(message)


@pytest.mark.parametrize("name", strategies_of("paraphrase"))
def test_a_strategys_own_settings_make_sense(name: str) -> None:
    for dataset in ("sst", "cfimdb", "nsmc", "qqp", "custom"):
        settings = ClassificationSettings(**STRATEGIES[name].defaults(dataset))
        given = {field.name for field in dataclasses.fields(settings)}
        assert combination_problems(settings, given, STRATEGIES[name], CONFIG) == []


def test_what_the_strategy_sets_is_turned_off_and_not_left_out() -> None:
    own = named_strategies_of("paraphrase")["taskB"]
    settings = with_defaults(ClassificationSettings(dropout=0.0), {"dropout"}, own.defaults("qqp"))
    (problem,) = combination_problems(settings, {"dropout"}, own, CONFIG)
    assert problem == "--dropout-samples: without --dropout all samples are the same; use --dropout-samples 1"
    settings = dataclasses.replace(settings, dropout_samples=1)
    assert combination_problems(settings, {"dropout", "dropout_samples"}, own, CONFIG) == []


@pytest.mark.parametrize("name", ["llrd-zones", "full"])
def test_without_a_head_the_third_factor_has_to_be_the_usual_one(name: str) -> None:
    """Another would be another run, and the same one."""
    for factors, is_right in (([0.3, 0.9, 2.0], True), ([0.3, 0.9, 7.0], False)):
        settings = WritingSettings(**STRATEGIES[name].defaults("inference") | {"zone_rates": factors})
        problems = writing_problems(settings, {"zone_rates"}, STRATEGIES[name], CONFIG)
        told = ["--zone-rates 0.3 0.9 7: there is no head for the third factor; give it as 2"]
        assert problems == ([] if is_right else told)


def test_a_prefix_takes_room_from_the_text() -> None:
    assert context_of(CONFIG, settings_of("prefix")) == 14 and context_of(CONFIG, settings_of("full")) == 24


def test_the_printed_groups_say_where_there_is_no_decay() -> None:
    classifier = make("full")
    tables = [
        group_table(parameter_groups(classifier.layer_groups(), classifier, 1e-3, decay), 0) for decay in (0.0, 0.1)
    ]
    assert "no decay" not in tables[0]
    assert tables[1].endswith("biases and norms of these have no decay")


def test_shares_and_costs() -> None:
    """By hand, for the 124M model: 12 blocks, 768 wide, a head of two classes."""
    config = GPT2Config()
    gpt2, head = 124_439_808, 2 * 768
    assert trainable_share(STRATEGIES["full"], config, num_labels=2) == pytest.approx((gpt2 + head) / gpt2)
    assert trainable_share(STRATEGIES["head"], config, num_labels=2) == pytest.approx(head / gpt2)
    lora = 12 * 8 * (768 + 3 * 768)
    assert trainable_share(STRATEGIES["lora"], config, num_labels=2) == pytest.approx((lora + head) / gpt2)

    def cost(name: str) -> float:
        return relative_cost(STRATEGIES[name], STRATEGIES[name].defaults("sst"), 12)

    assert cost("full") == 1.0
    assert cost("head") == pytest.approx(1 / 30)
    assert cost("last-n") == pytest.approx((1 + 2 / 3) / 3)
    # Head alone, a quarter, half, three quarters, all, all; and three epochs of language modelling.
    assert cost("ulmfit") == pytest.approx((1 / 3 + 1.5 / 3 + 2 / 3 + 2.5 / 3 + 1 + 1 + 3) / 6)


def test_a_card_brings_searched_rates_and_a_factor_for_the_others(tmp_path: Any) -> None:
    (tmp_path / "README.md").write_text("---\nfine_tuning:\n  rate_factor: 10\n  sst:\n    full: {lr: 0.5}\n---\n")
    ulmfit, lora = STRATEGIES["ulmfit"].defaults("sst"), STRATEGIES["lora"].defaults("sst")
    assert fine_tuning_defaults(tmp_path, "sst", "full", STRATEGIES["full"].defaults("sst")) == {"lr": 0.5}
    assert fine_tuning_defaults(tmp_path, "sst", "lora", lora) == {"lr": pytest.approx(2e-3)}
    assert fine_tuning_defaults(tmp_path, "sst", "ulmfit", ulmfit) == {
        "lr": pytest.approx(1e-3), "lm_lr": pytest.approx(5e-4)
    }  # fmt: skip


def test_a_dataset_without_rates_takes_those_of_its_tasks_first_one(tmp_path: Any) -> None:
    card = "---\nfine_tuning:\n  rate_factor: 10\n  nsmc:\n    bitfit: {lr: 0.5}\n  cfimdb:\n    full: {lr: 0.1}\n"
    (tmp_path / "README.md").write_text(card + "  qqp:\n    bitfit: {lr: 0.2}\n---\n")

    def rate(dataset: str, task: str) -> float:
        return fine_tuning_defaults(tmp_path, dataset, "bitfit", {"lr": 1e-3}, task)["lr"]

    assert rate("nsmc", "sentiment") == rate("sst", "sentiment") == rate("custom", "sentiment") == 0.5
    assert rate("custom", "paraphrase") == 0.2
    assert rate("cfimdb", "sentiment") == 0.5  # which has another strategy's only
    assert rate("inference", "inference") == pytest.approx(1e-2)


def test_a_rate_that_was_never_searched_is_said_to_be_a_guess(tmp_path: Any) -> None:
    (tmp_path / "README.md").write_text("---\nfine_tuning:\n  rate_factor: 10\n  qqp:\n    full: {lr: 0.5}\n---\n")
    (note,) = notes_of_guess(tmp_path, "qqp", "lora", set(), "paraphrase")
    assert note.startswith("the learning rate is a guess, the published one times 10: ") and "for lora on qqp" in note
    assert notes_of_guess(tmp_path, "qqp", "full", set(), "paraphrase") == ()
    assert notes_of_guess(tmp_path, "custom", "full", set(), "paraphrase") == ()
    assert notes_of_guess(tmp_path, "qqp", "lora", {"lr"}, "paraphrase") == ()


@pytest.mark.parametrize(
    ("name", "given"), [("llrd", {"zone_rates": [0.5, 1.0, 2.0]}), ("llrd-zones", {"layer_decay": 0.5})]
)
def test_given_rates_of_the_layers_take_the_place_of_the_strategys(name: str, given: dict[str, Any]) -> None:
    settings = with_defaults(ClassificationSettings(**given), set(given), STRATEGIES[name].defaults("sst"))
    both = {knob: getattr(settings, knob) for knob in ("layer_decay", "zone_rates")}
    assert both == {"layer_decay": None, "zone_rates": None} | given
    assert combination_problems(settings, set(given), STRATEGIES[name], CONFIG) == []


def test_a_value_that_says_what_unset_says_is_the_same_run_and_still_overrules_the_strategys() -> None:
    assert identity_of(ClassificationSettings(pooling="last", train_fraction=1.0)) == identity_of(
        ClassificationSettings()
    )
    own = named_strategies_of("paraphrase")["taskB"].defaults("qqp")
    assert own["pooling"] == "mean"
    for given in ("last", "max"):
        settings = with_defaults(ClassificationSettings(pooling=given), {"pooling"}, own)
        assert fine_tuning.head_of(settings).pooling == given
