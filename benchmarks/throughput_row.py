"""One row of throughput.py, in a process of its own: both ways of training, in turn.

    python benchmarks/throughput_row.py '{"name": "1b-lora", ...}' BACKBONE_FOLDER RECORD

peftkit's way is its workbench and its one training loop, measured by its meter, as `peftkit.run`
uses them. The plain way is TRL's `SFTTrainer` on a model of transformers with a configuration of
PEFT, everything at its default except what peftkit sets. Both read the same tokens in the same
order: random words, as many as there are tokens in a block, so that no block is cut or padded.

Tokens per second are those between the end of the last warm-up step and that of the last step, read
once the GPU is done.
"""

import dataclasses
import gc
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from throughput_inputs import (
    ALPHA,
    GIB,
    RANK,
    TARGETS,
    WARM_UP,
    Row,
    make_backbone,
    shape_of,
    write_blocks,
)

from peftkit.cost import Meter
from peftkit.device import device
from peftkit.energy import joules_so_far
from peftkit.environment import environment, quiet_libraries
from peftkit.record import write_atomically
from peftkit.workbench import Workbench


@dataclass
class Clock:
    """Notes when the last warm-up step ended, and the last of all."""

    row: Row
    ends: dict[int, tuple[float, float | None]] = field(default_factory=dict)

    def tick(self, step: int, *_: Any) -> None:
        if step in (self.row.warm, self.row.steps):
            if device() == "cuda":
                torch.cuda.synchronize()
            self.ends[step] = (time.perf_counter(), joules_so_far())

    def found(self) -> dict[str, float]:
        """Tokens a second and joules a token."""
        (start, before), (end, after) = self.ends[self.row.warm], self.ends[self.row.steps]
        steps = self.row.steps - self.row.warm
        tokens = steps * self.row.batch_size * self.row.length
        found = {
            "tokens_per_second": tokens / (end - start),
            "step_seconds": (end - start) / steps,
        }
        if before is not None and after is not None:
            found["joules_per_token"] = (after - before) / tokens
        return found


# ---- the two ways


def through_peftkit(
    row: Row, backbone: Path, data: Path, blocks: list[list[int]], meter: Meter, clock: Clock
) -> list[float]:
    """Train as `peftkit.run` does; return the losses."""
    recipe = row.recipe(backbone, data)
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(recipe, recipe.task.load(seed=0), Path(folder), progress=clock.tick)
        with meter.phase("load"):
            bench.backbone  # noqa: B018  # loads on first use
        read = sorted(tuple(e["input_ids"]) for e in bench.encode(bench.data.train))
        assert read == sorted(map(tuple, blocks)), "a block is not what was written"
        with meter.phase("train"):
            recipe.method.fit(bench)
    return [point["loss"] for point in bench.trained.history if "loss" in point]


def through_trl(
    row: Row, backbone: Path, data: Path, blocks: list[list[int]], meter: Meter, clock: Clock
) -> list[float]:
    """Train with `SFTTrainer`, as its documentation does; return the losses."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        PrinterCallback,
        TrainerCallback,
    )
    from trl import SFTConfig, SFTTrainer

    class Ticks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.tick(state.global_step)

    options: dict[str, Any] = {"dtype": getattr(torch, row.dtype), "device_map": {"": device()}}
    if row.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    with meter.phase("load"):
        model = AutoModelForCausalLM.from_pretrained(backbone, **options)
    lora = LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM"
    )
    recipe = row.recipe(backbone, data)
    with tempfile.TemporaryDirectory() as folder, meter.phase("train"):
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=folder,
                max_steps=row.steps,
                per_device_train_batch_size=row.batch_size,
                max_length=row.length,
                gradient_checkpointing=row.checkpointing,  # by default always
                bf16=True,
                use_cpu=device() == "cpu",
                learning_rate=recipe.learning_rate,
                weight_decay=recipe.training.weight_decay,
                warmup_steps=-int(-WARM_UP * row.steps // 1),
                train_sampling_strategy="sequential",
                logging_steps=1,  # as often as peftkit logs so few steps
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"input_ids": blocks}),
            processing_class=AutoTokenizer.from_pretrained(backbone),
            peft_config=None if row.method == "full" else lora,
            callbacks=[Ticks()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


WAYS: dict[str, Callable[..., list[float]]] = {"peftkit": through_peftkit, "TRL": through_trl}


def run_once(way: str, row: Row, backbone: Path, data: Path, blocks: Any) -> dict[str, Any]:
    """One way, once; a failure is a result too."""
    free_memory()
    start = torch.cuda.memory_allocated() if device() == "cuda" else 0
    meter, clock = Meter(), Clock(row)
    found: dict[str, Any] = {"way": way, "status": "done", "allocated_before_bytes": start}
    try:
        losses = WAYS[way](row, backbone, data, blocks, meter, clock)
        found |= {"first_loss": losses[0], "last_loss": losses[-1], **clock.found()}
    except torch.OutOfMemoryError as error:
        found |= {"status": "out_of_memory", "error": str(error).splitlines()[0]}
    except Exception as error:
        traceback.print_exc()
        found |= {"status": "failed", "error": f"{type(error).__name__}: {error}"[:500]}
    found["costs"] = meter.costs()
    if device() == "cuda":
        found["context_bytes"] = context_bytes()  # kernels that were loaded meanwhile included
    return found


def free_memory() -> None:
    """Let go of what the run before had; no traceback is alive here that would hold it."""
    gc.collect()
    if device() == "cuda":
        torch.cuda.empty_cache()


# ---- the card, and what a token costs


def matmul_rate(size: int) -> float:
    """Floating-point operations a second of one bfloat16 product, the median of ten."""
    a, b = (torch.randn(size, size, device=device()).to(torch.bfloat16) for _ in range(2))
    took = []
    for repeat in range(13):
        if device() == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(5):
            a @ b
        if device() == "cuda":
            torch.cuda.synchronize()
        if repeat >= 3:
            took.append((time.perf_counter() - start) / 5)
    return 2 * size**3 / statistics.median(took)


def flops_per_token(shape: dict[str, Any], row: Row) -> float:
    """Of the model, forward and backward: 6 N, or 4 N + 6 A, and 6 L s d for attention.

    N: weights of the linear layers, the output layer among them. A: those of the adapter. L layers,
    s tokens of a block, d the width of all heads; a token attends to s / 2 others on average. What
    is computed again where activations are checkpointed does not count.
    """
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    width = heads * shape["head_dim"]
    narrow = shape["num_key_value_heads"] * shape["head_dim"]
    layers, inner = shape["num_hidden_layers"], shape["intermediate_size"]
    sizes = [(hidden, width), (hidden, narrow), (hidden, narrow), (width, hidden),
             (hidden, inner), (hidden, inner), (inner, hidden)]  # fmt: skip
    linear = layers * sum(a * b for a, b in sizes) + hidden * shape["vocab_size"]
    adapter = layers * sum(RANK * (a + b) for a, b in sizes)
    attention = 6 * layers * row.length * width
    if row.method == "full":
        return float(6 * linear + attention)
    return float(4 * linear + 6 * adapter + attention)


# ---- the row


def context_bytes() -> int:
    """In use on the GPU beside the allocator's memory: CUDA's context and kernels above all."""
    free, total = torch.cuda.mem_get_info()
    return int(total - free - torch.cuda.memory_reserved())


def keep_below(limit_gib: float) -> None:
    """Let the allocator have only what CUDA's context leaves of so much memory."""
    torch.zeros(1, device="cuda")
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((limit_gib * GIB - context_bytes()) / total)


def measure(row: Row, backbone: Path) -> dict[str, Any]:
    if not backbone.is_dir():
        make_backbone(row, backbone)
    free_memory()
    shape = shape_of(row)
    if row.limit_gib and device() == "cuda":
        keep_below(row.limit_gib)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        blocks = write_blocks(row, shape["vocab_size"], Path(folder))
        for number in range(row.rounds):
            for way in sorted(WAYS, key=lambda way: way == row.first, reverse=number % 2 == 0):
                run = run_once(way, row, backbone, Path(folder), blocks) | {"round": number}
                runs.append(run)
                rate = run.get("tokens_per_second")
                said = run["status"] if rate is None else f"{rate:,.0f} tokens/s"
                print(f"  {way}, round {number + 1}: {said}", flush=True)
    free_memory()
    errors = [f"{run['way']}: {run['error']}" for run in runs if "error" in run]
    return {
        "settings": dataclasses.asdict(row),
        "status": "failed" if any(run["status"] == "failed" for run in runs) else "done",
        "error": "; ".join(dict.fromkeys(errors)),
        "runs": runs,
        "flops_per_token": flops_per_token(shape, row),
        "matmul_flops_per_second": matmul_rate(row.matmul),
        "environment": environment(),
    }


def main() -> None:
    settings, backbone, out = sys.argv[1:]
    quiet_libraries()
    record = measure(Row(**json.loads(settings)), Path(backbone))
    write_atomically(Path(out), json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
