"""From a folder of files to a model with a task head, whose layers are known."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftkit.backbones._family import Inputs, Layers, Pooling, family_of, find_layers
from peftkit.backbones._formats import cast_inputs, keep_in_float32
from peftkit.backbones._locate import Location
from peftkit.backbones._padding import move_padding_behind
from peftkit.backbones._pooling import pool_hidden_states, stock_pooling
from peftkit.backbones._processor import load_processor
from peftkit.backbones._quantized import num_parameters, quantized_loading, settle_quantized
from peftkit.errors import BackboneNotFound, Unsupported
from peftkit.seeds import seeded

if TYPE_CHECKING:
    from peftkit.settings import Backbone

_PEFT_TASKS = {
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForTokenClassification": "TOKEN_CLS",
    # PEFT's class for questions drops the token types; that for sequences hands on all it gets.
    "AutoModelForQuestionAnswering": "SEQ_CLS",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForMaskedLM": "FEATURE_EXTRACTION",  # virtual tokens before the text, and no more
}
Reads = Literal["text", "word", "span", "token"]
Weights = Literal["files", "random", "none"]
# Classes whose heads read one vector of a whole row, and where it comes from is known.
_POOLED = {
    "AutoModelForSequenceClassification",
    "AutoModelForImageClassification",
    "AutoModelForAudioClassification",
}
POOLING_FILE = "1_Pooling/config.json"  # the convention of sentence-transformers


@dataclass(kw_only=True)
class LoadedBackbone:
    """A backbone with the head of a task on it.

    Attributes:
        location: Where it came from.
        model: The transformers model, on the CPU, in evaluation mode; the backbone proper is
            float32 or bfloat16, the head float32.
        processor: What turns rows into its inputs: a tokenizer, which pads on the right, an image
            processor, or a feature extractor of sounds.
        auto_class: The transformers class that `model` was made by.
        layers: Where the layers of `model` are.
        pooling: How the head reads a sequence: "first" or "last" token, or the "mean" over all
            tokens. None: it reads every token, or nobody knows.
        total_parameters: Parameters of the backbone, head excluded.
        head_is_new: Whether the head starts from random weights, not from the checkpoint's own.
        inputs: What it reads.
        quantization: As `Backbone.quantization`.
        waiting: Layers whose weights wait in the CPU's memory, if any do.
        own_output: False where tokens are predicted by a new layer, which the files do not hold.
    """

    location: Location
    model: Any
    processor: Any
    auto_class: str
    layers: Layers
    pooling: Pooling | None
    total_parameters: int
    head_is_new: bool = True
    inputs: Inputs = "text"
    quantization: str = "none"
    own_output: bool = True
    waiting: tuple[Any, ...] = ()

    @property
    def peft_task(self) -> str | None:
        """PEFT's name for what the head does: it decides how virtual tokens are handed over."""
        return _PEFT_TASKS.get(self.auto_class)


def load(
    backbone: Backbone,
    location: Location,
    *,
    auto_classes: tuple[str, ...],
    labels: list[str],
    seed: int,
    from_pretrained: bool = True,
    inputs: Inputs = "text",
    reads: Reads = "text",
    max_seconds: float | None = None,
    new_output_layer: bool = False,
) -> LoadedBackbone:
    """Load a backbone and give it a new head.

    The head is initialised from `seed` alone, hence equally for every method of a cell. A
    checkpoint's own head is kept only if it names the very same labels in the same order, or
    predicts the next token.

    Args:
        backbone: The recipe's part.
        location: What `locate` found.
        auto_classes: Names of transformers classes that add the head; the first that knows the
            architecture is taken.
        labels: Class names; their order is the order of the logits.
        seed: Seed of the head (and of all weights if not `from_pretrained`).
        from_pretrained: False: same architecture, random weights.
        inputs: As `Task.inputs`.
        reads: As `Task.reads`.
        max_seconds: The longest sound, for backbones whose sounds are all of one length.
        new_output_layer: Where tokens are predicted and the files hold no layer for it: take a new
            one, tied to the input embeddings, which counts as the backbone's own.

    Raises:
        BackboneNotFound: The files are no model of a known architecture.
        Unsupported: transformers has no head for the task on this architecture.
    """
    config = _read_config(location)
    posed = _Posed(
        auto_classes=auto_classes,
        labels=labels,
        seed=seed,
        inputs=inputs,
        reads=reads,
        max_seconds=max_seconds,
        new_output_layer=new_output_layer,
    )
    _choose_class(auto_classes, config)  # what cannot be asked of it comes before its files
    processor = load_processor(location, inputs=inputs, words=reads == "word")
    weights: Weights = "files" if from_pretrained else "random"
    return _build(backbone, location, config, processor, posed, weights)


def outline(
    backbone: Backbone,
    config: Any,
    *,
    auto_classes: tuple[str, ...],
    labels: list[str],
    location: Location | None = None,
    processor: Any = None,
    inputs: Inputs = "text",
    reads: Reads = "text",
    max_seconds: float | None = None,
    new_output_layer: bool = False,
) -> LoadedBackbone:
    """Shape a backbone as `load` does, without weights: tensors are on torch's meta device.

    Packed layers are stood in for by `PackedOutline`. No files are needed; which layers the
    files would not hold is not known then, so only what stands outside the backbone proper is
    its head.

    Args:
        backbone: The recipe's part.
        config: A configuration of transformers; it is copied.
        auto_classes: As for `load`.
        labels: As for `load`.
        location: Where the files are, if anywhere: they may declare a pooling.
        processor: As `LoadedBackbone.processor`, if there is one.
        inputs: As for `load`.
        reads: As for `load`.
        max_seconds: As for `load`; needs a processor.
        new_output_layer: As for `load`.

    Raises:
        Unsupported: transformers has no head for the task on this architecture.
    """
    posed = _Posed(
        auto_classes=auto_classes,
        labels=labels,
        seed=0,
        inputs=inputs,
        reads=reads,
        max_seconds=max_seconds if processor is not None else None,
        new_output_layer=new_output_layer,
    )
    location = location or Location(name=backbone.name, folder=Path(), fingerprint="")
    return _build(backbone, location, copy.deepcopy(config), processor, posed, "none")


@dataclass(frozen=True, kw_only=True)
class _Posed:
    """What a task asks of a backbone; as the arguments of `load`."""

    auto_classes: tuple[str, ...]
    labels: list[str]
    seed: int
    inputs: Inputs
    reads: Reads
    max_seconds: float | None
    new_output_layer: bool


def _build(
    backbone: Backbone,
    location: Location,
    config: Any,
    processor: Any,
    posed: _Posed,
    weights: Weights,
) -> LoadedBackbone:
    """A model of `config` with the head that is asked for."""
    import torch
    import transformers

    auto_class = _choose_class(posed.auto_classes, config)
    auto = getattr(transformers, auto_class)
    reads, labels, from_pretrained = posed.reads, posed.labels, weights != "random"
    known_head = list((config.id2label or {}).values()) == labels
    if reads != "token":
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
    _settle(config, processor, posed.inputs)
    dtype = getattr(torch, backbone.dtype)
    with seeded(posed.seed, "weights"):
        model, new = _make(backbone, auto, location, config, posed, weights)
    family = family_of(config.model_type)
    if family and family.shorten and posed.max_seconds is not None:
        family.shorten(model, processor, posed.max_seconds)
    own_output = not (reads == "token" and new)
    if not own_output:
        if not posed.new_output_layer:
            raise Unsupported(
                f"the files of {location.name!r} hold no output layer that predicts tokens "
                f"(missing: {', '.join(sorted(new)[:3])}). Next: choose a backbone that was saved "
                "with its own, or --method continued_pretraining, which trains a new one."
            )
        new = set()  # drawn by transformers just now; trained with all the rest, as one of it
    head = _head_modules(model, new, keeps_own=reads == "token")
    if dtype != torch.float32:
        keep_in_float32(model, head)
        cast_inputs(model)
    head_is_new = not from_pretrained or bool(new) or (not known_head and reads != "token")
    if head_is_new and weights != "none":
        _initialise(model, head, posed.seed)
    layers = find_layers(model, head=head)
    if dtype != torch.float32 and backbone.quantization != "none":
        keep_in_float32(model, layers.norms)  # as QLoRA's code does
    pooled = auto_class in _POOLED
    pooling = _pooling(backbone, location, config) if pooled else None
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
        inputs=posed.inputs,
        quantization=backbone.quantization,
        own_output=own_output,
    )


def _make(
    backbone: Backbone, auto: Any, location: Location, config: Any, posed: _Posed, weights: Weights
) -> tuple[Any, set[str]]:
    """A model of the class `auto`, and the names of the tensors that its files do not hold."""
    import torch

    if weights == "files":
        return _from_files_packed(backbone, auto, location, config, posed)
    if weights == "random":
        return auto.from_config(config), set()  # all of it is trained: in float32
    with torch.device("meta"):
        model = auto.from_config(config, dtype=getattr(torch, backbone.dtype))
    if backbone.quantization != "none":
        from peftkit.backbones._outline import outline_packed

        outline_packed(model, backbone, find_layers(model, head=()).linear())
    return model, set()


def _from_files_packed(
    backbone: Backbone, auto: Any, location: Location, config: Any, posed: _Posed
) -> tuple[Any, set[str]]:
    """The model as its files have it, packed if asked for; and what they do not hold."""
    import torch

    options = quantized_loading(backbone, auto, config)
    options["dtype"] = getattr(torch, backbone.dtype)
    model, new = _read_weights(auto, location, config, **options)
    if posed.new_output_layer and _output_is_loose(model, new):
        config.tie_word_embeddings = True
        model, new = _read_weights(auto, location, config, **options)
    settle_quantized(model)
    return model, new


def _output_is_loose(model: Any, new: set[str]) -> bool:
    """Whether the layer that predicts tokens is new, and would have weights of its own."""
    output = model.get_output_embeddings()
    if output is None or output.weight is model.get_input_embeddings().weight:
        return False
    return any(model.get_parameter(name) is output.weight for name in new if "weight" in name)


def _read_config(location: Location) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(location.folder)
    except (ValueError, OSError) as error:
        raise BackboneNotFound(
            f"transformers cannot read the configuration of {location.name!r}",
            received=str(error).splitlines()[0],
            next_step="check that the architecture exists in the installed transformers",
        ) from error


def _settle(config: Any, processor: Any, inputs: Inputs) -> None:
    """Bring a configuration in line with the processor and with training, in place."""
    config.use_cache = False  # GPT-2 would keep keys and values; `generate` asks for them itself
    if inputs == "text" and processor is not None:
        config.pad_token_id = processor.pad_token_id
    if inputs != "audio":
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


def _choose_class(auto_classes: tuple[str, ...], config: Any) -> str:
    import transformers

    for name in auto_classes:
        if name == "AutoModelForCausalLM" and stock_pooling(config) != "last":
            continue  # transformers has such a class for BERT too, which would see what comes next
        if type(config) in getattr(transformers, name)._model_mapping:
            return name
    raise Unsupported(
        f"transformers has no head for this task on {config.model_type} "
        f"(no {' nor '.join(auto_classes)}). Next: choose a backbone of another architecture."
    )


def _read_weights(
    auto: Any, location: Location, config: Any, **options: Any
) -> tuple[Any, set[str]]:
    """The model, and the names of the tensors that its files do not hold."""
    from safetensors import SafetensorError

    try:
        model, info = from_files(
            auto, location.folder, config=config, ignore_mismatched_sizes=True, **options
        )
    except (OSError, SafetensorError) as error:
        raise BackboneNotFound(
            f"the weights of {location.name!r} cannot be read",
            received=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            next_step="check that the download is complete",
        ) from error
    new = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    names = [name for name, _ in model.named_parameters()]
    own = [name for name in names if name.startswith(f"{model.base_model_prefix}.")] or names
    missing = [name for name in own if name in new]
    if 2 * len(missing) > len(own):  # transformers would draw them at random
        raise BackboneNotFound(
            f"the weights of {location.name!r} are not those of {type(model).__name__}",
            received=f"{len(missing)} of {len(own)} tensors missing, such as {missing[0]}",
            next_step="check that config.json and the weights belong together",
        )
    return model, new


def from_files(auto: Any, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A model of the class `auto`, and what transformers says of loading it.

    Args:
        auto: Class of transformers with `from_pretrained`.
        folder: Where config and safetensors are.
        **options: For `from_pretrained`.
    """
    options |= {"use_safetensors": True, "output_loading_info": True}
    model, info = auto.from_pretrained(folder, **options)
    if _stands_elsewhere(model, info):
        renamed = {r"^model\.": f"{model.base_model_prefix}."}
        model, info = auto.from_pretrained(folder, key_mapping=renamed, **options)
    return model, info


def _stands_elsewhere(model: Any, info: dict[str, Any]) -> bool:
    """Whether the files call "model" what this class calls otherwise, as Llama for questions."""
    prefix = f"{model.base_model_prefix}."
    missing = any(key.startswith(prefix) for key in info["missing_keys"])
    unused = any(key.startswith("model.") for key in info["unexpected_keys"])
    return prefix != "model." and missing and unused


def _head_modules(model: Any, new: set[str], *, keeps_own: bool) -> tuple[str, ...]:
    """Modules beyond the backbone proper, and new ones within it (a missing pooler, say).

    Args:
        model: With its head.
        new: Names of tensors that the checkpoint does not hold.
        keeps_own: The head is the one that the backbone was pretrained with.
    """
    backbone = {model.base_model_prefix} | (set() if keeps_own else _bare_children(model))
    children = [] if keeps_own else [(n, m) for n, m in model.named_children() if n not in backbone]
    outside = [name for name, module in children if any(True for _ in module.parameters())]
    inside = {key.rpartition(".")[0] for key in new if key.partition(".")[0] not in outside}
    return (*outside, *sorted(inside))


def _bare_children(model: Any) -> set[str]:
    """Parts of the backbone where it is not kept in one module, as in T5 for questions."""
    import torch
    from transformers import AutoModel

    if hasattr(model, model.base_model_prefix):
        return set()
    with torch.device("meta"):
        bare = AutoModel.from_config(model.config)
    return {name for name, _ in bare.named_children()}


def _initialise(model: Any, head: tuple[str, ...], seed: int) -> None:
    """Initialise the head as its architecture does, from a random stream of its own."""
    with seeded(seed, "head"):
        for name in head:
            for module in model.get_submodule(name).modules():
                for tensor in module.parameters(recurse=False):
                    tensor._is_hf_initialized = False
                model._init_weights(module)


def _pooling(backbone: Backbone, location: Location, config: Any) -> Pooling | None:
    """What the head reads: what the backbone's own files declare, else what transformers does."""
    stock = stock_pooling(config)
    if stock is None and backbone.pooling not in ("auto", "model"):
        raise Unsupported(
            f"nobody knows here what the head of {config.model_type} reads, so it cannot be made "
            f"to read the {backbone.pooling}. Next: leave --backbone.pooling out."
        )
    if backbone.pooling == "auto":
        return "mean" if _declares_mean(location.folder) else stock
    return stock if backbone.pooling == "model" else backbone.pooling


def _declares_mean(folder: Path) -> bool:
    """Whether the backbone is a sentence encoder trained with mean pooling."""
    declared = folder / POOLING_FILE
    if not declared.is_file():
        return False
    return bool(json.loads(declared.read_text("utf-8")).get("pooling_mode_mean_tokens"))


def declare_pooling(folder: Path, pooling: Pooling | None, config: Any) -> None:
    """Say beside saved weights that they were trained with mean pooling, as `load` reads it."""
    if pooling == "mean" and stock_pooling(config) != "mean":
        (folder / POOLING_FILE).parent.mkdir(parents=True, exist_ok=True)
        (folder / POOLING_FILE).write_text(json.dumps({"pooling_mode_mean_tokens": True}), "utf-8")
