"""Texts that are nearly the same: three-word shingles whose Jaccard similarity is above one half.

The comparison is exact, by an inverted index.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class NearDuplicates:
    """An inverted index over texts, asked whether another text is nearly one of them."""

    _sizes: list[int] = field(default_factory=list)
    _holders: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, words: str) -> None:
        """Take in a text, given by its words."""
        own = shingles(words)
        for shingle in own:
            self._holders[shingle].append(len(self._sizes))
        self._sizes.append(len(own))

    def near(self, words: str) -> bool:
        """Tell whether the Jaccard similarity to any text taken in is above one half."""
        return self.like(words) is not None

    def like(self, words: str) -> int | None:
        """Return the number, from 0, of a text taken in that is near; None: there is none."""
        own = shingles(words)
        known = [self._holders[shingle] for shingle in own if shingle in self._holders]
        if 2 * len(known) <= len(own):  # then no text can share more than a half
            return None
        shared: Counter[int] = Counter()
        for holders in known:
            shared.update(holders)
        # shared / (a + b - shared) > 1 / 2, in whole numbers
        near = (i for i, both in shared.items() if 3 * both > len(own) + self._sizes[i])
        return next(near, None)


def shingles(words: str) -> set[str]:
    """Return the runs of three words, as a set."""
    split = words.split(" ")
    return {" ".join(split[i : i + 3]) for i in range(len(split) - 2)}
