"""Scoring short answers as SQuAD does: exact match and F1 of words, after normalising.

Normalising (Rajpurkar et al. 2016, section 6.1, and its evaluation script): lower case, punctuation
removed, the articles a, an, the removed, blanks made single. Of several true answers the best
counts. "No answer" is the empty text, which only the empty text matches.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Return what of an answer is compared."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """1 if the answer equals a true one, else 0; no true answers: 1 for the empty text."""
    return float(any(normalise(predicted) == normalise(answer) for answer in answers or [""]))


def word_f1(predicted: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, against the best true answer."""
    return max(_f1(normalise(predicted).split(), normalise(a).split()) for a in answers or [""])


def _f1(predicted: list[str], answer: list[str]) -> float:
    if not predicted or not answer:
        return float(predicted == answer)
    shared = sum((Counter(predicted) & Counter(answer)).values())
    return 2 * shared / (len(predicted) + len(answer))
