"""`peftkit plan`: which rows there are, how one is made to fit, and what is printed."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conftest import ROOT
from peftkit.cli import main
from peftkit.commands.plan import EXTRAS, make_request
from peftkit.errors import InvalidInput, Unsupported
from peftkit.flags import read_flags
from peftkit.memory import pool
from peftkit.memory.device_terms import DeviceTerms
from peftkit.memory.fitting import NotYet, cheapest
from peftkit.memory.plan import (
    PURE_BF16,
    Cell,
    Outlook,
    Question,
    Row,
    Way,
    cells,
    default_methods,
    outlook,
    recipe_of,
    refusal,
)
from peftkit.memory.prediction import Forecast, Prediction
from peftkit.memory.timeline import Timeline
from peftkit.recipe import Recipe
from peftkit.reporting.planned import PlanTable, Ticker, bar, describe_way, gib, shares

GIB = 2**30
SHAPES = ROOT / "benchmarks" / "shapes"
GPT2 = str(SHAPES / "gpt2.json")
COMMON = {"backbone": "bundled", "task": {"name": "text_classification", "data": "none"}}


def cell(method: str = "lora", precision: Any = "bf16", *, checkpointing: bool = False) -> Cell:
    return Cell(method=method, precision=precision, checkpointing=checkpointing)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Forecast):
    """A forecast that is known by heart: so much at rest, and so much an example."""

    base: int
    each: int
    gradients: int = 0

    def peak(self, batch_size: int) -> Prediction:
        parts: Any = {
            "weights": self.base,
            "gradients": self.gradients,
            "activations": self.each * batch_size,
        }
        peak = sum(parts.values())
        return Prediction(
            peak_bytes=peak, parts=parts, during="backward", reserved_bytes=peak, total_bytes=peak
        )


def linear(base: float, each: float, gradients: float = 0, trainable: int = 10) -> Linear:
    return Linear(
        base=int(base * GIB),
        each=int(each * GIB),
        gradients=int(gradients * GIB),
        trainable_parameters=trainable,
        total_parameters=10**10,
        num_blocks=2,
        timeline=Timeline(),
        traced_blocks=2,
        block={},
        traced_batch=61,
        terms=DeviceTerms(name="test"),
    )


def predicted(place: Cell, base: float, each: float, *, batch: int = 8, limit: int = 24) -> Row:
    """A row of a linear forecast, on a card of 24 GiB."""
    found = linear(base, each)
    ahead = outlook(found, lambda: found, batch_size=batch, limit_bytes=limit * GIB)
    return Row(cell=place, outlook=ahead)


# ---- which rows there are


def test_methods_that_take_gradient_steps_are_found_by_their_files() -> None:
    names = default_methods()

    assert names[:3] == ("lora", "full", PURE_BF16)
    assert set(names[3:]) == {
        "bitfit", "bottleneck", "ia3", "last_layers", "layernorm_tuning", "linear_probe",
        "p_tuning", "prefix_tuning", "prompt_tuning",
    }  # fmt: skip


def test_every_method_has_every_precision_with_and_without_checkpointing() -> None:
    found = cells()
    of_lora = [(c.precision, c.checkpointing) for c in found if c.method == "lora"]

    assert of_lora == [(p, c) for p in ("bf16", "nf4", "int8", "fp32") for c in (False, True)]
    assert len(found) == 11 * 8 + 2  # pure bfloat16 is bfloat16 whatever else
    assert len(set(found)) == len(found)


def test_a_row_is_a_recipe_of_its_precision() -> None:
    recipe = recipe_of(cell(precision="nf4", checkpointing=True), COMMON, {"batch_size": 3})

    assert recipe.backbone.quantization == "nf4"
    assert recipe.backbone.double_quantization
    assert (recipe.backbone.dtype, recipe.training.precision) == ("bfloat16", "bfloat16")
    assert recipe.training.gradient_checkpointing
    assert recipe.training.batch_size == 3


def test_a_label_has_options_of_its_own() -> None:
    recipe = recipe_of(cell("lora:rank=64"), COMMON, {})

    assert recipe.to_dict()["method"]["rank"] == 64


def test_what_a_method_cannot_have_is_known_beforehand() -> None:
    assert "cannot be trained" in str(refusal(cell("full", "nf4")))
    assert "checkpointing" in str(refusal(cell("prefix_tuning", checkpointing=True)))
    assert refusal(cell("lora", "int8", checkpointing=True)) is None


# ---- how a row is made to fit


def test_a_batch_is_split_into_as_few_equal_parts_as_fit() -> None:
    found = linear(base=10, each=3)  # 34 GiB at 8, 22 at 4
    ahead = outlook(found, lambda: found, batch_size=8, limit_bytes=24 * GIB)

    assert not ahead.fits
    assert ahead.largest_batch == 4
    # Ten trained parameters: their gradients stand beside the second half.
    assert ahead.split == Way(batch_size=4, accumulation=2, total_bytes=22 * GIB + 40)


def test_parts_of_a_batch_stand_beside_the_gradients_of_those_before() -> None:
    alone = linear(base=10, each=3, trainable=GIB)
    accumulated = linear(base=10, each=3, gradients=4, trainable=GIB)
    ahead = outlook(alone, lambda: accumulated, batch_size=8, limit_bytes=24 * GIB)

    assert ahead.largest_batch == 4
    assert ahead.split == Way(batch_size=2, accumulation=4, total_bytes=20 * GIB)


def test_a_second_forecast_is_made_only_where_parts_of_a_batch_may_fit() -> None:
    def never() -> Forecast:
        raise AssertionError

    assert outlook(linear(10, 1), never, batch_size=8, limit_bytes=24 * GIB).fits
    assert outlook(linear(25, 1), never, batch_size=8, limit_bytes=24 * GIB).split is None


PLAIN, SAVING, PACKED = cell(), cell(checkpointing=True), cell(precision="nf4")
BOTH = cell(precision="nf4", checkpointing=True)


@pytest.mark.parametrize(
    ("rows", "way"),
    [
        # (base, an example) without and with checkpointing, nf4, nf4 with checkpointing
        ([(10, 3), (10, 0.5), (4, 3), (4, 0.5)], ((), 4, 22)),
        ([(22, 3), (20, 0.25), (4, 1), (4, 0.5)], (("checkpointing",), 8, 22)),
        ([(22, 3), (19, 1), (4, 1), (4, 0.5)], (("checkpointing",), 4, 23)),
        ([(30, 3), (30, 1), (8, 2), (4, 0.5)], (("nf4",), 8, 24)),
        ([(30, 3), (30, 1), (22, 5), (4, 2)], (("nf4", "checkpointing"), 8, 20)),
        ([(30, 3), (30, 1), (22, 5), (15, 2)], (("nf4", "checkpointing"), 4, 23)),
        ([(30, 3), (30, 1), (30, 5), (30, 2)], None),
    ],
)
def test_the_cheapest_change_comes_first(
    rows: list[tuple[float, float]], way: tuple[tuple[str, ...], int, int] | None
) -> None:
    places = (PLAIN, SAVING, PACKED, BOTH)
    found = {p: predicted(p, *values) for p, values in zip(places, rows, strict=True)}
    expected = way and Way(
        changes=way[0],
        batch_size=way[1],
        accumulation=8 // way[1],
        total_bytes=way[2] * GIB + (40 if way[1] < 8 else 0),
    )

    assert cheapest(found[PLAIN], found) == expected


def test_float32_is_left_before_weights_are_packed() -> None:
    wide, half = cell(precision="fp32"), cell()
    found = {wide: predicted(wide, 30, 1), half: predicted(half, 15, 1)}

    assert cheapest(found[wide], found) == Way(
        changes=("bf16",), batch_size=8, accumulation=1, total_bytes=23 * GIB
    )


def test_rows_that_are_unsupported_help_nobody() -> None:
    plain = cell("full")
    packed = cell("full", "nf4")
    rows = {plain: predicted(plain, 30, 3), packed: Row(cell=packed, status="unsupported")}

    assert cheapest(rows[plain], rows) is None


def test_a_row_waits_for_those_that_decide_and_for_no_others() -> None:
    rows = {PLAIN: predicted(PLAIN, 22, 3)}
    with pytest.raises(NotYet):
        cheapest(rows[PLAIN], rows, {SAVING, PACKED})

    rows[SAVING] = predicted(SAVING, 10, 1)
    found = cheapest(rows[PLAIN], rows, {PACKED})
    assert found is not None
    assert found.changes == ("checkpointing",)


# ---- computed in processes, and remembered


def question(**changes: Any) -> Question:
    standard = {"configuration": {"model_type": "bert"}, "length": 16, "batch_size": 8,
                "limit_bytes": 24 * GIB}  # fmt: skip
    return Question(**{**standard, **changes})


def fake_forecast(recipe: Recipe, config: Any, *, length: int, device: str) -> Forecast:
    """LoRA takes little, full fine-tuning much; the rest fails in its own way."""
    name = recipe.to_dict()["method"]["name"]
    if name == "ia3":
        raise Unsupported("not here. Next: elsewhere.")
    if name == "bitfit":
        raise KeyError("surprise")
    return linear({"lora": 4, "full": 40}[name], 1)


FAKE = "test_plan:fake_forecast"


def recipes(*methods: str) -> dict[Cell, Recipe]:
    return {cell(m): recipe_of(cell(m), COMMON, {}) for m in methods}


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_that_cannot_be_told_end_no_others(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipes("lora", "ia3", "bitfit", "full")
    found = list(pool.forecast_rows(asked, question(), forecast=FAKE, workers=workers))
    rows = {row.cell.method: row for row in found}

    assert len(found) == 4
    assert rows["lora"].outlook is not None
    assert rows["lora"].outlook.fits
    assert rows["full"].outlook is not None
    assert not rows["full"].outlook.fits
    assert (rows["ia3"].status, rows["ia3"].reason) == ("unsupported", "not here. Next: elsewhere.")
    assert (rows["bitfit"].status, rows["bitfit"].reason) == ("failed", "KeyError: 'surprise'")


def test_a_configuration_that_transformers_does_not_know_ends_all() -> None:
    asked = question(configuration={"model_type": "bret"})
    with pytest.raises(InvalidInput, match="does not know this architecture"):
        list(pool.forecast_rows(recipes("lora"), asked, forecast=FAKE, workers=0))


def test_answers_are_remembered_for_the_very_same_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(*args: Any, **kwargs: Any) -> Forecast:
        calls.append(1)
        return fake_forecast(*args, **kwargs)

    monkeypatch.setenv("PEFTKIT_CACHE", str(tmp_path))
    monkeypatch.setattr("peftkit.memory.forecast.forecast", counted)

    def rows(**changes: Any) -> list[Row]:
        return list(pool.forecast_rows(recipes("lora", "ia3"), question(**changes), workers=0))

    first = rows()
    assert rows() == first
    assert len(calls) == 2
    rows(length=32)
    assert len(calls) == 4
    rows(terms={"name": "another device"})
    assert len(calls) == 6


def test_a_damaged_memory_is_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTKIT_CACHE", str(tmp_path))
    monkeypatch.setattr("peftkit.memory.forecast.forecast", fake_forecast)
    first = list(pool.forecast_rows(recipes("lora"), question(), workers=0))
    (file,) = (tmp_path / "forecasts").glob("*.json")
    file.write_text('{"outlook": {}}', encoding="utf-8")

    assert list(pool.forecast_rows(recipes("lora"), question(), workers=0)) == first


# ---- what is asked


def request_of(*argv: str) -> Any:
    changes, own = read_flags([*argv], extras=EXTRAS)
    return make_request(changes, own)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 * GIB),
        ("24 gib", 24 * GIB),
        ("80G", 80 * GIB),
        ("80 g", 80 * GIB),
        ("24GB", 24 * 10**9),
        ("24564MiB", 24564 * 2**20),
        ("1.5TiB", 1536 * GIB),
        ("25757220864", 25757220864),
    ],
)
def test_the_memory_of_a_card_may_be_written_as_people_do(text: str, size: int) -> None:
    asked = request_of("--backbone", GPT2, "--methods", "lora", "--gpu", text)

    assert asked.question.limit_bytes == size


@pytest.mark.parametrize(
    ("backbone", "task", "length"),
    [
        (GPT2, "language_modeling", 512),
        (str(SHAPES / "bert-base-uncased.json"), "text_classification", 512),
        ("twin:bert", "text_classification", 128),
        ("twin:t5", "summarization", 512),
    ],
)
def test_task_and_length_follow_from_the_backbone(backbone: str, task: str, length: int) -> None:
    asked = request_of("--backbone", backbone, "--gpu", "8GiB", "--methods", "lora")

    assert asked.recipe.to_dict()["task"]["name"] == task
    assert asked.question.length == length


def test_options_of_a_run_reach_every_row() -> None:
    argv = ["--gpu", "8GiB", "--methods", "lora:rank=4,alpha=8,full", "--batch", "3"]
    asked = request_of(*argv, "--training.optimizer", "lion", "--precisions", "fp32,bf16")

    assert [c.method for c in asked.cells[::4]] == ["lora:rank=4,alpha=8", "full"]
    assert [c.precision for c in asked.cells[:4:2]] == ["bf16", "fp32"]
    assert asked.question.batch_size == 3
    assert {r.training.optimizer for r in asked.recipes.values()} == {"lion"}


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ([], ["memory of the card is missing", "Next: add --gpu 24GiB"]),
        (["--gpu", "big"], ["cannot be read", "Received: --gpu big", "Allowed: such as 24GiB"]),
        (["--gpu", "24"], ["Received: --gpu 24, which is 24 bytes", "Next: write --gpu 24GiB"]),
        (["--gpu", "8GiB", "--batch", "0"], ["training.batch_size", "Received: 0"]),
        (["--gpu", "8GiB", "--lenght", "9"], ["'--lenght'", "Did you mean '--length'?"]),
        (["--gpu", "8GiB", "--length", "0"], ["length must be", "Received: 0"]),
        (["--gpu", "8GiB", "--length", "600"], ["no positions", "Allowed: 1 to 512"]),
        (["--gpu", "8GiB", "--methods", "lorra"], ["Did you mean 'lora'?"]),
        (["--gpu", "8GiB", "--methods", "none"], ["gradient steps 'none'"]),
        (["--gpu", "8GiB", "--method", "lora"], ["--methods A,B"]),
        (["--gpu", "8GiB", "--precisions", "fp16"], ["Did you mean 'bf16'?"]),
        (["--gpu", "8GiB", "--training.optimiser", "lion"], ["Did you mean 'training.optimizer'?"]),
        (
            ["--gpu", "8GiB", "--training.gradient-checkpointing"],
            ["is what the rows of a plan differ in", "Next: leave it out"],
        ),
        (
            ["--gpu", "8GiB", "--backbone.quantization", "nf4"],
            ["is what the rows of a plan differ in"],
        ),
        (["--gpu", "8GiB", "--backbone", "./nowhere"], ["no file or folder './nowhere'"]),
    ],
)
def test_bad_input_is_one_message_and_status_2(
    argv: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *argv]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    for part in parts:
        assert part in shown.err


# ---- what is printed


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "-"), (2**20, "<.01"), (2**28, "0.25"), (24 * GIB, "24.0"), (1500 * GIB, "1500")],
)
def test_sizes_take_at_most_five_characters(size: int, text: str) -> None:
    assert gib(size) == text


def an_outlook(**changes: Any) -> Outlook:
    parts = {"weights": 4 * GIB, "weight_copies": 2 * GIB, "gradients": GIB, "optimizer": 2 * GIB,
             "activations": 2 * GIB, "logits": GIB}  # fmt: skip
    standard = {
        "batch_size": 8, "trainable_parameters": 10, "total_parameters": 1000,
        "peak_bytes": 12 * GIB, "parts": parts, "during": "backward", "reserved_bytes": 13 * GIB,
        "total_bytes": 14 * GIB, "fits": True, "largest_batch": 9, "split": None,
    }  # fmt: skip
    return Outlook(**{**standard, **changes})


def test_shown_parts_add_up_to_the_peak() -> None:
    found = shares(an_outlook())

    assert found == {"W": 6 * GIB, "G": GIB, "O": 2 * GIB, "A": 3 * GIB}
    assert sum(found.values()) == an_outlook().peak_bytes


def test_a_bar_shows_the_card_and_what_is_free_of_it() -> None:
    assert bar(an_outlook(), 28 * GIB, width=28) == "WWWWWWGOOAAAAA.............."
    assert bar(an_outlook(), 12 * GIB, width=12) == "WWWWWWGOOAA>"


def test_a_way_is_told_in_a_few_words() -> None:
    way = Way(changes=("nf4", "checkpointing"), batch_size=2, accumulation=4, total_bytes=20 * GIB)

    assert describe_way(way, 8) == "nf4 + checkpointing + batch 2 x 4 (20.0)"
    assert describe_way(None, 8) == ""


def printed(width: int) -> str:
    out = io.StringIO()
    table = PlanTable(Console(file=out, width=width), 24 * GIB)
    table.head("a backbone", ["batch 8"])
    rows = [
        (Row(cell=cell(), outlook=an_outlook()), None),
        (
            Row(cell=SAVING, outlook=an_outlook(fits=False, total_bytes=30 * GIB)),
            Way(changes=("nf4",), batch_size=4, accumulation=2, total_bytes=GIB),
        ),
        (Row(cell=cell("full", "nf4"), status="unsupported", reason="no. Next: yes."), None),
        (Row(cell=cell("full", "int8"), status="unsupported", reason="no. Next: yes."), None),
    ]
    for row, way in rows:
        table.row(row, way)
    table.foot({row.cell: row for row, _ in rows})
    return out.getvalue()


def test_rows_stand_under_their_method_within_a_hundred_columns() -> None:
    lines = printed(100).splitlines()

    assert max(map(len, lines)) <= 100
    assert lines[3].split() == [
        "base", "ckpt", "card", "peak", "W", "G", "O", "A", "batch", "fits,", "or", "how", "to",
        "make", "it", "fit",
    ]  # fmt: skip
    assert lines[4] == "lora  10 trained, 1.0 %"
    assert lines[5].split() == ["bf16", "-", "14.0", "12.0", "6.00", "1.00", "2.00", "3.00", "9",
                                "yes"]  # fmt: skip
    assert lines[6].endswith("no: nf4 + batch 4 x 2 (1.00)")
    assert lines[7:10] == [
        "full",
        "  nf4   -     unsupported: no.",
        "  int8  -     unsupported, as above",
    ]
    assert lines[-1] == "1 of 2 rows fit; 2 unsupported"


def test_a_wide_terminal_has_room_for_bars() -> None:
    assert "WWWWWWWWWWGG" in printed(200)
    assert "WWWWWWWWWWGG" not in printed(100)


def test_time_left_counts_from_the_first_row_on(monkeypatch: pytest.MonkeyPatch) -> None:
    out, now = io.StringIO(), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    ticker = Ticker(out)
    for moment, done in ((0.1, 1), (10.0, 2), (14.0, 4), (21.0, 6)):
        now[0] = moment
        ticker.show(done, 10)

    # Two rows in the first ten seconds, of which most was the start; four in the next eleven.
    assert out.getvalue().splitlines() == ["2 of 10 rows", "6 of 10 rows, about 11 s left"]


# ---- with real forecasts

SMALL = ["--backbone", "twin:llama", "--length", "16", "--methods"]


def test_json_holds_every_row_with_its_parts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFTKIT_CACHE", str(tmp_path))
    argv = ["plan", *SMALL, "lora,linear_probe,full", "--gpu", "1GiB", "--json"]
    assert main([*argv, "--precisions", "bf16,nf4"]) == 0
    body = json.loads(capsys.readouterr().out)
    rows = {(r["method"], r["precision"], r["gradient_checkpointing"]): r for r in body["rows"]}

    assert len(rows) == 12
    for row in rows.values():
        if row["status"] == "predicted":
            assert sum(row["parts"].values()) == row["peak_bytes"]
            assert row["peak_bytes"] < row["reserved_bytes"] < row["total_bytes"] < 2**30
            assert row["fits"]
    statuses = {key: row["status"] for key, row in rows.items()}
    assert statuses["lora", "nf4", True] == "predicted"
    assert statuses["full", "nf4", False] == "unsupported"
    assert statuses["linear_probe", "bf16", False] == "unsupported"
    assert "failed" not in statuses.values()


@pytest.mark.matrix
def test_the_table_is_the_same_when_rows_are_remembered(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFTKIT_CACHE", str(tmp_path))
    argv = ["plan", *SMALL, "ia3", "--gpu", "530MiB", "--precisions", "bf16"]
    assert main(argv) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(pool, "_in_processes", None)  # it would be missed
    assert main(argv) == 0

    assert capsys.readouterr().out == first
    assert "ia3  " in first


def test_parts_of_one_of_several_batches_make_up_for_all(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves of 4 accumulated batches are 8; the examples of a step stay what was asked for."""
    monkeypatch.setenv("PEFTKIT_CACHE", str(tmp_path))
    argv = ["plan", "--backbone", "twin:llama", "--length", "128", "--batch", "64", "--json"]
    argv += ["--methods", "ia3", "--precisions", "bf16", "--gpu", "585MiB"]
    assert main([*argv, "--training.gradient-accumulation", "4"]) == 0
    ways = [row["way"] for row in json.loads(capsys.readouterr().out)["rows"]]

    assert all(way["batch_size"] < 64 for way in ways)
    assert [way["batch_size"] * way["accumulation"] for way in ways] == [256, 256]
