"""A recipe: one backbone, one method, one task, training settings and a seed.

Recipes are data. Making one downloads nothing and imports no torch; whatever can be known to be
wrong by then is reported by then. A recipe goes to YAML or JSON and comes back equal, and its
fingerprint changes whenever its results could.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from peftkit import parts
from peftkit.bounds import Ge, Lt
from peftkit.cache import sha256_of
from peftkit.errors import InvalidInput, UnknownName
from peftkit.fields import HELP, build, checked, settings
from peftkit.methods._method import Method
from peftkit.overrides import PARTS, changed, is_yaml, read_mapping
from peftkit.record import write_atomically
from peftkit.settings import Backbone, Training
from peftkit.tasks._task import Task

__all__ = ["Backbone", "Recipe", "Training"]

P = TypeVar("P")
Part = str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True, init=False)
class Recipe:
    """Everything that decides the result of one run.

    Each part may be given as an instance, as a name, or as a mapping of "name" and options.

    Args:
        method: How the backbone is adapted: `"lora"`, `{"name": "lora", "rank": 4}`,
            `LoRA(rank=4)` or `"path/to/file.py:Class"`.
        task: Data and how it is posed: the name of a task, of a bundled corpus such as
            `"pydocs/library"`, a file or folder of labelled text, or `"path/to/file.py:Class"`.
        backbone: A hub name, a folder, or "bundled".
        training: Training settings.
        seed: Drives head initialisation, data order, subset and dropout; 0 to 4294967295.

    Raises:
        UnknownName: A part or one of its options does not exist.
        InvalidInput: A value does not fit.
    """

    backbone: Backbone
    method: Method
    task: Task
    training: Training
    seed: int

    def __init__(
        self,
        *,
        method: Method | Part,
        task: Task | Part,
        backbone: Backbone | Part = "bundled",
        training: Training | Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        whole = Annotated[int, Ge(0), Lt(2**32)]
        for name, value in {
            "backbone": _plain_part("backbone", Backbone, backbone),
            "method": _part("method", method),
            "task": _part("task", task),
            "training": _plain_part("training", Training, {} if training is None else training),
            "seed": checked(seed, whole, "seed"),
        }.items():
            object.__setattr__(self, name, value)
        if self.training.gradient_checkpointing and not self.method.works_with_checkpointing:
            raise InvalidInput(
                f"{parts.name_of(type(self.method))} does not work with gradient checkpointing",
                received="training.gradient_checkpointing true",
                next_step="leave --training.gradient-checkpointing out, or choose another method",
            )
        if self.backbone.offload != "none":
            self._check_offload()

    def _check_offload(self) -> None:
        name, whole = parts.name_of(type(self.method)), self.method.rung in ("none", "head")
        if not self.method.works_offloaded:
            raise InvalidInput(
                f"{name} needs the weights of the blocks at hand",
                received=f"backbone.offload {self.backbone.offload}",
                next_step="leave --backbone.offload out, or choose lora or bottleneck",
            )
        if not whole and not self.training.gradient_checkpointing:
            raise InvalidInput(
                "the backward pass would hold all offloaded weights on the device at once, unless "
                "blocks are computed again",
                received="backbone.offload cpu, training.gradient_checkpointing false",
                next_step="add --training.gradient-checkpointing true",
            )

    @property
    def learning_rate(self) -> float | None:
        """The peak learning rate: the recipe's own, or else the method's default."""
        own = self.training.learning_rate
        return getattr(self.method, "learning_rate", None) if own is None else own

    @property
    def facts(self) -> dict[str, Any]:
        """What its parts say of themselves: rung, metric, higher_is_better.

        Records hold it, as whoever reads them runs no code that they name.
        """
        task = self.task
        return {
            "rung": self.method.rung,
            "metric": task.metric,
            "higher_is_better": task.higher_is_better,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data; `from_dict` gives back an equal recipe."""
        return {
            "backbone": _options(self.backbone),
            "method": {"name": parts.name_of(type(self.method)), **_options(self.method)},
            "task": {"name": parts.name_of(type(self.task)), **_options(self.task)},
            "training": _options(self.training),
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Recipe:
        """Make a recipe of plain data; parts left out have their defaults.

        Raises:
            UnknownName: A key, part or option does not exist.
            InvalidInput: A value does not fit, or method or task is missing.
        """
        known = (*PARTS, "seed")
        for name in body:
            if name not in known:
                raise UnknownName("option", str(name), known, next_step=HELP)
        for kind in ("method", "task"):
            if kind not in body:
                raise InvalidInput(
                    f"the recipe has no {kind}",
                    next_step=f"add --{kind} NAME; `peftkit list {kind}s` shows the names",
                )
        return cls(**body)

    def save(self, path: Path | str) -> None:
        """Write the recipe to a `.yaml`, `.yml` or `.json` file."""
        path = Path(path)
        if is_yaml(path):
            import yaml

            text = yaml.safe_dump(self.to_dict(), sort_keys=False)
        else:
            text = json.dumps(self.to_dict(), indent=2) + "\n"
        write_atomically(path, text)

    @classmethod
    def load(cls, path: Path | str) -> Recipe:
        """Read a recipe that `save` or a person wrote.

        Raises:
            InvalidInput: The file is missing, unreadable, or holds no valid recipe.
        """
        return cls.from_dict(read_mapping(path))

    def override(self, changes: Mapping[str, object]) -> Recipe:
        """Return a recipe with some options changed.

        Args:
            changes: Option -> value, such as `{"method.rank": 4, "size": 100}`. Dashes count as
                underscores and `SHORT` lists short forms. Text counts as typed on a command line:
                "none" is None, "a,b" may be a list. Naming a part resets its options; giving
                one of steps and epochs withdraws the other.

        Raises:
            UnknownName: There is no such option.
            InvalidInput: A value does not fit.
        """
        return Recipe.from_dict(changed(self.to_dict(), changes))

    def fingerprint(self, *, precision: str) -> str:
        """Return the SHA-256 (hex) of everything that can change results.

        Args:
            precision: What `training.precision` came to on this device.

        The learning rate enters as it will be used, and the metric with its version. Checkpoints
        to resume from do not enter. Everything else does, even what changes only the costs, and
        what the files hold that define a part of one's own or that the method reads.
        """
        body = self.to_dict()
        del body["training"]["save_every"]
        if self.backbone.offload == "none":  # records are older than this option
            del body["backbone"]["offload"]
        body["training"]["precision"] = precision
        body["training"]["learning_rate"] = self.learning_rate
        body["metric_version"] = self.task.metric_version
        if files := self._files():
            body["files"] = [sha256_of(path) for path in files]
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def _files(self) -> list[Path]:
        """Files that decide what a run does, beside those of the data and the backbone."""
        own = (parts.source_file(type(part)) for part in (self.method, self.task))
        return [*filter(None, own), *self.method.files_read()]


def _plain_part(where: str, cls: type[P], value: object) -> P:
    """Return a backbone or training settings, however written."""
    if isinstance(value, cls):
        return value
    if isinstance(value, str | os.PathLike) and cls is Backbone:
        value = {"name": str(value)}
    return build(cls, _mapping(where, value), where)


def _part(kind: Literal["method", "task"], value: object) -> Any:
    """Return a method or a task, however written, with every field checked."""
    if isinstance(value, Method if kind == "method" else Task):
        return build(type(value), {n: getattr(value, n) for n in settings(type(value))}, kind)
    if isinstance(value, str | os.PathLike):
        value = {"name": str(value)}
    options = dict(_mapping(kind, value))
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise InvalidInput(
            f"{kind}.name is missing",
            received=value,
            next_step=f"add --{kind} NAME; `peftkit list {kind}s` shows the names",
        )
    if kind == "method":
        return build(parts.load("method", str(name)), options, kind)
    cls, implied = parts.load_task(str(name), options)
    return build(cls, {**implied, **options}, kind)


def _mapping(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(
            f"{where} must be a name, an instance, or a mapping of options"
            if where != "training"
            else "training must be an instance of Training or a mapping of options",
            received=repr(value),
            next_step=HELP,
        )
    return value


def _options(part: object) -> dict[str, Any]:
    return {name: _plain(getattr(part, name)) for name in settings(type(part))}


def _plain(value: object) -> Any:
    """Return a field's value with lists for tuples, as YAML and JSON know them."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
