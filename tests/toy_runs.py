"""What stands for runs where comparisons and studies are tested: toys, and their facts."""

from __future__ import annotations

from pathlib import Path

import pytest

# What reading a recipe imports, so that not every worker does.
PRELOAD = ("pydantic", "peftkit.tasks.text_classification", "peftkit.methods.lora")
FACTS = {
    "data": {"source": "toy", "fingerprint": "d" * 8, "num_train": 1000},
    "backbone": {"name": "toy", "fingerprint": "w" * 8, "total_parameters": 1000},
    "precision": "float32",
}

# Accuracy is 80 % less GAPS["method/size"], and less the farther the learning rate is from BEST
# times the default one; items have a difficulty that all runs share.
TUNED = """
import json, math, os
import numpy as np
from peftkit import parts
from peftkit.record import Record
from peftkit.study.cell import run_cell

def run(recipe, out, *, save_weights, progress, features_folder, force):
    name = recipe.to_dict()["method"]["name"]
    place = f"{name}/{recipe.task.size}"
    with open(os.environ["TOY_FOLDER"] + "/runs", "a") as file:
        file.write(f"{place}/{recipe.seed}\\n")
    gap = json.loads(os.environ["GAPS"])[place]
    best = json.loads(os.environ.get("BEST", "{}")).get(name, 1.0)
    default = parts.load("method", name).learning_rate
    off = abs(math.log(recipe.learning_rate / default / best)) if default else 0.0
    difficulty = np.random.default_rng(7).random(1500)
    random = np.random.default_rng([recipe.seed, recipe.task.size, len(name)])
    level = 0.8 - gap - 0.05 * off + 0.002 * random.normal()
    right = difficulty + 0.02 * random.normal(size=1500) < level
    value = float(right.mean())
    if save_weights and "SAVED" in os.environ:
        os.makedirs(out)
    return Record(
        key="set by the cell", recipe=recipe.to_dict(), status="done",
        metrics={"validation": {"accuracy": value}, "test": {"accuracy": value}},
        predictions={"item": list(range(1500)), "label": [1] * 1500,
                     "predicted": [int(x) for x in right]},
        data={"fingerprint": "d" * 8, "num_train": recipe.task.size},
        backbone={"fingerprint": "w" * 8, "family": "bert"},
    )

def cell(payload, progress):
    return run_cell(payload, progress, run=run)
"""


def install(name: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the module `name` on the search path, and return the folder that its toys write to."""
    folder = tmp_path / "toys"
    folder.mkdir()
    (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("TOY_FOLDER", str(folder))
    return folder


def runs(toys: Path) -> list[str]:
    """What has been run, in any order."""
    path = toys / "runs"
    return sorted(path.read_text().split()) if path.exists() else []
