"""Any recipe in miniature: a tiny twin of its backbone, few rows, two steps."""

from __future__ import annotations

import dataclasses

from peftkit.backbones import families, family_of, locate, model_type
from peftkit.errors import BackboneNotFound
from peftkit.recipe import Recipe

STEPS = 2
SIZE = 32
STAND_INS = {"text": "bert", "image": "vit", "audio": "whisper"}


def shrink(recipe: Recipe) -> Recipe:
    """Return the recipe on the tiny twin of its backbone's family, for two steps on 32 rows.

    A backbone that cannot be reached is stood in for by the twin of a family that reads the same,
    so that every recipe can be tried without a network.
    """
    try:
        family = family_of(model_type(locate(recipe.backbone)))
    except BackboneNotFound:
        family = None
    name = (family or families()[STAND_INS[recipe.task.inputs]]).name
    training = dataclasses.replace(
        recipe.training, steps=STEPS, epochs=None, evaluate_every=None, keep_best=False,
        patience=None, save_every=None,
    )  # fmt: skip
    size = min(recipe.task.size or SIZE, SIZE)
    less = {"size": size, "max_length": 32, "max_new_tokens": 8, "max_seconds": 0.5}
    own = {field.name for field in dataclasses.fields(recipe.task)}
    small = recipe.override({f"task.{name}": less[name] for name in less if name in own})
    return Recipe(
        backbone=dataclasses.replace(recipe.backbone, name=f"twin:{name}", revision=None),
        method=recipe.method,
        task=small.task,
        training=training,
        seed=recipe.seed,
    )
