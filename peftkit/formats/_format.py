"""What every format is: something that a finished run can be written as, and is compared in.

A format is asked three times, each question dearer than the one before: whether this machine has
what it takes (`require`), whether it takes this run (`check`), and, once all is written, what the
written files answer to rows that the run has answered (`opened`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import VerificationFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peftkit.exporting.adapted import AdaptedRun
    from peftkit.verification import Agreement


@dataclass(frozen=True, kw_only=True)
class Format:
    """What a run is written as.

    A subclass lives in a file of its own below `peftkit/formats` (the file's name is the format's
    name) or anywhere (`path/to/file.py:Class`, or an entry point of the group `peftkit.formats`).
    Its fields are options that the command line knows.

    Class attributes:
        packages: Modules that are needed beside those that peftkit always needs.
    """

    packages: ClassVar[tuple[str, ...]] = ()

    def require(self) -> None:
        """Raise unless everything is at hand; asked before anything is loaded.

        Raises:
            InvalidInput: A package or a path is missing.
        """
        from peftkit.extras import require_packages

        require_packages(self.packages, extra="export")

    def check(self, run: AdaptedRun) -> None:
        """Raise unless this run can be written so; asked before anything is written.

        Raises:
            Unsupported: It cannot; the message says why, and what to do instead.
        """

    def room(self, run: AdaptedRun) -> float:
        """Bytes that are written, at most: twice the model, as some write it twice on the way."""
        return float(2 * sum(p.numel() * p.element_size() for p in run.model.parameters()))

    def write(self, run: AdaptedRun, folder: Path) -> None:
        """Write the run into `folder`, which is empty. `run.model` may be changed by it."""
        raise NotImplementedError

    def opened(self, run: AdaptedRun, folder: Path) -> Callable[..., Any]:
        """The files in `folder`, read anew: takes a batch as the run's own model does."""
        raise NotImplementedError

    def verify(self, run: AdaptedRun, folder: Path) -> Agreement:
        """Compare the files in `folder`, read anew, with what the run itself answered.

        Raises:
            VerificationFailed: What is in the files is already known not to be the run.
        """
        return run.compare(run.ask(self.opened(run, folder)))

    def accept(self, run: AdaptedRun, found: Agreement) -> None:
        """Raise unless `found` is within what rounding explains.

        Raises:
            VerificationFailed: It is not.
        """
        from peftkit.verification import tolerance

        dtype = self.dtype(run)
        if found.holds(dtype, run.scale):
            return
        raise VerificationFailed(
            "the written files do not answer as the run does: of logits up to "
            f"{run.scale:.4g} the largest difference is {found.largest_difference:.3g}, where "
            f"rounding explains {tolerance(dtype) * run.scale:.3g}; {found.equal_predictions:.1%} "
            "of the predictions are equal. Nothing was kept. Next: try another format, and report "
            "this with what `peftkit doctor` prints."
        )

    def dtype(self, run: AdaptedRun) -> str:
        """Number format of what is written, by which differences are judged."""
        return "float32"

    def facts(self, run: AdaptedRun) -> dict[str, Any]:
        """What `peftkit.json` says of the files beside the agreement."""
        return {}
