"""Weights that an earlier run saved, put on a backbone again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from peftkit.backbones import from_files
from peftkit.errors import Unsupported
from peftkit.record import MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

    from peftkit.backbones import LoadedBackbone
    from peftkit.workbench import Workbench


def reload(backbone: LoadedBackbone, folder: Path) -> Any:
    """Load what `ModelPredictor.save` wrote: an adapter folder, or a whole model.

    Returns:
        The model in evaluation mode; a whole one takes the place of the backbone's own.
    """
    import transformers

    if (folder / "adapter_config.json").is_file():
        from peft import PeftModel

        import peftkit.bitfit
        import peftkit.bottleneck  # noqa: F401  # registers our tuners with PEFT
        from peftkit.methods._peft import quiet

        with quiet():
            model = PeftModel.from_pretrained(backbone.model, str(folder))
    else:
        from peftkit.backbones._padding import move_padding_behind
        from peftkit.backbones._pooling import pool_hidden_states

        auto = getattr(transformers, backbone.auto_class)
        model, _ = from_files(auto, folder, dtype="auto")
        pool_hidden_states(model, backbone.pooling)
        move_padding_behind(model, restore=backbone.pooling is None)
        backbone.model = model.to(backbone.model.device)
        model = backbone.model
    return model.eval()


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
