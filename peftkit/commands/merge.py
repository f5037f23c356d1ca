"""`peftkit merge`: a run's adapter merged into its base, and proven equal before it is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit import quantities
from peftkit.errors import InvalidInput
from peftkit.flags import read_options

if TYPE_CHECKING:
    from peftkit.merging.comparing import Comparison
    from peftkit.merging.performing import Merged

USAGE = """\
peftkit merge RUN --out DIR [--dtype float32] [--base ROUTE] [--rows 64] [OPTIONS]

  RUN                 folder of a finished run that left an adapter
  --out DIR           the merged model: a folder that transformers loads, and peftkit
  --dtype NAME        float32, bfloat16 or float16 (default that of the base); sums are in float32
  --base ROUTE        where the base was quantised, what lies under the update:
                      dequantized  what it was trained against (default)
                      original     the weights before they were packed
                      requantized  original, packed again: outputs move, and no bound holds
  --rows N            validation rows that prove it, in a fresh process (default 64)
  --overwrite         replace an earlier merge in DIR
  --allow-other-base  merge into a base that has changed since
  --json              the proof as JSON
"""
EXTRAS = {
    "out": str, "dtype": str, "base": str, "rows": int, "overwrite": bool, "json": bool,
    "allow_other_base": bool,
}  # fmt: skip


def merge_command(argv: list[str]) -> None:
    """Merge, and print the proof."""
    if not argv or argv[0].startswith("-"):
        raise InvalidInput("the folder of the run is missing", allowed=USAGE.splitlines()[0])
    own = read_options(argv[1:], EXTRAS)
    if "out" not in own:
        raise InvalidInput("no folder for the merged model", next_step="add --out DIR")
    from peftkit.merging.performing import merge_run

    done = merge_run(
        Path(argv[0]),
        Path(own["out"]),
        base=own.get("base"),
        dtype=own.get("dtype"),
        num_rows=own.get("rows", 64),
        overwrite=bool(own.get("overwrite")),
        allow_other_base=bool(own.get("allow_other_base")),
    )
    print(json.dumps(done.to_dict(), indent=2) if own.get("json") else _told(done), end="")


def _told(done: Merged) -> str:
    request = done.request
    method = request.manifest["recipe"]["method"]["name"]
    under = "" if request.base == "plain" else f", on {request.base} weights"
    lines = [
        ("merged", f"{method}, to {request.dtype}{under}"),
        *_compared("adapted", done.to_adapted, bound=done.binds(done.to_adapted)),
    ]
    if done.to_unmerged is not None:
        lines += _compared("unmerged", done.to_unmerged, bound=True)
    spent = ", ".join(f"{quantities.seconds(v)} to {k}" for k, v in done.seconds.items())
    lines += [
        ("time", spent),
        ("on disk", quantities.size_in_bytes(done.num_bytes)),
        ("saved", f"{done.folder} (use it: peftkit predict {done.folder} --text ...)"),
    ]
    if done.reads:
        note = f"the head reads the {done.reads} of the tokens, which transformers' own does not"
        lines.append(
            ("note", f"{note}: load it with peftkit, or train with --backbone.pooling model")
        )
    return "".join(f"{name:11} {text}\n" for name, text in lines)


def _compared(name: str, found: Comparison, *, bound: bool) -> list[tuple[str, str]]:
    """The lines of one comparison."""
    whole = found.to_dict()
    allowed = f" (bound {whole['tolerance']:.2g})" if bound else " (no bound)"
    if found.kept is not None:
        allowed += f", {quantities.percent(found.kept)} of what the adapter does"
    same = found.agreement
    lines = [
        (
            f"to {name}",
            f"logits differ by up to {same.largest_difference:.2g}{allowed}, KL {same.kl:.2g} "
            f"nats, {quantities.percent(same.equal_predictions)} equal predictions "
            f"({same.num_rows} vectors)",
        )
    ]
    if name == "adapted":
        told = (f"{n} {before:.4f} -> {after:.4f}" for n, (before, after) in same.metrics.items())
        lines.append(("metrics", ", ".join(told)))
    return lines
