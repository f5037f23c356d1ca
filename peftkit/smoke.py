"""Any recipe in miniature: a tiny twin of its backbone, few rows, two steps."""

from __future__ import annotations

import dataclasses

from peftkit.backbones import families, family_of, locate, model_type
from peftkit.errors import BackboneNotFound
from peftkit.recipe import Recipe

STEPS = 2
SIZE = 32


def shrink(recipe: Recipe) -> Recipe:
    """Return the recipe on the tiny twin of its backbone's family, for two steps on 32 rows.

    A backbone that cannot be reached is stood in for by BERT's twin, so that every recipe can be
    tried without a network.
    """
    try:
        family = family_of(model_type(locate(recipe.backbone)))
    except BackboneNotFound:
        family = None
    name = (family or families()["bert"]).name
    training = dataclasses.replace(
        recipe.training, steps=STEPS, epochs=None, evaluate_every=None, keep_best=False,
        patience=None, save_every=None,
    )  # fmt: skip
    size = min(recipe.task.size or SIZE, SIZE)
    small = recipe.override({"task.size": size, "task.max_length": 32})
    return Recipe(
        backbone=dataclasses.replace(recipe.backbone, name=f"twin:{name}", revision=None),
        method=recipe.method,
        task=small.task,
        training=training,
        seed=recipe.seed,
    )
