"""A comparison killed at any moment and run again gives the same numbers: the real pipeline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from peftkit.record import Record, read_records

METHODS, SEEDS = "none,lora,full", 1
DEADLINE = 200.0  # seconds; generous, because nothing is timed here


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that words give away only in part, so that results differ by run."""
    folder = tmp_path_factory.mktemp("killed") / "data"
    folder.mkdir()
    words = ("pay card bank money", "plot axis index matrix")
    for split, rows in (("train", 60), ("validation", 10), ("test", 40)):
        lines = ["text,label"]
        for i in range(rows):
            mine, other = words[i % 2].split(), words[1 - i % 2].split()
            lines.append(f"{mine[i % 4]} {other[i % 3]} {mine[i % 3]} {i},{'ab'[i % 2]}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def command(data: Path, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "peftkit", "compare", "--methods", METHODS, "--task", str(data),
        "--sizes", "16,32", "--seeds", str(SEEDS), "--backbone", "twin:bert", "--steps", "30",
        "--task.max-length", "16", "--quiet", "--out", str(out),
    ]  # fmt: skip


def quality(out: Path) -> dict[str, Any]:
    """What must not depend on having been killed, by cell."""
    records, problems = read_records(out)
    assert not problems
    return {r.key: (r.status, r.metrics, r.predictions, r.history) for r in records}


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("undisturbed") / "study"
    subprocess.run(command(data, out), check=True, capture_output=True, timeout=DEADLINE)
    found = quality(out)
    assert len(found) == 6
    assert len({str(value[1]) for value in found.values()}) > 3  # else equality says little
    return found


def working_in(out: Path) -> list[int]:
    """Processes whose command or environment names the output folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(out).encode() in told and state != "Z":
            found.append(int(process.name))
    return found


def wait_for(what: str, condition: Any) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.mark.parametrize("whom", ["group", pytest.param("parent", marks=pytest.mark.matrix)])
def test_killed_and_run_again_the_numbers_are_bit_equal(
    whom: str, data: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    out = tmp_path / "study"
    # Workers inherit the mark, so they are found whatever they are called.
    marked = {**os.environ, "PEFTKIT_TEST_MARK": str(out)}
    process = subprocess.Popen(
        command(data, out), env=marked, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for("the first records", lambda: len(list((out / "records").glob("*.json"))) >= 2)
    if whom == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    wait_for("the end of all workers", lambda: not working_in(out))
    before = {path: path.stat().st_mtime_ns for path in (out / "records").glob("*.json")}
    assert 2 <= len(before) < len(undisturbed)

    subprocess.run(command(data, out), check=True, capture_output=True, timeout=DEADLINE)

    assert quality(out) == undisturbed
    for path, written in before.items():
        assert path.stat().st_mtime_ns == written, "a finished cell was run again"
        assert Record.read(path).status == "done"
