"""What is fitted without steps through the backbone, where the answer is no single class.

Linear layers on features, and linear models on counts of words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from peftkit.heads import centroid_layer, converged

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 1e4  # of a logit that is certain
# TF-IDF rows have length one, so a constant suits all texts.
INVERSE_REGULARIZATION = 10.0


# ---- several labels: rows are `(rows, labels)` of 0 and 1


def label_centroids(features: NDArray[Any], labels: NDArray[Any]) -> nn.Linear:
    """Of each label the nearer of two centroids: of the rows that have it, and of the others.

    A label that no row has, or all have, is never, or always, predicted.
    """
    pairs = [centroid_layer(features, column.tolist(), num_classes=2) for column in labels.T]
    layer = nn.Linear(features.shape[1], labels.shape[1])
    with torch.no_grad():
        layer.weight.copy_(torch.stack([pair.weight[1] - pair.weight[0] for pair in pairs]))
        bias = torch.stack([pair.bias[1] - pair.bias[0] for pair in pairs])
        layer.bias.copy_(bias.clamp(-MOST, MOST))
    return layer


def label_probe(features: NDArray[Any], labels: NDArray[Any]) -> nn.Linear:
    """Logistic regressions, one a label, each with the ridge of `heads.probe_layer`."""
    y = torch.from_numpy(labels).double()

    def loss(logits: torch.Tensor) -> torch.Tensor:
        each = functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
        return each.sum(1).mean()

    return converged(features, labels.shape[1], loss)


def label_words(counts: Any, labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights `(labels, words)` and biases of logistic regressions, one a label."""
    weight = np.zeros((labels.shape[1], counts.shape[1]))
    bias = np.zeros(labels.shape[1])
    for k, column in enumerate(labels.T):
        if column.min() == column.max():
            bias[k] = MOST if column[0] else -MOST
            continue
        both, intercepts = class_words(counts, column.tolist(), num_classes=2)
        weight[k], bias[k] = both[1] - both[0], intercepts[1] - intercepts[0]
    return weight, bias


def class_words(
    counts: Any, labels: Sequence[int], *, num_classes: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights `(classes, words)` and biases of one logistic regression over all classes."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=1000).fit(counts, labels)
    weight = np.zeros((num_classes, counts.shape[1]))
    bias = np.full(num_classes, -np.inf)  # a class without rows is never predicted
    two = len(model.classes_) == 2  # then scikit-learn keeps one row, for the second class
    own, cut = model.coef_, model.intercept_
    weight[model.classes_] = np.vstack([-own, own]) / 2 if two else own
    bias[model.classes_] = np.concatenate([-cut, cut]) / 2 if two else cut
    return weight, bias


# ---- numbers: targets are `(rows,)`


def covariance_layer(features: NDArray[Any], targets: NDArray[Any]) -> nn.Linear:
    """A line along the covariance of features and target: the first component of PLS.

    The direction is the sum of `(y - mean) (x - mean)` over rows, which is that between the two
    centroids where y has two values; the slope along it is that of least squares, each row placed
    by a direction that it had no part in, and never negative. Source: partial least squares with
    one component (Hastie, Tibshirani and Friedman 2009, section 3.5.2).
    """
    x, y = features.astype(np.float64), targets.astype(np.float64)
    center, mean = x.mean(axis=0), y.mean()
    x, y = x - center, y - mean
    direction = y @ x
    left_out = x @ direction - y * np.square(x).sum(axis=1)
    size = float(np.square(left_out).sum())
    slope = max(0.0, float(left_out @ y) / size) if size else 0.0
    return _layer(slope * direction, mean - slope * float(direction @ center))


def ridge_layer(features: NDArray[Any], targets: NDArray[Any]) -> nn.Linear:
    """Least squares with the ridge of `heads.probe_layer`."""
    y = torch.from_numpy(targets).double()
    return converged(features, 1, lambda values: functional.mse_loss(values[:, 0], y))


def number_words(counts: Any, targets: Sequence[float]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights `(1, words)` and bias of scikit-learn's ridge regression as it is by default."""
    from sklearn.linear_model import Ridge

    model = Ridge().fit(counts, targets)
    return model.coef_[None], np.asarray([model.intercept_])


def _layer(weight: NDArray[Any], bias: float) -> nn.Linear:
    """A linear layer with one output."""
    layer = nn.Linear(len(weight), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight)[None])
        layer.bias.fill_(bias)
    return layer
