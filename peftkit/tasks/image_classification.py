"""Image classification: one image, one label.

A row: `{"image": {"bytes": b"...JFIF...", "path": "IMG_4363.JPG"}, "label": 4}`, from Parquet (as
`datasets` writes images), a table with a column of paths, or a folder of images with a folder a
class. Pixels are those of the backbone's own processor on Pillow, whatever else is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from peftkit.tasks._media import MediaClassification
from peftkit.tasks._task import Example

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from peftkit.backbones import LoadedBackbone
    from peftkit.evaluate import Collate


@dataclass(frozen=True, kw_only=True)
class ImageClassification(MediaClassification):
    """One label for an image."""

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForImageClassification",)
    inputs: ClassVar[Literal["text", "image", "audio"]] = "image"

    image_column: str | None = None
    """Column of the image; none: found by name and type."""

    @property
    def column(self) -> str | None:
        return self.image_column

    def look(self, content: bytes) -> None:
        from peftkit.data.decoding import open_image

        open_image(content)

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        contents = self.contents(rows)
        if not contents:
            return []
        length = _num_patches(_pixels(backbone, contents[:1])["pixel_values"], backbone)
        return [
            {"image": content, "labels": int(label), "_length": length}
            for content, label in zip(contents, rows["label"][:], strict=True)
        ]

    def length(self, example: Example) -> int:
        """Patches, the same for every image."""
        return int(example["_length"])

    def collate(self, backbone: LoadedBackbone) -> Collate:
        import torch

        def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            batch = _pixels(backbone, [example["image"] for example in examples])
            return {**batch, "labels": torch.tensor([example["labels"] for example in examples])}

        return collate


def _pixels(backbone: LoadedBackbone, contents: list[bytes]) -> dict[str, torch.Tensor]:
    """What the backbone's processor makes of some images, in the backbone's number format."""
    from peftkit.data.decoding import open_image

    batch = backbone.processor([open_image(content) for content in contents], return_tensors="pt")
    dtype = backbone.model.dtype
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in batch.items()}


def _num_patches(pixels: torch.Tensor, backbone: LoadedBackbone) -> int:
    """Tokens of an image: its patches, where there is such a thing."""
    size = getattr(backbone.model.config, "patch_size", None)
    if not isinstance(size, int):
        return 1
    return (pixels.shape[-1] // size) * (pixels.shape[-2] // size)
