"""A backbone of 8 or 4 bits is prepared for training as QLoRA prepares it, for every task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cells import METHODS
from peftkit import parts
from peftkit.backbones import Head, LoadedBackbone, families, load, locate, packed_layers
from peftkit.errors import Unsupported
from peftkit.settings import Backbone

pytestmark = pytest.mark.usefixtures("libraries")

# How many families have a class of transformers for the task.
POSED = {
    "text_classification": 15,
    "token_classification": 14,
    "question_answering": 13,
    "translation": 3,
    "language_modeling": 6,
    "image_classification": 2,
    "audio_classification": 2,
}


def loaded(family: str, task: str, **options: Any) -> LoadedBackbone:
    cls = parts.load("task", task)
    backbone = Backbone(name=f"twin:{family}", **options)
    classes = [c for c in cls.auto_classes if c != "AutoModelForMaskedLM"]  # twins lack that head
    head = Head(
        auto_classes=tuple(classes), labels=["a", "b"], inputs=cls.inputs, reads=cls.reads,
        new_output_layer=task == "translation",
    )  # fmt: skip
    return load(backbone, locate(backbone), head, seed=0)


def posed(task: str, **options: Any) -> Iterator[LoadedBackbone]:
    """The twins of all families that can be asked this, and no others."""
    for family in families().values():
        if family.inputs != parts.load("task", task).inputs:
            continue
        if task == "translation" and family.name not in ("bart", "marian", "t5"):
            continue
        try:
            yield loaded(family.name, task, **options)
        except Unsupported:
            continue


@pytest.mark.parametrize("task", POSED)
def test_heads_norms_and_embeddings_are_never_packed_whatever_is_asked(task: str) -> None:
    """Heads and norms are float32; embeddings stay as they are, also where the output is tied."""
    found = 0
    for backbone in posed(task, quantization="nf4", dtype="bfloat16"):
        found += 1
        model, layers = backbone.model, backbone.layers
        packed = set(packed_layers(model))
        names = {name for name, module in model.named_modules() if module in packed}
        left = {n for n in layers.linear() if n.endswith("DenseReluDense.wo")}  # T5 reads its type
        assert names == set(layers.linear()) - left, layers.family
        for name, parameter in model.named_parameters():
            module = name.rpartition(".")[0]
            wide = module in layers.norms or any(
                f"{name}.".startswith(h + ".") for h in layers.head
            )
            if module not in names:
                expected = torch.float32 if wide else torch.bfloat16
                assert parameter.dtype == expected, (layers.family, name)
        if backbone.inputs == "text" and model.config.tie_word_embeddings:
            output = model.get_output_embeddings()
            assert output is None or output.weight is model.get_input_embeddings().weight

    assert found == POSED[task]


METHODS_THERE = [
    m for m in METHODS
    if parts.load("method", m).works_on_quantised and m not in ("none", "linear_probe", "bitfit")
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS_THERE)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_bfloat16_base_of_4_bits_trains_in_float32_with_or_without_autocast(
    make_bench: Callable[..., Any], toy_folder: Path, family: str, method: str
) -> None:
    """Norms hand on float32; what reads it, the language model's own output above all, casts it."""
    backbone = {"name": f"twin:{family}", "quantization": "nf4", "dtype": "bfloat16"}
    task = {"name": "language_modeling", "data": str(toy_folder), "max_length": 32}
    losses = {}
    for precision in ("float32", "bfloat16"):
        bench = make_bench(method, backbone, task=task, precision=precision, steps=3)
        model = bench.attach(bench.recipe.method)
        bench.train(model)
        losses[precision] = [p["loss"] for p in bench.trained.history if "loss" in p]

        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        assert bench.backbone.model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert losses["float32"] == pytest.approx(losses["bfloat16"], rel=0.02)


@pytest.mark.parametrize("bits", ["int8", "nf4"])
@pytest.mark.parametrize(
    ("method", "family"),
    [("lora", "bert"), ("lora", "llama"), ("bottleneck", "gpt2"), ("prompt_tuning", "llama")],
)
def test_recomputed_activations_lead_to_the_same_weights(
    make_bench: Callable[..., Any], method: str, family: str, bits: str
) -> None:
    ended, passes = {}, {}
    for on in (False, True):
        backbone = {"name": f"twin:{family}", "quantization": bits}
        bench = make_bench(method, backbone, gradient_checkpointing=on, learning_rate=0.01, steps=3)
        count = passes[on] = [0]
        block = bench.backbone.model.get_submodule(bench.backbone.layers.blocks[0])
        first = next(m for m in block.modules() if m in set(packed_layers(block)))
        model = bench.attach(bench.recipe.method)
        first.register_forward_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        bench.train(model)
        ended[on] = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        assert any(not torch.equal(before[n], p) for n, p in ended[on].items() if "lora" in n or
                   "prompt" in n or "bottleneck" in n)  # fmt: skip

    assert passes[True] == [2 * passes[False][0]]
    for name, weight in ended[False].items():
        torch.testing.assert_close(ended[True][name], weight, rtol=1e-5, atol=1e-7)
