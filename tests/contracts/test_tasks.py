"""What every task promises: of its metric, of the order of rows, and of the rows beside one.

Every task that is found is tested; what has to be known of it stands in `tests/task_cases.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peftkit import parts
from peftkit.seeds import seeded
from peftkit.tasks import Task, TaskData
from task_cases import PAIRS, PROMPTS, case_of, padded
from toys import asked_rows, write_lines

pytestmark = pytest.mark.usefixtures("libraries")
TASKS = parts.find("task")
Posed = Callable[[str], tuple[Task, TaskData]]


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("pairs"), train=PAIRS, validation=PAIRS, test=PAIRS)


@pytest.fixture(scope="session")
def prompts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = dict.fromkeys(("train", "validation", "test"), PROMPTS)
    return write_lines(tmp_path_factory.mktemp("prompts"), **splits)


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": pair["source"]} for pair in PAIRS]
    return write_lines(tmp_path_factory.mktemp("plain"), train=rows, validation=rows, test=rows)


@pytest.fixture(scope="session")
def half_asked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = {split: asked_rows(15, seed=seed, unanswerable=True)
            for seed, split in enumerate(("train", "validation", "test"))}  # fmt: skip
    return write_lines(tmp_path_factory.mktemp("half-asked"), **rows)


@pytest.fixture(scope="session")
def posed(request: pytest.FixtureRequest) -> Posed:
    """Return a function that gives a task, and its toy data."""
    loaded: dict[str, tuple[Task, TaskData]] = {}

    def pose(name: str) -> tuple[Task, TaskData]:
        if name not in loaded:
            cls = parts.load("task", name)
            task = cls(**case_of(name).options(cls, request))
            loaded[name] = task, task.load(seed=0)
        return loaded[name]

    return pose


def same(one: Any, other: Any) -> bool:
    """Whether two answers agree: texts exactly, numbers but for rounding."""
    if isinstance(one, str | None):
        return bool(one == other)
    if isinstance(one, tuple):
        return all(same(*pair) for pair in zip(one, other, strict=True))
    one, other = (np.asarray(each, dtype=np.float64) for each in (one, other))
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-4, atol=1e-4))


def in_order(outputs: Any, order: Sequence[int]) -> Any:
    return outputs[list(order)] if isinstance(outputs, np.ndarray) else [outputs[i] for i in order]


def half_right(name: str, task: Task, data: TaskData) -> Any:
    """Right answers, but for every third, which is what any row is given."""
    case = case_of(name)
    right, constant = (answer(task, data.test) for answer in (case.right, case.constant))
    mixed = [r if i % 3 else c for i, (r, c) in enumerate(zip(right, constant, strict=True))]
    return np.stack(mixed) if isinstance(right, np.ndarray) else mixed


# ---- the metric


@pytest.mark.parametrize("name", TASKS)
def test_right_answers_are_best_and_constant_ones_have_the_chance_level(
    posed: Posed, name: str
) -> None:
    (task, data), case = posed(name), case_of(name)
    scores = {}
    for kind, answer in {"right": case.right, "constant": case.constant}.items():
        kept, metrics = task.score(answer(task, data.test), data.test)
        scores[kind] = metrics[task.metric]
        assert kept["item"] == list(range(len(data.test)))
        assert {len(column) for column in kept.values()} == {len(data.test)}

    assert scores["right"] == pytest.approx(case.best(type(task)), abs=1e-9)
    if data.chance is not None:
        assert scores["constant"] == pytest.approx(data.chance, abs=1e-9)
    assert (scores["right"] > scores["constant"]) is task.higher_is_better


@pytest.mark.parametrize("name", TASKS)
def test_metrics_are_those_that_others_work_out(posed: Posed, name: str) -> None:
    task, _ = posed(name)
    outputs, rows, expected = case_of(name).worked_out(type(task))
    _, metrics = task.score(outputs, rows)
    shared = {metric: metrics[metric] for metric in metrics if metric in expected}

    assert task.metric in shared
    assert shared == pytest.approx({metric: expected[metric] for metric in shared})


@pytest.mark.parametrize("name", TASKS)
def test_the_order_of_rows_changes_no_metric(posed: Posed, name: str) -> None:
    """And what each row adds to the metric moves with it."""
    task, data = posed(name)
    outputs = half_right(name, task, data)
    order = np.random.default_rng(4).permutation(len(data.test)).tolist()
    kept, metrics = task.score(outputs, data.test)
    moved, again = task.score(in_order(outputs, order), data.test.select(order))
    scores, after = type(task).item_scores(kept), type(task).item_scores(moved)

    assert dict(again) == pytest.approx(dict(metrics), rel=1e-9)
    for column, values in kept.items():
        if column != "item":
            assert moved[column] == [values[i] for i in order], column
    if scores is not None:
        assert after is not None
        assert scores.mean() == pytest.approx(metrics[task.metric])
        np.testing.assert_allclose(after, scores[order], rtol=1e-6, atol=1e-9)


# ---- the rows beside one


def lengths(task: Task, examples: list[dict[str, Any]], count: int) -> list[int]:
    """Tokens of each row, which may be several examples."""
    found = [0] * count
    for i, example in enumerate(examples):
        found[example.get("_row", i)] += task.length(example)
    return found


def stirred(model: torch.nn.Module) -> torch.nn.Module:
    """Weights so large that answers depend on what is read."""
    with torch.no_grad(), seeded(0, "stirred"):
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.15)
    return model


@pytest.mark.parametrize(("name", "backbone"), padded())
def test_no_prediction_depends_on_padding_or_on_the_rows_beside_it(
    request: pytest.FixtureRequest,
    make_bench: Callable[..., Any],
    name: str,
    backbone: str,
) -> None:
    """A short and a much longer row: each alone, both together, and among all in another order."""
    options = case_of(name).options(parts.load("task", name), request)
    where = request.getfixturevalue(backbone) if backbone == "masked" else f"twin:{backbone}"
    bench = make_bench("full", where, task={"name": name, **options})
    bench.reloaded = True  # what is stirred is no start to compare with
    task, rows = bench.recipe.task, bench.data.test
    predictor = bench.predictor(stirred(bench.attach(bench.recipe.method)))
    sizes = lengths(task, bench.encode(rows), len(rows))
    short, long = int(np.argmin(sizes)), int(np.argmax(sizes[1:])) + 1  # of one length: 0 and 1
    order = np.random.default_rng(1).permutation(len(rows)).tolist()
    whole, both = predictor.outputs(rows), predictor.outputs(rows.select([short, long]))

    assert task.inputs != "text" or sizes[long] >= 2 * sizes[short]
    assert not same(whole[short], whole[long])
    for i, answer in zip((short, long), both, strict=True):
        assert same(answer, predictor.outputs(rows.select([i]))[0])
        assert same(answer, whole[i])
    for i, answer in zip(order, predictor.outputs(rows.select(order)), strict=True):
        assert same(answer, whole[i])
