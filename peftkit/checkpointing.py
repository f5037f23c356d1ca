"""Gradient checkpointing, by the name that the installed transformers has for it.

transformers 5.17 knows it by its older name alone, 5.23 warns of that one.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

NAME = (
    "activation_checkpointing"
    if hasattr(PreTrainedModel, "activation_checkpointing_enable")
    else "gradient_checkpointing"
)


def enable(model: Any) -> None:
    """Let `model` keep each block's input alone and run the block again in the backward pass."""
    getattr(model, f"{NAME}_enable")({"use_reentrant": False})
