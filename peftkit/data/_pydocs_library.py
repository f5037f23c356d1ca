"""Rows of the task `pydocs/library`: from docstrings to three splits that do not leak.

1. A row is the first paragraph of a docstring, on one line: 20 to 400 characters, at least four
   words, not a directive, a section heading or a notice of deprecation.
2. A library's own name gives its class away, so the names of all libraries of the task are
   replaced by the word "library", in the rows of every class alike: to mask self-mentions only
   would give the class away just as well.
3. A text found twice is kept once; a text found in two libraries is dropped. Texts are compared
   lower-case and without punctuation.
4. Test and validation rows are held out by the rules of `_pydocs_split`, from each class as many.
5. Each class keeps as many train rows as the smallest one has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from peftkit.data._docstrings import Docstring
from peftkit.data._near_duplicates import NearDuplicates
from peftkit.data._pydocs_split import (
    Item,
    Progress,
    Sizes,
    by_file,
    hold_out,
    in_order,
    item,
    left_for_training,
)
from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 1
SIZES = Sizes(test=100, validation=60)
SOURCE = "first paragraphs of the docstrings"

MASK = "library"
_SPELLINGS = {
    "huggingface_hub": r"hugging[ _-]?face[ _-]?hub",
    "matplotlib": "matplotlib|mpl|plt",
    "numpy": "numpy|np",
    "pandas": "pandas|pd",
    "sklearn": "sklearn|scikit[ _-]learn",
    "torch": "torch|pytorch",
}
NO_PROSE = re.compile(
    r"\.\. |>>>|todo\b|(args|arguments|parameters|params|attributes|returns|raises|yields|notes?"
    r"|examples?|see also)\s*(:|-{3})",
    re.IGNORECASE,
)


def first_paragraph(docstring: str) -> str | None:
    """Return the first paragraph on one line, or None where it is not a usable piece of prose."""
    text = " ".join(re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0].split())
    usable = 20 <= len(text) <= 400 and not NO_PROSE.match(text)
    return text if usable and "deprecated" not in text.lower() else None


def candidates(docstrings: Iterable[Docstring]) -> list[Item]:
    """Turn docstrings into rows: first paragraphs, masked, each text once, none in two classes."""
    docstrings = list(docstrings)
    libraries = sorted({d.library for d in docstrings})
    names = "|".join(_SPELLINGS.get(library, re.escape(library)) for library in libraries)
    name = re.compile(rf"(?<![^\W_])(?:{names})(?![^\W_])", re.IGNORECASE)
    first: dict[str, Item] = {}
    conflicts = set()
    for docstring in docstrings:
        paragraph = first_paragraph(docstring.text)
        if paragraph is None:
            continue
        text = name.sub(MASK, paragraph)
        row = item(docstring.file, text, {"text": text, "label_text": docstring.library})
        if row.words.count(" ") < 3:
            continue
        if first.setdefault(row.words, row).library != row.library:
            conflicts.add(row.words)
    return [row for words, row in first.items() if words not in conflicts]


def choose(
    rows: Sequence[Item], sizes: Sizes, *, progress: Progress
) -> tuple[dict[str, list[Item]], list[str]]:
    """Assign rows to splits.

    Args:
        rows: Candidate rows, no text twice.
        sizes: How many rows to hold out.
        progress: Told how many rows are compared, of how many, and what is being done.

    Returns:
        Rows of "train", "validation" and "test", and notes for the reader of results.

    Raises:
        InvalidInput: A library has too few rows.
    """
    libraries = sorted({row.library for row in rows})
    files = {lib: by_file(row for row in rows if row.library == lib) for lib in libraries}
    index = NearDuplicates()
    held_out: dict[str, list[Item]] = {"test": [], "validation": []}
    for held, count in zip(held_out.values(), (sizes.test, sizes.validation), strict=True):
        for library in libraries:
            chosen = hold_out(files[library], index, count, sizes)
            if len(chosen) < count:
                raise _too_few(
                    library, f"{len(chosen)} rows can be held out where {count} are needed"
                )
            held += chosen
    before = sum(len(items) for each in files.values() for items in each.values())
    left = left_for_training(list(files.values()), index, progress)
    train = dict(zip(libraries, left, strict=True))
    smallest = min(libraries, key=lambda library: len(train[library]))
    cap = len(train[smallest])
    if cap == 0:
        raise _too_few(smallest, "no train row is left beside the held-out ones")
    capped = [row for library in libraries for row in train[library][:cap]]
    notes = [
        f"train capped at {cap} rows a class, all that {smallest} has (before: "
        + ", ".join(f"{library} {len(train[library])}" for library in libraries)
        + ")",
        f"{before - sum(map(len, left))} train rows dropped as near-duplicates of held-out ones "
        "(Jaccard similarity of three-word shingles above 0.5)",
    ]
    splits = {"train": capped, **held_out}
    return {split: in_order(items) for split, items in splits.items()}, notes


def described(sizes: Sizes) -> list[str]:
    """Say how the rows were chosen."""
    return [
        f"names of the libraries replaced by the word {MASK!r}",
        f"held out by source file, {sizes.test} test and {sizes.validation} validation rows a "
        f"class, at most {sizes.rows_per_file} a file; files with more than {sizes.largest_file} "
        "rows stay in train",
        "texts found in two libraries dropped; no near-duplicates among held-out rows",
    ]


def with_labels(rows: Dataset, labels: list[str]) -> Dataset:
    """Return the rows with the column "label", a class for each library."""
    from datasets import ClassLabel, Dataset, Features, Value

    columns = rows.to_dict()
    columns["label"] = [labels.index(label) for label in columns["label_text"]]
    text = Value("string")
    features = {"text": text, "label": ClassLabel(names=labels), "label_text": text, "file": text}
    return Dataset.from_dict({name: columns[name] for name in features}, Features(features))


def _too_few(library: str, what: str) -> InvalidInput:
    """Say that a library is not large enough."""
    return InvalidInput(
        f"library {library!r} has too few docstrings for the task pydocs/library: {what}",
        next_step=f"Reinstall the library (pip install --force-reinstall {library}), "
        "or train on data of your own",
    )
