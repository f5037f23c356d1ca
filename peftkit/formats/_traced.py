"""What the formats have in common that are a graph, traced by transformers' exporters.

The adapter goes into the weights first where it can; a prompt, a prefix or a bottleneck becomes a
part of the graph. Batch and length are free, by names that all inputs share, so that a graph which
holds for one shape only fails while it is traced. Key-value caches are no part of it.
"""

from __future__ import annotations

import functools
import inspect
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import Unsupported
from peftkit.formats._format import Format

if TYPE_CHECKING:
    import torch

    from peftkit.exporting.adapted import AdaptedRun

# Of these, torch.__trace takes longer than all the rest where somebody listens.
LOGGERS = ("torch.onnx", "torch.export", "torch.__trace", "transformers")
LOGITS = ("logits", "start_logits", "end_logits")
NO_LIMIT = 10**5
REFUSED = "Constraints violated"  # how torch says that a free axis is not quite free
_LENGTHS = {"decoder_input_ids": "decoder_sequence"}


@dataclass(frozen=True, kw_only=True)
class TracedFormat(Format):
    """A graph of the model and its adapter."""

    def check(self, run: AdaptedRun) -> None:
        quantization = run.bench.backbone.quantization
        if quantization != "none":
            raise Unsupported(
                f"the weights are packed as {quantization}, by operations that no exporter knows. "
                "Next: peftkit merge RUN --base dequantized, and export the merged folder."
            )

    def write(self, run: AdaptedRun, folder: Path) -> None:
        inputs = sample(run)
        model = run.folded()
        with _only_logits(model, _before_text(run, model, inputs)), _quiet():
            try:
                self.trace(model, inputs, free_shapes(inputs, longest(run)), folder)
            except Exception as error:
                _raise_if_of_disk(error)
                if REFUSED not in str(error):
                    raise _untraceable(model, inputs, error) from error
                # Sounds have a shortest length, and prefixes take some of the longest: let torch
                # find the bounds. That a length is free is seen by comparing in several.
                self._trace_again(model, inputs, folder)
        model.config.save_pretrained(folder)
        if run.bench.recipe.task.generates:
            run.bench.backbone.model.generation_config.save_pretrained(folder)
        run.bench.save_processor(folder)

    def _trace_again(self, model: Any, inputs: dict[str, torch.Tensor], folder: Path) -> None:
        from torch.export import Dim

        shapes = {name: dict.fromkeys(axes(name, v), Dim.AUTO) for name, v in inputs.items()}
        try:
            self.trace(model, inputs, shapes, folder)
        except Exception as error:
            _raise_if_of_disk(error)
            raise _untraceable(model, inputs, error) from error

    def trace(self, model: Any, inputs: Any, shapes: Any, folder: Path) -> None:
        """Trace `model` on `inputs`, and write the graph into `folder`.

        Args:
            model: Returns a mapping of logits.
            inputs: Two rows or more, by name.
            shapes: Which axes of the inputs are free, as `torch.export` takes it.
            folder: Where to.
        """
        raise NotImplementedError

    def facts(self, run: AdaptedRun) -> dict[str, Any]:
        return {"inputs": list(run.batches[0]), "virtual_tokens": run.bench.virtual_tokens}


def sample(run: AdaptedRun) -> dict[str, torch.Tensor]:
    """Inputs to trace with: axes of length 1 or 0 would be taken for constants."""
    import torch

    found = max(run.batches, key=lambda batch: min(len(batch[name]) for name in batch))
    short = len(next(iter(found.values()))) < 2
    return {name: torch.cat([v, v]) if short else v for name, v in found.items()}


def longest(run: AdaptedRun) -> int | None:
    """Tokens that the backbone has positions for; None: any number."""
    if run.bench.backbone.inputs != "text" or run.bench.room >= NO_LIMIT:
        return None
    return run.bench.room


def axes(name: str, value: torch.Tensor) -> dict[int, str]:
    """The axes of an input that are free, and what they are called."""
    length = {1: _LENGTHS.get(name, "sequence")} if value.ndim == 2 else {}
    return {0: "batch", **length}


def free_shapes(inputs: dict[str, torch.Tensor], longest: int | None) -> dict[str, dict[int, Any]]:
    """The axes that may have any length: rows, and tokens or samples of sound, up to `longest`."""
    from torch.export import Dim

    named = {name: Dim(name, max=longest) for name in ("sequence", *_LENGTHS.values())}
    named["batch"] = Dim("batch")
    return {
        name: {axis: named[own] for axis, own in axes(name, value).items()}
        for name, value in inputs.items()
    }


def _raise_if_of_disk(error: Exception) -> None:
    """Raise what the disk said as it is; unreadable source code has no number of an error."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _untraceable(model: Any, inputs: dict[str, torch.Tensor], error: Exception) -> Unsupported:
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return Unsupported(
        f"{type(model).__name__} with {', '.join(inputs)} could not be traced for any batch and "
        f"length; the exporter said: {said[:300]}. Next: --format adapter or merged."
    )


def _before_text(run: AdaptedRun, model: Any, inputs: dict[str, torch.Tensor]) -> int:
    """Positions of virtual tokens that stand before those of the text in what `model` puts out."""
    import torch

    if run.saved.recipe.task.reads == "text" or not run.bench.virtual_tokens:
        return 0
    with torch.inference_mode():
        output = model(**inputs)
    first = next(output[name] for name in LOGITS if output.get(name) is not None)
    read = inputs.get("decoder_input_ids", inputs["input_ids"])
    return int(first.shape[1] - read.shape[1])


@contextmanager
def _only_logits(model: Any, skipped: int) -> Iterator[None]:
    """Within, `model` returns a plain mapping of its logits, without the first `skipped`."""
    forward = model.forward

    @functools.wraps(forward)
    def plain(*args: Any, **kwargs: Any) -> dict[str, Any]:
        output = forward(*args, **kwargs)
        found = {name: output[name] for name in LOGITS if output.get(name) is not None}
        return {name: v[:, skipped:] if skipped else v for name, v in found.items()}

    plain.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    model.forward = plain
    try:
        yield
    finally:
        model.forward = forward


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torch and transformers say of their own progress and tested versions."""
    import warnings

    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
