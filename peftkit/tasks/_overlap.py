"""How much of a written text agrees with its references: the field's own implementations.

BLEU, chrF and TER are sacrebleu's (Post 2018), ROUGE is rouge-score's (Google's), METEOR is NLTK's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from peftkit.errors import InvalidInput

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def require_metrics() -> None:
    """Check that the libraries of the extra "metrics" are there, before any work.

    Raises:
        InvalidInput: One of them is missing.
    """
    from importlib.util import find_spec

    for module, package in (
        ("sacrebleu", "sacrebleu"), ("rouge_score", "rouge-score"), ("nltk", "nltk"),
    ):  # fmt: skip
        if find_spec(module) is None:
            raise InvalidInput(
                f"measuring written texts needs {package}, which is not installed",
                next_step="pip install 'peftkit[metrics]'",
            )


def bleu_statistics(predicted: str, references: Sequence[str], tokenizer: str) -> list[int]:
    """What BLEU sums up: both lengths, then how many n-grams are right and how many there are."""
    found = _bleu(tokenizer).sentence_score(predicted, list(references))
    return [found.sys_len, found.ref_len, *found.counts, *found.totals]


def bleu(statistics: np.ndarray) -> float:
    """BLEU, 0 to 100, of summed statistics (Papineni et al. 2002, section 2.3)."""
    from sacrebleu.metrics.bleu import BLEU

    own, reference, *ngrams = (int(v) for v in statistics)
    if own == 0:
        return 0.0
    return float(
        BLEU.compute_bleu(
            correct=ngrams[:4], total=ngrams[4:], sys_len=own, ref_len=reference,
            smooth_method="exp", effective_order=False,
        ).score
    )  # fmt: skip


def bleu_signature(tokenizer: str) -> str:
    """What a record says of its BLEU."""
    import sacrebleu

    return f"BLEU: case:mixed|eff:no|tok:{tokenizer}|smooth:exp|version:{sacrebleu.__version__}"


def chrf_and_ter(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """ChrF (higher is better) and TER (lower is better) over all rows, in percent."""
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    most = max(len(each) for each in references)
    padded: Any = [[*each, *[None] * (most - len(each))] for each in references]
    streams = [list(stream) for stream in zip(*padded, strict=True)]
    return {
        "chrf": float(CHRF().corpus_score(list(predicted), streams).score),
        "ter": float(TER().corpus_score(list(predicted), streams).score),
    }


@cache
def _bleu(tokenizer: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, effective_order=True)


def rouge(predicted: str, references: Sequence[str]) -> dict[str, float]:
    """F of ROUGE-1, 2, L and Lsum (Lin 2004), 0 to 100; of several references, the best."""
    sentences = [_line_a_sentence(each) for each in references]
    found = _rouge().score_multi(sentences, _line_a_sentence(predicted))
    return {name: 100 * float(found[name].fmeasure) for name in ROUGE}


def rouge_remarks(references: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Notes on whether ROUGE can read the references: it knows letters from a to z, and digits."""
    unread = sum(not any(re.search("[a-z0-9]", t.lower()) for t in each) for each in references)
    if not unread:
        return ()
    return (
        f"{unread} of {len(references)} references have no letter from a to z, which are all that "
        "ROUGE reads: they score 0 whatever is written",
    )


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE), use_stemmer=True)


def _line_a_sentence(text: str) -> str:
    return re.sub(r"(?<=[.!?])\s+", "\n", text.strip())


def meteor(predicted: str, references: Sequence[str]) -> float:
    """METEOR (Banerjee and Lavie 2005), 0 to 100: equal words, stems, and synonyms if any."""
    from nltk.translate.meteor_score import meteor_score

    words = [re.findall(r"\w+|[^\w\s]", each) for each in (predicted, *references)]
    return 100 * float(meteor_score(words[1:], words[0], wordnet=_wordnet()))


def meteor_stages() -> str:
    """What a record says of its METEOR."""
    stages = "exact, stem" if isinstance(_wordnet(), _NoSynonyms) else "exact, stem, synonym"
    return f"METEOR: {stages}"


class _NoSynonyms:
    """Stands where WordNet is not installed."""

    def synsets(self, word: str) -> list[Any]:
        return []


@cache
def _wordnet() -> Any:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return _NoSynonyms()
    return wordnet


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Fewest insertions, deletions and substitutions from one to the other (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def jackknife(statistics: np.ndarray, value: Callable[[np.ndarray], float]) -> np.ndarray:
    """One number an item, whose mean is `value` of the sums, and whose spread is its uncertainty.

    Pseudo-values `n v - (n - 1) v_without_i`, moved so that their mean is v itself (Efron and
    Tibshirani 1993, chapter 11).

    Args:
        statistics: `(items, numbers)`.
        value: From their sums to the metric.
    """
    total, n = statistics.sum(axis=0), len(statistics)
    whole = value(total)
    without = np.asarray([value(total - each) for each in statistics])
    pseudo = n * whole - (n - 1) * without
    found: np.ndarray = pseudo - pseudo.mean() + whole
    return found
