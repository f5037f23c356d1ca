"""How far from the loss on 16 bits a real model ends that is trained on 8 and on 4."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftkit import Recipe
from peftkit.predictors import ModelPredictor
from peftkit.workbench import Workbench

BASES: dict[str, dict[str, Any]] = {
    "16 bits": {"dtype": "bfloat16"},
    "int8": {"quantization": "int8"},
    "nf4": {"quantization": "nf4"},
    "nf4, double": {"quantization": "nf4", "double_quantization": True},
    "fp4": {"quantization": "fp4"},
}


@pytest.fixture
def trained(libraries: None, shared: Path, tmp_path: Path) -> Callable[[str], tuple[float, float]]:
    """Train LoRA on Shakespeare for 40 steps, beside the weights of a writer of stories."""
    backbone = shared / "backbones" / "stories260k-llama"
    data = shared / "data" / "tiny_shakespeare"
    for each in (backbone, data):
        if not each.is_dir():
            pytest.skip(f"there is no folder {each}")
    loaded: list[Any] = []

    def train(base: str) -> tuple[float, float]:
        recipe = Recipe(
            method="lora",
            backbone={"name": str(backbone), **BASES[base]},
            task={"name": "language_modeling", "data": str(data), "max_length": 64},
            training={"steps": 40, "precision": "float32"},
        )
        if not loaded:
            whole = recipe.task.load(seed=0)
            few = {"train": whole.train.select(range(8)), "test": whole.test.select(range(1))}
            loaded.append(dataclasses.replace(whole, **few))
        bench = Workbench(recipe, loaded[0], tmp_path)
        model = bench.attach(recipe.method)

        def loss() -> float:
            predictor = ModelPredictor(model=model, bench=bench, parameters=bench.parameters(model))
            scored = recipe.task.score(predictor.outputs(bench.data.test), bench.data.test)
            return float(scored[1]["loss"])

        before = loss()
        bench.train(model)
        return before, loss()

    return train


@pytest.mark.matrix  # a minute of one idle core
@pytest.mark.timeout(1200)
def test_losses_end_near_that_on_16_bits(trained: Callable[[str], tuple[float, float]]) -> None:
    """Nats a token before and after on one CPU, where it is 5.632 and 3.608 on 16 bits.

    int8: -0.008 and 0.001 from that; nf4: 0.089 and 0.020; with double quantisation: 0.078 and
    0.019; fp4: 0.129 and 0.063. So training makes up for most of what packing cost.
    """
    before, after = zip(*(trained(base) for base in BASES), strict=True)
    cost = {base: loss - before[0] for base, loss in zip(BASES, before, strict=True)}
    off = {base: abs(loss - after[0]) for base, loss in zip(BASES, after, strict=True)}

    assert max(after) < min(before) - 1.5
    assert off["int8"] < 0.01
    assert off["nf4"] < 0.05
    assert off["nf4, double"] < 0.05
    assert off["nf4"] < cost["nf4"] / 2
    assert off["nf4"] < off["fp4"] < 0.1
