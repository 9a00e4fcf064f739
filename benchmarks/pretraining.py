"""Pretraining speed beside transformers' GPT2LMHeadModel in a plain loop, in one run.

    python benchmarks/pretraining.py --shapes 6x256 small

Ours is what pretrain.py computes per update: forward, loss, backward, clipping, AdamW. The peer is GPT2LMHeadModel with
``labels``, torch's fused AdamW and the same clipping, under the same autocast. Same shape, precision, batch and random
tokens; each in a process of its own, turn by turn, several rounds. The peer's attention is transformers' default (SDPA)
and once more "eager". Rates count tokens over the updates after the first two; the share is of what bf16 or fp32
matrix products reached in the same process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {"6x256": (6, 4, 256, 512, 8192, 16), "small": (12, 12, 768, 1024, 50257, 1)}  # and sequences per batch
COMMON = """
import json, sys, time
import torch
side, precision, layers, heads, dims, context, vocab, batch, updates = sys.argv[1:3] + [int(x) for x in sys.argv[3:10]]
torch.manual_seed(0)
tokens = torch.randint(0, vocab, (updates + 2, batch, context + 1))
autocast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
"""
TIMED = """
started = 0.0
for number, rows in enumerate(tokens):
    if number == 2:
        started = time.perf_counter()
    update(rows)
rate = updates * batch * context / (time.perf_counter() - started)
matrices = torch.randn(2, 2048, 2048).to(torch.bfloat16 if precision == "bf16" else torch.float32)
best = 1e9
for _ in range(10):
    began = time.perf_counter()
    matrices[0] @ matrices[1]
    best = min(best, time.perf_counter() - began)
print(json.dumps({"rate": rate, "peak": 2 * 2048**3 / best}))
"""
OURS = (
    COMMON
    + """
from config import GPT2Config
from models.gpt2 import GPT2Model
from models.language_model import GPT2LanguageModel
from optimizer import AdamW, parameter_groups
from training.device import keep_freed_memory
keep_freed_memory()
torch.use_deterministic_algorithms(True)
torch.utils.deterministic.fill_uninitialized_memory = False
drops = dict(embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0)
model = GPT2LanguageModel(GPT2Model(GPT2Config(vocab, context, dims, layers, heads, **drops)))
optimizer = AdamW(parameter_groups(model.gpt2.layer_groups(), model, 1e-3, 0.1), lr=1e-3, betas=(0.9, 0.95), eps=1e-8)

def update(rows):
    with autocast():
        loss = model(rows[:, :-1], rows[:, 1:])
    (loss / rows[:, 1:].numel()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
"""
    + TIMED
)
PEER = (
    COMMON
    + """
from transformers import GPT2Config, GPT2LMHeadModel
config = GPT2Config(vocab_size=vocab, n_positions=context, n_embd=dims, n_layer=layers, n_head=heads, embd_pdrop=0.0,
                    attn_pdrop=0.0, resid_pdrop=0.0, bos_token_id=0, eos_token_id=0)
config._attn_implementation = side
model = GPT2LMHeadModel(config).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

def update(rows):
    with autocast():
        loss = model(input_ids=rows[:, 1:], labels=rows[:, 1:], use_cache=False).loss  # shifts the labels itself
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
"""
    + TIMED
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=tuple(SHAPES), default=["6x256"])
    parser.add_argument("--precisions", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"])
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{'shape':<7}{'precision':<11}{'':<26}{'tokens/s':>10}{'of peak':>9}{'ours / peer':>13}")
    for shape in arguments.shapes:
        for precision in arguments.precisions:
            sides = {"ours": OURS, "transformers, sdpa": PEER, "transformers, eager": PEER}
            found: dict[str, list[dict]] = {name: [] for name in sides}
            for _ in range(arguments.rounds):
                for name, code in sides.items():
                    side = name.removeprefix("transformers, ")
                    found[name].append(measure(code, side, precision, SHAPES[shape], arguments.updates))
            ours = statistics.median(one["rate"] for one in found["ours"])
            for name, rounds in found.items():
                rate = statistics.median(one["rate"] for one in rounds)
                share = rate * flops_per_token(*SHAPES[shape][:5]) / max(one["peak"] for one in rounds)
                print(f"{shape:<7}{precision:<11}{name:<26}{rate:>10,.0f}{share:>9.0%}{ours / rate:>13.2f}", flush=True)


def flops_per_token(layers: int, heads: int, dims: int, context: int, vocab: int) -> float:
    """As :func:`training.language_models.pretraining.flops_per_token` counts them."""
    return 3 * (layers * (24 * dims**2 + 2 * dims * context) + 2 * dims * vocab)


def measure(code: str, side: str, precision: str, shape: tuple[int, ...], updates: int) -> dict:
    """One process: ours from the repository, the peer with no file of this project in sight."""
    path = [] if side == "ours" else ["-P"]
    command = [sys.executable, *path, "-c", code, side, precision, *map(str, shape), str(updates)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT if side == "ours" else "/")
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
