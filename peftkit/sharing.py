"""Several runs of one backbone in memory at once, its weights held once.

Each run has its own model, with its own adapter and head, so that runs answer in any order and no
switch can be forgotten; the tensors of the backbone that are equal in two of them are one tensor.
A method that trained them has its own. While a run is loaded there is one copy more for a moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput
from peftkit.saved import SavedRun, load_run

if TYPE_CHECKING:
    from torch import nn


def load_runs(
    folders: Mapping[str, Path | str] | Sequence[Path | str], *, allow_other_base: bool = False
) -> dict[str, SavedRun]:
    """Load the folders of several runs; those of one backbone share its weights.

    Args:
        folders: Name -> folder; or folders, which are then called by their last part.
        allow_other_base: As `load_run` takes it.

    Returns:
        The runs by name: `runs["a"].predict([...])`, then `runs["b"].evaluate(file)`. To merge one
        of them in place would change the weights of all.

    Raises:
        InvalidInput: Two folders have one name, or one is not that of a finished run.
        WrongBackbone: The backbone's weights have changed since a run.
    """
    seen: dict[Any, dict[str, Any]] = {}
    runs = {}
    for name, folder in _named(folders).items():
        run = runs[name] = load_run(folder, allow_other_base=allow_other_base)
        bench = getattr(run.predictor, "bench", None)
        if bench is None or not run.recipe.method.needs_backbone:
            continue
        backbone = bench.backbone
        if not backbone.waiting:  # else its weights come to the device layer by layer
            part = run.recipe.backbone
            key = (backbone.location.fingerprint, part.dtype, part.quantization,
                   part.double_quantization, part.compute_dtype, part.storage_dtype)  # fmt: skip
            share(backbone.model, seen.setdefault(key, {}))
    return runs


def _named(folders: Mapping[str, Path | str] | Sequence[Path | str]) -> dict[str, Path]:
    if isinstance(folders, Mapping):
        return {name: Path(folder) for name, folder in folders.items()}
    named: dict[str, Path] = {}
    for folder in map(Path, folders):
        name = folder.resolve().name
        if name in named:
            raise InvalidInput(
                f"two folders are called {name!r}",
                received=f"{named[name]} and {folder}",
                next_step="give names: load_runs({'first': ..., 'second': ...})",
            )
        named[name] = folder
    return named


def share(model: nn.Module, seen: dict[str, Any]) -> None:
    """Let `model` use tensors of an earlier model that are equal to its own, in place.

    Args:
        model: A backbone, with or without an adapter on it.
        seen: Name -> parameter, or packed layer, of earlier models; added to.
    """
    from peftkit.backbones import packed_layers

    packed = {id(layer) for layer in packed_layers(model)}
    for place, module in list(model.named_modules(remove_duplicate=False)):
        name = bare_name(place)
        if id(module) in packed:
            # The whole layer: in 8 bits its first pass takes the scales away from the parameter.
            first = seen.setdefault(name, module)
            parent, _, own = place.rpartition(".")
            if first is not module and _alike(first, module):
                model.get_submodule(parent)._modules[own] = first
            continue
        for own, parameter in module._parameters.items():
            if parameter is not None:
                first = seen.setdefault(f"{name}.{own}", parameter)
                if first is not parameter and _equal(first, parameter):
                    module._parameters[own] = first


def _alike(first: nn.Module, other: nn.Module) -> bool:
    """Whether two packed layers hold the same weights, and the same biases."""
    return all(
        parameter is None or _equal(parameter, other._parameters[name])
        for name, parameter in first._parameters.items()
    )


def bare_name(name: str) -> str:
    """What a module that PEFT has wrapped is called without the wrapper."""
    return name.replace(".base_layer", "").replace(".original_module", "")


def _equal(one: Any, other: Any) -> bool:
    import torch

    alike = (type(one), one.shape, one.dtype, one.device) == (
        type(other), other.shape, other.dtype, other.device,
    )  # fmt: skip
    # An exported graph holds its own numbers: the model beside it has none.
    return alike and not one.is_meta and torch.equal(one.data, other.data)
