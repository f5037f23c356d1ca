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

    Writes `table.md`, `table.csv`, `frontier.svg`, `frontier.png` and `report.html` (with the extra
    `html`); the same records give the same bytes. Files that are not whole records are named and
    left out.

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
    files += _page(folder, tables, console)
    print_lines(["", f"Wrote {', '.join(file.name for file in files)} in {folder}"], console)
    return Report(tuple(tables), tuple(problems), tuple(files))


def _page(folder: Path, tables: list[Table], console: Console) -> list[Path]:
    """Write report.html, if its charts' library is there."""
    from importlib.util import find_spec

    from peftkit.reporting.page import write_page
    from peftkit.reporting.terminal import print_lines
    from peftkit.verdict.from_table import judge_tables, looks_of, read_design

    if find_spec("vl_convert") is None:
        print_lines(["", "For report.html: pip install 'peftkit[html]'"], console, style="dim")
        return []
    design = read_design(folder)
    verdicts = judge_tables(tables, design.get("margin"), looks_of(design))
    found = {id(table): verdict for table, verdict in verdicts}
    return [write_page(folder, [(table, found.get(id(table))) for table in tables], design)]
