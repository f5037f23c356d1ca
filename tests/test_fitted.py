"""Layers for several labels and for numbers: against scikit-learn and written-out sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from peftkit.fitted import (
    MOST,
    covariance_layer,
    label_centroids,
    label_probe,
    label_words,
    number_words,
    ridge_layer,
)
from peftkit.heads import PROBE_L2

pytestmark = pytest.mark.usefixtures("libraries")
DRAW = np.random.default_rng(5)
X = (DRAW.normal(size=(60, 6)) + 0.4).astype(np.float32)
UNSEEN = DRAW.normal(size=(200, 6)).astype(np.float32) * 2
NUMBERS = 20 + 3 * (X @ DRAW.normal(size=6) + DRAW.normal(size=60))
SETS = (X[:, :3] + DRAW.normal(size=(60, 3)) * 0.5 > [0.2, 0.5, 1.2]).astype(np.int64)


def answers(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return layer(torch.from_numpy(x)).double().numpy()


def test_each_label_is_given_where_the_centroid_of_its_rows_is_nearer() -> None:
    from sklearn.neighbors import NearestCentroid

    found = answers(label_centroids(X, SETS), UNSEEN) > 0

    for k in range(3):
        expected = NearestCentroid().fit(X, SETS[:, k]).predict(UNSEEN)
        np.testing.assert_array_equal(found[:, k], expected)
        assert 0 < expected.mean() < 1


def test_a_label_of_all_rows_or_of_none_is_certain_and_finite() -> None:
    sets = SETS.copy()
    sets[:, 0], sets[:, 2] = 0, 1
    logits = answers(label_centroids(X, sets), UNSEEN)
    _, bias = label_words(X, sets)

    assert (logits[:, 0] < -MOST / 2).all()
    assert (logits[:, 2] > MOST / 2).all()
    assert np.isfinite(logits).all()
    assert (bias[0], bias[2]) == (-MOST, MOST)


def test_probes_are_those_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression, Ridge

    ridge = PROBE_L2 * float(np.square(X.astype(float)).mean())
    probes, line = label_probe(X, SETS), ridge_layer(X, NUMBERS)
    stock = Ridge(alpha=ridge * len(X)).fit(X, NUMBERS)

    np.testing.assert_allclose(answers(line, UNSEEN)[:, 0], stock.predict(UNSEEN), rtol=1e-4)
    for k in range(3):
        strength = 1 / (2 * ridge * len(X))
        logistic = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(X, SETS[:, k])
        np.testing.assert_allclose(
            answers(probes, UNSEEN)[:, k], logistic.decision_function(UNSEEN), rtol=1e-2, atol=1e-2
        )


def test_the_line_of_numbers_is_the_first_component_of_partial_least_squares() -> None:
    """Its direction is; the slope is that of rows placed by the covariance of all the others."""
    from sklearn.cross_decomposition import PLSRegression

    stock = PLSRegression(n_components=1, scale=False).fit(X, NUMBERS)
    found = answers(covariance_layer(X, NUMBERS), UNSEEN)[:, 0]
    x, y = X.astype(float) - X.mean(0), NUMBERS - NUMBERS.mean()
    placed = [x[i] @ sum(y[j] * x[j] for j in range(60) if j != i) for i in range(60)]
    slope = np.dot(placed, y) / np.dot(placed, placed)
    expected = NUMBERS.mean() + slope * (UNSEEN - X.mean(0)) @ (y @ x)

    assert np.corrcoef(found, stock.predict(UNSEEN).ravel())[0, 1] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_of_two_numbers_the_line_runs_between_their_centroids() -> None:
    y = SETS[:, 0].astype(float)
    weight = covariance_layer(X, y).weight.detach().numpy()[0]
    between = X[y == 1].mean(0) - X[y == 0].mean(0)

    assert weight @ between == pytest.approx(
        np.linalg.norm(weight) * np.linalg.norm(between), rel=1e-5
    )


def test_where_features_say_nothing_the_mean_is_answered() -> None:
    same = np.ones_like(X)

    np.testing.assert_allclose(answers(covariance_layer(same, NUMBERS), UNSEEN), NUMBERS.mean())


def test_words_are_weighed_as_by_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression, Ridge

    weight, bias = label_words(X, SETS)
    line, cut = number_words(X, NUMBERS.tolist())
    for k in range(3):
        stock = LogisticRegression(C=10, max_iter=1000).fit(X, SETS[:, k])
        np.testing.assert_allclose(X @ weight[k] + bias[k], stock.decision_function(X), rtol=1e-3)

    np.testing.assert_allclose(X @ line[0] + cut[0], Ridge().fit(X, NUMBERS).predict(X), rtol=1e-4)
