"""One seed, many independent random streams.

Head, adapter, data order, subset, noise and dropout each draw from a stream of their own, named
after its purpose. So the head starts equally whatever the method drew before it, and two methods
of a cell see the same batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager


def derive(seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose."""
    digest = hashlib.sha256(f"{seed}|{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Draw from the stream of `purpose` within, and leave torch's own stream as it was."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, purpose))
        yield
