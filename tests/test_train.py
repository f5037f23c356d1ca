"""The training loop: the same batches for all, the promised optimizer, nothing that interferes."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn

from peftkit.errors import Diverged, InvalidInput, Unsupported
from peftkit.order import POOL_BATCHES, batch_order
from peftkit.seeds import derive, seeded
from peftkit.settings import Training
from peftkit.train import Schedule, train
from peftkit.watch import Watch

pytestmark = pytest.mark.usefixtures("libraries")

# ---- the order of examples

LENGTHS = random.Random(5).choices(range(3, 90), k=37)


def order_of(**changes: Any) -> list[int]:
    options = {"num_batches": 24, "batch_size": 4, "order": "random", "seed": 0, **changes}
    return batch_order(options.pop("lengths", LENGTHS), **options)


def test_random_order_goes_through_all_examples_before_it_repeats_one() -> None:
    found = order_of()
    epochs = [found[i : i + 37] for i in range(0, 2 * 37, 37)]

    assert len(found) == 24 * 4
    assert [sorted(epoch) for epoch in epochs] == 2 * [list(range(37))]
    assert epochs[0] != epochs[1]
    assert len(set(found[74:])) == 96 - 74


@pytest.mark.parametrize("order", ["random", "length"])
def test_order_depends_on_the_seed_and_on_nothing_else(order: str) -> None:
    first = order_of(order=order)
    np.random.seed(1)
    torch.manual_seed(1)

    assert order_of(order=order) == first
    assert order_of(order=order, seed=1) != first


def test_no_seed_repeats_an_epoch_of_another() -> None:
    """A sampler seeded with seed + epoch gives seed 0 the second epoch that seed 1 has first."""
    epochs = {}
    for seed in range(4):
        found = order_of(seed=seed, num_batches=37)
        epochs |= {(seed, e): tuple(found[e * 37 : (e + 1) * 37]) for e in range(4)}

    assert len(set(epochs.values())) == 16


def test_order_by_length_sorts_within_pools_and_shuffles_the_batches() -> None:
    lengths = random.Random(6).choices(range(1, 200), k=900)
    options = {"lengths": lengths, "num_batches": 120, "batch_size": 3}
    stream, found = order_of(**options), order_of(**options, order="length")
    pool = POOL_BATCHES * 3
    for start in range(0, 360, pool):
        drawn, arranged = stream[start : start + pool], found[start : start + pool]
        assert sorted(drawn) == sorted(arranged)
        batches = [
            sorted(lengths[i] for i in arranged[s : s + 3]) for s in range(0, len(arranged), 3)
        ]
        in_order = sorted(batches)
        for shorter, longer in itertools.pairwise(in_order):
            assert shorter[-1] <= longer[0]
        assert batches != in_order

    def padding(order: list[int]) -> int:
        rows = [[lengths[i] for i in order[s : s + 3]] for s in range(0, 360, 3)]
        return sum(3 * max(row) - sum(row) for row in rows)

    assert padding(found) < padding(stream) / 10


@pytest.mark.parametrize("order", ["random", "length"])
@pytest.mark.parametrize(("count", "batch_size"), [(37, 4), (3, 8), (1, 2), (16, 16), (50, 7)])
def test_every_batch_is_full_and_no_example_is_favoured(
    order: str, count: int, batch_size: int
) -> None:
    found = order_of(
        lengths=LENGTHS[:1] * count, num_batches=11, batch_size=batch_size, order=order
    )
    times = Counter(found)

    assert len(found) == 11 * batch_size
    assert set(times) <= set(range(count))
    assert max(times.values()) - min(times[i] for i in range(count)) <= 1


# ---- a toy on which everything can be written out


class Toy(nn.Module):
    """Two layers and a norm: weights that decay, biases and gains that do not."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner, self.norm, self.outer = nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.outer(self.norm(torch.tanh(self.inner(x)))))


def toy_examples(count: int = 40) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(count, 6, generator=draw)
    y = (x[:, :3] + 0.3 * torch.randn(count, 3, generator=draw)).argmax(1)
    return [{"x": row, "labels": int(label)} for row, label in zip(x, y, strict=True)]


def stack(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        "x": torch.stack([e["x"] for e in examples]),
        "labels": torch.tensor([e["labels"] for e in examples]),
    }


def schedule(**changes: Any) -> Schedule:
    examples = toy_examples()
    options = {
        "examples": examples,
        "lengths": [1 + i % 7 for i in range(len(examples))],
        "collate": stack,
        "loss": nn.functional.cross_entropy,
        **changes,
    }
    return Schedule(**options)


def settings(**changes: Any) -> Training:
    options = {"steps": 12, "batch_size": 5, "precision": "float32", **changes}
    return Training(**options)


def fit(
    schedule_: Schedule | None = None, learning_rate: float = 0.05, seed: int = 0, **changes: Any
) -> tuple[Toy, Any]:
    model = Toy()
    done = train(
        model, schedule_ or schedule(), settings(**changes), seed=seed, learning_rate=learning_rate
    )
    return model, done


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(t, theirs[n]) for n, t in a.state_dict().items())


def written_out(
    steps: int, batch_size: int, rate: float, decay: float, norm: float, warmup: int
) -> tuple[Toy, list[float], list[float]]:
    """The same training in plain torch; returns model, losses and gradient norms."""
    model, examples = Toy(), toy_examples()
    order = batch_order(
        [1 + i % 7 for i in range(len(examples))],
        num_batches=steps, batch_size=batch_size, order="length", seed=0,
    )  # fmt: skip
    groups = [
        {"params": [model.inner.weight, model.outer.weight], "weight_decay": decay},
        {
            "params": [model.inner.bias, model.outer.bias, *model.norm.parameters()],
            "weight_decay": 0.0,
        },
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    losses, norms = [], []
    for step in range(steps):
        share = step / warmup if step < warmup else (steps - step) / (steps - warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        batch = stack([examples[i] for i in order[step * batch_size : (step + 1) * batch_size]])
        loss = nn.functional.cross_entropy(model(batch["x"]).logits, batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), norm)))
        optimizer.step()
        losses.append(float(loss.detach()))
    return model, losses, norms


def test_training_is_adamw_on_a_line_with_clipping_written_out() -> None:
    """Warm-up over ceil(0.25 x 12) = 3 steps; the norm is set so that some steps are clipped."""
    options = {"steps": 12, "batch_size": 5, "decay": 0.3, "norm": 0.7, "warmup": 3, "rate": 0.05}
    expected, losses, norms = written_out(**options)
    model, done = fit(weight_decay=0.3, max_grad_norm=0.7, warmup=0.25)

    assert min(norms) < 0.7 < max(norms)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name], rtol=1e-5, atol=1e-6)
    assert [point["loss"] for point in done.history] == pytest.approx(losses, abs=1e-4)
    assert [point["step"] for point in done.history] == list(range(1, 13))


@pytest.mark.parametrize(
    ("schedule_name", "share"),
    [
        ("linear", lambda t: 1 - t),
        ("cosine", lambda t: (1 + math.cos(math.pi * t)) / 2),
        ("constant", lambda t: 1.0),
    ],
)
def test_learning_rate_follows_its_schedule(
    schedule_name: str, share: Callable[[float], float]
) -> None:
    """Steps of plain Adam on one weight with a constant gradient are as long as the rate."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> Any:
            return SimpleNamespace(logits=self.weight * torch.ones_like(x))

    seen: list[float] = []
    model = One()

    def note(logits: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        seen.append(float(model.weight.detach()))
        return logits.mean()

    train(
        model, schedule(loss=note), settings(schedule=schedule_name, warmup=0.15, weight_decay=0),
        seed=0, learning_rate=0.1,
    )  # fmt: skip
    seen.append(float(model.weight.detach()))
    taken = [before - after for before, after in itertools.pairwise(seen)]
    expected = [0.0, 0.05] + [0.1 * share(t / 10) for t in range(10)]  # warm-up: ceil(1.8) = 2

    assert taken == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-7])
def test_two_passes_of_four_are_a_step_of_eight(scale: float) -> None:
    """Adam forgives a wrong scale of the gradient unless that is as small as its epsilon."""

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, labels) * scale

    options = {"order": "random", "max_grad_norm": 0}
    whole, done = fit(schedule(loss=loss), batch_size=8, **options)
    halves, twice = fit(schedule(loss=loss), batch_size=4, gradient_accumulation=2, **options)

    for name, tensor in halves.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[name], rtol=1e-4, atol=1e-5)
    assert (twice.steps, twice.num_examples) == (done.steps, done.num_examples) == (12, 96)
    assert [p["loss"] for p in twice.history] == pytest.approx([p["loss"] for p in done.history])


def test_counts_steps_examples_and_tokens() -> None:
    lengths = [1 + i % 7 for i in range(40)]
    order = batch_order(lengths, num_batches=12, batch_size=5, order="length", seed=3)
    _, done = fit(seed=3)

    assert done.steps == 12
    assert done.num_examples == 60
    assert done.num_tokens == sum(lengths[i] for i in order)


def test_progress_is_told_of_every_step() -> None:
    told: list[tuple[int, int, str]] = []
    fit(schedule(progress=lambda *step: told.append(step)))

    assert told == [(step, 12, "train") for step in range(1, 13)]


def test_bfloat16_computes_in_it_and_keeps_the_weights_in_float32() -> None:
    computed: list[torch.dtype] = []

    class Watched(Toy):
        def forward(self, x: torch.Tensor) -> Any:
            inner = self.inner(x)
            computed.append(inner.dtype)
            return SimpleNamespace(logits=self.outer(self.norm(torch.tanh(inner))))

    model = Watched()
    done = train(model, schedule(), settings(precision="bfloat16"), seed=0, learning_rate=0.05)
    _, exact = fit()

    assert set(computed) == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert done.history[-1]["loss"] == pytest.approx(exact.history[-1]["loss"], abs=0.05)
    assert done.history[-1]["loss"] != exact.history[-1]["loss"]


# ---- evaluation in between


def scripted(values: list[float], states: list[dict[str, torch.Tensor]]) -> Any:
    """A `validate` that notes the model's state, draws random numbers and returns given values."""
    left = iter(values)

    def validate(model: nn.Module) -> float:
        model.eval()
        torch.rand(5)
        states.append(copy.deepcopy(model.state_dict()))
        return next(left)

    return validate


class Dropping(Toy):
    """The toy with dropout, which draws from torch's own stream."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(nn.functional.dropout(x, 0.5, training=self.training))


def test_an_evaluation_that_draws_random_numbers_leaves_dropout_alone() -> None:
    models = []
    for every in (None, 2):
        model, validate = Dropping(), scripted([0.1] * 6, [])
        train(
            model, schedule(validate=validate), settings(evaluate_every=every), seed=0,
            learning_rate=0.05,
        )  # fmt: skip
        models.append(model)

    assert same(*models)


def test_evaluating_in_between_changes_nothing_with_dropout_on(
    make_bench: Callable[..., Any],
) -> None:
    outcomes = {}
    for every in (None, 1, 2):
        bench = make_bench("full", steps=5, evaluate_every=every, learning_rate=1e-3)
        assert bench.backbone.model.config.hidden_dropout_prob > 0
        bench.recipe.method.fit(bench)
        outcomes[every] = (
            bench.backbone.model,
            [p["validation"] for p in bench.trained.history if "validation" in p],
        )

    assert same(outcomes[1][0], outcomes[None][0])
    assert same(outcomes[2][0], outcomes[None][0])
    assert [len(points) for _, points in outcomes.values()] == [0, 5, 3]  # also at the last step
    assert outcomes[2][1] == outcomes[1][1][1::2] + outcomes[1][1][-1:]


@pytest.mark.parametrize(("better", "values", "best"), [
    (True, [0.2, 0.5, 0.5, 0.1], 6),
    (False, [0.2, 0.5, 0.1, 0.1], 9),
])  # fmt: skip
def test_keep_best_returns_the_first_best_state(
    better: bool, values: list[float], best: int
) -> None:
    states: list[dict[str, torch.Tensor]] = []
    validate = scripted(values, states)
    model, done = fit(
        schedule(validate=validate, higher_is_better=better), evaluate_every=3, keep_best=True
    )
    plain, last = fit(schedule(validate=scripted(values, [])), evaluate_every=3)

    assert done.best_step == best
    kept = states[best // 3 - 1]
    assert all(torch.equal(t, kept[n]) for n, t in model.state_dict().items())
    assert not same(model, plain)
    assert last.best_step is None
    assert all(torch.equal(t, states[-1][n]) for n, t in plain.state_dict().items())
    assert [p["validation"] for p in done.history if "validation" in p] == values


def test_keep_best_leaves_frozen_tensors_alone(make_bench: Callable[..., Any]) -> None:
    bench = make_bench("lora", steps=4, evaluate_every=1, keep_best=True, learning_rate=0.02)
    before = {n: p.detach().clone() for n, p in bench.backbone.model.bert.named_parameters()}
    model = bench.recipe.method.fit(bench).model

    assert bench.trained.best_step in range(1, 5)
    for name, parameter in model.named_parameters():
        inner = name.removeprefix("base_model.model.bert.").replace(".base_layer", "")
        if inner in before:
            assert torch.equal(parameter, before[inner])


def test_patience_counts_evaluations_without_improvement() -> None:
    values = [0.3, 0.4, 0.4, 0.2, 0.9]
    _, done = fit(schedule(validate=scripted(values, [])), evaluate_every=2, patience=2)

    assert done.steps == 8
    assert done.num_examples == 40
    assert [p["validation"] for p in done.history if "validation" in p] == values[:4]


def test_one_that_ran_out_of_patience_does_not_train_on_when_resumed(tmp_path: Path) -> None:
    values = [0.4, 0.3, 0.2, 0.9, 0.9, 0.9]
    options = {"evaluate_every": 2, "patience": 2, "keep_best": True, "save_every": 2}
    first, done = fit(schedule(validate=scripted(values, []), folder=tmp_path), **options)
    again = scripted(values[2:], [])  # the same evaluation ends it again
    second, after = fit(schedule(validate=again, folder=tmp_path), **options)

    assert (done.steps, done.best_step, done.resumed_at) == (6, 2, None)
    assert (after.steps, after.best_step, after.resumed_at) == (6, 2, 4)
    assert all(torch.equal(t, first.state_dict()[n]) for n, t in second.state_dict().items())


def test_a_single_step_is_taken_at_the_full_rate() -> None:
    model, _ = fit(steps=1)
    before, _ = fit(steps=1, warmup=0.0)

    assert all(torch.equal(t, before.state_dict()[n]) for n, t in model.state_dict().items())


# ---- stopping and going on


class Killed(Exception):
    """What a test ends a run with."""


def kill_at(step: int, seen: list[int]) -> Callable[[int, int, str], None]:
    def progress(done: int, _: int, what: str) -> None:
        if what == "train":
            seen.append(done)
            if done == step:
                raise Killed

    return progress


RESUMED = ["full", "lora", "prompt_tuning", "bottleneck", "linear_probe"]


@pytest.mark.parametrize("method", RESUMED)
def test_a_run_killed_after_a_checkpoint_goes_on_bit_equal(
    make_bench: Callable[..., Any], tmp_path: Path, method: str
) -> None:
    options = {"steps": 7, "save_every": 2, "learning_rate": 0.01}
    if method != "linear_probe":
        options |= {"evaluate_every": 1, "keep_best": True}
    undisturbed = make_bench(method, folder=tmp_path / "a", **options)
    expected = undisturbed.recipe.method.fit(undisturbed)
    first, second = [], []
    bench = make_bench(method, folder=tmp_path / "b", **options)
    bench.progress = kill_at(5, first)
    with pytest.raises(Killed):
        bench.recipe.method.fit(bench)
    torch.manual_seed(9)
    bench = make_bench(method, folder=tmp_path / "b", **options)
    bench.progress = kill_at(99, second)
    found = bench.recipe.method.fit(bench)
    rows = bench.data.test

    assert (first, second) == ([1, 2, 3, 4, 5], [5, 6, 7])
    np.testing.assert_array_equal(found.outputs(rows), expected.outputs(rows))
    assert bench.trained.history == undisturbed.trained.history
    assert bench.trained.best_step == undisturbed.trained.best_step
    assert bench.trained.num_tokens == undisturbed.trained.num_tokens
    assert any("resumed at step 4" in note for note in bench.notes)


@pytest.mark.parametrize("method", ["p_tuning", "peft:p_tuning"])
def test_checkpoints_that_do_not_hold_everything_are_refused(
    make_bench: Callable[..., Any], method: str
) -> None:
    bench = make_bench(method, save_every=2)
    with pytest.raises(Unsupported, match=r"leave --training\.save-every out"):
        bench.recipe.method.fit(bench)


def test_the_rate_that_is_logged_is_the_methods_own(make_bench: Callable[..., Any]) -> None:
    bench = make_bench("bitfit", steps=3, learning_rate=0.003, warmup=0.0, schedule="constant")
    bench.recipe.method.fit(bench)
    rates = [point["learning_rate"] for point in bench.trained.history if "learning_rate" in point]

    assert rates == pytest.approx([0.003] * 3)


def test_a_probe_of_spans_is_trained_at_the_rate_asked_for(
    make_bench: Callable[..., Any], asked_folder: Path
) -> None:
    task = {"name": "question_answering", "data": str(asked_folder)}
    found = []
    for rate in (None, 1e-3, 1e-1):
        bench = make_bench("linear_probe", task=task, steps=2, learning_rate=rate)
        model = bench.recipe.method.fit(bench).model
        found.append(next(p for p in model.parameters() if p.requires_grad))

    assert not torch.equal(found[1], found[2])


def test_the_best_state_of_before_the_kill_is_remembered(tmp_path: Path) -> None:
    values = [0.2, 0.9, 0.3, 0.4, 0.1, 0.1]
    options = {"evaluate_every": 2, "keep_best": True, "save_every": 4}
    states: list[dict[str, torch.Tensor]] = []
    with pytest.raises(Killed):
        fit(
            schedule(validate=scripted(values, states), folder=tmp_path, progress=kill_at(10, [])),
            **options,
        )
    after = scripted(values[4:], [])
    model, done = fit(schedule(validate=after, folder=tmp_path), **options)

    assert done.best_step == 4
    assert all(torch.equal(t, states[1][n]) for n, t in model.state_dict().items())
    assert [p["validation"] for p in done.history if "validation" in p] == values


def test_a_checkpoint_cut_short_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the second one was being written: the first is still there, and whole."""
    expected, _ = fit(schedule(folder=tmp_path / "a"), save_every=3)

    def stop_at_six(watch: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 6:
            raise Killed
        on_save(watch, args, state, control)

    on_save = Watch.on_save
    seen: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_save", stop_at_six)
        with pytest.raises(Killed):
            fit(schedule(folder=tmp_path / "b"), save_every=3)
    (tmp_path / "b" / "checkpoint-6" / "optimizer.pt").unlink()
    found, _ = fit(schedule(folder=tmp_path / "b", progress=kill_at(99, seen)), save_every=3)

    assert seen[0] == 4
    assert same(found, expected)
    assert [p.name for p in (tmp_path / "b").glob("checkpoint-*")] == ["checkpoint-12"]


def test_no_run_goes_on_from_the_state_of_another(
    make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    options = {"steps": 5, "save_every": 2}
    expected = make_bench("lora", folder=tmp_path / "a", learning_rate=0.01, **options)
    expected.recipe.method.fit(expected)
    other = make_bench("lora", folder=tmp_path / "b", learning_rate=0.02, **options)
    other.progress = kill_at(4, [])
    with pytest.raises(Killed):
        other.recipe.method.fit(other)
    found = make_bench("lora", folder=tmp_path / "b", learning_rate=0.01, **options)
    found.recipe.method.fit(found)

    assert same(found.backbone.model, expected.backbone.model)


# ---- outcomes that are errors


def test_a_learning_rate_of_a_million_is_reported_as_divergence(
    make_bench: Callable[..., Any],
) -> None:
    bench = make_bench("full", steps=8, learning_rate=1e6)
    with pytest.raises(Diverged, match="lower --training"):
        bench.recipe.method.fit(bench)


def test_a_loss_that_is_no_number_stops_training_at_once() -> None:
    calls = []

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return logits.mean() * (math.nan if len(calls) == 4 else 1.0)

    with pytest.raises(Diverged, match="nan at step 4 of 12"):
        fit(schedule(loss=loss))
    assert len(calls) == 4


def test_weights_that_overflow_in_the_last_step_are_divergence() -> None:
    """The loss is computed before the step, so it does not show."""

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, labels)

    with pytest.raises(Diverged, match="learning-rate"):
        fit(schedule(loss=loss), steps=1, warmup=0.0, learning_rate=1e39)


def test_training_nothing_is_refused() -> None:
    model = Toy().requires_grad_(False)
    with pytest.raises(InvalidInput, match="nothing is trainable"):
        train(model, schedule(), settings(), seed=0, learning_rate=0.1)


def test_a_method_without_a_learning_rate_cannot_be_trained(
    make_bench: Callable[..., Any],
) -> None:
    bench = make_bench("none")
    with pytest.raises(InvalidInput, match="learning-rate"):
        bench.train(bench.backbone.model)


# ---- options that change the costs only


def test_gradient_checkpointing_is_nothing_to_a_probe(make_bench: Callable[..., Any]) -> None:
    """For methods that train through the backbone, see the contracts."""
    logits = []
    for on in (False, True):
        bench = make_bench("linear_probe", gradient_checkpointing=on, learning_rate=0.01)
        logits.append(bench.recipe.method.fit(bench).outputs(bench.data.test))

    np.testing.assert_array_equal(logits[1], logits[0])


def test_dropout_is_drawn_from_a_stream_of_its_own(make_bench: Callable[..., Any]) -> None:
    """Two methods that draw differently at their start see the same dropout in the first step."""
    first_losses = []
    for rank in (1, 8):
        bench = make_bench({"name": "lora", "rank": rank}, steps=1, learning_rate=0.01)
        bench.recipe.method.fit(bench)
        first_losses.append(bench.trained.history[0]["loss"])

    assert first_losses[0] == first_losses[1]


def test_every_seed_has_its_own_dropout() -> None:
    """All examples are alike, so that the order of batches makes no difference."""
    histories = []
    for seed in (0, 0, 1):
        alike = schedule(examples=toy_examples()[:1] * 40)
        done = train(Dropping(), alike, settings(), seed=seed, learning_rate=0.05)
        histories.append([point["loss"] for point in done.history])

    assert histories[0] == histories[1]
    assert histories[0][0] != histories[2][0]


def test_a_purpose_draws_from_a_stream_of_its_own_and_leaves_torchs_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    drawn = {}
    for seed, purpose in ((0, "head"), (0, "adapter"), (1, "head")):
        with seeded(seed, purpose):
            drawn[seed, purpose] = float(torch.rand(1))
    again = torch.rand(2)
    with seeded(0, "head"):
        assert float(torch.rand(1)) == drawn[0, "head"]

    assert torch.equal(again, expected)
    assert len(set(drawn.values())) == 3
    assert all(0 <= derive(seed, "order") < 2**63 for seed in range(50))
    assert len({derive(seed, "order") for seed in range(50)}) == 50


# ---- the task's loss


def test_balanced_class_weights_are_inverse_to_the_shares(make_bench: Callable[..., Any]) -> None:
    """6, 3 and 1 rows: weights 10/18, 10/9 and 10/3, as scikit-learn's "balanced"."""
    bench = make_bench("lora", task={"class_weights": "balanced"})
    rows = Dataset.from_dict({"label": [0] * 6 + [1] * 3 + [2]})
    data = dataclasses.replace(bench.data, train=rows, labels=["a", "b", "c"])
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.5, 0.0, 0.0]])
    labels = torch.tensor([0, 1, 2])
    weights = np.array([10 / 18, 10 / 9, 10 / 3])
    log_probability = np.log(
        [
            math.e / (math.e + 2),
            math.e**2 / (math.e**2 + 2),
            1 / (math.e**0.5 + 2),
        ]
    )
    expected = -(weights * log_probability).sum() / weights.sum()

    assert float(bench.recipe.task.loss(logits, labels, data)) == pytest.approx(expected, rel=1e-6)
    plain = make_bench("lora").recipe.task.loss(logits, labels, data)
    assert float(plain) == pytest.approx(-log_probability.mean(), rel=1e-6)
