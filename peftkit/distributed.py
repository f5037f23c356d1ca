"""One run in several processes, as `accelerate launch` or torchrun starts them.

Each batch of the recipe is split over the processes, so that steps, batches and learning rates mean
what they mean in one; every process holds the whole run, and the first one alone writes and prints.
"""

from __future__ import annotations

import os

from peftkit.errors import InvalidInput


def num_processes() -> int:
    """How many processes this run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def require_even_batches(batch_size: int) -> None:
    """See that a batch can be split evenly.

    Raises:
        InvalidInput: It cannot.
    """
    processes = num_processes()
    if batch_size % processes:
        raise InvalidInput(
            f"a batch cannot be split evenly over {processes} processes",
            received=f"batch_size {batch_size}",
            allowed=f"a multiple of {processes}",
            next_step="another --batch-size; make up for it by --training.gradient-accumulation",
        )
