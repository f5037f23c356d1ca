"""Data from the Hugging Face hub, by name.

`datasets` downloads it into its own cache and reads it from there when the machine is offline. Code
that comes with a dataset is never run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftkit.data.splits import SPLIT_NAMES, detach, split_of
from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    from datasets import Dataset

_LOCAL = (
    "give a local file or folder instead, or a bundled corpus (pydocs/...), which needs no network"
)


def read_hub(
    name: str, *, configuration: str | None = None, revision: str | None = None
) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """Read a dataset of the hub, by split.

    Args:
        name: Name on the hub, such as "nyu-mll/glue".
        configuration: One of the parts it comes in, such as "sst2".
        revision: Commit, branch or tag.

    Returns:
        The splits peftkit knows, and a note on those left aside.

    Raises:
        InvalidInput: It cannot be reached or loaded, or has no train split.
    """
    from datasets import Dataset, DatasetDict, load_dataset
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        loaded = load_dataset(name, configuration, revision=revision)
    except DatasetNotFoundError as error:
        raise _unreachable(name, str(error)) from error
    except (DatasetsError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"the dataset {name!r} of the Hugging Face hub cannot be loaded",
            received=f"configuration {configuration!r}, revision {revision!r}: {error}",
            next_step="choose a configuration named above if there is one; else " + _LOCAL,
        ) from error
    except OSError as error:
        raise _unreachable(name, str(error)) from error
    parts = dict(loaded) if isinstance(loaded, DatasetDict) else {"train": loaded}
    if not all(isinstance(part, Dataset) for part in parts.values()):
        raise InvalidInput(f"the dataset {name!r} can only be streamed", next_step=_LOCAL)
    return _known_splits(name, parts)


def _unreachable(name: str, why: str) -> InvalidInput:
    from datasets import config

    return InvalidInput(
        f"the dataset {name!r} cannot be reached on the Hugging Face hub",
        received=why.split("\n")[0].rstrip(".")
        + (" (offline mode is set)" if config.HF_HUB_OFFLINE else ""),
        allowed="a name on the hub, with a network or already in the cache of `datasets`; "
        "there is no local file or folder of this name either",
        next_step=_LOCAL,
    )


def _known_splits(
    name: str, parts: dict[str, Dataset]
) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """Return the parts under the names of splits; of two for one split the first counts."""
    found: dict[str, Dataset] = {}
    aside = []
    for part_name, part in parts.items():
        split = split_of(part_name)
        if split is None or split in found:
            aside.append(part_name)
        else:
            found[split] = detach(part)
    if "train" not in found:
        raise InvalidInput(
            f"the dataset {name!r} has no train split",
            received=", ".join(parts),
            allowed=", ".join(SPLIT_NAMES),
            next_step="choose another configuration, or save the rows to a local file",
        )
    return found, ((f"splits not used: {', '.join(aside)}",) if aside else ())
