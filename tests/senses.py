"""Toy images and sounds: three classes each, from a seed, small enough for tiny twins."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from PIL import Image

COUNTS = {"train": 42, "validation": 12, "test": 18}
LABELS = ("first", "second", "third")
RATE = 2000  # of toy sounds; the twins' processors want 4,000 (wav2vec 2.0) and 16,000 Hz (Whisper)


def image_bytes(pixels: np.ndarray, *, format: str = "PNG") -> bytes:
    """A file of pixels `(height, width, 3)`, 0 to 255."""
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, format)
    return file.getvalue()


def sound_bytes(samples: np.ndarray, rate: int = RATE, *, format: str = "FLAC") -> bytes:
    """A file of samples `(time,)` or `(time, channels)` in [-1, 1]."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format)
    return file.getvalue()


def toy_image(label: int, draw: np.random.Generator) -> bytes:
    """40 x 28 noisy pixels, one colour brighter than the others."""
    pixels = draw.uniform(0, 120, (28, 40, 3))
    pixels[..., label] += 110
    return image_bytes(pixels)


def toy_sound(label: int, draw: np.random.Generator) -> bytes:
    """0.1 to 0.5 s of a tone, a class its pitch, in noise."""
    time = np.arange(draw.integers(RATE // 10, RATE // 2)) / RATE
    tone = np.sin(2 * np.pi * (100, 250, 600)[label] * time + draw.uniform(0, 6))
    return sound_bytes(0.5 * tone + draw.normal(size=len(time)) * 0.05)


def write_rows(folder: Path, column: str, make: Callable[[int, np.random.Generator], bytes],
               counts: dict[str, int] = COUNTS) -> Path:  # fmt: skip
    """A Parquet file a split, as `datasets` writes images and sounds; classes in turn."""
    for seed, (split, count) in enumerate(counts.items()):
        draw = np.random.default_rng(seed)
        codes = [i % len(LABELS) for i in range(count)]
        stored = [
            {"bytes": make(code, draw), "path": f"{split}_{i}"} for i, code in enumerate(codes)
        ]
        labels = [LABELS[code] for code in codes]
        pq.write_table(pa.table({column: stored, "label": labels}), folder / f"{split}.parquet")
    return folder
