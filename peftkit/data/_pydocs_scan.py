"""The docstrings of installed libraries: found, read in parallel, kept in the cache.

The source files are read as text (see `_docstrings`), about 40 seconds of processor time. One scan
serves all tasks of the corpus. What was read is kept in peftkit's cache folder, a file a library,
under a name that depends on the library's version.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit.data import _docstrings, _pydocs_cache
from peftkit.data._docstrings import Docstring
from peftkit.errors import InvalidInput

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
"""Raised whenever the rules change which docstrings are found."""

_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


@dataclass(frozen=True, slots=True)
class Source:
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
    sources = [locate(library, roots) for library in libraries]
    found = {source: _pydocs_cache.read_docstrings(_scan_path(source)) for source in sources}
    missing = [source for source in sources if found[source] is None]
    if missing:
        with shown(progress) as told:
            found.update(_read_sources(missing, workers, told))
        for source in missing:
            _pydocs_cache.write_docstrings(found[source] or [], _scan_path(source))
    return [docstring for source in sources for docstring in found[source] or ()]


def locate(library: str, roots: Mapping[str, Path] | None) -> Source:
    """Find a library's folder and version, without importing it."""
    if roots and library in roots:
        root = Path(roots[library])
        if not root.is_dir():
            raise InvalidInput(
                f"the folder given for library {library!r} does not exist", received=root
            )
        return Source(library, root, f"from files {_listing(root)}")
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
    return Source(library, Path(next(iter(spec.submodule_search_locations))), version)


def _listing(root: Path) -> str:
    """Hash names, sizes and times of the source files below a folder."""
    states = [(file, file.stat()) for file in _docstrings.python_files(root)]
    listed = [[f.relative_to(root).as_posix(), s.st_size, s.st_mtime_ns] for f, s in states]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def _read_sources(
    sources: list[Source], workers: int | None, progress: Progress
) -> dict[Source, list[Docstring] | None]:
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


def _scan_path(source: Source) -> Path:
    """Name the cache file of the docstrings of one library."""
    contents = [source.library, source.version]
    return _pydocs_cache.cache_file(f"docstrings-{source.library}", [VERSION, contents])


@contextlib.contextmanager
def shown(progress: Progress | None) -> Iterator[Progress]:
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
                bar.update(tasks[what], completed=done, total=total)

            yield told
