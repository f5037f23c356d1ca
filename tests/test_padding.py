"""Padding moved behind the text: what passes as it is, and what comes back in the old order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from peftkit.backbones._padding import move_padding_behind

pytestmark = pytest.mark.usefixtures("libraries")
IDS = torch.tensor([[5, 6, 7, 0], [8, 9, 5, 6]])
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])


def received(model: Any, **inputs: torch.Tensor) -> tuple[dict[str, Any], Any]:
    """What reaches the forward of the backbone, and what the model answers."""
    seen: dict[str, Any] = {}
    backbone = getattr(model, model.base_model_prefix)

    def note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.update({**dict(zip(["input_ids"], args, strict=False)), **kwargs})

    hook = backbone.register_forward_pre_hook(note, with_kwargs=True)
    with torch.inference_mode():
        output = model.eval()(**inputs)
    hook.remove()
    return seen, output


def test_a_batch_padded_on_the_right_passes_as_it_is(make_bench: Callable[..., Any]) -> None:
    model = make_bench("full", "twin:llama").backbone.model
    for mask in (MASK, torch.ones_like(MASK)):
        seen, _ = received(model, input_ids=IDS, attention_mask=mask)
        assert seen["input_ids"] is IDS
        assert seen["attention_mask"] is mask
    seen, _ = received(model, input_ids=IDS)
    assert seen["input_ids"] is IDS


def test_tokens_masks_and_positions_move_together(make_bench: Callable[..., Any]) -> None:
    model = make_bench("full", "twin:llama").backbone.model
    left, mask = IDS.roll(1, 1), MASK.clone()
    mask[0] = MASK[0].roll(1)
    left[1] = IDS[1]
    places = torch.tensor([[9, 0, 1, 2], [0, 1, 2, 3]])
    seen, _ = received(model, input_ids=left, attention_mask=mask, position_ids=places)

    assert seen["input_ids"].tolist() == IDS.tolist()
    assert seen["attention_mask"].tolist() == MASK.tolist()
    assert seen["position_ids"].tolist() == [[0, 1, 2, 9], [0, 1, 2, 3]]
    one_row = torch.tensor([[0, 1, 2, 3]])  # broadcast by transformers
    seen, _ = received(model, input_ids=left, attention_mask=mask, position_ids=one_row)
    assert seen["position_ids"].tolist() == [[1, 2, 3, 0], [0, 1, 2, 3]]


def test_hidden_states_come_back_where_the_caller_has_the_tokens(
    make_bench: Callable[..., Any],
) -> None:
    model = make_bench("full", "twin:bert").backbone.model
    left, mask = IDS[:1].roll(1, 1), MASK[:1].roll(1, 1)
    _, right = received(
        model, input_ids=IDS[:1], attention_mask=MASK[:1], output_hidden_states=True
    )
    _, turned = received(model, input_ids=left, attention_mask=mask, output_hidden_states=True)

    assert len(right.hidden_states) == 3
    for expected, found in zip(right.hidden_states, turned.hidden_states, strict=True):
        torch.testing.assert_close(found[:, 1:], expected[:, :3])


def test_models_that_generate_are_left_alone() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=11))
    move_padding_behind(model, restore=True)

    assert not any(module._forward_pre_hooks for module in model.modules())
