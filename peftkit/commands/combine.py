"""`peftkit combine`: several adapters of one backbone made into one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput
from peftkit.flags import leading, read_options

if TYPE_CHECKING:
    from peftkit.combining import Combined

USAGE = """\
peftkit combine RUN [RUN ...] --out DIR [--method NAME] [--weights 1,0.5,-1] [OPTIONS]

  RUN               folders of runs of lora, in any of its variants, on one backbone
  --out DIR         folder for the result: an adapter again, that stock PEFT loads
  --method NAME     linear (default)  weighted sum of the updates; exact
                    svd               the same, cut to --rank or --energy; always a plain LoRA
                    cat               the same, factors beside one another; ranks add up
                    task_arithmetic   the same, weights 1 each unless given (Ilharco et al. 2023)
                    ties              trim, elect signs, disjoint mean (Yadav et al. 2023)
                    dare_linear       drop at random, rescale, add (Yu et al. 2024)
                    dare_ties         drop at random, rescale, elect signs, disjoint mean
  --weights W,W     one a run; negative takes away (default the mean; 1 each for task_arithmetic,
                    ties and dare_ties)
  --rank N          of the result (default: what is exact; the largest of the runs for svd; the
                    sum of the runs' for ties and dare)
  --energy SHARE    instead: the share of each layer's squared norm to keep, such as 0.99
  --density SHARE   of ties and dare: the share of entries kept (default 0.5)
  --seed N          of dare (default 0)
  --head RUN        take this run's head, labels and task (default the weighted mean of the heads,
                    where all are of one task with the same labels)
  --overwrite       replace what DIR holds
  --json            print one JSON object

Updates are combined as PEFT applies them: rsLoRA's scales, DoRA's lengths, patterns of ranks and
alphas, and biases count. Sums of DoRA are a DoRA again; svd, ties and dare make a plain LoRA.
"""
EXTRAS: dict[str, Any] = {
    "out": str, "method": str, "weights": tuple[float, ...], "rank": int, "energy": float,
    "density": float, "seed": int, "head": str, "overwrite": bool, "json": bool,
}  # fmt: skip
ASKED = ("method", "weights", "rank", "energy", "density", "seed")
NOT_OF_LOW_RANK = 0.1
"""Relative error above which it is said what rank would do: 1 % of the squared norm is lost."""


def combine_command(argv: list[str]) -> None:
    """Combine, and print what was lost in it."""
    runs = leading(argv)
    own = read_options(argv[len(runs) :], EXTRAS)
    for what, value in {"folder of a run": runs, "--out": own.get("out")}.items():
        if not value:
            raise InvalidInput(f"the {what} is missing", allowed=USAGE.splitlines()[0])
    from peftkit.combining import Request, combine_runs

    request = Request(**{name: own[name] for name in ASKED if name in own})
    combined = combine_runs(
        runs, own["out"], request, head=own.get("head"), overwrite=bool(own.get("overwrite"))
    )
    if own.get("json"):
        print(json.dumps({"out": str(combined.out), **combined.to_dict()}))
    else:
        print("\n".join(describe(combined, [Path(run) for run in runs])))


def describe(combined: Combined, runs: list[Path]) -> list[str]:
    """Lines that say what was done, and what of the updates was lost."""
    width = max(len(layer.name) for layer in combined.layers)
    given = ", ".join(f"{w:g} x {run}" for w, run in zip(combined.weights, runs, strict=True))
    lines = [f"{combined.method}: {given}", ""]
    lines.append(f"{'layer':{width}}  {'rank':>5}  {'norm':>9}  lost (relative Frobenius norm)")
    for layer in combined.layers:
        numbers = f"{layer.rank:5}  {layer.norm:9.3g}  {layer.error:.1e}"
        lines.append(f"{layer.name:{width}}  {numbers}")
    whole = f"{'all':{width}}  {combined.rank:5}  {'':9}  {combined.error:.1e}"
    lines += [whole, "", f"Head: {combined.head}."]
    if combined.error > NOT_OF_LOW_RANK:
        needed = max(layer.rank_for_99_percent for layer in combined.layers)
        kept = 1 - combined.error**2
        lines.append(
            f"The combined update is not of low rank: rank {combined.rank} holds {kept:.1%} of its "
            f"squared norm. 99 % takes ranks up to {needed}: --energy 0.99."
        )
    return [*lines, f"Wrote a {combined.kind} to {combined.out}."]
