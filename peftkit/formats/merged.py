"""transformers: the adapter in the weights, as `peftkit merge` writes it, with its defaults.

Number format, route from a quantised base and the proof are those of `peftkit merge`, which has
options for them: it fails where the merged model is not the adapted one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.formats._format import Format
from peftkit.formats._stock import require_stock_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftkit.exporting.adapted import AdaptedRun
    from peftkit.verification import Agreement


@dataclass(frozen=True, kw_only=True)
class Merged(Format):
    """The adapter in the weights, for transformers alone, as `peftkit merge` writes it."""

    def check(self, run: AdaptedRun) -> None:
        from peftkit.merging.request import read_request

        require_stock_head(run)
        read_request(run.folder)

    def write(self, run: AdaptedRun, folder: Path) -> None:
        from peftkit.merging.performing import merge_run

        merge_run(run.folder, folder, num_rows=run.num_rows, allow_other_base=True)

    def opened(self, run: AdaptedRun, folder: Path) -> Callable[..., Any]:
        from peftkit.saved import load_run

        predictor: Any = load_run(folder).predictor
        model: Callable[..., Any] = predictor.model.float().cpu()
        return model

    def accept(self, run: AdaptedRun, found: Agreement) -> None:
        """Nothing more to ask: the merge has proven itself, for its own route and format."""
