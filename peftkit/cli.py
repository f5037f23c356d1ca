"""The command `peftkit`: what its arguments mean, and what is printed when it fails.

Errors that a user can mend are one paragraph on stderr and exit status 2; a run that ended without
a result has status 1.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import (
    Diverged,
    DoesNotFit,
    InvalidInput,
    PeftkitError,
    UnknownName,
    Unsupported,
    VerificationFailed,
)

if TYPE_CHECKING:
    from peftkit.recipe import Recipe

Command = Callable[[list[str]], int]
USAGE = """\
Does a pretrained model need training, is a small adapter enough, or is full retraining warranted?

  peftkit list [methods|tasks|backbones|formats]   what there is
  peftkit doctor                                   what will be used on this machine
  peftkit check --task NAME [--show N]             what is wrong with data, before any training
  peftkit plan --backbone NAME --gpu 24GiB         what fits on a GPU, and how, without one
  peftkit run --method NAME --task NAME --out DIR  train, evaluate and save one recipe
  peftkit compare [--methods A,B] [--out DIR]      a grid of recipes, and the cost-quality table
  peftkit study [FILE.yaml] [--out DIR]            the same with tuned rates, seeds and a verdict
  peftkit sequence --tasks A,B [--out DIR]         one data set after the other: what is kept?
  peftkit report DIR [DIR ...]                     tables again; report.html, table.md, table.csv
  peftkit verdict DIR|FILE.json                    no training, an adapter, or full fine-tuning?
  peftkit advise DIR... --backbone NAME --size N   what studies say of a case that none measured
  peftkit combine RUN... --out DIR                 several adapters of one backbone made into one
  peftkit evaluate DIR --data FILE                 a run's model on another file
  peftkit predict DIR --text "..."                 a run's model on texts, a file, or stdin
  peftkit export DIR --format onnx --out DIR       the model for others, proven to answer as before
  peftkit merge DIR --out DIR                      a run's adapter merged, and proven equal

  peftkit COMMAND --help                           the options of a command
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"--help", "-h", "help"}:
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"peftkit {version('peftkit')}")
        return 0
    command, *rest = arguments

    def work() -> int:
        if command not in COMMANDS:
            raise UnknownName("command", command, COMMANDS, next_step="peftkit --help")
        return COMMANDS[command](rest)

    return guarded(work)


def guarded(work: Callable[[], int]) -> int:
    """Do `work` and return its exit status; errors of ours become a message on stderr."""
    try:
        return work()
    except (Diverged, DoesNotFit, Unsupported, VerificationFailed) as error:
        return _complain(error, 1)
    except PeftkitError as error:
        return _complain(error, 2)
    except KeyboardInterrupt as error:
        return _complain(error if str(error) else "interrupted", getattr(error, "exit_code", 130))
    except BrokenPipeError:  # the reader of a pipe has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" at {error.filename}" if error.filename else ""
        return _complain(f"the disk is full{where}. Next: free some space, and run it again", 1)


def _complain(error: object, status: int) -> int:
    print(f"peftkit: {error}", file=sys.stderr)
    return status


def _list(argv: list[str]) -> int:
    from peftkit.listing import KINDS, listing

    if _wants_help(argv, "peftkit list [methods|tasks|backbones|formats]"):
        return 0
    for kind in argv:
        if kind not in KINDS:
            raise UnknownName("kind", kind, KINDS)
    print(listing(argv or KINDS), end="")
    return 0


def _doctor(argv: list[str]) -> int:
    from peftkit.doctor import examine

    if _wants_help(argv, "peftkit doctor"):
        return 0
    print(examine(), end="")
    return 0


def _elsewhere(name: str, *, recipe: bool = False, loud: bool = False) -> Command:
    """A command with a module of its own below `peftkit.commands`: its USAGE and a function.

    Args:
        name: Of the command.
        recipe: Whether its options include those of a recipe.
        loud: Whether it loads no library that would have to be silenced.
    """

    def command(argv: list[str]) -> int:
        module = importlib.import_module(f"peftkit.commands.{name}")
        if _wants_help(argv, module.USAGE, recipe=recipe):
            return 0
        if not loud:
            from peftkit.environment import quiet_libraries

            quiet_libraries()
        return getattr(module, f"{name}_command")(argv) or 0

    return command


def run_command(argv: list[str], base: Recipe | None = None) -> int:
    """`peftkit run`, or a recipe script, whose recipe is `base`."""
    from peftkit.distributed import is_first
    from peftkit.flags import parse_flags
    from peftkit.reporting.progress import run_progress
    from peftkit.reporting.single import describe

    if _wants_help(argv, RUN_USAGE, recipe=True, base=base):
        return 0
    extras = {
        "out": str, "smoke": bool, "overwrite": bool, "force": bool, "memory_profile": bool,
        "report_to": tuple[str, ...],
    }  # fmt: skip
    recipe, own = parse_flags(argv, base, extras=extras)
    limit = None
    if own.get("smoke"):
        from peftkit.smoke import LIMIT, shrink

        recipe, limit = shrink(recipe), LIMIT
    made_here = "out" in own and not Path(own["out"]).exists()
    out = _free_folder(own)
    from peftkit.environment import quiet_libraries
    from peftkit.pipeline import run

    quiet_libraries()
    with _none_left_empty(out if made_here else None), run_progress() as progress:
        record = run(
            recipe, out, progress=progress, limit=limit, force=bool(own.get("force")),
            memory_profile=bool(own.get("memory_profile")), report_to=own.get("report_to", ()),
        )  # fmt: skip
    if is_first():
        print(describe(record, out), end="")
    return 0


RUN_USAGE = """\
peftkit run --method NAME --task NAME [--out DIR] [--smoke] [--overwrite] [OPTIONS]

  --out DIR         folder for the adapter and its record
  --smoke           a tiny twin of the backbone, few rows, two steps: does it run at all?
  --overwrite       replace what DIR holds
  --force           train even what would not fit into memory, by prediction
  --memory-profile  what memory held over a training step: a picture and its numbers in DIR
  --report-to A,B   stream training to tensorboard (DIR/tensorboard), mlflow, wandb, trackio
"""


def _free_folder(own: dict[str, Any]) -> Path | None:
    """The output folder, if nothing finished is in it."""
    if "out" not in own:
        return None
    out = Path(own["out"])
    if (out / "record.json").exists() and not own.get("overwrite"):
        raise InvalidInput(
            f"{out} already holds a finished run",
            next_step="name another folder, or add --overwrite",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink(missing_ok=True)  # of several processes one was first
    except OSError as error:
        raise InvalidInput(
            f"{out} cannot be written", received=error.strerror, next_step="name another folder"
        ) from error
    return out


@contextmanager
def _none_left_empty(out: Path | None) -> Iterator[None]:
    """Remove an output folder again that nothing was written into, because work was refused."""
    try:
        yield
    finally:
        if out is not None:
            with suppress(OSError):  # it holds something
                out.rmdir()


def _evaluate(argv: list[str]) -> int:
    from peftkit.flags import read_options

    usage = "peftkit evaluate DIR --data FILE [--json] [--allow-other-base]"
    if _wants_help(argv, usage):
        return 0
    folder, rest = _folder_first(argv, usage)
    own = read_options(rest, {"data": str, "json": bool, "allow_other_base": bool})
    if "data" not in own:
        raise InvalidInput("no file to evaluate on", next_step=f"call it as {usage}")
    run = _load(folder, own)
    metrics = run.evaluate(own["data"])
    if own.get("json"):
        print(json.dumps(metrics))
    else:
        for name, value in metrics.items():
            print(f"{name:22} {value:.4f}" if isinstance(value, float) else f"{name:22} {value}")
    return 0


def _load(folder: Path, own: dict[str, Any]) -> Any:
    from peftkit.environment import quiet_libraries
    from peftkit.saved import load_run

    quiet_libraries()
    return load_run(folder, allow_other_base=bool(own.get("allow_other_base")))


def _wants_help(
    argv: list[str], usage: str, *, recipe: bool = False, base: Recipe | None = None
) -> bool:
    if not {"--help", "-h"} & set(argv):
        return False
    print(usage)
    if recipe:
        from peftkit.flags import read_flags, recipe_help

        changes, _ = read_flags([a for a in argv if a not in {"--help", "-h"}])
        if base is not None:
            body = base.to_dict()
            changes = {"method": body["method"]["name"], "task": body["task"]["name"], **changes}
        named = {kind: str(changes[kind]) for kind in ("method", "task") if kind in changes}
        print(recipe_help(**named), end="")
    return True


def _folder_first(argv: list[str], usage: str) -> tuple[Path, list[str]]:
    if not argv or argv[0].startswith("-"):
        raise InvalidInput("the folder is missing", allowed=usage)
    return Path(argv[0]), argv[1:]


COMMANDS: dict[str, Command] = {
    "advise": _elsewhere("advise", loud=True),
    "check": _elsewhere("check", recipe=True),
    "combine": _elsewhere("combine"),
    "compare": _elsewhere("compare", recipe=True),
    "doctor": _doctor,
    "evaluate": _evaluate,
    "export": _elsewhere("export"),
    "list": _list,
    "merge": _elsewhere("merge"),
    "plan": _elsewhere("plan", recipe=True, loud=True),
    "predict": _elsewhere("predict"),
    "report": _elsewhere("report", loud=True),
    "run": run_command,
    "sequence": _elsewhere("sequence", recipe=True),
    "study": _elsewhere("study", recipe=True),
    "verdict": _elsewhere("verdict", loud=True),
}
