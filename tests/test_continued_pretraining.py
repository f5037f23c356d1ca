"""Continued pretraining: on which text, what it changes, what it leaves alone, what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peftkit import Recipe, run
from peftkit.backbones._twin import twin_folder
from peftkit.errors import Diverged, InvalidInput, UnknownName
from peftkit.evaluate import IGNORED
from peftkit.methods.continued_pretraining import ContinuedPretraining
from peftkit.record import CONTINUED, Record
from peftkit.saved import load_run

pytestmark = pytest.mark.usefixtures("libraries")


def read(bench: Any) -> Any:
    """The workbench on which text was read."""
    return bench.recipe.method._read(bench)


@pytest.fixture
def recipe(toy_folder: Path) -> Callable[..., Recipe]:
    def make(then: str = "full", *, training: dict[str, Any] | None = None, **options: Any) -> Any:
        return Recipe(
            method={"name": "continued_pretraining", "then": then, **options},
            backbone="twin:bert",
            task={"name": "text_classification", "data": str(toy_folder), "size": 9},
            training={"steps": 3, "batch_size": 4, "precision": "float32", **(training or {})},
        )

    return make


# ---- the text


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_it_reads_all_training_inputs_whatever_the_size_and_no_test_rows(
    make_bench: Callable[..., Any], family: str
) -> None:
    bench = make_bench("continued_pretraining", f"twin:{family}", task={"size": 9})
    whole = make_bench("full", f"twin:{family}").data
    texts = set(read(bench).data.train["text"])

    assert len(bench.data.train) == 9
    assert texts == set(whole.train["text"])
    assert not texts & (set(whole.test["text"]) - set(whole.train["text"]))
    assert any("42 blocks" in note for note in bench.notes)


def test_a_corpus_may_be_given(make_bench: Callable[..., Any], tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.csv").write_text("story\n" + f"the bank of {split}\n" * 5)
    method = {"name": "continued_pretraining", "text": str(tmp_path), "text_column": "story"}

    assert set(read(make_bench(method)).data.train["text"]) == {"the bank of train"}


def test_several_passes_over_the_text_mask_it_differently(make_bench: Callable[..., Any]) -> None:
    """12 steps of 4 are more than one pass over 42 texts, so each is there twice."""
    reading = read(make_bench("continued_pretraining", "twin:bert", steps=12))
    examples = reading.encode(reading.data.train)
    first, second = examples[:42], examples[42:]
    places = [[label != IGNORED for e in half for label in e["labels"]] for half in (first, second)]

    assert len(first) == len(second) == 42
    assert [len(e["input_ids"]) for e in first] == [len(e["input_ids"]) for e in second]
    assert places[0] != places[1]


def test_steps_and_rate_of_reading_are_its_own(make_bench: Callable[..., Any]) -> None:
    options = {"steps": 5, "pretraining_learning_rate": 2e-3}
    bench = make_bench({"name": "continued_pretraining", **options}, learning_rate=0.5)
    reading = read(bench)

    assert reading.trained.steps == 5
    assert reading.recipe.learning_rate == 2e-3
    assert bench.recipe.learning_rate == 0.5
    assert max(point.get("learning_rate", 0) for point in reading.trained.history) <= 2e-3


# ---- what is learned


@pytest.mark.parametrize("family", ["bert", "llama", "distilbert"])
def test_the_body_learns_the_text_and_the_head_stays_new(
    make_bench: Callable[..., Any], family: str
) -> None:
    method = {"name": "continued_pretraining", "steps": 60, "pretraining_learning_rate": 5e-3}
    bench, plain = (make_bench(m, f"twin:{family}") for m in (method, "full"))
    reading = read(bench)
    losses = [point["loss"] for point in reading.trained.history if "loss" in point]
    before = dict(plain.backbone.model.named_parameters())
    blocks = tuple(f"{block}." for block in bench.backbone.layers.blocks)

    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    for name, parameter in bench.backbone.model.named_parameters():
        if bench.in_head(name):
            assert torch.equal(parameter, before[name]), name
        elif name.startswith(blocks) and "key" not in name:
            assert not torch.equal(parameter, before[name]), name


def test_an_encoder_without_output_layer_gets_one_tied_to_its_embeddings(
    make_bench: Callable[..., Any],
) -> None:
    bench = make_bench("continued_pretraining", "twin:bert")
    model = read(bench).backbone.model

    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert any("output tied to the input embeddings" in note for note in bench.notes)


def test_so_does_a_decoder_that_was_saved_without_its_own(
    make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    twin = twin_folder("llama")
    AutoModel.from_pretrained(twin).save_pretrained(tmp_path / "bare")
    AutoTokenizer.from_pretrained(twin).save_pretrained(tmp_path / "bare")
    method = {"name": "continued_pretraining", "then": "lora"}
    bench = make_bench(method, str(tmp_path / "bare"))
    predictor = bench.recipe.method.fit(bench)
    predictor.save(tmp_path / "out")
    model = predictor.reading.backbone.model
    stock, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out" / CONTINUED, output_loading_info=True
    )

    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not info["missing_keys"]
    assert torch.equal(stock.lm_head.weight, model.lm_head.weight)


# ---- what is kept


def test_costs_of_both_stages_are_told_apart(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    record = run(recipe("lora:rank=2", steps=5), tmp_path)
    costs = record.costs

    assert (costs["pretraining_steps"], costs["steps"]) == (5, 3)
    assert costs["pretraining_tokens"] > 0 < costs["adaptation_tokens"]
    assert costs["pretraining_seconds"] + costs["adaptation_seconds"] == pytest.approx(
        costs["train_seconds"], rel=0.2
    )
    assert costs["method_parameters"] == 2 * 2 * (4 * 64 + 2 * 96)  # of the LoRA alone
    assert costs["adapter_bytes"] > sum(
        path.stat().st_size for path in (tmp_path / CONTINUED).glob("*.safetensors")
    )
    assert Record.read(tmp_path / "record.json").notes == record.notes


@pytest.mark.parametrize("then", ["full", "lora", "linear_probe", "none"])
def test_a_saved_run_answers_as_before(
    recipe: Callable[..., Recipe], tmp_path: Path, then: str
) -> None:
    record = run(recipe(then), tmp_path, features_folder=tmp_path / "features")
    again = load_run(tmp_path)
    test = again.recipe.task.load(seed=0).test
    predictions, _ = again.recipe.task.score(again.predictor.outputs(test), test)

    assert predictions == record.predictions
    assert (tmp_path / CONTINUED).is_dir() is (then != "full")
    assert not list(
        (tmp_path / "features").glob("*.npz")
    )  # they are features of other weights than the files


def test_the_continued_backbone_is_a_backbone(
    recipe: Callable[..., Recipe], tmp_path: Path, toy_folder: Path
) -> None:
    run(recipe("lora"), tmp_path / "one")
    backbone = str(tmp_path / "one" / CONTINUED)
    text = {"name": "language_modeling", "data": str(toy_folder), "max_length": 32}
    classified = run(recipe().override({"backbone.name": backbone, "method": "none"}))
    read_on = run(Recipe(method="none", backbone=backbone, task=text))

    assert classified.status == read_on.status == "done"


def test_killed_while_reading_it_goes_on_from_its_checkpoint(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    wanted = recipe(steps=8, training={"save_every": 2, "steps": 4})
    undisturbed = run(wanted, tmp_path / "undisturbed")
    seen: list[int] = []

    def stop(done: int, total: int, what: str) -> None:
        if what == "train" and total == 8:
            seen.append(done)
            if done == 5 and len(seen) == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(wanted, tmp_path / "killed", progress=stop)
    again = run(wanted, tmp_path / "killed", progress=stop)

    assert seen == [1, 2, 3, 4, 5, 5, 6, 7, 8]  # step 4 was kept
    assert again.predictions == undisturbed.predictions
    assert again.history == undisturbed.history


# ---- requests that cannot be honoured


@pytest.mark.parametrize("then", ["tfidf", "scratch", "continued_pretraining"])
def test_what_would_not_use_the_text_is_refused(then: str) -> None:
    with pytest.raises(InvalidInput, match="does not use what was learned"):
        ContinuedPretraining(then=then)


def test_names_and_options_of_what_follows_are_checked() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'lora'"):
        ContinuedPretraining(then="lorra")
    with pytest.raises(UnknownName, match="rank"):
        ContinuedPretraining(then="lora:rnk=3")
    assert ContinuedPretraining(then="lora:rank=3").adaptation.rank == 3  # type: ignore[attr-defined]


def test_it_takes_the_facts_of_what_follows() -> None:
    lora, prefix = ContinuedPretraining(then="lora"), ContinuedPretraining(then="prefix_tuning")

    assert (lora.learning_rate, lora.mergeable) == (1e-3, True)
    assert (prefix.mergeable, prefix.works_with_checkpointing) == (False, False)


def test_diverging_on_text_names_the_rate_that_is_to_blame(make_bench: Callable[..., Any]) -> None:
    options = {"pretraining_learning_rate": 1e30, "steps": 8}
    bench = make_bench({"name": "continued_pretraining", **options})
    with pytest.raises(Diverged, match="pretraining-learning-rate"):
        bench.recipe.method.fit(bench)
