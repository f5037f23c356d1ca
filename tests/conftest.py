"""Where every test starts: offline, one thread, three classes of toy text, tiny twins."""

from __future__ import annotations

import functools
import gc
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from toys import (
    asked_rows,
    several_rows,
    tagged_rows,
    toy_rows,
    valued_rows,
    write_csv,
    write_lines,
)

if TYPE_CHECKING:
    from peftkit.workbench import Workbench

# Before anything imports torch: it reads them once.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}

# No test depends on how busy the machine is.
hypothesis.settings.register_profile("calm", deadline=None)
hypothesis.settings.load_profile("calm")

ROOT = Path(__file__).parents[1]
LOCAL = ("127.", "::1", "localhost", "0.0.0.0")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the rarer pairs of method and family out unless `-m` speaks of them."""
    if "matrix" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("matrix")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("matrix")]


# ---- the network

_attempts: list[str] = []


class NetworkBlockedError(RuntimeError):
    """A test tried to reach another machine."""


@functools.cache
def _is_this_machine(host: str) -> bool:
    """Whether it is this machine's loopback, or an address that one of its own cards has."""
    if host.startswith(LOCAL):
        return True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        try:
            found.bind((str(ipaddress.IPv4Address(host)), 0))  # no other machine's can be bound
        except (OSError, ValueError):
            return False
    return True


def _require_local(family: int, address: Any) -> None:
    if family != socket.AF_UNIX and not _is_this_machine(str(address[0])):
        _attempts.append(str(address))
        raise NetworkBlockedError(f"a test tried to connect to {address}")


@pytest.fixture(scope="session", autouse=True)
def _network_is_blocked() -> Iterator[None]:
    """Nothing leaves this machine, name look-ups included."""
    connect, connect_ex, look_up = (
        socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo,
    )  # fmt: skip

    def blocked(real: Any) -> Any:
        def guard(self: socket.socket, address: Any) -> Any:
            _require_local(self.family, address)
            return real(self, address)

        return guard

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host:
            host_name = host.decode() if isinstance(host, bytes) else host
            _require_local(socket.AF_INET, (host_name,))
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", blocked(connect))
        patch.setattr(socket.socket, "connect_ex", blocked(connect_ex))
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


@pytest.fixture(autouse=True)
def _nobody_tried_the_network(_network_is_blocked: None) -> Iterator[None]:
    """An attempt fails the test even if the code under test swallowed the error."""
    _attempts.clear()
    yield
    assert not _attempts, f"tried to connect to {', '.join(_attempts)}"


@pytest.fixture(scope="module", autouse=True)
def _collection_passes_over_what_is_there() -> None:
    """A run collects garbage five times, half a second each if all that was imported is walked."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """What a shell puts in the background starts with SIGINT ignored, and so do its children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of files that several checkouts share."""
    folder = Path(os.environ.get("PEFTKIT_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder} (set PEFTKIT_SHARED)")
    return folder


# ---- toy data


@pytest.fixture(scope="session")
def toy_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of 42 labelled texts; splits are carved from it."""
    return write_csv(tmp_path_factory.mktemp("toy") / "toy.csv", toy_rows(42, seed=3))


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file a split: 42 texts to train on, 12 and 18 to evaluate on."""
    folder = tmp_path_factory.mktemp("toy-splits")
    for seed, (split, count) in enumerate({"train": 42, "validation": 12, "test": 18}.items()):
        write_csv(folder / f"{split}.csv", toy_rows(count, seed=seed))
    return folder


@pytest.fixture(scope="session")
def valued_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file a split: 48 texts with a number to train on, 12 and 20 to evaluate on."""
    rows = {s: valued_rows(count, seed=seed) for seed, (s, count) in
            enumerate({"train": 48, "validation": 12, "test": 20}.items())}  # fmt: skip
    return write_lines(tmp_path_factory.mktemp("valued"), **rows)


@pytest.fixture(scope="session")
def several_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file a split: 48 texts with some labels to train on, 12 and 20 to evaluate on."""
    rows = {s: several_rows(count, seed=seed) for seed, (s, count) in
            enumerate({"train": 48, "validation": 12, "test": 20}.items())}  # fmt: skip
    return write_lines(tmp_path_factory.mktemp("several"), **rows)


@pytest.fixture(scope="session")
def tagged_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file a split: 48 tagged texts to train on, 16 and 24 to evaluate on."""
    rows = {s: tagged_rows(count, seed=seed) for seed, (s, count) in
            enumerate({"train": 48, "validation": 16, "test": 24}.items())}  # fmt: skip
    return write_lines(tmp_path_factory.mktemp("tagged"), **rows)


@pytest.fixture(scope="session")
def asked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file a split: 48 questions to train on, 12 and 20 to evaluate on."""
    rows = {s: asked_rows(count, seed=seed) for seed, (s, count) in
            enumerate({"train": 48, "validation": 12, "test": 20}.items())}  # fmt: skip
    return write_lines(tmp_path_factory.mktemp("asked"), **rows)


# ---- recipes on tiny twins


@pytest.fixture(scope="session")
def libraries() -> None:
    """Import what every run needs, once, and keep garbage collection away from it.

    A meter collects garbage before each phase, which takes a third of a second a time as long as
    it walks over all the modules of torch and transformers.
    """
    import peft  # noqa: F401
    import torch
    import transformers

    import peftkit.train  # noqa: F401

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def masked(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder saved with the head that it was pretrained with, which its twin lacks."""
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    from peftkit.backbones._twin import twin_folder

    folder, twin = tmp_path_factory.mktemp("masked") / "bert", twin_folder("bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(twin))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(twin).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def make_bench(
    libraries: None, toy_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Workbench]:
    """Return a function that puts a small recipe on a workbench.

    Its arguments: the method (as a recipe takes it), the backbone (likewise), `seed`, `folder` for
    checkpoints, `task` options, and any option of `training`. Defaults: two steps of four
    examples in float32.
    """
    from peftkit.recipe import Recipe
    from peftkit.workbench import Workbench

    loaded: dict[str, Any] = {}

    def make(
        method: Any,
        backbone: Any = "twin:bert",
        *,
        seed: int = 0,
        folder: Path | None = None,
        task: dict[str, Any] | None = None,
        **training: Any,
    ) -> Workbench:
        recipe = Recipe(
            method=method,
            task={"name": "text_classification", "data": str(toy_folder), **(task or {})},
            backbone=backbone,
            training={"steps": 2, "batch_size": 4, "precision": "float32", **training},
            seed=seed,
        )
        key = repr(recipe.task)
        if key not in loaded or recipe.task.size:
            loaded[key] = recipe.task.load(seed=seed)
        folder = folder or tmp_path_factory.mktemp("run")
        return Workbench(recipe, loaded[key], folder)

    return make
