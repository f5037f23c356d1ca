"""Costs against counts by hand and published ones."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from peftkit.backbones import LoadedBackbone, Location
from peftkit.backbones._family import find_layers
from peftkit.cost import Meter, Phase, adapter_bytes, inference_costs, train_flops_per_example
from peftkit.methods.lora import LoRA
from peftkit.recording import costs_of

pytestmark = pytest.mark.usefixtures("libraries")

# ---- floating-point operations

SEQ, WIDTH, OUT = 6, 16, 8  # m, k, n: one product of (m, k) and (k, n) is 2 m k n


class Stub(nn.Module):
    """An embedding and one linear layer, looking like a backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(10, WIDTH), nn.Linear(WIDTH, OUT, bias=False)
        self.config = SimpleNamespace(_attn_implementation="sdpa")
        self.asked: list[str] = []

    def set_attn_implementation(self, name: str) -> None:
        self.asked.append(name)

    def forward(self, input_ids: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.linear(self.embedding(input_ids)).mean(1))


def flops_of_stub(stub: Stub) -> float | None:
    example = {"input_ids": [1] * SEQ, "labels": 0}
    bench = SimpleNamespace(
        encode=lambda rows: [{**example, "input_ids": [1] * n} for n in (1, SEQ, SEQ + 9)],
        collate=lambda rows: {k: torch.tensor([row[k] for row in rows]) for k in rows[0]},
        logits=lambda output, _: output.logits,
        data=SimpleNamespace(train=None),
        backbone=SimpleNamespace(model=stub),
        recipe=SimpleNamespace(
            task=SimpleNamespace(
                loss=lambda logits, labels, _: logits.square().mean(),
                length=lambda example: len(example["input_ids"]),
            )
        ),
    )
    return train_flops_per_example(bench, stub)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("embedding", "linear", "products"),
    [(True, True, 3), (True, False, 2), (False, True, 2)],
)
def test_a_trained_weight_costs_three_products_and_a_frozen_one_two(
    embedding: bool, linear: bool, products: int
) -> None:
    """Forward; the gradient of its input, if that is wanted; that of the weight, if trained."""
    stub = Stub()
    stub.embedding.requires_grad_(embedding)
    stub.linear.requires_grad_(linear)

    assert flops_of_stub(stub) == products * 2 * SEQ * WIDTH * OUT
    assert stub.asked == ["eager", "sdpa"]
    assert all(p.grad is None for p in stub.parameters())


def test_attention_counts_too(make_bench: Callable[..., Any]) -> None:
    """BERT's twin by hand; fused attention would count nothing on the CPU."""
    bench = make_bench("full")
    model = bench.attach(bench.recipe.method)
    lengths = sorted(len(e["input_ids"]) for e in bench.encode(bench.data.train))
    s, d, ff = lengths[len(lengths) // 2], 32, 64
    block = 4 * 2 * s * d * d + 2 * 2 * s * d * ff + 2 * 2 * s * s * d
    forward = 2 * block + 2 * d * d + 2 * d * 3  # and pooler and head of one position

    assert train_flops_per_example(bench, model) == 3 * forward
    assert model.config._attn_implementation == "sdpa"


def test_lora_costs_less_than_full_fine_tuning_in_operations(
    make_bench: Callable[..., Any],
) -> None:
    """At rank 1, nearly a third less: no gradients of the frozen weights."""
    found = []
    for method in ("full", {"name": "lora", "rank": 1}):
        bench = make_bench(method)
        found.append(train_flops_per_example(bench, bench.attach(bench.recipe.method)))

    assert 2 / 3 < found[1] / found[0] < 0.85


def test_counting_operations_changes_no_weight_and_draws_nothing(
    make_bench: Callable[..., Any],
) -> None:
    bench = make_bench("lora")
    model = bench.attach(bench.recipe.method)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    state = torch.get_rng_state()
    train_flops_per_example(bench, model)

    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not model.training


# ---- parameters, against published counts (of models made without memory)


def on_paper(model_type: str, **config: Any) -> LoadedBackbone:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    settings = AutoConfig.for_model(model_type, **config, num_labels=2)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(settings)
    model.requires_grad_(False)
    return LoadedBackbone(
        location=Location(name="paper", folder=Path(), fingerprint=""),
        model=model,
        processor=None,
        auto_class="AutoModelForSequenceClassification",
        layers=find_layers(model, head=("score",)),
        pooling="last",
        total_parameters=0,
    )


LLAMA_3_2_3B = {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
                "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128,
                "vocab_size": 128256}  # fmt: skip
LLAMA_3_1_8B = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": 8,
                "vocab_size": 128256}  # fmt: skip
LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "vocab_size": 32000}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "rank", "targets", "published"),
    [
        (LLAMA_3_2_3B, 32, ("query", "value"), 9_175_040),  # PEFT's own suite, lora/rank32
        (LLAMA_3_1_8B, 1, ("all",), 2_621_440),  # LoRA Without Regret
        (LLAMA_7B, 64, ("all",), 159_907_840),  # QLoRA: 159.9 M
    ],
    ids=["3B-q-v-r32", "8B-all-r1", "7B-all-r64"],
)
def test_lora_trains_as_many_parameters_as_published(
    config: dict[str, Any], rank: int, targets: tuple[str, ...], published: int
) -> None:
    backbone = on_paper("llama", **config)
    model = LoRA(rank=rank, targets=targets).attach(backbone)
    trained = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}

    assert sum(count for name, count in trained.items() if "lora_" in name) == published
    assert sum(c for n, c in trained.items() if "lora_" not in n) == 2 * config["hidden_size"]


# ---- bytes


def test_adapter_bytes_are_those_of_the_weights_alone(tmp_path: Path) -> None:
    for name, size in {
        "adapter_model.safetensors": 100, "head.safetensors": 20, "tfidf.npz": 3,
        "vocabulary.json": 4, "tokenizer.json": 5000, "record.json": 6000, "README.md": 7000,
        "checkpoints/checkpoint-5/adapter_model.safetensors": 8000,
    }.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)

    assert adapter_bytes(tmp_path) == 127


def test_the_bytes_of_an_adapter_are_its_numbers_and_a_header(
    make_bench: Callable[..., Any],
) -> None:
    for method in ("lora", "prompt_tuning", "full"):
        bench = make_bench(method)
        predictor = bench.recipe.method.fit(bench)
        predictor.save(bench.folder)
        numbers = 4 * (predictor.parameters.method + predictor.parameters.head)

        assert numbers < adapter_bytes(bench.folder) < numbers + 10_000, method


# ---- the meter


def test_a_phase_has_its_own_seconds_and_peak() -> None:
    meter = Meter()
    with meter.phase("load"):
        held = torch.ones(16 * 2**20)  # 64 MiB
    with meter.phase("train"):
        torch.ones(48 * 2**20).sum()  # 192 MiB, let go at once
    with meter.phase("evaluate"):
        pass
    costs = meter.costs()
    peaks = costs["peak_memory_bytes"]
    if not peaks["load"]:
        pytest.skip("this system does not tell the peak of a process")
    mib = 2**20

    assert held.sum() == 16 * 2**20
    assert 60 * mib < peaks["load"] < 150 * mib
    assert peaks["train"] > 240 * mib
    assert peaks["evaluate"] < 200 * mib
    assert "peak_reserved_bytes" not in costs


def test_a_phase_has_the_seconds_of_what_is_done_in_it() -> None:
    meter = Meter()
    with meter.phase("train"):
        time.sleep(0.05)
    with meter.phase("evaluate"):
        pass
    costs = meter.costs()

    assert costs["train_seconds"] >= 0.05 > costs["evaluate_seconds"]
    assert costs["train_cpu_seconds"] < 0.05  # asleep


def test_evaluation_is_no_training_and_shares_are_of_the_backbone(
    make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    bench = make_bench("lora", steps=2)
    predictor = bench.recipe.method.fit(bench)
    bench.validation_seconds = (4.0, 3.0)
    bench.trained = dataclasses.replace(bench.trained, num_examples=60, num_tokens=600)
    meter = Meter(phases={"train": Phase(seconds=10.0, cpu_seconds=8.0)})
    found = costs_of(bench, meter, predictor, tmp_path)

    assert (found["train_seconds"], found["train_cpu_seconds"]) == (6.0, 5.0)
    assert (found["examples_per_second"], found["tokens_per_second"]) == (10.0, 100.0)
    method = predictor.parameters.method
    assert found["trainable_share"] == method / bench.backbone.total_parameters


def test_what_an_adapter_adds_to_inference_is_measured(make_bench: Callable[..., Any]) -> None:
    bench = make_bench("lora")
    predictor = bench.recipe.method.fit(bench)
    batches: list[int] = []

    def dawdle(module: Any, inputs: Any, output: Any) -> None:
        batches.append(len(inputs[0]))
        time.sleep(0.05)

    adapted = next(m for n, m in predictor.model.named_modules() if n.endswith("lora_A.default"))
    adapted.register_forward_hook(dawdle)
    found = inference_costs(bench, predictor)
    a_pass = batches[: batches.index(batches[0], 1)] if batches[0] in batches[1:] else batches

    assert found["inference_slowdown"] > 2
    least = 0.05 * len(a_pass) / sum(a_pass)
    assert least < found["inference_seconds_per_example"] < 20 * least


def test_a_phase_that_fails_is_measured_and_the_error_passed_on() -> None:
    meter = Meter()
    with pytest.raises(ZeroDivisionError), meter.phase("train"):
        _ = 1 / 0

    assert meter.phases["train"].seconds > 0


@pytest.mark.parametrize("method", ["full", "lora", "prompt_tuning", "none"])
def test_inference_is_compared_with_the_bare_backbone(
    make_bench: Callable[..., Any], method: str
) -> None:
    bench = make_bench(method)
    found = inference_costs(bench, bench.recipe.method.fit(bench))

    assert 0 < found["inference_seconds_per_example"] < 1
    if method in ("full", "none"):
        assert found["inference_slowdown"] == 1.0
    else:
        assert 0.3 < found["inference_slowdown"] < 30
