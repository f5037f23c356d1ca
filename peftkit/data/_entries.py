"""Entries that describe parameters: where in them names, types and defaults stand.

An entry is a name with a type and a default perhaps, and a description:

    axis : int, optional
        Axis along which to sum. The default is None.

Here the name is `axis`, the type `int` and the default `None`, each a span of characters. Quotes,
backticks and roles around a default are no part of it.

A default is a value that is written out and holds without a condition. "If None, defaults to `n`"
states none, nor does "Default is the upper form". Behind a type any single word counts as a value,
in a description only what cannot be prose (see `_LITERAL`).

The layouts that entries are found by have a file each: `_numpydoc` and `_googledoc`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

Span = tuple[int, int]
"""First character, and the one after the last."""

LONGEST_VALUE = 40
"""Characters of a default at most."""

# What ends a type. Not in quotes: {"default", "pandas"} is a type.
_QUALIFIER = re.compile(
    r"(?:^|(?<=[\s,;(\[*]))(?:optional|required|keyword[- ]only|by default|defaults?)"
    r"(?=[\s:=,;.)\]*]|$)",
    re.IGNORECASE,
)
_BRACKETS = r"\((?:[^()\n]|\([^()\n]*\))*\)|\[[^\[\]\n]*\]|\{[^{}\n]*\}"
_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w%])"
_QUOTED = r"``[^`\n]+``|(?::[\w:]+:)?`[^`\n]+`|'[^'\n]+'|\"[^\"\n]+\""
_DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?:\(\))?"
_LITERAL = rf"(?:{_QUOTED}|None|True|False|{_NUMBER}|-?(?:nan|NaN|inf)\b|{_BRACKETS}|{_DOTTED})"
_ANYTHING = rf"(?:{_QUOTED}|{_NUMBER}|{_BRACKETS}|-?[\w.]*\w(?:\(\))?)"
# A value ends where it is not the first part of a formula or of a longer word.
_END = r"(?!\s*[-/*+^<>=%]|\s*'|\w|\.\w)"
_BEHIND_TYPE = re.compile(
    r"\bdefaults?(?:\s+value)?(?:\s+is|\s+to)?\s*[:=]*\s*"
    rf"(?!(?:is|to)\b)(?P<value>{_ANYTHING}){_END}(?!\s+[a-z])",
    re.IGNORECASE,
)
_STATED = re.compile(
    r"(?:\b[Dd]efaults?(?:\s+value)?(?:\s+is(?:\s+set\s+to)?:?|\s+to:?|\s*[:=])\s*"
    rf"|(?:\(default|\bby\s+default,?)\s+)(?P<value>{_LITERAL}){_END}"
)
_MARKED = re.compile(
    rf"(?<![\w=.'\"`])(?P<value>{_LITERAL})(?:\s+\((?:the\s+)?default\)|,\s+the\s+default\b)"
)
_CONDITION_BEFORE = re.compile(
    r"\b(?:if|when|unless|otherwise|was|were|changed|global)\b", re.IGNORECASE
)
_CONDITION_BEHIND = re.compile(r"\b(?:if|when|unless|otherwise|for|in)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.;](?=\s|$)|\n\s*\n")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a list of parameters.

    Attributes:
        text: The entry as written: its first line, then its description with its indentation.
        names: What is described, usually one name.
        colon: Where the colon of the layout stands.
        type: The type without "optional" and the like.
        defaults: Every place that states the default.
    """

    text: str
    names: tuple[Span, ...]
    colon: int | None
    type: Span | None
    defaults: tuple[Span, ...]

    def values(self) -> set[str]:
        """Return the defaults that are stated: more than one if the entry contradicts itself."""
        return {self.text[start:end] for start, end in self.defaults}


def make_entry(
    text: str, names: list[Span], colon: int | None, typed: Span | None, description: int
) -> Entry:
    """Find type and defaults of an entry.

    Args:
        text: The whole entry.
        names: Where its names stand.
        colon: Where its layout has a colon.
        typed: Where type and default are written together, if they are.
        description: Where its description begins.
    """
    type_, defaults = (None, []) if typed is None else _read_type(text, *typed)
    known = {text[start:end] for start, end in names}
    return Entry(text, tuple(names), colon, type_, (*defaults, *_stated(text, description, known)))


def _read_type(text: str, start: int, end: int) -> tuple[Span | None, list[Span]]:
    """Return where, between `start` and `end`, the type stands, and the default."""
    qualifier = _QUALIFIER.search(text, start, end)
    stop = qualifier.start() if qualifier else end
    written = text[start:stop]
    start += len(written) - len(written.lstrip())
    stop -= len(written) - len(written.rstrip(" \t\\,;." + "([*" * bool(qualifier)))
    value = _BEHIND_TYPE.search(text, stop, end) if qualifier else None
    return (start, stop) if start < stop else None, _bare(value) if value else []


def _stated(text: str, start: int, names: Collection[str]) -> list[Span]:
    """Return where the description, from `start` on, states the default."""
    found: list[Span] = []
    if "efault" not in text:  # true of most, and said five times as fast
        return found
    for match in _STATED.finditer(text, start):
        ends = [m.end() for m in _SENTENCE_END.finditer(text, start, match.start())]
        before = text[ends[-1] if ends else start : match.start()]
        behind = _SENTENCE_END.split(text[match.end() :], maxsplit=1)[0]
        if not (_CONDITION_BEFORE.search(before) or _CONDITION_BEHIND.search(behind)):
            found += _bare(match, names)
    for match in _MARKED.finditer(text, start):
        found += _bare(match, names)
    return sorted(set(found))


def _bare(match: re.Match[str], names: Collection[str] = ()) -> list[Span]:
    """Return where a value stands without its role, quotes and backticks, if anything is left.

    ``axis=0`` is the value 0 of `axis`, and none of another parameter.
    """
    start, end = match.span("value")
    value = match["value"]
    if role := re.match(r":[\w:]+:(?=`)", value):
        start += role.end()
        value = value[role.end() :]
    if named := re.match(r"`+(\w+)\s?=\s?(?!=)", value):
        if named[1] not in names:
            return []
        start, end = start + named.end(), end - named[0].count("`")
        value = match.string[start:end]
    while len(value) > 1 and value[0] == value[-1] and value[0] in "`'\"":
        value = value[1:-1]
        start, end = start + 1, end - 1
    usable = (
        len(value) <= LONGEST_VALUE
        and re.search(r"\w", value)
        and not re.search(r"^\s|\s<|\s$", value)
    )
    return [(start, end)] if usable else []
