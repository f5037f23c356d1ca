"""Training rows as the backbone reads them, token by token, and what of them is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from peftkit.checks._cut import parts_of_rows
from peftkit.checks._examples import entries, taught, writes_apart

if TYPE_CHECKING:
    from peftkit.tasks import Example
    from peftkit.workbench import Workbench

CONTEXT = 8  # tokens before one that decide how it reads


@dataclass(frozen=True)
class Piece:
    """One token.

    Attributes:
        text: How it reads.
        trained: Whether it is what the model is taught to answer.
        label: The answer that is taught at this token, if it is another text than its own.
    """

    text: str
    trained: bool = False
    label: str = ""


@dataclass(frozen=True)
class ShownRow:
    """A training row, or a part of a long one.

    Attributes:
        title: Which.
        parts: What is read, and what is written; each by its name ("" where there is one).
        answer: The label of the whole, if it has one.
    """

    title: str
    parts: dict[str, list[Piece]]
    answer: str = ""


def shown_rows(bench: Workbench, count: int) -> Iterator[ShownRow]:
    """Yield the first `count` training rows, or parts of them where they are long."""
    data, task = bench.data, bench.recipe.task
    rows = data.train.select(range(min(count, len(data.train))))
    examples = task.encode(rows, bench.backbone, bench.max_length)
    for row, own in parts_of_rows(examples, len(rows)).items():
        for number, i in enumerate(own, start=1):
            part = f", part {number} of {len(own)}" if len(own) > 1 else ""
            yield _shown(bench, f"train row {row}{part}", examples[i])
        if not own:
            yield ShownRow(f"train row {row}", {}, "nothing of it is trained on")


def _shown(bench: Workbench, title: str, example: Example) -> ShownRow:
    tokenizer = bench.backbone.processor
    texts, labels = dict(entries(example, "input_ids")), dict(entries(example, "labels"))
    if not texts:  # an image or a sound
        size = f"{bench.recipe.task.inputs}, {bench.recipe.task.length(example)} positions"
        return ShownRow(title, {"": [Piece(size)]}, _name(bench, example["labels"]))
    parts: dict[str, list[Piece]] = {}
    answer = ""
    for name, ids in texts.items():
        own, pieces = labels.get(name), spelled(tokenizer, ids)
        shown = name.rstrip("_")
        if isinstance(own, int):
            answer = _name(bench, own)
        elif bench.recipe.task.reads == "span" and own is not None:
            first, last = own
            pieces = [Piece(t.text, 0 < first <= i <= last) for i, t in enumerate(pieces)]
            answer = "" if last else "no answer in this part"
        elif own is not None and not writes_apart(bench):
            pieces = _marked(bench, ids, own, pieces)
        elif own is not None:
            target = bench.recipe.task.written_with(bench.backbone)
            written = [Piece(each.text, trained=True) for each in spelled(target, taught(own))]
            parts |= {f"{shown} reads".strip(): pieces, f"{shown} writes".strip(): written}
            continue
        parts[shown] = pieces
    return ShownRow(title, parts, answer)


def _marked(
    bench: Workbench, ids: Sequence[int], labels: Sequence[int], pieces: list[Piece]
) -> list[Piece]:
    """Tokens with a label of their own each: tags, the token that follows, or one behind a mask."""
    from peftkit.evaluate import IGNORED

    at = [i for i, label in enumerate(labels) if label != IGNORED]
    if bench.recipe.task.reads != "token":
        return [
            Piece(p.text, i in at, _name(bench, labels[i])) if labels[i] != IGNORED else p
            for i, p in enumerate(pieces)
        ]
    if all(i + 1 < len(ids) and ids[i + 1] == labels[i] for i in at):
        following = {i + 1 for i in at}
        return [Piece(p.text, i in following) for i, p in enumerate(pieces)]
    marked = list(pieces)
    for i in at:
        true = bench.backbone.processor.decode([labels[i]]).strip()
        marked[i] = Piece(pieces[i].text, trained=True, label="" if labels[i] == ids[i] else true)
    return marked


def _name(bench: Workbench, label: int) -> str:
    names = bench.data.labels
    return names[label] if 0 <= label < len(names) else str(label)


def spelled(tokenizer: Any, ids: Sequence[int]) -> list[Piece]:
    """Each token as it reads where it stands, with the space before it if there is one.

    Decoding them one by one would lose spaces, and letters that are several tokens.
    """
    pieces = []
    for i in range(len(ids)):
        near = range(max(0, i - CONTEXT), i)
        before, whole = (
            tokenizer.decode([ids[j] for j in each], clean_up_tokenization_spaces=False)
            for each in (near, range(near.start, i + 1))
        )
        before = before.rstrip("\ufffd")  # half a letter, which this token completes
        same = takewhile(lambda pair: pair[0] == pair[1], zip(before, whole, strict=False))
        pieces.append(Piece(whole[sum(1 for _ in same) :]))
    return pieces
