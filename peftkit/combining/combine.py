"""From the folders of runs to the folder of one adapter, read top to bottom."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.combining.heads import combine_heads
from peftkit.combining.layers import Combination, CombinedLayer
from peftkit.combining.reading import Adapter, read_adapter
from peftkit.combining.request import SPARSE, Request
from peftkit.combining.updates import check_shapes
from peftkit.combining.writing import write_adapter
from peftkit.errors import InvalidInput
from peftkit.placing import require_free, require_room, whole_folder

if TYPE_CHECKING:
    from torch import Tensor

_BASE = {
    "fingerprint": "weights", "quantization": "quantisation",
    "tokenizer_fingerprint": "tokenizer",
}  # fmt: skip
"""What has to be one where it was noted, by its name in peftkit.json."""


@dataclass(frozen=True, kw_only=True)
class Combined:
    """What came of a combination.

    Attributes:
        out: Folder of the result.
        method: The rule.
        weights: One a run.
        kind: Whether the result is a "LoRA" or, as only that can hold the sum, a "DoRA".
        layers: Of the result.
        head: What was done with the heads.
    """

    out: Path
    method: str
    weights: tuple[float, ...]
    kind: str
    layers: tuple[CombinedLayer, ...]
    head: str

    @property
    def error(self) -> float:
        """Relative Frobenius error over all layers together."""
        whole = math.hypot(*(layer.norm for layer in self.layers))
        lost = math.hypot(*(layer.error * (layer.norm or 1.0) for layer in self.layers))
        return lost / whole if whole else lost

    @property
    def rank(self) -> int:
        """The largest of the layers."""
        return max(layer.rank for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers and words."""
        return {
            "method": self.method,
            "weights": list(self.weights),
            "kind": self.kind,
            "head": self.head,
            "rank": self.rank,
            "reconstruction_error": self.error,
            "layers": {
                layer.name: {
                    "rank": layer.rank,
                    "norm": layer.norm,
                    "reconstruction_error": layer.error,
                    "rank_for_99_percent": layer.rank_for_99_percent,
                }
                for layer in self.layers
            },
        }


def combine_runs(
    runs: Sequence[Path | str],
    out: Path | str,
    request: Request | None = None,
    *,
    head: Path | str | None = None,
    overwrite: bool = False,
) -> Combined:
    """Make one adapter of several, and write it as a run's folder.

    Args:
        runs: Folders of runs of LoRA, or of its variants, on one backbone.
        out: Folder to be made; stock PEFT loads it, as `load_run` does.
        request: The rule and its options; None: the mean.
        head: The run whose head, labels and task the result has; None: the mean of the heads.
        overwrite: Whether an adapter in `out` may be replaced.

    Raises:
        InvalidInput: The runs do not go together, or one is none; `out` is not free, or the disk
            has no room for it.
        WrongBackbone: The backbone has changed since a run.
    """
    request = request or Request()
    folders, out = [Path(run) for run in runs], Path(out)
    if not folders:
        raise InvalidInput("there is nothing to combine", next_step="name one run or more")
    weights = request.weights_of(len(folders))
    chosen = _index_of(head, folders)
    require_free(out, folders, "combined", overwrite=overwrite)
    adapters = [read_adapter(folder) for folder in folders]
    _require_one_base(adapters)
    whole, words = combine_heads(adapters, weights, chosen)
    bench = adapters[chosen or 0].bench
    work = Combination(adapters=adapters, weights=weights, request=request, model=None)
    _require_form(work)
    if not work.reads_weights:
        bench.load_without_weights()
    work.model = bench.backbone.model
    names = check_shapes(adapters, work.model)
    combined = Combined(
        out=out,
        method=request.method,
        weights=tuple(weights),
        kind="DoRA" if work.keeps_lengths else "LoRA",
        layers=tuple(work.layer(name) for name in names),
        head=words,
    )
    require_room(out, 4 * sum(t.numel() for t in (*whole.values(), *_stored(combined.layers))))
    with whole_folder(out) as folder:
        write_adapter(folder, adapters, adapters[chosen or 0], combined.layers, whole,
                      combined.to_dict() | _asked(request))  # fmt: skip
    return combined


def _stored(layers: Sequence[CombinedLayer]) -> Iterator[Tensor]:
    for layer in layers:
        yield layer.factors.a
        yield layer.factors.b


def _asked(request: Request) -> dict[str, Any]:
    asked: dict[str, Any] = {"energy": request.energy}
    if request.method in SPARSE:
        asked["density"] = request.share
    if request.method.startswith("dare"):
        asked["seed"] = request.drawn_from
    return {f"asked_{name}": value for name, value in asked.items() if value is not None}


def _index_of(head: Path | str | None, folders: Sequence[Path]) -> int | None:
    """Which of the runs gives the head."""
    if head is None:
        return None
    found = [i for i, folder in enumerate(folders) if folder.resolve() == Path(head).resolve()]
    if not found:
        raise InvalidInput(
            "the head has to be that of one of the runs",
            received=f"--head {head}",
            allowed=", ".join(map(str, folders)),
            next_step="name one of them, or combine this run too",
        )
    return found[0]


def _require_one_base(adapters: Sequence[Adapter]) -> None:
    """Refuse updates of different weights: their sum would be one of neither."""
    first = adapters[0]
    for adapter in adapters[1:]:
        for key, what in _BASE.items():
            one, other = (a.manifest["backbone"].get(key) for a in (first, adapter))
            if None not in (one, other) and one != other:
                raise InvalidInput(
                    f"{first.folder} and {adapter.folder} were trained on different backbones",
                    received=f"{what} {str(one)[:12]} of {first.manifest['backbone']['name']}, "
                    f"{str(other)[:12]} of {adapter.manifest['backbone']['name']}",
                    allowed="one backbone behind one tokenizer, kept in the same number of bits",
                    next_step="leave one of them out, or train it on the other's backbone",
                )


def _require_form(work: Combination) -> None:
    if work.keeps_lengths and work.has_bias:
        raise InvalidInput(
            "one run trained biases beside B and another DoRA's lengths, and PEFT has no adapter "
            "that holds both",
            next_step="choose --method svd, whose result is a plain LoRA with biases",
        )
