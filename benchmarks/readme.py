"""Writes every measured number of the README and of the recipes' headers, from records.

    python benchmarks/readme.py [--check]

Between `<!-- table: NAME -->` and `<!-- end -->` of README.md goes the table of the records in
benchmarks/results/NAME, with its plot; in a recipe's "Expect:" line the result of its method in
results/pydocs_library or results/pydocs_library_more. `--check` writes nothing and fails if
anything would change.
"""

import re
import sys
from pathlib import Path

from peftkit import read_records
from peftkit.record import Record
from peftkit.reporting.quantities import size_in_bytes
from peftkit.reporting.summary import summarise
from peftkit.reporting.tables import to_markdown

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
EXPECTED_ON, EXPECTED_SIZE = ("pydocs_library", "pydocs_library_more"), 512


def table(name: str) -> str:
    records, problems = read_records(RESULTS / name)
    if problems:
        sys.exit("\n".join(problems))
    plot = f"benchmarks/results/{name}/frontier.svg"
    return f"{to_markdown(summarise(records))}\n![quality against cost]({plot})\n"


def readme(text: str) -> str:
    def fill(match: re.Match[str]) -> str:
        if not (RESULTS / match[1]).is_dir():
            return match[0]
        return f"<!-- table: {match[1]} -->\n\n{table(match[1])}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", fill, text, flags=re.DOTALL)


def expectation(records: list[Record], name: str) -> str:
    """One line: metric, spread over seeds, time, memory, hardware."""
    values = [100 * r.metrics["test"]["accuracy"] for r in records]
    seconds = sorted(r.costs["train_seconds"] for r in records)
    memory = max(r.costs["peak_memory_bytes"]["train"] for r in records)
    device = records[0].environment["device_name"]
    return (
        f"accuracy {min(values):.1f} to {max(values):.1f} % over {len(values)} seeds, "
        f"{seconds[0]:.0f} to {seconds[-1]:.0f} s of training and {size_in_bytes(memory)} on one\n"
        f"core of an {device} (records: benchmarks/results/{name})."
    )


def recipe(text: str, results: dict[str, list[Record]]) -> str:
    method = re.search(r'method="(\w+)"', text)
    if not method or "task=" not in text or "two_stages" in text:
        return text
    chosen = {
        name: [r for r in records if r.method == method[1] and r.size == EXPECTED_SIZE]
        for name, records in results.items()
    }
    name = next((name for name, records in chosen.items() if records), None)
    if name is None:
        return text
    line = f"Expect: {expectation(chosen[name], name)}\n"
    return re.sub(r"Expect: .*?\n(?=Follows:)", lambda _: line, text, count=1, flags=re.DOTALL)


def main(check: bool) -> None:
    results = {n: read_records(RESULTS / n)[0] for n in EXPECTED_ON if (RESULTS / n).is_dir()}
    files = {ROOT / "README.md": readme}
    files |= {p: lambda text: recipe(text, results) for p in (ROOT / "recipes").glob("*.py")}
    stale = []
    for path, write in files.items():
        old = path.read_text(encoding="utf-8")
        new = write(old)
        if new != old:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(new, encoding="utf-8")
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'nothing'}")
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
