"""What contract tests start from: a method attached to a fresh twin, or fitted on it and saved."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cells import BATCH, STEPS, TASKS, Start, batch_of, logits_of


@dataclasses.dataclass
class Fitted:
    """A method fitted, saved, and what was seen on the way."""

    bench: Any
    predictor: Any
    folder: Path
    before: dict[str, torch.Tensor]
    logits: np.ndarray
    embedded: list[list[list[int]]]  # token ids that reached the embedding while training
    labels: list[list[int]]  # labels that reached the loss

    def trained(self) -> dict[str, torch.Tensor]:
        """What the method trained, wherever it keeps it."""
        if hasattr(self.predictor, "model"):
            named = self.predictor.model.named_parameters()
            return {name: p.detach() for name, p in named if p.requires_grad}
        return dict(self.predictor.layer.state_dict())


@pytest.fixture(scope="session")
def bench_of(
    make_bench: Callable[..., Any], tagged_folder: Path, asked_folder: Path
) -> Callable[..., Any]:
    """Return a function that puts a method on a family's twin on a workbench, for any task."""
    folders = dict(zip(TASKS[1:], (tagged_folder, asked_folder), strict=True))

    def make(method: Any, family: str, task: str = TASKS[0], **options: Any) -> Any:
        posed = {"name": task, "data": str(folders[task])} if task in folders else {}
        return make_bench(method, f"twin:{family}", task=posed, **options)

    return make


@pytest.fixture(scope="session")
def fresh(bench_of: Callable[..., Any]) -> Callable[..., Start]:
    """Attach a method to a fresh twin, the surroundings' random state being anything."""

    def attach(method: Any, family: str, task: str = TASKS[0], **options: Any) -> Start:
        bench = bench_of(method, family, task, **options)
        model = bench.backbone.model
        bare, logits = dict(model.named_parameters()), logits_of(model, batch_of(bench), bench)
        _disturb_random_state()
        return Start(bench, bench.attach(bench.recipe.method), bare, logits)

    return attach


@pytest.fixture(scope="session")
def start(fresh: Callable[..., Start]) -> Callable[[str, str], Start]:
    """The same, once for equal arguments; for tests that change nothing."""
    return functools.cache(lambda method, family: fresh(method, family))


@pytest.fixture(scope="session")
def fitted(make_bench: Callable[..., Any]) -> Callable[..., Fitted]:
    """Fit a method on a twin at a high learning rate; done once for equal arguments."""

    @functools.cache
    def fit(method: str, family: str, seed: int = 0, again: int = 0) -> Fitted:
        options = {"steps": STEPS, "batch_size": BATCH, "learning_rate": 0.02}
        bench = make_bench(method, f"twin:{family}", seed=seed, **options)
        embedded: list[list[list[int]]] = []
        labels: list[list[int]] = []
        before: dict[str, torch.Tensor] = {}
        _record_labels(bench, labels)
        if bench.recipe.method.needs_backbone:
            _record_ids(bench.backbone.model, embedded)
        _keep_start(bench, before)
        _disturb_random_state()
        predictor = bench.recipe.method.fit(bench)
        predictor.save(bench.folder)
        logits = predictor.outputs(bench.data.test)
        return Fitted(bench, predictor, bench.folder, before, logits, embedded, labels)

    return fit


def _disturb_random_state() -> None:
    """Nothing may depend on what was drawn before."""
    arbitrary = random.SystemRandom().randrange(2**32)
    torch.manual_seed(arbitrary)
    np.random.seed(arbitrary)
    random.seed(arbitrary)


def _record_ids(model: Any, seen: list[list[list[int]]]) -> None:
    def hook(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if module.training:
            seen.append(args[0].tolist())

    name = "encoder.embed_tokens"  # of an encoder-decoder, tied to the one that is asked for
    found = [m for n, m in model.named_modules() if n.endswith(name)]
    (found[0] if found else model.get_input_embeddings()).register_forward_pre_hook(hook)


def _record_labels(bench: Any, seen: list[list[int]]) -> None:
    loss = bench.recipe.task.loss

    def recorded(logits: torch.Tensor, labels: torch.Tensor, data: Any) -> torch.Tensor:
        seen.append(labels.tolist())
        return loss(logits, labels, data)

    object.__setattr__(bench.recipe.task, "loss", recorded)


def _keep_start(bench: Any, state: dict[str, torch.Tensor]) -> None:
    train = bench.train

    def kept(model: Any, *args: Any) -> None:
        state.update({name: p.detach().clone() for name, p in model.named_parameters()})
        train(model, *args)

    bench.train = kept
