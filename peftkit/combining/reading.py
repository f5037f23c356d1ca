"""Reading the adapter of a run: its factors layer by layer, and the modules it trained whole.

What cannot be read as `scale * B A` with a bias and DoRA's lengths is refused by name: a wrong sum
would look like any other.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput, WrongBackbone
from peftkit.record import CONTINUED
from peftkit.saved import open_run

if TYPE_CHECKING:
    from torch import Tensor

    from peftkit.workbench import Workbench

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.(lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_magnitude_vector)")
# Options of PEFT's LoRA that leave the update at `scale * B A`, with DoRA's lengths and a bias.
_UNDERSTOOD = {
    "r", "lora_alpha", "lora_dropout", "lora_bias", "use_rslora", "use_dora", "fan_in_fan_out",
    "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "layers_to_transform",
    "layers_pattern", "modules_to_save", "eva_config", "init_lora_weights", "bias", "task_type",
    "peft_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode",
    "peft_version", "runtime_config",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What an adapter holds for one layer.

    Attributes:
        a: Matrix A, `(rank, in)`.
        b: Matrix B, `(out, rank)`.
        scale: What their product is multiplied by.
        bias: Trained beside B, `(out,)`, if there is one.
        length: DoRA's trained length of each row of the weight matrix, `(out,)`, if there is one.
    """

    a: Tensor
    b: Tensor
    scale: float
    bias: Tensor | None = None
    length: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """The adapter of a run.

    Attributes:
        folder: Of the run, as it was given.
        bench: The run's recipe at work, weights unread.
        manifest: What peftkit.json holds.
        config: PEFT's options.
        layers: Module name -> what the adapter holds for it.
        whole: Names and tensors of the modules that were trained whole, such as a head.
        fingerprint: sha256 of the adapter's weights.
    """

    folder: Path
    bench: Workbench
    manifest: dict[str, Any]
    config: dict[str, Any]
    layers: dict[str, Factors]
    whole: dict[str, Tensor]
    fingerprint: str

    @property
    def labels(self) -> list[str]:
        return self.bench.data.labels


def read_adapter(folder: Path) -> Adapter:
    """Read the adapter of a run.

    Args:
        folder: Of a finished run whose method is LoRA or a variant of it.

    Raises:
        InvalidInput: It is none, holds half of one, or one whose update is not known.
        WrongBackbone: The backbone's weights have changed since.
    """
    _refuse_ways_out(folder)
    bench, manifest = open_run(folder)
    config = _read_config(folder, manifest)
    _check_base(bench, manifest, folder)
    tensors = _read_tensors(folder)
    layers: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    trained = config.get("modules_to_save") or []
    for key, tensor in tensors.items():
        name = key.removeprefix(_PREFIX)
        found = _FACTOR.fullmatch(name)
        if found:
            layers.setdefault(found[1], {})[found[2]] = tensor
        elif any(f".{module}." in f".{name}" for module in trained):
            whole[name] = tensor
        else:
            raise InvalidInput(
                f"{folder / WEIGHTS} holds a tensor that is no part of a LoRA on linear layers",
                received=key,
                allowed=f"lora_A, lora_B, lora_magnitude_vector, or of {', '.join(trained) or '-'}",
                next_step="combine adapters of linear layers only",
            )
    return Adapter(
        folder=folder,
        bench=bench,
        manifest=manifest,
        config=config,
        layers={name: _factors(folder, name, parts, config) for name, parts in layers.items()},
        whole=whole,
        fingerprint=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
    )


def _refuse_ways_out(folder: Path) -> None:
    """Refuse files that are links to outside of the folder."""
    home = folder.resolve()
    for name in ("peftkit.json", CONFIG, WEIGHTS):
        path = folder / name
        if path.exists() and not path.resolve().is_relative_to(home):
            raise InvalidInput(
                f"{path} leads out of its folder",
                received=str(path.resolve()),
                next_step="copy the folder with its files, not with links to them",
            )


def _read_config(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """PEFT's options, if they are those of a LoRA whose update is known."""
    path, method = folder / CONFIG, manifest["recipe"]["method"]["name"]
    if not path.is_file():
        raise InvalidInput(
            f"{folder} holds no adapter",
            received=f"a run of {method}",
            allowed="runs of lora, in all its variants",
            next_step="leave this run out",
        )
    if (folder / CONTINUED).is_dir():
        raise InvalidInput(
            f"the adapter in {folder} sits on a backbone of its own, {folder / CONTINUED}",
            allowed="adapters of the backbone that the recipe names",
            next_step="leave this run out, or train lora with that folder as --backbone",
        )
    try:
        config: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _half_written(path, error) from error
    if config.get("peft_type") != "LORA":
        raise InvalidInput(
            f"the adapter in {folder} is no LoRA, so it is no sum of matrices of low rank",
            received=f"method {method}, PEFT type {config.get('peft_type')}",
            allowed="runs of lora, in all its variants",
            next_step="leave this run out",
        )
    strange = [name for name, value in config.items() if _is_strange(name, value)]
    if strange:
        raise InvalidInput(
            f"the adapter in {folder} uses an option of PEFT whose update is not known here",
            received=", ".join(f"{name}={config[name]!r}" for name in strange),
            allowed="rank, alpha and their patterns, rsLoRA, DoRA, biases beside B",
            next_step="leave this run out, or merge it into its backbone",
        )
    return config


def _is_strange(name: str, value: Any) -> bool:
    """Whether an option makes of the update something else than `_UNDERSTOOD` says."""
    from peft import LoraConfig

    if name == "init_lora_weights":  # others start from parts of W, and take these out of it
        return value not in (True, False, "gaussian", "orthogonal", "eva")
    if name == "bias":  # PEFT trains the biases of the backbone itself, LayerNorms' among them
        return bool(value != "none")
    return name not in _UNDERSTOOD and bool(value) and value != getattr(LoraConfig, name, None)


def _check_base(bench: Workbench, manifest: dict[str, Any], folder: Path) -> None:
    from peftkit.backbones import locate

    found = locate(bench.recipe.backbone)
    if found.fingerprint != manifest["backbone"]["fingerprint"]:
        raise WrongBackbone(
            f"the backbone has changed since {folder} was trained on it",
            received=f"{found.name} with fingerprint {found.fingerprint[:12]}",
            allowed=f"fingerprint {manifest['backbone']['fingerprint'][:12]}",
            next_step="give the original backbone its place again",
        )


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    pickled = sorted(p.name for p in folder.glob("adapter_model.*") if p.suffix in (".bin", ".pt"))
    if not path.is_file() and pickled:
        raise InvalidInput(
            f"the weights in {folder} are pickled, and reading such a file may run any program",
            received=pickled[0],
            allowed=WEIGHTS,
            next_step="where you trust it, load it with PEFT and save it again with "
            "save_pretrained, which writes safetensors",
        )
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _half_written(path, error) from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InvalidInput(
                f"{path} holds numbers that are not finite",
                received=name,
                next_step="leave this run out: its training has diverged",
            )
    return tensors


def _half_written(path: Path, error: Exception) -> InvalidInput:
    return InvalidInput(
        f"{path} cannot be read",
        received=f"{type(error).__name__}: {str(error).splitlines()[0]}",
        next_step="run the recipe again: the folder is only half written",
    )


def _factors(folder: Path, name: str, parts: dict[str, Tensor], config: dict[str, Any]) -> Factors:
    """One layer's, if they are all there and belong together."""
    from peft.utils.other import get_pattern_key

    def option(pattern: str, plain: str) -> Any:
        others = config.get(pattern) or {}
        return others.get(get_pattern_key(list(others), name), config[plain])

    rank, alpha = option("rank_pattern", "r"), option("alpha_pattern", "lora_alpha")
    a, b = parts.get("lora_A.weight"), parts.get("lora_B.weight")
    bias, length = parts.get("lora_B.bias"), parts.get("lora_magnitude_vector")
    fits = (
        a is not None
        and b is not None
        and a.ndim == b.ndim == 2
        and a.shape[0] == b.shape[1] == rank
        and (bias is not None) == bool(config.get("lora_bias"))
        and (length is not None) == bool(config.get("use_dora"))
        and all(each is None or each.shape == b.shape[:1] for each in (bias, length))
    )
    if not fits or a is None or b is None:
        raise InvalidInput(
            f"the factors of {name} in {folder} do not belong together",
            received=", ".join(f"{part} {tuple(t.shape)}" for part, t in sorted(parts.items())),
            allowed=f"A (rank, in) and B (out, rank) of rank {rank}, and what {CONFIG} says",
            next_step="run the recipe again, or leave this run out",
        )
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    return Factors(a=a, b=b, scale=scale, bias=bias, length=length)
