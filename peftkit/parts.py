"""Finds methods, tasks and formats by the name of the file that defines them.

A part is a module below `peftkit/methods`, `peftkit/tasks` or `peftkit/formats` whose name does not
start with an underscore, an entry point of the group `peftkit.methods`, `peftkit.tasks` or
`peftkit.formats`, or a class in any file: `path/to/file.py:Class`. There is no list to edit.
Finding imports nothing; loading imports the one module that was named.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, overload

from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

    from peftkit.methods._method import Method
    from peftkit.tasks._task import Task

Kind = Literal["method", "task", "format"]
PEFT_PREFIX = "peft:"
"""What the names of PEFT's own methods begin with."""
TEXT_TASK = "text_classification"
"""The task that a bare path of a data file stands for."""

# The name a class was loaded by, where its own module does not give it away.
_loaded_as: dict[type, str] = {}


def find(kind: Kind) -> tuple[str, ...]:
    """Return the sorted names of all parts of a kind, without importing any of them."""
    return tuple(sorted({*_files(kind), *(point.name for point in _plugged_in(kind))}))


@overload
def load(kind: Literal["method"], name: str) -> type[Method]: ...
@overload
def load(kind: Literal["task"], name: str) -> type[Task]: ...
@overload
def load(kind: Literal["format"], name: str) -> type[Any]: ...
def load(kind: Kind, name: str) -> type[Any]:
    """Return the class of a part, importing only the module that defines it.

    Args:
        kind: What the name names.
        name: A name that `find` returns (case does not matter, a dash is an underscore), or
            `path/to/file.py:Class`.

    Raises:
        UnknownName: Nothing has this name.
        InvalidInput: The file or the class in it does not exist, or cannot be imported.
    """
    if ".py:" in name or name.endswith(".py"):
        return _load_outside(kind, name)
    plain = _plain(name)
    if kind == "method" and plain.startswith(PEFT_PREFIX):
        from peftkit.methods._passthrough import method_class

        return _checked(kind, method_class(plain.removeprefix(PEFT_PREFIX)), plain)
    if plain in _files(kind):
        return _only_class(kind, importlib.import_module(f"peftkit.{kind}s.{plain}"))
    for point in _plugged_in(kind):
        if point.name in (name, plain):
            return _checked(kind, _imported(point.load, point.value), point.name)
    raise UnknownName(
        kind,
        plain,
        find(kind),
        next_step=f"`peftkit list {kind}s` describes each; a {kind} of your own is named as "
        "path/to/file.py:Class",
    )


def load_task(name: str, options: Collection[str] = ()) -> tuple[type[Task], dict[str, Any]]:
    """Return the class that a task's name stands for, and the options that the name implies.

    Args:
        name: A name that `load` knows, a bundled corpus (such as `pydocs/library`), or the path
            of a file or folder, which is text to classify.
        options: Names of the options given with it.

    Raises:
        UnknownName: The name is none of these.
        InvalidInput: See `load`.
    """
    if _plain(name) in find("task") or ".py:" in name:
        return load("task", name), {}
    classes = [load("task", part) for part in find("task")]
    corpora = {corpus: cls for cls in classes for corpus in cls.corpora}
    if name in corpora:
        return corpora[name], {"data": name}
    if Path(name).expanduser().exists() and "data" not in options:
        return load("task", TEXT_TASK), {"data": name}
    raise UnknownName(
        "task",
        name,
        {*find("task"), *corpora},
        next_step=f"no file or folder is called so here ({Path.cwd()}); for a data set of the "
        f"hub: --task {TEXT_TASK} --task.data {name}",
    )


def name_of(cls: type) -> str:
    """Return the name by which `load` finds this class again.

    Raises:
        InvalidInput: The class cannot be found again, because no file holds it at its top level.
    """
    if cls in _loaded_as:
        return _loaded_as[cls]
    for folder in ("methods", "tasks", "formats"):
        prefix = f"peftkit.{folder}."
        if cls.__module__.startswith(prefix):
            return cls.__module__.removeprefix(prefix).partition(".")[0]
        kind: Any = folder.removesuffix("s")
        for point in _plugged_in(kind):
            if point.value == f"{cls.__module__}:{cls.__qualname__}":
                return str(point.name)
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None or "." in cls.__qualname__:
        raise InvalidInput(
            f"{cls.__qualname__} cannot be written into a recipe, because it cannot be found again",
            allowed="a class at the top level of a file",
            next_step="move the class into a file and name it as path/to/file.py:Class",
        )
    relative = os.path.relpath(file)
    return f"{file if relative.startswith('..') else relative}:{cls.__qualname__}"


def source_file(cls: type) -> Path | None:
    """Return the file that a class outside of installed packages is defined in.

    Raises:
        InvalidInput: See `name_of`.
    """
    if ".py:" not in name_of(cls):
        return None
    return Path(str(sys.modules[cls.__module__].__file__))


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_")


@functools.cache
def _files(kind: Kind) -> frozenset[str]:
    folder = Path(__file__).parent / f"{kind}s"
    modules = pkgutil.iter_modules([str(folder)])
    return frozenset(module.name for module in modules if not module.name.startswith("_"))


@functools.cache
def _entry_points(group: str) -> EntryPoints:
    from importlib.metadata import entry_points  # 25 ms that loading by file name does not need

    return entry_points(group=group)


def _plugged_in(kind: Kind) -> EntryPoints:
    return _entry_points(f"peftkit.{kind}s")


def _base(kind: Kind) -> type:
    module = importlib.import_module(f"peftkit.{kind}s._{kind}")
    base: type = getattr(module, kind.capitalize())
    return base


def _classes(kind: Kind, module: ModuleType) -> dict[str, type]:
    """Return the public classes of a kind that a module itself defines."""
    base = _base(kind)
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value is not base
        and not name.startswith("_")
        and (value.__module__ + ".").startswith(module.__name__ + ".")
    }


def _only_class(kind: Kind, module: ModuleType) -> type:
    """Return the one public class of a part file, or the one that is called like the file."""
    classes = _classes(kind, module)
    stem = module.__name__.rpartition(".")[2].replace("_", "")
    chosen = [c for name, c in classes.items() if name.lower() == stem] or list(classes.values())
    if len(chosen) != 1:
        raise InvalidInput(
            f"{module.__file__} must define one public subclass of {_base(kind).__name__}",
            received=", ".join(classes) or "none",
            next_step="give other classes a leading underscore or a file of their own",
        )
    return _checked(kind, chosen[0], None)


def _load_outside(kind: Kind, name: str) -> type:
    file, class_name = (name, "") if name.endswith(".py") else name.rsplit(":", 1)
    path = Path(file).expanduser()
    if not path.is_file():
        raise InvalidInput(
            f"there is no file {file}",
            received=name,
            allowed=f"path/to/file.py:Class, or one of {', '.join(find(kind))}",
            next_step=f"check the path; it is looked up from {Path.cwd()}",
        )
    classes = _classes(kind, _imported(lambda: _import_file(path.resolve()), file))
    if class_name not in classes:
        raise UnknownName(
            f"{kind} class in {file}:",
            class_name,
            classes,
            next_step=f"name one of them as {file}:Class"
            if classes
            else f"define a subclass of peftkit's {_base(kind).__name__} there",
        )
    return _checked(kind, classes[class_name], name)


def _import_file(path: Path) -> ModuleType:
    """Import a file once, under a name that no other file can have."""
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    name = f"peftkit_outside_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before execution: dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _imported(importer: Any, where: str) -> Any:
    try:
        return importer()
    except Exception as error:
        raise InvalidInput(
            f"{where} cannot be imported",
            received=f"{type(error).__name__}: {error}",
            next_step=f"run `python {where}` alone" if where.endswith(".py") else None,
        ) from error


def _checked(kind: Kind, cls: Any, loaded_as: str | None) -> type:
    """Return a loaded class after checking what everything else relies on."""
    base = _base(kind)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise InvalidInput(f"{loaded_as} is not a {kind}", received=cls, allowed=f"a {base}")
    if dataclasses.is_dataclass(cls) and "name" in {f.name for f in dataclasses.fields(cls)}:
        raise InvalidInput(
            f"{cls.__qualname__} has an option called name, which is the {kind}'s own in a recipe",
            next_step="call the option something else",
        )
    if loaded_as is not None:
        _loaded_as[cls] = loaded_as
    return cls
