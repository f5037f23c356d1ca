"""Which biases BitFit trains in a model: PEFT's tuner for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peftkit._peft import Tuner, bare_modules, is_saved_whole, match
from peftkit.errors import Unsupported

from .layer import BitFitLayer


class BitFitModel(Tuner):
    """PEFT's tuner for BitFit."""

    prefix = "bitfit_"
    tuner_layer_cls = BitFitLayer

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        names = [name for name, module in bare_modules(model) if _has_bias(module)]
        if peft_config.target_modules is None:
            peft_config.target_modules = ".*"
            names = [
                name for name in names
                if name.startswith(_backbone(model)) and not is_saved_whole(name, peft_config)
            ]  # fmt: skip
        if not names:
            raise Unsupported(
                f"{type(model).__name__} has no bias to train: BitFit cannot exist on it. "
                "Next: choose another method, such as LayerNorm tuning or LoRA."
            )
        # Names written out: PEFT takes a pattern that fits embeddings as a request to save them.
        peft_config.target_modules = match(
            "target_modules", names, peft_config, model, kind="module with a bias"
        )

    def _add(self, layer: Any, adapter_name: str, config: Any, key: str) -> None:
        layer.update_layer(adapter_name)


def _backbone(model: nn.Module) -> str:
    """Return how the names of the modules without the task head begin."""
    backbone = getattr(model, "base_model", model)
    name = next((name for name, module in model.named_modules() if module is backbone), "")
    return f"{name}." if name else ""


def _has_bias(module: nn.Module) -> bool:
    """Say whether `module` adds a bias to its output: a leaf with one number per feature.

    A leaf may hold what its weight is computed from, such as the weight norm of a convolution.
    """
    bias = getattr(module, "bias", None)
    leaf = {name for name, _ in module.named_children()} <= {"parametrizations"}
    return torch.is_tensor(bias) and bias.dim() == 1 and leaf
