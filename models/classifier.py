"""GPT-2 with a classification head, or answering in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from config import UserError
from models import checkpoint
from models.files import PREFIX_FILE, read_json, read_safetensors, write_tensors
from models.gpt2 import GPT2Model
from modules.cross_entropy import linear_cross_entropy
from modules.dropout import Dropout
from modules.lora import lora_state
from modules.pooling import LastPooling, make_pooling

HEAD_FILE, ADAPTER_FILE = "head.safetensors", "adapter.safetensors"


@dataclass(frozen=True)
class Head:
    """How the classes' logits are made from GPT-2's final states, and how they are trained.

    Attributes:
        pooling, mean_weight: see :mod:`modules.pooling`.
        dropout: before the linear map.
        dropout_samples: so many dropout masks at once (multi-sample dropout, Inoue 2019).
        dropout_average: "losses" as Inoue has it, "logits" as the published QQP runs do.
        label_smoothing: share of the target that is spread over all classes (Szegedy et al. 2016, section 7).
    """

    pooling: str = "last"
    mean_weight: float = 0.7
    dropout: float = 0.0
    dropout_samples: int = 1
    dropout_average: str = "logits"
    label_smoothing: float = 0.0


class GPT2Classifier(nn.Module):
    """Pooled final hidden states -> dropout -> linear map to the classes, without a bias.

    With the last token's state it is ``transformers.GPT2ForSequenceClassification`` with dropout before its ``score``.
    A frozen GPT-2 is computed without dropout.

    Args:
        class_weights: (num_labels,) what each class's examples count in the loss.
    """

    class_weights: Tensor | None

    def __init__(
        self, gpt2: GPT2Model, num_labels: int, head: Head | None = None, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.head = head or Head()
        self.gpt2 = gpt2
        self.gpt2_is_frozen = False
        self.pooling = make_pooling(self.head.pooling, gpt2.config.n_embd, self.head.mean_weight)
        self.dropout = Dropout(self.head.dropout)
        self.score = nn.Linear(self.pooling.width, num_labels, bias=False)
        nn.init.normal_(self.score.weight, std=gpt2.config.initializer_range)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def freeze_gpt2(self) -> None:
        """Leaves the head alone to train."""
        self.gpt2.requires_grad_(False)
        self.gpt2_is_frozen = True

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Token ids (B, T), or features (B, width) that were computed before.

        Returns:
            Logits (B, num_labels) in fp32; with ``labels`` (B,) the summed cross-entropy instead.
        """
        if features is None:
            assert input_ids is not None
            features = self.features(input_ids, attention_mask)
        # The head is too small to gain from lower precision, and its logits would be rounded to three digits.
        with torch.autocast(features.device.type, enabled=False):
            logits = self._logits(features.float())
            return logits.mean(0) if labels is None else self._loss(logits, labels)

    def features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, width): what the head sees. With a frozen GPT-2 it is the same in every epoch."""
        if self.gpt2_is_frozen:
            self.gpt2.eval()
        if isinstance(self.pooling, LastPooling):
            return self.gpt2.last_token(input_ids, attention_mask).float()
        states = self.gpt2(input_ids, attention_mask)
        return self.pooling(states["last_hidden_state"], states["last_token"], attention_mask)

    def _logits(self, features: Tensor) -> Tensor:
        """(B, width) -> (samples, B, num_labels): one sample, or in training one for each dropout mask."""
        samples = self.head.dropout_samples if self.training else 1
        return self.score(self.dropout(repeat(features, "b d -> k b d", k=samples)))

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.head.dropout_average == "logits":
            logits = logits.mean(0, keepdim=True)
        samples = len(logits)
        loss = F.cross_entropy(
            logits.flatten(0, 1),
            labels.repeat(samples),
            weight=self.class_weights,
            label_smoothing=self.head.label_smoothing,
            reduction="sum",
        )
        return loss / samples

    def layer_groups(self) -> dict[str, list[nn.Parameter]]:
        """GPT-2's groups from the bottom up, then the ``head``."""
        return self.gpt2.layer_groups() | {"head": list(self.head_parameters().values())}

    def save_pretrained(self, folder: Path, label_names: list[str]) -> None:
        """Writes the folder that :func:`load_classifier` reads.

        ``transformers.GPT2ForSequenceClassification`` loads it too, with the same logits, where it can compute them:
        from the last token's state, without a prefix. Otherwise it holds a plain GPT-2, with the head, and the prefix,
        beside it. LoRA's updates are merged into the weights, and also stored by themselves.
        """
        if self.head.pooling == "last" and self.gpt2.prefix is None:
            checkpoint.save_sequence_classifier(self.gpt2, self.score, label_names, folder)
        else:
            about = {"head": asdict(self.head), "label_names": label_names}
            checkpoint.save_language_model(self.gpt2, folder, extra={"classification": about})
            tensors = {name: p.detach().cpu().contiguous() for name, p in self.head_parameters().items()}
            write_tensors(folder / HEAD_FILE, tensors)
        updates = lora_state(self.gpt2)
        if updates:
            write_tensors(folder / ADAPTER_FILE, updates)

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Everything that is not GPT-2's."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("gpt2.")}


class GPT2Cloze(nn.Module):
    """The classes are words: GPT-2's probability of each as the next token decides (Schick & Schuetze 2021).

    It is trained as a language model is, on the cross-entropy of the right word over the whole vocabulary.

    Args:
        answer_ids: the token of each class.
    """

    answer_ids: Tensor

    def __init__(self, gpt2: GPT2Model, answer_ids: Sequence[int]) -> None:
        super().__init__()
        self.gpt2 = gpt2
        self.register_buffer("answer_ids", torch.tensor(answer_ids), persistent=False)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """As :meth:`GPT2Classifier.forward`; the logits are those of the answers."""
        if features is None:
            assert input_ids is not None
            features = self.features(input_ids, attention_mask)
        weight = self.gpt2.wte.weight
        if labels is not None:
            return linear_cross_entropy(features, weight, self.answer_ids[labels])
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features.float(), F.embedding(self.answer_ids, weight))

    def features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, n_embd): the last token's state."""
        return self.gpt2.last_token(input_ids, attention_mask)

    def layer_groups(self) -> dict[str, list[nn.Parameter]]:
        return self.gpt2.layer_groups()

    def save_pretrained(self, folder: Path, label_names: list[str]) -> None:
        """Writes a folder that ``transformers.GPT2LMHeadModel`` loads."""
        about = {"answer_ids": self.answer_ids.tolist(), "label_names": label_names}
        checkpoint.save_language_model(self.gpt2, folder, extra={"classification": about})


Classifier = GPT2Classifier | GPT2Cloze


def load_classifier(folder: Path) -> Classifier:
    """Loads a folder that ``save_pretrained`` (or ``transformers``) wrote, head, prefix and all, for use.

    Raises:
        UserError: it is no classifier made from a GPT-2, or damaged.
    """
    gpt2 = GPT2Model.empty(checkpoint.read_config(folder))
    heads = checkpoint.load_into(gpt2, folder)
    about: dict[str, Any] = read_json(folder / "config.json").get("classification", {})
    if "answer_ids" in about:
        return GPT2Cloze(gpt2, about["answer_ids"]).eval()
    if (folder / PREFIX_FILE).exists():
        gpt2.prefix = checkpoint.load_prefix(folder / PREFIX_FILE, gpt2.config)
    if "head" in about:
        heads = read_safetensors(folder / HEAD_FILE)
    if "score.weight" not in heads:
        raise UserError(f"{folder}: holds no classification head (tensor 'score.weight'); train a classifier first")
    classifier = GPT2Classifier(gpt2, len(heads["score.weight"]), Head(**about.get("head", {})))
    own = classifier.head_parameters()
    wrong = [name for name in own if name not in heads or heads[name].shape != own[name].shape]
    if wrong:
        raise UserError(f"{folder / HEAD_FILE}: lacks {', '.join(wrong)} in the right shape; train it again")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(heads[name])
    return classifier.eval()
