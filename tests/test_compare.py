"""Comparisons: one record a cell, whatever happens; nothing finished is lost, repeated or mixed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import peftkit
from peftkit.errors import FolderBusy, InvalidInput, UnknownName
from peftkit.record import Record
from peftkit.study import Comparison, FolderUnwritable
from peftkit.study.folder import StudyFolder
from peftkit.study.grid import parse_label
from peftkit.study.lock import folder_lock
from peftkit.study.models import KeptModels
from peftkit.study.timings import Timings
from toy_runs import FACTS, PRELOAD, install, runs

REPOSITORY = Path(peftkit.__file__).parents[1]
PATIENCE = 60.0  # seconds that a promise may take on a machine that does other things too

# A run does what FATES says of "method/size/seed": a status, an error, a metric, or to wait.
TOYS = """
import json, os, signal, time
from pathlib import Path
from peftkit.errors import Diverged, InvalidInput, Unsupported
from peftkit.record import Record
from peftkit.study.cell import run_cell

ERRORS = {
    "unsupported": Unsupported("no such layer"),
    "diverged": Diverged("loss is nan"),
    "memory": MemoryError(),
    "torch-memory": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 GB"),
    "cuda-memory": type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
    "bug": KeyError("what"),
    "leave": SystemExit(2),
    "disk": OSError(28, "No space left on device", "model.safetensors"),
}

def run(recipe, out, *, save_weights, progress, features_folder, force):
    name = f"{recipe.to_dict()['method']['name']}/{recipe.task.size}/{recipe.seed}"
    with open(os.environ["TOY_FOLDER"] + "/runs", "a") as file:
        file.write(name + "\\n")
    fate = json.loads(os.environ.get("FATES", "{}")).get(name, 0.5)
    progress(1, 2, "training")
    if save_weights:
        out.mkdir(parents=True)
        (out / "weights").write_text(name)
    if fate == "wait":
        Path(os.environ["TOY_FOLDER"], f"waiting-{os.getpid()}").touch()
        time.sleep(1000)
    if fate == "kill":
        print("about to be killed", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "die-writing":
        def stop(descriptor):
            Path(os.environ["TOY_FOLDER"], f"waiting-{os.getpid()}").touch()
            time.sleep(1000)
        os.fsync = stop
    if fate == "disk-at-record":
        def full(self, path):
            raise OSError(28, "No space left on device", str(path))
        Record.write = full
    if fate in ERRORS:
        raise ERRORS[fate]
    value = fate if isinstance(fate, float) else 0.5
    return Record(
        key="set by the cell", recipe=recipe.to_dict(), status="done",
        metrics={"validation": {"accuracy": value}, "test": {"accuracy": value}},
        data={"fingerprint": "d" * 8, "num_train": recipe.task.size},
    )

def cell(payload, progress):
    return run_cell(payload, progress, run=run)
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the search path, with the module `toy_study` in it."""
    return install("toy_study", TOYS, tmp_path, monkeypatch)


@pytest.fixture
def fates(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Decide what becomes of runs, by "method/size/seed"."""
    return lambda **by_name: monkeypatch.setenv(
        "FATES", json.dumps({name.replace("__", "/"): fate for name, fate in by_name.items()})
    )


def comparison(out: Path, methods: Sequence[str] = ("none", "lora"), **settings: Any) -> Comparison:
    settings = {"sizes": (32,), "seeds": 1, "workers": 2, **settings}
    return Comparison(methods=methods, out=out, **settings)


def carry_out(comparison: Comparison, **options: Any) -> list[Record]:
    options = {"facts": lambda recipe: FACTS, "quiet": True, **options}
    return comparison.run(function="toy_study:cell", preload=PRELOAD, **options)


def traces(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every record."""
    found = {path.stem: path.stat() for path in (out / "records").glob("*.json")}
    return {key: (stat.st_ino, stat.st_mtime_ns) for key, stat in found.items()}


def leftovers(out: Path) -> list[str]:
    return [str(path) for path in out.rglob(".*") if path.name != ".lock"]


def wait_for(promise: Callable[[], Any], what: str) -> Any:
    """Poll until `promise` is kept, and return its value."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if value := promise():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE:g} s in vain until {what}")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@contextlib.contextmanager
def parent(toys: Path, out: Path, fates: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """A comparison of none, lora and full in a process group of its own, two cells at a time."""
    script = toys / "script.py"
    script.write_text(f"""
from peftkit.study import Comparison
comparison = Comparison(methods=["none", "lora", "full"], sizes=[32, 64], seeds=1, workers=2,
                        out={str(out)!r})
comparison.run(function="toy_study:cell", facts=lambda recipe: {FACTS!r}, preload=())
""")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{toys}{os.pathsep}{REPOSITORY}",
        "FATES": json.dumps(fates),
    }
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


SAME = {"methods": ("none", "lora", "full"), "sizes": (32, 64), "seeds": 1}


def waiting(toys: Path, count: int) -> list[int]:
    """The ids of `count` workers whose cells wait for ever."""
    found: list[int] = wait_for(
        lambda: (
            len(names := list(toys.glob("waiting-*"))) == count
            and [int(name.name.partition("-")[2]) for name in names]
        ),
        f"{count} cells wait",
    )
    return found


# What is run


def test_there_is_one_record_for_every_cell(toys: Path, tmp_path: Path) -> None:
    records = carry_out(
        comparison(tmp_path / "out", sizes=(32, 64), seeds=[3, 5], noises=(0.0, 0.2))
    )

    cells = {(r.method, r.size, r.seed, r.recipe["task"]["label_noise"]) for r in records}
    assert cells == {
        (method, size, seed, noise)
        for method in ("none", "lora")
        for size in (32, 64)
        for seed in (3, 5)
        for noise in (0.0, 0.2)
    }
    assert len(records) == 16
    assert all(record.status == "done" for record in records)
    for record in records:
        assert Record.read(tmp_path / "out" / "records" / f"{record.key}.json") == record
        assert record.environment["neighbours"] == 1
        assert record.costs["cell_seconds"] > 0


def test_small_sizes_come_first_then_seeds_and_long_cells_before_short(tmp_path: Path) -> None:
    plan = comparison(
        tmp_path, ("none", "full", "lora", "linear_probe"), sizes=("all", 64, 32), seeds=2
    ).plan(facts=lambda recipe: FACTS)

    groups = [(cell.size, cell.recipe.seed) for cell in plan.cells[::4]]
    assert groups == [(32, 0), (32, 1), (64, 0), (64, 1), (None, 0), (None, 1)]
    for start in range(0, 24, 4):
        labels = [cell.label for cell in plan.cells[start : start + 4]]
        assert labels == ["full", "lora", "linear_probe", "none"]


@pytest.mark.parametrize(
    ("label", "name", "changes"),
    [
        ("lora", "lora", {}),
        ("lora:rank=4,alpha=8", "lora", {"method.rank": "4", "method.alpha": "8"}),
        ("lora:targets=query,value,rank=4", "lora",
         {"method.targets": "query,value", "method.rank": "4"}),
        ("lora:training.learning-rate=1e-3", "lora", {"training.learning_rate": "1e-3"}),
        ("my/file.py:Mine", "my/file.py:Mine", {}),
        ("my/file.py:Mine:rank=4", "my/file.py:Mine", {"method.rank": "4"}),
    ],
)  # fmt: skip
def test_a_label_is_a_method_and_its_options(
    label: str, name: str, changes: dict[str, str]
) -> None:
    assert parse_label(label) == (name, changes)


def test_one_method_with_several_options_is_several_methods(toys: Path, tmp_path: Path) -> None:
    records = carry_out(comparison(tmp_path / "out", ("lora", "lora:rank=4,alpha=8")))

    assert {(r.recipe["method"]["rank"], r.recipe["method"]["alpha"]) for r in records} == {
        (8, 16.0),
        (4, 8.0),
    }


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"methods": ["lorra"]}, UnknownName, "Did you mean 'lora'"),
        ({"methods": ["lora:rnak=4"]}, UnknownName, "rank"),
        ({"methods": ["lora(rank=4)"]}, InvalidInput, "lora:rank=4"),
        ({"methods": ["lora:rank=0"]}, InvalidInput, "rank"),
        ({"methods": ["lora:task.max_length=9"]}, InvalidInput, "whole comparison"),
        ({"methods": ["lora", "lora:rank=8"]}, InvalidInput, "the same"),
        ({"methods": []}, InvalidInput, "no methods"),
        ({"task": "pydocs/libary"}, UnknownName, "pydocs/library"),
        ({"options": {"size": 9}}, InvalidInput, "sizes"),
        ({"options": {"seed": 9}}, InvalidInput, "seeds"),
        ({"options": {"stepps": 9}}, UnknownName, "steps"),
        ({"sizes": (-1,)}, InvalidInput, "size"),
        ({"noises": (1.5,)}, InvalidInput, "noise"),
        ({"seeds": 0}, InvalidInput, "seeds"),
        ({"workers": 0}, InvalidInput, "workers"),
        ({"keep_weights": "some"}, InvalidInput, "best, all, none"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        comparison(tmp_path / "out", **{"methods": ["lora"], **settings})

    assert not (tmp_path / "out").exists()


def test_a_plan_writes_nothing_and_knows_times_once_there_are_some(
    toys: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before = comparison(out).plan(facts=lambda recipe: FACTS)
    assert not out.exists()
    carry_out(comparison(out))
    after = comparison(out, seeds=3).plan(facts=lambda recipe: FACTS)

    assert before.seconds is None
    assert len(before.waiting) == 2
    assert [cell.recipe.seed for cell in after.waiting] == [1, 1, 2, 2]
    assert after.seconds is not None
    assert after.predicted_seconds(after.waiting[0]) is not None


def test_time_left_comes_from_cells_alike_and_else_from_work() -> None:
    cell: Any = namedtuple("cell", "label size work")

    timings = Timings()
    assert timings.left([cell("full", 32, 100.0)], {}, 1) is None
    timings.add(cell("full", 32, 100.0), 10.0)
    timings.add(cell("full", 32, 100.0), 20.0)
    timings.add(cell("none", 32, 10.0), 1.0)

    assert timings.predict(cell("full", 32, 100.0)) == 15.0
    assert timings.predict(cell("full", 64, 200.0)) == 30.0
    assert timings.predict(cell("lora", 32, 21.0)) == pytest.approx(31 / 210 * 21)
    running = {cell("full", 32, 100.0): 5.0}
    assert timings.left([cell("none", 32, 10.0)] * 4, running, 2) == 10.0  # the longest rules
    assert timings.left([cell("none", 32, 10.0)] * 30, running, 2) == 20.0


def test_a_disk_that_is_too_small_is_found_before_work(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InvalidInput, match="too small"):
        carry_out(comparison(tmp_path / "out"))

    assert runs(toys) == []


def test_a_folder_that_cannot_be_written_is_found_before_work(toys: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        carry_out(comparison(tmp_path / "file" / "out"))

    assert runs(toys) == []


@pytest.mark.parametrize(
    ("workers", "cores", "gigabytes", "devices", "slots"),
    [
        (None, 8, 100, [], 4),  # two threads each
        (None, 1, 100, [], 1),
        (None, 8, 7, [], 2),  # of 1 GB, and 16 bytes for each of 125 million parameters
        (None, 8, 1, [], 1),
        (5, 2, 1, [], 5),
        (None, 8, 100, ["0", "3"], 2),
        (5, 8, 100, ["0", "3"], 2),
        (1, 8, 100, ["0", "3"], 1),
    ],
)
def test_cells_at_a_time_fit_cores_memory_and_devices(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int | None,
    cores: int,
    gigabytes: int,
    devices: list[str],
    slots: int,
) -> None:
    monkeypatch.setattr("peftkit.study.machine.usable_cores", lambda: cores)
    monkeypatch.setattr("peftkit.study.machine.available_memory_bytes", lambda: gigabytes * 10**9)
    monkeypatch.setattr("peftkit.study.machine.visible_devices", lambda: devices)
    facts = {**FACTS, "backbone": {**FACTS["backbone"], "total_parameters": 125_000_000}}
    plan = comparison(tmp_path, workers=workers, options={"threads": 2}).plan(
        facts=lambda recipe: facts
    )

    assert plan.slots == slots
    assert plan.devices == devices
    assert plan.threads == 2


# What becomes of cells


@pytest.mark.parametrize(
    ("fate", "status", "words"),
    [
        ("unsupported", "unsupported", "no such layer"),
        ("diverged", "diverged", "loss is nan"),
        ("memory", "out_of_memory", "MemoryError"),
        ("torch-memory", "out_of_memory", "DefaultCPUAllocator"),
        ("cuda-memory", "out_of_memory", "CUDA out of memory"),
        ("kill", "out_of_memory", "SIGKILL"),
        ("bug", "failed", "KeyError: 'what'"),
        ("leave", "failed", "SystemExit: 2"),
    ],
)
def test_a_cell_that_comes_to_nothing_is_a_row_and_the_others_go_on(
    toys: Path, tmp_path: Path, fates: Callable[..., None], fate: str, status: str, words: str
) -> None:
    fates(lora__32__0=fate)
    records = {r.method: r for r in carry_out(comparison(tmp_path / "out", ("none", "lora")))}

    assert records["none"].status == "done"
    assert records["lora"].status == status
    assert words in records["lora"].error
    assert records["lora"].size == 32
    assert records["lora"].data["fingerprint"] == FACTS["data"]["fingerprint"]
    assert records["lora"].created
    assert leftovers(tmp_path / "out") == []
    logs = [log.stem for log in (tmp_path / "out" / "logs").iterdir()]
    assert logs == [records["lora"].key]


def test_what_failed_is_run_again_and_what_is_settled_is_not(
    toys: Path, tmp_path: Path, fates: Callable[..., None]
) -> None:
    names = ("none", "lora", "full", "linear_probe", "bitfit")
    fates(
        lora__32__0="unsupported", full__32__0="diverged", linear_probe__32__0="bug",
        bitfit__32__0="memory",
    )  # fmt: skip
    carry_out(comparison(tmp_path / "out", names))
    before = traces(tmp_path / "out")
    (toys / "runs").unlink()
    fates()
    records = {r.method: r for r in carry_out(comparison(tmp_path / "out", names))}

    assert runs(toys) == ["bitfit/32/0", "linear_probe/32/0"]
    assert {name: record.status for name, record in records.items()} == {
        "none": "done",
        "lora": "unsupported",
        "full": "diverged",
        "linear_probe": "done",
        "bitfit": "done",
    }
    after = traces(tmp_path / "out")
    unchanged = {records[name].key for name in ("none", "lora", "full")}
    assert {key for key in before if before[key] == after[key]} == unchanged
    # The logs of cells that now ended well are gone.
    logs = {log.stem for log in (tmp_path / "out" / "logs").iterdir()}
    assert logs == {records["lora"].key, records["full"].key}


def test_a_grown_grid_runs_only_what_is_new(toys: Path, tmp_path: Path) -> None:
    carry_out(comparison(tmp_path / "out", ("none",)))
    records = carry_out(comparison(tmp_path / "out", ("none", "lora"), seeds=2))

    assert runs(toys) == ["lora/32/0", "lora/32/1", "none/32/0", "none/32/1"]
    assert len(records) == 4
    study = json.loads((tmp_path / "out" / "study.json").read_text())
    assert set(study["cells"]) == {record.key for record in records}


def test_a_truncated_record_is_reported_and_its_cell_run_again(
    toys: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    first = carry_out(comparison(out))
    broken = out / "records" / f"{first[0].key}.json"
    broken.write_text(broken.read_text()[:100])
    again = carry_out(comparison(out), quiet=False)

    assert str(broken) in capfd.readouterr().err.replace("\n", "")
    assert [record.key for record in again] == [record.key for record in first]
    assert len(runs(toys)) == 3


def test_records_on_other_data_are_reported_kept_and_not_mixed(
    toys: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    first = carry_out(comparison(out))
    before = traces(out)
    changed = {**FACTS, "data": {**FACTS["data"], "fingerprint": "e" * 8}}
    second = carry_out(comparison(out), facts=lambda recipe: changed, quiet=False)
    said = capfd.readouterr().err

    assert {r.key for r in first}.isdisjoint(r.key for r in second)
    assert len(second) == 2
    assert "2 records in the folder were made on other data" in said
    assert "another study" in said
    assert before.items() <= traces(out).items()
    assert len(list(out.glob("study-*.json"))) == 1


def test_progress_goes_to_stderr_one_line_a_cell(
    toys: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], fates: Callable[..., None]
) -> None:
    fates(lora__32__0="bug")
    carry_out(comparison(tmp_path / "out", workers=1), quiet=False)
    said = capfd.readouterr()

    assert said.out == ""
    lines = [line for line in said.err.splitlines() if line.startswith("[")]
    assert lines[0].startswith("[1/2] lora, 32 examples, seed 0: failed: KeyError: 'what'")
    assert "time left unknown" in lines[0]
    assert lines[1].startswith("[2/2] none, 32 examples, seed 0: done, accuracy 0.500 (validation)")


# Weights


def test_the_best_weights_of_each_method_are_kept(
    toys: Path, tmp_path: Path, fates: Callable[..., None]
) -> None:
    fates(lora__32__0=0.4, lora__32__1=0.9, lora__32__2=0.6, none__32__0=0.3, none__32__2="bug")
    records = carry_out(comparison(tmp_path / "out", seeds=3))

    models = tmp_path / "out" / "models"
    by_key = {record.key: f"{record.method}/32/{record.seed}" for record in records}
    kept = {by_key[path.name]: (path / "weights").read_text() for path in models.iterdir()}
    assert kept == {name: name for name in ("lora/32/1", "none/32/1")}


@pytest.mark.parametrize(("policy", "count"), [("all", 4), ("none", 0)])
def test_all_or_no_weights_are_kept(toys: Path, tmp_path: Path, policy: Any, count: int) -> None:
    carry_out(comparison(tmp_path / "out", seeds=2, keep_weights=policy))

    assert len(list((tmp_path / "out" / "models").iterdir())) == count


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
@pytest.mark.parametrize(("higher", "best"), [(True, "a" * 15 + "1"), (False, "a" * 15 + "0")])
def test_the_best_does_not_depend_on_which_cell_ended_first(
    tmp_path: Path, order: Sequence[int], higher: bool, best: str
) -> None:
    folder = StudyFolder(tmp_path)
    cells = [
        SimpleNamespace(
            key="a" * 15 + str(i),
            label="lora",
            place=i,
            recipe=SimpleNamespace(task=SimpleNamespace(higher_is_better=higher)),
        )
        for i in range(4)
    ]
    models = KeptModels("best", folder)
    for i in order:
        folder.model(cells[i].key).mkdir(parents=True)
        models.offer(cells[i], (0.5, 0.7, 0.7, float("nan"))[i])  # type: ignore[arg-type]

    assert [path.name for path in (tmp_path / "models").iterdir()] == [best]


# Interruptions


def test_a_second_comparison_in_the_folder_is_refused(toys: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with folder_lock(out), pytest.raises(FolderBusy, match=f"process {os.getpid()} "):
        carry_out(comparison(out))
    assert runs(toys) == []

    carry_out(comparison(out))
    assert len(runs(toys)) == 2


def test_kill_9_of_everything_loses_the_running_cells_alone(toys: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fates = {"lora/64/0": "wait", "full/64/0": "die-writing"}
    with parent(toys, out, fates) as process:
        workers = waiting(toys, 2)
        with pytest.raises(FolderBusy, match=f"process {process.pid} "):
            carry_out(comparison(out, **SAME))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        wait_for(lambda: not any(map(alive, [process.pid, *workers])), "all processes are gone")
    before = traces(out)
    assert len(before) == 3  # the small size is done; the large one's third cell has not begun
    for key in before:
        Record.read(out / "records" / f"{key}.json")
    assert leftovers(out) != []
    (toys / "runs").unlink()
    records = carry_out(comparison(out, **SAME))

    assert runs(toys) == ["full/64/0", "lora/64/0", "none/64/0"]
    assert len(records) == 6
    assert {record.key for record in records} == set(traces(out))
    assert before.items() <= traces(out).items()
    assert leftovers(out) == []
    assert len(list((out / "models").iterdir())) == 3


def test_weights_without_a_record_are_removed_and_nothing_else_is(
    toys: Path, tmp_path: Path
) -> None:
    models = tmp_path / "out" / "models"
    for name in ("0123456789abcdef", ".0123456789abcdef.trash", "mine", "..notes"):
        (models / name).mkdir(parents=True)
    carry_out(comparison(tmp_path / "out", ("none",), keep_weights="none"))

    assert sorted(path.name for path in models.iterdir()) == ["..notes", "mine"]


@pytest.mark.parametrize(
    ("number", "whole_group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False)],
    ids=["ctrl-c", "sigterm"],
)
def test_stopping_keeps_what_is_finished_and_says_how_to_go_on(
    toys: Path, tmp_path: Path, number: signal.Signals, whole_group: bool
) -> None:
    out = tmp_path / "out"
    with parent(toys, out, {"lora/64/0": "wait", "full/64/0": "wait"}) as process:
        workers = waiting(toys, 2)
        (os.killpg if whole_group else os.kill)(process.pid, number)
        output, errors = process.communicate(timeout=PATIENCE)

        assert output == ""
        assert "3 of 6 cells have their records" in errors
        assert "run the same command again" in errors
        assert errors.count("Traceback") == 1  # of the parent's script, which caught nothing
        wait_for(lambda: not any(map(alive, workers)), "workers are gone")
    assert len(traces(out)) == 3
    assert len(carry_out(comparison(out, **SAME))) == 6


@pytest.mark.parametrize("fate", ["disk", "disk-at-record"])
def test_a_full_disk_stops_the_comparison_and_keeps_what_is_there(
    toys: Path, tmp_path: Path, fates: Callable[..., None], fate: str
) -> None:
    out = tmp_path / "out"
    fates(lora__32__1=fate)
    with pytest.raises(FolderUnwritable, match=r"No space left.* 2 of 6 cells"):
        carry_out(comparison(out, seeds=3, workers=1))

    assert len(traces(out)) == 2
    assert runs(toys) == ["lora/32/0", "lora/32/1", "none/32/0"]
    fates()
    assert [r.status for r in carry_out(comparison(out, seeds=3))] == ["done"] * 6
