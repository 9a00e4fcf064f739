"""The one training loop.

A task script brings the data, the model, the loss and the metric as a :class:`Job`; everything that must not differ
between tasks is here: order, accumulation, precision, clipping, evaluation, the best model, saving, resuming, logging.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from config import RunFailed
from training.device import Device, derive_seed
from training.interrupt import Interrupted, Signals
from training.run_folder import RunFolder

_CALM = "try a smaller --lr, --max-grad-norm 1, or --precision fp32"


@dataclass(frozen=True)
class Job:
    """What a task gives to the loop.

    Attributes:
        model: the module whose forward pass is trained.
        optimizer: over the model's trainable parameters; its groups hold their own ``base_lr``.
        n_examples: size of the training set.
        example_ids: the training examples' ids, for messages.
        loss: (model, indices of training examples) -> the sum of their losses, with gradient.
        count_items: indices -> how many items (examples, or target tokens) that sum is over.
        count_tokens: indices -> how many real tokens the model reads for them.
        evaluate: model -> metrics on the dev set, plain numbers.
        score: the metric that decides which epoch is best; larger is better.
        save_best: writes the model into a folder.
        schedule: (step, total steps) -> factor on every group's rate.
    """

    model: nn.Module
    optimizer: Optimizer
    n_examples: int
    example_ids: list[str]
    loss: Callable[[nn.Module, list[int]], Tensor]
    count_items: Callable[[list[int]], int]
    count_tokens: Callable[[list[int]], int]
    evaluate: Callable[[nn.Module], dict[str, float]]
    score: str
    save_best: Callable[[Path], None]
    schedule: Callable[[int, int], float]


@dataclass(frozen=True)
class Plan:
    """How long and in which portions the loop trains."""

    epochs: int
    batch_size: int
    accumulate: int
    max_grad_norm: float | None
    patience: int | None
    seed: int
    save_every_minutes: float


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
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    best_folder: str | None = None
    finished: bool = False
    scaler: dict[str, Any] | None = None

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
        RunFailed: a loss was not finite, or the disk is full; ``failed.json`` says so.
    """
    return _Loop(job, plan, run, device, signals, started or time.perf_counter()).run_to_the_end()


def epoch_order(seed: int, epoch: int, n_examples: int) -> list[int]:
    """The order of the training examples in an epoch, counted from 1: a function of seed and epoch alone."""
    generator = torch.Generator().manual_seed(derive_seed("order", seed, epoch))
    return torch.randperm(n_examples, generator=generator).tolist()


class _Loop:
    def __init__(self, job: Job, plan: Plan, run: RunFolder, device: Device, signals: Signals, started: float) -> None:
        self.job, self.plan, self.run, self.device, self.signals = job, plan, run, device, signals
        self.progress = Progress()
        self.parameters = {name: p for name, p in job.model.named_parameters() if p.requires_grad}
        self.windows_per_epoch = math.ceil(job.n_examples / (plan.batch_size * plan.accumulate))
        self.total_steps = plan.epochs * self.windows_per_epoch
        self.log_every = max(1, self.windows_per_epoch // 50)
        self._restore()
        self.model, self.optimizer = device.accelerator.prepare(job.model, job.optimizer)
        scaler = device.accelerator.scaler
        if scaler is not None and self.progress.scaler is not None:
            scaler.load_state_dict(self.progress.scaler)
        self.clock = started
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
                    self._end_epoch()
        except Interrupted as interrupted:
            if not interrupted.at_check:  # a second signal, perhaps in the middle of an update: the saved state holds
                raise
            self._save()
            raise Interrupted(interrupted.signal_number, "interrupted; the state is saved") from None
        except RunFailed as failure:
            if self.device.is_main:
                self.run.fail(failure.problems[0], self.progress.step)
            raise
        finally:
            if self.writer is not None:
                with suppress(OSError):  # a full disk has been reported by then
                    self.writer.close()
        return self.progress

    def _train_epoch(self) -> None:
        epoch = self.progress.epoch + 1
        order = epoch_order(self.plan.seed, epoch, self.job.n_examples)
        size = self.plan.batch_size * self.plan.accumulate
        self.model.train()
        bar = tqdm(
            total=self.job.n_examples,
            initial=min(self.progress.window * size, self.job.n_examples),
            desc=f"epoch {epoch}/{self.plan.epochs}",
            unit="ex",
            leave=False,
            dynamic_ncols=True,
            disable=None if self.device.is_main else True,
        )
        with bar:
            for window in range(self.progress.window, self.windows_per_epoch):
                self._pause_if_asked()
                indices = order[window * size : (window + 1) * size]
                loss = self._update(indices)
                bar.update(len(indices))
                bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)

    def _update(self, indices: list[int]) -> float:
        """One optimizer step over a window of batches. Returns the window's mean loss per item."""
        started = time.perf_counter()
        progress = self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.job.schedule(progress.step, self.total_steps)
        size = self.plan.batch_size
        batches = [indices[i : i + size] for i in range(0, len(indices), size)]
        items = self.job.count_items(indices)
        loss_sum = 0.0
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with self.device.accelerator.no_sync(self.model) if not last else nullcontext():
                loss_sum += self._backward(batch, items, number)
        loss = loss_sum / items
        if not math.isfinite(loss):
            ids = ", ".join(self.job.example_ids[i] for i in indices[:8])
            more = f" and {len(indices) - 8} more" if len(indices) > 8 else ""
            raise RunFailed(
                f"the loss became {loss} at step {progress.step + 1} (epoch {progress.epoch + 1}, examples {ids}{more}"
                f"); {_CALM}"
            )
        if self.plan.max_grad_norm is not None:
            self.device.accelerator.clip_grad_norm_(list(self.parameters.values()), self.plan.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

        progress.window += 1
        progress.step += 1
        progress.loss_sum += loss_sum
        progress.items += items
        progress.examples += len(indices)
        progress.tokens += self.job.count_tokens(indices)
        seconds = time.perf_counter() - started
        progress.epoch_seconds += seconds
        progress.train_seconds += seconds
        if progress.step % self.log_every == 0 or progress.window == self.windows_per_epoch:
            self._log_step(loss, len(indices) / seconds)
        return loss

    def _backward(self, batch: list[int], items: int, number: int) -> float:
        """Adds one batch's gradient, as its share of the window. Returns the batch's summed loss over all processes."""
        rank, world = self.device.rank, self.device.world_size
        place = (self.progress.epoch, self.progress.window, number, rank)
        torch.manual_seed(derive_seed("dropout", self.plan.seed, *place))
        mine = batch[rank::world]
        # A process without an example in a small last batch takes part with weight 0: gradients are exchanged by all.
        loss = self.job.loss(self.model, mine or batch[:1]) * (1.0 if mine else 0.0)
        # DDP takes the mean over processes, so the sum over this window's items needs the number of processes back.
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
        self.signals.check()
        for name, value in dev.items():
            if not math.isfinite(value):
                raise RunFailed(f"the dev set's {name} became {value} in epoch {epoch} (step {progress.step}); {_CALM}")
        progress.history.append(
            {
                "epoch": epoch,
                "train_loss": progress.loss_sum / progress.items,
                "dev": dev,
                "seconds": round(progress.epoch_seconds, 3),
            }
        )
        improved = progress.best_epoch is None or dev[self.job.score] > progress.best_metrics[self.job.score]
        if improved:
            progress.best_epoch, progress.best_folder = epoch, f"best-{epoch}"
        self._log_epoch(improved)
        progress.epoch, progress.window = epoch, 0
        progress.loss_sum, progress.items, progress.epoch_seconds = 0.0, 0, 0.0
        out_of_patience = (
            self.plan.patience is not None and epoch - (progress.best_epoch or epoch) >= self.plan.patience
        )
        progress.finished = epoch == self.plan.epochs or out_of_patience
        if improved and self.device.is_main:
            with self.run.writing():
                self.job.save_best(self.run.checkpoint / f"best-{epoch}")
        if improved or progress.finished:
            self._save()

    def _pause_if_asked(self) -> None:
        """Stops at a signal, and saves when it is time to. Called between updates, when gradients are zero."""
        self.signals.check()
        if time.perf_counter() - self.last_save > self.plan.save_every_minutes * 60:
            self._save()

    # -- state ----------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        now = time.perf_counter()
        self.progress.total_seconds += now - self.clock
        self.clock = self.last_save = now
        if not self.device.is_main:
            return
        scaler = self.device.accelerator.scaler
        if scaler is not None:
            self.progress.scaler = scaler.state_dict()
        tensors = {f"model.{name}": parameter.detach() for name, parameter in self.parameters.items()}
        steps = {}
        for name, parameter in self.parameters.items():
            state = self.job.optimizer.state.get(parameter, {})
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{key}.{name}"] = value
                else:
                    steps[name] = value
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
            print(f"going on at epoch {self.progress.epoch + 1}, step {self.progress.step} of {self.total_steps}")

    # -- logging --------------------------------------------------------------------------------------------------

    def _open_logs(self) -> None:
        """Both logs, without what an earlier attempt logged after the state from which this one starts."""
        if self.device.is_main:
            from torch.utils.tensorboard import SummaryWriter

            with self.run.writing():
                self.run.cut_log(self.progress.step, self.progress.epoch)
                self.writer = SummaryWriter(str(self.run.tensorboard), purge_step=self.progress.step + 1)

    def _log_step(self, loss: float, examples_per_second: float) -> None:
        if not self.device.is_main:
            return
        rates = [group["lr"] for group in self.optimizer.param_groups]
        record = {
            "step": self.progress.step,
            "epoch": self.progress.epoch + 1,
            "loss": loss,
            "lr": rates,
            "examples_per_second": round(examples_per_second, 2),
        }
        with self.run.writing():
            self.run.log(record)
            self.writer.add_scalar("train/loss", loss, self.progress.step)
            self.writer.add_scalar("train/lr", max(rates), self.progress.step)

    def _log_epoch(self, improved: bool) -> None:
        if not self.device.is_main:
            return
        entry = self.progress.history[-1]
        with self.run.writing():
            self.run.log({"step": self.progress.step} | entry)
            for name, value in entry["dev"].items():
                self.writer.add_scalar(f"dev/{name}", value, self.progress.step)
            self.writer.flush()
        scores = "  ".join(f"{name} {value:.3f}" for name, value in entry["dev"].items() if name != "n")
        best = "  best so far" if improved else ""
        print(
            f"epoch {entry['epoch']}/{self.plan.epochs}  train loss {entry['train_loss']:.3f}  dev {scores}  "
            f"{entry['seconds']:.1f} s{best}"
        )
