"""From a model that reads text to one of a task: parameters that both have, shared or copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.errors import Unsupported

if TYPE_CHECKING:
    from peftkit.workbench import Workbench


def _pairs(reading: Workbench, bench: Workbench) -> list[tuple[Any, Any]]:
    """The parameters that the model for text shares with that on `bench`, both.

    That is the backbone proper; the whole model where both predict tokens.

    Raises:
        Unsupported: One has what the other lacks.
    """
    read, own = reading.backbone.model, bench.backbone.model
    whole = bench.recipe.task.reads == "token"
    theirs, ours = ("" if whole else f"{m.base_model_prefix}." for m in (read, own))
    learned, mine = dict(read.named_parameters()), dict(own.named_parameters())
    # Llama's class for questions calls its body otherwise than its language model.
    names = {n: ours + n.removeprefix(theirs) for n in learned if n.startswith(theirs)}
    strange = [n for n, m in names.items() if m not in mine or mine[m].shape != learned[n].shape]
    if strange or not names:
        raise Unsupported(
            f"the layers of {type(read).__name__} are not those of {type(own).__name__} (such as "
            f"{(strange or [theirs])[0]}). Next: choose full, or an adapter."
        )
    return [(learned[name], mine[own_name]) for name, own_name in names.items()]


def share(reading: Workbench, bench: Workbench) -> None:
    """Keep one copy of the backbone in memory, not two, where the number format is the same."""
    for learned, mine in _pairs(reading, bench):
        if learned.dtype == mine.dtype:
            learned.data = mine.data


def hand_over(reading: Workbench, bench: Workbench) -> None:
    """Give the backbone on `bench` what was learned of the text.

    Features of the frozen backbone, which other runs share, are no longer those of this one.
    """
    import torch

    with torch.no_grad():
        for learned, mine in _pairs(reading, bench):
            mine.copy_(learned)
    bench.features_folder = None
