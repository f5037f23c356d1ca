"""Checks that need the rows alone: no backbone, no torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from peftkit.checks._finding import NOTABLE, Finding, counted, warn_if
from peftkit.checks._shared import check_shared
from peftkit.checks._split import Split

if TYPE_CHECKING:
    from peftkit.tasks import Task, TaskData

_SHOWN_CLASSES = 5


def check_rows(task: Task, data: TaskData, *, near: bool = False) -> list[Finding]:
    """Look for rows that two splits share, empty texts, and classes that a split lacks.

    Args:
        task: What the rows are rows of.
        data: Its splits, the training rows as drawn.
        near: Also look for near-duplicates, which takes longer than all the rest.
    """
    if len(data.train) == 0:
        return [Finding(check="rows", level="error", text="there is no training row")]
    names = ("train", "validation", "test")
    splits = [Split(name, task, getattr(data, name)) for name in names]
    sizes = ", ".join(f"{len(split.rows):,} {split.name}" for split in splits)
    rows = Finding(check="rows", level="ok", text=sizes)
    return [rows, _empty(splits), *check_shared(splits, near=near), *_classes(data, splits)]


def _empty(splits: list[Split]) -> Finding:
    """Rows without a text, in one of the columns of text or as a whole."""
    found: list[tuple[Split, int]] = []
    for split in splits:
        columns = [split.rows[name][:] for name in split.texts]
        found += [
            (split, row)
            for row, key in enumerate(split.keys)
            if not key or any(value is None or not value.strip() for value in _at(columns, row))
        ]
    if not found:
        return Finding(check="empty texts", level="ok", text="none")
    own = Counter(split.name for split, _ in found)
    texts = [counted(own[s.name], len(s.rows), f"{s.name} rows") for s in splits if own[s.name]]
    split, row = found[0]
    none_left = not any(splits[0].keys)
    return Finding(
        check="empty texts",
        level="error" if none_left else "warning",
        text=f"empty texts in {' and '.join(texts)}",
        count=len(found),
        example=split.example(row),
    )


def _at(columns: list[list[Any]], row: int) -> list[Any]:
    return [column[row] for column in columns]


def _classes(data: TaskData, splits: list[Split]) -> list[Finding]:
    """Classes that a split lacks, and inputs whose rows are of several classes."""
    if not data.labels or any("label" not in split.rows.column_names for split in splits):
        return []
    if str(getattr(splits[0].rows.features["label"], "dtype", "")).startswith("float"):
        return []  # numbers are no classes
    return [_missing_classes(data.labels, splits), _contradicted(splits)]


def _missing_classes(names: list[str], splits: list[Split]) -> Finding:
    """Classes (or tags) that training rows have and held-out rows lack, and the reverse."""
    rows = {s.name: [_classes_of(label) for label in s.rows["label"][:]] for s in splits}
    present = {name: set().union(*each) for name, each in rows.items()}
    parts, example, count = [], "", 0
    for split in splits[1:]:
        for lacking, of in (("train", split.name), (split.name, "train")):
            missing = present[of] - present[lacking]
            if not missing:
                continue
            listed = ", ".join(names[c] for c in sorted(missing)[:_SHOWN_CLASSES])
            listed += ", ..." if len(missing) > _SHOWN_CLASSES else ""
            text = f"{len(missing)} of {len(names)} classes of {of} rows have no {lacking} row"
            affected = [row for row, own in enumerate(rows[of]) if own & missing]
            if lacking == "train":
                text += f" ({counted(len(affected), len(rows[of]), f'{of} rows')})"
            parts.append(f"{text}: {listed}")
            count += len(missing)
            example = example or f"{of} row {affected[0]}"
    return Finding(
        check="classes",
        level=warn_if(bool(parts)),
        text="; ".join(parts) or f"all {len(names)} in every split",
        count=count,
        example=example,
    )


def _contradicted(splits: list[Split]) -> Finding:
    """Inputs that stand in several rows, not all of one label."""
    labels: dict[str, dict[Any, str]] = defaultdict(dict)
    for split in splits:
        for row, (key, label) in enumerate(zip(split.keys, split.rows["label"][:], strict=True)):
            if key:
                labels[key].setdefault(repr(label), split.example(row))
    found = {key: own for key, own in labels.items() if len(own) > 1}
    example = " and ".join(list(next(iter(found.values())).values())[:2]) if found else ""
    share = len(found) / max(1, len(labels))
    return Finding(
        check="contradictory labels",
        level=warn_if(share >= NOTABLE),
        text=f"{counted(len(found), len(labels), 'different inputs')} have several labels",
        count=len(found),
        example=example,
    )


def _classes_of(label: Any) -> set[int]:
    return set(label) if isinstance(label, list) else {label}
