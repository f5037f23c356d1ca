"""GGUF: the merged model in one file, for llama.cpp and what is built on it.

Written by llama.cpp's own converter (`convert_hf_to_gguf.py`), in the number format of the base, so
that no weight changes. Read back with the package gguf, undoing the converter's order of rows, and
compared tensor by tensor; then put into the model again, and its answers are compared.
"""

from __future__ import annotations

import copy
import io
import shutil
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import Unsupported, VerificationFailed
from peftkit.formats._llama_cpp import LlamaCppFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from peftkit.exporting.adapted import AdaptedRun

FILE = "model.gguf"
_TYPES = {"float32": "f32", "bfloat16": "bf16"}


@dataclass(frozen=True, kw_only=True)
class GGUF(LlamaCppFormat):
    """The merged model in one file, for llama.cpp; needs its converter (--llama-cpp)."""

    script: ClassVar[str] = "convert_hf_to_gguf.py"

    def check(self, run: AdaptedRun) -> None:
        from peft import PeftModel

        super().check(run)
        backbone, method = run.bench.backbone, run.saved.recipe.method
        if backbone.quantization != "none":
            raise Unsupported(
                f"the weights are packed as {backbone.quantization}. Next: peftkit merge RUN "
                "--base dequantized, and export the merged folder."
            )
        if isinstance(run.model, PeftModel) and not method.mergeable:
            raise Unsupported(
                f"{type(method).__name__} does not fold into the weights, and GGUF holds nothing "
                "else. Next: --format onnx or torch."
            )

    def dtype(self, run: AdaptedRun) -> str:
        return str(run.saved.recipe.backbone.dtype)

    def write(self, run: AdaptedRun, folder: Path) -> None:
        import torch

        model, dtype = run.folded(), self.dtype(run)
        plain = folder / "plain"
        whole = copy.deepcopy(model).to(getattr(torch, dtype))
        whole.config.use_cache = True
        whole.save_pretrained(plain)
        run.bench.save_processor(plain)
        self.convert(plain, folder / FILE, _TYPES[dtype])
        shutil.rmtree(plain)

    def opened(self, run: AdaptedRun, folder: Path) -> Callable[..., Any]:
        import torch

        found = read_tensors(folder / FILE, run.model)
        compare_tensors(run.model, found, self.dtype(run))
        compare_ends(folder / FILE, run.bench.backbone.processor)
        again: Callable[..., Any] = copy.deepcopy(run.model)
        with torch.no_grad():
            for name, own in again.named_parameters():  # type: ignore[attr-defined]
                if name in found:
                    own.copy_(found[name])
        return again


def read_tensors(file: Path, model: Any) -> dict[str, torch.Tensor]:
    """The tensors of a GGUF file, by the names and in the order that `model` has.

    Raises:
        VerificationFailed: The file is none that can be read.
    """
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    try:
        with redirect_stderr(io.StringIO()):  # a bar of its own
            found = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)
    except (ValueError, OSError, KeyError, IndexError, AssertionError) as error:
        raise VerificationFailed(f"{file.name} cannot be read back: {error}") from error
    tensors: dict[str, torch.Tensor] = found["tensors"]
    return tensors


def compare_tensors(model: Any, found: Mapping[str, torch.Tensor], dtype: str) -> None:
    """Raise unless every parameter of `model` is in `found`, rounded once at most.

    Raises:
        VerificationFailed: With the first that is not.
    """
    import torch

    for name, own in model.named_parameters():  # tied ones once
        if name not in found:
            raise VerificationFailed(f"{name} is missing in the GGUF file")
        expected = own.detach().to(getattr(torch, dtype)).float()
        there = found[name].float()
        if there.shape != expected.shape:
            raise VerificationFailed(
                f"{name} has shape {tuple(there.shape)} in the GGUF file, not "
                f"{tuple(expected.shape)}"
            )
        off = float((there - expected).abs().max())
        if not off == 0.0:  # also where it is not a number
            raise VerificationFailed(f"{name} is off by up to {off:.3g} in the GGUF file")


def compare_ends(file: Path, tokenizer: Any) -> None:
    """Raise unless the file names the tokens that begin and end a text as the tokenizer does.

    Raises:
        VerificationFailed: It names others.
    """
    from gguf import GGUFReader

    reader = GGUFReader(str(file))
    for kind in ("bos", "eos"):
        field = reader.get_field(f"tokenizer.ggml.{kind}_token_id")
        own = getattr(tokenizer, f"{kind}_token_id")
        if field is not None and own is not None and int(field.contents()) != own:
            raise VerificationFailed(
                f"the {kind} token is {int(field.contents())} in the GGUF file, not {own}"
            )
