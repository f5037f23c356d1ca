"""Rows of the task `pydocs/parameters`: which words name a parameter, its type, its default?

    tokens  side    int     or      str     ,  optional  Which end  .  Default is  'left'
    tags    B-name  B-type  I-type  I-type  O  O         O     O    O  O       O   B-default

1. A row is a run of consecutive entries of one section in numpydoc's layout, at least two, as many
   as 64 words hold. An entry is its first line and the first paragraph of its description, cut
   after the last sentence that ends within 40 words.
2. The layout says what is what, so it is taken away: line breaks, indentation, the colon behind the
   names, backticks, roles and emphasis. What is left is running text, in which nothing but the
   words tells where an entry begins and where its type ends. Punctuation marks are words.
3. Tags are BIO with the types `name`, `type` (without "optional" and the like) and `default`
   (wherever a value is stated to be one, see `_entries`).
4. A text found twice is kept once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from peftkit.data._docstrings import Docstring
from peftkit.data._entries import Entry
from peftkit.data._numpydoc import sections
from peftkit.data._pydocs_split import Item, Sizes, each_once, item

NAME = "parameters"
VERSION = 1
SIZES = Sizes(test=1000, validation=600)
SOURCE = "parameters in the docstrings"
RULES = (
    "runs of at least two entries of a section, at most 64 words; entries without their layout, "
    "cut after the last sentence that ends within 40 words"
)

LONGEST_ROW = 64
LONGEST_ENTRY = 40
SHORTEST_ROW = 12

_PIECE = re.compile(
    r"""(?P<markup>
        :[a-z]+(?::[a-z]+)?:(?=`) | `+~? | \s<[^<>`\n]+>(?=`) | (?<=[]`])_+ | \\
        | (?<!\w)\*{1,2}(?=\w) | (?<=\w)\*{1,2}(?!\w)
    )
    | "[^"\s]*" | '[^'\s]*' | \w+(?:[-.'/]\w+)* | [-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?
    | \.{3} | [^\w\s]""",
    re.VERBOSE,
)
_PARAGRAPH_END = re.compile(r"\n\s*\n")
_SENTENCE_ENDS = frozenset(".!?")
_ABBREVIATIONS = frozenset({"e.g", "i.e", "etc", "vs", "cf", "al"})

Word = tuple[str, str]
"""A word and its tag."""


def items(docstrings: Iterable[Docstring]) -> list[Item]:
    """Make rows of docstrings."""
    found = []
    for docstring in docstrings:
        for section in sections(docstring.text):
            for run in runs(section):
                tokens, tags = map(list, zip(*run, strict=True))
                found.append(
                    item(docstring.file, " ".join(tokens), {"tokens": tokens, "tags": tags})
                )
    return each_once(found)


def runs(section: Sequence[Entry | None]) -> Iterator[list[Word]]:
    """Yield the words of runs of entries."""
    run: list[Word] = []
    entries = 0
    for entry in [*section, None]:
        words = [] if entry is None else tagged_words(entry)
        if not words or len(run) + len(words) > LONGEST_ROW:
            if entries > 1 and len(run) >= SHORTEST_ROW:
                yield run
            run, entries = [], 0
        if words:
            run = run + words
            entries += 1


def tagged_words(entry: Entry) -> list[Word]:
    """Return the words of an entry."""
    spans = [(start, end, "name") for start, end in entry.names]
    spans += [(start, end, "default") for start, end in entry.defaults]
    if entry.type:
        spans.append((*entry.type, "type"))
    spans.sort()
    text = _PARAGRAPH_END.split(entry.text, maxsplit=1)[0]
    words: list[Word] = []
    at, before = 0, -1  # the span at hand, and the one that the word before was in
    for piece in _PIECE.finditer(text):
        if piece["markup"] or piece.start() == entry.colon:
            continue
        while at < len(spans) and spans[at][1] <= piece.start():
            at += 1
        inside = at < len(spans) and spans[at][0] < piece.end()
        begins = "I" if at == before else "B"
        words.append((piece[0], f"{begins}-{spans[at][2]}" if inside else "O"))
        before = at if inside else -1
    return _cut(words)


def _cut(words: list[Word]) -> list[Word]:
    """Return the whole sentences that fit, or what fits of the first."""
    if len(words) <= LONGEST_ENTRY:
        return words
    ends = [
        i + 1
        for i, (word, _) in enumerate(words[:LONGEST_ENTRY])
        if word in _SENTENCE_ENDS and words[i - 1][0] not in _ABBREVIATIONS
    ]
    return words[: ends[-1] if ends else LONGEST_ENTRY]
