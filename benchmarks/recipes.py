"""Run recipes in full, as their headers say, for the "Expect" lines: benchmarks/results/recipes.

    python benchmarks/recipes.py [NAME ...] [--seeds 2] [--jobs 2]

Those that are part of a table (benchmarks/tasks.py) have their records there; here are the others.
Each is a process of its own, whose record is kept; what it printed goes to NAME-SEED.txt. What is
there already is not run again.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from peftkit.record import Record, write_atomically

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "recipes"
NAMES = (
    "continued_pretraining", "pretrain_decoder", "two_stages", "classify_lora_int8",
    "summarize_lora", "describe_lora", "language_model_lora", "instruct_lora", "instruct_qlora",
    "dpo_lora",
)  # fmt: skip


def run(name: str, seed: int) -> str:
    """Run a recipe, keep what it printed and its record, and say how it went."""
    printed = RESULTS / f"{name}-{seed}.txt"
    if printed.exists():
        return f"{name}, seed {seed}: there already"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="recipes-") as folder:
        command = [f"recipes/{name}.py", "--seed", str(seed), "--out", folder]
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            return f"{name}, seed {seed}: FAILED\n{done.stderr[-2000:]}"
        record = Path(folder) / "record.json"
        if record.exists():  # two_stages has one a stage, and prints what counts
            key = Record.read(record).key
            kept = record.read_text(encoding="utf-8").replace(folder, "DIR")
            write_atomically(RESULTS / "records" / f"{key}.json", kept)
        write_atomically(printed, done.stdout.replace(folder, "DIR"))
    return f"{name}, seed {seed}: done"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2, help="recipes at a time")
    args = parser.parse_args()
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [(name, seed) for name in args.names or NAMES for seed in range(args.seeds)]
        for line in pool.map(run, *zip(*jobs, strict=True)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
