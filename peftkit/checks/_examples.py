"""Checks of what the backbone really reads: encoded rows, and a batch of them.

They look at examples as `Task.encode` makes them, whatever the task: entries called "input_ids" or
"labels", or ending in these words where an example holds several texts (chosen and rejected).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from peftkit.checks._chat import check_chat_template
from peftkit.checks._cut import check_cut, parts_of_rows
from peftkit.checks._finding import NOTABLE, Finding, counted, warn_if
from peftkit.checks._split import Split

if TYPE_CHECKING:
    from peftkit.tasks import Example
    from peftkit.workbench import Workbench

BATCH = 32  # examples that are made a batch


def check_examples(bench: Workbench) -> list[Finding]:
    """Look for rows that teach nothing or are cut, and for special tokens gone wrong."""
    task, backbone, data = bench.recipe.task, bench.backbone, bench.data
    # Not by `bench.encode`, which would keep what training is to be seen to cost.
    examples = task.encode(data.train, backbone, bench.max_length)
    if not examples:
        text = "no training row leaves the backbone anything to learn from"
        return [Finding(check="labels", level="error", text=text)]
    findings = [_untaught(bench, examples)]
    if task.inputs != "text":
        return findings
    findings += [check_cut(bench, examples), _unknown(bench, examples), _doubled(bench, examples)]
    findings.append(_batch(bench, examples))
    if task.generates:
        findings.append(_ends(bench, examples))
    return [*findings, *check_chat_template(task, backbone.processor)]


def entries(example: Example, kind: str) -> Iterator[tuple[str, Any]]:
    """The entries of an example that are `kind`, "input_ids" or "labels", and what precedes it."""
    for name, value in example.items():
        if name.endswith(kind) and not name.startswith("_"):
            yield name.removesuffix(kind), value


def taught(labels: Any) -> list[int]:
    """The labels that have a part in the loss, as a list."""
    from peftkit.evaluate import IGNORED

    listed = labels if isinstance(labels, list | tuple) else [labels]
    return [label for label in listed if label != IGNORED]


def writes_apart(bench: Workbench) -> bool:
    """Whether labels are a text of their own, which an encoder-decoder writes."""
    config = bench.backbone.model.config
    return bench.recipe.task.reads == "token" and config.is_encoder_decoder


def _untaught(bench: Workbench, examples: Sequence[Example]) -> Finding:
    """Rows without any label that has a part in the loss.

    Where spans are asked for, also rows with an answer that stands whole in no part of the text.
    """
    task, rows = bench.recipe.task, bench.data.train
    nowhere = task.reads == "span"
    split = Split("train", task, rows)

    def teaches(example: Example) -> bool:
        found = [value for _, value in entries(example, "labels")]
        return all(any(taught(v)) if nowhere else bool(taught(v)) for v in found)

    without = []
    for row, own in parts_of_rows(examples, len(rows)).items():
        if any(teaches(examples[i]) for i in own):
            continue
        if not nowhere or split.written_answers(row):
            without.append(row)
    what = "answer stands in no part that is read" if nowhere else "labels are all masked"
    return Finding(
        check="labels",
        level="error" if len(without) == len(rows) else warn_if(bool(without)),
        text=f"{counted(len(without), len(rows), 'train rows')} teach nothing: their {what}"
        if without
        else f"each of {len(rows):,} train rows has a part in the loss",
        count=len(without),
        example=split.example(without[0]) if without else "",
    )


def _unknown(bench: Workbench, examples: Sequence[Example]) -> Finding:
    """Tokens that stand for what the tokenizer cannot write, in texts and in what is written."""
    backbone = bench.backbone
    kinds = {"input_ids": backbone.processor.unk_token_id}
    if writes_apart(bench):
        kinds["labels"] = bench.recipe.task.written_with(backbone).unk_token_id
    counts, total = [], 0
    for example in examples:
        texts = [(ids, unk) for kind, unk in kinds.items() for _, ids in entries(example, kind)]
        counts.append(sum(ids.count(unk) for ids, unk in texts))
        total += sum(len(ids) for ids, _ in texts)
    worst = max(range(len(examples)), key=counts.__getitem__)
    return Finding(
        check="unknown tokens",
        level=warn_if(sum(counts) >= NOTABLE * total),
        text=f"{counted(sum(counts), total, 'tokens of train rows')} are unknown to the tokenizer"
        if sum(counts)
        else "none",
        count=sum(counts),
        example=f"train row {examples[worst].get('_row', worst)}" if sum(counts) else "",
    )


def _doubled(bench: Workbench, examples: Sequence[Example]) -> Finding:
    """Texts that begin with two beginning-of-text tokens."""
    tokenizer = bench.backbone.processor
    begins = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None}

    def doubled(example: Example) -> bool:
        found = [v for kind in ("input_ids", "labels") for _, v in entries(example, kind)]
        return any(
            isinstance(v, list) and len(v) > 1 and v[0] == v[1] and v[0] in begins for v in found
        )

    rows = [e.get("_row", i) for i, e in enumerate(examples) if doubled(e)]
    return Finding(
        check="beginning of text",
        level=warn_if(bool(rows)),
        text=f"{counted(len(rows), len(examples), 'train examples')} begin with the token that "
        "begins a text twice: the text holds it, and the tokenizer adds it"
        if rows
        else "never doubled",
        count=len(rows),
        example=f"train row {rows[0]}" if rows else "",
    )


def _batch(bench: Workbench, examples: Sequence[Example]) -> Finding:
    """Labels that making a batch adds or loses, as where padding is told by its token alone."""
    from peftkit.evaluate import IGNORED

    by_length = sorted(examples, key=bench.recipe.task.length)
    chosen = by_length[: BATCH // 2] + by_length[BATCH // 2 :][-BATCH // 2 :]
    if any("labels" not in example for example in chosen):
        return Finding(check="padding", level="skipped", text="labels are made with each batch")
    batch = bench.collate([dict(example) for example in chosen])
    before = sum(len(taught(example["labels"])) for example in chosen)
    after = int((batch["labels"] != IGNORED).sum())
    tokenizer = bench.backbone.processor
    same = tokenizer.pad_token_id == tokenizer.eos_token_id
    why = ": the padding token is the end-of-text token, and both are masked" if same else ""
    text = f"{before:,} labels stay {before:,} in a padded batch"
    if after < before:
        text = f"{counted(before - after, before, 'labels')} of a batch are masked{why}"
    elif after > before:
        text = f"padding is trained on: {before:,} labels become {after:,} in a batch"
    return Finding(
        check="padding", level=warn_if(after != before), text=text, count=abs(after - before)
    )


def _ends(bench: Workbench, examples: Sequence[Example]) -> Finding:
    """Written answers whose end is not taught: the model would not learn to stop."""
    tokenizer, model = bench.backbone.processor, bench.backbone.model
    ends = {tokenizer.eos_token_id}
    for config in (model.config, model.generation_config):
        own = getattr(config, "eos_token_id", None)
        ends |= set(own) if isinstance(own, list | tuple) else {own}
    without = [
        i
        for i, example in enumerate(examples)
        if any(not ends & set(taught(labels)) for _, labels in entries(example, "labels"))
    ]
    same = tokenizer.pad_token_id == tokenizer.eos_token_id
    why = ", and the padding token is the end-of-text token" if same else ""
    return Finding(
        check="end of text",
        level=warn_if(bool(without)),
        text=f"{counted(len(without), len(examples), 'train examples')} do not teach the "
        f"end-of-text token{why}: nothing tells the model when to stop"
        if without
        else "taught in every train example",
        count=len(without),
        example=f"train row {examples[without[0]].get('_row', without[0])}" if without else "",
    )
