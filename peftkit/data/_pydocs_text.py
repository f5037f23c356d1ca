"""Rows of the task `pydocs/text`, for language modelling: a docstring a row.

1. A text is a docstring without its markers of versions and lines that are only filled in when the
   library is imported (`%(name)s`), with no trailing blanks and at most one empty line in a row. It
   has at least 200 characters, three in five of them letters, and is cut at the last line that ends
   within 4,000.
2. A text found twice is kept once.
3. No train text comes from a file that any task of the corpus holds out: who trains on this text
   first has not read the test rows of another task, unless another file holds a copy of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from peftkit.data._docstrings import Docstring
from peftkit.data._pydocs_split import Item, Sizes, each_once, item

NAME = "text"
VERSION = 1
SIZES = Sizes(test=350, validation=350)
SOURCE = "docstrings"
RULES = (
    "200 to 4,000 characters a text; no train text is from a file that another task of the bundled "
    "corpus holds out"
)

SHORTEST = 200
LONGEST = 4000

_NO_CONTENT = re.compile(
    r"\s*(?:\.\. (?:version(?:added|changed)|currentmodule|module)::|%\(.*\)s\s*$)"
)
_EMPTY_LINES = re.compile(r"\n{3,}")


def items(docstrings: Iterable[Docstring]) -> list[Item]:
    """Make rows of docstrings."""
    found = []
    for docstring in docstrings:
        text = cut(clean(docstring.text), LONGEST)
        if len(text) >= SHORTEST and 5 * sum(map(str.isalpha, text)) >= 3 * len(text):
            found.append(item(docstring.file, text, {"text": text}))
    return each_once(found)


def clean(text: str) -> str:
    """Return a docstring without what says nothing."""
    lines = [line.rstrip() for line in text.split("\n") if not _NO_CONTENT.match(line)]
    return _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip("\n")


def cut(text: str, longest: int) -> str:
    """Return the whole lines that fit."""
    return text if len(text) <= longest else text[:longest].rpartition("\n")[0].rstrip()
