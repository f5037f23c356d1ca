"""From a traced step of a shallow backbone to the memory of any depth and batch size.

All blocks between the first and the last are alike, so a deeper backbone is that with the middle
block repeated: each adds its weights throughout, its activations from its forward pass to its
backward pass, its gradients after that. Storages whose size the number of examples divides grow
with the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peftkit.memory.device_terms import DeviceTerms
from peftkit.memory.timeline import PARTS, Part, Timeline


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Memory at the peak of a training step.

    Attributes:
        peak_bytes: What tensors take; on CUDA as `torch.cuda.max_memory_allocated` counts.
        parts: Of which how much is what; they add up to `peak_bytes`.
        during: Where the peak is: "forward", "loss", "backward" or "step".
        reserved_bytes: What the caching allocator will have taken; on a CPU the same as the peak.
        total_bytes: What the device must have: reserved, and CUDA's own context.
    """

    peak_bytes: int
    parts: dict[Part, int]
    during: str
    reserved_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The traced step of one recipe, from which the memory at any batch size follows.

    Attributes:
        trainable_parameters: Of method and head.
        total_parameters: Of the backbone.
        num_blocks: Of the backbone.
        timeline: What was traced.
        traced_blocks: With how many blocks.
        block: Bytes that one more block takes throughout, by parts.
        traced_batch: Examples in the traced batch.
        terms: What the device adds.
    """

    trainable_parameters: int
    total_parameters: int
    num_blocks: int
    timeline: Timeline
    traced_blocks: int
    block: dict[Part, int]
    traced_batch: int
    terms: DeviceTerms

    def peak(self, batch_size: int) -> Prediction:
        """Predict the peak of a step with so many examples a forward pass."""
        amounts = self._by_place(batch_size)
        place = max(amounts, key=lambda name: sum(amounts[name].values()))
        parts = {name: amounts[place].get(name, 0) for name in PARTS}
        parts["temporary"] += self.terms.workspace_bytes
        return self._prediction(parts, place.partition(" ")[0])

    def after_step(self, batch_size: int) -> dict[Part, int]:
        """What is there when the optimizer steps: weights, gradients and its own state."""
        found = self._by_place(batch_size)
        return found.get("step") or found["step after"]

    def _by_place(self, batch_size: int) -> dict[str, dict[Part, int]]:
        """What is there at the peak of each stretch of the step."""
        scaling = {
            "round_to": self.terms.round_to,
            "traced_batch": self.traced_batch,
            "batch": batch_size,
        }
        peaks = self.timeline.peaks(**scaling)
        found = {name: peak.parts for name, peak in peaks.items()}
        more = self.num_blocks - self.traced_blocks
        if not more:
            return found
        forward = _change(self.timeline, "forward 1", "forward 2", scaling)
        kept = self.timeline.kept("forward 1", "loss", **scaling)  # not all that autocast made
        backward = _change(self.timeline, "backward 1", "backward 0", scaling)
        grown = {
            "before": self.block,
            "passed": _sum(self.block, forward),
            "within": _sum(self.block, kept),
            "after": _sum(_sum(self.block, kept), backward),
        }
        return {
            f"{name} {where}": {p: n + more * grown[where].get(p, 0) for p, n in parts.items()}
            for name, parts in found.items()
            for where in _places(name)
        }

    def _prediction(self, parts: dict[Part, int], during: str) -> Prediction:
        peak = sum(parts.values())
        reserved = self.terms.reserved_bytes(peak)
        return Prediction(
            peak_bytes=peak,
            parts=parts,
            during=during,
            reserved_bytes=reserved,
            total_bytes=reserved + self.terms.context_bytes,
        )

    def largest_batch(self, limit_bytes: int, most: int = 1 << 16) -> int:
        """The most examples a forward pass with which the device needs no more; 0: not even one."""
        if self.peak(1).total_bytes > limit_bytes:
            return 0
        low, high = 1, 2
        while high <= most and self.peak(high).total_bytes <= limit_bytes:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            if self.peak(middle).total_bytes <= limit_bytes:
                low = middle
            else:
                high = middle
        return min(low, most)


def _places(segment: str) -> tuple[str, ...]:
    """Where a stretch stands to the blocks that are added between the first and the last.

    They are like the second, which stands at both of their ends.
    """
    phase, _, where = segment.partition(" ")
    if phase in ("loss", "step"):
        return ("within",) if phase == "loss" else ("after",)
    start, end = ("before", "passed") if phase == "forward" else ("within", "after")
    if where == "1":
        return start, end
    first = where in ("in", "0")
    return (start,) if first == (phase == "forward") else (end,)


def _change(
    timeline: Timeline, start: str, end: str, scaling: Mapping[str, int]
) -> dict[Part, int]:
    """What comes to stay between the beginnings of two segments; nothing where they are missing."""
    before, after = timeline.beginning(start, **scaling), timeline.beginning(end, **scaling)
    if before is None or after is None:
        return {}
    return {part: after[part] - before[part] for part in PARTS}


def _sum(one: Mapping[Part, int], other: Mapping[Part, int]) -> dict[Part, int]:
    return {part: one.get(part, 0) + other.get(part, 0) for part in PARTS}
