"""The verdict: its rules, what it reads, and what it says of studies whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from peftkit.cli import main
from peftkit.errors import InvalidInput
from peftkit.statistics.estimates import Estimate, crossed_estimate
from peftkit.statistics.hypotheses import better_by, not_worse
from peftkit.statistics.power import components, items_needed, power, seeds_needed
from peftkit.verdict import LOOKS, Contrast, Results, decide, read_results, wording
from peftkit.verdict.advising import Situation, conclude, weigh
from peftkit.verdict.deciding import Decision, judge
from peftkit.verdict.shares import compare_shares, read_peft_suite

ITEMS = 1500


def answers(accuracy: float, seed: int, *, method: int, seeds_spread: float = 0.002) -> Any:
    """Right or wrong on items whose difficulty all methods share."""
    difficulty = np.random.default_rng(7).random(ITEMS)
    random = np.random.default_rng([seed, method])
    level = accuracy + seeds_spread * random.normal()
    own = 0.04 * random.normal(size=ITEMS)
    return (difficulty + own < level).astype(float)


def study(
    gaps: dict[str, dict[int, float]], *, seeds: int = 4, untrained: frozenset[str] = frozenset()
) -> Results:
    """Full fine-tuning at 80 %, and methods that lie so far below it, by size."""
    sizes = sorted({size for by_size in gaps.values() for size in by_size})
    scores: dict[tuple[str, int], Any] = {}
    for size in sizes:
        scores["full", size] = {s: answers(0.8, s, method=size) for s in range(seeds)}
        for number, (method, by_size) in enumerate(gaps.items(), start=1):
            if size in by_size:
                scores[method, size] = {
                    s: answers(0.8 - by_size[size], s, method=size + number) for s in range(seeds)
                }
    return Results(scores=scores, full="full", ladder=tuple(gaps), untrained=untrained)


# ---- the rules


def contrast(method: str, *, not_worse: float, better: float, seeds: int = 3) -> Contrast:
    difference = Estimate(0.0, 0.01, 5.0, seeds, 100)
    return Contrast(
        method=method, difference=difference, p_not_worse=not_worse, p_full_better=better,
        p_equivalent=1.0,
    )  # fmt: skip


WORSE = {"not_worse": 0.99, "better": 0.01}
ENOUGH = {"not_worse": 0.01, "better": 0.99}
OPEN = {"not_worse": 0.4, "better": 0.4}


@pytest.mark.parametrize(
    ("standings", "kind", "method"),
    [
        ([ENOUGH, ENOUGH], "no training needed", "none"),
        ([WORSE, ENOUGH], "an adapter suffices", "lora"),
        ([OPEN, ENOUGH], "an adapter suffices", "lora"),
        ([WORSE, WORSE], "full is warranted", None),
        ([WORSE, OPEN], "undecided", None),
        ([OPEN, WORSE], "undecided", None),
    ],
)
def test_the_cheapest_that_suffices_is_named(
    standings: list[dict[str, float]], kind: str, method: str | None
) -> None:
    found = [contrast(m, **each) for m, each in zip(("none", "lora"), standings, strict=True)]

    assert judge(found, frozenset({"none"})) == (kind, method)


def test_two_seeds_decide_nothing() -> None:
    found = [contrast("lora", **ENOUGH, seeds=2)]

    assert judge(found, frozenset()) == ("undecided", None)
    assert judge([], frozenset()) == ("undecided", None)
    assert wording.standing(found[0]) == "open"
    others = [contrast("none", **OPEN, seeds=2), contrast("lora", **ENOUGH)]
    assert judge(others, frozenset({"none"})) == ("an adapter suffices", "lora")


def test_full_is_not_warranted_where_a_method_could_not_be_compared() -> None:
    found = [contrast("none", **WORSE)]

    assert judge(found, frozenset({"none"})) == ("full is warranted", None)
    assert judge(found, frozenset({"none"}), complete=False) == ("undecided", None)
    decision = Decision(
        size=64, kind="undecided", method=None, contrasts=tuple(found), missing=("lora",)
    )
    assert wording.headline(decision) == (
        "64 examples: undecided (worse than full: none; no run in common with full: lora)"
    )


def test_as_good_is_said_only_of_what_is_not_worse() -> None:
    """The levels of Holm count for both, or a method would be as good and open at once."""
    found = Contrast(
        method="lora", difference=Estimate(0.0, 0.01, 5.0, 3, 100), p_not_worse=0.1,
        p_full_better=0.9, p_equivalent=0.03,
    )  # fmt: skip

    assert found.is_open
    assert wording.standing(found) == "open"


def test_a_study_with_a_crossover_gives_each_size_its_verdict() -> None:
    gaps = {
        "none": {64: 0.10, 512: 0.20, 4096: 0.30},
        "lora": {64: -0.01, 512: 0.0, 4096: 0.08},
    }
    found = decide(study(gaps, untrained=frozenset({"none"})), 0.02)

    assert [d.kind for d in found.decisions] == [
        "an adapter suffices", "an adapter suffices", "full is warranted",
    ]  # fmt: skip
    assert [d.method for d in found.decisions] == ["lora", "lora", None]
    assert found.crossovers["none"].answer == "from the smallest"
    crossing = found.crossovers["lora"]
    assert crossing.lower is not None
    assert crossing.lower >= 64
    assert crossing.holds(1000)
    assert found.final is found.decisions[-1]


def test_where_nothing_has_to_be_learned_no_training_is_needed() -> None:
    gaps = {"none": {64: 0.0}, "lora": {64: 0.0}}
    found = decide(study(gaps, untrained=frozenset({"none"})), 0.02)

    assert (found.decisions[0].kind, found.decisions[0].method) == ("no training needed", "none")
    assert found.crossovers == {}


def test_an_open_comparison_says_what_would_decide_it() -> None:
    found = decide(study({"lora": {64: 0.006}}, seeds=3), 0.01)
    needs = found.decisions[0].contrasts[0].needs

    assert found.decisions[0].kind == "undecided"
    assert needs is not None
    assert needs.power < 0.8
    assert needs.seeds is None or needs.seeds > 3
    assert needs.items is None or needs.items > ITEMS


@pytest.mark.parametrize(
    ("gap", "claim", "split"), [(0.006, "not worse", 2), (0.0125, "better", 1)]
)
def test_what_would_decide_is_worked_out_from_the_components(
    gap: float, claim: str, split: int
) -> None:
    """At the level of the last look, and by Holm's sharpest threshold where one of two may pass."""
    gaps = {"none": {64: 0.3}, "lora": {64: gap}}
    results = study(gaps, seeds=3, untrained=frozenset({"none"}))
    contrast = decide(results, 0.01, looks=LOOKS).decisions[0].contrasts[1]
    spread = components(results.difference("lora", 64))
    distance, alpha = 0.01 - contrast.difference.mean, LOOKS[-1].alpha / split
    needs, items = contrast.needs, items_needed(spread, distance, 3, alpha=alpha)
    seeds = seeds_needed(spread, distance, ITEMS, alpha=alpha)

    assert needs is not None
    assert needs.claim == claim == ("not worse" if distance > 0 else "better")
    assert needs.power == pytest.approx(power(spread, distance, 3, ITEMS, alpha=alpha))
    assert needs.items == (None if items is None else max(items, ITEMS + 1))
    assert needs.seeds == (None if seeds is None else max(seeds, 4))


def test_no_number_of_items_decides_with_two_seeds() -> None:
    needs = decide(study({"lora": {64: 0.006}}, seeds=2), 0.01).decisions[0].contrasts[0].needs

    assert needs is not None
    assert (needs.items, needs.power) == (None, 0.0)


def test_what_is_shown_of_some_methods_is_said_where_others_are_open() -> None:
    gaps = {"none": dict.fromkeys((64, 256, 512), 0.2), "lora": dict.fromkeys((64, 256, 512), 0.01)}
    found = decide(study(gaps, untrained=frozenset({"none"})), 0.01)

    assert found.decisions[0].worse == ("none",)
    assert wording.headline(found.decisions[0]) == "64 examples: undecided (worse than full: none)"
    said = wording.onset(found.crossovers["none"])
    assert said == "already at the smallest size measured, 64 examples"
    assert said in wording.crossing("none", found.crossovers["none"])


def test_full_fine_tuning_below_no_training_is_not_left_unsaid() -> None:
    untrained = frozenset({"none"})
    for gap, said in ((-0.1, "64 examples full is worse than none"), (0.1, "")):
        found = decide(study({"none": {64: gap}, "lora": {64: gap}}, untrained=untrained), 0.01)
        caution = wording.caution(found, found.decisions[0])
        assert said in caution
        assert bool(caution) == bool(said)


def test_each_look_has_a_level_of_its_own_and_what_was_shown_stays_shown() -> None:
    """At 3 seeds p lies between the level of the first look and 5 %: it is not decided yet."""
    gaps = {"none": {64: 0.10}, "lora": {64: 0.0}}
    results = study(gaps, seeds=8, untrained=frozenset({"none"}))
    at_three = {
        margin: decide(results, margin, looks=LOOKS[:1]).decisions[0]
        for margin in np.arange(0.004, 0.02, 0.0005)
    }
    between = {
        margin: d for margin, d in at_three.items()
        if LOOKS[0].alpha < min(c.p_not_worse for c in d.contrasts) <= 0.05
    }  # fmt: skip

    assert between
    assert {d.kind for d in between.values()} == {"undecided"}
    last = decide(results, min(between), looks=LOOKS).decisions[0]
    assert last.look in LOOKS[1:]
    by_method = {c.method: c for c in last.contrasts}
    assert by_method["none"].difference.num_seeds == 3  # shown at the first look
    assert by_method["none"].alpha == LOOKS[0].alpha


def test_a_look_is_at_the_seeds_that_were_planned_for_it() -> None:
    """A failed run neither shifts later seeds into an early look nor keeps a look from coming."""
    results = study({"lora": {64: 0.02}}, seeds=8)
    scores = {key: dict(by_seed) for key, by_seed in results.scores.items()}
    del scores["full", 64][1]
    failed = {("full", 64): frozenset({1})}
    lost = Results(scores=scores, failed=failed, full="full", ladder=("lora",))
    at = {
        look.seeds: decide(lost, 0.02, looks=(look,)).decisions[0].contrasts[0].difference
        for look in LOOKS
    }

    assert {seeds: found.num_seeds for seeds, found in at.items()} == {3: 2, 5: 4, 8: 7}
    first = np.mean([scores["full", 64][s] - scores["lora", 64][s] for s in (0, 2)])
    assert at[3].mean == pytest.approx(first)
    assert decide(lost, 0.02, looks=LOOKS).decisions[0].look == LOOKS[-1]


def test_sizes_with_other_numbers_of_seeds_share_a_crossover() -> None:
    """An adaptive study adds seeds where it is open, and only there."""
    results = study({"lora": {64: -0.05, 256: 0.0, 1024: 0.05, 4096: 0.1}}, seeds=8)
    scores = {
        (method, size): {s: v for s, v in by_seed.items() if size == 1024 or s < 3}
        for (method, size), by_seed in results.scores.items()
    }
    found = decide(Results(scores=scores, full="full", ladder=("lora",)), 0.01)

    assert found.crossovers["lora"].smallest == 64
    assert found.crossovers["lora"].answer == "between"


def test_a_method_without_runs_in_common_is_named_and_nothing_else() -> None:
    results = study({"lora": {64: 0.0}})
    scores = {**results.scores, ("bitfit", 64): {9: answers(0.8, 9, method=5)}}
    found = decide(Results(scores=scores, full="full", ladder=("bitfit", "lora")), 0.02)

    assert found.decisions[0].missing == ("bitfit",)
    assert found.decisions[0].method == "lora"


def test_a_metric_without_items_is_judged_by_its_seeds() -> None:
    scores = {
        ("full", 8): {s: np.array([0.50 + 0.001 * s]) for s in range(5)},
        ("lora", 8): {s: np.array([0.50 - 0.001 * s]) for s in range(5)},
    }
    found = decide(Results(scores=scores, full="full", ladder=("lora",)), 0.02).decisions[0]

    assert found.kind == "an adapter suffices"
    assert found.contrasts[0].difference.sources == "seeds"


def test_what_does_not_vary_at_all_shows_nothing() -> None:
    """A metric that is 0 for both in every run is broken; it does not show that they are equal."""
    scores = {(m, 8): {s: np.array([0.0]) for s in range(3)} for m in ("full", "lora")}
    (found,) = decide(Results(scores=scores, full="full", ladder=("lora",)), 0.02).decisions

    assert found.kind == "undecided"
    assert wording.p_value(found.contrasts[0].p_not_worse) == "-"
    assert found.contrasts[0].needs is None


def test_no_test_items_are_asked_for_where_the_metric_has_none() -> None:
    scores = {
        ("full", 8): {s: np.array([gap]) for s, gap in enumerate((0.1, -0.1, 0.002))},
        ("lora", 8): {s: np.array([0.0]) for s in range(3)},
    }
    (found,) = decide(Results(scores=scores, full="full", ladder=("lora",)), 1e-4).decisions

    assert "not even 100 seeds would show" in wording.needed(found.contrasts[0].needs)


# ---- results per item from any harness


def write(path: Path, **changes: Any) -> Path:
    cells = [
        {"method": m, "size": 64, "seed": s,
         "correct": [int(x) for x in answers(0.8, s, method=n)]}
        for n, m in enumerate(("lora", "full")) for s in range(3)
    ]  # fmt: skip
    body = {"items": ITEMS, "cells": cells, **changes}
    path.write_text(json.dumps(body), encoding="utf-8")
    return path


def test_results_are_read_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "results.json")
    found = read_results(path)

    assert found.ladder == ("lora",)
    assert found.difference("lora", 64).shape == (3, ITEMS)
    assert main(["verdict", str(path), "--margin", "2"]) == 0
    printed = capsys.readouterr().out
    assert "an adapter suffices: lora" in printed
    assert main(["verdict", str(path), "--margin", "2", "--json"]) == 0
    (body,) = json.loads(capsys.readouterr().out)
    assert body["decisions"][0]["verdict"] == "an adapter suffices"
    contrast = body["decisions"][0]["contrasts"][0]
    estimate = crossed_estimate(found.difference("lora", 64))
    worse, better = not_worse(estimate, 0.02), better_by(estimate, 0.02)
    assert contrast["num_items"] == ITEMS
    assert contrast["difference"] == pytest.approx(estimate.mean)
    assert contrast["standard_error"] == pytest.approx(estimate.standard_error)
    assert (contrast["p_not_worse"], contrast["p_full_better"]) == pytest.approx((worse, better))
    half = 100 * estimate.half_width()
    shown = [f"{100 * estimate.mean:+.2f}", f"{half:.2f}", wording.p_value(worse),
             wording.p_value(better)]  # fmt: skip
    line = next(line for line in printed.splitlines() if line.startswith("lora "))
    assert [word for word in line.split() if word in shown] == shown


def test_scores_may_be_losses(tmp_path: Path) -> None:
    cells = [
        {"method": m, "size": 8, "seed": s, "scores": [level + 0.1 * s, level]}
        for m, level in (("lora", 1.0), ("full", 3.0)) for s in range(3)
    ]  # fmt: skip
    path = write(tmp_path / "r.json", items=["a", "b"], cells=cells, higher_is_better=False)
    found = read_results(path)

    assert found.scale == 1.0
    assert found.difference("lora", 8) == pytest.approx(np.full((3, 2), -2.0))
    assert wording.direction(found).startswith("differences are method minus full")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": 7}, "7 finite numbers"),
        ({"items": None}, "how many test items"),
        ({"cells": []}, "holds no cells"),
        ({"full": "everything"}, "no runs of full fine-tuning"),
        ({"methods": ["lora"]}, "not those of its cells"),
        ({"cells": [{"method": "lora", "size": 64, "seed": 0, "correct": [2] * ITEMS}]},
         "neither right nor wrong"),
        ({"cells": [{"method": "lora", "size": 64, "seed": "0", "correct": [1] * ITEMS}]},
         "cell 0 of .* has no seed"),
        ({"cells": [{"method": "full", "size": 64, "seed": 0, "correct": [1] * ITEMS}] * 2},
         "cell 1 of .* repeats"),
        ({"cells": [{"method": "full", "size": 0, "seed": 0, "correct": [1] * ITEMS}]},
         "has no size"),
        ({"cells": ["full"]}, "is no object"),
        ({"untrained": "none"}, "untrained in .* no list"),
        ({"untrained": ["nothing"]}, "untrained that have no cells"),
        ({"methods": [1, "lora"]}, "methods in .* no list"),
        ({"higher_is_better": "false"}, "whether higher is better"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_results(write(tmp_path / "r.json", **changes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "folder or file is missing"),
        (["nowhere"], "no records in nowhere"),
        (["r.json", "--margin", "0"], "margin is nothing to test"),
        (["r.json", "--size", "3"], "--size"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "r.json")

    assert main(["verdict", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_metric_without_a_known_margin_asks_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [{"method": m, "size": 8, "seed": 0, "scores": [1.0, 2.0]} for m in ("lora", "full")]
    path = write(tmp_path / "r.json", items=2, cells=cells)

    assert main(["verdict", str(path)]) == 2
    assert "add --margin" in capsys.readouterr().err


# ---- published shares


def test_published_shares_are_compared_unpaired() -> None:
    shares = {"full": 0.5, "same": 0.5, "far": 0.3, "near": 0.46}
    found = {each.method: each for each in compare_shares(shares, "full", 1319)}

    # z = .04 / sqrt((.46 x .54 + .25) / 1319) = 2.057, two-sided .0397; times 2 after Holm.
    assert found["near"].p == pytest.approx(0.0397, abs=2e-4)
    assert found["near"].standing(adjusted=False) == "worse"
    assert found["near"].standing(adjusted=True) == "indistinguishable"
    assert found["far"].standing(adjusted=True) == "worse"
    assert found["same"].p == 1.0
    (alike,) = compare_shares({"full": 1.0, "same": 1.0}, "full", 1319)
    assert alike.standing(adjusted=False) == "indistinguishable"
    with pytest.raises(InvalidInput, match="no run of full"):
        compare_shares(shares, "everything", 1319)


def test_results_of_pefts_suite_are_imported(tmp_path: Path) -> None:
    def result(name: str, status: str, accuracy: float) -> None:
        body = {
            "run_info": {"experiment_name": name},
            "train_info": {"status": status, "metrics": [{"step": 1}, {"test accuracy": accuracy}]},
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(body))

    result("lora", "success", 0.4)
    result("broken", "failed", 0.0)
    (tmp_path / "other.json").write_text("[]")

    assert read_peft_suite(tmp_path) == {"lora": 0.4}
    with pytest.raises(InvalidInput, match="no results"):
        read_peft_suite(tmp_path / "nowhere")


# ---- advice


def judged(decisions: dict[int, tuple[str, str | None]], *, noise: float = 0.0) -> Any:
    """A table of one family and task, and a verdict with these decisions."""
    place = SimpleNamespace(backbone="toy", data="toy", task="text_classification",
                            label_noise=noise, folder="")  # fmt: skip
    table = SimpleNamespace(place=place, records=[SimpleNamespace(backbone={"family": "bert"})])
    found = tuple(
        Decision(size=size, kind=kind, method=method, contrasts=())  # type: ignore[arg-type]
        for size, (kind, method) in decisions.items()
    )
    return table, SimpleNamespace(decisions=found)


STUDY = {
    64: ("an adapter suffices", "lora"),
    256: ("an adapter suffices", "bitfit"),
    1024: ("full is warranted", None),
}


@pytest.mark.parametrize(
    ("situation", "kind", "reason"),
    [
        ({"size": 64}, "an adapter suffices", ""),
        ({"size": 100}, "an adapter suffices", ""),
        ({"size": 1024}, "full is warranted", ""),
        ({"size": 500}, None, "at 256 and full is warranted at 1,024"),
        ({"size": 32}, None, "it measured 64 to 1,024"),
        ({"size": 5000}, None, "it measured 64 to 1,024"),
        ({"size": 64, "family": "llama"}, None, "other backbones"),
        ({"size": 64, "task": "translation"}, None, "another task"),
        ({"size": 64, "label_noise": 0.4}, None, "of its labels are wrong"),
    ],
)
def test_advice_reaches_as_far_as_the_evidence(
    situation: dict[str, Any], kind: str | None, reason: str
) -> None:
    asked = Situation(**{"family": "bert", "task": "text_classification", **situation})
    (found,) = weigh(asked, [judged(STUDY)])

    assert found.kind == kind
    assert reason in found.reason
    assert conclude([found])[0] == kind


def test_a_method_is_named_where_both_sizes_name_it() -> None:
    asked = Situation(family="bert", task="text_classification", size=100)

    assert weigh(asked, [judged(STUDY)])[0].method is None
    both = judged({64: ("an adapter suffices", "lora"), 256: ("an adapter suffices", "lora")})
    assert weigh(asked, [both])[0].method == "lora"


def test_studies_that_disagree_give_no_advice() -> None:
    asked = Situation(family="bert", task="text_classification", size=64)
    other = judged({64: ("full is warranted", None)})
    kind, reason = conclude(weigh(asked, [judged(STUDY), other]))

    assert kind is None
    assert "disagree" in reason
    open_ = judged({64: ("undecided", None)})
    assert conclude(weigh(asked, [judged(STUDY), open_])) == ("an adapter suffices", "")


def test_the_nearest_share_of_wrong_labels_counts() -> None:
    asked = Situation(family="bert", task="text_classification", size=64, label_noise=0.3)
    near, far = judged(STUDY, noise=0.3), judged({64: ("full is warranted", None)}, noise=0.2)

    assert [each.kind for each in weigh(asked, [far, near])] == [None, "an adapter suffices"]
    alone = judged(STUDY, noise=0.4)  # .4 - .3 is a little more than .1
    assert weigh(asked, [alone])[0].kind == "an adapter suffices"


def test_advise_wants_its_arguments(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["advise", "--backbone", "twin:bert", "--size", "3"]) == 2
    assert "folder of a study is missing" in capsys.readouterr().err
    assert main(["advise", str(tmp_path), "--size", "3"]) == 2
    assert "--backbone is missing" in capsys.readouterr().err
