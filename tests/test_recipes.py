"""Every recipe script runs."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import peftkit
from peftkit import parts

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.py"))


def test_there_is_a_recipe_for_every_method() -> None:
    methods = {path.stem.removeprefix("classify_") for path in RECIPES}

    assert set(parts.find("method")) <= methods
    assert len(RECIPES) >= 10


@pytest.fixture
def checkout(tmp_path: Path, request: pytest.FixtureRequest, path: Path) -> Path:
    """A folder to run a recipe from, with the shared files beside it if the recipe names any."""
    if "../shared/" in path.read_text(encoding="utf-8"):
        (tmp_path / "shared").symlink_to(request.getfixturevalue("shared").resolve())
    (tmp_path / "checkout").mkdir()
    return tmp_path / "checkout"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs_in_miniature(
    path: Path,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(sys, "argv", [str(path), "--smoke"])

    script = runpy.run_path(str(path), run_name="__main__")

    assert script["RECIPE"].task.metric in capsys.readouterr().out


@pytest.mark.parametrize("path", [RECIPES[0].with_name("classify_lora.py")])
def test_recipe_runs_as_a_process(path: Path, checkout: Path) -> None:
    """The others run within the tests' own process, which spares its imports."""
    root = str(Path(peftkit.__file__ or "").parents[1])
    done = subprocess.run(
        [sys.executable, str(path), "--smoke"],
        capture_output=True,
        text=True,
        cwd=checkout,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": root},
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert "accuracy" in done.stdout


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_says_how_to_run_it_and_what_to_expect(path: Path) -> None:
    header = path.read_text(encoding="utf-8").split('"""')[1]

    assert f"python recipes/{path.name}" in header
    assert "Expect: " in header
    assert "@EXPECT" not in header
    assert "Follows: " in header


@pytest.mark.parametrize(
    ("said", "file", "measured"),
    [
        ("20 of 43 methods", "peft_suite.md", "20 worse, 0 better"),
        ("off by 82 % (rsLoRA)", "combining.md", "| rsLoRA | 1 | 0.63 | 8.2e-01 "),
        ("3 % (DoRA)", "combining.md", "| DoRA | 1 | 0.56 | 3.4e-02 "),
        ("7.0 times sooner", "speed/table.md", "peftkit is 7.0 times faster in wall seconds"),
        ("44 combinations", "memory_cpu/table.md", "44 rows"),
        ("took 1.6 GB", "merge_memory.md", "| peak | 1.55 GB resident |"),
    ],
)  # fmt: skip
def test_what_the_readme_says_in_passing_was_measured(said: str, file: str, measured: str) -> None:
    """Whoever measures again finds the sentence that has to change."""
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    results = (ROOT / "benchmarks" / "results" / file).read_text(encoding="utf-8")

    assert said in readme
    assert measured in results


def test_tables_verdicts_and_expectations_are_those_of_the_records(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = Path(__file__).parent.parent / "benchmarks" / "readme.py"
    monkeypatch.setattr(sys, "argv", [str(benchmark), "--check"])

    runpy.run_path(str(benchmark), run_name="__main__")

    assert capsys.readouterr().out == "stale: nothing\n"
