"""How a classification head reads a sequence, made right for every kind of padding and prompt.

transformers' heads read the first token (encoders) or the last one that is not padding (decoders).
The latter is found from `input_ids`, so with prompt tuning, where only embeddings are passed on,
they read the last position, padding or not. And a sentence encoder trained with mean pooling keeps
little in its first token: nearest centroids of all-MiniLM-L6-v2 reach 65 % on its first token and
78 % on the mean (banking77, 7 examples a class). So the hidden states are pooled here, by the
attention mask, and put where the head looks.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.backbones._family import Pooling, family_of
from peftkit.errors import Unsupported

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftkit.backbones._loaded import LoadedBackbone
    from peftkit.backbones._locate import Location
    from peftkit.settings import Backbone

POOLING_FILE = "1_Pooling/config.json"  # the convention of sentence-transformers


def stock_pooling(config: Any) -> Pooling | None:
    """Return what the classification head of transformers reads, for any configuration.

    Of families that are not known here, those that only predict the next token are decoders, whose
    heads read the last one; of those that read images or sounds nothing is known.
    """
    from transformers.models.auto import modeling_auto as auto

    if getattr(config, "classifier_pooling", None) == "mean":  # ModernBERT lets one choose
        return "mean"
    family = family_of(config.model_type)
    if family is not None:
        return family.pooling
    images_or_sounds = (
        auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    )
    if any(config.model_type in names for names in images_or_sounds):
        return None
    causal = config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = config.model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "last" if causal and not masked else "first"


def unlike_stock(backbone: LoadedBackbone) -> Pooling | None:
    """What the head of `backbone` reads, where transformers' own would read something else."""
    stock = stock_pooling(backbone.model.config)
    return None if backbone.pooling in (None, stock) else backbone.pooling


def pool_hidden_states(model: Any, pooling: Pooling | None) -> None:
    """Make the head of `model` read `pooling` of the last hidden states, in place.

    None, or where the head reads just that anyway: that changes nothing. Else each position of the
    last hidden states, `(batch, seq, hidden)`, is replaced by the pooled vector, so that it does
    not matter which position a head picks; a pooler's output is replaced too.
    """
    stock, family = stock_pooling(model.config), family_of(model.config.model_type)
    # Heads on text find the last token, and mean over tokens, by what they know of token ids.
    finds_it = stock == "first" or (family is not None and family.inputs != "text")
    if pooling is None or (pooling == stock and finds_it):
        return
    backbone: nn.Module = getattr(model, model.base_model_prefix, None) or model.encoder
    signature = inspect.signature(type(backbone).forward)

    def pool(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        mask = signature.bind(module, *args, **kwargs).arguments.get("attention_mask")
        if mask is None:
            mask = kwargs.get("attention_mask")
        hidden = output.last_hidden_state
        pooled = pool_vectors(hidden, mask_frames(module, mask, hidden.shape[1]), pooling)
        # As memory of its own: of a view, a head with one output gives other last digits wherever
        # its weight happens to lie.
        output.last_hidden_state = pooled[:, None, :].repeat(1, hidden.shape[1], 1)
        if getattr(output, "pooler_output", None) is not None:
            output.pooler_output = pooled
        return output

    backbone.register_forward_hook(pool, with_kwargs=True)


def mask_frames(model: Any, mask: torch.Tensor | None, length: int) -> torch.Tensor | None:
    """Return the mask of `length` hidden states, which for sounds are fewer than samples."""
    find = getattr(model, "_get_feature_vector_attention_mask", None)
    if mask is None or find is None:
        return mask
    found: torch.Tensor = find(length, mask)
    return found


def pool_vectors(hidden: torch.Tensor, mask: torch.Tensor | None, pooling: Pooling) -> torch.Tensor:
    """Reduce `(batch, seq, hidden)` to `(batch, hidden)`.

    Args:
        hidden: Last hidden states.
        mask: `(batch, longer)`, 1 where there is a token; its last `seq` columns are used, None
            where there is no padding. (Prefix tuning's mask also covers the prefix.)
        pooling: Which position, or the mean over tokens.
    """
    import torch

    if mask is None:
        mask = torch.ones(hidden.shape[:2], device=hidden.device)
    mask = mask[:, -hidden.shape[1] :]
    if pooling == "first":
        return hidden[:, 0]
    if pooling == "last":
        positions = torch.arange(mask.shape[1], device=mask.device)
        last = (positions * (mask != 0)).argmax(dim=1)
        # Not `len`, which tracing takes for a constant: the graph would fit one batch size.
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
    weight = mask.to(hidden.dtype)[..., None]
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def choose_pooling(backbone: Backbone, location: Location, config: Any) -> Pooling | None:
    """What the head reads: what the backbone's own files declare, else what transformers does."""
    stock = stock_pooling(config)
    if stock is None and backbone.pooling not in ("auto", "model"):
        raise Unsupported(
            f"nobody knows here what the head of {config.model_type} reads, so it cannot be made "
            f"to read the {backbone.pooling}. Next: leave --backbone.pooling out."
        )
    if backbone.pooling == "auto":
        return "mean" if _declares_mean(location.folder) else stock
    return stock if backbone.pooling == "model" else backbone.pooling


def _declares_mean(folder: Path) -> bool:
    """Whether the backbone is a sentence encoder trained with mean pooling."""
    declared = folder / POOLING_FILE
    if not declared.is_file():
        return False
    return bool(json.loads(declared.read_text("utf-8")).get("pooling_mode_mean_tokens"))


def declare_pooling(folder: Path, pooling: Pooling | None, config: Any) -> None:
    """Say beside saved weights that they were trained with mean pooling, as `load` reads it."""
    if pooling == "mean" and stock_pooling(config) != "mean":
        (folder / POOLING_FILE).parent.mkdir(parents=True, exist_ok=True)
        (folder / POOLING_FILE).write_text(json.dumps({"pooling_mode_mean_tokens": True}), "utf-8")
