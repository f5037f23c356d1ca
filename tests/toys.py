"""Toy data of every task: the words of the tiny twins' tokenizer, from a seed."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

# ---- texts; each class has five words of its own

OWN_WORDS = {
    "finance": ("pay", "bank", "money", "card", "transfer"),
    "question": ("how", "why", "what", "where", "can"),
    "table": ("row", "column", "matrix", "vector", "index"),
}
FILLERS = ("the", "a", "of", "to", "in", "is", "and", "for", "file", "name", "my", "new")


def toy_rows(count: int, *, seed: int) -> list[tuple[str, str]]:
    """Texts of 1 to 12 words, more than half of them the class's own; classes in turn."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        label = list(OWN_WORDS)[i % len(OWN_WORDS)]
        words = [draw.choice(OWN_WORDS[label])]
        for _ in range(draw.randrange(12)):
            words.append(draw.choice(OWN_WORDS[label] if draw.random() < 0.6 else FILLERS))
        rows.append((" ".join(words), label))
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


# ---- texts with a number, and with several labels


def valued_rows(count: int, *, seed: int) -> list[dict[str, Any]]:
    """How many of the words are about money, in an odd unit and beside some noise."""
    draw = random.Random(seed)
    rows = []
    for text, _ in toy_rows(count, seed=seed):
        share = sum(word in OWN_WORDS["finance"] for word in text.split()) / len(text.split())
        rows.append({"text": text, "score": round(1000 + 300 * share + draw.gauss(0, 5), 2)})
    return rows


def several_rows(count: int, *, seed: int) -> list[dict[str, Any]]:
    """Every topic that the text has a word of; of some texts none."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words = draw.choices(FILLERS, k=draw.randint(2, 8))
        topics = [topic for topic in OWN_WORDS if draw.random() < 0.35]
        for topic in topics * 2:
            words.insert(draw.randint(0, len(words)), draw.choice(OWN_WORDS[topic]))
        rows.append({"text": " ".join(words), "labels": topics})
    return rows


# ---- words with tags

KINDS = {"money": ("pay", "bank", "money", "card"), "table": ("row", "column", "matrix", "vector")}
BETWEEN = ("the", "a", "of", "unbelievable", "to", "returns", "xy")


def tagged_rows(count: int, *, seed: int) -> list[dict[str, Any]]:
    """Words of two kinds make spans of one or two words; longer words are several tokens."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words, tags = [], []
        for _ in range(draw.randint(1, 6)):
            kind = draw.choice(["", *KINDS])
            for place in range(draw.randint(1, 2)):
                words.append(draw.choice(KINDS.get(kind, BETWEEN)))
                tags.append(f"{'B' if place == 0 else 'I'}-{kind}" if kind else "O")
        rows.append({"tokens": words, "tags": tags})
    return rows


# ---- questions about texts

ASKED = {"money": ("pay", "bank", "card"), "table": ("row", "column", "matrix")}
AROUND = ("the", "a", "of", "to", "returns", "file", "name", "for")


def asked_rows(count: int, *, seed: int, unanswerable: bool = False) -> list[dict[str, Any]]:
    """Which word of the text is about money, or about a table?"""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        words = draw.choices(AROUND, k=draw.randint(3, 12))
        for kind in ASKED:
            words.insert(draw.randint(0, len(words)), draw.choice(ASKED[kind]))
        kind = draw.choice(list(ASKED))
        if unanswerable and number % 3 == 0:
            words = [word for word in words if word not in ASKED[kind]]
        answer = next((word for word in words if word in ASKED[kind]), None)
        context = " ".join(words)
        start = len(" ".join(words[: words.index(answer)])) + 1 if answer else 0
        start = 0 if answer == words[0] else start
        answers = {"text": [answer] if answer else [], "answer_start": [start] if answer else []}
        rows.append({"question": f"what {kind} is in it ?", "context": context, "answers": answers})
    return rows


def write_lines(path: Path, **splits: list[dict[str, Any]]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        (path / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


# ---- prompts, what follows them, and what should not

ORDERED = "list file name type data model layer plot axis index row column".split()


def prompted_rows(count: int, *, seed: int) -> list[dict[str, Any]]:
    """Words to be written in the other order: as completion, and as the better of two answers."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        words = draw.choices(ORDERED, k=2 + number % 5)
        back = " ".join(reversed(words))
        rows.append(
            {
                "prompt": "write " + " ".join(words),
                "completion": back,
                "chosen": back,
                "rejected": f"{draw.choice(ORDERED)} pay {words[0]}",
            }
        )
    return rows
