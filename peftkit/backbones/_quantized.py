"""Backbones whose linear layers are kept in 8 or 4 bits, through bitsandbytes.

Quantised are the linear layers of the blocks and nothing else: heads, embeddings, normalisation and
what new layers come with the task stay as they are, so nothing that is trained is ever packed. One
layer of T5's blocks stays too, the output of the MLP: transformers keeps it from being quantised,
because T5 goes by the number format of its weight.

References: Dettmers et al. 2022, arXiv:2208.07339 (int8); Dettmers et al. 2023, arXiv:2305.14314
(nf4, double quantisation, sections 2 and 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from peftkit.backbones._family import find_layers
from peftkit.errors import Unsupported

if TYPE_CHECKING:
    from torch import nn

    from peftkit.settings import Backbone


def quantized_loading(backbone: Backbone, auto: Any, config: Any) -> dict[str, Any]:
    """Arguments of `from_pretrained` that quantise while loading; none if not asked for.

    Raises:
        Unsupported: The architecture has no blocks of linear layers.
    """
    if backbone.quantization == "none":
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    from peftkit.device import device

    with torch.device("meta"):
        bare = auto.from_config(config)
    packed = set(find_layers(bare, head=()).linear())
    if not packed:
        raise Unsupported(
            f"no blocks of linear layers were found in {type(bare).__name__}, so there is nothing "
            "to quantise. Next: leave --backbone.quantization out."
        )
    kept = [name for name, module in bare.named_modules() if name and name not in packed
            and hasattr(module, "weight")]  # fmt: skip
    dtype = backbone.dtype if backbone.compute_dtype == "auto" else backbone.compute_dtype
    options: dict[str, Any] = (
        {"load_in_8bit": True}
        if backbone.quantization == "int8"
        else {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": backbone.quantization,
            "bnb_4bit_use_double_quant": backbone.double_quantization,
            "bnb_4bit_compute_dtype": getattr(torch, dtype),
            "bnb_4bit_quant_storage": getattr(torch, backbone.storage_dtype),
        }
    )
    return {
        "quantization_config": BitsAndBytesConfig(llm_int8_skip_modules=kept, **options),
        "device_map": {"": device()},
    }


def settle_quantized(model: nn.Module) -> None:
    """Keep the packed weights as they were packed, in place."""
    for module in packed_layers(model):
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # One forward pass in evaluation would repack them for good on such a CPU; merging then
            # yields garbage, and training wrong gradients, both silently.
            module.support_avx512bf16_for_cpu = False


def packed_layers(model: nn.Module) -> list[Any]:
    """The layers of `model` that bitsandbytes keeps in 8 or 4 bits."""
    # PEFT's wrappers around them bear the same names; outlines stand in for them without weights.
    own = ("bitsandbytes.", "peftkit.backbones._outline")
    return [module for module in model.modules() if type(module).__module__.startswith(own)]


def num_parameters(module: nn.Module) -> int:
    """Parameters of `module`; two of four bits that share a byte are two."""
    packed = {id(layer.weight): layer for layer in packed_layers(module)}
    total = 0
    for parameter in module.parameters():
        layer = packed.get(id(parameter))
        total += parameter.numel() if layer is None else layer.in_features * layer.out_features
    return total


@contextmanager
def dense_stand_ins(model: nn.Module) -> Iterator[None]:
    """Let packed layers compute with ordinary weights of their shape, whose values mean nothing.

    torch counts no operation inside those of bitsandbytes.
    """
    from torch.nn import functional

    with ExitStack() as stack:
        for layer in packed_layers(model):
            shape = (layer.out_features, layer.in_features)

            def forward(x: Any, shape: tuple[int, int] = shape, layer: Any = layer) -> Any:
                return functional.linear(x, x.new_zeros(shape), layer.bias)

            stack.enter_context(patch.object(layer, "forward", forward))
        yield
