"""Continued pretraining: language modelling on in-domain text, all weights, then any method.

Text: by default the inputs of the task's whole training split, labels left out ("task-adaptive");
or a corpus of the domain ("domain-adaptive"). Encoders predict masked tokens, decoders the next
one. An encoder whose files lack the layer that predicts tokens, as sentence encoders' do, gets a
new one whose output is tied to the input embeddings, trained with the rest.

The adaptation then starts as on the bare backbone: the same new head, the same batches. What is
saved with an adapter is the backbone it sits on, as a folder that is itself a backbone.

Departures from the paper: as many steps as `training` says of any data, where it takes 100 epochs
over small data; batches of `training.batch_size`, where it takes 256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from peftkit.backbones import LoadedBackbone, Pooling, declare_pooling
from peftkit.bounds import Ge, Gt
from peftkit.errors import Diverged, InvalidInput, Unsupported
from peftkit.fields import settle
from peftkit.methods._handing_over import hand_over, share
from peftkit.methods._method import Method, Rung
from peftkit.record import CONTINUED

if TYPE_CHECKING:
    from datasets import Dataset

    from peftkit.predictors import Parameters, Predictor
    from peftkit.tasks import Progress
    from peftkit.workbench import Workbench

MASKINGS = 10  # of each text, at most (Liu et al. 2019, section 4.1)


@dataclass(frozen=True, kw_only=True)
class ContinuedPretraining(Method):
    """Go on pretraining on text of the domain, then adapt."""

    rung: ClassVar[Rung] = "retrain"
    reference: ClassVar[str] = "Gururangan et al. 2020, arXiv:2004.10964, section 4"
    learning_rate: ClassVar[float | None] = 1e-4
    learning_rate_source: ClassVar[str] = "that of the method that follows; full's by default"
    works_on_quantised: ClassVar[bool] = False
    works_offloaded: ClassVar[bool] = False

    then: str = "full"
    """The method that follows, as in a comparison: full, lora, lora:rank=4."""
    text: str | None = None
    """Text to read: a bundled corpus, a file, a folder or a data set of the hub (training rows);
    none: the inputs of the task's whole training split."""
    text_column: str | None = None
    """Column of that text; none: text."""
    max_length: Annotated[int, Ge(8)] = 128
    """Tokens of a block; texts do not share one."""
    steps: Annotated[int, Ge(1)] | None = None
    """Optimizer steps on text; none: decided by `epochs`."""
    epochs: Annotated[float, Gt(0)] | None = None
    """Passes over the text; none: as `training` says, that is three, but at least 250 steps."""
    pretraining_learning_rate: Annotated[float, Gt(0)] = 1e-4
    """Peak learning rate on text; 1e-4 is BERT's (Devlin et al. 2019, appendix A.2)."""

    def __post_init__(self) -> None:
        settle(self, "method")
        then = self.adaptation
        for fact in (
            "learning_rate", "mergeable", "identity_at_start", "works_with_checkpointing",
            "resumable",
        ):  # fmt: skip
            object.__setattr__(self, fact, getattr(then, fact))

    @cached_property
    def adaptation(self) -> Method:
        """The method that follows.

        Raises:
            UnknownName: There is none of this name, or it has no such option.
            InvalidInput: It would not use what was learned of the text.
        """
        from peftkit import parts
        from peftkit.fields import Typed, build
        from peftkit.overrides import parse_label

        name, changes = parse_label(self.then)
        cls = parts.load("method", name)
        if cls is type(self) or not (cls.needs_backbone and cls.from_pretrained):
            raise InvalidInput(
                f"{name} does not use what was learned of the text",
                received=f"method.then {self.then}",
                allowed="a method that adapts the pretrained backbone, such as full or lora",
                next_step="choose another for --method.then",
            )
        options = {key.removeprefix("method."): Typed(value) for key, value in changes.items()}
        return build(cls, options, "method.then")

    def files_read(self) -> list[Path]:
        """The text, and what the method that follows reads or is written in."""
        from peftkit import parts

        text = Path(self.text).expanduser() if self.text else Path()
        files = [text] if text.is_file() else []
        if self.text and text.is_dir():
            files = sorted(path for path in text.rglob("*") if path.is_file())
        own = parts.source_file(type(self.adaptation))
        return [*files, *([own] if own else []), *self.adaptation.files_read()]

    def attach(self, backbone: LoadedBackbone) -> Any:
        _check(backbone)
        return self.adaptation.attach(backbone)

    def rate_factor(self, parameter: str) -> float:
        return self.adaptation.rate_factor(parameter)

    def fit(self, bench: Workbench) -> Predictor:
        _check(bench.backbone)
        if bench.recipe.task.against_start:
            raise Unsupported(
                "answers are judged against the model as it was before training, and of two stages "
                "only the last is kept. Next: continue pretraining in a run of its own, and name "
                "its folder as --backbone."
            )
        wall, cpu = time.perf_counter(), time.process_time()
        reading = self._read(bench)
        between, between_cpu = time.perf_counter(), time.process_time()
        predictor = self.adaptation.fit(bench)
        assert reading.trained is not None
        bench.costs |= {
            "pretraining_steps": reading.trained.steps,
            "pretraining_tokens": reading.trained.num_tokens,
            "pretraining_seconds": between - wall,
            "pretraining_cpu_seconds": between_cpu - cpu,
            "adaptation_seconds": time.perf_counter() - between - bench.validation_seconds[0],
        }
        if bench.trained:
            bench.costs["adaptation_tokens"] = bench.trained.num_tokens
        return _OnOwnBackbone(inner=predictor, reading=reading, pooling=bench.backbone.pooling)

    def reload(self, bench: Workbench, folder: Path) -> Predictor:
        own = folder / CONTINUED if (folder / CONTINUED).is_dir() else None
        reading = self._bench(bench, _dataset([]), source="text", backbone=own)
        if own:
            hand_over(reading, bench)
        again = self.adaptation.reload(bench, folder)
        return _OnOwnBackbone(inner=again, reading=reading, pooling=bench.backbone.pooling)

    # ---- the text

    def _read(self, bench: Workbench) -> Workbench:
        """Train on text, and give the backbone on `bench` what was learned."""
        from peftkit.methods.full import Full

        rows, source = self._rows(bench)
        reading = self._bench(bench, rows, source=source)
        share(reading, bench)
        blocks, training = len(reading.encode(rows)), reading.recipe.training
        if not blocks:
            raise InvalidInput(f"{source}: nothing to predict", next_step="give --method.text")
        steps = training.num_steps(blocks)
        passes = steps * training.batch_size * training.gradient_accumulation / blocks
        if reading.backbone.auto_class == "AutoModelForMaskedLM" and passes > 1:
            again = _dataset(rows["text"][:] * min(MASKINGS, math.ceil(passes)))
            reading.data = dataclasses.replace(reading.data, train=again)  # masked anew each time
        reading.recipe = reading.recipe.override({"training.steps": steps})
        bench.notes.append(f"pretraining was continued on {source}, {blocks:,} blocks of text")
        if not reading.backbone.own_output:
            bench.notes.append(
                "the backbone's files hold no layer that predicts tokens: a new one, its output "
                "tied to the input embeddings, was trained with it"
            )
        try:
            reading.train(reading.attach(Full()))
        except Diverged as error:
            raise Diverged(f"on text (--method.pretraining-learning-rate): {error}") from error
        hand_over(reading, bench)
        return reading

    def _rows(self, bench: Workbench) -> tuple[Dataset, str]:
        """Training texts, and where they come from."""
        from peftkit.tasks.language_modeling import LanguageModeling

        seed, progress = bench.recipe.seed, bench.progress
        if self.text is not None:
            corpus = LanguageModeling(data=self.text, text_column=self.text_column)
            found = corpus.load(seed=seed, progress=progress)
            return found.train.select_columns(["text"]), found.source
        whole = bench.recipe.override({"task.size": None, "task.label_noise": 0.0}).task
        rows = whole.load(seed=seed, progress=progress).train
        return _dataset(whole.texts(rows)), f"the training inputs of {whole.data}"

    def _bench(
        self, bench: Workbench, rows: Dataset, *, source: str, backbone: Path | None = None
    ) -> Workbench:
        """A workbench for text: the same backbone, seed and rules of order."""
        from peftkit.recipe import Recipe
        from peftkit.tasks.language_modeling import LanguageModeling
        from peftkit.workbench import Workbench

        own = bench.recipe
        given = self.steps is not None or self.epochs is not None
        asked: dict[str, Any] = {"steps": self.steps, "epochs": self.epochs} if given else {}
        recipe = Recipe(
            backbone=dataclasses.replace(own.backbone, name=str(backbone), revision=None)
            if backbone
            else own.backbone,
            method="full",
            task=LanguageModeling(data=source, max_length=self.max_length),
            training=dataclasses.replace(
                own.training, learning_rate=self.pretraining_learning_rate, **asked,
                head_learning_rate="same", head_init="random",
                evaluate_every=None, keep_best=False, patience=None,
            ),
            seed=own.seed,
        )  # fmt: skip
        data = dataclasses.replace(
            bench.data, train=rows, labels=[], source=source,
            fingerprint=hashlib.sha256("\0".join(rows["text"][:]).encode()).hexdigest(),
        )  # fmt: skip
        folder = bench.folder / "checkpoints" / "text"
        return Workbench(
            recipe, data, folder, progress=bench.progress, new_output_layer=True,
            memory_check=bench.memory_check,
        )  # fmt: skip


@dataclass(kw_only=True)
class _OnOwnBackbone:
    """A fitted method on a backbone that is no longer that of the files."""

    inner: Predictor
    reading: Workbench
    pooling: Pooling | None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)  # `model` or `layer`, whichever there is

    @property
    def parameters(self) -> Parameters:
        return self.inner.parameters

    def outputs(self, rows: Dataset, progress: Progress | None = None) -> Any:
        return self.inner.outputs(rows, progress)

    def release(self) -> None:
        """As that of the method that follows; both stages hold one backbone."""
        inner: Any = self.inner
        inner.release()
        self.reading.__dict__.pop("backbone", None)
        self.reading.__dict__.pop("collate", None)

    def save(self, folder: Path) -> None:
        self.inner.save(folder)
        if (folder / "config.json").is_file():  # a whole model needs no other backbone
            return
        own = self.reading.backbone
        own.model.save_pretrained(folder / CONTINUED)
        declare_pooling(folder / CONTINUED, self.pooling, own.model.config)
        own.processor.save_pretrained(folder / CONTINUED)


def _check(backbone: LoadedBackbone) -> None:
    """Raise `Unsupported` where nothing on plain text is predicted."""
    if backbone.inputs != "text":
        raise Unsupported(
            f"pretraining on text cannot go on with {type(backbone.model).__name__}, which reads "
            f"{backbone.inputs} data. Next: choose full, or an adapter."
        )
    if backbone.model.config.is_encoder_decoder:
        raise Unsupported(
            f"{type(backbone.model).__name__} was pretrained to restore damaged text, by rules of "
            "its own family that are not known here. Next: choose full, or an adapter."
        )


def _dataset(texts: list[str]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_dict({"text": [text for text in texts if text.strip()]})
