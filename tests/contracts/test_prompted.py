"""What every method promises where rows are prompts: it is trained, saved, loaded, and answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cells import MATRIX, METHODS
from peftkit.errors import Unsupported
from peftkit.workbench import Workbench
from toys import prompted_rows, write_lines

pytestmark = pytest.mark.usefixtures("libraries")

TASKS = ("instruction", "preference")
FAMILIES = ("gpt2", "llama", "bert")
UNSUPPORTED = {
    **{(m, "bert"): "no head for this task" for m in METHODS},
    **{("linear_probe", f): "no new one to train" for f in FAMILIES},
    **{("tfidf", f): "parts of it" for f in FAMILIES},
    ("bitfit", "llama"): "no bias to train",
}
# Preference is judged against the model as it was before training: of these two stages, which?
START_IS_LOST = "continued_pretraining", "preference"


def reason(method: str, family: str, task: str) -> str | None:
    """Why a cell cannot exist, as its error says; None if it can."""
    if (method, task) == START_IS_LOST and family != "bert":
        return "before training"
    return UNSUPPORTED.get((method, family))


def cells(*, unsupported: bool) -> Any:
    """A third of what there is, and all of LoRA and full, unless `-m matrix`."""
    chosen = [
        (m, f, t) for m in METHODS for f in FAMILIES for t in TASKS
        if (reason(m, f, t) is not None) is unsupported
    ]  # fmt: skip
    return pytest.mark.parametrize(
        ("method", "family", "task"),
        [
            pytest.param(
                m, f, t, id=f"{m}-{f}-{t}",
                marks=() if m in ("lora", "full") or (METHODS.index(m) + FAMILIES.index(f)
                + TASKS.index(t)) % 3 == 0 else MATRIX,
            )
            for m, f, t in chosen
        ],
    )  # fmt: skip


@pytest.fixture(scope="session")
def prompted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of both tasks: 24 to train on, 4 and 9 to evaluate on."""
    rows = {s: prompted_rows(count, seed=seed) for seed, (s, count) in
            enumerate({"train": 24, "validation": 4, "test": 9}.items())}  # fmt: skip
    return write_lines(tmp_path_factory.mktemp("prompted"), **rows)


@pytest.fixture(scope="session")
def bench(make_bench: Callable[..., Workbench], prompted_folder: Path) -> Callable[..., Workbench]:
    options = {"data": str(prompted_folder), "max_length": 64, "max_new_tokens": 6}
    return lambda method, family, task, **others: make_bench(
        method, f"twin:{family}", task={"name": task, **options}, **others
    )


def loss(predictor: Any) -> float:
    """Of the training rows."""
    task, rows = predictor.bench.recipe.task, predictor.bench.data.train
    _, metrics = task.score(predictor.outputs(rows), rows)
    return float(metrics["loss" if task.against_start else task.metric])


@cells(unsupported=True)
def test_a_method_that_cannot_says_why(
    bench: Callable[..., Workbench],
    record_property: Callable[[str, object], None],
    method: str,
    family: str,
    task: str,
) -> None:
    here = bench(method, family, task)
    with pytest.raises(Unsupported, match=reason(method, family, task)) as caught:
        here.recipe.method.fit(here)
    record_property("unsupported", str(caught.value))


@cells(unsupported=False)
def test_every_method_is_trained_and_answers_alike_once_loaded(
    bench: Callable[..., Workbench], method: str, family: str, task: str
) -> None:
    here = bench(method, family, task, steps=12, batch_size=8)
    predictor = here.recipe.method.fit(here)
    predictor.save(here.folder)
    kept, metrics = here.recipe.task.score(predictor.outputs(here.data.test), here.data.test)
    again = bench(method, family, task, seed=0)
    reloaded = again.recipe.method.reload(again, here.folder)
    rows = again.data.test
    loaded, same = again.recipe.task.score(reloaded.outputs(rows), rows)

    # A scratch model is loaded onto the same random start, which is what it is judged against.
    assert dict(same) == pytest.approx(dict(metrics), rel=1e-5, abs=1e-5)
    assert kept["item"] == loaded["item"] == list(range(9))
    assert predictor.parameters.head == 0
    assert (predictor.parameters.method > 0) is (method != "none")
    if method != "none":
        untrained = bench(method, family, task)
        start = untrained.predictor(untrained.attach(untrained.recipe.method))
        assert loss(predictor) < loss(start)
