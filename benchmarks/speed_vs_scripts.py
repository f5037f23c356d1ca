"""How much sooner does peftkit finish the same cells than plain scripts do?

    python benchmarks/speed_vs_scripts.py [--seeds 2] [--smoke] [--out benchmarks/results/speed]

Cells: linear_probe, lora and full at 512 examples of pydocs/library, 3 epochs, batch 16, the same
600 validation and 1,000 test rows evaluated once at the end, learning rates of peftkit's methods.
Once through `peftkit compare`, once through plain_script.py, a fresh process a cell, both in this
run and with OMP_WAIT_POLICY=PASSIVE. The two take turns by seed, so that a busy machine meets both.
Seconds include imports and start-up; peftkit measures costs besides, and that is included too.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peftkit import Recipe, read_records
from peftkit.backbones import locate
from peftkit.environment import environment
from peftkit.recipe import Backbone
from peftkit.record import write_atomically

METHODS = ("linear_probe", "lora", "full")
HERE = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


def timed(command: list[str]) -> tuple[float, float, str]:
    """Run a command; return wall seconds, CPU seconds of it and its children, and its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout


def through_peftkit(seed: int, size: int, epochs: str, folder: Path) -> dict[str, object]:
    out = folder / f"peftkit-{seed}"
    wall, cpu, _ = timed(
        [
            sys.executable, "-m", "peftkit", "compare", "--methods", ",".join(METHODS),
            "--sizes", str(size), "--seeds", f"{seed},", "--batch-size", "16",
            "--epochs", epochs, "--training.head-learning-rate", "same",
            "--keep-weights", "none", "--quiet", "--out", str(out),
        ]
    )  # fmt: skip
    records, _ = read_records(out)
    # Workers are children of a fork server, which this process never waits for.
    cpu += sum(record.costs["cell_cpu_seconds"] for record in records)
    accuracy = {record.method: record.metrics["test"]["accuracy"] for record in records}
    return {"way": "peftkit", "seed": seed, "wall": wall, "cpu": cpu, "accuracy": accuracy}


def through_scripts(seed: int, size: int, folder: Path) -> dict[str, object]:
    recipes = {m: Recipe(method=m, task="pydocs/library", seed=seed) for m in METHODS}
    data = recipes["lora"].override({"size": size}).task.load(seed=seed)
    for split in ("train", "validation", "test"):
        getattr(data, split).to_parquet(folder / f"{split}.parquet")
    model = str(locate(Backbone()).folder)
    wall, cpu, accuracy = 0.0, 0.0, {}
    for method, recipe in recipes.items():
        command = [
            sys.executable, str(HERE / "plain_script.py"), "--model", model, "--method", method,
            "--train", str(folder / "train.parquet"),
            "--validation", str(folder / "validation.parquet"),
            "--test", str(folder / "test.parquet"),
            "--learning-rate", str(recipe.learning_rate), "--seed", str(seed),
            "--out", str(folder / "plain"),
        ]  # fmt: skip
        took, cost, printed = timed(command)
        wall, cpu = wall + took, cpu + cost
        accuracy[method] = json.loads(printed.strip().splitlines()[-1])["accuracy"]
        print(f"  plain {method}: {took:.0f} s, accuracy {accuracy[method]:.3f}", flush=True)
    return {"way": "scripts", "seed": seed, "wall": wall, "cpu": cpu, "accuracy": accuracy}


def table(runs: list[dict]) -> str:
    lines = [
        f"| seed | way | wall s | CPU s | {' | '.join(METHODS)} |",
        f"|---|---|---|---|{'---|' * len(METHODS)}",
    ]
    for run in runs:
        scores = " | ".join(f"{100 * run['accuracy'][m]:.1f}" for m in METHODS)
        lines.append(
            f"| {run['seed']} | {run['way']} | {run['wall']:.0f} | {run['cpu']:.0f} | {scores} |"
        )
    total = {
        way: {u: sum(r[u] for r in runs if r["way"] == way) for u in ("wall", "cpu")}
        for way in ("scripts", "peftkit")
    }
    ratio = {unit: total["scripts"][unit] / total["peftkit"][unit] for unit in ("wall", "cpu")}
    lines.append("")
    lines.append(
        f"peftkit is {ratio['wall']:.1f} times faster in wall seconds, {ratio['cpu']:.1f} times in "
        "CPU seconds. Accuracy in percent of 1,000 test rows (standard error about 1.6)."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="32 examples, one seed")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "speed")
    args = parser.parse_args()
    size, seeds = (32, 1) if args.smoke else (512, args.seeds)
    runs: list[dict] = []
    folder = Path(tempfile.mkdtemp(prefix="speed-"))
    try:
        for seed in range(seeds):
            runs.append(through_peftkit(seed, size, "3", folder))
            print(f"seed {seed}: peftkit {runs[-1]['wall']:.0f} s", flush=True)
            runs.append(through_scripts(seed, size, folder))
    finally:
        shutil.rmtree(folder)
    print(table(runs))
    if not args.smoke:
        body = {"runs": runs, "environment": environment(), "cores": os.cpu_count()}
        write_atomically(args.out / "runs.json", json.dumps(body, indent=2) + "\n")
        write_atomically(args.out / "table.md", table(runs))


if __name__ == "__main__":
    main()
