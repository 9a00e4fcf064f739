"""GPT-2 as a language model: the loss of the next token, in training and in evaluation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.generation import generate, ready
from models.gpt2 import GPT2Model
from models.logits import Decoding
from modules.cross_entropy import IGNORED, linear_cross_entropy, token_losses
from modules.layout import TokenLayout


class GPT2LanguageModel(nn.Module):
    """A GPT-2 whose output is the tied embedding (Radford et al. 2019)."""

    def __init__(self, gpt2: GPT2Model) -> None:
        super().__init__()
        self.gpt2 = gpt2

    def forward(
        self,
        input_ids: Tensor,
        targets: Tensor,
        attention_mask: Tensor | None = None,
        candidates: Tensor | None = None,
        alpha: float = 1.0,
    ) -> Tensor:
        """The summed loss of a padded batch.

        Args:
            input_ids: (B, T) token ids.
            targets: (B, T) the token that follows each; -100 counts for nothing, whatever stands at padding neither.
            attention_mask: (B, T), 1 for real tokens and 0 for padding; None means that all are real.
            candidates: (B, T, C) tokens that each step should not say, for unlikelihood training with weight ``alpha``:
                see :mod:`modules.unlikelihood`.

        Returns:
            The sum of -log p(target) in nats, a scalar in fp32; with candidates, that of alpha * -log(1 - p(candidate))
            is added.
        """
        layout = TokenLayout.of_batch(input_ids, attention_mask)
        packed = layout.pack(targets)
        counts = packed != IGNORED
        if candidates is not None:
            candidates = candidates.flatten(0, 1).index_select(0, layout.token_index)
            counts = counts | (candidates != IGNORED).any(dim=1)
        counted = None
        if not bool(counts.all()):
            counted = counts.nonzero().squeeze(1)
            packed, candidates = packed[counted], None if candidates is None else candidates[counted]
        hidden = self.gpt2.encode(layout.pack(input_ids), layout, counted)
        return linear_cross_entropy(hidden, self.gpt2.wte.weight, packed, candidates, alpha)

    @torch.no_grad()
    def token_losses(
        self, input_ids: Tensor, targets: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Each token's loss, by the same arguments. Logits are made only where a target counts.

        Returns:
            (B, T) losses in nats, and (B, T) whether the target was the likeliest token; 0 and False where there is
            none.
        """
        layout = TokenLayout.of_batch(input_ids, attention_mask)
        packed = layout.pack(targets)
        counted = (packed != IGNORED).nonzero().squeeze(1)
        hidden = self.gpt2.encode(layout.pack(input_ids), layout, counted)
        counted_losses, counted_hits = token_losses(hidden, self.gpt2.wte.weight, packed[counted])
        losses = counted_losses.new_zeros(len(packed)).index_copy(0, counted, counted_losses)
        hits = counted_hits.new_zeros(len(packed)).index_copy(0, counted, counted_hits)
        return layout.unpack(losses[:, None]).squeeze(-1), layout.unpack(hits[:, None]).squeeze(-1)

    @torch.no_grad()
    def sample(
        self, prompt: list[int], n_tokens: int, temperature: float, top_k: int, generator: torch.Generator
    ) -> list[int]:
        """Continues a prompt by drawing each token among the ``top_k`` likeliest.

        Returns:
            Prompt and continuation. No token beyond the model's context is read: where it is full, the text goes on
            from the latter half of it.
        """
        gpt2, context = ready(self.gpt2), self.gpt2.max_tokens
        ids, length = list(prompt), len(prompt) + n_tokens
        while len(ids) < length and context > 1:
            start = ids[-context:] if len(ids) < context else ids[-max(context // 2, 1) :]
            seed = int(torch.randint(2**62, (), generator=generator))
            decoding = Decoding(temperature=temperature, top_k=top_k)
            (new,) = generate(gpt2, [start], decoding, seeds=[seed], max_new_tokens=length - len(ids))
            ids += new
        return ids
