"""Output layers that need no gradient through the backbone: class centroids and fitted probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from peftkit.backbones import mask_frames, pool_vectors
from peftkit.errors import Unsupported
from peftkit.seeds import seeded

if TYPE_CHECKING:
    from peftkit.backbones import LoadedBackbone
    from peftkit.evaluate import Read
    from peftkit.tasks import Task
    from peftkit.workbench import Workbench

# Strength of the ridge on a fitted probe, relative to features of unit mean square.
PROBE_L2 = 1e-3


class FeatureHead(nn.Module):
    """A linear layer `(hidden -> classes)` that the trainer treats like any model.

    It starts as the new output layer on the backbone does, where that is one linear layer.
    """

    def __init__(self, hidden: int, num_classes: int, *, seed: int) -> None:
        super().__init__()
        self.layer = nn.utils.skip_init(nn.Linear, hidden, num_classes)  # else it draws first
        with seeded(seed, "head"):
            nn.init.normal_(self.layer.weight, std=0.02)  # as transformers' heads start
            nn.init.zeros_(self.layer.bias)

    def forward(self, features: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.layer(features))

    def activation_checkpointing_enable(self, **_: Any) -> None:
        """Do nothing: there are no activations to recompute."""

    gradient_checkpointing_enable = activation_checkpointing_enable  # its name until 5.17


def feature_examples(features: Sequence[np.ndarray], labels: Sequence[Any]) -> list[dict[str, Any]]:
    """One example a row: `(hidden,)` and its target, or `(words, hidden)` and a class a word."""
    return [
        {"features": torch.from_numpy(x), "labels": y}
        for x, y in zip(features, labels, strict=True)
    ]


def units(features: Sequence[np.ndarray], labels: Sequence[Any]) -> tuple[np.ndarray, list[int]]:
    """All feature vectors `(units, hidden)` and their classes, texts or words alike."""
    x = np.concatenate([np.atleast_2d(each) for each in features])
    return x, [int(y) for label in labels for y in (label if isinstance(label, list) else [label])]


def stack_features(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch of what `feature_examples` made."""
    features = [torch.atleast_2d(e["features"]) for e in examples]
    labels = [torch.tensor(e["labels"]) for e in examples]
    single = examples[0]["features"].ndim == 1  # one target a row, which may be several numbers
    return {
        "features": torch.cat(features),
        "labels": torch.stack(labels) if single else torch.cat(labels),
    }


def centroid_layer(features: np.ndarray, labels: Sequence[int], *, num_classes: int) -> nn.Linear:
    """Nearest class centroid as a linear layer, with a fitted temperature.

    Args:
        features: `(rows, hidden)`.
        labels: Class index of each row; a class without rows is never predicted.
        num_classes: Number of outputs.
    """
    x, y = torch.from_numpy(features).double(), torch.tensor(list(labels))
    counts = torch.bincount(y, minlength=num_classes)
    sums = torch.zeros(num_classes, x.shape[1], dtype=torch.float64).index_add_(0, y, x)
    centroids = sums / counts.clamp(min=1)[:, None]
    distance = torch.cdist(x, centroids).square()
    # A row is part of its own centroid; without it that centroid is n / (n - 1) as far away.
    own = counts[y].double()
    rows = torch.arange(len(x))
    distance[rows, y] *= torch.where(own > 1, own / (own - 1).clamp(min=1), 1.0).square()
    distance[:, counts == 0] = torch.inf
    temperature = _fit_temperature(distance, y)
    layer = nn.Linear(x.shape[1], num_classes)
    with torch.no_grad():
        layer.weight.copy_(2 * centroids / temperature)
        bias = -centroids.square().sum(1) / temperature
        layer.bias.copy_(torch.where(counts > 0, bias, -torch.inf))
    return layer


def _fit_temperature(distance: torch.Tensor, y: torch.Tensor) -> float:
    """The t that minimises the mean cross-entropy of `-distance / t`."""
    from scipy.optimize import minimize_scalar

    finite = distance[torch.isfinite(distance)]
    scale = float(finite.mean().clamp(min=1e-12))

    def loss(log_t: float) -> float:
        logits = -distance / (scale * float(np.exp(log_t)))
        return float(nn.functional.cross_entropy(logits, y))

    found = minimize_scalar(loss, bounds=(-8.0, 3.0), method="bounded")
    return scale * float(np.exp(found.x))


def probe_layer(features: np.ndarray, labels: Sequence[int], *, num_classes: int) -> nn.Linear:
    """Logistic regression with a small ridge, fitted to convergence by L-BFGS in float64."""
    y = torch.tensor(list(labels))
    return converged(features, num_classes, lambda x: nn.functional.cross_entropy(x, y))


def converged(
    features: np.ndarray, num_outputs: int, loss: Callable[[torch.Tensor], torch.Tensor]
) -> nn.Linear:
    """The linear layer whose outputs on `features` have the least `loss`, with a small ridge."""
    x = torch.from_numpy(features).double()
    layer = nn.Linear(x.shape[1], num_outputs, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    ridge = PROBE_L2 * float(x.square().mean())
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        whole = loss(layer(x)) + ridge * layer.weight.square().sum()
        whole.backward()
        return whole

    optimizer.step(closure)
    return layer.float()


@contextmanager
def read_features(backbone: LoadedBackbone, task: Task) -> Iterator[tuple[nn.Module, Read]]:
    """What to run for the features that a head reads, and how to take them out of its output.

    Of texts the last hidden states, pooled or not. Of images and sounds what the new head is given,
    whatever the architecture; where that are frames, `(batch, frames, hidden)`, their mean.
    """
    whole = backbone.model
    caught: list[torch.Tensor] = []
    if (
        task.inputs == "text"
    ):  # the whole model is run: T5's decoder gets its inputs beside the head
        base = getattr(whole, whole.base_model_prefix)
        hook = base.register_forward_hook(lambda *run: caught.append(run[-1].last_hidden_state))
    else:
        head = whole.get_submodule(backbone.layers.head[0])
        hook = head.register_forward_pre_hook(lambda _, args: caught.append(args[0]))

    def read(_: Any, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> Any:
        found = caught.pop()
        if task.inputs == "text":
            return found[:, 0] if task.reads == "text" else task.pick(found, labels)
        if found.ndim != 3:
            return found.flatten(1)
        mask = mask_frames(whole, inputs.get("attention_mask"), found.shape[1])
        return pool_vectors(found, mask, "mean")

    try:
        yield whole, read
    finally:
        hook.remove()


def start_head(bench: Workbench, how: Literal["centroids", "probe"]) -> None:
    """Set the last linear layer of the new head, in place, so that training starts from there.

    What is fitted are the inputs of that very layer, dropout off, so any head will do.

    Raises:
        Unsupported: The head does not end in a linear layer with one output a class.
    """
    from peftkit.evaluate import outputs

    backbone, data = bench.backbone, bench.data
    last = _last_linear(backbone.model, backbone.layers.head, len(data.labels))
    caught: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, args: caught.append(args[0]))

    task = bench.recipe.task

    def read(_: Any, __: Any, labels: torch.Tensor) -> Any:
        inputs = caught.pop()
        if task.reads != "text":
            return task.pick(inputs, labels)
        return inputs if inputs.ndim == 2 else inputs[:, 0]  # decoders: pooled at every position

    try:
        inputs = outputs(
            backbone.model,
            bench.encode(data.train),
            bench.collate,
            read=read,
            length=task.length,
            key=task.key,
            precision=bench.recipe.training.precision,
        )
    finally:
        hook.remove()
    fitted = task.fit_layer(how, inputs, bench.targets(data.train), len(data.labels))
    with torch.no_grad():
        if last.bias is None:
            # Without a bias the -|c|^2 of centroids has no place; a probe is fitted without one.
            raise Unsupported(
                f"training.head_init {how!r} needs a head with a bias; that of "
                f"{type(backbone.model).__name__} has none"
            )
        last.weight.copy_(fitted.weight)
        last.bias.copy_(fitted.bias.clamp(min=-1e4))


def _last_linear(model: Any, head: Sequence[str], num_classes: int) -> nn.Linear:
    found = [
        module
        for name in head
        for module in model.get_submodule(name).modules()
        if isinstance(module, nn.Linear) and module.out_features == num_classes
    ]
    if not found:
        raise Unsupported("the task's head does not end in a linear layer, one output a class")
    return found[-1]
