"""Texts with a number or with several labels: rows, units, methods, a user's way through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import pipeline

from peftkit import Recipe, parts, run
from peftkit.cli import main
from peftkit.errors import InvalidInput, PeftkitError, UnknownName, Unsupported
from peftkit.saved import load_run
from peftkit.tasks import Task
from toys import write_lines

pytestmark = pytest.mark.usefixtures("libraries")
METHODS = parts.find("method")
NUMBER, SEVERAL = "text_regression", "multi_label_classification"
Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def folders(valued_folder: Path, several_folder: Path) -> dict[str, Path]:
    return {NUMBER: valued_folder, SEVERAL: several_folder}


def make(name: str, data: Path, **options: Any) -> Task:
    return parts.load("task", name)(data=str(data), **options)


def written(path: Path, rows: Rows, **others: Rows) -> Path:
    """The same rows in all three splits, unless some are given others."""
    return write_lines(path, **{"train": rows, "validation": rows, "test": rows, **others})


# ---- every method


@pytest.mark.parametrize("name", [NUMBER, SEVERAL])
@pytest.mark.parametrize(
    ("method", "family"),
    [(m, f) for m in METHODS for f in ("bert", "llama") if f == "bert" or m != "tfidf"],
)
def test_every_method_answers_and_answers_again(
    make_bench: Callable[..., Any], folders: dict[str, Path], method: str, family: str, name: str
) -> None:
    task = {"name": name, "data": str(folders[name])}
    bench, again = (
        make_bench(method, f"twin:{family}", seed=seed, task=task, learning_rate=0.01)
        for seed in (0, 7)
    )
    if (method, family) == ("bitfit", "llama"):
        with pytest.raises(Unsupported, match="no bias to train"):
            bench.recipe.method.fit(bench)
        return
    predictor = bench.recipe.method.fit(bench)
    predictor.save(bench.folder)
    found = predictor.outputs(bench.data.test)
    reloaded = again.recipe.method.reload(again, bench.folder).outputs(bench.data.test)
    _, metrics = bench.recipe.task.score(found, bench.data.test)

    assert np.shape(found) == ((20,) if name == NUMBER else (20, 3))
    np.testing.assert_array_equal(reloaded, found)
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("name", [NUMBER, SEVERAL])
@pytest.mark.parametrize("how", ["centroids", "probe"])
def test_a_head_may_start_fitted(
    make_bench: Callable[..., Any], folders: dict[str, Path], how: str, name: str
) -> None:
    """Then the untrained model answers as the layer that was fitted, in the numbers' own units."""
    task = {"name": name, "data": str(folders[name])}
    bench = make_bench("full", task=task, head_init=how)
    model = bench.attach(bench.recipe.method)
    found = bench.predictor(model).outputs(bench.data.train)
    _, metrics = bench.recipe.task.score(found, bench.data.train)

    assert metrics[bench.recipe.task.metric] > 0.5


# ---- a user's way through


@pytest.mark.parametrize("name", [NUMBER, SEVERAL])
def test_a_run_is_recorded_and_used_again(
    name: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(
        method="full",
        backbone="twin:bert",
        task={"name": name, "data": str(folders[name]), "size": 40},
        training={"steps": 160, "learning_rate": 3e-3, "precision": "float32"},
    )
    record = run(recipe, tmp_path / "run")
    metric = recipe.task.metric
    scores = type(recipe.task).item_scores(record.predictions)
    texts = recipe.task.read(folders[name] / "test.jsonl", load_run(tmp_path / "run").labels)

    assert record.metrics["test"][metric] > record.data["chance"] + 0.05
    assert scores is not None
    assert scores.mean() == pytest.approx(record.metrics["test"][metric], abs=1e-9)
    assert json.loads(json.dumps(record.predictions)) == record.predictions
    assert main(["evaluate", str(tmp_path / "run"), "--json", "--data",
                 str(folders[name] / "test.jsonl")]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)[metric] == record.metrics["test"][metric]
    assert main(["predict", str(tmp_path / "run"), "--json", "--text", texts["text"][0]]) == 0
    answer, first = json.loads(capsys.readouterr().out), record.predictions["predicted"][0]
    if name == NUMBER:
        assert answer["value"] == pytest.approx(first, rel=1e-5)
    else:
        labels = load_run(tmp_path / "run").labels
        assert {each["label"] for each in answer["labels"]} == {labels[k] for k in first}
        alone = pipeline("text-classification", model=str(tmp_path / "run"), top_k=None)
        (scores_alone,) = alone(
            [texts["text"][0]]
        )  # transformers knows that each label is by itself
        assert {each["label"] for each in scores_alone if each["score"] > 0.5} == {
            labels[k] for k in first
        }
    assert main(["predict", str(tmp_path / "run"), "--text", texts["text"][0]]) == 0
    assert texts["text"][0] in capsys.readouterr().out


@pytest.mark.parametrize("name", [NUMBER, SEVERAL])
def test_a_comparison_takes_a_task_and_its_data(
    name: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--methods", "none", "--task", name, "--task.data", str(folders[name]),
             "--backbone", "twin:bert", "--sizes", "20", "--seeds", "1", "--dry-run"]  # fmt: skip

    assert main([*words, "--out", str(tmp_path)]) == 0
    assert "none, 20 examples" in capsys.readouterr().out


@pytest.mark.parametrize("name", [NUMBER, SEVERAL])
def test_subsets_are_nested_and_noise_is_refused(name: str, folders: dict[str, Path]) -> None:
    few, more = (make(name, folders[name], size=n).load(seed=3).train["text"][:] for n in (10, 25))

    assert more[:10] == few
    assert few != make(name, folders[name], size=10).load(seed=4).train["text"][:]
    with pytest.raises(InvalidInput, match="label noise is not defined"):
        make(name, folders[name], label_noise=0.1)


def test_classification_sends_other_labels_to_their_task(folders: dict[str, Path]) -> None:
    for name, column in ((NUMBER, "score"), (SEVERAL, "labels")):
        with pytest.raises(InvalidInput, match=f"--task {name}"):
            make("text_classification", folders[name], label_column=column).load(seed=0)


# ---- numbers


@pytest.mark.parametrize("method", ["none", "linear_probe", "tfidf", "lora"])
def test_the_unit_of_a_number_does_not_matter(
    make_bench: Callable[..., Any], valued_folder: Path, tmp_path: Path, method: str
) -> None:
    """Kilograms or pounds: the model learns the same, and answers in what it was given."""
    splits = {}
    for split in ("train", "validation", "test"):
        lines = (valued_folder / f"{split}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        splits[split] = [{**row, "score": 1e6 * row["score"] - 5e7} for row in rows]
    found = []
    for data in (valued_folder, write_lines(tmp_path, **splits)):
        bench = make_bench(method, task={"name": NUMBER, "data": str(data)}, learning_rate=0.01)
        found.append(bench.recipe.method.fit(bench).outputs(bench.data.test))

    assert found[0].std() > 0
    np.testing.assert_allclose(found[1], 1e6 * found[0] - 5e7, rtol=1e-4)


def test_what_is_learned_has_mean_0_and_deviation_1(
    make_bench: Callable[..., Any], valued_folder: Path
) -> None:
    bench = make_bench("full", task={"name": NUMBER, "data": str(valued_folder), "size": 30})
    targets = np.asarray(bench.targets(bench.data.train))
    (label,) = bench.data.labels
    numbers = np.asarray(bench.data.train["label"])
    logits = torch.randn(30, 1)
    loss = bench.recipe.task.loss(logits, torch.from_numpy(targets).float(), bench.data)

    assert len(targets) == 30
    assert targets.mean() == pytest.approx(0, abs=1e-12)
    assert targets.std() == pytest.approx(1)
    assert label == f"(score - {numbers.mean()}) / {numbers.std()}"
    assert any("standard deviations" in note for note in bench.data.notes)
    assert float(loss) == pytest.approx(float(np.square(logits.numpy()[:, 0] - targets).mean()))


def test_a_fitted_head_is_kept_only_where_it_means_the_same(
    make_bench: Callable[..., Any], valued_folder: Path, tmp_path: Path
) -> None:
    bench = make_bench("full", task={"name": NUMBER, "data": str(valued_folder)})
    bench.recipe.method.fit(bench).save(tmp_path / "model")
    for size, new in ((None, False), (20, True)):
        task = {"name": NUMBER, "data": str(valued_folder), "size": size}
        again = make_bench("full", str(tmp_path / "model"), task=task)
        assert again.backbone.head_is_new is new


NUMBERS: Rows = [{"text": f"text {i}", "value": i / 4} for i in range(8)]


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"sentence1": "a", "sentence2": "b", "score": 1.5, "idx": 3}, "score"),
        ({"sentence1": "a", "sentence2": "b", "label": 1.5, "weight": 2.5}, "label"),
        ({"text": "a", "stars": 4, "year": 1999}, "stars"),
        ({"text": "a", "ease": 4.5, "year": 1999}, "ease"),
    ],
)
def test_the_column_of_numbers_is_found(
    tmp_path: Path, columns: dict[str, Any], found: str
) -> None:
    rows = [{k: v if isinstance(v, str) else v + i for k, v in columns.items()} for i in range(6)]
    data = make(NUMBER, written(tmp_path, rows)).load(seed=0)

    assert data.labels[0].startswith(f"({found} - ")
    assert data.test["label"][:] == [row[found] for row in rows]
    assert ("second_text" in data.test.column_names) is ("sentence2" in columns)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": None}, "row 5 of the test split of .* has no number in column 'value'"),
        ({"value": float("nan")}, "row 5 of the test split of .* has no number"),
        ({"value": float("inf")}, "row 5 of the test split of .* has no number"),
        ({"text": None}, "row 5 of the test split .* has no value in column 'text'"),
    ],
)
def test_a_row_without_its_number_is_named(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    rows = [*NUMBERS[:5], {**NUMBERS[5], **change}, *NUMBERS[6:]]
    path = written(tmp_path, NUMBERS, test=rows)
    with pytest.raises(InvalidInput, match=words):
        make(NUMBER, path, label_column="value").load(seed=0)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_numbers_that_are_all_the_same_are_refused_or_noted(tmp_path: Path, split: str) -> None:
    path = written(tmp_path, NUMBERS, **{split: [{**row, "value": 2.0} for row in NUMBERS]})
    if split == "validation":
        notes = make(NUMBER, path).load(seed=0).notes
        assert any("validation split" in note and "are the same" in note for note in notes)
        return
    with pytest.raises(InvalidInput, match=f"all numbers of the {split} split"):
        make(NUMBER, path).load(seed=0)


def test_too_small_a_subset_may_have_one_number_only(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "value": float(i == 0)} for i in range(40)]
    with pytest.raises(InvalidInput, match="rows drawn have the same number"):
        make(NUMBER, written(tmp_path, rows), size=2).load(seed=0)


@pytest.mark.parametrize(
    ("row", "options", "error", "words"),
    [
        ({"text": "a", "x": 1.5, "y": 2.5}, {}, InvalidInput, "several columns may be"),
        ({"text": "a", "kind": "b"}, {}, InvalidInput, "no column looks like a number"),
        ({"text": "a", "kind": "b"}, {"label_column": "kind"}, InvalidInput, "holds no numbers"),
        ({"text": "a", "x": 1.5}, {"label_column": "z"}, UnknownName, "z"),
    ],
)
def test_a_column_of_numbers_that_is_not_there_is_told(
    tmp_path: Path, row: dict[str, Any], options: Any, error: type[PeftkitError], words: str
) -> None:
    with pytest.raises(error, match=words):
        make(NUMBER, written(tmp_path, [row] * 4), **options).load(seed=0)


def test_hidden_numbers_of_a_benchmark_are_set_aside(tmp_path: Path) -> None:
    """As in the test split of STS-B, where each is -1."""
    rows = [{"text": f"text {i}", "label": float(i)} for i in range(30)]
    path = written(tmp_path, rows, test=[{**row, "label": -1.0} for row in rows])
    data = make(NUMBER, path).load(seed=0)

    assert any("came without labels" in note for note in data.notes)
    assert len(data.test) == 6


# ---- several labels


def test_labels_are_read_from_names_numbers_declared_classes_and_columns(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, List

    texts = [f"text {i}" for i in range(6)]
    sets = [["tea"], ["rice", "tea"], [], ["rice"], ["oil"], ["oil", "tea"]]
    names = ["tea", "rice", "oil"]
    numbers = [[names.index(n) for n in each] for each in sets]
    rows = [{"text": t, "topics": s} for t, s in zip(texts, sets, strict=True)]
    by_name = make(SEVERAL, written(tmp_path / "a", rows)).load(seed=0)
    rows = [{"text": t, "labels": s} for t, s in zip(texts, numbers, strict=True)]
    by_number = make(SEVERAL, written(tmp_path / "b", rows)).load(seed=0)
    declared = Dataset.from_dict({"text": texts, "labels": numbers}).cast_column(
        "labels", List(ClassLabel(names=names))
    )
    DatasetDict(train=declared, validation=declared, test=declared).save_to_disk(tmp_path / "c")
    by_class = make(SEVERAL, tmp_path / "c").load(seed=0)
    rows = [{"text": t, **{n: n in s for n in names}} for t, s in zip(texts, sets, strict=True)]
    task = make(SEVERAL, written(tmp_path / "d", rows), label_columns=("tea", "rice", "oil"))
    by_column = task.load(seed=0)

    assert by_name.labels == ["oil", "rice", "tea"]
    assert by_number.labels == ["0", "1", "2"]
    assert by_class.labels == by_column.labels == names
    for data in (by_number, by_class, by_column):
        assert data.test["label"][:] == [sorted(each) for each in numbers]
    assert [[by_name.labels[k] for k in each] for each in by_name.test["label"]] == [
        sorted(each) for each in sets
    ]
    for data in (by_name, by_number, by_class, by_column):
        assert any("1 of 6 rows of the test split" in note for note in data.notes)
        assert data.chance == pytest.approx(2 * 7 / (3 * 6 + 7))  # all three to every row
    assert task.read(tmp_path / "d" / "test.jsonl", names)["label"][:] == by_column.test["label"][:]


SETS: Rows = [
    {"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": ["y"]},
    {"text": "c", "labels": ["z"]}, {"text": "d", "labels": []},
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"labels": None}, "row 4 of the test split of .* has no list of labels"),
        ({"labels": [" "]}, "row 4 of the test split of .* has no list of labels"),
        ({"labels": ["x", "new"]}, "row 4 of the test split of .* has a label that no training"),
    ],
)
def test_a_row_without_its_labels_is_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    path = written(tmp_path, SETS, test=[*SETS, {"text": "e", **row}])
    with pytest.raises(InvalidInput, match=words):
        make(SEVERAL, path).load(seed=0)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ([["x"], ["x"], []], "too few labels"),
        ([["x", "y"], ["y", "x"], ["x", "y"]], "has all labels"),
        ([[0, 1, 0], [1, 1, 0], [0, 0, 1]], "holds 0 and 1 for each label"),
        ([[0, 1], [1, 1], [1, 0]], "holds 0 and 1 for each label"),
        ([[0.5, 1.0], [0.5, 1.0], [0.5, 0.0]], "has no list of labels"),
        ([[], [], []], "too few labels"),
        (["x", "y", "x"], "holds no lists of labels"),
    ],
)
def test_labels_that_tell_nothing_apart_are_refused(
    tmp_path: Path, sets: list[Any], words: str
) -> None:
    rows = [{"text": str(i), "labels": each} for i, each in enumerate(sets)]
    with pytest.raises(InvalidInput, match=words):
        make(SEVERAL, written(tmp_path, rows), label_column="labels").load(seed=0)


def test_a_test_split_without_any_label_is_refused(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        sets = [row["labels"] if split != "test" else [] for row in SETS]
        columns = {"text": ["a", "b", "c", "d"], "labels": pa.array(sets, pa.list_(pa.string()))}
        pq.write_table(pa.table(columns), tmp_path / f"{split}.parquet")
    with pytest.raises(InvalidInput, match="no test row"):
        make(SEVERAL, tmp_path).load(seed=0)


@pytest.mark.parametrize("wrong", [2, -1, None, "yes"])
def test_columns_hold_0_and_1_only(tmp_path: Path, wrong: Any) -> None:
    rows: Rows = [{"text": str(i), "a": i % 2, "b": 1 - i % 2} for i in range(4)]
    odd = [*rows, {"text": "e", "a": wrong, "b": 0}]
    if isinstance(wrong, str):
        odd = [{**row, "a": str(row["a"])} for row in odd]
    path = written(tmp_path, rows, test=odd)
    with pytest.raises(InvalidInput, match=r"row \d of the t[a-z]* split .* neither 0 nor 1"):
        make(SEVERAL, path, label_columns=("a", "b")).load(seed=0)


def test_what_is_uncommon_in_labels_is_noted(tmp_path: Path) -> None:
    twice = [*SETS, {"text": "e", "labels": ["x", "x"]}]
    task = make(SEVERAL, written(tmp_path / "a", twice), size=2)
    notes = " ".join(task.load(seed=0).notes)
    rows: Rows = [{"text": str(i), "a": i % 2, "b": 1 - i % 2, "c": 0} for i in range(4)]
    columns = make(SEVERAL, written(tmp_path / "b", rows), label_columns=("a", "b", "c"))
    data = columns.load(seed=0)

    assert "1 rows of the train split" in notes
    assert "name a label twice" in notes
    assert "of the 2 drawn has the label" in notes
    assert data.labels == ["a", "b"]
    assert any("left out: c" in note for note in data.notes)


@pytest.mark.parametrize(
    "options",
    [{"label_column": "labels", "label_columns": ("a", "b")}, {"label_columns": ("a", "a")}],
)
def test_labels_stand_in_one_place(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="label_columns"):
        make(SEVERAL, Path("unused"), **options)


def test_the_loss_is_that_of_transformers(
    make_bench: Callable[..., Any], folders: dict[str, Path]
) -> None:
    for name, kind in ((NUMBER, "regression"), (SEVERAL, "multi_label_classification")):
        bench = make_bench("full", task={"name": name, "data": str(folders[name])})
        batch = bench.collate(bench.encode(bench.data.train)[:6])
        labels = batch.pop("labels")
        model = bench.backbone.model
        model.config.problem_type = kind
        with torch.no_grad():
            stock = model(**batch, labels=labels.float()).loss
            ours = bench.recipe.task.loss(bench.logits(model(**batch), batch), labels, bench.data)
        torch.testing.assert_close(ours, stock)
