"""No training: nearest class centroid of the frozen features.

The centroids c of the training rows' features x are a linear layer: `-|x - c|^2 / t` is, but for a
term that all classes share, `(2 c x - |c|^2) / t`. The temperature t only matters to log-loss and
calibration; it maximises the likelihood of the training rows, each scored against centroids
without itself. Of several labels, each has two centroids, of the rows with it and those without.
A number is read along its covariance with the features (`peftkit.fitted.covariance_layer`). Where
spans are asked for, the head stays as it was drawn; a language model answers as it is, alone or
with examples before each prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from peftkit.bounds import Ge
from peftkit.errors import InvalidInput
from peftkit.fields import settle
from peftkit.methods._method import Method, Rung
from peftkit.methods._peft import head_only
from peftkit.predictors import SHOTS, BarePredictor, FeaturePredictor, Parameters, Predictor
from peftkit.seeds import derive

if TYPE_CHECKING:
    from datasets import Dataset

    from peftkit.workbench import Workbench

NOTHING = Parameters(method=0, head=0)


@dataclass(frozen=True, kw_only=True)
class NoTraining(Method):
    """The backbone as it is; no gradient step."""

    rung: ClassVar[Rung] = "none"
    reference: ClassVar[str] = "nearest class mean (Mensink et al. 2013, section 3)"

    shots: Annotated[int, Ge(0)] = 0
    """Training examples that stand before each prompt with their answers, drawn by seed, nested;
    where rows are prompts (Brown et al. 2020, arXiv:2005.14165, section 2)."""

    def __post_init__(self) -> None:
        settle(self, "method")

    def fit(self, bench: Workbench) -> Predictor:
        if self.shots:
            bench.shots = self._drawn(bench)
        return self._fit(bench)

    def _drawn(self, bench: Workbench) -> Dataset:
        import numpy as np

        rows = bench.data.train
        if self.shots > len(rows):
            raise InvalidInput(
                "there are fewer training rows than shots",
                received=f"method.shots {self.shots}, {len(rows)} rows",
                next_step="lower --method.shots, or raise --task.size",
            )
        random = np.random.default_rng(derive(bench.recipe.seed, "shots"))
        return rows.select(random.permutation(len(rows))[: self.shots])

    def _fit(self, bench: Workbench) -> Predictor:
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
            if self.shots:
                from datasets import Dataset

                bench.shots = Dataset.from_parquet(str(folder / SHOTS))
            return self._fit(bench)
        if (folder / "adapter_config.json").is_file():
            return bench.reload(folder)
        return FeaturePredictor.load(folder, bench, trained=False)
