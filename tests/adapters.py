"""Runs of LoRA whose factors are far from their start, made in no time; and dense arithmetic."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def make_run(
    make_bench: Callable[..., Any],
    folder: Path,
    method: Any,
    backbone: Any = "twin:bert",
    *,
    draw: int = 0,
    strength: float = 0.2,
    **options: Any,
) -> Path:
    """A run's folder as training leaves it, its trained tensors moved at random instead."""
    import torch

    from peftkit.recording import describe_backbone
    from peftkit.seeds import seeded

    bench = make_bench(method, backbone, **options)
    model = bench.attach(bench.recipe.method).eval()
    with torch.no_grad(), seeded(draw, "moved"):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=strength)
    with warnings.catch_warnings():
        # PEFT 0.21.2 takes the one-dimensional bias beside B for a shard of B.
        warnings.filterwarnings("ignore", r".*LoRA tensor\(s\) have invalid shape")
        bench.predictor(model).save(folder)
    body = {
        "recipe": bench.recipe.to_dict(),
        "labels": bench.data.labels,
        "backbone": describe_backbone(bench),
        "data": {"source": "toy", "fingerprint": bench.data.fingerprint},
    }
    (folder / "peftkit.json").write_text(json.dumps(body), encoding="utf-8")
    return folder


def logits(folder: Path, bench: Any) -> np.ndarray:
    """What a run's folder answers to the test rows of a bench."""
    from peftkit.saved import load_run

    return np.asarray(load_run(folder).predictor.outputs(bench.data.test), dtype=np.float64)


def relative(found: Any, expected: Any) -> float:
    found, expected = (np.asarray(each, dtype=np.float64) for each in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and tensors (without PEFT's prefix) of an adapter."""
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    tensors = load_file(folder / "adapter_model.safetensors")
    return config, {n.removeprefix("base_model.model."): t for n, t in tensors.items()}


def base_weights(make_bench: Callable[..., Any], backbone: Any = "twin:bert") -> dict[str, Any]:
    """Weight matrices of a backbone, `(out, in)` in float64."""
    from transformers.pytorch_utils import Conv1D

    model = make_bench("lora", backbone).backbone.model
    return {
        name: (module.weight.T if isinstance(module, Conv1D) else module.weight).detach().double()
        for name, module in model.named_modules()
        if getattr(module, "weight", None) is not None and module.weight.ndim == 2
    }


def dense(folder: Path, weights: dict[str, Any], scale: float) -> dict[str, Any]:
    """W' - W of each layer, as the papers of LoRA and DoRA have it; one scale for all layers."""
    _, tensors = read(folder)
    found = {}
    for key in tensors:
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removesuffix(".lora_A.weight")
        a, b = tensors[key].double(), tensors[f"{name}.lora_B.weight"].double()
        moved = weights[name] + scale * b @ a
        length = tensors.get(f"{name}.lora_magnitude_vector")
        if length is not None:
            moved = length.double()[:, None] * moved / moved.norm(dim=1, keepdim=True)
        found[name] = moved - weights[name]
    return found


def merged_logits(
    make_bench: Callable[..., Any],
    backbone: Any,
    updates: dict[str, Any],
    head: dict[str, Any],
) -> np.ndarray:
    """Answers of the bare backbone with updates added to its weights and a head put on."""
    import torch
    from transformers.pytorch_utils import Conv1D

    bench = make_bench("lora", backbone)
    model = bench.backbone.model
    with torch.no_grad():
        for name, update in updates.items():
            module = model.get_submodule(name)
            moved = update.T if isinstance(module, Conv1D) else update
            module.weight.copy_(module.weight.double() + moved)
        for name, tensor in head.items():
            model.get_parameter(name).copy_(tensor)
    return np.asarray(bench.predictor(model).outputs(bench.data.test), dtype=np.float64)


def head_of(folder: Path) -> dict[str, Any]:
    return {name: tensor for name, tensor in read(folder)[1].items() if ".lora_" not in name}
