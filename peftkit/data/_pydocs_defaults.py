"""Rows of the task `pydocs/defaults`: "What is the default of `x`?", asked about a docstring.

    context   "axis : int, default 0 / Axis to sum over. / keepdims : bool, default False / ..."
    question  "What is the default of `keepdims`?"
    answers   {"text": ["False"], "answer_start": [61]}

1. A context is a run of consecutive parameters of one docstring, in numpydoc's or Google's layout,
   as written (here with strokes for line breaks), at most 900 characters: a window of 384 tokens
   holds it with its question. A longer entry is left out.
2. A parameter is asked for if its entry states one default (see `_entries`), in one place or more.
   Each place is an answer. What SQuAD's normalisation leaves nothing of, such as "''", is none.
3. A context has at least two different answers, and asks for each of them once: what is asked for
   decides, and no one value is the answer to most questions.
4. A context found twice is kept once. Contexts are held out, dropped and compared as wholes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from peftkit.data import _googledoc, _numpydoc
from peftkit.data._docstrings import Docstring
from peftkit.data._entries import Entry
from peftkit.data._pydocs_split import Item, Sizes, each_once, item, words_of

NAME = "defaults"
VERSION = 1
SIZES = Sizes(test=1000, validation=600)
SOURCE = "defaults in the docstrings"
RULES = (
    "contexts are runs of parameters, at most 900 characters, with at least two different "
    "defaults, each asked for once"
)

LONGEST_CONTEXT = 900
NO_ANSWERS = frozenset({"", "a", "an", "the"})


def items(docstrings: Iterable[Docstring]) -> list[Item]:
    """Make contexts, with their questions as rows, of docstrings."""
    found = []
    for docstring in docstrings:
        for layout in (_numpydoc, _googledoc):
            for section in layout.sections(docstring.text):
                for run in runs(section):
                    context = "\n".join(entry.text for entry in run)
                    if len(rows := questions(run, context)) > 1:
                        found.append(item(docstring.file, context, *rows))
    return each_once(found)


def runs(section: Sequence[Entry | None]) -> Iterator[list[Entry]]:
    """Yield runs of entries that are short enough to be a context."""
    run: list[Entry] = []
    length = 0
    for entry in [*section, None]:
        if entry is not None and len(entry.text) > LONGEST_CONTEXT:
            continue
        if entry is None or length + len(entry.text) > LONGEST_CONTEXT:
            yield run
            run, length = [], 0
        if entry is not None:
            run.append(entry)
            length += len(entry.text) + 1


def questions(run: Sequence[Entry], context: str) -> list[dict[str, Any]]:
    """Ask for each default of a run once; the entry asked about is drawn by a hash."""
    names = Counter(entry.text[slice(*entry.names[0])] for entry in run)
    asked: dict[str, tuple[str, dict[str, Any]]] = {}
    start = 0
    for entry in run:
        name = entry.text[slice(*entry.names[0])]
        values = entry.values()
        answer = words_of(next(iter(values))) if len(values) == 1 and names[name] == 1 else ""
        if answer not in NO_ANSWERS:
            value = values.pop()
            order = hashlib.sha256(f"{name}\n{context}".encode()).hexdigest()
            row = {
                "id": order[:16],
                "context": context,
                "question": f"What is the default of `{name}`?",
                "answers": {
                    "text": [value] * len(entry.defaults),
                    "answer_start": [start + first for first, _ in entry.defaults],
                },
            }
            asked[answer] = min(asked.get(answer, (order, row)), (order, row), key=lambda x: x[0])
        start += len(entry.text) + 1
    return [row for _, row in asked.values()]
