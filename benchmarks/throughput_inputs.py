"""What throughput.py measures: rows, backbones of random weights, and the blocks they read."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftkit import Recipe
from peftkit.device import device

GIB = 2**30
RANK, ALPHA = 16, 32
WARM_UP = 0.06  # share of the steps in which the learning rate rises
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SPECIAL = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is trained, and how.

    Attributes:
        name: Of the row and of its record.
        shape: File of benchmarks/shapes.
        method: "full", "lora" or "qlora" (lora on nf4 with double quantisation).
        batch_size: Blocks a step.
        length: Tokens of a block.
        checkpointing: Whether activations are recomputed.
        dtype: Of the weights: frozen ones, or those that the optimizer updates.
        limit_gib: GPU memory that the process may have, CUDA's context included; none: all.
        why: What a reader must know of the settings.
        steps: Optimizer steps.
        warm: How many of them are not timed.
        rounds: How often each way is run.
        first: The way that comes first; in the next round it comes last.
        matmul: Rows and columns of the matrices whose product the card is measured by.
        tiny: Two blocks of width 64 instead of the shape's own, to try the code out.
    """

    name: str
    shape: str
    method: str
    batch_size: int
    checkpointing: bool
    dtype: str = "bfloat16"
    length: int = 2048
    limit_gib: float | None = None
    why: str = ""
    steps: int = 16
    warm: int = 6
    rounds: int = 2
    first: str = "peftkit"
    matmul: int = 8192
    tiny: bool = False

    def recipe(self, backbone: Path, data: Path) -> Recipe:
        method: dict[str, Any] = {"name": "lora", "rank": RANK, "alpha": ALPHA}
        if self.method == "full":
            method = {"name": "full", "master_weights": self.dtype}
        packed = {"quantization": "nf4", "double_quantization": True}
        bits = packed if self.method == "qlora" else {}
        return Recipe(
            backbone={"name": str(backbone), "dtype": self.dtype, **bits},
            method=method,
            task={"name": "language_modeling", "data": str(data), "max_length": self.length},
            training={
                "steps": self.steps,
                "batch_size": self.batch_size,
                "learning_rate": 1e-5,
                "warmup": WARM_UP,
                "order": "random",
                "gradient_checkpointing": self.checkpointing,
                "precision": "bfloat16",
            },
        )


# ---- a backbone of random weights

SHAPES = Path(__file__).parent / "shapes"


def shape_of(row: Row) -> dict[str, Any]:
    shape = json.loads((SHAPES / f"{row.shape}.json").read_text(encoding="utf-8"))
    return shape | TINY if row.tiny else shape


def make_backbone(row: Row, folder: Path) -> None:
    """Draw weights on the device, bfloat16, and save them with a tokenizer of as many words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    shape = shape_of(row)
    config = AutoConfig.for_model(**shape, pad_token_id=0, bos_token_id=2, eos_token_id=3)
    torch.manual_seed(0)
    with torch.device(device()):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    words = [*SPECIAL, *(f"t{i}" for i in range(len(SPECIAL), shape["vocab_size"]))]
    level = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL[1])
    tokenizer = Tokenizer(level)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    half = folder.with_name(folder.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(half)
    model.save_pretrained(half)
    half.rename(folder)


# ---- the same blocks for both


def write_blocks(row: Row, vocabulary: int, folder: Path) -> list[list[int]]:
    """Write texts of as many words as a block has tokens; return the blocks in training order."""
    from peftkit.order import batch_order

    draw = np.random.default_rng(0)
    count = row.steps * row.batch_size
    blocks = draw.integers(len(SPECIAL), vocabulary, size=(count, row.length)).tolist()
    for split, some in (("train", blocks), ("validation", blocks[:1]), ("test", blocks[:1])):
        lines = (json.dumps({"text": " ".join(f"t{i}" for i in block)}) for block in some)
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    order = batch_order(
        [row.length] * count, num_batches=row.steps, batch_size=row.batch_size, order="random",
        seed=0,
    )  # fmt: skip
    return [blocks[i] for i in order]
