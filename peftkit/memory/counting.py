"""Counting live tensor storages: exact on the CPU, where resident memory says little.

Every operation of torch passes through a dispatch mode; a storage is noted when the first tensor on
it appears, and once more when it is freed. What it is for follows from when it came: of the forward
pass, the loss, the backward pass or the optimizer. What a kernel takes and gives back within itself
is not seen. The same mode counts fake tensors, which is how memory is predicted.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from peftkit.memory.timeline import Part, Timeline

_OF_WEIGHTS: frozenset[Part] = frozenset({"weights", "quantization_state", "weight_copies"})


def storages_of(value: Any) -> Iterable[torch.UntypedStorage]:
    """What a tensor lies in: one storage, or two or three if it is sparse. Other things: none."""
    if not isinstance(value, torch.Tensor):
        return ()
    if value.layout is torch.strided:
        return (value.untyped_storage(),)
    parts: tuple[torch.Tensor, ...]
    if value.layout is torch.sparse_coo:
        parts = (value._indices(), value._values())
    elif value.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = (value.crow_indices(), value.col_indices(), value.values())
    elif value.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = (value.ccol_indices(), value.row_indices(), value.values())
    else:  # of other layouts torch tells nothing
        return ()
    return tuple(part.untyped_storage() for part in parts)


class LiveStorages(TorchDispatchMode):
    """Writes a timeline of all storages while it is active.

    Attributes:
        timeline: What came and went.
        phase: What is being done: "forward", "loss", "backward" or "step".
    """

    def __init__(self) -> None:
        super().__init__()
        self.timeline = Timeline()
        self.phase = "forward"
        self._known: dict[int, tuple[int, Part, Any]] = {}
        self._owners: list[str] = []

    def hold(self, tensors: Iterable[torch.Tensor | None], part: Part) -> None:
        """Count the storages of `tensors` as `part`, whatever they counted as so far."""
        for tensor in tensors:
            for storage in storages_of(tensor):
                known = self._known.get(id(storage))
                if known is None:
                    self._enter(storage, part)
                elif known[1] != part:
                    self.timeline.move(known[0], known[1], part)
                    self._known[id(storage)] = (known[0], part, known[2])

    def stop(self) -> None:
        """Follow no storage any further."""
        self._known.clear()

    def begin(self, phase: str, segment: str | None = None) -> None:
        """Say what is done from here on."""
        self.phase = phase
        self.timeline.begin(segment or phase)

    @contextmanager
    def naming(self, model: nn.Module) -> Iterator[None]:
        """Note in which module's forward pass a storage comes."""
        handles = []
        for name, module in model.named_modules():

            def enter(_: nn.Module, __: Any, name: str = name) -> None:
                self._owners.append(name)

            def leave(_: nn.Module, __: Any, ___: Any) -> None:
                if self._owners:
                    self._owners.pop()

            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._owners.clear()

    @contextmanager
    def gradients_of(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        """Count what becomes the gradient of a parameter as such."""

        def keep(parameter: torch.Tensor) -> None:
            self.hold([parameter.grad], "gradients")

        handles = [p.register_post_accumulate_grad_hook(keep) for p in parameters]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.prim.device.default and hasattr(args[0], "fake_device"):
            return args[0].fake_device  # two of three calls, each of which makes nothing
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        part: Part | None = None
        for tensor in tree_leaves(output):
            for storage in storages_of(tensor):
                if id(storage) not in self._known:
                    part = part or self._part_of(args, kwargs)
                    self._enter(storage, part)
        return output

    def _part_of(self, args: Any, kwargs: Any) -> Part:
        """What a storage is that an operation on these arguments has just made."""
        if self.phase == "loss":
            return "logits"
        # Gradients are computed without gradients of their own; only what is run again for them,
        # when activations were not kept, is computed with.
        forward = self.phase == "forward" or (self.phase == "backward" and torch.is_grad_enabled())
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if tensors and all(self._is_weight(tensor) for tensor in tensors):
            return "weight_copies"
        return "activations" if forward else "temporary"

    def _is_weight(self, tensor: torch.Tensor) -> bool:
        known = [self._known.get(id(storage)) for storage in storages_of(tensor)]
        return all(entry is not None and entry[1] in _OF_WEIGHTS for entry in known)

    def _enter(self, storage: Any, part: Part) -> None:
        key = id(storage)
        owner = self._owners[-1] if self._owners else ""
        number = self.timeline.enter(storage.nbytes(), part, owner)
        self._known[key] = (number, part, weakref.ref(storage, lambda _: self._leave(key)))

    def _leave(self, key: int) -> None:
        number, part, _ = self._known.pop(key)
        self.timeline.leave(number, part)


def state_of(model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Parameters and buffers of a model, and the scales of weights that bitsandbytes packed."""
    from peftkit.backbones import packed_layers

    weights = [*model.parameters(), *model.buffers()]
    scales: list[torch.Tensor] = []
    for layer in packed_layers(model):
        state = getattr(layer.weight, "quant_state", None)
        kept = [getattr(layer.weight, "SCB", None)] if state is None else _tensors_of(state)
        kept += [getattr(getattr(layer, "state", None), name, None) for name in ("CB", "SCB")]
        scales += [tensor for tensor in kept if isinstance(tensor, torch.Tensor)]
    return weights, scales


def _tensors_of(state: Any) -> list[torch.Tensor]:
    """The tensors of a `QuantState`, and of the one inside it that double quantisation makes."""
    found = [x for x in vars(state).values() if isinstance(x, torch.Tensor)]
    inner = getattr(state, "state2", None)
    return found + (_tensors_of(inner) if inner is not None else [])
