"""Runs to merge, without training: an adapter attached, moved far from where it starts, saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cells import Start, perturb
from peftkit.backbones import packed_layers
from peftkit.record import Record
from peftkit.recording import describe_backbone, describe_data, write_manifest
from peftkit.seeds import seeded


def leave_run(bench: Any, folder: Path, strength: float = 1.0) -> Any:
    """What `run` would leave of a method that has learned something, in `folder`.

    Args:
        bench: With a fresh backbone.
        folder: Where to.
        strength: Of how far it moves: far where rounding hides nothing.

    Returns:
        The predictor that was saved.
    """
    model = bench.attach(bench.recipe.method)
    begun = Start(bench, model, {}, torch.empty(0))
    before = {name: p.detach().clone() for name, p in begun.trainable().items()}
    perturb(begun)
    with torch.no_grad():
        for name, parameter in begun.trainable().items():
            parameter.copy_(before[name] + strength * (parameter - before[name]))
    with torch.no_grad(), seeded(0, "heads"):
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and bench.in_head(name):
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    predictor = bench.predictor(model.eval())
    predictor.save(folder)
    leave_manifest(bench, folder)
    return predictor


def leave_manifest(bench: Any, folder: Path) -> None:
    """What says how `folder` is to be used."""
    record = Record(
        key="",
        recipe=bench.recipe.to_dict(),
        status="done",
        data=describe_data(bench.data),
        backbone=describe_backbone(bench),
    )
    write_manifest(folder, record, bench)


def is_packed(model: Any) -> bool:
    """Whether any layer is kept in 8 or 4 bits."""
    return bool(packed_layers(model))
