"""A run: its record can be checked from itself, and its folder used again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftkit import cost, parts
from peftkit.errors import InvalidInput
from peftkit.pipeline import run
from peftkit.recipe import Recipe
from peftkit.record import MANIFEST, Record, read_records
from peftkit.saved import load_run

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.fixture(scope="module")
def recipe(toy_folder: Path) -> Callable[..., Recipe]:
    def make(method: Any, backbone: Any = "twin:bert", seed: int = 0, **training: Any) -> Recipe:
        return Recipe(
            method=method,
            backbone=backbone,
            task={"name": "text_classification", "data": str(toy_folder)},
            training={"steps": 3, "batch_size": 4, "precision": "float32", **training},
            seed=seed,
        )

    return make


@pytest.fixture(scope="module")
def finished(
    recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Record, Path]:
    folder = tmp_path_factory.mktemp("lora")
    done = run(recipe("lora", evaluate_every=2, save_every=2, learning_rate=0.01), folder)
    return done, folder


def test_a_record_comes_back_from_its_file_as_it_was(finished: tuple[Record, Path]) -> None:
    record, folder = finished

    assert Record.read(folder / "record.json") == record
    assert read_records(folder) == ([record], [])
    assert (record.status, record.error, record.method, record.seed) == ("done", "", "lora", 0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_half_a_record_is_no_record(
    finished: tuple[Record, Path], tmp_path: Path, share: float
) -> None:
    text = (finished[1] / "record.json").read_text(encoding="utf-8")
    path = tmp_path / "record.json"
    path.write_text(text[: int(share * len(text))], encoding="utf-8")
    with pytest.raises(InvalidInput, match="is not a whole record") as caught:
        Record.read(path)
    assert "delete the file" in str(caught.value)
    assert len(read_records(tmp_path)[1]) == 1


@pytest.mark.parametrize(
    "change", [{"format": 99}, {"unknown_field": 1}, {"key": None, "recipe": None}]
)
def test_a_record_of_another_format_is_refused(
    finished: tuple[Record, Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    body = json.loads((finished[1] / "record.json").read_text(encoding="utf-8")) | change
    body = {name: value for name, value in body.items() if value is not None}
    path = tmp_path / "record.json"
    path.write_text(json.dumps(body), encoding="utf-8")
    with pytest.raises(InvalidInput):
        Record.read(path)


def test_the_metrics_follow_from_the_predictions_of_each_item(
    finished: tuple[Record, Path],
) -> None:
    record, folder = finished
    logits = load_run(folder).predictor.outputs(_rows(record, "test")).astype(np.float64)
    label = np.array(record.predictions["label"])
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(18), label]

    assert record.predictions["item"] == list(range(18))
    assert label.tolist() == _rows(record, "test")["label"]
    assert record.predictions["predicted"] == logits.argmax(1).tolist()
    assert record.predictions["loss"] == pytest.approx(loss.tolist(), abs=1e-4)
    right = float(np.mean(logits.argmax(1) == label))
    assert record.metrics["test"]["accuracy"] == pytest.approx(right)
    assert record.metrics["test"]["log_loss"] == pytest.approx(float(loss.mean()), abs=1e-5)
    validation = load_run(folder).predictor.outputs(_rows(record, "validation"))
    right = float(np.mean(validation.argmax(1) == _rows(record, "validation")["label"]))
    assert record.metrics["validation"]["accuracy"] == pytest.approx(right)
    evaluated = [p["validation"] for p in record.history if "validation" in p]
    assert evaluated[-1] == record.metrics["validation"]["accuracy"]


def _rows(record: Record, split: str) -> Any:
    recipe = Recipe.from_dict(record.recipe)
    return getattr(recipe.task.load(seed=recipe.seed), split)


def test_the_recipe_of_a_record_runs_again_to_the_same_numbers(
    finished: tuple[Record, Path],
) -> None:
    record, _ = finished
    again = run(Recipe.from_dict(record.recipe))

    assert again.key == record.key
    assert again.predictions == record.predictions
    assert again.metrics == record.metrics
    assert again.history == record.history


def test_the_key_changes_with_whatever_changes_results(
    finished: tuple[Record, Path], recipe: Callable[..., Recipe]
) -> None:
    keys = {finished[0].key}
    for other in (
        recipe("lora", evaluate_every=2, learning_rate=0.02),
        recipe("lora", evaluate_every=2, learning_rate=0.01, seed=1),
        recipe({"name": "lora", "rank": 4}, evaluate_every=2, learning_rate=0.01),
        recipe("lora", "twin:roberta", evaluate_every=2, learning_rate=0.01),
    ):
        keys.add(run(other).key)

    assert len(keys) == 5


def test_a_finished_folder_holds_what_is_needed_and_no_checkpoints(
    finished: tuple[Record, Path],
) -> None:
    _, folder = finished
    names = {path.name for path in folder.iterdir()}

    assert {"adapter_config.json", "adapter_model.safetensors", MANIFEST, "record.json"} <= names
    assert "checkpoints" not in names
    assert (
        not list(folder.rglob("*.bin")) + list(folder.rglob("*.pt")) + list(folder.rglob("*.pkl"))
    )
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["labels"] == ["finance", "question", "table"]
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "twin:bert"


def test_costs_are_measured_and_described(finished: tuple[Record, Path]) -> None:
    """Every name is in the table at the head of `peftkit.cost`."""
    record, folder = finished
    costs = record.costs
    table = set(re.findall(r"`(\w+)`", cost.__doc__ or ""))
    named = {
        re.sub(r"^(load|train|evaluate)_(cpu_)?seconds$", r"train_\2seconds", n) for n in costs
    }

    assert named - table - {"steps", "features_seconds"} == set()
    assert costs["method_parameters"] == 2 * 8 * (4 * 64 + 2 * 96)
    assert costs["head_parameters"] == 99
    assert costs["trainable_parameters"] == costs["method_parameters"] + 99
    assert costs["steps"] == 3
    assert costs["adapter_bytes"] == (folder / "adapter_model.safetensors").stat().st_size
    assert set(costs["peak_memory_bytes"]) == {"load", "train", "evaluate"}
    for name in ("load_seconds", "train_seconds", "evaluate_seconds", "train_cpu_seconds",
                 "examples_per_second", "inference_seconds_per_example"):  # fmt: skip
        assert 0 < costs[name] < math.inf, name
    tokens, seconds = costs["tokens_per_second"], costs["train_seconds"]
    assert tokens * seconds == pytest.approx(round(tokens * seconds), abs=1e-6)
    assert record.backbone["total_parameters"] == 27072


OFTEN = ("none", "linear_probe", "prompt_tuning", "lora", "full", "tfidf")


@pytest.mark.parametrize(
    "method",
    [m if m in OFTEN else pytest.param(m, marks=pytest.mark.matrix) for m in parts.find("method")],
)
def test_every_method_runs_and_answers_again_from_its_folder(
    recipe: Callable[..., Recipe], tmp_path: Path, method: str
) -> None:
    record = run(recipe(method), tmp_path)
    saved = load_run(tmp_path)
    rows = _rows(record, "test")

    assert saved.recipe == recipe(method)
    predicted = saved.predictor.outputs(rows).argmax(1).tolist()
    assert predicted == record.predictions["predicted"]
    answers = saved.predict(list(rows["text"]))
    assert [saved.labels[i] for i in predicted] == [answer["label"] for answer in answers]
    assert record.costs["adapter_bytes"] > 0
    assert (record.backbone["name"] == "none") == (method == "tfidf")


CONTINUED = {"name": "continued_pretraining", "steps": 2, "then": "lora"}
CONTINUED_FULL = {**CONTINUED, "then": "full"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("lora", "full"), ("full", "lora"), ("linear_probe", "lora"), ("full", CONTINUED),
        (CONTINUED, CONTINUED), (CONTINUED, CONTINUED_FULL), (CONTINUED, "lora"),
    ],
)  # fmt: skip
def test_a_folder_written_again_holds_the_second_run_alone(
    recipe: Callable[..., Recipe], tmp_path: Path, first: Any, second: Any
) -> None:
    run(recipe(first), tmp_path / "a")
    run(recipe(second, seed=1, learning_rate=0.05), tmp_path / "a")
    expected = run(recipe(second, seed=1, learning_rate=0.05), tmp_path / "b")
    found = Record.read(tmp_path / "a" / "record.json")

    assert found.costs["adapter_bytes"] == expected.costs["adapter_bytes"]
    rows = _rows(expected, "test")
    np.testing.assert_array_equal(
        load_run(tmp_path / "a").predictor.outputs(rows),
        load_run(tmp_path / "b").predictor.outputs(rows),
    )


def test_without_an_output_folder_nothing_stays(
    recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(recipe("lora"))
    run(recipe("lora"), tmp_path / "out", save_weights=False)

    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_features_of_the_frozen_backbone_are_shared_between_runs(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    alone = run(recipe("linear_probe"))
    first = run(recipe("none"), features_folder=tmp_path)
    shared = run(recipe("linear_probe"), features_folder=tmp_path)

    assert shared.predictions == alone.predictions
    assert "features_seconds" not in first.costs
    assert shared.costs["features_seconds"] > 0
    files = len(list(tmp_path.glob("*.npz")))
    assert files == 3  # a file a split
    run(recipe("none", {"name": "twin:bert", "pooling": "mean"}), features_folder=tmp_path)
    run(recipe("none", "twin:roberta"), features_folder=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 3 * files


def test_a_resumed_run_is_the_run_that_was_never_killed(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def progress(done: int, _: int, what: str) -> None:
        if (what, done) == ("train", 5):
            raise Killed

    asked = recipe("lora", steps=6, save_every=2, learning_rate=0.01)
    with pytest.raises(Killed):
        run(asked, tmp_path, progress=progress)
    assert list((tmp_path / "checkpoints").rglob("optimizer.pt"))
    resumed, expected = run(asked, tmp_path), run(asked)

    assert resumed.predictions == expected.predictions
    assert resumed.history == expected.history
    assert not (tmp_path / "checkpoints").exists()
