"""Training streamed to a tracker: what arrives, and that results do not depend on it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from peftkit import Recipe, run
from peftkit.errors import InvalidInput, UnknownName
from peftkit.tracking import require_trackers

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own files
def test_tensorboard_gets_losses_and_validation_and_changes_no_result(
    toy_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = Recipe(
        method="lora",
        backbone="twin:bert",
        task={"name": "text_classification", "data": str(toy_folder)},
        training={"steps": 4, "batch_size": 4, "precision": "float32", "evaluate_every": 2},
    )
    told = run(recipe, tmp_path / "told", report_to=["tensorboard"])
    untold = run(recipe, tmp_path / "untold")

    events = EventAccumulator(str(tmp_path / "told" / "tensorboard"))
    events.Reload()
    logged = {point["step"]: point["loss"] for point in told.history if "loss" in point}
    streamed = {event.step: event.value for event in events.Scalars("train/loss")}
    assert streamed == pytest.approx(logged)
    assert [event.step for event in events.Scalars("eval/validation")] == [2, 4]
    assert told.metrics == untold.metrics
    assert told.history == untold.history
    assert not (tmp_path / "untold" / "tensorboard").exists()


def test_a_tracker_that_is_unknown_or_absent_is_refused() -> None:
    with pytest.raises(UnknownName, match="tensorboard"):
        require_trackers(["tensorbord"], keep=True)
    if find_spec("mlflow") is None:
        with pytest.raises(InvalidInput, match="pip install mlflow"):
            require_trackers(["mlflow"], keep=True)
