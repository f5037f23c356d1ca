"""BitFit: training a change to each bias is training the bias, and it folds back into it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
)
from transformers.pytorch_utils import Conv1D

import peftkit.bitfit
from peftkit.bitfit import BitFitConfig, BitFitLayer
from peftkit.errors import InvalidInput, Unsupported

# PEFT knows transformers' activation checkpointing by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")

D, FF, L = 32, 48, 2
SHAPE: dict[str, Any] = {"vocab_size": 50, "num_labels": 3, "initializer_range": 0.2}
LONG: dict[str, Any] = {"hidden_size": D, "num_hidden_layers": L, "num_attention_heads": 4}
LONG |= {"intermediate_size": FF, "max_position_embeddings": 40}
SHORT: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
FAMILIES = {
    "bert": (BertForSequenceClassification, BertConfig, LONG),
    "roberta": (RobertaForSequenceClassification, RobertaConfig, LONG),
    "distilbert": (
        DistilBertForSequenceClassification,
        DistilBertConfig,
        {"dim": D, "n_layers": L, "n_heads": 4, "hidden_dim": FF, "max_position_embeddings": 40},
    ),
    "gpt2": (
        GPT2ForSequenceClassification,
        GPT2Config,
        {"n_embd": D, "n_layer": L, "n_head": 4, "n_inner": FF, "n_positions": 40, **SHORT},
    ),
    "llama": (LlamaForSequenceClassification, LlamaConfig, {**LONG, **SHORT}),
}
WITH_BIAS = ("bert", "roberta", "distilbert", "gpt2")
BACKBONES = {"bert": "bert.", "roberta": "roberta.", "distilbert": "distilbert."}
BACKBONES["gpt2"] = "transformer."
IDS = torch.tensor([[3, 9, 27, 31, 43, 8, 24], [5, 15, 45, 35, 0, 0, 0]])
BATCH = {
    "input_ids": IDS,
    "attention_mask": (IDS != 0).long(),
    "labels": torch.tensor([0, 2]),
}


def tiny(family: str, **options: Any) -> nn.Module:
    """A random model in which no parameter, bias and LayerNorm included, has a special value."""
    torch.manual_seed(7)
    model_cls, config_cls, shape = FAMILIES[family]
    model = model_cls(config_cls(**{**SHAPE, **shape, **options})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def attach(model: nn.Module, **options: Any) -> PeftModel:
    return get_peft_model(model, BitFitConfig(task_type="SEQ_CLS", **options)).eval()


def perturb(model: nn.Module, seed: int = 13) -> nn.Module:
    """Move everything that trains far from where it started."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(**BATCH).logits


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def biases(family: str, model: nn.Module) -> dict[str, nn.Parameter]:
    """The biases of a bare model's backbone, by the name of their module."""
    return {
        name.removesuffix(".bias"): p
        for name, p in model.named_parameters()
        if name.startswith(BACKBONES[family]) and name.endswith(".bias")
    }


def deltas(model: nn.Module, adapter: str = "default") -> dict[str, nn.Parameter]:
    end = f".bitfit_bias.{adapter}"
    return {
        name.removeprefix("base_model.model.").removesuffix(end): p
        for name, p in model.named_parameters()
        if name.endswith(end)
    }


def with_biases_moved(family: str, model: PeftModel) -> nn.Module:
    """A bare model whose own biases and head are what `model` has learned."""
    bare = tiny(family)
    own, learned = biases(family, bare), deltas(model)
    assert own.keys() == learned.keys()
    head = {
        name.removeprefix("base_model.model.").replace(".modules_to_save.default", ""): p
        for name, p in model.named_parameters()
        if ".modules_to_save." in name
    }
    with torch.no_grad():
        for name, bias in own.items():
            bias.add_(learned[name])
        for name, weight in head.items():
            bare.get_parameter(name).copy_(weight)
    return bare


@pytest.mark.parametrize(
    ("family", "count"),
    [
        ("bert", L * (7 * D + FF) + 2 * D),  # and the LayerNorm of the embeddings, the pooler
        ("roberta", L * (7 * D + FF) + D),
        ("distilbert", L * (7 * D + FF) + D),
        ("gpt2", L * (7 * D + FF) + D),  # and the final LayerNorm
    ],
)
def test_parameter_count_is_one_per_bias_of_the_backbone(family: str, count: int) -> None:
    model = attach(tiny(family))

    assert sum(p.numel() for p in deltas(model).values()) == count
    assert deltas(model).keys() == biases(family, tiny(family)).keys()


@pytest.mark.parametrize("family", WITH_BIAS)
def test_output_is_that_of_the_backbone_with_its_biases_moved(family: str) -> None:
    model = perturb(attach(tiny(family)))
    expected = logits(with_biases_moved(family, model))

    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    assert (expected - logits(tiny(family))).abs().max() > 0.05


class Shift(nn.Module):
    """A leaf of no known type with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x + self.bias


def watched() -> nn.Linear:
    linear = nn.Linear(4, 6)
    linear.register_forward_hook(lambda module, args, output: 2 * output)
    return linear


@pytest.mark.parametrize(
    ("module", "shape", "axis"),
    [
        (nn.Linear(4, 6), (2, 5, 4), -1),
        (nn.LayerNorm(4), (2, 5, 4), -1),
        (Conv1D(6, 4), (2, 5, 4), -1),
        (Shift(), (2, 5, 4), -1),
        (nn.Conv1d(4, 6, 3), (2, 4, 9), 1),
        (nn.Conv2d(4, 6, 3), (2, 4, 9, 9), 1),
        (nn.GroupNorm(2, 4), (2, 4, 9), 1),
        (nn.BatchNorm2d(4).eval(), (2, 4, 9, 9), 1),
        (watched(), (2, 5, 4), -1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_delta_is_added_along_the_axis_of_the_bias(
    module: nn.Module, shape: tuple[int, ...], axis: int
) -> None:
    nn.init.normal_(module.bias)
    x = torch.randn(shape)
    layer = BitFitLayer(module)
    layer.update_layer("a")
    layer.set_adapter("a")
    assert torch.equal(layer(x), module(x))

    delta = torch.randn_like(module.bias)
    with torch.no_grad():
        layer.bitfit_bias["a"].copy_(delta)
    view = [1] * x.dim()
    view[axis] = -1
    torch.testing.assert_close(layer(x), module(x) + delta.view(view))
    torch.testing.assert_close(layer.bias, module.bias + delta)


def test_a_bias_used_without_calling_its_module_is_the_adapted_one() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()  # calls no out_proj
    nn.init.normal_(attention.out_proj.bias)
    x = torch.randn(2, 5, 8)
    bare = attention(x, x, x, need_weights=False)[0]
    model = get_peft_model(attention, BitFitConfig(target_modules=["out_proj"]))
    (delta,) = deltas(model).values()
    with torch.no_grad():
        delta.add_(1.5)

    adapted = model(x, x, x, need_weights=False)[0]
    torch.testing.assert_close(adapted, bare + 1.5)
    adapted.sum().backward()
    torch.testing.assert_close(delta.grad, torch.full((8,), 10.0))


@pytest.mark.parametrize("family", WITH_BIAS)
def test_starts_as_the_bare_model_exactly(family: str) -> None:
    assert torch.equal(logits(attach(tiny(family))), logits(tiny(family)))


@pytest.mark.parametrize("family", WITH_BIAS)
def test_learning_can_start_and_gradient_reaches_every_bias_that_counts(family: str) -> None:
    for model in (attach(tiny(family)), perturb(attach(tiny(family)))):
        model(**BATCH).loss.backward()
        bare = tiny(family)
        if any(p.abs().max() > 0 for p in deltas(model).values()):
            bare = with_biases_moved(family, model)
        bare(**BATCH).loss.backward()

        for name, bias in biases(family, bare).items():
            gradient = deltas(model)[name].grad
            torch.testing.assert_close(gradient, bias.grad, rtol=1e-4, atol=1e-6, msg=name)
            # A softmax does not see what is added to all its inputs: key biases cannot learn.
            is_key = name.endswith((".key", ".k_lin"))
            assert (gradient.abs().max() > 1e-5) is not is_key, name


@pytest.mark.parametrize("family", WITH_BIAS)
def test_training_the_change_is_training_the_bias(family: str) -> None:
    model, bare = attach(tiny(family)), tiny(family)
    own = biases(family, bare)
    for learner, parameters in ((model, deltas(model)), (bare, own)):
        optimizer = torch.optim.SGD(parameters.values(), lr=0.05, momentum=0.9)
        for _ in range(4):
            optimizer.zero_grad()
            learner(**BATCH).loss.backward()
            optimizer.step()

    first = biases(family, tiny(family))
    assert max((own[name] - first[name]).abs().max() for name in own) > 0.01
    for name, bias in own.items():
        torch.testing.assert_close(
            first[name] + deltas(model)[name], bias, rtol=1e-3, atol=1e-4, msg=name
        )


@pytest.mark.parametrize("family", WITH_BIAS)
def test_only_declared_parameters_train(family: str) -> None:
    model = perturb(attach(tiny(family)))
    declared = {f"base_model.model.{name}.bitfit_bias.default" for name in deltas(model)}
    heads = {"gpt2": ("score",), "distilbert": ("classifier", "pre_classifier")}
    for head in heads.get(family, ("classifier",)):
        wrapper = model.base_model.model.get_submodule(head).modules_to_save["default"]
        declared |= {
            f"base_model.model.{head}.modules_to_save.default.{name}"
            for name, _ in wrapper.named_parameters()
        }
    assert set(trainable(model)) == declared

    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()(**BATCH).loss.backward()
        optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == declared


def test_the_trainers_weight_decay_spares_the_changes() -> None:
    model = attach(tiny("bert"))
    decayed = Trainer.get_decay_parameter_names(None, model)
    assert "base_model.model.classifier.modules_to_save.default.weight" in decayed
    assert not any("bitfit" in name for name in decayed)


@pytest.mark.parametrize("family", WITH_BIAS)
def test_reload_is_bit_equal_under_any_adapter_name(family: str, tmp_path: Path) -> None:
    model = perturb(attach(tiny(family)))
    model.save_pretrained(tmp_path)

    again = PeftModel.from_pretrained(tiny(family), tmp_path, adapter_name="later")
    assert torch.equal(logits(again), logits(model))
    assert type(PeftConfig.from_pretrained(tmp_path)) is BitFitConfig


def test_many_targets_are_saved_short_in_order_and_reload(tmp_path: Path) -> None:
    model = perturb(attach(tiny("bert", num_hidden_layers=4)))
    assert len(deltas(model)) == 4 * 8 + 2
    model.save_pretrained(tmp_path)

    targets = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert len(targets) < 20
    assert targets == sorted(targets)
    again = PeftModel.from_pretrained(tiny("bert", num_hidden_layers=4), tmp_path)
    assert torch.equal(logits(again), logits(model))
    assert deltas(again).keys() == deltas(model).keys()


def test_reload_is_bit_equal_in_a_new_process_that_imports_the_package(tmp_path: Path) -> None:
    base = tiny("bert")
    base.save_pretrained(tmp_path / "base")
    model = perturb(attach(base))
    model.save_pretrained(tmp_path / "adapter")
    run = {"batch": BATCH, "logits": logits(model), "threads": torch.get_num_threads()}
    torch.save(run, tmp_path / "run.pt")

    script = """
import sys, torch
from transformers import BertForSequenceClassification
from peft import PeftModel
import peftkit.bitfit
run = torch.load("run.pt")
torch.set_num_threads(run["threads"])
base = BertForSequenceClassification.from_pretrained("base").eval()
model = PeftModel.from_pretrained(base, "adapter", low_cpu_mem_usage=True)
with torch.no_grad():
    sys.exit(0 if torch.equal(model(**run["batch"]).logits, run["logits"]) else 3)
"""
    root = str(Path(peftkit.bitfit.__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_several_adapters_switch_and_leave_each_other_alone() -> None:
    alone = [logits(perturb(attach(tiny("bert")), seed=seed)) for seed in (1, 2)]
    model = perturb(attach(tiny("bert")), seed=1)
    model.add_adapter("second", BitFitConfig(task_type="SEQ_CLS"))
    assert torch.equal(logits(model), alone[0])
    model.set_adapter("second")
    assert not any(".default" in name for name in trainable(model))
    perturb(model, seed=2)
    assert torch.equal(logits(model), alone[1])

    model.set_adapter("default")
    assert torch.equal(logits(model), alone[0])
    model.delete_adapter("second")
    assert not any(".second" in name for name in model.state_dict())
    assert torch.equal(logits(model), alone[0])


def test_adapters_active_together_add_up_merged_or_not() -> None:
    layer, x = BitFitLayer(nn.Linear(4, 6)), torch.randn(2, 5, 4)
    for name in ("a", "b"):
        layer.update_layer(name)
        nn.init.normal_(layer.bitfit_bias[name])
    layer.set_adapter(["a", "b"])
    total = layer.bitfit_bias["a"] + layer.bitfit_bias["b"]

    expected = layer.base_layer(x) + total
    torch.testing.assert_close(layer(x), expected)
    layer.merge()
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.base_layer(x), expected)


@pytest.mark.parametrize("family", WITH_BIAS)
def test_disabled_is_the_bare_model_exactly(family: str) -> None:
    expected = logits(tiny(family))
    model = perturb(attach(tiny(family)))
    adapted = logits(model)

    with model.disable_adapter():
        assert torch.equal(logits(model), expected)
        assert trainable(model) == {}
    assert torch.equal(logits(model), adapted)
    model.merge_adapter()
    with model.disable_adapter():  # takes the merged change out again
        assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model), adapted)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_gradient_checkpointing_gives_the_same_gradients(family: str, use_reentrant: bool) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = tiny(family)
        model.config.use_cache = False
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        model = perturb(attach(model))
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model.train()(**BATCH).loss.backward()
        gradients.append({n: p.grad for n, p in trainable(model).items()})

    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("family", WITH_BIAS)
def test_merged_model_has_the_original_names_and_the_adapted_outputs(family: str) -> None:
    names = [name for name, _ in tiny(family).named_parameters()]
    model = perturb(attach(tiny(family)))
    adapted, expected = logits(model), with_biases_moved(family, model)

    merged = model.merge_and_unload(safe_merge=True)
    assert [name for name, _ in merged.named_parameters()] == names
    assert not any(isinstance(module, BitFitLayer) for module in merged.modules())
    torch.testing.assert_close(logits(merged), adapted, rtol=1e-5, atol=1e-5)
    for name, parameter in expected.named_parameters():
        assert torch.equal(merged.get_parameter(name), parameter), name


def test_unmerging_restores_every_bit() -> None:
    model = perturb(attach(tiny("bert")))
    before = {n: p.clone() for n, p in model.named_parameters()}
    adapted = logits(model)

    model.merge_adapter()
    assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters())
    torch.testing.assert_close(logits(model), adapted, rtol=1e-5, atol=1e-5)
    model.unmerge_adapter()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert torch.equal(logits(model), adapted)


def test_taking_off_without_merging_gives_the_biases_back() -> None:
    bare = perturb(attach(tiny("gpt2"))).unload()
    for name, bias in biases("gpt2", tiny("gpt2")).items():
        assert torch.equal(bare.get_submodule(name).bias, bias)


def test_safe_merge_refuses_what_is_not_finite() -> None:
    model = attach(tiny("bert"))
    with torch.no_grad():
        deltas(model)["bert.pooler.dense"][3] = float("inf")
    with pytest.raises(InvalidInput, match="not finite"):
        model.merge_adapter(safe_merge=True)
    assert model.base_model.model.bert.pooler.dense.base_layer.bias.isfinite().all()


def test_a_model_without_biases_is_refused_and_one_with_some_is_not() -> None:
    for targets in (None, ["q_proj"]):
        with pytest.raises(Unsupported, match="LlamaForSequenceClassification has no bias"):
            attach(tiny("llama"), target_modules=targets)
    some = attach(tiny("llama", attention_bias=True))
    ends = {name.rsplit(".", 1)[1] for name in deltas(some)}
    assert ends == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_an_entry_that_matches_no_bias_is_refused_naming_the_candidates() -> None:
    model = tiny("bert")
    before = str(model)
    for targets in (["query", "quarry"], ["word_embeddings"], r".*\.mlp", ["classifier"]):
        with pytest.raises(InvalidInput, match=r"no module with a bias.*attention\.self\.query"):
            attach(model, target_modules=targets)
    assert str(model) == before


def test_targets_and_exclusions_are_names_or_expressions() -> None:
    model = attach(tiny("bert"), target_modules=r".*attention.*", exclude_modules=["LayerNorm"])
    ends = {name.split(".attention.")[1] for name in deltas(model)}
    assert ends == {"self.query", "self.key", "self.value", "output.dense"}
    spared = attach(tiny("bert"), exclude_modules=r".*\.LayerNorm|bert\.pooler\..*")
    assert len(deltas(spared)) == 6 * L


def test_heads_are_left_out_of_the_default() -> None:
    # PEFT's `classifier` also stands for DistilBERT's pre_classifier, here under a wide pattern.
    wide = attach(tiny("distilbert"), target_modules=".*")
    assert deltas(wide).keys() == biases("distilbert", tiny("distilbert")).keys()
    masked = BertForMaskedLM(BertConfig(vocab_size=50, **LONG))
    assert all(n.startswith("bert.") for n in deltas(get_peft_model(masked, BitFitConfig())))


def test_a_half_precision_backbone_carries_a_float32_adapter() -> None:
    exact = logits(perturb(attach(tiny("gpt2"))))
    model = perturb(attach(tiny("gpt2").to(torch.bfloat16)))
    assert {p.dtype for p in deltas(model).values()} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    model(**BATCH).loss.backward()
    assert all(p.grad.abs().max() > 0 for p in deltas(model).values())
    assert (logits(model).float() - exact).abs().max() < 0.15 * exact.abs().max()
    merged = model.merge_and_unload()
    assert {p.dtype for n, p in merged.named_parameters() if "score" not in n} == {torch.bfloat16}


def test_a_copy_of_an_adapted_model_does_not_touch_the_first() -> None:
    model = perturb(attach(tiny("bert")))
    expected = logits(model)
    twin = perturb(copy.deepcopy(model), seed=99)
    twin.merge_adapter()
    assert not torch.equal(logits(twin), expected)
    assert torch.equal(logits(model), expected)


def test_wrapped_modules_still_show_their_own_attributes() -> None:
    layer = attach(tiny("bert")).base_model.model.bert.encoder.layer[0]
    assert layer.output.LayerNorm.normalized_shape == (D,)
    assert layer.output.LayerNorm.weight is layer.output.LayerNorm.base_layer.weight
    assert layer.intermediate.dense.out_features == FF
    with pytest.raises(AttributeError):
        _ = layer.output.dense.no_such_thing


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_biases_of_quantised_layers_train_and_merge(kind: str) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    base = tiny("bert")
    for name, module in list(base.named_modules()):
        if isinstance(module, nn.Linear) and ".layer." in name:
            size = (module.in_features, module.out_features)
            if kind == "int8":
                new = bnb.nn.Linear8bitLt(*size, has_fp16_weights=False)
                new.weight = bnb.nn.Int8Params(module.weight.data, requires_grad=False)
            else:
                new = bnb.nn.Linear4bit(*size)
                new.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False)
                new.support_avx512bf16_for_cpu = False
            new.bias = module.bias
            parent, _, child = name.rpartition(".")
            setattr(base.get_submodule(parent), child, new.to("cpu"))
    expected = logits(base.eval())

    model = attach(base)
    assert torch.equal(logits(model), expected)
    perturb(model)(**BATCH).loss.backward()
    assert all(p.grad.isfinite().all() for p in deltas(model).values())
    adapted = logits(model)
    assert not torch.equal(adapted, expected)
    torch.testing.assert_close(logits(model.merge_and_unload()), adapted, rtol=1e-2, atol=1e-2)
