"""One record in a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peftkit import quantities
from peftkit.record import Record


def describe(record: Record, out: Path | None) -> str:
    """Return what a run yielded and cost, for the terminal."""
    costs = record.costs
    memory = costs["peak_memory_bytes"].get("train")
    chance = record.data["chance"]
    lines = {
        "run": f"{record.method} on {record.backbone['name']}, {record.recipe['task']['data']}, "
        f"{record.size} training examples, seed {record.seed}",
        "test": f"{_metrics(record.metrics['test'])}   ({record.data['num_test']} items"
        + ("" if chance is None else f", chance {chance:.3f}")
        + ")",
        "validation": _metrics(record.metrics["validation"]),
        "trained": f"{quantities.count(costs['method_parameters'])} parameters and "
        f"{quantities.count(costs['head_parameters'])} in the head "
        f"({quantities.percent(costs['trainable_share'])} of the backbone)",
        "time": f"{quantities.seconds(costs['train_seconds'])} to train, "
        f"{quantities.seconds(costs['evaluate_seconds'])} to evaluate",
        "memory": f"{quantities.size_in_bytes(memory)} at the peak of training{_tensors(costs)}",
        "energy": _energy(record),
        "forgetting": _forgetting(record),
        "on disk": quantities.size_in_bytes(costs["adapter_bytes"]),
    }
    lines |= {f"note {i}": note for i, note in enumerate(record.notes, start=1)}
    if out is not None:
        lines["saved"] = f"{out} (use it: peftkit predict {out} --text ...)"
    return "".join(f"{name:11} {text}\n" for name, text in lines.items() if text)


def _tensors(costs: dict[str, Any]) -> str:
    """What of it tensors were, counted and predicted."""
    if "counted_memory_bytes" not in costs:
        return ""
    parts = sorted(costs["counted_memory_bytes"].items(), key=lambda part: -part[1])
    peak, *rest = [(name.replace("_", " "), size) for name, size in parts if size]
    told = ", ".join(f"{name} {quantities.size_in_bytes(size)}" for name, size in rest[:3])
    predicted = costs.get("predicted_memory_bytes", {}).get("peak")
    before = f"; predicted: {quantities.size_in_bytes(predicted)}" if predicted else ""
    return f"; tensors {quantities.size_in_bytes(peak[1])} ({told}{before})"


def _energy(record: Record) -> str:
    spent = record.costs.get("energy_joules", {})
    if "train" not in spent:
        return ""
    told = [f"{quantities.joules(spent[name])} to {name}" for name in ("train", "evaluate")]
    return f"{', '.join(told)}, of the whole GPU, idle draw included"


def _forgetting(record: Record) -> str:
    if "forgetting_nats" not in record.costs:
        return ""
    change = quantities.nats(record.costs["forgetting_nats"])
    return f"{change} nats a token on {record.data['neutral_text']}"


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
