"""The two parts of a recipe that are not found by file: the backbone and the training settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from peftkit.bounds import Ge, Gt, Lt
from peftkit.errors import InvalidInput
from peftkit.fields import settle

MIN_STEPS = 250
DEFAULT_EPOCHS = 3.0
BUNDLED_NAME = "all-MiniLM-L6-v2"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The pretrained transformer to start from."""

    name: str = "bundled"
    """A model of the Hugging Face hub, a local folder, or "bundled" (all-MiniLM-L6-v2)."""
    revision: str | None = None
    """Branch, tag or commit on the hub; none: the hub's main branch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the frozen weights in memory."""
    quantization: Literal["none", "int8", "nf4", "fp4"] = "none"
    """Keep the linear layers of the blocks in 8 or 4 bits, through bitsandbytes; nf4 fits normally
    distributed weights (Dettmers et al. 2023, arXiv:2305.14314). Saves memory, costs time."""
    double_quantization: bool = False
    """Quantise the scales of nf4 and fp4 too: 4.127 instead of 4.5 bits a weight."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format in which nf4 and fp4 layers compute; auto: that of `dtype`."""
    storage_dtype: Literal["uint8", "float32", "bfloat16"] = "uint8"
    """Number format that the bytes of nf4 and fp4 are kept as; FSDP wants that of the others."""
    offload: Literal["none", "cpu"] = "none"
    """Keep the frozen linear layers of the blocks in the CPU's memory, and bring each to the GPU as
    it computes: less of the GPU's memory, more time. Needs CUDA, and `gradient_checkpointing` where
    blocks are trained through. Untested on CUDA so far."""
    pooling: Literal["auto", "model", "first", "last", "mean"] = "auto"
    """What a classification head reads of the last hidden states: the first or last token, the mean
    over tokens, or what its model class does; auto: the mean if the backbone was trained as a
    sentence encoder with it, else what the model class does."""

    def __post_init__(self) -> None:
        settle(self, "backbone")
        if not self.name.strip():
            raise InvalidInput("backbone.name is empty", next_step="name a model or a folder")
        if self.offload != "none" and self.quantization != "none":
            raise InvalidInput(
                "packed weights compute where they are",
                received=f"backbone.offload {self.offload}, quantization {self.quantization}",
                next_step="leave one of them out",
            )
        four_bit = self.quantization in ("nf4", "fp4")
        for name, usual in (
            ("double_quantization", False), ("compute_dtype", "auto"), ("storage_dtype", "uint8"),
        ):  # fmt: skip
            if not four_bit and getattr(self, name) != usual:
                raise InvalidInput(
                    f"backbone.{name} is for weights of four bits",
                    received=f"{name} {getattr(self, name)}, quantization {self.quantization}",
                    next_step="add --backbone.quantization nf4, or leave it out",
                )


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and how a method is trained; the same for every method of a comparison."""

    steps: Annotated[int, Ge(1)] | None = None
    """Optimizer steps; none: decided by `epochs`."""
    epochs: Annotated[float, Gt(0)] | None = None
    """Passes over the training data; none: three, but at least 250 steps, so that small data
    sets are learned at all."""
    batch_size: Annotated[int, Ge(1)] = 8
    """Examples a forward pass; times `gradient_accumulation` gives examples an optimizer step."""
    gradient_accumulation: Annotated[int, Ge(1)] = 1
    """Forward passes an optimizer step."""
    learning_rate: Annotated[float, Gt(0)] | None = None
    """Peak learning rate; none: the default of the method, whose source `peftkit list` names."""
    head_learning_rate: Annotated[float, Gt(0)] | Literal["auto", "same"] = "auto"
    """Peak learning rate of a new output layer, the same for every method, or else each would be
    judged by how fast its head learns. auto: 0.01 at a width of 384 or less, falling as one over
    the width (Yang et al. 2022, arXiv:2203.03466, table 3), but that of the method where the layer
    starts fitted; same: that of the method."""
    optimizer: Literal[
        "adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor", "lion"
    ] = "adamw"
    """Optimizer: AdamW in one fused kernel; its state in 8 bits (Dettmers et al. 2022,
    arXiv:2110.02861) or in pages that leave a full GPU (paged; CUDA only; QLoRA, section 3);
    Adafactor (Shazeer & Stern 2018, arXiv:1804.04235); Lion (Chen et al. 2023, arXiv:2302.06675),
    whose learning rate is 3 to 10 times lower. Learning rates of methods are for AdamW."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning rate after the warm-up: falls to zero in a line or a half cosine, or stays."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.06
    """Share of the steps in which the learning rate rises from zero; 0.06 is that of RoBERTa
    (Liu et al. 2019) and of LoRA (Hu et al. 2021) on GLUE."""
    weight_decay: Annotated[float, Ge(0)] = 0.01
    """AdamW's weight decay, on all that is no bias and no normalisation layer; 0.01 is that of BERT
    (Devlin et al. 2019)."""
    max_grad_norm: Annotated[float, Ge(0)] = 1.0
    """Gradients are scaled down to this norm; 0: never. The default is that of transformers."""
    order: Literal["length", "random"] = "length"
    """Batches of examples of like length (less padding), or drawn at random; drawn by the seed."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of computation; auto: bfloat16 where the device computes faster in it."""
    head_init: Literal["random", "centroids", "probe"] = "random"
    """Start of a new output layer: random weights, the class centroids, or a fitted probe."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    evaluate_every: Annotated[int, Ge(1)] | None = None
    """Steps between evaluations on the validation split; none: only at the end."""
    keep_best: bool = False
    """Return to the best evaluated state at the end; needs `evaluate_every`."""
    patience: Annotated[int, Ge(1)] | None = None
    """Evaluations without improvement before training stops; needs `evaluate_every`."""
    save_every: Annotated[int, Ge(1)] | None = None
    """Steps between checkpoints to resume from; none: no checkpoints."""
    threads: Annotated[int, Ge(1)] = 1
    """CPU threads of a run; their number changes the last digits of results."""

    def __post_init__(self) -> None:
        settle(self, "training")
        if self.steps is not None and self.epochs is not None:
            raise InvalidInput(
                "training.steps and training.epochs are both given",
                received=f"steps {self.steps}, epochs {self.epochs}",
                allowed="one of them, or neither",
                next_step="set one of them to none",
            )
        for name in ("keep_best", "patience"):
            if getattr(self, name) and self.evaluate_every is None:
                raise InvalidInput(
                    f"training.{name} needs evaluations during training",
                    received=f"{name} {getattr(self, name)}, evaluate_every none",
                    next_step="add --training.evaluate-every STEPS, such as 50",
                )

    def num_steps(self, num_examples: int) -> int:
        """Return the number of optimizer steps on a training split of `num_examples`."""
        if self.steps is not None:
            return self.steps
        steps_per_epoch = math.ceil(num_examples / (self.batch_size * self.gradient_accumulation))
        if self.epochs is not None:
            return max(1, math.ceil(self.epochs * steps_per_epoch))
        return max(MIN_STEPS, math.ceil(DEFAULT_EPOCHS * steps_per_epoch))
