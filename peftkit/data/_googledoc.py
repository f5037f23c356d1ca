"""Parameters with a type in the layout of Google's style guide.

    hidden_size (`int`, *optional*, defaults to 768):
        Dimension of the encoder layers.

Lists of such entries are taken wherever they stand, also without a heading such as "Args:", as many
libraries write them, but not below "Returns:" and the like.

Reference: https://google.github.io/styleguide/pyguide.html, section 3.8.3.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from peftkit.data._entries import Entry, make_entry

_HEAD = re.compile(r"(?P<indent> *)(?P<name>\*{0,2}\w+) ?\((?P<type>\S.*?)\) ?(?P<colon>:)(?!\S)")
_NAME = re.compile(r"\w+")
_HEADING = re.compile(r" *(?P<title>[A-Z][\w ]*):{1,2}\s*")
_NO_PARAMETERS = re.compile(r"(?:returns?|yields?|raises?|examples?|outputs?)\b", re.IGNORECASE)


def sections(docstring: str) -> Iterator[list[Entry | None]]:
    """Yield the entries of each list; None stands where something else interrupts them."""
    if "):" not in docstring:
        return
    entries: list[Entry | None] = []
    block: list[str] = []
    indent = 0
    parameters = True
    for line in [*docstring.split("\n"), "end"]:
        own = len(line) - len(line.lstrip())
        if block and (not line.strip() or own > indent):
            block.append(line)
            continue
        if block:
            entries.append(parse(textwrap.dedent("\n".join(block)).rstrip()))
            block = []
        head = _HEAD.match(line)
        if head and parameters and (not entries or own == indent):
            block, indent = [line], own
            continue
        if line.strip() and entries:
            yield entries
            entries = []
        if heading := _HEADING.fullmatch(line):
            parameters = not _NO_PARAMETERS.match(heading["title"])


def parse(text: str) -> Entry | None:
    """Read one entry, None if it is none."""
    head = _HEAD.match(text)
    if head is None:
        return None
    names = [name.span() for name in _NAME.finditer(text, *head.span("name"))]
    return make_entry(text, names, head.start("colon"), head.span("type"), head.end())
