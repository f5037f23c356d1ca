"""How much a language model unlearns: its loss on neutral text, against the bare backbone's.

    forgetting_nats = loss of the adapted model - loss of the bare backbone    (nats a token)

Both read the same blocks, decoders predicting the next token and encoders the same masked ones. The
bare backbone is measured before anything is attached to it: measured through a fresh adapter, it
would be wrong for every method that does not start as the identity (peft#3419). Encoder-decoders
are left out: what they predict of plain text is each family's own (spans, noise, nothing).

The neutral text is Python's language reference, which comes with Python itself and is part of no
bundled task, unless `task.neutral_text` names another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

    from peftkit.predictors import Predictor
    from peftkit.tasks import Example
    from peftkit.workbench import Workbench

BLOCKS = 32
BLOCK_TOKENS = 128
ROWS, CHARACTERS = 64, 4000  # as much is looked at, at most, before blocks are chosen


@dataclass(kw_only=True)
class Forgetting:
    """A measurement that was begun on the bare backbone.

    Attributes:
        bench: The recipe at work.
        examples: Blocks of the neutral text; empty where there is nothing to measure.
        text: What a record says of the neutral text, under "neutral_text".
        bare_nats: Loss of the bare backbone, nats a token.
    """

    bench: Workbench
    examples: Sequence[Example] = ()
    text: dict[str, str] = field(default_factory=dict)
    bare_nats: float = 0.0

    @classmethod
    def begin(cls, bench: Workbench) -> Forgetting:
        """Measure the bare backbone, before anything is attached to it.

        Raises:
            InvalidInput: The neutral text of the task cannot be read.
        """
        task = bench.recipe.task
        if not bench.recipe.method.needs_backbone or task.reads != "token":
            return cls(bench=bench)
        backbone = bench.backbone
        if backbone.model.config.is_encoder_decoder or not backbone.processor.is_fast:
            return cls(bench=bench)
        rows, source = _neutral_rows(getattr(task, "neutral_text", None))
        # Half of the positions leave room for virtual tokens.
        length = min(BLOCK_TOKENS, bench.room // 2)
        blocks = _task(source).encode(rows, backbone, length)
        examples = _spread(blocks, BLOCKS)
        digest = hashlib.sha256("\0".join(rows["text"][:]).encode()).hexdigest()[:12]
        begun = cls(
            bench=bench,
            examples=examples,
            text={"neutral_text": f"{source} (fingerprint {digest})"},
        )
        begun.bare_nats = begun._nats(_pretrained(bench))
        return begun

    def costs(self, predictor: Predictor) -> dict[str, float]:
        """`neutral_nats` of the adapted model and `forgetting_nats`; {} if nothing was begun."""
        if not self.examples:
            return {}
        if self.bench.room < max(len(example["input_ids"]) for example in self.examples):
            self.bench.notes.append(
                "forgetting was not measured: virtual tokens leave no room for a block of text"
            )
            return {}
        after = self._nats(getattr(predictor, "model"))  # noqa: B009  # all that answer tokens have
        return {"neutral_nats": after, "forgetting_nats": after - self.bare_nats}

    def _nats(self, model: Any) -> float:
        """Loss over all blocks, nats a token."""
        from peftkit.evaluate import outputs

        bench, task = self.bench, _task("")
        found = outputs(
            model,
            self.examples,
            task.collate(bench.backbone),
            read=lambda output, inputs, labels: task.pick(bench.logits(output, inputs), labels),
            precision=bench.recipe.training.precision,
        )
        return float(sum(nats for nats, _ in found) / sum(tokens for _, tokens in found))


def _task(source: str) -> Any:
    """Language modelling, which knows how text is cut into blocks and what is predicted."""
    from peftkit.tasks.language_modeling import LanguageModeling

    return LanguageModeling(data=source or "neutral text")


def _neutral_rows(name: str | None) -> tuple[Dataset, str]:
    """Some rows of text, evenly spread, and what they are."""
    from datasets import Dataset

    if name is None:
        texts, source = _language_reference()
    else:
        path, source = Path(name).expanduser(), name
        task = _task(name)
        rows = task.read(path, []) if path.is_file() else task.load(seed=0).validation
        texts = rows["text"][:]
    chosen = [text[:CHARACTERS] for text in _spread(texts, ROWS)]
    return Dataset.from_dict({"text": chosen}), source


def _language_reference() -> tuple[list[str], str]:
    """What `help("if")` and its like print, topic by topic, of this version of Python."""
    import platform
    from pydoc_data.topics import topics

    texts = [text for _, text in sorted(topics.items()) if len(text) >= 1000]
    return texts, f"the language reference of Python {platform.python_version()}"


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def _pretrained(bench: Workbench) -> Any:
    """The bare backbone's model, with its pretrained weights even where a method redraws them."""
    import dataclasses

    if bench.recipe.method.from_pretrained:
        return bench.backbone.model
    bare = dataclasses.replace(bench, recipe=bench.recipe.override({"method": "none"}))
    return bare.backbone.model
