"""Workers: every cell ends in one event, whatever becomes of its process; none is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import peftkit
from peftkit.study.workers import (
    HEAVY_MODULES,
    Cell,
    Crashed,
    Event,
    Finished,
    Progressed,
    Started,
    run_cells,
)

REPOSITORY = Path(peftkit.__file__).parents[1]
PATIENCE = 60.0  # seconds that a promise may take on a machine that does other things too

TOYS = """
import os, re, signal, sys, time
from pathlib import Path

def report(payload, progress):
    for step in range(1, 4):
        progress(step, 3, "training")
    print("said on stdout")
    print("said on stderr", file=sys.stderr)
    os.system("echo said by a child")
    loaded = [name for name in payload.get("modules", []) if name in sys.modules]
    threads = sys.modules["torch"].get_num_threads() if "torch" in loaded else None
    names = [Path(f"/proc/{os.getppid()}/task/{t}/comm").read_text().strip()
             for t in os.listdir(f"/proc/{os.getppid()}/task")] if payload.get("modules") else []
    return {"pid": os.getpid(), "environment": dict(os.environ), "loaded": loaded,
            "torch": "torch" in sys.modules, "torch_threads": threads, "server_threads": names,
            "retire_worker": payload.get("retire", False)}

def end(payload, progress):
    how = payload["how"]
    if how == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault": os.kill(os.getpid(), signal.SIGSEGV)
    if how == "exit": os._exit(3)
    if how == "leave": sys.exit("left")
    if how == "raise": raise ValueError("no\\ngood")
    if how == "unpicklable": return {"lock": __import__("threading").Lock()}
    if how == "interrupt": os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)
    return {"pid": os.getpid()}

def write_on(payload, progress):
    out = Path(payload["out"])
    (out / f"pids-{os.getpid()}").write_text(f"{os.getpid()} {os.getppid()}")
    with open(out / f"written-{os.getpid()}", "a") as file:
        while True:
            file.write("x"); file.flush(); time.sleep(0.005)

def hold_interpreter(payload, progress):
    out = Path(payload["out"])
    (out / f"pids-{os.getpid()}").write_text(f"{os.getpid()} {os.getppid()}")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    re.match("(a+)+$", "a" * 60 + "b")  # years, in C, without releasing the interpreter's lock
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the search path, with the module `toy_cells` in it."""
    folder = tmp_path / "toys"
    folder.mkdir()
    (folder / "toy_cells.py").write_text(TOYS)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def run(function: str, payloads: list[dict[str, Any]], **options: Any) -> list[Event]:
    """Run cells named 0, 1, ... and return the events in their order."""
    events: list[Event] = []
    cells = [Cell(str(i), payload) for i, payload in enumerate(payloads)]
    run_cells(cells, f"toy_cells:{function}", on_event=events.append, preload=(), **options)
    return events


def ends(events: list[Event]) -> dict[str, Finished | Crashed]:
    return {event.key: event for event in events if isinstance(event, Finished | Crashed)}


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie (nobody reaps orphans in some containers)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_for(promise: Callable[[], Any], what: str) -> Any:
    """Poll until `promise` is kept, and return its value."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if value := promise():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE:g} s in vain until {what}")


@contextlib.contextmanager
def parent(toys: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own that runs `script`; nothing of it outlives the test."""
    path = toys / "script.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": f"{toys}{os.pathsep}{REPOSITORY}"}
    process = subprocess.Popen(
        [sys.executable, str(path)],
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


def working(toys: Path, count: int) -> list[int]:
    """The ids of `count` workers at work, and of the servers they came from."""

    def look() -> list[int]:
        lines = [path.read_text().split() for path in toys.glob("pids-*")]
        return sorted({int(pid) for line in lines for pid in line}) if len(lines) == count else []

    found: list[int] = wait_for(look, f"{count} workers are at work")
    return found


def test_each_cell_is_started_then_progresses_then_finishes(toys: Path) -> None:
    events = run("report", [{}] * 5, slots=2)

    for key in "01234":
        mine = [event for event in events if event.key == key]
        assert isinstance(mine[0], Started)
        assert isinstance(mine[-1], Finished)
        steps = [event.step for event in mine[1:-1] if isinstance(event, Progressed)]
        assert len(steps) == len(mine) - 2
        assert steps == sorted(steps)
        assert steps[-1] == 3
    assert [event.key for event in events if isinstance(event, Started)] == list("01234")


def test_no_more_cells_run_at_a_time_than_there_are_slots(toys: Path) -> None:
    running = most = 0
    for event in run("report", [{}] * 6, slots=2):
        running += isinstance(event, Started) - isinstance(event, Finished)
        most = max(most, running)

    assert most == 2


def test_on_the_cpu_each_cell_has_a_process_of_its_own(toys: Path) -> None:
    pids = {end.result["pid"] for end in ends(run("report", [{}] * 4, slots=2)).values()}

    assert len(pids - {os.getpid()}) == 4


@pytest.mark.parametrize("devices", [(), ("0", "1")], ids=["forked", "spawned"])
def test_a_worker_that_ends_badly_is_an_event_and_the_others_go_on(
    toys: Path, devices: tuple[str, ...]
) -> None:
    hows = ["kill", "well", "segfault", "exit", "well", "raise", "leave", "unpicklable", "well"]
    end = ends(run("end", [{"how": how} for how in hows], slots=2, devices=devices))

    outcome = {how: end[str(i)] for i, how in enumerate(hows)}
    assert len(end) == len(hows)
    assert [isinstance(end[str(i)], Finished) for i in range(9)] == [h == "well" for h in hows]
    assert outcome["kill"].out_of_memory
    assert "memory" in outcome["kill"].reason
    assert outcome["kill"].exit_code == -signal.SIGKILL
    assert "SIGSEGV" in outcome["segfault"].reason
    assert not outcome["segfault"].out_of_memory
    assert outcome["exit"].exit_code == 3
    assert outcome["raise"].reason == "ValueError: no good"
    assert outcome["leave"].reason == "SystemExit: left"


def test_a_worker_on_a_device_is_reused_and_sees_only_its_device(toys: Path) -> None:
    results = [
        e.result for e in ends(run("report", [{}] * 6, slots=2, devices=("3", "5"))).values()
    ]

    assert len({result["pid"] for result in results}) == 2
    assert {result["environment"]["CUDA_VISIBLE_DEVICES"] for result in results} == {"3", "5"}
    assert not any(result["torch"] for result in results)


def test_a_worker_on_a_device_is_replaced_when_a_cell_asks_for_it(toys: Path) -> None:
    payloads = [{}, {"retire": True}, {}]
    end = ends(run("report", payloads, devices=("0",)))

    pids = [end[key].result["pid"] for key in "012"]
    assert pids[0] == pids[1] != pids[2]


@pytest.mark.parametrize("devices", [(), ("0",)], ids=["forked", "spawned"])
def test_workers_leave_ctrl_c_to_their_parent(toys: Path, devices: tuple[str, ...]) -> None:
    end = ends(run("end", [{"how": "interrupt"}], devices=devices))["0"]

    assert isinstance(end, Finished)


@pytest.mark.parametrize("devices", [(), ("0",)], ids=["forked", "spawned"])
def test_what_a_cell_prints_goes_to_its_log_alone(
    toys: Path, devices: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    run("report", [{}, {}], devices=devices, logs=toys / "logs")

    for key in "01":
        lines = (toys / "logs" / f"{key}.log").read_text().splitlines()
        assert sorted(lines) == ["said by a child", "said on stderr", "said on stdout"]
    assert capfd.readouterr() == ("", "")


def test_a_segfault_leaves_a_trace_in_the_log(toys: Path) -> None:
    run("end", [{"how": "segfault"}], logs=toys / "logs")

    assert "Segmentation fault" in (toys / "logs" / "0.log").read_text()


def test_workers_have_the_environment_of_now_and_one_thread(
    toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("report", [{}])  # the fork server is running from here on
    monkeypatch.setenv("SET_LATER", "yes")
    before = dict(os.environ)
    seen = ends(run("report", [{}]))["0"].result["environment"]

    assert seen["SET_LATER"] == "yes"
    assert seen["OMP_NUM_THREADS"] == "1"
    assert seen["OMP_WAIT_POLICY"] == "PASSIVE"
    assert seen["TOKENIZERS_PARALLELISM"] == "false"
    assert seen["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert seen.get("PYTHONPATH") == before.get("PYTHONPATH")
    assert dict(os.environ) == before


def test_an_error_while_events_are_handled_leaves_no_worker(toys: Path) -> None:
    pids: list[int] = []

    def handle(event: Event) -> None:
        pids.append(event.pid)
        if len(pids) == 2:
            raise RuntimeError("enough")

    cells = [Cell(str(i), {"out": str(toys)}) for i in range(3)]
    with pytest.raises(RuntimeError, match="enough"):
        run_cells(cells, "toy_cells:write_on", on_event=handle, slots=2, preload=())

    assert [pid for pid in pids if alive(pid)] == []


SCRIPT = """
import sys, threading
from pathlib import Path
from peftkit.study.workers import Cell, run_cells

out = str(Path(__file__).parent)
cells = [Cell(str(i), {{"out": out}}) for i in range(3)]
def run():
    run_cells(cells, "toy_cells:{function}", on_event=lambda event: None, slots=2, preload=())
{call}
"""
IN_MAIN_THREAD = "run()"
IN_A_THREAD = "thread = threading.Thread(target=run); thread.start(); thread.join()"


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("write_on", IN_MAIN_THREAD),
        ("write_on", IN_A_THREAD),  # the kernel's guard is off: the worker's own watch must do
        ("hold_interpreter", IN_MAIN_THREAD),  # its own watch cannot run: the kernel must do
    ],
    ids=["writing", "writing-under-a-thread", "holding-the-interpreter"],
)
def test_kill_9_of_the_parent_alone_ends_workers_and_server(
    toys: Path, function: str, call: str
) -> None:
    with parent(toys, SCRIPT.format(function=function, call=call)) as process:
        pids = working(toys, 2)
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not any(map(alive, pids)), "workers and server are gone")
        written = {path: path.stat().st_size for path in toys.glob("written-*")}
        time.sleep(0.3)

        assert {path: path.stat().st_size for path in toys.glob("written-*")} == written


def test_ctrl_c_in_the_parent_ends_workers_and_is_passed_on(toys: Path) -> None:
    script = SCRIPT.format(function="write_on", call=IN_MAIN_THREAD)
    with parent(toys, script) as process:
        pids = working(toys, 2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        _, errors = process.communicate(timeout=PATIENCE)

        assert process.returncode == -signal.SIGINT
        assert errors.count("KeyboardInterrupt") == 1  # from the parent alone
        wait_for(lambda: not any(map(alive, pids)), "workers and server are gone")


def test_a_script_without_a_guard_runs_once(toys: Path) -> None:
    script = """
from pathlib import Path
from peftkit.study.workers import Cell, Finished, run_cells

with open(Path(__file__).with_name("runs"), "a") as file:
    file.write("x")
for devices in ((), ("0",)):
    events = []
    cells = [Cell("0", {}), Cell("1", {})]
    run_cells(cells, "toy_cells:report", on_event=events.append, devices=devices, preload=())
    assert sum(isinstance(event, Finished) for event in events) == 2, events
"""
    with parent(toys, script) as process:
        _, errors = process.communicate(timeout=PATIENCE)

    assert errors == ""
    assert process.returncode == 0
    assert (toys / "runs").read_text() == "x"


def test_the_server_has_imported_the_heavy_modules_and_computed_nothing(toys: Path) -> None:
    (toys / "broken_import.py").write_text("raise RuntimeError('cannot be imported')")
    script = f"""
import json
from peftkit.study.workers import Cell, run_cells

modules = {list(HEAVY_MODULES)}
events = []
run_cells(
    [Cell("0", {{"modules": modules}})], "toy_cells:report", on_event=events.append, threads=2,
    preload=("broken_import", "no_such_module", *modules),
)
print(json.dumps(events[-1].result))
"""
    with parent(toys, script) as process:
        output, errors = process.communicate(timeout=3 * PATIENCE)
    assert errors == ""
    result = json.loads(output)
    assert result["loaded"] == list(HEAVY_MODULES)
    assert result["torch_threads"] == 2
    # A pool of OpenMP or of torch would have threads named after the program.
    assert sorted(result["server_threads"])[:-1] in ([], ["jemalloc_bg_thd"])
