"""What a model says of some rows, layer by layer: what two models are compared by.

Of each row every logit counts; where a word of a large vocabulary is predicted, those at the last
places of it, which depend on all before. Of the first rows the outputs of every linear and
normalisation layer, of every block and of the head are kept too, at their last places, in the
order in which they were computed.

Models are compared in float32 arithmetic, whatever format their weights are kept in: in bfloat16
the roundings of activations alone can move a logit by more than a fault would, the more so the
further an adapter has moved. What is left to differ is the weights. Metrics are those of the models
as they are, computed as in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from datasets import Dataset

    from peftkit.saved import SavedRun

FEW_OUTPUTS = 256  # above, a row has logits at its last places only
PLACES = 8
ROWS_INSIDE = 2  # whose layers are looked into


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a model said.

    Attributes:
        logits: `(vectors, classes)`, float32; -inf where a vector is shorter.
        metrics: The task's metrics of the rows.
        inside: Output of each layer for the first rows, by its name, in order.
    """

    logits: np.ndarray
    metrics: Mapping[str, float]
    inside: Mapping[str, np.ndarray]

    def write(self, path: Path) -> None:
        """Write it as one file of numpy."""
        arrays: dict[str, Any] = {"logits": self.logits}
        arrays |= {f"metric/{name}": np.asarray(value) for name, value in self.metrics.items()}
        arrays |= {f"inside/{name}": value for name, value in self.inside.items()}
        np.savez(path, **arrays)

    @classmethod
    def read(cls, path: Path) -> Observed:
        """Read what `write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            names = list(file)

            def part(start: str) -> dict[str, np.ndarray]:
                return {n.removeprefix(start): file[n] for n in names if n.startswith(start)}

            metrics = {name: float(value) for name, value in part("metric/").items()}
            return cls(logits=file["logits"], metrics=metrics, inside=part("inside/"))


def observe(saved: SavedRun, rows: Dataset) -> Observed:
    """Run rows through a model.

    Args:
        saved: The model; its weights are float32 afterwards, but for packed ones.
        rows: As the task reads them.
    """
    predictor: Any = saved.predictor
    bench, model = predictor.bench, predictor.model
    _, metrics = saved.recipe.task.score(predictor.outputs(rows), rows)
    _to_float32(model)
    inside: dict[str, np.ndarray] = {}
    return Observed(
        logits=_logits(bench, model, rows, inside),
        metrics={name: float(value) for name, value in metrics.items()},
        inside=inside,
    )


def without_adapter(saved: SavedRun, rows: Dataset) -> np.ndarray | None:
    """The logits of `observe` with the adapter off, its trained head left as it is.

    Args:
        saved: As `observe` left it.
        rows: As the task reads them.

    Returns:
        `(vectors, classes)`; None where no layer has an adapter.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    predictor: Any = saved.predictor
    layers = [m for m in predictor.model.modules() if isinstance(m, BaseTunerLayer)]
    if not layers:
        return None
    for layer in layers:
        layer.enable_adapters(False)
    bare = _logits(predictor.bench, predictor.model, rows)
    for layer in layers:
        layer.enable_adapters(True)
    return bare


def _logits(
    bench: Any, model: Any, rows: Dataset, inside: dict[str, np.ndarray] | None = None
) -> np.ndarray:
    """Logits of all rows, `(vectors, classes)`; what layers put out goes into `inside`."""
    import torch

    examples = bench.encode(rows)
    found: dict[int, np.ndarray] = {}
    with torch.inference_mode():
        for batch in list(_batches(bench, model, examples)):
            with _watched(bench, model, inside if 0 in batch else None):
                values, inputs, labels = _forward(bench, model, [examples[i] for i in batch])
            kept = _vectors(bench, values.float().cpu(), inputs, labels, len(batch))
            found.update(zip(batch, kept, strict=True))
    return _stacked([found[i] for i in range(len(examples))])


def _to_float32(model: Any) -> None:
    """Let a model compute in float32, in place."""
    import torch

    from peftkit.backbones import packed_layers

    packed = packed_layers(model)
    for layer in packed:
        if hasattr(layer, "compute_dtype"):
            layer.compute_dtype = torch.float32
    kept = {id(layer.weight) for layer in packed}
    for parameter in model.parameters():
        if parameter.is_floating_point() and id(parameter) not in kept:
            parameter.data = parameter.data.float()


def _batches(bench: Any, model: Any, examples: Any) -> Iterator[list[int]]:
    """The first rows by themselves, so that they are padded alike wherever they are seen."""
    from peftkit.evaluate import length_batches, vocabulary

    task = bench.recipe.task
    first = 1 if len({task.key(e) for e in examples[:ROWS_INSIDE]}) > 1 else ROWS_INSIDE
    yield list(range(min(first, len(examples))))
    rest = examples[first:]
    lengths, keys = [task.length(e) for e in rest], [task.key(e) for e in rest]
    for batch in length_batches(lengths, keys, logits_per_token=vocabulary(model)):
        yield [first + i for i in batch]


def _forward(bench: Any, model: Any, examples: Any) -> tuple[Any, dict[str, Any], Any]:
    from peftkit.evaluate import to_device

    inputs = to_device(bench.collate(examples))
    labels = inputs.pop("labels")
    return bench.logits(model.eval()(**inputs), inputs), inputs, labels


def _vectors(
    bench: Any, values: torch.Tensor, inputs: Mapping[str, Any], labels: Any, count: int
) -> list[np.ndarray]:
    """Of each of `count` rows its vectors of logits, `(vectors, classes)`."""
    if values.ndim == 2:
        return [row[None].numpy() for row in values]
    read = _places(values, inputs, labels)
    rows = [row[mask].numpy() for row, mask in zip(values, read, strict=True)]
    if bench.recipe.task.reads == "span":  # the softmax is over the places
        rows = [row.T for row in rows]
    elif values.shape[-1] > FEW_OUTPUTS:
        rows = [row[-PLACES:] for row in rows]
    # A task may hand on several texts a row, all first ones before the second ones.
    return [np.concatenate(rows[i::count]) for i in range(count)]


def _places(values: torch.Tensor, inputs: Mapping[str, Any], labels: Any) -> torch.Tensor:
    """Which places count, `(texts, places)`: those with an answer; else those of the text."""
    import torch

    from peftkit.evaluate import IGNORED

    shape, text = values.shape[:2], inputs.get("attention_mask")
    if text is None or tuple(text.shape) != tuple(shape):
        text = torch.ones(shape, dtype=torch.bool)
    text = text.cpu().bool()
    if not isinstance(labels, torch.Tensor) or tuple(labels.shape) != tuple(shape):
        return text
    answered = labels.cpu() != IGNORED
    return torch.where(answered.any(dim=1, keepdim=True), answered, text)


def _stacked(rows: list[np.ndarray]) -> np.ndarray:
    """All vectors below each other, shorter ones filled with -inf."""
    width = max(row.shape[1] for row in rows)
    fill = float("-inf")
    return np.concatenate(
        [np.pad(r, ((0, 0), (0, width - r.shape[1])), constant_values=fill) for r in rows]
    )


@contextmanager
def _watched(bench: Any, model: Any, inside: dict[str, np.ndarray] | None) -> Iterator[None]:
    """Note in `inside` the last places of what layers put out, while a batch runs."""
    layers, whole = bench.backbone.layers, bench.backbone.model
    output = whole.get_output_embeddings()
    last = [
        name for name, module in whole.named_modules() if output is not None and module is output
    ]
    names = dict.fromkeys((*layers.blocks, *layers.linear(), *layers.norms, *layers.head, *last))
    handles = []

    def watch(name: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if inside is not None and name not in inside and hasattr(first, "ndim"):
                inside[name] = first[:ROWS_INSIDE, -PLACES:].float().cpu().numpy()

        return hook

    if inside is not None:
        handles = [whole.get_submodule(n).register_forward_hook(watch(n)) for n in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
