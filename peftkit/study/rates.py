"""The learning rate of each method, from an equal number of trials, on validation rows alone.

A method is tried at its own default rate times powers of three: as many trials for each. A trial is
an ordinary run with the seed 0, so the one that is chosen is a cell of the study already.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit import parts
from peftkit.errors import InvalidInput
from peftkit.overrides import parse_label
from peftkit.recipe import Recipe
from peftkit.record import Record, write_atomically
from peftkit.study.folder import StudyFolder
from peftkit.verdict.from_table import RATES_FILE

STEP = 3.0
_GIVEN = "training.learning_rate"


@dataclass(frozen=True)
class Trial:
    """One learning rate of one method at one size."""

    label: str
    size: int | None
    rate: float
    recipe: Recipe
    is_default: bool


def factors(trials: int) -> list[float]:
    """By what the default rate is multiplied: an odd number of powers of three around 1.

    Raises:
        InvalidInput: The number is even, or below 1.
    """
    if trials < 1 or trials % 2 == 0:
        raise InvalidInput(
            "the trials of a learning rate lie around its default",
            received=trials,
            allowed="an odd number: 1 (no search), 3, 5",
        )
    return [STEP**power for power in range(-(trials // 2), trials // 2 + 1)]


def trials_of(
    labels: Sequence[str], sizes: Sequence[int | None], make: Callable[[str, int | None], Recipe],
    trials: int,
) -> list[Trial]:  # fmt: skip
    """All trials; none of a method that knows no learning rate, or whose rate is given.

    Args:
        labels: Methods, as `parse_label` takes them.
        sizes: Training examples.
        make: The recipe of a method and a size, with the seed 0.
        trials: Of each method at each size.
    """
    found = []
    for label in labels:
        name, changes = parse_label(label)
        if parts.load("method", name).learning_rate is None or _GIVEN in changes or trials == 1:
            continue
        for size in sizes:
            recipe = make(label, size)
            default = float(recipe.learning_rate or 0.0)
            for factor in factors(trials):
                if factor == 1:  # as it is: the very cell that a study without a search has
                    found.append(Trial(label, size, default, recipe, True))
                else:
                    rate = float(f"{default * factor:.2g}")
                    changed = recipe.override({_GIVEN: rate})
                    found.append(Trial(label, size, rate, changed, False))
    return found


def choose(
    found: Sequence[Trial], records: Sequence[Record], out: Path
) -> dict[tuple[str, int | None], float]:
    """The rate of each method and size that is best on validation rows; all that was tried is kept.

    Args:
        found: What `trials_of` returned.
        records: Of each of them.
        out: Folder that `learning_rates.json` goes to.
    """
    tried: dict[tuple[str, int | None], dict[float, Record]] = {}
    for trial, record in zip(found, records, strict=True):
        tried.setdefault((trial.label, trial.size), {})[trial.rate] = record
    chosen = {
        place: max(rates, key=lambda rate: validation_score(rates[rate]))
        for place, rates in tried.items()
        if any(record.status == "done" for record in rates.values())
    }
    body: list[dict[str, Any]] = [
        {
            "method": label,
            "size": size,
            "chosen": chosen.get((label, size)),
            "validation": {
                f"{rate:g}": record.metrics.get("validation", {}) if record.status == "done"
                else record.status
                for rate, record in rates.items()
            },
        }
        for (label, size), rates in tried.items()
    ]  # fmt: skip
    write_atomically(out / RATES_FILE, json.dumps(body, indent=2) + "\n")
    return chosen


def read_chosen(out: Path) -> dict[tuple[str, int | None], float]:
    """What `choose` chose, from its file in a folder; empty where nothing has been tried yet."""
    path = out / RATES_FILE
    listed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return {(each["method"], each["size"]): each["chosen"] for each in listed if each["chosen"]}


def forget(out: Path) -> None:
    """Remove what was chosen in a folder, as nothing is chosen there any more."""
    (out / RATES_FILE).unlink(missing_ok=True)


def validation_score(record: Record) -> float:
    """The metric that is chosen by, higher being better; failures come last."""
    if record.status != "done":
        return float("-inf")
    task = Recipe.from_dict(record.recipe).task
    value = float(record.metrics["validation"][task.metric])
    if math.isnan(value):
        return float("-inf")
    return value if task.higher_is_better else -value


def take_over(chosen: Sequence[Record], tried: Sequence[Record], search: Path, out: Path) -> None:
    """Let the trials that are cells of the study be so.

    Their records stand beside the others, and so do their weights, as far as they are kept. Of the
    other trials no weights stay.

    Args:
        chosen: Trials at the rates that were chosen.
        tried: All trials.
        search: Their folder.
        out: Folder of the study.
    """
    folder, origin = StudyFolder(out), StudyFolder(search)
    for record in chosen:
        key = record.key
        if not folder.record(key).exists() and origin.record(key).exists():
            write_atomically(folder.record(key), origin.record(key).read_text(encoding="utf-8"))
        if origin.model(key).is_dir() and not folder.model(key).exists():
            os.replace(origin.model(key), folder.model(key))  # after its record, or it were cleaned
    for record in tried:
        origin.discard_model(record.key)
