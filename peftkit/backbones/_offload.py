"""Frozen linear layers that wait in CPU memory and come to the device as they compute.

While a block runs, accelerate's hooks bring the weights of one layer after the other and drop each
once it is done. In training a backward pass needs them again: unless blocks are recomputed
(`training.gradient_checkpointing`) autograd keeps every one of them on the device until then, and
nothing would be saved. Layers that a method adds stay on the device.

Tried with the CPU as the device, which runs the same hooks but saves nothing; not tried on CUDA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn


def offload(model: Any, layers: Iterable[nn.Module], device: str) -> None:
    """Move `model` to the device, but leave the weights of `layers` in CPU memory, in place.

    Args:
        model: On the CPU, with or without an adapter.
        layers: Linear layers in it whose own parameters nobody trains.
        device: Where they compute.
    """
    import torch
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    for layer in layers:
        own = {name: p.detach() for name, p in layer.named_parameters(recurse=False)}
        hook = AlignDevicesHook(execution_device=device, offload=True, weights_map=own)
        add_hook_to_module(layer, hook, append=True)
    model._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(device))
    # Two places, or Trainer and accelerate would move all of it to the device.
    model.hf_device_map = {"": torch.device(device), "layers": torch.device(device)}


def bring_back(model: Any, layers: Iterable[nn.Module]) -> None:
    """Undo `offload`: all of `model` on the CPU, without hooks."""
    from accelerate.hooks import remove_hook_from_module

    for layer in layers:
        remove_hook_from_module(layer)
    if hasattr(model, "hf_device_map"):
        del model.hf_device_map
    model.to("cpu")
