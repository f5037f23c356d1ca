"""What this machine has room for: cores, memory and graphics processors that may be used."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the number of cores this process may use: its affinity, and its container's share."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def available_memory_bytes() -> int | None:
    """Return the memory that is free for new processes, or none where it cannot be known."""
    found = [
        1024 * int(line.split()[1])
        for line in _read(Path("/proc/meminfo")).splitlines()
        if line.startswith("MemAvailable:")
    ]
    limit, used = _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")
    if limit.isdigit() and used.isdigit():
        # Files that were read count as used until somebody needs the room.
        idle = [line.split()[1] for line in _read(_CGROUP / "memory.stat").splitlines()
                if line.startswith("inactive_file ")]  # fmt: skip
        found.append(max(0, int(limit) - int(used) + sum(map(int, idle))))
    return min(found, default=None)


def visible_devices() -> list[str]:
    """Return a value of CUDA_VISIBLE_DEVICES for each visible GPU; empty without CUDA.

    torch is imported only where there is something to ask it about.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen == "" or not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))):
        return []
    import torch

    count = torch.cuda.device_count()
    names = chosen.split(",") if chosen else [str(index) for index in range(count)]
    return [name.strip() for name in names[:count]]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
