"""How the tasks of the bundled corpus hold rows out: by source file, without near-duplicates.

1. Test rows, then validation rows, come from whole source files, in random order of the files, at
   most `rows_per_file` a file. What is left of such a file is dropped. A file with more than
   `largest_file` rows stays in train, because holding it out would throw most of it away.
2. A held-out item has no near-duplicate (see `_near_duplicates`) among the other held-out ones,
   and a train item that has one is dropped.

"Random" means ordered by a hash of names and texts: no generator, no seed, and a new version of a
library moves few rows. The order of the files is the same in all tasks.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from peftkit.data._near_duplicates import NearDuplicates
from peftkit.errors import InvalidInput

Progress = Callable[[int, int, str], None]
Files = dict[str, list["Item"]]
"""Items by source file."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many rows are held out, and from which files.

    Attributes:
        test: Test rows, in a task of classes per class.
        validation: Validation rows, likewise.
        rows_per_file: Most rows held out from one file.
        largest_file: A file with more rows than this is not held out.
    """

    test: int = 100
    validation: int = 60
    rows_per_file: int = 10
    largest_file: int = 30


@dataclass(frozen=True, slots=True)
class Item:
    """A piece of text with the rows made of it: one, or several questions about one text.

    Attributes:
        file: Source file that holds the docstring.
        words: The words that items are compared by, in lower case, joined by single spaces.
        rows: Columns by name.
        order: Hash that items are ordered by.
    """

    file: str
    words: str
    rows: tuple[Mapping[str, Any], ...]
    order: str

    @property
    def library(self) -> str:
        """Import name of the library, which all paths begin with."""
        return self.file.partition("/")[0]


def words_of(text: str) -> str:
    """Return the words of a text in lower case, joined by single spaces."""
    return " ".join(_WORD.findall(text.lower()))


def item(file: str, text: str, *rows: Mapping[str, Any]) -> Item:
    """Make an item that is compared by the words of `text`."""
    words = words_of(text)
    return Item(file, words, rows, hashlib.sha256(f"{file}\n{words}".encode()).hexdigest())


def each_once(items: Iterable[Item]) -> list[Item]:
    """Return the first of the items that have the same words."""
    first: dict[str, Item] = {}
    for one in items:
        first.setdefault(one.words, one)
    return list(first.values())


def by_file(items: Iterable[Item]) -> Files:
    """Return items by their file, in their random order."""
    files: Files = defaultdict(list)
    for one in sorted(items, key=lambda one: one.order):
        files[one.file].append(one)
    return files


def num_rows(items: Iterable[Item]) -> int:
    """Count the rows of some items."""
    return sum(len(one.rows) for one in items)


def hold_out(files: Files, index: NearDuplicates, count: int, sizes: Sizes) -> list[Item]:
    """Move files out of `files` until they gave `count` rows or there are no more.

    What is held out goes to `index` too. Of an item's rows those beyond a limit are left out.
    """
    chosen: list[Item] = []
    rows = 0
    for file in sorted(files, key=lambda file: hashlib.sha256(file.encode()).digest()):
        if rows >= count:
            break
        if num_rows(files[file]) > sizes.largest_file:
            continue
        room = min(sizes.rows_per_file, count - rows)
        taken: list[Item] = []
        for one in files[file]:
            left = room - num_rows(taken)
            if left > 0 and not index.near(one.words):
                index.add(one.words)
                taken.append(replace(one, rows=one.rows[:left]))
        if taken:
            del files[file]
            chosen += taken
            rows += num_rows(taken)
    return chosen


def left_for_training(
    groups: Sequence[Files], index: NearDuplicates, progress: Progress
) -> list[list[Item]]:
    """Return for each group the items without a held-out near-duplicate, in random order."""
    total = sum(len(items) for files in groups for items in files.values())
    left = []
    done = 0
    for files in groups:
        kept = []
        for items in files.values():
            kept += [one for one in items if not index.near(one.words)]
            done += len(items)
            progress(done, total, "comparing texts")
        left.append(in_order(kept))
    return left


def in_order(items: Iterable[Item]) -> list[Item]:
    """Return items in their random order."""
    return sorted(items, key=lambda one: one.order)


def choose(
    items: Sequence[Item],
    sizes: Sizes,
    *,
    task: str,
    reserved: Collection[str] = (),
    progress: Progress,
) -> tuple[dict[str, list[Item]], list[str]]:
    """Assign the items of a task without classes to splits.

    Args:
        items: All items, no text twice.
        sizes: How many rows to hold out.
        task: Name of the task, for an error.
        reserved: Files that give no train rows.
        progress: Told how many items are compared, of how many, and what is being done.

    Returns:
        Items of "train", "validation" and "test", and notes for the reader of results.

    Raises:
        InvalidInput: There are too few items.
    """
    files = by_file(items)
    index = NearDuplicates()
    held_out: dict[str, list[Item]] = {}
    for split, count in (("test", sizes.test), ("validation", sizes.validation)):
        held_out[split] = in_order(hold_out(files, index, count, sizes))
        if num_rows(held_out[split]) < count:
            raise too_few(
                task, f"{num_rows(held_out[split])} {split} rows where {count} are needed"
            )
    for file in reserved:
        files.pop(file, None)
    before = sum(map(len, files.values()))
    (train,) = left_for_training([files], index, progress)
    if not train:
        raise too_few(task, "no train row is left beside the held-out ones")
    note = (
        f"{before - len(train)} of {before} train texts dropped as near-duplicates of held-out "
        "ones (Jaccard similarity of three-word shingles above 0.5)"
    )
    return {"train": train, **held_out}, [note]


def described(sizes: Sizes) -> str:
    """Say how the rows of a task without classes were held out."""
    return (
        f"held out by source file, {sizes.test} test and {sizes.validation} validation rows, at "
        f"most {sizes.rows_per_file} a file; files with more than {sizes.largest_file} rows stay "
        "in train; no near-duplicates among held-out texts"
    )


def too_few(task: str, what: str) -> InvalidInput:
    """Say that there is not enough text for a task."""
    return InvalidInput(
        f"the libraries have too few docstrings for the task pydocs/{task}: {what}",
        next_step="Reinstall them (pip install --force-reinstall numpy scipy and so on), "
        "or train on data of your own",
    )
