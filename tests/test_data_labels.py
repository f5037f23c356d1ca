"""Finding columns, and naming and numbering classes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from peftkit.data import (
    Columns,
    check_texts,
    find_text_columns,
    known_labels,
    label_names,
    labelled,
    load_splits,
)
from peftkit.data.splits import Splits, complete
from peftkit.errors import InvalidInput

SHARED = Path(os.environ.get("PEFTKIT_SHARED", Path(__file__).parents[2] / "shared")) / "data"

LONG = [f"a text of its own {i}" for i in range(12)]
FEW = ["x", "y", "z"] * 4
NUMBERS = [0, 1, 2] * 4


def splits_of(
    train: dict[str, list[object]], test: dict[str, list[object]] | None = None, **features: object
) -> Splits:
    parts = {name: Dataset.from_dict(train) for name in ("train", "validation", "test")}
    if test is not None:
        parts["test"] = Dataset.from_dict(test)
    for column, feature in features.items():
        parts = {name: part.cast_column(column, feature) for name, part in parts.items()}
    return complete(parts, source="here")


# ---- columns


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"text": LONG, "label": NUMBERS, "label_text": FEW}, ("text", None, "label")),
        ({"id": LONG, "Content": LONG, "Category": FEW}, ("Content", None, "Category")),
        (
            {"idx": NUMBERS, "premise": LONG, "hypothesis": LONG, "label": FEW},
            ("premise", "hypothesis", "label"),
        ),
        (
            {"sentence1": LONG, "sentence2": LONG, "label": NUMBERS},
            ("sentence1", "sentence2", "label"),
        ),
        ({"question": LONG, "sentence": LONG, "label": NUMBERS}, ("question", "sentence", "label")),
        ({"title": LONG, "content": LONG, "label": NUMBERS}, ("content", None, "label")),
        ({"question": LONG, "intent": FEW}, ("question", None, "intent")),
        ({"utt": LONG, "code": FEW}, ("utt", None, "code")),
        ({"verse": FEW, "label": NUMBERS}, ("verse", None, "label")),
        ({"target": LONG, "kind": NUMBERS}, ("target", None, "kind")),
    ],
)
def test_columns_are_found_by_name_and_type(
    columns: dict[str, list[object]], expected: tuple[str, str | None, str]
) -> None:
    found = find_text_columns(Dataset.from_dict(columns))
    assert found == Columns(text=expected[0], second_text=expected[1], label=expected[2])


@pytest.mark.parametrize(
    ("columns", "named", "message"),
    [
        (
            {"text": LONG, "label": FEW},
            {"label": "lable"},
            "unknown column 'lable'. Did you mean 'label'",
        ),
        (
            {"text": LONG, "label": NUMBERS},
            {"text": "label"},
            "'label' holds no text.*of text: text",
        ),
        ({"text": LONG, "label": FEW}, {"text": "text", "label": "text"}, "two parts"),
        (
            {"body": LONG, "title": LONG, "label": FEW},
            {},
            "several columns may be the text.*body, title",
        ),
        (
            {"text": LONG, "coarse_label": FEW, "fine_label": FEW},
            {},
            "may be the label.*label_column",
        ),
        ({"text": LONG, "premise": LONG, "hypothesis": LONG, "label": FEW}, {}, "may be the text"),
        ({"text": LONG, "summary": LONG}, {}, "no column looks like a label"),
        ({"pixels": NUMBERS, "label": NUMBERS}, {}, "no column looks like text"),
    ],
)
def test_columns_that_cannot_be_told_are_asked_for(
    columns: dict[str, list[object]], named: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        find_text_columns(Dataset.from_dict(columns), **named)


def test_named_columns_are_taken_as_named() -> None:
    rows = Dataset.from_dict({"title": LONG, "body": LONG, "label": NUMBERS, "stars": NUMBERS})
    found = find_text_columns(rows, text="body", second="title", label="stars")
    assert found == Columns(text="body", second_text="title", label="stars")


# ---- labels


@pytest.mark.parametrize(
    ("values", "names", "codes"),
    [
        ([10, 9, 10, 9], ["9", "10"], [1, 0, 1, 0]),
        (["10", "9", "10", "9"], ["10", "9"], [0, 1, 0, 1]),
        ([True, False, True, False], ["False", "True"], [1, 0, 1, 0]),
        ([-1.0, 1.0, 1.0, -1.0], ["-1", "1"], [0, 1, 1, 0]),
    ],
)
def test_classes_are_sorted_by_value(
    values: list[object], names: list[str], codes: list[int]
) -> None:
    found, splits = label_names(splits_of({"label": values}), "label")
    assert (found, splits.train["label"][:]) == (names, codes)
    assert splits.test.features["label"] == ClassLabel(names=names)


def test_class_names_come_from_the_declaration_or_the_column_that_spells_them_out() -> None:
    declared = splits_of({"label": [3, 1, 3, 1]}, label=ClassLabel(names=["a", "b", "c", "d"]))
    names, splits = label_names(declared, "label")
    assert (names, splits.train["label"][:]) == (["b", "d"], [1, 0, 1, 0])
    assert splits.notes == ("declared classes without training rows left out: a, c",)

    spelled = splits_of({"kind": [7, 5, 7], "kind_name": ["up", "down", "up"]})
    assert label_names(spelled, "kind")[0] == ["down", "up"]

    for texts in (["up", "down", "left"], ["up", "up", "up"], ["up", None, "up"]):
        loose = splits_of({"label": [7, 5, 7], "label_text": texts})
        names, splits = label_names(loose, "label")
        assert names == ["5", "7"]
        assert "label_text does not name them" in splits.notes[0]


BAD_LABELS = [
    ([0, 1, None], None, "row 2 of the train split has no value in column 'label'"),
    (["a", " ", "b"], None, "row 1 of the train split has no value"),
    ([0, 0, 0], None, "all of one class.*holds 0 only"),
    ([0.5, 1.0, 2.0], None, "holds no classes.*double"),
    ([[0], [1], [1]], None, "holds no classes.*list"),
    ([0, 1, 1], [0, 5, 6], r"row 1 of the test split.*and 1 more.*Received: 5.*classes.*: 0, 1\."),
    (["a", "b", "b"], ["a", "B", "b"], "row 1 of the test split has a label that no.*'B'.*a, b"),
]


@pytest.mark.parametrize(("train", "test", "message"), BAD_LABELS)
def test_bad_labels_are_refused_with_split_row_and_value(
    train: list[object], test: list[object] | None, message: str
) -> None:
    splits = splits_of({"label": train}, {"label": test} if test else None)
    with pytest.raises(InvalidInput, match=message):
        label_names(splits, "label")


def test_minus_one_is_a_missing_label_where_classes_are_declared() -> None:
    train, hidden = {"label": [0, 1, 1]}, {"label": [0, -1, -1]}
    splits = splits_of(train, hidden, label=ClassLabel(names=["a", "b"]))
    with pytest.raises(
        InvalidInput, match="row 1 of the test split has no value in column 'label'"
    ):
        label_names(splits, "label")


def test_missing_texts_are_refused_and_empty_ones_are_texts() -> None:
    columns = Columns(text="text", second_text=None, label="label")
    check_texts(splits_of({"text": ["a", ""], "label": [0, 1]}), columns)
    splits = splits_of({"text": ["a", None, None], "label": [0, 1, 0]})
    with pytest.raises(InvalidInput, match=r"row 1 of the train split.*'text'.*1 more.*'label': 1"):
        check_texts(splits, columns)


def test_labelled_gives_columns_by_role() -> None:
    raw = splits_of({"label": LONG, "text": FEW, "other": NUMBERS})
    names, splits = labelled(raw, text="label", label="text")
    assert names == ["x", "y", "z"]
    assert splits.test[1] == {"text": LONG[1], "label": 1}
    pair = splits_of({"premise": LONG, "hypothesis": FEW, "gold": NUMBERS})
    assert labelled(pair)[1].train.column_names == ["text", "second_text", "label"]


# ---- real data


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data: set PEFTKIT_SHARED")
@pytest.mark.parametrize(
    ("name", "rows", "num_classes", "first", "last"),
    [
        ("banking77", (9003, 1000, 3080), 77, "card_arrival", "country_support"),
        ("clinc150", (15100, 3100, 5500), 151, "accept_reservations", "oos"),
    ],
)
def test_real_datasets_load(
    name: str, rows: tuple[int, ...], num_classes: int, first: str, last: str
) -> None:
    raw = load_splits(SHARED / name, label_column=lambda train: find_text_columns(train).label)
    names, splits = labelled(raw)

    assert tuple(part.num_rows for part in splits.parts().values()) == rows
    assert (len(names), names[0], names[-1]) == (num_classes, first, last)
    assert all(0 <= label < num_classes for label in splits.test["label"][:])
    classes = Counter(raw.validation["label_text"][:])
    assert set(classes) == set(names)
    for text, label in zip(raw.train["label_text"][:50], splits.train["label"][:50], strict=True):
        assert names[label] == text


# ---- rows of another file


def known(labels: list[str], **columns: Any) -> list[int]:
    rows = Dataset.from_dict({"text": ["a"] * len(columns["label"]), **columns})
    found = known_labels(rows, find_text_columns(rows, "text", None, "label"), labels, source="f")
    return list(found["label"][:])


def test_labels_of_another_file_are_read_as_those_of_the_training_rows() -> None:
    assert known(["0", "1"], label=[1.0, 0.0]) == [1, 0]  # as a CSV file with an empty cell has
    assert known(["cat", "dog"], label=["dog", "cat"]) == [1, 0]
    assert known(["cat", "dog"], label=[1, 0]) == [1, 0]
    assert known(["one", "two"], label=[1, 2], label_text=["one", "two"]) == [0, 1]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": [1, 2]}, "is not clear"),  # one and two, or two and none?
        ({"label": ["cat", None]}, "row 1 of f has no label"),
        ({"label": ["cat", "dog"], "text": ["a", None]}, "row 1 of f has no value in column"),
    ],
)
def test_labels_of_another_file_that_are_not_clear_are_refused(
    columns: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        known(["cat", "dog"], **columns)


def test_a_hidden_label_of_another_file_is_not_the_last_class() -> None:
    rows = Dataset.from_dict(
        {"text": ["a", "b"], "label": [-1, 0]},
        features=Features({"text": Value("string"), "label": ClassLabel(names=["cat", "dog"])}),
    )
    with pytest.raises(InvalidInput, match="row 0 of f has no label"):
        known_labels(rows, find_text_columns(rows), ["cat", "dog"], source="f")
