"""`peft:NAME`: every method that the installed PEFT registers, by PEFT's name and options.

Such a class is made when it is asked for: its options are the fields of PEFT's configuration, with
PEFT's defaults. Layers to adapt (`target_modules`) are named as for `lora`; default: all of them.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import importlib.util
import re
import typing
from pathlib import Path
from typing import Any, ClassVar, Optional

from peftkit.backbones import LoadedBackbone
from peftkit.errors import InvalidInput, UnknownName, Unsupported
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import prompt_options, resolve_targets, wrap
from peftkit.parts import PEFT_PREFIX

# Set by peftkit, or about where an adapter came from.
_NOT_OPTIONS = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "modules_to_save", "num_attention_heads", "num_layers", "token_dim",
    "num_transformer_submodules",
}  # fmt: skip
# Read from the sources: these need something that a recipe cannot give.
_NEED_MORE = {
    "adalora": "it moves ranks between layers in calls during training, which are not made",
    "adaption_prompt": "it knows the modules of Llama, Mistral and GPT-2 by name only",
    "cartridge": "its start is computed from a document",
    "cpt": "its start is a prompt of token ids with labels",
    "multitask_prompt_tuning": "it needs the task of each row",
    "poly": "it needs the task of each row",
    "shadow": "its layers hand on objects that blocks of other models cannot read",
    "trainable_tokens": "it trains chosen tokens, not a task",
    "xlora": "it mixes adapters that exist already",
}


@functools.cache
def peft_methods() -> tuple[str, ...]:
    """Names of the methods that the installed PEFT registers, found without importing it."""
    spec = importlib.util.find_spec("peft")
    if spec is None or spec.origin is None:
        return ()
    found: set[str] = set()
    for file in Path(spec.origin).parent.glob("tuners/*/__init__.py"):
        calls = re.findall(r"register_peft_method\(\s*name=\"(\w+)\"", file.read_text("utf-8"))
        found.update(calls)
    return tuple(sorted(found))


@functools.cache
def method_class(name: str) -> type[Method]:
    """Make the class of one of PEFT's methods.

    Raises:
        UnknownName: PEFT registers no such method.
    """
    if name not in peft_methods():
        raise UnknownName(
            "method",
            PEFT_PREFIX + name,
            [PEFT_PREFIX + other for other in peft_methods()],
            next_step="`peftkit list methods` names all",
        )
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name.upper())]
    hints = typing.get_type_hints(config_class)
    options = []
    for option in dataclasses.fields(config_class):
        if not option.init or option.name in _NOT_OPTIONS:
            continue
        default: Any = option.default
        if option.default_factory is not dataclasses.MISSING:
            default = option.default_factory()
        if isinstance(default, enum.Enum):  # a word, as in a recipe's file
            default = default.value
        if dataclasses.is_dataclass(default):  # such as LoRA's runtime options: nothing to measure
            continue
        if isinstance(default, list | dict | set):
            made = dataclasses.field(default_factory=functools.partial(copy.copy, default))
        else:
            made = dataclasses.field(default=default)
        hint = hints.get(option.name, Any)
        if default is None:  # PEFT's hints do not always say so
            hint = Optional[hint]  # noqa: UP045  # of a hint that is a value
        options.append((option.name, _hint(hint), made))
    cls = dataclasses.make_dataclass(
        name,
        options,
        bases=(PeftMethod,),
        frozen=True,
        kw_only=True,
        namespace={"__module__": __name__},
    )
    cls.__doc__ = f"{name}, through PEFT."
    cls.works_with_checkpointing = name != "prefix_tuning"  # type: ignore[attr-defined]
    cls.config_class = config_class  # type: ignore[attr-defined]
    return cls


def _hint(hint: Any) -> Any:
    """Return what a field accepts, anything where pydantic cannot tell."""
    from pydantic import PydanticUserError, TypeAdapter

    try:
        TypeAdapter(hint)
    except PydanticUserError:
        return Any
    return hint


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeftMethod(Method):
    """One of PEFT's methods under its own name."""

    rung: ClassVar[Rung] = "parameter-efficient"
    reference: ClassVar[str] = "see PEFT's documentation"
    learning_rate: ClassVar[float | None] = 1e-3
    learning_rate_source: ClassVar[str] = "LoRA's; search one for the method at hand"
    works_offloaded: ClassVar[bool] = False  # not tried
    config_class: ClassVar[Any]

    def __post_init__(self) -> None:
        # Of virtual tokens that come out of a network PEFT saves the vectors alone.
        network = type(self).__name__ == "p_tuning" or getattr(self, "prefix_projection", False)
        object.__setattr__(self, "resumable", not network)

    def attach(self, backbone: LoadedBackbone) -> Any:
        name = type(self).__name__
        if name in _NEED_MORE:
            raise Unsupported(f"peft:{name} cannot be trained from a recipe: {_NEED_MORE[name]}")
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if options.get("layers_to_transform") is not None:
            raise InvalidInput(
                "layers are named by their modules here, so that layers_to_transform has no effect",
                received=f"layers_to_transform {options['layers_to_transform']}",
                next_step="name them in target_modules, such as layer.0.attention.self.query",
            )
        if name == "ln_tuning":
            options["target_modules"] = _norms(backbone, options["target_modules"])
        elif "target_modules" in options:
            targets = options["target_modules"]
            if not isinstance(targets, str) or targets == "all":
                names = [targets] if isinstance(targets, str) else targets or ["all"]
                options["target_modules"] = resolve_targets(backbone, names)
            if name == "ia3" and options["feedforward_modules"] is None:
                inputs = backbone.layers.roles["mlp_output"]
                chosen = [n for n in options["target_modules"] if n in inputs]
                options["feedforward_modules"] = chosen
        elif "num_virtual_tokens" in options:
            options |= prompt_options(backbone, options["num_virtual_tokens"] or 10)
        try:
            return wrap(backbone, self.config_class(**options))
        except (
            ValueError, TypeError, KeyError, NotImplementedError, AttributeError, ArithmeticError,
        ) as error:  # fmt: skip
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise Unsupported(
                f"PEFT does not put {name} on {type(backbone.model).__name__}: {first}"
            ) from error


def _norms(backbone: LoadedBackbone, named: Any) -> list[str]:
    """The normalisation layers of the blocks, or those whose names end as asked."""
    norms = list(backbone.layers.norms)
    ends = [named] if isinstance(named, str) else list(named or ["all"])
    behind = tuple(f".{end}" for end in ends)
    found = norms if ends == ["all"] else [n for n in norms if f".{n}".endswith(behind)]
    if not found:
        raise InvalidInput(
            f"no normalisation layer of {type(backbone.model).__name__} is named so",
            received=", ".join(ends),
            allowed=", ".join(sorted({n.rpartition(".")[2] for n in norms})) or "there is none",
        )
    return found
