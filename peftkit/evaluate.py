"""From a model and rows to one output a row, in length-sorted batches, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from peftkit.device import device, resolve_precision

if TYPE_CHECKING:
    import numpy as np
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from peftkit.tasks import Example, Progress

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}  # padded tokens a batch; above, only padding grows
BATCH_LOGITS = 1 << 28  # of a batch: 1 GiB in float32, which large vocabularies would exceed
IGNORED = -100  # the label of a token that has none, as in transformers
Read = Callable[
    [Any, dict[str, "torch.Tensor"], "torch.Tensor"], "torch.Tensor | Sequence[torch.Tensor]"
]
Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]


def collate_padded(tokenizer: PreTrainedTokenizerBase) -> Collate:
    """Return a function that pads examples to the longest of a batch, labels of tokens too."""

    def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(e["input_ids"]) for e in examples)
        fill = {"input_ids": tokenizer.pad_token_id, "labels": IGNORED}
        batch = {
            name: torch.tensor([e[name] + [fill.get(name, 0)] * (longest - len(e[name]))
                                for e in examples])
            for name in examples[0]
            if isinstance(examples[0][name], list) and not name.startswith("_")
        }  # fmt: skip
        if "labels" not in batch:
            batch["labels"] = torch.tensor([e["labels"] for e in examples])
        return batch

    return collate


def length_batches(
    lengths: Sequence[int], keys: Sequence[int] | None = None, *, logits_per_token: int = 1
) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first, at most `BATCH_TOKENS` padded each.

    Those of different keys do not share a batch, and no batch has more than `BATCH_LOGITS`, unless
    a single example has.
    """
    most = min(BATCH_TOKENS[device()], BATCH_LOGITS // logits_per_token)
    kinds = keys or [0] * len(lengths)
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], kinds[i], i)):
        full = batch and (len(batch) + 1) * lengths[batch[0]] > most
        if full or (batch and kinds[batch[0]] != kinds[i]):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def outputs(
    model: nn.Module,
    examples: Sequence[Example],
    collate: Collate,
    *,
    read: Read,
    length: Callable[[Example], int] = lambda example: len(example["input_ids"]),
    key: Callable[[Example], int] = lambda example: 0,
    precision: str = "auto",
    progress: Progress | None = None,
) -> list[np.ndarray]:
    """Run `model` in evaluation mode over examples.

    Args:
        model: Takes a batch without "labels" as keyword arguments.
        examples: Encoded rows.
        collate: Makes a batch of some.
        read: Takes one tensor an example out of the model's output, given inputs and labels.
        length: Tokens of an example.
        key: As `Task.key`.
        precision: As `Training.precision`.
        progress: Told of rows done.

    Returns:
        float32, one array an example, in the order of `examples`.
    """
    lengths = [length(example) for example in examples]
    found: dict[int, np.ndarray] = {}
    model.eval()
    done = 0
    with torch.inference_mode(), autocast(precision):
        keys = [key(example) for example in examples]
        for batch in length_batches(lengths, keys, logits_per_token=vocabulary(model)):
            inputs = to_device(collate([examples[i] for i in batch]))
            labels = inputs.pop("labels")
            values = read(model(**inputs), inputs, labels)
            if isinstance(values, torch.Tensor):
                values = values.float().cpu()  # at once: each copy waits for the device
            found.update((i, v.float().cpu().numpy()) for i, v in zip(batch, values, strict=True))
            done += len(batch)
            if progress:
                progress(done, len(examples), "evaluate")
    return [found[i] for i in range(len(examples))]


def vocabulary(model: Any) -> int:
    """How many logits a model yields for a token that it predicts; 1 where it predicts none."""
    find = getattr(model, "get_output_embeddings", None)
    layer = find() if find else None
    return 1 if layer is None else int(layer.weight.shape[0])


def autocast(precision: str) -> Any:
    """The number format of computation, as in training."""
    on = resolve_precision(precision) == "bfloat16"  # type: ignore[arg-type]
    return torch.autocast(device(), dtype=torch.bfloat16, enabled=on)


def to_device(batch: dict[str, Any]) -> dict[str, Any]:
    """Move a batch to where runs compute; labels may be several tensors."""
    from accelerate.utils import send_to_device

    moved: dict[str, Any] = send_to_device(batch, device())
    return moved
