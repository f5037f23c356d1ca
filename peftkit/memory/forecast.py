"""The memory of a recipe's training step, predicted from a configuration: no weights, no GPU.

A step is traced with a backbone of three blocks of the full width. All blocks between the first and
the last are alike, so a deeper backbone is that with the middle block repeated: each adds its
weights throughout, its activations from its forward pass to its backward pass, its gradients after
that. The batch is of a prime number of examples; storages whose size it divides grow with the
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
from peftkit.memory.timeline import PARTS, Part, Timeline
from peftkit.memory.tracing import Device, Outlined, trace
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
        timeline: What was traced.
        traced_blocks: With how many blocks.
        block: Bytes that one more block takes throughout, by parts.
        traced_batch: Examples in the traced batch.
        terms: What the device adds.
    """

    trainable_parameters: int
    total_parameters: int
    num_blocks: int
    timeline: Timeline
    traced_blocks: int
    block: dict[Part, int]
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
        found = self._by_place(batch_size)
        return found.get("step") or found["step after"]

    def _by_place(self, batch_size: int) -> dict[str, dict[Part, int]]:
        """What is there at the peak of each stretch of the step."""
        scaling = {
            "round_to": self.terms.round_to,
            "traced_batch": self.traced_batch,
            "batch": batch_size,
        }
        peaks = self.timeline.peaks(**scaling)
        found = {name: peak.parts for name, peak in peaks.items()}
        more = self.num_blocks - self.traced_blocks
        if not more:
            return found
        forward = _change(self.timeline, "forward 1", "forward 2", scaling)
        kept = self.timeline.kept("forward 1", "loss", **scaling)  # not all that autocast made
        backward = _change(self.timeline, "backward 1", "backward 0", scaling)
        grown = {
            "before": self.block,
            "passed": _sum(self.block, forward),
            "within": _sum(self.block, kept),
            "after": _sum(_sum(self.block, kept), backward),
        }
        return {
            f"{name} {where}": {p: n + more * grown[where].get(p, 0) for p, n in parts.items()}
            for name, parts in found.items()
            for where in _places(name)
        }

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
    depth = _depth(recipe, whole)
    bench = _bench(recipe, _of_depth(config, depth), labels, location, processor, data)
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
    """How many blocks a backbone has, if all are alike; else 0."""
    config = config.get_text_config()
    kinds = getattr(config, "layer_types", None) or []
    if config.is_encoder_decoder or len(set(kinds)) > 1:
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


def _places(segment: str) -> tuple[str, ...]:
    """Where a stretch stands to the blocks that are added between the first and the last.

    They are like the second, which stands at both of their ends.
    """
    phase, _, where = segment.partition(" ")
    if phase in ("loss", "step"):
        return ("within",) if phase == "loss" else ("after",)
    start, end = ("before", "passed") if phase == "forward" else ("within", "after")
    if where == "1":
        return start, end
    first = where in ("in", "0")
    return (start,) if first == (phase == "forward") else (end,)


def _change(
    timeline: Timeline, start: str, end: str, scaling: Mapping[str, int]
) -> dict[Part, int]:
    """What comes to stay between the beginnings of two segments; nothing where they are missing."""
    before, after = timeline.beginning(start, **scaling), timeline.beginning(end, **scaling)
    if before is None or after is None:
        return {}
    return {part: after[part] - before[part] for part in PARTS}


def _sum(one: Mapping[Part, int], other: Mapping[Part, int]) -> dict[Part, int]:
    return {part: one.get(part, 0) + other.get(part, 0) for part in PARTS}
