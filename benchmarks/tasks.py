"""The ladder on one data set of each kind of task: benchmarks/results/NAME for each.

    python benchmarks/tasks.py [NAME ...] [--smoke]

Two seeds, on the CPU, sizes and steps such that a table takes minutes. Where `searched`, each
method is first tried at a third of, once and three times its default learning rate, so as many
trials for each, with half the steps on one seed, and goes on at the rate that was best on the
validation rows; elsewhere every method has its default rate. All of it can be killed and goes on;
what was tried is kept in learning_rates.json, beside the records of the table.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftkit import Recipe, compare, parts
from peftkit.record import Record, write_atomically
from peftkit.reporting import report
from peftkit.settings import Training

ROOT = Path(__file__).parent.parent
SHARED = "../shared"
FACTORS = (1 / 3, 1.0, 3.0)
LADDER = ("none", "linear_probe", "prompt_tuning", "lora", "bottleneck", "full", "scratch")
BASES = (
    "",  # float32
    "backbone.dtype=bfloat16",
    "backbone.quantization=int8",
    "backbone.quantization=nf4",
    "backbone.quantization=nf4,backbone.double_quantization=true",
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One comparison: what is learned, from what, and for how long."""

    task: dict[str, Any]
    size: int | None
    backbone: str = "bundled"
    methods: tuple[str, ...] = LADDER
    training: dict[str, Any] = field(default_factory=dict)
    searched: bool = False

    def steps(self) -> int:
        return Training(**self.training).num_steps(self.size or 0)


def on_every_base(*methods: str) -> tuple[str, ...]:
    """Each method on weights of each width."""
    return tuple(f"{method}:{base}".rstrip(":") for method in methods for base in BASES)


def shared(task: str, data: str, **options: Any) -> dict[str, Any]:
    return {"name": task, "data": f"{SHARED}/data/{data}", **options}


TABLES = {
    "clinc150": Table(
        task=shared("text_classification", "clinc150"),
        size=1510,
        methods=tuple(parts.find("method")),
        searched=True,
    ),
    "wnut17": Table(task=shared("token_classification", "wnut17"), size=1024),
    "pydocs_parameters": Table(
        task={"name": "token_classification", "data": "pydocs/parameters"}, size=1024
    ),
    "pydocs_defaults": Table(
        task={"name": "question_answering", "data": "pydocs/defaults", "max_length": 160},
        size=512,
        training={"steps": 125},
    ),
    "squad_small": Table(
        task=shared("question_answering", "squad_small", max_length=192),
        size=512,
        training={"steps": 125},
    ),
    "sign_digits": Table(
        task=shared("image_classification", "sign_digits"),
        backbone=f"{SHARED}/backbones/vit-tiny-patch16-224",
        size=512,
        training={"steps": 125},
    ),
    "fsdd": Table(
        task=shared("audio_classification", "fsdd", max_seconds=1.0),
        backbone=f"{SHARED}/backbones/whisper-tiny.en-encoder",
        size=256,
        training={"steps": 125},
    ),
    "g2p_gb": Table(
        task=shared("pronunciation", "g2p_gb", target_tokenizer="phoneme_tokenizer"),
        backbone=f"{SHARED}/backbones/bart-g2p-en-us",
        size=4096,
        searched=True,
    ),
    "e2e_nlg": Table(
        task=shared("data_to_text", "e2e_nlg", max_length=256, max_new_tokens=96),
        backbone=f"{SHARED}/backbones/stories260k-llama",
        size=1024,
    ),
    "pydocs_summary": Table(
        task={"name": "summarization", "data": "pydocs/summary", "max_length": 384},
        backbone=f"{SHARED}/backbones/stories260k-llama",
        size=1024,
    ),
    "bits": Table(
        task=shared("text_classification", "banking77"),
        size=512,
        methods=on_every_base("prompt_tuning", "lora", "bottleneck"),
        # Few, because most CPUs only emulate the arithmetic of a base in bfloat16.
        training={"steps": 48},
    ),
    "tiny_shakespeare": Table(
        task=shared("language_modeling", "tiny_shakespeare"),
        backbone=f"{SHARED}/backbones/stories260k-llama",
        size=None,
        training={"steps": 250},
        searched=True,
    ),
}


def at_rate(method: str, rate: float) -> str:
    return f"{method}:training.learning_rate={rate:g}"


def rates_of(method: str) -> list[float]:
    """The rates to try; none for a method that knows no learning rate."""
    rate = parts.load("method", method).learning_rate
    return [] if rate is None else [float(f"{rate * factor:.2g}") for factor in FACTORS]


def validation(record: Record) -> float:
    """The metric that is chosen by, the higher the better; failures come last."""
    if record.status != "done":
        return float("-inf")
    task = Recipe.from_dict(record.recipe).task
    value = record.metrics["validation"][task.metric]
    return value if task.higher_is_better else -value


def search(table: Table, out: Path, settings: dict[str, Any]) -> dict[str, float]:
    """The best rate of each method; what was tried is written down."""
    steps = max(1, table.steps() // 2)
    settings = {**settings, "training": {**table.training, "steps": steps}, "seeds": 1}
    tried = [at_rate(m, rate) for m in table.methods for rate in rates_of(m)]
    found: dict[str, dict[float, Record]] = {}
    for record in compare(tried, out=out / "search", **settings):
        rate = Recipe.from_dict(record.recipe).learning_rate
        found.setdefault(record.method, {})[rate] = record
    best = {
        method: max(records, key=lambda rate: validation(records[rate]))
        for method, records in found.items()
        if any(record.status == "done" for record in records.values())
    }
    chosen = {
        "rule": f"best on the validation rows of three rates, one seed, {steps} steps",
        "tried": {
            method: {f"{rate:g}": record.metrics["validation"] for rate, record in records.items()
                     if record.status == "done"}
            for method, records in found.items()
        },
        "chosen": best,
    }  # fmt: skip
    write_atomically(out / "learning_rates.json", json.dumps(chosen, indent=2) + "\n")
    return best


def fill(name: str, table: Table, out: Path, options: dict[str, object]) -> None:
    settings: dict[str, Any] = {
        "task": table.task,
        "backbone": table.backbone,
        "options": options,
        "sizes": [table.size],
        "keep_weights": "none",
    }
    best = search(table, out, settings) if table.searched else {}
    methods = [at_rate(m, best[m]) if m in best else m for m in table.methods]
    compare(methods, out=out, training=table.training, seeds=2, **settings)
    report(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TABLES)}")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--smoke", action="store_true", help="a few steps, into a temporary folder")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in TABLES]
    if unknown:
        parser.error(f"unknown table {unknown[0]!r}; there are {', '.join(TABLES)}")
    options: dict[str, object] = {}
    if args.smoke:
        args.out = Path(tempfile.mkdtemp(prefix="tasks-"))
        options = {"training.steps": 3}
    for name in args.names or TABLES:
        print(f"== {name}", flush=True)
        fill(name, TABLES[name], args.out / name, options)


if __name__ == "__main__":
    main()
