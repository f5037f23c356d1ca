"""Preference tuning: rows, the reference, the margin, ties, and what is held in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

import peftkit.workbench
from peftkit import Recipe, parts, run
from peftkit.data import known_preferences
from peftkit.errors import InvalidInput
from peftkit.saved import load_run
from peftkit.workbench import Workbench
from toys import prompted_rows, write_lines

pytestmark = pytest.mark.usefixtures("libraries")
TASK = parts.load("task", "preference")
USER = {"role": "user", "content": "write list name"}
BACKBONES = ("twin:gpt2", "twin:llama")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = {s: prompted_rows(n, seed=i) for i, (s, n) in
            enumerate({"train": 16, "validation": 3, "test": 7}.items())}  # fmt: skip
    return write_lines(tmp_path_factory.mktemp("preferred"), **rows)


@pytest.fixture
def bench(make_bench: Callable[..., Workbench], folder: Path) -> Callable[..., Workbench]:
    def make(
        method: Any, backbone: str = "twin:llama", *, training: Any = None, **task: Any
    ) -> Workbench:
        options = {"data": str(folder), "max_length": 64, "max_new_tokens": 6, **task}
        return make_bench(method, backbone, task={"name": "preference", **options},
                          **(training or {}))  # fmt: skip

    return make


def scored(here: Workbench, predictor: Any, split: str = "test") -> tuple[Any, Any]:
    rows = getattr(here.data, split)
    return here.recipe.task.score(predictor.outputs(rows), rows)


def log_likelihoods(model: Any, example: Any) -> list[float]:
    """Log-probability of both sides, one text at a time, without a batch or a mask."""
    found = []
    for side in ("chosen_ids", "rejected_ids"):
        ids = example["prompt_ids"] + example[side]
        with torch.inference_mode():
            said = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        begin = len(example["prompt_ids"])
        found.append(float(sum(said[i - 1, ids[i]] for i in range(begin, len(ids)))))
    return found


# ---- rows


def reply(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("columns", "prompt"),
    [
        ({"prompt": ["x y"], "chosen": ["a"], "rejected": ["b"]}, "x y"),
        ({"prompt": [[USER]], "chosen": ["a"], "rejected": ["b"]}, [USER]),
        ({"prompt": [[USER]], "chosen": [[reply("a")]], "rejected": [[reply("b")]]}, [USER]),
        ({"chosen": [[USER, reply("a")]], "rejected": [[USER, reply("b")]]}, [USER]),
        (
            {"prompt": ["x"], "chosen": [[USER, reply("a")]], "rejected": [[USER, reply("b")]]},
            [USER],
        ),
    ],
    ids=["texts", "chat-and-texts", "chats", "two-chats", "prompt-twice"],
)
def test_rows_of_every_shape_become_a_prompt_and_two_sides(
    columns: dict[str, Any], prompt: Any
) -> None:
    rows = known_preferences(Dataset.from_dict(columns), source="rows")

    assert rows[0] == {"prompt": prompt, "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"prompt": ["x"], "chosen": ["a"]}, "no column rejected"),
        ({"prompt": ["x", "y"], "chosen": ["a", ""], "rejected": ["b", "c"]},
         "row 1 .* empty in column 'chosen'"),
        ({"chosen": ["a"], "rejected": ["b"]}, "row 0 .* empty in column 'prompt'"),
        ({"chosen": [[USER, reply("a")]] * 2, "rejected": [[USER, reply("b")], None]},
         "row 1 .* no chat in column 'rejected'"),
        ({"chosen": [[USER, reply("a")], []], "rejected": [[USER, reply("b")]] * 2},
         "row 1 .* no chat in column 'chosen'"),
    ],
)  # fmt: skip
def test_a_row_without_a_side_is_named(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        known_preferences(Dataset.from_dict(columns), source="rows")


def test_rows_whose_sides_are_equal_are_counted_and_named(tmp_path: Path) -> None:
    rows = prompted_rows(6, seed=0)
    rows[3]["rejected"] = rows[5]["rejected"] = rows[3]["chosen"]
    rows[5]["chosen"] = rows[3]["chosen"]
    data = write_lines(tmp_path / "equal", train=rows, validation=rows[:2], test=rows[:4])
    notes = TASK(data=str(data)).load(seed=0).notes

    assert [note for note in notes if "equal sides" in note] == [
        "2 of 6 train rows have equal sides: nothing to learn, and half right (first: row 3)",
        "1 of 4 test rows have equal sides: nothing to learn, and half right (first: row 3)",
    ]


# ---- the reference


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_untrained_model_has_exactly_half(
    bench: Callable[..., Workbench], backbone: str
) -> None:
    none, lora = bench("none", backbone), bench("lora", backbone)
    fitted = none.recipe.method.fit(none)
    start = lora.predictor(lora.attach(lora.recipe.method))
    for here, predictor in ((none, fitted), (lora, start)):
        kept, metrics = scored(here, predictor)

        assert metrics["preference_accuracy"] == 0.5
        assert metrics["reward_margin"] == 0.0
        assert metrics["loss"] == math.log(2)
        assert set(kept["correct"]) == {0.5}


@pytest.mark.parametrize(
    "method", ["full", "lora", {"name": "lora", "init": "pissa"}, "prompt_tuning", "prefix_tuning"]
)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_rewards_are_what_was_gained_on_the_untouched_backbone(
    bench: Callable[..., Workbench], method: Any, backbone: str
) -> None:
    training = {"steps": 8, "learning_rate": 0.02}
    here = bench(method, backbone, training=training, beta=0.3)
    predictor = here.recipe.method.fit(here)
    kept, metrics = scored(here, predictor)
    bare = bench("none", backbone).backbone.model
    examples = here.encode(here.data.test)
    begun = np.asarray([log_likelihoods(bare, example) for example in examples])
    margins = np.asarray(kept["chosen_reward"]) - np.asarray(kept["rejected_reward"])

    np.testing.assert_allclose([e["_start"] for e in examples], begun, rtol=1e-4)
    assert np.abs(margins).max() > 1e-3
    assert metrics["reward_margin"] == pytest.approx(margins.mean(), abs=1e-4)
    assert metrics["loss"] == pytest.approx(np.log1p(np.exp(-margins)).mean(), abs=1e-4)
    if method in ("full", "lora"):
        now = np.asarray([log_likelihoods(predictor.model, e) for e in examples])
        rewards = np.stack([kept["chosen_reward"], kept["rejected_reward"]], axis=1)
        np.testing.assert_allclose(rewards, 0.3 * (now - begun), atol=1e-3)


@pytest.mark.parametrize(("method", "loads"), [("lora", 1), ("full", 1)])
def test_training_holds_the_backbone_once(
    bench: Callable[..., Workbench], monkeypatch: pytest.MonkeyPatch, method: str, loads: int
) -> None:
    count = []
    load = peftkit.workbench.load
    monkeypatch.setattr(peftkit.workbench, "load", lambda *a, **o: count.append(1) or load(*a, **o))
    here = bench(method)
    predictor = here.recipe.method.fit(here)
    for split in ("train", "validation", "test"):
        scored(here, predictor, split)

    assert len(count) == loads


@pytest.mark.parametrize("method", ["full", "scratch", "lora", "prompt_tuning"])
def test_a_saved_run_is_judged_against_the_same_start(
    folder: Path, tmp_path: Path, method: str
) -> None:
    """The backbone of a fully trained run is loaded again for it."""
    task = {"name": "preference", "data": str(folder), "max_length": 64, "max_new_tokens": 6}
    training = {"steps": 6, "batch_size": 4, "learning_rate": 0.02}
    recipe = Recipe(method=method, task=task, backbone="twin:gpt2", training=training)
    record = run(recipe, tmp_path)
    loaded = load_run(tmp_path)
    found = loaded.evaluate(folder / "test.jsonl")

    assert found == pytest.approx({**record.metrics["test"], "num_rows": 7}, rel=1e-5)
    assert found["reward_margin"] != 0.0
    assert record.data["chance"] == 0.5
    assert record.costs["train_flops_per_example"] > 0
    assert [answer["text"] for answer in loaded.predict(["write list"])] == ["write list"]


# ---- learning


@pytest.mark.parametrize("backbone", BACKBONES)
def test_training_prefers_the_better_side(bench: Callable[..., Workbench], backbone: str) -> None:
    here = bench("lora", backbone, training={"steps": 40, "learning_rate": 0.01})
    _, metrics = scored(here, here.recipe.method.fit(here), "train")

    assert metrics["preference_accuracy"] > 0.9
    assert metrics["reward_margin"] > 0


def test_the_dropout_of_the_backbone_is_off_and_stays_on_elsewhere(
    bench: Callable[..., Workbench], make_bench: Callable[..., Workbench], folder: Path
) -> None:
    other = {"name": "instruction", "data": str(folder), "max_length": 64}
    asked = {"name": "lora", "dropout": 0.25}

    def shares(here: Workbench) -> set[float]:
        model = here.attach(here.recipe.method)
        return {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}

    assert shares(bench(asked, "twin:gpt2")) == {0.0, 0.25}
    assert shares(make_bench(asked, "twin:gpt2", task=other)) == {0.1, 0.25}


# ---- how well


def test_ties_count_half(folder: Path) -> None:
    rows = Dataset.from_dict({"prompt": list("abcd")})
    outputs = [np.array(pair, dtype=np.float32) for pair in ((1, 0), (0, 1), (2, 2), (3, 1))]
    kept, metrics = TASK(data=str(folder)).score(outputs, rows)

    assert kept["correct"] == [1.0, 0.0, 0.5, 1.0]
    assert metrics["preference_accuracy"] == 0.625
    assert metrics["reward_margin"] == 0.5
    assert TASK.item_scores(kept).mean() == metrics["preference_accuracy"]
