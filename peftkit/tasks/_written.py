"""What tasks have in common whose answers are written: translations, summaries, descriptions.

An encoder-decoder reads the source and writes the target. A decoder reads the source as the
beginning of a text that goes on with the target. Loss: cross-entropy of the target's tokens.
Sources and targets beyond their limits are cut, the prompt around a source is not.
"""

from __future__ import annotations

import bisect
import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from peftkit.bounds import Ge
from peftkit.errors import InvalidInput
from peftkit.fields import settle
from peftkit.tasks._prompt_ids import ends_of
from peftkit.tasks._task import Example, Predictions, Progress, Reads, Task, TaskData

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from peftkit.backbones import LoadedBackbone
    from peftkit.data import PairColumns
    from peftkit.evaluate import Collate

SOURCE = "{source}"


@dataclass(frozen=True, kw_only=True)
class WrittenTask(Task):
    """Write a text, given another.

    Class attributes:
        usual_sources, usual_targets: Column names that are looked for.
        chance: The metric of an empty answer.
    """

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForSeq2SeqLM", "AutoModelForCausalLM")
    reads: ClassVar[Reads] = "token"
    generates: ClassVar[bool] = True
    usual_sources: ClassVar[tuple[str, ...]] = ("source", "text", "input")
    usual_targets: ClassVar[tuple[str, ...]] = ("targets", "target", "output")

    chance: ClassVar[float] = 0.0

    size: Annotated[int, Ge(1)] | None = None
    """Training pairs, drawn by seed, nested; none: all. Each reference of a row makes a pair."""
    max_length: Annotated[int, Ge(8)] = 128
    """Tokens of the source; of a decoder, those of source and target together."""
    max_new_tokens: Annotated[int, Ge(1)] = 64
    """Tokens of the target, at most."""
    num_beams: Annotated[int, Ge(1)] = 1
    """Beams of the search; 1: greedy."""
    prompt: str | None = None
    """How the source is posed, such as "summarize: {source}"; none: alone, and to a decoder
    followed by a line break."""
    target_tokenizer: str | None = None
    """A tokenizer for the target alone: a folder, of its own or within the backbone's."""
    source_column: str | None = None
    """Column of the source; none: found by name."""
    target_column: str | None = None
    """Column of the target or of several references; none: found by name."""
    neutral_text: str | None = None
    """Text that a decoder's forgetting is measured on: a file, a folder, a bundled corpus or a data
    set of the hub (validation rows); none: Python's language reference."""

    def __post_init__(self) -> None:
        settle(self, "task")
        self.refuse_label_noise("written answers")
        if self.prompt is not None and SOURCE not in self.prompt:
            raise InvalidInput(
                "the prompt has no place for the source",
                received=f"task.prompt {self.prompt!r}",
                allowed=f"a text with {SOURCE} in it",
            )

    # ---- rows

    def load(self, *, seed: int, progress: Progress | None = None) -> TaskData:
        from peftkit.data import paired

        measured = self._measured_by()
        splits = paired(self.splits(progress), self._columns())
        notes = (*splits.notes, *measured, *self._known(splits.test))
        splits = dataclasses.replace(splits, notes=notes)
        return self.drawn(splits, seed=seed, chance=self.chance)

    def _columns(self) -> PairColumns:
        from peftkit.data import PairColumns

        return PairColumns(
            source=self.source_column, target=self.target_column,
            usual_sources=self.usual_sources, usual_targets=self.usual_targets,
        )  # fmt: skip

    def _measured_by(self) -> tuple[str, ...]:
        """Notes on how texts are measured, once the libraries for it are known to be there."""
        return ()

    def _known(self, rows: Dataset) -> tuple[str, ...]:
        """Notes on what is reached without any model."""
        return ()

    def read(self, file: Path, labels: list[str]) -> Dataset:
        from peftkit.data import known_pairs, read_rows

        return known_pairs(read_rows(file), self._columns(), source=str(file))

    def rows(self, texts: Sequence[str]) -> Dataset:
        from datasets import Dataset

        return Dataset.from_dict({"text": list(texts), "targets": [[""] for _ in texts]})

    def texts(self, rows: Dataset) -> list[str]:
        return list(rows["text"][:])

    # ---- what the model reads

    def encode(self, rows: Dataset, backbone: LoadedBackbone, max_length: int) -> list[Example]:
        if len(rows) == 0:
            return []
        targets = [each[0] for each in rows["targets"][:]]
        written = self._target_ids(targets, backbone)
        if backbone.model.config.is_encoder_decoder:
            sources = self._source_ids(rows, "{source}", backbone.processor, max_length)
            return [
                {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}
                for ids, labels in zip(sources, written, strict=True)
            ]
        room = max_length - self.max_new_tokens
        if room < 8:
            raise InvalidInput(
                "there is no room for the source beside the target",
                received=f"{max_length} tokens in all, {self.max_new_tokens} for the target",
                next_step="raise --task.max-length, or lower --task.max-new-tokens",
            )
        sources = self._source_ids(rows, "{source}\n", backbone.processor, room)
        return [_continued(ids, labels) for ids, labels in zip(sources, written, strict=True)]

    def _source_ids(self, rows: Dataset, usual: str, tokenizer: Any, room: int) -> list[list[int]]:
        """Token ids of the sources as they are posed; of what is too long the source is cut."""
        prompt = self.prompt or usual
        texts = rows["text"][:]

        def ids(texts: list[str], **cut: Any) -> list[list[int]]:
            posed = [prompt.replace(SOURCE, text) for text in texts]
            found: list[list[int]] = tokenizer(posed, **cut)["input_ids"]
            return found

        if prompt.endswith(SOURCE):  # the end of the text is that of the source
            return ids(texts, truncation=True, max_length=room)
        found = ids(texts, verbose=False)
        for row, each in enumerate(found):
            if len(each) > room:
                text = texts[row]
                beginnings = [text[:n] for n in range(len(text))]
                kept = bisect.bisect_right(beginnings, room, key=lambda some: len(ids([some])[0]))
                if kept == 0:
                    raise InvalidInput(
                        "there is no room for the source within the prompt",
                        received=f"task.prompt {self.prompt!r}, {room} tokens in all",
                        next_step="shorten the prompt, or raise --task.max-length",
                    )
                while len(each) > room:  # a longer text is seldom fewer tokens
                    kept -= 1
                    each = ids([text[:kept]])[0]
                found[row] = each
        return found

    def _target_ids(self, targets: Sequence[str], backbone: LoadedBackbone) -> list[list[int]]:
        """Token ids of the targets, ended."""
        if not backbone.model.config.is_encoder_decoder:
            tokenizer = self._target_side(backbone)
            ids = tokenizer(list(targets), add_special_tokens=False)["input_ids"]
            return [[*each[: self.max_new_tokens - 1], tokenizer.eos_token_id] for each in ids]
        cut = {"truncation": True, "max_length": self.max_new_tokens}
        if self.target_tokenizer is None:
            found = backbone.processor(text_target=list(targets), **cut)
        else:
            found = self._target_side(backbone)(list(targets), **cut)
        return list(found["input_ids"])

    def written_with(self, backbone: LoadedBackbone) -> Any:
        return self._target_side(backbone)

    def _target_side(self, backbone: LoadedBackbone) -> Any:
        from peftkit.backbones import load_tokenizer

        if self.target_tokenizer is None:
            return backbone.processor
        folder = self._beside(backbone) or Path(self.target_tokenizer)
        return load_tokenizer(folder, self.target_tokenizer)

    def _beside(self, backbone: LoadedBackbone) -> Path | None:
        """The folder of the target tokenizer, if it is one within that of the backbone."""
        folder = backbone.location.folder / (self.target_tokenizer or "")
        return folder if self.target_tokenizer and folder.is_dir() else None

    def save_beside(self, backbone: LoadedBackbone, folder: Path) -> None:
        if (within := self._beside(backbone)) and self.target_tokenizer:
            shutil.copytree(within, folder / self.target_tokenizer, dirs_exist_ok=True)

    def collate(self, backbone: LoadedBackbone) -> Collate:
        """Pads; to an encoder-decoder, what was written so far is given with it."""
        from peftkit.evaluate import collate_padded

        pad = collate_padded(backbone.processor)
        model = backbone.model
        if not model.config.is_encoder_decoder:
            return pad
        shift = model.prepare_decoder_input_ids_from_labels

        def collate(examples: list[Example]) -> dict[str, torch.Tensor]:
            sources = pad([{**example, "labels": 0} for example in examples])
            labels = pad([{"input_ids": e["labels"], "labels": e["labels"]} for e in examples])
            written = labels["labels"]
            return {**sources, "labels": written, "decoder_input_ids": shift(labels=written)}

        return collate

    def length(self, example: Example) -> int:
        return max(len(example["input_ids"]), len(example["labels"]))

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, data: TaskData) -> torch.Tensor:
        """Mean over the tokens of the targets."""
        import torch

        from peftkit.evaluate import IGNORED

        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED
        )

    # ---- what it writes

    def write(
        self, model: Any, examples: Sequence[Example], backbone: LoadedBackbone, **options: Any
    ) -> list[str]:
        """The answers of `model`, in the order of the examples."""
        from peftkit.generate import generate

        tokenizer = self._target_side(backbone)
        prompts = [e["input_ids"][: e.get("_prompt")] for e in examples]
        written = generate(
            model, prompts, pad=backbone.processor.pad_token_id,
            options=self._generation(backbone), **options,
        )  # fmt: skip
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _generation(self, backbone: LoadedBackbone) -> dict[str, Any]:
        """Options of transformers' `generate`."""
        options = {
            "max_new_tokens": self.max_new_tokens,
            "num_beams": self.num_beams,
            "pad_token_id": backbone.processor.pad_token_id,
        }
        if not backbone.model.config.is_encoder_decoder:
            options["eos_token_id"] = ends_of(self._target_side(backbone), backbone)
        return options

    def score(self, outputs: Any, rows: Dataset) -> tuple[Predictions, Mapping[str, float]]:
        references = [list(each) for each in rows["targets"][:]]
        columns, metrics = self.measure(list(outputs), references)
        items: Predictions = {"item": list(range(len(references))), "predicted": list(outputs)}
        return {**items, **columns}, metrics

    def measure(
        self, predicted: list[str], references: list[list[str]]
    ) -> tuple[Predictions, dict[str, float]]:
        """Columns over items, and metrics."""
        raise NotImplementedError

    def answers(self, outputs: Any, rows: Dataset, labels: list[str]) -> list[dict[str, Any]]:
        return [
            {"answer": answer, "text": text}
            for answer, text in zip(outputs, rows["text"], strict=True)
        ]


def _continued(prompt: list[int], target: list[int]) -> Example:
    """A text to go on with: the label of a position is the token that follows it."""
    from peftkit.evaluate import IGNORED

    ids = prompt + target
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": [IGNORED] * (len(prompt) - 1) + target + [IGNORED],
        "_prompt": len(prompt),
    }
