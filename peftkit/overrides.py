"""Recipes as plain data: reading their files, and changing single options of them."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftkit import parts
from peftkit.errors import InvalidInput, UnknownName
from peftkit.fields import HELP, Typed, settings
from peftkit.settings import Backbone, Training

PARTS = ("backbone", "method", "task", "training")
SHORT = {
    "size": "task.size",
    "noise": "task.label_noise",
    "label_noise": "task.label_noise",
    "data": "task.data",
    "steps": "training.steps",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "learning_rate": "training.learning_rate",
    "precision": "training.precision",
    "threads": "training.threads",
}
"""Short forms of options, as `override` and the command line take them."""


_LABEL = re.compile(r"(?P<name>.+?)(?::(?P<options>[A-Za-z_][\w.-]*=.*))?", re.DOTALL)
_NEXT_OPTION = re.compile(r",(?=[A-Za-z_][\w.-]*=)")
_OWN_OPTIONS = ("method.", "training.", "backbone.")
_CALL = "write options after a colon, such as lora:rank=4,alpha=8"


def parse_label(label: str) -> tuple[str, dict[str, str]]:
    """Split `name:option=value,...` into the method's name and the changes to a recipe."""
    match = _LABEL.fullmatch(label.strip())
    if match is None or re.fullmatch(r"[\w-]+\(.*\)?", label.strip()):
        raise InvalidInput("a method cannot be read", received=repr(label), next_step=_CALL)
    changes = {}
    for option in _NEXT_OPTION.split(match["options"]) if match["options"] else ():
        name, _, value = option.partition("=")
        path = name.replace("-", "_") if "." in name else "method." + name.replace("-", "_")
        if not path.startswith(_OWN_OPTIONS):
            raise InvalidInput(
                f"{name} cannot differ between the methods of a comparison",
                received=repr(label),
                allowed="options of the method, training.* and backbone.*",
                next_step="give it to the whole comparison",
            )
        changes[path] = value
    return match["name"], changes


def changed(body: Mapping[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """Return recipe data with some options changed; see `Recipe.override`.

    Args:
        body: What `Recipe.to_dict` returns, or some of it.
        changes: Option -> value.

    Raises:
        UnknownName: There is no such option.
    """
    paths: dict[str, object] = {}
    for key, value in changes.items():
        path = key.replace("-", "_")
        paths[SHORT.get(path, path)] = Typed(value) if isinstance(value, str) else value
    whole = {path: paths[path] for path in (*PARTS, "seed") if path in paths}
    merged = {**body, **whole}
    for this, other in (("steps", "epochs"), ("epochs", "steps")):
        if str(paths.get(f"training.{this}", "none")).lower() not in ("none", "null"):
            paths.setdefault(f"training.{other}", None)
    for path, value in paths.items():
        part, _, option = path.partition(".")
        if path in whole:
            continue
        if part not in PARTS or not option:
            raise _unknown(path, merged)
        merged[part] = {**_options(part, merged.get(part, {})), option: value}
    return merged


def merged_file(body: Mapping[str, Any], file: Mapping[str, Any]) -> dict[str, Any]:
    """Return recipe data with a file's content laid over it.

    A method or task that the file names replaces the old one; options without a name join it.
    """
    merged = dict(body)
    for key, value in file.items():
        joins = isinstance(value, Mapping) and key in body
        if joins and (key not in ("method", "task") or "name" not in value):
            value = {**_options(key, body[key]), **value}
        merged[key] = value
    return merged


def known_options(body: Mapping[str, Any]) -> dict[str, type]:
    """Return the full name of every option that recipe data has, and the class it belongs to."""
    classes: dict[str, type] = {"backbone": Backbone, "training": Training}
    try:
        name = _options("method", body["method"])["name"]
        classes["method"] = parts.load("method", name)
    except (KeyError, InvalidInput):
        pass  # there is no method yet, so it has no options
    try:
        options = _options("task", body["task"])
        classes["task"] = parts.load_task(options["name"], options)[0]
    except (KeyError, InvalidInput):
        pass
    return {
        f"{part}.{name}": classes[part]
        for part in PARTS
        if part in classes
        for name in settings(classes[part])
    }


def _options(part: str, value: object) -> dict[str, Any]:
    """Return a part as a mapping, whichever way it was written."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str | os.PathLike) and part != "training":
        return {"name": str(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {name: getattr(value, name) for name in settings(type(value))}
        named = {"name": parts.name_of(type(value))} if part in ("method", "task") else {}
        return {**named, **own}
    raise InvalidInput(
        f"{part} must be a name, an instance, or a mapping of options",
        received=repr(value),
        next_step=HELP,
    )


def _unknown(path: str, body: Mapping[str, Any]) -> UnknownName:
    """Return the error for an option nobody knows, listing those that are near."""
    options = [*PARTS, "seed", *SHORT, *known_options(body)]
    by_leaf = {option.rpartition(".")[2]: option for option in options}
    leaf = difflib.get_close_matches(path.rpartition(".")[2], by_leaf, n=3, cutoff=0.6)
    near = [*(by_leaf[word] for word in leaf), *difflib.get_close_matches(path, options, n=4)]
    return UnknownName(
        "option",
        path,
        set(near) or (*PARTS, "seed", *SHORT),
        next_step=f"write --{near[0].replace('_', '-')}; {HELP}" if near else HELP,
    )


def read_mapping(path: Path | str) -> dict[str, Any]:
    """Read a YAML or JSON file that holds one mapping.

    Raises:
        InvalidInput: It does not exist, is not readable, or holds something else.
    """
    path = Path(path)
    yaml_file = is_yaml(path)
    try:
        text = path.read_text(encoding="utf-8")
        if yaml_file:
            import yaml

            try:
                body = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(" ".join(str(error).split())) from error
        else:
            body = json.loads(text)
        if not isinstance(body, dict):
            raise TypeError(f"a {type(body).__name__} instead of a mapping")
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"{path} cannot be read as a recipe",
            received=str(error),
            allowed="a mapping with the keys backbone, method, task, training, seed",
            next_step="`peftkit run --help` explains every option",
        ) from error
    return body


def is_yaml(path: Path) -> bool:
    """Say whether a recipe file is YAML (else JSON), by its suffix."""
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise InvalidInput(
            "a recipe file must end in .yaml, .yml or .json", received=path, next_step="rename it"
        )
    return path.suffix != ".json"
