"""Rows that two splits share, wholly or nearly, and rows that a split repeats."""

from __future__ import annotations

from itertools import combinations

from peftkit.checks._finding import NOTABLE, Finding, counted, short, warn_if
from peftkit.checks._split import Split, normal


def check_shared(splits: list[Split], *, near: bool) -> list[Finding]:
    """Compare the splits, training rows first, with one another.

    Args:
        splits: The rows.
        near: Also look for near-duplicates of training rows.
    """
    findings = [_shared(*pair) for pair in combinations(splits, 2)]
    findings += _shared_passages(splits)
    if near:
        findings.append(_nearly_shared(splits))
    return [*findings, _repeated(splits)]


def _shared(early: Split, late: Split) -> Finding:
    """Rows of one split whose input is that of a row of another."""
    both = [(row, early.first[key]) for row, key in enumerate(late.keys) if key in early.first]
    text = f"{counted(len(both), len(late.rows), f'{late.name} rows')} are also {early.name} rows"
    example = quote = ""
    if both:
        row, (other, *_) = both[0]
        if late.answer_columns and early.answer_columns:
            same = sum(
                any(late.answers(row) & early.answers(one) for one in others)
                for row, others in both
            )
            text += f", {same:,} of them with the same answer"
        example, quote = f"{late.example(row)} is {early.example(other)}", short(late.shown[row])
    return Finding(
        check=f"{late.name} rows in {early.name}",
        level=warn_if(bool(both)),
        text=text,
        count=len(both),
        example=example,
        quote=quote,
    )


def _shared_passages(splits: list[Split]) -> list[Finding]:
    """Of rows made of several texts (question and context): the longest, on its own."""
    train = splits[0]
    inputs = [name for name in train.texts if name not in train.answer_columns]
    if len(inputs) < 2:
        return []
    longest = max(inputs, key=lambda name: sum(len(text or "") for text in train.rows[name][:]))
    column = {s.name: [normal(text or "") for text in s.rows[longest]] for s in splits}
    parts, example, quote, total = [], "", "", 0
    for early, late in combinations(splits, 2):
        known = {text: row for row, text in reversed(list(enumerate(column[early.name]))) if text}
        rows = [row for row, text in enumerate(column[late.name]) if text in known]
        total += len(rows)
        if rows:
            what = f"{late.name} rows have the {longest} of {early.name} rows"
            parts.append(counted(len(rows), len(late.rows), what))
            other = known[column[late.name][rows[0]]]
            example = example or f"{late.example(rows[0])} and {early.example(other)}"
            quote = quote or short(column[late.name][rows[0]])
    text = ", ".join(parts) or f"no two splits share a {longest}"
    return [
        Finding(
            check=f"shared {longest}", level=warn_if(total > 0), text=text, count=total,
            example=example, quote=quote,
        )
    ]  # fmt: skip


def _nearly_shared(splits: list[Split]) -> Finding:
    """Held-out rows that are nearly training rows, equal ones left out."""
    from peftkit.data._near_duplicates import NearDuplicates
    from peftkit.data._pydocs_split import words_of

    name = "near-duplicates of train"
    train, *held_out = splits
    if train.task.inputs != "text":
        return Finding(check=name, level="skipped", text="rows are no texts")
    index, known = NearDuplicates(), list(train.first)
    for key in known:
        index.add(words_of(key))
    parts, example, quote, total = [], "", "", 0
    for split in held_out:
        like = {k: index.like(words_of(k)) for k in split.first if k not in train.first}
        rows = [row for row, key in enumerate(split.keys) if like.get(key) is not None]
        total += len(rows)
        if rows:
            parts.append(counted(len(rows), len(split.rows), f"{split.name} rows"))
            other = train.first[known[like[split.keys[rows[0]]] or 0]][0]
            example = example or f"{split.example(rows[0])} is nearly {train.example(other)}"
            quote = quote or f"{short(split.shown[rows[0]])} / {short(train.shown[other])}"
    text = "no held-out row shares more than half of its runs of three words with a train row"
    if parts:
        text = " and ".join(parts)
        text += " share more than half of their runs of three words with a train row"
    return Finding(
        check=name, level=warn_if(total > 0), text=text, count=total, example=example, quote=quote
    )


def _repeated(splits: list[Split]) -> Finding:
    """Rows that repeat an earlier one of their split."""
    parts, example, quote = [], "", ""
    total = whole = 0
    for split in splits:
        rows = same = 0
        for own in split.first.values():
            seen: dict[frozenset[str], int] = {}  # the first row of each answer
            for row in own if len(own) > 1 else ():
                first = seen.setdefault(frozenset(split.answers(row)), row)
                if first != row:
                    same += 1
                    example = example or f"{split.example(row)} is {split.example(first)}"
                    quote = quote or short(split.shown[row])
            rows += len(own) - 1
        total, whole = total + rows, whole + same
        if rows:
            answers = f", {same:,} with its answer" if split.answer_columns else ""
            parts.append(f"{counted(rows, len(split.rows), f'{split.name} rows')}{answers}")
    share = whole / max(1, sum(len(split.rows) for split in splits))
    text = "; ".join(parts)
    return Finding(
        check="repeated rows",
        level=warn_if(share >= NOTABLE),
        text=f"the input of an earlier row of the split: {text}" if text else "none",
        count=total,
        example=example,
        quote=quote,
    )
