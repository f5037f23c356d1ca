"""How long cells take: learned from cells like them that have finished."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from peftkit.study.grid import GridCell


class Timings:
    """Seconds of finished cells, and from them the seconds of others."""

    def __init__(self) -> None:
        self._alike: dict[tuple[str, int | None], list[float]] = defaultdict(list)
        self._by_label: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def add(self, cell: GridCell, seconds: float) -> None:
        """Learn from a finished cell."""
        self._alike[cell.label, cell.size].append(seconds)
        self._by_label[cell.label].append((seconds, cell.work))

    def predict(self, cell: GridCell) -> float | None:
        """Return the seconds a cell will take in its worker; none while nothing is known.

        Taken from cells of the same method and size; failing that of the same method, in
        proportion to the training examples seen; failing that from all, likewise.
        """
        if alike := self._alike.get((cell.label, cell.size)):
            return sum(alike) / len(alike)
        known = self._by_label.get(cell.label) or [
            pair for pairs in self._by_label.values() for pair in pairs
        ]
        work = sum(work for _, work in known)
        return cell.work * sum(seconds for seconds, _ in known) / work if work else None

    def left(
        self, waiting: Iterable[GridCell], running: Mapping[GridCell, float], slots: int
    ) -> float | None:
        """Return the seconds until all is done; none while that is unknown.

        Args:
            waiting: Cells not yet started.
            running: Seconds for which each running cell has run.
            slots: Cells at a time.
        """
        rest = [self.predict(cell) for cell in waiting]
        for cell, elapsed in running.items():
            predicted = self.predict(cell)
            rest.append(None if predicted is None else max(0.0, predicted - elapsed))
        known = [seconds for seconds in rest if seconds is not None]
        if len(known) < len(rest):
            return None
        return max(sum(known) / slots, max(known, default=0.0))
