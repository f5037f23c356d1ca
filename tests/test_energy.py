"""Energy of a GPU, which is not there: NVML's three functions are stood in for.

What is tested is which GPU is asked for, the unit, and that nothing fails without a counter.
Whether the real counter counts is seen on a GPU only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peftkit import cost, energy

UUID = "5a1c0f3e-0000-1111-2222-333344445555"


class NVMLError(Exception):
    pass


class Driver:
    """NVML of a machine whose counter rises by 1,500 mJ at each reading."""

    NVMLError = NVMLError

    def __init__(self, *, loaded: bool = True, counts: bool = True) -> None:
        self.loaded, self.counts, self.millijoules = loaded, counts, 7_000_000

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.loaded:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != f"GPU-{UUID}":
            raise NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: str) -> int:  # noqa: N802
        if not self.counts:
            raise NVMLError("Not Supported")
        assert gpu == f"GPU-{UUID}"
        self.millijoules += 1500
        return self.millijoules


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Pretend that torch computes on the GPU with `UUID`, and that this driver is there."""

    def pretend(driver: Driver | None, *, uuid: str = UUID) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", driver)  # None: not installed
        for module in (energy, cost):
            monkeypatch.setattr(module, "device", lambda: "cuda")
        for name, value in {
            "current_device": 0, "get_device_properties": SimpleNamespace(uuid=uuid),
            "synchronize": None, "reset_peak_memory_stats": None, "max_memory_allocated": 5,
            "max_memory_reserved": 8, "memory_reserved": 6, "mem_get_info": (1000, 1100),
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)

    energy._counted_gpu.cache_clear()
    yield pretend
    energy._counted_gpu.cache_clear()


def measured() -> dict[str, Any]:
    meter = cost.Meter()
    for name in ("load", "train"):
        with meter.phase(name):
            pass
    return meter.costs()


def test_each_phase_has_the_joules_of_the_gpu_that_is_computed_on(
    on_gpu: Callable[..., None],
) -> None:
    on_gpu(Driver())

    assert measured()["energy_joules"] == {"load": 1.5, "train": 1.5}


@pytest.mark.parametrize(
    ("driver", "uuid"),
    [
        (None, UUID),
        (Driver(loaded=False), UUID),
        (Driver(counts=False), UUID),
        (Driver(), "00000000-part-of-a-gpu"),
    ],
    ids=["no package", "no driver", "no counter", "unknown to NVML"],
)
def test_without_a_counter_there_is_no_energy_and_no_error(
    on_gpu: Callable[..., None], driver: Driver | None, uuid: str
) -> None:
    on_gpu(driver, uuid=uuid)
    costs = measured()

    assert "energy_joules" not in costs
    assert costs["peak_reserved_bytes"] == {"load": 8, "train": 8}


def test_what_the_context_takes_is_in_use_and_not_the_allocators(
    on_gpu: Callable[..., None],
) -> None:
    on_gpu(None)

    assert measured()["cuda_context_bytes"] == 1100 - 1000 - 6


def test_a_run_on_the_cpu_knows_no_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    if energy.device() == "cuda":
        pytest.skip("this machine computes on a GPU")
    costs = measured()

    assert not {"energy_joules", "cuda_context_bytes", "peak_reserved_bytes"} & set(costs)
