"""Memory that others published, beside what peftkit predicts for the same setting.

    python benchmarks/memory_published.py [--out FILE]

Only predictions: no GPU is needed, and none of these systems is run. Each row says how the setting
was translated, and why a figure should differ where it does: rivals' allocators, kernels and losses
are not peftkit's. Default: benchmarks/results/memory_published.md.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftkit import Recipe
from peftkit.record import write_atomically

ROOT = Path(__file__).parent.parent
SHAPES = ROOT / "benchmarks" / "shapes"
GB, GIB = 10**9, 1 << 30


@dataclass(frozen=True, kw_only=True)
class Published:
    """A figure that somebody measured.

    Attributes:
        source: Who, and where it stands.
        setting: What was trained.
        shape: Of `benchmarks/shapes`.
        value: The figure.
        unit: Bytes in one of its units.
        figure: What it is: "allocated", "reserved" or "weights".
        batch, length: Of the setting.
        remark: What is known to differ, and how that moves the figure.
        method, backbone, training: Of the recipe.
    """

    source: str
    setting: str
    shape: str
    value: float
    unit: int
    figure: str
    batch: int
    length: int
    remark: str = ""
    method: Any = "lora"
    backbone: dict[str, Any] = field(default_factory=lambda: {"dtype": "bfloat16"})
    training: dict[str, Any] = field(default_factory=dict)


PEFT = "PEFT method_comparison, MetaMathQA, L40S"
LITGPT = "litgpt, Alpaca, A100, Llama-2-7B"
TORCHTUNE = "torchtune README, Llama-3.1-8B"
PURE = {"name": "full", "master_weights": "bfloat16"}
CHECKPOINTED = {"gradient_checkpointing": True}
PACKED = {"dtype": "bfloat16", "quantization": "nf4"}
DOUBLE = {**PACKED, "double_quantization": True}
LORA_QV = {"name": "lora", "rank": 32, "alpha": 64, "targets": ["query", "value"]}
LITGPT_LORA = {"name": "lora", "rank": 8, "targets": ["query", "value"]}
ROWS = [
    Published(
        source=PEFT, setting="full, pure bf16", shape="llama-3.2-3b", value=36.20, unit=GIB,
        figure="reserved", batch=4, length=768, method=PURE,
        remark="their maximum covers evaluation too, and batches up to 768 tokens, here all of 768",
    ),
    Published(
        source=PEFT, setting="LoRA r 32 on q, v", shape="llama-3.2-3b", value=20.76, unit=GIB,
        figure="reserved", batch=4, length=768, method=LORA_QV,
        remark="as above",
    ),
    Published(
        source=PEFT, setting="full, after the step", shape="llama-3.2-3b", value=24.28, unit=GIB,
        figure="state", batch=4, length=768, method=PURE,
        remark="weights, gradients and moments; theirs has batches left over",
    ),
    Published(
        source=PEFT, setting="LoRA r 32, after the step", shape="llama-3.2-3b", value=6.45,
        unit=GIB, figure="state", batch=4, length=768, method=LORA_QV, remark="as above",
    ),
    Published(
        source=LITGPT, setting="LoRA, batch 1", shape="llama-2-7b", value=21.30, unit=GB,
        figure="reserved", batch=1, length=1304, method=LITGPT_LORA,
        remark="the longest row has 1,304 tokens; attention kernels and losses of 2023",
    ),
    Published(
        source=LITGPT, setting="LoRA, NF4", shape="llama-2-7b", value=14.14, unit=GB,
        figure="reserved", batch=1, length=1304, method=LITGPT_LORA, backbone=PACKED,
        remark="as above; adapters in bf16",
    ),
    Published(
        source=LITGPT, setting="LoRA, NF4 double", shape="llama-2-7b", value=13.84, unit=GB,
        figure="reserved", batch=1, length=1304, method=LITGPT_LORA, backbone=DOUBLE,
        remark="as above",
    ),
    Published(
        source=TORCHTUNE, setting="full, bf16, A6000", shape="llama-3.1-8b", value=37.4, unit=GIB,
        figure="reserved", batch=2, length=2048, method=PURE, training=CHECKPOINTED,
        remark="8 bytes a parameter are 60 GiB, so theirs keeps gradients or moments otherwise "
        "(it knows updates in the backward pass and paged 8-bit moments; not stated which)",
    ),
    Published(
        source=TORCHTUNE, setting="LoRA, A6000", shape="llama-3.1-8b", value=30.3, unit=GIB,
        figure="reserved", batch=2, length=2048, remark="checkpointing is not stated: here off",
    ),
    Published(
        source=TORCHTUNE, setting="LoRA, 4090", shape="llama-3.1-8b", value=16.2, unit=GIB,
        figure="reserved", batch=2, length=2048, training=CHECKPOINTED,
        remark="its settings for a 4090 are not stated; a loss in chunks would spare the logits",
    ),
    Published(
        source="QLoRA paper, section 2, LLaMA-7B", setting="4-bit base", shape="llama-2-7b",
        value=5048, unit=10**6, figure="weights", batch=1, length=512, backbone=DOUBLE,
        training=CHECKPOINTED,
        remark="what it counts beside the packed layers is not stated",
    ),
]  # fmt: skip


def predict(row: Published) -> dict[str, float]:
    from transformers import AutoConfig

    from peftkit.memory.forecast import forecast

    config = AutoConfig.for_model(**json.loads((SHAPES / f"{row.shape}.json").read_text()))
    recipe = Recipe(
        backbone={"name": row.shape, **row.backbone},
        method=row.method,
        task={"name": "language_modeling", "data": "none"},
        training={"precision": "bfloat16", "batch_size": row.batch, **row.training},
    )
    found = forecast(recipe, config, length=row.length)
    prediction = found.peak(row.batch)
    parts = prediction.parts
    last = found.after_step(row.batch)
    return {
        "reserved": prediction.reserved_bytes,
        "allocated": prediction.peak_bytes,
        "weights": parts["weights"] + parts["quantization_state"],
        "state": sum(last[part] for part in ("weights", "gradients", "optimizer")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "memory_published.md"
    )
    args = parser.parse_args()
    lines = [
        "# Published memory, and what peftkit predicts",
        "",
        "Predicted for CUDA from public configurations, with terms of a device that is not "
        "calibrated. Reserved is what the caching allocator takes, state what remains after a "
        "step.",
        "",
        "| source | setting | batch x length | figure | published | predicted | off % | remark |",
        "| :--- | :--- | :--- | :--- | ---: | ---: | ---: | :--- |",
    ]
    for row in ROWS:
        value = predict(row)[row.figure] / row.unit
        unit = {GB: "GB", GIB: "GiB"}.get(row.unit, "MB")
        lines.append(
            f"| {row.source} | {row.setting} | {row.batch} x {row.length:,} | {row.figure} "
            f"| {row.value:,.2f} {unit} | {value:,.2f} {unit} "
            f"| {100 * (value / row.value - 1):+.0f} | {row.remark} |"
        )
        print(lines[-1], flush=True)
    write_atomically(args.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
