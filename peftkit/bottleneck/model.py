"""Where bottleneck adapters go in a model: PEFT's tuner for them."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any, NamedTuple

from torch import nn
from transformers.pytorch_utils import Conv1D

from peftkit._peft import Tuner, bare_modules, match, short_names
from peftkit.errors import InvalidInput, Unsupported

from .config import PLACES, BottleneckConfig
from .layer import CANNOT_MERGE, BottleneckLayer


class _Place(NamedTuple):
    """The widths an adapter reads and writes, and the module that feeds it, if another."""

    d_in: int
    d_out: int
    feed: nn.Module | None


class BottleneckModel(Tuner):
    """PEFT's tuner for bottleneck adapters."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        modules = {
            name: module
            for name, module in bare_modules(model)
            if not isinstance(module, (nn.ModuleList, nn.ModuleDict))
            and next(module.parameters(), None) is not None
        }
        names = list(modules)
        if peft_config.target_modules is None:
            _set_default_places(peft_config, model, names)
        targets = match("target_modules", names, peft_config, model, kind="module")
        feeds = None
        if peft_config.input_modules is not None:
            feeds = match("input_modules", names, peft_config, model, kind="module")
        self._places = {
            target: _place(target, peft_config, modules, feeds, model) for target in targets
        }

    def _add(self, layer: Any, adapter_name: str, config: Any, key: str) -> None:
        place = self._places.pop(key)
        layer.update_layer(adapter_name, config, place.d_in, place.d_out, feed=place.feed)

    def _check_merge_allowed(self) -> None:
        raise Unsupported(CANNOT_MERGE)

    def unload(self) -> nn.Module:
        """Return the bare model, with the modules saved whole in their trained state."""
        for module in self.model.modules():
            if isinstance(module, BottleneckLayer):
                module.stop_feeding()
        return super().unload()


def _set_default_places(config: BottleneckConfig, model: nn.Module, names: list[str]) -> None:
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type not in PLACES:
        raise InvalidInput(
            f"no default target_modules for model type {model_type!r}",
            allowed=f"defaults exist for {', '.join(PLACES)}",
            next_step=f"give target_modules; {type(model).__name__} has {short_names(names)}",
        )
    config.target_modules, inputs = PLACES[model_type][config.variant]
    if config.input_modules is None:
        config.input_modules = inputs


def _place(
    target: str,
    config: BottleneckConfig,
    modules: dict[str, nn.Module],
    feeds: list[str] | None,
    model: nn.Module,
) -> _Place:
    d_out = _width(target, modules[target], model, side="out")
    if config.variant != "parallel":
        return _Place(d_out, d_out, None)
    feed = target if feeds is None else _nearest(target, feeds)
    d_in = _width(feed, modules[feed], model, side="in")
    return _Place(d_in, d_out, None if feeds is None else modules[feed])


def _width(name: str, module: nn.Module, model: nn.Module, *, side: str) -> int:
    """Return how many numbers `module` reads (`in`) or writes (`out`) at each position."""
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0 if side == "in" else 1])
    width = getattr(module, f"{side}_features", None)
    if width is None:  # a whole block: it reads and writes the residual stream
        config = getattr(model, "config", None)
        text_config = getattr(config, "get_text_config", lambda: config)()
        width = getattr(text_config, "hidden_size", None)
    if width is None:
        raise InvalidInput(
            f"the width of {name!r} is unknown",
            received=type(module).__name__,
            allowed="a linear layer, or any module of a model whose config has a hidden_size",
        )
    return int(width)


def _nearest(key: str, names: list[str]) -> str:
    """Return the first of `names` that share the longest start with `key`, part by part."""
    starts = list(accumulate(key.split("."), "{}.{}".format))

    def shared(name: str) -> int:
        return sum(f"{name}.".startswith(f"{start}.") for start in starts)

    best = max(names, key=shared)
    block = max((i for i, start in enumerate(starts, 1) if re.search(r"\b\d+$", start)), default=0)
    if shared(best) < block:
        raise InvalidInput(
            f"input_modules has no module in the layer of {key!r}",
            received=f"nearest: {best}",
            allowed="for each target a module of the same layer",
        )
    return best
