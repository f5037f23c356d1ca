"""Packages that only some inputs need, asked for by name before another library fails."""

from __future__ import annotations

import importlib.util

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
