"""How a row of a plan that does not fit can be made to."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from peftkit.memory.plan import Cell, Way

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from peftkit.memory.plan import Precision, Row


class NotYet(LookupError):
    """A row that decides is still being computed."""


def cheapest(
    row: Row, rows: Mapping[Cell, Row], pending: Collection[Cell] = frozenset()
) -> Way | None:
    """The first change that lets a row fit, the cheapest in time and quality first.

    Those are: the batch in parts whose gradients are added up; checkpointing; both; then the same
    three again on a smaller base: bf16 if it is fp32, and nf4.

    Args:
        row: One that does not fit.
        rows: What is there already.
        pending: Rows that will come.

    Returns:
        None: Nothing of this helps.

    Raises:
        NotYet: One of `pending` decides.
    """
    for changes, cell in _candidates(row.cell):
        if cell in pending and cell not in rows:
            raise NotYet(cell)
        found = rows.get(cell)
        if found is None or found.outlook is None:
            continue
        if found.outlook.fits:
            return Way(
                changes=changes,
                batch_size=found.outlook.batch_size,
                accumulation=1,
                total_bytes=found.outlook.total_bytes,
            )
        if found.outlook.split is not None:
            return dataclasses.replace(found.outlook.split, changes=changes)
    return None


def _candidates(cell: Cell) -> Iterator[tuple[tuple[str, ...], Cell]]:
    bases: list[Precision] = [cell.precision]
    bases += ["bf16"] if cell.precision == "fp32" else []
    bases += ["nf4"] if cell.precision != "nf4" else []
    for base in bases:
        base_change = () if base == cell.precision else (base,)
        for checkpointing in (False, True)[cell.checkpointing :]:
            change = ("checkpointing",) if checkpointing and not cell.checkpointing else ()
            yield (
                (*base_change, *change),
                dataclasses.replace(cell, precision=base, checkpointing=checkpointing),
            )
