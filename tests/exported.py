"""Finished runs to export: each kind of task on a backbone of one block, weights that matter.

A run here is a method attached to a backbone, every trained tensor perturbed, and saved as
`peftkit.run` does it: what is exported does not depend on how the weights were found.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toys import asked_rows, prompted_rows, tagged_rows, toy_rows, write_csv, write_lines

Trained = Callable[..., Path]
KINDS: dict[str, tuple[str, str]] = {
    "classifier": ("text_classification", "bert"),
    "tagger": ("token_classification", "bert"),
    "answerer": ("question_answering", "bert"),
    "decoder": ("instruction", "llama"),
}
OPTIONS: dict[str, dict[str, Any]] = {"decoder": {"max_new_tokens": 6, "max_length": 32}}
COUNTS = {"train": 12, "validation": 12, "test": 12}
ROWS: dict[str, Any] = {"tagger": tagged_rows, "answerer": asked_rows, "decoder": prompted_rows}


@functools.cache
def one_block(family: str, folder: Path) -> str:
    """A twin of one block: it is traced in a fraction of the time."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    from peftkit.backbones._twin import twin_folder

    twin, out = twin_folder(family), folder / family
    config = AutoConfig.from_pretrained(twin, num_hidden_layers=1)
    auto = AutoModel if family == "bert" else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = auto.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data *= 5
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(twin).save_pretrained(out)
    return str(out)


@functools.cache
def data_of(kind: str, folder: Path) -> str:
    """Toy rows of a kind, a file a split."""
    out = folder / kind
    if kind == "classifier":
        out.mkdir()
        for seed, (split, count) in enumerate(COUNTS.items()):
            write_csv(out / f"{split}.csv", toy_rows(count, seed=seed))
        return str(out)
    rows = {s: ROWS[kind](n, seed=seed) for seed, (s, n) in enumerate(COUNTS.items())}
    return str(write_lines(out, **rows))


def leave_run(
    out: Path, kind: str, method: Any, folder: Path, family: str | None, **backbone: Any
) -> Path:
    """Leave in `out` what a finished run leaves, but for its record."""
    import torch

    from peftkit import Recipe
    from peftkit.recording import describe_backbone
    from peftkit.workbench import Workbench

    task, own = KINDS[kind]
    recipe = Recipe(
        method=method,
        task={"name": task, "data": data_of(kind, folder), **OPTIONS.get(kind, {})},
        backbone={"name": one_block(family or own, folder), **backbone},
        seed=0,
    )
    data = recipe.task.load(seed=0)
    bench = Workbench(recipe, data, out)
    model = bench.attach(recipe.method)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
    bench.predictor(model.eval()).save(out)
    body = {
        "recipe": recipe.to_dict(),
        "labels": data.labels,
        "backbone": describe_backbone(bench),
        "data": {"source": data.source, "fingerprint": data.fingerprint},
    }
    (out / "peftkit.json").write_text(json.dumps(body), encoding="utf-8")
    return out
