"""ONNX: the model and its adapter as one graph, which ONNX Runtime runs without torch.

Written by transformers' exporter (torch.export, then torch.onnx): `model.onnx`, beside it
`model.onnx.data` with the weights, the tokenizer and the configuration. Inputs are as the tokenizer
gives them, padded on the right; outputs are logits. Read back and compared in ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.formats._traced import TracedFormat, axes

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from peftkit.exporting.adapted import AdaptedRun


@dataclass(frozen=True, kw_only=True)
class ONNX(TracedFormat):
    """One graph for ONNX Runtime; prompts, prefixes and bottlenecks are part of it."""

    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "onnxscript")

    def trace(self, model: Any, inputs: Any, shapes: Any, folder: Path) -> None:
        from transformers.exporters.configs import OnnxConfig
        from transformers.exporters.exporter_onnx import OnnxExporter

        from peftkit.exporting.onnx_model import FILE

        options = OnnxConfig(dynamic=True, dynamic_shapes=shapes)
        program = OnnxExporter().export(model, inputs, options).program
        _name_axes(program.graph, inputs)
        _forget_places(program)
        OnnxExporter.save_program(program, folder / FILE)

    def opened(self, run: AdaptedRun, folder: Path) -> Callable[..., Any]:
        from peftkit.exporting.onnx_model import FILE, OnnxModel

        return OnnxModel(folder / FILE)


def _forget_places(model: Any) -> None:
    """Drop what says where on this machine the code of each node is."""
    for graph in (model.graph, *model.functions.values()):
        for node in graph.all_nodes():
            for key in [key for key in node.metadata_props if key.endswith("stack_trace")]:
                del node.metadata_props[key]


def _name_axes(graph: Any, inputs: dict[str, torch.Tensor]) -> None:
    """Call the free axes by their names in place of torch's symbols, in the whole graph."""
    import onnx_ir

    names = {
        str(value.shape[axis]): name
        for value in graph.inputs
        if value.name in inputs
        for axis, name in axes(value.name, inputs[value.name]).items()
    }
    values = {id(v): v for node in graph for v in node.outputs}
    for value in [*graph.inputs, *values.values()]:
        if value.shape is not None:
            shape = [names.get(str(axis), axis) for axis in value.shape]
            value.shape = onnx_ir.Shape(shape)
