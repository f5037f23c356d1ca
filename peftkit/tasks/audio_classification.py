"""Audio classification: one sound, one label.

A row: `{"audio": {"bytes": b"fLaC...", "path": "7_jackson_13.flac"}, "label": 7}`, from Parquet (as
`datasets` writes sounds), a table with a column of paths, or a folder of sounds with a folder a
class. Several channels become their mean; another sampling rate than the backbone's is resampled;
sounds longer than `max_seconds` keep their beginning. A record says what was done.

What sounds of different lengths in one batch mean depends on the backbone. With a mask, padding has
no part in any answer. Whisper's encoder reads one fixed length, here `max_seconds` instead of 30 s.
Where a checkpoint knows no mask (wav2vec2-base), batches in training are padded with zeros, as it
was trained, and in evaluation hold sounds of equal length only, so that no answer depends on which
sounds share a batch. SpecAugment, which some checkpoints ask for in training, is off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from peftkit.bounds import Gt
from peftkit.tasks._media import MediaClassification
from peftkit.tasks._task import Example, TaskData

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset

    from peftkit.backbones import LoadedBackbone
    from peftkit.evaluate import Collate


@dataclass(frozen=True, kw_only=True)
class AudioClassification(MediaClassification):
    """One label for a sound."""

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForAudioClassification",)
    inputs: ClassVar[Literal["text", "image", "audio"]] = "audio"

    audio_column: str | None = None
    """Column of the sound; none: found by name and type."""
    max_seconds: Annotated[float, Gt(0)] = 10.0
    """Longer sounds are cut; a backbone that pads every sound to one length pads to this."""

    @property
    def column(self) -> str | None:
        return self.audio_column

    def look(self, content: bytes) -> tuple[float, int]:
        """Seconds (of the whole sound) and sampling rate."""
        from peftkit.data.decoding import read_sound, sound_length

        read_sound(content, seconds=self.max_seconds)
        samples, rate = sound_length(content)
        return samples / rate, rate

    def remember(self, seen: Mapping[str, Sequence[Any]]) -> list[str]:
        seconds = [found[0] for each in seen.values() for found in each]
        cut = sum(length > self.max_seconds for length in seconds)
        if not cut:
            return []
        return [f"{cut} of {len(seconds)} sounds are cut at {self.max_seconds:g} s"]

    def remarks(self, data: TaskData, backbone: LoadedBackbone) -> list[str]:
        from peftkit.data import content_of
        from peftkit.data.decoding import sound_length

        wanted = backbone.processor.sampling_rate
        rates: Counter[int] = Counter()
        for rows in (data.train, data.validation, data.test):
            rates.update(sound_length(content_of(value))[1] for value in rows["audio"])
        others = ", ".join(str(rate) for rate in sorted(rates) if rate != wanted)
        found = [f"audio resampled from {others} to {wanted} Hz"] if others else []
        fixed = _fixed_samples(backbone)
        if fixed is not None:
            found.append(
                f"every sound is padded with silence to {fixed / wanted:g} s, which the encoder "
                "reads whole"
            )
        elif not backbone.processor.return_attention_mask:
            found.append(
                "the backbone knows no mask for padding: zeros in training, in evaluation only "
                "sounds of equal length in one batch"
            )
        return found

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        """The file of each sound, and `samples`, how many will be read of it."""
        from peftkit.data.decoding import resampled_length, sound_length

        fixed, masked = _fixed_samples(backbone), backbone.processor.return_attention_mask
        examples = []
        for content, label in zip(self.contents(rows), rows["label"][:], strict=True):
            samples, rate = sound_length(content)
            samples = min(samples, round(self.max_seconds * rate))
            wanted = resampled_length(samples, rate, backbone.processor.sampling_rate)
            wanted = max(wanted, _fewest_samples(backbone)) if fixed is None else fixed
            own = {"_length": _num_frames(wanted, backbone), "_key": 0 if masked else wanted}
            examples.append({"audio": content, "samples": wanted, "labels": int(label), **own})
        return examples

    def length(self, example: Example) -> int:
        """Frames that reach the encoder."""
        return int(example["_length"])

    def key(self, example: Example) -> int:
        return int(example["_key"])

    def collate(self, backbone: LoadedBackbone) -> Collate:
        import torch

        def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            batch = _features(backbone, [self._wave(e["audio"], backbone) for e in examples])
            return {**batch, "labels": torch.tensor([example["labels"] for example in examples])}

        return collate

    def _wave(self, content: bytes, backbone: LoadedBackbone) -> np.ndarray:
        """Samples at the backbone's rate, at least as many as make one frame."""
        import numpy as np

        from peftkit.data.decoding import read_sound, resample

        samples, rate = read_sound(content, seconds=self.max_seconds)
        wave = resample(samples, rate, backbone.processor.sampling_rate)
        return np.pad(wave, (0, max(0, _fewest_samples(backbone) - len(wave))))


def _features(backbone: LoadedBackbone, waves: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """What the backbone's extractor makes of sounds `(time,)`, in the backbone's number format.

    Each is normalised for itself, then padded, as the published checkpoints were trained.
    """
    import torch

    processor, fixed = backbone.processor, _fixed_samples(backbone)
    rate = processor.sampling_rate
    if fixed is not None:
        batch = processor(waves, sampling_rate=rate, max_length=fixed, return_tensors="pt")
    else:
        name = processor.model_input_names[0]
        found = [processor(wave, sampling_rate=rate)[name][0] for wave in waves]
        batch = processor.pad({name: found}, padding=True, return_tensors="pt")
    dtype = backbone.model.dtype
    tensors = {name: batch[name] for name in processor.model_input_names if name in batch}
    return {
        name: tensor.to(dtype) if torch.is_floating_point(tensor) else tensor
        for name, tensor in tensors.items()
    }


def _fixed_samples(backbone: LoadedBackbone) -> int | None:
    """Samples of every sound, for backbones that read one length only; of others None."""
    positions = getattr(backbone.model.config, "max_source_positions", None)
    if positions is None or backbone.processor.model_input_names[0] != "input_features":
        return None
    return int(positions) * 2 * int(backbone.processor.hop_length)  # two frames a position


def _fewest_samples(backbone: LoadedBackbone) -> int:
    """Samples that make one frame; shorter sounds are padded with silence to these."""
    samples = 1
    for kernel, stride in reversed(_convolutions(backbone)):
        samples = (samples - 1) * stride + kernel
    return samples


def _num_frames(samples: int, backbone: LoadedBackbone) -> int:
    """Frames that `samples` make: of a convolutional front end exactly, else 50 a second."""
    convolutions = _convolutions(backbone)
    if not convolutions:
        return -(-samples * 50 // int(backbone.processor.sampling_rate))
    for kernel, stride in convolutions:
        samples = (samples - kernel) // stride + 1
    return samples


def _convolutions(backbone: LoadedBackbone) -> list[tuple[int, int]]:
    """Kernels and strides of a front end that reads the waveform; none: there is no such thing."""
    config = backbone.model.config
    return list(
        zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=True)
    )
