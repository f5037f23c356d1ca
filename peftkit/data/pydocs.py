"""The corpus that every installation carries: docstrings of the libraries peftkit stands on.

Example row of the task `pydocs/library`, which asks which of ten libraries a sentence documents:

    text        "Assign codes from a code book to observations."
    label       6
    label_text  "scipy"
    file        "scipy/cluster/vq.py"

The source files of the installed libraries are read as text (see `_docstrings`), in parallel, about
40 seconds of processor time; rows are chosen by the rules of `_pydocs_library`. Both results are
kept in peftkit's cache folder, under a name that depends on the versions of the libraries, the
version of Python (whose parser decides what a docstring is) and the version of the rules. A cache
file is written whole or not at all, a damaged one is built again, and two processes that build at
once write the same.

The corpus therefore depends on what is installed. The fingerprint of the splits, a hash over their
rows, says whether two machines have the same one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.data import _docstrings, _pydocs_cache, _pydocs_library
from peftkit.data._docstrings import Docstring
from peftkit.data._pydocs_library import Sizes
from peftkit.data.splits import Splits
from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Progress = Callable[[int, int, str], None]
"""Told how much is done, of how much, and what is being done."""

LIBRARIES: tuple[str, ...] = (
    "datasets",
    "huggingface_hub",
    "matplotlib",
    "numpy",
    "pandas",
    "pydantic",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
)
"""Import names in label order: of peftkit's dependencies, those with the most usable docstrings."""

VERSION = 1
"""Raised whenever the rules change which docstrings or rows are found."""

_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
_SPLITS = ("train", "validation", "test")
_METADATA = b"peftkit"


@dataclass(frozen=True, slots=True)
class _Source:
    """A library, the folder that holds its source, and what tells that source from another."""

    library: str
    root: Path
    version: str


def scan(
    libraries: Iterable[str] = LIBRARIES,
    *,
    roots: Mapping[str, Path] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Docstring]:
    """Return all docstrings of some libraries, without importing them.

    Args:
        libraries: Import names.
        roots: Folders of packages by import name, for libraries that are not to be looked up among
            the installed ones.
        workers: Processes that read files; by default one per core.
        progress: Told how far the reading has come; by default a bar on a terminal. Not called
            when everything is in the cache.

    Returns:
        Docstrings by library in the order asked for, then by file, then in source order.

    Raises:
        InvalidInput: A library is not installed.
    """
    sources = [_locate(library, roots) for library in libraries]
    found = {source: _pydocs_cache.read_docstrings(_scan_path(source)) for source in sources}
    missing = [source for source in sources if found[source] is None]
    if missing:
        with _shown(progress) as told:
            found.update(_read_sources(missing, workers, told))
        for source in missing:
            _pydocs_cache.write_docstrings(found[source] or [], _scan_path(source))
    return [docstring for source in sources for docstring in found[source] or ()]


def library(
    *,
    sizes: Sizes | None = None,
    roots: Mapping[str, Path] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Splits:
    """Return the task "which library does this paragraph document?" as three splits.

    Args:
        sizes: How many rows to hold out; by default 100 test and 60 validation rows a class.
        roots: Folders of packages by import name, which become the classes; by default the
            installed `LIBRARIES`.
        workers: Processes that read files; by default one per core.
        progress: Told how far the work has come; by default a bar on a terminal. Not called when
            the splits are in the cache.

    Returns:
        Splits with the columns `text`, `label`, `label_text` and `file` (relative to the folder
        that holds the libraries). No file serves two splits; all splits are balanced.

    Raises:
        InvalidInput: A library is not installed, or has too few docstrings.
    """
    sizes = sizes or Sizes()
    labels = sorted(roots) if roots else list(LIBRARIES)
    sources = [_locate(label, roots) for label in labels]
    versions = [[source.library, source.version] for source in sources]
    path = _path("library", [asdict(sizes), versions])
    table = _pydocs_cache.read_table(path)
    if table is None or _fingerprint(table) != _facts(table).get("fingerprint"):
        with _shown(progress) as told:
            docstrings = scan(labels, roots=roots, workers=workers, progress=told)
            rows = _pydocs_library.candidates(docstrings)
            chosen, notes = _pydocs_library.choose(rows, sizes, progress=told)
        table = _table(chosen)
        kept = {"fingerprint": _fingerprint(table), "notes": [*_rules(sizes), *notes]}
        table = table.replace_schema_metadata({_METADATA: json.dumps(kept)})
        _pydocs_cache.write_table(table, path)
    facts = _facts(table)
    return Splits(
        **{split: _dataset(table, split, labels) for split in _SPLITS},
        source="first paragraphs of the docstrings of " + ", ".join(map(" ".join, versions)),
        fingerprint=facts["fingerprint"],
        notes=tuple(facts["notes"]),
    )


TASKS: dict[str, Callable[..., Splits]] = {"library": library}
"""Tasks made of this corpus, by the part of their name after "pydocs/"."""


def load(name: str, *, progress: Progress | None = None) -> Splits:
    """Return the splits of a task by its name, such as "library" or "pydocs/library".

    Raises:
        UnknownName: There is no such task.
    """
    task = TASKS.get(name.removeprefix("pydocs/"))
    if task is None:
        raise UnknownName("task of the bundled corpus", name, [f"pydocs/{task}" for task in TASKS])
    return task(progress=progress)


def _locate(library: str, roots: Mapping[str, Path] | None) -> _Source:
    """Find a library's folder and version, without importing it."""
    if roots and library in roots:
        root = Path(roots[library])
        if not root.is_dir():
            raise InvalidInput(
                f"the folder given for library {library!r} does not exist", received=root
            )
        return _Source(library, root, f"from files {_listing(root)}")
    distribution = _DISTRIBUTIONS.get(library, library)
    try:
        spec = importlib.util.find_spec(library)
        version = importlib.metadata.version(distribution)
    except (ModuleNotFoundError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput(
            f"library {library!r} is not installed as a package, "
            "and the bundled corpus is made of its docstrings",
            next_step=f"pip install {distribution}",
        )
    return _Source(library, Path(next(iter(spec.submodule_search_locations))), version)


def _listing(root: Path) -> str:
    """Hash names, sizes and times of the source files below a folder."""
    states = [(file, file.stat()) for file in _docstrings.python_files(root)]
    listed = [[f.relative_to(root).as_posix(), s.st_size, s.st_mtime_ns] for f, s in states]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def _read_sources(
    sources: list[_Source], workers: int | None, progress: Progress
) -> dict[_Source, list[Docstring] | None]:
    """Read all files of some libraries in one go."""
    files = {source: _docstrings.python_files(source.root) for source in sources}
    paths = [path for source in sources for path in files[source]]
    entries = iter(_docstrings.read_files(paths, workers=workers, progress=progress))
    return {
        source: _docstrings.read_library(
            source.library, source.root, files[source], [next(entries) for _ in files[source]]
        )
        for source in sources
    }


def _rules(sizes: Sizes) -> list[str]:
    """Say how the rows were chosen."""
    return [
        f"names of the libraries replaced by the word {_pydocs_library.MASK!r}",
        f"held out by source file, {sizes.test} test and {sizes.validation} validation rows a "
        f"class, at most {sizes.rows_per_file} a file; files with more than {sizes.largest_file} "
        "rows stay in train",
        "texts found in two libraries dropped; no near-duplicates among held-out rows",
    ]


def _table(chosen: Mapping[str, list[_pydocs_library.Row]]) -> pa.Table:
    """Put the rows of all splits into one table."""
    import pyarrow as pa

    rows = [(split, row) for split in _SPLITS for row in chosen[split]]
    return pa.table(
        {
            "split": [split for split, _ in rows],
            "text": [row.text for _, row in rows],
            "label_text": [row.library for _, row in rows],
            "file": [row.file for _, row in rows],
        }
    )


def _fingerprint(table: pa.Table) -> str:
    """Hash all rows of all splits in order."""
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()


def _facts(table: pa.Table) -> dict[str, Any]:
    """Return what was stored beside the rows."""
    facts: dict[str, Any] = json.loads((table.schema.metadata or {}).get(_METADATA, b"{}"))
    return facts


def _dataset(table: pa.Table, split: str, labels: list[str]) -> Dataset:
    """Return one split as a dataset that lives in memory and writes no cache of its own."""
    import pyarrow.compute as pc
    from datasets import ClassLabel, Dataset, Features, Value

    rows = table.filter(pc.equal(table["split"], split)).to_pydict()
    text = Value("string")
    return Dataset.from_dict(
        {
            "text": rows["text"],
            "label": [labels.index(label) for label in rows["label_text"]],
            "label_text": rows["label_text"],
            "file": rows["file"],
        },
        features=Features(
            {"text": text, "label": ClassLabel(names=labels), "label_text": text, "file": text}
        ),
    )


def _scan_path(source: _Source) -> Path:
    """Name the cache file of the docstrings of one library."""
    return _path(f"docstrings-{source.library}", [source.library, source.version])


def _path(kind: str, contents: Any) -> Path:
    """Name the cache file of something that depends on `contents`."""
    return _pydocs_cache.cache_file(kind, [VERSION, contents])


@contextlib.contextmanager
def _shown(progress: Progress | None) -> Iterator[Progress]:
    """Yield the caller's progress function, or one that draws a bar where somebody can see it."""
    if progress is not None:
        yield progress
    elif not (sys.stderr and sys.stderr.isatty()):
        yield lambda done, total, what: None
    else:
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(stderr=True), transient=True) as bar:
            tasks: dict[str, Any] = {}

            def told(done: int, total: int, what: str) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(what, total=total)
                bar.update(tasks[what], completed=done)

            yield told
