"""Options of training that every method works with: bfloat16, accumulated and clipped gradients."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from cells import GRADIENT_TRAINED, METHODS, TASKS, close, is_key_bias, pairs, rounding
from peftkit import Recipe, parts, run
from peftkit.device import PAGED, device
from peftkit.errors import InvalidInput
from peftkit.methods import Method
from peftkit.pipeline import facts
from peftkit.settings import Training

pytestmark = pytest.mark.usefixtures("libraries")
STEPS = 3


@pytest.fixture
def norms() -> Iterator[list[float]]:
    """The norm of all gradients, at each step that an optimizer takes."""
    seen: list[float] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        every = [p.grad for group in optimizer.param_groups for p in group["params"]]
        seen.append(float(torch.nn.utils.get_total_norm([g for g in every if g is not None])))

    hook = register_optimizer_step_pre_hook(note)
    yield seen
    hook.remove()


def computed_in(bench: Any) -> set[torch.dtype]:
    """A set that fills with the number formats of autocast that the first block works in."""
    seen: set[torch.dtype] = set()

    def note(*_: Any) -> None:
        on = torch.is_autocast_enabled("cpu")
        seen.add(torch.get_autocast_dtype("cpu") if on else torch.float32)

    bench.backbone.model.get_submodule(bench.backbone.layers.blocks[0]).register_forward_hook(note)
    return seen


@pairs(METHODS, share=13)
def test_trains_in_bfloat16_accumulating_and_clipping_and_survives_saving(
    make_bench: Callable[..., Any], norms: list[float], method: str, family: str
) -> None:
    options = {"steps": STEPS, "batch_size": 6, "gradient_accumulation": 2, "max_grad_norm": 0.01,
               "learning_rate": 2e-3, "precision": "bfloat16"}  # fmt: skip
    trained = method in GRADIENT_TRAINED
    if not trained:
        del options["learning_rate"]
    bench, again = (make_bench(method, f"twin:{family}", seed=s, **options) for s in (0, 7))
    formats = computed_in(bench) if bench.recipe.method.needs_backbone else {torch.bfloat16}
    predictor = bench.recipe.method.fit(bench)
    predictor.save(bench.folder)
    logits = predictor.outputs(bench.data.test)
    reloaded = again.recipe.method.reload(again, bench.folder)

    assert np.isfinite(logits).all()
    assert formats == {torch.bfloat16}
    stages = 1 + ("pretraining_steps" in bench.costs)
    assert norms == pytest.approx([0.01] * STEPS * trained * stages, rel=1e-3)
    np.testing.assert_array_equal(reloaded.outputs(bench.data.test), logits)


def fitted(bench: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What is trained, before and after training with dropout off."""
    method = bench.recipe.method
    if parts.load("method", bench.recipe.to_dict()["method"]["name"]).attach is Method.attach:
        after = method.fit(bench).layer.state_dict()
        return {name: torch.zeros_like(p) for name, p in after.items()}, after
    model = bench.attach(method).eval()
    model.train = lambda mode=True: model  # the trainer would turn dropout on
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in named.items()}
    bench.train(model)
    return before, {name: p.detach() for name, p in named.items()}


def steered(name: str, values: torch.Tensor) -> torch.Tensor:
    """Leave out what only rounding moves: a bias of all keys, or of all places of a span, alike."""
    if "c_attn" in name and "bias" in name:
        return values.unflatten(0, (3, -1))[[0, 2]]  # GPT-2's keys are the middle of a fused layer
    return values[:0] if is_key_bias(name) or re.search(r"qa_outputs.*bias", name) else values


def apart(first: Any, second: Any) -> dict[str, float]:
    """How far two trainings ended from each other, a tensor, as a share of how far it moved."""
    (start, one), (_, other) = first, second
    found = {}
    for name in one:
        tensors = [steered(name, tensors[name]) for tensors in (start, one, other)]
        if tensors[0].numel():
            moved = (tensors[1] - tensors[0]).norm()
            found[name] = float((tensors[2] - tensors[1]).norm() / moved)
    return found


# In any order but "random", batches of two are not the halves of batches of four.
WHOLE = {"steps": STEPS, "order": "random", "learning_rate": 0.01, "batch_size": 4,
         "max_grad_norm": 0}  # fmt: skip
HALVES = {**WHOLE, "batch_size": 2, "gradient_accumulation": 2}


@pairs(GRADIENT_TRAINED, share=13)
def test_two_passes_of_two_are_a_step_of_four(
    make_bench: Callable[..., Any], norms: list[float], method: str, family: str
) -> None:
    whole, halves = (fitted(make_bench(method, f"twin:{family}", **o)) for o in (WHOLE, HALVES))
    found = apart(whole, halves)

    assert norms[STEPS:] == pytest.approx(norms[:STEPS], rel=1e-3)  # Adam forgives another scale
    assert found
    worst = max(found, key=lambda name: found[name])
    assert found[worst] < 1e-3 * rounding(family), worst


def pad_to_one_length(bench: Any) -> None:
    """Every batch as long as the longest text: the loss of spans also counts padding."""
    collate = bench.collate
    longest = max(bench.encode(bench.data.train), key=lambda e: len(e["input_ids"]))
    bench.collate = lambda some: {n: t[:-1] for n, t in collate([*some, longest]).items()}


@pytest.mark.parametrize("task", TASKS)
def test_every_pass_counts_alike_whatever_it_holds(bench_of: Callable[..., Any], task: str) -> None:
    """The loss is the mean of a pass: of its texts, or of its words, of which one may hold more.

    So where words are tagged, two passes of two are a step of four whose halves count alike.
    """
    options = (WHOLE, WHOLE, HALVES)
    plain, step, halves = (bench_of("lora", "bert", task, **some) for some in options)
    loss = step.recipe.task.loss

    def of_halves(logits: Any, labels: Any, data: Any) -> Any:
        return (loss(logits[:2], labels[:2], data) + loss(logits[2:], labels[2:], data)) / 2

    object.__setattr__(step.recipe.task, "loss", of_halves)
    for bench in (plain, step, halves):
        pad_to_one_length(bench)
    accumulated = fitted(halves)

    assert max(apart(fitted(step), accumulated).values()) < 1e-3
    if task == "token_classification":
        assert max(apart(fitted(plain), accumulated).values()) > 1e-2


OWN_MEMORY = ("adamw_8bit", "adafactor", "lion")  # beside adamw, all that a CPU can take


@pytest.mark.parametrize("optimizer", OWN_MEMORY)
def test_every_optimizer_trains(bench_of: Callable[..., Any], optimizer: str) -> None:
    """Each its own way, except that tensors of under 4,096 numbers keep 32 bits in those of 8."""
    bench = bench_of("full", "bert", steps=12, learning_rate=3e-3, optimizer=optimizer)
    usual = bench_of("full", "bert", steps=12, learning_rate=3e-3)

    weights = []
    for each in (bench, usual):
        model = each.attach(each.recipe.method)
        each.train(model)
        weights.append(model.classifier.weight.detach())

    losses = [point["loss"] for point in bench.trained.history if "loss" in point]
    assert losses[-1] < losses[0]
    same_arithmetic = "adamw" in optimizer
    assert close(weights[0], weights[1], 1e-2) == same_arithmetic


def test_adamw_in_8_bits_keeps_a_byte_a_number_of_large_tensors(
    make_bench: Callable[..., Any],
) -> None:
    """Dettmers et al. 2022, arXiv:2110.02861, section 2: small tensors stay as they are."""
    kept = {}

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for parameter, state in getattr(optimizer, "optimizer", optimizer).state.items():
            kept[parameter.numel()] = state["state1"].dtype

    method = {"name": "lora", "rank": 128}  # 128 x 32 is the least that bitsandbytes packs
    bench = make_bench(method, "twin:bert", optimizer="adamw_8bit")
    hook = register_optimizer_step_post_hook(note)
    bench.train(bench.attach(bench.recipe.method))
    hook.remove()

    assert {dtype for size, dtype in kept.items() if size >= 4096} == {torch.uint8}
    assert {dtype for size, dtype in kept.items() if size < 4096} == {torch.float32}


@pytest.mark.skipif(device() == "cuda", reason="paged optimizers work where CUDA is")
@pytest.mark.parametrize("optimizer", PAGED)
def test_paged_optimizers_refuse_without_cuda_before_anything_is_loaded(optimizer: str) -> None:
    recipe = Recipe(
        method="lora", task={"name": "text_classification", "data": "no/such/folder"},
        training={"optimizer": optimizer},
    )  # fmt: skip

    for attempt in (run, facts):
        with pytest.raises(InvalidInput, match=r"no CUDA device.*Received.*Allowed.*Next: "):
            attempt(recipe)


def test_every_optimizer_has_a_test_here() -> None:
    names = typing.get_args(typing.get_type_hints(Training)["optimizer"])

    assert {"adamw", *OWN_MEMORY, *PAGED} == set(names)


@pytest.mark.parametrize(
    ("method", "options", "width", "head"),
    [
        *((method, {}, 64, 1e-2) for method in ("full", "lora", "bitfit", "last_layers")),
        ("prompt_tuning", {}, 64, 1e-2),
        ("lora", {}, 768, 5e-3),
        ("lora", {"head_learning_rate": 2e-3}, 64, 2e-3),
        ("lora", {"head_learning_rate": "same"}, 64, 3e-4),
    ],
)
def test_output_layers_have_one_rate_whatever_the_method(
    make_bench: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    options: dict[str, Any],
    width: int,
    head: float,
) -> None:
    """At a method's own rate heads would differ by as much as methods' rates do."""
    rates: dict[int, float] = {}

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        groups = optimizer.param_groups
        rates.update({id(p): group["lr"] for group in groups for p in group["params"]})

    bench = make_bench(
        method, steps=1, learning_rate=3e-4, warmup=0.0, schedule="constant", **options
    )
    layers = dataclasses.replace(bench.backbone.layers, hidden_size=width)
    model = bench.attach(bench.recipe.method)
    bench.backbone = dataclasses.replace(bench.backbone, layers=layers)
    hook = register_optimizer_step_pre_hook(note)
    try:
        bench.train(model)
    finally:
        hook.remove()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}

    assert {bench.in_head(name) for name in trained} == {True, False}
    for name, parameter in trained.items():
        expected = head if bench.in_head(name) else 3e-4
        assert rates[id(parameter)] == pytest.approx(expected), name
