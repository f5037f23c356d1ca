"""What stands for runs where comparisons and studies are tested: toys, and their facts."""

from __future__ import annotations

from pathlib import Path

import pytest

# What reading a recipe imports, so that not every worker does.
PRELOAD = ("pydantic", "peftkit.tasks.text_classification", "peftkit.methods.lora")
FACTS = {
    "data": {"source": "toy", "fingerprint": "d" * 8, "num_train": 1000},
    "backbone": {"name": "toy", "fingerprint": "w" * 8, "total_parameters": 1000},
    "precision": "float32",
}


def install(name: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the module `name` on the search path, and return the folder that its toys write to."""
    folder = tmp_path / "toys"
    folder.mkdir()
    (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("TOY_FOLDER", str(folder))
    return folder


def runs(toys: Path) -> list[str]:
    """What has been run, in any order."""
    path = toys / "runs"
    return sorted(path.read_text().split()) if path.exists() else []
