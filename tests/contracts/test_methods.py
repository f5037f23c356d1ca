"""What every method promises, on every family of backbones that can carry it.

Which methods and families there are, and which pairs cannot exist: `tests/cells.py`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
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
    CLASSIFIERS,
    FAMILIES,
    GRADIENT_TRAINED,
    MATRIX,
    METHODS,
    STEPS,
    TASKS,
    UNSUPPORTED,
    Start,
    batch_of,
    by_default,
    close,
    differ,
    is_key_bias,
    logits_of,
    pairs,
    parameters,
    perturb,
)
from peftkit import parts
from peftkit.backbones import families
from peftkit.errors import InvalidInput, Unsupported
from peftkit.merging import fold
from peftkit.order import batch_order
from peftkit.seeds import seeded

pytestmark = pytest.mark.usefixtures("libraries")
Fitted = Any  # what the fixture `fitted` returns, see conftest.py


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


def test_the_known_methods_and_families_are_among_those_found() -> None:
    assert len(METHODS) >= 14
    assert {"ia3", "last_layers", "layernorm_tuning", "p_tuning", "prefix_tuning"} < set(ATTACHED)
    assert {"bitfit", "bottleneck", "full", "linear_probe", "lora", "none"} < set(METHODS)
    assert {"prompt_tuning", "scratch", "tfidf"} < set(METHODS)
    assert {"bitfit", "bottleneck", "full", "lora", "prompt_tuning", "scratch"} <= set(ATTACHED)
    assert len(FAMILIES) >= 13
    assert {"bert", "distilbert", "gpt2", "llama", "roberta"} <= set(FAMILIES)


@pytest.mark.parametrize(("method", "family"), parameters(UNSUPPORTED[TASKS[0]]))
def test_a_pair_that_cannot_exist_says_why(
    fresh: Callable[..., Start],
    record_property: Callable[[str, object], None],
    method: str,
    family: str,
) -> None:
    with pytest.raises(Unsupported, match=UNSUPPORTED[TASKS[0]][method, family]) as caught:
        fresh(method, family)
    record_property("unsupported", str(caught.value))  # benchmarks/support.py reads it


# ---- the start


@pairs(ATTACHED)
def test_starts_as_the_bare_model_exactly_if_it_says_so(
    start: Callable[..., Start], method: str, family: str
) -> None:
    begun = start(method, family)
    logits = logits_of(begun.model, batch_of(begun.bench))

    if begun.bench.recipe.method.identity_at_start:
        assert close(logits, begun.bare_logits, 1e-6)
    else:
        assert differ(logits, begun.bare_logits)


@pairs(ATTACHED)
def test_only_what_the_method_adds_and_the_head_train(
    start: Callable[..., Start], method: str, family: str
) -> None:
    begun = start(method, family)
    named = dict(begun.model.named_parameters())
    if method not in ADAPTERS:
        declared = set(begun.bare)
    else:  # a head is trained as a copy, so what is trained is what is new
        declared = {name for name, p in named.items() if not begun.is_bare(p)}

    assert set(begun.trainable()) == declared
    assert len(named) > len(declared) or set(named) == set(begun.bare)
    assert {n for n in declared if begun.is_head(n)}
    assert {n for n in declared if not begun.is_head(n)}


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_every_method_starts_from_the_same_head(start: Callable[..., Start], family: str) -> None:
    heads = {}
    for method in ATTACHED:
        if (method, family) in UNSUPPORTED[TASKS[0]] or not by_default(method, family):
            continue
        begun = start(method, family)
        wrapped = r"^base_model\.(model\.)?|(modules_to_save|ln_tuning_layers)\.default\."
        heads[method] = {
            re.sub(wrapped, "", name): p
            for name, p in begun.trainable().items()
            if begun.is_head(name)
        }
    first = heads.pop("scratch")

    assert all(bool(p.abs().max() > 0) for name, p in first.items() if "weight" in name)
    for method, head in heads.items():
        assert set(head) == set(first), method
        assert all(torch.equal(head[name], first[name]) for name in first), method


def test_scratch_forgets_everything_but_the_head(start: Callable[..., Start]) -> None:
    """Else it would measure nothing: every weight matrix of the backbone is redrawn."""
    pretrained, random_weights = start("full", "bert"), start("scratch", "bert")
    for name, parameter in pretrained.bare.items():
        if parameter.ndim > 1 and not pretrained.is_head(name):
            assert not torch.equal(parameter, random_weights.bare[name]), name


# ---- gradients


@pairs(ATTACHED)
def test_learning_can_start(start: Callable[..., Start], method: str, family: str) -> None:
    """At least one tensor at each place has a gradient: LoRA's A has none while B is zero."""
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


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_every_method_sees_the_same_batches(fitted: Callable[..., Fitted], family: str) -> None:
    chosen = [
        m for m in METHODS if (m, family) not in UNSUPPORTED[TASKS[0]] and by_default(m, family)
    ]
    done = {m: fitted(m, family) for m in chosen}
    bench = done["scratch"].bench
    examples = bench.encode(bench.data.train)
    order = batch_order(
        [len(e["input_ids"]) for e in examples],
        num_batches=STEPS, batch_size=BATCH, order="length", seed=0,
    )  # fmt: skip
    batches = [[examples[i] for i in order[s : s + BATCH]] for s in range(0, len(order), BATCH)]
    labels = [[e["labels"] for e in batch] for batch in batches]
    padded = [bench.collate(batch)["input_ids"].tolist() for batch in batches]

    compared = 0
    for method, fit in done.items():
        if fit.labels:
            assert fit.labels == labels, method
        if method in ATTACHED:
            assert fit.embedded == padded, method
            compared += 1
    assert compared == len([m for m in chosen if m in ATTACHED]) >= 2
    assert family != "bert" or done["linear_probe"].labels


@pairs(ATTACHED, share=13)
def test_checkpointing_changes_no_result_or_is_refused(
    make_bench: Callable[..., Any], method: str, family: str
) -> None:
    if not parts.load("method", method).works_with_checkpointing:
        with pytest.raises(InvalidInput, match="gradient checkpointing"):
            make_bench(method, f"twin:{family}", gradient_checkpointing=True)
        return
    if family == "albert":  # nor can transformers
        bench = make_bench(method, "twin:albert", gradient_checkpointing=True)
        with pytest.raises(Unsupported, match="no gradient checkpointing"):
            bench.attach(bench.recipe.method)
        return
    logits = []
    for on in (False, True):
        options = {"gradient_checkpointing": on, "learning_rate": 0.01}
        bench = make_bench(method, f"twin:{family}", **options)
        logits.append(bench.recipe.method.fit(bench).outputs(bench.data.test))
        assert bench.backbone.model.is_activation_checkpointing is on

    np.testing.assert_allclose(logits[1], logits[0], atol=1e-6)


@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=MATRIX)])
@pytest.mark.parametrize("method", GRADIENT_TRAINED)
def test_the_seed_alone_decides(fitted: Callable[..., Fitted], method: str, family: str) -> None:
    """Dropout is on in the twins, and the surroundings' random state differs each time."""
    first, again, other = (
        fitted(method, family), fitted(method, family, again=1), fitted(method, family, seed=1),
    )  # fmt: skip
    trained = first.trained()

    assert set(again.trained()) == set(trained)
    for name, tensor in again.trained().items():
        assert torch.equal(tensor, trained[name]), name
    np.testing.assert_array_equal(again.logits, first.logits)
    assert first.labels != other.labels
    same = [n for n, t in other.trained().items() if torch.equal(t, trained[n])]
    assert [name for name in same if not is_key_bias(name)] == []


# ---- saving


@pairs(METHODS)
def test_a_saved_adapter_predicts_bit_equal_in_the_same_process(
    fitted: Callable[..., Fitted], make_bench: Callable[..., Any], method: str, family: str
) -> None:
    done = fitted(method, family)
    bench = make_bench(method, f"twin:{family}", seed=7)  # the saved head counts, not the seed's
    again = bench.recipe.method.reload(bench, done.folder)

    np.testing.assert_array_equal(again.outputs(bench.data.test), done.logits)
    assert np.unique(done.logits.round(4), axis=0).shape[0] > len(done.logits) // 2
    if method != "tfidf":
        assert again.parameters.head == done.predictor.parameters.head or method in ATTACHED


RELOAD = """
import json, sys
from pathlib import Path
import numpy as np
from peftkit.recipe import Recipe
from peftkit.workbench import Workbench

for method, family, folder, data in json.load(sys.stdin):
    recipe = Recipe(
        method=method, backbone=f"twin:{family}", seed=5,
        task={"name": "text_classification", "data": data},
        training={"precision": "float32"},
    )
    bench = Workbench(recipe, recipe.task.load(seed=0), Path(folder))
    again = recipe.method.reload(bench, Path(folder))
    np.save(Path(folder) / "again.npy", again.outputs(bench.data.test))
"""


def test_a_saved_adapter_predicts_bit_equal_in_a_new_process(
    fitted: Callable[..., Fitted], toy_folder: Path
) -> None:
    """One process for all: it takes seconds to start."""
    done = {(m, "bert"): fitted(m, "bert") for m in METHODS}
    done |= {(m, "gpt2"): fitted(m, "gpt2") for m in ("lora", "prompt_tuning")}
    order = [(*pair, str(fit.folder), str(toy_folder)) for pair, fit in done.items()]
    root = str(Path(peftkit.__file__ or "").parents[1])
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RELOAD],
        input=json.dumps(order), text=True, check=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    for pair, fit in done.items():
        assert np.array_equal(np.load(fit.folder / "again.npy"), fit.logits), pair


@pytest.mark.parametrize(
    ("method", "family"), [("lora", "bert"), ("lora", "gpt2"), ("prompt_tuning", "bert")]
)
def test_stock_peft_loads_the_adapter(
    fitted: Callable[..., Fitted], method: str, family: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    done = fitted(method, family)
    stock = AutoModelForSequenceClassification.from_pretrained(
        done.bench.backbone.location.folder, num_labels=3
    )
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    stock.config.pad_token_id = tokenizer.pad_token_id
    model = PeftModel.from_pretrained(stock, str(done.folder))
    batch = batch_of(done.bench)
    texts = list(done.bench.data.train["text"])[:8]

    assert tokenizer(texts)["input_ids"] == [
        ids[: sum(mask)]
        for ids, mask in zip(
            batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True
        )
    ]
    assert close(logits_of(model, batch), logits_of(done.predictor.model, batch), 1e-6)


def test_stock_transformers_loads_a_fully_trained_model(fitted: Callable[..., Fitted]) -> None:
    from transformers import AutoModelForSequenceClassification

    done = fitted("full", "bert")
    stock = AutoModelForSequenceClassification.from_pretrained(done.folder)
    batch = batch_of(done.bench)

    assert list(stock.config.id2label.values()) == done.bench.data.labels
    assert close(logits_of(stock, batch), logits_of(done.predictor.model, batch), 1e-6)


@pytest.mark.parametrize("method", ["lora", "bitfit", "bottleneck", "prompt_tuning"])
def test_an_adapter_on_a_bfloat16_base_survives_saving(
    make_bench: Callable[..., Any], method: str
) -> None:
    """With autocast; `test_backbones` does it without."""
    base = {"name": "twin:bert", "dtype": "bfloat16"}
    bench = make_bench(method, base, precision="bfloat16", learning_rate=0.02)
    predictor = bench.recipe.method.fit(bench)
    predictor.save(bench.folder)
    again = make_bench(method, base, precision="bfloat16", seed=3)
    reloaded = again.recipe.method.reload(again, bench.folder)

    for model in (predictor.model, reloaded.model):
        own = [p for n, p in model.named_parameters() if "default" in n]
        assert {p.dtype for p in own} == {torch.float32}
    np.testing.assert_array_equal(
        reloaded.outputs(bench.data.test), predictor.outputs(bench.data.test)
    )


# ---- what a model computes


@pairs(ADAPTERS)
def test_the_adapter_taken_away_is_the_bare_model_again(
    fresh: Callable[..., Start], method: str, family: str
) -> None:
    begun = fresh(method, family)
    batch = batch_of(begun.bench)
    if begun.model.active_peft_config.is_prompt_learning:
        # PEFT cannot disable prompts on encoders (TRAPS): `cost` measures the base instead, whose
        # head is the trained one.
        perturb(begun, only=lambda name: not begun.is_head(name))
        moved = logits_of(begun.model, batch)
        bare = logits_of(begun.model.get_base_model(), batch)
    else:
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
    if family == "t5":
        begun.model.double()  # its attention is so sharp that rounding would hide a fault
    adapted = logits_of(begun.model, batch)
    merged = fold(begun.model)

    assert names != set(begun.bare)
    assert {name for name, _ in merged.named_parameters()} == set(begun.bare)
    assert differ(adapted, begun.bare_logits, 0.1)
    assert close(logits_of(merged, batch), adapted, 1e-4)


# ---- requests that cannot be honoured

TARGETED = tuple(
    m for m in METHODS if "targets" in {f.name for f in dataclasses.fields(parts.load("method", m))}
)


@pytest.mark.parametrize("family", CLASSIFIERS)
@pytest.mark.parametrize("method", TARGETED)
def test_targets_that_match_nothing_are_refused_naming_the_candidates(
    fresh: Callable[..., Start], method: str, family: str
) -> None:
    assert "lora" in TARGETED
    candidates = {part.rpartition(".")[2] for ends in families()[family].roles.values()
                  for part in ends}  # fmt: skip
    for wrong in ("q_prj", "classifier", "score", "embeddings"):
        with pytest.raises(InvalidInput, match=repr(wrong)) as caught:
            fresh({"name": method, "targets": ["query", wrong]}, family)
        for name in (*candidates, "attention_output", "all"):
            assert name in str(caught.value)


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if ("prompt_tuning", f) not in UNSUPPORTED[TASKS[0]]]
)
def test_a_prompt_shortens_the_text_by_as_much_as_it_needs(
    make_bench: Callable[..., Any], family: str
) -> None:
    """Positions end at 128 (RoBERTa's toy: 129); 125 virtual tokens leave no room for a text."""
    positions = 129 if family == "roberta" else 128
    prompt = {"name": "prompt_tuning", "num_tokens": 20}
    bench, again, crowded = (
        make_bench({**prompt, "num_tokens": n}, f"twin:{family}", task={"max_length": 400})
        for n in (20, 20, 125)
    )
    rows = bench.data.train.select([0, 1]).map(lambda row: {"text": f"{row['text']} pay " * 200})
    assert {positions} == {len(e["input_ids"]) for e in bench.encode(rows)}
    predictor = bench.predictor(bench.attach(bench.recipe.method))
    predictor.save(bench.folder)
    logits = predictor.outputs(rows)

    assert {positions - 20} == {len(e["input_ids"]) for e in bench.encode(rows)}
    assert np.isfinite(logits).all()
    reloaded = again.recipe.method.reload(again, bench.folder)
    np.testing.assert_array_equal(reloaded.outputs(rows), logits)
    crowded.attach(crowded.recipe.method)
    with pytest.raises(InvalidInput, match="num-tokens"):
        crowded.encode(rows)
