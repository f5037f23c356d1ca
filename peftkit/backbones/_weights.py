"""From files to a model of transformers, and what these files do not hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.backbones._locate import Location
from peftkit.backbones._quantized import quantized_loading, settle_quantized
from peftkit.errors import BackboneNotFound

if TYPE_CHECKING:
    from peftkit.settings import Backbone


def packed_from_files(
    backbone: Backbone, auto: Any, location: Location, config: Any, new_output_layer: bool
) -> tuple[Any, set[str]]:
    """The model as its files have it, packed if asked for; and what they do not hold."""
    import torch

    options = quantized_loading(backbone, auto, config)
    options["dtype"] = getattr(torch, backbone.dtype)
    model, new = _read_weights(auto, location, config, **options)
    if new_output_layer and _output_is_loose(model, new):
        config.tie_word_embeddings = True
        model, new = _read_weights(auto, location, config, **options)
    settle_quantized(model)
    return model, new


def read_packed(backbone: Backbone, auto: Any, folder: Path, *, dtype: str) -> Any:
    """A whole model, packed as `backbone` says while it is read.

    Args:
        backbone: Which layers are kept in how many bits.
        auto: Class of transformers with `from_pretrained`.
        folder: Where the model is.
        dtype: Number format of what is not packed.
    """
    import torch

    location = Location(name=str(folder), folder=folder, fingerprint="")
    options = quantized_loading(backbone, auto, read_config(location))
    model, _ = from_files(auto, folder, dtype=getattr(torch, dtype), **options)
    settle_quantized(model)
    return model


def _output_is_loose(model: Any, new: set[str]) -> bool:
    """Whether the layer that predicts tokens is new, and would have weights of its own."""
    output = model.get_output_embeddings()
    if output is None or output.weight is model.get_input_embeddings().weight:
        return False
    return any(model.get_parameter(name) is output.weight for name in new if "weight" in name)


def read_config(location: Location) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(location.folder, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise BackboneNotFound(
            f"transformers cannot read the configuration of {location.name!r}",
            received=str(error).splitlines()[0],
            next_step="check that the architecture exists in the installed transformers",
        ) from error


def _read_weights(
    auto: Any, location: Location, config: Any, **options: Any
) -> tuple[Any, set[str]]:
    """The model, and the names of the tensors that its files do not hold."""
    from safetensors import SafetensorError

    try:
        model, info = from_files(
            auto, location.folder, config=config, ignore_mismatched_sizes=True, **options
        )
    except (OSError, SafetensorError) as error:
        raise BackboneNotFound(
            f"the weights of {location.name!r} cannot be read",
            received=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            next_step="check that the download is complete",
        ) from error
    for key, found, asked in info["mismatched_keys"]:
        if key.startswith(f"{model.base_model_prefix}."):  # a head may be of another shape
            raise BackboneNotFound(
                f"the weights of {location.name!r} do not fit its configuration",
                received=f"{key} is {tuple(found)} in the files and {tuple(asked)} by config.json",
                next_step="check that config.json and the weights belong together",
            )
    new = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    names = [name for name, _ in model.named_parameters()]
    own = [name for name in names if name.startswith(f"{model.base_model_prefix}.")] or names
    missing = [name for name in own if name in new]
    if 2 * len(missing) > len(own):  # transformers would draw them at random
        raise BackboneNotFound(
            f"the weights of {location.name!r} are not those of {type(model).__name__}",
            received=f"{len(missing)} of {len(own)} tensors missing, such as {missing[0]}",
            next_step="check that config.json and the weights belong together",
        )
    return model, new


def from_files(auto: Any, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A model of the class `auto`, and what transformers says of loading it.

    Args:
        auto: Class of transformers with `from_pretrained`.
        folder: Where config and safetensors are.
        **options: For `from_pretrained`.
    """
    options |= {
        "use_safetensors": True, "output_loading_info": True, "trust_remote_code": False,
    }  # fmt: skip
    model, info = auto.from_pretrained(folder, **options)
    if _stands_elsewhere(model, info):
        renamed = {r"^model\.": f"{model.base_model_prefix}."}
        model, info = auto.from_pretrained(folder, key_mapping=renamed, **options)
    return model, info


def _stands_elsewhere(model: Any, info: dict[str, Any]) -> bool:
    """Whether the files call "model" what this class calls otherwise, as Llama for questions."""
    prefix = f"{model.base_model_prefix}."
    missing = any(key.startswith(prefix) for key in info["missing_keys"])
    unused = any(key.startswith("model.") for key in info["unexpected_keys"])
    return prefix != "model." and missing and unused
