"""`peftkit predict`: what a trained model answers, from a run, a merged folder or ONNX."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from peftkit.answering import (
    Form,
    Inputs,
    Writer,
    from_lines,
    from_rows,
    from_texts,
    opened,
    posed,
)
from peftkit.errors import InvalidInput, UnknownName
from peftkit.flags import read_options

if TYPE_CHECKING:
    from peftkit.saved import SavedRun

USAGE = """\
peftkit predict DIR [--text TEXT | --file FILE | --data FILE] [--format NAME] [--out FILE]

  --text TEXT         one text
  --file FILE         a file with a text on each line; or the image or sound itself
  --data FILE         rows of a CSV, TSV, JSON Lines, JSON or Parquet file
  --text-column NAME  the column of --data to read (default: as the recipe has it, or text); pairs
                      of texts stand in two columns, named as in the training data
  --format NAME       text, jsonl or csv (default text)
  --json              the same as --format jsonl
  --out FILE          write there instead of printing
  --overwrite         replace that file
  --batch-size N      rows that are read, answered and written at a time (default 256)
  --allow-other-base  even if the backbone's weights are not those of the training

DIR is the folder of a run, one that `peftkit merge` wrote, or an export to onnx (or its
model.onnx). Without --text, --file and --data, each line of standard input is a text, or the path
of an image or sound. A question is followed by its text: "What is it? It is a file."
"""
CALL = "peftkit predict DIR [--text TEXT | --file FILE | --data FILE]"
BATCH_SIZE = 256
SOURCES = ("text", "file", "data")
OPTIONS: dict[str, Any] = {
    "text": str,
    "file": str,
    "data": str,
    "text_column": str,
    "format": str,
    "json": bool,
    "out": str,
    "overwrite": bool,
    "batch_size": int,
    "allow_other_base": bool,
}


def predict_command(argv: list[str]) -> None:
    """Answer, and write the answers, batch by batch.

    Raises:
        InvalidInput: An option is unknown, or does not go with another; the folder holds no model;
            the inputs cannot be read.
    """
    if not argv or argv[0].startswith("-"):
        raise InvalidInput("the folder is missing", allowed=CALL)
    own = _options(argv[1:])
    rows = _data(own)
    if "file" in own and (not Path(own["file"]).exists() or Path(own["file"]).is_dir()):
        raise InvalidInput(
            f"there is no file {own['file']}",
            next_step="check the path; one text is given with --text, a table with --data",
        )
    with opened(own.get("out"), overwrite=bool(own.get("overwrite"))) as file:
        writer = Writer(own["format"], file)
        from peftkit.saved import load_run

        saved = load_run(argv[0], allow_other_base=bool(own.get("allow_other_base")))
        _answer(saved, _inputs(saved, own, rows), own, writer)


def _options(argv: list[str]) -> dict[str, Any]:
    """The options, checked against each other."""
    own = read_options(argv, OPTIONS)
    given = [f"--{name}" for name in SOURCES if name in own]
    if len(given) > 1:
        raise InvalidInput("inputs come from one place", received=" and ".join(given), allowed=CALL)
    if "text_column" in own and "data" not in own:
        raise InvalidInput("--text-column is of --data", next_step="add --data FILE")
    if own.get("batch_size", 1) < 1:
        raise InvalidInput(
            "a batch has rows",
            received=f"--batch-size {own['batch_size']}",
            allowed="1 or more",
            next_step=f"leave --batch-size out for {BATCH_SIZE}",
        )
    asked = own.get("format", "jsonl" if own.get("json") else "text")
    if own.get("json") and asked != "jsonl":
        raise InvalidInput("--json is --format jsonl", received=f"--json and --format {asked}")
    if asked not in get_args(Form):
        raise UnknownName("format of answers", asked, get_args(Form))
    return {**own, "format": asked}


def _data(own: dict[str, Any]) -> Any:
    """The rows of --data, read before any model is."""
    if "data" not in own:
        return None
    from peftkit.data import read_rows

    return read_rows(Path(own["data"]))


def _inputs(saved: SavedRun, own: dict[str, Any], rows: Any) -> Inputs:
    size = own.get("batch_size", BATCH_SIZE)
    if rows is not None:
        return from_rows(rows, size)
    saved.require_one_text()
    if "text" in own:
        return from_texts([own["text"]], size, 1)
    if "file" not in own:
        return from_lines(_decoded(sys.stdin, "standard input"), size)
    if saved.recipe.task.inputs != "text":
        return from_texts([own["file"]], size, 1)
    return from_lines(_lines(own["file"]), size)


def _lines(file: str) -> Iterator[str]:
    """The lines of a text file, as they are read."""
    try:
        with Path(file).open(encoding="utf-8-sig") as lines:
            yield from _decoded(lines, file)
    except OSError as error:
        raise _unreadable(file, error) from error


def _decoded(lines: Iterable[str], name: str) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> InvalidInput:
    return InvalidInput(
        f"{name} cannot be read",
        received=str(error),
        allowed="a text file in UTF-8, a text on each line",
        next_step="one text is given with --text, a table with --data",
    )


def _answer(saved: SavedRun, inputs: Inputs, own: dict[str, Any], writer: Writer) -> None:
    from peftkit.reporting.progress import run_progress

    task, done = saved.recipe.task, 0
    with run_progress() as progress:
        for batch in inputs.batches:
            if isinstance(batch, list):
                rows = task.rows(batch)
            else:
                rows = posed(
                    task, batch, own.get("text_column"), own["data"], first=done,
                    reads_pairs=saved.reads_pairs,
                )  # fmt: skip
            writer.write(saved.answer(rows))
            done += len(rows)
            if progress:
                progress(done, inputs.total or done, "predict")
