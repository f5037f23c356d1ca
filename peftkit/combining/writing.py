"""The result as a run's folder: an adapter that stock PEFT loads, and peftkit.json.

Its scale is 1, since the updates' own scales are in the factors. Where layers differ in rank, those
that have not the largest are named in PEFT's patterns by their whole names: PEFT reads these names
as regular expressions of which the end has to match.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.combining.layers import CombinedLayer
from peftkit.combining.reading import CONFIG, WEIGHTS, Adapter
from peftkit.record import MANIFEST, write_atomically

if TYPE_CHECKING:
    from torch import Tensor


def write_adapter(
    folder: Path,
    adapters: Sequence[Adapter],
    lead: Adapter,
    layers: Sequence[CombinedLayer],
    whole: dict[str, Tensor],
    account: dict[str, Any],
) -> None:
    """Write the result.

    Args:
        folder: Where.
        adapters: What it was made of.
        lead: The one whose task, labels and head it has; its backbone is loaded.
        layers: What is stored.
        whole: Heads and the like.
        account: What was done, for peftkit.json.
    """
    from safetensors.torch import save_file

    rank = max(layer.rank for layer in layers)
    others = {layer.name: layer.rank for layer in layers if layer.rank != rank}
    _write_config(folder, lead, layers, rank, others)
    tensors = {name: tensor.float() for name, tensor in whole.items()}
    for layer in layers:
        tensors |= _tensors(layer)
    kept = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})
    lead.bench.save_processor(folder)
    recipe = lead.bench.recipe.to_dict()
    recipe["method"] = {
        "name": "lora",
        "rank": rank,
        "alpha": float(rank),
        "dora": layers[0].factors.length is not None,
        "rank_pattern": others,
        "alpha_pattern": {name: float(each) for name, each in others.items()},
        "targets": [layer.name for layer in layers],
    }
    body = {**{k: lead.manifest[k] for k in ("labels", "backbone", "data")}, "recipe": recipe,
            "combined": account | {"runs": [_source(each) for each in adapters]}}  # fmt: skip
    write_atomically(folder / MANIFEST, json.dumps(body, indent=2, allow_nan=False) + "\n")


def _tensors(layer: CombinedLayer) -> dict[str, Tensor]:
    factors = layer.factors
    found = {
        "lora_A.weight": factors.a,
        "lora_B.weight": factors.b,
        "lora_B.bias": factors.bias,
        "lora_magnitude_vector": factors.length,
    }
    return {f"{layer.name}.{part}": t for part, t in found.items() if t is not None}


def _write_config(
    folder: Path,
    lead: Adapter,
    layers: Sequence[CombinedLayer],
    rank: int,
    others: dict[str, int],
) -> None:
    from peft import LoraConfig

    from peftkit.methods._peft import stored_transposed

    names = [layer.name for layer in layers]
    pattern = {f"^{re.escape(name)}": each for name, each in others.items()}
    config: Any = LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=pattern,
        alpha_pattern=dict(pattern),
        target_modules=names,
        modules_to_save=lead.config.get("modules_to_save"),
        task_type=lead.config.get("task_type"),
        base_model_name_or_path=lead.bench.recipe.backbone.name,
        fan_in_fan_out=stored_transposed(lead.bench.backbone, names),
        use_dora=layers[0].factors.length is not None,
        lora_bias=layers[0].factors.bias is not None,
        inference_mode=True,
    )
    config.target_modules = names  # PEFT made a set of them, whose order changes from run to run
    config.save_pretrained(str(folder))
    assert (folder / CONFIG).is_file()


def _source(adapter: Adapter) -> dict[str, Any]:
    return {
        "folder": adapter.folder.resolve().name,
        "adapter": adapter.fingerprint,
        "recipe": adapter.manifest["recipe"],
        "labels": adapter.labels,
        "data": adapter.manifest["data"],
    }
