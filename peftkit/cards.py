"""Model cards: the README.md of a run's folder, and of a merged model's.

Front matter as the Hugging Face hub reads it (huggingface.co/docs/hub/model-cards); below it what
the record holds: recipe, metrics with intervals over the test items, costs, data. The licence is
that of the base model where it is known; elsewhere "unknown", for its owner to fill in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peftkit import quantities
from peftkit.record import Record

_BUNDLED = {"base_model": "sentence-transformers/all-MiniLM-L6-v2", "license": "apache-2.0"}
_PIPELINES = {
    "text_classification": "text-classification",
    "multi_label_classification": "text-classification",
    "text_regression": "text-classification",
    "token_classification": "token-classification",
    "question_answering": "question-answering",
    "image_classification": "image-classification",
    "audio_classification": "audio-classification",
    "summarization": "summarization",
    "translation": "translation",
    "instruction": "text-generation",
    "language_modeling": "text-generation",
    "preference": "text-generation",
}


def run_card(record: Record, labels: list[str]) -> str:
    """The card of what a run left.

    Args:
        record: Of the run.
        labels: Class names.
    """
    recipe = record.recipe
    method, task = recipe["method"]["name"], recipe["task"]
    name = record.backbone["name"]
    lines = [
        f"# {method} on {_short(name)} for {task['name']}",
        "",
        f"Adapted by peftkit from {_short(name)} on {_short(record.data['source'])}, "
        f"{record.data['num_train']:,} training examples, seed {recipe['seed']}.",
        "",
        *_metrics(record),
        *_costs(record),
        *_data(record, labels),
        *_recipe(recipe),
    ]
    adapter = method not in ("full", "scratch")
    return _front(recipe, "peft" if adapter else "transformers") + "\n".join(lines)


def merged_card(manifest: dict[str, Any], record: Record | None) -> str:
    """The card of a merged model.

    Args:
        manifest: Its `peftkit.json`.
        record: That of the run it was made of, if there is one.
    """
    facts, recipe = manifest["merged"], manifest["recipe"]
    name, task = manifest["backbone"]["name"], recipe["task"]["name"]
    found = facts["to_adapted"]
    base = "" if facts["base"] == "plain" else f" The base was quantised; route: {facts['base']}."
    lines = [
        f"# {_short(name)} for {task}, {facts['method']['name']} merged",
        "",
        f"An adapter merged into its base by peftkit: in float32, cast once to {facts['dtype']}."
        f"{base}",
        "",
        *_warning(facts.get("head_reads")),
        f"Against the adapted model, on {found['num_rows']} vectors of logits of validation rows:",
        "",
        "| measure | value |",
        "|---|---|",
        f"| largest difference of a logit | {_number(found['largest_difference'])} |",
        f"| KL(adapted, merged), nats | {_number(found['kl'])} |",
        f"| equal predictions | {quantities.percent(found['equal_predictions'])} |",
        *(f"| {n}, before and after | {_number(a)}, {_number(b)} |"
          for n, (a, b) in found["metrics"].items()),
        "",
    ]  # fmt: skip
    if record is not None:
        lines += [*_metrics(record), *_costs(record), *_data(record, manifest["labels"])]
        lines += _recipe(record.recipe)
    return _front({**recipe, "method": facts["method"]}, "transformers") + "\n".join(lines)


def _warning(reads: str | None) -> list[str]:
    """For those who would load it without peftkit."""
    if reads is None:
        return []
    said = f"its head reads the {reads} of the tokens, which transformers' own head does not."
    return [f"**Load it with peftkit**: {said}", ""]


def _front(recipe: dict[str, Any], library: str) -> str:
    from huggingface_hub import ModelCardData

    name = str(recipe["backbone"]["name"])
    bundled = name == "bundled"
    hub = not bundled and ":" not in name and not Path(name).expanduser().exists()
    facts = ModelCardData(
        license=_BUNDLED["license"] if bundled else "unknown",
        base_model=_BUNDLED["base_model"] if bundled else name if hub else None,
        library_name=library,
        pipeline_tag=_PIPELINES.get(recipe["task"]["name"]),
        tags=["peftkit", str(recipe["method"]["name"])],
    )
    return f"---\n{facts.to_yaml()}\n---\n\n"


def _metrics(record: Record) -> list[str]:
    from peftkit.reporting.pairing import item_scores_of, metric_of
    from peftkit.statistics.estimates import LEVEL, crossed_estimate

    main = metric_of(record.recipe["task"]["name"], [record])
    scores = item_scores_of([record], main)
    held = record.metrics.get("validation", {})
    lines = ["## Metrics", "", "| metric | test | validation |", "|---|---|---|"]
    for name, value in record.metrics.get("test", {}).items():
        told = _number(value)
        if name == main.name and scores is not None:
            found = crossed_estimate(scores, shares=main.is_share)
            low, high = found.interval(LEVEL)
            told += f" ({LEVEL:.0%} interval over test items: {_number(low)} to {_number(high)})"
        lines.append(f"| {name} | {told} | {_number(held.get(name))} |")
    return [*lines, ""]


def _costs(record: Record) -> list[str]:
    costs = record.costs
    told = {
        "trained parameters": quantities.count(costs.get("trainable_parameters")),
        "training": quantities.seconds(costs.get("train_seconds")),
        "peak memory of training": quantities.size_in_bytes(
            (costs.get("peak_memory_bytes") or {}).get("train")
        ),
        "on disk": quantities.size_in_bytes(costs.get("adapter_bytes")),
    }
    lines = [f"| {name} | {value} |" for name, value in told.items()]
    return ["## Costs", "", "| cost | measured |", "|---|---|", *lines, ""]


def _data(record: Record, labels: list[str]) -> list[str]:
    data = record.data
    lines = [
        "## Data",
        "",
        f"{_short(data['source'])}: {data['num_train']:,} rows to train on, "
        f"{data['num_validation']:,} to validate, {data['num_test']:,} to test "
        f"(fingerprint {data['fingerprint'][:12]}).",
    ]
    if labels:
        more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
        lines += ["", f"Labels: {', '.join(labels[:20])}{more}."]
    return [*lines, *(f"\n{note}." for note in record.notes), ""]


def _recipe(recipe: dict[str, Any]) -> list[str]:
    parts = {
        name: {k: _short(v) if isinstance(v, str) else v for k, v in part.items()}
        if isinstance(part, dict)
        else part
        for name, part in recipe.items()
    }
    return ["## Recipe", "", "```json", json.dumps(parts, indent=2), "```", ""]


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.4g}"


def _short(name: str) -> str:
    """A name without the folders of the machine that it was on."""
    return Path(name).name if "/" in name and Path(name).is_absolute() else name
