"""What all methods that PEFT carries out have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from peftkit.backbones import ROLES
from peftkit.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from peftkit.backbones import LoadedBackbone, Role


def wrap(backbone: LoadedBackbone, config: Any) -> Any:
    """Put PEFT's tuner of `config` around the model; the head is trained and saved with it."""
    from peft import get_peft_model

    config.modules_to_save = list(backbone.layers.head)
    return get_peft_model(backbone.model, config)


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
