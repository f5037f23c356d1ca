"""Parts are found by file name, loaded one at a time, and named so that they are found again."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peftkit import parts
from peftkit.errors import InvalidInput, UnknownName

OUTSIDE = """
from __future__ import annotations
from dataclasses import dataclass
from peftkit.methods._method import Method

@dataclass(frozen=True, kw_only=True)
class Scale(Method):
    width: int = 3

@dataclass(frozen=True, kw_only=True)
class _Hidden(Method):
    pass

class Unrelated:
    pass
"""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file outside the package that defines the method Scale."""
    path = tmp_path / "scale.py"
    path.write_text(OUTSIDE)
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A method folder with two files in place of the real one."""
    (tmp_path / "_private.py").write_text("raise ImportError('must not be imported')")
    (tmp_path / "boom.py").write_text("raise ImportError('must not be imported')")
    (tmp_path / "scale_up.py").write_text(
        OUTSIDE.replace("class Scale(", "class Other(Method):\n    pass\n\n\nclass ScaleUp(")
    )
    (tmp_path / "twins.py").write_text(OUTSIDE.replace("class _Hidden", "class Shown"))
    import peftkit.methods

    monkeypatch.setattr(peftkit.methods, "__path__", [*peftkit.methods.__path__, str(tmp_path)])
    monkeypatch.setattr(parts, "_files", lambda kind: frozenset({"boom", "scale_up", "twins"}))
    yield tmp_path
    for name in ("boom", "scale_up", "twins"):
        sys.modules.pop(f"peftkit.methods.{name}", None)


def test_find_lists_file_names_and_skips_private_ones() -> None:
    """The names are those of the files in the folder, sorted, underscored ones left out."""
    folder = Path(parts.__file__).parent / "methods"
    files = {p.stem for p in folder.glob("*.py")} | {
        p.parent.name for p in folder.glob("*/__init__.py")
    }

    found = list(parts.find("method"))

    assert found == sorted(found)
    assert {name for name in files if not name.startswith("_")} <= set(found)
    assert not [name for name in found if name.startswith("_")]


@pytest.mark.usefixtures("package")
def test_load_imports_only_the_module_it_was_asked_for() -> None:
    """A part whose file cannot be imported does not disturb its neighbours."""
    cls = parts.load("method", "scale_up")

    assert cls.__name__ == "ScaleUp"  # named like its file, so `Other` beside it is no obstacle
    assert parts.name_of(cls) == "scale_up"
    assert "peftkit.methods.boom" not in sys.modules


@pytest.mark.usefixtures("package")
def test_load_takes_dashes_and_capitals() -> None:
    """Names may be typed as flags are, and come back in their one spelling."""
    assert parts.load("method", "Scale-Up") is parts.load("method", "scale_up")


@pytest.mark.usefixtures("package")
def test_a_file_with_two_candidates_is_refused() -> None:
    """A part file that leaves open which class it is about names them."""
    with pytest.raises(InvalidInput, match=r"one public subclass.*Received: Scale, Shown"):
        parts.load("method", "twins")


@pytest.mark.usefixtures("package")
def test_unknown_name_suggests_the_nearest() -> None:
    """A misspelt name gets a suggestion and the command that lists all."""
    with pytest.raises(UnknownName, match=r"'scale_upp'.*Did you mean 'scale_up'.*list methods"):
        parts.load("method", "scale_upp")


def test_a_class_in_any_file_loads_and_keeps_the_name_it_was_given(
    outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`path:Class` works with relative paths, gives one class, and round-trips as given."""
    monkeypatch.chdir(outside.parent)
    absolute: Any = parts.load("method", f"{outside}:Scale")

    relative: Any = parts.load("method", "scale.py:Scale")

    assert relative is absolute
    assert relative().width == 3
    assert parts.name_of(relative) == "scale.py:Scale"


def test_name_of_finds_the_file_of_a_class_that_was_imported_plainly(
    outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class that a script imported by itself is named by the file it came from."""
    monkeypatch.syspath_prepend(outside.parent)
    monkeypatch.chdir(outside.parent)
    import importlib

    module = importlib.import_module("scale")
    monkeypatch.delitem(sys.modules, "scale", raising=False)
    monkeypatch.setitem(sys.modules, "scale", module)

    assert parts.name_of(module.Scale) == "scale.py:Scale"


def test_name_of_refuses_a_class_inside_a_function() -> None:
    """A class that nobody can find again is refused, with the way out."""

    class Local:
        pass

    with pytest.raises(InvalidInput, match="cannot be found again"):
        parts.name_of(Local)


@pytest.mark.parametrize("ending", [":Scala", ""])
def test_a_missing_class_names_those_in_the_file(outside: Path, ending: str) -> None:
    """Only the public methods of the file are offered."""
    with pytest.raises(InvalidInput, match=r"Allowed: Scale\."):
        parts.load("method", f"{outside}{ending}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message says which file, and from where it was looked up."""
    with pytest.raises(InvalidInput, match=r"there is no file .*nowhere\.py"):
        parts.load("method", f"{tmp_path}/nowhere.py:Scale")


def test_a_method_is_no_task(outside: Path) -> None:
    """A class of the wrong kind is not offered as a task."""
    with pytest.raises(InvalidInput, match="define a subclass of peftkit's Task"):
        parts.load("task", f"{outside}:Scale")


def test_a_file_that_fails_on_import_can_be_repaired_and_loaded(tmp_path: Path) -> None:
    """The cause is shown, and a failed import leaves nothing half-made behind."""
    path = tmp_path / "broken.py"
    path.write_text("import does_not_exist_anywhere")
    with pytest.raises(InvalidInput, match="ModuleNotFoundError: No module named"):
        parts.load("method", f"{path}:Scale")
    path.write_text(OUTSIDE)

    assert parts.load("method", f"{path}:Scale").__name__ == "Scale"


def test_an_option_called_name_is_refused(tmp_path: Path) -> None:
    """Recipes use `name` for the part itself."""
    path = tmp_path / "named.py"
    path.write_text(OUTSIDE.replace("width: int = 3", "name: str = 'x'"))

    with pytest.raises(InvalidInput, match="option called name"):
        parts.load("method", f"{path}:Scale")


def test_entry_points_are_parts(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method of an installed package is found, loaded and named by its entry point."""
    monkeypatch.syspath_prepend(outside.parent)
    monkeypatch.delitem(sys.modules, "scale", raising=False)
    point = importlib.metadata.EntryPoint("plugged", "scale:Scale", "peftkit.methods")
    monkeypatch.setattr(parts, "_plugged_in", lambda kind: [point] if kind == "method" else [])

    assert "plugged" in parts.find("method")
    cls = parts.load("method", "plugged")
    assert cls.__name__ == "Scale"
    assert parts.name_of(cls) == "plugged"
    monkeypatch.setattr(parts, "_loaded_as", {})
    assert parts.name_of(cls) == "plugged"


def test_neither_torch_nor_any_part_is_imported_by_finding() -> None:
    """`peftkit list` and `--help` must start at once."""
    code = (
        "import sys; from peftkit import parts, flags, recipe\n"
        "for kind in ('method', 'task', 'format'): parts.find(kind)\n"
        "heavy = {'torch', 'transformers', 'peft', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "folders = ('peftkit.methods.', 'peftkit.tasks.')\n"
        "loaded = [m for m in sys.modules if m.startswith(folders)]\n"
        "print(sorted(heavy), sorted(loaded))"
    )
    root = Path(parts.__file__).parents[1]

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )

    assert done.stdout.strip() == "[] ['peftkit.methods._method', 'peftkit.tasks._task']"
