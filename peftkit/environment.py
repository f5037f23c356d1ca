"""What a result depends on beside the recipe: versions and hardware."""

from __future__ import annotations

import functools
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes", "trl", "tokenizers",
    "numpy", "scikit-learn",
)  # fmt: skip


@functools.cache
def versions() -> dict[str, str]:
    """Versions of peftkit, Python and the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in ("peftkit", *PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def cpu_name() -> str:
    """The CPU's name, as Linux gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """Device and versions of this process."""
    import torch

    from peftkit.device import device

    name = torch.cuda.get_device_name() if device() == "cuda" else cpu_name()
    return {"device": device(), "device_name": name, "versions": dict(versions())}
