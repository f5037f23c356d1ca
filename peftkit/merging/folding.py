"""Folding an adapter into the weights of its backbone.

PEFT merges layer by layer, and that is used; its own taking-apart of the model is not, because it
fails or leaves wrappers behind where a head is trained whole beside IA3 or LayerNorm tuning.
"""

from __future__ import annotations

from typing import Any

from peftkit.errors import Unsupported

_ELSEWISE = "Next: keep the adapter beside its base, or export both to onnx as one graph."


def fold(model: Any) -> Any:
    """Fold the active adapter of a `PeftModel` into its backbone, in place.

    Returns:
        The backbone with the modules and names it had before the adapter was attached; heads and
        other modules that were trained whole are the trained ones.

    Raises:
        Unsupported: A part of the adapter has no place in the backbone's weights.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

    if model.active_peft_config.is_prompt_learning:
        raise Unsupported(
            f"virtual tokens and prefixes have no place in a backbone's weights. {_ELSEWISE}"
        )
    base = model.get_base_model()
    for name, module in list(base.named_modules(remove_duplicate=False)):
        parent, _, own = name.rpartition(".")
        if isinstance(module, BaseTunerLayer):
            if module.merged_adapters:  # PEFT would warn, and leave the weights as they are
                raise Unsupported(
                    f"{name} has its adapter merged already. Next: unmerge_adapter() first."
                )
            merge_layer(name, module)
            setattr(base.get_submodule(parent), own, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            trained = module.modules_to_save[module.active_adapters[0]]
            setattr(base.get_submodule(parent), own, trained)
        elif isinstance(module, AuxiliaryTrainingWrapper):
            raise _unmergeable(name, module)
    if hasattr(base, "peft_config"):
        del base.peft_config
    return base


def merge_layer(name: str, layer: Any) -> None:
    """Let PEFT merge one layer.

    Raises:
        Unsupported: It cannot, and says why.
    """
    try:
        layer.merge(safe_merge=True)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise _unmergeable(name, layer, str(error).partition("\n")[0]) from error


def _unmergeable(name: str, module: Any, why: str = "") -> Unsupported:
    said = f" ({why.rstrip('.')})" if why else ""
    return Unsupported(f"{type(module).__name__} at {name} cannot be merged{said}. {_ELSEWISE}")
