"""One run in two processes: the numbers of one, and one set of files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from peftkit import Recipe, run
from peftkit.distributed import is_first, require_even_batches, require_whole_models
from peftkit.errors import InvalidInput
from peftkit.record import Record

pytestmark = pytest.mark.usefixtures("libraries")


def test_two_processes_train_what_one_does(toy_folder: Path, tmp_path: Path) -> None:
    training = {"steps": 4, "batch_size": 4, "gradient_accumulation": 2, "precision": "float32"}
    recipe = Recipe(
        method="lora",
        backbone="twin:llama",  # without dropout, whose masks differ between processes
        task={"name": "text_classification", "data": str(toy_folder)},
        training=training,
    )
    config = tmp_path / "recipe.yaml"
    recipe.save(config)
    out = tmp_path / "two"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone",
         "--nproc-per-node", "2", "-m", "peftkit", "run", "--config", str(config),
         "--out", str(out)],
        capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("saved ") == 1
    two, one = Record.read(out / "record.json"), run(recipe)

    assert two.environment["processes"] == 2
    assert two.key == one.key
    losses = [[p["loss"] for p in record.history if "loss" in p] for record in (two, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert two.metrics["test"]["log_loss"] == pytest.approx(
        one.metrics["test"]["log_loss"], rel=1e-3
    )


def test_a_batch_that_cannot_be_split_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_even_batches(3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert not is_first()
    require_even_batches(4)
    with pytest.raises(InvalidInput, match="a multiple of 2"):
        require_even_batches(3)


@pytest.mark.parametrize("launcher", ["FSDP", "DEEPSPEED"])
def test_sharded_models_are_refused_before_work_starts(
    launcher: str, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_whole_models()
    monkeypatch.setenv(f"ACCELERATE_USE_{launcher}", "true")
    task = {"name": "text_classification", "data": str(toy_folder)}
    with pytest.raises(InvalidInput, match="multi_gpu"):
        run(Recipe(method="lora", task=task), tmp_path / "out")
    assert not (tmp_path / "out").exists()
