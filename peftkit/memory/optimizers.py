"""What optimizers keep of each trained tensor, and take while they step: by their definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCK = 256  # values of an 8-bit state that share a scale (Dettmers et al. 2022, section 2.1)
SMALL = 4096  # tensors with fewer values keep their state in 32 bits, in bitsandbytes
UNPAGED = 100_000  # tensors with fewer values are not paged, in bitsandbytes

Shape = Sequence[int]


def state_bytes(
    optimizer: str, shape: Shape, *, itemsize: int = 4, embedding: bool = False
) -> list[int]:
    """Bytes of each tensor that an optimizer keeps on the device for a trained one of this shape.

    Args:
        optimizer: As `Training.optimizer`.
        shape: Of the trained tensor.
        itemsize: Bytes of one of its values: torch's AdamW keeps its state in the same format.
        embedding: Whether it is the weight of an embedding, whose state transformers lets
            bitsandbytes keep in 32 bits.
    """
    count = math.prod(shape)
    if optimizer == "adamw":
        return [count * itemsize, count * itemsize, 4]  # two moments and the number of steps
    if optimizer == "adamw_8bit":
        if count < SMALL or embedding:
            return [4 * count, 4 * count]
        scales = 4 * math.ceil(count / BLOCK)
        return [count, count, scales, scales]
    if optimizer == "adafactor":
        if len(shape) < 2:
            return [4 * count, 4]
        # Means of rows and of columns, and the root mean square of the tensor itself.
        return [4 * count // shape[-1], 4 * count // shape[-2], 4]
    if optimizer == "lion":
        return [4 * count]
    if count < UNPAGED:
        if optimizer == "paged_adamw_8bit":
            return state_bytes("adamw_8bit", shape, itemsize=itemsize, embedding=embedding)
        return [4 * count, 4 * count]
    return []  # kept where the driver moves it in and out as there is room


def step_bytes(optimizer: str, shapes: Sequence[Shape]) -> int:
    """Bytes that an optimizer takes for the time of its step, beside state and gradients.

    Those that step in one kernel take none. Adafactor makes, one tensor after the other, the
    update and its square, in float32.
    """
    if optimizer != "adafactor":
        return 0
    return max((2 * 4 * math.prod(shape) for shape in shapes), default=0)
