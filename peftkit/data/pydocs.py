"""The corpus that every installation carries: docstrings of the libraries peftkit stands on.

Example row of the task `pydocs/library`, which asks which of ten libraries a sentence documents:

    text        "Assign codes from a code book to observations."
    label       6
    label_text  "scipy"
    file        "scipy/cluster/vq.py"

| task                | columns beside `file`                     | asks                          |
| ------------------- | ----------------------------------------- | ----------------------------- |
| `pydocs/library`    | `text`, `label`, `label_text`             | which library is documented?  |
| `pydocs/summary`    | `text`, `summary`                         | what is its first sentence?   |
| `pydocs/parameters` | `tokens`, `tags`                          | name, type, default: where?   |
| `pydocs/defaults`   | `id`, `context`, `question`, `answers`    | what is the default of `x`?   |
| `pydocs/text`       | `text`                                    | what comes next?              |

One scan of the installed libraries (`_pydocs_scan`) serves all tasks. A task's rows are made by the
rules in its own file (`_pydocs_library` and so on) and held out by source file by those of
`_pydocs_split`. Both results are kept in peftkit's cache folder, under a name that depends on the
versions of the libraries, the version of Python (whose parser decides what a docstring is) and the
version of the rules. A cache file is written whole or not at all, a damaged one is built again, and
two processes that build at once write the same.

The corpus therefore depends on what is installed. The fingerprint of the splits, a hash over their
rows, says whether two machines have the same one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Unpack

from peftkit.data import (
    _pydocs_defaults,
    _pydocs_library,
    _pydocs_parameters,
    _pydocs_summary,
    _pydocs_text,
)
from peftkit.data._docstrings import Docstring
from peftkit.data._pydocs_build import Chosen, Options, build, build_plain
from peftkit.data._pydocs_scan import LIBRARIES, Progress, scan
from peftkit.data._pydocs_split import Sizes
from peftkit.data.splits import Splits
from peftkit.errors import UnknownName

__all__ = [
    "LIBRARIES",
    "TASKS",
    "Options",
    "Sizes",
    "defaults",
    "library",
    "load",
    "parameters",
    "scan",
    "summary",
    "text",
]


def library(**options: Unpack[Options]) -> Splits:
    """Return the task "which library does this paragraph document?" as three splits.

    Args:
        options: See `Options`. By default 100 test and 60 validation rows a class are held out;
            `roots` become the classes.

    Returns:
        Splits with the columns `text`, `label`, `label_text` and `file` (relative to the folder
        that holds the libraries). No file serves two splits; all splits are balanced.

    Raises:
        InvalidInput: A library is not installed, or has too few docstrings.
    """
    rules = _pydocs_library
    sizes = options.get("sizes") or rules.SIZES

    def choose(docstrings: list[Docstring], told: Progress) -> Chosen:
        chosen, notes = rules.choose(rules.candidates(docstrings), sizes, progress=told)
        return chosen, [*rules.described(sizes), *notes]

    splits = build("library", rules.VERSION, rules.SOURCE, sizes, choose, options)
    labels = sorted(options.get("roots") or LIBRARIES)
    parts = {name: rules.with_labels(rows, labels) for name, rows in splits.parts().items()}
    return dataclasses.replace(splits, **parts)


def summary(**options: Unpack[Options]) -> Splits:
    """Return the task "what is this docstring's first sentence?" as three splits.

    Args:
        options: See `Options`.

    Returns:
        Splits with the columns `text`, `summary` and `file`.

    Raises:
        InvalidInput: A library is not installed, or there are too few docstrings.
    """
    return build_plain(_pydocs_summary, options)


def parameters(**options: Unpack[Options]) -> Splits:
    """Return the task "which words are a parameter's name, type, default?" as three splits.

    See `summary`; the columns are `tokens`, `tags` (in BIO) and `file`.
    """
    return build_plain(_pydocs_parameters, options)


def defaults(**options: Unpack[Options]) -> Splits:
    """Return the task "what is the default of this parameter?" as three splits.

    See `summary`; the columns are `id`, `context`, `question`, `answers` (as in SQuAD) and `file`.
    """
    return build_plain(_pydocs_defaults, options)


def text(*, reserved: Collection[str] | None = None, **options: Unpack[Options]) -> Splits:
    """Return the docstrings themselves, for language modelling, as three splits.

    Args:
        reserved: Files that give no train rows; by default those that another task holds out.
        options: See `Options`.

    Returns:
        Splits with the columns `text` and `file`.

    Raises:
        InvalidInput: A library is not installed, or there are too few docstrings.
    """

    def held_out(told: Progress) -> Collection[str]:
        if reserved is not None:
            return reserved
        asked: Options = {**options, "sizes": None, "progress": told}
        tasks = [task(**asked) for name, task in TASKS.items() if name != _pydocs_text.NAME]
        parts = [part for splits in tasks for part in (splits.validation, splits.test)]
        return {file for part in parts for file in part["file"]}

    others = (_pydocs_library, _pydocs_summary, _pydocs_parameters, _pydocs_defaults)
    key = [[rules.VERSION, asdict(rules.SIZES)] for rules in others]
    return build_plain(
        _pydocs_text, options, reserved=held_out, key=key if reserved is None else sorted(reserved)
    )


TASKS: dict[str, Callable[..., Splits]] = {
    "library": library,
    "summary": summary,
    "parameters": parameters,
    "defaults": defaults,
    "text": text,
}
"""Tasks made of this corpus, by the part of their name after "pydocs/"."""


def load(name: str, *, progress: Progress | None = None) -> Splits:
    """Return the splits of a task by its name, such as "library" or "pydocs/library".

    Raises:
        UnknownName: There is no such task.
    """
    task = TASKS.get(name.removeprefix("pydocs/"))
    if task is None:
        raise UnknownName("task of the bundled corpus", name, [f"pydocs/{task}" for task in TASKS])
    return task(progress=progress)
