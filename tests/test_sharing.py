"""Several runs at once: one backbone in memory, every answer that of the run alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters import logits, make_run
from peftkit import load_runs
from peftkit.errors import InvalidInput
from peftkit.sharing import bare_name

pytestmark = pytest.mark.usefixtures("libraries")
QUERY = "encoder.layer.0.attention.self.query"


def pointers(run: Any, *, trained: bool = False) -> dict[str, int]:
    """Where the tensors of the blocks' own weights are, by the names of the bare backbone."""
    model = run.predictor.bench.backbone.model
    return {
        bare_name(name): parameter.untyped_storage().data_ptr()
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if ".layer." in name and (".default." in name) == trained
    }


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_runs_of_one_backbone_share_its_weights_and_answer_as_alone(
    make_bench: Callable[..., Any], tmp_path: Path, quantization: str
) -> None:
    backbone = {"name": "twin:bert", "quantization": quantization}
    methods = ["lora", "bottleneck", "prompt_tuning"]
    folders = [
        make_run(make_bench, tmp_path / method, method, backbone, draw=draw)
        for draw, method in enumerate(methods)
    ]
    bench = make_bench("lora", backbone)
    alone = {folder.name: logits(folder, bench) for folder in folders}
    runs = load_runs(folders)

    assert list(runs) == methods
    first = pointers(runs["lora"])
    assert any(QUERY in name for name in first)
    for run in runs.values():
        assert pointers(run) == first
    for name in [*methods, *reversed(methods)]:
        again = runs[name].predictor.outputs(bench.data.test)
        np.testing.assert_array_equal(np.asarray(again, dtype=np.float64), alone[name])


def test_what_a_method_trained_is_its_own(make_bench: Callable[..., Any], tmp_path: Path) -> None:
    folders = [make_run(make_bench, tmp_path / m, m) for m in ("lora", "last_layers", "full")]
    bench = make_bench("lora")
    alone = {folder.name: logits(folder, bench) for folder in folders}
    runs = load_runs(folders)
    lora, last, full = map(pointers, runs.values())
    own = pointers(runs["last_layers"], trained=True)

    assert lora == last  # what it trained, it trained on copies
    assert own
    assert not set(own.values()) & set(lora.values())
    assert not set(full.values()) & set(lora.values())
    for name, run in runs.items():
        again = run.predictor.outputs(bench.data.test)
        np.testing.assert_array_equal(np.asarray(again, dtype=np.float64), alone[name])


def test_names_are_given_where_folders_have_one_name(
    make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    one = make_run(make_bench, tmp_path / "a" / "run", "lora")
    two = Path(shutil.copytree(one, tmp_path / "b" / "run"))
    with pytest.raises(InvalidInput, match=r"two folders are called 'run'"):
        load_runs([one, two])
    runs = load_runs({"one": one, "two": two})

    assert runs["one"].predict(["pay"]) == runs["two"].predict(["pay"])
    assert pointers(runs["one"]) == pointers(runs["two"])
