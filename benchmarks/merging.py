"""What a merge costs: KL of merged to adapted, by route and number format, on a trained adapter.

    python benchmarks/merging.py [--steps 120] [--rows 256] [--out benchmarks/results/merging.md]

LoRA (rank 8, all linear layers) on the bundled encoder, all-MiniLM-L6-v2, for pydocs/library, 512
training examples, on a base that is plain, int8 or nf4; each adapter is then merged on every route
and to every number format, by `peftkit merge`'s own code, and compared on validation rows with the
model as it was trained. One seed: the table orders routes, it is no estimate for other models.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from peftkit import Recipe, run
from peftkit.environment import environment, quiet_libraries
from peftkit.errors import VerificationFailed
from peftkit.merging.performing import Merged, merge_run
from peftkit.record import write_atomically

ROUTES = {
    "none": ("plain",),
    "int8": ("dequantized", "original", "requantized"),
    "nf4": ("dequantized", "original", "requantized"),
}
DTYPES = ("float32", "bfloat16", "float16")
HEAD = """# Merged against adapted

Written by `python benchmarks/merging.py`. LoRA of rank 8 on all linear layers of all-MiniLM-L6-v2,
{steps} steps on 512 examples of pydocs/library, seed 0; {rows} validation rows. KL is that of
adapted || merged, the mean over rows in nats; the difference is the largest of a logit. All is
computed in float32 arithmetic. "KL to unmerged" is that to the same adapter, not merged, on the
dense weights of the route: what rounding to the format cost, apart from the route. Merges that are
packed again have no bound to meet.

{columns}
{rule}
"""
COLUMNS = (
    "base", "route", "written as", "KL to adapted", "largest difference", "largest logit",
    "equal predictions", "accuracy before, after", "KL to unmerged", "proven",
)  # fmt: skip


def main() -> None:
    """Train once a base, merge on every route, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/merging.md"))
    asked = parser.parse_args()
    quiet_libraries()
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="peftkit-merging-") as temporary:
        for bits, routes in ROUTES.items():
            folder = Path(temporary) / bits
            run(_recipe(bits, asked.steps), folder)
            for route in routes:
                for dtype in DTYPES if route != "requantized" else DTYPES[:1]:
                    lines.append(_line(folder, bits, route, dtype, asked.rows))
                    print(lines[-1], flush=True)
                    write_atomically(asked.out, _table(lines, asked.steps, asked.rows))


def _table(lines: list[str], steps: int, rows: int) -> str:
    columns, rule = f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"
    head = HEAD.format(steps=steps, rows=rows, columns=columns, rule=rule)
    versions = ", ".join(f"{name} {each}" for name, each in environment()["versions"].items())
    return "\n".join([head.rstrip(), *lines, "", f"Versions: {versions}.", ""])


def _recipe(bits: str, steps: int) -> Recipe:
    return Recipe(
        backbone={"name": "bundled", "quantization": bits},
        method="lora",
        task={"name": "text_classification", "data": "pydocs/library", "size": 512},
        training={"steps": steps, "precision": "float32"},
    )


def _line(folder: Path, bits: str, route: str, dtype: str, rows: int) -> str:
    """One row of the table."""
    base = None if route == "plain" else route
    try:
        done = merge_run(
            folder, folder / "merged", base=base, dtype=dtype, num_rows=rows, overwrite=True,
            fresh_process=False,
        )  # fmt: skip
    except VerificationFailed as error:
        return f"| {bits} | {route} | {dtype} | refused: {error} |"
    return "| " + " | ".join((bits, route, dtype, *_cells(done))) + " |"


def _cells(done: Merged) -> list[str]:
    same: Any = done.to_adapted.agreement
    before, after = same.metrics["accuracy"]
    unmerged = done.to_unmerged
    bound = done.request.base != "requantized"
    return [
        f"{same.kl:.1e}",
        f"{same.largest_difference:.1e}",
        f"{done.to_adapted.scale:.1f}",
        f"{100 * same.equal_predictions:.1f} %",
        f"{before:.3f}, {after:.3f}",
        f"{unmerged.agreement.kl:.1e}" if unmerged else "-",
        "yes" if bound else "no bound",
    ]


if __name__ == "__main__":
    main()
