"""GGUF of the adapter alone, which llama.cpp puts on a base that was converted by itself.

Written by llama.cpp's `convert_lora_to_gguf.py`, which reads alpha and nothing else of PEFT's
configuration, and scales by alpha / rank: where PEFT scales otherwise (rsLoRA), the converter is
given the alpha that comes to the same. Read back with the package gguf, its updates added to the
base as transformers loads it, and that model's answers compared.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import Unsupported, VerificationFailed
from peftkit.formats._llama_cpp import LlamaCppFormat
from peftkit.formats._stock import (
    CONFIG,
    FILES,
    AdapterFormat,
    read_config,
    stock_base,
    unlike_plain_lora,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from peftkit.exporting.adapted import AdaptedRun

FILE = "adapter.gguf"
FACTORS = (".lora_a", ".lora_b")


@dataclass(frozen=True, kw_only=True)
class GGUFAdapter(LlamaCppFormat):
    """The LoRA alone, for llama.cpp; needs its converter (--llama-cpp)."""

    script: ClassVar[str] = "convert_lora_to_gguf.py"

    def check(self, run: AdaptedRun) -> None:
        super().check(run)
        AdapterFormat().check(run)
        if run.bench.backbone.quantization != "none":
            raise Unsupported(
                f"it was trained against weights packed as {run.bench.backbone.quantization}, and "
                "llama.cpp packs otherwise. Next: peftkit merge RUN --base dequantized, and export "
                "the merged folder to gguf."
            )
        for reason in unlike_plain_lora(read_config(run)):
            raise Unsupported(
                f"llama.cpp does not take this adapter: {reason}. Next: --format gguf, which has "
                "it in the weights."
            )

    def room(self, run: AdaptedRun) -> float:
        return AdapterFormat().room(run)

    def write(self, run: AdaptedRun, folder: Path) -> None:
        source = folder / "peft"
        source.mkdir()
        for name in FILES:
            shutil.copyfile(run.folder / name, source / name)
        config = read_config(run)
        if config.get("use_rslora"):  # alpha / sqrt(rank), as alpha' / rank
            config["lora_alpha"] *= config["r"] ** 0.5
        (source / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        base = str(run.bench.backbone.location.folder)
        self.convert(source, folder / FILE, "f32", "--base", base)
        shutil.rmtree(source)

    def opened(self, run: AdaptedRun, folder: Path) -> Callable[..., Any]:
        import torch

        model = stock_base(run)
        updates = read_updates(folder / FILE, model)
        expected = {
            name.removesuffix(".lora_A.weight").removeprefix("base_model.model.")
            for name in _tensor_names(run.folder / FILES[1])
            if name.endswith(".lora_A.weight")
        }
        if updates.keys() != expected:
            named = ", ".join(sorted(updates.keys() ^ expected)[:3])
            raise VerificationFailed(f"the GGUF file has not the adapter's own layers: {named}")
        with torch.no_grad():
            for name, update in updates.items():
                model.get_submodule(name).weight += update
        found: Callable[..., Any] = model
        return found


def read_updates(file: Path, model: Any) -> dict[str, torch.Tensor]:
    """What a GGUF adapter adds to the weights of each layer, by the names that `model` has.

    Raises:
        VerificationFailed: The file is none that can be read.
    """
    import torch
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    try:
        reader = GGUFReader(str(file))
    except (ValueError, OSError, IndexError) as error:
        raise VerificationFailed(f"{file.name} cannot be read back: {error}") from error
    field = reader.get_field("adapter.lora.alpha")
    if field is None:
        raise VerificationFailed(f"{file.name} says nothing of alpha")
    alpha = float(field.contents())
    config = model.config.to_dict()
    family = TENSOR_PROCESSORS.get(config["model_type"], TensorProcessor)
    undo = family(config=config)  # the order that the converter gives rows of queries and keys
    names = get_gguf_hf_weights_map(model, undo)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    found = {}
    for name in {tensor.removesuffix(".lora_a").removesuffix(".lora_b") for tensor in tensors}:
        if not {name + part for part in FACTORS} <= tensors.keys():
            raise VerificationFailed(f"{name} of {file.name} is no pair of factors")
        down, up = (torch.tensor(tensors[name + part]) for part in FACTORS)
        up = torch.tensor(undo.process(up.numpy(), name=name).weights)
        found[names[name].removesuffix(".weight")] = alpha / len(down) * up @ down
    return found


def _tensor_names(file: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        names: list[str] = list(tensors.keys())
    return names
