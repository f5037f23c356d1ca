"""Token classification: spans, tags at first tokens, scores, and every method on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from cells import FAMILIES, UNSUPPORTED
from peftkit import Recipe, parts, run
from peftkit.errors import InvalidInput, UnknownName, Unsupported
from peftkit.evaluate import IGNORED
from peftkit.saved import load_run
from peftkit.tasks._spans import scheme_of, spans
from peftkit.tasks.token_classification import TokenClassification
from peftkit.workbench import Workbench
from toys import write_lines

pytestmark = pytest.mark.usefixtures("libraries")
METHODS = parts.find("method")


@pytest.fixture
def bench(tagged_folder: Path, tmp_path: Path) -> Callable[..., Workbench]:
    def make(method: Any, backbone: str, *, seed: int = 0, **training: Any) -> Workbench:
        recipe = Recipe(
            method=method,
            backbone=backbone,
            task={"name": "token_classification", "data": str(tagged_folder)},
            training={"steps": 4, "batch_size": 4, "precision": "float32", **training},
            seed=seed,
        )
        return Workbench(recipe, recipe.task.load(seed=seed), tmp_path)

    return make


# ---- spans

CASES = [
    # tags, default, strict (BIO)
    ("O B-a I-a O", {("a", 1, 3)}, {("a", 1, 3)}),
    ("B-a B-a", {("a", 0, 1), ("a", 1, 2)}, {("a", 0, 1), ("a", 1, 2)}),
    ("O I-a I-a", {("a", 1, 3)}, set()),
    ("B-a I-b", {("a", 0, 1), ("b", 1, 2)}, {("a", 0, 1)}),
    ("B-a I-b I-a", {("a", 0, 1), ("b", 1, 2), ("a", 2, 3)}, {("a", 0, 1)}),
    ("I-a B-a I-a", {("a", 0, 1), ("a", 1, 3)}, {("a", 1, 3)}),
    ("O O", set(), set()),
    ("B I O B", {("_", 0, 2), ("_", 3, 4)}, {("_", 0, 2), ("_", 3, 4)}),
    ("NOUN VERB", set(), set()),
]


@pytest.mark.parametrize(("tags", "default", "strict"), CASES)
def test_spans_in_bio_as_seqeval_finds_them(tags: str, default: Any, strict: Any) -> None:
    assert spans(tags.split()) == default
    assert spans(tags.split(), strict=True) == strict


@pytest.mark.parametrize(
    ("tags", "default", "strict"),
    [
        ("S-a B-b E-b", {("a", 0, 1), ("b", 1, 3)}, {("a", 0, 1), ("b", 1, 3)}),
        ("B-b I-b E-b O S-b", {("b", 0, 3), ("b", 4, 5)}, {("b", 0, 3), ("b", 4, 5)}),
        ("B-a O", {("a", 0, 1)}, set()),
        ("B-a E-b", {("a", 0, 1), ("b", 1, 2)}, set()),
        ("E-a E-a", {("a", 0, 1), ("a", 1, 2)}, set()),
        ("B-a S-a E-a", {("a", 0, 1), ("a", 1, 2), ("a", 2, 3)}, {("a", 1, 2)}),
    ],
)
def test_spans_in_bioes_as_seqeval_finds_them(tags: str, default: Any, strict: Any) -> None:
    assert scheme_of(tags.split()) == "BIOES" or tags == "B-a O"
    assert spans(tags.split()) == default
    assert spans(tags.split(), strict=True, scheme="BIOES") == strict


# ---- from rows to labels, and from logits to scores


def test_a_word_is_read_at_its_first_token(bench: Callable[..., Workbench]) -> None:
    here = bench("full", "twin:bert")
    rows = here.data.train.select([0])
    words, label = rows["tokens"][0], rows["label"][0]
    example = here.encode(rows)[0]
    tokenizer = here.backbone.processor
    pieces = [tokenizer.tokenize(word) for word in words]
    expected = [IGNORED]
    for tag, tokens in zip(label, pieces, strict=True):
        expected += [tag] + [IGNORED] * (len(tokens) - 1)

    assert example["labels"] == [*expected, IGNORED]
    assert max(len(tokens) for row in here.data.train["tokens"] for w in row
               for tokens in [tokenizer.tokenize(w)]) > 1  # fmt: skip


def test_answers_belong_to_their_words_where_one_has_no_token(
    bench: Callable[..., Workbench],
) -> None:
    """A zero-width joiner is no token; the answers behind it are of the words behind it."""
    here = bench("full", "twin:bert")
    task, rows = here.recipe.task, here.data.train.select([0])
    words, label = rows["tokens"][0], rows["label"][0]
    odd = Dataset.from_dict(
        {"tokens": [[words[0], "\u200d", *words[1:]]], "label": [[label[0], 0, *label[1:]]]},
        features=rows.features,
    )
    (example,) = here.encode(odd)

    assert [v for v in example["labels"] if v != IGNORED] == odd["label"][0]
    eye = np.eye(len(here.data.labels), dtype=np.float32)
    assert task.score([eye[odd["label"][0]]], odd)[1]["word_accuracy"] == 1.0


def score(labels: list[str], predicted: list[str]) -> dict[str, float]:
    """Metrics of one text per pair of tag sequences."""
    from peftkit.data.tags import _coded

    names = ["O", "B-a", "I-a", "B-b", "I-b"]
    tags = [text.split() for text in labels]
    rows = _coded([["w"] * len(t) for t in tags], tags, names, "here")
    logits = [np.eye(5)[[names.index(t) for t in text.split()]] for text in predicted]
    task = TokenClassification(data="here")
    kept, metrics = task.score(logits, rows)
    items = task.item_scores(kept)
    assert items is not None
    assert items.mean() == pytest.approx(metrics["f1"])
    return dict(metrics)


def test_strict_and_default_differ_where_a_span_begins_inside() -> None:
    found = score(["B-a I-a", "B-b O"], ["I-a I-a", "B-b O"])

    assert found["f1"] == 1.0
    assert found["f1_strict"] == pytest.approx(2 / 3)


def test_words_that_were_cut_off_count_as_outside(bench: Callable[..., Workbench]) -> None:
    here = bench("full", "twin:bert")
    task = here.recipe.task
    examples = task.encode(here.data.test, here.backbone, 4)
    logits = [
        np.zeros((sum(y != IGNORED for y in e["labels"]), len(here.data.labels))) for e in examples
    ]
    kept, metrics = task.score(logits, here.data.test)

    assert all(len(p) == len(y) for p, y in zip(kept["predicted"], kept["label"], strict=True))
    assert metrics["f1"] == 0.0


def test_loss_is_the_mean_over_words(bench: Callable[..., Workbench]) -> None:
    task, data = bench("full", "twin:bert").recipe.task, None
    labels = torch.tensor([[IGNORED, 1, IGNORED, 0], [IGNORED, 2, IGNORED, IGNORED]])
    logits = torch.randn(2, 4, 3)
    probability = logits.log_softmax(-1)
    expected = -(probability[0, 1, 1] + probability[0, 3, 0] + probability[1, 1, 2]) / 3

    torch.testing.assert_close(task.loss(logits, labels, data), expected)  # type: ignore[arg-type]


# ---- every method


def test_a_span_that_begins_with_i_is_read_as_beginning_with_b(tmp_path: Path) -> None:
    """O I I becomes O B I; after another type too; a right one and BIOES stay."""
    rows = [
        {"tokens": list("abc"), "tags": ["O", "I-x", "I-x"]},
        {"tokens": list("abc"), "tags": ["B-x", "I-y", "I-y"]},
        {"tokens": list("abc"), "tags": ["B-x", "I-x", "O"]},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    task = parts.load("task", "token_classification")(data=str(tmp_path))
    data = task.load(seed=0)
    names = [[data.labels[tag] for tag in each] for each in data.train["label"]]

    assert names == [["O", "B-x", "I-x"], ["B-x", "B-y", "I-y"], ["B-x", "I-x", "O"]]
    assert any(
        "2 spans of the train split began with I-, the first in row 0" in n for n in data.notes
    )
    assert task.read(tmp_path / "test.jsonl", data.labels)["label"][:] == data.test["label"][:]
    ends = [{"tokens": ["a", "b"], "tags": ["I-x", "E-x"]}]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(ends[0]) + "\n", encoding="utf-8")
    assert "B-x" not in task.load(seed=0).labels


REFUSED = UNSUPPORTED["token_classification"]


def by_default(method: str, family: str) -> bool:
    number = METHODS.index(method) + FAMILIES.index(family)
    return family == "bert" or number % 11 == 0


PAIRS = [
    pytest.param(m, f, id=f"{m}-{f}", marks=() if by_default(m, f) else pytest.mark.matrix)
    for m in METHODS
    for f in FAMILIES
]


@pytest.mark.parametrize(("method", "family"), PAIRS)
def test_every_method_tags_words_or_says_why_not(
    bench: Callable[..., Workbench],
    record_property: Callable[[str, object], None],
    method: str,
    family: str,
) -> None:
    here = bench(method, f"twin:{family}", learning_rate=0.01)
    if (method, family) in REFUSED:
        with pytest.raises(Unsupported, match=REFUSED[method, family]) as caught:
            here.recipe.method.fit(here)
        record_property("unsupported", str(caught.value))  # benchmarks/support.py reads it
        return
    predictor = here.recipe.method.fit(here)
    predictor.save(here.folder)
    found = predictor.outputs(here.data.test)
    again = bench(method, f"twin:{family}", seed=5)
    reloaded = again.recipe.method.reload(again, here.folder)
    kept, _ = here.recipe.task.score(found, here.data.test)

    assert [len(each) for each in found] == [len(tags) for tags in here.data.test["label"]]
    for one, other in zip(found, reloaded.outputs(here.data.test), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(kept["item"]) == 24


# ---- as a user


def test_a_run_is_recorded_and_used_again(tagged_folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        method="full",
        backbone="twin:bert",
        task={"name": "token_classification", "data": str(tagged_folder), "size": 40},
        training={"steps": 400, "learning_rate": 3e-3, "precision": "float32"},
    )
    record = run(recipe, tmp_path / "run")
    saved = load_run(tmp_path / "run")
    metrics = saved.evaluate(tagged_folder / "test.jsonl")
    answer = saved.predict(["the bank returns a matrix"])[0]

    assert record.metrics["test"]["f1"] > 0.5
    assert metrics["f1"] == record.metrics["test"]["f1"]
    assert {"type": "money", "words": "bank"} in answer["entities"]
    assert {"type": "table", "words": "matrix"} in answer["entities"]


def test_a_comparison_has_intervals_over_texts(tagged_folder: Path, tmp_path: Path) -> None:
    from peftkit.reporting.pairing import Metric, estimate_quality

    records = [
        run(
            Recipe(
                method="bitfit",
                backbone="twin:bert",
                task={"name": "token_classification", "data": str(tagged_folder)},
                training={"steps": 60, "learning_rate": 1e-2, "precision": "float32"},
                seed=seed,
            )
        )
        for seed in (0, 1)
    ]
    found = estimate_quality(records, Metric("f1"))

    assert found is not None
    assert found.mean == pytest.approx(np.mean([r.metrics["test"]["f1"] for r in records]))
    assert found.half_width() > 0


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, InvalidInput, "one tag a word"),
        ({"tokens": ["a"], "labels_of": ["O"]}, InvalidInput, "no column called tags"),
        ({"words": ["a"], "tags": ["B-new"]}, UnknownName, "B-new"),
        ({"words": ["a", None], "tags": ["B-a", "O"]}, InvalidInput, "lacks a word or a tag"),
        ({"words": ["a", "b"], "tags": ["B-a", None]}, InvalidInput, "lacks a word or a tag"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    tmp_path: Path, row: dict[str, Any], error: type[Exception], words: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    task = TokenClassification(data="elsewhere")
    with pytest.raises(error, match=words):
        task.read(tmp_path / "rows.jsonl", ["O", "B-a", "I-a"])


@pytest.mark.parametrize("tags", [["NOUN", "VERB"], [3, 0]])
def test_tags_that_are_no_parts_of_spans_are_refused(tmp_path: Path, tags: list[Any]) -> None:
    rows = [{"tokens": ["a", "b"], "tags": tags}] * 4
    data = write_lines(tmp_path / "data", train=rows, validation=rows, test=rows)
    with pytest.raises(InvalidInput, match="part of a span"):
        TokenClassification(data=str(data)).load(seed=0)


def test_label_noise_is_refused() -> None:
    with pytest.raises(InvalidInput, match="label noise"):
        TokenClassification(data="x", label_noise=0.1)
