"""Weights that an earlier run saved, put on a backbone again."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

from peftkit.backbones import from_files
from peftkit.errors import InvalidInput, Unsupported
from peftkit.record import MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

    from peftkit.backbones import LoadedBackbone
    from peftkit.workbench import Workbench


def reload(backbone: LoadedBackbone, folder: Path) -> Any:
    """Load what `ModelPredictor.save` wrote: an adapter folder, or a whole model.

    Returns:
        The model in evaluation mode; a whole one takes the place of the backbone's own.

    Raises:
        InvalidInput: Weights are missing, cut short, of another shape, or belong to nothing.
    """
    if (folder / "adapter_config.json").is_file():
        return put_adapter(backbone, folder).eval()
    return _whole(backbone, folder).eval()


def put_adapter(backbone: LoadedBackbone, folder: Path, **options: Any) -> Any:
    """Put a saved adapter around a backbone.

    Args:
        backbone: Its model is changed in place.
        folder: Where the adapter is.
        **options: For `PeftModel.from_pretrained`.

    Raises:
        InvalidInput: As `reload`.
    """
    from peft import PeftConfig, PeftModel
    from safetensors import SafetensorError

    import peftkit.bitfit
    import peftkit.bottleneck  # noqa: F401  # registers our tuners with PEFT
    from peftkit.methods._peft import quiet

    config = PeftConfig.from_pretrained(str(folder))
    if getattr(config, "fan_in_fan_out", None) is not None:
        _settle_transposed(config, backbone.model)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")  # refused below
            model = PeftModel.from_pretrained(backbone.model, str(folder), config=config, **options)
        _check_keys(model, folder / "adapter_model.safetensors")
    except KeyError as error:  # of a module that is saved whole
        _refuse_keys(folder, own={str(error.args[0])}, saved=set())
        raise
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InvalidInput(
            f"the adapter in {folder} cannot be read, or does not fit the backbone",
            received=f"{type(error).__name__}: {str(error).splitlines()[-1].strip()}",
            next_step="copy it again, or run the recipe again",
        ) from error
    return model


def _settle_transposed(config: Any, model: Any) -> None:
    """Say whether the layers keep their weights transposed, as they do in this very model.

    The adapter may have been trained on packed layers, which never do.
    """
    from peft.tuners.tuners_utils import check_target_module_exists
    from transformers.pytorch_utils import Conv1D

    kept = {n for n, module in model.named_modules() if isinstance(module, Conv1D)}
    config.fan_in_fan_out = any(check_target_module_exists(config, name) for name in kept)


def _check_keys(model: Any, path: Path) -> None:
    """Refuse an adapter whose tensors are not the ones that the model has places for."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        saved = set(file.keys())
    _refuse_keys(path, set(get_peft_model_state_dict(model, save_embedding_layers=False)), saved)


def _refuse_keys(path: Path, own: set[str], saved: set[str]) -> None:
    for names, what in ((own - saved, "misses"), (saved - own, "has no place for")):
        if names:
            raise InvalidInput(
                f"{path} is not what the model is made of",
                received=f"it {what} {len(names)} tensors, such as {min(names)}"
                if what == "misses"
                else f"{len(names)} tensors that the model {what}, such as {min(names)}",
                next_step="copy the folder again, or run the recipe again",
            )


def _whole(backbone: LoadedBackbone, folder: Path) -> Any:
    import transformers

    from peftkit.backbones._padding import move_padding_behind
    from peftkit.backbones._pooling import pool_hidden_states
    from peftkit.backbones._quantized import settle_quantized
    from peftkit.device import device

    auto = getattr(transformers, backbone.auto_class)
    packed = '"quantization_config"' in (folder / "config.json").read_text(encoding="utf-8")
    options: dict[str, Any] = {"device_map": {"": device()}} if packed else {}
    model, info = from_files(auto, folder, dtype="auto", **options)
    missing, strange = set(info["missing_keys"]), set(info["unexpected_keys"])
    _refuse_keys(folder, own=missing, saved=strange)
    settle_quantized(model)
    pool_hidden_states(model, backbone.pooling)
    move_padding_behind(model, restore=backbone.pooling is None)
    model.config.use_cache = False  # as while it was trained
    backbone.model = model if packed else model.to(device())
    return backbone.model


def go_on_from(bench: Workbench, model: Any, folder: Path) -> None:
    """Give a fresh adapter the weights of the one in `folder`; its head, if of these labels."""
    from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    if not isinstance(model, PeftModel) or model.active_peft_config.peft_type == "P_TUNING":
        raise Unsupported(
            f"{type(bench.recipe.method).__name__} keeps no adapter that training could go on "
            "from: what is saved is not what was trained. Next: choose lora, prompt_tuning or "
            "bottleneck."
        )
    before = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    asked = (before["recipe"]["task"]["name"], before["labels"])
    same_head = asked == (bench.recipe.to_dict()["task"]["name"], bench.data.labels) and asked[1]
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    saved = load_file(folder / "adapter_model.safetensors", device=str(model.device))
    kept = {n: t for n, t in saved.items() if same_head or not bench.in_head(n)}
    strange = [n for n, t in kept.items() if n not in own or own[n].shape != t.shape]
    if strange or any(n not in kept and not bench.in_head(n) for n in own):
        raise Unsupported(
            f"the adapter in {folder} is not one that {type(bench.recipe.method).__name__} with "
            f"these options trains ({strange[0] if strange else 'tensors are missing'} differs)"
            ". Next: give every stage the same method and options, and plain LoRA no init."
        )
    set_peft_model_state_dict(model, {**own, **kept})
