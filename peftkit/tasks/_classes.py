"""Scoring answers that are one of several classes."""

from __future__ import annotations

import numpy as np

CALIBRATION_BINS = 15


def predict_classes(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Reduce logits `(items, classes)` to what a record keeps of each item.

    Returns:
        "label", "predicted" (class indices), "confidence" (probability of the predicted class) and
        "loss" (nats), each `(items,)`.
    """
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    predicted = log_probability.argmax(axis=1)
    rows = np.arange(len(labels))
    return {
        "label": labels,
        "predicted": predicted,
        "confidence": np.exp(log_probability[rows, predicted]),
        "loss": -log_probability[rows, labels],
    }


def class_metrics(predictions: dict[str, np.ndarray]) -> dict[str, float]:
    """Accuracy, macro-F1, Matthews correlation, log-loss (nats) and calibration error.

    Macro-F1 averages over the classes that occur among labels or predictions. Matthews correlation
    is the multi-class form of Gorodkin 2004. Calibration error is the expected calibration error
    of Guo et al. 2017 (section 2) over 15 bins of equal width.
    """
    from sklearn.metrics import f1_score, matthews_corrcoef

    label, predicted = predictions["label"], predictions["predicted"]
    return {
        "accuracy": float(np.mean(label == predicted)),
        "macro_f1": float(f1_score(label, predicted, average="macro", zero_division=0.0)),
        "matthews_correlation": float(matthews_corrcoef(label, predicted)),
        "log_loss": float(np.mean(predictions["loss"])),
        "calibration_error": calibration_error(predictions["confidence"], label == predicted),
    }


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean gap between confidence and accuracy over bins, weighted by the items in each."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = np.zeros(CALIBRATION_BINS)
    np.add.at(gap, bins, confidence - correct)
    return float(np.abs(gap).sum() / len(confidence))
