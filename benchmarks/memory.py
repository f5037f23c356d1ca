"""Memory of a training step: predicted from the configuration, against what it took.

    python benchmarks/memory.py [NAME ...] [--device cpu|cuda] [--smoke] [--out DIR]

Public shapes (benchmarks/shapes) with random weights, through the same loading, attaching and
training as every run. Truth on CUDA is `torch.cuda.max_memory_allocated` over a training step; on a
CPU, where nobody counts otherwise, the live storages of the step. There the large shapes have fewer
blocks (as the table says), short rows and small batches, and most of their rows compute in float32:
most CPUs only emulate bfloat16, forty times as slowly. Beside it, what `accelerate estimate-memory`
says of training with Adam, and the rule of 16 bytes a parameter. A row that is there already is not
run again; each is a process of its own.
"""

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
SHAPES = ROOT / "benchmarks" / "shapes"
GIB = 1 << 30
CHECKPOINTED = {"gradient_checkpointing": True}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training step: what is trained on which shape, how, and on how much."""

    shape: str
    method: str = "lora"
    precision: str = "fp32"
    batch: int
    length: int
    blocks: int | None = None
    """Of the backbone; none: as many as the shape has."""
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        options = "-".join(f"{key[:4]}{str(value)[:10]}" for key, value in self.training.items())
        parts = (self.shape, self.method.replace(":", "_").replace("=", "_"), self.precision,
                 f"b{self.batch}x{self.length}", options)  # fmt: skip
        return "-".join(part for part in parts if part)

    @property
    def backbone(self) -> dict[str, Any]:
        if self.precision in ("fp32", "autocast"):
            return {"dtype": "float32"}
        if self.precision == "bf16":
            return {"dtype": "bfloat16"}
        kind, *more = self.precision.split("+")
        dtype = "float32" if "fp32" in more else "bfloat16"
        return {"dtype": dtype, "quantization": kind, "double_quantization": "double" in more}

    @property
    def computes_in(self) -> str:
        return "float32" if self.precision.endswith("fp32") else "bfloat16"


def rows(shape: str, *kinds: tuple[Any, ...], **common: Any) -> list[Row]:
    """Rows of one shape: (method, precision, options of training) each."""
    return [
        Row(shape=shape, method=method, precision=precision, training=options, **common)
        for method, precision, options in kinds
    ]


ON_CPU = [
    *rows(
        "bert-base-uncased",
        ("lora", "fp32", {}), ("bottleneck", "fp32", {}), ("prompt_tuning", "fp32", {}),
        ("prefix_tuning", "fp32", {}), ("p_tuning", "fp32", {}), ("ia3", "fp32", {}),
        ("bitfit", "fp32", {}), ("layernorm_tuning", "fp32", {}), ("last_layers", "fp32", {}),
        ("full", "fp32", {}), ("lora", "fp32", CHECKPOINTED), ("full", "fp32", CHECKPOINTED),
        ("lora", "autocast", {}), ("full", "autocast", {}),
        ("full", "fp32", {"gradient_accumulation": 2}),
        ("full", "fp32", {"optimizer": "adafactor"}),
        ("full", "fp32", {"optimizer": "adamw_8bit"}),
        batch=4, length=64,
    ),
    *rows(
        "roberta-large",
        ("lora", "fp32", {}), ("full", "fp32", {}), ("lora", "fp32", CHECKPOINTED),
        ("lora", "int8", {}), ("lora", "nf4", {}),
        batch=2, length=64,
    ),
    *rows(
        "gpt2",
        ("lora", "fp32", {}), ("full", "fp32", {}), ("prefix_tuning", "fp32", {}),
        ("bottleneck", "fp32", {}), ("lora", "fp32", CHECKPOINTED),
        ("full", "autocast", CHECKPOINTED),
        batch=2, length=128,
    ),
    *rows("gpt2", ("lora", "bf16", {}), batch=1, length=16),
    *rows(
        "llama-3.2-1b",
        ("lora", "fp32", {}), ("lora", "fp32", CHECKPOINTED), ("prompt_tuning", "fp32", {}),
        ("ia3", "fp32", {}), ("bottleneck", "nf4+fp32", CHECKPOINTED),
        ("lora", "nf4+double+fp32", {}), ("lora", "int8+fp32", CHECKPOINTED),
        batch=1, length=32,
    ),
    *rows(
        "llama-3.1-8b",
        ("lora", "fp32", {}), ("lora", "fp32", CHECKPOINTED), ("lora", "nf4+fp32", CHECKPOINTED),
        ("lora", "nf4+double+fp32", {}), ("prefix_tuning", "nf4+fp32", {}),
        batch=1, length=16, blocks=4,
    ),
    *rows(
        "qwen2.5-7b",
        ("lora", "fp32", {}), ("bottleneck", "nf4+fp32", CHECKPOINTED), ("last_layers", "fp32", {}),
        batch=1, length=16, blocks=4,
    ),
]  # fmt: skip
ON_CUDA = [
    *rows(
        "bert-base-uncased",
        ("lora", "autocast", {}), ("full", "autocast", {}), ("bottleneck", "autocast", {}),
        ("prompt_tuning", "autocast", {}), ("lora", "fp32", {}), ("full", "fp32", {}),
        ("full", "fp32", CHECKPOINTED), ("full", "autocast", {"optimizer": "adamw_8bit"}),
        batch=32, length=256,
    ),
    *rows(
        "roberta-large",
        ("lora", "autocast", {}), ("full", "autocast", {}), ("full", "autocast", CHECKPOINTED),
        ("lora", "nf4", {}), ("lora", "int8", {}),
        batch=32, length=256,
    ),
    *rows(
        "gpt2",
        ("lora", "bf16", {}), ("full", "autocast", {}), ("prefix_tuning", "bf16", {}),
        ("full", "autocast", CHECKPOINTED),
        batch=16, length=512,
    ),
    *rows(
        "llama-3.2-1b",
        ("lora", "bf16", {}), ("lora", "bf16", CHECKPOINTED), ("full", "autocast", {}),
        ("full", "autocast", CHECKPOINTED), ("full:master_weights=bfloat16", "bf16", CHECKPOINTED),
        ("prompt_tuning", "bf16", {}), ("ia3", "bf16", {}), ("bottleneck", "bf16", {}),
        ("last_layers", "autocast", {}), ("lora", "nf4", CHECKPOINTED), ("lora", "int8", {}),
        batch=4, length=1024,
    ),
    *rows(
        "llama-3.1-8b",
        ("lora", "bf16", {}), ("lora", "bf16", CHECKPOINTED), ("lora", "nf4", CHECKPOINTED),
        ("lora", "nf4+double", CHECKPOINTED), ("lora", "nf4", {}), ("lora", "int8", CHECKPOINTED),
        ("prompt_tuning", "bf16", CHECKPOINTED), ("bottleneck", "nf4", CHECKPOINTED),
        ("lora", "nf4+double", {**CHECKPOINTED, "optimizer": "paged_adamw"}),
        batch=1, length=2048,
    ),
    *rows(
        "qwen2.5-7b",
        ("lora", "bf16", CHECKPOINTED), ("lora", "nf4", CHECKPOINTED), ("lora", "bf16", {}),
        batch=2, length=1024,
    ),
]  # fmt: skip


def is_causal(config: dict[str, Any]) -> bool:
    return config["architectures"][0].endswith(("ForCausalLM", "LMHeadModel"))


def measure(row: Row, backbone: Path) -> dict[str, Any]:
    """Train two steps of a row, and say what was predicted and what it took."""
    import torch

    from peftkit import Recipe
    from peftkit.device import device
    from peftkit.workbench import Workbench

    torch.set_num_threads(1)
    name, _, options = row.method.partition(":")
    method = {"name": name, **dict(option.split("=") for option in options.split(",") if option)}
    causal = is_causal(json.loads((backbone / "config.json").read_text()))
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        data = write_data(Path(folder) / "data", row, classes=not causal)
        recipe = Recipe(
            backbone={"name": str(backbone), **row.backbone},
            method=method,
            task={
                "name": "language_modeling" if causal else "text_classification",
                "data": str(data),
                "max_length": row.length,
            },
            training={"steps": 2, "batch_size": row.batch, "precision": row.computes_in,
                      **row.training},
            seed=0,
        )  # fmt: skip
        bench = Workbench(recipe, recipe.task.load(seed=0), Path(folder), memory_check="note")
        bench.backbone  # noqa: B018
        start = time.perf_counter()
        recipe.method.fit(bench)
        seconds = time.perf_counter() - start
    counted, expected = bench.trained.memory, bench.expected
    assert expected is not None, bench.notes
    measured = counted.peak_bytes
    found: dict[str, Any] = {
        "row": {**row.__dict__, "name": row.name},
        "device": torch.cuda.get_device_name() if device() == "cuda" else "cpu",
        "blocks": bench.backbone.model.config.num_hidden_layers,
        "parameters": bench.backbone.total_parameters,
        "trained": sum(p.numel() for p in bench.backbone.model.parameters() if p.requires_grad),
        "predicted_bytes": expected.peak_bytes,
        "predicted_parts": expected.parts,
        "counted_bytes": counted.peak_bytes,
        "counted_parts": counted.parts,
        "during": [expected.during, counted.during],
        "seconds": seconds,
    }
    if device() == "cuda":
        measured = torch.cuda.max_memory_allocated()
        found |= {
            "reserved_bytes": torch.cuda.max_memory_reserved(),
            "predicted_reserved_bytes": expected.reserved_bytes,
        }
    return found | {"measured_bytes": measured}


def write_data(folder: Path, row: Row, *, classes: bool) -> Path:
    """Rows of exactly `row.length` tokens of the toy tokenizer."""
    import pandas as pd

    folder.mkdir()
    length = row.length - 2 if classes else 4 * row.length
    count = 2 * row.batch * row.training.get("gradient_accumulation", 1)
    for split, number in (("train", max(count, 4)), ("validation", 2), ("test", 2)):
        texts = [" ".join(["data", *["model"] * (length - 2), str(i % 10)]) for i in range(number)]
        frame = pd.DataFrame({"text": texts})
        if classes:
            frame["label"] = ["a" if i % 2 else "b" for i in range(number)]
        frame.to_parquet(folder / f"{split}.parquet")
    return folder


def make_backbone(shape: str, blocks: int | None, folder: Path, *, smoke: bool) -> Path:
    """A folder with random weights of a shape, and a toy tokenizer."""
    import torch
    import transformers

    from peftkit.backbones import toy_tokenizer

    body = json.loads((SHAPES / f"{shape}.json").read_text())
    config = transformers.AutoConfig.for_model(**body)
    if smoke:
        blocks = 8
    if blocks:
        config.num_hidden_layers = blocks
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:blocks]
    if smoke:
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
        for name, value in {"hidden_size": 64, "intermediate_size": 128, **heads}.items():
            if hasattr(config, name):
                setattr(config, name, value)
    config.pad_token_id = 0
    causal = is_causal(body)
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    dtype = torch.float32 if config.hidden_size <= 1024 else torch.bfloat16
    auto.from_config(config, dtype=dtype).save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


def beside(found: dict[str, Any]) -> dict[str, int]:
    """What others say of the same row."""
    from accelerate.commands.estimate import estimate_training_usage

    count, precision = found["parameters"], found["row"]["precision"]
    kind = "float32" if precision.endswith("fp32") else "bfloat16"
    size = 4 * count  # of the model in float32, as the command counts
    parts = estimate_training_usage(size, kind)
    return {"accelerate": max(parts.values()), "rule_of_16": 16 * count}


def table(folder: Path) -> str:
    """Markdown of all rows there are."""
    found = [json.loads(path.read_text()) for path in sorted((folder / "rows").glob("*.json"))]
    done = [each for each in found if "measured_bytes" in each]
    head = (
        "| shape | blocks | method | precision | batch x length | training | trained "
        "| measured GiB | predicted GiB | error % | where "
        "| accelerate, error % | 16 bytes, error % |"
    )
    lines = [
        head,
        "| :--- | ---: |" + " :--- |" * 4 + " ---: |" * 4 + " :--- | ---: | ---: |",
    ]
    errors: dict[str, list[float]] = {"peftkit": [], "accelerate": [], "rule_of_16": []}
    for each in done:
        row, truth = each["row"], each["measured_bytes"]
        error = {"peftkit": each["predicted_bytes"], **beside(each)}
        error = {name: 100 * (value / truth - 1) for name, value in error.items()}
        for name, value in error.items():
            errors[name].append(value)
        options = ", ".join(f"{k} {v}" for k, v in row["training"].items()).replace("_", " ")
        lines.append(
            f"| {row['shape']} | {each['blocks']} | `{row['method']}` | {row['precision']} "
            f"| {row['batch']} x {row['length']} | {options or '-'} | {each['trained']:,} "
            f"| {truth / GIB:.3f} | {each['predicted_bytes'] / GIB:.3f} | {error['peftkit']:+.2f} "
            f"| {each['during'][1]} | {error['accelerate']:+.0f} | {error['rule_of_16']:+.0f} |"
        )
    failed = [f"- {each['row']['name']}: {each['error']}" for each in found if "error" in each]
    summary = [
        f"- {name.replace('_', ' ')}: median error {median(map(abs, values)):.2f} %, "
        f"worst {max(values, key=abs):+.2f} %, furthest below the truth {min(values):+.2f} %"
        for name, values in errors.items()
        if values
    ]
    devices = ", ".join(sorted({each["device"] for each in done}))
    title = f"# Memory of a training step, predicted and measured\n\n{len(done)} rows on {devices}."
    truth = (
        "Measured: live storages of the step, counted."
        if devices == "cpu"
        else "Measured: `torch.cuda.max_memory_allocated`."
    )
    text = [title, truth, "\n".join(summary), "\n".join(lines)]
    if failed:
        text.append("Not measured:\n\n" + "\n".join(failed))
    return "\n\n".join(text) + "\n"


def run_row(row: Row, backbone: Path, out: Path, *, alone: bool) -> None:
    """Measure a row, on CUDA in a process of its own; whatever happens leaves a file."""
    started = time.monotonic()
    try:
        body = _in_a_process(row, backbone) if alone else measure(row, backbone)
    except Exception as error:
        body = {"row": {**row.__dict__, "name": row.name}, "error": f"{error!r:.300}"}
    path = out / "rows" / f"{row.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=1) + "\n")
    gc.collect()
    said = body.get("error") or (
        f"{body['predicted_bytes'] / GIB:.3f} of {body['measured_bytes'] / GIB:.3f} GiB"
    )
    print(f"{row.name}: {said} ({time.monotonic() - started:.0f} s)", flush=True)


def _in_a_process(row: Row, backbone: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", row.name, "--backbone", str(backbone)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["?"])[-1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of the names of rows")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--smoke", action="store_true", help="tiny widths, into a temporary folder")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--backbone", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    import torch

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    wanted = ON_CUDA if device == "cuda" else ON_CPU
    if args.one:
        row = next(row for row in [*ON_CPU, *ON_CUDA] if row.name == args.one)
        print(json.dumps(measure(row, args.backbone)))
        return
    out = args.out or ROOT / "benchmarks" / "results" / f"memory_{device}"
    if args.smoke:
        out = Path(tempfile.mkdtemp(prefix="memory-"))
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    left = [row for row in wanted if not (out / "rows" / f"{row.name}.json").exists()]
    left = [row for row in left if not args.names or any(name in row.name for name in args.names)]
    print(f"{len(left)} of {len(wanted)} rows to run, into {out}", flush=True)
    large = Path("/dev/shm") if Path("/dev/shm").is_dir() and device == "cuda" else None
    for key in dict.fromkeys((row.shape, row.blocks) for row in left):
        folder = Path(tempfile.mkdtemp(prefix="shape-", dir=large))
        try:
            make_backbone(*key, folder, smoke=args.smoke)
            for row in left:
                if (row.shape, row.blocks) == key:
                    run_row(row, folder, out, alone=device == "cuda")
                    (out / "table.md").write_text(table(out))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(table(out) if (out / "rows").is_dir() else "nothing")


if __name__ == "__main__":
    main()
