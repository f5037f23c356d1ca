"""Results per item from the records of a table."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peftkit.errors import InvalidInput
from peftkit.reporting.notes import heading
from peftkit.reporting.pairing import item_scores_of, value_of
from peftkit.verdict.deciding import Look, Verdict, decide
from peftkit.verdict.results import POINT, Results, no_margin

if TYPE_CHECKING:
    from peftkit.reporting.summary import Row, Table

Judged = tuple["Table", Verdict]
DESIGN_FILE = "design.json"
"""What a study was asked for, beside its records."""
RATES_FILE = "learning_rates.json"
"""What was tried of each method, likewise."""

CHEAPER = ("none", "head", "parameter-efficient", "partial")
"""Rungs below full fine-tuning; references and retraining are no way of adapting for less."""


def results_of(table: Table, *, whole: bool = True) -> Results | None:
    """What a verdict on a table rests on; None: nothing in it can be compared with full.

    Scores are of the test items that all runs have; where the metric is no mean over items, of the
    whole test set. A method whose runs all failed is one that full is not shown to beat; one that
    cannot exist on this backbone or task is none at all.

    Args:
        table: The table.
        whole: Whether there is a record of everything that was asked for.
    """
    full = _full([row for row in table.rows if row.done])
    ladder = _cheapest_first(table)
    if full is None or not any(row.done and row.method in ladder for row in table.rows):
        return None
    attempted = [row for row in table.rows if row.method in (*ladder, full)]
    rows = [row for row in attempted if row.done]
    records = [record for row in rows for record in row.done]
    items = item_scores_of(records, table.metric)
    if items is None:
        values = [value_of(record, table.metric) for record in records]
        items = np.array([[np.nan if value is None else value] for value in values])
    by_key = dict(zip([r.key for r in records], items * table.metric.direction, strict=True))
    return Results(
        scores={
            (row.method, row.size): {
                r.seed: by_key[r.key] for r in row.done if np.isfinite(by_key[r.key]).all()
            }
            for row in rows
        },
        failed={
            (row.method, row.size): frozenset(r.seed for r in row.unfinished) for row in attempted
        },
        full=full,
        ladder=ladder,
        untrained=frozenset(row.method for row in rows if row.rung == "none"),
        scale=table.metric.scale,
        unit="points" if table.metric.is_share else table.metric.name,
        less_is_better=not table.metric.higher_is_better,
        name=heading(table),
        whole=whole,
    )


def _cheapest_first(table: Table) -> tuple[str, ...]:
    """The cheaper methods by rung, then trained parameters (a table keeps variants together)."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in table.rows:
        possible = any(r.status != "unsupported" for r in (*row.done, *row.unfinished))
        if row.rung in CHEAPER and possible:
            rows[row.method].append(row)

    def cost(method: str) -> tuple[int, float]:
        trained = max(row.cost("trainable_parameters") or 0.0 for row in rows[method])
        return CHEAPER.index(rows[method][0].rung), trained

    return tuple(sorted(rows, key=cost))


def _full(rows: list[Row]) -> str | None:
    """Label of full fine-tuning: the plain one where there are variants."""
    labels = [row.method for row in rows if row.rung == "full"]
    return "full" if "full" in labels else next(iter(labels), None)


def judge_tables(
    tables: Sequence[Table],
    margin: float | None,
    looks: Sequence[Look] = (),
    *,
    whole: bool = True,
) -> list[Judged]:
    """The tables that hold full fine-tuning beside a cheaper method, and their verdicts.

    Args:
        tables: Of any backbones and tasks.
        margin: In points where the metric is a share, else in its own unit; none: one point, and no
            verdict where it is no share.
        looks: As for `decide`.
        whole: As for `results_of`.
    """
    found = []
    for table in tables:
        results = results_of(table, whole=whole)
        if results is not None and (margin is not None or table.metric.is_share):
            wide = POINT if margin is None else margin
            found.append((table, decide(results, wide / results.scale, looks=looks)))
    return found


@dataclass(frozen=True, kw_only=True)
class Studied:
    """A folder of records, read and judged.

    Attributes:
        folder: Where it is.
        judged: Its tables, and the verdict on each that has one.
        design: What a study was asked for; empty where it is none.
        problems: One message for each file that could not be read.
    """

    folder: Path
    judged: tuple[tuple[Table, Verdict | None], ...]
    design: dict[str, Any]
    problems: tuple[str, ...]

    @property
    def tables(self) -> list[Table]:
        """All tables."""
        return [table for table, _ in self.judged]

    @property
    def verdicts(self) -> list[Judged]:
        """Those that there is a verdict on."""
        return [(table, verdict) for table, verdict in self.judged if verdict is not None]

    def warn(self) -> None:
        """Say on standard error what the verdicts do not rest on."""
        for problem in self.problems:
            sys.stderr.write(f"peftkit: left out: {problem}\n")


def read_studied(folder: Path, margin: float | None = None) -> Studied:
    """All tables of a folder of records, with their verdicts.

    Args:
        folder: Of `peftkit study`, whose design then counts, or of `peftkit compare`.
        margin: As for `judge_tables`; none: the study's own, if it is one.

    Raises:
        InvalidInput: There is no whole record in it.
    """
    from peftkit.record import read_records
    from peftkit.reporting.summary import summarise

    records, problems = read_records(folder)
    design = read_design(folder)
    asked = frozenset(design.get("cells", ()))
    others = [record for record in records if asked and record.key not in asked]
    if others:
        records = [record for record in records if record.key in asked]
        problems.append(
            f"{len(others)} records in {folder} that the study, as it was last run, does not ask "
            "for (other methods, steps or learning rates)"
        )
    if not records:
        raise InvalidInput(
            f"no whole record in {folder}",
            received="; ".join(problems),
            next_step="run the study on, to its first cells" if others
            else "delete these files and run the same command again",
        )  # fmt: skip
    if absent := len(asked) - len(records) if asked else 0:
        problems.append(f"{absent} of {len(asked)} cells of the study have no record yet")
    tables = summarise(records)
    margin = design.get("margin") if margin is None else margin
    judged = judge_tables(tables, margin, looks_of(design), whole=not absent)
    found = {id(t): verdict for t, verdict in judged}
    return Studied(
        folder=folder,
        judged=tuple((table, found.get(id(table))) for table in tables),
        design=design,
        problems=tuple(problems),
    )


def told_apart(studied: Sequence[Studied]) -> list[Studied]:
    """The same, with the folder named wherever two of them hold the same data and weights."""
    known = Counter(table.place for each in studied for table in each.tables)

    def named(table: Table, verdict: Verdict | None, folder: str) -> tuple[Table, Verdict | None]:
        if known[table.place] < 2:
            return table, verdict
        table = replace(table, place=replace(table.place, folder=folder))
        if verdict is not None:
            results = replace(verdict.results, name=heading(table))
            verdict = replace(verdict, results=results)
        return table, verdict

    return [
        replace(
            each,
            judged=tuple(named(*pair, "/".join(each.folder.parts[-2:])) for pair in each.judged),
        )
        for each in studied
    ]


def read_judged(folder: Path, margin: float | None = None) -> Studied:
    """A folder of records, read and judged, in which there is a verdict.

    Args:
        folder: As for `read_studied`.
        margin: Likewise.

    Raises:
        InvalidInput: There is none: full fine-tuning or a margin is missing.
    """
    studied = read_studied(folder, margin)
    if studied.verdicts:
        return studied
    for results in filter(None, map(results_of, studied.tables)):
        raise no_margin(results.name, results.unit)
    methods = sorted({method for table in studied.tables for method in table.methods})
    raise InvalidInput(
        f"{folder} holds no full fine-tuning that ended well beside a cheaper method",
        received=f"the methods {', '.join(methods)}",
        next_step="peftkit study --methods none,lora,full --out DIR",
    )


def read_design(folder: Path) -> dict[str, Any]:
    """What a study was asked for; empty where the folder is none of a study."""
    path = folder / DESIGN_FILE
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput(
            f"{path} is no design of a study",
            received=str(error),
            next_step="run the same `peftkit study` again, which writes it, or delete it",
        ) from error
    return found


def looks_of(design: dict[str, Any]) -> list[Look]:
    """The looks of a study's design; none: one, at the end."""
    return [Look(**look) for look in design.get("looks", ())]
