"""`peftkit check` as people see it: marks, counts, status, and rows token by token."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from peftkit.cli import main
from peftkit.commands.check import examine
from peftkit.recipe import Recipe
from peftkit.reporting.checked import print_rows
from toys import write_lines

TWIN = ["--backbone", "twin:bert"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One test row is a training row."""
    rows = {
        "train": [{"text": f"pay the card {i}", "label": "bank"} for i in range(6)]
        + [{"text": f"plot the axis {i}", "label": "plot"} for i in range(6)],
        "validation": [{"text": "pay my bank", "label": "bank"}, {"text": "axis", "label": "plot"}],
        "test": [{"text": "pay the card 3", "label": "bank"}, {"text": "x y z", "label": "plot"}],
    }
    return write_lines(tmp_path / "data", **rows)


def test_warnings_are_shown_with_counts_and_an_example_and_status_0(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["check", "--task", str(data), *TWIN]) == 0
    shown = capsys.readouterr().out

    assert "! warning  test rows in train" in shown
    assert "1 of 2 test rows (50 %) are also train rows, 1 of them with the same answer" in shown
    assert "test row 0 is train row 3: pay the card 3" in shown
    assert "ok       empty texts" in shown
    assert shown.rstrip().endswith("0 errors, 1 warning")


def test_errors_have_status_1(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (data / "test.jsonl").open("a") as file:
        file.write('{"text": "sail", "label": "ship"}\n')

    assert main(["check", "--task", str(data), *TWIN]) == 1
    shown = capsys.readouterr().out
    assert "error" in shown
    assert "1 error, 0 warnings" in shown


def test_json_holds_every_finding(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--task", str(data), "--json", *TWIN]) == 0
    body = json.loads(capsys.readouterr().out)
    leak = next(each for each in body["findings"] if each["check"] == "test rows in train")

    assert body["backbone"] == "twin:bert"
    assert (leak["level"], leak["count"]) == ("warning", 1)
    assert leak["example"] == "test row 0 is train row 3"


def test_the_options_of_a_run_are_understood(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["check", "--method", "lora", "--task", str(data), "--method.rank", "2", "--size", "4"]
    assert main([*argv, *TWIN]) == 0
    assert "4 train, 2 validation, 2 test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--show", "0"], "nothing to show"),
        (["--shwo", "3"], "--shwo"),
        (["--backbone", "twin:brt"], "Did you mean 'bert'?"),
    ],
)
def test_bad_input_is_one_message_and_status_2(
    data: Path, argv: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--task", str(data), *TWIN, *argv]) == 2
    assert part.removeprefix("--") in capsys.readouterr().err


# ---- rows


def rows_of(
    folder: Path, row: dict[str, Any], task: str, backbone: str, *, colours: bool = False,
    **options: Any,
) -> str:  # fmt: skip
    """What is printed of one training row."""
    folder = write_lines(folder, train=[row] * 3, validation=[row], test=[row])
    recipe = Recipe(
        method="full", task={"name": task, "data": str(folder), **options}, backbone=backbone
    )
    _, _, rows = examine(recipe, show=1)
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=colours, no_color=not colours)
    print_rows(rows, console)
    return out.getvalue()


def test_tagged_words_are_shown_with_their_tags(tmp_path: Path) -> None:
    row = {"tokens": ["visit", "new", "york"], "tags": ["O", "B-place", "I-place"]}
    shown = rows_of(tmp_path, row, "token_classification", "twin:bert")

    # The toy tokenizer knows "new"; of other words the tag stands at the first letter.
    assert "[CLS]|[[ v/O]]| ##i| ##s| ##i| ##t|[[ new/B-place| y/I-place]]| ##o|" in shown


def test_the_span_of_an_answer_is_marked(tmp_path: Path) -> None:
    row = {
        "question": "what is it ?",
        "context": "pay the new card please",
        "answers": {"text": ["new card"], "answer_start": [8]},
    }
    shown = rows_of(tmp_path, row, "question_answering", "twin:bert")

    assert "[SEP]| pay| the|[[ new| card]]| please| [SEP]" in shown


def test_a_decoder_is_shown_what_it_goes_on_with(tmp_path: Path) -> None:
    row = {"source": "pay the card", "target": "my bank"}
    shown = rows_of(tmp_path, row, "translation", "twin:llama")

    assert "card| [SEP]|[[ my| bank| [SEP]]]" in shown


def test_an_encoder_decoder_is_shown_both_sides_even_of_one_length(tmp_path: Path) -> None:
    row = {"source": "pay the", "target": "my bank"}
    shown = rows_of(tmp_path, row, "translation", "twin:t5")

    assert "reads: [CLS]| pay| the| [SEP]" in shown
    assert "writes: [[[CLS]| my| bank| [SEP]]]" in shown


def test_what_stands_behind_a_mask_is_shown(tmp_path: Path) -> None:
    row = {"text": "pay the card to my new bank please"}
    shown = rows_of(tmp_path, row, "language_modeling", "twin:bert")
    tokens = shown.splitlines()[-1].split("|")
    trained = [token for token in tokens if "[[" in token]

    assert len(trained) == 1  # 15 % of eight, rounded
    assert trained[0].strip() in {f"[[ [MASK]/{word}]]" for word in row["text"].split()}


def test_colours_take_the_place_of_brackets(tmp_path: Path) -> None:
    row = {"source": "pay the card", "target": "my bank"}
    shown = rows_of(tmp_path, row, "translation", "twin:llama", colours=True)

    assert "[[" not in shown
    assert "\x1b[1;32m my" in shown
