"""Runs in formats of others: equal answers, refusals, and nothing half written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from exported import KINDS, Trained, leave_run
from peftkit import parts
from peftkit.cli import main

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.fixture(scope="session")
def trained(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a function that gives the folder of a run, by kind, method and family."""
    known: dict[str, Path] = {}
    shared = tmp_path_factory.mktemp("exported")

    def make(kind: str, method: Any = "lora", family: str | None = None, **backbone: Any) -> Path:
        key = repr((kind, method, family, backbone))
        if key not in known:
            out = tmp_path_factory.mktemp(kind) / "run"
            known[key] = leave_run(out, kind, method, shared, family, **backbone)
        return known[key]

    return make


@pytest.fixture(scope="session")
def in_onnx(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a function that exports a run to ONNX, once; half a dozen seconds each."""
    known: dict[str, Path] = {}

    def make(kind: str, method: Any = "lora") -> Path:
        key = repr((kind, method))
        if key not in known:
            known[key] = tmp_path_factory.mktemp("onnx") / "out"
            assert export(trained(kind, method), "onnx", known[key]) == 0
        return known[key]

    return make


def export(run: Path, name: str, out: Path, *options: str) -> int:
    return main(["export", str(run), "--format", name, "--out", str(out), *options])


def about(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "peftkit.json").read_text("utf-8"))["export"]
    return found


def answers(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What `predict` prints, to three digits."""
    capsys.readouterr()
    assert main(["predict", str(folder), "--text", text]) == 0
    return capsys.readouterr().out.splitlines()


# ---- graphs

TEXTS = {
    "classifier": "pay the card and the bank",
    "tagger": "pay the unbelievable bank column",
    "answerer": "what money is in it ? the file of pay returns column",
    "decoder": "write list file name",
}


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_answers_as_the_adapted_model_in_every_shape(
    kind: str, trained: Trained, in_onnx: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    out = in_onnx(kind)
    agreement = about(out)["agreement"]

    assert agreement["num_rows"] == 12
    assert 0 <= agreement["largest_difference"] < 1e-4
    assert agreement["equal_predictions"] == 1.0
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert {tuple(value.shape) for value in session.get_inputs()} == {("batch", "sequence")}
    assert answers(out, TEXTS[kind], capsys) == answers(trained(kind), TEXTS[kind], capsys)
    file = out / "model.onnx"
    assert answers(file, TEXTS[kind], capsys) == answers(out, TEXTS[kind], capsys)
