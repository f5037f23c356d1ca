"""Loading: formats, folders, bad input. No network, and nothing is written."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.data import load_splits
from peftkit.data._files import read_file
from peftkit.data.splits import Splits
from peftkit.errors import InvalidInput

# Everything that CSV readers like to spoil.
TEXTS = [
    "plain",
    "a, b",
    'say "hi"',
    "two\nlines",
    "NA",
    "null",
    " lead",
    "n\u00e9e \u4f60",
    "a\u2028b",
    "true",
]
ROWS = [
    {
        "text": f"{TEXTS[i % 10]} {i}" if i > 9 else TEXTS[i],
        "label": i % 2,
        "weight": i / 4,
        "zip": f"0{i}",
    }
    for i in range(40)
]
SUFFIXES = ["csv", "tsv", "jsonl", "ndjson", "json", "parquet"]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows with writers that are not ours."""
    frame = pd.DataFrame(rows)
    match path.suffix:
        case ".csv" | ".tsv":
            frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
        case ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case ".jsonl" | ".ndjson":
            frame.to_json(path, orient="records", lines=True, force_ascii=False)
        case ".parquet":
            frame.to_parquet(path)
    return path


def rows_of(splits: Splits) -> dict[str, list[dict[str, object]]]:
    return {name: part.to_list() for name, part in splits.parts().items()}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_rows_written_and_one_fingerprint(
    tmp_path: Path, suffix: str
) -> None:
    reference = tmp_path / "reference"
    reference.mkdir()
    cuts = {"train": ROWS[:20], "validation": ROWS[20:30], "test": ROWS[30:]}
    for name, rows in cuts.items():
        write(tmp_path / f"{name}.{suffix}", rows)
        pq.write_table(pa.Table.from_pylist(rows), reference / f"{name}.parquet", row_group_size=3)

    splits = load_splits(tmp_path)

    assert rows_of(splits) == cuts
    assert splits.notes == ()
    assert splits.fingerprint == load_splits(reference).fingerprint
    single = load_splits(write(tmp_path / f"all.{suffix}", ROWS), label_column="label")
    expected = load_splits(write(reference / "all.parquet", ROWS), label_column="label")
    assert single.fingerprint == expected.fingerprint
    assert rows_of(single) == rows_of(expected)


def test_saved_datasets_are_read_with_their_classes_and_left_alone(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict

    rows = Dataset.from_list(ROWS).cast_column("label", ClassLabel(names=["no", "yes"]))
    rows.save_to_disk(tmp_path / "one")
    DatasetDict(train=rows, dev=rows, test=rows).save_to_disk(tmp_path / "three")
    rows.to_parquet(tmp_path / "one.parquet")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    one, three, parquet = (load_splits(tmp_path / n) for n in ("one", "three", "one.parquet"))

    assert one.fingerprint == parquet.fingerprint
    assert rows_of(three) == dict.fromkeys(("train", "validation", "test"), ROWS)
    for splits in (one, three, parquet):
        assert splits.train.features["label"].names == ["no", "yes"]
        mapped = splits.train.map(lambda row: {"n": len(row["text"])})
        assert mapped[0]["n"] == len(splits.train[0]["text"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_numbered_files_of_a_split_are_joined_by_number(tmp_path: Path) -> None:
    for i in range(11):
        write(tmp_path / f"train-{i}-of-11.csv", [{"text": f"row {i}", "label": i}])
    write(tmp_path / "val.jsonl", [{"label": "x", "text": "other order, other type"}])
    write(tmp_path / "test.csv", [{"text": "t", "label": 3}])
    (tmp_path / "train_notes.csv").write_text("not a split")

    splits = load_splits(tmp_path)

    assert splits.train["text"][:] == [f"row {i}" for i in range(11)]
    assert splits.train["label"][:] == [str(i) for i in range(11)]  # since one label is text
    (tmp_path / "train-3-of-11.csv").unlink()
    with pytest.raises(InvalidInput, match=r"parts of the train split are missing.*11 parts"):
        load_splits(tmp_path)


@pytest.fixture(scope="module")
def csv_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv") / "x.csv"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=12))
def test_csv_cells_survive_any_text(csv_path: Path, cells: list[str]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["text", "n"], *(["x" + cell, 7] for cell in cells)])
    csv_path.write_bytes(out.getvalue().encode())

    table = read_file(csv_path)

    assert table.to_pydict() == {"text": ["x" + c for c in cells], "n": [7] * len(cells)}


def test_csv_types_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("\ufeffi,f,zip,long,some\n1,1.5,01,12345678901234567890,\n-2,2,02,1,3\n\n")

    table = read_file(path)

    assert table.to_pylist() == [
        {"i": 1, "f": 1.5, "zip": "01", "long": "12345678901234567890", "some": None},
        {"i": -2, "f": 2.0, "zip": "02", "long": "1", "some": 3},
    ]


BAD_FILES = {
    "x.csv": [
        ("", "has no rows.*0 bytes"),
        ("text,label\n", "has no rows"),
        ("text,label\na,1\nb\n", "at line 3.*1 cells, the header has 2"),
        ('text,label\na,1\n"b,2\nc,3\n', "at line 3.*unexpected end.*line 4"),
        ("text;label\na;1\n", "not separated.*'text;label'"),
        ("text,text\na,b\n", "two columns of one name.*text"),
        (b"text\nfine\n\xff\xfe\n", "at line 3.*not UTF-8"),
    ],
    "x.jsonl": [
        ('{"text": "a"}\n{"text": \n', "at line 2"),
        ('{"text": "a"}\n[1]\n', "line 2 is a list, not an object"),
        ('{"a": 1}\n\n{"a": "b"}\n', "column 'a' holds int first and str at line 3"),
    ],
    "x.json": [
        ("[]", "has no rows"),
        ('"text"', "str, not a list"),
        ('[{"a": 1},\n {"a" 2}]', "at line 2"),
        ('[{"a": 1}, 2]', "item 1 is a int"),
    ],
    "x.parquet": [("PAR1 garbled PAR1", "cannot be read"), ("", "cannot be read")],
    "x.xlsx": [("", "no known format.*'.xlsx'.*.csv, .tsv")],
}


@pytest.mark.parametrize(
    ("name", "content", "message"), [(n, *case) for n, cases in BAD_FILES.items() for case in cases]
)
def test_bad_files_are_refused_with_the_line_where_known(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / name).write_bytes(data)

    with pytest.raises(InvalidInput, match=message) as caught:
        load_splits(tmp_path / name)
    assert "Next: " in str(caught.value)


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(InvalidInput, match=r"no file or folder.*holds notes\.md"):
        load_splits(tmp_path / "trian.csv")
    with pytest.raises(InvalidInput, match=r"no file of a split.*Received: notes\.md.*train\.\*"):
        load_splits(tmp_path)
    write(tmp_path / "test.csv", ROWS)
    with pytest.raises(InvalidInput, match=r"no train split.*Received: test"):
        load_splits(tmp_path)
    write(tmp_path / "train.csv", [{"text": "a", "category": 1}])
    with pytest.raises(
        InvalidInput, match=r"train\.csv and test\.csv.*only in one: category, label"
    ):
        load_splits(tmp_path)
    write(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(InvalidInput, match=r"unclear.*train\.csv, train\.jsonl"):
        load_splits(tmp_path)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(InvalidInput, match="looks like a saved dataset but cannot be read"):
        load_splits(tmp_path)


def test_a_split_or_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    rows = Dataset.from_list(ROWS)
    DatasetDict(train=rows, dev=rows, validation=rows).save_to_disk(tmp_path / "saved")
    with pytest.raises(InvalidInput, match=r"the validation split twice.*dev and validation"):
        load_splits(tmp_path / "saved")
    for split in ("train", "val", "validation"):
        (tmp_path / "folders" / split / "cat").mkdir(parents=True)
        (tmp_path / "folders" / split / "cat" / "1.png").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="the validation split twice"):
        load_splits(tmp_path / "folders")
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "twice.parquet")
    with pytest.raises(InvalidInput, match="several columns named 'text'"):
        load_splits(tmp_path / "twice.parquet")


def test_hub_names_fail_clearly_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidInput, match=r"cannot be reached.*offline.*Next: give a local file"):
        load_splits("peftkit-tests/no-such-dataset", configuration="x", revision="y")


def test_names_that_cannot_be_honoured_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"unknown bundled corpus 'pydocs/libary'. Did you mean"):
        load_splits("pydocs/libary")
    with pytest.raises(InvalidInput, match="revision only applies to data of the hub"):
        load_splits(write(tmp_path / "x.csv", ROWS), revision="main")
    with pytest.raises(InvalidInput, match=r"'lable'. Did you mean 'label'"):
        load_splits(tmp_path / "x.csv", label_column="lable")


def test_import_is_light() -> None:
    code = (
        "import sys, peftkit.data; "
        "print([m for m in ('torch', 'datasets', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
