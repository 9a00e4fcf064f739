"""A classification task as the training loop sees it: batches, loss, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from config import ClassificationSettings
from datasets import Example, collate
from models.classifier import Classifier
from models.comparator import Comparator
from optimizer import AdamW
from training.classification.metrics import classification_metrics
from training.device import Device
from training.fine_tuning import make_epoch_hook, make_schedule, optimizer_groups_of
from training.interrupt import Check
from training.loop import Job, epoch_order

MIN_PREDICTION_BATCH = 16


@dataclass
class EncodedSplit:
    """One split as the model sees it; with a frozen model, ``features`` replace the tokens.

    Attributes:
        batch: makes a comparator's arguments from the examples' numbers; GPT-2 takes tokens and their mask.
        swapped: of pairs, the same in the other order, whose probabilities are averaged with the first order's.
    """

    examples: Sequence[Example]
    tokens: list[list[int]]
    features: Tensor | None = None  # (n, width)
    swapped: EncodedSplit | None = None
    batch: Callable[[Sequence[int]], dict[str, Tensor]] | None = None

    @property
    def labels(self) -> list[int] | None:
        labels = [example.label for example in self.examples]
        return None if any(label is None for label in labels) else labels  # type: ignore[return-value]

    def inputs(self, indices: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """The classifier's arguments for some of the examples."""
        if self.features is not None:
            return {"features": self.features[list(indices)]}
        if self.batch is not None:
            return {name: tensor.to(device) for name, tensor in self.batch(indices).items()}
        input_ids, attention_mask = collate([self.tokens[i] for i in indices])
        return {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}


def cache_features(
    classifier: Classifier | Comparator, splits: dict[str, EncodedSplit], batch_size: int, device: Device, check: Check
) -> None:
    """Runs the frozen model once over every sentence, without dropout."""
    classifier.to(device.accelerator.device).eval()
    for split in [*splits.values(), *(split.swapped for split in splits.values() if split.swapped)]:
        batches = []
        for start in range(0, len(split.tokens), batch_size):
            check()
            indices = range(start, min(start + batch_size, len(split.tokens)))
            with torch.no_grad(), device.accelerator.autocast():
                batches.append(classifier.features(**split.inputs(indices, device.accelerator.device)).float())
        split.features = torch.cat(batches)


def make_job(
    classifier: Classifier | Comparator,
    splits: dict[str, EncodedSplit],
    settings: ClassificationSettings,
    device: Device,
    check: Check,
    save_best: Callable[[Path], None],
) -> Job:
    """Cross-entropy on the training split, scored by dev accuracy."""
    train, dev = splits["train"], splits["dev"]
    labels = torch.tensor(train.labels)
    assert settings.lr is not None and settings.batch_size is not None
    groups = optimizer_groups_of(classifier.layer_groups(), classifier, settings, settings.lr)

    def loss(model: nn.Module, indices: list[int]) -> Tensor:
        where = device.accelerator.device
        return model(**train.inputs(indices, where), labels=labels[indices].to(where))

    def evaluate(model: nn.Module) -> dict[str, float]:
        probabilities = predict(model, dev, settings, device, check)
        return classification_metrics(np.array(dev.labels), probabilities)

    return Job(
        model=classifier,
        optimizer=AdamW(groups, lr=settings.lr),
        n_examples=len(train.examples),
        order=lambda epoch: epoch_order(settings.seed, epoch, len(train.examples)),
        name=lambda i: train.examples[i].id,
        loss=loss,
        count_items=len,
        count_tokens=lambda indices: 0 if train.features is not None else sum(len(train.tokens[i]) for i in indices),
        evaluate=evaluate,
        score="accuracy",
        shown=("accuracy", "macro_f1", "loss"),
        save_best=save_best,
        schedule=make_schedule(settings),
        begin_epoch=make_epoch_hook(classifier, settings),
    )


def predict(
    model: nn.Module, split: EncodedSplit, settings: ClassificationSettings, device: Device, check: Check
) -> np.ndarray:
    """Class probabilities (n, n_classes) of every example of a split; the processes of a run share the work.

    Of pairs that were encoded in both orders, the mean of both.
    """
    if split.swapped is not None:
        one_order = replace(split, swapped=None)
        return (
            predict(model, one_order, settings, device, check) + predict(model, split.swapped, settings, device, check)
        ) / 2
    model.eval()
    batch_size = max(MIN_PREDICTION_BATCH, settings.batch_size or 0)
    mine = list(range(len(split.examples)))[device.rank :: device.world_size]
    found: list[tuple[list[int], np.ndarray]] = []
    for start in range(0, len(mine), batch_size):
        check()
        indices = mine[start : start + batch_size]
        with torch.no_grad(), device.accelerator.autocast():
            logits = model(**split.inputs(indices, device.accelerator.device))
        found.append((indices, logits.cpu().double().softmax(dim=-1).numpy()))
    if device.world_size > 1:
        found = gather_object(found)
    probabilities = np.empty((len(split.examples), found[0][1].shape[1]))
    for indices, values in found:
        probabilities[indices] = values
    return probabilities
