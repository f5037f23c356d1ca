"""From a folder of files to a model with a task head, whose layers are known."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftkit.backbones._family import family_of, find_layers
from peftkit.backbones._formats import cast_inputs, keep_in_float32
from peftkit.backbones._head import choose_class, head_modules, initialise
from peftkit.backbones._loaded import Head, LoadedBackbone
from peftkit.backbones._locate import Location
from peftkit.backbones._padding import move_padding_behind
from peftkit.backbones._pooling import choose_pooling, pool_hidden_states
from peftkit.backbones._processor import load_processor
from peftkit.backbones._quantized import num_parameters
from peftkit.backbones._weights import packed_from_files, read_config
from peftkit.errors import BackboneNotFound, InvalidInput, Unsupported
from peftkit.seeds import seeded

if TYPE_CHECKING:
    from peftkit.settings import Backbone

Weights = Literal["files", "random", "none"]
# Classes whose heads read one vector of a whole row, and where it comes from is known.
_POOLED = {
    "AutoModelForSequenceClassification",
    "AutoModelForImageClassification",
    "AutoModelForAudioClassification",
}


def load(
    backbone: Backbone,
    location: Location,
    head: Head,
    *,
    seed: int,
    from_pretrained: bool = True,
) -> LoadedBackbone:
    """Load a backbone and give it a new head.

    The head is initialised from `seed` alone, hence equally for every method of a cell. A
    checkpoint's own head is kept only if it names the very same labels in the same order, or
    predicts the next token.

    Args:
        backbone: The recipe's part.
        location: What `locate` found.
        head: What the task asks for.
        seed: Seed of the head (and of all weights if not `from_pretrained`).
        from_pretrained: False: same architecture, random weights.

    Raises:
        BackboneNotFound: The files are no model of a known architecture.
        Unsupported: transformers has no head for the task on this architecture.
    """
    config = read_config(location)
    if backbone.quantization == "none" and getattr(config, "quantization_config", None) is not None:
        raise BackboneNotFound(
            f"the weights of {location.name!r} are packed already",
            received=f"quantization_config in {location.folder / 'config.json'}",
            allowed="weights as they were trained, which --backbone.quantization packs",
            next_step="name the model that they were packed from",
        )
    choose_class(head.auto_classes, config)  # what cannot be asked of it comes before its files
    processor = load_processor(location, inputs=head.inputs, words=head.reads == "word")
    weights: Weights = "files" if from_pretrained else "random"
    return _build(backbone, location, config, processor, head, weights, seed)


def outline(
    backbone: Backbone,
    config: Any,
    head: Head,
    *,
    location: Location | None = None,
    processor: Any = None,
) -> LoadedBackbone:
    """Shape a backbone as `load` does, without weights: tensors are on torch's meta device.

    Packed layers are stood in for by `PackedOutline`. No files are needed; which layers the
    files would not hold is not known then, so only what stands outside the backbone proper is
    its head.

    Args:
        backbone: The recipe's part.
        config: A configuration of transformers; it is copied.
        head: What the task asks for; `max_seconds` needs a processor.
        location: Where the files are, if anywhere: they may declare a pooling.
        processor: As `LoadedBackbone.processor`, if there is one.

    Raises:
        Unsupported: transformers has no head for the task on this architecture.
    """
    if processor is None:
        head = replace(head, max_seconds=None)
    location = location or Location(name=backbone.name, folder=Path(), fingerprint="")
    return _build(backbone, location, copy.deepcopy(config), processor, head, "none", 0)


def outline_files(
    backbone: Backbone, folder: Path, head: Head, *, fingerprint: str
) -> LoadedBackbone:
    """Shape a backbone by the files in `folder`, without its weights; see `outline`.

    Args:
        backbone: The recipe's part; its name is only shown.
        folder: Where config and processor are.
        head: What the task asks for.
        fingerprint: Of the weights that training started from.
    """
    location = Location(name=backbone.name, folder=folder, fingerprint=fingerprint)
    processor = load_processor(location, inputs=head.inputs, words=head.reads == "word")
    config = read_config(location)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return outline(backbone, config, head, location=location, processor=processor)


def _build(
    backbone: Backbone,
    location: Location,
    config: Any,
    processor: Any,
    asked: Head,
    weights: Weights,
    seed: int,
) -> LoadedBackbone:
    """A model of `config` with the head that is asked for."""
    import transformers

    auto_class = choose_class(asked.auto_classes, config)
    keeps_own = asked.reads == "token"
    known_head = keeps_own or list((config.id2label or {}).values()) == asked.labels
    _settle(config, processor, asked)
    with seeded(seed, "weights"):
        auto = getattr(transformers, auto_class)
        model, new = _make(backbone, auto, location, config, asked, weights)
    family = family_of(config.model_type)
    if family and family.shorten and asked.max_seconds is not None:
        family.shorten(model, processor, asked.max_seconds)
    own_output = not (keeps_own and new)
    if not own_output:
        _require_new_output(asked, location, new)
        new = set()  # drawn by transformers just now; trained with all the rest, as one of it
    head = head_modules(model, new, keeps_own=keeps_own)
    layers = find_layers(model, head=head)
    if backbone.dtype != "float32":
        keep_in_float32(model, head)
        cast_inputs(model)
        if backbone.quantization != "none":
            keep_in_float32(model, layers.norms)  # as QLoRA's code does
    head_is_new = weights == "random" or bool(new) or not known_head
    if head_is_new and weights != "none":
        initialise(model, head, seed)
    pooling = choose_pooling(backbone, location, config) if auto_class in _POOLED else None
    pool_hidden_states(model, pooling)
    move_padding_behind(model, restore=pooling is None)
    in_head = sum(num_parameters(model.get_submodule(name)) for name in head)
    return LoadedBackbone(
        location=location,
        model=model.eval(),
        processor=processor,
        auto_class=auto_class,
        layers=replace(layers, head=head),
        pooling=pooling,
        total_parameters=num_parameters(model) - in_head,
        head_is_new=head_is_new,
        inputs=asked.inputs,
        quantization=backbone.quantization,
        own_output=own_output,
    )


def _settle(config: Any, processor: Any, head: Head) -> None:
    """Bring a configuration in line with head, processor and training, in place."""
    if head.reads != "token":
        config.id2label = dict(enumerate(head.labels))
        config.label2id = {label: i for i, label in enumerate(head.labels)}
        config.problem_type = head.problem_type
    config.use_cache = False  # GPT-2 would keep keys and values; `generate` asks for them itself
    if head.inputs == "text" and processor is not None:
        rows = getattr(config.get_text_config(), "vocab_size", None)
        if rows is not None and not 0 <= processor.pad_token_id < rows:
            raise InvalidInput(
                "the tokenizer pads with a token that the backbone has no embedding of",
                received=f"{processor.pad_token!r}, number {processor.pad_token_id} of {rows}",
                next_step="name one of the backbone's own in tokenizer_config.json (pad_token)",
            )
        config.pad_token_id = processor.pad_token_id
    if head.inputs != "audio":
        return
    if getattr(config, "use_weighted_layer_sum", False):
        raise Unsupported(
            f"the head of this {config.model_type} reads a weighted sum over all layers, so there "
            "is no one layer that every method could read. Next: choose a checkpoint with "
            "use_weighted_layer_sum false."
        )
    # SpecAugment hides two spans of ten frames (0.4 s) or more in each sound: nearly all of a short
    # one, and it fails on those under 0.2 s.
    config.apply_spec_augment = False


def _require_new_output(head: Head, location: Location, missing: set[str]) -> None:
    """Refuse files that hold no layer that predicts tokens, unless a new one is asked for."""
    if not head.new_output_layer:
        raise Unsupported(
            f"the files of {location.name!r} hold no output layer that predicts tokens "
            f"(missing: {', '.join(sorted(missing)[:3])}). Next: choose a backbone that was saved "
            "with its own, or --method continued_pretraining, which trains a new one."
        )


def _make(
    backbone: Backbone, auto: Any, location: Location, config: Any, asked: Head, weights: Weights
) -> tuple[Any, set[str]]:
    """A model of the class `auto`, and the names of the tensors that its files do not hold."""
    import torch

    if weights == "files":
        return packed_from_files(backbone, auto, location, config, asked.new_output_layer)
    if weights == "random":
        return auto.from_config(config), set()  # all of it is trained: in float32
    with torch.device("meta"):
        model = auto.from_config(config, dtype=getattr(torch, backbone.dtype))
    if backbone.quantization != "none":
        from peftkit.backbones._outline import outline_packed

        outline_packed(model, backbone, find_layers(model, head=()).linear())
    return model, set()
