"""Language modelling: blocks, what is predicted, and how it is measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from peftkit import parts, run
from peftkit.backbones import Head, load, locate
from peftkit.errors import InvalidInput, Unsupported
from peftkit.evaluate import IGNORED
from peftkit.recipe import Recipe
from peftkit.saved import load_run
from peftkit.settings import Backbone

TEXTS = [
    "return the list of names and the type of data " * 6,
    "plot the data",
    "a row of the table",
]
TASK = parts.load("task", "language_modeling")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "validation", "test"):
        lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def backbone(name: str) -> Any:
    settings = Backbone(name=name)
    head = Head(auto_classes=TASK.auto_classes, labels=[], reads="token")
    return load(settings, locate(settings), head, seed=0)


def rows(*texts: str) -> Dataset:
    return Dataset.from_dict({"text": list(texts)})


# ---- blocks


def test_blocks_hold_every_token_once_and_each_label_is_the_next_token() -> None:
    task, here = TASK(data="unused", max_length=16), backbone("twin:gpt2")
    tokens = here.processor(TEXTS[0], add_special_tokens=False)["input_ids"]
    blocks = task.encode(rows(TEXTS[0]), here, 16)
    inside = [token for e in blocks for token in e["input_ids"][1:-1]]  # [CLS] ... [SEP]

    assert inside == tokens
    assert all(len(e["input_ids"]) <= 16 for e in blocks)
    for example in blocks:
        assert example["labels"] == [*example["input_ids"][1:], IGNORED]


def test_a_text_of_which_nothing_is_predicted_is_a_row_all_the_same() -> None:
    """As of one token behind nothing; the last rows are those that have no place in the sums."""
    task, outputs = TASK(data="unused"), [[2.0, 1, 4], [0.0, 0, 0]]
    texts = rows("plot the data", "a", "b")

    assert [each["bits_per_byte"] for each in task.answers(outputs, texts, [])] == [
        "0.721", "-", "-",
    ]  # fmt: skip
    assert task.score(outputs, texts)[0]["tokens"] == [1, 0, 0]


def test_the_bytes_of_a_text_are_counted_once_spaces_and_all() -> None:
    task, here = TASK(data="unused"), backbone("twin:gpt2")
    texts = ["plot the data", "naïve  ünicode"]
    blocks = task.encode(rows(*texts), here, 8)
    sums = [sum(e["_bytes"] for e in blocks if e["_row"] == row) for row in (0, 1)]

    assert sums == [len(text.encode()) for text in texts]


def test_a_token_without_anything_before_it_is_not_predicted(shared: Path) -> None:
    """Llama's tokenizer writes a token of its own first; were it not there, the first is lost."""
    here = backbone(str(shared / "backbones" / "stories260k-llama"))
    example = TASK(data="unused").encode(rows("Once upon a time"), here, 64)[0]
    first = here.processor("Once upon a time")["input_ids"][0]

    assert example["input_ids"][0] == first == here.processor.bos_token_id
    assert example["_bytes"] == len("Once upon a time")


def test_an_encoder_predicts_a_share_of_tokens_always_the_same(masked: str) -> None:
    task, here = TASK(data="unused", max_length=120), backbone(masked)
    one, again = (task.encode(rows(TEXTS[0] * 2), here, 120) for _ in range(2))
    labels = [label for e in one for label in e["labels"]]
    chosen = [label for label in labels if label != IGNORED]
    hidden = sum(t == here.processor.mask_token_id for e in one for t in e["input_ids"])

    assert one == again
    assert here.auto_class == "AutoModelForMaskedLM"
    assert 0.1 < len(chosen) / len(labels) < 0.2
    assert 0.5 * len(chosen) < hidden < len(chosen)
    assert not {here.processor.cls_token_id, here.processor.sep_token_id} & set(chosen)


# ---- what is measured


@pytest.mark.parametrize("name", ["twin:gpt2", "twin:llama", "masked"])
def test_the_loss_is_that_of_transformers_and_padding_changes_nothing(
    name: str, masked: str
) -> None:
    task, here = TASK(data="unused", max_length=32), backbone(masked if name == "masked" else name)
    examples = task.encode(rows(*TEXTS), here, 32)
    batch = task.collate(here)(examples)
    labels = batch.pop("labels")
    stock = labels
    if name != "masked":
        stock = torch.full_like(labels, IGNORED)
        stock[:, 1:] = labels[:, :-1]
    with torch.no_grad():
        logits = here.model(**batch).logits
        expected = here.model(**batch, labels=stock).loss
        picked = task.pick(logits, labels)
        alone = [
            task.pick(
                here.model(**{k: v for k, v in b.items() if k != "labels"}).logits, b["labels"]
            )
            for b in (task.collate(here)([e]) for e in examples)
        ]

    assert float(task.loss(logits, labels, None)) == pytest.approx(float(expected), rel=1e-6)
    assert float(picked[:, 0].sum() / picked[:, 1].sum()) == pytest.approx(
        float(expected), rel=1e-6
    )
    torch.testing.assert_close(picked, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_stories_are_known_to_the_model_that_was_taught_them(shared: Path) -> None:
    """Real weights: 0.587 nats a token on such text, by the README of the backbones."""
    here = backbone(str(shared / "backbones" / "stories260k-llama"))
    story = (
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the "
        "park. One day, she saw a big dog. The dog was very happy and wanted to play with Lily."
    )
    task = TASK(data="unused")
    batch = task.collate(here)(task.encode(rows(story), here, 256))
    labels = batch.pop("labels")
    with torch.no_grad():
        loss = float(task.loss(here.model(**batch).logits, labels, None))

    assert loss < 1.2


# ---- bad input, and from end to end


def test_an_empty_text_and_a_missing_column_are_refused(folder: Path) -> None:
    with (folder / "test.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "  "}) + "\n")
    with pytest.raises(InvalidInput, match="row 3 of the test split"):
        TASK(data=str(folder)).load(seed=0)
    with pytest.raises(InvalidInput, match="no column story"):
        TASK(data=str(folder), text_column="story").load(seed=0)


@pytest.mark.parametrize(
    ("name", "method"),
    [("twin:gpt2", "lora"), ("twin:llama", "prompt_tuning"), ("twin:llama", "prefix_tuning"),
     ("masked", "lora"), ("masked", "prompt_tuning"), ("masked", "full"), ("twin:gpt2", "none")],
)  # fmt: skip
def test_a_run_is_saved_and_measures_the_same_again(
    name: str, method: str, folder: Path, tmp_path: Path, masked: str
) -> None:
    recipe = Recipe(
        backbone=masked if name == "masked" else name, method=method,
        task={"name": "language_modeling", "data": str(folder), "max_length": 32},
        training={"steps": 3, "batch_size": 2},
    )  # fmt: skip
    record = run(recipe, tmp_path / "out")
    again = load_run(tmp_path / "out").evaluate(folder / "test.jsonl")

    assert again["bits_per_byte"] == pytest.approx(
        record.metrics["test"]["bits_per_byte"], rel=1e-9
    )
    assert record.costs["head_parameters"] == 0
    assert record.data["chance"] == 8.0


def test_an_encoder_without_its_head_is_refused() -> None:
    with pytest.raises(Unsupported, match="no output layer that predicts tokens"):
        backbone("twin:bert")


def test_there_is_no_new_layer_to_probe(make_bench: Callable[..., Any], folder: Path) -> None:
    task = {"name": "language_modeling", "data": str(folder)}
    bench = make_bench("linear_probe", "twin:gpt2", task=task)
    with pytest.raises(Unsupported, match="no new one to train"):
        bench.recipe.method.fit(bench)
