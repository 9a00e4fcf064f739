"""Device, precision and randomness of a run."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState, is_initialized
from accelerate.utils import InitProcessGroupKwargs, parse_flag_from_env
from accelerate.utils.memory import should_reduce_batch_size

from config import UserError

_STATUS = Path("/proc/self/status")
_ACCELERATE_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU")  # what accelerate launch sets, one of them at least
# How long processes wait for one that works alone, such as the first one that measures; 10 minutes by default on GPUs.
PROCESS_TIMEOUT = timedelta(hours=12)


@dataclass(frozen=True)
class Device:
    """Where a run computes, and how."""

    accelerator: Accelerator
    precision: str
    description: str
    warning: str = ""
    sharded: bool = False  # FSDP: every process holds a part of the model

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    def say(self, text: str) -> None:
        """Prints, in the first process of a run."""
        if self.is_main:
            print(text)

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world_size(self) -> int:
        return self.accelerator.num_processes

    def peak_memory_bytes(self) -> int:
        """The most memory in use since the device was opened: on the GPU if there is one, else of this process.

        Where the system has no counter that can be set back (macOS, Windows), it is the process's peak since it
        started.
        """
        if self.accelerator.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        for line in _STATUS.read_text().splitlines() if _STATUS.exists() else ():
            if line.startswith("VmHWM:"):  # gVisor has none
                return int(line.split()[1]) * 1024
        try:
            import resource
        except ImportError:  # Windows
            import psutil  # Accelerate needs it, so it is there

            return psutil.Process().memory_info().peak_wset
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def open_device(use_gpu: bool, precision: str = "auto", can_shard: bool = False, began_in: str | None = None) -> Device:
    """Chooses device and precision. Under ``accelerate launch`` the launcher's device wins.

    Args:
        can_shard: whether the script can shard its model when ``accelerate launch --use_fsdp`` asks for it.
        began_in: the precision of the run that goes on, which stays the same wherever that is.

    Raises:
        UserError: a precision that the device does not have, or FSDP where the script can't do it.
    """
    # Sharding is done by training/sharding.py, so Accelerate is not told of it; otherwise it would do it once more.
    sharded = os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if sharded and not can_shard:
        raise UserError(
            "FSDP is not supported by this script: a model that is fine-tuned here fits one device; use DDP"
        )
    launched = any(name in os.environ for name in _LAUNCHED)
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    warning = ""
    if use_gpu and not has_gpu and not launched:
        warning = "--use-gpu: torch finds no usable GPU on this machine; this run uses the CPU"
    on_cpu = not has_gpu or (parse_flag_from_env("ACCELERATE_USE_CPU") if launched else not use_gpu)

    keep_freed_memory()
    reset_peak_memory()
    if on_cpu:
        torch.use_deterministic_algorithms(True)
        # Filling memory that is about to be overwritten costs time and decides nothing here.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        chosen = _choose_precision(began_in or precision, on_cpu)
    except UserError:
        if began_in in (None, precision):
            raise
        raise UserError(
            f"the run began in {began_in}, which this {'CPU' if on_cpu else 'GPU'} does not have; go on where it "
            "began, start anew with --overwrite, or begin another run with --precision"
        ) from None
    if is_initialized() and PartialState().num_processes == 1:  # by an earlier run of this process, of any precision
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=on_cpu and not launched,
        mixed_precision=_ACCELERATE_PRECISION[chosen],
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESS_TIMEOUT)],
    )
    sharded = sharded and accelerator.num_processes > 1
    if sharded and chosen == "fp16":
        raise UserError("--precision fp16 can't be used with FSDP; use bf16 or fp32")
    where = _name_of(accelerator.device)
    if accelerator.num_processes > 1:
        where = f"{accelerator.num_processes} processes, each on {where}{', sharded' if sharded else ''}"
    return Device(accelerator, chosen, f"{where}, {chosen}", warning, sharded)


def _name_of(device: torch.device) -> str:
    """What a device is called on the screen and in records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def leave_process_group() -> None:
    """Ends a distributed run in all its processes together.

    A process that just exits while others still work may abort, and the launcher then kills the others.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _choose_precision(precision: str, on_cpu: bool) -> str:
    if not on_cpu and torch.backends.mps.is_available():
        return "fp32" if precision == "auto" else precision
    if on_cpu:
        if precision == "fp16":
            raise UserError("--precision fp16 needs a GPU; use bf16, fp32 or auto on the CPU")
        # Without the instructions bf16 is emulated, slower than fp32.
        return ("bf16" if _cpu_has_bf16() else "fp32") if precision == "auto" else precision
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        return "bf16" if has_bf16 else "fp16"
    if precision == "bf16" and not has_bf16:
        raise UserError("--precision bf16: this GPU has no bf16 in hardware; use fp16, fp32 or auto")
    return precision


def _cpu_has_bf16() -> bool:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        check = getattr(torch.cpu, name, None)
        if check is not None and check():
            return True
    return False


def reset_peak_memory() -> None:
    """Sets the counter of :meth:`Device.peak_memory_bytes` back, so that a second run does not report the first's."""
    if is_initialized():
        gc.collect()  # the first run's model is in cycles of references
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if _STATUS.exists():
        with suppress(OSError, AttributeError):  # a sandbox may forbid it, and musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the memory of the GPU, or the CPU's, is too small."""
    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


def measure_matmul_peak(device: Device, seconds: float = 0.5) -> float:
    """What matrix products reach on this device in the run's precision, in floating-point operations per second.

    The best of several products of square matrices that are large enough to be limited by arithmetic alone. On CPU some
    of them are short, because a long one is interrupted on a machine that other jobs share.
    """
    where = device.accelerator.device
    sizes, repeats = ((512, 1024, 2048), 1) if where.type == "cpu" else ((8192,), 10)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[device.precision]
    matrices = [torch.randn(3, size, size, device=where).to(dtype) for size in sizes]
    best, start = 0.0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for left, right, out in matrices:
            began = time.perf_counter()
            for _ in range(repeats):
                torch.mm(left, right, out=out)
            if where.type != "cpu":
                torch.accelerator.synchronize()
            best = max(best, 2.0 * len(left) ** 3 * repeats / (time.perf_counter() - began))
    return best


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory instead of handing it back to the system.

    A training step frees and takes the same large blocks again and again; without this each of them is mapped, and
    zeroed page by page, anew, which costs more than the element-wise arithmetic done in it. No effect elsewhere.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # Windows takes no None
        return
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)


def derive_seed(*parts: Any) -> int:
    """A seed for one purpose at one place of a run, such as ("dropout", seed, epoch, batch).

    Because randomness is a function of the place, an interrupted run goes on as if it had never been interrupted,
    without any generator's state being saved.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
