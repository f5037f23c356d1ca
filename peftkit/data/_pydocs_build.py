"""From docstrings and a task's rules to three splits, by way of the cache.

What is cached is one table a task: its rows with their split and file, beside them a fingerprint
and notes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from peftkit.data import _pydocs_cache, _pydocs_split
from peftkit.data._docstrings import Docstring
from peftkit.data._pydocs_scan import LIBRARIES, Progress, locate, scan, shown
from peftkit.data._pydocs_split import Item, Sizes
from peftkit.data.splits import SPLIT_NAMES, Splits

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Chosen = tuple[dict[str, list[Item]], list[str]]
"""Items by split, and notes on how they were chosen."""
Choose = Callable[[list[Docstring], Progress], Chosen]

_METADATA = b"peftkit"


class Options(TypedDict, total=False):
    """What every task can be told.

    Attributes:
        sizes: How many rows to hold out.
        roots: Folders of packages by import name; by default the installed `LIBRARIES`.
        workers: Processes that read files; by default one per core.
        progress: Told how far the work has come; by default a bar on a terminal. Not called when
            the splits are in the cache.
    """

    sizes: Sizes | None
    roots: Mapping[str, Path] | None
    workers: int | None
    progress: Progress | None


class Rules(Protocol):
    """The file of a task without classes."""

    NAME: str
    VERSION: int
    SIZES: Sizes
    SOURCE: str
    RULES: str

    def items(self, docstrings: Iterable[Docstring]) -> list[Item]:
        """Make items of docstrings, none twice."""


def build_plain(
    rules: Rules,
    options: Options,
    *,
    reserved: Callable[[Progress], Collection[str]] = lambda told: (),
    key: Sequence[Any] = (),
) -> Splits:
    """Build a task without classes.

    Args:
        rules: The task's file.
        options: What the caller asked for.
        reserved: Returns the files that give no train rows.
        key: What `reserved` depends on.
    """
    sizes = options.get("sizes") or rules.SIZES

    def choose(docstrings: list[Docstring], told: Progress) -> Chosen:
        chosen, notes = _pydocs_split.choose(
            rules.items(docstrings), sizes, task=rules.NAME, reserved=reserved(told), progress=told
        )
        return chosen, [_pydocs_split.described(sizes), rules.RULES, *notes]

    version = [rules.VERSION, *key] if key else rules.VERSION
    return build(rules.NAME, version, rules.SOURCE, sizes, choose, options)


def build(
    name: str, version: Any, source: str, sizes: Sizes, choose: Choose, options: Options
) -> Splits:
    """Return the splits of a task from the cache, or build and cache them.

    Args:
        name: The task's name.
        version: Another one whenever the rules change which rows are chosen.
        source: What the rows are, before "of" and the libraries.
        sizes: How many rows are held out.
        choose: Turns docstrings into rows.
        options: What the caller asked for.
    """
    roots = options.get("roots")
    libraries = sorted(roots) if roots else list(LIBRARIES)
    sources = [locate(library, roots) for library in libraries]
    versions = [[source.library, source.version] for source in sources]
    path = _pydocs_cache.cache_file(name, [version, [asdict(sizes), versions]])
    table = _pydocs_cache.read_table(path)
    if table is None or _fingerprint(table) != _facts(table).get("fingerprint"):
        with shown(options.get("progress")) as told:
            docstrings = scan(libraries, roots=roots, workers=options.get("workers"), progress=told)
            table = _table(*choose(docstrings, told))
        _pydocs_cache.write_table(table, path)
    facts = _facts(table)
    return Splits(
        **{split: _dataset(table, split) for split in SPLIT_NAMES},
        source=f"{source} of " + ", ".join(map(" ".join, versions)),
        fingerprint=facts["fingerprint"],
        notes=tuple(facts["notes"]),
    )


def _table(chosen: Mapping[str, Sequence[Item]], notes: Sequence[str]) -> pa.Table:
    """Put the rows of all splits into one table."""
    import pyarrow as pa

    rows = [
        {"split": split, **row, "file": item.file}
        for split in SPLIT_NAMES
        for item in chosen[split]
        for row in item.rows
    ]
    table = pa.Table.from_pylist(rows)
    kept = {"fingerprint": _fingerprint(table), "notes": list(notes)}
    return table.replace_schema_metadata({_METADATA: json.dumps(kept)})


def _fingerprint(table: pa.Table) -> str:
    """Hash all rows of all splits in order."""
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()


def _facts(table: pa.Table) -> dict[str, Any]:
    """Return what was stored beside the rows."""
    facts: dict[str, Any] = json.loads((table.schema.metadata or {}).get(_METADATA, b"{}"))
    return facts


def _dataset(table: pa.Table, split: str) -> Dataset:
    """Return one split as a dataset that lives in memory and writes no cache of its own."""
    import pyarrow.compute as pc
    from datasets import Dataset

    rows = table.filter(pc.equal(table["split"], split)).drop_columns(["split"])
    return Dataset.from_dict(rows.to_pydict())
