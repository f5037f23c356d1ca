"""Rows of the task `pydocs/summary`: from the body of a docstring to its first sentence.

    text     "The rows are kept in the order in which they were read. Rows that ..."
    summary  "Return all rows of a table."

1. The summary is the first sentence, on one line: at least four words, at most 250 characters, no
   directive, heading, signature or address, and not the beginning of a list.
2. The text is the rest, cleaned as in `pydocs/text` and cut at the last line that ends within 2,000
   characters. It has at least 30 words, and does not contain the summary word by word.
3. A text found twice, or a summary found twice, is kept once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from peftkit.data._docstrings import Docstring
from peftkit.data._pydocs_library import NO_PROSE
from peftkit.data._pydocs_split import Item, Sizes, each_once, item, words_of
from peftkit.data._pydocs_text import clean, cut

NAME = "summary"
VERSION = 1
SIZES = Sizes(test=1000, validation=600)
SOURCE = "docstrings and their first sentences"
RULES = (
    "texts of 30 words to 2,000 characters that do not contain their summary, summaries of 4 words "
    "to 250 characters, no text and no summary twice"
)

LONGEST_TEXT = 2000
SHORTEST_TEXT = 30  # words
LONGEST_SUMMARY = 250
SHORTEST_SUMMARY = 4  # words

_PARAGRAPH_END = re.compile(r"\n\s*\n|\Z")
# Not behind an abbreviation, an initial, or the number of a list.
_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)(?<!cf\.)(?<!al\.)(?<!Eq\.)(?<!Fig\.)"
    r"(?<!\W[A-Z]\.)(?<!\W\d\.)\s+(?=[A-Z`\"'(\[*:0-9])"
)
_NO_SUMMARY = re.compile(
    r"(?:note|warning|internal)\b|[^A-Za-z`\"'\[]|[\w.]+ ?\(.*\)\s*(?::|-|$)"
    r"|.*(?:https?://|deprecated|>>>|:? - |\b(?:args|returns|parameters|input):\s)"
    r"|.*(?:\(for example\)|[:;,]|\s(?:via|of|the|and|by|with|to))$",
    re.IGNORECASE,
)


def items(docstrings: Iterable[Docstring]) -> list[Item]:
    """Make rows of docstrings."""
    found: dict[str, Item] = {}
    for docstring in docstrings:
        text, summary = pair(clean(docstring.text))
        if is_usable(text, summary):
            one = item(docstring.file, text, {"text": text, "summary": summary})
            found.setdefault(words_of(summary), one)
    return each_once(found.values())


def pair(docstring: str) -> tuple[str, str]:
    """Split a docstring behind its first sentence: what follows, and the sentence."""
    end = _PARAGRAPH_END.search(docstring)
    assert end is not None
    stop = _SENTENCE_END.search(docstring, 0, end.start()) or end
    summary = " ".join(docstring[: stop.start()].split())
    return cut(docstring[stop.end() :].strip("\n"), LONGEST_TEXT), summary


def is_usable(text: str, summary: str) -> bool:
    """Whether a pair is worth being asked for."""
    if len(summary) > LONGEST_SUMMARY or len(summary.split()) < SHORTEST_SUMMARY:
        return False
    if NO_PROSE.match(summary) or _NO_SUMMARY.match(summary):
        return False
    words = words_of(text)
    return words.count(" ") >= SHORTEST_TEXT - 1 and words_of(summary) not in words
