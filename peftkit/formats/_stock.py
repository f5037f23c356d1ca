"""What the formats have in common that are an adapter, for PEFT and transformers alone.

The base is loaded as any user of them loads it, without the changes that peftkit makes to a model:
those let heads read the mean over tokens, or the last token behind virtual ones. Where a run relies
on such a change, the adapter alone is not the run, and that is said.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import Unsupported
from peftkit.formats._format import Format
from peftkit.record import CONTINUED

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftkit.exporting.adapted import AdaptedRun

CONFIG = "adapter_config.json"
FILES = (CONFIG, "adapter_model.safetensors")


@dataclass(frozen=True, kw_only=True)
class AdapterFormat(Format):
    """The adapter's own two files and the tokenizer."""

    def check(self, run: AdaptedRun) -> None:
        method = run.saved.recipe.to_dict()["method"]["name"]
        if not (run.folder / CONFIG).is_file():
            raise Unsupported(
                f"{method} leaves no adapter, but a whole model. Next: --format onnx or torch, or "
                "the folder as it is."
            )
        if not all((run.folder / name).is_file() for name in FILES):
            raise Unsupported(
                f"{run.folder} lacks {FILES[1]}. Next: run the recipe again; a pickled adapter is "
                "converted by loading it and saving it with PEFT."
            )
        if (run.folder / CONTINUED).is_dir():
            raise Unsupported(
                f"this adapter sits on a backbone of its own, {run.folder / CONTINUED}. Next: "
                "--format onnx or torch, or copy both folders."
            )
        kind = read_config(run)["peft_type"]
        if not _peft_knows(kind):
            raise Unsupported(
                f"{kind} is a tuner of peftkit's own, which PEFT alone does not load. Next: "
                "--format onnx or torch."
            )
        require_stock_head(run)

    def room(self, run: AdaptedRun) -> float:
        return float(2 * sum((run.folder / name).stat().st_size for name in FILES))

    def write(self, run: AdaptedRun, folder: Path) -> None:
        for name in FILES:
            shutil.copyfile(run.folder / name, folder / name)
        if (run.folder / "README.md").is_file():
            shutil.copyfile(run.folder / "README.md", folder / "README.md")
        run.bench.save_processor(folder)

    def opened(self, run: AdaptedRun, folder: Path) -> Callable[..., Any]:
        from peft import PeftModel

        from peftkit.methods._peft import quiet

        with quiet():
            model = PeftModel.from_pretrained(stock_base(run), str(folder))
        return model.eval()


def read_config(run: AdaptedRun) -> dict[str, Any]:
    """The adapter's own configuration."""
    found: dict[str, Any] = json.loads((run.folder / CONFIG).read_text(encoding="utf-8"))
    return found


def unlike_plain_lora(config: dict[str, Any]) -> list[str]:
    """What makes an adapter more than one LoRA of one rank and scale, by its configuration."""
    if config["peft_type"] != "LORA":
        return [f"it is {config['peft_type']}, and no LoRA"]
    more = {
        "DoRA scales rows of the weights": config.get("use_dora"),
        "it trains biases": config.get("bias", "none") != "none" or config.get("lora_bias"),
        "it trains whole modules": config.get("modules_to_save"),
        "single layers have a rank of their own": config.get("rank_pattern"),
        "single layers have an alpha of their own": config.get("alpha_pattern"),
        "it trains single parameters": config.get("target_parameters"),
        "it trains tokens of the embedding": config.get("trainable_token_indices"),
    }
    return [reason for reason, has in more.items() if has]


def stock_base(run: AdaptedRun) -> Any:
    """The base as transformers loads it; packed ones, as the run was given them."""
    import transformers

    from peftkit.workbench import Workbench

    backbone, labels = run.bench.backbone, run.saved.labels
    if backbone.quantization != "none":
        bench = run.bench
        return Workbench(bench.recipe, bench.data, bench.folder).backbone.model
    folder = str(backbone.location.folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    if run.saved.recipe.task.reads != "token":
        config.num_labels = len(labels)
    config.use_cache = False
    if backbone.inputs == "text":
        config.pad_token_id = backbone.processor.pad_token_id
    auto = getattr(transformers, backbone.auto_class)
    dtype = str(run.saved.recipe.backbone.dtype)  # rounded as in training, then widened
    return auto.from_pretrained(folder, config=config, dtype=dtype).float().eval()


def _peft_knows(kind: str) -> bool:
    """Whether the tuner is one that PEFT brings."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    found = {str(key.value): cls for key, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    return kind in found and found[kind].__module__.startswith("peft.")


def require_stock_head(run: AdaptedRun) -> None:
    """Raise unless transformers' own head reads what the run's reads."""
    from peftkit.backbones import unlike_stock

    backbone = run.bench.backbone
    if reads := unlike_stock(backbone):
        raise Unsupported(
            f"the head of this run reads the {reads} of the tokens, and that of "
            f"{type(backbone.model).__name__} in transformers does not: loaded without peftkit it "
            "would answer otherwise. Next: --format onnx or torch, or train with "
            "--backbone.pooling model."
        )
    if backbone.pooling == "last" and run.bench.virtual_tokens:
        raise Unsupported(
            "behind virtual tokens the head in transformers reads the last position, padding or "
            "not: loaded without peftkit the adapter would answer otherwise. Next: --format onnx "
            "or torch."
        )
