"""Tasks whose answers are written: rows, what the model reads, what is measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftkit import Recipe, merge_run, parts, run
from peftkit.backbones import Head, load, locate
from peftkit.errors import InvalidInput, Unsupported
from peftkit.evaluate import IGNORED
from peftkit.saved import load_run
from peftkit.settings import Backbone
from peftkit.tasks import Task
from peftkit.tasks._written import WrittenTask

WRITTEN = tuple(
    name for name in parts.find("task") if issubclass(parts.load("task", name), WrittenTask)
)
ROWS = [
    {"source": "the list of names", "target": "names list"},
    {"source": "plot the data", "target": "data plot"},
    {"source": "a row of the table", "target": "table row"},
    {"source": "type of the file", "target": "file type"},
]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "validation", "test"):
        write_rows(tmp_path / f"{split}.jsonl", ROWS)
    return tmp_path


def make(name: str, data: Path, **options: Any) -> Task:
    named = {"source_column": "source", "target_column": "target"}
    return parts.load("task", name)(data=str(data), **{**named, **options})


def backbone(name: str) -> Any:
    settings = Backbone(name=name)
    classes = ("AutoModelForSeq2SeqLM", "AutoModelForCausalLM")
    head = Head(auto_classes=classes, labels=[], reads="token")
    return load(settings, locate(settings), head, seed=0)


def test_the_known_ones_are_found() -> None:
    assert {"data_to_text", "pronunciation", "summarization", "translation"} <= set(WRITTEN)


# ---- what is measured


def test_notes_say_how_it_was_measured_and_what_needs_no_model(folder: Path) -> None:
    translation, summary = (
        make(name, folder).load(seed=0).notes for name in ("translation", "summarization")
    )

    assert any("tok:13a" in note for note in translation)
    assert any("METEOR" in note for note in translation)
    assert any("lead-3" in note for note in summary)


# ---- rows


def test_each_reference_is_a_training_row_and_test_rows_keep_all(tmp_path: Path) -> None:
    rows = [{"mr": "name[x]", "refs": ["x is here", "here is x"]}, {"mr": "name[y]", "refs": ["y"]}]
    for split in ("train", "validation", "test"):
        write_rows(tmp_path / f"{split}.jsonl", rows)
    data = parts.load("task", "data_to_text")(data=str(tmp_path)).load(seed=0)

    assert data.train["targets"][:] == [["x is here"], ["here is x"], ["y"]]
    assert data.train["text"][:] == ["name[x]", "name[x]", "name[y]"]
    assert data.test["targets"][:] == [["x is here", "here is x"], ["y"]]


def test_the_hubs_column_of_translations_is_read(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        write_rows(
            tmp_path / f"{split}.jsonl",
            [{"translation": {"en": "tea", "de": "Tee"}}, {"translation": {"en": "a", "de": "b"}}],
        )
    data = make("translation", tmp_path, source_column="en", target_column="de").load(seed=0)

    assert data.test["text"][:] == ["tea", "a"]
    assert data.test["targets"][:] == [["Tee"], ["b"]]
    (tmp_path / "more.jsonl").write_text('{"id": 1, "translation": {"en": "tea", "id": "teh"}}\n')
    task = make("translation", tmp_path, source_column="en", target_column="id")  # Indonesian
    assert task.read(tmp_path / "more.jsonl", [])["targets"][:] == [["teh"]]


@pytest.mark.parametrize(
    ("row", "column"),
    [({"source": " ", "target": "a"}, "source"), ({"source": "a", "target": ""}, "target"),
     ({"source": "a", "target": None}, "target")],
)  # fmt: skip
def test_an_empty_side_is_refused_by_row_and_column(
    folder: Path, row: dict[str, Any], column: str
) -> None:
    write_rows(folder / "test.jsonl", [*ROWS, row])
    with pytest.raises(InvalidInput, match=f"row 4 of the test split .* column '{column}'"):
        make("translation", folder).load(seed=0)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        write_rows(tmp_path / f"{split}.jsonl", [{"word": "a", "spoken": "b"}])
    with pytest.raises(InvalidInput, match="none of the usual columns") as caught:
        parts.load("task", "pronunciation")(data=str(tmp_path)).load(seed=0)

    assert "target-column" in str(caught.value)


def test_a_prompt_without_a_place_for_the_source_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="no place for the source"):
        make("translation", folder, prompt="translate:")


def test_letters_that_rouge_does_not_read_are_noted(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        rows = [{"source": "кошка", "target": "кот"}, {"source": "a", "target": "b"}]
        write_rows(tmp_path / f"{split}.jsonl", rows)
    notes = make("summarization", tmp_path).load(seed=0).notes

    assert any(note.startswith("1 of 2 references have no letter from a to z") for note in notes)


@pytest.mark.parametrize(
    ("predicted", "true", "rate"), [("ti", "tu", 1 / 2), ("CH IY Z", "SH IY Z", 1 / 3)]
)
def test_phonemes_are_letters_or_what_spaces_part(predicted: str, true: str, rate: float) -> None:
    task = parts.load("task", "pronunciation")(data="unused")

    assert task.measure([predicted], [[true]])[1]["phoneme_error_rate"] == pytest.approx(rate)


# ---- what the model reads


@pytest.mark.parametrize("name", ["twin:gpt2", "twin:t5"])
def test_of_a_long_row_the_source_is_cut_and_not_the_prompt(name: str, folder: Path) -> None:
    bench = backbone(name)
    task = make("translation", folder, max_new_tokens=8, prompt="list {source} of the type")
    rows = task.rows(["name " * 90, "name"])
    examples = task.encode(rows, bench, 40)
    long, short = (e["input_ids"][: e.get("_prompt")] for e in examples)
    room = 40 - task.max_new_tokens if "_prompt" in examples[0] else 40

    assert len(long) == room
    assert long[-4:] == short[-4:]
    assert long[:3] == short[:3]


def test_a_decoder_learns_the_target_alone_each_label_a_token_ahead(folder: Path) -> None:
    task, bench = make("translation", folder, max_new_tokens=8), backbone("twin:gpt2")
    rows = task.load(seed=0).test
    example = task.encode(rows, bench, 64)[0]
    n, ids, tokenizer = example["_prompt"], example["input_ids"], bench.processor
    prompt = tokenizer("the list of names\n")["input_ids"]
    target = [
        *tokenizer("names list", add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]

    assert ids == prompt + target
    assert example["labels"] == [IGNORED] * (n - 1) + target + [IGNORED]
    assert [label for label in example["labels"][:-1] if label != IGNORED] == ids[n:]


@pytest.mark.parametrize("name", ["twin:t5", "twin:bart", "twin:marian"])
def test_an_encoder_decoder_is_taught_as_transformers_does(name: str, folder: Path) -> None:
    """Our loss equals the one that the model computes itself when it is given the labels."""
    import torch

    task, bench = make("translation", folder), backbone(name)
    rows = task.load(seed=0).test
    batch = task.collate(bench)(task.encode(rows, bench, 64))
    with torch.no_grad():
        labels = batch.pop("labels")
        ours = task.loss(bench.model(**batch).logits, labels, None)  # type: ignore[arg-type]
        del batch["decoder_input_ids"]
        stock = bench.model(**batch, labels=labels).loss

    assert float(ours) == pytest.approx(float(stock), rel=1e-6)


def test_a_decoder_is_taught_as_transformers_does(folder: Path) -> None:
    import torch

    task, bench = make("translation", folder, max_new_tokens=8), backbone("twin:llama")
    batch = task.collate(bench)(task.encode(task.load(seed=0).test, bench, 64))
    labels = batch.pop("labels")
    unshifted = torch.full_like(labels, IGNORED)
    unshifted[:, 1:] = labels[:, :-1]
    with torch.no_grad():
        ours = task.loss(bench.model(**batch).logits, labels, None)  # type: ignore[arg-type]
        stock = bench.model(**batch, labels=unshifted).loss

    assert float(ours) == pytest.approx(float(stock), rel=1e-6)


def test_a_long_target_is_cut_and_a_crowded_prompt_refused(folder: Path) -> None:
    task, bench = make("translation", folder, max_new_tokens=3), backbone("twin:gpt2")
    rows = task.rows(["the list of names"])
    long = rows.map(lambda row: {"targets": ["data " * 50]})
    labels = [t for t in task.encode(long, bench, 64)[0]["labels"] if t != IGNORED]

    assert len(labels) == 3
    assert labels[-1] == bench.processor.eos_token_id
    with pytest.raises(InvalidInput, match="no room for the source"):
        task.encode(rows, bench, 10)


def test_an_encoder_cannot_write(make_bench: Callable[..., Any], folder: Path) -> None:
    bench = make_bench(
        "lora", "twin:bert",
        task={"name": "translation", "data": str(folder), "source_column": "source"},
    )  # fmt: skip
    with pytest.raises(Unsupported, match="no head for this task on bert"):
        bench.recipe.method.fit(bench)


# ---- from end to end


def test_a_run_is_saved_and_answers_again(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        backbone="twin:t5", method="lora",
        task={"name": "translation", "data": str(folder), "max_new_tokens": 6},
        training={"steps": 3, "batch_size": 2},
    )  # fmt: skip
    record = run(recipe, tmp_path / "out")
    saved = load_run(tmp_path / "out")
    answers = saved.predict(["plot the data"])

    assert record.predictions["predicted"][1] == answers[0]["answer"]
    assert saved.evaluate(folder / "test.jsonl")["bleu"] == record.metrics["test"]["bleu"]
    assert record.costs["head_parameters"] == 0
    assert record.costs["inference_slowdown"] > 0
    assert np.isfinite(record.costs["train_flops_per_example"])


def test_a_target_tokenizer_in_the_folder_of_the_backbone_goes_with_a_merge(
    folder: Path, tmp_path: Path
) -> None:
    """The merged folder writes without the backbone's."""
    twin = backbone("twin:t5")
    own = tmp_path / "own"
    shutil.copytree(twin.location.folder, own)
    twin.processor.save_pretrained(own / "target")
    recipe = Recipe(
        backbone=str(own), method="lora",
        task={"name": "translation", "data": str(folder), "max_new_tokens": 6,
              "target_tokenizer": "target"},
        training={"steps": 3, "batch_size": 2, "precision": "float32"},
    )  # fmt: skip
    run(recipe, tmp_path / "run")
    merge_run(tmp_path / "run", out=tmp_path / "merged")
    before = load_run(tmp_path / "run").predict(["plot the data"])
    shutil.rmtree(own)

    assert load_run(tmp_path / "merged").predict(["plot the data"]) == before


def test_american_pronunciations_are_known(shared: Path) -> None:
    """Real weights: two thirds of the words exactly, by the README of the backbone."""
    import pandas

    there = shared / "backbones" / "bart-g2p-en-us"
    rows = pandas.read_parquet(shared / "data" / "g2p_gb" / "test.parquet").dropna()[:100]
    task = parts.load("task", "pronunciation")(
        data="unused", target_tokenizer="phoneme_tokenizer", target_column="phonemes_us"
    )
    from datasets import Dataset

    pairs = {"text": list(rows.word), "targets": [[each] for each in rows.phonemes_us]}
    asked = Dataset.from_dict(pairs)
    loaded = backbone(str(there))
    _, metrics = task.score(task.write(loaded.model, task.encode(asked, loaded, 64), loaded), asked)

    assert 0.55 < metrics["exact_match"] < 0.8
    assert metrics["phoneme_error_rate"] < 0.15
