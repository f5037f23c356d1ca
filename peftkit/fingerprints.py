"""Fingerprints of what turns rows into the inputs of a backbone.

The same weights behind another tokenizer, or another chat template, are another model.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def fingerprints(processor: Any) -> dict[str, str]:
    """Hashes over a tokenizer and its chat template, or over an image or sound processor.

    Padding and truncation are left out: they belong to a batch.

    Args:
        processor: As `LoadedBackbone.processor`.

    Returns:
        "tokenizer_fingerprint" and, if there is one, "template_fingerprint"; or
        "processor_fingerprint".
    """
    if not hasattr(processor, "get_vocab"):
        return {"processor_fingerprint": _hash(processor.to_dict())}
    inside = getattr(processor, "backend_tokenizer", None)
    if inside is not None and hasattr(inside, "to_str"):
        told = json.loads(inside.to_str())
        told["padding"] = told["truncation"] = None
    else:  # written in Python: its words, and those that stand for something
        told = [sorted(processor.get_vocab().items()), processor.special_tokens_map]
    found = {"tokenizer_fingerprint": _hash(told)}
    template = getattr(processor, "chat_template", None)
    if template:
        found["template_fingerprint"] = _hash(template)
    return found


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
