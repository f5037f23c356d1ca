"""The memory of a recipe's training step, predicted from a configuration: no weights, no GPU.

A step is traced with backbones of a few blocks of the full width, and each stretch of it (the
first block forwards, the last block backwards, ...) extrapolated to the full depth: all blocks
between the second and the last are alike, so memory within a stretch is a linear function of their
number. The batch is of a prime number of examples; storages whose size it divides grow with the
batch, so one trace serves every batch size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftkit import parts
from peftkit.backbones import LoadedBackbone, outline
from peftkit.errors import Unsupported
from peftkit.memory.device_terms import DeviceTerms, terms_of
from peftkit.memory.timeline import PARTS, Part, Peak, Timeline
from peftkit.memory.tracing import Device, Outlined, Traced, trace
from peftkit.methods._method import Method
from peftkit.methods.last_layers import LastLayers
from peftkit.methods.lora import LoRA
from peftkit.tasks import TaskData
from peftkit.workbench import Workbench

if TYPE_CHECKING:
    from peftkit.backbones import Location
    from peftkit.recipe import Recipe

PRIMES = (61, 67, 71, 73, 79)  # examples in a traced batch: one that divides no width of the model
WHOLE = 6  # backbones of so few blocks are traced as they are


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Memory at the peak of a training step.

    Attributes:
        peak_bytes: What tensors take; on CUDA as `torch.cuda.max_memory_allocated` counts.
        parts: Of which how much is what; they add up to `peak_bytes`.
        during: Where the peak is: "forward", "loss", "backward" or "step".
        reserved_bytes: What the caching allocator will have taken; on a CPU the same as the peak.
        total_bytes: What the device must have: reserved, and CUDA's own context.
    """

    peak_bytes: int
    parts: dict[Part, int]
    during: str
    reserved_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The traced step of one recipe, from which the memory at any batch size follows.

    Attributes:
        trainable_parameters: Of method and head.
        total_parameters: Of the backbone.
        num_blocks: Of the backbone.
        timelines: Number of blocks traced -> what was traced; one or two.
        traced_batch: Examples in the traced batch.
        terms: What the device adds.
    """

    trainable_parameters: int
    total_parameters: int
    num_blocks: int
    timelines: dict[int, Timeline]
    traced_batch: int
    terms: DeviceTerms

    def peak(self, batch_size: int) -> Prediction:
        """Predict the peak of a step with so many examples a forward pass."""
        amounts = self._by_place(batch_size)
        place = max(amounts, key=lambda name: sum(amounts[name].values()))
        parts = {name: amounts[place].get(name, 0) for name in PARTS}
        parts["temporary"] += self.terms.workspace_bytes
        return self._prediction(parts, place.partition(" ")[0])

    def after_step(self, batch_size: int) -> dict[Part, int]:
        """What is there when the optimizer steps: weights, gradients and its own state."""
        return self._by_place(batch_size)["step"]

    def _by_place(self, batch_size: int) -> dict[str, dict[Part, int]]:
        found: dict[int, dict[str, dict[Part, int]]] = {}
        for depth, timeline in self.timelines.items():
            peaks = timeline.peaks(
                round_to=self.terms.round_to, traced_batch=self.traced_batch, batch=batch_size
            )
            found[depth] = _by_place(peaks, depth)
        if len(found) == 1:
            (amounts,) = found.values()
            return amounts
        return _extrapolated(found, self.num_blocks)

    def _prediction(self, parts: dict[Part, int], during: str) -> Prediction:
        peak = sum(parts.values())
        reserved = self.terms.reserved_bytes(peak)
        return Prediction(
            peak_bytes=peak,
            parts=parts,
            during=during,
            reserved_bytes=reserved,
            total_bytes=reserved + self.terms.context_bytes,
        )

    def largest_batch(self, limit_bytes: int, most: int = 1 << 16) -> int:
        """The most examples a forward pass with which the device needs no more; 0: not even one."""
        if self.peak(1).total_bytes > limit_bytes:
            return 0
        low, high = 1, 2
        while high <= most and self.peak(high).total_bytes <= limit_bytes:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            if self.peak(middle).total_bytes <= limit_bytes:
                low = middle
            else:
                high = middle
        return min(low, most)


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
    traced: dict[int, Traced] = {}
    for depth in _depths(recipe, whole):
        bench = _bench(recipe, _of_depth(config, depth), labels, location, processor, data)
        traced[depth] = trace(bench, batch(bench.backbone), device=device)
    deepest = traced[max(traced)]
    if len(traced) > 1 and any(each.num_blocks != depth for depth, each in traced.items()):
        # Not as many blocks as the configuration says layers: shared, or of several kinds.
        bench = _bench(recipe, config, labels, location, processor, data)
        deepest = trace(bench, batch(bench.backbone), device=device)
        traced = {0: deepest}
    trainable, total = deepest.trainable_parameters, deepest.total_parameters
    if len(traced) > 1:
        first, second = sorted(traced)
        for_each = (second - first, whole - second)
        trainable += _more(traced, "trainable_parameters", *for_each)
        total += _more(traced, "total_parameters", *for_each)
    return Forecast(
        trainable_parameters=trainable,
        total_parameters=total,
        num_blocks=whole or deepest.num_blocks,
        timelines={depth: each.timeline for depth, each in traced.items()},
        traced_batch=batch_size,
        terms=terms_of(device),
    )


def _more(traced: dict[int, Traced], what: str, apart: int, further: int) -> int:
    """What the blocks beyond the deepest traced backbone add."""
    first, second = (int(getattr(traced[depth], what)) for depth in sorted(traced))
    return (second - first) * further // apart


def _require_steps(recipe: Recipe) -> None:
    """Refuse what is not trained step by step through the backbone, or cannot be traced."""
    method = recipe.method
    name = parts.name_of(type(method))
    if type(method).attach is Method.attach or method.learning_rate is None:
        raise Unsupported(
            f"{name} takes no step through the backbone whose memory could be predicted. Next: "
            "run it; the record says what it took."
        )
    if getattr(method, "dora", False) and recipe.backbone.quantization != "none":
        raise Unsupported(
            "DoRA reads the packed weights themselves, which have no values before a run. Next: "
            "leave --method.dora out, or --backbone.quantization."
        )


def _as_traced(recipe: Recipe) -> Recipe:
    """The same step without what needs values: where layers start does not matter to memory."""
    changes: dict[str, object] = {"training.head_init": "random"}
    if isinstance(recipe.method, LoRA) and recipe.method.init != "default":
        changes["method.init"] = "default"
    if not recipe.method.from_pretrained:
        changes["backbone.dtype"] = "float32"
    return recipe.override(changes)


def _num_blocks(config: Any) -> int:
    """How many blocks a backbone has, if all are alike; else 0."""
    config = config.get_text_config()
    kinds = getattr(config, "layer_types", None) or []
    if config.is_encoder_decoder or len(set(kinds)) > 1:
        return 0
    return int(getattr(config, "num_hidden_layers", 0) or 0)


def _depths(recipe: Recipe, whole: int) -> tuple[int, ...]:
    """How deep the traced backbones are; 0 is as deep as it is.

    A method that treats the last blocks otherwise needs these, and two more, in each.
    """
    own = recipe.method
    apart = getattr(own, "num_layers", 0) if isinstance(own, LastLayers) else 0
    foreign = not type(own).__module__.startswith("peftkit.methods.")
    pattern = any(getattr(own, name, None) for name in ("rank_pattern", "alpha_pattern"))
    shallow = 2 + apart
    if whole <= max(WHOLE, shallow + 2) or foreign or pattern:
        return (0,)
    return shallow, shallow + 2


def _of_depth(config: Any, depth: int) -> Any:
    if not depth:
        return config
    config = copy.deepcopy(config)
    inner = config.get_text_config()
    inner.num_hidden_layers = depth
    if getattr(inner, "layer_types", None):
        inner.layer_types = inner.layer_types[:depth]
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
        recipe.backbone, config, auto_classes=recipe.task.auto_classes, labels=labels,
        location=location, processor=processor, inputs=recipe.task.inputs,
        reads=recipe.task.reads, max_seconds=getattr(recipe.task, "max_seconds", None),
    )  # fmt: skip
    return bench


def _prime_for(recipe: Recipe, config: Any, length: int) -> int:
    """A number of examples that divides nothing else of which sizes are made."""
    numbers = {n for n in config.get_text_config().to_dict().values() if isinstance(n, int) and n}
    numbers |= {length, length + getattr(recipe.method, "num_tokens", 0)}
    return next((p for p in PRIMES if all(n % p for n in numbers)), PRIMES[-1])


def _synthetic(recipe: Recipe, backbone: LoadedBackbone, batch: int, length: int) -> dict[str, Any]:
    """Outlines of a batch of whole rows, as the task would make it."""
    task, config = recipe.task, backbone.model.config
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


def _by_place(peaks: dict[str, Peak], depth: int) -> dict[str, dict[Part, int]]:
    """Peaks under names that backbones of any depth have in common."""
    found: dict[str, dict[Part, int]] = {}
    for name, peak in peaks.items():
        phase, _, where = name.partition(" ")
        names = [name]
        if where.isdigit():
            block = int(where)
            names = [f"{phase} first", f"{phase} second"][block : block + 1]
            names += [f"{phase} last{block + 1 - depth}"] if block else []
        found |= dict.fromkeys(names, peak.parts)
    return found


def _extrapolated(
    found: dict[int, dict[str, dict[Part, int]]], depth: int
) -> dict[str, dict[Part, int]]:
    """Each place's parts in a backbone of `depth` blocks, from two that are shallower."""
    near, far = sorted(found)
    further = (depth - far) / (far - near)
    common = found[near].keys() & found[far].keys()
    return {
        place: {
            part: round(amount + (amount - found[near][place][part]) * further)
            for part, amount in found[far][place].items()
        }
        for place in sorted(common)
    }
