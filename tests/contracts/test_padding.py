"""No answer depends on padding: on the right, on the left, or none.

peftkit pads on the right; who calls a trained model may pad on the left, with position ids that
count from the first token of each text or without (`peftkit/backbones/_padding.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cells import (
    ATTACHED,
    PROMPTS,
    Start,
    cells,
    close,
    differ,
    first_position,
    logits_of,
    perturb,
    rounding,
    short_and_long,
)

pytestmark = pytest.mark.usefixtures("libraries")
Batch = dict[str, torch.Tensor]


def on_the_left(batch: Batch) -> Batch:
    """The same texts with their padding before them; labels left out."""
    lengths = batch["attention_mask"].sum(1).tolist()
    return {
        name: torch.stack([row.roll(-n) for row, n in zip(tensor, lengths, strict=True)])
        for name, tensor in batch.items()
        if name != "labels"
    }


def positions(model: Any, mask: torch.Tensor) -> torch.Tensor:
    """What transformers expects a caller to say: the number of each token within its text."""
    return (mask.cumsum(1) - 1).clamp(min=0) + first_position(model)


def answers(begun: Start, batch: Batch) -> list[torch.Tensor]:
    """Logits of each text: one vector, or one for each of its tokens."""
    found = logits_of(begun.model, batch, begun.bench)
    if found.ndim < 3:
        return list(found)
    return [row[m] for row, m in zip(found, batch["attention_mask"].bool(), strict=True)]


def all_close(some: list[torch.Tensor], others: list[torch.Tensor], family: str = "") -> bool:
    tolerance = 1e-5 * rounding(family)
    return all(close(a, b, tolerance) for a, b in zip(some, others, strict=True))


@cells(ATTACHED)
def test_padding_changes_no_answer(
    fresh: Callable[..., Start], method: str, family: str, task: str
) -> None:
    begun = fresh(method, family, task)
    perturb(begun)
    texts = short_and_long(begun.bench)
    right = begun.bench.collate(texts)
    left = on_the_left(right)
    alone = [answers(begun, begun.bench.collate([text]))[0] for text in texts]
    placed = {**left, "position_ids": positions(begun.bench.backbone.model, left["attention_mask"])}

    assert 3 * left["attention_mask"][0].sum() < 2 * left["attention_mask"][1].sum()
    assert left["attention_mask"][0, 0] == 0
    assert all_close(answers(begun, right), alone, family)
    assert all_close(answers(begun, left), alone, family)
    if method not in PROMPTS:  # PEFT takes no position ids beside virtual tokens, and says so
        assert all_close(answers(begun, placed), alone, family)


@pytest.mark.parametrize("method", ["lora", "prefix_tuning", "prompt_tuning"])
@pytest.mark.parametrize(
    ("family", "pooling"),
    [("bert", "first"), *((f, p) for f in ("bert", "gpt2", "llama") for p in ("last", "mean"))],
)
def test_whatever_a_head_reads_is_read_of_the_text(
    make_bench: Callable[..., Any], family: str, method: str, pooling: str
) -> None:
    bench = make_bench(method, {"name": f"twin:{family}", "pooling": pooling})
    begun = Start(bench, bench.attach(bench.recipe.method), {}, torch.empty(0))
    perturb(begun)
    texts = short_and_long(bench)
    right = bench.collate(texts)
    alone = [answers(begun, bench.collate([text]))[0] for text in texts]

    assert all_close(answers(begun, right), alone)
    assert all_close(answers(begun, on_the_left(right)), alone)
    assert differ(alone[0], alone[1])


@pytest.mark.parametrize("method", ["full", "lora", "p_tuning"])
@pytest.mark.parametrize("task", ["text_classification", "token_classification"])
def test_a_reloaded_model_may_be_given_left_padding_too(
    bench_of: Callable[..., Any], method: str, task: str
) -> None:
    bench, again = (bench_of(method, "bert", task, learning_rate=0.02) for _ in range(2))
    bench.recipe.method.fit(bench).save(bench.folder)
    model = again.recipe.method.reload(again, bench.folder).model
    begun = Start(again, model, {}, torch.empty(0))
    right = again.collate(short_and_long(again))

    assert all_close(answers(begun, on_the_left(right)), answers(begun, right))
