"""`peftkit compare`: from flags to a comparison, and its table at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.distributed import require_one_process
from peftkit.errors import InvalidInput, UnknownName
from peftkit.fields import checked
from peftkit.flags import read_flags
from peftkit.overrides import read_mapping

if TYPE_CHECKING:
    from peftkit.study import Comparison, Plan

USAGE = """\
peftkit compare [--methods A,B,...] [--task NAME] [--sizes N,N] [--seeds N] [--out DIR] [OPTIONS]

  --methods A,B         methods; options in brackets: lora,lora:rank=64,full
  --sizes N,N           training examples, nested subsets (default 128,512)
  --noises R,R          shares of wrong training labels (default 0)
  --seeds N             seeds 0 to N-1 (default 2)
  --out DIR             records, tables, plots, models (default out/compare)
  --workers N           cells at a time (default: cores over threads, or one a GPU)
  --keep-weights WHICH  best (a method), all, none (default best)
  --force               run even cells that would not fit into memory, by prediction
  --engine ray          on a Ray cluster: this machine, or --address of one that runs
  --dry-run             list the cells, time and disk, and stop
"""
# The ladder in nine rungs: what no transformer, no training, a new head, four small adapters, all
# parameters, and no pretraining come to.
LADDER = (
    "tfidf", "none", "linear_probe", "prompt_tuning", "bitfit", "lora", "bottleneck", "full",
    "scratch",
)  # fmt: skip
SHARED = ("backbone", "task", "training")  # by all cells
OUT = "out/compare"
EXTRAS: dict[str, Any] = {
    "methods": tuple[str, ...],
    "sizes": tuple[str, ...],
    "noises": tuple[float, ...],
    "seeds": str,
    "out": str,
    "workers": int,
    "keep_weights": str,
    "engine": str,
    "address": str,
    "force": bool,
    "dry_run": bool,
    "quiet": bool,
}


def compare_command(argv: list[str]) -> None:
    """Run a comparison and report it, or only say what it would do."""
    require_one_process("compare")
    changes, own = read_flags(argv, extras=EXTRAS)
    dry, quiet = own.pop("dry_run", False), own.pop("quiet", False)
    comparison = _comparison(changes, own)
    if dry:
        print(describe_plan(comparison.plan()), end="")
        return
    comparison.run(quiet=quiet)
    from peftkit.reporting import report

    report(comparison.out)


def _comparison(changes: dict[str, Any], own: dict[str, Any]) -> Comparison:
    from peftkit.study import Comparison

    body: dict[str, Any] = {"task": "pydocs/library"}
    if "config" in changes:
        given = read_mapping(checked(changes.pop("config"), str, "config"))
        for part in given:  # a whole recipe may be given; method and seed are the grid's
            if part not in (*SHARED, "method", "seed"):
                raise UnknownName("part of a recipe", part, SHARED)
        body |= {part: given[part] for part in SHARED if part in given}
    body |= {part: str(changes.pop(part)) for part in ("backbone", "task") if part in changes}
    if "task.data" in changes and isinstance(body["task"], str):  # most tasks cannot be without it
        body["task"] = {"name": body["task"], "data": changes.pop("task.data")}
    if "seeds" in own:
        own["seeds"] = seeds_of(own["seeds"])
    if "sizes" in own:
        own["sizes"] = [size_of(size) for size in own["sizes"]]
    return Comparison(**{"methods": LADDER, "out": OUT, **own}, options=changes, **body)


def seeds_of(text: str) -> int | list[int]:
    """Read seeds: `3` is how many, `0,4,7` are which, and `4,` is the one."""
    try:
        listed = [int(seed) for seed in text.split(",") if seed.strip()]
        return listed if "," in text else int(text)
    except ValueError:
        raise InvalidInput(
            "seeds cannot be read", received=text, allowed="how many (3) or which (0,4,7)"
        ) from None


def size_of(text: str) -> Any:
    """Read a size: a number of examples, or `all`."""
    if text == "all":
        return text
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(
            "sizes cannot be read", received=text, allowed="numbers of examples, or all: 128,512"
        ) from None


def describe_plan(plan: Plan) -> str:
    """Return what a comparison would run, how long it may take, and what it needs of the disk."""
    from peftkit.study.display import duration

    lines = [f"{len(plan.cells)} cells, {len(plan.waiting)} to run, {plan.slots} at a time:"]
    for cell in plan.cells:
        if cell.key in plan.settled:
            state = f"settled ({plan.settled[cell.key].status})"
        else:
            seconds = plan.predicted_seconds(cell)
            state = "time unknown" if seconds is None else f"about {duration(seconds)}"
        lines.append(f"  {cell.key}  {cell.title:50}  {state}")
    whole = "unknown until a cell has run" if plan.seconds is None else duration(plan.seconds)
    lines.append(f"time: {whole}")
    lines.append(
        f"disk: at most {plan.disk_needed_bytes / 1e6:.0f} MB of "
        f"{plan.disk_free_bytes / 1e9:.0f} GB free in {plan.folder.path}"
    )
    return "\n".join([*lines, *plan.messages]) + "\n"
