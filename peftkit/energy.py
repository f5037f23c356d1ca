"""Energy of the GPU, as NVIDIA's driver counts it (NVML), in joules.

The counter is that of the whole GPU since its driver was loaded: what it draws while idle is not
subtracted, and what other processes do there counts too. It exists from Volta on and is updated
every 20 to 100 ms, so of phases shorter than a second it says little. Without CUDA, the package
nvidia-ml-py (`pip install 'peftkit[energy]'`), the driver or the counter there is no number.
"""

from __future__ import annotations

import functools
from typing import Any

from peftkit.device import device


def joules_so_far() -> float | None:
    """Joules that the GPU of runs in this process has used so far; None where not counted."""
    found = _counted_gpu() if device() == "cuda" else None
    if found is None:
        return None
    nvml, gpu = found
    try:
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) / 1000  # of mJ
    except nvml.NVMLError:
        return None


def joules_since(start: float | None) -> float | None:
    """Joules used since `joules_so_far` was `start`."""
    now = None if start is None else joules_so_far()
    return None if start is None or now is None else now - start


@functools.cache
def _counted_gpu() -> tuple[Any, Any] | None:
    """NVML, and what it calls the GPU that torch computes on."""
    import torch

    try:
        import pynvml
    except ImportError:
        return None
    # NVML numbers all GPUs of the machine, torch those that CUDA_VISIBLE_DEVICES leaves.
    uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    try:
        pynvml.nvmlInit()
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return None
