"""From the records in a folder to a table, in the terminal and as files. Never imports torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from peftkit.reporting.summary import Table
    from peftkit.verdict.from_table import Studied

__all__ = ["Report", "report"]


@dataclass(frozen=True)
class Report:
    """What a report found and wrote.

    Attributes:
        tables: One table for each set of runs that may be compared.
        problems: One message for each file that could not be read.
        files: The files written.
    """

    tables: tuple[Table, ...]
    problems: tuple[str, ...]
    files: tuple[Path, ...]


def report(
    *folders: Path | str,
    out: Path | str | None = None,
    price_per_hour: float | None = None,
    console: Console | None = None,
) -> Report:
    """Print the tables of the records in `folders`, and write them in several formats.

    Writes `table.md`, `table.csv`, `frontier.svg`, `frontier.png` and `report.html` (with the extra
    `html`); the same records give the same bytes. Files that are not whole records are named and
    left out.

    Args:
        folders: Output folders of studies, comparisons or runs.
        out: Where files go; none: the folder, if it is one.
        price_per_hour: What an hour of the device costs, in any currency; none: no prices.
        console: Where to print (standard output).

    Raises:
        InvalidInput: There is no such folder, or no whole record in it, or files cannot be written.
    """
    from peftkit.record import write_atomically
    from peftkit.reporting.consoles import standard_console
    from peftkit.reporting.plots import write_frontier
    from peftkit.reporting.tables import to_csv, to_markdown
    from peftkit.reporting.terminal import print_lines, print_tables
    from peftkit.verdict.from_table import read_studied, told_apart

    target = _target(folders, out)
    console = console or standard_console()
    studied = told_apart([read_studied(Path(folder)) for folder in folders])
    tables = [table for each in studied for table in each.tables]
    problems = [problem for each in studied for problem in each.problems]
    _make(target)
    print_tables(tables, console)
    print_lines([f"Left out: {problem}" for problem in problems], console, style="red")
    files = [target / "table.md", target / "table.csv"]
    write_atomically(files[0], to_markdown(tables))
    write_atomically(files[1], to_csv(tables))
    files += write_frontier(tables, target)
    files += _page(target, studied, price_per_hour, console)
    print_lines(["", f"Wrote {', '.join(file.name for file in files)} in {target}"], console)
    return Report(tuple(tables), tuple(problems), tuple(files))


def _target(folders: Sequence[Path | str], out: Path | str | None) -> Path:
    """Where files go."""
    from peftkit.errors import InvalidInput

    if not folders or (out is None and len(folders) != 1):
        raise InvalidInput(
            "one report of several folders needs a folder of its own" if folders
            else "the folder is missing",
            allowed="peftkit report DIR, or peftkit report DIR DIR --out DIR",
        )  # fmt: skip
    return Path(folders[0] if out is None else out)


def _make(target: Path) -> None:
    """Create the folder that files go to, before anything is printed."""
    from peftkit.errors import InvalidInput

    try:
        target.mkdir(parents=True, exist_ok=True)
        writable = os.access(target, os.W_OK)
    except OSError:  # a file, or below one
        writable = False
    if not writable:
        raise InvalidInput(
            f"the tables cannot be written to {target}", next_step="name another folder by --out"
        )


def _page(
    target: Path, studied: list[Studied], price_per_hour: float | None, console: Console
) -> list[Path]:
    """Write report.html, if its charts' library is there."""
    from importlib.util import find_spec

    from peftkit.reporting.page import write_page
    from peftkit.reporting.terminal import print_lines

    if find_spec("vl_convert") is None:
        print_lines(["", "For report.html: pip install 'peftkit[html]'"], console, style="dim")
        return []
    return [write_page(target, studied, price_per_hour)]
