"""The matrix of a sequence as a table: rows after each stage, columns data sets. Without torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from peftkit import quantities as q
from peftkit.stages.matrix import StageMatrix

if TYPE_CHECKING:
    from rich.console import Console

    from peftkit.reporting.pairing import Metric


def to_markdown(matrix: StageMatrix) -> str:
    """The table and what follows from it, as Markdown."""
    heads = [" ".join(head) for head in _heads(matrix)]
    lines = [f"### {_title(matrix)}", "", _line(heads), _line([":---", *["---:"] * len(heads[1:])])]
    lines += [_line(row) for row in _rows(matrix)]
    return "\n".join([*lines, "", *(f"{text}\n" for text in _summary(matrix))])


def print_matrix(matrix: StageMatrix, console: Console | None = None) -> None:
    """Print the same in a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from peftkit.reporting.consoles import standard_console
    from peftkit.reporting.terminal import print_lines

    console = console or standard_console()
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, head in enumerate(_heads(matrix)):
        side = "right" if number else "left"
        grid.add_column(Text("\n".join(head)), justify=side)  # type: ignore[arg-type]
    for row in _rows(matrix):
        grid.add_row(*(Text(cell) for cell in row))
    print_lines(["", _title(matrix)], console, style="bold")
    console.print(grid)
    print_lines(["", *_summary(matrix)], console)


def _title(matrix: StageMatrix) -> str:
    methods = ", ".join(dict.fromkeys(matrix.methods))
    return f"{matrix.backbone}, stage after stage: {methods}, carry {matrix.carry}"


def _heads(matrix: StageMatrix) -> list[tuple[str, str]]:
    """Two lines a column."""
    data = [
        (f"{metric.name}{' %' if metric.is_share else ''}", f"on {name}")
        for metric, name in zip(matrix.metrics, matrix.datasets, strict=True)
    ]
    return [("", "after"), *data, ("trainable", "parameters"), ("train", "time")]


def _rows(matrix: StageMatrix) -> Iterator[list[str]]:
    yield ["chance", *_cells(matrix, matrix.chance), q.ABSENT, q.ABSENT]
    yield ["bare backbone", *_cells(matrix, matrix.bare), q.ABSENT, q.ABSENT]
    for number, scores in enumerate(matrix.scores):
        costs = matrix.costs[number]
        yield [
            f"stage {number + 1}: {matrix.datasets[number]}",
            *_cells(matrix, scores),
            q.count(costs.get("trainable_parameters")),
            q.seconds(costs.get("train_seconds")),
        ]
    yield ["forgetting", *_cells(matrix, matrix.forgetting), q.ABSENT, q.ABSENT]


def _cells(matrix: StageMatrix, values: tuple[float | None, ...]) -> list[str]:
    return [_number(v, metric) for v, metric in zip(values, matrix.metrics, strict=True)]


def _number(value: float | None, metric: Metric) -> str:
    if value is None:
        return q.ABSENT
    return f"{metric.scale * value:.{1 if metric.is_share else 3}f}"


def _summary(matrix: StageMatrix) -> Iterator[str]:
    metric = matrix.metrics[0]
    if matrix.average_forgetting is None or matrix.backward_transfer is None:
        yield "The data sets are measured differently, so there is no average over them."
    else:
        unit = " points" if metric.is_share else f" {metric.name}"
        lost = _number(matrix.average_forgetting, metric)
        gained = _number(matrix.backward_transfer, metric)
        yield f"Average forgetting {lost}{unit}: best before minus last (Chaudhry et al. 2018)."
        yield f"Backward transfer {gained}{unit}: last minus own stage (Lopez-Paz, Ranzato 2017)."
    yield (
        "Forgetting above zero is a loss. Earlier data sets are read with the head of their own "
        "stage on the body as the later stage left it; the bare backbone is scored untrained."
    )


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
