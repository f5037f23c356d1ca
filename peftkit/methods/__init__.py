"""How a backbone is adapted, one method a file."""

from peftkit.methods._method import Method, Rung

__all__ = ["Method", "Rung"]
