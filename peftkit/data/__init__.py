"""Where examples come from: a bundled corpus, this machine, or the hub; always as three splits.

Importing this package imports neither torch nor datasets nor pandas.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from peftkit.data._files import READERS
from peftkit.data.answers import known_labels, read_rows
from peftkit.data.columns import Columns, find_label_column, find_text_columns
from peftkit.data.label_sets import SetColumns, known_label_sets, label_sets
from peftkit.data.labels import check_texts, label_names, labelled
from peftkit.data.media import (
    bare_media,
    check_media,
    content_of,
    find_media_column,
    known_media,
    labelled_media,
)
from peftkit.data.pairs import PairColumns, known_pairs, paired
from peftkit.data.prompts import Prompt, equal_sides, is_chat, known_preferences, known_prompts
from peftkit.data.sampling import flip_labels, subset
from peftkit.data.splits import LabelColumn, Splits, complete
from peftkit.data.tags import known_tags, tagged
from peftkit.data.values import (
    find_value_column,
    known_values,
    strata_of_values,
    value_columns,
    valued,
)
from peftkit.errors import InvalidInput, UnknownName

__all__ = [
    "Columns",
    "LabelColumn",
    "PairColumns",
    "Prompt",
    "SetColumns",
    "Splits",
    "bare_media",
    "check_media",
    "check_texts",
    "content_of",
    "equal_sides",
    "find_label_column",
    "find_media_column",
    "find_text_columns",
    "find_value_column",
    "flip_labels",
    "is_chat",
    "known_label_sets",
    "known_labels",
    "known_media",
    "known_pairs",
    "known_preferences",
    "known_prompts",
    "known_tags",
    "known_values",
    "label_names",
    "label_sets",
    "labelled",
    "labelled_media",
    "load_splits",
    "paired",
    "read_rows",
    "strata_of_values",
    "subset",
    "tagged",
    "value_columns",
    "valued",
]

# Rows done, rows in all, what is being done.
Progress = Callable[[int, int, str], None]
_BUNDLED = "pydocs/"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def load_splits(
    data: str | Path,
    *,
    configuration: str | None = None,
    revision: str | None = None,
    label_column: LabelColumn = None,
    progress: Progress | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.2,
) -> Splits:
    """Load the three splits of a data source.

    Args:
        data: "pydocs/<name>" for a bundled corpus; a file (CSV, TSV, JSON Lines, JSON, Parquet); a
            folder with a file per split, or with images or sounds in a folder a class, or written
            by `save_to_disk`; else a name on the hub. What exists on this machine is preferred to
            the hub.
        configuration: Which part of a dataset of the hub.
        revision: Commit, branch or tag of a dataset of the hub.
        label_column: Column to stratify by when a split is carved, or a function that finds it in
            the training rows. Bundled corpora come with splits of their own.
        progress: Told how far a bundled corpus has been read.
        validation_share: Share of the training rows carved for a missing validation split.
        test_share: Likewise for a missing test split.

    Raises:
        InvalidInput: There is no such data, or it cannot be read.
    """
    name = str(data)
    path = Path(name).expanduser()
    notes: tuple[str, ...] = ()
    if name.startswith(_BUNDLED) or path.exists() or _looks_local(name):
        _require_unset(name, configuration=configuration, revision=revision)
        if name.startswith(_BUNDLED):
            return _load_bundled(name, progress)
        from peftkit.data.local import read_local

        parts, source = read_local(path), name
    else:
        from peftkit.data.hub import read_hub

        parts, notes = read_hub(name, configuration=configuration, revision=revision)
        asked = ", ".join(part for part in (configuration, revision) if part)
        source = f"{name} ({asked})" if asked else name
    return complete(
        parts,
        source=source,
        label_column=label_column,
        validation_share=validation_share,
        test_share=test_share,
        notes=notes,
    )


def _load_bundled(name: str, progress: Progress | None) -> Splits:
    from peftkit.data.pydocs import TASKS

    loader = TASKS.get(name.removeprefix(_BUNDLED))
    if loader is None:
        raise UnknownName("bundled corpus", name, [_BUNDLED + known for known in TASKS])
    return loader(progress=progress)


def _looks_local(name: str) -> bool:
    """Whether a name can only mean a file or folder, so that the hub is not asked for a typo."""
    return not _HUB_NAME.fullmatch(name) or Path(name).suffix.lower() in READERS


def _require_unset(name: str, **options: str | None) -> None:
    for option, value in options.items():
        if value is not None:
            raise InvalidInput(
                f"the option {option} only applies to data of the hub",
                received=f"{option} {value!r} for {name}",
                next_step="leave it out",
            )
