"""From the bytes of a file to an image or a sound: Pillow, libsndfile, nothing else.

Images come as RGB, turned as their camera says. Sounds come as one channel (the mean of several)
of float32 in [-1, 1]; another sampling rate is reached by a polyphase filter (SciPy's
`resample_poly`, whose low-pass is zero-phase and adapts to the ratio).
"""

from __future__ import annotations

import io
from math import gcd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


def open_image(content: bytes) -> Image.Image:
    """Decode an image.

    Raises:
        ValueError: It is none, or is not whole.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError("no image format that Pillow knows") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def sound_length(content: bytes) -> tuple[int, int]:
    """Return samples (a channel) and sampling rate of a sound, from its header.

    Raises:
        ValueError: It is none.
    """
    import soundfile

    try:
        found = soundfile.info(io.BytesIO(content))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(_reason(error)) from error
    return int(found.frames), int(found.samplerate)


def read_sound(content: bytes, *, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Decode a sound: float32 samples `(time,)` and their rate.

    Args:
        content: A whole file.
        seconds: At most so much of it, from its beginning.

    Raises:
        ValueError: It is no sound, holds no samples, or samples that are no finite numbers.
    """
    import numpy as np
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            wanted = -1 if seconds is None else round(seconds * file.samplerate)
            samples = file.read(wanted, dtype="float32", always_2d=True)
            rate = int(file.samplerate)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(_reason(error)) from error
    if not len(samples):
        raise ValueError("it holds no samples")
    if not np.isfinite(samples).all():
        raise ValueError("it holds samples that are no finite numbers")
    return samples.mean(axis=1), rate


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Return a sound `(time,)` at another sampling rate, `ceil(time * wanted / rate)` samples."""
    if rate == wanted:
        return samples
    from scipy.signal import resample_poly

    shared = gcd(rate, wanted)
    found: np.ndarray = resample_poly(samples, wanted // shared, rate // shared)
    return found.astype("float32")


def resampled_length(samples: int, rate: int, wanted: int) -> int:
    """Return how many samples `resample` makes of so many."""
    return -(-samples * wanted // rate)


def _reason(error: Exception) -> str:
    """Return libsndfile's words without the object that stands for the file."""
    return str(getattr(error, "error_string", None) or error).strip().rstrip(".")
