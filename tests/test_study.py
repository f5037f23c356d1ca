"""Studies: equal searches, seeds only where the verdict is open, the same verdict after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftkit import Recipe, Record, parts
from peftkit.cli import main
from peftkit.commands.study import make_study
from peftkit.errors import FolderBusy, InvalidInput, UnknownName
from peftkit.study import Study
from peftkit.study.lock import folder_lock
from peftkit.study.rates import Trial, choose, factors
from peftkit.verdict import Verdict
from peftkit.verdict.from_table import read_studied
from toy_runs import FACTS, PRELOAD, TUNED, install, runs


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install("toy_tuned", TUNED, tmp_path, monkeypatch)


def gaps(monkeypatch: pytest.MonkeyPatch, **by_place: float) -> None:
    found = {name.replace("__", "/"): gap for name, gap in by_place.items()}
    monkeypatch.setenv("GAPS", json.dumps(found))


def study(out: Path, **settings: Any) -> Study:
    settings = {"methods": ("lora", "full"), "sizes": (64,), "trials": 1, "workers": 2, **settings}
    return Study(out=out, **settings)


def carry_out(found: Study) -> list[Verdict]:
    return found.run(
        function="toy_tuned:cell", facts=lambda recipe: FACTS, preload=PRELOAD, quiet=True
    )


def test_a_study_ends_with_a_verdict_and_its_command_says_the_same(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gaps(monkeypatch, lora__64=0.0, full__64=0.0)
    (verdict,) = carry_out(study(tmp_path / "out", margin=2.0))

    assert [(d.kind, d.method) for d in verdict.decisions] == [("an adapter suffices", "lora")]
    assert main(["verdict", str(tmp_path / "out")]) == 0  # with the study's own margin
    printed = capsys.readouterr().out
    assert "margin 2 points" in printed
    assert "64 examples: an adapter suffices: lora" in printed


def test_a_study_advises_cases_like_its_own(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gaps(monkeypatch, lora__64=0.0, full__64=0.0)
    carry_out(study(tmp_path / "out", margin=2.0))
    asked = ["advise", str(tmp_path / "out"), "--size", "64", "--json"]
    assert main([*asked, "--backbone", "twin:bert"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main([*asked, "--backbone", "twin:gpt2"]) == 0
    other = json.loads(capsys.readouterr().out)

    assert told["advice"] == "an adapter suffices"
    assert told["evidence"][0]["method"] == "lora"
    assert other["advice"] is None


def test_every_method_has_as_many_trials_and_the_chosen_one_is_not_run_twice(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps(monkeypatch, lora__64=0.0, full__64=0.0)
    monkeypatch.setenv("BEST", json.dumps({"lora": 3.0}))
    carry_out(study(tmp_path / "out", trials=3))

    # Three trials with the seed 0, and the seeds 1 and 2 at the chosen rate.
    assert runs(toys) == sorted(
        f"{method}/64/{seed}" for method in ("lora", "full") for seed in (0, 0, 0, 1, 2)
    )
    chosen = json.loads((tmp_path / "out" / "learning_rates.json").read_text())
    by_method = {entry["method"]: entry for entry in chosen}
    assert by_method["lora"]["chosen"] == pytest.approx(3e-3)
    assert len(by_method["full"]["validation"]) == 3
    recipes = [
        json.loads(path.read_text())["recipe"] for path in (tmp_path / "out/records").glob("*.json")
    ]
    rates = {r["training"]["learning_rate"] for r in recipes if r["method"]["name"] == "lora"}
    assert rates == {3e-3}
    assert len(recipes) == 6


def test_what_a_study_would_run_is_listed_and_nothing_is_written(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps(monkeypatch, lora__64=0.0, full__64=0.0)
    monkeypatch.setenv("BEST", json.dumps({"lora": 3.0}))
    found = study(tmp_path / "out", trials=3, adaptive=True)
    (pair,) = found.pairs
    search, cells = pair.plan(facts=lambda recipe: FACTS)

    assert len(search.waiting) == 6  # two methods, three rates
    assert len(cells.waiting) == 6  # two methods, the three seeds of the first look
    assert not (tmp_path / "out").exists()
    carry_out(found)
    search, cells = pair.plan(facts=lambda recipe: FACTS)
    assert not search.waiting
    assert not cells.waiting
    (rate,) = {c.recipe.learning_rate for c in cells.cells if c.label == "lora"}
    assert rate == pytest.approx(3e-3)


def test_an_adaptive_study_adds_seeds_only_where_it_is_open(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps(
        monkeypatch, none__64=0.3, lora__64=0.0, full__64=0.0, none__256=0.3, lora__256=0.02,
        full__256=0.0,
    )  # fmt: skip
    methods = ("none", "lora", "full")
    (verdict,) = carry_out(
        study(tmp_path / "out", methods=methods, sizes=(64, 256), margin=2.0, adaptive=True)
    )
    counted = {
        (name, size): sum(run.startswith(f"{name}/{size}/") for run in runs(toys))
        for name in methods for size in (64, 256)
    }  # fmt: skip

    assert [d.kind for d in verdict.decisions] == ["an adapter suffices", "undecided"]
    assert {counted[name, 64] for name in methods} == {3}
    assert counted["none", 256] == 3  # beaten at the first look
    assert counted["lora", 256] == counted["full", 256] == 8
    skipped = json.loads((tmp_path / "out" / "design.json").read_text())["skipped"]
    assert {(each["method"], each["size"]) for each in skipped} == {
        ("none", 64), ("lora", 64), ("full", 64), ("none", 256),
    }  # fmt: skip
    before = runs(toys)
    again = carry_out(
        study(tmp_path / "out", methods=methods, sizes=(64, 256), margin=2.0, adaptive=True)
    )
    assert again[0].decisions == verdict.decisions
    assert runs(toys) == before


def test_a_study_that_lost_records_comes_to_the_same_verdict(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps(monkeypatch, lora__64=0.005, full__64=0.0)
    settings: dict[str, Any] = {"margin": 2.0, "adaptive": True, "trials": 3}
    (first,) = carry_out(study(tmp_path / "out", **settings))
    records = sorted((tmp_path / "out").glob("*/*.json"))
    for path in records[::2]:
        path.unlink()
    (second,) = carry_out(study(tmp_path / "out", **settings))

    assert second.decisions == first.decisions
    assert sorted((tmp_path / "out").glob("*/*.json")) == records


def test_one_size_is_searched_and_serves_all_and_each_has_its_steps(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps(monkeypatch, lora__64=0.0, full__64=0.0, lora__256=0.0, full__256=0.0)
    monkeypatch.setenv("BEST", json.dumps({"lora": 3.0}))
    carry_out(
        study(
            tmp_path / "out", sizes=(64, 256), steps=(10, 20), trials=3, search_at=64,
            noises=(0.0, 0.2), noise_at=(256,),
        )
    )  # fmt: skip

    recipes = [
        json.loads(path.read_text())["recipe"] for path in (tmp_path / "out/records").glob("*.json")
    ]
    of_lora = [each for each in recipes if each["method"]["name"] == "lora"]
    assert {each["training"]["learning_rate"] for each in of_lora} == {3e-3}
    assert {
        (r["task"]["size"], r["task"]["label_noise"], r["training"]["steps"]) for r in of_lora
    } == {
        (64, 0.0, 10), (256, 0.0, 20), (256, 0.2, 20),
    }  # fmt: skip
    assert sum(run == "lora/64/0" for run in runs(toys)) == 3
    assert sum(run.startswith("lora/256") for run in runs(toys)) == 6


def test_an_adaptive_study_of_fewer_seeds_goes_on_with_more(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps(monkeypatch, lora__64=0.02, full__64=0.0)
    few = study(tmp_path / "out", margin=2.0, adaptive=True, seeds=4)
    (first,) = carry_out(few)
    assert {look.seeds for look in few.looks} == {3}
    assert len(runs(toys)) == 6
    (after,) = carry_out(study(tmp_path / "out", margin=2.0, adaptive=True, seeds=5))
    assert (first.decisions[0].num_seeds, after.decisions[0].num_seeds) == (3, 5)
    assert len(runs(toys)) == 10  # what was there is not run again


def test_a_study_is_judged_by_what_it_asks_for_now(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records of earlier settings stay in the folder, and out of tables and verdict."""
    gaps(monkeypatch, lora__64=0.0, full__64=0.1)
    carry_out(study(tmp_path / "out", training={"steps": 10}, margin=2.0))
    gaps(monkeypatch, lora__64=0.1, full__64=0.0)
    (now,) = carry_out(study(tmp_path / "out", training={"steps": 100}, margin=2.0))

    assert now.decisions[0].kind == "full is warranted"
    found = read_studied(tmp_path / "out")
    ((table, verdict),) = found.verdicts
    assert verdict.decisions == now.decisions
    assert {row.method for row in table.rows} == {"lora", "full"}
    assert "6 records" in found.problems[0]


def test_what_does_not_change_results_does_not_run_anything_again(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are found by what decides results, not by the letter of their recipes."""
    gaps(monkeypatch, lora__64=0.0, full__64=0.0)
    settings: dict[str, Any] = {"trials": 3, "adaptive": True, "margin": 2.0}
    (first,) = carry_out(study(tmp_path / "out", **settings))
    done = runs(toys)
    (again,) = carry_out(study(tmp_path / "out", training={"save_every": 10}, **settings))

    assert runs(toys) == done
    assert again.decisions == first.decisions


def test_two_studies_do_not_write_into_one_folder(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps(monkeypatch, lora__64=0.0, full__64=0.0)
    carry_out(study(tmp_path / "out", margin=2.0))
    design = (tmp_path / "out" / "design.json").read_bytes()
    with folder_lock(tmp_path / "out", ".study.lock"), pytest.raises(FolderBusy):
        carry_out(study(tmp_path / "out", margin=9.0))

    assert (tmp_path / "out" / "design.json").read_bytes() == design


def test_one_run_under_two_names_is_refused(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps(monkeypatch, lora__64=0.0, full__64=0.0)
    default = parts.load("method", "lora").learning_rate
    twice = ("lora", f"lora:training.learning_rate={default:g}", "full")
    with pytest.raises(InvalidInput, match="are the same"):
        carry_out(study(tmp_path / "out", methods=twice))
    assert runs(toys) == []


def test_weights_of_the_trial_that_is_chosen_are_those_of_its_cell(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps(monkeypatch, lora__64=0.0, full__64=0.0)
    monkeypatch.setenv("SAVED", "yes")
    carry_out(study(tmp_path / "out", trials=3, keep_weights="all"))

    records = {path.stem for path in (tmp_path / "out/records").glob("*.json")}
    assert len(records) == 6
    assert {path.name for path in (tmp_path / "out/models").iterdir()} == records
    assert list((tmp_path / "out/search/models").iterdir()) == []


def test_where_full_never_ends_well_no_more_seeds_are_run(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps(monkeypatch, lora__64=0.0)  # the toy fails at places that it has no gap for

    assert carry_out(study(tmp_path / "out", adaptive=True)) == []
    assert runs(toys) == sorted(f"{m}/64/{s}" for m in ("lora", "full") for s in range(3))


def test_several_tasks_have_folders_and_verdicts_of_their_own(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps(monkeypatch, lora__64=0.0, full__64=0.0)
    found = study(tmp_path / "out", tasks=("pydocs/library", "pydocs/parameters"))

    assert [pair.out.name for pair in found.pairs] == ["bundled_library", "bundled_parameters"]


def test_a_study_is_read_from_a_file_and_flags(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "methods: [none, lora, full]\nsizes: [64, all]\nseeds: 4\ntraining: {batch_size: 4}\n"
        "steps: [10, 20]\nsearch_at: 64\n"
        f"out: {tmp_path / 'out'}\n"
    )
    found, _, quiet = make_study(
        [str(path), "--margin", "2", "--seeds", "5", "--noise-at", "64,all", "--quiet"]
    )
    assert (found.steps, found.search_at, found.noise_at) == ([10, 20], 64, [64, "all"])

    assert (found.sizes, found.seeds, found.margin, quiet) == ([64, "all"], 5, 2.0, True)
    assert found.pairs[0].out == tmp_path / "out"
    found, _, _ = make_study(
        ["--task", "text_classification", "--tasks", "a.csv,b.csv", "--out", str(tmp_path)]
    )
    assert [pair.task["data"] for pair in found.pairs] == ["a.csv", "b.csv"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": 0.0}, "margin is nothing"),
        ({"tasks": ("pydocs/text",)}, "no margin is known"),
        ({"trials": 2}, "an odd number"),
        ({"steps": (10, 20)}, "as many numbers of steps"),
        ({"search_at": 65}, "search_at is none"),
        ({"noise_at": (65,)}, "noise_at is none"),
        ({"adaptive": True, "seeds": 2}, "certain numbers of seeds"),
        ({"methods": ("lora", "fool")}, "fool"),
        ({"tasks": ("pydocs/library", "pydocs/library")}, "the same name"),
        ({"tasks": ()}, "no tasks"),
        ({"seeds": 0}, "no seeds|at least 1"),
        ({"methods": ("none", "lora")}, "compares full fine-tuning with cheaper"),
        ({"methods": ("full", "scratch")}, "compares full fine-tuning with cheaper"),
        ({"sizes": (64, 64), "steps": (10, 20)}, "several numbers of steps"),
    ],
)
def test_a_wrong_study_is_refused_before_anything_runs(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((InvalidInput, UnknownName), match=message):
        study(tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("method: [lora]\n")
    with pytest.raises(UnknownName, match="methods"):
        make_study([str(path)])
    path.write_text("methods: lora\n")
    with pytest.raises(InvalidInput, match="no list"):
        make_study([str(path)])


@pytest.mark.parametrize(
    "line",
    [
        "methods: [1]", "methods: [{name: lora}]", "trials: 3.5", "seeds: 2.5", "tasks: [null]",
        "sizes: [[1]]", "adaptive: no way", "out: 5", "engine: 3", "training: 3", "steps: [x]",
    ],
)  # fmt: skip
def test_a_value_of_a_file_that_does_not_fit_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(line + "\n")

    with pytest.raises((InvalidInput, UnknownName), match=f"{line.partition(':')[0]} of "):
        make_study([str(path)])


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("margin: 5e-1\ntrials: 3\nmethods: [none, full]\n")

    assert make_study([str(path)])[0].margin == 0.5


def test_a_launcher_of_several_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for command in ("study", "compare"):
        assert main([command]) == 2
        assert "processes of its own" in capsys.readouterr().err


def test_factors_lie_around_the_default() -> None:
    assert factors(1) == [1.0]
    assert factors(3) == pytest.approx([1 / 3, 1.0, 3.0])


def test_of_losses_the_lowest_is_chosen_and_a_failure_never(tmp_path: Path) -> None:
    recipe = Recipe(
        method="lora", backbone="twin:gpt2", task={"name": "language_modeling", "data": "x"}
    )
    found = {1e-3: ("done", 2.0), 3e-3: ("done", 1.0), 1e-2: ("diverged", None),
             3e-2: ("done", float("nan"))}  # fmt: skip
    trials = [Trial("lora", 64, rate, recipe, rate == 1e-3) for rate in found]
    records = [
        Record(
            key="k", recipe=recipe.to_dict(), status=status,
            metrics={} if value is None else {"validation": {"bits_per_byte": value}},
        )
        for status, value in found.values()
    ]  # fmt: skip

    assert choose(trials, records, tmp_path) == {("lora", 64): 3e-3}
