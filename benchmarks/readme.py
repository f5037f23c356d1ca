"""Writes every measured number of the README, of recipes' headers and of tables, from records.

    python benchmarks/readme.py [--check]

Between `<!-- table: NAME -->` and `<!-- end -->` of README.md goes the table of the records in
benchmarks/results/NAME, with its plot; between `<!-- verdicts -->` and `<!-- end -->` what the
studies in benchmarks/results/studies came to; in a recipe's "Expect:" line what the records of
that very recipe say, whatever their seeds; in recipes/README.md one row for each recipe; in
`table.md` and `table.csv` of a folder of records what `peftkit report` writes there (plots and page
are left to it). `--check` writes nothing and fails if anything would change.
"""

import re
import runpy
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from peftkit import Recipe, read_records
from peftkit.quantities import percent, size_in_bytes
from peftkit.record import Record
from peftkit.reporting.pairing import metric_of
from peftkit.reporting.summary import Row, Table, summarise
from peftkit.reporting.tables import to_csv, to_markdown
from peftkit.script import main as run_recipe
from peftkit.verdict import Verdict, wording
from peftkit.verdict.deciding import Decision, Kind
from peftkit.verdict.from_table import read_studied

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
STUDIES = RESULTS / "studies"
Expected = dict[str, tuple[str, list[Record]]]
"""What a recipe does, whatever its seed: the folder of its records, and they."""


def table(name: str) -> str:
    records, problems = read_records(RESULTS / name)
    if problems:
        sys.exit("\n".join(problems))
    plot = f"benchmarks/results/{name}/frontier.svg"
    return f"{to_markdown(summarise(records))}\n![quality against cost]({plot})\n"


def readme(text: str) -> str:
    def fill(match: re.Match[str]) -> str:
        if not (RESULTS / match[1]).is_dir():
            sys.exit(f"README.md shows {match[1]}, of which there are no records in {RESULTS}")
        return f"<!-- table: {match[1]} -->\n\n{table(match[1])}\n<!-- end -->"

    text = re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", fill, text, flags=re.DOTALL)
    return re.sub(
        r"<!-- verdicts -->.*?<!-- end -->",
        lambda _: f"<!-- verdicts -->\n\n{verdicts()}\n<!-- end -->",
        text,
        flags=re.DOTALL,
    )


def verdicts() -> str:
    """A row for each size of each study: the verdict, and what its method costs against full."""
    lines = [
        "| data | wrong labels | examples | verdict | full minus it, points | trained, of full "
        "| time, of full | seeds |",
        "| :--- | ---: | ---: | :--- | ---: | ---: | ---: | ---: |",
    ]
    kinds: Counter[str] = Counter(dict.fromkeys(get_args(Kind), 0))
    for folder in sorted(path.parent for path in STUDIES.glob("*/records")):
        for table, verdict in read_studied(folder).verdicts:
            lines += [verdict_row(table, verdict, each) for each in verdict.decisions]
            kinds.update(each.kind for each in verdict.decisions)
    counted = ", ".join(f"*{kind}* {number}" for kind, number in kinds.items())
    return "\n".join([*lines, "", f"Of {kinds.total()} rows: {counted}."]) + "\n"


def verdict_row(table: Table, verdict: Verdict, decision: Decision) -> str:
    """One size of one study."""
    said = f"**{decision.kind}**"
    gap = trained = time = "-"
    if decision.contrasts:
        open_or_all = [c for c in decision.contrasts if c.is_open] or decision.contrasts
        nearest = min(open_or_all, key=lambda c: c.difference.mean)
        found = next((c for c in decision.contrasts if c.method == decision.method), nearest)
        if decision.worse and decision.kind == "undecided":
            said += f"; worse: {', '.join(f'`{each}`' for each in decision.worse)}"
        said += f"{': ' if decision.method else '; nearest: '}`{found.method}`"
        gap = wording.difference(verdict, found)
        rows = {row.method: row for row in table.rows if row.size == decision.size}
        one, full = rows[found.method], rows[verdict.results.full]
        trained = share(one, full, "trainable_parameters")
        time = share(one, full, "train_cpu_seconds")
    noise = f"{100 * table.place.label_noise:g} %" if table.place.label_noise else "-"
    data = table.place.data.removeprefix("../shared/data/")
    cells = [data, noise, f"{decision.size:,}", said, gap, trained, time, decision.num_seeds]
    return f"| {' | '.join(map(str, cells))} |"


def share(one: Row, full: Row, cost: str) -> str:
    """What one row costs, as a share of what the other does."""
    ours, theirs = one.cost(cost), full.cost(cost)
    return "-" if ours is None or not theirs else percent(ours / theirs)


def expectation(records: list[Record], name: str) -> str:
    """One line: metric, spread over seeds, time, memory, hardware."""
    metric = metric_of(records[0].recipe["task"]["name"], records)
    values = [metric.scale * r.metrics["test"][metric.name] for r in records]
    digits, unit = (1, " %") if metric.is_share else (3, "")
    seconds = sorted(r.costs["train_seconds"] for r in records)
    memory = max(r.costs["peak_memory_bytes"]["train"] for r in records)
    # Processes of a comparison have imported everything before they measure; runs had not, when
    # records did not hold the facts of their parts yet.
    more = " with imported libraries" if name == "recipes" and not records[0].facts else ""
    device = records[0].environment["device_name"]
    if len(values) == 1:
        found = f"{values[0]:.{digits}f}{unit} with one seed, {seconds[0]:.0f} s"
    else:
        found = (
            f"{min(values):.{digits}f} to {max(values):.{digits}f}{unit} over {len(values)} seeds, "
            f"{seconds[0]:.0f} to {seconds[-1]:.0f} s"
        )
    return (
        f"{metric.name} {found} of training and\n"
        f"{size_in_bytes(memory)}{more} on one core of an {device} "
        f"(records: benchmarks/results/{name})."
    )


def deed(recipe: Recipe) -> str:
    return recipe.override({"seed": 0}).fingerprint(precision="float32")


def recorded() -> Expected:
    """Every recipe that the committed records are of."""
    found: Expected = {}
    for folder in sorted(path.parent for path in RESULTS.glob("*/records")):
        own: dict[str, list[Record]] = defaultdict(list)
        for record in read_records(folder)[0]:
            if record.status == "done":
                own[deed(Recipe.from_dict(record.recipe))].append(record)
        found |= {each: (folder.name, records) for each, records in own.items()}
    return found


def recipe(path: Path, text: str, expected: Expected) -> str:
    script = runpy.run_path(str(path))
    if script.get("main") is not run_recipe:
        return text  # it does more than run its recipe
    if deed(script["RECIPE"]) in expected:
        name, records = expected[deed(script["RECIPE"])]
        line = f"Expect: {expectation(records, name)}\n"
    elif "(records: " in text:  # of what it was once
        line = "Expect: not measured with these settings yet.\n"
    else:
        return text
    return re.sub(r"Expect: .*?\n(?=Follows:)", lambda _: line, text, count=1, flags=re.DOTALL)


def catalogue(text: str) -> str:
    """The table of recipes/README.md, from the headers of the recipes."""
    lines = ["| recipe | what | metric | expect |", "| :--- | :--- | :--- | :--- |"]
    for path in sorted((ROOT / "recipes").glob("*.py")):
        script = runpy.run_path(str(path))
        header = " ".join(script["__doc__"].split())
        expect = re.search(r"Expect: (.*?) Follows: ", header)
        metric = script["RECIPE"].task.metric
        lines.append(
            f"| [`{path.stem}`]({path.name}) | {script['__doc__'].splitlines()[0]} | {metric} "
            f"| {expect[1] if expect else '-'} |"
        )
    table = "\n".join(lines)
    return re.sub(
        r"<!-- recipes -->.*?<!-- end -->",
        lambda _: f"<!-- recipes -->\n\n{table}\n\n<!-- end -->",
        text,
        flags=re.DOTALL,
    )


def reports() -> dict[Path, str]:
    """The tables of every folder that has any."""
    found = {}
    for folder in sorted(path.parent for path in RESULTS.glob("*/table.csv")):
        if folder == STUDIES:
            studies = sorted(path.parent for path in STUDIES.glob("*/records"))
            tables = [table for each in studies for table in read_studied(each).tables]
        else:
            tables = summarise(read_records(folder)[0])
        found[folder / "table.md"] = to_markdown(tables)
        found[folder / "table.csv"] = to_csv(tables)
    return found


def texts() -> Iterator[tuple[Path, str]]:
    """Every file, and what it should hold."""
    yield from reports().items()
    yield ROOT / "README.md", readme((ROOT / "README.md").read_text(encoding="utf-8"))
    expected = recorded()
    for path in sorted((ROOT / "recipes").glob("*.py")):
        yield path, recipe(path, path.read_text(encoding="utf-8"), expected)
    every = ROOT / "recipes" / "README.md"  # made of the headers as they are by now
    yield every, catalogue(every.read_text(encoding="utf-8"))


def main(check: bool) -> None:
    stale = []
    for path, new in texts():
        if new != path.read_text(encoding="utf-8"):
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(new, encoding="utf-8")
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'nothing'}")
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
