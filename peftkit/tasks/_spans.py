"""Spans in tagged words, and their exact-match scores.

Tags are `O`, or a position and a type: `B-person`, `I-person` (BIO), and also `E-`, `S-` (BIOES) or
`L-`, `U-` (BILOU). A position alone (`B`, `I`) is of the type `_`. Two readings, as in seqeval:

- *default* is that of the CoNLL-2003 script: a span ends where the type changes or a new span
  begins, so an `I-` without a `B-` before it begins one too;
- *strict* reads what the scheme allows: BIO spans are `B I*`, BIOES spans are `B I* E` or `S`;
  anything else is no span.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.data.tags import split_tag

if TYPE_CHECKING:
    import numpy as np

    from peftkit.tasks._task import Predictions

Span = tuple[str, int, int]
"""Type, first word, and the word after the last."""
_SINGLE, _LAST = frozenset("SU"), frozenset("EL")


def spans(tags: Sequence[str], *, strict: bool = False, scheme: str = "BIO") -> set[Span]:
    """Find the spans that tags describe.

    Args:
        tags: One a word.
        strict: Only what the scheme allows counts.
        scheme: "BIO" or "BIOES" (which also covers BILOU); only matters if strict.
    """
    return _strict(tags, scheme) if strict else _default(tags)


def scheme_of(tags: Sequence[str]) -> str:
    """Return "BIOES" if any tag says that a span ends or is single, else "BIO"."""
    return "BIOES" if {split_tag(tag)[0] for tag in tags} & (_SINGLE | _LAST) else "BIO"


def _default(tags: Sequence[str]) -> set[Span]:
    found: set[Span] = set()
    start, before, kind = 0, "O", ""
    for i, tag in enumerate([*tags, "O"]):
        position, own = split_tag(tag)
        begins = position in _SINGLE or position == "B" or own != kind or before in _SINGLE | _LAST
        if kind and (position == "O" or begins):
            found.add((kind, start, i))
            kind = ""
        if own and (begins or not kind):
            start, kind = i, own
        before = position
    return found


def _strict(tags: Sequence[str], scheme: str) -> set[Span]:
    found: set[Span] = set()
    start, kind = 0, ""  # of the span that is open
    for i, tag in enumerate([*tags, "O"]):
        position, own = split_tag(tag)
        goes_on = (
            bool(kind) and own == kind and position in {"I", *(_LAST if scheme != "BIO" else ())}
        )
        if not goes_on:
            if kind and scheme == "BIO":
                found.add((kind, start, i))
            kind = ""
        if position == "B":
            start, kind = i, own
        elif scheme != "BIO" and position in _SINGLE:
            found.add((own, i, i + 1))
        elif goes_on and position in _LAST:
            found.add((kind, start, i + 1))
            kind = ""
    return found


def precision_recall_f1(matched: int, predicted: int, labelled: int) -> tuple[float, float, float]:
    """Of counts of spans; 0 where there is nothing to divide by."""
    precision = matched / predicted if predicted else 0.0
    recall = matched / labelled if labelled else 0.0
    total = predicted + labelled
    return precision, recall, 2 * matched / total if total else 0.0


def f1_of_items(predictions: Predictions) -> np.ndarray:
    """One number an item, whose mean is the F1 over all items together.

    F1 is a ratio of sums, 2 matched / (found + present); linearised around its value F, item i
    contributes F + (2 m_i - F n_i) / mean(n), n_i = found_i + present_i: the usual variance of a
    ratio (Cochran 1977, section 6.3).

    Args:
        predictions: Columns "matched", "found" and "present": counts of each item.
    """
    import numpy as np

    matched, found, present = (
        np.asarray(predictions[name], dtype=np.float64) for name in ("matched", "found", "present")
    )
    size = found + present
    if size.sum() == 0:
        return np.zeros(len(size))
    f1 = 2 * matched.sum() / size.sum()
    scores: np.ndarray = f1 + (2 * matched - f1 * size) / size.mean()
    return scores
