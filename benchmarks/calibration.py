"""How often verdicts and crossover sets are wrong, on simulated studies whose truth is known.

    python benchmarks/calibration.py [--smoke] [--jobs 2] [--only KIND] [--out DIR]

A test item has a difficulty that all methods and seeds share; an answer is right where difficulty
and an error of its own lie below a threshold (probit). A method's accuracy is 0.85, full
fine-tuning's that and the gap; the seed moves the paired difference by a normal error. Each setting
is a file below `cells`, and is not simulated again; `calibration.md` is the table of all.

- **Verdicts** with the true gap at the margin (2,000 studies; each direction is wrong on its own
  side) and off it (500): read by the Wilson 95 % limits of the rate of wrong ones; beside the share
  that is decided what the closed form says. "looks": after 3, 5 and 8 seeds, as `--adaptive` looks.
- **Crossover sets** (500 studies): how often they hold the true size, over all studies; how many
  have both ends, and how far apart these are. Of curves through five sizes all are measured, or
  three: the ends and the middle.
"""

import argparse
import json
import tempfile
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from peftkit.record import write_atomically
from peftkit.statistics.crossover import crossover
from peftkit.statistics.hypotheses import wilson
from peftkit.statistics.power import Components, power
from peftkit.verdict import LOOKS, Results, decide

OUT = Path(__file__).parent / "results" / "calibration"
ACCURACY, DISCORDANCE, MARGIN = 0.85, 0.10, 0.01
SPREADS = (0.2, 0.5, 1.0, 3.0)  # points: standard deviation of the paired difference over seeds
SEEDS, ITEMS = (3, 5, 10), (500, 1300, 4500)
GAPS = (0.0, 1.0, 2.0)  # points; the margin is 1
LADDER_GAPS = (6.0, 0.5, 0.0)  # of a ladder of three: one far below full, two near it
SIZES = (64, 256, 1024, 4096, 16384)
CURVES = {  # the gap in points at each size
    "crosses in the middle": (-2.0, -0.5, 1.0, 2.5, 4.0),
    "crosses late": (-3.0, -2.0, -1.0, 0.0, 2.0),
    "bends over the margin": (0.0, 0.2, 0.6, 1.4, 3.0),
    "never": (0.0, 0.0, 0.0, 0.0, 0.0),
    "from the smallest": (3.0, 3.0, 3.0, 3.0, 3.0),
}
SHAPES = ((3, 1000), (5, 1300), (10, 4500))


@dataclass(frozen=True)
class Setting:
    """What is simulated."""

    kind: str  # "gap", "looks", "ladder" or a name of CURVES
    gap: float  # points
    spread: float  # points
    seeds: int
    items: int
    studies: int
    sizes: int = len(SIZES)  # measured, of a curve

    @property
    def name(self) -> str:
        kind = self.kind.replace(" ", "-")
        kind += f"_k{self.sizes}" if self.sizes != len(SIZES) else ""
        return f"{kind}_gap{self.gap:g}_sd{self.spread:g}_s{self.seeds}_i{self.items}"


@cache
def correlation() -> float:
    """Of the latent answers of two runs, so that a tenth of all answers differ."""
    threshold = stats.norm.ppf(ACCURACY)

    def differ(rho: float) -> float:
        both = stats.multivariate_normal.cdf([threshold] * 2, cov=[[1, rho], [rho, 1]])
        return float(2 * (ACCURACY - both) - DISCORDANCE)

    return float(optimize.brentq(differ, 0.1, 0.999))


def answers(
    accuracy: NDArray[np.float64], difficulty: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    """Right or wrong, `(S, I)`, of runs with these accuracies `(S,)`."""
    rho = correlation()
    own = random.standard_normal((len(accuracy), len(difficulty)), dtype=np.float32)
    latent = np.sqrt(rho) * difficulty[None, :] + np.sqrt(1 - rho) * own
    threshold = stats.norm.ppf(np.clip(accuracy, 0.001, 0.999))
    return (latent < threshold[:, None]).astype(np.float64)


def results(setting: Setting, random: np.random.Generator) -> Results:
    """One simulated study at one size."""
    gaps = LADDER_GAPS if setting.kind == "ladder" else (setting.gap,)
    difficulty = random.standard_normal(setting.items, dtype=np.float32)
    shared = 0.01 * random.normal(size=setting.seeds)  # what a seed does to every method
    base = ACCURACY + shared
    full = answers(base, difficulty, random)
    scores: dict[tuple[str, int], Any] = {("full", 1): dict(enumerate(full))}
    for number, gap in enumerate(gaps):
        moved = base - gap / 100 - setting.spread / 100 * random.normal(size=setting.seeds)
        cells = answers(moved, difficulty, random)
        scores[f"method {number}", 1] = dict(enumerate(cells))
    ladder = tuple(f"method {number}" for number in range(len(gaps)))
    return Results(scores=scores, full="full", ladder=ladder)


def judged(setting: Setting, random: np.random.Generator) -> tuple[bool, bool, bool]:
    """Whether a method whose gap is the margin or more was called enough; full warranted where no
    gap is more than that; and whether anything was decided."""
    looks = LOOKS if setting.kind == "looks" else ()
    study = results(setting, random)
    decision = decide(study, MARGIN, looks=looks, with_needs=False).decisions[0]
    gaps = LADDER_GAPS if setting.kind == "ladder" else (setting.gap,)
    named = None if decision.method is None else int(decision.method.split()[1])
    enough_wrong = named is not None and gaps[named] >= 100 * MARGIN
    full_wrong = decision.kind == "full is warranted" and min(gaps) <= 100 * MARGIN
    return enough_wrong, full_wrong, decision.kind != "undecided"


@cache
def spread_of(gap: float, spread: float) -> Components:
    """The true components of a paired difference, by integrating over difficulty."""
    rho = correlation()
    nodes, weights = np.polynomial.hermite_e.hermegauss(201)
    weights = weights / weights.sum()
    right = [
        stats.norm.cdf((stats.norm.ppf(a) - np.sqrt(rho) * nodes) / np.sqrt(1 - rho))
        for a in (ACCURACY, ACCURACY - gap / 100)
    ]
    mean = right[0] - right[1]
    items = float(weights @ (mean - weights @ mean) ** 2)
    rest = float(weights @ (right[0] * (1 - right[0]) + right[1] * (1 - right[1])))
    return Components(seeds=(spread / 100) ** 2, items=items, rest=rest)


def closed_form(setting: Setting) -> float:
    """Share of studies that decide, by the closed form: either test, of one cheaper method."""
    parts = spread_of(setting.gap, setting.spread)
    away = abs(setting.gap / 100 - MARGIN)
    directions = 2 if away == 0 else 1  # at the margin either test decides as often as it errs
    return directions * power(parts, away, setting.seeds, setting.items)


def true_size(curve: tuple[float, ...]) -> float:
    """From which size on the gap is at least the margin; infinite: from none that was measured."""
    grid = np.linspace(np.log(SIZES[0]), np.log(SIZES[-1]), 100_001)
    gap = np.interp(grid, np.log(SIZES), curve)
    below = np.flatnonzero(gap < 100 * MARGIN)
    if not len(below):
        return 0.0
    return np.inf if below[-1] == len(grid) - 1 else float(np.exp(grid[below[-1] + 1]))


def crossing(setting: Setting, random: np.random.Generator) -> tuple[bool, bool, float]:
    """Whether the set holds the true size, whether it has both ends, and their ratio."""
    curve = CURVES[setting.kind]
    difficulty = random.standard_normal(setting.items, dtype=np.float32)
    found = []
    step = (len(SIZES) - 1) // (setting.sizes - 1)
    for gap in curve[::step]:
        base = ACCURACY + 0.01 * random.normal(size=setting.seeds)
        moved = base - gap / 100 - setting.spread / 100 * random.normal(size=setting.seeds)
        found.append(answers(base, difficulty, random) - answers(moved, difficulty, random))
    sizes = [float(n) for n in SIZES[::step]]
    where = crossover(sizes, np.stack(found), MARGIN)
    closed = where.lower is not None and where.upper is not None
    ratio = where.upper / where.lower if where.lower and where.upper else np.nan
    return where.holds(true_size(curve)), closed, float(ratio)


def simulate(setting: Setting, out: Path) -> str:
    """Simulate a setting, unless its file is there."""
    path = out / "cells" / f"{setting.name}.json"
    if path.exists() and json.loads(path.read_text("utf-8"))["studies"] >= setting.studies:
        return setting.name
    random = np.random.default_rng(zlib.crc32(setting.name.encode()))
    body: dict[str, Any] = asdict(setting)
    if setting.kind in CURVES:
        found = [crossing(setting, random) for _ in range(setting.studies)]
        ratios = [ratio for _, closed, ratio in found if closed]
        body |= {
            "held": sum(held for held, _, _ in found),
            "closed": sum(closed for _, closed, _ in found),
            "median_ratio": float(np.median(ratios)) if ratios else None,
        }
    else:
        judgements = [judged(setting, random) for _ in range(setting.studies)]
        enough, full, decided = (sum(column) for column in zip(*judgements, strict=True))
        body |= {"wrong_enough": enough, "wrong_full": full, "decided": decided}
    write_atomically(path, json.dumps(body) + "\n")
    return setting.name


def settings(*, smoke: bool) -> list[Setting]:
    few = 40 if smoke else None
    found = []
    for spread, seeds, items in product(SPREADS, SEEDS, ITEMS):
        found += [Setting("gap", gap, spread, seeds, items, few or studies(gap)) for gap in GAPS]
        found.append(Setting("ladder", 0.0, spread, seeds, items, few or 500))
    for spread, items, gap in product(SPREADS, ITEMS, GAPS):
        found.append(Setting("looks", gap, spread, LOOKS[-1].seeds, items, few or studies(gap)))
    for curve, spread, (seeds, items), sizes in product(CURVES, SPREADS, SHAPES, (len(SIZES), 3)):
        found.append(Setting(curve, 0.0, spread, seeds, items, few or 500, sizes))
    return found[:: 17 if smoke else 1]


def studies(gap: float) -> int:
    """How many are simulated: more where the gap is the margin, as the rate there is a level."""
    return 2000 if gap == 100 * MARGIN else 500


def table(out: Path) -> str:
    """Both tables, from the files of all settings."""
    cells = [json.loads(p.read_text("utf-8")) for p in sorted((out / "cells").glob("*.json"))]
    for cell in cells:
        if cell["kind"] == "gap":
            fields = {name: cell[name] for name in Setting.__dataclass_fields__}
            cell["closed_form"] = closed_form(Setting(**fields))
    lines = [
        "# Verdicts and crossover sets on simulated studies",
        "",
        "Written by `python benchmarks/calibration.py`. Accuracy 85 %, a tenth of answers differ "
        "between two runs, margin 1 point. sd: of the paired difference over seeds, in points. "
        "Wrong: in percent, with the Wilson 95 % interval.",
        "",
        "| kind | gap | sd | seeds | items | studies | wrongly enough | wrongly full | decided % "
        "| closed form % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    verdicts = [cell for cell in cells if cell["kind"] not in CURVES]
    for c in sorted(
        verdicts, key=lambda c: (c["kind"], c["gap"], c["spread"], c["seeds"], c["items"])
    ):
        closed = f"{100 * c['closed_form']:.0f}" if "closed_form" in c else "-"
        gap = f"{c['gap']:g}" if c["kind"] != "ladder" else ", ".join(f"{g:g}" for g in LADDER_GAPS)
        lines.append(
            f"| {c['kind']} | {gap} | {c['spread']:g} | {c['seeds']} | {c['items']} "
            f"| {c['studies']} | {_rate(c['wrong_enough'], c['studies'])} "
            f"| {_rate(c['wrong_full'], c['studies'])} | {100 * c['decided'] / c['studies']:.0f} "
            f"| {closed} |"
        )
    lines += [
        "",
        "| curve | sizes | sd | seeds | items | studies | held % | both ends % "
        "| median upper / lower |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    sets = [cell for cell in cells if cell["kind"] in CURVES]
    for c in sorted(sets, key=lambda c: (c["kind"], c["sizes"], c["spread"], c["seeds"])):
        ratio = "-" if c["median_ratio"] is None else f"{c['median_ratio']:.1f}"
        lines.append(
            f"| {c['kind']} | {c['sizes']} | {c['spread']:g} | {c['seeds']} | {c['items']} "
            f"| {c['studies']} | {_rate(c['held'], c['studies'])} "
            f"| {100 * c['closed'] / c['studies']:.0f} | {ratio} |"
        )
    lines += ["", *read(verdicts, sets), ""]
    return "\n".join(lines)


def read(verdicts: list[dict[str, Any]], sets: list[dict[str, Any]]) -> list[str]:
    """What the gates say: which settings fail them."""
    wrong = [c for c in verdicts for name in ("wrong_enough", "wrong_full")
             if wilson(c[name], c["studies"])[0] > 0.05]  # fmt: skip
    held = [c for c in sets if wilson(c["held"], c["studies"])[1] < 0.95]
    off = [
        c for c in verdicts
        if c["kind"] == "gap" and abs(c["decided"] / c["studies"] - c["closed_form"]) > 0.05
    ]  # fmt: skip
    single = [c for c in verdicts if c["kind"] == "gap"]
    return [
        f"- Wrong more often than 5 % (lower Wilson limit above it): {len(wrong)} of "
        f"{2 * len(verdicts)}{_named(wrong)}.",
        f"- Crossover sets that hold the truth less often than 95 % (upper Wilson limit below it): "
        f"{len(held)} of {len(sets)}{_named(held)}.",
        f"- Decided share more than 5 points from the closed form: {len(off)} of {len(single)}"
        f"{_named(off)}.",
    ]


def _named(cells: list[dict[str, Any]]) -> str:
    found = [
        f"{c['kind']}{'' if c['kind'] in CURVES else ' ' + format(c['gap'], 'g')}, "
        f"sd {c['spread']:g}, {c['seeds']} seeds, {c['items']} items"
        for c in cells
    ]
    return f" ({'; '.join(found)})" if found else ""


def _rate(count: int, studies: int) -> str:
    low, high = wilson(count, studies)
    return f"{100 * count / studies:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="settings whose file names hold this, as _k3")
    parser.add_argument("--smoke", action="store_true", help="few studies, into a temporary folder")
    args = parser.parse_args()
    if args.smoke:
        args.out = Path(tempfile.mkdtemp(prefix="calibration-"))
    todo = [each for each in settings(smoke=args.smoke) if args.only in each.name]
    with ProcessPoolExecutor(args.jobs) as pool:
        for done, name in enumerate(pool.map(simulate, todo, [args.out] * len(todo)), start=1):
            print(f"[{done}/{len(todo)}] {name}", flush=True)
    write_atomically(args.out / "calibration.md", table(args.out))
    print((args.out / "calibration.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
