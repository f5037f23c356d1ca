"""Runs in formats of others: equal answers, refusals, and nothing half written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exported import OPTIONS, RUNS, Trained, one_block, train
from peftkit.cli import main
from toys import prompted_rows, write_lines

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.fixture(scope="session")
def prompted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = {s: prompted_rows(count, seed=seed) for seed, (s, count) in
            enumerate({"train": 24, "validation": 12, "test": 8}.items())}  # fmt: skip
    return write_lines(tmp_path_factory.mktemp("prompted"), **rows)


@pytest.fixture(scope="session")
def trained(
    request: pytest.FixtureRequest, libraries: None, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """Return a function that gives the folder of a finished run, by kind, method and family."""
    known: dict[str, Path] = {}
    blocks = tmp_path_factory.mktemp("blocks")

    def make(kind: str, method: Any = "lora", family: str | None = None, **backbone: Any) -> Path:
        key = repr((kind, method, family, backbone))
        if key not in known:
            task, own, fixture = RUNS[kind]
            data = str(request.getfixturevalue(fixture))
            posed = {"name": task, "data": data, **OPTIONS.get(task, {})}
            on = {"name": one_block(family or own, blocks), **backbone}
            known[key] = train(tmp_path_factory.mktemp(kind) / "run", on, method, posed)
        return known[key]

    return make


@pytest.fixture(scope="session")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a function that exports a run of `trained` to ONNX, once."""
    known: dict[str, Path] = {}

    def make(kind: str, method: Any = "lora") -> Path:
        key = repr((kind, method))
        if key not in known:
            out = tmp_path_factory.mktemp("onnx") / "out"
            assert (
                main(["export", str(trained(kind, method)), "--format", "onnx", "--out", str(out)])
                == 0
            )
            known[key] = out
        return known[key]

    return make


@pytest.mark.parametrize("kind", RUNS)
def test_onnx_answers_as_the_adapted_model_in_every_shape(kind: str, exported: Trained) -> None:
    import onnxruntime

    out = exported(kind)
    about = json.loads((out / "peftkit.json").read_text(encoding="utf-8"))["export"]
    assert about["agreement"]["largest_difference"] < 1e-4
    assert about["agreement"]["equal_predictions"] == 1.0
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert {tuple(value.shape) for value in session.get_inputs()} == {("batch", "sequence")}
