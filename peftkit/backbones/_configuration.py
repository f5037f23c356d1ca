"""The configuration of a backbone alone: what it would be, without its weights.

A folder with `config.json`, such a file under any name, "bundled", a tiny twin, or a name of the
hub, of which that one file is fetched. Reading imports neither torch nor transformers; making
transformers' object of what was read does.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, Literal

from peftkit.backbones._family import family_of
from peftkit.backbones._locate import TWIN_PREFIX, hub_errors, locate_bundled, unreachable
from peftkit.errors import BackboneNotFound

FILE = "config.json"
ALLOWED = "a folder with config.json, a configuration file (.json), a hub name, or 'bundled'"
Reader = Literal["encoder", "decoder", "encoder-decoder", "image", "audio"]


def read_configuration(name: str, revision: str | None = None) -> dict[str, Any]:
    """What the configuration of a backbone says.

    Args:
        name: As `Backbone.name`, or a configuration file.
        revision: Branch, tag or commit on the hub.

    Raises:
        BackboneNotFound: There is no such file, it is no configuration of a model, or the hub
            cannot be reached.
    """
    path = _find(name, revision)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(body, dict):
            raise TypeError(f"a {type(body).__name__} instead of a mapping")
    except (OSError, ValueError, TypeError) as error:
        raise BackboneNotFound(
            f"{path} cannot be read as a configuration",
            received=str(error),
            allowed="the config.json that save_pretrained writes",
            next_step="check the file",
        ) from error
    if not isinstance(body.get("model_type"), str):
        raise BackboneNotFound(
            f"{path} names no model_type",
            received=f"the keys {', '.join(list(body)[:8]) or 'none'}",
            allowed="the config.json of a transformers model",
            next_step="check that save_pretrained wrote it (an adapter's own does not do)",
        )
    return body


def make_configuration(body: dict[str, Any]) -> Any:
    """The configuration of transformers that `read_configuration` read.

    Raises:
        BackboneNotFound: The installed transformers does not know the architecture, or refuses a
            value.
    """
    from transformers import CONFIG_MAPPING

    kind = body["model_type"]
    if kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(kind, list(CONFIG_MAPPING.keys()), n=3)
        raise BackboneNotFound(
            "the installed transformers does not know this architecture",
            received=f"model_type {kind!r}",
            allowed=f"one that it knows, such as {', '.join(near or ['bert', 'llama', 't5'])}",
            next_step="check model_type, or install a newer transformers; code of the hub is not "
            "run",
        )
    try:
        return CONFIG_MAPPING[kind].from_dict(dict(body))
    except Exception as error:  # each architecture checks its values in its own way
        raise BackboneNotFound(
            f"transformers refuses this configuration of {kind}",
            received=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            next_step="compare it with the config.json of a published model of this kind",
        ) from error


def reader(body: dict[str, Any]) -> Reader:
    """What a backbone reads, and whether it writes: from its configuration alone."""
    family = family_of(body["model_type"])
    if family is not None and family.inputs != "text":
        return family.inputs
    if body.get("is_encoder_decoder"):
        return "encoder-decoder"
    if family is not None:
        return "decoder" if family.pooling == "last" else "encoder"
    named = " ".join(map(str, body.get("architectures") or ()))
    if "ConditionalGeneration" in named:
        return "encoder-decoder"
    if "ImageClassification" in named:
        return "image"
    return "decoder" if "CausalLM" in named or "LMHead" in named else "encoder"


def positions(body: dict[str, Any]) -> int | None:
    """Tokens of the longest text that a backbone has positions for; None: it sets no limit."""
    text = body.get("text_config") or body
    found = [text[name] for name in ("max_position_embeddings", "n_positions") if name in text]
    family = family_of(body["model_type"])
    relative = family is not None and family.name == "t5"  # its n_positions limits nothing
    if not found or relative:
        return None
    padding = text.get("pad_token_id")
    # RoBERTa's positions start after the padding index.
    lost = 1 + padding if family and family.name == "roberta" and padding is not None else 0
    return int(found[0]) - lost


def _find(name: str, revision: str | None) -> Path:
    path = Path(name).expanduser()
    if name == "bundled":
        return locate_bundled() / FILE
    if name.startswith(TWIN_PREFIX):
        from peftkit.backbones._twin import twin_folder

        return twin_folder(name.removeprefix(TWIN_PREFIX)) / FILE
    if path.is_file():
        return path
    if path.is_dir():
        if (path / FILE).is_file():
            return path / FILE
        raise BackboneNotFound(
            f"{path} holds no configuration",
            received=", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing",
            allowed=ALLOWED,
            next_step="name the folder that save_pretrained wrote",
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(".json"):
        raise BackboneNotFound(
            f"there is no file or folder {name!r}", allowed=ALLOWED, next_step="check the path"
        )
    return _download(name, revision)


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, FILE, revision=revision))
    except hub_errors() as error:
        raise unreachable(f"the configuration of {name!r}", error, allowed=ALLOWED) from error
