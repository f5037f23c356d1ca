"""What peftkit leaves, loaded where peftkit is not installed: transformers and PEFT alone.

    python benchmarks/stock_environment.py [--steps 60] [--environment DIR]

Trains LoRA on the bundled encoder, merges it, exports the adapter; makes a virtual environment with
torch, transformers and PEFT in the versions of constraints.txt; and compares there, on the same
texts, the logits of the merged model and of the adapter on its base with those that peftkit had.
The head reads what transformers' head reads (`--backbone.pooling model`), padding is on the right.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from peftkit import Recipe, load_run, run
from peftkit.environment import environment, quiet_libraries
from peftkit.exporting.performing import export
from peftkit.formats.adapter import Adapter
from peftkit.merging.performing import merge_run
from peftkit.record import write_atomically

ROOT = Path(__file__).parent.parent
OUT = ROOT / "benchmarks" / "results" / "stock_environment.md"
ROWS = 64
STOCK = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer
try:
    import peftkit
except ImportError:
    pass
else:
    sys.exit("peftkit is installed here")
kind, folder, base, num_labels, texts = sys.argv[1:]
texts = json.load(open(texts))
if kind == "merged":
    model = AutoModelForSequenceClassification.from_pretrained(folder)
else:
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=int(num_labels))
    model = PeftModel.from_pretrained(model, folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
batch = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
with torch.no_grad():
    logits = model.eval()(**batch).logits
print(json.dumps(logits.tolist()))
"""


def make_environment(folder: Path) -> Path:
    """A virtual environment without peftkit; its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, "torch"], check=True)
        subprocess.run([*pip, "transformers", "peft"], check=True)
    return python


def logits_there(python: Path, *arguments: object) -> np.ndarray:
    """Logits of the stock script in that environment."""
    done = subprocess.run(
        [str(python), "-I", "-W", "ignore", "-c", STOCK, *map(str, arguments)],
        check=False, capture_output=True, text=True, cwd=tempfile.gettempdir(),
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return np.array(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--environment", type=Path, help="kept there; default a temporary folder")
    asked = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="peftkit-stock-") as temporary:
        work = Path(temporary)
        recipe = Recipe(
            method="lora",
            backbone={"name": "bundled", "pooling": "model"},
            task={"name": "text_classification", "data": "pydocs/library", "size": 256},
            training={"steps": asked.steps, "precision": "float32"},
        )
        run(recipe, work / "run")
        merge_run(work / "run", work / "merged")
        export(work / "run", Adapter(), work / "adapter")
        saved = load_run(work / "run")
        rows = recipe.task.load(seed=0).test.select(range(ROWS))
        here = np.asarray(saved.predictor.outputs(rows))
        (work / "texts.json").write_text(json.dumps(list(rows["text"])))
        base = saved.predictor.bench.backbone.location.folder  # type: ignore[attr-defined]
        python = make_environment(asked.environment or work / "environment")
        lines = []
        for kind in ("merged", "adapter"):
            there = logits_there(
                python, kind, work / kind, base, len(saved.labels), work / "texts.json"
            )
            same = float(np.mean(there.argmax(1) == here.argmax(1)))
            difference = float(np.abs(there - here).max())
            lines.append(f"| {kind} | {difference:.1e} | {np.abs(here).max():.1f} | {same:.1%} |")
            print(lines[-1], flush=True)
    versions = environment()["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "peft"))
    write_atomically(
        OUT,
        "# Loaded without peftkit\n\nWritten by `python benchmarks/stock_environment.py`: LoRA on "
        f"all-MiniLM-L6-v2, {asked.steps} steps, {ROWS} test rows of pydocs/library, in a virtual "
        f"environment with {named} and without peftkit.\n\n| what is loaded | largest difference "
        "of a logit | largest logit | equal predictions |\n|---|---|---|---|\n"
        + "\n".join(lines) + "\n",
    )  # fmt: skip


if __name__ == "__main__":
    main()
