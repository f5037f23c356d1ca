"""The names that `import peftkit` offers."""

from __future__ import annotations

import subprocess
import sys

import peftkit


def test_public_names_are_sorted_and_exist() -> None:
    assert peftkit.__all__ == sorted(peftkit.__all__)
    for name in peftkit.__all__:
        assert getattr(peftkit, name) is not None


def test_no_public_function_shares_a_submodules_name() -> None:
    import pkgutil

    modules = {module.name for module in pkgutil.iter_modules(peftkit.__path__)}

    assert not modules & set(peftkit.__all__)


def test_import_costs_no_torch() -> None:
    code = "import sys, peftkit; assert not {'torch', 'numpy'} & set(sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True)
