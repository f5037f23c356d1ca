"""Inputs of `peftkit predict`, from wherever they are, and answers, in the form asked for.

Both are handed on a batch at a time, so that neither all rows nor all answers are held at once.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, get_args

from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from datasets import Dataset

    from peftkit.tasks import Task

Form = Literal["text", "jsonl", "csv"]
# Options of tasks that name a column of inputs, and what such columns are usually called.
_NAMED = ("text_column", "tokens_column", "prompt_column", "source_column")
_USUAL = ("text", "tokens", "words", "prompt", "source", "input", "image", "audio")


# ---- inputs


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is to be answered.

    Attributes:
        batches: Texts (or paths of images or sounds) or rows of a data file, some at a time.
        total: How many in all; None: nobody knows before the end.
    """

    batches: Iterable[Sequence[str] | Dataset]
    total: int | None


def from_texts(texts: Iterable[str], size: int, total: int | None = None) -> Inputs:
    """Inputs that come one by one."""

    def batches() -> Iterator[list[str]]:
        rest = iter(texts)
        while batch := list(itertools.islice(rest, size)):
            yield batch

    return Inputs(batches=batches(), total=total)


def from_lines(lines: Iterable[str], size: int) -> Inputs:
    """Inputs that stand on a line each, such as those of standard input."""
    return from_texts((line.rstrip("\r\n") for line in lines), size)


def from_rows(rows: Dataset, size: int) -> Inputs:
    """Inputs that are rows of a data file."""
    starts = range(0, len(rows), size)
    batches = (rows.select(range(s, min(s + size, len(rows)))) for s in starts)
    return Inputs(batches=batches, total=len(rows))


def posed(
    task: Task,
    rows: Dataset,
    column: str | None,
    source: str,
    *,
    reads_pairs: bool = False,
    first: int = 0,
) -> Dataset:
    """Rows of a data file as the task reads them, their answers unknown.

    Args:
        task: That of the run.
        rows: With any columns.
        column: That of the inputs; None: as the recipe or custom has it. Questions and their
            contexts are two columns, `question` and `context`.
        source: The file's name, for messages.
        reads_pairs: Whether the run was trained on pairs of texts.
        first: Which row of the file the first of these is.

    Raises:
        InvalidInput: There is no such column, or a cell of it is empty; of a pair one is missing.
    """
    names = rows.column_names
    if task.reads == "span" and column is None and {"question", "context"} <= set(names):
        found = task.rows([""] * len(rows))
        for name in ("question", "context"):
            found = found.remove_columns(name).add_column(name, _values(rows, name, source, first))
        return found
    if reads_pairs or getattr(task, "second_text_column", None) is not None:
        name, second = _pair(task, names, column, source)
        found = task.rows(_values(rows, name, source, first))
        return found.add_column("second_text", _values(rows, second, source, first))
    return task.rows(_values(rows, _column(task, names, column, source), source, first))


def _pair(task: Any, names: Sequence[str], column: str | None, source: str) -> tuple[str, str]:
    """The columns of the two texts of a pair."""
    from peftkit.data.columns import pair_of

    one, other = column or task.text_column, task.second_text_column
    if other is None and (found := pair_of(names, one)):
        one, other = found
    if other is None or other not in names or (one is not None and one not in names):
        raise InvalidInput(
            f"the run was trained on pairs of texts, and {source} does not hold both",
            received=", ".join(names),
            allowed=", ".join(filter(None, (one, other)))
            or "two columns such as premise and hypothesis",
            next_step="name the columns as in the training data",
        )
    rest = [name for name in names if name != other]
    return one or _column(task, rest, None, source), other


def _column(task: Task, names: Sequence[str], column: str | None, source: str) -> str:
    if column is not None:
        if column not in names:
            raise UnknownName(
                f"column of {source}:", column, names, next_step="name one of these (--text-column)"
            )
        return column
    own = [getattr(task, option, None) for option in _NAMED]
    for name in (*own, *_USUAL):
        if name in names:
            return str(name)
    if len(names) == 1:
        return names[0]
    raise InvalidInput(
        f"which column of {source} holds the inputs is not clear",
        received=", ".join(names),
        next_step="name it with --text-column",
    )


def _values(rows: Dataset, column: str, source: str, first: int) -> list[Any]:
    """The cells of a column, none of which is empty."""
    return [_as_input(value, row, column, source) for row, value in enumerate(rows[column], first)]


def _as_input(value: Any, row: int, column: str, source: str) -> Any:
    if value is None:
        raise InvalidInput(
            f"row {row} of {source} is empty in column {column!r}",
            next_step="fill or remove the row",
        )
    if isinstance(value, list):  # words; messages of a chat stay what they are
        return " ".join(value) if all(isinstance(word, str) for word in value) else value
    return value if isinstance(value, str) else str(value)


# ---- answers


class Writer:
    """Writes answers as they come.

    Args:
        form: "text" (tabs between values, for people), "jsonl" or "csv".
        file: Where to.

    Raises:
        UnknownName: There is no such form.
    """

    def __init__(self, form: str, file: TextIO) -> None:
        if form not in get_args(Form):
            raise UnknownName("format of answers", form, get_args(Form))
        self.form, self.file = form, file
        self._table: Any = None

    def write(self, answers: Iterable[dict[str, Any]]) -> None:
        """Write some answers; of a table, the first bring the header."""
        for answer in answers:
            if self.form == "csv":
                self._row(answer)
            elif self.form == "jsonl":
                self.file.write(json.dumps(answer) + "\n")
            else:
                self.file.write("\t".join(_cell(value) for value in answer.values()) + "\n")
        self.file.flush()

    def _row(self, answer: dict[str, Any]) -> None:
        if self._table is None:
            self._table = csv.DictWriter(self.file, list(answer), lineterminator="\n")
            self._table.writeheader()
        self._table.writerow(
            {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in answer.items()}
        )


def _cell(value: Any) -> str:
    """One value of an answer, for people."""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return "; ".join(" ".join(str(v) for v in each.values()) for each in value) or "-"
    return str(value)


@contextmanager
def opened(out: str | None, *, overwrite: bool) -> Iterator[TextIO]:
    """Standard output, or a file that has its name only once the block has ended well.

    Raises:
        InvalidInput: The file exists, or none can be written there.
    """
    if out is None:
        yield sys.stdout
        return
    path = Path(out)
    if path.is_dir():
        raise InvalidInput(f"{out} is a folder", next_step="name a file: --out answers.csv")
    if path.exists() and not overwrite:
        raise InvalidInput(
            f"{out} already exists", next_step="name another file, or add --overwrite"
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = temporary.open("x", encoding="utf-8", newline="")
    except OSError as error:
        raise InvalidInput(
            f"{out} cannot be written", received=error.strerror, next_step="name another file"
        ) from error
    try:
        with file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
