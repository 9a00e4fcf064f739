"""Speed of generation beside transformers and beside reading everything again: the 124M shape with random weights.

    python benchmarks/generation.py
    python benchmarks/generation.py --beginnings data/sonnets_held_out.txt
    python benchmarks/generation.py --prompts 4 --new-tokens 20

All continue the same prompts, always with the likeliest token: random tokens, 25 to 35 of them, or with --beginnings
the first lines of poems, in the tokens of the bundled model. transformers' `generate` takes the whole batch at its fp32
defaults, in a process of its own; both write three tokens before the time is taken. Ours makes the model ready first
(packs its weights), once for many calls; counted with that, a batch has a row of its own. The last row is how course
code often begins: one prompt after the other, without a cache, all positions and their logits anew for each token;
measured on fewer prompts. The texts are compared. All take turns, for some rounds.

Then the rate of a single text, as a share of what reading all weights once per token would allow at the speed at which
this machine sums a large tensor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from config import GPT2Config  # noqa: E402
from models.checkpoint import read_config  # noqa: E402
from models.generation import generate, ready  # noqa: E402
from models.gpt2 import GPT2Model  # noqa: E402
from models.logits import Decoding  # noqa: E402
from models.tokenizer import load_tokenizer  # noqa: E402
from poetry.sonnets import read_sonnets  # noqa: E402
from training.device import open_device  # noqa: E402
from training.writing.poems import beginning  # noqa: E402

PEER_NAME = "transformers, fp32"
# Run with -P in an empty folder, where it can't find this project's files.
PEER = """
import json, sys, time
import torch
from transformers import AutoModelForCausalLM
folder, prompts, new_tokens, device = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
width = max(map(len, prompts))
ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)
mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
options = dict(attention_mask=mask, do_sample=False, pad_token_id=0)
model.generate(ids, max_new_tokens=3, **options)
start = time.perf_counter()
found = model.generate(ids, max_new_tokens=new_tokens, **options)[:, width:].tolist()
print(json.dumps({"seconds": time.perf_counter() - start, "texts": found}))
"""
GREEDY = Decoding(temperature=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=12, help="texts in the batch (default: 12)")
    parser.add_argument("--beginnings", type=Path, metavar="FILE", help="poems to continue, instead of random tokens")
    parser.add_argument("--new-tokens", type=int, default=130, help="tokens of each continuation (default: 130)")
    parser.add_argument("--rounds", type=int, default=3, help="times that all are measured in turn (default: 3)")
    parser.add_argument("--uncached-prompts", type=int, default=1, help="texts of the last row; 0 leaves it out")
    parser.add_argument("--use-gpu", action="store_true", help="on the GPU instead of the CPU")
    arguments = parser.parse_args()

    device = open_device(arguments.use_gpu)
    torch.manual_seed(0)
    gpt2 = GPT2Model(GPT2Config()).eval()
    length = arguments.new_tokens
    prompts = random_prompts(arguments.prompts)
    if arguments.beginnings is not None:
        prompts = read_beginnings(arguments.beginnings)[: arguments.prompts]
    seconds: dict[str, list[float]] = defaultdict(list)
    equal = 0
    with tempfile.TemporaryDirectory() as folder:
        gpt2.save_pretrained(folder)
        gpt2.to(device.accelerator.device)
        for _ in range(arguments.rounds):
            peer = time_peer(Path(folder), prompts, length, device.accelerator.device.type)
            seconds[PEER_NAME].append(peer["seconds"])
            for dtype in dtypes(device.precision):
                packing, generating, texts = time_ours(gpt2, dtype, prompts, length)
                name = f"ours, {name_of(dtype)}"
                seconds[name].append(generating)
                seconds[f"{name}, with packing"].append(packing + generating)
            equal = sum(ours == theirs for ours, theirs in zip(texts, peer["texts"], strict=True))

    kind = "of random tokens" if arguments.beginnings is None else f"of {arguments.beginnings.name}"
    what = f"{len(prompts)} prompts {kind}, {min(map(len, prompts))} to {max(map(len, prompts))} tokens"
    print(f"{what}, {length} new tokens each, {device.description}, torch {torch.__version__}")
    print(f"{f'median of {arguments.rounds} rounds':<28}{'seconds':>9}{'tokens/s':>10}{'ratio':>8}{'each round':>18}")
    for name, times in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(seconds[PEER_NAME], times, strict=True)]
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        rate = len(prompts) * length / median(times)
        print(f"{name:<28}{median(times):>9.2f}{rate:>10.1f}{median(ratios):>8.2f}{each:>18}", flush=True)
    if arguments.uncached_prompts:
        uncached = prompts[: arguments.uncached_prompts]
        rate = len(uncached) * length / time_uncached(gpt2, uncached, length)
        base = len(prompts) * length / median(seconds[PEER_NAME])
        print(f"{'whole text again, fp32':<28}{'':>9}{rate:>10.1f}{rate / base:>8.2f}", flush=True)
    print(f"{equal} of {len(prompts)} texts are token by token those of {PEER_NAME}")

    bandwidth = measure_bandwidth(device.accelerator.device)
    print(f"\na single text, at {bandwidth / 1e9:.1f} GB/s")
    print(f"{'':<28}{'weights':>9}{'tokens/s':>10}{'limit':>8}{'share':>8}")
    for dtype in dtypes(device.precision):
        size = weight_bytes(gpt2, dtype)
        rate, limit = single_rate(ready(gpt2, dtype), prompts[0], arguments.new_tokens), bandwidth / size
        print(
            f"ours, {name_of(dtype):<22}{size / 1e6:>6.0f} MB{rate:>10.1f}{limit:>8.1f}{rate / limit:>8.0%}", flush=True
        )


def random_prompts(count: int) -> list[list[int]]:
    """Between 25 and 35 tokens each."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(25, 36, (count,), generator=generator).tolist()
    return [torch.randint(50257, (length,), generator=generator).tolist() for length in lengths]


def read_beginnings(path: Path) -> list[list[int]]:
    """The first three lines of each poem, after the end token; ids of the bundled vocabulary fit GPT-2's larger one."""
    folder = ROOT / "data" / "checkpoints" / "mini"
    config = read_config(folder)
    tokenizer = load_tokenizer(folder, config)
    texts = [beginning(poem).prompt for poem in read_sonnets(path)]
    return [[config.eos_token_id, *ids] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def time_ours(
    gpt2: GPT2Model, dtype: torch.dtype, prompts: list[list[int]], new_tokens: int
) -> tuple[float, float, list[list[int]]]:
    """Seconds of packing, seconds of writing, and what was written."""
    start = time.perf_counter()
    fast = ready(gpt2, dtype)
    packing = time.perf_counter() - start
    generate(fast, prompts, GREEDY, max_new_tokens=3)
    start = time.perf_counter()
    texts = generate(fast, prompts, GREEDY, max_new_tokens=new_tokens)
    return packing, time.perf_counter() - start, texts


def dtypes(precision: str) -> list[torch.dtype]:
    """fp32, after the type that the hardware is made for."""
    return [torch.bfloat16, torch.float32] if precision == "bf16" else [torch.float32]


def name_of(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]


def time_peer(checkpoint: Path, prompts: list[list[int]], new_tokens: int, device: str) -> dict:
    command = [sys.executable, "-P", "-c", PEER, str(checkpoint), json.dumps(prompts), str(new_tokens), device]
    done = subprocess.run(command, capture_output=True, text=True, cwd=checkpoint)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


@torch.no_grad()
def time_uncached(gpt2: GPT2Model, prompts: list[list[int]], new_tokens: int) -> float:
    start = time.perf_counter()
    for prompt in prompts:
        text = torch.tensor([prompt], device=gpt2.wte.weight.device)
        for _ in range(new_tokens):
            logits = gpt2.hidden_state_to_token(gpt2(text)["last_hidden_state"])
            text = torch.cat([text, logits[:, -1:].argmax(dim=-1)], dim=1)
        text.tolist()
    return time.perf_counter() - start


def single_rate(gpt2: GPT2Model, prompt: list[int], new_tokens: int) -> float:
    """Tokens per second of one text, by a model that is ready; the faster of two runs."""
    best = 0.0
    for _ in range(2):
        start = time.perf_counter()
        generate(gpt2, [prompt], GREEDY, max_new_tokens=new_tokens)
        best = max(best, new_tokens / (time.perf_counter() - start))
    return best


def weight_bytes(gpt2: GPT2Model, dtype: torch.dtype) -> int:
    """What is read for each token: the weights of the blocks, and the token embedding for the logits."""
    matrices = [parameter for parameter in gpt2.h.parameters() if parameter.dim() == 2] + [gpt2.wte.weight]
    return sum(matrix.numel() for matrix in matrices) * dtype.itemsize


def measure_bandwidth(device: torch.device) -> float:
    """Bytes per second of the fastest of several sums over 512 MiB."""
    large = torch.ones(2**27, device=device)
    best = 0.0
    for _ in range(6):
        start = time.perf_counter()
        large.sum().item()
        best = max(best, large.nbytes / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()
