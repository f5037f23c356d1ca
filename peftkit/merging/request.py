"""What `peftkit merge` is asked for, checked before torch is imported and any weight is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from peftkit.errors import InvalidInput, UnknownName, Unsupported
from peftkit.merging.settings import Base, Dtype
from peftkit.placing import require_free
from peftkit.saved import read_manifest

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PROMPTS = (
    "PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT",
    "CPT", "CARTRIDGE",
)  # fmt: skip
_ELSEWISE = "Next: `peftkit export RUN --format onnx`, which takes it unmerged, or keep it beside."


@dataclass(frozen=True, kw_only=True)
class Request:
    """A merge that can be tried.

    Attributes:
        run: Folder of the run.
        out: Where the merged model goes.
        manifest: Of the run.
        base: What lies under the update; "plain" where the base was not quantised.
        dtype: Number format of the merged weights.
    """

    run: Path
    out: Path
    manifest: dict[str, Any]
    base: Base
    dtype: Dtype

    @property
    def quantization(self) -> str:
        """That of the base in training."""
        return str(self.manifest["recipe"]["backbone"].get("quantization") or "none")


def check_request(
    run: Path,
    out: Path,
    *,
    base: str | None = None,
    dtype: str | None = None,
    num_rows: int = 64,
    overwrite: bool = False,
) -> Request:
    """Check all that can be known without the weights.

    Args:
        run: Folder of the run.
        out: Where the merged model goes.
        base: "original", "dequantized" or "requantized"; None: dequantized if the base was
            quantised.
        dtype: "float32", "bfloat16" or "float16"; None: that of the base.
        num_rows: Rows of the verification.
        overwrite: Whether an earlier merge in `out` may go.

    Raises:
        InvalidInput: The folders or options do not fit.
        Unsupported: The method has no place in a backbone's weights.
    """
    manifest = read_request(run)
    backbone = manifest["recipe"]["backbone"]
    dtype = dtype or str(backbone.get("dtype") or "float32")
    if dtype not in get_args(Dtype):
        raise UnknownName("number format", dtype, get_args(Dtype))
    if num_rows < 1:
        raise InvalidInput(
            "a merge is verified on rows",
            received=f"--rows {num_rows}",
            allowed="1 or more",
            next_step="leave --rows out for 64",
        )
    require_free(out, [run, *_own_folder(manifest)], "merged", overwrite=overwrite)
    return Request(
        run=run,
        out=out,
        manifest=manifest,
        base=_base(base, str(backbone.get("quantization") or "none")),
        dtype=dtype,  # type: ignore[arg-type]
    )


def read_request(run: Path) -> dict[str, Any]:
    """The manifest of a run that can be merged.

    Raises:
        InvalidInput: It is no such folder, or merged already.
        Unsupported: The method has no place in a backbone's weights.
    """
    manifest = read_manifest(run)
    _require_adapter(run, manifest)
    return manifest


def _base(asked: str | None, quantization: str) -> Base:
    routes = tuple(route for route in get_args(Base) if route != "plain")
    if asked is not None and asked not in routes:
        raise UnknownName("base", asked, routes)
    if quantization != "none":
        return asked or "dequantized"  # type: ignore[return-value]
    if asked not in (None, "original"):
        raise InvalidInput(
            "the base of this run was not quantised, so there is but one",
            received=f"--base {asked}",
            next_step="leave --base out",
        )
    return "plain"


def _require_adapter(run: Path, manifest: dict[str, Any]) -> None:
    """Refuse what holds no adapter, or one without a place in a backbone's weights."""
    name = manifest["recipe"]["method"]["name"]
    if "merged" in manifest:
        raise InvalidInput(
            f"{run} is merged already", next_step="use it as it is, or merge the run it came from"
        )
    if not (run / ADAPTER).is_file():
        if (run / "config.json").is_file():
            raise InvalidInput(
                f"{run} holds a whole model ({name}), which needs no merge",
                next_step="load it with transformers as it is",
            )
        raise Unsupported(
            f"{name} left no adapter in {run}: what it fits reads features of the backbone, which "
            "no head of transformers does. " + _ELSEWISE
        )
    kind = _peft_type(run)
    if kind in _PROMPTS:
        raise Unsupported(
            f"{name} puts trained vectors before what the backbone reads; they have no place in "
            "its weights. " + _ELSEWISE
        )
    if kind == "BOTTLENECK":
        raise Unsupported(
            f"{name} has a non-linearity between its two matrices, which folds into no weight. "
            + _ELSEWISE
        )
    if not (run / WEIGHTS).is_file():
        pickled = any(run.glob("adapter_model.bin"))
        raise InvalidInput(
            f"{run} holds no {WEIGHTS}",
            received="a pickle, which can run code when it is read" if pickled else None,
            next_step="load it with PEFT where you trust it, and save_pretrained it anew"
            if pickled
            else "run the recipe again",
        )


def _peft_type(run: Path) -> str:
    try:
        return str(json.loads((run / ADAPTER).read_text(encoding="utf-8"))["peft_type"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{run / ADAPTER} is no configuration of an adapter",
            received=f"{type(error).__name__}: {error}",
            next_step="run the recipe again",
        ) from error


def _own_folder(manifest: dict[str, Any]) -> list[Path]:
    """The folder of the backbone, if it has one that is not a cache's."""
    backbone = Path(str(manifest["recipe"]["backbone"]["name"])).expanduser()
    return [backbone] if backbone.is_dir() else []
