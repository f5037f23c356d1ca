"""Answers written token by token, in batches of prompts of like length.

Nothing but the tokens is kept. Encoder-decoders read prompts padded on the right. Decoders read
them padded on the left, except behind virtual tokens: PEFT puts these before the padding and counts
positions through it, so prompts are batched by equal length instead, and need none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from peftkit.device import device
from peftkit.evaluate import autocast, length_batches

if TYPE_CHECKING:
    from peftkit.tasks import Progress

MOST_ROWS = 64  # sequences written side by side


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    pad: int,
    options: dict[str, Any],
    precision: str = "auto",
    progress: Progress | None = None,
) -> list[list[int]]:
    """Write an answer to each prompt.

    Args:
        model: A transformers model that can `generate`, or a `PeftModel` around one.
        prompts: Token ids, unpadded.
        pad: Id of the padding token.
        options: For transformers' `generate`; `max_new_tokens` among them.
        precision: As `Training.precision`.
        progress: Told of rows done.

    Returns:
        Token ids of each answer, without its prompt, up to `max_new_tokens`.
    """
    prompt_config = getattr(model, "active_peft_config", None)
    virtual = prompt_config is not None and prompt_config.is_prompt_learning
    encoder_decoder = model.config.is_encoder_decoder
    model.eval()
    found: dict[int, list[int]] = {}
    batches = _batches([len(p) for p in prompts], equal=virtual and not encoder_decoder)
    with torch.inference_mode(), autocast(precision), warnings.catch_warnings():
        # PEFT drops the positions that are counted; without padding they are the usual ones.
        warnings.filterwarnings("ignore", "Position ids are not supported")
        for batch in batches:
            inputs = _padded([prompts[i] for i in batch], pad, left=not encoder_decoder)
            written = model.generate(**inputs, do_sample=False, use_cache=True, **options)
            if not encoder_decoder:
                written = written[:, inputs["input_ids"].shape[1] :]
            found.update(zip(batch, written.tolist(), strict=True))
            if progress:
                progress(len(found), len(prompts), "write")
    return [found[i] for i in range(len(prompts))]


def _batches(lengths: Sequence[int], *, equal: bool) -> Iterator[list[int]]:
    for batch in length_batches(lengths):
        for some in _groups(batch, lambda i: lengths[i]) if equal else [batch]:
            yield from (some[s : s + MOST_ROWS] for s in range(0, len(some), MOST_ROWS))


def _groups(items: Sequence[int], key: Callable[[int], int]) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())


def _padded(prompts: Sequence[Sequence[int]], pad: int, *, left: bool) -> dict[str, torch.Tensor]:
    longest = max(len(p) for p in prompts)
    ids, mask = [], []
    for prompt in prompts:
        fill = longest - len(prompt)
        before, after = (fill, 0) if left else (0, fill)
        ids.append([pad] * before + list(prompt) + [pad] * after)
        mask.append([0] * before + [1] * len(prompt) + [0] * after)
    return {
        "input_ids": torch.tensor(ids, device=device()),
        "attention_mask": torch.tensor(mask, device=device()),
    }
