"""What a result depends on beside the recipe (versions, hardware), and quiet libraries."""

from __future__ import annotations

import functools
import gc
import logging
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def sparing_imports() -> Iterator[None]:
    """Within, modules are imported that garbage collection passes over, then and ever after.

    Modules are no garbage. To look for some while torch and transformers are imported takes a sixth
    of that time; a meter collects garbage before each phase, and walking over all that they hold
    takes half a second a time. Nothing else is to be made within; what is forked from here has it
    already.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        if enabled:
            gc.enable()


def quiet_libraries() -> None:
    """No progress bars or advice of libraries between our own lines; idle threads sleep."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
    # At each int8 layer: that it computes in half precision.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
