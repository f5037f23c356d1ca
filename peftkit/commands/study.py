"""`peftkit study`: a comparison with tuned learning rates, three seeds or more, and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftkit.commands import compare
from peftkit.commands.compare import LADDER, describe_plan, seeds_of, size_of
from peftkit.distributed import require_one_process
from peftkit.errors import InvalidInput, UnknownName
from peftkit.fields import checked
from peftkit.flags import read_flags
from peftkit.overrides import read_mapping

if TYPE_CHECKING:
    from peftkit.study import Study

USAGE = """\
peftkit study [FILE.yaml] [--methods A,B] [--tasks A,B] [--sizes N,N] [--out DIR] [OPTIONS]

  FILE.yaml             any of the following by name (methods: [none, lora, full]), training, and
                        steps: a list, the optimizer steps at each of the sizes
  --methods A,B         methods; options in brackets: lora,lora:rank=64,full
  --tasks A,B           bundled tasks, or data of the kind that --task names
  --backbones A,B       one study each
  --sizes N,N           training examples, nested subsets (default 128,512)
  --noises R,R          shares of wrong training labels (default 0)
  --noise-at N,N        sizes at which labels are made wrong (default all)
  --seeds N             seeds 0 to N-1 (default 3, the fewest that a verdict takes)
  --trials N            learning rates tried, by method and size, on validation rows (default 3)
  --search-at N         the size at which they are tried, for all sizes (default each for itself)
  --margin M            by how much full fine-tuning has to be better (default 1 point; where the
                        metric is no share there is no default)
  --adaptive            look after 3, 5 and 8 seeds, and add seeds only where it is open (--seeds 5
                        ends after the second look; a larger number goes on from there)
  --out DIR             records, design, tables, plots (default out/study)
  --workers N           cells at a time
  --keep-weights WHICH  best (a method), all, none (default none)
  --engine ray          on a Ray cluster: this machine, or --address of one that runs
  --dry-run             list trials and cells up to the first look, time and disk, and stop
"""
OUT = "out/study"
EXTRAS: dict[str, Any] = {
    **compare.EXTRAS,
    "tasks": tuple[str, ...],
    "backbones": tuple[str, ...],
    "noise_at": tuple[str, ...],
    "trials": int,
    "search_at": str,
    "margin": float,
    "adaptive": bool,
}
_SIZE = int | Literal["all"]
# What a file may hold; lists by what is in them.
_LISTS: dict[str, Any] = {
    "methods": str,
    "tasks": str | dict[str, Any],
    "backbones": str | dict[str, Any],
    "sizes": _SIZE,
    "steps": int,
    "noises": float,
    "noise_at": _SIZE,
}
_VALUES: dict[str, Any] = {
    "training": dict[str, Any],
    "seeds": int | list[int],
    "trials": int,
    "search_at": _SIZE,
    "margin": float,
    "adaptive": bool,
    "out": str,
    "workers": int,
    "keep_weights": str,
    "engine": str,
    "address": str,
    "force": bool,
}


def study_command(argv: list[str]) -> None:
    """Run a study, print its tables and its verdict."""
    require_one_process("study")
    study, dry, quiet = make_study(argv)
    if dry:
        for pair in study.pairs:
            for plan in pair.plan():
                print(f"{plan.folder.path}:\n{describe_plan(plan)}")
        return
    verdicts = [pair.run(quiet=quiet) for pair in study.pairs]
    from peftkit.reporting import report
    from peftkit.reporting.consoles import standard_console
    from peftkit.reporting.verdicts import print_verdict

    console = standard_console()
    for pair in study.pairs:
        report(pair.out, console=console)
    for pair, found in zip(study.pairs, verdicts, strict=True):
        for verdict in found:
            print_verdict(verdict, console)
        if not found:
            print(f"{pair.out}: no verdict, as full fine-tuning has no run that ended well beside "
                  "one of a cheaper method; the table says why")  # fmt: skip


def make_study(argv: list[str]) -> tuple[Study, bool, bool]:
    """A study from its file and flags, flags winning; whether only to list it; whether quietly.

    Raises:
        UnknownName: The file or a flag names something that a study does not have.
        InvalidInput: A value does not fit.
    """
    from peftkit.study import Study

    body: dict[str, Any] = {"methods": LADDER, "out": OUT}
    if argv and not argv[0].startswith("-"):
        body |= _from_file(Path(argv[0]))
        argv = argv[1:]
    changes, own = read_flags(argv, extras=EXTRAS)
    if "config" in changes:
        raise InvalidInput("a study is read from a file", next_step="peftkit study FILE.yaml")
    dry, quiet = bool(own.pop("dry_run", False)), bool(own.pop("quiet", False))
    if "seeds" in own:
        own["seeds"] = seeds_of(own["seeds"])
    for name in ("sizes", "noise_at"):
        if name in own:
            own[name] = [size_of(size) for size in own[name]]
    if "search_at" in own:
        own["search_at"] = size_of(own["search_at"])
    kind = changes.pop("task", None)
    if kind is not None:
        data = own.pop("tasks", None) or _data_of(changes)
        own["tasks"] = [{"name": kind, "data": each} for each in data] if data else [kind]
    if "backbone" in changes:
        own["backbones"] = [changes.pop("backbone")]
    return Study(**{**body, **own}, options=changes), dry, quiet


def _data_of(changes: dict[str, Any]) -> list[Any]:
    return [changes.pop("task.data")] if "task.data" in changes else []


def _from_file(path: Path) -> dict[str, Any]:
    body = read_mapping(str(path))
    known = {*_LISTS, *_VALUES}
    for name in body:
        if name not in known:
            raise UnknownName("part of a study", name, sorted(known))
    for name in _LISTS:
        if name in body and not isinstance(body[name], list):
            raise InvalidInput(
                f"{name} of {path} is no list",
                received=repr(body[name])[:80],
                next_step=f"write {name}: [{body[name]}]",
            )
    return {
        name: [checked(each, _LISTS[name], f"{name} of {path}") for each in value]
        if name in _LISTS
        else checked(value, _VALUES[name], f"{name} of {path}")
        for name, value in body.items()
    }
