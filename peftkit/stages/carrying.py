"""What one stage hands to the next, and how an earlier head reads a later body.

| carry | the next stage starts from |
|---|---|
| `full` | the whole model, as the stage saved it |
| `new_adapter` | the stage's adapter folded into the backbone; a new adapter is put on that |
| `same_adapter` | the stage's adapter on the bare backbone; training goes on with its weights |

A head is carried where the next data set has the very same classes; else it gets a new one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from peftkit.errors import InvalidInput, UnknownName, Unsupported
from peftkit.record import MANIFEST, write_atomically

if TYPE_CHECKING:
    from peftkit.recipe import Recipe
    from peftkit.saved import SavedRun

Carry = Literal["full", "new_adapter", "same_adapter"]
MERGED = "merged"
"""Folder in that of a stage: its adapter folded into the backbone, a backbone itself."""


def settle_carry(recipes: Sequence[Recipe], carry: str | None) -> Carry:
    """Return what stages hand on; without a wish, the first of the table that the methods can.

    Raises:
        UnknownName: There is no such way.
        InvalidInput: The recipes are no sequence.
        Unsupported: A method leaves nothing of that kind.
    """
    if carry is not None and carry not in get_args(Carry):
        raise UnknownName("way to carry a model on", carry, get_args(Carry))
    if len(recipes) < 2:
        raise InvalidInput(
            "a sequence has at least two stages",
            received=f"{len(recipes)} recipes",
            next_step="give one recipe a data set, or use `peftkit run`",
        )
    if len({recipe.backbone for recipe in recipes}) > 1:
        raise InvalidInput(
            "the stages of a sequence start from one backbone",
            received=", ".join(dict.fromkeys(recipe.backbone.name for recipe in recipes)),
            next_step="give every recipe the same backbone; later stages get the earlier's output",
        )
    reasons: dict[str, str] = {way: _obstacle(recipes, way) for way in get_args(Carry)}
    if carry is None:
        found: Carry | None = next((way for way in get_args(Carry) if not reasons[way]), None)
        if found is None:
            raise Unsupported("nothing can be carried on: " + "; ".join(set(reasons.values())))
        return found
    if reasons[carry]:
        possible = [way for way in get_args(Carry) if not reasons[way]]
        raise Unsupported(
            f"carry {carry}: {reasons[carry]}. Next: choose "
            + (" or ".join(possible) if possible else "another method, such as lora")
        )
    return carry  # type: ignore[return-value]


def _obstacle(recipes: Sequence[Recipe], carry: str) -> str:
    """Why these methods cannot be carried on in that way; empty if they can."""
    for number, recipe in enumerate(recipes, start=1):
        method, name = recipe.method, recipe.to_dict()["method"]["name"]
        trained = method.learning_rate is not None and method.rung not in ("head", "reference")
        whole = getattr(method, "adaptation", method).rung in ("full", "retrain")
        if not (trained and method.needs_backbone):
            return f"{name} leaves the backbone as it is"
        if number > 1 and not method.from_pretrained:
            return f"{name} forgets what stage {number - 1} has learned"
        if carry == "full" and not whole:
            return f"{name} leaves an adapter, no whole model"
        if carry != "full" and whole:
            return f"{name} leaves a whole model, no adapter"
        if carry == "new_adapter" and not method.mergeable:
            return f"{name} has no place in a backbone's weights, and adapters are not stacked"
        if carry == "same_adapter" and method.rung == "retrain":
            return f"{name} gives each stage a backbone of its own"
        if carry == "same_adapter" and not method.resumable:
            return f"{name} saves less than it trains"
        if carry == "same_adapter" and method != recipes[0].method:
            return "the stages have different methods, or other options"
    return ""


def backbone_after(folder: Path, carry: Carry) -> Path:
    """The folder that is the next stage's backbone; of `same_adapter`, that of the whole stage."""
    return folder / MERGED if carry == "new_adapter" else folder


def merge(folder: Path) -> None:
    """Fold the adapter of a stage into its backbone, and save that as a run of its own."""
    if (folder / MERGED).is_dir():
        return
    from peftkit.backbones import declare_pooling
    from peftkit.merging import fold
    from peftkit.saved import load_run

    predictor: Any = load_run(folder).predictor
    whole, backbone = fold(predictor.model), predictor.bench.backbone
    temporary = folder / f".{MERGED}"
    shutil.rmtree(temporary, ignore_errors=True)
    whole.save_pretrained(temporary)
    declare_pooling(temporary, backbone.pooling, whole.config)
    backbone.processor.save_pretrained(temporary)
    predictor.bench.recipe.task.save_beside(backbone, temporary)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["recipe"]["method"] = {"name": "full"}  # what the folder now holds: a whole model
    write_atomically(temporary / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    os.replace(temporary, folder / MERGED)


def as_left(folders: Sequence[Path], carry: Carry) -> SavedRun:
    """The first of some stages as the last of them left it: its task and head, the later body.

    Where all of them ask for the very same classes, the head is the later one too.
    """
    from peftkit.saved import load_run

    earlier, later = (load_run(backbone_after(f, carry)) for f in (folders[0], folders[-1]))
    lend_body(later, earlier, head_too=one_head(folders))
    return earlier


def one_head(folders: Sequence[Path]) -> bool:
    """Whether one head was carried through all these runs: all ask for the very same classes."""
    asked = []
    for folder in folders:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        asked.append((manifest["recipe"]["task"]["name"], manifest["labels"]))
    return bool(asked[0][1]) and all(one == asked[0] for one in asked)


def lend_body(later: SavedRun, earlier: SavedRun, *, head_too: bool) -> None:
    """Give `earlier` what `later` has learned, in place: all but the head, or the head too.

    Raises:
        Unsupported: The models are not made of the same layers.
    """
    import torch

    after: Any = later.predictor
    before: Any = earlier.predictor
    learned = dict(after.model.named_parameters())
    blocks = tuple(f".{block}." for block in before.bench.backbone.layers.blocks)
    with torch.no_grad():
        for name, own in before.model.named_parameters():
            if not head_too and (before.bench.in_head(name) or after.bench.in_head(name)):
                continue
            if name in learned and learned[name].shape == own.shape:
                own.copy_(learned[name])
            elif any(block in f".{name}" for block in blocks):
                raise Unsupported(
                    f"{type(before.model).__name__} of an earlier stage has {name}, a later one "
                    "has not. Next: give all stages one kind of task and one method."
                )
