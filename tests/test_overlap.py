"""Measures of written texts, against written-out cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peftkit.tasks._overlap import (
    bleu,
    bleu_statistics,
    chrf_and_ter,
    edit_distance,
    jackknife,
    meteor,
    rouge,
)

CAT = "the cat sat on the mat"


def test_bleu_is_the_geometric_mean_of_precisions_times_the_brevity_penalty() -> None:
    """7 words of 8 in order: 7/8, 5/7, 3/6 and 2/5 n-grams are right; nothing is too short."""
    text, reference = "a b c d e x f g", "a b c d e y f g"
    statistics = bleu_statistics(text, [reference], "none")

    assert statistics == [8, 8, 7, 5, 3, 2, 8, 7, 6, 5]
    expected = 100 * (7 / 8 * 5 / 7 * 3 / 6 * 2 / 5) ** 0.25
    assert bleu(np.asarray(statistics)) == pytest.approx(expected)


def test_bleu_punishes_what_is_too_short() -> None:
    statistics = bleu_statistics("a b c d e", ["a b c d e f g h i j"], "none")

    assert bleu(np.asarray(statistics)) == pytest.approx(100 * math.exp(1 - 10 / 5))


def test_bleu_of_sums_is_that_of_the_corpus() -> None:
    import sacrebleu

    texts = ["the cat sat on a mat .", "dogs bark at night , often", "nothing at all"]
    references = [["the cat sat on the mat ."], ["dogs often bark at night"], ["nothing at all"]]
    summed = np.sum(
        [bleu_statistics(t, r, "13a") for t, r in zip(texts, references, strict=True)], axis=0
    )
    corpus = sacrebleu.corpus_bleu(texts, [[r[0] for r in references]])

    assert bleu(summed) == pytest.approx(corpus.score)


def test_an_empty_text_has_no_bleu() -> None:
    assert bleu(np.asarray(bleu_statistics("", [CAT], "13a"))) == 0.0


def test_rouge_counts_words_pairs_and_the_longest_common_subsequence() -> None:
    """ "the cat sat" of 6 words: recall 3/6 and precision 1, so F = 2/3; pairs 2 of 5 and 2."""
    found = rouge("the cat sat", [CAT])

    assert found["rouge1"] == pytest.approx(100 * 2 / 3)
    assert found["rouge2"] == pytest.approx(100 * 2 * (2 / 5) / (1 + 2 / 5))
    assert found["rougeL"] == pytest.approx(100 * 2 / 3)


def test_of_several_references_rouge_takes_the_best() -> None:
    assert rouge(CAT, ["dogs bark", CAT])["rougeL"] == pytest.approx(100.0)


def test_meteor_of_equal_texts_falls_short_by_its_one_chunk() -> None:
    """All of n words match in one chunk: 1 - 0.5 (1 / n) ** 3 (Banerjee and Lavie, section 2.2)."""
    assert meteor(CAT, [CAT]) == pytest.approx(100 * (1 - 0.5 / 6**3))


def test_meteor_knows_stems() -> None:
    assert meteor("the cats sat", ["the cat sat"]) == pytest.approx(meteor("a b c", ["a b c"]))


def test_ter_and_chrf_of_equal_texts_are_perfect() -> None:
    found = chrf_and_ter([CAT, "dogs"], [[CAT, "something else"], ["dogs"]])

    assert found == {"chrf": pytest.approx(100.0), "ter": 0.0}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("", "", 0), ("kitten", "sitting", 3), ("abc", "", 3), ("flaw", "lawn", 2)],
)
def test_edit_distance(a: str, b: str, expected: int) -> None:
    assert edit_distance(a, b) == expected
    assert edit_distance(b, a) == expected


def test_the_jackknife_has_the_metric_as_its_mean() -> None:
    statistics = np.asarray([[1.0, 4], [2, 3], [0, 5], [3, 3]])
    found = jackknife(statistics, lambda sums: float(sums[0] / sums[1]))

    assert found.mean() == pytest.approx(6 / 15)


def test_the_jackknife_of_a_mean_is_the_items() -> None:
    """Then its spread is the usual one."""
    items = np.asarray([0.2, 0.9, 0.4, 0.7])
    statistics = np.stack([items, np.ones(4)], axis=1)
    found = jackknife(statistics, lambda sums: float(sums[0] / sums[1]))

    np.testing.assert_allclose(found, items)
