"""torch.export: the model and its adapter as one program of torch, without its Python code.

`model.pt2` takes its inputs by name, as the tokenizer gives them, padded on the right, and returns
a mapping of logits: `torch.export.load("model.pt2").module()(**inputs)["logits"]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.formats._traced import TracedFormat

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftkit.exporting.adapted import AdaptedRun

FILE = "model.pt2"


@dataclass(frozen=True, kw_only=True)
class Torch(TracedFormat):
    """One program of torch.export; prompts, prefixes and bottlenecks are part of it."""

    def trace(self, model: Any, inputs: Any, shapes: Any, folder: Path) -> None:
        from transformers.exporters.configs import DynamoConfig
        from transformers.exporters.exporter_dynamo import DynamoExporter

        options = DynamoConfig(dynamic=True, dynamic_shapes=shapes)
        program = DynamoExporter().export(model, inputs, options).program
        for module in program.graph_module.modules():
            for node in getattr(module, "graph", program.graph).nodes:
                node.meta.pop("stack_trace", None)  # places on this machine
        DynamoExporter.save_program(program, folder / FILE)

    def opened(self, run: AdaptedRun, folder: Path) -> Callable[..., Any]:
        import torch
        from transformers.utils.generic import ModelOutput

        program = torch.export.load(str(folder / FILE)).module()
        return lambda **inputs: ModelOutput(program(**inputs))
