"""Docstrings of Python source files, read as text: nothing is imported, nothing is run.

A file is parsed with `ast`; the docstrings of its modules, classes and functions are kept, cleaned
of their indentation as `inspect.cleandoc` does. Parsing is pure Python work, so files are read by
several interpreters at once. They are plain subprocesses that run this very file with the standard
library alone: a `multiprocessing` pool would either fork a process that may hold threads and a CUDA
context, or import the caller's main script (and torch with it) once per worker.

Therefore this file imports nothing but the standard library, and nothing of peftkit.
"""

from __future__ import annotations

import ast
import gc
import json
import multiprocessing
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

Found = list[list[str]]
"""Docstrings of one file in source order, each as [dotted name inside the file, kind, text]."""

SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "testing", "__pycache__"}
    | {"third_party", "vendor", "vendored", "_vendor", "extern", "_extern", "externals"}
    | {"_external", "array_api_compat", "array_api_extra"}
)
"""Folders that document tests, or somebody else's library."""

_CHUNKS_PER_WORKER = 8
_LEAST_FILES_PER_CHUNK = 10  # fewer take less time than an interpreter needs to start
_KINDS: dict[type, str] = {
    ast.Module: "module",
    ast.ClassDef: "class",
    ast.FunctionDef: "function",
    ast.AsyncFunctionDef: "function",
}
_HOLDERS = (ast.stmt, ast.ExceptHandler, ast.match_case)
_BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")


@dataclass(frozen=True, slots=True)
class Docstring:
    """One docstring of an installed library.

    Attributes:
        library: Import name of the library, such as "sklearn".
        file: Source file relative to the folder that holds the library, with forward slashes.
        qualified_name: Dotted name of what is documented, such as "sklearn.svm._classes.SVC.fit".
        kind: "module", "class" or "function".
        text: The whole docstring, without its indentation.
    """

    library: str
    file: str
    qualified_name: str
    kind: str
    text: str


def python_files(root: Path) -> list[Path]:
    """List the source files of a package in a fixed order, without its tests and vendored code."""
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in SKIPPED_FOLDERS and not f.startswith(".")]
        files += [
            Path(folder, name)
            for name in names
            if name.endswith(".py") and name != "conftest.py" and not name.startswith("test_")
        ]
    return sorted(files, key=lambda file: file.relative_to(root).parts)


def read_library(
    library: str, root: Path, files: Iterable[Path], found: Iterable[Found]
) -> list[Docstring]:
    """Give the docstrings found in the files of one library their names."""
    docstrings = []
    for file, entries in zip(files, found, strict=True):
        relative = Path(library) / file.relative_to(root)
        module = relative.parent if relative.name == "__init__.py" else relative.with_suffix("")
        prefix = ".".join(module.parts)
        docstrings += [
            Docstring(library, relative.as_posix(), f"{prefix}.{name}".rstrip("."), kind, text)
            for name, kind, text in entries
        ]
    return docstrings


def read_files(
    files: Sequence[Path],
    *,
    workers: int | None = None,
    progress: Callable[[int, int, str], None],
) -> list[Found]:
    """Read the docstrings of many files, in parallel.

    Args:
        files: Source files.
        workers: Interpreters to use; by default all cores that this process may use, or this
            process alone if it is itself a worker of `multiprocessing`.
        progress: Told how many files are done, of how many, and what is being done.

    Returns:
        For each file its docstrings; the same for any number of workers. A file that this version
        of Python cannot parse has none.
    """
    if workers is None:
        workers = 1 if multiprocessing.parent_process() is not None else _num_cores()
    by_size = sorted(range(len(files)), key=lambda i: files[i].stat().st_size, reverse=True)
    num_chunks = min(len(files) // _LEAST_FILES_PER_CHUNK, workers * _CHUNKS_PER_WORKER) or 1
    chunks = [by_size[start::num_chunks] for start in range(num_chunks)]
    paths = [[os.fspath(files[i]) for i in chunk] for chunk in chunks]
    found: dict[int, Found] = {}
    for number, entries in _read_chunks(paths, workers):
        found.update(zip(chunks[number], entries, strict=True))
        progress(len(found), len(files), "reading docstrings")
    return [found[i] for i in range(len(files))]


def _num_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read_chunks(chunks: list[list[str]], workers: int) -> Iterator[tuple[int, list[Found]]]:
    """Yield (number of the chunk, docstrings of its files) as chunks become ready."""
    left = set(range(len(chunks)))
    if workers > 1 and len(chunks) > 1 and sys.executable:
        pool = ThreadPoolExecutor(workers)
        try:
            futures = {pool.submit(_read_elsewhere, chunk): n for n, chunk in enumerate(chunks)}
            for future in as_completed(futures):
                if (entries := future.result()) is not None:
                    left.remove(futures[future])
                    yield futures[future], entries
        finally:
            pool.shutdown(cancel_futures=True)
    for number in sorted(left):
        yield number, _read_here(chunks[number])


def _read_elsewhere(paths: list[str]) -> list[Found] | None:
    """Read files in a fresh interpreter; None if the system does not let us have one."""
    command = [sys.executable, "-I", "-S", __file__]
    try:
        done = subprocess.run(
            command, input=json.dumps(paths), capture_output=True, text=True, check=True
        )
        found: list[Found] = json.loads(done.stdout)
        return found
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None


def _read_here(paths: Iterable[str]) -> list[Found]:
    """Read files in this process."""
    collecting = gc.isenabled()
    gc.disable()  # syntax trees hold no cycles; searching them took up to a third of the time
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            return [_read_file(path) for path in paths]
    finally:
        if collecting:
            gc.enable()


def _read_file(path: str) -> Found:
    """Return the docstrings of one file, none if it cannot be parsed."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = []
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, name = waiting.pop()
        if (kind := _KINDS.get(type(node))) is not None:
            name = f"{name}.{getattr(node, 'name', '')}".strip(".")
            if text := ast.get_docstring(node):  # type: ignore[arg-type]
                # A lone surrogate can be written in a source file but not in UTF-8.
                found.append([name, kind, text.encode("utf-8", "replace").decode()])
        below = [child for block in _BLOCKS for child in getattr(node, block, None) or ()]
        waiting += [(child, name) for child in reversed(below) if isinstance(child, _HOLDERS)]
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_read_here(json.load(sys.stdin))))
