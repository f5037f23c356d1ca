"""A merge tensor by tensor: the base's files are read, the update is added, new files are written.

Neither the base nor the merged model is ever in memory as a whole: besides the adapter there is one
layer in float32, and the file that is being written, hardly larger than the base's largest. PEFT
itself merges each layer, put around the weights of that layer alone; the rest of the model has
shapes and no numbers (torch's meta device).

For LoRA and IA3 on bases that are not quantised, whose files name tensors as the model does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import Unsupported
from peftkit.merging.folding import merge_layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    from peftkit.merging.request import Request
    from peftkit.workbench import Workbench

LARGEST, SMALLEST = 1 << 30, 1 << 26  # bytes of a file; between them, nearly those of the base
ADAPTER_NAME = "default"  # PEFT's, of the one adapter of a run
LIKE_LORA = ("LORA", "IA3")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What goes where.

    Attributes:
        model: The model with the adapter in it, a `PeftModel`; the base has no numbers.
        base: Folder of the base's files.
        sources: Name of a tensor in the model -> the base's file, and its name there; in the order
            of the files.
    """

    model: Any
    base: Path
    sources: dict[str, tuple[Path, str]]


def plan_shards(bench: Workbench, run: Path) -> Plan | None:
    """How to merge a run tensor by tensor; None if it has to be merged in memory.

    Args:
        bench: The recipe and the labels of the run; its model may have been given up.
        run: Folder of the run.
    """
    from peft import PeftConfig

    from peftkit.backbones import outline_files
    from peftkit.record import CONTINUED
    from peftkit.reloading import put_adapter

    config = PeftConfig.from_pretrained(str(run))
    if config.peft_type not in LIKE_LORA or getattr(config, "bias", "none") != "none":
        return None
    if (run / CONTINUED).exists():  # the base is not that of the files
        return None
    base = bench.backbone.location.folder
    shape = outline_files(bench.recipe.backbone, base, bench.head, fingerprint="")
    shapes = {name: tuple(tensor.shape) for name, tensor in shape.model.state_dict().items()}
    twins, prefix = _tied(shape.model), f"{shape.model.base_model_prefix}."
    model = put_adapter(shape, run, low_cpu_mem_usage=True)
    whole = tuple(f"{name}." for name in _saved_whole(model))
    own = {name: size for name, size in shapes.items() if not name.startswith(whole)}
    sources = _sources(own, twins, prefix, base)
    if sources is None:
        return None
    _give_numbers(model, run)
    return Plan(model=model, base=base, sources=sources)


def _saved_whole(model: Any) -> dict[str, Any]:
    """Modules that the adapter has a copy of, the head above all, by their names in the base."""
    from peft.utils import ModulesToSaveWrapper

    return {
        name: module.modules_to_save[module.active_adapters[0]]
        for name, module in model.get_base_model().named_modules()
        if isinstance(module, ModulesToSaveWrapper)
    }


def _give_numbers(model: Any, run: Path) -> None:
    """Read the adapter once more: PEFT moves what it reads to where the base is, which is nowhere.

    Sums with such tensors raise no error, they leave the weights as they were.
    """
    from safetensors.torch import load_file

    saved = load_file(run / "adapter_model.safetensors")
    numbers = {}
    for name, _ in model.named_parameters():
        key = name.replace(f".modules_to_save.{ADAPTER_NAME}.", ".")
        key = key.replace(f".{ADAPTER_NAME}.", ".").removesuffix(f".{ADAPTER_NAME}")
        found = next((k for k in (key, key.removesuffix(".weight")) if k in saved), None)
        if found is not None and f".{ADAPTER_NAME}" in name:
            numbers[name] = saved.pop(found)
    model.load_state_dict(numbers, strict=False, assign=True)
    assert numbers
    assert not saved
    assert not any(p.is_meta for n, p in model.named_parameters() if f".{ADAPTER_NAME}" in n)


def _sources(
    shapes: Mapping[str, tuple[int, ...]],
    twins: Mapping[str, Sequence[str]],
    prefix: str,
    base: Path,
) -> dict[str, tuple[Path, str]] | None:
    """Where each tensor comes from; None if one comes from nowhere.

    Args:
        shapes: Shape of each tensor of the model that the adapter has no copy of, by name.
        twins: Of tied tensors their other names.
        prefix: What the backbone proper is called in the model, with a dot.
        base: Folder of the base's files, which may leave the prefix out, or have it where the model
            has none.
    """
    from safetensors import safe_open

    sources: dict[str, tuple[Path, str]] = {}
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  # it is no dictionary
                names = (key, prefix + key, key.removeprefix(prefix))
                name = next((n for n in names if n in shapes), None)
                if name is None or any(other in sources for other in twins.get(name, ())):
                    continue  # of tied tensors, one is written
                if tuple(file.get_slice(key).get_shape()) != shapes[name]:
                    return None
                sources[name] = (path, key)
    there = {other for name in sources for other in (name, *twins.get(name, ()))}
    return None if shapes.keys() - there else sources


def _tied(model: Any) -> dict[str, list[str]]:
    """Names of a tensor that has several -> its other names."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {n: [m for m in group if m != n] for group in names.values() for n in group}


def write_shards(plan: Plan, request: Request, folder: Path) -> None:
    """Merge, and write the weights and the configuration of the model.

    Raises:
        Unsupported: A part of the adapter has no place in the backbone's weights.
    """
    import torch

    dtype = getattr(torch, request.dtype)
    sizes = [path.stat().st_size for path in {path for path, _ in plan.sources.values()}]
    # What the adapter brings along, a head above all, makes no file of its own.
    writer = _Writer(folder, limit=min(LARGEST, max(SMALLEST, max(sizes) * 11 // 10)))
    with torch.no_grad():
        for name, tensor in _merged(plan):
            writer.add(name, tensor.to(dtype) if tensor.is_floating_point() else tensor)
    writer.close()
    bare = plan.model.get_base_model()
    bare.config.dtype = dtype
    bare.config.architectures = [type(bare).__name__]
    bare.config.save_pretrained(folder)


def _merged(plan: Plan) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the merged model with its name, most of them in float32."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = plan.model.get_base_model()
    layers = {n: module for n, module in base.named_modules() if isinstance(module, BaseTunerLayer)}
    for name, module in _saved_whole(plan.model).items():
        yield from ((f"{name}.{own}", tensor) for own, tensor in module.state_dict().items())
    done: set[str] = set()
    for name in plan.sources:
        owner = name.rpartition(".")[0]
        if owner not in layers:
            yield name, _read(plan, name)
        elif owner not in done:
            done.add(owner)
            yield from _fold_layer(plan, owner, layers[owner])
    if layers.keys() - done:
        raise Unsupported(
            f"{min(layers.keys() - done)} is not among the files of the base. Next: bring back "
            "the files that the run was trained on."
        )


def _fold_layer(plan: Plan, name: str, layer: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Give one layer its weights, let PEFT merge, and take them away again."""
    from torch import nn

    inner = layer.get_base_layer()
    own = [part for part in ("weight", "bias") if f"{name}.{part}" in plan.sources]
    for part in own:
        value = _read(plan, f"{name}.{part}").float()
        setattr(inner, part, nn.Parameter(value, requires_grad=False))
    merge_layer(name, layer)
    for part in own:
        yield f"{name}.{part}", getattr(inner, part).data
        setattr(inner, part, None)


def _read(plan: Plan, name: str) -> torch.Tensor:
    """One tensor of the base; the file is closed again, so that no more of it stays in memory."""
    from safetensors import safe_open

    path, key = plan.sources[name]
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(key).clone()  # type: ignore[no-any-return]


class _Writer:
    """Files of tensors of a limited size, and their index, named as transformers names them."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._waiting: dict[str, torch.Tensor] = {}
        self._parts: list[list[str]] = []
        self._num_bytes = self._total = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if self._waiting and self._num_bytes + size > self._limit:
            self._flush()
        self._waiting[name] = tensor.contiguous()
        self._num_bytes += size
        self._total += size

    def _flush(self) -> None:
        from safetensors.torch import save_file

        path = self._folder / f"part-{len(self._parts) + 1}"
        save_file(self._waiting, path, metadata={"format": "pt"})
        self._parts.append(list(self._waiting))
        self._waiting, self._num_bytes = {}, 0

    def close(self) -> None:
        if self._waiting:
            self._flush()
        count, places = len(self._parts), {}
        for number, names in enumerate(self._parts, start=1):
            own = f"model-{number:05}-of-{count:05}.safetensors"
            final = own if count > 1 else "model.safetensors"
            (self._folder / f"part-{number}").rename(self._folder / final)
            places.update(dict.fromkeys(names, final))
        if count > 1:
            index = {"metadata": {"total_size": self._total}, "weight_map": places}
            path = self._folder / "model.safetensors.index.json"
            path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
