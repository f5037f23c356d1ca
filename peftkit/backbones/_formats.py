"""Number formats of a backbone that is kept in bfloat16, and what is cast on the way.

New heads are trained, hence float32; so are the norms beside packed weights. Embeddings, and a
language model's own output layer, stay in bfloat16: often they are one tensor, which a float32 copy
would make three times as large. Losses are computed in float32 whatever the logits are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def keep_in_float32(model: Any, names: Iterable[str]) -> None:
    """Keep these modules in float32, in place; they cast what they read."""
    for name in names:
        model.get_submodule(name).float().register_forward_pre_hook(_cast)


def cast_inputs(model: nn.Module) -> None:
    """Let dense layers of another format than float32 cast what they read, in place.

    A norm before them may be float32 and hand on such numbers, if nothing is cast automatically.
    """
    import torch
    from torch.nn import Conv1d, Conv2d, Linear
    from transformers.pytorch_utils import Conv1D

    for module in model.modules():
        dense = isinstance(module, Linear | Conv1D | Conv1d | Conv2d)
        if dense and module.weight.dtype == torch.bfloat16:
            module.register_forward_pre_hook(_cast)


def _cast(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    own = next(module.parameters()).dtype
    return tuple(a.to(own) if getattr(a, "is_floating_point", bool)() else a for a in args)
