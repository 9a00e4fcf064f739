"""The training loop: order, accumulation, schedules, clipping, the best epoch, and what stops it."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from tiny_run import SIZES, only_run, read_log, results_of
from torch import Tensor, nn
from tqdm import tqdm

from classifier import ClassifierSettings
from config import RunFailed
from datasets import SENTIMENT_TASKS, find_task_data, read_splits, tokenize
from models.checkpoint import read_config
from models.classifier import GPT2Classifier, Head, load_classifier
from models.gpt2 import GPT2Model
from models.tokenizer import load_tokenizer
from modules.layout import TokenLayout
from optimizer import linear, parameter_groups
from training import loop
from training.classification.job import EncodedSplit, cache_features, make_job, predict
from training.device import Device, open_device
from training.interrupt import Interrupted, Signals
from training.loop import Job, Plan, Progress, epoch_order, fit
from training.run_folder import RunFolder

PLAN = Plan(epochs=2, batch_size=4, update_size=4, max_grad_norm=None, patience=None, seed=5, save_every_minutes=60)


@pytest.fixture
def device(as_new_process: None) -> Device:
    return open_device(use_gpu=False, precision="fp32")


# ---------------------------------------------------------------------------------------------------------------------
# A linear model whose every update can be computed by hand
# ---------------------------------------------------------------------------------------------------------------------


class RecordingSGD(torch.optim.SGD):
    """Plain gradient descent that remembers each step's rates."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, lr=0.1)
        self.rates: list[list[float]] = []

    def step(self, closure: Any = None) -> None:
        self.rates.append([group["lr"] for group in self.param_groups])
        super().step(closure)


@dataclasses.dataclass
class Toy:
    """The job, and what the loop did with it."""

    job: Job
    seen: list[list[int]]  # the indices of each batch
    saved: dict[str, Tensor]  # folder name -> the weight that was saved there
    modes: list[tuple[str, bool]]  # what was called, and whether the model was in training mode


def toy_job(
    n_examples: int = 10,
    items: Callable[[int], int] = lambda i: 1,
    scores: Sequence[float] = (0.0,),
    schedule: Callable[[int, int], float] = lambda step, total: 1.0,
    bad: int | None = None,
) -> Toy:
    """Example i has ``items(i)`` terms; its loss is the sum over them of (w . x_i + b - 1)^2 / 2."""
    inputs = torch.randn(n_examples, 3, generator=torch.Generator().manual_seed(1))
    model = nn.Linear(3, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    toy = Toy(job=None, seen=[], saved={}, modes=[])  # type: ignore[arg-type]
    coming_scores = itertools.chain(scores, itertools.repeat(scores[-1]))

    def loss(model: nn.Module, indices: list[int]) -> Tensor:
        toy.seen.append(indices)
        toy.modes.append(("loss", model.training))
        weights = torch.tensor([float(items(i)) for i in indices])
        errors = ((model(inputs[indices])[:, 0] - 1) ** 2 / 2 * weights).sum()
        return errors * math.nan if bad in indices else errors

    def evaluate(model: nn.Module) -> dict[str, float]:
        toy.modes.append(("evaluate", model.training))
        return {"score": next(coming_scores), "n": 1}

    def save_best(folder: Path) -> None:
        folder.mkdir(parents=True)
        toy.saved[folder.name] = model.weight.detach().clone()

    groups = [
        {"params": [model.weight], "lr": 0.1, "base_lr": 0.1},
        {"params": [model.bias], "lr": 0.02, "base_lr": 0.02},
    ]
    toy.job = Job(
        model=model,
        optimizer=RecordingSGD(groups),
        n_examples=n_examples,
        order=lambda epoch: epoch_order(PLAN.seed, epoch, n_examples),
        name=lambda i: f"id{i}",
        loss=loss,
        count_items=lambda indices: sum(map(items, indices)),
        count_tokens=len,
        evaluate=evaluate,
        score="score",
        save_best=save_best,
        schedule=schedule,
    )
    return toy


def fit_in(folder: Path, job: Job, device: Device, **changes: Any) -> Progress:
    run = RunFolder(folder)
    run.start({}, overwrite=False)
    return fit(job, dataclasses.replace(PLAN, **changes), run, device, Signals())


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {(seed, epoch): epoch_order(seed, epoch, 50) for seed in (1, 2) for epoch in (1, 2)}
    torch.rand(3)  # the global generator plays no part
    assert orders[1, 1] == epoch_order(1, 1, 50)
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4


@pytest.mark.parametrize("changes", [{}, {"batch_size": 3, "update_size": 3}, {"batch_size": 2}])
def test_the_loop_trains_on_that_order(tmp_path: Path, device: Device, changes: dict[str, int]) -> None:
    toy = toy_job()
    fit_in(tmp_path, toy.job, device, **changes)
    assert [i for batch in toy.seen for i in batch] == epoch_order(5, 1, 10) + epoch_order(5, 2, 10)
    assert max(map(len, toy.seen)) == changes.get("batch_size", 4)


def test_accumulated_loss_is_the_sum_over_the_updates_items_divided_by_their_number(
    tmp_path: Path, device: Device
) -> None:
    """Examples with different numbers of items, and a last update that is smaller than the others."""
    results = []
    for batch_size, update_size in ((1, 4), (2, 4), (4, 4), (3, 3)):
        toy = toy_job(items=lambda i: i + 1)
        progress = fit_in(tmp_path / f"{batch_size}", toy.job, device, batch_size=batch_size, update_size=update_size)
        weight = torch.cat([toy.job.model.weight.detach()[0], toy.job.model.bias.detach()])
        results.append((weight, [epoch["train_loss"] for epoch in progress.history], progress.step))
    for weight, losses, steps in results[:2]:
        torch.testing.assert_close(weight, results[2][0], rtol=0, atol=1e-7)
        assert losses == pytest.approx(results[2][1], rel=1e-6)
        assert steps == results[2][2] == 6
    assert not torch.allclose(results[3][0], results[2][0], atol=1e-4)  # updates of another size are another run


def test_every_group_follows_the_schedule_from_its_own_rate(tmp_path: Path, device: Device) -> None:
    toy = toy_job(schedule=lambda step, total: linear(step, total, warmup=2))
    fit_in(tmp_path, toy.job, device)
    factors = [linear(step, 6, warmup=2) for step in range(6)]
    assert factors[0] == pytest.approx(1 / 3) and max(factors) == 1.0 and factors[-1] == 0.25
    assert toy.job.optimizer.rates == [[pytest.approx(0.1 * f), pytest.approx(0.02 * f)] for f in factors]
    logged = [record["lr"] for record in read_log(tmp_path) if "lr" in record]
    assert logged == toy.job.optimizer.rates


def test_clipping_bounds_the_norm_of_the_updates_gradient(tmp_path: Path, device: Device) -> None:
    def first_update(max_grad_norm: float | None) -> Tensor:
        toy = toy_job()
        fit_in(
            tmp_path / str(max_grad_norm), toy.job, device, epochs=1, batch_size=5, update_size=10,
            max_grad_norm=max_grad_norm,
        )  # fmt: skip
        gradient = toy.job.model.weight.detach()[0] / 0.1, toy.job.model.bias.detach() / 0.02
        return torch.cat(gradient)

    free = first_update(None)
    clipped = first_update(0.01)
    assert free.norm() > 0.1
    torch.testing.assert_close(clipped, free / free.norm() * 0.01, rtol=1e-3, atol=0)
    assert torch.equal(first_update(100.0), free)


def test_patience_and_the_first_of_equally_good_epochs(tmp_path: Path, device: Device) -> None:
    toy = toy_job(scores=(0.1, 0.5, 0.5, 0.4, 0.9))
    progress = fit_in(tmp_path, toy.job, device, epochs=8, patience=2)
    assert [entry["epoch"] for entry in progress.history] == [1, 2, 3, 4]
    assert (progress.best_epoch, progress.best_folder, progress.finished) == (2, "best-2", True)
    assert list(toy.saved) == ["best-1", "best-2"]
    assert [path.name for path in (tmp_path / "checkpoint").glob("best-*")] == ["best-2"]
    assert not torch.equal(toy.saved["best-1"], toy.saved["best-2"])

    toy = toy_job(scores=(0.1, 0.5, 0.5, 0.4, 0.9))
    assert fit_in(tmp_path / "patient", toy.job, device, epochs=5).best_epoch == 5


def test_patience_counts_the_epochs_in_which_everything_trains(tmp_path: Path, device: Device) -> None:
    """As with gradual unfreezing, whose first epochs say little of what comes; also where the run goes on."""

    def make(*scores: float) -> Job:
        job = toy_job(scores=scores).job
        return dataclasses.replace(job, begin_epoch=lambda epoch: job.model.bias.requires_grad_(epoch > 3))

    progress = fit_in(tmp_path / "whole", make(0.5, 0.4), device, epochs=9, patience=2)
    assert (progress.epoch, progress.best_epoch) == (5, 1)

    plan, folder = dataclasses.replace(PLAN, epochs=9, patience=2, save_every_minutes=0), RunFolder(tmp_path / "killed")
    folder.start({}, overwrite=False)
    with pytest.raises(RunFailed):
        fit(make(0.5, 0.4, 0.4, 0.4, math.nan), plan, folder, device, Signals())
    assert fit(make(0.4), plan, folder, device, Signals()).epoch == 5


def test_a_long_start_takes_nothing_from_the_schedule_of_a_time_budget(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three seconds until the first update, which takes five; what is left of ten is the schedule's."""
    now = 100.0

    def look(seconds: float = 0.02) -> float:
        nonlocal now
        now += seconds
        return now

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=look))
    toy = toy_job(schedule=lambda step, total: linear(step, total, warmup=total // 2))
    update = toy.job.loss

    def loss(model: nn.Module, indices: list[int]) -> Tensor:
        look(0.0 if toy.seen else 5.0)
        return update(model, indices)

    run = RunFolder(tmp_path)
    run.start({}, overwrite=False)
    plan = dataclasses.replace(PLAN, epochs=100, time_budget=10.0)
    progress = fit(dataclasses.replace(toy.job, loss=loss), plan, run, device, Signals(), started=97.0)
    assert 107 <= now < 108
    positions = [position / 300 for position in progress.positions]
    assert positions == sorted(positions) and len(positions) == progress.step > 9
    assert positions[0] == 0.0 and positions[1] < 0.2 and positions[-1] > 0.8
    rates = [rate for rate, _ in toy.job.optimizer.rates]
    assert rates.index(max(rates)) in range(3, len(rates) - 3)


def test_the_bar_fits_into_a_terminal(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns hold loss, speed, share of the peak and time left, which nothing tells after the first update."""
    screen = io.StringIO()
    forced = {"file": screen, "ncols": 80, "dynamic_ncols": False, "disable": False, "mininterval": 0}
    monkeypatch.setattr(loop, "tqdm", lambda **named: tqdm(**(named | forced)))
    now = itertools.count(0.0, 1000.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    job = dataclasses.replace(
        toy_job().job, unit="part", count_tokens=lambda indices: 10**9, flops_per_token=1.0, peak_flops=1e6
    )
    run = RunFolder(tmp_path)
    run.start({}, overwrite=False)
    fit(job, dataclasses.replace(PLAN, epochs=1000, total_steps=12), run, device, Signals())
    drawn = [line for line in screen.getvalue().split("\r") if "loss" in line]
    assert len(drawn) > 5 and max(map(len, drawn)) <= 80
    for line in drawn:
        assert re.search(r"part \d/1000 \|.*\| \d+%, loss [\d.]+, [\d,]+ tokens/s, \d+% of peak", line), line
    assert "left" not in drawn[0] and re.search(r"of peak, [\d.]+ h left", drawn[1])


def test_training_mode_in_training_only(tmp_path: Path, device: Device) -> None:
    toy = toy_job()
    fit_in(tmp_path, toy.job, device)
    assert set(toy.modes) == {("loss", True), ("evaluate", False)}


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path, device: Device) -> None:
    bad = epoch_order(5, 1, 40)[15]
    toy = toy_job(n_examples=40, bad=bad)
    with pytest.raises(RunFailed) as failure:
        fit_in(tmp_path, toy.job, device, batch_size=10, update_size=10)
    message = str(failure.value)
    assert "loss became nan at step 2 (epoch 1, examples " in message and "and 2 more" in message
    assert ", ".join(f"id{i}" for i in epoch_order(5, 1, 40)[10:18]) in message
    assert "--lr" in message
    assert len(toy.job.optimizer.rates) == 1
    failed = json.loads((tmp_path / "failed.json").read_text())
    assert failed["error"] == message and failed["step"] == 1 and failed["time"]


@pytest.mark.parametrize("where", ["loss", "evaluate"])
def test_a_memory_that_is_too_small_is_told_with_a_remedy(tmp_path: Path, device: Device, where: str) -> None:
    toy, calls = toy_job(), itertools.count(1)

    def too_much(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return getattr(toy.job, where)(*arguments)

    with pytest.raises(RunFailed, match="does not fit the device's memory.*--batch-size.*--accumulate") as failure:
        fit_in(tmp_path, dataclasses.replace(toy.job, **{where: too_much}), device)
    steps = {"loss": 1, "evaluate": 6}[where]
    assert f"after step {steps}, " in str(failure.value)
    failed = json.loads((tmp_path / "failed.json").read_text())
    assert failed["error"] == str(failure.value) and failed["step"] == steps


def test_other_errors_are_left_alone(tmp_path: Path, device: Device) -> None:
    def broken(model: nn.Module, indices: list[int]) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        fit_in(tmp_path, dataclasses.replace(toy_job().job, loss=broken), device)


def test_fp16_updates_that_overflow_time_and_again_stop_the_run(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss scaling leaves them out; some are usual until the scale is found."""
    skipped = itertools.chain([True] * 17 + [False], itertools.repeat(True))
    monkeypatch.setattr(AcceleratedOptimizer, "step_was_skipped", property(lambda _: next(skipped)))
    with pytest.raises(RunFailed, match="last 20 updates, up to step 38, .*fp16.*--precision fp32.*--lr"):
        fit_in(tmp_path, toy_job(n_examples=50).job, device, batch_size=1, update_size=1)
    assert json.loads((tmp_path / "failed.json").read_text())["step"] == 37


def test_dev_metrics_that_are_not_finite_stop_too(tmp_path: Path, device: Device) -> None:
    toy = toy_job(scores=(0.5, math.nan))
    with pytest.raises(RunFailed, match=r"dev set's score became nan in epoch 2 \(step 6\)"):
        fit_in(tmp_path, toy.job, device)


def test_a_second_signal_stops_at_once_and_saves_nothing_half_done(tmp_path: Path, device: Device) -> None:
    toy = toy_job()
    whole = toy_job()
    fit_in(tmp_path / "whole", whole.job, device)

    def twice_interrupted(model: nn.Module, indices: list[int]) -> Tensor:
        if len(toy.seen) == 4:  # the second batch of the second epoch
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the second signal was not obeyed")
        return toy.job.loss(model, indices)

    run = RunFolder(tmp_path / "run")
    run.start({}, overwrite=False)
    with pytest.raises(Interrupted) as stop:
        fit(dataclasses.replace(toy.job, loss=twice_interrupted), PLAN, run, device, Signals().install())
    assert stop.value.signal_number == signal.SIGTERM and "saved" not in stop.value.message
    state, _ = run.load_state()  # type: ignore[misc]
    assert (state["epoch"], state["step"]) == (1, 3)  # as the first epoch's end left it

    toy = toy_job()
    fit_in(tmp_path / "run", toy.job, device)
    assert torch.equal(toy.job.model.weight, whole.job.model.weight)


# ---------------------------------------------------------------------------------------------------------------------
# The classifier
# ---------------------------------------------------------------------------------------------------------------------


def make_classifier(model: Path) -> GPT2Classifier:
    gpt2 = GPT2Model.from_pretrained(model)
    torch.manual_seed(0)
    return GPT2Classifier(gpt2, 5, Head(dropout=0.3))


def encode(model: Path, data: Path) -> dict[str, EncodedSplit]:
    task = SENTIMENT_TASKS["sst"]
    splits = read_splits(task, find_task_data(task, data, root=data))
    tokenizer = load_tokenizer(model, read_config(model))
    return {
        name: EncodedSplit(split.examples, tokenize([e.text for e in split.examples], tokenizer, 48).ids)
        for name, split in splits.items()
    }


def classifier_job(classifier: GPT2Classifier, splits: dict[str, EncodedSplit], device: Device, **changes: Any) -> Job:
    settings = ClassifierSettings(**({"lr": 1e-3, "batch_size": 8, "schedule": "constant"} | changes))
    return make_job(classifier, splits, settings, device, lambda: None, lambda folder: folder.mkdir(parents=True))


def test_four_batches_of_two_equal_one_of_eight(
    tmp_path: Path, still_model: Path, tiny_data: Path, device: Device
) -> None:
    """45 examples: the last update has five, in batches of 2, 2 and 1."""
    splits = encode(still_model, tiny_data)
    results = []
    for batch_size in (8, 2):
        classifier = make_classifier(still_model)
        classifier.dropout.p = 0.0
        groups = parameter_groups(classifier.layer_groups(), classifier, 0.3)
        job = dataclasses.replace(classifier_job(classifier, splits, device), optimizer=RecordingSGD(groups))
        progress = fit_in(tmp_path / f"{batch_size}", job, device, batch_size=batch_size, update_size=8)
        assert progress.step == 12
        results.append((dict(classifier.named_parameters()), progress.history))
    before = dict(make_classifier(still_model).named_parameters())
    for name, parameter in results[0][0].items():
        torch.testing.assert_close(parameter, results[1][0][name], rtol=0, atol=1e-6, msg=name)
    assert max((parameter - before[name]).abs().max() for name, parameter in results[0][0].items()) > 1e-2
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-6)
        assert one["dev"] == pytest.approx(other["dev"], abs=1e-6)


def test_dropout_acts_in_training_and_not_in_evaluation(tiny_model: Path, tiny_data: Path, device: Device) -> None:
    splits = encode(tiny_model, tiny_data)
    classifier = make_classifier(tiny_model)
    job = classifier_job(classifier, splits, device)
    torch.manual_seed(1)
    first = job.evaluate(classifier.train())
    torch.manual_seed(2)
    assert job.evaluate(classifier.train()) == first

    losses = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        losses.append(float(job.loss(classifier.train(), [0, 1, 2, 3]).detach()))
    assert losses[0] == losses[2] != losses[1]
    with torch.no_grad():
        still = job.loss(classifier.eval(), [0, 1, 2, 3])
    assert float(still) not in losses
    probabilities = predict(classifier, splits["train"], ClassifierSettings(), device, lambda: None)
    of_truth = [probabilities[i, splits["train"].labels[i]] for i in range(4)]
    assert float(still) == pytest.approx(-sum(math.log(p) for p in of_truth), rel=1e-5)


def test_full_fine_tuning_moves_every_parameter(
    tmp_path: Path, tiny_model: Path, tiny_data: Path, device: Device
) -> None:
    classifier = make_classifier(tiny_model)
    before = {name: parameter.detach().clone() for name, parameter in classifier.named_parameters()}
    fit_in(tmp_path, classifier_job(classifier, encode(tiny_model, tiny_data), device), device, epochs=1)
    still = [name for name, parameter in classifier.named_parameters() if torch.equal(parameter, before[name])]
    assert still == []


def test_cached_features_give_the_same_head(tmp_path: Path, still_model: Path, tiny_data: Path, device: Device) -> None:
    """The head that is trained on stored features is the one that is trained through the frozen GPT-2."""
    heads = []
    for cached in (True, False):
        classifier, splits = make_classifier(still_model), encode(still_model, tiny_data)
        classifier.gpt2.requires_grad_(False)
        if cached:
            cache_features(classifier, splits, 16, device, lambda: None)
        fit_in(tmp_path / str(cached), classifier_job(classifier, splits, device), device, epochs=3)
        heads.append(classifier.score.weight.detach())
    torch.testing.assert_close(heads[0], heads[1], rtol=0, atol=1e-6)
    assert not torch.allclose(heads[0], make_classifier(still_model).score.weight, atol=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs
# ---------------------------------------------------------------------------------------------------------------------

FLAGS = ["--dataset", "sst", "--batch-size", 8, "--lr", 1e-3, "--epochs", 2, "--precision", "fp32"]


def test_head_mode_runs_gpt2_once_over_each_text_and_leaves_it_alone(
    run: Callable[..., Any], tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, rows = GPT2Model.encode, []

    def counting(self: GPT2Model, input_ids: Tensor, layout: TokenLayout, *rest: Any) -> Tensor:
        assert not self.training
        rows.append(layout.batch_size)
        return encode(self, input_ids, layout, *rest)

    monkeypatch.setattr(GPT2Model, "encode", counting)
    done = run(
        "--model", tiny_model, "--data-dir", tiny_data, "--output-dir", tmp_path, *FLAGS, "--epochs", 10,
        "--fine-tune-mode", "last-linear-layer", "--lr", 0.05,
    )  # fmt: skip
    assert done.code == 0 and sum(rows) == sum(SIZES.values())
    folder = only_run(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["history"][-1]["train_loss"] < metrics["history"][0]["train_loss"]
    assert metrics["cost"]["trainable_parameters"] == 5 * 32

    trained = load_classifier(folder / "best").gpt2.state_dict()
    untouched = GPT2Model.from_pretrained(tiny_model).state_dict()
    assert all(torch.equal(trained[name], tensor) for name, tensor in untouched.items())


@pytest.mark.parametrize("mode", ["full-model", "last-linear-layer"])
def test_the_same_command_twice_gives_the_same_bytes(
    run: Callable[..., Any], tiny_model: Path, tiny_data: Path, tmp_path: Path, mode: str
) -> None:
    results = []
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        flags = ["--model", tiny_model, "--data-dir", tiny_data, "--output-dir", tmp_path / name, *FLAGS]
        assert run(*flags, "--fine-tune-mode", mode, "--seed", seed).code == 0
        results.append(results_of(only_run(tmp_path / name)))
    assert results[0] == results[1]
    assert results[0]["best/model.safetensors"] != results[2]["best/model.safetensors"]


def test_a_loss_that_explodes_is_told_and_recorded(
    run: Callable[..., Any], tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--output-dir", tmp_path, *FLAGS]
    done = run(*flags, "--lr", 1e30)
    assert done.code == 1
    (error,) = done.errors
    assert "the loss became" in error and "at step 2" in error and "examples ssttrain" in error
    folder = only_run(tmp_path)
    assert json.loads((folder / "failed.json").read_text())["error"] == error.removeprefix("error: ")
    assert not (folder / "metrics.json").exists() and not (folder / "best").exists()


def test_weights_that_explode_in_the_last_update_are_told_and_recorded(
    run: Callable[..., Any], tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--output-dir", tmp_path, *FLAGS]
    done = run(*flags, "--lr", 1e30, "--epochs", 1, "--batch-size", 64)
    assert done.code == 1
    (error,) = done.errors
    assert "the dev set's loss became nan in epoch 1 (step 1)" in error and "--lr" in error
    assert json.loads((only_run(tmp_path) / "failed.json").read_text())["error"] == error.removeprefix("error: ")


def test_the_schedule_flags_reach_the_optimizer(
    run: Callable[..., Any], tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    flags = ["--model", tiny_model, "--data-dir", tiny_data, "--output-dir", tmp_path, *FLAGS]
    assert run(*flags, "--schedule", "linear", "--warmup", 0.25).code == 0
    rates = [set(record["lr"]) for record in read_log(only_run(tmp_path)) if "lr" in record]
    assert rates == [{1e-3 * linear(step, 12, warmup=3)} for step in range(12)]
