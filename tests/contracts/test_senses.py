"""What every method promises on backbones that read images or sounds, as in `test_methods`.

Each family is tested on its own task, with toy images or toy sounds. A new family needs its closed
forms here.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import peftkit
from cells import (
    ADAPTERS,
    ATTACHED,
    BATCH,
    MATRIX,
    METHODS,
    SENSES,
    STEPS,
    Start,
    batch_of,
    close,
    differ,
    is_key_bias,
    logits_of,
    perturb,
)
from peftkit.backbones import families
from peftkit.errors import InvalidInput, Unsupported
from peftkit.merging import fold
from peftkit.order import batch_order
from peftkit.seeds import seeded

pytestmark = pytest.mark.usefixtures("libraries")
Bench = Fitted = Any  # what the fixtures `bench_of` and `fitted` return, see conftest.py
FAMILIES = tuple(SENSES)
UNSUPPORTED = {
    **{
        (method, family): "beside the embedded tokens of a text"
        for method in ("p_tuning", "prefix_tuning", "prompt_tuning")
        for family in FAMILIES
    },
    **{("tfidf", family): "counts the words" for family in FAMILIES},
    **{("continued_pretraining", family): "pretraining on text" for family in FAMILIES},
}


def by_default(method: str, family: str) -> bool:
    """Whether a pair is tried without `-m matrix`: half of LoRA and full, a ninth of others."""
    number = METHODS.index(method) + FAMILIES.index(family)
    return number % (2 if method in ("lora", "full") else 9) == 0


def parameters(pairs: Iterable[tuple[str, str]]) -> list[Any]:
    """Pairs of method and family as parameters of a test."""
    return [
        pytest.param(*pair, id="-".join(pair), marks=() if by_default(*pair) else MATRIX)
        for pair in pairs
    ]


def pairs(methods: tuple[str, ...]) -> Any:
    """Every method given on every family that can carry it, as parameters of a test."""
    every = [(m, f) for m in methods for f in FAMILIES if (m, f) not in UNSUPPORTED]
    return pytest.mark.parametrize(("method", "family"), parameters(every))


def gradients(start: Start) -> dict[str, torch.Tensor]:
    """Gradients of the loss for everything trainable, dropout off; zeros where there is none."""
    start.model.eval()
    batch = batch_of(start.bench)
    labels = batch.pop("labels")
    loss = torch.nn.functional.cross_entropy(start.model(**batch).logits, labels)
    named = start.trainable()
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(named.items(), found, strict=True)
    }


# ---- what there is


def test_the_known_families_are_among_those_found() -> None:
    images = {"swin", "vit"}
    sounds = {"wav2vec2", "whisper"}

    assert images <= {name for name, task in SENSES.items() if task == "image_classification"}
    assert sounds <= {name for name, task in SENSES.items() if task == "audio_classification"}


@pytest.mark.parametrize(("method", "family"), parameters(UNSUPPORTED))
def test_a_pair_that_cannot_exist_says_why(
    bench_of: Callable[..., Bench],
    record_property: Callable[[str, object], None],
    method: str,
    family: str,
) -> None:
    bench = bench_of(method, family)
    with pytest.raises(Unsupported, match=UNSUPPORTED[method, family]) as caught:
        bench.recipe.method.fit(bench)
    record_property("unsupported", str(caught.value))  # benchmarks/support.py reads it


# ---- the start


@pairs(ATTACHED)
def test_starts_as_the_bare_model_exactly(
    start: Callable[..., Start], method: str, family: str
) -> None:
    begun = start(method, family)

    assert begun.bench.recipe.method.identity_at_start
    assert close(logits_of(begun.model, batch_of(begun.bench)), begun.bare_logits, 1e-6)


@pairs(ATTACHED)
def test_only_what_the_method_adds_and_the_head_train(
    start: Callable[..., Start], method: str, family: str
) -> None:
    begun = start(method, family)
    named = dict(begun.model.named_parameters())
    if method not in ADAPTERS:
        declared = set(begun.bare) - set(begun.bench.backbone.layers.fixed)
    else:  # a head is trained as a copy, so what is trained is what is new
        declared = {name for name, p in named.items() if not begun.is_bare(p)}

    assert set(begun.trainable()) == declared
    assert {n for n in declared if begun.is_head(n)}
    assert {n for n in declared if not begun.is_head(n)}


def test_what_is_no_matter_of_training_is_named() -> None:
    """Sinusoids of Whisper, and what wav2vec 2.0 puts in the place of frames that it hides."""
    fixed = {name: family.fixed for name, family in families().items() if family.fixed}

    assert fixed["whisper"] == ("encoder.embed_positions.weight",)
    assert fixed["wav2vec2"] == ("masked_spec_embed",)


D, RANK = 32, 8
# Widths of the blocks; each has four projections in attention, and an MLP of twice its width.
WIDTHS = {"vit": (32, 32), "swin": (16, 32, 32), "wav2vec2": (32, 32), "whisper": (32, 32)}
_PROJECTED = D * 16 + 16 + 16 * 3 + 3
HEADS = {"vit": D * 3 + 3, "swin": D * 3 + 3, "wav2vec2": _PROJECTED, "whisper": _PROJECTED}
# Biases before and after the blocks; in a block: 4 projections, two norms, up and down.
BIASES = {
    "vit": 32 + 32,  # patches; the last norm
    "swin": 16 + 16 + 4 * 16 + 32,  # patches and their norm; the norm where four patches are joined
    "wav2vec2": 3 * (16 + 16) + 16 + 32 + 32 + 32,  # convolutions, projection, positions, norm
    "whisper": 2 * 32 + 32 - 2 * 32,  # two convolutions, the last norm; keys have none
}
# Gains and biases of the norms outside the blocks.
NORMS = {"vit": 64, "swin": 32 + 128 + 64, "wav2vec2": 3 * 32 + 32 + 64, "whisper": 64}
# The last two blocks have tables of relative positions in Swin, and no bias of keys in Whisper.
LAST = {"vit": 64, "swin": 64 + 2 * 3 * 3 * 4, "wav2vec2": 0, "whisper": 64 - 2 * 32}


def _blocks(family: str, formula: Callable[[int], int]) -> int:
    return sum(formula(width) for width in WIDTHS[family])


def _last_two(family: str, bare: Any) -> int:
    block = 4 * (D * D + D) + 2 * 2 * D * D + 2 * D + D + 4 * D
    return 2 * block + LAST[family]


def _everything_but_the_head(family: str, bare: dict[str, torch.nn.Parameter]) -> int:
    fixed = tuple(f".{end}" for end in families()[family].fixed)
    numbers = [p.numel() for name, p in bare.items() if not f".{name}".endswith(fixed)]
    return sum(numbers) - HEADS[family]


CLOSED_FORMS: dict[str, Callable[[str, dict[str, torch.nn.Parameter]], int]] = {
    "lora": lambda family, _: _blocks(family, lambda d: RANK * (4 * 2 * d + 2 * 3 * d)),
    "bottleneck": lambda family, _: _blocks(
        family, lambda d: 2 * (2 * d * (d // 16) + d // 16 + d)
    ),
    "ia3": lambda family, _: _blocks(family, lambda d: d + d + 2 * d),
    "layernorm_tuning": lambda family, _: _blocks(family, lambda d: 4 * d) + NORMS[family],
    "bitfit": lambda family, _: (
        _blocks(family, lambda d: 4 * d + 2 * d + 2 * d + d) + BIASES[family]
    ),
    "last_layers": _last_two,
    "full": _everything_but_the_head,
    "scratch": _everything_but_the_head,
}


@pairs(ATTACHED)
def test_trains_as_many_parameters_as_its_closed_form_says(
    start: Callable[..., Start], method: str, family: str
) -> None:
    begun = start(method, family)
    counted = begun.bench.parameters(begun.model)

    assert HEADS[family] == counted.head
    assert CLOSED_FORMS[method](family, begun.bare) == counted.method


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_starts_from_the_same_head(start: Callable[..., Start], family: str) -> None:
    heads = {}
    for method in ATTACHED:
        always = method in ("full", "lora")  # what the others are compared with, and one of them
        if (method, family) in UNSUPPORTED or not (always or by_default(method, family)):
            continue
        begun = start(method, family)
        wrapped = r"^base_model\.(model\.)?|(modules_to_save|ln_tuning_layers)\.default\."
        heads[method] = {
            re.sub(wrapped, "", name): p
            for name, p in begun.trainable().items()
            if begun.is_head(name)
        }
    first = heads.pop("full")

    assert all(bool(p.abs().max() > 0) for name, p in first.items() if "weight" in name)
    assert heads
    for method, head in heads.items():
        assert set(head) == set(first), method
        assert all(torch.equal(head[name], first[name]) for name in first), method


# ---- gradients


@pairs(ATTACHED)
def test_learning_can_start(start: Callable[..., Start], method: str, family: str) -> None:
    begun = start(method, family)
    places: dict[str, bool] = {}
    for name, gradient in gradients(begun).items():
        if begun.is_head(name) or is_key_bias(name):
            continue
        place = re.split(r"\.default\b", name)[0].rpartition(".")[0]
        places[place] = places.get(place, False) or bool(gradient.abs().max() > 1e-13)

    assert places
    assert [place for place, learns in places.items() if not learns] == []


@pairs(ATTACHED)
def test_gradient_reaches_every_trained_tensor_once_perturbed(
    fresh: Callable[..., Start], method: str, family: str
) -> None:
    begun = fresh(method, family)
    perturb(begun)
    silent = [n for n, g in gradients(begun).items() if not g.abs().max() > 1e-13]

    assert [name for name in silent if not is_key_bias(name)] == []


# ---- training


@pairs(ATTACHED)
def test_training_moves_what_is_declared_and_nothing_else(
    fitted: Callable[..., Fitted], method: str, family: str
) -> None:
    done = fitted(method, family)
    trained = done.trained()
    for name, parameter in done.predictor.model.named_parameters():
        if name not in trained:
            assert torch.equal(parameter, done.before[name]), f"{name} is frozen, but moved"
        elif not is_key_bias(name):
            assert not torch.equal(parameter, done.before[name]), f"{name} never moved"
    assert sum(t.numel() for t in trained.values()) == (
        done.predictor.parameters.method + done.predictor.parameters.head
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_sees_the_same_batches(fitted: Callable[..., Fitted], family: str) -> None:
    able = [m for m in METHODS if (m, family) not in UNSUPPORTED]
    chosen = [m for m in able if m in ("full", "lora") or by_default(m, family)]
    done = {m: fitted(m, family) for m in chosen}
    bench = done["full"].bench
    examples = bench.encode(bench.data.train)
    order = batch_order(
        [bench.recipe.task.length(e) for e in examples],
        num_batches=STEPS, batch_size=BATCH, order="length", seed=0,
    )  # fmt: skip
    batches = [[examples[i] for i in order[s : s + BATCH]] for s in range(0, len(order), BATCH)]
    labels = [[e["labels"] for e in batch] for batch in batches]
    name = bench.backbone.model.main_input_name
    inputs = [bench.collate(batch)[name].tolist() for batch in batches]

    for method, fit in done.items():
        if fit.labels:
            assert fit.labels == labels, method
        if method in ATTACHED:
            assert fit.embedded == inputs, method
    assert len([m for m in chosen if m in ATTACHED]) >= 2


@pairs(ATTACHED)
def test_checkpointing_changes_no_result(
    bench_of: Callable[..., Bench], method: str, family: str
) -> None:
    logits = []
    for on in (False, True):
        bench = bench_of(method, family, gradient_checkpointing=on, learning_rate=0.01)
        logits.append(bench.recipe.method.fit(bench).outputs(bench.data.test))
        assert bench.backbone.model.is_activation_checkpointing is on

    np.testing.assert_allclose(logits[1], logits[0], atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "wav2vec2"])
@pytest.mark.parametrize("method", ["full", "lora", "linear_probe"])
def test_the_seed_alone_decides(fitted: Callable[..., Fitted], method: str, family: str) -> None:
    """Dropout is on in the twin of wav2vec 2.0, and the random state around differs each time."""
    first, again, other = (
        fitted(method, family), fitted(method, family, again=1), fitted(method, family, seed=1),
    )  # fmt: skip
    trained = first.trained()

    for name, tensor in again.trained().items():
        assert torch.equal(tensor, trained[name]), name
    np.testing.assert_array_equal(again.logits, first.logits)
    assert first.labels != other.labels
    same = [n for n, t in other.trained().items() if torch.equal(t, trained[n])]
    assert [name for name in same if not is_key_bias(name)] == []


# ---- saving


@pairs(METHODS)
def test_a_saved_adapter_predicts_bit_equal_in_the_same_process(
    fitted: Callable[..., Fitted], bench_of: Callable[..., Bench], method: str, family: str
) -> None:
    done = fitted(method, family)
    bench = bench_of(method, family, seed=7)  # the saved head counts, not the seed's
    again = bench.recipe.method.reload(bench, done.folder)

    np.testing.assert_array_equal(again.outputs(bench.data.test), done.logits)
    assert (done.folder / "preprocessor_config.json").is_file()


RELOAD = """
import json, sys
from pathlib import Path
import numpy as np
from peftkit.recipe import Recipe
from peftkit.workbench import Workbench

for recipe, folder in json.load(sys.stdin):
    recipe = Recipe.from_dict(recipe)
    bench = Workbench(recipe, recipe.task.load(seed=0), Path(folder))
    again = recipe.method.reload(bench, Path(folder))
    np.save(Path(folder) / "again.npy", again.outputs(bench.data.test))
"""


def test_a_saved_adapter_predicts_bit_equal_in_a_new_process(
    fitted: Callable[..., Fitted],
) -> None:
    """One process for all: it takes seconds to start."""
    done = {(m, f): fitted(m, f) for m in ("lora", "full", "none") for f in ("swin", "whisper")}
    order = [(fit.bench.recipe.to_dict(), str(fit.folder)) for fit in done.values()]
    root = str(Path(peftkit.__file__ or "").parents[1])
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RELOAD],
        input=json.dumps(order), text=True, check=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    for pair, fit in done.items():
        assert np.array_equal(np.load(fit.folder / "again.npy"), fit.logits), pair


@pytest.mark.parametrize("method", ["bitfit", "lora"])
@pytest.mark.parametrize("family", ["vit", "whisper"])
def test_an_adapter_on_a_bfloat16_base_survives_saving(
    bench_of: Callable[..., Bench], method: str, family: str
) -> None:
    bench = bench_of(method, family, dtype="bfloat16", learning_rate=0.02)
    predictor = bench.recipe.method.fit(bench)
    predictor.save(bench.folder)
    again = bench_of(method, family, dtype="bfloat16", seed=3)
    reloaded = again.recipe.method.reload(again, bench.folder)

    np.testing.assert_array_equal(
        reloaded.outputs(bench.data.test), predictor.outputs(bench.data.test)
    )


def test_stock_transformers_loads_a_fully_trained_model(fitted: Callable[..., Fitted]) -> None:
    """The shortened Whisper, too: its own configuration says how long it is."""
    from transformers import AutoModelForAudioClassification, AutoModelForImageClassification

    for family, auto in (
        ("swin", AutoModelForImageClassification),
        ("whisper", AutoModelForAudioClassification),
    ):
        done = fitted("full", family)
        stock = auto.from_pretrained(done.folder)
        batch = batch_of(done.bench)

        assert list(stock.config.id2label.values()) == done.bench.data.labels
        assert close(logits_of(stock, batch), logits_of(done.predictor.model, batch), 1e-6)
    assert stock.config.max_source_positions == 20  # 0.4 s


# ---- what a model computes


@pairs(ATTACHED)
def test_what_shares_a_batch_changes_no_prediction(
    fresh: Callable[..., Start], method: str, family: str
) -> None:
    begun = fresh(method, family)
    perturb(begun)
    task = begun.bench.recipe.task
    examples = sorted(begun.bench.encode(begun.bench.data.train), key=task.length)
    short, long = examples[0], examples[-1]
    together = logits_of(begun.model, begun.bench.collate([short, long]))

    assert family != "wav2vec2" or task.length(long) > 2 * task.length(short)
    for row, example in enumerate((short, long)):
        alone = logits_of(begun.model, begun.bench.collate([example]))
        assert close(together[row : row + 1], alone)


@pairs(ADAPTERS)
def test_the_adapter_taken_away_is_the_bare_model_again(
    fresh: Callable[..., Start], method: str, family: str
) -> None:
    begun = fresh(method, family)
    batch = batch_of(begun.bench)
    perturb(begun)
    moved = logits_of(begun.model, batch)
    with begun.model.disable_adapter():
        bare = logits_of(begun.model, batch)

    assert differ(moved, begun.bare_logits)
    assert torch.equal(bare, begun.bare_logits)


@pairs(ADAPTERS)
def test_merging_keeps_names_and_outputs_or_is_refused(
    fresh: Callable[..., Start], method: str, family: str
) -> None:
    begun = fresh(method, family)
    names = set(copy.deepcopy(begun.bench.backbone.model).state_dict())
    if not begun.bench.recipe.method.mergeable:
        with pytest.raises(Unsupported):
            fold(begun.model)
        return
    with torch.no_grad(), seeded(0, "biases"):  # a bias forgotten in merging would not be seen
        for name, parameter in begun.model.named_parameters():
            if name.endswith("bias") and not begun.is_head(name):
                parameter.normal_(std=0.5)
    perturb(begun)
    batch = batch_of(begun.bench)
    adapted = logits_of(begun.model, batch)
    merged = fold(begun.model)

    assert names != set(begun.bare)
    assert {name for name, _ in merged.named_parameters()} == set(begun.bare)
    assert differ(adapted, begun.bare_logits, 0.1)
    assert close(logits_of(merged, batch), adapted, 1e-4)


@pytest.mark.parametrize("variant", ["houlsby", "pfeiffer", "parallel"])
@pytest.mark.parametrize("family", FAMILIES)
def test_bottlenecks_find_their_places(
    fresh: Callable[..., Start], family: str, variant: str
) -> None:
    begun = fresh({"name": "bottleneck", "variant": variant}, family)
    layers = begun.bench.backbone.layers
    adapted = {
        name.partition(".bottleneck_")[0].removeprefix("base_model.model.")
        for name in begun.trainable()
        if ".bottleneck_" in name
    }
    expected = {*layers.roles["mlp_output"]}
    if variant == "houlsby":
        expected |= {*layers.roles["attention_output"]}

    assert adapted == expected
    perturb(begun)
    assert [n for n, g in gradients(begun).items() if not g.abs().max() > 0] == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["ia3", "lora"])
def test_targets_that_match_nothing_are_refused_naming_the_candidates(
    fresh: Callable[..., Start], method: str, family: str
) -> None:
    candidates = {part.rpartition(".")[2] for ends in families()[family].roles.values()
                  for part in ends}  # fmt: skip
    for wrong in ("q_prj", "classifier", "projector"):
        with pytest.raises(InvalidInput, match=repr(wrong)) as caught:
            fresh({"name": method, "targets": ["query", wrong]}, family)
        for name in (*candidates, "attention_output", "all"):
            assert name in str(caught.value)
