"""Packages that only some inputs need, asked for by name before another library fails."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from peftkit.errors import InvalidInput

# What rows hold -> the module that reads it, and the package that brings the module. The extra of
# pyproject.toml is called as the input.
_READERS = {"image": ("PIL", "pillow"), "audio": ("soundfile", "soundfile")}


def require_reader(inputs: str) -> None:
    """Raise unless what reads `inputs` is installed; text needs nothing more.

    Raises:
        InvalidInput: With the command that installs it.
    """
    module, package = _READERS.get(inputs, (None, None))
    if module is not None and importlib.util.find_spec(module) is None:
        raise InvalidInput(
            f"{inputs} data is read with {package}, which is not installed",
            next_step=f"pip install 'peftkit[{inputs}]' (or pip install {package})",
        )


def require_packages(modules: Sequence[str], *, extra: str) -> None:
    """Raise unless all `modules` are installed.

    Args:
        modules: Names as they are imported; those of the packages are the same.
        extra: The extra of pyproject.toml that brings them.

    Raises:
        InvalidInput: With the command that installs them.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidInput(
            f"{', '.join(missing)} is needed for this and not installed",
            next_step=f"pip install 'peftkit[{extra}]' (or pip install {' '.join(missing)})",
        )
