"""What a report shows is what the records hold: nothing more, nothing less, nothing mixed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from peftkit.record import Record

CLASSES, ITEMS, SIZES, SEEDS = 10, 300, (32, 128, 512), (0, 1, 2)

# name: (rung, method parameters, quality as a probit at 512, gain per doubling, memory MB, train s)
LADDER: dict[str, tuple[str, int, float, float, float, float]] = {
    "tfidf": ("reference", 0, -0.15, 0.17, 0.0, 0.4),
    "none": ("none", 0, 0.03, 0.09, 0.0, 0.6),
    "linear_probe": ("head", 0, 0.05, 0.12, 61.0, 4.2),
    "ia3": ("parameter-efficient", 13_824, 0.02, 0.16, 289.0, 38.0),
    "bitfit": ("parameter-efficient", 52_992, 0.06, 0.16, 268.0, 31.0),
    "layernorm": ("parameter-efficient", 9_984, 0.04, 0.15, 271.0, 30.0),
    "prompt_tuning": ("parameter-efficient", 7_680, 0.07, 0.13, 341.0, 47.0),
    "prefix_tuning": ("parameter-efficient", 92_160, 0.05, 0.13, 309.0, 36.0),
    "lora": ("parameter-efficient", 147_456, 0.10, 0.18, 302.0, 41.0),
    "dora": ("parameter-efficient", 156_672, 0.11, 0.18, 398.0, 66.0),
    "bottleneck": ("parameter-efficient", 302_976, 0.12, 0.17, 311.0, 40.0),
    "last_blocks": ("partial", 3_549_312, 0.13, 0.17, 193.0, 22.0),
    "full": ("full", 22_713_216, 0.20, 0.18, 633.0, 55.0),
    "continued": ("retrain", 22_713_216, 0.22, 0.18, 640.0, 171.0),
    "scratch": ("retrain", 22_713_216, -0.85, 0.1, 633.0, 55.0),
}
TOTAL, HEAD = 22_713_216, 3_850


def make_record(
    name: str,
    *,
    size: int = 512,
    seed: int = 0,
    noise: float = 0.0,
    options: dict[str, Any] | None = None,
    correct: Iterable[int] | None = None,
    data: str = "d4c0ffee00112233",
    weights: str = "53aa51172d142c89",
    **changes: Any,
) -> Record:
    """A record as `peftkit compare` writes it; `correct` says which test items are right."""
    _, parameters, level, gain, memory, train = LADDER[name]
    if correct is None:
        z = level + gain * np.log2(size / 512) - noise
        easy = np.random.default_rng(1).normal(0, 1, ITEMS)
        own = np.random.default_rng([len(name), ord(name[0]), size]).normal(0, 0.35, ITEMS)
        draw = np.random.default_rng([seed, size])
        seed_shift, rest = draw.normal(0, 0.05), draw.normal(0, 0.4, ITEMS)
        correct = (1.4 * z + easy + own + rest + seed_shift > 0).astype(int)
    hits = [int(hit) for hit in correct]
    label = [item % CLASSES for item in range(len(hits))]
    head = 0 if name in ("none", "tfidf") else HEAD
    recipe = {
        "backbone": {"name": "all-MiniLM-L6-v2"},
        "method": {"name": name, **(options or {})},
        "task": {
            "name": "text_classification",
            "data": "pydocs/library",
            "size": size,
            "label_noise": noise,
        },
        "training": {"steps": 300, "learning_rate": None},
        "seed": seed,
    }
    key = json.dumps([recipe, data, weights, sorted(changes)], sort_keys=True)
    fields: dict[str, Any] = {
        "status": "done",
        "metrics": {"test": {"accuracy": float(np.mean(hits)), "macro_f1": 0.5, "log_loss": 1.4}},
        "predictions": {
            "item": list(range(len(hits))),
            "label": label,
            "predicted": [(y + 1 - h) % CLASSES for y, h in zip(label, hits, strict=True)],
            "loss": [1.4] * len(hits),
        },
        "costs": {
            "method_parameters": parameters,
            "head_parameters": head,
            "trainable_parameters": parameters + head,
            "total_parameters": TOTAL,
            "trainable_share": (parameters + head) / TOTAL,
            "adapter_bytes": 4 * (parameters + head) + 900,
            "train_seconds": train * (1 + 0.1 * seed),
            "train_cpu_seconds": train * 0.99,
            "peak_memory_bytes": {"load": 9e7, "train": 1e6 * (memory + seed), "evaluate": 5e7},
            "inference_seconds_per_example": 0.0041 + parameters / 1e9,
            "inference_slowdown": 1 + parameters / 2e6 if parameters < 1e6 else 1.0,
        },
        "data": {
            "source": "docstrings of installed libraries",
            "fingerprint": data,
            "num_train": size,
            "num_validation": 500,
            "num_test": len(hits),
            "num_classes": CLASSES,
            "chance": 0.1,
        },
        "backbone": {"name": "all-MiniLM-L6-v2", "fingerprint": weights},
        "environment": {
            "device": "cpu (AMD EPYC 9654)",
            "threads": 1,
            "precision": "float32",
            "versions": {"peftkit": "0.1.0", "torch": "2.13.0", "peft": "0.20.0"},
            "neighbours": 1,
        },
        "created": f"2026-01-01T00:00:{seed:02d}+00:00",
    }
    key = hashlib.sha256(key.encode()).hexdigest()[:16]
    return Record(key=key, recipe=recipe, **(fields | changes))


def fail(record: Record, status: str, error: str, **changes: Any) -> Record:
    """The same run, had it ended with `status`."""
    import dataclasses

    return dataclasses.replace(
        record,
        status=status,  # type: ignore[arg-type]
        error=error,
        metrics={},
        predictions={},
        **{"costs": {}, **changes},
    )


def make_study(noise: float = 0.0, names: Iterable[str] = LADDER) -> list[Record]:
    """The whole ladder at three sizes and three seeds, with each way of not ending well."""
    records = []
    for name in names:
        for size in SIZES:
            for seed in SEEDS:
                record = make_record(name, size=size, seed=seed, noise=noise)
                if name == "prefix_tuning":
                    reason = "prefix tuning needs past_key_values, BertModel has none"
                    record = fail(record, "unsupported", reason, data={}, backbone={})
                if (name, size, seed) == ("continued", 512, 2):
                    record = fail(record, "out_of_memory", "out of memory: 3.1 GB asked for")
                if (name, size, seed) == ("ia3", 32, 1):
                    record = fail(record, "diverged", "diverged: loss is nan at step 31")
                records.append(record)
    return records


def write_study(folder: Path, records: Iterable[Record]) -> Path:
    """A folder as `peftkit compare --out` leaves it."""
    for record in records:
        record.write(folder / "records" / f"{record.key}.json")
    return folder
