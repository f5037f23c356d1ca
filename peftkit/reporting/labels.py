"""What a method is called in a table, and its place on the ladder.

A method's label is its name. Where one name stands for several variants, the options that tell
them apart are added as on the command line, unless they have their default value: `lora` beside
`lora:rank=64`. Options of the method and of the backbone (such as its dtype) always tell variants
apart. Options of training and of the task do so only where one seed of one size was run with
several values: settings chosen per size or per seed are one way of running a method, not several.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal

from peftkit.errors import PeftkitError
from peftkit.record import Record
from peftkit.settings import Backbone, Training

RUNGS = ("reference", "none", "head", "parameter-efficient", "partial", "full", "retrain")
_CELL_OPTIONS = {"task.name", "task.data", "task.size", "task.label_noise"}
_SAID = {
    "backbone.double_quantization=true": "double",
    "backbone.quantization=": "",
    "backbone.dtype=": "",
}
Options = dict[str, Any]


def part_class(kind: Literal["method", "task"], name: str) -> Any:
    """The class behind a method's or task's name, or None where it cannot be had.

    Records outlive the code that made them: a part that is gone must not stop a report. And
    reading records runs no code that they name by path.
    """
    if ".py" in name:
        return None
    try:
        from peftkit import parts

        return parts.load("method", name) if kind == "method" else parts.load("task", name)
    except (ImportError, PeftkitError):
        return None


def rung_of(name: str) -> str:
    """The rung of the method `name`; empty where the method is not known here."""
    return str(getattr(part_class("method", name), "rung", ""))


def rung_order(rung: str) -> int:
    """Place of `rung` on the ladder, counted from the bottom; unknown rungs come last."""
    return RUNGS.index(rung) if rung in RUNGS else len(RUNGS)


def label_records(records: list[Record]) -> dict[str, str]:
    """Labels by key of the records, which share backbone, data and label noise."""
    by_name: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_name[record.method].append(record)
    labels: dict[str, str] = {}
    for name, group in by_name.items():
        short = _short_name(name, by_name)
        labels.update(_label_variants(short, _defaults(name), group))
    return labels


def in_a_picture(label: str) -> str:
    """A label that a picture has room for: `lora:nf4`, without what the value says itself."""
    for option, said in _SAID.items():
        label = label.replace(option, said)
    return label


def unsettled_options(records: Iterable[Record]) -> list[str]:
    """Training and task options that vary between records that share one label."""
    seen: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for option, value in _options(record, ("training", "task")).items():
            seen[option].add(repr(value))
    return sorted(option.partition(".")[2] for option, values in seen.items() if len(values) > 1)


def _label_variants(short: str, defaults: Options, group: list[Record]) -> dict[str, str]:
    """Labels by key of the records of one method."""
    fixed = {record.key: _options(record, ("method", "backbone")) for record in group}
    telling = _varying(fixed.values())
    cells: dict[Any, list[Options]] = defaultdict(list)
    for record in group:
        variant = tuple(repr(fixed[record.key].get(option)) for option in telling)
        other = _options(record, ("training", "task"))
        size = record.recipe["task"].get("size")
        cells[(variant, size, record.seed)].append(other)
        fixed[record.key] = fixed[record.key] | other
    for options in cells.values():
        telling += [option for option in _varying(options) if option not in telling]
    labels = {}
    for record in group:
        told = _differences(fixed[record.key], telling, defaults)
        labels[record.key] = f"{short}:{','.join(told)}" if told else short
    return labels


def _differences(options: Options, telling: list[str], defaults: Options) -> list[str]:
    """`option=value` for each telling option that does not have its default value."""
    return [
        f"{option.removeprefix('method.')}={_value(options.get(option))}"
        for option in telling
        if repr(options.get(option)) != repr(defaults.get(option))
    ]


def _options(record: Record, parts: tuple[str, ...]) -> Options:
    """The options of some parts of a recipe, named `part.option`."""
    found = {
        f"{part}.{option}": value
        for part in parts
        for option, value in (record.recipe.get(part) or {}).items()
        if option != "name"
    }
    return {option: value for option, value in found.items() if option not in _CELL_OPTIONS}


def _varying(options: Iterable[Options]) -> list[str]:
    """Options that do not have the same value everywhere (an absent one counts as None)."""
    options = list(options)
    names = sorted({name for each in options for name in each})
    return [name for name in names if len({repr(each.get(name)) for each in options}) > 1]


def _defaults(name: str) -> Options:
    """Default options, named `part.option`; those of a method that is not known here are None."""
    found: Options = {}
    parts = {"method": part_class("method", name), "backbone": Backbone, "training": Training}
    for part, cls in parts.items():
        for each in dataclasses.fields(cls) if cls and dataclasses.is_dataclass(cls) else ():
            if each.default is not dataclasses.MISSING:
                found[f"{part}.{each.name}"] = _plain(each.default)
    return found


def _plain(value: Any) -> Any:
    """`value` as JSON would return it."""
    return list(value) if isinstance(value, tuple) else value


def _value(value: Any) -> str:
    """An option's value, short enough for a label."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ",".join(_value(each) for each in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _short_name(name: str, names: Iterable[str]) -> str:
    """`Class` for a method given as `path/to/file.py:Class`, unless two would read the same."""
    short = name.rpartition(":")[2]
    return short if sum(each.rpartition(":")[2] == short for each in names) == 1 else name
