"""The commands, in the forms the README promises, on a tiny twin."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peftkit.cache import cache_folder
from peftkit.cli import COMMANDS, USAGE, main
from peftkit.record import Record

TWIN = ["--backbone", "twin:bert", "--steps", "3", "--task.max-length", "16"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes that single words give away; a test split of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split, rows in (("train", 40), ("validation", 10), ("test", 20)):
        lines = ["text,label"]
        lines += [f"pay the card {i},bank" for i in range(rows // 2)]
        lines += [f"plot the axis {i},plot" for i in range(rows // 2)]
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def finished(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "run"
    argv = ["run", "--method", "lora", "--task", str(data), "--size", "8", "--out", str(out), *TWIN]
    assert main(argv) == 0
    capsys.readouterr()
    return out


def test_every_command_is_in_the_usage() -> None:
    for command in COMMANDS:
        assert f"peftkit {command}" in USAGE


def test_list_imports_neither_torch_nor_anything_installed() -> None:
    code = (
        "import sys; from peftkit.cli import main; main(['list'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "lora" in done.stdout
    assert "pydocs/library" in done.stdout


def test_run_leaves_an_adapter_and_its_record(finished: Path) -> None:
    assert (finished / "adapter_model.safetensors").is_file()
    assert Record.read(finished / "record.json").status == "done"


def test_run_does_not_overwrite_a_finished_run(
    finished: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "record.json").read_bytes()

    status = main(["run", "--method", "lora", "--task", str(data), "--out", str(finished), *TWIN])

    assert status == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (finished / "record.json").read_bytes() == before


def test_predict_answers_texts_and_lines_of_standard_input(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["predict", str(finished), "--text", "pay the card", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["label"] in {"bank", "plot"}
    assert 0.5 <= answer["probability"] <= 1.0


def test_evaluate_repeats_the_test_metrics_of_the_record(
    finished: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(finished), "--data", str(data / "test.csv"), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    record = Record.read(finished / "record.json")

    assert metrics.pop("num_rows") == 20
    assert metrics == pytest.approx(record.metrics["test"])


def test_evaluate_refuses_a_label_that_the_run_does_not_know(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.csv"
    other.write_text("text,label\npay,bank\nsail,ship\n", encoding="utf-8")

    assert main(["evaluate", str(finished), "--data", str(other)]) == 2
    message = capsys.readouterr().err
    assert "'ship'" in message
    assert "bank, plot" in message


def test_an_adapter_is_refused_on_another_backbone(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = finished / "peftkit.json"
    body = json.loads(manifest.read_text(encoding="utf-8"))
    body["backbone"]["fingerprint"] = "0" * 64
    manifest.write_text(json.dumps(body), encoding="utf-8")

    assert main(["predict", str(finished), "--text", "pay"]) == 2
    assert "--allow-other-base" in capsys.readouterr().err
    assert main(["predict", str(finished), "--text", "pay", "--allow-other-base"]) == 0


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["rnu"], ["unknown command 'rnu'", "Did you mean 'run'?"]),
        (["list", "method"], ["Did you mean 'methods'?"]),
        (["run", "--method", "lorra", "--task", "pydocs/library"], ["Did you mean 'lora'?"]),
        (
            ["run", "--method", "lora", "--task", "pydocs/library", "--method.rnak", "4"],
            ["method.rnak", "Did you mean", "rank"],
        ),
        (["run", "--method", "lora"], ["no task", "--task"]),
        (["predict"], ["the folder is missing"]),
        (["predict", "nowhere", "--text", "a"], ["not the folder of a finished run"]),
        (["report", "nowhere"], ["no records in nowhere", "peftkit compare"]),
        (["compare", "--seeds", "two", "--dry-run"], ["seeds cannot be read", "'two'"[1:-1]]),
        (["run", "--method", "lora", "--task", "nowhere.csv"], ["nowhere.csv"]),
    ],
)
def test_bad_input_is_one_message_and_status_2(
    argv: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    for part in parts:
        assert part in shown.err


def test_a_refused_run_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """But one that was there stays."""
    there = tmp_path / "there"
    there.mkdir()
    task = ["--task", "text_classification", "--task.data", str(tmp_path / "nowhere.csv")]
    for out in (tmp_path / "new", there):
        assert main(["run", "--method", "lora", *task, "--out", str(out)]) == 2
    assert "nowhere.csv" in capsys.readouterr().err

    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_gated_backbone_says_what_opens_it() -> None:
    from huggingface_hub.errors import GatedRepoError

    from peftkit.backbones._locate import unreachable

    error = OSError("cannot be fetched")
    answer: Any = SimpleNamespace(headers={}, request=None, status_code=403)
    error.__cause__ = GatedRepoError("403: restricted", response=answer)

    assert "accept the licence" in str(unreachable("backbone 'a/b'", error, allowed="a folder"))


@pytest.mark.parametrize(
    ("argv", "step"),
    [(["verdict", "x", "--margin", "abc"], "the same command with --help"),
     (["run", "--method", "lora", "--method.rank", "x", "--task", "pydocs/library"],
      "`peftkit run --method NAME --help`")],
)  # fmt: skip
def test_a_wrong_value_names_the_help_that_explains_it(
    capsys: pytest.CaptureFixture[str], argv: list[str], step: str
) -> None:
    assert main(argv) == 2
    assert f"Next: {step}" in capsys.readouterr().err


def test_a_backbone_that_cannot_be_reached_is_named(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["run", "--method", "lora", "--task", str(data), "--backbone", "bert-base-uncased"]
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert "bert-base-uncased" in message
    assert "HF_HUB_OFFLINE" in message


def test_a_learning_rate_that_diverges_is_said_with_status_1(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["run", "--method", "full", "--task", str(data), "--learning-rate", "1e9",
            "--backbone", "twin:bert", "--steps", "30", "--task.max-length", "16"]  # fmt: skip
    assert main(argv) == 1
    assert "--training.learning-rate" in capsys.readouterr().err


@pytest.mark.matrix  # the demo of the README; `test_killed` runs real cells as well
def test_compare_and_report_make_the_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    argv = ["compare", "--methods", "none,lora,full", "--task", str(data), "--sizes", "8,16",
            "--seeds", "2", "--out", str(out), "--quiet", *TWIN]  # fmt: skip
    assert main([*argv, "--dry-run"]) == 0
    assert "12 cells, 12 to run" in capsys.readouterr().out
    assert main(argv) == 0
    shown = capsys.readouterr().out

    assert len(list((out / "records").glob("*.json"))) == 12
    for method in ("none", "lora", "full"):
        assert method in shown
    for name in ("table.md", "table.csv", "frontier.svg", "frontier.png"):
        assert (out / name).stat().st_size > 0
    assert main(["report", str(out)]) == 0
    assert main([*argv, "--dry-run"]) == 0
    assert "12 cells, 0 to run" in capsys.readouterr().out


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "peftkit", "--version"],
        capture_output=True, text=True, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith("peftkit ")


def test_help_shows_the_options_of_the_named_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--method", "lora", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--method.rank" in shown
    assert "--training.learning-rate" in shown


def test_the_method_that_the_readme_writes_runs(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = [b.partition("```")[0] for b in readme.split("```python\n")[1:]]
    (source,) = [block for block in blocks if "class LastBlock" in block]
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    method, out = f"{tmp_path / 'mine.py'}:LastBlock", tmp_path / "mine"

    argv = ["run", "--method", method, "--task", str(data), "--out", str(out), *TWIN]
    assert main(argv) == 0
    record = Record.read(out / "record.json")

    assert 0 < record.costs["method_parameters"] < record.backbone["total_parameters"]
    assert main(["predict", str(out), "--text", "pay"]) == 0


def test_doctor_tells_what_will_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = dict(re.split(r"  +", line, maxsplit=1) for line in lines)

    assert told["version of torch"] == torch.__version__
    assert told["cache"] == str(cache_folder())
    assert told["hub"].startswith("offline")
    assert told["device"].partition(":")[0] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert {"precision", "workers", "bitsandbytes", "bundled backbone"} <= set(told)
