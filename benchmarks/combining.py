"""Adapters combined by peftkit and by PEFT, against the exact sum of their updates.

    python benchmarks/combining.py

Trains two adapters of each kind on the bundled backbone and task (seeds 0 and 1), and combines one
with weight 1 and two with weights one half. The answer that is right is that of the backbone whose
weights are W + sum of w_i (W_i - W), in float64 and cast once, W_i being what PEFT itself makes
of W when it merges adapter i alone. All models wear the head of the first run, since
`add_weighted_adapter` refuses adapters with heads. An error is the norm of the difference of the
logits of 64 test rows over the norm of the right ones. Writes benchmarks/results/combining.md.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from peftkit import Recipe
from peftkit.combining import Request, combine_runs
from peftkit.environment import environment, quiet_libraries
from peftkit.merging import fold
from peftkit.record import MANIFEST, write_atomically
from peftkit.saved import open_run
from peftkit.workbench import Workbench

OUT = Path(__file__).parent / "results" / "combining.md"
STEPS, ROWS = 60, 64
VARIANTS: dict[str, dict[str, Any]] = {
    "plain LoRA": {},
    "rsLoRA": {"rslora": True},
    "DoRA": {"dora": True},
    "rank patterns": {"rank_pattern": {"query": 2, "output.dense": 12}},
}
OURS = {
    "linear": Request(method="linear", weights=None),
    "svd, rank 8": Request(method="svd", rank=8),
    "svd, all energy": Request(method="svd", energy=1.0),
}
PEFTS = ("linear", "svd", "cat")
HEAD = f"""# Adapters combined: peftkit beside PEFT's add_weighted_adapter

Written by `python benchmarks/combining.py`. Relative error of the logits of {ROWS} test rows of
pydocs/library against those of the backbone with the exact sum of updates (see the script);
all-MiniLM-L6-v2, adapters of rank 8 and alpha 16 (the default) on all linear layers of the blocks,
{STEPS} steps. "effect" is the same measure of the bare backbone, whose update is nothing: an error
of that size means that the adapters might as well have been left out. PEFT takes the rule "linear"
for one adapter, whatever is asked for. svd of rank 8 is an approximation by its nature.

"""


def few_rows(folder: Path) -> Path:
    """Some rows of the bundled task, as files, so that not every run reads all of it."""
    task = Recipe(method="lora", task={"name": "pydocs/library", "size": 256}).task
    data = task.load(seed=0)
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = getattr(data, split)
        rows = rows.select(range(min(len(rows), 256 if split == "train" else ROWS)))
        found = [{"text": row["text"], "label": data.labels[row["label"]]} for row in rows]
        lines = "".join(json.dumps(row) + "\n" for row in found)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def train(variant: str, seed: int, data: Path, folder: Path) -> Path:
    """What `peftkit run` leaves, without its measuring, which takes longer than the training."""
    recipe = Recipe(
        method={"name": "lora", **VARIANTS[variant]},
        task={"name": "text_classification", "data": str(data)},
        training={"steps": STEPS, "batch_size": 8, "precision": "float32"},
        seed=seed,
    )
    bench = Workbench(recipe, recipe.task.load(seed=0), folder)
    recipe.method.fit(bench).save(folder)
    located = bench.backbone.location
    body = {
        "recipe": recipe.to_dict(),
        "labels": bench.data.labels,
        "backbone": {"name": located.name, "fingerprint": located.fingerprint},
        "data": {"source": bench.data.source, "fingerprint": bench.data.fingerprint},
    }
    (folder / MANIFEST).write_text(json.dumps(body), encoding="utf-8")
    return folder


def bare(folder: Path, source: Path) -> Path:
    """A copy of an adapter without its head."""
    folder.mkdir(parents=True)
    config = json.loads((source / "adapter_config.json").read_text("utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps(config | {"modules_to_save": None}))
    tensors = load_file(source / "adapter_model.safetensors")
    save_file({n: t for n, t in tensors.items() if ".lora_" in n},
              folder / "adapter_model.safetensors")  # fmt: skip
    return folder


class Bench:
    """One backbone with one head, and what it answers under any adapter."""

    def __init__(self, lead: Path) -> None:
        self.bench, _ = open_run(lead)
        self.model = self.bench.backbone.model
        tensors = load_file(lead / "adapter_model.safetensors")
        with torch.no_grad():
            for name, tensor in tensors.items():
                if ".lora_" not in name:
                    self.model.get_parameter(name.removeprefix("base_model.model.")).copy_(tensor)
        rows = self.bench.recipe.task.load(seed=0).test
        self.batch = self.bench.collate(self.bench.encode(rows))
        del self.batch["labels"]

    def fresh(self) -> Any:
        return copy.deepcopy(self.model)

    def answers(self, model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(**self.batch).logits.double()

    def exact(self, adapters: list[Path], weights: list[float]) -> torch.Tensor:
        model = self.fresh()
        own = {name: tensor.double() for name, tensor in model.state_dict().items()}
        total = dict(own)
        for adapter, weight in zip(adapters, weights, strict=True):
            merged = fold(PeftModel.from_pretrained(self.fresh(), adapter)).state_dict()
            for name, tensor in merged.items():
                total[name] = total[name] + weight * (tensor.double() - own[name])
        model.load_state_dict({n: t.to(model.state_dict()[n].dtype) for n, t in total.items()})
        return self.answers(model)

    def by_peft(self, adapters: list[Path], weights: list[float], rule: str) -> torch.Tensor:
        names = [f"a{i}" for i in range(len(adapters))]
        model = PeftModel.from_pretrained(self.fresh(), adapters[0], adapter_name=names[0])
        for name, adapter in zip(names[1:], adapters[1:], strict=True):
            model.load_adapter(adapter, adapter_name=name)
        model.add_weighted_adapter(names, weights, "sum", combination_type=rule)
        model.set_adapter("sum")
        return self.answers(model)

    def by_peftkit(self, runs: list[Path], weights: list[float], rule: str, folder: Path) -> Any:
        request = OURS[rule]
        asked = Request(method=request.method, rank=request.rank, energy=request.energy,
                        weights=tuple(weights))  # fmt: skip
        combined = combine_runs(runs, folder / "combined", asked, head=runs[0])
        adapter = bare(folder / "bare", folder / "combined")
        model = PeftModel.from_pretrained(self.fresh(), adapter)
        return self.answers(model), combined


def relative(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found - right).norm() / right.norm())


def rows_of(variant: str, data: Path, folder: Path) -> list[str]:
    """Lines of the table for one kind of adapter."""
    runs = [train(variant, seed, data, folder / f"run-{seed}") for seed in (0, 1)]
    adapters = [bare(folder / f"bare-{run.name}", run) for run in runs]
    bench = Bench(runs[0])
    lines = []
    for weights in ([1.0], [0.5, 0.5]):
        some = len(weights)
        right = bench.exact(adapters[:some], weights)
        cells = [f"{relative(bench.answers(bench.model), right):.2f}"]
        for rule in PEFTS:
            try:
                cells.append(
                    f"{relative(bench.by_peft(adapters[:some], weights, rule), right):.1e}"
                )
            except (ValueError, RuntimeError) as error:
                cells.append(f"refused: {str(error).splitlines()[0]}")
        for rule in OURS:
            place = folder / f"{some}-{rule}"
            found, combined = bench.by_peftkit(runs[:some], weights, rule, place)
            cells.append(f"{relative(found, right):.1e} ({combined.kind}, rank {combined.rank})")
            shutil.rmtree(place)
        named = " / ".join(f"{weight:g}" for weight in weights)
        lines.append(f"| {variant} | {named} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    quiet_libraries()
    titles = ["adapters", "weights", "effect", *(f"PEFT {rule}" for rule in PEFTS),
              *(f"peftkit {rule}" for rule in OURS)]  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    with tempfile.TemporaryDirectory(prefix="combining-") as temporary:
        data = few_rows(Path(temporary) / "data")
        for number, variant in enumerate(VARIANTS):
            lines += rows_of(variant, data, Path(temporary) / str(number))
    versions = environment()["versions"]
    shown = ", ".join(f"{n} {versions[n]}" for n in ("torch", "transformers", "peft"))
    write_atomically(OUT, HEAD + "\n".join(lines) + f"\n\nWith {shown}, on one CPU thread.\n")
    print(f"wrote {OUT}")


if __name__ == "__main__":
    main()
