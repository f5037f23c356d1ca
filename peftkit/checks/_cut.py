"""How many rows are cut by `max_length` and the like: found by encoding them again without limit.

A row that is cut is as long as rows can get, so only the longest rows are encoded again: nearly
none, unless many are cut.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from peftkit.checks._finding import NOTABLE, Finding, counted, warn_if
from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    from datasets import Dataset

    from peftkit.tasks import Example, Task
    from peftkit.workbench import Workbench

CHUNK = 1000  # rows encoded again at a time
FAR, FARTHER = 10**5, 10**6  # tokens: of each of a task's limits, and of all together


def check_cut(bench: Workbench, train: Sequence[Example]) -> Finding:
    """Count the training and test rows that the backbone does not read (or write) to their end.

    Args:
        bench: Holds the rows.
        train: The training rows, encoded.
    """
    task, data = bench.recipe.task, bench.data
    test = task.encode(data.test, bench.backbone, bench.max_length)
    parts, example, total, share = [], "", 0, 0.0
    for name, rows, examples in (("train", data.train, train), ("test", data.test, test)):
        cut = _cut_rows(bench, rows, examples)
        total, share = total + len(cut), max(share, len(cut) / max(1, len(rows)))
        if cut:
            parts.append(counted(len(cut), len(rows), f"{name} rows"))
            example = example or f"{name} row {cut[0]}"
    limits = ", ".join(f"{name} {getattr(task, name)}" for name in _limits(task))
    return Finding(
        check="cut rows",
        level=warn_if(share >= NOTABLE),
        text=f"{' and '.join(parts)} are cut ({limits})" if parts else f"none ({limits})",
        count=total,
        example=example,
    )


def parts_of_rows(examples: Sequence[Example], num_rows: int) -> dict[int, list[int]]:
    """The examples of each row; of a row that made none, an empty list."""
    found: dict[int, list[int]] = {row: [] for row in range(num_rows)}
    for i, example in enumerate(examples):
        found[example.get("_row", i)].append(i)
    return found


def _cut_rows(bench: Workbench, rows: Dataset, examples: Sequence[Example]) -> list[int]:
    """The rows that have more tokens where there is no limit."""
    longest: dict[tuple[str, str], int] = defaultdict(int)
    for example in examples:
        for kind, size in _sizes(example):
            longest[kind] = max(longest[kind], size)
    parts = parts_of_rows(examples, len(rows))
    doubtful = [
        row
        for row, own in parts.items()
        if any(size == longest[kind] for i in own for kind, size in _sizes(examples[i]))
    ]
    whole = _without_limits(bench.recipe.task)
    cut = []
    for some in (doubtful[i : i + CHUNK] for i in range(0, len(doubtful), CHUNK)):
        again = whole.encode(rows.select(some), bench.backbone, FARTHER)
        for place, own in parts_of_rows(again, len(some)).items():
            row = some[place]
            read = sum(_tokens(examples[i]) for i in parts[row])
            if read < sum(_tokens(again[i]) for i in own):
                cut.append(row)
    return cut


def _sizes(example: Example) -> Iterator[tuple[tuple[str, str], int]]:
    """Lengths of what can have been cut: a text as a whole, what is asked and what is answered."""
    from peftkit.checks._examples import entries, taught

    lengths = {before: len(ids) for before, ids in entries(example, "input_ids")}
    for before, length in lengths.items():
        yield (before, "text"), length
    for before, labels in entries(example, "labels"):
        if isinstance(labels, list):
            answer = len(taught(labels))
            yield (before, "answer"), answer
            yield (before, "question"), lengths.get(before, 0) - answer


def _tokens(example: Example) -> int:
    return sum(
        len(value)
        for name, value in example.items()
        if name.endswith(("input_ids", "labels")) and isinstance(value, list)
    )


def _limits(task: Task) -> list[str]:
    """Names of the task's settings that limit how many tokens there are."""
    fields = {field.name for field in dataclasses.fields(task)}
    return [
        name
        for name in sorted(fields)
        if name.startswith("max_") and isinstance(getattr(task, name), int)
    ]


def _without_limits(task: Task) -> Task:
    """The same task, with room for all."""
    for name in _limits(task):
        with suppress(InvalidInput):  # a task may allow no such number
            task = dataclasses.replace(task, **cast(Any, {name: FAR}))
    return task
