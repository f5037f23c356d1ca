"""Question answering: windows, spans, SQuAD's scores, and every method on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cells import FAMILIES, UNSUPPORTED
from peftkit import Recipe, parts, run
from peftkit.errors import InvalidInput, Unsupported
from peftkit.saved import load_run
from peftkit.tasks._answers import exact_match, normalise, word_f1
from peftkit.tasks.question_answering import QuestionAnswering, _best_span, _target
from peftkit.workbench import Workbench
from toys import asked_rows, write_lines

pytestmark = pytest.mark.usefixtures("libraries")
METHODS = parts.find("method")


@pytest.fixture
def bench(asked_folder: Path, tmp_path: Path) -> Callable[..., Workbench]:
    def make(
        method: Any,
        backbone: str,
        *,
        seed: int = 0,
        task: dict[str, Any] | None = None,
        **training: Any,
    ) -> Workbench:
        recipe = Recipe(
            method=method,
            backbone=backbone,
            task={"name": "question_answering", "data": str(asked_folder), **(task or {})},
            training={"steps": 4, "batch_size": 4, "precision": "float32", **training},
            seed=seed,
        )
        return Workbench(recipe, recipe.task.load(seed=seed), tmp_path)

    return make


# ---- scores


@pytest.mark.parametrize(
    ("text", "normal"),
    [("The  Eiffel-Tower!", "eiffeltower"), ("a cat, an owl", "cat owl"), ("Theory", "theory")],
)
def test_normalising_is_that_of_squad(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("predicted", "answers", "exact", "f1"),
    [
        ("the Denver Broncos", ["Denver Broncos"], 1.0, 1.0),
        ("Broncos", ["Denver Broncos", "the Broncos of Denver"], 0.0, 2 / 3),
        ("in 1990 or 1991", ["1990"], 0.0, 2 / 5),
        ("x x y", ["x y y"], 0.0, 2 / 3),
        ("", [], 1.0, 1.0),
        ("something", [], 0.0, 0.0),
        ("", ["something"], 0.0, 0.0),
    ],
)
def test_scores_worked_by_hand(predicted: str, answers: list[str], exact: float, f1: float) -> None:
    assert exact_match(predicted, answers) == exact
    assert word_f1(predicted, answers) == pytest.approx(f1)


# ---- windows and spans


def test_an_answer_becomes_its_first_and_last_token() -> None:
    spans = [None, None, (0, 3), (4, 6), (6, 9), (10, 12), None]

    assert _target({"text": ["defgh"], "answer_start": [4]}, spans) == (3, 4)
    assert _target({"text": ["ab"], "answer_start": [0]}, spans) == (2, 2)
    assert _target({"text": [], "answer_start": []}, spans) == (0, 0)
    assert _target({"text": ["beyond"], "answer_start": [11]}, spans) == (0, 0)


def test_the_best_span_is_in_the_context_in_order_and_not_too_long() -> None:
    spans = [None, None, (0, 3), (4, 6), (7, 9), (10, 12), None]
    logits = np.zeros((7, 2))
    logits[1] = 50  # the question
    logits[5, 0], logits[2, 1] = 10, 9  # an end before its start
    logits[2, 0], logits[5, 1], logits[4, 1] = 5, 5, 3

    assert _best_span(logits, spans, 30) == (15.0, 10, 12)  # token 5 alone: 10 + 5
    logits[5, 0] = 0
    assert _best_span(logits, spans, 30) == (14.0, 0, 3)  # token 2 alone: 5 + 9
    logits[2, 1] = 0
    assert _best_span(logits, spans, 30) == (10.0, 0, 12)
    assert _best_span(logits, spans, 3) == (8.0, 0, 9)  # four tokens are too long


def test_long_contexts_are_read_in_windows_that_overlap(bench: Callable[..., Workbench]) -> None:
    here = bench("full", "twin:bert", task={"max_length": 24, "stride": 6})
    rows = here.data.test

    def pushed(row: dict[str, Any]) -> dict[str, Any]:
        starts = [start + 90 for start in row["answers"]["answer_start"]]
        answers = {"text": row["answers"]["text"], "answer_start": starts}
        return {"context": "of " * 30 + row["context"], "answers": answers}

    long = rows.map(pushed)
    examples = here.encode(long)
    held = {e["_row"] for e in examples if e["labels"] != (0, 0)}

    assert len(examples) > 2 * len(rows)
    assert all(len(e["input_ids"]) <= 24 for e in examples)
    assert held == set(range(len(rows)))
    for example in examples:
        first, last = example["labels"]
        if (first, last) != (0, 0):
            context, answer = (long[example["_row"]][n] for n in ("context", "answers"))
            a, b = example["_spans"][first][0], example["_spans"][last][1]
            assert context[a:b] == answer["text"][0]
    predictor = here.predictor(here.attach(here.recipe.method))
    assert len(predictor.outputs(long)) == len(long)


def test_a_question_takes_at_most_half_of_a_window(bench: Callable[..., Workbench]) -> None:
    """A longer one is cut, however small the window, and what windows share still fits."""
    here = bench("full", "twin:bert", task={"max_length": 16})
    rows = here.data.test.map(lambda row: {"question": "of " * 40 + row["question"]})

    examples = here.encode(rows)

    assert {example["_row"] for example in examples} == set(range(len(rows)))
    for example in examples:
        assert len(example["input_ids"]) <= 16
        inside = [i for i, span in enumerate(example["_spans"]) if span is not None]
        assert inside[0] == 1 + 8 + 1  # behind [CLS], half a window, [SEP]


def test_a_question_without_an_answer_may_be_answered_by_nothing(tmp_path: Path) -> None:
    rows = asked_rows(6, seed=3, unanswerable=True)
    path = write_lines(tmp_path / "some", train=rows, validation=rows, test=rows)
    task = QuestionAnswering(data=str(path))
    data = task.load(seed=0).test
    first, last = 0, len(data[1]["context"])
    kept, metrics = task.score([(-1.0, first, last)] * 6, data)

    assert kept["predicted"] == [""] * 6
    assert metrics["exact_match"] == pytest.approx(2 / 6)
    kept, _ = task.score([(1.0, first, 3)] * 6, data)
    assert all(kept["predicted"])


# ---- every method

REFUSED = UNSUPPORTED["question_answering"]


def by_default(method: str, family: str) -> bool:
    number = METHODS.index(method) + FAMILIES.index(family)
    return family == "bert" or number % 11 == 0


PAIRS = [
    pytest.param(m, f, id=f"{m}-{f}", marks=() if by_default(m, f) else pytest.mark.matrix)
    for m in METHODS
    for f in FAMILIES
]


@pytest.mark.parametrize(("method", "family"), PAIRS)
def test_every_method_finds_answers_or_says_why_not(
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

    assert len(found) == len(here.data.test)
    assert reloaded.outputs(here.data.test) == found
    head = 2 * 32 + 2 + (32 * 32 + 32 if family == "modernbert" else 0)
    assert predictor.parameters.head == (0 if method == "none" else head)
    contexts = here.data.test["context"]
    assert all(0 <= a < b <= len(c) for (_, a, b), c in zip(found, contexts, strict=True))


def test_the_loss_is_that_of_transformers(bench: Callable[..., Workbench]) -> None:
    here = bench("full", "twin:bert")
    batch = here.collate(here.encode(here.data.train)[:6])
    labels = batch.pop("labels")
    model = here.backbone.model
    with torch.no_grad():
        stock = model(**batch, start_positions=labels[:, 0], end_positions=labels[:, 1]).loss
        ours = here.recipe.task.loss(here.logits(model(**batch), batch), labels, here.data)

    torch.testing.assert_close(ours, stock)


# ---- as a user


def test_a_run_is_recorded_and_used_again(asked_folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        method="full",
        backbone="twin:bert",
        task={"name": "question_answering", "data": str(asked_folder)},
        training={"steps": 300, "learning_rate": 3e-3, "precision": "float32"},
    )
    record = run(recipe, tmp_path / "run")
    saved = load_run(tmp_path / "run")
    answer = saved.predict(["what money is in it ? the bank of a name"])[0]

    untrained = run(recipe.override({"method": "none", "learning_rate": None}))
    assert record.metrics["test"]["f1"] > 2 * untrained.metrics["test"]["f1"]
    assert saved.evaluate(asked_folder / "test.jsonl")["f1"] == record.metrics["test"]["f1"]
    assert set(answer) == {"answer", "text"}


def test_an_answer_that_is_not_there_is_refused(asked_folder: Path, tmp_path: Path) -> None:
    rows = asked_rows(3, seed=0)
    rows[1]["answers"]["answer_start"] = [1]
    path = write_lines(tmp_path / "wrong", test=rows)
    with pytest.raises(InvalidInput, match="row 1 of"):
        QuestionAnswering(data=str(asked_folder)).read(path / "test.jsonl", [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"answers": "the file"}, {"answers": None}, {"answers": {"text": ["a"]}},
        {"answers": [{"text": "a", "answer_start": 0}]}, {"context": None}, {"question": None},
    ],
)  # fmt: skip
def test_a_row_that_is_not_as_in_squad_is_named(
    asked_folder: Path, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    rows = [{**row, **wrong} for row in asked_rows(2, seed=0)]
    path = write_lines(tmp_path / "wrong", test=rows)
    with pytest.raises(InvalidInput, match=r"row 0 of .* is not as in SQuAD"):
        QuestionAnswering(data=str(asked_folder)).read(path / "test.jsonl", [])
