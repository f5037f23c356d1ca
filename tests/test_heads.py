"""Heads without gradients through the backbone: against scikit-learn and written-out sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from peftkit.errors import Unsupported
from peftkit.evaluate import outputs
from peftkit.heads import PROBE_L2, FeatureHead, centroid_layer, probe_layer

pytestmark = pytest.mark.usefixtures("libraries")
CLASSES = 4


def clusters(rows: int = 60, width: int = 7, spread: float = 1.0) -> tuple[np.ndarray, list[int]]:
    draw = np.random.default_rng(3)
    labels = [int(label) for label in draw.integers(0, CLASSES, rows)]
    centers = draw.normal(size=(CLASSES, width)) * 1.5
    x = centers[labels] + draw.normal(size=(rows, width)) * spread + 0.7
    return x.astype(np.float32), labels


def predict(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return layer(torch.from_numpy(x)).double().numpy()


def probabilities(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_probe_starts_as_the_output_layer_of_other_methods(
    make_bench: Callable[..., Any], family: str
) -> None:
    """Methods of a cell differ in what they train, not in where the head begins."""
    bench = make_bench("lora", f"twin:{family}")
    (name,) = bench.backbone.layers.head
    head = bench.backbone.model.get_submodule(name).weight
    probe = FeatureHead(head.shape[1], head.shape[0], seed=bench.recipe.seed)

    assert torch.equal(probe.layer.weight, head)


# ---- centroids


def test_centroids_predict_as_scikit_learns_nearest_centroid() -> None:
    from sklearn.neighbors import NearestCentroid

    x, labels = clusters()
    unseen = np.random.default_rng(9).normal(size=(300, 7)).astype(np.float32) * 2
    layer = centroid_layer(x, labels, num_classes=CLASSES)
    expected = NearestCentroid().fit(x, labels).predict(unseen)

    np.testing.assert_array_equal(predict(layer, unseen).argmax(1), expected)
    assert len(set(expected)) == CLASSES


def leave_one_out_distances(x: np.ndarray, labels: list[int]) -> np.ndarray:
    """Squared distance of each row to each class's mean, its own class's taken without it."""
    y = np.array(labels)
    found = np.empty((len(x), CLASSES))
    for row in range(len(x)):
        for c in range(CLASSES):
            members = [i for i in range(len(x)) if y[i] == c and i != row]
            found[row, c] = ((x[row].astype(float) - x[members].mean(0)) ** 2).sum()
    return found


def test_centroid_logits_are_distances_at_the_likeliest_temperature() -> None:
    x, labels = clusters()
    logits = predict(centroid_layer(x, labels, num_classes=CLASSES), x)
    means = np.stack([x[np.array(labels) == c].mean(0) for c in range(CLASSES)])
    distance = ((x[:, None, :] - means) ** 2).sum(-1)

    def difference(a: np.ndarray) -> np.ndarray:
        return a[:, 1:] - a[:, :1]  # a term that all classes share cancels

    temperature = float(np.median(difference(-distance) / difference(logits)))

    np.testing.assert_allclose(
        difference(logits), difference(-distance) / temperature, rtol=1e-3, atol=1e-3
    )
    left_out, rows = leave_one_out_distances(x, labels), np.arange(len(x))

    def loss(t: float) -> float:
        return float(-np.log(probabilities(-left_out / t)[rows, labels]).mean())

    assert loss(temperature) < min(loss(temperature * 0.9), loss(temperature * 1.1))
    assert loss(temperature) == pytest.approx(min(loss(temperature * 1.01**i) for i in
                                                  range(-60, 61)), abs=1e-5)  # fmt: skip


def test_a_class_without_rows_is_never_predicted() -> None:
    x, labels = clusters()
    labels = [label if label != 2 else 1 for label in labels]
    logits = predict(centroid_layer(x, labels, num_classes=CLASSES), x * 100)

    assert (logits[:, 2] == -np.inf).all()
    assert 2 not in logits.argmax(1)
    assert np.isfinite(np.delete(logits, 2, axis=1)).all()


def test_one_row_a_class_still_makes_centroids() -> None:
    x = np.eye(3, 5, dtype=np.float32)
    logits = predict(centroid_layer(x, [2, 0, 1], num_classes=3), x)

    assert logits.argmax(1).tolist() == [2, 0, 1]
    assert np.isfinite(logits).all()


# ---- probes


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_probe_is_the_ridge_regression_of_scikit_learn(scale: float) -> None:
    """mean loss + r |W|^2 is scikit-learn's C sum loss + |W|^2 / 2 for C = 1 / (2 n r)."""
    from sklearn.linear_model import LogisticRegression

    x, labels = clusters(spread=1.5)
    x = x * np.float32(scale)
    ridge = PROBE_L2 * float((x.astype(float) ** 2).mean())
    reference = LogisticRegression(C=1 / (2 * len(x) * ridge), max_iter=20000, tol=1e-8)
    reference.fit(x.astype(float), labels)
    found = probabilities(predict(probe_layer(x, labels, num_classes=CLASSES), x))

    np.testing.assert_allclose(found, reference.predict_proba(x.astype(float)), atol=2e-3)


# ---- as the start of training


def train_logits(bench: Any, model: Any) -> np.ndarray:
    found = outputs(
        model, bench.encode(bench.data.train), bench.collate,
        read=lambda output, *_: output.logits, precision="float32",
    )  # fmt: skip
    return np.stack(found)


@pytest.mark.parametrize("how", ["centroids", "probe"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_fitted_head_starts_far_above_chance(
    make_bench: Callable[..., Any], family: str, how: str
) -> None:
    right = {}
    for start in ("random", how):
        bench = make_bench("lora", f"twin:{family}", head_init=start)
        model = bench.attach(bench.recipe.method)
        labels = np.array(bench.data.train["label"])
        right[start] = float((train_logits(bench, model).argmax(1) == labels).mean())

    assert right["random"] < 0.55
    assert right[how] > (0.8 if how == "probe" else 0.6)


def test_a_centroid_start_is_nearest_centroid_in_the_input_of_the_last_layer(
    make_bench: Callable[..., Any],
) -> None:
    """RoBERTa's head has two layers: the inputs are those of the second."""
    from sklearn.neighbors import NearestCentroid

    bench = make_bench("full", "twin:roberta", head_init="centroids")
    model = bench.attach(bench.recipe.method).eval()
    inputs = []
    model.classifier.out_proj.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    batch = bench.collate(bench.encode(bench.data.train))
    del batch["labels"]
    with torch.no_grad():
        predicted = model(**batch).logits.argmax(1).numpy()
    x, labels = inputs[0].numpy(), bench.data.train["label"]

    np.testing.assert_array_equal(predicted, NearestCentroid().fit(x, labels).predict(x))


@pytest.mark.parametrize("how", ["centroids", "probe"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_head_without_a_bias_cannot_be_fitted(
    make_bench: Callable[..., Any], family: str, how: str
) -> None:
    bench = make_bench("lora", f"twin:{family}", head_init=how)
    with pytest.raises(Unsupported, match="needs a head with a bias"):
        bench.attach(bench.recipe.method)


def test_a_fitted_head_is_trained_on_and_saved(make_bench: Callable[..., Any]) -> None:
    bench = make_bench("lora", head_init="probe", learning_rate=1e-3)
    predictor = bench.recipe.method.fit(bench)
    predictor.save(bench.folder)
    again = make_bench("lora", seed=4)
    labels = np.array(bench.data.train["label"])
    logits = predictor.outputs(bench.data.train)

    assert (logits.argmax(1) == labels).mean() > 0.8
    reloaded = again.recipe.method.reload(again, bench.folder)
    np.testing.assert_array_equal(reloaded.outputs(bench.data.train), logits)
