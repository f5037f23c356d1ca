"""What a report shows is what the records hold: nothing more, nothing less, nothing mixed."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from peftkit import quantities as q
from peftkit.cli import main
from peftkit.errors import InvalidInput
from peftkit.record import Record
from peftkit.reporting import Report, notes, report
from peftkit.reporting.labels import label_records, rung_of
from peftkit.reporting.panel import Panel, Point, Scale, frontier_steps
from peftkit.reporting.placement import around, place
from peftkit.reporting.plots import frontier
from peftkit.reporting.single import describe
from peftkit.reporting.summary import Table, summarise
from peftkit.reporting.tables import to_csv, to_markdown
from peftkit.reporting.terminal import print_tables
from peftkit.verdict.from_table import judge_tables

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

PAGES = {"report.html"} if find_spec("vl_convert") else set()  # with the extra html


@functools.cache
def simulate(name: str, size: int, seed: int, noise: float) -> tuple[int, ...]:
    """Which test items a run gets right: probit, difficulty shared by all methods and seeds."""
    _, _, level, gain, _, _ = LADDER[name]
    easy = np.random.default_rng(1).normal(0, 1, ITEMS)
    own = np.random.default_rng([len(name), ord(name[0]), size]).normal(0, 0.35, ITEMS)
    draw = np.random.default_rng([seed, size])
    of_seed, rest = draw.normal(0, 0.05), draw.normal(0, 0.4, ITEMS)
    z = 1.4 * (level + gain * np.log2(size / 512) - noise)
    return tuple(int(value > 0) for value in z + easy + own + rest + of_seed)


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
    _, parameters, _, _, memory, train = LADDER[name]
    if correct is None:
        correct = simulate(name, size, seed, noise)
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
            "device": "cpu",
            "device_name": "AMD EPYC 9654",
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


@pytest.fixture(autouse=True)
def rungs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ladder above, also for methods that are not part of peftkit."""
    known = {name: rung for name, (rung, *_) in LADDER.items()}
    monkeypatch.setattr("peftkit.reporting.summary.rung_of", lambda name: known.get(name, ""))


def printed(tables: list[Table], width: int = 120, **options: Any) -> str:
    """What the terminal shows."""
    console = Console(width=width, file=io.StringIO(), **options)
    print_tables(tables, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines_of(tables: list[Table]) -> list[dict[str, str]]:
    """The lines of the CSV file."""
    return list(csv.DictReader(io.StringIO(to_csv(tables))))


# --- numbers -----------------------------------------------------------------------------------

# Two seeds, four items. Accuracy of full: .75 and .75; of lora: .50 and .75.
FULL = {0: [1, 1, 1, 0], 1: [1, 1, 0, 1]}
LORA = {0: [1, 0, 1, 0], 1: [1, 1, 0, 1]}


def small_study() -> list[Record]:
    return [
        make_record(name, seed=seed, correct=hits)
        for name, cells in (("full", FULL), ("lora", LORA))
        for seed, hits in cells.items()
    ]


def test_accuracy_and_difference_are_those_worked_out_by_hand() -> None:
    (table,) = summarise(small_study())
    lora = table.row("lora", 512)

    # lora: seeds .5, .75; items 1, .5, .5, .5; all .625.
    # MSs = 4 (.125^2 * 2) / 1 = .125. MSi = 2 (.375^2 + 3 * .125^2) / 3 = .125.
    # MSe: residuals of seed 0 are .125, -.375, .625, -.375, of seed 1 the opposite:
    # 2 (.125^2 + .375^2 + .625^2 + .375^2) / 3 = .4583. Largest: MSs = MSi = .125, V = .125 / 8.
    assert lora is not None
    assert lora.quality is not None
    assert lora.quality.mean == 0.625
    assert lora.quality.standard_error == pytest.approx(max(math.sqrt(0.125 / 8), 1 / 6))
    # lora - full: seed 0: 0, -1, 0, 0; seed 1: all 0. Mean -1/8.
    # MSs = 4 (.125^2 * 2) = .125. Items 0, -.5, 0, 0: MSi = 2 (3 * .125^2 + .375^2) / 3 = .125.
    # MSe: residuals +-(.125, -.375, .125, .125): 2 (3 * .125^2 + .375^2) / 3 = .125.
    assert lora.versus_full is not None
    assert lora.versus_full.mean == -0.125
    assert lora.versus_full.standard_error == pytest.approx(1 / 6)  # sqrt(.125 / 8) is less
    # df = .125^2 / (.125^2 / 1 + .125^2 / 3 + .125^2 / 3) = .6, at least 1.
    half = 100 * stats.t.ppf(0.975, 1) / 6
    assert f"-12.5 {q.PLUS_MINUS}{half:.1f}" in printed([table])


def test_differences_pair_items_by_their_number_not_their_order() -> None:
    records = small_study()
    shuffled = [3, 1, 0, 2]
    lora = records[2]
    turned = {name: [values[i] for i in shuffled] for name, values in lora.predictions.items()}
    records[2] = dataclasses.replace(lora, predictions=turned)

    assert lines_of(summarise(records)) == lines_of(summarise(small_study()))


def test_differences_use_only_the_seeds_that_both_have() -> None:
    records = [*small_study(), make_record("lora", seed=2, correct=[0, 0, 0, 0])]
    row = summarise(records)[0].row("lora", 512)

    assert row is not None
    assert row.quality is not None
    assert (row.quality.num_seeds, row.quality.mean) == (3, pytest.approx(5 / 12))
    assert row.versus_full is not None
    assert (row.versus_full.num_seeds, row.versus_full.mean) == (2, -0.125)


def test_one_seed_gives_an_interval_over_items_and_says_so() -> None:
    tables = summarise([make_record("lora"), make_record("full")])

    for text in (printed(tables), to_markdown(tables)):
        assert "over test items only: with 1 seed nothing says" in " ".join(text.split())
    assert {line["metric_covers"] for line in lines_of(tables)} == {"test items"}


def test_a_metric_that_does_not_split_into_items_has_an_error_over_seeds() -> None:
    records = [
        make_record("lora", seed=seed, predictions={}, metrics={"test": {"span_f1": value}})
        for seed, value in enumerate((0.70, 0.74, 0.75))
    ]
    (table,) = summarise(
        [dataclasses.replace(r, recipe=r.recipe | {"task": {"name": "spans"}}) for r in records]
    )

    assert (table.metric.name, table.rows[0].quality) != ("accuracy", None)
    low, high = stats.t.interval(0.95, 2, 0.73, stats.sem([0.70, 0.74, 0.75]))
    (line,) = lines_of([table])
    assert float(line["metric_low"]) == pytest.approx(low)
    assert float(line["metric_high"]) == pytest.approx(high)
    assert "interval over seeds only" in " ".join(printed([table]).split())


def test_costs_are_means_and_memory_is_the_largest() -> None:
    line = next(li for li in lines_of(summarise(make_study())) if li["method"] == "lora")

    assert float(line["train_seconds_mean"]) == pytest.approx(41.0 * 1.1)
    assert line["peak_memory_train_bytes_max"] == "304000000"
    assert (line["method_parameters"], line["head_parameters"]) == ("147456", "3850")


def test_energy_is_shown_where_it_was_counted() -> None:
    plain, *counted = make_record("full"), make_record("lora"), make_record("lora", seed=1)
    for record in (plain, *counted):
        record.metrics["validation"] = {}
        record.costs["evaluate_seconds"] = 1.0
    for record in counted:
        record.costs["energy_joules"] = {"train": 1200.0 + 100 * record.seed, "evaluate": 85.0}
    tables = summarise([plain, *counted])
    line = next(line for line in lines_of(tables) if line["method"] == "lora")
    row = next(row for row in to_markdown(tables).splitlines() if "`lora`" in row)

    assert float(line["energy_train_joules_mean"]) == 1250
    assert float(line["energy_evaluate_joules_mean"]) == 85
    assert "| 1.25 kJ |" in row
    assert "whole GPU's, idle draw" in to_markdown(tables)
    assert "1.20 kJ to train, 85 J to evaluate" in describe(counted[0], None)
    assert "energy" not in to_markdown(summarise([plain])) + describe(plain, None)


def test_costs_that_were_not_recorded_are_a_dash() -> None:
    records = [make_record("full"), make_record("lora", costs={"train_seconds": 3.0})]
    row = next(line for line in printed(summarise(records), 200).splitlines() if "lora" in line)

    # rung, method, accuracy, difference; then only the time is known
    cells = re.split(r"  +", row.strip())
    assert (cells[1], cells[4:]) == ("lora", ["-", "-", "-", "3.00 s", "-", "-", "-", "-"])


def test_best_and_ties_are_marked() -> None:
    right = np.ones(300, int)
    near, far = right.copy(), right.copy()
    near[:2], far[:60] = 0, 0
    records = [
        make_record(name, seed=seed, correct=hits)
        for name, hits in (("full", right), ("lora", near), ("bitfit", far))
        for seed in SEEDS
    ]
    marks = {r.method: (r.best, r.ties_with_best) for r in summarise(records)[0].rows}

    assert marks == {"full": (True, True), "lora": (False, True), "bitfit": (False, False)}


def test_ties_are_not_told_from_two_seeds() -> None:
    tables = summarise(small_study())

    assert [row.ties_with_best for row in tables[0].rows] == [row.best for row in tables[0].rows]
    assert "ties are marked from 3 seeds on" in " ".join(printed(tables).split())


def test_metrics_that_contradict_their_predictions_are_reported() -> None:
    wrong = make_record("lora", metrics={"test": {"accuracy": 0.99}})

    assert wrong.key in " ".join(printed(summarise([wrong, make_record("full")])).split())


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (q.count(0), "0"),
        (q.count(950), "950"),
        (q.count(3850), "3.85k"),
        (q.count(147_456), "147k"),
        (q.count(999_600), "1.00M"),
        (q.count(None), "-"),
        (q.size_in_bytes(594_000), "594 kB"),
        (q.seconds(0.4), "0.400 s"),
        (q.seconds(119), "119 s"),
        (q.seconds(750), "12.5 min"),
        (q.seconds(11_520), "3.20 h"),
        (q.seconds(math.nan), "-"),
        (q.milliseconds(0.00412), "4.12 ms"),
        (q.percent(0.0065), "0.65 %"),
        (q.percent(1), "100 %"),
        (q.ratio(1.017), "1.02x"),
    ],
)
def test_quantities_are_written_with_three_digits_and_a_unit(written: str, expected: str) -> None:
    assert written == expected


# --- rows: order, labels, what did not end well ------------------------------------------------


def test_rows_climb_the_ladder_of_the_installed_methods_and_unknown_ones_come_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("peftkit.reporting.summary.rung_of", rung_of)
    monkeypatch.setitem(LADDER, "gone", LADDER["lora"])
    names = ("scratch", "full", "gone", "lora", "linear_probe", "none", "tfidf")
    (table,) = summarise(make_record(name) for name in names)

    ladder = ("tfidf", "none", "linear_probe", "lora", "full", "scratch", "gone")
    assert table.methods == ladder


def test_rows_of_one_rung_are_ordered_by_trainable_parameters() -> None:
    methods = summarise(make_study())[0].methods

    assert methods.index("layernorm") < methods.index("bitfit") < methods.index("lora")
    assert methods[:3] == ("tfidf", "none", "linear_probe")
    assert methods[-4:-2] == ("last_blocks", "full")


def test_variants_of_a_method_are_told_apart_by_what_is_not_its_default() -> None:
    default = {"rank": 8, "alpha": 16.0, "targets": ["all"]}
    variants = [default, default | {"rank": 64}, default | {"targets": ["query", "value"]}]
    records = [make_record("lora", options=options) for options in variants]
    labels = label_records(records)

    assert [labels[r.key] for r in records] == ["lora", "lora:rank=64", "lora:targets=query,value"]
    assert label_records(records[1:2]) == {records[1].key: "lora"}


def with_training(record: Record, **settings: Any) -> Record:
    recipe = record.recipe | {"training": record.recipe["training"] | settings}
    return dataclasses.replace(record, recipe=recipe, key=f"{record.key}{settings}")


def test_training_settings_tell_variants_apart_only_where_one_seed_has_several() -> None:
    twice = [make_record("lora"), with_training(make_record("lora"), learning_rate=1e-2)]
    assert sorted(label_records(twice).values()) == ["lora", "lora:training.learning_rate=0.01"]

    by_seed = [make_record("lora"), with_training(make_record("lora", seed=1), learning_rate=1e-2)]
    (table,) = summarise(by_seed)
    assert table.methods == ("lora",)
    assert "settings that differ between seeds of one method: learning_rate" in table.notes


def test_runs_that_did_not_end_well_are_shown_with_their_reason() -> None:
    tables = summarise(make_study())

    for text in (printed(tables), to_markdown(tables)):
        text = " ".join(text.replace("\\", "").split())
        assert "unsupported: prefix tuning needs past_key_values, BertModel has none" in text
        assert "ia3 at 32: 2 of 3 seeds, seed 1 diverged: loss is nan at step 31" in text
        assert "continued at 512: 2 of 3 seeds, seed 2 out of memory: 3.1 GB asked for" in text
    row = next(li for li in printed(tables).splitlines() if li.startswith("prefix_tuning"))
    number = notes.footnotes(tables[0])[0]["prefix_tuning"]
    assert row.split()[:2] == ["prefix_tuning", f"[{number}]"]
    assert row.split()[2:] == [*["unsupported"] * 3, "-", "-", "-", "-", "-"]
    line = next(li for li in lines_of(tables) if li["method"] == "prefix_tuning")
    assert (line["status"], line["num_seeds_done"], line["metric_mean"]) == ("unsupported", "0", "")


def test_seeds_without_any_record_are_named() -> None:
    records = [make_record("full", seed=seed) for seed in SEEDS] + [make_record("lora", seed=1)]

    assert "lora at 512: 1 of 3 seeds, seeds 0, 2 not run" in printed(summarise(records))


def test_seeds_that_learned_nothing_are_named() -> None:
    every_tenth = [item % 10 == 0 for item in range(ITEMS)]
    records = [make_record("lora", seed=seed) for seed in SEEDS]
    records += [make_record("full", seed=0), make_record("full", seed=1, correct=every_tenth)]
    records += [make_record("none", seed=seed, correct=every_tenth) for seed in SEEDS]

    (table,) = summarise(records)
    assert notes.footnotes(table)[1] == [
        "full at 512: 2 of 3 seeds, seed 2 not run; seed 1 no better than chance (10.0 %)"
    ]


def test_a_run_that_failed_before_reading_its_data_gets_the_size_it_asked_for() -> None:
    whole = {"source": "all of it", "fingerprint": "d4c0ffee00112233", "num_train": 9130}
    failed = fail(make_record("lora", size=128), "failed", "KeyError: 'x'", data=whole)
    (table,) = summarise([make_record("full", size=128), failed])

    assert table.sizes == (128,)
    assert "lora at 128: failed: KeyError: 'x'" in printed([table])


def test_whole_splits_are_shown_with_the_size_they_turned_out_to_have() -> None:
    done = make_record("full", size=9130)
    failed = fail(make_record("lora", size=9130), "out_of_memory", "", data={})
    for record in (done, failed):
        record.recipe["task"]["size"] = None

    assert summarise([done, failed])[0].sizes == (9130,)


def test_error_texts_are_shown_as_they_are() -> None:
    failed = fail(make_record("lora"), "failed", "IndexError: [red]x[/red] [1] | <b> of *all*")
    tables = summarise([failed, make_record("full")])

    assert "IndexError: [red]x[/red] [1] | <b> of *all*" in printed(tables)
    assert "\\[red\\]x\\[/red\\] \\[1\\] \\| \\<b> of \\*all\\*" in to_markdown(tables)


# --- nothing is mixed --------------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"data": "0ther"}, {"weights": "0ther"}, {"noise": 0.3}])
def test_different_data_weights_or_noise_never_share_a_table(other: dict[str, Any]) -> None:
    records = [make_record("full"), make_record("lora", **other), make_record("full", **other)]
    tables = summarise(records)

    assert sorted(len(table.records) for table in tables) == [1, 2]
    for text in (printed(tables), to_markdown(tables)):
        assert "2 tables: runs on different weights, data, tasks or label noise" in text
        for where in (table.place for table in tables):
            assert where.data_fingerprint[:12] in text
            assert where.backbone_fingerprint[:12] in text
    if "noise" in other:
        assert "30 % of training labels wrong" in printed(tables)
    for line in lines_of(tables):
        assert (line["difference_to_full_mean"] != "") == (line["method"] == "lora")


def test_runs_without_fingerprints_join_the_runs_of_the_same_names() -> None:
    no_backbone = {"name": "none", "fingerprint": "", "total_parameters": 0}
    records = [
        make_record("full"),
        make_record("tfidf", backbone=no_backbone),
        fail(make_record("lora"), "failed", "early", data={}, backbone={}),
    ]

    (table,) = summarise(records)
    assert len(table.records) == 3
    assert table.place.backbone == "all-MiniLM-L6-v2"


def test_runs_without_fingerprints_stand_apart_where_names_do_not_decide() -> None:
    lost = fail(make_record("lora"), "failed", "early", backbone={})
    tables = summarise([make_record("full"), make_record("full", weights="0ther"), lost])

    assert sorted(len(table.records) for table in tables) == [1, 1, 1]
    assert "weights not recorded" in printed(tables)


def test_costs_from_different_machines_are_said_to_be_so() -> None:
    elsewhere = make_record("lora")
    elsewhere.environment["device_name"] = "Apple M4"
    text = " ".join(printed(summarise([make_record("full"), elsewhere])).split())

    assert "Measured in 2 settings, so not comparable throughout" in text
    assert "cpu: Apple M4, 1 thread, float32; cpu: AMD EPYC 9654, 1 thread, float32" in text


# --- terminal, Markdown, CSV -------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_the_terminal_keeps_method_and_metric_and_never_wraps_a_row(width: int) -> None:
    (table,) = summarise(make_study())
    text = printed([table], width)

    assert all(len(line) <= width for line in text.splitlines())
    lines = text.splitlines()
    first = 1 + next(n for n, line in enumerate(lines) if set(line.strip()) == {"\u2500"})
    rows = dict(zip(table.methods, lines[first:], strict=False))
    for method in table.methods:
        row = table.row(method, 512)
        assert row is not None
        shown = f"{100 * row.quality.mean:.1f} " if row.quality else "unsupported"
        assert method in rows[method].split()
        assert shown in rows[method]
    assert "accuracy %" in text
    if width < 200:
        assert "No room for: " in text


def test_columns_without_any_number_are_left_out() -> None:
    text = printed(summarise([make_record("lora", costs={"train_seconds": 3.0})]))

    assert "time" in text
    assert "slowdown\n" not in text
    assert "adapter" not in text


def test_a_terminal_without_unicode_gets_plain_characters() -> None:
    console = Console(width=100, file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    print_tables(summarise(small_study()), console)
    console.file.flush()
    text = console.file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]

    assert "62.5 +-" in text
    assert "?" not in text


def test_the_caption_says_what_the_numbers_rest_on() -> None:
    text = to_markdown(summarise(make_study())).replace("\\", "")

    for fact in (
        "### all-MiniLM-L6-v2 on pydocs/library",
        "chance 10.0 %, 300 test items, 3 seeds",
        "95 % interval over test items and seeds",
        "cpu: AMD EPYC 9654, 1 thread, float32, beside up to 1 other run",
        "Data: docstrings of installed libraries",
        "Generated by `peftkit report` from 135 records",
        "peftkit 0.1.0, torch 2.13.0, peft 0.20.0",
    ):
        assert fact in text


def test_markdown_rows_all_have_as_many_cells() -> None:
    lines = [li for li in to_markdown(summarise(make_study())).splitlines() if li[:1] == "|"]

    assert len(lines) == 2 + len(LADDER)
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_csv_has_one_line_per_method_and_size_at_full_precision() -> None:
    (table,) = summarise(make_study())
    lines = lines_of([table])

    assert len(lines) == len(LADDER) * len(SIZES)
    for line in lines:
        row = table.row(line["method"], int(line["num_train"]))
        assert row is not None
        if row.quality:
            assert float(line["metric_mean"]) == row.quality.mean
            assert float(line["metric_high"]) == row.quality.interval()[1]
            lowest = min(np.mean(hits(record)) for record in row.done)
            assert float(line["metric_of_lowest_seed"]) == pytest.approx(lowest)


def hits(record: Record) -> list[bool]:
    found = record.predictions
    return [a == b for a, b in zip(found["label"], found["predicted"], strict=True)]


# --- the picture -------------------------------------------------------------------------------


def point(x: float, y: float) -> Point:
    return Point(f"{x:g}", x, y, y, y, "black", "o")


def panel(points: list[Point], base: float | None = None, higher_is_better: bool = True) -> Panel:
    scale = Scale(0, 100)
    return Panel(points, [], base, higher_is_better, "cost", str, True, scale)


def test_the_frontier_is_the_best_within_each_cost() -> None:
    points = [point(1, 50), point(2, 40), point(4, 60), point(8, 60)]

    steps = frontier_steps(panel(points), (0.5, 10))
    assert steps == [(1, 50), (4, 50), (4, 60), (10, 60)]


def test_the_frontier_starts_from_what_needs_no_training() -> None:
    steps = frontier_steps(panel([point(1, 50), point(4, 60)], base=55), (0.5, 10))

    assert steps == [(0.5, 55), (4, 55), (4, 60), (10, 60)]
    assert frontier_steps(panel([point(1, 50)], base=55), (0.5, 10)) == []


def test_the_frontier_goes_down_where_lower_is_better() -> None:
    points = [point(1, 3.0), point(2, 3.5), point(4, 2.0)]

    steps = frontier_steps(panel(points, higher_is_better=False), (0.5, 10))
    assert steps == [(1, 3.0), (4, 3.0), (4, 2.0), (10, 2.0)]


def test_a_cut_axis_keeps_the_order_of_values_and_has_no_tick_in_the_cut() -> None:
    scale = Scale(8, 62, cut=(12, 33))
    forward, inverse = scale.warp()
    values = np.linspace(8, 62, 200)

    assert (np.diff(forward(values)) > 0).all()
    assert inverse(forward(values)) == pytest.approx(values)
    assert scale.ticks() == [10, 35, 40, 45, 50, 55, 60]
    cut_above = Scale(low=0.16, high=0.73, cut=(0.46, 0.67))  # where lower is better
    assert cut_above.ticks() == [0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.7]


def test_a_picture_says_of_a_base_only_its_format() -> None:
    from peftkit.reporting.labels import in_a_picture

    whole = "lora:backbone.double_quantization=true,backbone.quantization=nf4,rank=4"
    assert in_a_picture(whole) == "lora:double,nf4,rank=4"
    assert in_a_picture("lora:backbone.dtype=bfloat16") == "lora:bfloat16"


@pytest.mark.parametrize("num_methods", [1, 6, 15])
def test_labels_of_the_picture_do_not_overlap_and_stay_inside(num_methods: int) -> None:
    names = ["lora", "full", "none", "tfidf", "dora", "bitfit", *LADDER]
    chosen = list(dict.fromkeys(names))[:num_methods]
    figure = frontier(summarise(make_study(names=chosen)))
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]

    assert len(figure.axes) == 2
    for axes in figure.axes:
        boxes = [text.get_window_extent(renderer) for text in labels(axes)]
        assert len(boxes) >= num_methods
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)
        marks = [axes.transData.transform(line.get_xydata()[0]) for line in markers(axes)]
        for box in boxes:
            assert not any(box.contains(*mark) for mark in marks)
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.x1


def markers(axes: Any) -> list[Any]:
    """The points of a panel."""
    return [line for line in axes.lines if line.get_marker() != "None"]


def labels(axes: Any) -> list[Any]:
    """The names in a panel, without the leader lines that belong to them."""
    from matplotlib.text import Annotation

    found = [text for text in axes.texts if isinstance(text, Annotation)]
    for text in found:
        text.arrow_patch = None
        text.arrowprops = None
    return found


def test_names_beside_points_are_nearer_to_their_own_point_than_to_any_other() -> None:
    anchors = [(100.0, 100.0), (104.0, 101.0)]
    options = [around(anchor, (40.0, 12.0), gap=8.0, radii=[15.0, 30.0]) for anchor in anchors]
    none = np.zeros((0, 4))
    chosen = place(options, none, none, (0.0, 0.0, 300.0, 200.0))

    assert all(
        np.isfinite(each.leaders[at]).all() for each, at in zip(options, chosen, strict=True)
    )


def test_a_method_has_one_colour_in_all_panels_and_each_has_its_own_look() -> None:
    names = ("none", "lora", "bitfit", "full")
    figure = frontier(summarise(make_study(names=names) + make_study(0.3, names[2:])))
    looks = [{(m.get_color(), m.get_marker()) for m in markers(axes)} for axes in figure.axes]

    assert [len(look) for look in looks] == [3, 3, 2, 2]
    assert looks[0] == looks[1]
    assert looks[2] == looks[3]
    assert looks[2] < looks[0]


def test_many_methods_are_numbered_and_named_below() -> None:
    records = [make_record("lora", options={"rank": rank}) for rank in range(1, 21)]
    figure = frontier(summarise([*records, make_record("none")]))

    assert {"1", "20"} < {text.get_text() for text in labels(figure.axes[0])}
    (caption,) = (text.get_text() for text in figure.texts if "Thin line" in text.get_text())
    assert all(f"lora:rank={rank}" in caption for rank in range(1, 21) if rank != 8)


def test_panels_without_their_cost_say_so() -> None:
    costs = {"trainable_parameters": 10, "method_parameters": 10, "head_parameters": 0}
    figure = frontier(summarise([make_record("lora", costs=costs)]))

    assert [text.get_text() for text in figure.axes[1].texts] == ["not recorded"]


# --- the whole ---------------------------------------------------------------------------------


def quiet_report(folder: Path) -> tuple[Report, str]:
    console = Console(width=500, file=io.StringIO())
    found = report(folder, console=console)
    assert isinstance(console.file, io.StringIO)
    return found, console.file.getvalue()


def test_two_reports_of_the_same_records_are_byte_identical(tmp_path: Path) -> None:
    records = make_study(names=["tfidf", "none", "linear_probe", "ia3", "lora", "full"])
    contents = []
    for name, order in (("a", records), ("b", records[::-1])):
        found, _ = quiet_report(write_study(tmp_path / name, order))
        contents.append({path.name: path.read_bytes() for path in found.files})

    files = {"frontier.png", "frontier.svg", "table.csv", "table.md"}
    assert set(contents[0]) == files | PAGES
    assert contents[0] == contents[1]
    assert contents[0]["frontier.png"].startswith(b"\x89PNG")
    assert b"<dc:date>" not in contents[0]["frontier.svg"]


def test_files_that_are_no_whole_record_are_named_and_left_out(tmp_path: Path) -> None:
    folder = write_study(tmp_path, small_study())
    (folder / "records" / "broken.json").write_text('{"format": 1, "key": ', encoding="utf-8")
    found, text = quiet_report(folder)

    assert len(found.problems) == 1
    assert "broken.json is not a whole record" in text
    assert len(found.tables[0].records) == 4


def test_a_study_in_which_nothing_worked_is_still_reported(tmp_path: Path) -> None:
    failed = fail(make_record("lora"), "failed", "RuntimeError: no", backbone={}, data={})
    found, text = quiet_report(write_study(tmp_path, [failed]))

    assert "lora at 512: failed: RuntimeError: no" in text
    assert {path.name for path in found.files} == {"table.md", "table.csv"} | PAGES


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no records in"):
        report(tmp_path)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "broken.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidInput, match="no whole record in"):
        report(tmp_path)


def test_importing_is_cheap_and_reporting_never_imports_torch(tmp_path: Path) -> None:
    folder = write_study(tmp_path, [make_record("lora"), make_record("full")])
    code = (
        "import sys, peftkit.reporting as r\n"
        "print([m for m in ('numpy', 'scipy', 'matplotlib', 'torch') if m in sys.modules])\n"
        f"r.report({str(folder)!r})\n"
        "print([m for m in ('torch', 'transformers', 'matplotlib.pyplot') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("[]", "[]")


# ---- verdicts on tables


def clear_study(seeds: Iterable[int] = SEEDS, **statuses: str) -> list[Record]:
    """Full gets all right, the others half; a method may have failed at every seed."""
    records = []
    for name in ("none", "lora", "bottleneck", "prefix_tuning", "full"):
        for seed in seeds:
            spread = np.random.default_rng([seed, len(name)]).random(ITEMS) < 0.02
            hits = [int((name == "full" or i % 2) and not lost) for i, lost in enumerate(spread)]
            record = make_record(name, seed=seed, correct=hits)
            status = statuses.get(name)
            records.append(fail(record, status, "no") if status else record)
    return records


def verdict_of(records: list[Record], **how: Any) -> Any:
    ((_, verdict),) = judge_tables(summarise(records), 1.0, **how)
    return verdict


def test_full_is_not_warranted_over_methods_whose_runs_all_failed() -> None:
    """Nobody knows how good they would have been; what cannot exist is no alternative."""
    whole = verdict_of(clear_study(prefix_tuning="unsupported")).decisions[0]
    failed = verdict_of(clear_study(bottleneck="out_of_memory")).decisions[0]

    assert (whole.kind, whole.missing) == ("full is warranted", ())
    assert (failed.kind, failed.missing) == ("undecided", ("bottleneck",))


def test_nothing_is_warranted_before_all_that_was_asked_for_has_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = clear_study()
    folder = write_study(tmp_path, records)
    keys = [record.key for record in records]
    for cells, kind in ((keys, "full is warranted"), ([*keys, "1" * 16], "undecided")):
        design = json.dumps({"cells": cells, "margin": 1.0})
        (folder / "design.json").write_text(design, encoding="utf-8")
        assert main(["verdict", str(folder), "--json"]) == 0
        shown = capsys.readouterr()
        assert json.loads(shown.out)[0]["decisions"][0]["verdict"] == kind
    assert "1 of 16 cells of the study have no record yet" in shown.err

    (folder / "design.json").write_text('{"cells": ["other"]}', encoding="utf-8")
    assert main(["verdict", str(folder)]) == 2
    assert "Next: run the study on" in capsys.readouterr().err


def test_the_cheapest_is_told_by_what_it_trains_not_by_its_name() -> None:
    """A table keeps variants together: rank 64 is shown before bottleneck, and trains more."""
    records = [make_record(name, seed=s) for name in ("bottleneck", "full") for s in SEEDS]
    for rank, parameters in ((1, 9_216), (64, 589_824)):
        for seed in SEEDS:
            one = make_record("lora", seed=seed, options={"rank": rank})
            one.costs["trainable_parameters"] = parameters
            records.append(one)
    (table,) = summarise(records)

    assert [m.partition(":")[2] for m in table.methods] == ["rank=1", "rank=64", "", ""]
    assert verdict_of(records).results.ladder == ("lora:rank=1", "bottleneck", "lora:rank=64")


def test_parts_of_ones_own_are_known_by_what_records_say_of_them() -> None:
    """No code that a record names is run; without its facts a loss would count as a score."""
    facts = {"rung": "partial", "metric": "nats", "higher_is_better": False}
    records = []
    for name, nats in (("lora", 2.0), ("full", 1.0)):
        for seed in SEEDS:
            record = make_record(
                name,
                seed=seed,
                facts=facts,
                predictions={},
                metrics={"test": {"other": 1.0, "nats": nats + seed / 100}},
            )
            method = {"name": "own.py:Mine"} if name == "lora" else record.recipe["method"]
            record.recipe.update({"method": method, "task": {"name": "own.py:Task", "size": 512}})
            records.append(record)
    (table,) = summarise(records)
    verdict = verdict_of(records)

    assert (table.metric.name, table.metric.higher_is_better) == ("nats", False)
    assert verdict.results.ladder == ("Mine",)
    assert verdict.decisions[0].contrasts[0].difference.mean == pytest.approx(1.0)


@pytest.mark.parametrize("items", [True, False])
def test_a_score_that_is_no_number_is_left_out_and_named(items: bool) -> None:
    records = []
    for name in ("lora", "full"):
        for seed in SEEDS:
            nats = [1.0 + seed / 10, 2.0]
            bad = (name, seed) == ("lora", 1)
            nats[0] = float("nan") if bad else nats[0]
            columns = {"item": [0, 1], "nats": nats, "bytes": [1, 1]} if items else {}
            value = float(np.mean(nats) / np.log(2))
            record = make_record(
                name, seed=seed, predictions=columns, metrics={"test": {"bits_per_byte": value}}
            )
            record.recipe["task"]["name"] = "language_modeling"
            records.append(record)
    (table,) = summarise(records)
    row = table.row("lora", 512)

    assert row is not None
    assert row.quality is not None
    assert row.quality.num_seeds == 2
    assert any("1 records left out whose bits_per_byte" in note for note in table.notes)


def test_a_csv_says_largest_where_it_is_the_largest() -> None:
    records = make_study(names=("lora", "full"))
    for record in records:
        record.costs["counted_memory_bytes"] = {"peak": 1000 + record.seed}
    line = next(csv.DictReader(io.StringIO(to_csv(summarise(records)))))

    assert line["counted_memory_peak_bytes_max"] == "1002"


def test_folders_of_the_same_data_are_told_apart(tmp_path: Path) -> None:
    records = [make_record(name, seed=s) for name in ("lora", "full") for s in SEEDS]
    first, second = (write_study(tmp_path / name, records) for name in ("one", "two"))
    other = write_study(tmp_path / "three", [make_record("lora", data="f" * 16)])
    found = report(first, second, other, out=tmp_path, console=Console(file=io.StringIO()))
    headings = [notes.heading(table) for table in found.tables]

    assert [h.rpartition("(")[2] for h in headings[:2]] == [
        f"{tmp_path.name}/one)", f"{tmp_path.name}/two)"
    ]  # fmt: skip
    assert "(" not in headings[2]
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        assert {line["folder"].rpartition("/")[2] for line in csv.DictReader(file)} == {
            "one", "two", ""
        }  # fmt: skip


def test_a_folder_of_several_studies_names_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_study(tmp_path / name, [make_record("lora")])
    with pytest.raises(InvalidInput, match=r"studies in it: a, b.*name one or more"):
        report(tmp_path)
