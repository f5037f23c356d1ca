"""What every method keeps to on a backbone of 8 or 4 bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cells import CLASSIFIERS, MATRIX, METHODS, UNSUPPORTED, batch_of, close, logits_of
from peftkit import Recipe, parts
from peftkit.backbones import Head, load, locate, packed_layers
from peftkit.cost import train_flops_per_example
from peftkit.errors import InvalidInput, Unsupported
from peftkit.settings import Backbone
from peftkit.workbench import Workbench

BITS = ("int8", "nf4")
ON_PACKED = tuple(
    m for m in METHODS
    if parts.load("method", m).works_on_quantised and parts.load("method", m).learning_rate
)  # fmt: skip
REFUSED = tuple(
    m for m in METHODS
    if not parts.load("method", m).works_on_quantised and parts.load("method", m).needs_backbone
)  # fmt: skip


def triples() -> list[Any]:
    """Every method on every family in both widths; by default BERT, and a tenth of the others."""
    found = []
    for method in ON_PACKED:
        for family in CLASSIFIERS:
            if (method, family) in UNSUPPORTED["text_classification"]:
                continue
            for bits in BITS:
                number = METHODS.index(method) + CLASSIFIERS.index(family) + BITS.index(bits)
                usual = family == "bert" or number % 10 == 0
                name = f"{method}-{family}-{bits}"
                marks = () if usual else MATRIX
                found.append(pytest.param(method, family, bits, id=name, marks=marks))
    return found


@pytest.fixture
def packed_bench(make_bench: Callable[..., Any]) -> Callable[..., Any]:
    def make(method: Any, family: str, bits: str, **options: Any) -> Any:
        own = {name: options.pop(name) for name in list(options) if name in _BACKBONE}
        backbone = {"name": f"twin:{family}", "quantization": bits, **own}
        return make_bench(method, backbone, **options)

    return make


_BACKBONE = {field.name for field in dataclasses.fields(Backbone)}


def packed_bytes(model: Any) -> list[torch.Tensor]:
    return [layer.weight.detach().clone() for layer in packed_layers(model)]


@pytest.mark.parametrize(("method", "family", "bits"), triples())
def test_method_trains_on_packed_weights_and_is_loaded_bit_equal(
    packed_bench: Callable[..., Any], method: str, family: str, bits: str
) -> None:
    bench = packed_bench(method, family, bits, steps=3, batch_size=4, learning_rate=0.02)
    before = packed_bytes(bench.backbone.model)
    assert before

    predictor = bench.recipe.method.fit(bench)
    predictor.save(bench.folder)
    logits = predictor.outputs(bench.data.test)

    if bench.trained:
        assert all(np.isfinite(p["loss"]) for p in bench.trained.history if "loss" in p)
    after = packed_bytes(getattr(predictor, "model", bench.backbone.model))
    assert len(before) == len(after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    again = Workbench(bench.recipe, bench.data, bench.folder)
    reloaded = again.recipe.method.reload(again, bench.folder)
    assert np.array_equal(reloaded.outputs(bench.data.test), logits)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("method", ["lora", "bottleneck"])
def test_gradients_are_those_of_the_dequantised_backbone(
    packed_bench: Callable[..., Any], make_bench: Callable[..., Any], method: str, family: str
) -> None:
    packed = packed_bench(method, family, "nf4")
    plain = make_bench(method, {"name": f"twin:{family}"})
    _copy_dequantised(packed.backbone.model, plain.backbone.model)

    gradients = {}
    for name, bench in {"packed": packed, "plain": plain}.items():
        model = bench.attach(bench.recipe.method)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            for parameter in (p for p in model.parameters() if p.requires_grad):
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        batch = batch_of(bench)
        labels = batch.pop("labels")
        loss = bench.recipe.task.loss(model(**batch).logits, labels, bench.data)
        loss.backward()
        gradients[name] = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}

    assert gradients["packed"].keys() == gradients["plain"].keys()
    for name, gradient in gradients["packed"].items():
        assert close(gradient, gradients["plain"][name], 1e-4), name


def _copy_dequantised(packed: Any, plain: Any) -> None:
    import bitsandbytes
    from transformers.pytorch_utils import Conv1D

    names = [n for n, m in packed.named_modules() if m in set(packed_layers(packed))]
    for name in names:
        layer, own = packed.get_submodule(name), plain.get_submodule(name)
        weight = bitsandbytes.functional.dequantize_4bit(layer.weight, layer.weight.quant_state)
        own.weight.data.copy_(weight.T if isinstance(own, Conv1D) else weight)


@pytest.mark.parametrize("bits", [*BITS, "fp4"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "deberta_v2"])
def test_only_the_blocks_are_packed_and_parameters_are_counted_alike(
    packed_bench: Callable[..., Any],
    make_bench: Callable[..., Any],
    family: str,
    bits: str,
) -> None:
    backbone = packed_bench("lora", family, bits).backbone
    plain = make_bench("lora", {"name": f"twin:{family}"}).backbone

    packed = set(packed_layers(backbone.model))
    if bits != "int8":
        kinds = {(layer.weight.quant_type, layer.weight.quant_state.nested) for layer in packed}
        assert kinds == {(bits, False)}
    names = {name for name, module in backbone.model.named_modules() if module in packed}
    assert names == set(backbone.layers.linear()) == set(plain.layers.linear())
    assert backbone.total_parameters == plain.total_parameters
    assert backbone.layers.head == plain.layers.head


@pytest.mark.parametrize("method", ["lora", "bottleneck", "bitfit"])
def test_operations_are_counted_as_on_plain_weights(
    packed_bench: Callable[..., Any], make_bench: Callable[..., Any], method: str
) -> None:
    counts = []
    for bench in (packed_bench(method, "bert", "nf4"), make_bench(method, "twin:bert")):
        counts.append(train_flops_per_example(bench, bench.attach(bench.recipe.method)))

    assert counts[0] == counts[1] > 0


def test_packing_moves_what_the_model_says_a_little(
    packed_bench: Callable[..., Any], make_bench: Callable[..., Any]
) -> None:
    plain = make_bench("lora", "twin:bert")
    batch = batch_of(plain)
    expected = logits_of(plain.backbone.model, batch)
    off = {}
    for bits in ("int8", "nf4", "fp4"):
        found = logits_of(packed_bench("lora", "bert", bits).backbone.model, batch)
        off[bits] = float((found - expected).norm() / expected.norm())

    assert 0 < off["int8"] < off["nf4"] < off["fp4"] < 1


def test_options_of_four_bits_arrive_at_every_layer() -> None:
    wanted = Backbone(
        name="twin:bert", quantization="fp4", double_quantization=True, compute_dtype="bfloat16"
    )
    labels = Head(auto_classes=("AutoModelForSequenceClassification",), labels=["a", "b"])
    layers = packed_layers(load(wanted, locate(wanted), labels, seed=0).model)
    found = {
        (each.weight.quant_type, each.weight.quant_state.nested, each.compute_dtype)
        for each in layers
    }

    assert layers
    assert found == {("fp4", True, torch.bfloat16)}


def test_features_of_packed_weights_are_kept_apart(
    packed_bench: Callable[..., Any], make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    found = []
    for bench in (make_bench("none", "twin:bert"), packed_bench("none", "bert", "nf4")):
        bench.features_folder = tmp_path
        found.append(np.stack(bench.features(bench.data.test)))

    assert len(list(tmp_path.glob("*.npz"))) == 2
    assert not np.array_equal(*found)


@pytest.mark.parametrize("method", REFUSED)
def test_methods_that_train_the_blocks_refuse(
    packed_bench: Callable[..., Any], method: str
) -> None:
    bench = packed_bench(method, "bert", "nf4")

    with pytest.raises(Unsupported, match="nf4"):
        bench.recipe.method.fit(bench)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_starts_that_are_taken_out_of_the_weights_refuse(
    packed_bench: Callable[..., Any], init: str
) -> None:
    bench = packed_bench({"name": "lora", "init": init}, "bert", "nf4")

    with pytest.raises(Unsupported, match=init):
        bench.recipe.method.fit(bench)


def test_dora_on_eight_bits_refuses_on_a_cpu(packed_bench: Callable[..., Any]) -> None:
    bench = packed_bench({"name": "lora", "dora": True}, "bert", "int8")

    with pytest.raises(Unsupported, match="DoRA"):
        bench.recipe.method.fit(bench)


@pytest.mark.parametrize("option", [{"double_quantization": True}, {"compute_dtype": "bfloat16"}])
def test_options_of_four_bits_need_four_bits(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="four bits"):
        Backbone(quantization="int8", **option)


def test_nf4_with_double_quantization_costs_4127_bits_a_thousand_weights(tmp_path: Path) -> None:
    """Dettmers et al. 2023, section 3: 0.127 bits a weight for the scales, 0.5 without."""
    bits = {double: _bits_a_weight(double) for double in (False, True)}

    assert bits[False] == 4.5
    assert bits[True] == pytest.approx(4 + 8 / 64 + 32 / (64 * 256))
    assert round(bits[True], 3) == 4.127


def _bits_a_weight(double: bool) -> float:
    import bitsandbytes

    weight = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight, quant_type="nf4", compress_statistics=double
    )
    scales = [state.absmax, *([state.state2.absmax] if double else [])]
    total = sum(t.numel() * t.element_size() for t in (packed, *scales))
    return 8 * total / weight.numel()


def test_nf4_is_nearer_to_normal_weights_than_fp4() -> None:
    import bitsandbytes

    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    off = {}
    for kind in ("nf4", "fp4"):
        packed, state = bitsandbytes.functional.quantize_4bit(weight, quant_type=kind)
        back = bitsandbytes.functional.dequantize_4bit(packed, state)
        off[kind] = float((back - weight).norm() / weight.norm())

    assert off["nf4"] < off["fp4"] < 0.2


def test_packed_weights_stay_as_they_were_packed() -> None:
    """Else bitsandbytes repacks them for good on CPUs that compute in bfloat16."""
    backbone = Backbone(name="twin:bert", quantization="nf4")
    head = Head(auto_classes=("AutoModelForSequenceClassification",), labels=["a", "b"])
    loaded = load(backbone, locate(backbone), head, seed=0)

    assert not any(layer.support_avx512bf16_for_cpu for layer in packed_layers(loaded.model))


def test_quantization_is_a_flag_of_every_recipe() -> None:
    recipe = Recipe(method="lora", task="pydocs/library")
    packed = recipe.override({"backbone.quantization": "nf4", "backbone.double_quantization": True})

    assert packed.backbone.quantization == "nf4"
    assert packed.fingerprint(precision="float32") != recipe.fingerprint(precision="float32")
