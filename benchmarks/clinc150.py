"""Every method on clinc150, each at the best of three learning rates.

    python benchmarks/clinc150.py [--out benchmarks/results/clinc150] [--smoke]

151 intents, 1,510 training rows (ten of a class), the bundled backbone. The search: one seed; a
third of, once and three times the default rate of each method, so as many trials for each, with
half the steps; the best by accuracy on 1,000 validation rows is taken. Then every method at its
rate on two seeds, with all steps and all test rows. Both steps can be killed and go on; what was
tried is kept in learning_rates.json, beside the records of the table.
"""

import argparse
import json
import tempfile
from pathlib import Path

import pandas

from peftkit import Recipe, compare, parts
from peftkit.record import Record, write_atomically
from peftkit.reporting import report
from peftkit.settings import Training

ROOT = Path(__file__).parent.parent
DATA = "../shared/data/clinc150"
FACTORS = (1 / 3, 1.0, 3.0)


def variants(method: str) -> dict[float, str]:
    """Learning rate -> label of a comparison; the default rate has the plain name."""
    rate = parts.load("method", method).learning_rate
    if rate is None:
        return {}
    rates = [float(f"{rate * factor:.2g}") for factor in FACTORS]
    return {r: f"{method}:training.learning_rate={r:g}" for r in rates}


def search_data(folder: Path) -> Path:
    """The training rows, and of the others as many as a search needs."""
    for split, most in {"train": None, "validation": 1000, "test": 200}.items():
        rows = pandas.read_parquet(ROOT / DATA / f"{split}.parquet")
        rows = rows if most is None else rows.sample(most, random_state=0)
        folder.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(folder / f"{split}.parquet")
    return folder


def validation_accuracy(record: Record) -> float:
    return record.metrics["validation"]["accuracy"] if record.status == "done" else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "clinc150")
    parser.add_argument("--smoke", action="store_true", help="two methods on a tiny twin")
    args = parser.parse_args()
    methods, size, seeds, options = list(parts.find("method")), 1510, 2, {}
    if args.smoke:
        methods, size, seeds = ["none", "lora"], 302, 1
        options = {"backbone.name": "twin:bert", "training.steps": 3}
        args.out = Path(tempfile.mkdtemp(prefix="clinc150-"))
    steps = options.get("training.steps") or Training().num_steps(size)
    settings = {"sizes": [size], "keep_weights": "none"}
    tried = [label for method in methods for label in variants(method).values()]
    few = search_data(Path(tempfile.gettempdir()) / "peftkit-clinc150")
    search = compare(
        tried, task=str(few), seeds=1, out=args.out / "search",
        options={**options, "training.steps": steps // 2}, **settings,
    )  # fmt: skip
    best: dict[str, Record] = {}
    for record in search:
        if validation_accuracy(record) > validation_accuracy(best.get(record.method, record)) or (
            record.method not in best
        ):
            best[record.method] = record
    rates = {m: Recipe.from_dict(r.recipe).learning_rate for m, r in best.items()}
    labels = [f"{m}:training.learning_rate={rates[m]:g}" if m in rates else m for m in methods]
    compare(labels, task=DATA, seeds=seeds, out=args.out, options=options, **settings)
    chosen = {
        "rule": f"best validation accuracy of three rates, one seed, {steps // 2} steps",
        "tried": {
            m: {
                f"{Recipe.from_dict(r.recipe).learning_rate:g}": validation_accuracy(r)
                for r in search
                if r.method == m
            }
            for m in rates
        },
        "chosen": rates,
    }
    write_atomically(args.out / "learning_rates.json", json.dumps(chosen, indent=2) + "\n")
    report(args.out)


if __name__ == "__main__":
    main()
