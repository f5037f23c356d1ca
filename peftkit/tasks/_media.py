"""What classifying images and classifying sounds share: how their rows are found and read.

A row: `{"image": {"bytes": b"...", "path": "IMG_4363.JPG"}, "label": 4}`. Rows stay as they are in
the files, encoded; a batch is decoded when it is made. Memory then holds what is on disk and one
batch, not every pixel as a float (600 kB for one image of 224 x 224); the price is that every epoch
decodes again (measured in `benchmarks/NOTES.md`). Every row that will be used is decoded once
beforehand, so that a broken file is told of before any training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import Unsupported
from peftkit.extras import require_reader
from peftkit.tasks._classification import Classification
from peftkit.tasks._task import Progress, TaskData

if TYPE_CHECKING:
    from datasets import Dataset

    from peftkit.data import Splits


@dataclass(frozen=True, kw_only=True)
class MediaClassification(Classification):
    """One label for an image or a sound; `inputs` says which."""

    @property
    def column(self) -> str | None:
        """The column that the user named, if any."""
        raise NotImplementedError

    def look(self, content: bytes) -> Any:
        """Decode one file.

        Raises:
            ValueError: It cannot be read.
        """
        raise NotImplementedError

    def remember(self, seen: Mapping[str, Sequence[Any]]) -> list[str]:
        """What a reader must know of what `look` returned, by split."""
        return []

    def load(self, *, seed: int, progress: Progress | None = None) -> TaskData:
        require_reader(self.inputs)
        return super().load(seed=seed, progress=progress)

    def find_label(self, rows: Dataset) -> str:
        from peftkit.data import find_label_column, find_media_column

        column = find_media_column(rows, self.kind, self.column)
        return find_label_column(rows, self.label_column, taken=(column,))

    @property
    def kind(self) -> Any:
        """What rows hold, and what the column of it is called."""
        return self.inputs

    def label(self, splits: Splits) -> tuple[list[str], Splits]:
        from peftkit.data import labelled_media

        path = Path(self.data).expanduser()
        here = path if path.is_dir() else path.parent if path.is_file() else None
        return labelled_media(
            splits, self.kind, column=self.column, label=self.label_column, folder=here
        )

    def check(
        self, parts: Mapping[str, Dataset], drawn: Sequence[int] | None, progress: Progress | None
    ) -> list[str]:
        from peftkit.data import check_media

        total = sum(len(rows) for rows in parts.values())
        done = 0

        def tell(count: int) -> None:
            if progress:
                progress(done + count, total, f"check every {self.inputs} file")

        seen = {}
        for name, rows in parts.items():
            seen[name] = check_media(
                rows,
                self.kind,
                self.look,
                where=f"the {name} split",
                numbers=drawn if name == "train" else None,
                progress=tell,
            )
            done += len(rows)
        return self.remember(seen)

    def read(self, file: Path, labels: list[str]) -> Dataset:
        from peftkit.data import check_media, known_media, read_rows

        require_reader(self.inputs)
        rows = known_media(
            read_rows(file), self.kind, labels, column=self.column, label=self.label_column,
            source=Path(file),
        )  # fmt: skip
        check_media(rows, self.kind, self.look, where=str(file))
        return rows

    def rows(self, texts: Sequence[str]) -> Dataset:
        """Rows of files, given by their paths."""
        from peftkit.data import bare_media

        return bare_media(texts, self.kind)

    def shown(self, rows: Dataset) -> list[str]:
        return [str(value["path"]) for value in rows[self.kind]]

    def texts(self, rows: Dataset) -> list[str]:
        raise Unsupported(f"an {self.inputs} file has no text")

    def contents(self, rows: Dataset) -> list[bytes]:
        """The file of each row.

        Raises:
            InvalidInput: One cannot be read or decoded, of rows that came as bare paths.
        """
        from peftkit.data import check_media, content_of

        bare = any(value["bytes"] is None for value in rows[self.kind])
        if bare:  # not seen by `load`
            check_media(rows, self.kind, self.look, where="the files given")
        return [content_of(value) for value in rows[self.kind]]
