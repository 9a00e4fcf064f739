"""Which device a run computes on, what it is called, and how long its processes wait for each other."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import torch

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
    device = open_device(use_gpu=True)
    assert device.accelerator.device.type == "mps" and device.description == "Apple GPU, fp32"


@pytest.mark.usefixtures("apple_gpu")
@pytest.mark.parametrize("value", ["true", "True", "1"])
def test_a_launcher_that_asks_for_the_cpu_gets_it(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", value)
    device = open_device(use_gpu=True, precision="fp32")
    assert device.accelerator.device.type == "cpu" and device.description.startswith("CPU")
    assert torch.are_deterministic_algorithms_enabled()


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
