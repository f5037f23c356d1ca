"""What a run can be written as for others to use, one format a file."""

from peftkit.formats._format import Format

__all__ = ["Format"]
