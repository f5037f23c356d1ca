"""Memory of a training step: counted, predicted, and refused where it cannot fit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from peftkit import Recipe
from peftkit.cost import step_memory
from peftkit.errors import DoesNotFit, Unsupported
from peftkit.memory import expecting
from peftkit.memory import forecast as forecasting
from peftkit.memory.counting import LiveStorages
from peftkit.memory.device_terms import DeviceTerms
from peftkit.memory.forecast import forecast
from peftkit.memory.optimizers import state_bytes
from peftkit.memory.profile import draw
from peftkit.memory.timeline import Timeline
from peftkit.memory.watching import MemoryWatch, largest_batch
from peftkit.pipeline import run
from peftkit.settings import Training

TRANSFORMER = {
    "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "vocab_size": 300,
}  # fmt: skip


def llama(blocks: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**TRANSFORMER, num_key_value_heads=2, num_hidden_layers=blocks)


def bert(blocks: int) -> Any:
    from transformers import BertConfig

    return BertConfig(**TRANSFORMER, num_hidden_layers=blocks)


def recipe_of(method: Any, task: str = "language_modeling", **parts: Any) -> Recipe:
    training = {"precision": "float32", **parts.pop("training", {})}
    backbone = {"name": "none", **parts.pop("backbone", {})}
    return Recipe(
        method=method, task={"name": task, "data": "none"}, backbone=backbone, training=training
    )


# ---- the timeline


def a_timeline() -> Timeline:
    """100 bytes stay; 30 come as activations and go; 50 become a gradient."""
    timeline = Timeline()
    timeline.enter(100, "weights")
    timeline.begin("forward")
    activation = timeline.enter(30, "activations")
    timeline.begin("backward")
    gradient = timeline.enter(50, "temporary")
    timeline.move(gradient, "temporary", "gradients")
    timeline.leave(activation, "activations")
    return timeline


def test_peaks_are_those_of_each_segment_with_what_was_there_when_it_began() -> None:
    peaks = a_timeline().peaks()

    assert {name: peak.bytes for name, peak in peaks.items()} == {"forward": 130, "backward": 180}
    assert {k: v for k, v in peaks["backward"].parts.items() if v} == {
        "weights": 100, "activations": 30, "temporary": 50,
    }  # fmt: skip


def test_storages_are_rounded_up_one_by_one() -> None:
    assert a_timeline().peaks(round_to=64)["backward"].bytes == 128 + 64 + 64


def test_what_the_batch_divides_grows_with_it() -> None:
    timeline = Timeline()
    timeline.begin("forward")
    timeline.enter(7 * 12, "activations")
    timeline.enter(100, "weights")

    assert timeline.peaks(traced_batch=7, batch=3)["forward"].bytes == 3 * 12 + 100


# ---- counting


def test_a_written_out_step_is_counted_to_the_byte() -> None:
    layer = nn.Linear(8, 16, bias=False)  # 512 bytes
    x = torch.randn(4, 8)  # 128 bytes
    live = LiveStorages()
    live.hold(layer.parameters(), "weights")
    live.hold([x], "activations")
    with live.gradients_of(layer.parameters()), live:
        live.begin("forward")
        loss = layer(x).pow(2).sum()  # 256 bytes of y are kept for the square, 256 squares are not
        live.begin("backward")
        loss.backward()
    live.stop()

    peaks = live.timeline.peaks()
    assert peaks["forward"].bytes == 512 + 128 + 256 + 256 + 4
    # Going back: the ones that begin it, the gradient of y in two steps, that of the weights.
    assert peaks["backward"].parts["weights"] == 512
    assert peaks["backward"].bytes >= 512 + 128 + 256 + 256
    final = live.timeline.alive_by_owner(len(live.timeline.numbers) - 1, "gradients")
    assert sum(final.values()) == 512


def test_evaluation_in_between_is_not_counted(make_bench: Callable[..., Any]) -> None:
    peaks = []
    for options in ({}, {"evaluate_every": 1, "keep_best": True}):
        bench = make_bench("lora", **options)
        bench.recipe.method.fit(bench)
        peaks.append((bench.trained.memory.peak_bytes, len(bench.trained.memory.timeline.numbers)))

    assert peaks[0] == peaks[1]


def test_storages_that_go_after_counting_are_not_noted() -> None:
    live = LiveStorages()
    with live:
        live.begin("forward")
        x = torch.ones(100)
    live.stop()
    noted = len(live.timeline.numbers)
    del x

    assert noted == len(live.timeline.numbers) == 1


def test_activations_are_told_by_module() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    live = LiveStorages()
    live.hold(model.parameters(), "weights")
    with live.naming(model), live:
        live.begin("forward")
        output = model(torch.randn(2, 8))
    at = len(live.timeline.numbers) - 1

    assert live.timeline.alive_by_owner(at, "activations")["1"] == output.nbytes


def test_largest_batch_leaves_the_first_step_aside() -> None:
    training = Training(steps=2, batch_size=2, gradient_accumulation=2)
    order = [0, 1, 2, 3, 4, 5, 6, 7]
    lengths = [99, 1, 1, 1, 5, 6, 9, 2]

    assert largest_batch(lengths, order, training) == (1, [6, 7])
    assert largest_batch([3, 4], [0, 1], training) == (0, [0, 1])


@pytest.mark.parametrize("method", ["lora", "full"])
def test_counting_changes_no_number(
    make_bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def trained() -> dict[str, torch.Tensor]:
        bench = make_bench(method, steps=3)
        model = bench.attach(bench.recipe.method)
        bench.train(model)
        return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    counted = trained()
    monkeypatch.setattr(MemoryWatch, "on_step_begin", lambda self, *_, **__: None)
    plain = trained()

    assert all(torch.equal(counted[name], plain[name]) for name in plain)


# ---- counted and predicted


CELLS: list[tuple[Any, Any, dict[str, Any]]] = [
    ("lora", "twin:bert", {}),
    ("full", "twin:bert", {}),
    ("bottleneck", "twin:bert", {}),
    ("prompt_tuning", "twin:bert", {}),
    ("last_layers", "twin:roberta", {}),
    ("bitfit", "twin:bert", {}),
    ("scratch", "twin:bert", {}),
    ("lora", "twin:llama", {"gradient_checkpointing": True}),
    ("full", "twin:gpt2", {"gradient_accumulation": 2}),
    ("full", "twin:distilbert", {}),
    ("lora", "twin:bert", {"precision": "bfloat16"}),
    ("full", "twin:bert", {"precision": "bfloat16", "gradient_checkpointing": True}),
    ("full", "twin:bert", {"optimizer": "adafactor"}),
    ("full", "twin:bert", {"optimizer": "lion"}),
    ({"name": "lora", "rank": 128}, "twin:bert", {"optimizer": "adamw_8bit"}),
    ("lora", {"name": "twin:bert", "quantization": "nf4"}, {}),
    ("lora", {"name": "twin:llama", "quantization": "int8"}, {"gradient_checkpointing": True}),
    (
        "lora",
        {"name": "twin:bert", "quantization": "int8", "dtype": "bfloat16"},
        {"precision": "bfloat16"},
    ),
    (
        "bottleneck",
        {"name": "twin:llama", "quantization": "nf4", "double_quantization": True,
         "dtype": "bfloat16"},
        {"precision": "bfloat16"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("method", "backbone", "training"), CELLS, ids=str)
def test_prediction_is_what_is_counted(
    make_bench: Callable[..., Any], method: Any, backbone: Any, training: dict[str, Any]
) -> None:
    bench = make_bench(method, backbone, batch_size=8, **training)
    bench.memory_check = "refuse"
    bench.recipe.method.fit(bench)

    counted, expected = bench.trained.memory, bench.expected
    assert expected is not None
    assert expected.peak_bytes == pytest.approx(counted.peak_bytes, rel=0.01)
    assert expected.parts == pytest.approx(counted.parts, rel=0.05, abs=counted.peak_bytes / 100)
    assert sum(expected.parts.values()) == expected.peak_bytes
    assert step_memory(bench)["predicted_memory_bytes"]["peak"] == expected.peak_bytes


@pytest.mark.parametrize(
    "method",
    [
        "lora",
        "prompt_tuning",
        *(pytest.param(m, marks=pytest.mark.matrix) for m in ("full", "last_layers", "bottleneck")),
    ],
)
@pytest.mark.parametrize(
    "training",
    [{}, {"gradient_checkpointing": True},
     {"gradient_checkpointing": True, "precision": "bfloat16"}],
    ids=["kept", "again", "autocast"],
)  # fmt: skip
def test_the_middle_block_repeated_gives_what_all_blocks_give(
    monkeypatch: pytest.MonkeyPatch, method: str, training: dict[str, Any]
) -> None:
    recipe = recipe_of(method, training=training)
    extrapolated = forecast(recipe, llama(12), length=48, device="cpu")
    monkeypatch.setattr(forecasting, "WHOLE", 12)
    whole = forecast(recipe, llama(12), length=48, device="cpu")

    assert extrapolated.traced_blocks < 12
    assert whole.traced_blocks == 12
    assert extrapolated.trainable_parameters == whole.trainable_parameters
    assert extrapolated.total_parameters == whole.total_parameters
    for batch in (1, 16):
        ours, theirs = extrapolated.peak(batch), whole.peak(batch)
        assert ours.peak_bytes == pytest.approx(theirs.peak_bytes, rel=0.002)
        assert ours.during == theirs.during


@pytest.mark.parametrize(
    "method", ["prefix_tuning", {"name": "peft:prefix_tuning", "num_virtual_tokens": 10}]
)
def test_prefixes_are_those_of_all_blocks(monkeypatch: pytest.MonkeyPatch, method: Any) -> None:
    """They stand in one table outside of the blocks."""
    extrapolated = forecast(recipe_of(method), llama(12), length=48, device="cpu")
    monkeypatch.setattr(forecasting, "WHOLE", 12)
    whole = forecast(recipe_of(method), llama(12), length=48, device="cpu")

    assert extrapolated.traced_blocks < whole.traced_blocks == 12
    assert extrapolated.trainable_parameters == whole.trainable_parameters == 12 * 2 * 10 * 32
    ours, theirs = extrapolated.peak(4), whole.peak(4)
    assert ours.peak_bytes == pytest.approx(theirs.peak_bytes, rel=0.01)


@pytest.mark.parametrize(("dense", "traced"), [(1, 3), (3, 8)])
def test_blocks_that_are_not_alike_are_all_traced(dense: int, traced: int) -> None:
    """With experts from the second block on, that one is repeated; from the fourth on it is not."""
    from transformers import AutoModelForCausalLM, DeepseekV3Config

    config = DeepseekV3Config(
        **TRANSFORMER, num_hidden_layers=8, first_k_dense_replace=dense, moe_intermediate_size=32,
        n_routed_experts=4, n_group=2, topk_group=1, num_experts_per_tok=2, q_lora_rank=16,
        kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16,
    )  # fmt: skip
    recipe = recipe_of("prompt_tuning", backbone={"dtype": "bfloat16"})
    found = forecast(recipe, config, length=16, device="cuda")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)

    assert found.traced_blocks == traced
    total = sum(parameter.numel() for parameter in model.parameters())
    assert found.total_parameters == total


@pytest.mark.parametrize("task", ["language_modeling", "text_classification"])
def test_one_trace_serves_every_batch_size(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    config = llama(3) if task == "language_modeling" else bert(3)
    recipe = recipe_of("lora", task)
    traced = forecast(recipe, config, length=40, device="cpu")
    for batch in (2, 8):
        monkeypatch.setattr(forecasting, "PRIMES", (batch,))
        direct = forecast(recipe, config, length=40, device="cpu")
        assert traced.peak(batch).peak_bytes == pytest.approx(direct.peak(batch).peak_bytes, 0.01)


def test_largest_batch_fits_and_one_more_does_not() -> None:
    found = forecast(recipe_of("lora"), llama(3), length=40, device="cuda")
    limit = found.peak(10).total_bytes + 1000

    largest = found.largest_batch(limit)

    assert found.peak(largest).total_bytes <= limit < found.peak(largest + 1).total_bytes
    assert found.largest_batch(found.peak(1).total_bytes - 1) == 0


def static(recipe: Recipe, config: Any) -> tuple[dict[str, int], Any]:
    """Parts of a step on next to no data, without what the device adds."""
    found = forecast(recipe, config, length=8, device="cpu")
    return found.peak(1).parts, found


def test_full_in_bfloat16_takes_8_bytes_a_parameter() -> None:
    recipe = recipe_of(
        {"name": "full", "master_weights": "bfloat16"},
        backbone={"dtype": "bfloat16"},
        training={"precision": "bfloat16"},
    )
    found = forecast(recipe, llama(8), length=8, device="cpu")

    kept = sum(found.after_step(1)[part] for part in ("weights", "gradients", "optimizer"))
    assert kept == pytest.approx(8 * found.total_parameters, rel=0.01)


def test_full_with_float32_masters_takes_16_bytes_and_2_more_until_the_backward_pass() -> None:
    recipe = recipe_of("full", training={"precision": "bfloat16"})
    parts, found = static(recipe, llama(8))

    state = parts["weights"] + parts["optimizer"]
    assert state + 4 * found.total_parameters == pytest.approx(16 * found.total_parameters, 0.01)
    copies = max(peak.parts["weight_copies"] for peak in found.timeline.peaks().values())
    matrices = sum(p.numel() for p in _linear_weights(llama(found.traced_blocks)))
    assert copies == pytest.approx(2 * matrices, rel=0.02)


def _linear_weights(config: Any) -> list[torch.Tensor]:
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    return [m.weight for m in model.modules() if isinstance(m, nn.Linear)]


def test_an_adapter_takes_16_bytes_a_trained_parameter_above_the_frozen_model() -> None:
    parts, found = static(recipe_of("lora"), llama(8))
    _, bare = static(recipe_of({"name": "lora", "rank": 16}), llama(8))
    more = bare.trainable_parameters - found.trainable_parameters
    other = bare.peak(1).parts

    grown = other["weights"] - parts["weights"] + other["optimizer"] - parts["optimizer"]
    assert grown + 4 * more == pytest.approx(16 * more, rel=0.01)


def test_nf4_with_double_quantization_takes_4_127_bits_a_weight() -> None:
    from peftkit.backbones._outline import PackedOutline
    from peftkit.settings import Backbone

    backbone = Backbone(quantization="nf4", double_quantization=True)
    with torch.device("meta"):
        layer = PackedOutline(nn.Linear(4096, 4096, bias=False), backbone)
    own = [layer.weight, *(s for s in layer.scales() if s.numel() > 256)]

    bits = 8 * sum(tensor.nbytes for tensor in own) / 4096**2
    assert bits == pytest.approx(4.127, abs=0.0005)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize("shape", [(64, 96), (70,)], ids=str)
def test_optimizers_keep_what_is_said(optimizer: str, shape: tuple[int, ...]) -> None:
    from transformers import Adafactor

    parameter = nn.Parameter(torch.randn(shape))
    parameter.grad = torch.randn(shape)
    made: Any = (
        torch.optim.AdamW([parameter], fused=True)
        if optimizer == "adamw"
        else Adafactor([parameter], scale_parameter=False, relative_step=False, lr=0.1)
    )
    made.step()
    kept = [v.nbytes for v in made.state[parameter].values() if isinstance(v, torch.Tensor)]

    assert sum(state_bytes(optimizer, shape)) == sum(kept)


def test_eight_bit_adam_keeps_two_bytes_a_value_and_its_scales() -> None:
    count = 4096 * 11
    assert sum(state_bytes("adamw_8bit", (4096, 11))) == 2 * count + 2 * 4 * math.ceil(count / 256)
    assert sum(state_bytes("adamw_8bit", (4096, 11), embedding=True)) == 8 * count
    assert state_bytes("paged_adamw", (4096, 25)) == []
    assert state_bytes("paged_adamw", (4096, 11)) == [4 * count, 4 * count]  # too few for pages


def test_what_takes_no_step_through_the_backbone_is_not_predicted() -> None:
    for method in ("none", "linear_probe", "tfidf"):
        with pytest.raises(Unsupported, match="takes no step"):
            forecast(recipe_of(method, "text_classification"), bert(2), length=8)


def test_reserved_and_context_come_on_top() -> None:
    terms = DeviceTerms(name="x", slack=0.1, slack_bytes=5, context_bytes=7)

    assert terms.reserved_bytes(100) == 115
    found = forecast(recipe_of("lora"), llama(2), length=8, device="cuda").peak(1)
    assert found.total_bytes > found.reserved_bytes > found.peak_bytes


def test_the_second_stage_is_predicted_too(make_bench: Callable[..., Any]) -> None:
    bench = make_bench({"name": "continued_pretraining", "then": "last_layers", "steps": 1})
    bench.memory_check = "note"
    bench.recipe.method.fit(bench)

    assert bench.expected.peak_bytes == pytest.approx(bench.trained.memory.peak_bytes, rel=0.01)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_what_packed_weights_cannot_start_is_not_predicted(init: str) -> None:
    recipe = recipe_of(
        {"name": "lora", "init": init},
        backbone={"quantization": "nf4", "dtype": "bfloat16"},
    )
    with pytest.raises(Unsupported, match="out of the weights"):
        forecast(recipe, llama(2), length=8)


def test_a_model_that_values_steer_is_trained_without_a_prediction(
    make_bench: Callable[..., Any],
) -> None:
    bench = make_bench("lora", "twin:t5")  # its classifier looks for the end of the text
    bench.memory_check = "refuse"
    bench.recipe.method.fit(bench)

    assert bench.expected is None
    assert any(note.startswith("memory was not predicted: ") for note in bench.notes)
    assert bench.trained.memory.peak_bytes > 0


def test_terms_of_a_gpu_are_those_that_no_step_exceeds() -> None:
    from peftkit.memory.calibrating import STEPS, Observed, fitted, told

    mib = 1 << 20
    seen = [
        Observed(predicted_bytes=a * mib, allocated_bytes=b * mib, reserved_bytes=c * mib)
        for a, b, c in ((100, 132, 160), (400, 440, 500), (90, 120, 140), (700, 733, 760))
    ]
    terms = fitted(seen, name="a GPU", context_bytes=500 * mib)

    assert terms.workspace_bytes == 40 * mib
    for each in seen:
        assert terms.reserved_bytes(each.allocated_bytes) >= each.reserved_bytes
        assert each.predicted_bytes + terms.workspace_bytes >= each.allocated_bytes
    assert len(told(terms, seen, Path("x")).splitlines()) == len(STEPS) + 3


def test_calibration_is_kept_by_the_name_of_the_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from peftkit.memory import device_terms

    monkeypatch.setenv("PEFTKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(device_terms, "_gpu_name", lambda: "NVIDIA H200 NVL")
    device_terms._measured.cache_clear()
    assert device_terms.terms_of("cuda") == device_terms.CUDA
    own = DeviceTerms(name="NVIDIA H200 NVL", round_to=512, context_bytes=5)
    device_terms.keep(own)

    assert device_terms.terms_of("cuda") == own
    device_terms._measured.cache_clear()


# ---- before a run


BIG = {"batch_size": 16}


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch, make_bench: Callable[..., Any]) -> int:
    """Bytes that are free: three fifths of what LoRA takes in batches of 16."""
    bench = make_bench("lora", **BIG)
    bench.recipe.method.fit(bench)
    free = 6 * bench.trained.memory.peak_bytes // 10
    monkeypatch.setattr(expecting, "free_bytes", lambda bench: free)
    return free


def test_a_run_that_cannot_fit_is_refused_and_what_would_fit_does(
    make_bench: Callable[..., Any], free: int
) -> None:
    bench = make_bench("lora", **BIG)
    bench.memory_check = "refuse"
    with pytest.raises(DoesNotFit) as refused:
        bench.recipe.method.fit(bench)

    said = str(refused.value)
    assert "are free on this cpu" in said
    assert "--force" in said
    words = said.split()
    smaller = int(words[words.index("--training.batch-size") + 1])
    passes = int(words[words.index("--training.gradient-accumulation") + 1].rstrip(","))
    assert smaller * passes >= 16
    again = make_bench("lora", batch_size=smaller, gradient_accumulation=passes)
    again.memory_check = "refuse"
    again.recipe.method.fit(again)
    assert again.trained.memory.peak_bytes <= free


@pytest.mark.usefixtures("free")
def test_force_runs_it_all_the_same(toy_folder: Path) -> None:
    recipe = Recipe(
        method="lora", backbone="twin:bert",
        training={"steps": 2, "precision": "float32", **BIG},
        task={"name": "text_classification", "data": str(toy_folder)},
    )  # fmt: skip
    with pytest.raises(DoesNotFit):
        run(recipe)
    record = run(recipe, force=True)

    counted, predicted = (
        record.costs[f"{kind}_memory_bytes"]["peak"] for kind in ("counted", "predicted")
    )
    assert predicted == pytest.approx(counted, rel=0.01)


def test_a_prediction_is_made_once(
    make_bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PEFTKIT_CACHE", str(tmp_path))
    made: list[Any] = []
    real = expecting.forecast_of

    def counting(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(expecting, "forecast_of", counting)
    found = []
    for seed in (0, 0):
        bench = make_bench("lora", seed=seed)
        bench.memory_check = "refuse"
        bench.recipe.method.fit(bench)
        found.append(bench.expected)

    assert len(made) == 1
    assert found[0] == found[1]


def test_out_of_memory_says_what_was_predicted(
    toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftkit import train
    from peftkit.study._worker import one_line
    from peftkit.study.cell import classify

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")

    monkeypatch.setattr(train._Trainer, "compute_loss", fail)
    recipe = Recipe(
        method="lora", backbone="twin:bert", training={"steps": 2},
        task={"name": "text_classification", "data": str(toy_folder)},
    )  # fmt: skip
    with pytest.raises(torch.OutOfMemoryError) as failed:
        run(recipe)

    status, text = classify(failed.value)
    assert status == "out_of_memory"
    assert "Tried to allocate 3.00 GiB" in text
    assert "Predicted: " in one_line(failed.value)
    assert "at the peak (" in text


def test_the_picture_of_a_step(make_bench: Callable[..., Any], tmp_path: Path) -> None:
    bench = make_bench("lora")
    bench.recipe.method.fit(bench)

    draw(bench.trained.memory, tmp_path)

    assert "activations" in (tmp_path / "memory.svg").read_text(encoding="utf-8")
    told = json.loads((tmp_path / "memory.json").read_text(encoding="utf-8"))
    assert told["peak_bytes"] == sum(told["parts_bytes"].values())
