"""The memory of a recipe's training step, predicted from a configuration: no weights, no GPU.

A step is traced with a backbone of three blocks of the full width, whose middle one is then
repeated. The batch is of a prime number of examples, so that one trace serves every batch size.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftkit import parts
from peftkit.backbones import LoadedBackbone, outline
from peftkit.errors import Unsupported
from peftkit.memory.device_terms import terms_of
from peftkit.memory.outlines import Outlined
from peftkit.memory.prediction import Forecast
from peftkit.memory.tracing import Device, trace
from peftkit.methods._method import Method
from peftkit.methods.last_layers import LastLayers
from peftkit.methods.lora import LoRA
from peftkit.tasks import TaskData
from peftkit.workbench import Workbench

if TYPE_CHECKING:
    from peftkit.backbones import Location
    from peftkit.recipe import Recipe

PRIMES = (61, 67, 71, 73, 79)  # examples in a traced batch: one that divides no width of the model
# Options that say which blocks hold experts; with 1 all do from the second block on, at the latest.
SPARSE = (
    "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", "decoder_sparse_step",
    "moe_layer_freq", "moe_layer_interval", "interleave_moe_layer_step",
)  # fmt: skip
KINDS = ("layer_types", "mlp_layer_types")
WHOLE = 6  # backbones of so few blocks are traced as they are


def forecast(
    recipe: Recipe, config: Any, *, length: int, device: Device = "cuda", num_labels: int = 2
) -> Forecast:
    """Forecast the memory of a recipe on a backbone of which only the configuration is there.

    Args:
        recipe: What would be run. Its data is not read.
        config: A configuration of transformers.
        length: Tokens of each example, none of them padding; images and sounds have theirs.
        device: Whose kernels, rounding and context.
        num_labels: Of a new output layer.

    Raises:
        Unsupported: Method and backbone do not go together, or the method takes no step through
            the backbone.
        InvalidInput: A hyperparameter does not fit this backbone.
    """
    batch_size = _prime_for(recipe, config, length)
    labels = [f"class {i}" for i in range(num_labels)]

    def batch(backbone: LoadedBackbone) -> Mapping[str, Any]:
        return _synthetic(recipe, backbone, batch_size, length)

    return _forecast(recipe, config, labels, batch, batch_size, device)


def forecast_of(
    bench: Workbench,
    batch: Mapping[str, Any],
    *,
    device: Device,
    changes: Mapping[str, object] | None = None,
    scale: bool = False,
) -> Forecast:
    """Forecast the memory of a run that is about to train on `batch` (and smaller ones).

    Args:
        bench: With its data and backbone.
        batch: Tensors of the largest batch; "labels" among them.
        device: Where.
        changes: Options of the recipe that would be changed.
        scale: Whether other batch sizes will be asked for, not only that of `batch`.

    Raises:
        Unsupported: The method takes no step through the backbone.
    """
    outlined = {name: Outlined.of(value) for name, value in batch.items()}
    loaded = bench.backbone
    recipe = bench.recipe.override(changes or {})
    size = int(next(iter(outlined.values())).shape[0])
    if scale:
        shape = next(iter(outlined.values())).shape
        size = _prime_for(recipe, loaded.model.config, shape[1] if len(shape) > 1 else 1)
        outlined = {name: Outlined.resized(value, size) for name, value in outlined.items()}
    return _forecast(
        recipe, loaded.model.config, bench.data.labels, lambda _: outlined, size, device,
        location=loaded.location, processor=loaded.processor, data=bench.data,
    )  # fmt: skip


def _forecast(
    recipe: Recipe,
    config: Any,
    labels: list[str],
    batch: Callable[[LoadedBackbone], Mapping[str, Any]],
    batch_size: int,
    device: Device,
    *,
    location: Location | None = None,
    processor: Any = None,
    data: TaskData | None = None,
) -> Forecast:
    _require_steps(recipe)
    recipe = _as_traced(recipe)
    whole = _num_blocks(config)
    depth = _depth(recipe, whole)
    bench = _bench(recipe, _of_depth(config, depth), labels, location, processor, data)
    if depth:
        layers = dataclasses.replace(bench.backbone.layers, stands_for=whole)
        bench.backbone = dataclasses.replace(bench.backbone, layers=layers)
    traced = trace(bench, batch(bench.backbone), device=device)
    if depth and traced.num_blocks != depth:
        # Not as many blocks as the configuration says layers: shared, or of several kinds.
        depth = 0
        bench = _bench(recipe, config, labels, location, processor, data)
        traced = trace(bench, batch(bench.backbone), device=device)
    more = whole - depth if depth else 0
    trained, own = traced.block_parameters
    return Forecast(
        trainable_parameters=traced.trainable_parameters + more * trained,
        total_parameters=traced.total_parameters + more * own,
        num_blocks=traced.num_blocks + more,
        timeline=traced.timeline,
        traced_blocks=traced.num_blocks,
        block=traced.block,
        traced_batch=batch_size,
        terms=terms_of(device),
    )


def _require_steps(recipe: Recipe) -> None:
    """Refuse what is not trained step by step through the backbone, or cannot be traced."""
    method = _attached(recipe)
    name = parts.name_of(type(method))
    if type(method).attach is Method.attach or method.learning_rate is None:
        raise Unsupported(
            f"{name} takes no step through the backbone whose memory could be predicted. Next: "
            "run it; the record says what it took."
        )
    packed = recipe.backbone.quantization != "none"
    if packed and isinstance(method, LoRA) and method.init in ("pissa", "olora"):
        raise Unsupported(
            f"init {method.init} takes its start out of the weights, and those would be packed. "
            "Next: choose --method.init default."
        )
    if recipe.backbone.offload != "none":
        raise Unsupported(
            "weights that wait in the CPU's memory come and go layer by layer, which is not "
            "predicted. Next: leave --backbone.offload out."
        )
    if getattr(method, "dora", False) and packed:
        raise Unsupported(
            "DoRA reads the packed weights themselves, which have no values before a run. Next: "
            "leave --method.dora out, or --backbone.quantization."
        )


def _attached(recipe: Recipe) -> Method:
    """The method that is attached: that of the recipe, or the one that it wraps."""
    found: Method = getattr(recipe.method, "adaptation", recipe.method)
    return found


def _as_traced(recipe: Recipe) -> Recipe:
    """The same step without what needs values: where layers start does not matter to memory."""
    changes: dict[str, object] = {"training.head_init": "random"}
    if isinstance(recipe.method, LoRA) and recipe.method.init != "default":
        changes["method.init"] = "default"
    if not recipe.method.from_pretrained:
        changes["backbone.dtype"] = "float32"
    return recipe.override(changes)


def _num_blocks(config: Any) -> int:
    """How many blocks a backbone has, if all but the first are alike; else 0."""
    config = config.get_text_config()
    kinds = [(getattr(config, name, None) or [])[1:] for name in KINDS]
    mixed = any((getattr(config, name, None) or 1) != 1 for name in SPARSE)
    if config.is_encoder_decoder or any(len(set(each)) > 1 for each in kinds) or mixed:
        return 0
    return int(getattr(config, "num_hidden_layers", 0) or 0)


def _depth(recipe: Recipe, whole: int) -> int:
    """How deep the traced backbone is; 0 is as deep as it is.

    A method that treats the last blocks otherwise needs these beside a middle one.
    """
    own = _attached(recipe)
    foreign = not type(own).__module__.startswith("peftkit.methods.")
    pattern = any(getattr(own, name, None) for name in ("rank_pattern", "alpha_pattern"))
    depth = 2 + (own.num_layers if isinstance(own, LastLayers) else 1)
    return 0 if whole <= max(WHOLE, depth) or foreign or pattern else depth


def _of_depth(config: Any, depth: int) -> Any:
    if not depth:
        return config
    config = copy.deepcopy(config)
    inner = config.get_text_config()
    inner.num_hidden_layers = depth
    for name in KINDS:
        if getattr(inner, name, None):
            setattr(inner, name, getattr(inner, name)[:depth])
    return config


def _bench(
    recipe: Recipe,
    config: Any,
    labels: list[str],
    location: Location | None,
    processor: Any,
    data: TaskData | None,
) -> Workbench:
    """A workbench whose backbone is an outline."""
    rows: Any = None  # nothing reads them
    data = data or TaskData(
        train=rows, validation=rows, test=rows, labels=labels, source="", fingerprint="",
        notes=(), chance=None,
    )  # fmt: skip
    bench = Workbench(recipe, data, Path())
    bench.backbone = outline(
        recipe.backbone, config, bench.head, location=location, processor=processor
    )
    return bench


def _prime_for(recipe: Recipe, config: Any, length: int) -> int:
    """A number of examples that divides nothing else of which sizes are made."""
    numbers = {n for n in config.get_text_config().to_dict().values() if isinstance(n, int) and n}
    numbers |= {length, length + getattr(_attached(recipe), "num_tokens", 0)}
    return next((p for p in PRIMES if all(n % p for n in numbers)), PRIMES[-1])


def _synthetic(recipe: Recipe, backbone: LoadedBackbone, batch: int, length: int) -> dict[str, Any]:
    """Outlines of a batch of whole rows, as the task would make it."""
    task, config = recipe.task, backbone.model.config
    if task.against_start:
        raise Unsupported(
            "the batches of this task cannot be told from a configuration alone. Next: run the "
            "recipe, which predicts its memory from its data."
        )
    whole = torch.int64
    if task.inputs == "image":
        side = config.image_size
        height, width = side if isinstance(side, list | tuple) else (side, side)
        pixels = (batch, config.num_channels, height, width)
        inputs = {"pixel_values": Outlined(pixels, torch.float32)}
    elif task.inputs == "text":
        inputs = {"input_ids": Outlined((batch, length), whole)}
        if config.is_encoder_decoder and task.reads == "token":
            inputs["decoder_input_ids"] = Outlined((batch, length), whole)
    else:
        raise Unsupported(
            "the memory of sounds cannot be predicted from a configuration alone. Next: run the "
            "recipe, which predicts it from its data."
        )
    shape, floating = task.label_shape(batch, length, len(backbone.model.config.id2label or {}))
    return {**inputs, "labels": Outlined(shape, torch.float32 if floating else whole)}
