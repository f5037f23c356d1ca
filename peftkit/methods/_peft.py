"""What all methods that PEFT carries out have in common."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from peftkit.backbones import ROLES
from peftkit.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from peftkit.backbones import LoadedBackbone, Role


def wrap(backbone: LoadedBackbone, config: Any) -> Any:
    """Put PEFT's tuner of `config` around the model; the head is trained and saved with it."""
    from peft import get_peft_model

    # PEFT goes by the ends of names: "head" of ModernBERT is also the end of P-tuning's "mlp_head".
    place = "base_model." if config.is_prompt_learning else ""
    config.modules_to_save = [f"{place}{name}" for name in backbone.layers.head]
    with quiet():
        model = get_peft_model(backbone.model, config)
    if config.is_prompt_learning:
        _encode_in_float32(model)
    return model


def _encode_in_float32(model: Any) -> None:
    """Keep the networks that virtual tokens come out of away from autocast, in place.

    What is saved of them is what they yield, computed without autocast: in bfloat16 the adapter
    would answer otherwise once it is loaded.
    """
    import torch

    for encoder in model.prompt_encoder.values():
        device = next(encoder.parameters()).device.type.replace("meta", "cpu")  # an outline's
        encoder.forward = torch.autocast(device, enabled=False)(encoder.forward)


def head_only(backbone: LoadedBackbone) -> Any:
    """The model with nothing but its head to train, as an adapter that stock PEFT loads."""
    from peft import LNTuningConfig, get_peft_model

    # PEFT has no method for this; its LayerNorm tuning trains a copy of whatever it is given.
    with quiet():
        config = LNTuningConfig(target_modules=list(backbone.layers.head))
        return get_peft_model(backbone.model, config)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out PEFT's warning that its LayerNorm tuning is given layers that are not linear."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unsupported layer type")
        yield


def without_adapter(model: Any) -> tuple[Any, Any] | None:
    """How to run the backbone without the adapter: a context to be in, and what to call."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return None
    if model.active_peft_config.is_prompt_learning:
        return contextlib.nullcontext, model.get_base_model()
    return model.disable_adapter, model


def resolve_targets(backbone: LoadedBackbone, targets: Iterable[str]) -> list[str]:
    """Full names of the linear layers that `targets` stands for, in block order.

    Args:
        backbone: The loaded backbone.
        targets: "all", roles (`query`, `mlp_output`, ...), or ends of module names.

    Raises:
        InvalidInput: A target matches no linear layer of any block.
    """
    layers = backbone.layers
    every = layers.linear()
    chosen: set[str] = set()
    if not (targets := list(targets)):
        raise InvalidInput(
            "no layers are named to adapt",
            allowed=f"all; {', '.join(ROLES)}; or ends of module names",
            next_step="leave the targets out for all",
        )
    for target in targets:
        if target == "all":
            found = set(every)
        elif target in ROLES:
            found = set(layers.linear((target,)))
        else:
            found = {n for n in every if n == target or n.endswith("." + target)}
        if not found:
            endings = sorted({n.split(".", n.count("."))[-1] for n in every})
            raise InvalidInput(
                f"target {target!r} matches no linear layer in the blocks of "
                f"{type(backbone.model).__name__}",
                received=", ".join(targets),
                allowed=f"all; {', '.join(ROLES)}; or one of {', '.join(endings)}",
                next_step="name a role or the end of a module's name",
            )
        chosen |= found
    return [name for name in every if name in chosen]


def require_roles(backbone: LoadedBackbone, roles: Iterable[Role], method: str) -> None:
    """Raise `Unsupported` unless the backbone has layers for all `roles`."""
    for role in roles:
        if not backbone.layers.roles.get(role):
            raise Unsupported(
                f"{method} needs the {role} layers, which were not found in "
                f"{type(backbone.model).__name__} (family {backbone.layers.family})"
            )


def stored_transposed(backbone: LoadedBackbone, names: Iterable[str]) -> bool:
    """Whether the weights of these layers are kept as `(in, out)`, as in GPT-2."""
    from transformers.pytorch_utils import Conv1D

    return {isinstance(backbone.model.get_submodule(n), Conv1D) for n in names} == {True}


def num_layers(backbone: LoadedBackbone) -> int:
    """How many layers take keys and values of their own, by the configuration."""
    own = backbone.model.config.get_text_config().num_hidden_layers
    return int(backbone.layers.stands_for or own)


def prompt_options(backbone: LoadedBackbone, num_tokens: int) -> dict[str, Any]:
    """What PEFT's prompt methods need to know, which not every configuration names as it expects.

    Raises:
        Unsupported: The backbone reads no token embeddings, or none as wide as its hidden states.
    """
    from peft import TaskType

    require_embeddings_as_input(backbone)
    embedding = backbone.model.get_input_embeddings()
    width = getattr(embedding, "embedding_dim", None)
    if width is None:
        raise Unsupported(
            f"virtual tokens need token embeddings; {type(backbone.model).__name__} has none"
        )
    return {
        "task_type": TaskType(backbone.peft_task) if backbone.peft_task else None,
        "num_virtual_tokens": num_tokens,
        "token_dim": width,
        "num_layers": num_layers(backbone),
        "num_attention_heads": backbone.model.config.get_text_config().num_attention_heads,
        "num_transformer_submodules": 1,
    }


def require_embeddings_as_input(backbone: LoadedBackbone) -> None:
    """Raise `Unsupported` where no embedded tokens come in, or token ids beside them.

    Images and sounds have none; and a prompt has no ids, of which some decoders' inputs are made.
    """
    if backbone.inputs != "text":
        raise Unsupported(
            "PEFT puts virtual tokens and prefixes beside the embedded tokens of a text, and "
            f"{type(backbone.model).__name__} reads {backbone.inputs} data. Next: choose lora or "
            "bottleneck."
        )
    if backbone.layers.encoder_decoder and backbone.peft_task != "SEQ_2_SEQ_LM":
        raise Unsupported(
            f"{type(backbone.model).__name__} gives its decoder the token ids of the text, and "
            "virtual tokens have none. Next: choose lora or bottleneck."
        )


def key_value_heads(backbone: LoadedBackbone) -> tuple[int, int]:
    """Heads of keys and values in a block, and the width of one."""
    config = backbone.model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or backbone.layers.hidden_size // heads
    return getattr(config, "num_key_value_heads", None) or heads, width
