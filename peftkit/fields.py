"""What the fields of a part accept: checking values, describing types, finding the docstrings.

Parts are plain frozen dataclasses. Pydantic decides whether a value fits an annotation, in its
strict mode: a bool is no integer, 4.5 is no integer, "abc" is no number. A string is offered in
the other readings it may have, because YAML reads `3e-4` as text and a command line knows nothing
but text. The words of every message are our own.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import json
import operator
import os
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from peftkit.errors import InvalidInput, UnknownName

T = TypeVar("T")

_WORDS: dict[object, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "none",
}
_BOUNDS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
_SYMBOLS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
HELP = "`peftkit run --help` explains every option"


class Typed(str):
    """Text typed on a command line, where `none` means None and commas separate."""

    __slots__ = ()


class _NoValue:
    def __repr__(self) -> str:
        return "no value"


NO_VALUE = _NoValue()
"""Stands for the value of an option that was given without one: true, if it is a switch."""


def settings(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of a dataclass that its constructor takes."""
    return {f.name: f for f in dataclasses.fields(cls) if f.init}


def hints_of(cls: Any) -> dict[str, Any]:
    """Return the resolved annotation of every field.

    Raises:
        InvalidInput: An annotation names what the module does not import at run time.
    """
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise InvalidInput(
            f"the annotations of {cls.__qualname__} cannot be read: {error}",
            next_step="import that name outside of `if TYPE_CHECKING`",
        ) from error


def build(cls: type[T], options: Mapping[str, Any], where: str) -> T:
    """Build a part after checking every option against its annotation.

    Args:
        cls: A dataclass.
        options: Field name -> value.
        where: The part's place in the recipe, such as "method": it starts every message.

    Raises:
        UnknownName: The part has no such option.
        InvalidInput: A value has the wrong type, or a required one is missing.
    """
    known = settings(cls)
    for name in options:
        if name not in known:
            raise UnknownName(
                "option",
                f"{where}.{name}",
                [f"{where}.{n}" for n in known] or [f"none: {cls.__qualname__} has no options"],
                next_step=_help(f"{where}.{name}"),
            )
    for name, field in known.items():
        if name not in options and field.default is field.default_factory is dataclasses.MISSING:
            raise InvalidInput(
                f"{where}.{name} is missing: {cls.__qualname__} needs it",
                allowed=describe(hints_of(cls)[name]),
                next_step=f"add --{where}.{name.replace('_', '-')} VALUE",
            )
    hints = hints_of(cls)
    values = {n: checked(v, hints[n], f"{where}.{n}", known[n]) for n, v in options.items()}
    return cls(**values)


def settle(part: Any, where: str) -> None:
    """Check the fields of a frozen dataclass in place; for use in its `__post_init__`."""
    hints = hints_of(type(part))
    for name, field in settings(type(part)).items():
        value = checked(getattr(part, name), hints[name], f"{where}.{name}", field)
        object.__setattr__(part, name, value)


def checked(
    value: object, hint: Any, where: str, field: dataclasses.Field[Any] | None = None
) -> Any:
    """Return `value` as its annotation wants it.

    Args:
        value: Anything.
        hint: The annotation.
        where: The option's full name.
        field: Its field, whose default is shown as an example.

    Raises:
        UnknownName: Text that is none of the allowed words.
        InvalidInput: Any other value that does not fit.
    """
    fits = _adapter(hint)
    for reading in _readings(value):
        try:
            return fits.validate_python(reading)
        except ValueError:
            continue
    words = list(_literals(hint))
    if isinstance(value, str) and words:
        raise UnknownName(where, str(value), words, next_step=_help(where))
    example = None if field is None else field.default
    plain = example is not None and isinstance(example, str | int | float)
    raise InvalidInput(
        f"{where} must be {describe(hint)}",
        received=repr(str(value)) if isinstance(value, str) else repr(value),
        allowed=f"for example {example!r} (the default)" if plain else describe(hint),
        next_step=_help(where),
    )


def _help(where: str) -> str:
    """Where an option is explained: those of a part are shown with it, those of a command by it."""
    part, dot, _ = where.partition(".")
    if part in ("method", "task"):
        return f"`peftkit run --{part} NAME --help` explains its options"
    return HELP if dot or where == "seed" else "the same command with --help explains every option"


def describe(hint: Any, *, short: bool = False) -> str:
    """Say in words what an annotation accepts: `int | None` is "an integer or none"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        names = _SYMBOLS if short else _BOUNDS
        bounds = [
            f"{words} {getattr(limit, key)}"
            for limit in arguments[1:]
            for key, words in names.items()
            if hasattr(limit, key)
        ]
        return " ".join([describe(arguments[0], short=short), " and ".join(bounds)]).strip()
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(a, short=short) for a in arguments)
    if origin is Literal:
        words = [str(a) for a in arguments]
        return "|".join(words) if short else f"one of {', '.join(words)}"
    if origin in (tuple, list):
        items = dict.fromkeys(describe(a, short=True) for a in arguments if a is not Ellipsis)
        plural = [f"{item}s" if item in ("integer", "number") else item for item in items]
        return f"{'' if short else 'a '}list of {', '.join(plural)}"
    if origin is dict:
        key, value = (describe(a, short=True) for a in arguments)
        return f"a mapping, {{{key}: {value}, ...}}"
    phrase = _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
    return phrase.removeprefix("an ").removeprefix("a ") if short else phrase


def docs(cls: type) -> dict[str, str]:
    """Return what is written about each field: the string below it, or its `Attributes:` entry."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        for name, text in re.findall(
            r"^ +(\w+)(?: \([^)]*\))?: (.+(?:\n {8,}.+)*)", _section(base), re.MULTILINE
        ):
            found[name] = " ".join(text.split())
        found.update(_below_fields(base))
    return {name: found[name] for name in settings(cls) if name in found}


def _section(cls: type) -> str:
    """Return the part of a class docstring that lists its fields, indented by four spaces."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    parts = re.split(r"^(?:Attributes|Args|Fields):\n", text, maxsplit=1, flags=re.MULTILINE)
    return re.split(r"^\S", parts[1], maxsplit=1, flags=re.MULTILINE)[0] if len(parts) > 1 else ""


def _below_fields(cls: type) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    for field, doc in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(doc, ast.Expr)
            and isinstance(doc.value, ast.Constant)
            and isinstance(doc.value.value, str)
        ):
            yield field.target.id, " ".join(doc.value.value.split())


@functools.cache
def _adapter(hint: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter  # 70 ms that `peftkit list` does not need

    return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))


def _readings(value: object) -> Iterator[object]:
    """Yield what a value may mean, the likeliest first."""
    if value is NO_VALUE:
        yield True
    elif isinstance(value, str):
        text = str(value)
        typed = isinstance(value, Typed)
        if typed and text.lower() in ("none", "null"):
            yield None
        if typed and text.lstrip().startswith("{"):  # JSON, for what is a mapping
            with contextlib.suppress(ValueError):
                yield json.loads(text)
        if typed and "," in text:
            yield from _split(text)
        yield text
        yield _scalar(text)
        if typed:
            yield from _split(text)
    elif isinstance(value, os.PathLike):
        yield os.fspath(value)
    else:
        if not isinstance(value, int) and hasattr(value, "__index__"):
            value = operator.index(value)  # integers of numpy
        yield value
        if isinstance(value, list):
            yield _frozen(value)


def _split(text: str) -> Iterator[object]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for items in (words, [_scalar(word) for word in words]):
        yield tuple(items)
        yield items


def _scalar(text: str) -> object:
    word = text.strip().lower()
    if word in ("true", "false"):
        return word == "true"
    if word in ("none", "null"):
        return None
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return text


def _frozen(value: object) -> object:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _literals(hint: Any) -> Iterator[str]:
    if typing.get_origin(hint) is Literal:
        yield from (a for a in typing.get_args(hint) if isinstance(a, str))
    elif typing.get_origin(hint) in (typing.Union, types.UnionType, Annotated):
        for argument in typing.get_args(hint):
            yield from _literals(argument)
