"""Modules that runs trained whole, above all heads, made into one.

A new head has no pretrained value that an update could be measured from, so heads are not summed
but averaged, `sum_i w_i H_i / sum_i w_i`, whatever the rule for the rest. That has a meaning only
where all of them answer the same question: same task, same labels in the same order, read from
the same place. Else one run's head is taken as it is, and somebody has to say whose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.combining.reading import Adapter
from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def combine_heads(
    adapters: Sequence[Adapter], weights: Sequence[float], chosen: int | None
) -> tuple[dict[str, Tensor], str]:
    """One set of the modules that were trained whole.

    Args:
        adapters: To be combined.
        weights: One each.
        chosen: Index of the run whose head is taken; None: their weighted mean.

    Returns:
        Names and tensors, and what was done, in words.

    Raises:
        InvalidInput: None is chosen, and they have no mean.
    """
    if chosen is not None:
        return adapters[chosen].whole, f"as in {adapters[chosen].folder}"
    if not any(adapter.whole for adapter in adapters):
        return {}, f"none, as no run trained one; the task is that of {adapters[0].folder}"
    if len(adapters) == 1:
        return adapters[0].whole, f"as in {adapters[0].folder}"
    _require_alike(adapters)
    if min(weights) < 0 or sum(weights) == 0:
        raise _no_mean("a head cannot be taken away from another", f"weights {list(weights)}")
    shares = [weight / sum(weights) for weight in weights]
    mean = {
        name: sum(
            s * adapter.whole[name].double() for s, adapter in zip(shares, adapters, strict=True)
        )
        for name in adapters[0].whole
    }
    words = ", ".join(f"{share:.3g}" for share in shares)
    return mean, f"mean of the runs' heads, weighted {words}"  # type: ignore[return-value]


def _require_alike(adapters: Sequence[Adapter]) -> None:
    """Raise unless all heads answer the same question in the same way."""
    first = _question(adapters[0])
    for adapter in adapters[1:]:
        other = _question(adapter)
        for what, value in first.items():
            if other[what] != value:
                raise _no_mean(
                    f"the heads differ in their {what}",
                    f"{value} in {adapters[0].folder}, {other[what]} in {adapter.folder}",
                )


def _question(adapter: Adapter) -> dict[str, Any]:
    return {
        "task": adapter.manifest["recipe"]["task"]["name"],
        "labels": adapter.labels,
        "pooling": adapter.manifest["backbone"].get("pooling"),
        "tensors": {name: tuple(tensor.shape) for name, tensor in adapter.whole.items()},
    }


def _no_mean(what: str, received: str) -> InvalidInput:
    return InvalidInput(
        what,
        received=received,
        allowed="heads of one task with the same labels, and no negative weight",
        next_step="say whose head the result has: --head RUN, one of the runs given",
    )
