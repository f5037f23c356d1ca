"""What a run yielded, put into a record, and into the manifest of its folder."""

from __future__ import annotations

import datetime
import json
import shutil
from typing import TYPE_CHECKING, Any

from peftkit.cards import run_card
from peftkit.cost import adapter_bytes, inference_costs, step_memory, train_flops_per_example
from peftkit.device import resolve_precision
from peftkit.distributed import num_processes
from peftkit.environment import environment
from peftkit.fingerprints import fingerprints
from peftkit.record import MANIFEST, Record, record_key, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from peftkit.cost import Meter
    from peftkit.predictors import Predictor
    from peftkit.recipe import Recipe
    from peftkit.tasks import TaskData
    from peftkit.tasks._task import Predictions
    from peftkit.workbench import Workbench


def record_of(
    bench: Workbench,
    *,
    predictions: Predictions,
    metrics: dict[str, dict[str, float]],
    costs: dict[str, Any],
    more_of_data: dict[str, Any],
) -> Record:
    """The record of a finished run."""
    recipe, data = bench.recipe, bench.data
    return Record(
        key=_key(recipe, bench, data),
        recipe=recipe.to_dict(),
        facts=recipe.facts,
        status="done",
        metrics=metrics,
        predictions=predictions,
        history=bench.trained.history if bench.trained else [],
        costs=costs,
        data=describe_data(data) | more_of_data,
        backbone=describe_backbone(bench),
        environment={
            **environment(),
            "threads": recipe.training.threads,
            **({"processes": num_processes()} if num_processes() > 1 else {}),
            "precision": resolve_precision(recipe.training.precision),
        },
        notes=[*data.notes, *bench.notes, *(found["note"] for found in more_of_data["checks"])],
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def write_manifest(folder: Path, record: Record, bench: Workbench) -> None:
    """What is needed to use the folder again: recipe, labels, fingerprints; and a card."""
    labels = bench.data.labels
    backbone = dict(record.backbone)
    if bench.recipe.method.needs_backbone:
        backbone |= fingerprints(bench.backbone.processor)
        generation = bench.backbone.location.folder / "generation_config.json"
        if generation.is_file() and not (folder / generation.name).exists():
            shutil.copyfile(generation, folder / generation.name)
    body = {
        "recipe": record.recipe,
        "labels": labels,
        "backbone": backbone,
        "data": {k: record.data[k] for k in ("source", "fingerprint")}
        | {"columns": bench.data.train.column_names},
    }
    write_atomically(folder / MANIFEST, json.dumps(body, indent=2) + "\n")
    write_atomically(folder / "README.md", run_card(record, labels))


def describe_data(data: TaskData) -> dict[str, Any]:
    """What a record says of its data."""
    return {
        "source": data.source,
        "fingerprint": data.fingerprint,
        "notes": list(data.notes),
        "num_train": len(data.train),
        "num_validation": len(data.validation),
        "num_test": len(data.test),
        "num_classes": len(data.labels),
        "chance": data.chance,
    }


def describe_backbone(bench: Workbench) -> dict[str, Any]:
    """What a record says of its backbone."""
    if not bench.recipe.method.needs_backbone:
        return {"name": "none", "family": "none", "fingerprint": "", "total_parameters": 0}
    backbone = bench.backbone
    return {
        "name": backbone.location.name,
        "family": backbone.layers.family,
        "fingerprint": backbone.location.fingerprint,
        "total_parameters": backbone.total_parameters,
        "pooling": backbone.pooling,
        "quantization": backbone.quantization,
    }


def _key(recipe: Recipe, bench: Workbench, data: TaskData) -> str:
    precision = resolve_precision(recipe.training.precision)
    own = recipe.fingerprint(precision=precision)
    return record_key(own, data.fingerprint, bench.weights_fingerprint)


def costs_of(bench: Workbench, meter: Meter, predictor: Predictor, folder: Path) -> dict[str, Any]:
    """All costs of a run, under the names of a record; `folder` is where it was saved."""
    costs = meter.costs()
    costs["train_seconds"] -= bench.validation_seconds[0]
    costs["train_cpu_seconds"] -= bench.validation_seconds[1]
    parameters = predictor.parameters
    trained = parameters.method + parameters.head
    whole = bench.backbone.total_parameters if bench.recipe.method.needs_backbone else 0
    costs |= {
        "method_parameters": parameters.method,
        "head_parameters": parameters.head,
        "trainable_parameters": trained,
        "total_parameters": whole,
        "trainable_share": parameters.method / whole if whole else None,
        "adapter_bytes": adapter_bytes(folder),
    }
    if bench.trained:
        earlier = bench.costs.get("pretraining_seconds", 0.0)
        seconds = max(costs["train_seconds"] - earlier, 1e-9)
        costs["examples_per_second"] = bench.trained.num_examples / seconds
        costs["tokens_per_second"] = bench.trained.num_tokens / seconds
        costs["steps"] = bench.trained.steps
    costs |= step_memory(bench)
    costs |= bench.costs
    if bench.features_seconds:
        costs["features_seconds"] = bench.features_seconds
    model = getattr(predictor, "model", None)
    if model is not None and trained:
        costs["train_flops_per_example"] = train_flops_per_example(bench, model)
    if bench.recipe.method.needs_backbone:
        costs |= inference_costs(bench, predictor)
    return costs
