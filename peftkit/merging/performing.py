"""A run's adapter merged into its base, from request to verified folder.

1. The adapted model says what it says of some validation rows, with its adapter and without.
2. The merged model is written into a folder beside the target.
3. A fresh process loads that folder and says the same, or not.
4. Only then does the folder get its name; else it is deleted.

Where the base was quantised, merged weights are compared twice: with the adapter, unmerged, on the
dense weights of the route taken, which tells whether the merge is right (before they are packed
again, where they are); and with the model as it was trained, which tells what the route costs. int8
layers round what they read, too, so only nf4 and fp4 layers compute exactly what their weights
stand for.

One model is in memory at a time, in float32; writing takes less, see `peftkit.merging.shards`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput, VerificationFailed
from peftkit.merging.request import BYTES, Request, check_request
from peftkit.placing import require_room, whole_folder
from peftkit.verification import tolerance

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from peftkit.merging.comparing import Comparison
    from peftkit.merging.observing import Observed
    from peftkit.saved import SavedRun


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge left, and how it was proven.

    Attributes:
        folder: A model that transformers loads, and `peftkit.load_run`.
        request: What was asked for.
        to_adapted: The merged model against the adapted one as it was trained.
        to_unmerged: Against the adapter, unmerged, on the dense weights of the route; None where
            that is the adapted model itself, or the merged one is packed again.
        num_bytes: Of the folder.
        seconds: Wall seconds of the merge itself, and of its verification.
        reads: What the head reads of the tokens, where transformers' own head reads something else:
            without peftkit the model would then answer otherwise.
    """

    folder: Path
    request: Request
    to_adapted: Comparison
    to_unmerged: Comparison | None
    num_bytes: int
    seconds: dict[str, float]
    reads: str | None = None

    def binds(self, comparison: Comparison) -> bool:
        """Whether a comparison had to hold."""
        return comparison is self.to_unmerged or _is_exact(self.request)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "method": self.request.manifest["recipe"]["method"],
            "base": self.request.base,
            "dtype": self.request.dtype,
            "to_adapted": self.to_adapted.to_dict(),
            "to_unmerged": self.to_unmerged.to_dict() if self.to_unmerged else None,
            "num_bytes": self.num_bytes,
            "head_reads": self.reads,
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
        }


def merge_run(
    run: Path | str,
    out: Path | str,
    *,
    base: str | None = None,
    dtype: str | None = None,
    num_rows: int = 64,
    overwrite: bool = False,
    allow_other_base: bool = False,
    fresh_process: bool = True,
) -> Merged:
    """Merge the adapter of a run into its base, and prove that nothing was lost.

    Args:
        run: Folder of the run.
        out: Folder of the merged model.
        base: As `check_request`.
        dtype: As `check_request`.
        num_rows: Validation rows of the proof.
        overwrite: Whether an earlier merge in `out` may go.
        allow_other_base: As `load_run`.
        fresh_process: False: load the merged folder in this process.

    Raises:
        InvalidInput: Something does not fit, seen before any work.
        Unsupported: The method has no place in a backbone's weights.
        VerificationFailed: The merged model is not the adapted one; nothing is left of it.
    """
    from peftkit.backbones import unlike_stock
    from peftkit.merging.check import check
    from peftkit.merging.describing import write_facts
    from peftkit.merging.observing import observe, without_adapter
    from peftkit.saved import load_run

    request = check_request(
        Path(run), Path(out), base=base, dtype=dtype, num_rows=num_rows, overwrite=overwrite
    )
    clock = _Clock()
    saved = load_run(run, allow_other_base=allow_other_base)
    predictor: Any = saved.predictor
    size = predictor.bench.backbone.total_parameters * BYTES[request.dtype]
    copies = 2 if request.base == "requantized" else 1  # plain first, then packed
    require_room(request.out, 1.1 * copies * size)  # a tokenizer and a card go with it
    reads = unlike_stock(predictor.bench.backbone)
    rows = validation_rows(saved, num_rows)
    adapted = observe(saved, rows)
    bare = without_adapter(saved, rows)
    clock.lap("verify")
    with whole_folder(request.out) as folder:
        unmerged = write_merged(saved, request, folder, rows, bare)
        clock.lap("merge")
        merged = check(folder, rows, fresh=fresh_process)
        to_adapted, to_unmerged = _judge(request, adapted, unmerged, merged, bare)
        clock.lap("verify")
        done = Merged(
            folder=request.out, request=request, to_adapted=to_adapted, to_unmerged=to_unmerged,
            num_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
            seconds=clock.seconds, reads=reads,
        )  # fmt: skip
        write_facts(folder, done)
    return done


def validation_rows(saved: SavedRun, count: int) -> Dataset:
    """The first validation rows of a run's task.

    Raises:
        InvalidInput: Its data has other labels by now, or no rows.
    """
    data = saved.recipe.task.load(seed=saved.recipe.seed)
    if list(data.labels) != list(saved.labels) or not len(data.validation):
        raise InvalidInput(
            f"{data.source} is not what the run was trained on: a merge is verified on its rows",
            received=f"labels {', '.join(data.labels[:8])}; {len(data.validation)} validation rows",
            allowed=f"labels {', '.join(saved.labels[:8])}",
            next_step="bring the data back",
        )
    return data.validation.select(range(min(count, len(data.validation))))


def write_merged(
    saved: SavedRun, request: Request, folder: Path, rows: Dataset, bare: np.ndarray | None = None
) -> Observed | None:
    """Write the merged model with all that goes with it.

    Args:
        saved: The adapted model; it is given up, to make room.
        request: What is asked for.
        folder: Where to.
        rows: Those of the verification.
        bare: What the model says without its adapter.

    Returns:
        What the adapter said, unmerged, on the dense weights of the route; None for plain bases,
        where the adapted model says it, and where merged weights are packed again.

    Raises:
        VerificationFailed: Weights to be packed again are not the adapted ones.
    """
    from peftkit.merging.comparing import compare_observed
    from peftkit.merging.describing import settle_config, write_beside
    from peftkit.merging.observing import observe
    from peftkit.merging.shards import plan_shards, write_shards
    from peftkit.merging.whole import dense_run, unpacked, write_whole

    predictor: Any = saved.predictor
    bench = predictor.bench
    write_beside(saved, request, folder)
    weights = unpacked(bench.backbone.model) if request.base == "dequantized" else {}
    predictor.release()
    base = bench.backbone.location.folder
    plan = plan_shards(bench, request.run) if request.base == "plain" else None
    if plan is not None:
        write_shards(plan, request, folder)
        settle_config(folder, base)
        return None
    dense = dense_run(saved, request.run, weights)
    weights.clear()
    unmerged = observe(dense, rows) if request.base != "plain" else None

    def prove(folded: SavedRun) -> None:  # packed weights are near anything
        if unmerged is not None:
            found = compare_observed(unmerged, observe(folded, rows), request.dtype, bare)
            _require(found, request)

    write_whole(dense, request, folder, before_packing=prove)
    settle_config(folder, base)
    return None if request.base == "requantized" else unmerged


def _judge(
    request: Request,
    adapted: Observed,
    unmerged: Observed | None,
    merged: Observed,
    bare: np.ndarray | None,
) -> tuple[Comparison, Comparison | None]:
    """Compare, and raise where rounding does not explain the difference."""
    from peftkit.merging.comparing import compare_observed

    trained = str(request.manifest["recipe"]["backbone"].get("dtype") or "float32")
    coarser = max(request.dtype, trained, key=tolerance)
    to_adapted = compare_observed(adapted, merged, coarser, bare)
    to_unmerged = compare_observed(unmerged, merged, request.dtype, bare) if unmerged else None
    if to_unmerged:
        _require(to_unmerged, request)
    if _is_exact(request):
        _require(to_adapted, request)
    if not math.isfinite(to_adapted.agreement.largest_difference):
        raise VerificationFailed(
            f"the merged model yields no numbers on some rows. {request.out} was not written. "
            "Next: try another --base or --dtype float32."
        )
    return to_adapted, to_unmerged


def _require(found: Comparison, request: Request) -> None:
    """Raise where rounding does not explain the difference, or the adapter is as good as gone."""
    if found.holds:
        return
    kept = "" if found.kept is None else f", with {found.kept:.0%} of what the adapter does"
    raise VerificationFailed(
        "the merged model is not the adapted one: logits differ by up to "
        f"{found.agreement.largest_difference:.3g}{kept}, where rounding to {found.dtype} explains "
        f"{found.to_dict()['tolerance']:.3g}; the first layer that differs is "
        f"{found.first or 'behind the last that was looked at'}. {request.out} was not written. "
        "Next: try --dtype float32, or export to onnx, which takes the adapter unmerged where it "
        "has to; and report this with what `peftkit doctor` prints."
    )


def _is_exact(request: Request) -> bool:
    """Whether the merged model computes what the adapted one did, but for rounding of weights."""
    four_bit = request.quantization in ("nf4", "fp4")
    return request.base == "plain" or (request.base == "dequantized" and four_bit)


class _Clock:
    """Wall seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now
