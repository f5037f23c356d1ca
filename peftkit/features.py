"""What the frozen backbone makes of rows, computed once and shared between runs."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

    from peftkit.tasks import Progress
    from peftkit.workbench import Workbench


def frozen_features(
    bench: Workbench, rows: Dataset, progress: Progress | None = None
) -> list[np.ndarray]:
    """Last hidden states of the frozen backbone where the task reads them, computed once.

    One array a row: `(hidden,)` of a text, `(words, hidden)` of a text read word by word; of an
    image or a sound what its head reads.

    Kept in the bench's `features_folder`, if there is one, under a name that covers weights and
    their number format, inputs, pooling, precision and threads.
    """
    from peftkit.evaluate import IGNORED, outputs

    backbone, training = bench.backbone, bench.recipe.training
    examples = bench.encode(rows)
    task = bench.recipe.task
    read = backbone.pooling or task.reads
    own = dataclasses.replace(bench.recipe.backbone, name="any", revision=None)
    mark = f"{backbone.location.fingerprint}|{read}|{own}"
    if task.inputs != "text":  # examples are files, and these decide what is read of them
        mark += backbone.processor.to_json_string() + backbone.model.config.to_json_string()
    digest = hashlib.sha256(f"{mark}|{training.precision}|{training.threads}".encode())
    for example in examples:
        for name in sorted(example):
            if name != "labels" and not name.startswith("_"):
                digest.update(np.asarray(example[name]).tobytes() + b"|")
        if task.reads != "text":
            labelled = np.asarray(example["labels"]) != IGNORED
            digest.update(labelled.tobytes())
    kept = bench.features_folder and bench.features_folder / f"{digest.hexdigest()[:32]}.npz"
    if kept and kept.is_file():
        with np.load(kept) as file:
            bench.features_seconds += float(file["seconds"])
            return _split(file["features"], file["counts"])
    start = time.perf_counter()
    from peftkit.heads import read_features

    with read_features(backbone, task) as (model, take):
        found = outputs(
            model,
            examples,
            bench.collate,
            read=take,
            length=task.length,
            key=task.key,
            precision=training.precision,
            progress=progress or bench.progress,
        )
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f".{kept.stem}.{os.getpid()}.npz")
        counts = [len(each) if each.ndim > 1 else -1 for each in found]
        whole = np.concatenate([np.atleast_2d(each) for each in found])
        seconds = time.perf_counter() - start
        np.savez(temporary, features=whole, counts=counts, seconds=seconds)
        temporary.replace(kept)
    return found


def _split(features: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """One array a row again; a count of -1 stands for a single vector."""
    if len(counts) and counts[0] == -1:
        return list(features)
    return np.split(features, np.cumsum(counts)[:-1])
