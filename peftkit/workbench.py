"""What a method gets to work with: recipe, rows, loaded backbone, and the one trainer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from peftkit.backbones import Head, LoadedBackbone, bring_back, load, locate, offload
from peftkit.errors import InvalidInput, Unsupported
from peftkit.predictors import ModelPredictor, Parameters
from peftkit.record import record_key
from peftkit.seeds import seeded

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn

    from peftkit.evaluate import Collate
    from peftkit.memory.prediction import Prediction
    from peftkit.methods import Method
    from peftkit.recipe import Recipe
    from peftkit.tasks import Example, Progress, TaskData
    from peftkit.train import Trained


# Chosen on pydocs/library and banking77 (benchmarks/NOTES.md), for AdamW.
HEAD_RATE, HEAD_WIDTH = 1e-2, 384


@dataclass
class Workbench:
    """One recipe at work.

    Attributes:
        recipe: What is run.
        data: Its rows.
        folder: Where checkpoints go.
        features_folder: Where features of the frozen backbone are kept for other cells.
        progress: Told what is being done.
        trained: How the last training went.
        validation_seconds: Wall and CPU seconds spent evaluating in between.
        features_seconds: Wall seconds that features taken from `features_folder` had cost.
        start_from: Folder of an earlier run, whose adapter training goes on from.
        new_output_layer: As `peftkit.backbones.load` takes it.
        costs: What a method measured beside the usual, by the names of a record.
        shots: Training rows that stand before each prompt, if any do.
        notes: What a reader of the record must know of the method, and of how rows were encoded.
        reloaded: Whether the model is that of an earlier run.
        trackers: Who is told of training as it goes on; see `peftkit.tracking`.
        memory_check: Whether memory is predicted before training, and a run that cannot fit is
            refused.
        expected: Memory predicted for the last training.
    """

    recipe: Recipe
    data: TaskData
    folder: Path
    features_folder: Path | None = None
    progress: Progress | None = None
    trained: Trained | None = None
    validation_seconds: tuple[float, float] = (0.0, 0.0)
    features_seconds: float = 0.0
    virtual_tokens: int = 0
    start_from: Path | None = None
    new_output_layer: bool = False
    costs: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    shots: Dataset | None = None
    reloaded: bool = False
    trackers: Sequence[str] = ()
    memory_check: Literal["off", "note", "refuse"] = "off"
    expected: Prediction | None = None
    _encoded: dict[str, list[Example]] = field(default_factory=dict)

    @cached_property
    def backbone(self) -> LoadedBackbone:
        """The backbone with a new head, on the device."""
        return self._untouched()

    def _untouched(self) -> LoadedBackbone:
        from peftkit.device import device

        loaded = self._load(from_pretrained=self.recipe.method.from_pretrained)
        if self.recipe.backbone.offload == "cpu":
            names = loaded.layers.linear()
            loaded.waiting = tuple(loaded.model.get_submodule(name) for name in names)
            offload(loaded.model, loaded.waiting, device())
        elif loaded.quantization == "none":  # else it was loaded to where it belongs
            loaded.model.to(device())
        return loaded

    def load_without_weights(self) -> None:
        """Let `backbone` be one that only encodes rows: its model takes no memory."""
        import torch

        with torch.device("meta"):
            self.backbone = self._load(from_pretrained=False)

    def stand_alone(self, trained_on: str) -> None:
        """Let `backbone` be shaped by the files in `folder`, whose whole model `reload` puts in it.

        Args:
            trained_on: Fingerprint of the weights that training started from.
        """
        import dataclasses

        from peftkit.backbones import outline_files

        shape = dataclasses.replace(self.recipe.backbone, quantization="none")
        self.backbone = outline_files(shape, self.folder, self.head, fingerprint=trained_on)

    def _load(self, *, from_pretrained: bool) -> LoadedBackbone:
        recipe = self.recipe
        bits = recipe.backbone.quantization
        if bits != "none" and not recipe.method.works_on_quantised:
            raise Unsupported(
                f"{type(recipe.method).__name__} trains weights of the blocks, and those that are "
                f"kept as {bits} cannot be trained. Next: leave --backbone.quantization out, or "
                "choose lora, bottleneck or another method that adds parameters."
            )
        location = locate(recipe.backbone)
        return load(
            recipe.backbone, location, self.head, seed=recipe.seed, from_pretrained=from_pretrained
        )

    @property
    def head(self) -> Head:
        """What the task asks of the backbone."""
        task = self.recipe.task
        return Head(
            auto_classes=task.auto_classes,
            labels=self.data.labels,
            inputs=task.inputs,
            reads=task.reads,
            problem_type=task.problem_type,
            max_seconds=getattr(task, "max_seconds", None),
            new_output_layer=self.new_output_layer,
        )

    def save_processor(self, folder: Path) -> None:
        """Write the tokenizer (or what else makes inputs), its chat template the one that was used.

        Args:
            folder: Where to.
        """
        from peftkit.tasks._prompted import OWN, template_named

        self.recipe.task.save_beside(self.backbone, folder)
        processor, asked = self.backbone.processor, getattr(self.recipe.task, "chat_template", None)
        if asked in (None, OWN):
            processor.save_pretrained(folder)
            return
        before, processor.chat_template = processor.chat_template, template_named(asked)
        processor.save_pretrained(folder)
        processor.chat_template = before

    @cached_property
    def collate(self) -> Collate:
        """Pads examples and makes tensors of them."""
        return self.recipe.task.collate(self.backbone)

    @property
    def max_length(self) -> int:
        """Tokens of a text: what the task asks for, or what positions leave beside a prompt.

        0 where rows are no texts.
        """
        asked: int | None = getattr(self.recipe.task, "max_length", None)
        if asked is None:
            return 0
        room = self.room
        if room < 8:
            raise InvalidInput(
                "there is no room for text beside the virtual tokens",
                received=f"{self.virtual_tokens} virtual tokens",
                allowed=f"at most {room + self.virtual_tokens - 8}",
                next_step="lower --method.num-tokens",
            )
        return min(asked, room)

    @property
    def room(self) -> int:
        """Positions that the backbone has for a text, beside a prompt."""
        model = self.backbone.model
        room = getattr(model.config, "max_position_embeddings", None) or 10**6
        for name, module in model.named_modules():
            padding = getattr(module, "padding_idx", None)
            if name.endswith("position_embeddings") and padding is not None:
                room -= padding + 1  # RoBERTa's start after the padding index
        return int(room) - self.virtual_tokens

    def encode(self, rows: Dataset) -> list[Example]:
        """Token ids of rows, encoded once."""
        key, task = f"{rows._fingerprint}|{self.max_length}", self.recipe.task
        if key not in self._encoded:
            whole = rows if self.shots is None else task.with_shots(rows, self.shots)
            self._encoded[key] = task.encode(whole, self.backbone, self.max_length)
            for split in ("train", "validation", "test"):
                if getattr(self.data, split) is rows:
                    self.notes += task.noted(self._encoded[key], split)
        return self._encoded[key]

    def forget(self, rows: Dataset) -> None:
        """Let go of the token ids of rows that will not be read again."""
        for key in [key for key in self._encoded if key.startswith(f"{rows._fingerprint}|")]:
            del self._encoded[key]

    def note_start(self, examples: Sequence[Example], model: Any) -> None:
        """Note in each example what a task needs to know of `model` as it was before training."""
        task = self.recipe.task
        if not task.against_start or all("_start" in example for example in examples):
            return
        with self._before_training(model) as start:
            task.start(
                start, examples, self.backbone,
                precision=self.recipe.training.precision, progress=self.progress,
            )  # fmt: skip

    @contextmanager
    def _before_training(self, model: Any) -> Iterator[Any]:
        """The model as it was before training, without a second copy of it if there is a way."""
        from peftkit.methods._peft import without_adapter

        bare = without_adapter(model)
        untrained = self.trained is None and not self.reloaded
        # What PiSSA and OLoRA start from is the backbone only together with its adapter.
        if untrained and (self.recipe.method.identity_at_start or bare is None):
            yield model
        elif bare is not None:
            context, base = bare
            with context():
                yield base
        else:
            yield self._untouched().model

    def targets(self, rows: Dataset) -> list[Any]:
        """What is to be answered, a row: a class, or a class for each word that is read."""
        from peftkit.evaluate import IGNORED

        labels = [example["labels"] for example in self.encode(rows)]
        return [
            [each for each in label if each != IGNORED] if isinstance(label, list) else label
            for label in labels
        ]

    def attach(self, method: Method) -> Any:
        """Attach `method`, its random start drawn from a stream of its own."""
        backbone = self.backbone
        backbone.model.requires_grad_(False)
        if not self.recipe.task.dropout:
            from trl.trainer.utils import disable_dropout_in_model

            disable_dropout_in_model(backbone.model)
        if self.recipe.training.head_init != "random":
            from peftkit.heads import start_head

            start_head(self, self.recipe.training.head_init)
        whole = backbone.model
        if (
            self.recipe.training.gradient_checkpointing
            and not whole.supports_gradient_checkpointing
        ):
            raise Unsupported(
                f"{type(whole).__name__} knows no gradient checkpointing: "
                "leave --training.gradient-checkpointing out"
            )
        fixed = [whole.get_parameter(name) for name in backbone.layers.fixed]
        with seeded(self.recipe.seed, "adapter"), self._weights_at_hand() as found:
            model = found[0] = method.attach(backbone)
        for parameter in fixed:
            parameter.requires_grad_(False)
        _train_in_float32(model)
        if self.start_from:
            from peftkit.reloading import go_on_from

            go_on_from(self, model, self.start_from)
        self.virtual_tokens = _virtual_tokens(model)
        return model

    @contextmanager
    def _weights_at_hand(self) -> Iterator[list[Any]]:
        """Within, offloaded weights are back; afterwards the model that is put in the list waits.

        PEFT puts new layers where those beside them are, and makes none of weights that wait.
        """
        found = [self.backbone.model]
        if self.backbone.waiting:
            bring_back(self.backbone.model, self.backbone.waiting)
        yield found
        if self.backbone.waiting:
            from peftkit.device import device

            offload(found[0], self.backbone.waiting, device())

    def parameters(self, model: nn.Module) -> Parameters:
        """Count what requires gradients, the head apart."""
        head = total = 0
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                total += parameter.numel()
                if self.in_head(name):
                    head += parameter.numel()
        return Parameters(method=total - head, head=head)

    def logits(self, output: Any, inputs: dict[str, Any]) -> Any:
        """The task's logits; of tokens, those of the text, not of virtual tokens before it."""
        found = self.recipe.task.logits(output)
        if found.ndim < 3:
            return found
        return found[:, -inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1] :]

    def in_head(self, name: str) -> bool:
        """Whether a parameter, by its name, is one of the new output layer."""
        return any(f".{part}." in f".{name}" for part in self.backbone.layers.head)

    def head_learning_rate(self, rate: float) -> float:
        """Peak learning rate of the output layer, where that of the method is `rate`."""
        asked = self.recipe.training.head_learning_rate
        fitted = self.recipe.training.head_init != "random" or not self.backbone.head_is_new
        if asked == "same" or (asked == "auto" and fitted):
            return rate
        if asked == "auto":
            return HEAD_RATE * min(1.0, HEAD_WIDTH / self.backbone.layers.hidden_size)
        return asked

    def train(self, model: nn.Module, examples: Sequence[Example] | None = None,
              collate: Collate | None = None) -> None:  # fmt: skip
        """Train `model` on the training rows, or on `examples` made of them, in their order."""
        from peftkit.train import Schedule, train

        task = self.recipe.task
        rows = self.encode(self.data.train)
        self._note_starts(rows, model)
        rows = task.packed(rows, self.max_length, virtual_tokens=self.virtual_tokens)
        rate = self.recipe.learning_rate
        if rate is None:
            raise InvalidInput(
                f"{type(self.recipe.method).__name__} has no default learning rate",
                next_step="give --training.learning-rate",
            )
        head_rate = self.head_learning_rate(rate)
        # A probe is a head and nothing else; its own rate is only what somebody asked for.
        probe = examples is not None or self.recipe.method.rung == "head"
        asked = self.recipe.training.learning_rate is not None

        def factor(name: str) -> float:
            if probe:
                return 1.0 if asked else head_rate / rate
            if self.in_head(name):
                return head_rate / rate
            return self.recipe.method.rate_factor(name)

        lengths = [task.length(row) for row in rows]
        if examples is None and self.memory_check != "off":
            from peftkit.memory.expecting import expect

            with self._beside_training():
                self.expected = expect(self, rows, lengths)
        schedule = Schedule(
            examples=rows if examples is None else examples,
            lengths=lengths,
            collate=collate or self.collate,
            loss=lambda logits, labels: task.loss(logits, labels, self.data),
            validate=self._validate if examples is None else None,
            higher_is_better=task.higher_is_better,
            num_items=task.num_items,
            logits=self.logits if examples is None else lambda output, _: output.logits,
            rate_factor=factor,
            progress=self.progress,
            folder=self._checkpoints(),
            trackers=self.trackers,
            tracker_folder=self.folder,
        )
        self.trained = train(
            model, schedule, self.recipe.training, seed=self.recipe.seed, learning_rate=rate
        )
        if self.trained.resumed_at:
            self.notes.append(
                f"training was resumed at step {self.trained.resumed_at}: its time and energy are "
                "those of the steps behind it, examples and tokens those of all"
            )

    def _note_starts(self, rows: Sequence[Example], model: nn.Module) -> None:
        """Of all rows, before training; only what is of the training rows counts as training."""
        self.note_start(rows, model)
        with self._beside_training():
            for others in (self.data.validation, self.data.test):
                if self.recipe.task.against_start:
                    self.note_start(self.encode(others), model)

    @contextmanager
    def _beside_training(self) -> Iterator[None]:
        """Count what is done within as evaluation, not as training."""
        from peftkit.device import settle_work

        settle_work()  # what is queued yet is of training
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        settle_work()
        before = self.validation_seconds
        self.validation_seconds = (
            before[0] + time.perf_counter() - wall,
            before[1] + time.process_time() - cpu,
        )

    def _checkpoints(self) -> Path:
        """A folder of this very run's own, so that none resumes from another's state."""
        from peftkit.device import resolve_precision

        folder = self.folder / "checkpoints"
        if self.recipe.training.save_every is None:
            return folder
        precision = resolve_precision(self.recipe.training.precision)
        own = self.recipe.fingerprint(precision=precision)
        return folder / record_key(own, self.data.fingerprint, self.weights_fingerprint)

    @property
    def weights_fingerprint(self) -> str:
        """Hash over the weights that training starts from: those files, and an earlier adapter."""
        found = locate(self.recipe.backbone).fingerprint
        if self.start_from is None:
            return found
        adapter = (self.start_from / "adapter_model.safetensors").read_bytes()
        return hashlib.sha256(found.encode() + adapter).hexdigest()

    def predictor(self, model: nn.Module) -> ModelPredictor:
        """Make a predictor of a trained model."""
        return ModelPredictor(model=model, bench=self, parameters=self.parameters(model))

    def _validate(self, model: nn.Module) -> float:
        with self._beside_training():
            parameters = Parameters(method=0, head=0)
            logits = ModelPredictor(model=model, bench=self, parameters=parameters).outputs(
                self.data.validation
            )
            _, metrics = self.recipe.task.score(logits, self.data.validation)
        return metrics[self.recipe.task.metric]

    def features(self, rows: Dataset, progress: Progress | None = None) -> list[np.ndarray]:
        """Features of rows, as `peftkit.features.frozen_features` computes and keeps them."""
        from peftkit.features import frozen_features

        return frozen_features(self, rows, progress)

    def reload(self, folder: Path) -> ModelPredictor:
        """Load what `ModelPredictor.save` wrote: an adapter folder, or a whole model."""
        from peftkit.reloading import reload

        with self._weights_at_hand() as found:
            model = found[0] = reload(self.backbone, folder)
        self.virtual_tokens = _virtual_tokens(model)
        self.reloaded = True
        return ModelPredictor(model=model, bench=self, parameters=self.parameters(model))


def _train_in_float32(model: nn.Module) -> None:
    """What is trained on top of a bfloat16 base is float32 (heads above all; PEFT leaves them)."""
    import torch
    from peft import PeftModel

    if isinstance(model, PeftModel):
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dtype == torch.bfloat16:
                parameter.data = parameter.data.float()


def _virtual_tokens(model: Any) -> int:
    config = getattr(model, "active_peft_config", None)
    return int(getattr(config, "num_virtual_tokens", 0) or 0)
