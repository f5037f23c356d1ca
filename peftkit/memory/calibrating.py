"""What this GPU adds to tensors, measured: in under a minute, with a small decoder.

Training steps of two sizes are predicted and run. Their peaks tell what the libraries of kernels
take within the allocator and by how much it reserves more than it gives out; what the GPU has in
use beyond that is CUDA's context.
"""

from __future__ import annotations

import dataclasses
import gc
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit.errors import Unsupported
from peftkit.memory.device_terms import CUDA, MIB, DeviceTerms

SHAPE: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816,
    "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 8,
    "vocab_size": 32000, "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip
STEPS = (("lora", 4, 512), ("lora", 16, 1024), ("full", 4, 512), ("full", 16, 1024))


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One step: tensors as predicted, and what CUDA says; all in bytes."""

    predicted_bytes: int
    allocated_bytes: int
    reserved_bytes: int


def calibrate() -> tuple[DeviceTerms, list[Observed]]:
    """Measure the terms of the visible GPU, and what they were measured from.

    Raises:
        Unsupported: There is none.
    """
    import torch

    if not torch.cuda.is_available():
        raise Unsupported(
            "no CUDA device is visible, so there is nothing to calibrate. Next: run it on the "
            "machine with the GPU; elsewhere `peftkit plan` assumes ordinary terms."
        )
    with tempfile.TemporaryDirectory(prefix="peftkit-calibrate-") as folder:
        observed = [_observe(Path(folder), *step) for step in STEPS]
    free, total = torch.cuda.mem_get_info()  # the context has all kernels by now
    context = total - free - torch.cuda.memory_reserved()
    return fitted(observed, name=torch.cuda.get_device_name(), context_bytes=context), observed


def fitted(observed: Sequence[Observed], *, name: str, context_bytes: int) -> DeviceTerms:
    """Terms that no observation exceeds: an estimate that says "fits" must fit.

    The workspace is the most by which a peak exceeds its tensors; the slack the largest share,
    above 20 MiB of small tensors, by which more was reserved than given out.
    """
    workspace = max(o.allocated_bytes - o.predicted_bytes for o in observed)
    beyond = CUDA.slack_bytes
    slack = max((o.reserved_bytes - beyond) / o.allocated_bytes - 1 for o in observed)
    return dataclasses.replace(
        CUDA,
        name=name,
        workspace_bytes=max(0, workspace),
        slack=max(0.0, slack),
        context_bytes=context_bytes,
    )


def told(terms: DeviceTerms, observed: Sequence[Observed], kept_at: Path) -> str:
    """What was measured, and from what, for the terminal."""
    lines = [f"{'step':28} {'tensors':>10} {'allocated':>10} {'reserved':>10}"]
    for (method, batch, length), each in zip(STEPS, observed, strict=True):
        sizes = (each.predicted_bytes, each.allocated_bytes, each.reserved_bytes)
        lines.append(
            f"{f'{method}, {batch} x {length} tokens':28} "
            + " ".join(f"{size / MIB:6.0f} MiB" for size in sizes)
        )
    lines.append(
        f"{terms.name}: context {terms.context_bytes / MIB:.0f} MiB, workspaces "
        f"{terms.workspace_bytes / MIB:.0f} MiB, reserved beyond the peak "
        f"{100 * terms.slack:.1f} % and {terms.slack_bytes / MIB:.0f} MiB"
    )
    return "\n".join([*lines, f"kept in {kept_at}"]) + "\n"


def _observe(folder: Path, method: str, batch: int, length: int) -> Observed:
    """Train two steps, and compare with the prediction that knows of no workspace."""
    import torch

    from peftkit.memory.device_terms import terms_of

    bench = _bench(folder, method, batch, length)
    bench.backbone  # noqa: B018
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    bench.recipe.method.fit(bench)
    if bench.expected is None:
        raise Unsupported("; ".join(bench.notes))
    tensors = bench.expected.peak_bytes - terms_of("cuda").workspace_bytes
    found = Observed(
        predicted_bytes=tensors,
        allocated_bytes=torch.cuda.max_memory_allocated(),
        reserved_bytes=torch.cuda.max_memory_reserved(),
    )
    del bench
    gc.collect()  # the trainer and its model refer to each other
    torch.cuda.empty_cache()
    return found


def _bench(folder: Path, method: str, batch: int, length: int) -> Any:
    """A decoder of random weights, and rows of full length."""
    import pandas as pd
    from transformers import AutoConfig, AutoModelForCausalLM

    from peftkit.backbones import toy_tokenizer
    from peftkit.recipe import Recipe
    from peftkit.workbench import Workbench

    backbone = folder / "backbone"
    if not backbone.is_dir():
        AutoModelForCausalLM.from_config(AutoConfig.for_model(**SHAPE)).save_pretrained(backbone)
        toy_tokenizer().save_pretrained(backbone)
    data = folder / f"{batch}-{length}"
    data.mkdir(exist_ok=True)
    text = " ".join(["model"] * (length * 2 * batch))
    for split in ("train", "validation", "test"):
        pd.DataFrame({"text": [text if split == "train" else "model"]}).to_parquet(
            data / f"{split}.parquet"
        )
    recipe = Recipe(
        backbone=str(backbone),
        method=method,
        task={"name": "language_modeling", "data": str(data), "max_length": length},
        training={"steps": 2, "batch_size": batch},
    )
    return Workbench(recipe, recipe.task.load(seed=0), folder / "run", memory_check="note")
