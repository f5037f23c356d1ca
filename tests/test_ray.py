"""The engine Ray: the records of the local engine, and a node that dies costs its running cells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peftkit.errors import InvalidInput, UnknownName
from peftkit.record import Record
from peftkit.study import Comparison
from peftkit.verdict import LOOKS
from peftkit.verdict.from_table import read_studied
from toy_runs import FACTS, TUNED, install

# A cell says on which node it runs, and waits there while the file "wait" is in the toys' folder.
TOYS = """
import os, time
from pathlib import Path
from peftkit.record import Record
from peftkit.study.cell import run_cell

def run(recipe, out, *, save_weights, progress, features_folder, force):
    import ray
    name = f"{recipe.to_dict()['method']['name']}-{recipe.seed}"
    folder = Path(__file__).parent
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
    (folder / f"started-{name}-{node}-{time.monotonic_ns()}").touch()
    while (folder / "wait").exists():
        time.sleep(0.1)
    if name == "none-1":
        raise KeyError("what")
    if name == "full-1":
        os._exit(3)
    print("some words")
    out.mkdir(parents=True)
    (out / "weights").write_text(name)
    return Record(
        key="set by the cell", recipe=recipe.to_dict(), status="done",
        metrics={"validation": {"accuracy": 0.5}, "test": {"accuracy": 0.5}},
        data={"fingerprint": "d" * 8, "num_train": recipe.task.size},
    )

def cell(payload, progress):
    return run_cell(payload, progress, run=run)
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = install("toy_ray", TOYS, tmp_path, monkeypatch)
    # Ray's workers are processes of the cluster: they find modules by the environment.
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([path] if path else [])]))
    return folder


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster of two nodes on this machine, one cell at a time each; they inherit PYTHONPATH."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    found = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    found.second = found.add_node(num_cpus=1)
    try:
        yield found
    finally:
        found.shutdown()


def comparison(out: Path, **settings: Any) -> Comparison:
    settings = {"methods": ("none", "lora"), "sizes": (32,), "seeds": 1, **settings}
    return Comparison(out=out, **settings)


def carry_out(found: Comparison) -> list[Record]:
    return found.run(function="toy_ray:cell", facts=lambda recipe: FACTS, quiet=True)


def by_name(records: list[Record]) -> dict[str, Record]:
    return {f"{record.method}-{record.seed}": record for record in records}


def test_the_records_are_those_of_the_local_engine(
    toys: Path, cluster: Any, tmp_path: Path
) -> None:
    methods = ("none", "lora", "full")
    there = by_name(
        carry_out(
            comparison(
                tmp_path / "ray", methods=methods, seeds=2, engine="ray", address=cluster.address,
                keep_weights="all",
            )
        )
    )  # fmt: skip
    here = by_name(
        carry_out(comparison(tmp_path / "local", methods=methods, seeds=2, keep_weights="all"))
    )

    assert {n: (r.key, r.status, r.metrics) for n, r in there.items()} == {
        n: (r.key, r.status, r.metrics) for n, r in here.items()
    }
    assert there["none-1"].status == there["full-1"].status == "failed"
    assert "KeyError" in there["none-1"].error
    for out in ("ray", "local"):
        weights = tmp_path / out / "models" / there["lora-0"].key / "weights"
        assert weights.read_text() == "lora-0"
    left = [p.name for p in (tmp_path / "ray").iterdir() if p.name.startswith(".ray")]
    assert left == []
    logs = {path.stem for path in (tmp_path / "ray" / "logs").glob("*.log")}
    assert there["lora-0"].key not in logs
    assert there["none-1"].key in logs


def test_a_node_that_dies_costs_its_running_cells_alone(
    toys: Path, cluster: Any, tmp_path: Path
) -> None:
    (toys / "wait").touch()
    dead = cluster.second.node_id

    def kill() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(toys.glob(f"started-*-{dead}-*")):
            time.sleep(0.1)
        cluster.remove_node(cluster.second, allow_graceful=False)
        (toys / "wait").unlink()

    killer = threading.Thread(target=kill)
    killer.start()
    records = carry_out(
        comparison(
            tmp_path / "out", methods=("none", "lora", "bitfit"), engine="ray",
            address=cluster.address,
        )
    )  # fmt: skip
    killer.join()

    assert {record.status for record in records} == {"done"}
    assert len(records) == 3
    starts = [path.name.split("-") for path in toys.glob("started-*")]
    lost = {name for _, name, _, node, _ in starts if node == dead}
    assert len(lost) == 1  # was running there, and ran again on the other node
    counted = [name for _, name, *_ in starts]
    assert {name: counted.count(name) for name in counted} == {
        name: 2 if name in lost else 1 for name in ("none", "lora", "bitfit")
    }


# A study of its own process, which can be killed; {out} and {address} are put in.
STUDY = """
from peftkit.study import Study
from toy_runs import FACTS
Study(
    methods=("none", "lora", "full"), sizes=(64,), trials=1, adaptive=True, margin=2.0,
    out={out!r}, engine={engine!r}, address={address!r},
).run(function="toy_tuned:cell", facts=lambda recipe: FACTS, quiet=True)
"""


def test_a_study_that_was_killed_goes_on_to_the_verdict_of_the_local_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    folder = install("toy_tuned", TUNED, tmp_path, monkeypatch)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parent)]))
    monkeypatch.setenv("GAPS", json.dumps({"none/64": 0.3, "lora/64": 0.019, "full/64": 0.0}))
    cluster = request.getfixturevalue("cluster")
    out = tmp_path / "ray"
    there = STUDY.format(out=str(out), engine="ray", address=cluster.address)
    killed = subprocess.Popen([sys.executable, "-c", there])
    deadline = time.monotonic() + 120
    while len(list(out.glob("records/*.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    kept = {path: path.read_bytes() for path in out.glob("records/*.json")}

    subprocess.run([sys.executable, "-c", there], check=True, timeout=200)
    local = STUDY.format(out=str(tmp_path / "local"), engine="local", address=None)
    subprocess.run([sys.executable, "-c", local], check=True, timeout=200)

    assert 4 <= len(kept) < len(list(out.glob("records/*.json")))
    assert {path: path.read_bytes() for path in kept} == kept
    ((_, on_ray),), ((_, here),) = (
        read_studied(each).verdicts for each in (out, tmp_path / "local")
    )
    assert on_ray.decisions == here.decisions
    assert on_ray.decisions[0].look == LOOKS[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "rai"}, "ray"),
        ({"address": "10.0.0.1:6379"}, "only a Ray cluster has an address"),
    ],
)
def test_a_wrong_engine_is_refused_at_once(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((InvalidInput, UnknownName), match=message):
        comparison(tmp_path / "out", **settings)


def test_a_cluster_that_is_not_there_is_said_so(tmp_path: Path, toys: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.raises(InvalidInput, match="cannot be reached"):
        carry_out(comparison(tmp_path / "out", engine="ray", address="127.0.0.1:1"))
    assert json.loads((tmp_path / "out" / "study.json").read_text())["methods"]
