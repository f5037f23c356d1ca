"""What peftkit's own PEFT tuners share: a place in PEFT's registry, and how a module is wrapped.

PEFT knows its methods by the members of one enum, which is closed; `register` adds a member and
then takes PEFT's own route. Checkpoints carry the member's name: a process that loads one must have
imported the tuner's package first.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar

from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_target_module_exists
from peft.utils import AuxiliaryTrainingWrapper, PeftType, register_peft_method
from torch import nn

from peftkit.errors import InvalidInput


def register(name: str, config_cls: type[TunerConfig], model_cls: type[Tuner]) -> None:
    """Make a tuner one of PEFT's methods, under the type `name` in capitals.

    Raises:
        KeyError: PEFT itself has come to know a method of this name.
    """
    value = name.upper()
    if value not in PeftType.__members__:
        member = str.__new__(PeftType, value)
        member._name_, member._value_ = value, value
        setattr(PeftType, value, member)
        PeftType._member_names_.append(value)
        PeftType._member_map_[value] = member
        PeftType._value2member_map_[value] = member
    register_peft_method(name=name, config_cls=config_cls, model_cls=model_cls)


@dataclass
class TunerConfig(PeftConfig):
    """Which modules a tuner acts on, and which are trained and saved whole.

    Args:
        target_modules: Names as PEFT takes them: a list, each entry the whole name of a module or
            its end (after a dot), or one regular expression for the whole name. None: the tuner's
            default.
        exclude_modules: Modules left out although they match, in the same form.
        modules_to_save: Modules copied, trained whole and saved beside the adapter (the head). PEFT
            adds `classifier` and `score` where the task is classification.

    Raises:
        InvalidInput: `target_modules` is empty, or not a valid regular expression.
    """

    target_modules: list[str] | set[str] | str | None = field(default=None)
    exclude_modules: list[str] | set[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)

    name: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType(self.name.upper())
        if self.target_modules is not None and not self.target_modules:
            raise InvalidInput(
                "target_modules is empty",
                received=repr(self.target_modules),
                allowed="names of modules, a regular expression, or None for the default",
            )
        for option in (self.target_modules, self.exclude_modules):
            if isinstance(option, str):
                _check_pattern(option)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields with sets in order, so that equal adapters are equal files."""
        fields: dict[str, Any] = super().to_dict()
        return {k: sorted(v) if isinstance(v, set) else v for k, v in fields.items()}


class TunerLayer(nn.Module, BaseTunerLayer):
    """A wrapped module: what it lacks, it takes from the module inside.

    The model may read attributes of what it believes to be its own layer (`in_features`, `eps`,
    `gate_proj`). Names that begin with `_` stay apart: hooks and caches belong to one module only.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._active_adapter: str | list[str] = []

    def __getattr__(self, name: str) -> Any:
        modules = self.__dict__.get("_modules", {})
        if name in modules:
            return modules[name]
        if name.startswith("_") or "base_layer" not in modules:
            return super().__getattr__(name)
        return getattr(modules["base_layer"], name)

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[Any, Any]:
        for module in base_layer.modules():  # a whole MLP has no weight of its own
            found = super()._get_base_layer_device_and_dtype(module)
            if found[0] is not None:
                return found  # type: ignore[no-any-return]
        return None, None


class Tuner(BaseTuner):
    """Wraps the targeted modules of a model, after checking the request as a whole."""

    tuner_layer_cls: type[TunerLayer]

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        return peft_config  # _prepare_model settles the targets: it sees the modules

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        raise NotImplementedError

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        wrapper = self.tuner_layer_cls
        layer = target if isinstance(target, wrapper) else wrapper(target)
        setattr(parent, target_name, layer)
        self._add(layer, adapter_name, peft_config, current_key)
        layer._move_adapter_to_device_of_base_layer(adapter_name)
        layer.set_adapter(self.active_adapters, inference_mode=peft_config.inference_mode)

    def _add(self, layer: Any, adapter_name: str, config: Any, key: str) -> None:
        """Give `layer`, found at `key`, the parameters of one more adapter."""
        raise NotImplementedError

    def _replace_module(self, parent: nn.Module, name: str, new: nn.Module, old: nn.Module) -> None:
        # PEFT's own version also copies `weight` and `bias`, which a whole MLP or head lacks.
        setattr(parent, name, new)


def bare_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of `model`, by name, as if no adapter had been attached to it yet."""
    hidden: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if not name or name.startswith(hidden):
            continue
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            hidden += (f"{name}.",)
        if isinstance(module, BaseTunerLayer):
            yield name, module.get_base_layer()
        elif not isinstance(module, AuxiliaryTrainingWrapper):
            yield name, module


def match(
    option: str, names: list[str], config: TunerConfig, model: nn.Module, *, kind: str
) -> list[str]:
    """Return those of `names` that the entries of `config`'s `option` match.

    Args:
        option: The field: `target_modules`, or another of the same form.
        names: Candidates.
        config: The request; what it excludes or saves whole does not match.
        model: For the message.
        kind: What the candidates are, for the message.

    Raises:
        InvalidInput: An entry matches none of them; the message names the candidates.
    """
    entries = getattr(config, option)
    names = [name for name in names if not is_saved_whole(name, config)]
    probe, matched = copy.copy(config), set()
    for entry in [entries] if isinstance(entries, str) else sorted(entries):
        probe.target_modules = entry if isinstance(entries, str) else [entry]
        found = [name for name in names if check_target_module_exists(probe, name)]
        if not found:
            raise InvalidInput(
                f"{option} {entry!r} matches no {kind} of {type(model).__name__}"
                " that is neither excluded nor saved whole",
                allowed=f"the end of a name, such as {short_names(names)}",
                next_step="name modules from this list, or give a regular expression",
            )
        matched.update(found)
    return [name for name in names if name in matched]


def short_names(names: list[str]) -> str:
    """List names as they stand inside a block: what follows the last number."""
    inside = {re.split(r"(?:^|\.)\d+\.", name)[-1] for name in names if re.search(r"\.\d+\.", name)}
    return ", ".join(sorted(inside or set(names)))


def is_saved_whole(name: str, config: TunerConfig) -> bool:
    ends = tuple(config.modules_to_save or ())  # by PEFT, `classifier` is also `pre_classifier`
    return any(start.endswith(ends) for start in accumulate(name.split("."), "{}.{}".format))


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise InvalidInput(
            f"not a regular expression: {error}", received=repr(pattern), allowed="re.fullmatch's"
        ) from error
