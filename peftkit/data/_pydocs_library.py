"""Rows of the task `pydocs/library`: from docstrings to three splits that do not leak.

1. A row is the first paragraph of a docstring, on one line: 20 to 400 characters, at least four
   words, not a directive, a section heading or a notice of deprecation.
2. A library's own name gives its class away, so the names of all libraries of the task are
   replaced by the word "library", in the rows of every class alike: to mask self-mentions only
   would give the class away just as well.
3. A text found twice is kept once; a text found in two libraries is dropped. Texts are compared
   lower-case and without punctuation.
4. Test and validation rows are held out by source file: files in random order, at most ten rows a
   file. What is left of such a file is dropped, and a file with more than 30 rows stays in train,
   because holding it out would throw most of it away.
5. Two texts are near-duplicates if the Jaccard similarity of their sets of three-word shingles is
   above one half. A held-out row has no near-duplicate among the other held-out rows; a train row
   with a held-out near-duplicate is dropped. The comparison is exact, by an inverted index.
6. Each class keeps as many train rows as the smallest one has.

"Random" means ordered by a hash of the file's name and the text: no generator, no seed, and a new
version of a library moves few rows.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from peftkit.data._docstrings import Docstring
from peftkit.errors import InvalidInput

MASK = "library"
_SPELLINGS = {
    "huggingface_hub": r"hugging[ _-]?face[ _-]?hub",
    "matplotlib": "matplotlib|mpl|plt",
    "numpy": "numpy|np",
    "pandas": "pandas|pd",
    "sklearn": "sklearn|scikit[ _-]learn",
    "torch": "torch|pytorch",
}
_NO_PROSE = re.compile(
    r"\.\. |>>>|todo\b|(args|arguments|parameters|params|attributes|returns|raises|yields|notes?"
    r"|examples?|see also)\s*(:|-{3})",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many rows are held out, and from which files.

    Attributes:
        test: Test rows per class.
        validation: Validation rows per class.
        rows_per_file: Most rows held out from one file.
        largest_file: A file with more rows than this is not held out.
    """

    test: int = 100
    validation: int = 60
    rows_per_file: int = 10
    largest_file: int = 30


@dataclass(frozen=True, slots=True)
class Row:
    """One example.

    Attributes:
        text: First paragraph of a docstring, library names masked.
        library: The label.
        file: Source file that holds the docstring.
        words: The text's words in lower case, joined by single spaces.
        order: Hash that rows are ordered by.
    """

    text: str
    library: str
    file: str
    words: str
    order: str


@dataclass(slots=True)
class NearDuplicates:
    """An inverted index over texts, asked whether another text is nearly one of them."""

    _sizes: list[int] = field(default_factory=list)
    _holders: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, words: str) -> None:
        """Take in a text, given by its words."""
        own = shingles(words)
        for shingle in own:
            self._holders[shingle].append(len(self._sizes))
        self._sizes.append(len(own))

    def near(self, words: str) -> bool:
        """Tell whether the Jaccard similarity to any text taken in is above one half."""
        own = shingles(words)
        shared: Counter[int] = Counter()
        for shingle in own:
            shared.update(self._holders.get(shingle, ()))
        # shared / (a + b - shared) > 1 / 2, in whole numbers
        return any(3 * both > len(own) + self._sizes[i] for i, both in shared.items())


def shingles(words: str) -> set[str]:
    """Return the runs of three words, as a set."""
    split = words.split(" ")
    return {" ".join(split[i : i + 3]) for i in range(len(split) - 2)}


def first_paragraph(docstring: str) -> str | None:
    """Return the first paragraph on one line, or None where it is not a usable piece of prose."""
    text = " ".join(re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0].split())
    usable = 20 <= len(text) <= 400 and not _NO_PROSE.match(text)
    return text if usable and "deprecated" not in text.lower() else None


def candidates(docstrings: Iterable[Docstring]) -> list[Row]:
    """Turn docstrings into rows: first paragraphs, masked, each text once, none in two classes."""
    docstrings = list(docstrings)
    libraries = sorted({d.library for d in docstrings})
    names = "|".join(_SPELLINGS.get(library, re.escape(library)) for library in libraries)
    name = re.compile(rf"(?<![^\W_])(?:{names})(?![^\W_])", re.IGNORECASE)
    first: dict[str, Row] = {}
    conflicts = set()
    for docstring in docstrings:
        paragraph = first_paragraph(docstring.text)
        if paragraph is None:
            continue
        text = name.sub(MASK, paragraph)
        words = _WORD.findall(text.lower())
        if len(words) < 4:
            continue
        key = " ".join(words)
        order = hashlib.sha256(f"{docstring.file}\n{key}".encode()).hexdigest()
        row = Row(text, docstring.library, docstring.file, key, order)
        if first.setdefault(key, row).library != row.library:
            conflicts.add(key)
    return [row for key, row in first.items() if key not in conflicts]


def choose(
    rows: Sequence[Row], sizes: Sizes, *, progress: Callable[[int, int, str], None]
) -> tuple[dict[str, list[Row]], list[str]]:
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
    files: dict[str, dict[str, list[Row]]] = {library: defaultdict(list) for library in libraries}
    for row in sorted(rows, key=lambda row: row.order):
        files[row.library][row.file].append(row)
    index = NearDuplicates()
    held_out: dict[str, list[Row]] = {}
    for split, count in (("test", sizes.test), ("validation", sizes.validation)):
        chosen = [_hold_out(library, files[library], index, count, sizes) for library in libraries]
        held_out[split] = sorted((row for rows in chosen for row in rows), key=lambda r: r.order)
    train, near = _train(files, index, progress)
    smallest = min(libraries, key=lambda library: len(train[library]))
    cap = len(train[smallest])
    if cap == 0:
        raise _too_few(smallest, "no train row is left beside the held-out ones")
    capped = sorted((r for lib in libraries for r in train[lib][:cap]), key=lambda r: r.order)
    notes = [
        f"train capped at {cap} rows a class, all that {smallest} has (before: "
        + ", ".join(f"{library} {len(train[library])}" for library in libraries)
        + ")",
        f"{near} train rows dropped as near-duplicates of held-out ones "
        "(Jaccard similarity of three-word shingles above 0.5)",
    ]
    return {"train": capped, **held_out}, notes


def _hold_out(
    library: str, files: dict[str, list[Row]], index: NearDuplicates, count: int, sizes: Sizes
) -> list[Row]:
    """Move files out of `files` until they gave `count` rows, which go to the index too."""
    chosen: list[Row] = []
    for file in sorted(files, key=lambda file: hashlib.sha256(file.encode()).digest()):
        if len(chosen) == count:
            return chosen
        if len(files[file]) > sizes.largest_file:
            continue
        room = min(sizes.rows_per_file, count - len(chosen))
        taken: list[Row] = []
        for row in files[file]:
            if len(taken) < room and not index.near(row.words):
                index.add(row.words)
                taken.append(row)
        if taken:
            del files[file]
            chosen += taken
    if len(chosen) < count:
        raise _too_few(library, f"{len(chosen)} rows can be held out where {count} are needed")
    return chosen


def _train(
    files: dict[str, dict[str, list[Row]]],
    index: NearDuplicates,
    progress: Callable[[int, int, str], None],
) -> tuple[dict[str, list[Row]], int]:
    """Return the rows left for training, by library and in order, and how many were too near."""
    left = {library: [r for rows in files[library].values() for r in rows] for library in files}
    total = sum(len(rows) for rows in left.values())
    train = {}
    done = 0
    for library, rows in left.items():
        kept = [row for row in rows if not index.near(row.words)]
        train[library] = sorted(kept, key=lambda row: row.order)
        done += len(rows)
        progress(done, total, "comparing texts")
    return train, total - sum(len(rows) for rows in train.values())


def _too_few(library: str, what: str) -> InvalidInput:
    """Say that a library is not large enough."""
    return InvalidInput(
        f"library {library!r} has too few docstrings for the task pydocs/library: {what}",
        next_step=f"Reinstall the library (pip install --force-reinstall {library}), "
        "or train on data of your own",
    )
