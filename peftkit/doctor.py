"""What this machine has, and what peftkit will make of it."""

from __future__ import annotations

import os

from peftkit.backbones import locate
from peftkit.cache import cache_folder
from peftkit.device import cpu_flags, device, resolve_precision
from peftkit.energy import joules_so_far
from peftkit.environment import cpu_name, versions
from peftkit.errors import PeftkitError
from peftkit.settings import Backbone
from peftkit.study.machine import usable_cores


def examine() -> str:
    """Return a report in lines of `name: finding`."""
    import torch
    from huggingface_hub.constants import HF_HUB_OFFLINE

    lines = {
        "device": _device(),
        "cpu": f"{cpu_name()}, {os.cpu_count()} cores",
        "cpu instructions": ", ".join(
            name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in cpu_flags()
        )
        or "unknown",
        "precision": f"{resolve_precision('auto')} (training.precision auto)",
        "workers": "one a GPU" if device() == "cuda" else f"{usable_cores()}, one thread each",
        "cuda": torch.version.cuda or "this torch is built without it",
        "bitsandbytes": _bitsandbytes(),
        "energy": _energy(),
        "hub": "offline (HF_HUB_OFFLINE)" if HF_HUB_OFFLINE else "allowed",
        "bundled backbone": _bundled(),
        "cache": str(cache_folder()),
    }
    lines |= {f"version of {name}": version for name, version in versions().items()}
    width = max(len(name) for name in lines)
    return "".join(f"{name:{width}}  {finding}\n" for name, finding in lines.items())


def _device() -> str:
    import torch

    if device() == "cpu":
        return "cpu"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"cuda: {', '.join(names)}"


def _bitsandbytes() -> str:
    if versions()["bitsandbytes"] == "not installed":
        return "not installed: pip install bitsandbytes for 4/8-bit bases"
    try:
        import bitsandbytes  # noqa: F401  # loading its library is what may fail
    except Exception as error:
        return f"installed, but does not load: {type(error).__name__}: {error}"
    return f"loads; 4/8-bit bases on {device()}"


def _energy() -> str:
    if device() == "cpu":
        return "not measured: there is a counter for NVIDIA's GPUs only"
    if joules_so_far() is None:
        return "not measured: pip install 'peftkit[energy]', or the GPU has no counter"
    return "counted by the GPU, read through NVML"


def _bundled() -> str:
    try:
        return f"found, hashes right (fingerprint {locate(Backbone()).fingerprint[:12]})"
    except PeftkitError as error:
        return str(error)
