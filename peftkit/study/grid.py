"""The cells of a comparison: methods x sizes x label noise x seeds, in the order they are run.

A method is written as its name, or with options that tell it from others of the same name:
`lora:rank=4,alpha=8`. Option names without a dot belong to the method; `training.` and `backbone.`
options may be given too (`lora:training.learning_rate=1e-3`). Data and seed are the grid's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftkit.errors import InvalidInput
from peftkit.overrides import parse_label
from peftkit.recipe import Recipe
from peftkit.record import record_key

Facts = Mapping[str, Any]
"""What a recipe runs on: "data" (source, fingerprint, num_train before any subset, ...) and
"backbone" (name, fingerprint, total_parameters), as records hold them, and the "precision"."""

# Cost of a training example, relative to full fine-tuning; only the order of cells rests on it, and
# the time left until cells like them have been measured.
_COST = {"reference": 0.0, "none": 0.0, "head": 0.35, "partial": 0.7, "retrain": 1.5}
_COST_OF_ADAPTERS, _COST_OF_EVALUATION = 0.8, 500.0


@dataclass(frozen=True, eq=False)
class GridCell:
    """One recipe of a comparison.

    Attributes:
        key: Names its record.
        label: The method as the user wrote it.
        recipe: What is run.
        facts: What it runs on.
        place: Its place in the order of the grid, from 0.
        work: Rough relative cost, in training examples of full fine-tuning.
    """

    key: str
    label: str
    recipe: Recipe
    facts: Facts
    place: int
    work: float

    @property
    def size(self) -> int | None:
        """Training examples; none: all."""
        return self.recipe.task.size

    @property
    def num_train(self) -> int:
        """Training examples, as a number."""
        return self.size or int(self.facts["data"]["num_train"])

    @property
    def noise(self) -> float:
        """Share of training labels made wrong."""
        return self.recipe.task.label_noise

    @property
    def title(self) -> str:
        """The cell in a few words."""
        size = "all examples" if self.size is None else f"{self.size} examples"
        noise = f", noise {self.noise:g}" if self.noise else ""
        return f"{self.label}, {size}{noise}, seed {self.recipe.seed}"


def recipes(
    base: Callable[[str], Recipe],
    methods: Sequence[str],
    *,
    sizes: Sequence[int | None],
    seeds: Sequence[int],
    noises: Sequence[float],
) -> list[tuple[str, Recipe]]:
    """Return every (label, recipe) of a grid, having checked all there is to check without data.

    Args:
        base: Makes the common recipe of a method's name.
        methods: Labels; see `parse_label`.
        sizes: Numbers of training examples; none: all there are.
        seeds: One recipe each, for every method alike.
        noises: Shares of wrong training labels.

    Raises:
        UnknownName: A method or an option does not exist.
        InvalidInput: A value does not fit, or two labels mean the same recipe.
    """
    labels = list(dict.fromkeys(label.strip() for label in methods))
    for name, values in {
        "methods": labels,
        "sizes": sizes,
        "seeds": seeds,
        "noises": noises,
    }.items():
        if not values:
            raise InvalidInput(f"the comparison has no {name}", next_step=f"give some {name}")
    variants: dict[str, Recipe] = {}
    for label in labels:
        name, changes = parse_label(label)
        recipe = base(name).override(changes)
        for other, same in variants.items():
            if recipe == same:
                raise InvalidInput(
                    f"the methods {other!r} and {label!r} are the same",
                    next_step="leave one of them out",
                )
        variants[label] = recipe
    return [
        (label, variants[label].override(_place(size, noise, seed)))
        for size in sorted(set(sizes), key=lambda size: (size is None, size))
        for seed in dict.fromkeys(seeds)
        for noise in dict.fromkeys(noises)
        for label in labels
    ]


def cells(pairs: Sequence[tuple[str, Recipe]], facts: Callable[[Recipe], Facts]) -> list[GridCell]:
    """Return the cells of a grid in the order in which they are best run.

    Small sizes come first, and of those one seed after the other, so that whoever looks early sees
    whole tables. Among the methods of such a group the longest comes first, so that workers end
    together.

    Args:
        pairs: What `recipes` returned.
        facts: Looks at the data and the weights of a recipe; asked once for each size.

    Raises:
        InvalidInput: The data does not have the training examples that a size asks for, or two
            labels come to the same run (an option that is given and is the default).
    """
    seen: dict[str, Facts] = {}
    labels: dict[str, str] = {}
    groups: dict[Any, list[GridCell]] = {}
    for label, recipe in pairs:
        inputs = _inputs(recipe)
        if inputs not in seen:
            seen[inputs] = facts(recipe)
        known = seen[inputs]
        key = record_key(
            recipe.fingerprint(precision=known["precision"]),
            known["data"]["fingerprint"],
            known["backbone"]["fingerprint"],
        )
        if labels.setdefault(key, label) != label:
            raise InvalidInput(
                f"the methods {labels[key]!r} and {label!r} are the same",
                received=f"both come to the run {key}",
                next_step="leave one of them out",
            )
        group = groups.setdefault((recipe.task.size, recipe.seed, recipe.task.label_noise), [])
        group.append(GridCell(key, label, recipe, known, 0, _work(recipe, known)))
    ordered = [
        cell for group in groups.values() for cell in sorted(group, key=lambda cell: -cell.work)
    ]
    return [
        GridCell(cell.key, cell.label, cell.recipe, cell.facts, place, cell.work)
        for place, cell in enumerate(ordered)
    ]


def _place(size: int | None, noise: float, seed: int) -> dict[str, object]:
    return {"task.size": size, "task.label_noise": noise, "seed": seed}


def _inputs(recipe: Recipe) -> str:
    """Return what decides the facts of a recipe."""
    body = recipe.to_dict()
    del body["task"]["label_noise"]
    return json.dumps([body["task"], body["backbone"], recipe.training.precision], sort_keys=True)


def _work(recipe: Recipe, facts: Facts) -> float:
    rung, training = recipe.method.rung, recipe.training
    steps = training.num_steps(recipe.task.size or int(facts["data"]["num_train"]))
    seen = steps * training.batch_size * training.gradient_accumulation
    cost = 1.0 if rung == "full" else _COST.get(rung, _COST_OF_ADAPTERS)
    return _COST_OF_EVALUATION + seen * cost
