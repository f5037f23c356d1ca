"""Weights that wait in the CPU's memory change nothing but where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from peftkit import Recipe, run
from peftkit.device import cuda_probable
from peftkit.errors import InvalidInput, Unsupported
from peftkit.pipeline import facts
from peftkit.workbench import Workbench

OPTIONS = {"steps": 3, "learning_rate": 0.02, "gradient_checkpointing": True}


@pytest.mark.parametrize(
    ("method", "family"),
    [("lora", "bert"), ("bottleneck", "llama"), ("prompt_tuning", "bert"), ("ia3", "gpt2"),
     ("layernorm_tuning", "llama"), ("linear_probe", "bert")],
)  # fmt: skip
def test_a_base_that_waits_trains_and_answers_bit_equally(
    make_bench: Callable[..., Any], method: str, family: str
) -> None:
    """On the CPU the hooks are the same, though nothing is saved."""
    answers = {}
    for where in ("none", "cpu"):
        backbone = {"name": f"twin:{family}", "offload": where}
        bench = make_bench(method, backbone, **OPTIONS)
        predictor = bench.recipe.method.fit(bench)
        predictor.save(bench.folder)
        answers[where] = np.asarray(predictor.outputs(bench.data.test))
        if where == "cpu":
            layers = bench.backbone.waiting
            assert layers
            assert all(layer.weight.is_meta for layer in layers)
            assert not bench.backbone.model.get_input_embeddings().weight.is_meta
        again = Workbench(bench.recipe, bench.data, bench.folder)
        reloaded = again.recipe.method.reload(again, bench.folder)
        assert np.array_equal(np.asarray(reloaded.outputs(bench.data.test)), answers[where])

    assert np.array_equal(answers["none"], answers["cpu"])


def recipe(method: Any = "lora", **training: Any) -> Recipe:
    return Recipe(
        method=method, task={"name": "text_classification", "data": "no/such/folder"},
        backbone={"name": "twin:bert", "offload": "cpu"}, training=training,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["full", "scratch", "last_layers", "bitfit", "peft:vera"])
def test_methods_that_need_the_weights_refuse(method: str) -> None:
    with pytest.raises(InvalidInput, match="at hand"):
        recipe(method, gradient_checkpointing=True)


@pytest.mark.parametrize("option", [{"dora": True}, {"init": "pissa"}])
def test_lora_that_reads_the_weights_refuses(
    make_bench: Callable[..., Any], option: dict[str, Any]
) -> None:
    backbone = {"name": "twin:bert", "offload": "cpu"}
    bench = make_bench({"name": "lora", **option}, backbone, gradient_checkpointing=True)

    with pytest.raises(Unsupported, match="at hand"):
        bench.recipe.method.fit(bench)


def test_without_recomputed_blocks_nothing_would_be_saved() -> None:
    with pytest.raises(InvalidInput, match="computed again"):
        recipe("lora")


@pytest.mark.skipif(cuda_probable(), reason="there is a device to offload from")
def test_a_machine_without_cuda_refuses_before_anything_is_loaded() -> None:
    for attempt in (run, facts):
        with pytest.raises(InvalidInput, match=r"no CUDA device.*Received.*Allowed.*Next: "):
            attempt(recipe("lora", gradient_checkpointing=True))
