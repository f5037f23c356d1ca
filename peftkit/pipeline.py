"""From a recipe to a record: read top to bottom."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.backbones import locate
from peftkit.checks import warnings_of
from peftkit.cost import Meter
from peftkit.device import (
    is_out_of_memory,
    require_offload,
    require_optimizer,
    resolve_precision,
)
from peftkit.distributed import is_first, require_even_batches, require_whole_models
from peftkit.environment import sparing_imports
from peftkit.forgetting import Forgetting
from peftkit.memory.profile import allocations, draw, in_words
from peftkit.recording import costs_of, describe_data, record_of, write_manifest
from peftkit.tracking import require_trackers
from peftkit.workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftkit.predictors import Predictor
    from peftkit.recipe import Recipe
    from peftkit.record import Record
    from peftkit.tasks import Progress, TaskData


def run(
    recipe: Recipe,
    out: Path | str | None = None,
    *,
    save_weights: bool = True,
    progress: Progress | None = None,
    features_folder: Path | None = None,
    limit: int | None = None,
    start_from: Path | None = None,
    force: bool = False,
    memory_profile: bool = False,
    report_to: Sequence[str] = (),
) -> Record:
    """Train, evaluate and measure one recipe.

    Args:
        recipe: What to run.
        out: Folder for the adapter (weights, `peftkit.json`) and `record.json`; None: only the
            record is returned. A run that stopped at a checkpoint there goes on from it.
        save_weights: False: leave nothing in `out`.
        progress: Told how far what is being done is.
        features_folder: Where features of the frozen backbone are shared with other runs.
        limit: Validation and test rows looked at, for trying a recipe out; none: all. Numbers of
            few rows say little: the record has a note of it.
        start_from: Folder of an earlier run, whose adapter training goes on from.
        force: Train even what would not fit into memory, by prediction.
        memory_profile: Write what memory held over the step with the largest batch to `out`:
            memory.svg and memory.json, and on CUDA a snapshot of all allocations, memory.pickle.
        report_to: Trackers that training is streamed to: tensorboard (files below `out`), mlflow,
            wandb, trackio.

    Returns:
        The record, status "done".

    Raises:
        InvalidInput: Recipe, data, backbone and machine do not fit, or the data check found errors.
        Unsupported: Method and backbone do not go together.
        DoesNotFit: Training would need more memory than is free.
        Diverged: Training left the finite numbers.
    """
    keep = out is not None and save_weights
    _require_machine(recipe)
    require_trackers(report_to, keep=keep)
    require_whole_models()
    require_even_batches(recipe.training.batch_size)
    with tempfile.TemporaryDirectory(prefix="peftkit-") as temporary:
        folder = Path(out) if keep and out is not None else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        data = _first_rows(recipe.task.load(seed=recipe.seed, progress=progress), limit)
        bench = Workbench(
            recipe, data, folder, features_folder, progress, start_from=start_from,
            memory_check="note" if force else "refuse", trackers=report_to,
        )  # fmt: skip
        saved = folder if is_first() else Path(temporary)
        record = _carry_out(bench, saved, saved if memory_profile else None)
        if keep and is_first():
            write_manifest(folder, record, bench)
            record.write(folder / "record.json")
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return record


def _carry_out(bench: Workbench, saved: Path, profile: Path | None) -> Record:
    """Load, train, evaluate and save what is on the bench, each measured.

    Args:
        bench: Recipe and data.
        saved: Folder that the fitted method is saved in.
        profile: Folder that the memory profile goes to, if one is wanted.
    """
    import torch

    torch.set_num_threads(bench.recipe.training.threads)
    needed = bench.recipe.method.needs_backbone
    if needed:
        _import_libraries()
    meter = Meter()
    if needed:
        _load(bench, meter)
    data = bench.data
    findings = warnings_of(bench, kept_in=bench.features_folder)
    forgetting = Forgetting.begin(bench)
    with meter.phase("train"), allocations(profile):
        predictor = _fit(bench)
    with meter.phase("evaluate"):
        logits = predictor.outputs(data.test, bench.progress)
    predictions, metrics = bench.recipe.task.score(logits, data.test)
    _, validation = bench.recipe.task.score(predictor.outputs(data.validation), data.validation)
    predictor.save(saved)
    if profile is not None:
        _draw_memory(bench, profile)
    return record_of(
        bench,
        predictions=predictions,
        metrics={"test": dict(metrics), "validation": dict(validation)},
        costs=costs_of(bench, meter, predictor, saved) | forgetting.costs(predictor),
        more_of_data=forgetting.text | {"checks": findings},
    )


def _require_machine(recipe: Recipe) -> None:
    """Refuse what this machine cannot do."""
    require_optimizer(recipe.training.optimizer)
    require_offload(recipe.backbone.offload)


def _import_libraries() -> None:
    """Import what every run needs before memory is measured, as workers of a comparison do."""
    with sparing_imports():
        import peft  # noqa: F401
        import transformers.trainer  # noqa: F401


def _load(bench: Workbench, meter: Meter) -> None:
    """Load the backbone, measured; what the task remarks on it goes to the notes of the data."""
    with meter.phase("load"):
        bench.backbone  # noqa: B018  # loads on first use
    remarks = bench.recipe.task.remarks(bench.data, bench.backbone)
    bench.data = dataclasses.replace(bench.data, notes=(*bench.data.notes, *remarks))


def _fit(bench: Workbench) -> Predictor:
    """Train; where memory runs out, the error says what was predicted."""
    try:
        return bench.recipe.method.fit(bench)
    except Exception as error:
        if bench.expected is not None and is_out_of_memory(error):
            error.add_note(f"Predicted: {in_words(bench.expected)}.")
        raise


def _draw_memory(bench: Workbench, folder: Path) -> None:
    if bench.trained and bench.trained.memory:
        draw(bench.trained.memory, folder)
    else:
        bench.notes.append("no training step was counted, so there is no memory profile")


def _first_rows(data: TaskData, limit: int | None) -> TaskData:
    if limit is None:
        return data
    few = {
        name: rows.select(range(min(limit, len(rows))))
        for name, rows in (("validation", data.validation), ("test", data.test))
    }
    note = f"tried out on the first {len(few['test'])} of {len(data.test)} test rows"
    return dataclasses.replace(data, **few, notes=(*data.notes, note))


def facts(recipe: Recipe) -> dict[str, Any]:
    """What a recipe runs on, found without torch: for planning, and for the keys of records.

    Returns:
        "data" and "backbone" as records hold them (`num_train` before any subset), and the
        resolved "precision".

    Raises:
        InvalidInput: The recipe does not fit its data or this machine.
    """
    _require_machine(recipe)
    data = recipe.override({"task.size": None, "task.label_noise": 0.0}).task.load(seed=0)
    location = locate(recipe.backbone)
    weights = sum(path.stat().st_size for path in location.folder.glob("*.safetensors"))
    return {
        "data": describe_data(data),
        "backbone": {
            "name": location.name,
            "fingerprint": location.fingerprint,
            "total_parameters": weights // (2 if recipe.backbone.dtype == "bfloat16" else 4),
        },
        "precision": resolve_precision(recipe.training.precision),
    }
