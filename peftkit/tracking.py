"""Streams of a training run to the trackers that people already watch, through transformers.

Loss, learning rate and the validation metric, as they are logged. Records do not depend on it: a
tracker is not part of a recipe.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from peftkit.distributed import is_first
from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
"""Their names, which are those of their packages too."""


def require_trackers(names: Sequence[str], *, keep: bool) -> None:
    """See before any work that each tracker is known and installed.

    Args:
        names: Of trackers.
        keep: Whether the run has a folder that stays.

    Raises:
        UnknownName: There is no such tracker.
        InvalidInput: Its package is not installed, or its files have no place to stay.
    """
    if "tensorboard" in names and not keep:
        raise InvalidInput(
            "TensorBoard's files need a folder to stay in", next_step="add --out DIR"
        )
    for name in names:
        if name not in TRACKERS:
            raise UnknownName("tracker", name, TRACKERS)
        if find_spec(name) is None:
            raise InvalidInput(f"{name} is not installed", next_step=f"pip install {name}")


def through_transformers(names: Sequence[str]) -> list[str]:
    """Those that transformers sets up by name; TensorBoard is told a folder by `callbacks`."""
    return [name for name in names if name != "tensorboard"]


def callbacks(names: Sequence[str], folder: Path) -> list[Any]:
    """Callbacks for `transformers.Trainer`.

    Args:
        names: Trackers, as `require_trackers` takes them.
        folder: Of the run; TensorBoard's files go to `folder/tensorboard`.
    """
    if "tensorboard" not in names or not is_first():
        return []
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    writer = SummaryWriter(log_dir=str(folder / "tensorboard"))
    return [TensorBoardCallback(writer)]
