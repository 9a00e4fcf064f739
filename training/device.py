"""Device, precision and randomness of a run."""

from __future__ import annotations

import ctypes
import hashlib
import os
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType

from config import UserError

_STATUS = Path("/proc/self/status")
_ACCELERATE_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class Device:
    """Where a run computes, and how."""

    accelerator: Accelerator
    precision: str
    description: str
    warning: str = ""

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world_size(self) -> int:
        return self.accelerator.num_processes

    def peak_memory_bytes(self) -> int:
        """The most memory in use since the device was opened: on the GPU if there is one, else of this process.

        Where the system has no counter that can be set back (macOS), it is the process's peak since it started.
        """
        if self.accelerator.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        if _STATUS.exists():
            line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def open_device(use_gpu: bool, precision: str = "auto") -> Device:
    """Chooses device and precision. Under ``accelerate launch`` the launcher's device wins.

    Raises:
        UserError: a precision that the device does not have.
    """
    launched = any(name.startswith("ACCELERATE_") for name in os.environ)
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    warning = ""
    if use_gpu and not has_gpu and not launched:
        warning = "--use-gpu: torch finds no usable GPU on this machine; this run uses the CPU"
    on_cpu = not has_gpu or (os.environ.get("ACCELERATE_USE_CPU", "") == "true" if launched else not use_gpu)

    keep_freed_memory()
    reset_peak_memory()
    if on_cpu:
        torch.use_deterministic_algorithms(True)
        # Filling memory that is about to be overwritten costs time and decides nothing here.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    chosen = _choose_precision(precision, on_cpu)
    accelerator = Accelerator(cpu=on_cpu and not launched, mixed_precision=_ACCELERATE_PRECISION[chosen])
    if accelerator.distributed_type == DistributedType.FSDP:
        raise UserError(
            "FSDP is not supported by this script: a model that is fine-tuned here fits one device; use DDP"
        )
    where = f"CPU, {torch.get_num_threads()} threads" if on_cpu else torch.cuda.get_device_name()
    if accelerator.num_processes > 1:
        where = f"{accelerator.num_processes} processes, each on {where}"
    return Device(accelerator, chosen, f"{where}, {chosen}", warning)


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
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if _STATUS.exists():
        with suppress(OSError, AttributeError):  # a sandbox may forbid it, and musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory instead of handing it back to the system.

    A training step frees and takes the same large blocks again and again; without this each of them is mapped, and
    zeroed page by page, anew, which costs more than the element-wise arithmetic done in it. No effect elsewhere.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
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
