"""Predictions: from texts, files, tables and standard input; as text, JSON Lines and CSV."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from exported import leave_run
from peftkit import Recipe
from peftkit import run as run_recipe
from peftkit.cli import main
from toys import write_lines

pytestmark = pytest.mark.usefixtures("libraries")
TEXTS = ["pay the card", "row of the matrix", "how can", "pay", 'a column, and "why"']


@pytest.fixture(scope="module")
def run(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    return leave_run(out, "classifier", "lora", tmp_path_factory.mktemp("exported"), None)


@pytest.fixture(scope="module")
def answerer(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("answerer") / "run"
    return leave_run(out, "answerer", "lora", tmp_path_factory.mktemp("exported"), None)


def predict(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> str:
    capsys.readouterr()
    assert main(["predict", str(folder), *options]) == 0
    return capsys.readouterr().out


@pytest.fixture
def one_by_one(run: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The answer to each text by itself."""
    return [json.loads(predict(capsys, run, "--text", text, "--json")) for text in TEXTS]


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [each["text"] for each in found] == [each["text"] for each in expected]
    assert [each["label"] for each in found] == [each["label"] for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert float(one["probability"]) == pytest.approx(other["probability"], abs=1e-5)


@pytest.mark.parametrize("size", ["1", "2", "100"])
def test_lines_of_standard_input_are_answered_in_batches(
    size: str, run: Path, one_by_one: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(TEXTS) + "\n"))

    printed = predict(capsys, run, "--format", "jsonl", "--batch-size", size)

    same([json.loads(line) for line in printed.splitlines()], one_by_one)


def test_answers_come_before_all_inputs_are_read(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def lines() -> Any:
        for text in TEXTS:
            seen.append(len(capsys.readouterr().out.splitlines()))
            yield f"{text}\n"

    monkeypatch.setattr("sys.stdin", lines())
    assert main(["predict", str(run), "--batch-size", "2"]) == 0

    assert seen == [0, 0, 2, 0, 2]


def test_nothing_of_a_batch_is_kept(run: Path) -> None:
    from peftkit.saved import load_run

    saved = load_run(run)
    for _ in range(3):
        saved.predict(TEXTS)

    assert saved.predictor.bench._encoded == {}  # type: ignore[attr-defined]


def test_a_file_of_texts_has_one_on_each_line(
    run: Path, one_by_one: list[dict[str, Any]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "texts.txt").write_text("\r\n".join(TEXTS), encoding="utf-8", newline="")

    printed = predict(capsys, run, "--file", str(tmp_path / "texts.txt"), "--json")

    same([json.loads(line) for line in printed.splitlines()], one_by_one)


def tables(folder: Path) -> dict[str, Path]:
    """The texts in each kind of data file, in a column called `note`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = {kind: folder / f"rows.{kind}" for kind in ("csv", "jsonl", "parquet")}
    with paths["csv"].open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "note"), *enumerate(TEXTS)])
    lines = [json.dumps({"id": i, "note": text}) for i, text in enumerate(TEXTS)]
    paths["jsonl"].write_text("\n".join(lines), encoding="utf-8")
    pq.write_table(pa.table({"id": range(len(TEXTS)), "note": TEXTS}), paths["parquet"])
    return paths


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_of_a_table_is_answered(
    kind: str, run: Path, one_by_one: list[dict[str, Any]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data, out = tables(tmp_path)[kind], tmp_path / "answers.csv"

    options = ["--data", str(data), "--text-column", "note", "--batch-size", "2"]
    assert predict(capsys, run, *options, "--format", "csv", "--out", str(out)) == ""

    with out.open(encoding="utf-8", newline="") as file:
        same(list(csv.DictReader(file)), one_by_one)


def test_questions_and_contexts_are_two_columns(
    answerer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"question": "what money is in it ?", "context": "the file of pay returns column"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")

    there = predict(capsys, answerer, "--data", str(tmp_path / "rows.jsonl"), "--json")
    asked = predict(capsys, answerer, "--text", f"{row['question']} {row['context']}", "--json")

    assert json.loads(there) == json.loads(asked)


def test_lists_become_json_in_a_table_of_answers() -> None:
    from peftkit.answering import Writer

    file = io.StringIO()
    Writer("csv", file).write([{"entities": [{"type": "a", "words": "b, c"}], "text": "x"}])

    (row,) = csv.DictReader(io.StringIO(file.getvalue()))
    assert json.loads(row["entities"]) == [{"type": "a", "words": "b, c"}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--text", "a", "--file", "b"], ["--text and --file"]),
        (["--text", "a", "--format", "xml"], ["unknown format of answers 'xml'", "jsonl"]),
        (["--text", "a", "--json", "--format", "csv"], ["--json is --format jsonl"]),
        (["--text", "a", "--text-column", "b"], ["add --data FILE"]),
        (["--batch-size", "0"], ["a batch has rows"]),
        (["--data", "nowhere.csv"], ["nowhere.csv"]),
        (["--file", "nowhere.txt"], ["there is no file nowhere.txt"]),
        (["--text", "a", "--out", "."], [". is a folder"]),
        (["--texts", "a"], ["unknown option '--texts'", "Did you mean '--text'?"]),
    ],
)
def test_a_request_that_cannot_be_honoured_is_refused(
    options: list[str], said: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run), *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    for part in said:
        assert part in shown.err


def test_bytes_that_are_no_text_are_said_so_and_a_mark_of_their_order_is_none(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = io.TextIOWrapper(io.BytesIO(b"pay\ncaf\xe9\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", wrong)
    assert main(["predict", str(run)]) == 2
    assert "standard input cannot be read" in capsys.readouterr().err
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfpay\n")
    printed = predict(capsys, run, "--file", str(tmp_path / "marked.txt"), "--json")
    assert json.loads(printed)["text"] == "pay"


def test_a_file_may_be_a_pipe(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_text, args=("pay\nthe bank\n",), daemon=True).start()

    assert main(["predict", str(run), "--file", str(pipe)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_column_that_is_not_there_or_not_clear_is_asked_for(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(tables(tmp_path)["csv"])

    assert main(["predict", str(run), "--data", data]) == 2
    assert "Received: id, note. Next: name it with --text-column" in capsys.readouterr().err
    assert main(["predict", str(run), "--data", data, "--text-column", "notes"]) == 2
    assert "Did you mean 'note'?" in capsys.readouterr().err


def test_a_file_of_answers_is_whole_or_not_there(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answers.csv"
    (tmp_path / "rows.jsonl").write_text('{"text": "pay"}\n{"text": null}\n', encoding="utf-8")
    options = ["--data", str(tmp_path / "rows.jsonl"), "--batch-size", "1", "--out", str(out)]

    assert main(["predict", str(run), *options]) == 2
    assert "row 1 of" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]

    out.write_text("kept")
    assert main(["predict", str(run), "--text", "pay", "--out", str(out)]) == 2
    assert out.read_text() == "kept"
    assert main(["predict", str(run), "--text", "pay", "--out", str(out), "--overwrite"]) == 0
    assert "pay" in out.read_text()


# ---- pairs of texts


@pytest.fixture(scope="module")
def pairs(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without training on premises and hypotheses, found by their names."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        {"premise": "pay the card", "hypothesis": text, "label": n % 2}
        for n, text in enumerate(["pay", "row of the matrix"] * 8)
    ]
    data = write_lines(folder / "data", train=rows, validation=rows, test=rows)
    task = {"name": "text_classification", "data": str(data)}
    run_recipe(Recipe(method="none", backbone="twin:bert", task=task), folder / "run")
    return folder / "run"


def test_both_texts_of_a_pair_are_read(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"premise": "pay the card", "hypothesis": "pay"},
        {"premise": "pay the card", "hypothesis": "row of the matrix"},
    ]
    data = str(write_lines(tmp_path / "new", test=rows) / "test.jsonl")
    one, other = map(json.loads, predict(capsys, pairs, "--data", data, "--json").splitlines())

    assert one["text"] == other["text"] == "pay the card"
    assert one["label"] != other["label"]
    named = predict(capsys, pairs, "--data", data, "--text-column", "premise", "--json")
    assert [json.loads(line) for line in named.splitlines()] == [one, other]


def test_one_text_of_a_pair_is_not_answered(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write_lines(tmp_path / "new", test=[{"premise": "pay", "id": 1}]) / "test.jsonl")

    assert main(["predict", str(pairs), "--text", "pay"]) == 2
    assert "trained on pairs of texts" in capsys.readouterr().err
    assert main(["predict", str(pairs), "--data", data]) == 2
    assert "does not hold both" in capsys.readouterr().err
