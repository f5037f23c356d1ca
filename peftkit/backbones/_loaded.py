"""A backbone with a head on it, and what a task asks of the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from peftkit.backbones._family import Inputs, Layers, Pooling
from peftkit.backbones._locate import Location

Reads = Literal["text", "word", "span", "token"]
_PEFT_TASKS = {
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForTokenClassification": "TOKEN_CLS",
    # PEFT's class for questions drops the token types; that for sequences hands on all it gets.
    "AutoModelForQuestionAnswering": "SEQ_CLS",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForMaskedLM": "FEATURE_EXTRACTION",  # virtual tokens before the text, and no more
}


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a task asks of a backbone.

    Attributes:
        auto_classes: Names of transformers classes that add the head; the first that knows the
            architecture is taken.
        labels: Class names; their order is the order of the logits.
        inputs: As `Task.inputs`.
        reads: As `Task.reads`.
        problem_type: As `Task.problem_type`.
        max_seconds: The longest sound, for backbones whose sounds are all of one length.
        new_output_layer: Where tokens are predicted and the files hold no layer for it: take a new
            one, tied to the input embeddings, which counts as the backbone's own.
    """

    auto_classes: tuple[str, ...]
    labels: list[str]
    inputs: Inputs = "text"
    reads: Reads = "text"
    problem_type: str | None = None
    max_seconds: float | None = None
    new_output_layer: bool = False


@dataclass(kw_only=True)
class LoadedBackbone:
    """A backbone with the head of a task on it.

    Attributes:
        location: Where it came from.
        model: The transformers model, on the CPU, in evaluation mode; the backbone proper is
            float32 or bfloat16, the head float32.
        processor: What turns rows into its inputs: a tokenizer, which pads on the right, an image
            processor, or a feature extractor of sounds.
        auto_class: The transformers class that `model` was made by.
        layers: Where the layers of `model` are.
        pooling: How the head reads a sequence: "first" or "last" token, or the "mean" over all
            tokens. None: it reads every token, or nobody knows.
        total_parameters: Parameters of the backbone, head excluded.
        head_is_new: Whether the head starts from random weights, not from the checkpoint's own.
        inputs: What it reads.
        quantization: As `Backbone.quantization`.
        waiting: Layers whose weights wait in the CPU's memory, if any do.
        own_output: False where tokens are predicted by a new layer, which the files do not hold.
    """

    location: Location
    model: Any
    processor: Any
    auto_class: str
    layers: Layers
    pooling: Pooling | None
    total_parameters: int
    head_is_new: bool = True
    inputs: Inputs = "text"
    quantization: str = "none"
    own_output: bool = True
    waiting: tuple[Any, ...] = ()

    @property
    def peft_task(self) -> str | None:
        """PEFT's name for what the head does: it decides how virtual tokens are handed over."""
        return _PEFT_TASKS.get(self.auto_class)
