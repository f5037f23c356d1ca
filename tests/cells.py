"""Which cells there are (a method on a family of backbones, for a task), and what is seen of them.

The methods and families are whatever is found; a new one is tested without a line here, unless it
cannot exist somewhere (say so below).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from peftkit import parts
from peftkit.backbones import families
from peftkit.methods import Method
from peftkit.seeds import seeded

METHODS = parts.find("method")
MATRIX = pytest.mark.matrix
FAMILIES = tuple(name for name, family in families().items() if family.inputs == "text")
# Families that read images or sounds, and the task that they are tested on.
SENSES = {
    name: f"{family.inputs}_classification"
    for name, family in families().items()
    if family.inputs != "text"
}
ENCODER_DECODERS = ("bart", "marian", "t5")
TASKS = ("text_classification", "token_classification", "question_answering")
# A method without `attach` trains no model: it works on features, or on words.
ATTACHED = tuple(m for m in METHODS if parts.load("method", m).attach is not Method.attach)
# An adapter sits beside weights that stay; the others train the backbone's own.
ADAPTERS = tuple(m for m in ATTACHED if parts.load("method", m).rung not in ("full", "retrain"))
GRADIENT_TRAINED = tuple(m for m in METHODS if parts.load("method", m).learning_rate is not None)
STEPS, BATCH = 6, 4  # of a fitted method
PROMPTS = ("p_tuning", "prompt_tuning")  # virtual tokens before the text, on its way in

_SOME = {
    ("last_layers", "albert"): "share their weights",
    **{
        ("bitfit", f): "no bias to train" for f in ("gemma", "llama", "mistral", "modernbert", "t5")
    },
}
_NO_HEAD = "no head for this task"  # transformers has no class for the task on the architecture
_VIRTUAL = (*PROMPTS, "prefix_tuning")
_DAMAGED = {("continued_pretraining", f): "restore damaged text" for f in ("bart", "t5")}
_TEXT = {
    **_SOME,
    **_DAMAGED,
    **{
        ("prefix_tuning", family): "takes keys and values from outside"
        for family in ("albert", "deberta_v2", "distilbert", "modernbert")
    },
}
_NO_IDS = {(m, f): "token ids of the text" for m in _VIRTUAL for f in ("bart", "t5")}
_NO_WORDS = {("tfidf", family): "parts of it" for family in FAMILIES}


def _headless(*names: str) -> dict[tuple[str, str], str]:
    return {(m, f): _NO_HEAD for m in METHODS if m != "tfidf" for f in names}


# Why a pair cannot exist, as its error says.
UNSUPPORTED: dict[str, dict[tuple[str, str], str]] = {
    "text_classification": {**_TEXT, **_NO_IDS, **_headless("marian")},
    "token_classification": {
        **_TEXT,
        ("prefix_tuning", "t5"): "takes keys and values from outside",
        **_headless("bart", "marian"),
        **_NO_WORDS,
    },
    "question_answering": {
        **_SOME,
        **_DAMAGED,
        **{
            ("prefix_tuning", family): "without the types of tokens"
            for family in FAMILIES
            if family not in ("llama", "mistral", "qwen")
        },
        **_NO_IDS,
        **_headless("gemma", "marian", "phi"),
        **_NO_WORDS,
    },
}


SHARE = 9  # one of so many cells is tried without `-m matrix`
# Families that can carry text classification at all.
CLASSIFIERS = tuple(f for f in FAMILIES if ("full", f) not in UNSUPPORTED[TASKS[0]])


def by_default(method: str, family: str, task: str = TASKS[0], *, share: int = SHARE) -> bool:
    """Whether a cell is tried without `-m matrix`.

    One of `share` cells, in a pattern that has every method and every family; for text
    classification also all of BERT, of LoRA and of scratch, which others are compared with.
    """
    number = METHODS.index(method) + FAMILIES.index(family) + TASKS.index(task)
    always = share == SHARE and (family == "bert" or method in ("lora", "scratch"))
    return always or number % share == 0


def parameters(cells: Iterable[tuple[str, ...]], *, share: int = SHARE) -> list[Any]:
    """Cells as parameters of a test: method and family, and a task where there are several."""
    return [
        pytest.param(
            *cell, id="-".join(cell), marks=() if by_default(*cell, share=share) else MATRIX
        )
        for cell in cells
    ]


def pairs(methods: tuple[str, ...], *, share: int = SHARE) -> Any:
    """Every method given on every family that can carry it, for text classification."""
    every = [(m, f) for m in methods for f in FAMILIES if (m, f) not in UNSUPPORTED[TASKS[0]]]
    return pytest.mark.parametrize(("method", "family"), parameters(every, share=share))


def cells(methods: tuple[str, ...]) -> Any:
    """Every method given on every family that can carry it, for every task."""
    every = [
        (method, family, task)
        for task in TASKS
        for method in methods
        for family in FAMILIES
        if (method, family) not in UNSUPPORTED[task]
    ]
    return pytest.mark.parametrize(("method", "family", "task"), parameters(every, share=13))


# ---- what is looked at


@dataclasses.dataclass
class Start:
    """A method attached to a fresh backbone, and what there was before."""

    bench: Any
    model: Any
    bare: dict[str, torch.nn.Parameter]  # the very parameters, by the names they had
    bare_logits: torch.Tensor

    def is_bare(self, parameter: torch.nn.Parameter) -> bool:
        return any(parameter is own for own in self.bare.values())

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def is_head(self, name: str) -> bool:
        return any(f".{part}." in f".{name}" for part in self.bench.backbone.layers.head)


def batch_of(bench: Any, count: int = 8) -> dict[str, torch.Tensor]:
    """Some training examples, padded, with labels."""
    return bench.collate(bench.encode(bench.data.train)[:count])


def short_and_long(bench: Any) -> list[Any]:
    """The shortest and the longest training example, with types of tokens if the model knows any.

    The toy tokenizer writes none, those of BERT and its relatives do: 0 in the first of two texts,
    1 in the second.
    """
    examples = sorted(bench.encode(bench.data.train), key=lambda e: len(e["input_ids"]))
    chosen = [examples[0], examples[-1]]
    names = [name for name, _ in bench.backbone.model.named_modules()]
    if not any(name.endswith("token_type_embeddings") for name in names):
        return chosen
    lengths = [len(e["input_ids"]) for e in chosen]
    types = [[0] * (n // 2) + [1] * (n - n // 2) for n in lengths]
    return [{**e, "token_type_ids": kind} for e, kind in zip(chosen, types, strict=True)]


def first_position(model: Any) -> int:
    """The number of the first token in a text: RoBERTa's start after the padding index."""
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            return int(padding) + 1
    return 0


def logits_of(model: Any, batch: dict[str, torch.Tensor], bench: Any = None) -> torch.Tensor:
    """Logits in evaluation mode; a bench knows where tasks other than classification have them."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    model.eval()
    with torch.inference_mode():
        output = model(**inputs)
        found = bench.logits(output, inputs) if bench else output.logits
        return found.clone()


def perturb(start: Start, *, only: Callable[[str], bool] = lambda name: True) -> None:
    """Move what is trainable away from where it starts, the same way each time; adapters far."""
    std = 0.3 if start.bench.recipe.method.rung == "parameter-efficient" else 0.05
    if start.bench.backbone.layers.family == "t5":
        std /= 4  # its attention is not scaled, and would be all or nothing
    with torch.no_grad(), seeded(0, "perturbation"):
        for name, parameter in start.trainable().items():
            if only(name):
                parameter.add_(torch.randn_like(parameter), alpha=std)


def rounding(family: str) -> float:
    """How much more rounding shows than usual: T5 does not scale its attention, so it is sharp."""
    return 5.0 if family == "t5" else 1.0


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    """Whether two sets of logits agree, in units of the largest."""
    return bool((a - b).abs().max() <= tolerance * max(1.0, float(b.abs().max())))


def differ(a: torch.Tensor, b: torch.Tensor, share: float = 1e-2) -> bool:
    """Whether two sets of logits differ by more than a share of the largest."""
    return bool((a - b).abs().max() > share * float(b.abs().max()))


def is_key_bias(name: str) -> bool:
    """A shift of all keys changes no attention weight, so its gradient is zero but for rounding."""
    return (
        re.search(r"\.(key|k_lin|(pos_)?key_proj|k_proj)\.(base_layer\.)?(bitfit_)?bias", name)
        is not None
    )
