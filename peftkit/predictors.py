"""What a fitted method is: something that answers rows, saves itself and counts itself."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from peftkit.record import CONTINUED

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn

    from peftkit.tasks import Progress
    from peftkit.workbench import Workbench


EARLIER = (
    "adapter_config.json", "config.json", "generation_config.json", "*.safetensors",
    "*.safetensors.index.json", "1_Pooling", "vocabulary.json", "tfidf.npz", CONTINUED,
    "shots.parquet",
)  # fmt: skip
SHOTS = "shots.parquet"  # training rows that stand before each prompt


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many parameters were trained.

    Attributes:
        method: By the method itself.
        head: In the newly initialised output layer.
    """

    method: int
    head: int


class Predictor(Protocol):
    """A fitted method."""

    @property
    def parameters(self) -> Parameters:
        """What was trained."""

    def outputs(self, rows: Dataset, progress: Progress | None = None) -> Any:
        """What the task's `join` makes of one answer a row, in the order of `rows`."""

    def save(self, folder: Path) -> None:
        """Write everything that is needed beside the backbone's own files."""


def clear_earlier(folder: Path) -> None:
    """Delete the weights of an earlier run in `folder`, of whatever method, before new ones."""
    from peftkit.record import MANIFEST

    if (folder / MANIFEST).is_file():  # else the files are none of peftkit's
        for pattern in EARLIER:
            for path in folder.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


@dataclass(kw_only=True)
class ModelPredictor:
    """A torch model with its head on: the backbone itself, or a `PeftModel` around it."""

    model: Any
    bench: Workbench
    parameters: Parameters

    def outputs(self, rows: Dataset, progress: Progress | None = None) -> Any:
        from peftkit.evaluate import outputs

        bench = self.bench
        task, training = bench.recipe.task, bench.recipe.training
        examples = bench.encode(rows)
        bench.note_start(examples, self.model)
        if task.generates:
            return task.write(
                self.model, examples, bench.backbone,
                precision=training.precision, progress=progress,
            )  # fmt: skip
        found = outputs(
            self.model,
            examples,
            bench.collate,
            read=lambda output, inputs, labels: task.pick(bench.logits(output, inputs), labels),
            length=task.length,
            key=task.key,
            precision=training.precision,
            progress=progress,
        )
        return task.join(found, examples)

    def release(self) -> None:
        """Give the model up, to make room for another."""
        self.model = self.bench.backbone.model = None
        self.bench.__dict__.pop("collate", None)  # that of an encoder-decoder holds the model

    def save(self, folder: Path) -> None:
        from peft import PeftModel

        from peftkit.backbones import declare_pooling

        clear_earlier(folder)
        if isinstance(self.model, PeftModel):
            # The name that the recipe used, not the path of this machine that PEFT noted.
            self.model.active_peft_config.base_model_name_or_path = self.bench.recipe.backbone.name
            # Never "auto", which asks the hub about the base's vocabulary (peft#1452).
            self.model.save_pretrained(str(folder), save_embedding_layers=False)
        else:
            self.model.save_pretrained(folder)
            declare_pooling(folder, self.bench.backbone.pooling, self.model.config)
        self.bench.save_processor(folder)


@dataclass(kw_only=True)
class BarePredictor(ModelPredictor):
    """The backbone as it is, with the head it was pretrained with: only its shots are saved."""

    def save(self, folder: Path) -> None:
        clear_earlier(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.bench.shots is not None:
            self.bench.shots.to_parquet(folder / SHOTS)
        self.bench.save_processor(folder)


@dataclass(kw_only=True)
class FeaturePredictor:
    """A linear layer on features of the frozen backbone, which are computed once and kept."""

    layer: nn.Linear
    bench: Workbench
    parameters: Parameters

    def outputs(self, rows: Dataset, progress: Progress | None = None) -> Any:
        import numpy as np
        import torch

        found = self.bench.features(rows, progress)
        features = torch.from_numpy(np.concatenate([np.atleast_2d(each) for each in found]))
        with torch.inference_mode():
            logits = self.layer.cpu()(features).numpy()
        if found and found[0].ndim == 1:  # one vector a text
            return self.bench.recipe.task.join(list(logits), self.bench.encode(rows))
        ends = np.cumsum([len(each) for each in found])[:-1]
        return self.bench.recipe.task.join(np.split(logits, ends), self.bench.encode(rows))

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        clear_earlier(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.contiguous() for name, tensor in self.layer.state_dict().items()}
        save_file(state, folder / "head.safetensors")
        self.bench.save_processor(folder)

    @classmethod
    def load(cls, folder: Path, bench: Workbench, *, trained: bool) -> FeaturePredictor:
        """Read what `save` wrote.

        Args:
            folder: Where.
            bench: Holds the frozen backbone.
            trained: Whether the layer counts as trained parameters.
        """
        from safetensors.torch import load_file
        from torch import nn

        state = load_file(folder / "head.safetensors")
        outputs, inputs = state["weight"].shape
        layer = nn.Linear(inputs, outputs)
        layer.load_state_dict(state)
        count = sum(p.numel() for p in layer.parameters()) if trained else 0
        return cls(layer=layer, bench=bench, parameters=Parameters(method=0, head=count))
