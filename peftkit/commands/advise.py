"""`peftkit advise`: what studies say of a situation that none of them measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from peftkit.errors import InvalidInput
from peftkit.flags import leading, read_options

USAGE = """\
peftkit advise DIR [DIR ...] --backbone NAME --size N [--task KIND] [--noise R] [--json]

  DIR              the records of `peftkit study` or `peftkit compare`
  --backbone NAME  yours: a folder, a config.json, a hub name, or bundled; its family counts
  --size N         labelled examples that you have
  --task KIND      text_classification (default), token_classification, ...
  --noise R        share of your labels that are wrong, as far as you know (default 0)
  --margin M       as for `peftkit verdict`

Advice reaches no further than the evidence: the same family and kind of task, sizes within range.
"""


def advise_command(argv: list[str]) -> None:
    """Print the advice, and what it rests on."""
    from peftkit.verdict.advising import Situation, conclude, weigh
    from peftkit.verdict.from_table import read_judged
    from peftkit.verdict.results import require_margin

    folders = leading(argv)
    extras = {"backbone": str, "size": int, "task": str, "noise": float, "json": bool,
              "margin": float}  # fmt: skip
    own = read_options(argv[len(folders) :], extras)
    for name, value in {"folder of a study": folders, "--backbone": own.get("backbone"),
                        "--size": own.get("size")}.items():  # fmt: skip
        if not value:
            raise InvalidInput(f"the {name} is missing", allowed=USAGE.splitlines()[0])
    situation = Situation(
        family=_family(own["backbone"]),
        task=own.get("task", "text_classification").replace("-", "_"),
        size=own["size"],
        label_noise=own.get("noise", 0.0),
    )
    margin = own.get("margin")
    require_margin(margin)
    studied = [read_judged(Path(folder), margin) for folder in folders]
    for found in studied:
        found.warn()
    judged = [each for found in studied for each in found.verdicts]
    evidence = weigh(situation, judged)
    kind, reason = conclude(evidence)
    if own.get("json"):
        body = {"situation": asdict(situation), "advice": kind, "reason": reason,
                "evidence": [asdict(each) for each in evidence]}  # fmt: skip
        print(json.dumps(body, indent=2))
        return
    asked = f"{situation.family}, {situation.task}, {situation.size:,} examples"
    print(f"{asked}: {kind or f'no advice, {reason}'}")
    for each in evidence:
        if each.kind is None:
            print(f"  {each.study}: says nothing of it, {each.reason}")
        else:
            measured = " and ".join(f"{size:,}" for size in each.sizes)
            named = f" ({each.method})" if each.method else ""
            print(f"  {each.study}: {each.kind}{named}, measured at {measured} examples")


def _family(name: str) -> str:
    from peftkit.backbones import family_of, read_configuration

    kind = read_configuration(name)["model_type"]
    family = family_of(kind)
    return family.name if family else str(kind)
