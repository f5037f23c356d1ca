"""The head of a task: which class of transformers has it, which of its modules are new."""

from __future__ import annotations

from typing import Any

from peftkit.backbones._pooling import stock_pooling
from peftkit.errors import Unsupported
from peftkit.seeds import seeded


def choose_class(auto_classes: tuple[str, ...], config: Any) -> str:
    import transformers

    for name in auto_classes:
        if name == "AutoModelForCausalLM" and stock_pooling(config) != "last":
            continue  # transformers has such a class for BERT too, which would see what comes next
        if type(config) in getattr(transformers, name)._model_mapping:
            return name
    raise Unsupported(
        f"transformers has no head for this task on {config.model_type} "
        f"(no {' nor '.join(auto_classes)}). Next: choose a backbone of another architecture."
    )


def head_modules(model: Any, new: set[str], *, keeps_own: bool) -> tuple[str, ...]:
    """Modules beyond the backbone proper, and new ones within it (a missing pooler, say).

    Args:
        model: With its head.
        new: Names of tensors that the checkpoint does not hold.
        keeps_own: The head is the one that the backbone was pretrained with.
    """
    backbone = {model.base_model_prefix} | (set() if keeps_own else _bare_children(model))
    children = [] if keeps_own else [(n, m) for n, m in model.named_children() if n not in backbone]
    outside = [name for name, module in children if any(True for _ in module.parameters())]
    inside = {key.rpartition(".")[0] for key in new if key.partition(".")[0] not in outside}
    return (*outside, *sorted(inside))


def _bare_children(model: Any) -> set[str]:
    """Parts of the backbone where it is not kept in one module, as in T5 for questions."""
    import torch
    from transformers import AutoModel

    if hasattr(model, model.base_model_prefix):
        return set()
    with torch.device("meta"):
        bare = AutoModel.from_config(model.config)
    return {name for name, _ in bare.named_children()}


def initialise(model: Any, head: tuple[str, ...], seed: int) -> None:
    """Initialise the head as its architecture does, from a random stream of its own."""
    with seeded(seed, "head"):
        for name in head:
            for module in model.get_submodule(name).modules():
                for tensor in module.parameters(recurse=False):
                    tensor._is_hf_initialized = False
                model._init_weights(module)
