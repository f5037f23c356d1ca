"""Tokens per second and peak memory on a GPU, beside TRL's `SFTTrainer`.

    python benchmarks/throughput.py [--rows 1b-lora,8b-qlora] [--smoke] [--out DIR] [--work DIR]
    python benchmarks/throughput.py --table [--out DIR]    # from records, on any machine

Full fine-tuning, LoRA and QLoRA at the shapes of Llama-3.2-1B and Llama-3.1-8B (benchmarks/shapes,
random weights). Each row is a process of its own (throughput_row.py), which runs both ways in turn
on the same tokens and measures the card's bfloat16 matrix rate besides. One JSON record a row;
rows that have one are skipped, those that failed are run again, so it can be stopped at any moment.
--smoke tries every row's code on tiny shapes, on the CPU too; its numbers mean nothing.
"""

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from throughput_inputs import ALPHA, GIB, RANK, Row

from peftkit.device import device
from peftkit.record import write_atomically

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "throughput"
ENVIRONMENT = {
    **os.environ,
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
PURE = (
    "the weights that the optimizer updates are bfloat16 too: float32 ones need, with gradients, "
    "AdamW's state and autocast's copies, 18 bytes a parameter, 145 GB"
)
ONE_B, EIGHT_B = "llama-3.2-1b", "llama-3.1-8b"
ROWS = (
    Row(name="1b-full", shape=ONE_B, method="full", batch_size=4, checkpointing=False,
        dtype="float32"),
    Row(name="1b-lora", shape=ONE_B, method="lora", batch_size=4, checkpointing=False),
    Row(name="1b-qlora", shape=ONE_B, method="qlora", batch_size=4, checkpointing=False),
    Row(name="8b-qlora-12gib", shape=EIGHT_B, method="qlora", batch_size=1, checkpointing=True,
        limit_gib=12.0, rounds=1),
    Row(name="8b-qlora", shape=EIGHT_B, method="qlora", batch_size=4, checkpointing=True,
        rounds=1, first="TRL"),
    Row(name="8b-lora", shape=EIGHT_B, method="lora", batch_size=4, checkpointing=True, rounds=1),
    Row(name="8b-full", shape=EIGHT_B, method="full", batch_size=1, checkpointing=True, rounds=1,
        first="TRL", why=PURE),
)  # fmt: skip
SMOKE = {"tiny": True, "steps": 3, "warm": 1, "length": 32, "matmul": 256, "rounds": 1}
SHOWN = ("python", "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "peftkit")


# ---- rows and their records


def read_record(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def is_done(row: Row, path: Path) -> bool:
    record = read_record(path) or {}
    return record.get("status") == "done" and record["settings"] == dataclasses.asdict(row)


def run_row(row: Row, work: Path, path: Path) -> None:
    """Run one row in a process of its own; if that dies, its record is of that."""
    backbone = work / (row.shape + ("-tiny" if row.tiny else ""))
    settings = json.dumps(dataclasses.asdict(row))
    command = [sys.executable, str(HERE / "throughput_row.py"), settings, str(backbone), str(path)]
    path.unlink(missing_ok=True)
    done = subprocess.run(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    record = read_record(path)
    if record is None or record["status"] != "done":
        print(done.stderr[-3000:], file=sys.stderr)
    if record is None:
        lines = done.stderr.strip().splitlines() or ["nothing on stderr"]
        record = {
            "settings": dataclasses.asdict(row),
            "status": "failed",
            "error": f"the process ended with {done.returncode}: {lines[-1][:300]}",
            "runs": [],
            "environment": environment_of_a_child(),
        }
        write_atomically(path, json.dumps(record, indent=2) + "\n")


def environment_of_a_child() -> dict[str, Any]:
    """Device and versions; asked for here, CUDA's context would stay in this process."""
    code = "import json, peftkit.environment as e; print(json.dumps(e.environment()))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def work_folder(rows: Iterable[Row]) -> Path:
    """A new folder for backbones: in memory if there is room for two of the largest."""
    needed = 2 * (1 if all(row.tiny for row in rows) else 17) * 10**9
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > needed
    return Path(tempfile.mkdtemp(prefix="throughput-", dir=memory if roomy else None))


def run_rows(rows: list[Row], work: Path, out: Path) -> None:
    """Run what has no record yet; of backbones, only the one in use is kept."""
    for row in rows:
        path = out / f"{row.name}.json"
        if is_done(row, path):
            print(f"{row.name}: there already", flush=True)
            continue
        for folder in work.iterdir():
            if not folder.name.startswith(row.shape):
                shutil.rmtree(folder)
        print(f"{row.name}:", flush=True)
        run_row(row, work, path)
        if error := (read_record(path) or {}).get("error"):
            print(f"  {error}", flush=True)
        write_atomically(out / "table.md", page(read_all(out)))


# ---- the table


def read_all(out: Path) -> list[dict[str, Any]]:
    """The records in the order of the rows."""
    found = (read_record(out / f"{row.name}.json") for row in ROWS)
    return [record for record in found if record is not None]


def gib(value: float | None) -> str:
    return "-" if value is None else f"{value / GIB:.2f} GiB"


def peak(runs: list[dict[str, Any]], cost: str) -> float | None:
    """The highest of training, over the rounds."""
    found = [run["costs"].get(cost, {}).get("train") for run in runs]
    return max((value for value in found if value is not None), default=None)


def rate(runs: list[dict[str, Any]], name: str = "tokens_per_second") -> float | None:
    found = [run[name] for run in runs if name in run]
    return statistics.median(found) if found else None


def runs_of(record: dict[str, Any], way: str) -> list[dict[str, Any]]:
    return [run for run in record["runs"] if run["way"] == way]


def line(record: dict[str, Any], way: str) -> list[str]:
    row, runs = record["settings"], runs_of(record, way)
    blocks = f"{row['batch_size']} x {row['length']:,}"
    what = [row["name"], way, blocks, "yes" if row["checkpointing"] else "no", row["dtype"]]
    speed, other = rate(runs), rate(runs_of(record, "TRL"))
    if speed is None:
        ended = runs[0]["status"].replace("_", " ") if runs else record["status"]
        return [*what, ended, *["-"] * 6]
    speeds = [run["tokens_per_second"] for run in runs if "tokens_per_second" in run]
    share = speed * record["flops_per_token"] / record["matmul_flops_per_second"]
    joules = rate(runs, "joules_per_token")
    return [
        *what,
        f"{speed:,.0f}",
        f"{100 * (max(speeds) - min(speeds)) / speed:.1f} %" if len(speeds) > 1 else "-",
        f"{speed / other:.2f}x" if other else "-",
        f"{100 * share:.1f} %",
        gib(peak(runs, "peak_memory_bytes")),
        gib(peak(runs, "peak_reserved_bytes")),
        "-" if joules is None else f"{1000 * joules:.3g} J",
    ]


HEADINGS = ("row", "way", "batch", "checkpointing", "weights", "tokens / s", "spread", "vs TRL",
            "of matrix rate", "peak allocated", "peak reserved", "per 1,000 tokens")  # fmt: skip


def remarks(record: dict[str, Any]) -> list[str]:
    """What a reader must know of one row."""
    row, found = record["settings"], []
    if row["why"]:
        found.append(row["why"])
    if record["error"]:
        found.append(record["error"])
    losses = {w: rate(runs_of(record, w), "first_loss") for w in ("peftkit", "TRL")}
    if None not in losses.values():
        gap = abs(losses["peftkit"] - losses["TRL"])
        found.append("first losses {peftkit:.4f} and {TRL:.4f}".format(**losses)
                     + (": they do not compute the same" if gap > 0.02 else ""))  # fmt: skip
    if row["limit_gib"]:
        found.append(f"memory of the process limited to {row['limit_gib']:g} GiB")
        for way in ("peftkit", "TRL"):
            runs = [r for r in runs_of(record, way) if r["status"] == "done"]
            reserved = peak(runs, "peak_reserved_bytes")
            if reserved is not None:
                whole = reserved + max(run["context_bytes"] for run in runs)
                fits = "below" if whole < row["limit_gib"] * GIB else "ABOVE"
                found.append(f"{way} with CUDA's context {gib(whole)}, {fits} the limit")
    left = max((run["allocated_before_bytes"] for run in record["runs"]), default=0)
    if left > 2**28:
        found.append(f"{gib(left)} were still allocated before a run")
    return found


def page(records: list[dict[str, Any]]) -> str:
    """One table for each device that records come from."""
    parts = ["# Throughput\n"]
    for name in dict.fromkeys(record["environment"]["device_name"] for record in records):
        here = [r for r in records if r["environment"]["device_name"] == name]
        parts.append(section(name, here))
    parts.append(READING)
    return "\n".join(parts)


def section(name: str, records: list[dict[str, Any]]) -> str:
    lines = [f"## {name}", ""]
    if any(record["settings"]["tiny"] for record in records):
        lines += ["Tiny shapes, to try the code out: these numbers mean nothing.", ""]
    lines += [f"| {' | '.join(HEADINGS)} |", "| :--- | :--- |" + " ---: |" * (len(HEADINGS) - 2)]
    lines += [f"| {' | '.join(line(r, way))} |" for r in records for way in ("peftkit", "TRL")]
    lines.append("")
    lines += [f"- `{r['settings']['name']}`: {'; '.join(found)}."
              for r in records if (found := remarks(r))]  # fmt: skip
    rates = [r["matmul_flops_per_second"] for r in records if "matmul_flops_per_second" in r]
    if rates:
        size = f"{records[0]['settings']['matmul']:,}"
        few = ", ".join(f"{rate / 1e12:.3g}" for rate in rates)
        lines += ["", f"Matrix rate: a bfloat16 product of {size} x {size} x {size}, measured by "
                  f"each row after its training: {few} TFLOP/s."]  # fmt: skip
    shown = {json.dumps(r["environment"]["versions"], sort_keys=True): r for r in records}
    for record in shown.values():
        versions = record["environment"]["versions"]
        lines += ["", "Versions: " + ", ".join(f"{n} {versions[n]}" for n in SHOWN) + "."]
    return "\n".join(lines) + "\n"


READING = f"""## How to read it

Shapes are those of Llama-3.2-1B (1b) and Llama-3.1-8B (8b), weights are random, tokens are random
words: speed and memory, no quality. LoRA of rank {RANK}, alpha {ALPHA}, on all linear layers of the
blocks; QLoRA is the same on nf4 with double quantisation. Computation in bfloat16, AdamW.

peftkit is its workbench and training loop, measured by its meter, as `peftkit run` uses them; what
a run does after training is not part of it. TRL is `SFTTrainer` with PEFT and bitsandbytes in the
same process, on the same blocks in the same order, the two in turn; batch, steps, learning rate,
checkpointing and bf16 are set alike, everything else is TRL's default (its loss does without a
whole tensor of logits; it keeps QLoRA's adapter in bfloat16, where peftkit's is float32).

Tokens per second: from the end of the last warm-up step to that of the last step, median over
rounds; spread is the largest minus the smallest over that. Of matrix rate: tokens per second times
FLOPs of the model a token, over the measured rate of one large product. FLOPs are 6 N + 6 L s d a
token for full, 4 N + 6 A + 6 L s d where the base is frozen: N weights of linear layers (the output
layer among them, embeddings not), A of the adapter, L layers, s tokens of a block, d the width of
all heads, half of the attention being masked; what checkpointing computes again is not counted.
Peaks are those of the training phase by torch's allocator (on a CPU: resident, above the start),
the highest of the rounds; CUDA's context comes on top. Energy is the whole GPU's, by its counter.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="", help=f"of {','.join(row.name for row in ROWS)}")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/throughput")
    parser.add_argument("--work", type=Path, help="keep backbones there; default: a new folder")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, a temporary folder")
    parser.add_argument("--table", action="store_true", help="write table.md from what is there")
    args = parser.parse_args()
    if args.table:
        out = args.out or RESULTS
        write_atomically(out / "table.md", page(read_all(out)))
        return
    asked = [name for name in args.rows.split(",") if name]
    known = [row.name for row in ROWS]
    for name in asked:
        if name not in known:
            parser.error(f"unknown row {name!r}; there are {', '.join(known)}")
    if not args.smoke and device() != "cuda":
        sys.exit(
            "These are measurements of a GPU, and torch sees none here. Next: run it where "
            "`peftkit doctor` says device cuda, or try its code out with --smoke."
        )
    rows = [row for row in ROWS if not asked or row.name in asked]
    if args.smoke:
        rows = [dataclasses.replace(row, **SMOKE) for row in rows]
    temporary = Path(tempfile.mkdtemp(prefix="throughput-")) if args.smoke else None
    out = args.out or temporary or RESULTS
    work = args.work or work_folder(rows)
    work.mkdir(parents=True, exist_ok=True)
    try:
        run_rows(rows, work, out)
    finally:
        if args.work is None:
            shutil.rmtree(work)
    print(f"\n{page(read_all(out))}\nRecords and table.md are in {out}.")


if __name__ == "__main__":
    main()
