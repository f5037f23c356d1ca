"""Bottleneck adapters: what they compute, what they train, and that PEFT can live with them."""

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
from peft import PeftConfig, PeftModel, PeftType, get_peft_model, inject_adapter_in_model
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import peftkit.bottleneck
from peftkit.bottleneck import BottleneckConfig, BottleneckLayer
from peftkit.errors import InvalidInput, Unsupported

# PEFT knows transformers' activation checkpointing by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")

D, L = 32, 2
SHAPE: dict[str, Any] = {"vocab_size": 50, "num_labels": 3, "initializer_range": 0.2}
LONG: dict[str, Any] = {"hidden_size": D, "num_hidden_layers": L, "num_attention_heads": 4}
LONG |= {"intermediate_size": 48, "max_position_embeddings": 40}
SHORT: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
FAMILIES = {
    "bert": (BertForSequenceClassification, BertConfig, LONG),
    "roberta": (RobertaForSequenceClassification, RobertaConfig, LONG),
    "distilbert": (
        DistilBertForSequenceClassification,
        DistilBertConfig,
        {"dim": D, "n_layers": L, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40},
    ),
    "gpt2": (
        GPT2ForSequenceClassification,
        GPT2Config,
        {"n_embd": D, "n_layer": L, "n_head": 4, "n_inner": 48, "n_positions": 40, **SHORT},
    ),
    "llama": (
        LlamaForSequenceClassification,
        LlamaConfig,
        {**LONG, **SHORT, "num_key_value_heads": 2},
    ),
}
VARIANTS = ("houlsby", "pfeiffer", "parallel")
CASES = [(family, variant) for family in FAMILIES for variant in VARIANTS]
# By hand, per layer: the attention's output projection, the MLP's, and the MLP from where to where.
BERT_LIKE = ("encoder.layer.{}.attention.output.dense", "encoder.layer.{}.output.dense")
PLACES = {
    "bert": ("bert.", *BERT_LIKE, "encoder.layer.{}.intermediate.dense", BERT_LIKE[1]),
    "roberta": ("roberta.", *BERT_LIKE, "encoder.layer.{}.intermediate.dense", BERT_LIKE[1]),
    "distilbert": (
        "distilbert.transformer.layer.{}.",
        "attention.out_lin",
        "ffn.lin2",
        "ffn",
        "ffn",
    ),
    "gpt2": ("transformer.h.{}.", "attn.c_proj", "mlp.c_proj", "mlp", "mlp"),
    "llama": ("model.layers.{}.", "self_attn.o_proj", "mlp.down_proj", "mlp", "mlp"),
}
HEADS = {
    "bert": {"classifier": ("weight", "bias")},
    "roberta": {"classifier": ("dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias")},
    "distilbert": {"classifier": ("weight", "bias"), "pre_classifier": ("weight", "bias")},
    "gpt2": {"score": ("weight",)},
    "llama": {"score": ("weight",)},
}
IDS = torch.tensor([[3, 9, 27, 31, 43, 8, 24], [5, 15, 45, 35, 0, 0, 0]])
BATCH = {
    "input_ids": IDS,
    "attention_mask": (IDS != 0).long(),
    "labels": torch.tensor([0, 2]),
}


def tiny(family: str) -> nn.Module:
    """A random model in which no parameter, bias and LayerNorm included, has a special value."""
    torch.manual_seed(7)
    model_cls, config_cls, shape = FAMILIES[family]
    model = model_cls(config_cls(**SHAPE, **shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def attach(model: nn.Module, variant: str = "houlsby", **options: Any) -> PeftModel:
    torch.manual_seed(11)
    config = BottleneckConfig(task_type="SEQ_CLS", variant=variant, **options)
    return get_peft_model(model, config).eval()


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


def places(family: str, variant: str) -> list[tuple[str, str]]:
    """Pairs (module read, module changed) by hand; read = changed where the output is read."""
    start, attention, mlp, source, target = PLACES[family]
    pairs = {
        "houlsby": [(attention, attention), (mlp, mlp)],
        "pfeiffer": [(mlp, mlp)],
        "parallel": [(source, target)],
    }[variant]
    return [
        ((start + a).format(layer), (start + b).format(layer))
        for layer in range(L)
        for a, b in pairs
    ]


def adapter_names(family: str, variant: str, adapter: str = "default") -> set[str]:
    return {
        f"base_model.model.{target}.bottleneck_{part}.{adapter}.{kind}"
        for _, target in places(family, variant)
        for part in ("down", "up")
        for kind in ("weight", "bias")
    }


def head_names(family: str, adapter: str = "default") -> set[str]:
    return {
        f"base_model.model.{head}.modules_to_save.{adapter}.{name}"
        for head, names in HEADS[family].items()
        for name in names
    }


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def change(weights: dict[str, Tensor], target: str, z: Tensor, variant: str) -> Tensor:
    """W_up f(W_down z + b_down) + b_up, written out, with the variant's f."""
    w = {
        f"{part}.{kind}": weights[f"base_model.model.{target}.bottleneck_{part}.default.{kind}"]
        for part in ("down", "up")
        for kind in ("weight", "bias")
    }
    inner = torch.einsum("md,bsd->bsm", w["down.weight"], z) + w["down.bias"]
    if variant == "houlsby":
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    else:
        inner = inner.clamp(min=0)
    return torch.einsum("dm,bsm->bsd", w["up.weight"], inner) + w["up.bias"]


def written_out(
    model: nn.Module, weights: dict[str, Tensor], family: str, variant: str, scaling: float
) -> None:
    """Make a bare model compute what the adapters should, by changing outputs on the way."""
    modules, seen = dict(model.named_modules()), {}

    def remember(target: str) -> Any:
        return lambda module, args: seen.update({target: args[0]})

    def replace(target: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            z = seen.get(target, output)
            return output + scaling * change(weights, target, z, variant)

        return hook

    for source, target in places(family, variant):
        if variant == "parallel":
            modules[source].register_forward_pre_hook(remember(target))
        modules[target].register_forward_hook(replace(target))


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_parameter_count_is_the_papers_formula(family: str, variant: str) -> None:
    per_layer = 2 if variant == "houlsby" else 1
    for options, m in (({}, D // 16), ({"reduction_factor": 100}, 1), ({"bottleneck_size": 5}, 5)):
        model = attach(tiny(family), variant, **options)

        counted = sum(p.numel() for n, p in trainable(model).items() if ".bottleneck_" in n)
        assert counted == per_layer * L * (2 * D * m + m + D)


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_output_is_the_written_equation(family: str, variant: str) -> None:
    model = perturb(attach(tiny(family), variant, bottleneck_size=6))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    bare = model.unload()  # carries the perturbed head
    untouched = logits(bare)
    written_out(bare, weights, family, variant, scaling=4.0 if variant == "parallel" else 1.0)
    expected = logits(bare)

    again = attach(tiny(family), variant, bottleneck_size=6)
    again.load_state_dict(weights, strict=False)
    assert (expected - untouched).abs().max() > 0.05
    torch.testing.assert_close(logits(again), expected, rtol=1e-5, atol=1e-5)


def test_parallel_on_bert_adds_to_the_mlp_before_residual_and_layer_norm() -> None:
    model = perturb(attach(tiny("bert"), "parallel", scaling=2.5))
    layer = model.base_model.model.bert.encoder.layer[1]
    seen: dict[str, Tensor] = {}
    layer.intermediate.register_forward_pre_hook(lambda m, args: seen.update(x=args[0]))
    layer.register_forward_hook(lambda m, args, output: seen.update(y=output))
    logits(model)

    x, weights = seen["x"], {n: p.detach() for n, p in model.named_parameters()}
    inner = torch.nn.functional.gelu(layer.intermediate.dense(x))
    mlp = layer.output.dense.base_layer(inner)
    added = 2.5 * change(weights, "bert.encoder.layer.1.output.dense", x, "parallel")
    torch.testing.assert_close(seen["y"], layer.output.LayerNorm(mlp + added + x))


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "swish", "tanh"])
def test_non_linearity_is_the_one_named(name: str) -> None:
    layer = BottleneckLayer(nn.Linear(4, 4))
    config = BottleneckConfig(
        bottleneck_size=3, non_linearity=name, init_weights=False, scaling=2.0
    )
    layer.update_layer("a", config, 4, 4)
    layer.set_adapter("a")
    x = torch.randn(2, 5, 4)
    down, up, h = layer.bottleneck_down["a"], layer.bottleneck_up["a"], layer.base_layer(x)

    z = down(h)
    by_hand = {
        "relu": torch.maximum(z, torch.zeros(())),
        "gelu": z * torch.distributions.Normal(0.0, 1.0).cdf(z),
        "silu": z / (1 + torch.exp(-z)),
        "tanh": (torch.exp(2 * z) - 1) / (torch.exp(2 * z) + 1),
    }
    expected = h + 2.0 * up(by_hand["silu" if name == "swish" else name])
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_starts_as_the_bare_model_exactly(family: str, variant: str) -> None:
    assert torch.equal(logits(attach(tiny(family), variant)), logits(tiny(family)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_initial_weights_are_as_documented(variant: str) -> None:
    model = attach(tiny("gpt2"), variant, bottleneck_size=20)
    for name, parameter in trainable(model).items():
        if name.endswith("bottleneck_down.default.weight"):
            assert D**-0.5 * 0.95 < parameter.abs().max() <= D**-0.5
            assert abs(parameter.std() * (3 * D) ** 0.5 - 1) < 0.1  # uniform
        elif ".bottleneck_" in name:
            assert not parameter.any()


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_learning_can_start(family: str, variant: str) -> None:
    model = attach(tiny(family), variant)
    model(**BATCH).loss.backward()

    for _, target in places(family, variant):
        layer = model.base_model.model.get_submodule(target)
        for kind in ("weight", "bias"):
            assert getattr(layer.bottleneck_up["default"], kind).grad.abs().max() > 0


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_gradient_reaches_every_trainable_tensor_once_perturbed(family: str, variant: str) -> None:
    model = perturb(attach(tiny(family), variant, non_linearity="gelu"))
    model(**BATCH).loss.backward()

    dead = [n for n, p in trainable(model).items() if p.grad is None or p.grad.abs().max() == 0]
    assert dead == []


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_only_declared_parameters_train(family: str, variant: str) -> None:
    model = perturb(attach(tiny(family), variant))
    declared = adapter_names(family, variant) | head_names(family)
    assert set(trainable(model)) == declared

    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()(**BATCH).loss.backward()
        optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == declared


def test_same_seed_gives_the_same_adapter_and_another_seed_another() -> None:
    first, second = attach(tiny("bert")), attach(tiny("bert"))
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )

    torch.manual_seed(12)
    third = get_peft_model(tiny("bert"), BottleneckConfig(task_type="SEQ_CLS"))
    names = [n for n in trainable(first) if n.endswith("down.default.weight")]
    assert len(names) == 2 * L
    assert not any(torch.equal(trainable(first)[n], trainable(third)[n]) for n in names)


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_reload_is_bit_equal_under_any_adapter_name(
    family: str, variant: str, tmp_path: Path
) -> None:
    model = perturb(attach(tiny(family), variant, bottleneck_size=3, non_linearity="tanh"))
    model.save_pretrained(tmp_path)

    again = PeftModel.from_pretrained(tiny(family), tmp_path, adapter_name="later")
    assert torch.equal(logits(again), logits(model))
    assert type(PeftConfig.from_pretrained(tmp_path)) is BottleneckConfig
    assert trainable(again) == {}
    assert len(trainable(PeftModel.from_pretrained(tiny(family), tmp_path, is_trainable=True))) == (
        len(trainable(model))
    )


def test_reload_is_bit_equal_in_a_new_process_that_imports_the_package(tmp_path: Path) -> None:
    base = tiny("bert")
    base.save_pretrained(tmp_path / "base")
    model = perturb(attach(base, "parallel"))
    model.save_pretrained(tmp_path / "adapter")
    run = {"batch": BATCH, "logits": logits(model), "threads": torch.get_num_threads()}
    torch.save(run, tmp_path / "run.pt")

    script = """
import sys, torch
from transformers import BertForSequenceClassification
from peft import PeftModel
import peftkit.bottleneck
run = torch.load("run.pt")
torch.set_num_threads(run["threads"])
base = BertForSequenceClassification.from_pretrained("base").eval()
model = PeftModel.from_pretrained(base, "adapter", low_cpu_mem_usage=True)
with torch.no_grad():
    sys.exit(0 if torch.equal(model(**run["batch"]).logits, run["logits"]) else 3)
"""
    root = str(Path(peftkit.bottleneck.__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_config_survives_json_and_equal_adapters_are_equal_files(tmp_path: Path) -> None:
    targets = sorted(target for _, target in places("bert", "houlsby"))
    model = attach(tiny("bert"), "pfeiffer", target_modules=set(targets), dropout=0.25)
    model.save_pretrained(tmp_path)

    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["target_modules"] == targets
    assert saved["peft_type"] == "BOTTLENECK" == PeftType("BOTTLENECK").value
    config = PeftConfig.from_pretrained(tmp_path)
    assert (config.variant, config.dropout, config.scaling) == ("pfeiffer", 0.25, 1.0)
    assert (config.non_linearity, config.reduction_factor) == ("relu", 16)


def test_several_adapters_switch_and_leave_each_other_alone() -> None:
    alone = {
        variant: logits(perturb(attach(tiny("bert"), variant, bottleneck_size=size), seed=seed))
        for variant, size, seed in (("houlsby", 3, 1), ("parallel", 4, 2))
    }
    model = perturb(attach(tiny("bert"), "houlsby", bottleneck_size=3), seed=1)
    torch.manual_seed(11)
    config = BottleneckConfig(task_type="SEQ_CLS", variant="parallel", bottleneck_size=4)
    model.add_adapter("second", config)
    assert torch.equal(logits(model), alone["houlsby"])
    assert set(trainable(model)) == adapter_names("bert", "houlsby") | head_names("bert")

    model.set_adapter("second")
    wanted = adapter_names("bert", "parallel", "second") | head_names("bert", "second")
    assert set(trainable(model)) == wanted
    perturb(model, seed=2)
    assert torch.equal(logits(model), alone["parallel"])

    model.set_adapter("default")
    assert torch.equal(logits(model), alone["houlsby"])
    model.set_adapter("second")
    model.delete_adapter("default")
    assert torch.equal(logits(model), alone["parallel"])
    assert not any(".default." in name for name in model.state_dict())


def test_adapters_active_together_add_up() -> None:
    layer = BottleneckLayer(nn.Linear(4, 4))
    for name in ("a", "b"):
        config = BottleneckConfig(bottleneck_size=3, init_weights=False)
        layer.update_layer(name, config, 4, 4)
    x = torch.randn(2, 5, 4)
    bare = layer.base_layer(x)
    parts = []
    for name in ("a", "b"):
        layer.set_adapter(name)
        parts.append(layer(x) - bare)

    layer.set_adapter(["a", "b"])
    torch.testing.assert_close(layer(x), bare + parts[0] + parts[1])


def test_adapters_on_one_module_may_read_from_different_places() -> None:
    torch.manual_seed(0)
    feed, target = nn.Linear(4, 4), nn.Linear(4, 4)
    layer = BottleneckLayer(target)
    for name, variant, source in (
        ("h", "houlsby", None),
        ("own", "parallel", None),
        ("fed", "parallel", feed),
    ):
        config = BottleneckConfig(
            variant=variant,
            bottleneck_size=3,
            init_weights=False,
            scaling=1.0,
            non_linearity="relu",
        )
        layer.update_layer(name, config, 4, 4, feed=source)
    x = torch.randn(2, 4)
    inner = feed(x)
    for name, source in (("h", target(inner)), ("own", inner), ("fed", x)):
        layer.set_adapter(name)
        down, up = layer.bottleneck_down[name], layer.bottleneck_up[name]
        feed(x)
        torch.testing.assert_close(layer(inner), target(inner) + up(down(source).clamp(min=0)))

    with pytest.raises(InvalidInput, match="different modules"):
        layer.update_layer("other", config, 4, 4, feed=nn.Linear(4, 4))


@pytest.mark.parametrize(("family", "variant"), [("bert", "parallel"), ("llama", "houlsby")])
def test_disabled_is_the_bare_model_exactly(family: str, variant: str) -> None:
    expected = logits(tiny(family))
    model = perturb(attach(tiny(family), variant))
    adapted, names = logits(model), set(trainable(model))

    with model.disable_adapter():
        assert torch.equal(logits(model), expected)
        assert trainable(model) == {}
    assert torch.equal(logits(model), adapted)
    assert set(trainable(model)) == names
    assert not torch.equal(adapted, expected)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize(("family", "variant"), [("bert", "parallel"), ("gpt2", "houlsby")])
def test_gradient_checkpointing_gives_the_same_gradients(
    family: str, variant: str, use_reentrant: bool
) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = tiny(family)
        model.config.use_cache = False
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        model = perturb(attach(model, variant))
        for module in model.modules():  # randomness out, training mode (checkpointing) on
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model.train()
        for name, module in model.named_modules():
            if name.endswith("attention.self") and hasattr(module, "dropout"):
                module.dropout.p = 0.0
        torch.manual_seed(3)
        model(**BATCH).loss.backward()
        gradients.append({n: p.grad for n, p in trainable(model).items()})

    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize(("family", "variant"), [("bert", "parallel"), ("llama", "parallel")])
def test_merging_is_refused_and_taking_off_gives_the_bare_model(family: str, variant: str) -> None:
    expected, names = logits(tiny(family)), [n for n, _ in tiny(family).named_parameters()]
    model = perturb(attach(tiny(family), variant))
    adapted = logits(model)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(Unsupported, match="non-linearity"):
            merge()
    assert torch.equal(logits(model), adapted)

    head = set(HEADS[family])
    with torch.no_grad():  # unload keeps the trained head: put the first one back
        for name in head:
            wrapper = model.base_model.model.get_submodule(name)
            wrapper.modules_to_save["default"].load_state_dict(wrapper.original_module.state_dict())
    bare = model.unload()
    assert [n for n, _ in bare.named_parameters()] == names
    assert torch.equal(logits(bare), expected)
    assert not any(m._forward_pre_hooks for m in bare.modules())


def test_a_refused_merge_leaves_the_model_as_it_was() -> None:
    model = attach(tiny("bert"), modules_to_save=["LayerNorm"])  # wrapped ahead of the first target
    before = str(model)
    with pytest.raises(Unsupported):
        model.merge_and_unload()
    assert str(model) == before


def test_an_entry_that_matches_nothing_is_refused_naming_the_candidates() -> None:
    model = tiny("bert")
    before = str(model)
    for targets in (["attention.output.dense", "ouput.dense"], r".*\.mlp", ["classifier"]):
        with pytest.raises(InvalidInput, match=r"matches no module.*attention\.output\.dense"):
            attach(model, target_modules=targets)
    assert str(model) == before


def test_a_model_type_without_defaults_is_refused_naming_what_to_give() -> None:
    shape = {**LONG, "vocab_size": 50, "embedding_size": D}
    with pytest.raises(InvalidInput, match=r"electra.*bert.*Next.*attention\.output\.dense"):
        get_peft_model(ElectraModel(ElectraConfig(**shape)), BottleneckConfig())


def test_input_modules_outside_the_layer_or_run_too_late_are_refused() -> None:
    places = {"target_modules": [r"layer.0.intermediate.dense", "layer.1.intermediate.dense"]}
    with pytest.raises(InvalidInput, match="no module in the layer"):
        attach(tiny("bert"), "parallel", **places, input_modules=["pooler.dense"])
    with pytest.raises(InvalidInput, match="matches no module"):
        attach(tiny("bert"), "parallel", **places, input_modules=["fc1"])
    late = attach(tiny("bert"), "parallel", **places, input_modules=r".*\d\.output\.dense")
    with pytest.raises(InvalidInput, match="not run before"):
        logits(late)


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "serial"},
        {"non_linearity": "relux"},
        {"reduction_factor": 0},
        {"reduction_factor": 2.5},
        {"bottleneck_size": -1},
        {"bottleneck_size": 4, "reduction_factor": 4},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"scaling": 0.0},
        {"scaling": float("nan")},
        {"input_modules": ["intermediate.dense"]},
        {"target_modules": []},
        {"target_modules": "(unclosed"},
    ],
    ids=str,
)
def test_a_bad_value_is_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        BottleneckConfig(**options)


def test_targets_are_ends_of_names_or_one_whole_expression() -> None:
    by_end = attach(tiny("bert"), target_modules=["output.dense"])  # also attention.output.dense
    assert set(trainable(by_end)) == adapter_names("bert", "houlsby") | head_names("bert")
    whole = attach(tiny("bert"), target_modules=r".*layer\.\d\.output\.dense")
    assert set(trainable(whole)) == adapter_names("bert", "pfeiffer") | head_names("bert")
    spared = attach(
        tiny("bert"), target_modules=["output.dense"], exclude_modules=["attention.output.dense"]
    )
    assert set(trainable(spared)) == adapter_names("bert", "pfeiffer") | head_names("bert")


def test_gated_mlp_is_read_once_when_both_its_input_projections_are_named() -> None:
    options = {"target_modules": ["mlp.down_proj"], "bottleneck_size": 3}
    model = attach(
        tiny("llama"), "parallel", input_modules=["mlp.gate_proj", "mlp.up_proj"], **options
    )
    whole = attach(tiny("llama"), "parallel", bottleneck_size=3)
    perturb(model)
    perturb(whole)
    torch.testing.assert_close(logits(model), logits(whole))


@pytest.mark.parametrize("variant", ["houlsby", "parallel"])
def test_a_half_precision_backbone_carries_a_float32_adapter(variant: str) -> None:
    exact = logits(perturb(attach(tiny("llama"), variant)))
    model = perturb(attach(tiny("llama").to(torch.bfloat16), variant))
    adapters = {p.dtype for n, p in model.named_parameters() if ".bottleneck_" in n}
    assert adapters == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    model(**BATCH).loss.backward()
    assert all(p.grad.abs().max() > 0 for n, p in trainable(model).items() if "_up." in n)
    assert (logits(model).float() - exact).abs().max() < 0.15 * exact.abs().max()

    kept = get_peft_model(
        tiny("llama").to(torch.bfloat16),
        BottleneckConfig(task_type="SEQ_CLS", variant=variant),
        autocast_adapter_dtype=False,
    )
    assert {p.dtype for p in kept.parameters()} == {torch.bfloat16}


def test_dropout_acts_in_training_only() -> None:
    plain = logits(perturb(attach(tiny("llama"))))
    model = perturb(attach(tiny("llama"), dropout=0.5))

    assert torch.equal(logits(model), plain)
    model.train()  # llama has no dropout of its own
    assert not torch.equal(logits(model), plain)
    assert not torch.equal(logits(model), logits(model))


def test_a_copy_of_an_adapted_model_does_not_touch_the_first() -> None:
    model = perturb(attach(tiny("bert"), "parallel"))
    expected = logits(model)
    twin = perturb(copy.deepcopy(model), seed=99)
    alone = perturb(perturb(attach(tiny("bert"), "parallel")), seed=99)

    assert torch.equal(logits(twin), logits(alone))
    assert not any(m._forward_pre_hooks for m in twin.unload().modules())
    assert torch.equal(logits(model), expected)


def test_no_activation_is_held_between_runs() -> None:
    model = perturb(attach(tiny("bert"), "parallel"))
    logits(model)
    with model.disable_adapter():
        logits(model)
    for module in model.modules():
        held = [value for value in vars(module).values() if isinstance(value, list) and value]
        assert not any(torch.is_tensor(item) for value in held for item in value)


def test_wrapped_modules_still_show_their_own_attributes() -> None:
    model = attach(tiny("llama"), "parallel", target_modules=["mlp", "q_proj"])
    block = model.base_model.model.model.layers[0]
    assert block.mlp.gate_proj is block.mlp.base_layer.gate_proj
    assert block.self_attn.q_proj.in_features == D
    assert block.self_attn.q_proj.weight is block.self_attn.q_proj.base_layer.weight
    with pytest.raises(AttributeError):
        _ = block.mlp.no_such_thing


def test_adapters_can_be_injected_without_a_peft_model_and_saved_norms_train_too() -> None:
    config = BottleneckConfig(variant="pfeiffer", modules_to_save=["LayerNorm"])
    model = inject_adapter_in_model(config, tiny("bert"))
    norms = 2 * D * (2 * L + 1)
    assert sum(p.numel() for p in trainable(model).values()) == L * (4 * D + 2 + D) + norms
    assert torch.equal(logits(model), logits(tiny("bert")))


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_adapters_sit_on_quantised_layers(kind: str) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    base = tiny("llama")
    for name, module in list(base.named_modules()):
        if isinstance(module, nn.Linear) and ".layers." in name:
            if kind == "int8":
                new = bnb.nn.Linear8bitLt(
                    module.in_features, module.out_features, bias=False, has_fp16_weights=False
                )
                new.weight = bnb.nn.Int8Params(module.weight.data, requires_grad=False)
            else:
                new = bnb.nn.Linear4bit(module.in_features, module.out_features, bias=False)
                new.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False)
                new.support_avx512bf16_for_cpu = False
            parent, _, child = name.rpartition(".")
            setattr(base.get_submodule(parent), child, new.to("cpu"))
    expected = logits(base.eval())

    for variant in ("houlsby", "parallel"):
        model = attach(base, variant)
        assert torch.equal(logits(model), expected)
        perturb(model)(**BATCH).loss.backward()
        assert all(p.grad.abs().max() > 0 for n, p in trainable(model).items() if "_up." in n)
        base = model.unload()
        base.score.load_state_dict(tiny("llama").score.state_dict())
