"""What `peftkit plan` is asked for: flags to checked rows, before anything is traced."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from peftkit import parts
from peftkit.backbones import positions, read_configuration, reader
from peftkit.bounds import Ge
from peftkit.errors import InvalidInput, UnknownName
from peftkit.fields import build, checked
from peftkit.memory import plan
from peftkit.memory.device_terms import terms_of
from peftkit.memory.plan import Question
from peftkit.overrides import PARTS, SHORT, merged_file, read_mapping
from peftkit.settings import Backbone

if TYPE_CHECKING:
    from peftkit.memory.plan import Cell, Row
    from peftkit.recipe import Recipe

EXTRAS: dict[str, Any] = {
    "gpu": str,
    "batch": int,
    "length": int,
    "methods": tuple[str, ...],
    "precisions": tuple[str, ...],
    "json": bool,
    "calibrate": bool,
}
LENGTH = 512
TASKS = {
    "encoder": "text_classification",
    "decoder": "language_modeling",
    "encoder-decoder": "summarization",
    "image": "image_classification",
    "audio": "audio_classification",
}
NO_DATA = "none is read"
"""Stands for the data of a task, of which a plan needs none."""
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?:(?P<prefix>[kmgt])(?P<i>i?)(?P<b>b?)|b)?", re.I)
_SIZES = "such as 24GiB, 80G (GiB too), 24GB (10^9 bytes), or a number of bytes"
_SMALLEST = 2**27  # below it is a number whose unit was forgotten


@dataclass(frozen=True, kw_only=True)
class Request:
    """A plan as it was asked for, checked.

    Attributes:
        cells: The rows, in the order of the table.
        recipes: A recipe for each of them that can have one.
        refused: The others.
        question: What they have in common.
        recipe: One of them, for what else they have in common.
    """

    cells: list[Cell]
    recipes: dict[Cell, Recipe]
    refused: dict[Cell, Row]
    question: Question
    recipe: Recipe


def make_request(changes: dict[str, Any], own: dict[str, Any]) -> Request:
    """A plan from flags, as `read_flags` splits them.

    Raises:
        UnknownName: A method, precision, task or option does not exist.
        InvalidInput: A value does not fit.
    """
    for name in changes:
        known = {*EXTRAS, *SHORT, *PARTS, "seed", "config"}
        if "." not in name and name not in known:
            flags = [f"--{option.replace('_', '-')}" for option in known]
            raise UnknownName("option", f"--{name.replace('_', '-')}", flags)
    limit_bytes = _card(own.get("gpu"))
    if "batch" in own:
        changes = {**changes, "batch_size": own["batch"]}
    common, changes = _common(changes)
    backbone = common["backbone"]
    body = read_configuration(backbone.name, backbone.revision)
    common["task"] = _task(common.get("task"), body, changes)
    recipes, refused = {}, {}
    cells = plan.cells(own.get("methods") and _labels(own["methods"]), _precisions(own))
    for cell in cells:
        if reason := plan.refusal(cell):
            plan.recipe_of(dataclasses.replace(cell, **_PLAIN), common, changes)  # is it a method?
            refused[cell] = plan.Row(cell=cell, status="unsupported", reason=reason)
        else:
            recipes[cell] = plan.recipe_of(cell, common, changes)
    first = plan.recipe_of(dataclasses.replace(cells[0], **_PLAIN), common, changes)
    question = Question(
        configuration=body,
        length=_length(own.get("length", changes.get("task.max_length")), body),
        batch_size=first.training.batch_size,
        limit_bytes=limit_bytes,
        terms=dataclasses.asdict(terms_of("cuda")),
    )
    return Request(cells=cells, recipes=recipes, refused=refused, question=question, recipe=first)


_PLAIN: dict[str, Any] = {"precision": "bf16", "checkpointing": False}


def _common(changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Backbone, task and training of all rows, and the changes that are left."""
    left = dict(changes)
    common: dict[str, Any] = {"backbone": {}}
    if "config" in left:
        given = read_mapping(checked(left.pop("config"), str, "config"))
        common = merged_file(common, {p: given[p] for p in ("backbone", "task", "training")
                                      if p in given})  # fmt: skip
    for part in ("backbone", "task"):
        if part in left:
            common[part] = checked(left.pop(part), str, part)
    if "method" in left:
        raise InvalidInput(
            "a plan is told its methods by --methods",
            received=f"--method {left['method']}",
            allowed="--methods A,B,...",
            next_step="write --methods; options follow a colon, such as lora:rank=64",
        )
    named = common["backbone"]
    options = {"name": named} if isinstance(named, str) else dict(named)
    for path in [path for path in left if path.startswith("backbone.") and path not in plan.AXES]:
        options[path.removeprefix("backbone.")] = left.pop(path)
    return {**common, "backbone": build(Backbone, options, "backbone")}, left


def _task(given: Any, body: dict[str, Any], changes: dict[str, Any]) -> Any:
    """The task that rows train: as given, or what suits the backbone; without data."""
    name = TASKS[reader(body)] if given is None else given
    options = dict(name) if isinstance(name, Mapping) else {"name": name}
    plain = str(options["name"]).lower().replace("-", "_")
    if "data" in options or "task.data" in changes:
        return options
    has_own = plain not in parts.find("task") and ".py:" not in plain  # a corpus, a file
    return options if has_own else {**options, "data": NO_DATA}


def _labels(words: Sequence[str]) -> list[str]:
    """Methods of a list; `lora:rank=4,alpha=8` is one, though commas separate."""
    labels: list[str] = []
    for word in words:
        goes_on = "=" in word and ":" not in word.partition("=")[0]
        if labels and goes_on and ":" in labels[-1]:
            labels[-1] += f",{word}"
        else:
            labels.append(word)
    return list(dict.fromkeys(labels))


def _precisions(own: dict[str, Any]) -> tuple[Any, ...]:
    asked = own.get("precisions", plan.PRECISIONS)
    for name in asked:
        if name not in plan.PRECISIONS:
            raise UnknownName("precision", name, plan.PRECISIONS)
    return tuple(name for name in plan.PRECISIONS if name in asked)


def _length(asked: Any, body: dict[str, Any]) -> int:
    room = positions(body)
    if asked is None:
        return LENGTH if room is None else min(LENGTH, room)
    length: int = checked(asked, Annotated[int, Ge(1)], "length")
    if room is not None and length > room:
        raise InvalidInput(
            "the backbone has no positions for texts of this length",
            received=f"--length {length}",
            allowed=f"1 to {room}",
            next_step="lower it",
        )
    return length


def _card(text: str | None) -> int:
    """Bytes of a card."""
    if text is None:
        raise InvalidInput(
            "the memory of the card is missing", allowed=_SIZES, next_step="add --gpu 24GiB"
        )
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(
            "the memory of the card cannot be read",
            received=f"--gpu {text}",
            allowed=_SIZES,
            next_step="write --gpu 24GiB",
        )
    decimal = match["prefix"] and match["b"] and not match["i"]
    power = " kmgt".index((match["prefix"] or " ").lower())
    size = int(float(match["number"]) * (1000 if decimal else 1024) ** power)
    if size < _SMALLEST:
        raise InvalidInput(
            "that is not the memory of a card",
            received=f"--gpu {text}, which is {size} bytes",
            allowed=_SIZES,
            next_step=f"write --gpu {match['number']}GiB",
        )
    return size
