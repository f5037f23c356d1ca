"""Carving of missing splits, and the fingerprint over rows."""

from __future__ import annotations

import os
from collections import Counter

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset

from peftkit.data.splits import Splits, complete
from peftkit.errors import InvalidInput

ROWS = [{"text": f"row {i}", "label": i % 2} for i in range(40)]


def carve(rows: list[dict[str, object]], label: object = None, **parts: object) -> Splits:
    return complete({"train": Dataset.from_list(rows), **parts}, source="here", label_column=label)


def test_carving_takes_each_class_its_share() -> None:
    labels = ["a"] * 60 + ["b"] * 30 + ["c"] * 6 + ["d"] * 3 + ["e"]
    rows = [{"text": f"row {i}", "label": label} for i, label in enumerate(labels)]

    splits = carve(rows, label=lambda train: "label")

    counts = {name: Counter(part["label"][:]) for name, part in splits.parts().items()}
    # By hand: 20 % of 60, 30, 6, 3, 1 is 12, 6, 1.2 -> 1, 0.6 -> 1, 0.2 -> 0: together 20 rows.
    # Then 10 rows over the 48, 24, 5, 2, 1 left: 6, 3, 0.6 -> 1, 0.25 -> 1 (the floor), 0.
    assert counts["test"] == {"a": 12, "b": 6, "c": 1, "d": 1}
    assert counts["validation"] == {"a": 6, "b": 3, "c": 1, "d": 1}
    carved = [row for part in splits.parts().values() for row in part.to_list()]
    assert sorted(carved, key=str) == sorted(rows, key=str)
    assert splits.notes == (
        "test carved from train: 20 % (20 of 100 rows), stratified by label, seed 0",
        "validation carved from train: 10 % (11 of 100 rows), stratified by label, seed 0",
    )
    again = carve(rows, label="label")
    assert again.fingerprint == splits.fingerprint
    assert again.test.to_list() == splits.test.to_list()
    assert splits.test["text"][:] != [f"row {i}" for i in range(20)]


def test_largest_remainders_fill_the_share() -> None:
    """Ten classes of 17: 20 % is 3.4 each, 34 together, not 30."""
    rows = [{"label": i % 10} for i in range(170)]

    counts = Counter(carve(rows, label="label").test["label"][:])

    assert counts.total() == 34
    assert set(counts.values()) == {3, 4}


def test_a_split_that_exists_is_never_touched() -> None:
    test = Dataset.from_list(ROWS[:3])

    splits = carve(ROWS, test=test)

    assert splits.test.to_list() == ROWS[:3]
    assert (splits.train.num_rows, splits.validation.num_rows) == (36, 4)
    assert splits.notes == (
        "validation carved from train: 10 % (4 of 40 rows), not stratified, seed 0",
    )


def test_fractions_and_labels_that_never_repeat_are_not_strata() -> None:
    for column in (
        [i / 4 for i in range(40)],
        [f"x{i}" for i in range(40)],
        [[i] for i in range(40)],
    ):
        splits = carve([{"label": value} for value in column], label="label")
        assert (splits.test.num_rows, splits.validation.num_rows) == (8, 4)
        assert "not stratified" in splits.notes[0]


def test_a_test_split_without_labels_is_replaced_and_said() -> None:
    hidden = Dataset.from_list([{**row, "label": -1} for row in ROWS])

    assert carve(ROWS, test=hidden).test.num_rows == 40
    splits = carve(ROWS, label="label", test=hidden)
    assert splits.test.num_rows == 8
    assert splits.notes[0] == "the test split came without labels and was set aside"
    signed = [{**row, "label": row["label"] * 2 - 1} for row in ROWS]
    assert carve(signed, label="label", test=hidden).test.num_rows == 40  # -1 is a class here


def test_too_few_rows_to_carve_are_refused() -> None:
    assert carve(ROWS[:3]).train.num_rows == 1
    with pytest.raises(InvalidInput, match="too few rows to carve"):
        carve(ROWS[:2])
    parts = {"train": Dataset.from_list(ROWS)}
    with pytest.raises(InvalidInput, match="nothing would be left"):
        complete(parts, source="here", validation_share=0.5, test_share=0.5)
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        complete(parts, source="here", validation_share=0)
    with pytest.raises(InvalidInput, match="test split of here has no rows"):
        carve(ROWS, test=Dataset.from_list(ROWS).select([]))


def test_parts_that_number_their_classes_differently_are_refused() -> None:
    rows = Dataset.from_list(ROWS)
    other = rows.cast_column("label", ClassLabel(names=["yes", "no"]))
    with pytest.raises(InvalidInput, match=r"declare different classes.*no, yes and yes, no"):
        complete(
            {"train": rows.cast_column("label", ClassLabel(names=["no", "yes"])), "test": other},
            source="here",
        )


# ---- fingerprints


def fingerprint(table: pa.Table) -> str:
    return complete(
        dict.fromkeys(("train", "validation", "test"), Dataset(table)), source="x"
    ).fingerprint


def test_fingerprint_ignores_storage_and_sees_every_value() -> None:
    nested = [{"t": "ab", "u": "c", "n": 1, "l": ["x", None], "s": {"p": b"\x00", "q": True}}] * 3
    rows = [*nested, {"t": None, "u": "", "n": 2, "l": [], "s": None}]
    table = pa.Table.from_pylist(rows)
    large = table.set_column(0, "t", table["t"].cast(pa.large_string()).dictionary_encode())

    same = [
        table.select(["s", "n", "u", "t", "l"]),
        pa.concat_tables([table.slice(0, 1), table.slice(1)]),
        table.set_column(2, "n", table["n"].cast(pa.int8())),
        large.set_column(0, "t", large["t"].cast(pa.large_string())),
    ]
    changed = [
        {**rows[0], "t": "a", "u": "bc"},
        {**rows[0], "n": 3},
        {**rows[0], "l": ["x", ""]},
        {**rows[0], "l": ["x"]},
        {**rows[0], "s": {"p": b"\x01", "q": True}},
        {**rows[0], "s": {"p": b"\x00", "q": False}},
        {**rows[0], "u": None},
    ]
    others = [pa.Table.from_pylist([row, *rows[1:]], schema=table.schema) for row in changed]
    others.append(table.take([3, 0, 1, 2]))
    others.append(table.rename_columns(["t", "u", "n", "l", "z"]))

    assert {fingerprint(other) for other in same} == {fingerprint(table)}
    assert len({fingerprint(other) for other in [table, *others]}) == len(others) + 1


def test_fingerprint_does_not_depend_on_chunks() -> None:
    texts = [f"row {i}" if i % 7 else None for i in range(20_000)]
    whole = [f"row {i}" for i in range(20_000)]
    one = pa.table({"text": pa.array(texts), "large": pa.array(whole, pa.large_string())})
    many = pa.concat_tables([one.slice(i, 999) for i in range(0, 20_000, 999)])
    backwards = Dataset(one.take(list(range(19_999, -1, -1)))).select(range(19_999, -1, -1))

    assert fingerprint(many) == fingerprint(one)
    parts = dict.fromkeys(("train", "validation", "test"), backwards)
    assert complete(parts, source="x").fingerprint == fingerprint(one)
