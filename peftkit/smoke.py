"""Any recipe in miniature: a tiny twin of its backbone, few rows, two steps."""

from __future__ import annotations

import dataclasses

from peftkit.backbones import family_of, locate, model_type
from peftkit.errors import BackboneNotFound
from peftkit.recipe import Recipe
from peftkit.tasks import Task

STEPS = 2
SIZE = 32
LIMIT = 64
"""Rows that a recipe in miniature is evaluated on, as `peftkit.run` takes it."""
STAND_INS = {"image": "vit", "audio": "whisper"}
WRITERS = {"AutoModelForSeq2SeqLM": "marian", "AutoModelForCausalLM": "llama"}


def _stand_in(task: Task) -> str:
    """Name of a family that reads, and writes, what the task does."""
    return STAND_INS.get(task.inputs) or WRITERS.get(task.auto_classes[0], "bert")


def shrink(recipe: Recipe) -> Recipe:
    """Return the recipe on the tiny twin of its backbone's family, for two steps on 32 rows.

    A backbone that cannot be reached is stood in for by the twin of a family that reads the same,
    so that every recipe can be tried without a network.
    """
    try:
        family = family_of(model_type(locate(recipe.backbone)))
    except BackboneNotFound:
        family = None
    name = family.name if family else _stand_in(recipe.task)
    training = dataclasses.replace(
        recipe.training, steps=STEPS, epochs=None, evaluate_every=None, keep_best=False,
        patience=None, save_every=None,
    )  # fmt: skip
    size = min(recipe.task.size or SIZE, SIZE)
    less: dict[str, object] = {
        "size": size,
        "max_length": 32,
        "max_new_tokens": 8,
        "max_seconds": 0.5,
        "target_tokenizer": None,  # a twin has one
    }
    own = {field.name for field in dataclasses.fields(recipe.task)}
    small = recipe.override({f"task.{name}": less[name] for name in less if name in own})
    return Recipe(
        backbone=dataclasses.replace(recipe.backbone, name=f"twin:{name}", revision=None),
        method=recipe.method,
        task=small.task,
        training=training,
        seed=recipe.seed,
    )
