"""A folder of images or sounds with a folder a class, with or without a folder a split above.

`train/cat/1.png`, `test/dog/7.png`, or `cat/1.png`: the class is the name of the folder that the
file is in. Files are read into memory as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.data.splits import splits_by_name
from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = {
    "image": frozenset((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")),
    "audio": frozenset((".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus")),
}


def read_class_folders(folder: Path) -> dict[str, Dataset]:
    """Read files that lie in a folder a class, by split; empty if there are none.

    Raises:
        InvalidInput: Images and sounds lie side by side, or some splits have a folder and some
            classes do, too.
    """
    children = [child for child in sorted(folder.iterdir()) if child.is_dir()]
    holding = [child for child in children if _classes(child)]
    splits = splits_by_name([child.name for child in holding], str(folder))
    named = {folder / own: name for name, own in splits.items()}
    if not named:
        classes = _classes(folder)
        return {"train": _rows(folder, classes)} if classes else {}
    beside = [child.name for child in children if child not in named and _files(child)]
    if beside:
        raise InvalidInput(
            f"it is unclear whether the folders of {folder} are splits or classes",
            received=", ".join([*(child.name for child in named), *beside]),
            allowed="a folder a split with a folder a class in each, or a folder a class",
            next_step="move the folders that do not belong away",
        )
    return {name: _rows(child, _classes(child)) for child, name in named.items()}


def _files(folder: Path) -> list[Path]:
    every = frozenset().union(*SUFFIXES.values())
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in every]


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Files of each class below `folder`, by the name of the class."""
    children = [child for child in sorted(folder.iterdir()) if child.is_dir()]
    return {child.name: files for child in children if (files := _files(child))}


def _rows(folder: Path, classes: dict[str, list[Path]]) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    files = [(path, label) for label, paths in classes.items() for path in paths]
    kinds = {k for path, _ in files for k, own in SUFFIXES.items() if path.suffix.lower() in own}
    if len(kinds) > 1:
        raise InvalidInput(
            f"{folder} holds images and sounds",
            allowed="files of one kind",
            next_step="move one kind away",
        )
    stored = [{"bytes": path.read_bytes(), "path": path.name} for path, _ in files]
    struct = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
    columns = {kinds.pop(): pa.array(stored, struct), "label": [label for _, label in files]}
    return Dataset(pa.table(columns))
