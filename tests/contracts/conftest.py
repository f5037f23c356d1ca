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

from cells import BATCH, SENSES, STEPS, TASKS, Start, batch_of, logits_of
from senses import toy_image, toy_sound, write_rows


@dataclasses.dataclass
class Fitted:
    """A method fitted, saved, and what was seen on the way."""

    bench: Any
    predictor: Any
    folder: Path
    before: dict[str, torch.Tensor]
    logits: np.ndarray
    embedded: list[list[Any]]  # token ids (or pixels, or sound) that came in while training
    labels: list[list[int]]  # labels that reached the loss

    def trained(self) -> dict[str, torch.Tensor]:
        """What the method trained, wherever it keeps it."""
        if hasattr(self.predictor, "model"):
            named = self.predictor.model.named_parameters()
            return {name: p.detach() for name, p in named if p.requires_grad}
        return dict(self.predictor.layer.state_dict())


@pytest.fixture(scope="session")
def seen_and_heard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Options of the tasks on toy images and toy sounds."""
    images = write_rows(tmp_path_factory.mktemp("images"), "image", toy_image)
    sounds = write_rows(tmp_path_factory.mktemp("sounds"), "audio", toy_sound)
    return {
        "image_classification": {"data": str(images)},
        "audio_classification": {"data": str(sounds), "max_seconds": 0.4},
    }


@pytest.fixture(scope="session")
def bench_of(
    make_bench: Callable[..., Any],
    tagged_folder: Path,
    asked_folder: Path,
    seen_and_heard: dict[str, dict[str, Any]],
) -> Callable[..., Any]:
    """Return a function that puts a method on a family's twin on a workbench, for any task."""
    folders = zip(TASKS[1:], (tagged_folder, asked_folder), strict=True)
    known = {task: {"data": str(folder)} for task, folder in folders} | seen_and_heard

    def make(
        method: Any, family: str, task: str | None = None, dtype: str = "float32", **options: Any
    ) -> Any:
        task = task or SENSES.get(family, TASKS[0])
        posed = {"name": task, **known[task]} if task in known else {}
        backbone = {"name": f"twin:{family}", "dtype": dtype}
        return make_bench(method, backbone, task=posed, **options)

    return make


@pytest.fixture(scope="session")
def fresh(bench_of: Callable[..., Any]) -> Callable[..., Start]:
    """Attach a method to a fresh twin, the surroundings' random state being anything."""

    def attach(method: Any, family: str, task: str | None = None, **options: Any) -> Start:
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
def fitted(bench_of: Callable[..., Any]) -> Callable[..., Fitted]:
    """Fit a method on a twin at a high learning rate; done once for equal arguments."""

    @functools.cache
    def fit(method: str, family: str, seed: int = 0, again: int = 0) -> Fitted:
        options = {"steps": STEPS, "batch_size": BATCH, "learning_rate": 0.02}
        bench = bench_of(method, family, seed=seed, **options)
        embedded: list[list[Any]] = []
        labels: list[list[int]] = []
        before: dict[str, torch.Tensor] = {}
        _record_labels(bench, labels)
        if bench.recipe.method.needs_backbone:
            record = _record_inputs if family in SENSES else _record_ids
            record(bench.backbone.model, embedded)
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


def _record_inputs(model: Any, seen: list[list[Any]]) -> None:
    def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module.training:
            seen.append(kwargs[model.main_input_name].tolist())

    model.register_forward_pre_hook(hook, with_kwargs=True)


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
