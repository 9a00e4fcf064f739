"""What unlikelihood training costs beside plain training: steps of the 124M shape with random weights, in one run.

    python benchmarks/unlikelihood.py
    python benchmarks/unlikelihood.py --steps 2 --shape mini

Batches of 8 texts of 120 to 170 random tokens, about as long as sonnets. The ways take turns, step by step; the table
has the median. The published form, a (B, T, V) mask of earlier tokens over all logits, is the last row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from config import SIZES, GPT2Config
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from modules.cross_entropy import LEAST_COMPLEMENT
from modules.unlikelihood import earlier_tokens
from optimizer import AdamW
from training.device import open_device

BATCH, SHORTEST, LONGEST = 8, 120, 170


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--shape", choices=("mini", "small"), default="small")
    arguments = parser.parse_args()
    device = open_device(use_gpu=False)
    size = SIZES[arguments.shape]
    vocabulary = 50257 if arguments.shape == "small" else 8192
    torch.manual_seed(0)
    config = GPT2Config(vocabulary, size.context, size.dims, size.layers, size.heads)
    model = GPT2LanguageModel(GPT2Model(config)).train()
    optimizer = AdamW(model.parameters(), lr=1e-5)
    lengths = torch.linspace(SHORTEST, LONGEST, BATCH).long()
    ids = torch.randint(0, vocabulary, (BATCH, LONGEST + 1))
    mask = (torch.arange(LONGEST) < lengths[:, None]).long()
    input_ids, targets = ids[:, :-1], ids[:, 1:].masked_fill(mask == 0, -100)

    def plain() -> Tensor:
        return model(input_ids, targets, mask)

    def unlikelihood() -> Tensor:
        return model(input_ids, targets, mask, candidates=earlier_tokens(input_ids, targets))

    ways: dict[str, Callable[[], Tensor]] = {
        "cross-entropy": plain,
        "with unlikelihood": unlikelihood,
        "with a (B, T, V) mask": lambda: published(model, input_ids, targets, mask),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses = {}
    for step in range(arguments.steps + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            with device.accelerator.autocast():
                loss = way()
            loss.backward()
            if step:  # the first one allocates
                seconds[name].append(time.perf_counter() - started)
            losses[name] = loss.item()
            optimizer.zero_grad()
    print(
        f"{arguments.shape}, {int(mask.sum()):,} tokens a step, {device.description}, median of {arguments.steps} steps"
    )
    base = statistics.median(seconds["cross-entropy"])
    for name, found in seconds.items():
        median = statistics.median(found)
        print(f"{name:<24}{median:>8.2f} s {median / base:>6.2f}   loss {losses[name]:.1f}")


def published(model: GPT2LanguageModel, input_ids: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """The same loss by way of all probabilities and a mask over the vocabulary."""
    states = model.gpt2(input_ids, mask)["last_hidden_state"]
    log_p = model.gpt2.hidden_state_to_token(states).float().log_softmax(-1)  # (B, T, V)
    counted = targets != -100
    right = targets.clamp(min=0).unsqueeze(-1)
    candidates = torch.zeros_like(log_p)
    for step in range(input_ids.shape[1]):
        candidates[:, step].scatter_(1, input_ids[:, : step + 1], 1.0)
    candidates.scatter_(2, right, 0.0)
    candidates *= counted.unsqueeze(-1)
    unlikely = -(1.0 - log_p.exp()).clamp(min=LEAST_COMPLEMENT).log()
    return -(log_p.gather(2, right).squeeze(-1) * counted).sum() + (candidates * unlikely).sum()


if __name__ == "__main__":
    main()
