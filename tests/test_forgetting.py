"""Forgetting of language models: loss on neutral text, against the bare backbone's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from peftkit import Recipe, run
from peftkit.backbones._twin import twin_folder
from peftkit.errors import InvalidInput
from peftkit.evaluate import IGNORED
from peftkit.forgetting import BLOCKS, Forgetting
from peftkit.record import Record
from peftkit.reporting.summary import summarise
from peftkit.reporting.tables import to_csv, to_markdown
from peftkit.saved import load_run

TEXTS = ["return the list of names and the type of data", "plot the data", "a row of the table"]
NEUTRAL = ["how can i pay the bank", "where is my money", "can you help me please"]


def write(path: Path, texts: list[str]) -> Path:
    lines = [json.dumps({"text": text}) for text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("text")
    for split in ("train", "validation", "test"):
        write(here / f"{split}.jsonl", TEXTS)
    return here


@pytest.fixture(scope="module")
def neutral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("neutral") / "neutral.jsonl", NEUTRAL)


@pytest.fixture(scope="module")
def ran(
    libraries: None, folder: Path, neutral: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Record, Path]]:
    def make(method: Any, backbone: str = "twin:gpt2", **task: Any) -> tuple[Record, Path]:
        out = tmp_path_factory.mktemp("run")
        recipe = Recipe(
            backbone=backbone, method=method, seed=1,
            task={"name": "language_modeling", "data": str(folder), "max_length": 32,
                  "neutral_text": str(neutral), **task},
            training={"steps": 4, "batch_size": 2, "precision": "float32",
                      **({} if method == "none" else {"learning_rate": 0.02})},
        )  # fmt: skip
        return run(recipe, out), out

    return make


def loss_by_hand(model: Any, tokenizer: Any) -> float:
    """transformers' own loss, text by text, nats a token; the first token is never predicted."""
    nats, tokens = 0.0, 0
    for text in NEUTRAL:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        labels = ids.clone()
        labels[0, 0] = IGNORED
        with torch.no_grad():
            loss = model(input_ids=ids, labels=labels).loss
        nats, tokens = nats + float(loss) * (ids.shape[1] - 1), tokens + ids.shape[1] - 1
    return nats / tokens


def bare_by_hand(family: str) -> float:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = twin_folder(family)
    model = AutoModelForCausalLM.from_pretrained(where).eval()
    return loss_by_hand(model, AutoTokenizer.from_pretrained(where))


@pytest.mark.parametrize("method", ["full", "lora", "prompt_tuning", "prefix_tuning", "scratch"])
def test_it_is_the_loss_afterwards_minus_that_of_the_bare_backbone(
    ran: Callable[..., tuple[Record, Path]], method: str
) -> None:
    record, out = ran(method)
    costs = record.costs
    bare = bare_by_hand("gpt2")
    run_again = load_run(out)
    model: Any = run_again.predictor
    after = loss_by_hand(model.model, model.bench.backbone.processor)

    assert costs["neutral_nats"] - costs["forgetting_nats"] == pytest.approx(bare, rel=1e-5)
    assert costs["neutral_nats"] == pytest.approx(after, rel=1e-5)
    assert abs(costs["forgetting_nats"]) > 1e-3
    assert "neutral.jsonl" in record.data["neutral_text"]


def test_without_training_nothing_is_forgotten(ran: Callable[..., tuple[Record, Path]]) -> None:
    record, _ = ran("none")

    assert record.costs["forgetting_nats"] == 0.0
    assert record.costs["neutral_nats"] == pytest.approx(bare_by_hand("gpt2"), rel=1e-5)


def test_by_default_the_text_is_the_same_for_every_method_and_of_some_length(
    make_bench: Callable[..., Any], folder: Path
) -> None:
    task = {"name": "language_modeling", "data": str(folder)}
    begun = [
        Forgetting.begin(make_bench(method, "twin:llama", task=task))
        for method in ("lora", "prompt_tuning", "scratch")
    ]

    assert len(begun[0].examples) == BLOCKS
    assert sum(len(example["input_ids"]) for example in begun[0].examples) > 1000
    assert "language reference of Python" in begun[0].text["neutral_text"]
    for other in begun[1:]:
        assert other.examples == begun[0].examples
        assert other.bare_nats == begun[0].bare_nats


def test_encoders_are_measured_on_masked_tokens(
    ran: Callable[..., tuple[Record, Path]], tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    twin = twin_folder("bert")
    AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(twin)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(twin).save_pretrained(tmp_path)

    assert ran("none", str(tmp_path))[0].costs["forgetting_nats"] == 0.0
    assert ran("lora", str(tmp_path))[0].costs["forgetting_nats"] != 0.0


@pytest.mark.parametrize("backbone", ["twin:bert", "twin:bart"])
def test_other_tasks_and_encoder_decoders_have_none(
    make_bench: Callable[..., Any], tmp_path: Path, backbone: str
) -> None:
    task = None
    if backbone == "twin:bart":
        (tmp_path / "pairs.csv").write_text("source,target\n" + "a list,list a\n" * 30)
        task = {"name": "pronunciation", "data": str(tmp_path / "pairs.csv"),
                "source_column": "source", "target_column": "target"}  # fmt: skip
    begun = Forgetting.begin(make_bench("full", backbone, task=task))

    assert begun.text == {}
    assert begun.costs(None) == {}  # type: ignore[arg-type]


def test_a_prompt_that_leaves_no_room_says_so(ran: Callable[..., tuple[Record, Path]]) -> None:
    method = {"name": "prompt_tuning", "num_tokens": 90}
    record, _ = ran(method, neutral_text=None)

    assert "forgetting_nats" not in record.costs
    assert any("no room for a block" in note for note in record.notes)


def test_a_neutral_text_that_cannot_be_read_is_refused_before_training(
    ran: Callable[..., tuple[Record, Path]],
) -> None:
    with pytest.raises(InvalidInput, match=r"no_such\.jsonl"):
        ran("lora", neutral_text="./no_such.jsonl")


def test_tables_have_a_column_for_it(ran: Callable[..., tuple[Record, Path]]) -> None:
    records = [ran(method)[0] for method in ("none", "lora")]
    tables = summarise(records)
    text = to_markdown(tables)

    assert "forgetting, nats" in text
    assert "+0.000" in text
    assert f"{records[1].costs['forgetting_nats']:+.3f}" in text
    assert "forgetting is the change in loss on" in text
    assert "forgetting_nats_mean" in to_csv(tables)
