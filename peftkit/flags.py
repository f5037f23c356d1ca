"""The command line of a recipe: reading flags, and the help that lists them.

`--method lora --method.rank 4 --training.learning-rate 3e-4 --training.keep-best --config FILE`:
one flag for every field there is. A flag takes the argument after it, or `=`; without one it is a
switch, and `--no-...` turns the switch off.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from peftkit import parts
from peftkit.errors import InvalidInput, UnknownName
from peftkit.fields import HELP, NO_VALUE, Typed, checked, describe, docs, hints_of, settings
from peftkit.overrides import PARTS, SHORT, changed, known_options, merged_file, read_mapping
from peftkit.recipe import Recipe


def parse_flags(
    argv: Sequence[str],
    base: Recipe | None = None,
    *,
    extras: Mapping[str, Any] | None = None,
) -> tuple[Recipe, dict[str, Any]]:
    """Read a recipe from command-line arguments.

    Args:
        argv: Arguments after the command's name.
        base: The recipe to start from; `--config FILE` is laid over it, flags over both.
        extras: Options that are not the recipe's: name -> annotation, such as
            `{"out": str, "smoke": bool, "methods": tuple[str, ...]}`.

    Returns:
        The recipe, and the extras that were given, underscores in their names.

    Raises:
        UnknownName: There is no such option.
        InvalidInput: An argument is no option, or a value does not fit.
    """
    changes, own = read_flags(argv, extras=extras)
    body: dict[str, Any] = {} if base is None else base.to_dict()
    config = changes.pop("config", None)
    if config is not None:
        body = merged_file(body, read_mapping(checked(config, str, "config")))
    return Recipe.from_dict(changed(body, changes)), own


def read_flags(
    argv: Sequence[str], *, extras: Mapping[str, Any] | None = None
) -> tuple[dict[str, object], dict[str, Any]]:
    """Split arguments into changes of a recipe (for `Recipe.override`) and checked extras.

    The changes still hold `config` if it was given. A repeated flag counts as given last.

    Raises:
        InvalidInput: An argument belongs to no option, or an extra's value does not fit.
    """
    types = {name.replace("-", "_"): hint for name, hint in (extras or {}).items()}
    changes: dict[str, object] = {}
    own: dict[str, Any] = {}
    rest = list(argv)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--") or flag == "--":
            raise InvalidInput(
                "an argument belongs to no option",
                received=repr(flag),
                allowed="--option VALUE, or a comma-separated list a,b,c as one value",
                next_step=HELP,
            )
        key, equals, text = flag[2:].partition("=")
        key = key.replace("-", "_")
        value: object = NO_VALUE
        if equals:
            value = Typed(text)
        elif rest and not rest[0].startswith("--"):
            value = Typed(rest.pop(0))
        part, dot, option = key.rpartition(".")
        if value is NO_VALUE and option.startswith("no_"):
            key, value = f"{part}{dot}{option.removeprefix('no_')}", False
        if key in types:
            own[key] = checked(value, types[key], key)
        else:
            changes[key] = value
    return changes, own


def read_options(argv: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Read the options of a command that takes no recipe.

    Args:
        argv: Arguments.
        options: Name, underscores in it, -> annotation.

    Raises:
        UnknownName: There is no such option.
        InvalidInput: A value cannot be read.
    """
    changes, own = read_flags(argv, extras=options)
    for name in changes:
        known = [f"--{option.replace('_', '-')}" for option in options]
        raise UnknownName("option", f"--{name}", known)
    return own


def leading(argv: Sequence[str]) -> list[str]:
    """The arguments before the first flag."""
    flags = (place for place, word in enumerate(argv) if word.startswith("-"))
    return list(argv[: next(flags, len(argv))])


def recipe_help(method: str | None = None, task: str | None = None) -> str:
    """Return the help text of every recipe option, with those of a method and a task if named.

    Raises:
        UnknownName: There is no such method or task.
    """
    blocks = [
        _entry("--config", "FILE", "A recipe in YAML or JSON; flags change it.", ""),
        _entry("--seed", "INTEGER", "Drives head, data order, subset and dropout.", "0"),
    ]
    named: dict[str, Any] = {"method": method, "task": task}
    body = {kind: name for kind, name in named.items() if name is not None}
    if method is not None:
        parts.load("method", method)
    if task is not None:
        parts.load_task(task)
    options = known_options(body)
    for part in PARTS:
        blocks.append(f"\n{part}:")
        if part in named:
            wanted = f"--{part} NAME --help" if part not in body else ""
            text = f"Name of the {part}; `peftkit list {part}s` shows all."
            text += f" Its options: {wanted}." if wanted else ""
            blocks.append(_entry(f"--{part}", "NAME", text, "" if wanted else str(named[part])))
        blocks += [_field(path, cls) for path, cls in options.items() if path.startswith(part)]
    return "\n".join(blocks) + "\n"


def _field(path: str, cls: type) -> str:
    name = path.partition(".")[2]
    field = settings(cls)[name]
    flag = "--" + path.replace("_", "-")
    short = [s for s, long in SHORT.items() if long == path]
    text = docs(cls).get(name, "")
    if short:
        text += f" Short: {', '.join('--' + s.replace('_', '-') for s in short)}."
    default: object = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    shown = "required" if default is dataclasses.MISSING else _shown(default)
    return _entry(flag, describe(hints_of(cls)[name], short=True), text, shown)


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _entry(flag: str, kind: str, text: str, default: str) -> str:
    ending = (
        "" if not default else " (required)" if default == "required" else f" (default {default})"
    )
    head = f"  {flag} <{kind}>{ending}"
    return "\n".join(
        [head, *textwrap.wrap(text.strip(), 94, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    )
