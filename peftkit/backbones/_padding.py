"""Batches padded on the left, answered as if they were padded on the right.

peftkit pads on the right, but whoever calls a trained model may pad on the left, as is usual for
generating text. Then the classification heads of encoders would read a padding token, absolute
positions would count the padding, and PEFT would put virtual tokens before the padding, away from
the text. So whatever the mask leaves out is moved behind the text before the backbone reads it:
a batch gives the same answers on whichever side it is padded, with and without position ids.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

INPUTS = ("input_ids", "inputs_embeds", "token_type_ids", "position_ids")
OUTPUTS = ("last_hidden_state", "logits", "start_logits", "end_logits")


def move_padding_behind(model: Any, *, restore: bool) -> None:
    """Make `model` read the text first and the padding last, in place.

    Batches padded on the right, or not at all, pass as they are, and so does all that is traced.
    Models that generate are left alone, whose cache of keys and values would be in another order;
    and so are those that read no text.

    Args:
        model: A transformers model with its head.
        restore: Whether the head answers token by token, so that its answers have to stand where
            the caller has its tokens. Else hidden states stay moved: a head that reads the first
            position finds the first token there. Attention maps, where asked for, stay moved.
    """
    if model.can_generate() or model.main_input_name != "input_ids":
        return
    # PEFT hands a prefix to the backbone without its head. Heads of encoder-decoders make the
    # decoder's token ids of the text's, before their backbone is called.
    backbone = getattr(model, model.base_model_prefix, model)
    module = model if model.config.is_encoder_decoder else backbone
    names = list(inspect.signature(type(module).forward).parameters)[1:]
    orders: list[torch.Tensor | None] = [None]  # that of the batch on its way

    def move(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        orders[0] = order = _text_first(given)
        if order is None:
            return None
        for name in INPUTS:
            if given.get(name) is not None:
                given[name] = _take(given[name], order)
        given["attention_mask"] = _move_mask(given["attention_mask"], order)
        return (), given

    def move_back(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if orders[0] is not None:
            _restore(output, OUTPUTS if restore else (), orders[0].argsort(dim=1))
        return output

    module.register_forward_pre_hook(move, with_kwargs=True)
    module.register_forward_hook(move_back)


def _text_first(given: dict[str, Any]) -> torch.Tensor | None:
    """The places of a batch, `(batch, seq)`, padding last; None if no token stands behind it."""
    from transformers.utils.import_utils import is_tracing

    mask = given.get("attention_mask")
    text = given.get("input_ids")
    text = given.get("inputs_embeds") if text is None else text
    if mask is None or text is None or mask.ndim != 2 or is_tracing(mask):
        return None
    padding = mask[:, -text.shape[1] :] == 0  # columns of a prefix, which has no places, are first
    if padding.shape[1] < text.shape[1] or not (padding[:, :-1] & ~padding[:, 1:]).any():
        return None
    order: torch.Tensor = padding.int().argsort(dim=1, stable=True)
    return order


def _restore(output: Any, names: tuple[str, ...], back: torch.Tensor) -> None:
    for name in names:
        if getattr(output, name, None) is not None:
            setattr(output, name, _take(getattr(output, name), back))
    if getattr(output, "hidden_states", None) is not None:
        output.hidden_states = tuple(_take(each, back) for each in output.hidden_states)


def _move_mask(mask: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    import torch

    prefix, own = mask[:, : -order.shape[1]], mask[:, -order.shape[1] :]
    return torch.cat([prefix, _take(own, order)], dim=1)


def _take(values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Reorder the second dimension of `values`, row by row; one row may stand for all."""
    import torch

    return torch.take_along_dim(values, order[(..., *[None] * (values.ndim - 2))], dim=1)
