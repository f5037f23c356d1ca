"""What memory held over one training step, for people: a picture, numbers, a sentence."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from peftkit.device import device
from peftkit.memory.timeline import PARTS
from peftkit.quantities import size_in_bytes
from peftkit.record import write_atomically

if TYPE_CHECKING:
    from peftkit.memory.prediction import Prediction
    from peftkit.memory.watching import Counted

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLORS = {
    "weights": "#0072B2",
    "quantization_state": "#56B4E9",
    "weight_copies": "#999999",
    "gradients": "#D55E00",
    "optimizer": "#E69F00",
    "activations": "#009E73",
    "logits": "#CC79A7",
    "temporary": "#F0E442",
}
POINTS = 2000  # of a picture; between them the highest is kept


def in_words(prediction: Prediction) -> str:
    """A peak of so many bytes, and what it consists of."""
    parts = sorted(prediction.parts.items(), key=lambda part: -part[1])
    told = ", ".join(f"{n.replace('_', ' ')} {size_in_bytes(size)}" for n, size in parts if size)
    return f"{size_in_bytes(prediction.peak_bytes)} at the peak ({told})"


@contextmanager
def allocations(folder: Path | None) -> Iterator[None]:
    """Record every allocation on CUDA and its stack, into memory.pickle; None: do not.

    The file is torch's own; https://pytorch.org/memory_viz shows it.
    """
    if folder is None or device() != "cuda":
        yield
        return
    import torch

    torch.cuda.memory._record_memory_history(max_entries=200_000)
    try:
        yield
    finally:
        torch.cuda.memory._dump_snapshot(str(folder / "memory.pickle"))
        torch.cuda.memory._record_memory_history(enabled=None)


def draw(counted: Counted, folder: Path) -> None:
    """Write memory.svg, memory over the counted step by its parts, and memory.json."""
    import matplotlib.pyplot as plt

    timeline = counted.timeline
    levels = _levels(counted)
    begin = timeline.segments[0][1]  # before it, what there was already is told
    keep = begin + _highest_of_each(levels[:, begin:].sum(axis=0))
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    stacked = levels[:, keep] / 2**20
    used = [i for i, part in enumerate(PARTS) if stacked[i].any()]
    axes.stackplot(
        keep, stacked[used], labels=[PARTS[i].replace("_", " ") for i in used],
        colors=[COLORS[PARTS[i]] for i in used],
    )  # fmt: skip
    first = dict(reversed(timeline.segments))
    for number, (name, start) in enumerate(sorted(first.items(), key=lambda item: item[1])):
        axes.axvline(start, color="black", linewidth=0.5, alpha=0.5)
        height = 1.01 + 0.05 * (number % 2)  # the loss is a short stretch
        axes.text(start, height, name, transform=axes.get_xaxis_transform(), fontsize=8)
    axes.set(xlabel="tensors that came or went", ylabel="MiB", xlim=(begin, levels.shape[1]))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, reverse=True)
    figure.savefig(folder / "memory.svg", metadata={"Date": None})
    plt.close(figure)
    body = {
        "peak_bytes": counted.peak_bytes,
        "parts_bytes": counted.parts,
        "during": counted.during,
        "largest_activation_bytes": counted.largest,
    }
    write_atomically(folder / "memory.json", json.dumps(body, indent=2) + "\n")


def _levels(counted: Counted) -> np.ndarray:
    """Bytes of each part after each entry, `(parts, entries)`."""
    timeline = counted.timeline
    changes = np.zeros((len(PARTS), len(timeline.numbers)), dtype=np.int64)
    sizes = np.asarray(timeline.sizes)[timeline.numbers] * np.asarray(timeline.signs)
    changes[timeline.parts, np.arange(len(sizes))] = sizes
    return np.cumsum(changes, axis=1)


def _highest_of_each(level: np.ndarray) -> np.ndarray:
    """Entries to draw: the highest of each stretch, so that no peak is lost."""
    if len(level) <= POINTS:
        return np.arange(len(level))
    edges = np.linspace(0, len(level), POINTS + 1).astype(int)
    pairs = itertools.pairwise(edges)
    return np.asarray([start + int(np.argmax(level[start:end])) for start, end in pairs])
