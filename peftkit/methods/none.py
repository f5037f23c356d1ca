"""No training: nearest class centroid of the frozen features.

The centroids c of the training rows' features x are a linear layer: `-|x - c|^2 / t` is, but for a
term that all classes share, `(2 c x - |c|^2) / t`. The temperature t only matters to log-loss and
calibration; it maximises the likelihood of the training rows, each scored against centroids
without itself. Of several labels, each has two centroids, of the rows with it and those without.
A number is read along its covariance with the features (`peftkit.fitted.covariance_layer`). Where
spans are asked for, the head stays as it was drawn; a language model answers as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import head_only
from peftkit.predictors import BarePredictor, FeaturePredictor, Parameters, Predictor

if TYPE_CHECKING:
    from peftkit.workbench import Workbench

NOTHING = Parameters(method=0, head=0)


@dataclass(frozen=True, kw_only=True)
class NoTraining(Method):
    """The backbone as it is; no gradient step."""

    rung: ClassVar[Rung] = "none"
    reference: ClassVar[str] = "nearest class mean (Mensink et al. 2013, section 3)"

    def fit(self, bench: Workbench) -> Predictor:
        if bench.recipe.task.reads == "token":  # what it was pretrained for: it answers as it is
            return BarePredictor(model=bench.backbone.model, bench=bench, parameters=NOTHING)
        if bench.recipe.task.reads == "span":  # no centroid tells where an answer begins
            model = head_only(bench.backbone).eval().requires_grad_(False)
            return bench.predictor(model)
        rows = bench.data.train
        layer = bench.recipe.task.fit_layer(
            "centroids", bench.features(rows), bench.targets(rows), len(bench.data.labels)
        )
        return FeaturePredictor(layer=layer, bench=bench, parameters=NOTHING)

    def reload(self, bench: Workbench, folder: Path) -> Predictor:
        if bench.recipe.task.reads == "token":
            return self.fit(bench)
        if (folder / "adapter_config.json").is_file():
            return bench.reload(folder)
        return FeaturePredictor.load(folder, bench, trained=False)
