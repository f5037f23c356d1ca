"""A merge in memory: the adapter on dense float32 weights, folded, cast once, saved.

Takes any method that PEFT can merge, and any base; the whole model is in memory in float32, and
beside it the packed one where what its weights stand for is asked for. Plain bases of the usual
layout are merged tensor by tensor instead; see `peftkit.merging.shards`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.merging.folding import fold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch

    from peftkit.merging.request import Request
    from peftkit.saved import SavedRun

PLAIN = {"quantization": "none", "double_quantization": False, "compute_dtype": "auto",
         "storage_dtype": "uint8", "dtype": "float32", "offload": "none"}  # fmt: skip


def unpacked(model: Any) -> dict[str, torch.Tensor]:
    """What the packed weights of a model stand for, `(out, in)` in float32, by the layer's name.

    Args:
        model: As transformers loads it, with an adapter in it or without.
    """
    import torch
    from peft.utils.integrations import dequantize_bnb_weight

    from peftkit.backbones import packed_layers

    packed = {id(layer) for layer in packed_layers(model)}
    found: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if id(module) in packed:
            state = getattr(module, "state", None)
            with torch.no_grad():
                weight = dequantize_bnb_weight(module.weight, state=state)
            found[name.replace(".base_layer", "")] = weight.detach().float().cpu()
    return found


def dense_run(run: SavedRun, folder: Path, weights: Mapping[str, torch.Tensor]) -> SavedRun:
    """The adapter of a run, unmerged, on dense float32 weights.

    Args:
        run: As `load_run` loads it.
        folder: Where its adapter is.
        weights: Those of some layers, `(out, in)`, which take the place of those of the files.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    from peftkit.saved import SavedRun
    from peftkit.workbench import Workbench

    earlier: Any = run.predictor
    recipe = run.recipe.override({f"backbone.{name}": value for name, value in PLAIN.items()})
    bench = Workbench(recipe, earlier.bench.data, folder)
    model = bench.backbone.model
    with torch.no_grad():
        for name, weight in weights.items():
            layer = model.get_submodule(name)
            layer.weight.copy_(weight.T if isinstance(layer, Conv1D) else weight)
    predictor: Any = recipe.method.reload(bench, folder)
    predictor.model.float()
    return SavedRun(recipe=recipe, labels=run.labels, predictor=predictor)


def write_whole(
    dense: SavedRun,
    request: Request,
    folder: Path,
    before_packing: Callable[[SavedRun], None] = lambda folded: None,
) -> None:
    """Fold the adapter of `dense_run` and write the model to `folder`, in place of both.

    Args:
        dense: The run.
        request: What is asked for.
        folder: Where to.
        before_packing: Shown the folded model where its weights will be packed again.

    Raises:
        Unsupported: A part of the adapter has no place in the backbone's weights.
    """
    import torch

    predictor: Any = dense.predictor
    with torch.no_grad():
        merged = fold(predictor.model)
        _cast(merged, getattr(torch, request.dtype))
    bench = predictor.bench
    if request.base != "requantized":
        merged.save_pretrained(folder)
    else:
        plain = folder / "plain"
        merged.save_pretrained(plain)
        predictor.model = merged
        before_packing(dense)
        _pack(bench, request, plain, folder)


def _cast(model: Any, dtype: Any) -> None:
    for parameter in model.parameters():  # `model.to` would round buffers for good
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype


def _pack(bench: Any, request: Request, plain: Path, folder: Path) -> None:
    """Pack what lies in `plain` as the base was packed, write it to `folder`, and drop `plain`."""
    import shutil

    import transformers

    from peftkit.backbones import read_packed
    from peftkit.recipe import Recipe

    auto = getattr(transformers, bench.backbone.auto_class)
    asked = Recipe.from_dict(request.manifest["recipe"]).backbone
    model = read_packed(asked, auto, plain, dtype=request.dtype)
    model.save_pretrained(folder)
    shutil.rmtree(plain)
