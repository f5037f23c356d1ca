"""What every method is: a frozen set of hyperparameters that can adapt a backbone to a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from peftkit.errors import Unsupported

if TYPE_CHECKING:
    from pathlib import Path

    from peftkit.backbones import LoadedBackbone
    from peftkit.predictors import Predictor
    from peftkit.workbench import Workbench

Rung = Literal["reference", "none", "head", "parameter-efficient", "partial", "full", "retrain"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a backbone is adapted.

    A subclass lives in a file of its own below `peftkit/methods` (the file's name is the method's
    name) or anywhere (`path/to/file.py:Class`, or an entry point of the group `peftkit.methods`).
    Its fields are its hyperparameters, checked in `__post_init__`.

    Most methods only write `attach`. One that is not trained by gradient steps through the
    backbone writes `fit` and `reload` instead.

    Class attributes:
        rung: Its place on the ladder.
        reference: The paper, with section, or the reason it is there.
        learning_rate: Default peak learning rate (None: no gradient step is taken).
        learning_rate_source: Where that default comes from.
        from_pretrained: False only where the backbone starts from random weights.
        needs_backbone: False only where there is no transformer at all.
        mergeable: Whether the trained state folds into the backbone's own weights.
        identity_at_start: Whether attaching leaves every output as it was.
        works_on_quantised: Whether a 4/8-bit base can carry it.
        works_offloaded: Whether the blocks' own weights may wait elsewhere until they compute.
        works_with_checkpointing: Whether activations may be recomputed in the backward pass.
        resumable: Whether what is saved of it is all that training would go on from.
    """

    rung: ClassVar[Rung]
    reference: ClassVar[str]
    learning_rate: ClassVar[float | None] = None
    learning_rate_source: ClassVar[str] = ""
    from_pretrained: ClassVar[bool] = True
    needs_backbone: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False
    identity_at_start: ClassVar[bool] = True
    works_on_quantised: ClassVar[bool] = True
    works_offloaded: ClassVar[bool] = True
    works_with_checkpointing: ClassVar[bool] = True
    resumable: ClassVar[bool] = True

    def attach(self, backbone: LoadedBackbone) -> Any:
        """Add what this method trains to `backbone.model`, freeze the rest.

        Args:
            backbone: The model with the task's head, and where its layers are.

        Returns:
            The model to train: `backbone.model` itself, or a `PeftModel` around it. Exactly the
            parameters that this method trains (the head among them) require gradients.

        Raises:
            Unsupported: The method cannot exist on this backbone.
            InvalidInput: A hyperparameter does not fit this backbone.
        """
        raise NotImplementedError(f"{type(self).__name__} writes neither attach nor fit")

    def files_read(self) -> list[Path]:
        """Files that its options name, whose contents decide what is learned."""
        return []

    def rate_factor(self, parameter: str) -> float:
        """How many times the learning rate a trained parameter has, by its name."""
        return 1.0

    def fit(self, bench: Workbench) -> Predictor:
        """Adapt the backbone to the training split on the bench.

        Raises:
            Unsupported: The method cannot exist on this backbone or task.
            Diverged: Training left the finite numbers.
        """
        if not self.resumable and bench.recipe.training.save_every is not None:
            raise Unsupported(
                f"{type(self).__name__} cannot go on from checkpoints, which do not hold the "
                "network behind its virtual tokens. Next: leave --training.save-every out."
            )
        model = bench.attach(self)
        bench.train(model)
        return bench.predictor(model)

    def reload(self, bench: Workbench, folder: Path) -> Predictor:
        """Load what `fit(...).save(folder)` wrote; predictions are bit-equal."""
        return bench.reload(folder)
