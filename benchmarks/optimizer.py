"""AdamW's step for the 124M model against torch's fused form, measured alternately in one run.

python benchmarks/optimizer.py
python benchmarks/optimizer.py --weight-decay 0.01 --rounds 21
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config import GPT2Config
from models.gpt2 import GPT2Model
from optimizer import AdamW
from training.device import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weight-decay", type=float, default=0.0, help="for both optimizers (default: 0)")
    parser.add_argument("--rounds", type=int, default=11, help="steps of each optimizer (default: 11)")
    args = parser.parse_args()

    keep_freed_memory()
    torch.manual_seed(0)
    model = GPT2Model(GPT2Config())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    settings = {"lr": 1e-5, "eps": 1e-6, "weight_decay": args.weight_decay}
    optimizers = {
        "ours": AdamW(model.parameters(), **settings),
        "ours, written out": AdamW(model.parameters(), fused=False, **settings),
        "torch, fused": torch.optim.AdamW(model.parameters(), fused=True, **settings),
        "torch, default": torch.optim.AdamW(model.parameters(), **settings),
    }
    for optimizer in optimizers.values():  # creates the state
        optimizer.step()
    milliseconds: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(args.rounds):
        for name, optimizer in optimizers.items():
            milliseconds[name].append(time_of(optimizer.step))
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{count / 1e6:.0f}M parameters, {torch.get_num_threads()} threads, median of {args.rounds} steps")
    for name, values in milliseconds.items():
        print(f"{name:<18} {statistics.median(values):7.1f} ms")
    ratios = [ours / theirs for ours, theirs in zip(milliseconds["ours"], milliseconds["torch, fused"], strict=True)]
    print(f"ours / torch, fused: {statistics.median(ratios):.2f}")


def time_of(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1000


if __name__ == "__main__":
    main()
