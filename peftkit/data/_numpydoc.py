"""Parameters in numpydoc's layout, in a section "Parameters" or "Other Parameters".

    axis : int, optional
        Axis along which to sum. The default is None.

Reference: https://numpydoc.readthedocs.io/en/latest/format.html, section "Parameters".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from peftkit.data._entries import Entry, make_entry

_SECTIONS = ("Parameters", "Other Parameters")
_UNDERLINE = re.compile(r"(-{3,}|={3,})\s*")
_HEAD = re.compile(
    r"(?P<names>\\?\*{0,2}\w+(?:\s*,\s*(?:\\?\*{0,2}\w+|\.{3}))*(?:\.{3})?)(?:\s*(?P<colon>:).*)?"
)
_NAME = re.compile(r"\w+")
_DIRECTIVE = re.compile(r"\n\s*\.\. ")


def sections(docstring: str) -> Iterator[list[Entry | None]]:
    """Yield the entries of each section; None stands where something else interrupts them."""
    lines = docstring.split("\n")
    heads = [
        i
        for i, underline in enumerate(lines[1:])
        if underline[:1] in ("-", "=")
        and lines[i][:1].isalpha()
        and _UNDERLINE.fullmatch(underline)
    ]
    for head, after in zip(heads, [*heads, len(lines)][1:], strict=True):
        if lines[head].strip() in _SECTIONS:
            yield list(_entries(lines[head + 2 : after]))


def _entries(lines: list[str]) -> Iterator[Entry | None]:
    """Cut the lines of a section into entries."""
    block: list[str] = []
    for line in [*lines, "end"]:
        if line[:1].strip() and block:
            yield parse("\n".join(block))
            block = []
        if block or line.strip():
            block.append(line)


def parse(text: str) -> Entry | None:
    """Read one entry, None if it is none; what follows a directive is left out."""
    text = _DIRECTIVE.split(text, maxsplit=1)[0].rstrip()
    first = text.partition("\n")[0]
    head = _HEAD.fullmatch(first.rstrip())
    if head is None:
        return None
    names = [name.span() for name in _NAME.finditer(first, *head.span("names"))]
    colon = head.start("colon") if head["colon"] else None
    typed = None if colon is None else (colon + 1, len(first))
    return make_entry(text, names, colon, typed, len(first))
