"""Evaluation: one output a row, in the rows' order, whatever the batches were."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from peftkit.evaluate import BATCH_TOKENS, collate_padded, length_batches, outputs

pytestmark = pytest.mark.usefixtures("libraries")
MOST = BATCH_TOKENS["cpu"]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peftkit.evaluate.device", lambda: "cpu")


def test_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = random.Random(2).choices(range(1, 600), k=400)
    batches = list(length_batches(lengths))

    assert sorted(i for batch in batches for i in batch) == list(range(400))
    assert all(len(b) * max(lengths[i] for i in b) <= MOST for b in batches)
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(lengths, reverse=True)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * lengths[batch[0]] > MOST


def test_a_text_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    assert list(length_batches([5, MOST + 1, 5])) == [[1], [0, 2]]


def test_padding_is_the_padding_token_unattended() -> None:
    collate = collate_padded(SimpleNamespace(pad_token_id=9))  # type: ignore[arg-type]
    batch = collate([
        {"input_ids": [1, 2], "attention_mask": [1, 1], "token_type_ids": [0, 1], "labels": 4},
        {"input_ids": [3], "attention_mask": [1], "token_type_ids": [1], "labels": 5},
    ])  # fmt: skip

    assert batch["input_ids"].tolist() == [[1, 2], [3, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 1], [1, 0]]
    assert batch["labels"].tolist() == [4, 5]


@pytest.fixture(scope="module")
def bench(make_bench: Callable[..., Any]) -> Any:
    return make_bench("full")


def evaluate(bench: Any, **options: Any) -> np.ndarray:
    found = outputs(
        bench.backbone.model, bench.encode(bench.data.train), bench.collate,
        read=lambda output, *_: output.logits, **{"precision": "float32", **options},
    )  # fmt: skip
    return np.stack(found)


def test_outputs_are_those_of_each_row_alone_in_order(bench: Any) -> None:
    found = evaluate(bench)
    alone = []
    with torch.no_grad():
        for example in bench.encode(bench.data.train):
            batch = bench.collate([example])
            del batch["labels"]
            alone.append(bench.backbone.model.eval()(**batch).logits[0].numpy())

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack(alone), atol=1e-5)
    assert np.unique(found.round(5), axis=0).shape[0] > len(found) // 2


def test_evaluating_draws_nothing_and_leaves_no_gradients(bench: Any) -> None:
    bench.backbone.model.train()
    before = torch.get_rng_state()
    first, second = evaluate(bench), evaluate(bench)

    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first, second)  # dropout is off
    assert not bench.backbone.model.training
    assert all(p.grad is None for p in bench.backbone.model.parameters())


def test_evaluation_computes_in_the_number_format_of_training(bench: Any) -> None:
    dtypes = []
    layer = bench.backbone.model.bert.encoder.layer[0].output.dense
    hook = layer.register_forward_hook(lambda *args: dtypes.append(args[2].dtype))
    coarse = evaluate(bench, precision="bfloat16")
    hook.remove()
    exact = evaluate(bench)

    assert set(dtypes) == {torch.bfloat16}
    assert coarse.dtype == np.float32
    assert 0 < np.abs(coarse - exact).max() < 0.05 * np.abs(exact).max() + 0.05


def test_progress_counts_rows_up_to_the_last(bench: Any) -> None:
    told: list[tuple[int, int, str]] = []
    evaluate(bench, progress=lambda *step: told.append(step))

    assert told[-1] == (42, 42, "evaluate")
    assert [step[0] for step in told] == sorted(step[0] for step in told)
