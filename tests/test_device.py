"""Which device a run computes on, what it is called, and how long its processes wait for each other."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import ROOT

from training import device
from training.device import open_device

pytestmark = pytest.mark.usefixtures("as_new_process")


@pytest.fixture
def apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch says that there is one, and no other."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("is_available", "is_built"):
        monkeypatch.setattr(torch.backends.mps, name, lambda: True)


@pytest.mark.usefixtures("apple_gpu")
def test_a_gpu_that_is_not_cudas_is_named() -> None:
    opened = open_device(use_gpu=True)
    assert opened.accelerator.device.type == "mps" and opened.description == "Apple GPU, fp32"


@pytest.mark.usefixtures("apple_gpu")
@pytest.mark.parametrize("value", ["true", "True", "1"])
def test_a_launcher_that_asks_for_the_cpu_gets_it(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", value)
    opened = open_device(use_gpu=True, precision="fp32")
    assert opened.accelerator.device.type == "cpu" and opened.description.startswith("CPU")
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("apple_gpu")
def test_a_setting_of_accelerate_is_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_LOG_LEVEL", "INFO")
    assert open_device(use_gpu=False, precision="fp32").accelerator.device.type == "cpu"


@pytest.mark.usefixtures("apple_gpu")
def test_a_launcher_decides_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several GPUs are launched without a word on the CPU."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert open_device(use_gpu=False, precision="fp32").accelerator.device.type == "mps"


def test_a_process_may_compute_in_one_precision_after_another() -> None:
    for precision in ("fp32", "bf16", "fp32"):
        assert open_device(use_gpu=False, precision=precision).accelerator.mixed_precision == (
            "no" if precision == "fp32" else precision
        )


@pytest.mark.parametrize("status", ["Name:\tpython\nVmRSS:\t  100 kB\n", None], ids=["no peak in it", "none"])
def test_the_peak_of_memory_wherever_the_system_tells_it(
    tmp_path: Path, status: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if status is not None:
        (tmp_path / "status").write_text(status)
    monkeypatch.setattr(device, "_STATUS", tmp_path / "status")
    assert open_device(use_gpu=False, precision="fp32").peak_memory_bytes() > 50_000_000


def test_processes_wait_for_one_that_works_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Stop(Exception):
        pass

    def init_process_group(**options: Any) -> None:
        asked.update(options)
        raise Stop

    monkeypatch.setattr(torch.distributed, "init_process_group", init_process_group)
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (launched | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Stop):
        open_device(use_gpu=False, precision="fp32")
    assert asked["timeout"] >= timedelta(hours=1)


ON_WINDOWS = """
import ctypes, psutil, sys
sys.modules["resource"] = None  # there is none, nor /proc, nor a library without a name
from pathlib import Path
from types import SimpleNamespace
from training import device
device._STATUS = Path("none")
device.ctypes = SimpleNamespace(CDLL=lambda name: ctypes.CDLL(name + ""))
psutil.Process = lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=123))
print(device.open_device(use_gpu=False, precision="fp32").peak_memory_bytes())
"""


def test_windows_has_another_counter_of_memory() -> None:
    done = subprocess.run([sys.executable, "-c", ON_WINDOWS], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "123\n"), done.stderr
