"""Every method sees what `full` sees: hidden states, mask and positions at the first block.

Methods that put nothing before the text see exactly the same. Those that do (virtual tokens on the
way in, or keys and values at every block) shift the positions of the text by their number: they see
what `full` sees if it is told positions that start that much later, every token of a text may
attend to all that stands before it, and to the text as in `full`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cells import ATTACHED, CLASSIFIERS, PROMPTS, cells, first_position, short_and_long

pytestmark = pytest.mark.usefixtures("libraries")
OTHERS = tuple(method for method in ATTACHED if method != "full")


@dataclasses.dataclass
class Seen:
    """What reached the first block; `(batch, seq, hidden)`, `(batch, 1, seq, keys)`, the rest."""

    hidden: torch.Tensor
    allowed: torch.Tensor
    rotation: torch.Tensor | None  # (2, 1, seq, width): cosines and sines of rotary positions
    distances: torch.Tensor | None  # (1, seq, seq): DeBERTa's

    def behind(self, before: int) -> Seen:
        """The part that belongs to the text, if so many virtual tokens stand before it."""
        return Seen(
            self.hidden[:, before:],
            self.allowed[:, :, before:],
            None if self.rotation is None else self.rotation[:, :, before:],
            None if self.distances is None else self.distances[:, before:, before:],
        )


def seen_by(model: Any, bench: Any, **changes: Any) -> Seen:
    """Run a padded batch through `model`, dropout off, and keep what its first block receives."""
    name = bench.backbone.layers.blocks[0]
    block = next(module for n, module in model.named_modules() if n.endswith(name))
    caught: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = block.register_forward_pre_hook(
        lambda module, args, kwargs: caught.append((args, kwargs)), with_kwargs=True
    )
    batch = {**bench.collate(short_and_long(bench)), **changes}
    del batch["labels"]
    with torch.inference_mode():
        model.eval()(**batch)
    hook.remove()
    args, kwargs = caught[0]  # ALBERT's block is run again and again
    tensors = [a for a in (*args, kwargs.get("attention_mask")) if isinstance(a, torch.Tensor)]
    hidden, mask = tensors[0], next(t for t in tensors if t.ndim == 4)
    rotation = kwargs.get("position_embeddings")
    return Seen(
        hidden,
        mask >= 0 if mask.is_floating_point() and mask.min() < 0 else mask != 0,
        None if rotation is None else torch.stack(rotation),
        kwargs.get("relative_pos"),
    )


def same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))


@cells(OTHERS)
def test_every_method_sees_what_full_sees(
    bench_of: Callable[..., Any], method: str, family: str, task: str
) -> None:
    bench, reference = bench_of(method, family, task), bench_of("full", family, task)
    full = reference.attach(reference.recipe.method)
    model = bench.attach(bench.recipe.method)
    if not bench.recipe.method.from_pretrained:  # then only the weights may differ
        model.load_state_dict(full.state_dict())
    before = bench.virtual_tokens
    found = seen_by(model, bench)
    if not before:
        expected = seen_by(full, reference)
        for field in dataclasses.fields(Seen):
            assert same(getattr(found, field.name), getattr(expected, field.name)), field.name
        return
    length = max(len(e["input_ids"]) for e in short_and_long(reference))
    shifted = torch.arange(length)[None] + before + first_position(full)
    expected = seen_by(full, reference, position_ids=shifted)
    if method in PROMPTS:
        found = found.behind(before)
    mask = reference.collate(short_and_long(reference))["attention_mask"].bool()
    to_text, to_virtual = found.allowed[..., before:], found.allowed[..., :before]

    torch.testing.assert_close(found.hidden[mask], expected.hidden[mask], rtol=0, atol=1e-6)
    assert bool(to_virtual.transpose(1, 2)[mask].all())
    assert torch.equal(to_text.transpose(1, 2)[mask], expected.allowed.transpose(1, 2)[mask])
    assert same(found.rotation, expected.rotation)
    assert same(found.distances, expected.distances)


def test_positions_and_types_are_part_of_what_is_compared(bench_of: Callable[..., Any]) -> None:
    """Else the contract would be empty: each of them changes what the first block receives."""
    typed, placed = set(), set()
    for family in CLASSIFIERS:
        bench = bench_of("full", family)
        model = bench.attach(bench.recipe.method)
        seen = seen_by(model, bench)
        length = seen.hidden.shape[1]
        places = torch.arange(length)[None] + 5 + first_position(model)
        moved = seen_by(model, bench, position_ids=places)
        if not same(seen.hidden, moved.hidden) or not same(seen.rotation, moved.rotation):
            placed.add(family)
        batch = bench.collate(short_and_long(bench))
        if "token_type_ids" in batch:
            none = torch.zeros_like(batch["token_type_ids"])
            assert not same(seen.hidden, seen_by(model, bench, token_type_ids=none).hidden)
            typed.add(family)

    assert typed >= {"albert", "bert", "electra", "roberta"}
    assert placed >= set(CLASSIFIERS) - {"bart", "deberta_v2", "t5"}  # which count by themselves
