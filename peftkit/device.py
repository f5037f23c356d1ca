"""What this machine computes on, and in which number format it does so fastest."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from peftkit.errors import InvalidInput

Precision = Literal["float32", "bfloat16"]
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Cannot allocate memory",
)
PAGED = ("paged_adamw", "paged_adamw_8bit")


@functools.cache
def device() -> Literal["cuda", "cpu"]:
    """The device of runs in this process."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def cuda_probable() -> bool:
    """Whether CUDA seems to be there, without importing torch (for planning)."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    return not hidden and Path("/dev/nvidiactl").exists()


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of the CPU, as Linux names them; empty elsewhere."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def resolve_precision(asked: Literal["auto", "float32", "bfloat16"]) -> Precision:
    """The number format that "auto" means here.

    bfloat16 on CUDA and on CPUs with AVX512-BF16 or AMX; on others it is emulated, and ten times
    slower than float32.
    """
    if asked != "auto":
        return asked
    if cuda_probable() or cpu_flags() & {"avx512_bf16", "amx_bf16"}:
        return "bfloat16"
    return "float32"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that memory ran out."""
    return any(
        isinstance(each, MemoryError)
        or type(each).__name__ == "OutOfMemoryError"
        or any(text in str(each) for text in _OUT_OF_MEMORY)
        for each in causes(error)
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what caused it, and what caused that."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def require_offload(where: str) -> None:
    """Raise `InvalidInput` where weights should wait in the CPU's memory, and no other is there."""
    if where != "none" and not cuda_probable():
        raise InvalidInput(
            "no CUDA device is visible, so nothing can be offloaded from it",
            received=f"backbone.offload {where}",
            allowed="none",
            next_step="leave --backbone.offload out",
        )


def require_optimizer(name: str) -> None:
    """Raise `InvalidInput` for an optimizer that keeps its state in pages where there is no CUDA.

    bitsandbytes would keep it in ordinary memory, and warn.
    """
    if name in PAGED and not cuda_probable():
        raise InvalidInput(
            f"optimizer {name} moves its state between CUDA's memory and the CPU's, page by page, "
            "and no CUDA device is visible",
            received=f"training.optimizer {name}",
            allowed="adamw, adamw_8bit, adafactor, lion",
            next_step=f"leave out --training.optimizer, or choose {name.removeprefix('paged_')}, "
            "which takes the same steps",
        )


def settle_work() -> None:
    """Wait until a GPU has done what it was told to do."""
    if device() == "cuda":
        import torch

        torch.cuda.synchronize()
