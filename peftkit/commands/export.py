"""`peftkit export`: a run's folder in a format of others, proven to answer as before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from peftkit import parts
from peftkit.errors import InvalidInput
from peftkit.flags import read_options

USAGE = """\
peftkit export RUN --format NAME --out DIR [--overwrite] [--json] [--rows N] [--allow-other-base]

  --format NAME       adapter, merged, onnx, torch, gguf, gguf_adapter, ollama or vllm
  --out DIR           folder to write; it has this name only once it is whole and proven
  --overwrite         replace an earlier export in DIR
  --rows N            rows that both are compared on, at most (default 32)
  --json              print how well both agree as JSON
  --allow-other-base  even if the backbone's weights are not those of the training
  --llama-cpp PATH    gguf, gguf_adapter, ollama: folder of llama.cpp, whose converter is run

RUN is the --out folder of `peftkit run`, or one that `peftkit merge` wrote. The files are read
back and compared with the run on validation rows; where they answer otherwise, none is left.
"""
CALL = "peftkit export RUN --format NAME --out DIR"
OPTIONS: dict[str, Any] = {
    "format": str,
    "out": str,
    "overwrite": bool,
    "json": bool,
    "rows": int,
    "allow_other_base": bool,
    "llama_cpp": str,
}


def export_command(argv: list[str]) -> None:
    """Export a run, and print how well both agree.

    Raises:
        InvalidInput: An option is missing, unknown, or does not go with the format.
    """
    if not argv or argv[0].startswith("-"):
        raise InvalidInput("the folder is missing", allowed=CALL)
    own = read_options(argv[1:], OPTIONS)
    for name in ("format", "out"):
        if name not in own:
            raise InvalidInput(f"--{name} is missing", allowed=CALL)
    if own.get("rows", 1) < 1:
        raise InvalidInput(
            "nothing can be compared",
            received=f"--rows {own['rows']}",
            allowed="1 or more",
            next_step="leave --rows out for 32",
        )
    chosen = make_format(own["format"], llama_cpp=own.get("llama_cpp"))
    from peftkit.exporting.adapted import ROWS
    from peftkit.exporting.performing import export

    found = export(
        argv[0], chosen, own["out"],
        overwrite=bool(own.get("overwrite")),
        rows=own.get("rows", ROWS),
        allow_other_base=bool(own.get("allow_other_base")),
    )  # fmt: skip
    about = json.loads((Path(own["out"]) / "peftkit.json").read_text(encoding="utf-8"))["export"]
    if own.get("json"):
        print(json.dumps(about))
        return
    print(f"wrote {own['out']} ({about['format']})")
    print(
        f"compared on {found.num_rows} {about['rows']}: largest difference "
        f"{found.largest_difference:.3g} of logits up to {about['largest_logit']:.4g}, "
        f"KL {found.kl:.3g} nats, {found.equal_predictions:.2%} of predictions equal"
    )
    told = (f"{name} {a:.4f} -> {b:.4f}" for name, (a, b) in found.metrics.items())
    if metrics := ", ".join(told):
        print(f"metrics of these rows: {metrics}")


def make_format(name: str, **options: Any) -> Any:
    """The format of this name, with the options that were given.

    Raises:
        UnknownName: There is no such format.
        InvalidInput: An option is none of the format's.
    """
    cls = parts.load("format", name)
    given = {option: value for option, value in options.items() if value is not None}
    own = {field.name for field in dataclasses.fields(cls)}
    for option in given:
        if option not in own:
            raise InvalidInput(
                f"--{option.replace('_', '-')} says nothing to the format {name}",
                next_step="leave it out",
            )
    return cls(**given)
