"""The data check in a terminal: one line a check, and rows with what is trained on marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from peftkit.reporting.notes import counted
from peftkit.reporting.terminal import plain

if TYPE_CHECKING:
    from peftkit.checks import Finding
    from peftkit.checks.shown import Piece, ShownRow

_MARKS = {
    "ok": ("\u2713", "green"),
    "warning": ("!", "bold yellow"),
    "error": ("\u2717", "bold red"),
    "skipped": ("-", "dim"),
}
_BETWEEN = "|"
OPEN, CLOSE = "[[", "]]"


def print_findings(
    heading: str, findings: Sequence[Finding], notes: Sequence[str], console: Console
) -> None:
    """Print each check with its mark, what it counted, and where to look."""
    console.print(Text(plain(heading, console), style="bold"))
    grid = Grid.grid(padding=(0, 2, 0, 0))
    for name in ("mark", "check", "text"):
        grid.add_column(name, no_wrap=name != "text")
    for found in findings:
        sign, style = _MARKS[found.level]
        mark = plain(sign, console).replace("?", found.level[0])
        grid.add_row(
            Text(f"{mark} {found.level}", style=style),
            found.check,
            Text(plain(found.text, console), style=style if found.level == "error" else ""),
        )
        where = ": ".join(part for part in (found.example, found.quote) if part)
        if where and found.level != "ok":
            grid.add_row("", "", Text(plain(where, console), style="dim"))
    console.print(grid)
    for note in notes:
        console.print(Text(plain(f"Note: {note}.", console), style="dim"))
    levels = [found.level for found in findings]
    ending = [counted(levels.count(level), level) for level in ("error", "warning")]
    console.print(Text(", ".join(ending), style="bold"))


def print_rows(rows: Sequence[ShownRow], console: Console) -> None:
    """Print rows token by token; what is trained on is green, or in brackets without colours."""
    coloured = console.is_terminal and not console.no_color
    how = "green" if coloured else f"in {OPEN} {CLOSE}"
    console.print()
    console.print(Text(f"Rows as the backbone reads them; {how}: what is trained on.", "bold"))
    for row in rows:
        console.print()
        console.print(Text(row.title, style="dim"))
        for name, pieces in row.parts.items():
            line = Text(f"{name}: " if name else "")
            line.append_text(_coloured(pieces) if coloured else _bracketed(pieces))
            console.print(Text(plain(line.plain, console), spans=line.spans))
        if row.answer:
            answer = plain(row.answer, console)
            console.print(
                Text("answer: ").append_text(
                    Text(answer, "bold green") if coloured else Text(f"{OPEN}{answer}{CLOSE}")
                )
            )


def _coloured(pieces: Sequence[Piece]) -> Text:
    text = Text()
    for i, piece in enumerate(pieces):
        text.append(_BETWEEN if i else "", "dim")
        text.append(_spelled(piece), "bold green" if piece.trained else "")
    return text


def _bracketed(pieces: Sequence[Piece]) -> Text:
    """The same without colours: a pair of brackets around tokens that follow each other."""
    text, before = "", False
    for i, piece in enumerate(pieces):
        text += CLOSE if before and not piece.trained else ""
        text += _BETWEEN if i else ""
        text += OPEN if piece.trained and not before else ""
        text += _spelled(piece)
        before = piece.trained
    return Text(text + (CLOSE if before else ""))


def _spelled(piece: Piece) -> str:
    text = piece.text.replace("\n", "\\n")
    return f"{text}/{piece.label}" if piece.label else text
