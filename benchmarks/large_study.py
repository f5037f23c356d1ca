"""A large study, read, judged and reported: seconds and memory of `peftkit report` and `verdict`.

    python benchmarks/large_study.py [--records 10000] [--items 1000]

The records are made up (an accuracy by method, size, noise and seed on items of shared difficulty)
and lie in a temporary folder; what is measured is a fresh process each, so imports count.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

METHODS = {
    "none": 0, "linear_probe": 3_850, "prompt_tuning": 7_690, "bitfit": 29_954, "lora": 335_626,
    "bottleneck": 229_690, "last_layers": 3_700_000, "full": 22_700_000, "tfidf": 59_300,
    "scratch": 22_700_000,
}  # fmt: skip
SIZES = tuple(32 * 2**k for k in range(10))
NOISES = (0.0, 0.1, 0.2, 0.3, 0.4)


def make(folder: Path, count: int, items: int) -> int:
    """Write `count` records, as many seeds as that takes."""
    random = np.random.default_rng(0)
    difficulty = random.random(items)
    places = list(product(METHODS, SIZES, NOISES))
    (folder / "records").mkdir(parents=True)
    written = 0
    while written < count:
        seed = written // len(places)
        method, size, noise = places[written % len(places)]
        level = 0.4 + 0.05 * np.log2(size / 32) - noise / 3 + 0.005 * random.normal()
        level -= {"none": 0.2, "scratch": 0.3, "tfidf": 0.25}.get(method, 0.0)
        right = difficulty + 0.05 * random.normal(size=items) < level
        value = float(right.mean())
        trained = METHODS[method]
        body = {
            "format": 1, "key": f"{written:016x}", "status": "done", "error": "",
            "recipe": {
                "method": {"name": method},
                "task": {"name": "text_classification", "data": "made up", "size": size,
                         "label_noise": noise},
                "backbone": {"name": "bundled"}, "training": {}, "seed": seed,
            },
            "metrics": {"test": {"accuracy": value}, "validation": {"accuracy": value}},
            "predictions": {"item": list(range(items)), "label": [1] * items,
                            "predicted": right.astype(int).tolist()},
            "history": [{"step": s, "loss": 1.0} for s in range(25)],
            "costs": {"trainable_parameters": trained, "method_parameters": trained,
                      "head_parameters": 0, "train_seconds": 10.0, "train_cpu_seconds": 9.0,
                      "adapter_bytes": 4 * trained,
                      "peak_memory_bytes": {"train": 10**9}},
            "data": {"source": "made up", "fingerprint": "d" * 64, "num_train": size,
                     "num_test": items, "num_validation": 100, "num_classes": 10, "chance": 0.1,
                     "notes": []},
            "backbone": {"name": "bundled", "family": "bert", "fingerprint": "w" * 64,
                         "total_parameters": 22_700_000},
            "environment": {"device": "cpu"}, "notes": [], "created": "2026-01-01T00:00:00",
        }  # fmt: skip
        path = folder / "records" / f"{body['key']}.json"
        path.write_text(json.dumps(body), encoding="utf-8")
        written += 1
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="large-study-") as temporary:
        folder = Path(temporary) / "study"
        count = make(folder, args.records, args.items)
        print(f"{count:,} records of {args.items:,} items")
        for command in ("report", "verdict"):
            start = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "peftkit", command, str(folder)], check=True,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of any so far
            seconds = time.monotonic() - start
            print(f"peftkit {command}: {seconds:.1f} s, at most {peak / 2**30:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
