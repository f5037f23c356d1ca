"""Linear probe: one linear layer on features of the frozen backbone.

The features are computed once, so a step costs next to nothing; batches, steps and optimizer are
those of every other method.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from peftkit.errors import Unsupported
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import head_only
from peftkit.predictors import FeaturePredictor, Parameters, Predictor

if TYPE_CHECKING:
    from peftkit.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Method):
    """Train a new output layer only."""

    rung: ClassVar[Rung] = "head"
    reference: ClassVar[str] = "Alain and Bengio 2016, arXiv:1610.01644"
    learning_rate: ClassVar[float | None] = 1e-2
    learning_rate_source: ClassVar[str] = "see benchmarks/NOTES.md"

    def fit(self, bench: Workbench) -> Predictor:
        from peftkit.heads import FeatureHead, feature_examples, stack_features

        if bench.recipe.task.reads == "token":
            raise Unsupported(
                "the backbone's own output layer answers this task, so there is no new one to train"
            )
        if bench.recipe.task.reads == "span":  # windows of tokens: trained through the frozen model
            bench.backbone.model.requires_grad_(False)
            model = head_only(bench.backbone)
            bench.train(model)
            return bench.predictor(model)
        training = bench.recipe.training
        if training.head_init != "random" or training.evaluate_every or training.keep_best:
            bench.notes.append(
                "the probe starts at random and is kept as its last step left it: head_init, "
                "evaluate_every, keep_best and patience are not for it"
            )
        features = bench.features(bench.data.train)
        targets = bench.targets(bench.data.train)
        hidden = features[0].shape[-1]
        head = FeatureHead(hidden, len(bench.data.labels), seed=bench.recipe.seed)
        bench.train(head, feature_examples(features, targets), stack_features)
        count = sum(p.numel() for p in head.parameters())
        return FeaturePredictor(
            layer=head.layer, bench=bench, parameters=Parameters(method=0, head=count)
        )

    def reload(self, bench: Workbench, folder: Path) -> Predictor:
        if (folder / "adapter_config.json").is_file():
            return bench.reload(folder)
        return FeaturePredictor.load(folder, bench, trained=True)
