"""ONNX Runtime beside torch: are answers equal, and how long do they take?

    python benchmarks/exporting.py [NAME ...] [--smoke] [--repeats 30]

A classifier, a tagger, a question answerer and a small decoder are trained with LoRA for a few
steps, exported by `peftkit export --format onnx`, and run on the same test rows, one core, in
one process: torch with the adapter merged, torch with it beside, and ONNX Runtime in turn, batch
after batch, so that all meet the same machine. A batch has 1 or 16 rows, of 64 tokens. Written to
benchmarks/results/exporting.md: the largest difference of a logit over all rows, the median
seconds of a batch, and ratios of medians, which are what may be compared across machines.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftkit import Recipe, run
from peftkit.environment import environment, quiet_libraries
from peftkit.record import write_atomically

ROOT = Path(__file__).parent.parent
OUT = ROOT / "benchmarks" / "results" / "exporting.md"
SHARED = ROOT.parent / "shared"
STEPS, TOKENS, BATCHES = 20, 64, (1, 16)
HEAD = """# ONNX Runtime beside torch

Written by `python benchmarks/exporting.py`: LoRA of rank 8 on all linear layers, {steps} steps,
float32, one thread. Differences are over {rows} validation rows in batches of several shapes;
seconds are medians of {repeats} batches of {tokens} tokens a row, all ways in turn in one process.

| model | rows | largest difference | largest logit | equal | torch, beside, ms \
| torch, merged, ms | ONNX Runtime, ms | ONNX / merged |
| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained, and exported."""

    task: dict[str, Any]
    backbone: str = "bundled"
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "classifier": Case(task={"name": "text_classification", "data": "pydocs/library"}),
    "tagger": Case(task={"name": "token_classification", "data": "pydocs/parameters"}),
    "question answerer": Case(
        task={"name": "question_answering", "data": "pydocs/defaults", "max_length": 160}
    ),
    "decoder": Case(
        task={"name": "language_modeling", "data": str(SHARED / "data" / "tiny_shakespeare")},
        backbone=str(SHARED / "backbones" / "stories260k-llama"),
    ),
}


def recipe_of(case: Case, *, smoke: bool) -> Recipe:
    from peftkit.smoke import shrink

    recipe = Recipe(
        backbone=case.backbone,
        method="lora",
        task={**case.task, "size": 64},
        training={"steps": STEPS, "batch_size": 16, "precision": "float32"},
        seed=0,
    )
    return shrink(recipe) if smoke else recipe


def row(name: str, case: Case, args: argparse.Namespace, folder: Path) -> list[str]:
    """Lines of the table: one a size of batch."""
    from peftkit.exporting.adapted import load_adapted
    from peftkit.exporting.onnx_model import OnnxModel
    from peftkit.exporting.performing import export
    from peftkit.formats.onnx import ONNX

    run(recipe_of(case, smoke=args.smoke), folder / "run", limit=64)
    found = export(folder / "run", ONNX(), folder / "onnx", rows=args.rows)
    beside = load_adapted(folder / "run", rows=2)
    merged = load_adapted(folder / "run", rows=2)
    scale = load_adapted(folder / "run", rows=args.rows).scale
    ways = {
        "beside": beside.model,
        "merged": merged.folded(),
        "onnx": OnnxModel(folder / "onnx" / "model.onnx"),
    }
    lines = []
    for size in BATCHES:
        inputs = filled(beside.batches[0], size)
        seconds = timed(ways, inputs, args.repeats)
        cells = [name, size, f"{found.largest_difference:.1e}", f"{scale:.1f}"]
        cells.append(f"{found.equal_predictions:.0%}")
        cells += [f"{1000 * seconds[way]:.2f}" for way in ways]
        cells.append(f"{seconds['onnx'] / seconds['merged']:.2f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def filled(batch: dict[str, Any], size: int) -> dict[str, Any]:
    """`size` rows of `TOKENS` tokens, by repeating those of a batch: their values do not matter."""
    repeats = -(-TOKENS // batch["input_ids"].shape[1])
    return {name: v[:1].repeat(size, repeats)[:, :TOKENS] for name, v in batch.items()}


def timed(
    ways: dict[str, Callable[..., Any]], inputs: dict[str, Any], repeats: int
) -> dict[str, float]:
    """Median seconds of each, all taking turns; the first turn does not count."""
    import torch

    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for way, model in ways.items():
                start = time.perf_counter()
                model(**inputs)
                if turn:
                    seconds[way].append(time.perf_counter() - start)
    return {way: statistics.median(values) for way, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--smoke", action="store_true", help="tiny twins, into a temporary folder")
    args = parser.parse_args()
    import torch

    quiet_libraries()
    torch.set_num_threads(1)
    for name in args.names or CASES:
        with tempfile.TemporaryDirectory(prefix="exporting-") as folder:
            lines = row(name, CASES[name], args, Path(folder))
        print(*lines, sep="\n", flush=True)
        if not args.smoke:
            write(name, lines, args)


def write(name: str, lines: list[str], args: argparse.Namespace) -> None:
    """Put a case's lines into the table; those of others stay as they were found before."""
    head = HEAD.format(steps=STEPS, rows=args.rows, repeats=args.repeats, tokens=TOKENS)
    old = OUT.read_text(encoding="utf-8").splitlines() if OUT.is_file() else []
    found = {each: [line for line in old if line.startswith(f"| {each} |")] for each in CASES}
    found[name] = lines
    about = environment()
    versions = {name: about["versions"][name] for name in ("torch", "transformers", "peft")}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    table = "\n".join(line for each in found.values() for line in each)
    end = f"On one thread of an {about['device_name']}; {shown}."
    write_atomically(OUT, f"{head}{table}\n\n{end}\n")


if __name__ == "__main__":
    main()
