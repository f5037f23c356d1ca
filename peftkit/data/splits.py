"""The three splits of a task, and how a missing one is carved from the training rows.

The rule: a split that the source lacks is drawn from its training rows, test first (20 %), then
validation (10 %), both shares of the training rows as they came. With a label column each class
gives its share by largest remainder, at least one row if it has two or more left, and never its
last one. The draw is the same on every run (seed 0). Splits that the source has are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftkit.data._fingerprint import rows_fingerprint
from peftkit.errors import InvalidInput, UnknownName
from peftkit.seeds import derive

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

SPLIT_NAMES = ("train", "validation", "test")
_ALIASES = {
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "validation_matched": "validation",
    "test_matched": "test",
}
_CARVE_SEED = 0

LabelColumn = str | Callable[["Dataset"], str | None] | None


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Training, validation and test rows of one data source.

    Attributes:
        train: Rows to train on.
        validation: Rows to choose checkpoints and settings on.
        test: Rows that are scored once.
        source: Where the rows come from, as a person would name it.
        fingerprint: Hash over all rows of all splits, hexadecimal.
        notes: What was done on the way that a reader of results must know,
            such as "validation carved from train: 10 %, stratified by label".
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    source: str
    fingerprint: str
    notes: tuple[str, ...] = ()

    def parts(self) -> dict[str, Dataset]:
        """Return the three datasets by name."""
        return {name: getattr(self, name) for name in SPLIT_NAMES}


def split_of(name: str) -> str | None:
    """Return the split that a file or part of this name is, or None."""
    name = _ALIASES.get(name.lower(), name.lower())
    return name if name in SPLIT_NAMES else None


def splits_by_name(names: Iterable[str], source: str) -> dict[str, str]:
    """The names that are those of splits, by split.

    Raises:
        InvalidInput: Two are names of the same split.
    """
    found: dict[str, str] = {}
    for name in names:
        split = split_of(name)
        if split in found:
            raise InvalidInput(
                f"{source} has the {split} split twice",
                received=f"{found[split]} and {name}",
                next_step="rename or remove one of them",
            )
        if split is not None:
            found[split] = name
    return found


def detach(dataset: Dataset) -> Dataset:
    """Return the same rows without ties to cache files, so that nothing is written beside them."""
    from datasets import Dataset

    return Dataset(dataset.data.table, info=dataset.info.copy())


def require_same_columns(parts: Mapping[str, Dataset], source: str) -> None:
    """Refuse parts whose columns, or the classes that a column declares, differ.

    Raises:
        InvalidInput: Naming the columns that are not in all parts.
    """
    (first_name, first), *others = parts.items()
    for name, part in others:
        odd = sorted(set(first.column_names) ^ set(part.column_names))
        if odd:
            raise InvalidInput(
                f"{first_name} and {name} of {source} do not have the same columns",
                received=f"{first_name}: {', '.join(first.column_names)}; "
                f"{name}: {', '.join(part.column_names)}",
                allowed=f"the same in both; these are only in one: {', '.join(odd)}",
                next_step="rename or remove columns",
            )
        for column in first.column_names:
            ours, theirs = (getattr(p.features[column], "names", None) for p in (first, part))
            if ours != theirs:
                raise InvalidInput(
                    f"{first_name} and {name} of {source} declare different classes",
                    received=f"column {column!r}: {_short(ours)} and {_short(theirs)}",
                    allowed="the same classes in the same order",
                    next_step="write both with the same ClassLabel, or with labels as text",
                )


def _short(names: Sequence[str] | None) -> str:
    shown = "none" if names is None else ", ".join(names)
    return shown if len(shown) <= 200 else shown[:200] + "..."


def complete(
    parts: Mapping[str, Dataset],
    *,
    source: str,
    label_column: LabelColumn = None,
    validation_share: float = 0.1,
    test_share: float = 0.2,
    notes: Sequence[str] = (),
) -> Splits:
    """Return all three splits, carving those that `parts` lacks from its training rows.

    Args:
        parts: Datasets by split name; `train` must be among them.
        source: Where the rows come from.
        label_column: Column to stratify by, or a function that finds it in the training rows.
        validation_share: Share of the training rows, in (0, 1), to carve for validation.
        test_share: Likewise for test.
        notes: What was done so far.

    Raises:
        InvalidInput: No training rows, too few to carve from, columns that differ, unknown column.
    """
    shares = {"test": test_share, "validation": validation_share}
    _check(parts, source, shares)
    parts, notes = dict(parts), list(notes)
    train = parts["train"]
    label = label_column(train) if callable(label_column) else label_column
    if label is not None and label not in train.column_names:
        raise UnknownName(f"column of {source}", label, train.column_names)
    if label is not None and "test" in parts and _is_unlabelled(parts["test"], train, label):
        del parts["test"]
        notes.append("the test split came without labels and was set aside")
    wanted = {name: share for name, share in shares.items() if name not in parts}
    if wanted:
        carved, how = _carve_all(train, wanted, label, source)
        parts |= carved
        notes += how
    parts = {name: parts[name] for name in SPLIT_NAMES}
    return Splits(**parts, source=source, fingerprint=rows_fingerprint(parts), notes=tuple(notes))


def _carve_all(
    train: Dataset, shares: Mapping[str, float], label: str | None, source: str
) -> tuple[dict[str, Dataset], list[str]]:
    """Return the carved splits and the training rows left, and a note on each."""
    parts, notes = {}, []
    left = list(range(train.num_rows))
    strata = None if label is None else _strata(train, label)
    for name, share in shares.items():
        drawn, how = _carve(left, strata, round(share * train.num_rows), name)
        if len(drawn) >= len(left):
            raise InvalidInput(
                f"{source} has too few rows to carve a {name} split from",
                received=f"{train.num_rows} training rows",
                next_step=f"give a file for the {name} split, or more rows",
            )
        parts[name] = train.select(drawn)
        left = sorted(set(left).difference(drawn))
        notes.append(
            f"{name} carved from train: {100 * share:g} % "
            f"({len(drawn)} of {train.num_rows} rows), {how}, seed {_CARVE_SEED}"
        )
    return {**parts, "train": train.select(left)}, notes


def _check(parts: Mapping[str, Dataset], source: str, shares: Mapping[str, float]) -> None:
    for name, share in shares.items():
        if not 0 < share < 1:
            raise InvalidInput(
                f"the {name} share cannot be carved", received=share, allowed="between 0 and 1"
            )
    if sum(share for name, share in shares.items() if name not in parts) >= 1:
        raise InvalidInput(
            "nothing would be left to train on",
            received=", ".join(f"{name} share {share}" for name, share in shares.items()),
            allowed="shares that sum to less than 1",
        )
    if "train" not in parts:
        raise InvalidInput(
            f"{source} has no train split",
            received=", ".join(parts),
            allowed="train, and if you have them validation and test",
            next_step="add the training rows",
        )
    for name, part in parts.items():
        if not part.num_rows:
            raise InvalidInput(
                f"the {name} split of {source} has no rows",
                next_step=f"fill it, or remove it: {name} is then carved from train"
                if name != "train"
                else "check how it was written",
            )
    require_same_columns(parts, source)


def values_of(dataset: Dataset, column: str) -> pa.ChunkedArray:
    """Return one column as stored: classes as numbers, images as bytes."""
    return dataset.select_columns([column]).with_format("arrow")[:][column]


def _is_unlabelled(test: Dataset, train: Dataset, label: str) -> bool:
    """Whether every label is missing or -1, as in the test splits of benchmarks that hide them."""
    import pyarrow as pa

    if pa.types.is_nested(values_of(test, label).type):  # pyarrow compares no lists
        return False
    hidden = set(values_of(test, label).unique().to_pylist()) <= {None, -1}
    return hidden and -1 not in values_of(train, label).unique().to_pylist()


def _strata(dataset: Dataset, label: str) -> np.ndarray | None:
    """Return the class of each row as a number, or None where the column holds no classes."""
    import numpy as np
    import pyarrow as pa

    column = values_of(dataset, label).combine_chunks()
    if pa.types.is_nested(column.type) or pa.types.is_floating(column.type):
        return None
    return np.asarray(column.dictionary_encode(null_encoding="encode").indices)


def _carve(
    left: Sequence[int], strata: np.ndarray | None, wanted: int, name: str
) -> tuple[list[int], str]:
    """Return about `wanted` of the rows `left`, in their order, and how they were drawn."""
    import numpy as np

    rows = np.asarray(left, dtype=np.int64)
    draws = np.random.default_rng(derive(_CARVE_SEED, f"carve {name}")).random(len(rows))
    order = rows[np.argsort(draws, kind="stable")]
    quotas = None if strata is None else _quotas(np.bincount(strata[rows]), wanted)
    if strata is None or quotas is None or not quotas.sum():
        return sorted(order[: max(1, wanted)].tolist()), "not stratified"
    classes = strata[order]
    counts = np.bincount(classes)
    place = np.empty_like(order)  # of a row among those of its class, in the order drawn
    place[np.argsort(classes, kind="stable")] = np.arange(len(order)) - np.repeat(
        np.cumsum(counts) - counts, counts
    )
    return sorted(order[place < quotas[classes]].tolist()), "stratified by label"


def _quotas(counts: np.ndarray, wanted: int) -> np.ndarray:
    """Return how many rows each class gives: largest remainder, within the bounds of the rule."""
    import numpy as np

    ideal = counts * (wanted / counts.sum())
    most = np.maximum(counts - 1, 0)
    quotas: np.ndarray = np.minimum(np.maximum(np.floor(ideal), 1), most).astype(np.int64)
    for c in np.argsort(quotas - ideal, kind="stable"):
        if quotas.sum() >= wanted:
            break
        if quotas[c] < most[c]:
            quotas[c] += 1
    return quotas
