"""Finished runs to export: each kind of task on a backbone of one block, weights that matter."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

RUNS: dict[str, tuple[str, str, str]] = {
    # name: task, family, fixture of its data
    "classifier": ("text_classification", "bert", "toy_folder"),
    "tagger": ("token_classification", "bert", "tagged_folder"),
    "answerer": ("question_answering", "bert", "asked_folder"),
    "decoder": ("instruction", "llama", "prompted_folder"),
}
OPTIONS: dict[str, dict[str, Any]] = {"instruction": {"max_new_tokens": 4, "max_length": 32}}


@functools.cache
def one_block(family: str, folder: Path) -> str:
    """A twin of one block: what is traced takes a fraction of the time."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    from peftkit.backbones._twin import twin_folder

    twin, out = twin_folder(family), folder / family
    config = AutoConfig.from_pretrained(twin, num_hidden_layers=1)
    auto = AutoModelForCausalLM if family in ("llama", "gpt2") else AutoModel
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = auto.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data *= 5
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(twin).save_pretrained(out)
    return str(out)


def train(out: Path, backbone: str, method: Any, task: dict[str, Any], **training: Any) -> Path:
    """A run of two steps at a rate that moves what it trains."""
    from peftkit import Recipe, run

    options = {"steps": 2, "batch_size": 4, "learning_rate": 0.05, "precision": "float32"}
    recipe = Recipe(
        method=method, backbone=backbone, task=task, training={**options, **training}, seed=0
    )
    run(recipe, out)
    return out


Trained = Callable[..., Path]
