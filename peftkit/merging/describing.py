"""What lies beside merged weights: tokenizer, pooling, generation settings, manifest, card."""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput
from peftkit.record import MANIFEST, Record, write_atomically
from peftkit.tasks._prompted import OWN

if TYPE_CHECKING:
    from pathlib import Path

    from peftkit.merging.performing import Merged
    from peftkit.merging.request import Request
    from peftkit.saved import SavedRun

GENERATION = "generation_config.json"


def write_beside(saved: SavedRun, request: Request, folder: Path) -> None:
    """Write all but the weights, from the adapted model; `peftkit.json` says how to load them."""
    from peftkit.backbones import declare_pooling

    predictor: Any = saved.predictor
    backbone = predictor.bench.backbone
    predictor.bench.save_processor(folder)
    declare_pooling(folder, backbone.pooling, backbone.model.config)
    manifest = json.loads(json.dumps(request.manifest))
    manifest["recipe"]["method"] = {"name": "full"}  # what the folder holds: a whole model
    if request.base != "requantized":
        for name in ("quantization", "double_quantization", "compute_dtype", "storage_dtype"):
            manifest["recipe"]["backbone"].pop(name, None)
    with_own_template(manifest)
    manifest["merged"] = {}
    _write(folder, manifest)


def with_own_template(manifest: dict[str, Any]) -> None:
    """Say that the chat template is that of the tokenizer beside, which `save_processor` made so.

    A file that the recipe named may be gone tomorrow.
    """
    task = manifest["recipe"]["task"]
    if task.get("chat_template") is not None:
        task["chat_template"] = OWN


def write_facts(folder: Path, done: Merged) -> None:
    """Add to the folder how the merge was done and proven."""
    from peftkit.cards import merged_card

    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["merged"] = done.to_dict()
    _write(folder, manifest)
    record = None
    with contextlib.suppress(OSError, InvalidInput):  # a card can do without it
        record = Record.read(done.request.run / "record.json")
    write_atomically(folder / "README.md", merged_card(manifest, record))


def settle_config(folder: Path, base: Path) -> None:
    """Give the merged model what its base says of generating, which training has switched off.

    Args:
        folder: Of the merged model, its `config.json` written.
        base: Where the files of the base are.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("use_cache", None)
    own = json.loads((base / path.name).read_text(encoding="utf-8"))
    if "use_cache" in own:
        config["use_cache"] = own["use_cache"]
    write_atomically(path, json.dumps(config, indent=2) + "\n")
    if (base / GENERATION).is_file() and not (folder / GENERATION).is_file():
        shutil.copyfile(base / GENERATION, folder / GENERATION)


def _write(folder: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    write_atomically(folder / MANIFEST, text)
