"""Forward and backward of one attention layer (124M: 12 heads of 64) in its three forms, to back `choose_attention`.

    python benchmarks/attention.py
    python benchmarks/attention.py --tokens 4096 --repeats 9
    python benchmarks/attention.py --forward-only

Every row has about the same number of tokens, cut into sequences of one length. Prints milliseconds (the median,
the forms measured alternately) and, in brackets, the MB that the form keeps for its backward pass; * marks the form
that `choose_attention` takes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from modules.attention import Attention, batched_attention, choose_attention, fused_attention, softmax_attention
from modules.dropout import Dropout
from training.device import keep_freed_memory

FORMS: dict[str, Attention] = {"plain": softmax_attention, "batched": batched_attention, "fused": fused_attention}
LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)
N_HEAD, HEAD_DIM = 12, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of all sequences together (default: 2048)")
    parser.add_argument("--repeats", type=int, default=7, help="timings of each cell (default: 7)")
    parser.add_argument("--forward-only", action="store_true", help="without gradients, as in evaluation")
    args = parser.parse_args()

    keep_freed_memory()
    print(f"{torch.get_num_threads()} threads, about {args.tokens} tokens, median of {args.repeats}")
    print(f"{'dtype':<9} {'dropout':<8} {'length':>6} {'count':>5}" + "".join(f" {name:>17}" for name in FORMS))
    for dtype in (torch.float32, torch.bfloat16):
        for p in (0.0,) if args.forward_only else (0.0, 0.1):
            for length in LENGTHS:
                print_row(length, max(1, args.tokens // length), dtype, Dropout(p), args.repeats, not args.forward_only)


def print_row(length: int, count: int, dtype: torch.dtype, dropout: Dropout, repeats: int, train: bool) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(count, length, 3 * N_HEAD * HEAD_DIM, dtype=dtype, requires_grad=train)
    upstream = torch.randn(count, length, N_HEAD * HEAD_DIM, dtype=dtype)
    chosen = choose_attention(heads(qkv)[0], dropout)
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    for repeat in range(repeats + 1):
        for name, form in FORMS.items():
            start = time.perf_counter()
            attended = attend(form, qkv, dropout)
            if train:
                attended.backward(upstream)
            if repeat > 0:  # the first is a warm-up
                times[name].append((time.perf_counter() - start) * 1000)
    cells = []
    for name, form in FORMS.items():
        megabytes = saved_bytes(form, qkv, dropout) / 1e6
        cells.append(f"{statistics.median(times[name]):9.2f} ({megabytes:4.0f}){'*' if form is chosen else ' '}")
    name = str(dtype).removeprefix("torch.")
    print(f"{name:<9} {dropout.p:<8} {length:>6} {count:>5}" + "".join(f" {cell:>17}" for cell in cells), flush=True)


def heads(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = rearrange(qkv, "b t (three h d) -> three b h t d", three=3, h=N_HEAD)
    return query, key, value


def attend(form: Attention, qkv: Tensor, dropout: Dropout) -> Tensor:
    return rearrange(form(*heads(qkv), dropout), "b h t d -> b t (h d)")


def saved_bytes(form: Attention, qkv: Tensor, dropout: Dropout) -> int:
    """What autograd keeps, the input aside."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() != qkv.untyped_storage().data_ptr():
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = attend(form, qkv, dropout)
    del result
    return sum(kept.values())


if __name__ == "__main__":
    main()
