"""GPT-2 with a classification head on the last token."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from config import UserError
from models import checkpoint
from models.gpt2 import GPT2Model
from modules.dropout import Dropout


class GPT2Classifier(nn.Module):
    """The last real token's final hidden state -> dropout -> linear map to the classes, without a bias.

    This is ``transformers.GPT2ForSequenceClassification`` with dropout before its ``score``.
    """

    def __init__(self, gpt2: GPT2Model, num_labels: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.gpt2 = gpt2
        self.dropout = Dropout(dropout)
        self.score = nn.Linear(gpt2.config.n_embd, num_labels, bias=False)
        nn.init.normal_(self.score.weight, std=gpt2.config.initializer_range)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Token ids (B, T), or features (B, n_embd) that were computed before -> logits (B, num_labels), in fp32."""
        if features is None:
            assert input_ids is not None
            features = self.features(input_ids, attention_mask)
        # The head is too small to gain from lower precision, and its logits would be rounded to three digits.
        with torch.autocast(features.device.type, enabled=False):
            return self.score(self.dropout(features.float()))

    def features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, n_embd): what the head sees. With a frozen GPT-2 it is the same in every epoch."""
        return self.gpt2(input_ids, attention_mask)["last_token"]

    def layer_groups(self) -> dict[str, list[nn.Parameter]]:
        """GPT-2's groups from the bottom up, then the ``head``."""
        return self.gpt2.layer_groups() | {"head": list(self.score.parameters())}

    def save_pretrained(self, folder: Path, label_names: list[str]) -> None:
        """Writes the folder that ``transformers.GPT2ForSequenceClassification`` loads."""
        checkpoint.save_sequence_classifier(self.gpt2, self.score, label_names, folder)

    @classmethod
    def from_pretrained(cls, folder: Path, dropout: float = 0.3) -> GPT2Classifier:
        """Loads a folder that :meth:`save_pretrained` (or ``transformers``) wrote, head included.

        Raises:
            UserError: it is no GPT-2 classifier, or damaged.
        """
        gpt2 = GPT2Model.empty(checkpoint.read_config(folder))
        heads = checkpoint.load_into(gpt2, folder)
        if "score.weight" not in heads:
            raise UserError(f"{folder}: holds no classification head (tensor 'score.weight'); train a classifier first")
        classifier = cls(gpt2, num_labels=heads["score.weight"].shape[0], dropout=dropout)
        with torch.no_grad():
            classifier.score.weight.copy_(heads["score.weight"])
        return classifier.eval()
