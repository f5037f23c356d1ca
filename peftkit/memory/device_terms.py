"""What a device adds to tensors: rounding, workspaces, the allocator's slack, CUDA's context."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peftkit.cache import cache_folder

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class DeviceTerms:
    """The terms of one device.

    Attributes:
        name: Of the device, or "cpu", or "cuda, not calibrated".
        round_to: A tensor takes a multiple of so many bytes.
        workspace_bytes: What libraries of kernels allocate once, within the allocator.
        slack: By which share the allocator reserves more than it gives out at the peak.
        slack_bytes: And so many bytes beside.
        context_bytes: What CUDA takes outside of the allocator.
    """

    name: str
    round_to: int = 1
    workspace_bytes: int = 0
    slack: float = 0.0
    slack_bytes: int = 0
    context_bytes: int = 0

    def reserved_bytes(self, peak_bytes: int) -> int:
        """What the allocator will have reserved when so much is given out."""
        return peak_bytes + round(peak_bytes * self.slack) + self.slack_bytes


CPU = DeviceTerms(name="cpu")
# Blocks of 512 bytes, segments of 20 MiB for tensors below 10 (c10/cuda/CUDACachingAllocator.h);
# cuBLAS takes a workspace of 32 MiB on Hopper and 8 before (documentation of
# CUBLAS_WORKSPACE_CONFIG). Slack and context are orders of magnitude until they are measured.
CUDA = DeviceTerms(
    name="cuda, not calibrated",
    round_to=512,
    workspace_bytes=32 * MIB,
    slack=0.04,
    slack_bytes=20 * MIB,
    context_bytes=520 * MIB,
)


def terms_of(device: Literal["cpu", "cuda"]) -> DeviceTerms:
    """The terms of a device: as measured on this machine's, if they were."""
    if device == "cpu":
        return CPU
    return _measured() or CUDA


@functools.cache
def _measured() -> DeviceTerms | None:
    name = _gpu_name()
    if name is None:
        return None
    try:
        return DeviceTerms(**json.loads(calibration_file(name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _gpu_name() -> str | None:
    from peftkit.device import cuda_probable

    if not cuda_probable():
        return None
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def calibration_file(name: str) -> Path:
    """Where the measured terms of a GPU are kept, by its name."""
    return cache_folder() / "memory" / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)}.json"


def keep(terms: DeviceTerms) -> Path:
    """Keep measured terms for `terms_of`; where, is returned."""
    from peftkit.record import write_atomically

    path = calibration_file(terms.name)
    write_atomically(path, json.dumps(dataclasses.asdict(terms), indent=2) + "\n")
    _measured.cache_clear()
    return path


@functools.cache
def sources() -> str:
    """Hash over peftkit's own sources, any of which may change what a step takes."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
