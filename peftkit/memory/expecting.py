"""Does this run fit? Asked before it trains, of its largest batch and the memory that is free."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.cache import cache_folder
from peftkit.device import device
from peftkit.errors import DoesNotFit, Unsupported
from peftkit.memory.device_terms import sources, terms_of
from peftkit.memory.forecast import forecast_of
from peftkit.memory.prediction import Forecast, Prediction
from peftkit.memory.watching import largest_batch
from peftkit.quantities import size_in_bytes

if TYPE_CHECKING:
    from peftkit.tasks import Example
    from peftkit.workbench import Workbench


def expect(bench: Workbench, rows: Sequence[Example], lengths: Sequence[int]) -> Prediction | None:
    """Predict the peak of a run's training, and refuse one that cannot fit.

    What was predicted is kept in the cache folder: runs whose largest batches are of one shape ask
    only once.

    Args:
        bench: With its backbone.
        rows: Encoded training rows.
        lengths: Tokens of each.

    Returns:
        None where the memory cannot be predicted; the record then has a note that says why.

    Raises:
        DoesNotFit: More than is free, and `bench.memory_check` says to refuse that.
    """
    try:
        batch = _largest_of(bench, rows, lengths)
        prediction = _predicted(bench, batch)
    except Unsupported as error:
        bench.notes.append(f"memory was not predicted: {error}")
        return None
    except Exception as error:  # a method or model of somebody's own, which values steer
        bench.notes.append(f"memory was not predicted: {type(error).__name__}: {error!s:.200}")
        return None
    if bench.memory_check == "refuse":
        _require_room(bench, batch, prediction)
    return prediction


def _largest_of(
    bench: Workbench, rows: Sequence[Example], lengths: Sequence[int]
) -> dict[str, Any]:
    """The batch of the run that takes most, padded."""
    from peftkit.order import order_of

    training = bench.recipe.training
    order = order_of(lengths, training, seed=bench.recipe.seed)
    _, indices = largest_batch(lengths, order, training)
    return as_seen(bench.collate([rows[i] for i in indices]))


def _predicted(bench: Workbench, batch: Mapping[str, Any]) -> Prediction:
    """The peak on a batch, from the cache if it was asked for before."""
    kept = _kept_at(bench, batch)
    found = _read(kept)
    if found is None:
        traced = forecast_of(bench, batch, device=device())
        found = traced.peak(traced.traced_batch)
        _keep(kept, found)
    return found


def as_seen(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch as a model sees it: a mask that leaves nothing out is not looked at any further."""
    seen = dict(batch)
    mask = seen.get("attention_mask")
    if mask is not None and bool((mask != 0).all()):
        del seen["attention_mask"]
    return seen


def _require_room(bench: Workbench, batch: Mapping[str, Any], prediction: Prediction) -> None:
    free = free_bytes(bench)
    if prediction.reserved_bytes <= free:
        return
    parts = sorted(prediction.parts.items(), key=lambda part: -part[1])[:3]
    largest = ", ".join(f"{name.replace('_', ' ')} {size_in_bytes(size)}" for name, size in parts)
    raise DoesNotFit(
        f"training would need {size_in_bytes(prediction.reserved_bytes)} of memory ({largest}), "
        f"and {size_in_bytes(free)} are free on this {device()}. Next: "
        f"{_way_out(bench, batch, free)}; --force runs it all the same."
    )


def _way_out(bench: Workbench, batch: Mapping[str, Any], free: int) -> str:
    """What would fit, the least change first."""
    recipe = bench.recipe
    asked = recipe.training.batch_size
    if next(iter(batch.values())).shape[0] != asked:  # rows come in pairs, say
        return "lower --training.batch-size, or choose a smaller backbone"
    ways: list[tuple[str, dict[str, object]]] = [("", {})]
    if recipe.method.works_with_checkpointing and not recipe.training.gradient_checkpointing:
        ways.append(
            ("--training.gradient-checkpointing", {"training.gradient_checkpointing": True})
        )
    if recipe.method.works_on_quantised and recipe.backbone.quantization == "none":
        for flags, changes in list(ways):
            packed = {"backbone.quantization": "nf4", **changes}
            ways.append((f"--backbone.quantization nf4 {flags}".rstrip(), packed))
    for flags, changes in ways:
        if flags and _largest(bench, batch, changes, free) >= asked:
            return f"add {flags}, which fits"
        # Of several passes, gradients of the earlier ones are there beside the activations.
        accumulated = {**changes, "training.gradient_accumulation": 2}
        most = min(_largest(bench, batch, accumulated, free), asked - 1)
        part = max((n for n in range(1, most + 1) if asked % n == 0), default=0)
        if part:
            passes = asked // part * recipe.training.gradient_accumulation
            smaller = f"--training.batch-size {part} --training.gradient-accumulation {passes}"
            return f"add {smaller} {flags}".rstrip() + ", which fits"
    return "choose a smaller backbone, shorter rows or another device"


def _largest(
    bench: Workbench, batch: Mapping[str, Any], changes: dict[str, object], free: int
) -> int:
    try:
        found: Forecast = forecast_of(bench, batch, device=device(), changes=changes, scale=True)
    except Exception:  # no advice rather than another error
        return 0
    return found.largest_batch(free + found.terms.context_bytes)


def free_bytes(bench: Workbench) -> int:
    """Memory that a run may take: what is free, and what its own backbone has already."""
    import torch

    from peftkit.study import machine

    if device() == "cuda":
        return int(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())
    storages = [p.untyped_storage() for p in bench.backbone.model.parameters()]
    own = {storage.data_ptr(): int(storage.nbytes()) for storage in storages}
    available = machine.available_memory_bytes()
    return (1 << 62 if available is None else available) + sum(own.values())


def _kept_at(bench: Workbench, batch: Mapping[str, Any]) -> Path | None:
    """Where a prediction is kept; nowhere if a part of the recipe is somebody's own code."""
    from peftkit.environment import versions
    from peftkit.memory.outlines import Outlined

    recipe, loaded = bench.recipe, bench.backbone
    body = recipe.to_dict()
    if any(".py" in body[part]["name"] for part in ("method", "task")):
        return None
    for name in ("name", "revision"):
        del body["backbone"][name]
    what = {
        "config": loaded.model.config.to_dict(),
        "head": loaded.layers.head,
        "pooling": loaded.pooling,
        "labels": len(bench.data.labels),
        "method": body["method"],
        "backbone": body["backbone"],
        "training": body["training"],
        "task": body["task"]["name"],
        "batch": {name: str(Outlined.of(value)) for name, value in sorted(batch.items())},
        "terms": dataclasses.asdict(terms_of(device())),
        "versions": dict(versions()),
        "code": sources(),
    }
    key = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
    return cache_folder() / "memory" / f"{key}.json"


def _read(path: Path | None) -> Prediction | None:
    if path is None:
        return None
    try:
        return Prediction(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _keep(path: Path | None, prediction: Prediction) -> None:
    from peftkit.record import write_atomically

    if path is not None:
        with suppress(OSError):  # a full disk ends no run that has not begun
            write_atomically(path, json.dumps(dataclasses.asdict(prediction)) + "\n")
