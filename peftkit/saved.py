"""A run's folder, used again: its method on its backbone, on new rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput, WrongBackbone
from peftkit.recipe import Recipe
from peftkit.record import MANIFEST
from peftkit.tasks import TaskData
from peftkit.workbench import Workbench

if TYPE_CHECKING:
    from datasets import Dataset

    from peftkit.predictors import Predictor
    from peftkit.tasks import Progress

GRAPHS = ("onnx", "torch", "gguf", "gguf_adapter", "ollama")
"""Formats whose folders hold nothing that transformers or PEFT load."""


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """What `run(recipe, folder)` left, ready to answer.

    Attributes:
        recipe: The recipe it was trained by.
        labels: Class names, in the order of the logits.
        predictor: The fitted method.
        reads_pairs: Whether its rows were pairs of texts.
    """

    recipe: Recipe
    labels: list[str]
    predictor: Predictor
    reads_pairs: bool = False

    def evaluate(self, file: Path | str, progress: Progress | None = None) -> dict[str, float]:
        """Score the rows of another file.

        Raises:
            InvalidInput: The file does not fit the task, or holds labels the run does not know.
        """
        rows = self.recipe.task.read(Path(file), self.labels)
        _, metrics = self.recipe.task.score(self.predictor.outputs(rows, progress), rows)
        return {**metrics, "num_rows": len(rows)}

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Answer texts; of a classifier, each answer has "text", "label" and "probability"."""
        if not texts:
            return []
        self.require_one_text()
        return self.answer(self.recipe.task.rows(texts))

    def require_one_text(self) -> None:
        """See that a row is one text.

        Raises:
            InvalidInput: It is a pair of texts, which one alone does not stand for.
        """
        if self.reads_pairs:
            raise InvalidInput(
                "the run was trained on pairs of texts, and was given one",
                allowed="rows with both: peftkit predict DIR --data FILE",
                next_step="write a table with the columns of the training data",
            )

    def answer(self, rows: Dataset) -> list[dict[str, Any]]:
        """Answer rows as the task reads them; nothing of them is kept."""
        predictor: Any = self.predictor
        found = self.recipe.task.answers(predictor.outputs(rows), rows, self.labels)
        predictor.bench.forget(rows)
        return found


def load_run(folder: Path | str, *, allow_other_base: bool = False) -> SavedRun:
    """Load the folder of a run.

    Args:
        folder: The `--out` folder of `peftkit run`, one below `models/` of a comparison, one that
            `peftkit merge` or `peftkit export` wrote, or the `model.onnx` in such a one.
        allow_other_base: Load even if the backbone's weights are not those of the training.

    Raises:
        InvalidInput: The folder is not that of a finished run.
        WrongBackbone: The backbone's weights have changed since.
    """
    folder = Path(folder)
    if folder.suffix == ".onnx" and not folder.is_dir():
        folder = folder.parent
    bench, manifest = open_run(folder)
    known: Any = {
        "recipe": bench.recipe,
        "labels": bench.data.labels,
        # Folders that are older than this entry say nothing of it.
        "reads_pairs": "second_text" in manifest["data"].get("columns", ()),
    }
    if manifest.get("export", {}).get("format") in GRAPHS:
        return SavedRun(predictor=_exported(bench, manifest), **known)
    if "merged" in manifest:
        bench.stand_alone(manifest["backbone"]["fingerprint"])
    elif bench.recipe.method.needs_backbone:
        _check_base(bench, manifest["backbone"], allow_other_base)
    return SavedRun(predictor=bench.recipe.method.reload(bench, folder), **known)


def open_run(folder: Path) -> tuple[Workbench, dict[str, Any]]:
    """Put the recipe of a run on a workbench again; no weights are read yet.

    Returns:
        The workbench, which has no rows of the data, and what peftkit.json holds.

    Raises:
        InvalidInput: The folder is not that of a finished run.
    """
    manifest = read_manifest(folder)
    recipe = Recipe.from_dict(manifest["recipe"])
    rows = recipe.task.rows([""])
    data = TaskData(
        train=rows, validation=rows, test=rows, labels=manifest["labels"], source=str(folder),
        fingerprint=manifest["data"]["fingerprint"], notes=(), chance=0.0,
    )  # fmt: skip
    return Workbench(recipe, data, folder), manifest


def _exported(bench: Workbench, manifest: dict[str, Any]) -> Predictor:
    """What answers in place of a run that was exported."""
    about = manifest["export"]
    if about["format"] != "onnx":
        raise InvalidInput(
            f"{bench.folder} holds a run in the format {about['format']}, which is for others",
            allowed="the folder of a run, one that `peftkit merge` wrote, or an export to onnx",
            next_step="use the folder that it was exported from",
        )
    from peftkit.exporting.onnx_model import onnx_predictor

    bench.stand_alone(manifest["backbone"]["fingerprint"])
    return onnx_predictor(bench, virtual_tokens=about["virtual_tokens"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the folder of a run says of itself; no weights are read.

    Raises:
        InvalidInput: The folder is not that of a finished run.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for part, key in (("recipe", "task"), ("backbone", "fingerprint"), ("data", "fingerprint")):
            manifest[part][key]
        manifest["labels"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{folder} is not the folder of a finished run",
            received=f"{type(error).__name__}: {error}",
            allowed=f"a folder with {MANIFEST}, as `peftkit run --out DIR` writes it",
            next_step="check the path, or run the recipe again",
        ) from error
    return manifest


def _check_base(bench: Workbench, trained_on: dict[str, Any], allow_other: bool) -> None:
    if allow_other:
        return
    from peftkit.fingerprints import fingerprints

    location = bench.backbone.location
    found = {"fingerprint": location.fingerprint, **fingerprints(bench.backbone.processor)}
    for name, value in found.items():
        if name in trained_on and value != trained_on[name]:
            what = name.replace("_fingerprint", "").replace("fingerprint", "weights")
            raise WrongBackbone(
                f"the backbone is not the one that this adapter was trained on: its {what} differ",
                received=f"{location.name} with fingerprint {str(value)[:12]}",
                allowed=f"fingerprint {str(trained_on[name])[:12]}",
                next_step="give the original backbone, or --allow-other-base to try regardless",
            )
