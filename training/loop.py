"""The one training loop.

A task script brings the data, the model, the loss and the metric as a :class:`Job`; everything that must not differ
between tasks is here: order, accumulation, precision, clipping, evaluation, the best model, saving, resuming, logging.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer
from tqdm import tqdm

from config import RunFailed
from training.device import Device, derive_seed, is_out_of_memory
from training.interrupt import Check, Interrupted, Signals
from training.run_folder import RunFolder
from training.sharding import full_tensor, gathered, shard
from training.terminal import duration

_BAR = "{desc} |{bar}| {percentage:.0f}%{postfix}"  # tqdm's own rate and time left would be of this epoch alone
_REMEDY = "try a smaller --lr, --max-grad-norm 1, or --precision fp32"
_MOST_SKIPPED = 20  # updates in a row; loss scaling finds its scale within 17


class Order(Protocol):
    """A list, or what makes a part of one when it is asked for."""

    def __getitem__(self, places: slice, /) -> list[int]: ...


@dataclass(frozen=True)
class Job:
    """What a task gives to the loop.

    Attributes:
        model: the module whose forward pass is trained.
        optimizer: over the model's trainable parameters; its groups hold their own ``base_lr``.
        n_examples: how many training examples an epoch has.
        order: epoch, counted from 1 -> the indices of its examples, to be sliced; a function of the epoch alone.
        name: index of a training example -> its id, for messages.
        loss: (model, indices of training examples) -> the sum of their losses, with gradient.
        count_items: indices -> how many items (examples, or target tokens) that sum is over.
        count_tokens: indices -> how many real tokens the model reads for them.
        evaluate: model -> metrics on the dev set, plain numbers.
        score: the metric that decides which epoch is best.
        save_best: writes the model into a folder.
        schedule: (step, total steps) -> factor on every group's rate.
        shown: the metrics on the screen after an epoch; empty: all.
        lower_is_better: whether ``score`` is a loss.
        sample: model -> some text of its own, shown after every evaluation; None where the task has none.
        flops_per_token: arithmetic of a training step per token, with ``peak_flops`` for the share of the peak.
        peak_flops: what the device's matrix products reach per second; 0 where it was not measured.
        unit: what an epoch is called.
        begin_epoch: called at the start of every epoch with its number, from 1; it may freeze and unfreeze parameters.
            Every parameter that trains in any epoch must require a gradient when the loop starts; only epochs in which
            all of them do count towards patience.
        shard_units, shard_methods: how the model is sharded, where it can be: see :func:`training.sharding.shard`.
    """

    model: nn.Module
    optimizer: Optimizer
    n_examples: int
    order: Callable[[int], Order]
    name: Callable[[int], str]
    loss: Callable[[nn.Module, list[int]], Tensor]
    count_items: Callable[[list[int]], int]
    count_tokens: Callable[[list[int]], int]
    evaluate: Callable[[nn.Module], dict[str, float]]
    score: str
    save_best: Callable[[Path], None]
    schedule: Callable[[float, int], float]
    shown: Sequence[str] = ()
    lower_is_better: bool = False
    sample: Callable[[nn.Module], str] | None = None
    flops_per_token: float = 0.0
    peak_flops: float = 0.0
    unit: str = "epoch"
    begin_epoch: Callable[[int], None] | None = None
    shard_units: Sequence[nn.Module] = ()
    shard_methods: Sequence[str] = ()


@dataclass(frozen=True)
class RecordedSchedule:
    """What a run with a time budget did, so that it can be repeated.

    Attributes:
        total_steps: how many steps its schedule counts.
        positions: where in the schedule each of its steps was; as many as it took.
    """

    total_steps: int
    positions: list[float]


@dataclass(frozen=True)
class Plan:
    """How long and in which portions the loop trains.

    Attributes:
        update_size: examples per optimizer update; its last batch may be smaller.
        time_budget: seconds after which training ends. The position in the schedule is then the larger of the steps
            taken and the share of the time used; time counts from the end of the first update, so that a slow start
            does not shorten the warmup.
        total_steps: updates of the whole run, where it is not that many whole epochs.
        recorded: the schedule of an earlier run with a time budget, which this run repeats step for step.
        smaller: what to do where the device's memory is too small.
    """

    epochs: int
    batch_size: int
    update_size: int
    max_grad_norm: float | None
    patience: int | None
    seed: int
    save_every_minutes: float
    time_budget: float | None = None
    total_steps: int | None = None
    recorded: RecordedSchedule | None = None
    smaller: str = "use a smaller --batch-size, with --accumulate for updates that are as large"


@dataclass
class Progress:
    """Where a run is: everything beside tensors that a resumed run needs."""

    epoch: int = 0
    window: int = 0  # finished updates of this epoch
    step: int = 0  # finished updates in all
    loss_sum: float = 0.0
    items: int = 0
    examples: int = 0
    tokens: int = 0
    epoch_seconds: float = 0.0
    train_seconds: float = 0.0
    total_seconds: float = 0.0
    start_seconds: float = 0.0  # of the total ones, until the end of the first update
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    best_folder: str | None = None
    waited: int = 0  # epochs since the best one in which everything trained
    finished: bool = False
    scaler: dict[str, Any] | None = None
    positions: list[float] = field(default_factory=list)  # of every step so far, where there is a time budget

    @property
    def best_metrics(self) -> dict[str, float]:
        return next(entry["dev"] for entry in self.history if entry["epoch"] == self.best_epoch)


def fit(
    job: Job, plan: Plan, run: RunFolder, device: Device, signals: Signals, started: float | None = None
) -> Progress:
    """Trains until the last epoch, or until patience runs out, from the saved state if the run folder has one.

    Args:
        started: ``time.perf_counter()`` when the work on this run began, for its total time.

    Raises:
        Interrupted: a signal came; the state has been saved.
        RunFailed: a loss was not finite, gradients left the range of fp16 for good, the device's memory is too small,
            or the disk is full; ``failed.json`` says so.
    """
    return _Loop(job, plan, run, device, signals, started or time.perf_counter()).run_to_the_end()


def stop_check(signals: Signals, device: Device) -> Check:
    """The function to call between the batches of an evaluation, so that a signal need not wait for its end.

    Several processes stop only together, where the loop lets them vote: one that stopped alone would leave the others
    waiting for it, and nobody would save.
    """
    return signals.check if device.world_size == 1 else lambda: None


def epoch_order(seed: int, epoch: int, n_examples: int) -> list[int]:
    """All training examples in an order that is a function of seed and epoch (counted from 1) alone."""
    generator = torch.Generator().manual_seed(derive_seed("order", seed, epoch))
    return torch.randperm(n_examples, generator=generator).tolist()


class _Loop:
    def __init__(self, job: Job, plan: Plan, run: RunFolder, device: Device, signals: Signals, started: float) -> None:
        self.job, self.plan, self.run, self.device, self.signals = job, plan, run, device, signals
        self.progress = Progress()
        self.skipped = 0  # updates in a row that loss scaling left out
        self.parameters = {name: p for name, p in job.model.named_parameters() if p.requires_grad}
        self.update_size = plan.update_size
        self.updates_per_epoch = math.ceil(job.n_examples / self.update_size)
        self.total_steps = plan.total_steps or plan.epochs * self.updates_per_epoch
        self.n_updates = self.total_steps  # if no time budget ends the run before
        if plan.recorded is not None:
            self.total_steps, self.n_updates = plan.recorded.total_steps, len(plan.recorded.positions)
        self.log_every = max(1, min(self.updates_per_epoch, self.total_steps) // 50)
        self._restore()
        if device.sharded:
            self.model = job.model.to(device.accelerator.device)
            shard(self.model, job.optimizer, job.shard_units, job.shard_methods)
            self.parameters = {name: p for name, p in job.model.named_parameters() if p.requires_grad}
            self.optimizer = device.accelerator.prepare(job.optimizer)
        else:
            if job.begin_epoch is not None:  # DDP would wait for the gradients of frozen parameters
                device.accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
            self.model, self.optimizer = device.accelerator.prepare(job.model, job.optimizer)
        scaler = device.accelerator.scaler
        if scaler is not None and self.progress.scaler is not None:
            scaler.load_state_dict(self.progress.scaler)
        self.clock = started
        self.resumed_at = self.progress.tokens, self.progress.train_seconds
        self.last_save = time.perf_counter()
        self.writer: Any = None

    # -- the flow -------------------------------------------------------------------------------------------------

    def run_to_the_end(self) -> Progress:
        if self.progress.finished:
            return self.progress
        try:
            self._open_logs()
            with self.signals.deferred():
                while not self.progress.finished:
                    self._train_epoch()
                    if self.progress.items:
                        self._end_epoch()
                    else:  # resumed with no time left
                        self.progress.finished = True
        except Interrupted as interrupted:
            if not interrupted.at_check:  # a second signal, perhaps in the middle of an update: the saved state holds
                raise
            self._save()
            raise Interrupted(interrupted.signal_number, "interrupted; the state is saved") from None
        except RunFailed as failure:
            if self.device.is_main:
                self.run.fail(failure.problems[0], self.progress.step)
            raise
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            where = f"after step {self.progress.step}, in {self.job.unit} {self.progress.epoch + 1}"
            message = f"the run does not fit the device's memory ({where}); {self.plan.smaller}"
            self.run.fail(message, self.progress.step)  # of several processes perhaps just one needs more than it has
            raise RunFailed(message) from None
        finally:
            if self.writer is not None:
                with suppress(OSError):  # a full disk has been reported by then
                    self.writer.close()
        return self.progress

    def _train_epoch(self) -> None:
        epoch = self.progress.epoch + 1
        order = self.job.order(epoch)
        size = self.update_size
        if self.job.begin_epoch is not None:
            self.job.begin_epoch(epoch)
        self.model.train()
        bar = tqdm(
            total=self.job.n_examples,
            initial=min(self.progress.window * size, self.job.n_examples),
            desc=self._name_of(epoch),
            bar_format=_BAR,
            leave=False,
            dynamic_ncols=True,
            disable=None if self.device.is_main else True,
        )
        with bar:
            for update in range(self.progress.window, self.updates_per_epoch):
                self._pause_if_asked()
                position = self._position()
                if position >= self.total_steps:
                    break
                indices = order[update * size : (update + 1) * size]
                loss = self._update(indices, position)
                bar.set_postfix_str(f"loss {loss:.3f}, {self._speed_text()}", refresh=False)
                bar.update(len(indices))

    def _name_of(self, epoch: int) -> str:
        ends_by_time = self.plan.time_budget is not None or self.plan.recorded is not None
        return f"{self.job.unit} {epoch}" if ends_by_time else f"{self.job.unit} {epoch}/{self.plan.epochs}"

    def _position(self) -> float:
        """Where in the schedule the next step is; ``total_steps`` or more means that training is over."""
        step, budget = self.progress.step, self.plan.time_budget
        if self.plan.recorded is not None:
            positions = self.plan.recorded.positions
            return positions[step] if step < len(positions) else self.total_steps
        if budget is None:
            return step
        elapsed, start = self._elapsed(), self.progress.start_seconds
        share = 1.0 if elapsed >= budget else (elapsed - start) / (budget - start) if step else 0.0
        position = [max(step, self.total_steps * share)]
        broadcast_object_list(position)  # all processes stop at the same step
        return position[0]

    def _elapsed(self) -> float:
        """Seconds since the work on this run began, without those between an interruption and its resumption."""
        return self.progress.total_seconds + time.perf_counter() - self.clock

    def _update(self, indices: list[int], position: float) -> float:
        """One optimizer step over the batches of these examples. Returns their mean loss per item."""
        started = time.perf_counter()
        progress = self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.job.schedule(position, self.total_steps)
        if self.plan.time_budget is not None:
            progress.positions.append(position)
        size = self.plan.batch_size
        batches = [indices[i : i + size] for i in range(0, len(indices), size)]
        items = self.job.count_items(indices)
        loss_sum = 0.0
        for number, batch in enumerate(batches):
            with self._exchanging_gradients(number == len(batches) - 1):
                loss_sum += self._backward(batch, items, number)
        loss = loss_sum / items
        if not math.isfinite(loss):
            ids = ", ".join(self.job.name(i) for i in indices[:8])
            more = f" and {len(indices) - 8} more" if len(indices) > 8 else ""
            raise RunFailed(
                f"the loss became {loss} at step {progress.step + 1} ({self.job.unit} {progress.epoch + 1}, "
                f"examples {ids}{more}); {_REMEDY}"
            )
        norm = None
        if self.plan.max_grad_norm is not None:
            parameters = list(self.parameters.values())
            norm = full_tensor(self.device.accelerator.clip_grad_norm_(parameters, self.plan.max_grad_norm))
        self.optimizer.step()
        self._refuse_skipping()
        self.optimizer.zero_grad()

        progress.window += 1
        progress.step += 1
        progress.loss_sum += loss_sum
        progress.items += items
        progress.examples += len(indices)
        progress.tokens += self.job.count_tokens(indices)
        if progress.step == 1:
            progress.start_seconds = self._elapsed()
        seconds = time.perf_counter() - started
        progress.epoch_seconds += seconds
        progress.train_seconds += seconds
        if progress.step % self.log_every == 0 or progress.window == self.updates_per_epoch:
            self._log_step(loss, norm, len(indices) / seconds, self.job.count_tokens(indices) / seconds)
        return loss

    def _refuse_skipping(self) -> None:
        """Stops a run in fp16 whose gradients are infinite at every loss scale: nothing is trained any more."""
        self.skipped = self.skipped + 1 if self.optimizer.step_was_skipped else 0
        if self.skipped == _MOST_SKIPPED:
            raise RunFailed(
                f"the last {self.skipped} updates, up to step {self.progress.step + 1}, were left out, because their "
                "gradients overflow in fp16; use --precision fp32, or bf16 where the GPU has it, or try a smaller --lr"
            )

    def _speed_text(self) -> str:
        """Speed and time left; short, because a line of a terminal has to hold it."""
        progress = self.progress
        seconds = progress.train_seconds - self.resumed_at[1]
        rate = (progress.tokens - self.resumed_at[0]) / max(seconds, 1e-9)
        share = f", {self._share_of_peak(rate):.0%} of peak" if self.job.peak_flops else ""
        left = self._seconds_left()
        return f"{rate:,.0f} tokens/s{share}" + (f", {duration(left)} left" if left else "")

    def _seconds_left(self) -> float | None:
        """Until the end of training, evaluations included; None where nothing tells it yet."""
        step, elapsed = self.progress.step, self._elapsed()
        ends = [] if self.plan.time_budget is None else [self.plan.time_budget - elapsed]
        if step > 1:
            ends.append((elapsed - self.progress.start_seconds) / (step - 1) * (self.n_updates - step))
        return max(0.0, min(ends)) if ends else None

    def _share_of_peak(self, tokens_per_second: float) -> float:
        return tokens_per_second * self.job.flops_per_token / self.job.peak_flops

    def _exchanging_gradients(self, exchange: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged between processes once per update, after its last batch."""
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(exchange)
            return nullcontext()
        return nullcontext() if exchange else self.device.accelerator.no_sync(self.model)

    def _backward(self, batch: list[int], items: int, number: int) -> float:
        """Adds one batch's gradient, as its share of the update. Returns the batch's summed loss over all processes."""
        rank, world = self.device.rank, self.device.world_size
        place = (self.progress.epoch, self.progress.window, number, rank)
        torch.manual_seed(derive_seed("dropout", self.plan.seed, *place))
        mine = batch[rank::world]
        # A process without an example in a small last batch takes part with weight 0: gradients are exchanged by all.
        with self.device.accelerator.autocast():
            loss = self.job.loss(self.model, mine or batch[:1]) * (1.0 if mine else 0.0)
        # DDP takes the mean over processes, so the sum over this update's items needs the number of processes back.
        self.device.accelerator.backward(loss * (world / items))
        detached = loss.detach()
        if world > 1:
            detached = self.device.accelerator.reduce(detached, reduction="sum")
        return float(detached)

    def _end_epoch(self) -> None:
        progress, epoch = self.progress, self.progress.epoch + 1
        self.model.eval()
        self._pause_if_asked()
        dev = self.job.evaluate(self.model)
        if self.device.world_size == 1:
            self.signals.check()
        for name, value in dev.items():
            if not math.isfinite(value):
                raise RunFailed(
                    f"the dev set's {name} became {value} in {self.job.unit} {epoch} (step {progress.step}); {_REMEDY}"
                )
        progress.history.append(
            {
                "epoch": epoch,
                "train_loss": progress.loss_sum / progress.items,
                "dev": dev,
                "seconds": round(progress.epoch_seconds, 3),
            }
        )
        score, sign = self.job.score, -1 if self.job.lower_is_better else 1
        improved = progress.best_epoch is None or sign * dev[score] > sign * progress.best_metrics[score]
        if improved:
            progress.best_epoch, progress.best_folder, progress.waited = epoch, f"best-{epoch}", 0
        elif all(parameter.requires_grad for parameter in self.parameters.values()):
            progress.waited += 1
        self._log_epoch(improved)
        self._show_sample()
        progress.epoch, progress.window = epoch, 0
        progress.loss_sum, progress.items, progress.epoch_seconds = 0.0, 0, 0.0
        out_of_patience = self.plan.patience is not None and progress.waited >= self.plan.patience
        out_of_time = self._position() >= self.total_steps
        progress.finished = epoch == self.plan.epochs or out_of_patience or out_of_time
        if improved:
            with gathered(self.model), self.run.writing():
                if self.device.is_main:
                    self.job.save_best(self.run.checkpoint / f"best-{epoch}")
        if improved or progress.finished:
            self._save()

    def _pause_if_asked(self) -> None:
        """Stops at a signal, and saves when it is time to. Called between updates, when gradients are zero."""
        save_is_due = time.perf_counter() - self.last_save > self.plan.save_every_minutes * 60
        if self.device.world_size == 1:
            self.signals.check()
        else:  # all processes stop and save at the same step, whichever was told first
            votes = torch.tensor([self.signals.pending or 0, int(save_is_due)], device=self.device.accelerator.device)
            torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
            signal_number, save_is_due = int(votes[0]), bool(votes[1])
            if signal_number:
                raise Interrupted(signal_number, at_check=True)
        if save_is_due:
            self._save()

    # -- state ----------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        now = time.perf_counter()
        self.progress.total_seconds += now - self.clock
        self.clock = self.last_save = now
        scaler = self.device.accelerator.scaler
        if scaler is not None:
            self.progress.scaler = scaler.state_dict()
        tensors = {f"model.{name}": full_tensor(parameter.detach()) for name, parameter in self.parameters.items()}
        steps = {}
        for name, parameter in self.parameters.items():
            state = self.job.optimizer.state.get(parameter, {})
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{key}.{name}"] = full_tensor(value)
                else:
                    steps[name] = value
        if not self.device.is_main:
            return
        self.run.save_state(asdict(self.progress) | {"optimizer_steps": steps}, tensors)
        self.last_save = time.perf_counter()

    def _restore(self) -> None:
        """Loads the saved state into model and optimizer, before either is moved to its device."""
        saved = self.run.load_state()
        if saved is None:
            return
        state, tensors = saved
        steps = state.pop("optimizer_steps")
        state.pop("tensors")
        self.progress = Progress(**state)
        for key, tensor in tensors.items():
            owner, name = key.split(".", 1)
            if owner == "model":
                with torch.no_grad():
                    self.parameters[name].copy_(tensor)
            else:
                slot, name = name.split(".", 1)
                parameter = self.parameters[name]
                self.job.optimizer.state[parameter][slot] = tensor.to(parameter.device)
        for name, step in steps.items():
            self.job.optimizer.state[self.parameters[name]]["step"] = step
        if self.device.is_main:
            where = f"{self.job.unit} {self.progress.epoch + 1}, step {self.progress.step}"
            print(f"going on at {where}" + (f" of {self.n_updates}" if self.plan.time_budget is None else ""))

    # -- logging --------------------------------------------------------------------------------------------------

    def _open_logs(self) -> None:
        """Both logs, without what an earlier attempt logged after the state from which this one starts."""
        if self.device.is_main:
            from torch.utils.tensorboard import SummaryWriter

            with self.run.writing():
                self.run.cut_log(self.progress.step, self.progress.epoch)
                self.writer = SummaryWriter(str(self.run.tensorboard), purge_step=self.progress.step + 1)

    def _log_step(self, loss: float, norm: Tensor | None, examples_per_second: float, tokens_per_second: float) -> None:
        if not self.device.is_main:
            return
        rates = [group["lr"] for group in self.optimizer.param_groups]
        norms = {} if norm is None else {"grad_norm": round(float(norm), 4)}  # before it was clipped
        speeds = {"tokens_per_second": round(tokens_per_second, 1)}
        if self.job.peak_flops:
            speeds["share_of_peak"] = round(self._share_of_peak(tokens_per_second), 4)
        record = {
            "step": self.progress.step,
            "epoch": self.progress.epoch + 1,
            "loss": loss,
            "lr": rates,
            "examples_per_second": round(examples_per_second, 2),
            **speeds,
            **norms,
        }
        with self.run.writing():
            self.run.log(record)
            self.writer.add_scalar("train/loss", loss, self.progress.step)
            self.writer.add_scalar("train/lr", max(rates), self.progress.step)
            for name, value in (speeds | norms).items():
                self.writer.add_scalar(f"train/{name}", value, self.progress.step)

    def _log_epoch(self, improved: bool) -> None:
        if not self.device.is_main:
            return
        entry = self.progress.history[-1]
        with self.run.writing():
            self.run.log({"step": self.progress.step} | entry)
            for name, value in entry["dev"].items():
                self.writer.add_scalar(f"dev/{name}", value, self.progress.step)
            self.writer.flush()
        shown = self.job.shown or [name for name in entry["dev"] if name != "n"]
        scores = "  ".join(f"{name} {entry['dev'][name]:.3f}" for name in shown)
        speed = f"  {self._speed_text()}" if self.job.peak_flops else ""  # a log of hours should have it
        best = "  best so far" if improved else ""
        print(
            f"{self._name_of(entry['epoch'])}  train loss {entry['train_loss']:.3f}  dev {scores}  "
            f"{entry['seconds']:.1f} s{speed}{best}"
        )

    def _show_sample(self) -> None:
        if self.job.sample is None or self.device.sharded or not self.device.is_main:
            return
        text = self.job.sample(self.device.accelerator.unwrap_model(self.model))
        with self.run.writing():
            self.run.log({"step": self.progress.step, "epoch": self.progress.epoch + 1, "sample": text})
            self.writer.add_text("sample", text, self.progress.step)
        print(f"  {text!r}")
