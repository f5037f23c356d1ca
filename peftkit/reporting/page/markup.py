"""Text as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def text(value: object) -> str:
    """A value, escaped."""
    return html.escape(str(value))


def marked(value: str) -> str:
    """Escaped text whose `quoted` words are code."""
    pieces = text(value).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))


def listed(lines: Iterable[str]) -> str:
    """Lines of text, quoted words as code, as a list; nothing where there are none."""
    items = "".join(f"<li>{marked(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A sortable table whose first column is a name and whose others are numbers as text."""
    first, *others = heads
    head = f"<th class=text><button>{text(first)}</button></th>"
    head += "".join(f"<th><button>{text(name)}</button></th>" for name in others)
    body = "".join(
        f'<tr><td class="text" data-value="{text(name)}"><code>{text(name)}</code></td>'
        + "".join(f'<td data-value="{_key(cell)}">{text(cell)}</td>' for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _key(cell: str) -> str:
    """What a cell is sorted by: its number, or nothing."""
    number = cell.replace(",", "")
    try:
        float(number)
    except ValueError:
        return ""
    return number
