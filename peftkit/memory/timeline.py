"""What came into memory and left it, in order; and from that the peak, for any batch size.

A timeline is written once, by `peftkit.memory.counting`, while a training step runs or is traced.
Whatever is asked of it later is arithmetic on its entries: the peak and what it consists of, each
storage rounded up as an allocator does, or all of it at another batch size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

Part = Literal[
    "weights", "quantization_state", "weight_copies", "gradients", "optimizer", "activations",
    "logits", "temporary",
]  # fmt: skip
PARTS: tuple[Part, ...] = get_args(Part)
"""What memory holds: parameters and buffers of backbone, adapter and head; scales of packed
weights; weights in another number format (autocast, unpacked); gradients; the optimizer's state;
what the forward pass keeps for the backward pass; logits and loss; what lives within a phase."""


@dataclass(frozen=True)
class Peak:
    """The most that was in memory at once.

    Attributes:
        bytes: How much.
        parts: Of which how much was what; they add up to `bytes`.
        at: Number of the entry after which it was reached.
    """

    bytes: int
    parts: dict[Part, int]
    at: int


@dataclass
class Timeline:
    """Storages that came, changed their part, and went.

    Attributes:
        sizes: Bytes of each storage.
        owners: Name of the module in whose forward pass each came, "" outside of any.
        numbers, parts, signs: One entry each: storage, part and +1 or -1.
        segments: Name and first entry of each stretch of the timeline, in order.
    """

    sizes: list[int] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    signs: list[int] = field(default_factory=list)
    segments: list[tuple[str, int]] = field(default_factory=list)

    def enter(self, nbytes: int, part: Part, owner: str = "") -> int:
        """Note a new storage; its number is returned."""
        self.sizes.append(nbytes)
        self.owners.append(owner)
        self._note(len(self.sizes) - 1, part, 1)
        return len(self.sizes) - 1

    def leave(self, number: int, part: Part) -> None:
        """Note that a storage is gone."""
        self._note(number, part, -1)

    def move(self, number: int, old: Part, new: Part) -> None:
        """Note that a storage turned out to be of another part."""
        self._note(number, old, -1)
        self._note(number, new, 1)

    def begin(self, segment: str) -> None:
        """Note that another stretch begins."""
        self.segments.append((segment, len(self.numbers)))

    def _note(self, number: int, part: Part, sign: int) -> None:
        self.numbers.append(number)
        self.parts.append(PARTS.index(part))
        self.signs.append(sign)

    def peaks(self, *, round_to: int = 1, traced_batch: int = 1, batch: int = 1) -> dict[str, Peak]:
        """The peak of each segment; one whose name comes again has the higher of its peaks.

        Args:
            round_to: Each storage takes a multiple of so many bytes.
            traced_batch: A prime number of examples that the timeline was traced with, if its
                storages shall be scaled: those whose size it divides belong to the batch.
            batch: The number of examples wanted.
        """
        changes = self._changes(round_to, traced_batch, batch)
        level = np.cumsum(changes)
        found: dict[str, Peak] = {}
        ends = [start for _, start in self.segments[1:]] + [len(level)]
        for (name, start), end in zip(self.segments, ends, strict=True):
            first = max(start - 1, 0)  # what was there when it began counts too
            if end <= first:
                continue
            at = first + int(np.argmax(level[first:end]))
            if name in found and found[name].bytes >= level[at]:
                continue
            found[name] = Peak(int(level[at]), self._amounts(changes, at + 1), at)
        return found

    def beginning(
        self, segment: str, *, round_to: int = 1, traced_batch: int = 1, batch: int = 1
    ) -> dict[Part, int] | None:
        """What is there when a segment begins, the first of its name; None: it never does.

        Args:
            segment: Its name.
            round_to: As for `peaks`.
            traced_batch: As for `peaks`.
            batch: As for `peaks`.
        """
        start = next((start for name, start in self.segments if name == segment), None)
        if start is None:
            return None
        return self._amounts(self._changes(round_to, traced_batch, batch), start)

    def kept(
        self, segment: str, until: str, *, round_to: int = 1, traced_batch: int = 1, batch: int = 1
    ) -> dict[Part, int]:
        """What came in one segment and is still there when another begins.

        Args:
            segment: Name of the first.
            until: Name of the other.
            round_to: As for `peaks`.
            traced_batch: As for `peaks`.
            batch: As for `peaks`.
        """
        names = [name for name, _ in self.segments]
        starts = [start for _, start in self.segments] + [len(self.numbers)]
        first, last = names.index(segment), names.index(until)
        numbers = np.asarray(self.numbers)
        earlier = np.isin(numbers, numbers[: starts[first]])
        came = np.isin(numbers, numbers[starts[first] : starts[first + 1]]) & ~earlier
        changes = np.where(came, self._changes(round_to, traced_batch, batch), 0)
        return self._amounts(changes, starts[last])

    def _changes(self, round_to: int, traced_batch: int, batch: int) -> np.ndarray:
        """Bytes that each entry adds or takes away."""
        sizes = scaled(np.asarray(self.sizes, dtype=np.int64), traced_batch, batch)
        sizes = -(-sizes // round_to) * round_to
        changes: np.ndarray = sizes[np.asarray(self.numbers)] * np.asarray(self.signs)
        return changes

    def _amounts(self, changes: np.ndarray, end: int) -> dict[Part, int]:
        """Bytes of each part after so many entries."""
        found = np.bincount(
            np.asarray(self.parts)[:end], weights=changes[:end], minlength=len(PARTS)
        )
        return {part: int(amount) for part, amount in zip(PARTS, found, strict=True)}

    def alive_by_owner(self, at: int, part: Part) -> dict[str, int]:
        """Bytes of a part after entry `at`, by the module in whose forward pass they came."""
        found: dict[str, int] = {}
        wanted = PARTS.index(part)
        for number, kind, sign in zip(
            self.numbers[: at + 1], self.parts[: at + 1], self.signs[: at + 1], strict=True
        ):
            if kind == wanted:
                owner = self.owners[number]
                found[owner] = found.get(owner, 0) + sign * self.sizes[number]
        return {owner: size for owner, size in found.items() if size}


def scaled(sizes: np.ndarray, traced_batch: int, batch: int) -> np.ndarray:
    """Sizes at another number of examples: those divisible by `traced_batch` grow in proportion."""
    if traced_batch == batch:
        return sizes
    of_batch = sizes % traced_batch == 0
    return np.where(of_batch, sizes // traced_batch * batch, sizes)
