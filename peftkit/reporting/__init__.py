"""From the records in a folder to a table, in the terminal and as files. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from peftkit.reporting.summary import Table

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


def report(folder: Path | str, *, console: Console | None = None) -> Report:
    """Print the table of the records in `folder`, and write it there in several formats.

    Writes `table.md`, `table.csv`, `frontier.svg` and `frontier.png`; the same records give the
    same bytes. Files that are not whole records are named and left out.

    Args:
        folder: Output folder of a comparison or a run.
        console: Where to print (standard output).

    Raises:
        InvalidInput: There is no such folder, or no whole record in it.
    """
    from peftkit.errors import InvalidInput
    from peftkit.record import read_records, write_atomically
    from peftkit.reporting.consoles import standard_console
    from peftkit.reporting.plots import write_frontier
    from peftkit.reporting.summary import summarise
    from peftkit.reporting.tables import to_csv, to_markdown
    from peftkit.reporting.terminal import print_lines, print_tables

    folder = Path(folder)
    console = console or standard_console()
    records, problems = read_records(folder)
    if not records:
        raise InvalidInput(
            f"no whole record in {folder}",
            received="; ".join(problems),
            next_step="delete these files and run the same command again",
        )
    tables = summarise(records)
    print_tables(tables, console)
    print_lines([f"Not read: {problem}" for problem in problems], console, style="red")
    files = [folder / "table.md", folder / "table.csv"]
    write_atomically(files[0], to_markdown(tables))
    write_atomically(files[1], to_csv(tables))
    files += write_frontier(tables, folder)
    print_lines(["", f"Wrote {', '.join(file.name for file in files)} in {folder}"], console)
    return Report(tuple(tables), tuple(problems), tuple(files))
