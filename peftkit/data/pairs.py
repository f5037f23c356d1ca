"""A text and what should be written of it: columns "text" and "targets", a list of references."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.data.splits import Splits
from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from datasets import Dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairColumns:
    """Where texts and references stand.

    Attributes:
        source: Column of the text; none: the first of `usual_sources` that exists.
        target: Column of the reference, or of a list of them; none: likewise.
        usual_sources, usual_targets: Names that are looked for.
    """

    source: str | None
    target: str | None
    usual_sources: tuple[str, ...]
    usual_targets: tuple[str, ...]


def paired(splits: Splits, columns: PairColumns) -> Splits:
    """Splits of the columns "text" and "targets"; a training row for each of its references.

    Raises:
        InvalidInput: A column is not found, a text or a reference is empty.
        UnknownName: There is no column of the name given.
    """
    parts = {
        split: known_pairs(rows, columns, source=f"the {split} split of {splits.source}")
        for split, rows in splits.parts().items()
    }
    parts["train"] = _one_reference_each(parts["train"])
    return dataclasses.replace(splits, **parts)


def known_pairs(rows: Dataset, columns: PairColumns, *, source: str) -> Dataset:
    """Rows of a file as "text" and "targets"; see `paired` for what is raised."""
    from datasets import Dataset

    rows = _flattened(rows)
    text = _column(rows, columns.source, columns.usual_sources, "source_column", source)
    target = _column(rows, columns.target, columns.usual_targets, "target_column", source)
    texts, targets = rows[text][:], rows[target][:]
    lists = [_references(each) for each in targets]
    for row, (before, after) in enumerate(zip(texts, lists, strict=True)):
        if not isinstance(before, str) or not before.strip():
            raise _empty(row, source, text, before)
        if not after or not all(isinstance(each, str) and each.strip() for each in after):
            raise _empty(row, source, target, targets[row])
    return Dataset.from_dict({"text": texts, "targets": lists})


def _references(target: Any) -> list[str]:
    return target if isinstance(target, list) else [target]


def _flattened(rows: Dataset) -> Dataset:
    """Columns "en" and "fr" of the one column "translation" that the hub's data sets have."""
    feature = rows.features.get("translation")
    if isinstance(feature, dict) or hasattr(feature, "languages"):
        flat = rows.select_columns("translation").flatten()  # "id" may be a language
        names = {n: n.removeprefix("translation.") for n in flat.column_names if "." in n}
        return flat.rename_columns(names)
    return rows


def _column(
    rows: Dataset, named: str | None, usual: Sequence[str], option: str, source: str
) -> str:
    if named is not None:
        if named not in rows.column_names:
            raise UnknownName(f"column of {source}", named, rows.column_names)
        return named
    for name in usual:
        if name in rows.column_names:
            return name
    raise InvalidInput(
        f"{source} has none of the usual columns",
        received=", ".join(rows.column_names),
        allowed=", ".join(usual),
        next_step=f"name the column (--task.{option.replace('_', '-')})",
    )


def _empty(row: int, source: str, column: str, value: Any) -> InvalidInput:
    return InvalidInput(
        f"row {row} of {source} is empty in column {column!r}",
        received=f"{value!r:.60}",
        allowed="a text, or for references a list of at least one",
        next_step="fill or remove the row",
    )


def _one_reference_each(rows: Dataset) -> Dataset:
    from datasets import Dataset

    pairs = [
        (text, [each])
        for text, targets in zip(rows["text"][:], rows["targets"][:], strict=True)
        for each in targets
    ]
    texts, targets = zip(*pairs, strict=True)
    return Dataset.from_dict({"text": list(texts), "targets": list(targets)})
