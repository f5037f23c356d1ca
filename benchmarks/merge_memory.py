"""Memory of a merge, tensor by tensor: a 1.1 B-parameter Llama shape in bfloat16 shards.

    python benchmarks/merge_memory.py [--shard-mb 400] [--dtype bfloat16]

Random weights of TinyLlama's shape (22 blocks, width 2048; Zhang et al. 2024, arXiv:2401.02385,
table 1) and a random LoRA of rank 8 on all linear layers are written to a temporary folder, 5 GB in
all; one fresh process merges them. Told: its largest resident set, that before the merge began
(torch, transformers and PEFT imported), and the bound: 1.5 times the largest shard, plus 1 GiB. The
verification is not part of it: there the model is in memory as a whole, once at a time. Writes
benchmarks/results/merge_memory.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHAPE = {
    "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
    "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000,
    "max_position_embeddings": 2048, "tie_word_embeddings": False, "pad_token_id": 0,
}  # fmt: skip
OUT = Path(__file__).parent / "results" / "merge_memory.md"
HEAD = """# Memory of a merge

Written by `python benchmarks/merge_memory.py`: TinyLlama's shape (1.1 billion parameters), random
weights and a LoRA of rank 8 on all linear layers, merged tensor by tensor in a fresh process. The
bound is 1.5 times the largest shard, plus 1 GiB. The verification is not part of it.
"""
TEXT = {"text": "what is merged"}


def make_base(folder: Path, shard_bytes: int) -> None:
    """Write random weights in files of a size; only one of them is ever in memory."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from peftkit.backbones import toy_tokenizer
    from peftkit.merging.shards import _Writer

    config = LlamaConfig(**SHAPE)
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    some = (0.02 * torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))).bfloat16()
    writer = _Writer(folder, limit=shard_bytes)
    for name, tensor in shape.state_dict().items():
        size = tensor.numel()
        writer.add(name, some.repeat(-(-size // len(some)))[:size].reshape(tensor.shape).clone())
    writer.close()
    config.dtype, config.architectures = torch.bfloat16, [type(shape).__name__]
    config.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)


def make_run(folder: Path, base: Path) -> None:
    """Write a random adapter and the `peftkit.json` that a run would have left."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    from peftkit.backbones import locate
    from peftkit.recipe import Recipe

    data = folder.parent / "texts"
    data.mkdir()
    for split in ("train", "validation", "test"):
        (data / f"{split}.jsonl").write_text("\n".join([json.dumps(TEXT)] * 8))
    recipe = Recipe(
        backbone={"name": str(base), "dtype": "bfloat16"},
        method="lora",
        task={"name": "language_modeling", "data": str(data)},
    )
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(shape, config, low_cpu_mem_usage=True)
    draw = torch.Generator().manual_seed(1)
    tensors = {
        name.replace(".default.", "."): 0.02 * torch.randn(parameter.shape, generator=draw)
        for name, parameter in model.named_parameters()
        if ".lora_" in name
    }
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config.save_pretrained(str(folder))
    manifest = {
        "recipe": recipe.to_dict(),
        "labels": [],
        "backbone": {"name": str(base), "fingerprint": locate(recipe.backbone).fingerprint},
        "data": {"source": str(data), "fingerprint": ""},
    }
    (folder / "peftkit.json").write_text(json.dumps(manifest))


def merge(run: Path, out: Path, dtype: str) -> dict[str, Any]:
    """Merge without verifying, and look at the memory of this process."""
    import torch

    from peftkit.merging.request import check_request
    from peftkit.merging.shards import plan_shards, write_shards
    from peftkit.recipe import Recipe
    from peftkit.tasks import TaskData
    from peftkit.workbench import Workbench

    torch.set_num_threads(1)
    request = check_request(run, out, dtype=dtype)
    recipe = Recipe.from_dict(request.manifest["recipe"])
    rows = recipe.task.rows([""])
    data = TaskData(
        train=rows, validation=rows, test=rows, labels=[], source="", fingerprint="", notes=(),
        chance=None,
    )  # fmt: skip
    out.mkdir()
    plan = plan_shards(Workbench(recipe, data, run), run)
    assert plan is not None
    before = peak_bytes()
    start = time.perf_counter()
    write_shards(plan, request, out)
    return {"before": before, "peak": peak_bytes(), "seconds": time.perf_counter() - start}


def peak_bytes() -> int:
    """The largest resident set of this process so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Make the model, merge it in a process of its own, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shard-mb", type=int, default=400)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--merge", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.merge:
        print(json.dumps(merge(*map(Path, asked.merge), asked.dtype)))
        return
    with tempfile.TemporaryDirectory(prefix="peftkit-memory-") as temporary:
        base, run, out = (Path(temporary) / name for name in ("base", "run", "out"))
        base.mkdir()
        make_base(base, asked.shard_mb * 10**6)
        make_run(run, base)
        done = subprocess.run(
            [sys.executable, __file__, "--dtype", asked.dtype, "--merge", str(run), str(out)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = json.loads(done.stdout.splitlines()[-1])
        sizes = [path.stat().st_size for path in base.glob("*.safetensors")]
        written = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    bound = 1.5 * max(sizes) + (1 << 30)
    rows = {
        "base": f"{sum(sizes) / 1e9:.2f} GB in {len(sizes)} files",
        "largest shard": f"{max(sizes) / 1e9:.2f} GB",
        "before merging": f"{found['before'] / 1e9:.2f} GB resident",
        "peak": f"{found['peak'] / 1e9:.2f} GB resident",
        "bound": f"{bound / 1e9:.2f} GB, {'met' if found['peak'] < bound else 'MISSED'}",
        "written": f"{written / 1e9:.2f} GB as {asked.dtype} in {found['seconds']:.0f} s",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    text = "\n".join([HEAD, "| what | how much |", "| :--- | :--- |", *lines]) + "\n"
    print(text)
    from peftkit.record import write_atomically

    write_atomically(asked.out, text)


if __name__ == "__main__":
    main()
