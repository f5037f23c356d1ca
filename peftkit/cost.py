"""The one definition of every cost.

| name | meaning |
|---|---|
| `method_parameters`, `head_parameters` | trained parameters, the new output layer apart |
| `trainable_parameters`, `total_parameters` | their sum; parameters of backbone and method |
| `trainable_share` | trained parameters of the method over parameters of the backbone |
| `adapter_bytes` | weights on disk that are needed beside the backbone's own |
| `load_seconds` | backbone read and head made |
| `train_seconds`, `train_cpu_seconds` | fitting, evaluation in between taken out |
| `evaluate_seconds`, `evaluate_cpu_seconds` | predicting the test split |
| `examples_per_second`, `tokens_per_second` | in training; padding is no token |
| `train_flops_per_example` | forward and backward, counted on eager attention |
| `peak_memory_bytes` | by phase; CUDA: allocated; CPU: resident, above the start of the run |
| `peak_reserved_bytes` | by phase; CUDA only: what its caching allocator took |
| `counted_memory_bytes` | in the step with the largest batch: "peak" of tensors, and its parts |
| `counted_peak_during` | where that was: forward, loss, backward or step |
| `largest_activations` | the modules whose activations took most of it, in bytes |
| `predicted_memory_bytes` | the same, predicted before training; on CUDA also "reserved" |
| `cuda_context_bytes` | CUDA only: in use on the GPU beside that at the end of the first phase |
| `energy_joules` | by phase; CUDA only, where counted: see `peftkit.energy` |
| `inference_seconds_per_example` | one pass over a fixed sample, median of repeats |
| `inference_slowdown` | the same over that of the bare backbone, interleaved |
| `neutral_nats` | loss on neutral text, nats per token; language models only |
| `forgetting_nats` | the same minus that of the bare backbone; see `peftkit.forgetting` |
| `pretraining_steps`, `pretraining_tokens` | of continued pretraining, before the adaptation |
| `pretraining_seconds`, `pretraining_cpu_seconds` | what of `train_seconds` that took |
| `adaptation_seconds`, `adaptation_tokens` | what came after it |

What is in use on a GPU beside the allocator's memory is CUDA's context with its kernels, and all
that other processes hold. Energy is the whole GPU's: what it draws while idle is not subtracted,
other processes on it count too, and so does evaluation in between.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.device import device, is_out_of_memory
from peftkit.energy import joules_since, joules_so_far
from peftkit.record import CONTINUED

if TYPE_CHECKING:
    from peftkit.predictors import Predictor
    from peftkit.workbench import Workbench

SAMPLE = 32  # examples in the timed sample
REPEATS = 3


@dataclass
class Phase:
    """What one phase took."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    peak_reserved_bytes: int | None = None
    energy_joules: float | None = None


@dataclass
class Meter:
    """Measures phases of one run in this process."""

    phases: dict[str, Phase] = field(default_factory=dict)
    baseline_bytes: int = field(default_factory=lambda: _resident_bytes("VmRSS"))
    cuda_context_bytes: int | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens within, as phase `name`."""
        gc.collect()
        _reset_peak()
        joules = joules_so_far()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            if device() == "cuda":
                import torch

                torch.cuda.synchronize()
            self.phases[name] = Phase(
                seconds=time.perf_counter() - wall,
                cpu_seconds=time.process_time() - cpu,
                peak_memory_bytes=self._peak(),
                peak_reserved_bytes=_cuda_reserved(),
                energy_joules=joules_since(joules),
            )
            if self.cuda_context_bytes is None:
                self.cuda_context_bytes = _cuda_context()

    def _peak(self) -> int:
        if device() == "cuda":
            import torch

            return int(torch.cuda.max_memory_allocated())
        return max(0, _resident_bytes("VmHWM") - self.baseline_bytes)

    def costs(self) -> dict[str, Any]:
        """Seconds and peaks by phase, under the names of a record."""
        found: dict[str, Any] = {}
        for name, phase in self.phases.items():
            found[f"{name}_seconds"] = phase.seconds
            found[f"{name}_cpu_seconds"] = phase.cpu_seconds
            for cost in ("peak_memory_bytes", "peak_reserved_bytes", "energy_joules"):
                value = getattr(phase, cost)
                if value is not None:
                    found.setdefault(cost, {})[name] = value
        if self.cuda_context_bytes is not None:
            found["cuda_context_bytes"] = self.cuda_context_bytes
        return found


def _resident_bytes(what: str) -> int:
    """`VmRSS` (now) or `VmHWM` (peak since the last reset) of this process; 0 where unknown."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _reset_peak() -> None:
    if device() == "cuda":
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM := VmRSS


def _cuda_reserved() -> int | None:
    if device() != "cuda":
        return None
    import torch

    return int(torch.cuda.max_memory_reserved())


def _cuda_context() -> int | None:
    if device() != "cuda":
        return None
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free - torch.cuda.memory_reserved())


def adapter_bytes(folder: Path) -> int:
    """Bytes of weights below `folder`: what an adapter adds to a backbone on disk."""
    kinds = ("*.safetensors", f"{CONTINUED}/*.safetensors", "*.npz", "vocabulary.json")
    weights = (p for kind in kinds for p in folder.glob(kind))
    return sum(path.stat().st_size for path in weights)


def step_memory(bench: Workbench) -> dict[str, Any]:
    """What a training step took in memory, counted and predicted; see `peftkit.memory`."""
    costs: dict[str, Any] = {}
    counted = bench.trained.memory if bench.trained else None
    if counted is not None:
        costs["counted_memory_bytes"] = {"peak": counted.peak_bytes, **counted.parts}
        costs["counted_peak_during"] = counted.during
        costs["largest_activations"] = [[name, size] for name, size in counted.largest.items()]
    if bench.expected is not None:
        expected = bench.expected
        costs["predicted_memory_bytes"] = {"peak": expected.peak_bytes, **expected.parts}
        if device() == "cuda":
            costs["predicted_memory_bytes"]["reserved"] = expected.reserved_bytes
    return costs


def train_flops_per_example(bench: Workbench, model: Any) -> float | None:
    """Floating-point operations of one training step, an example.

    Counted by torch over one batch of median length. torch counts nothing inside fused attention
    on CPU, so attention is switched to its written-out form meanwhile; nor inside layers of 4 or 8
    bits, which are stood in for. Both take memory that training did not: None where there is too
    little.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from peftkit.backbones import dense_stand_ins
    from peftkit.evaluate import to_device

    examples = bench.encode(bench.data.train)
    middle = sorted(examples, key=bench.recipe.task.length)[len(examples) // 2]
    batch = to_device(bench.collate([middle, middle]))
    labels = batch.pop("labels")
    backbone = bench.backbone.model
    attention = backbone.config._attn_implementation
    counter = FlopCounterMode(display=False)
    try:
        backbone.set_attn_implementation("eager")
        with dense_stand_ins(model), torch.random.fork_rng(), counter:
            model.train()
            logits = bench.logits(model(**batch), batch)
            loss = bench.recipe.task.loss(logits, labels, bench.data)
            loss.backward()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        backbone.set_attn_implementation(attention)
        model.zero_grad(set_to_none=True)
        model.eval()
    return counter.get_total_flops() / 2


def inference_costs(bench: Workbench, predictor: Predictor) -> dict[str, float]:
    """Time a fixed sample of test rows through the adapted and through the bare backbone.

    Both are timed in turn, so that whatever else the machine does meets both alike. Where the
    method leaves the architecture as it is, there is nothing to compare and the ratio is 1.
    """
    from peftkit.evaluate import autocast, length_batches, to_device, vocabulary
    from peftkit.methods._peft import without_adapter

    model = getattr(predictor, "model", None) or bench.backbone.model
    rows = bench.data.test.select(range(min(SAMPLE, len(bench.data.test))))
    examples = bench.encode(rows)
    batches = []
    task = bench.recipe.task
    keys = [task.key(example) for example in examples]
    lengths, width = [task.length(example) for example in examples], vocabulary(model)
    for indices in length_batches(lengths, keys, logits_per_token=width):
        batch = to_device(bench.collate([examples[i] for i in indices]))
        del batch["labels"]
        batches.append(batch)
    bare = without_adapter(model)

    def seconds(context: AbstractContextManager[Any], run: Any) -> float:
        import torch

        with torch.inference_mode(), autocast(bench.recipe.training.precision), context:
            start = time.perf_counter()
            for batch in batches:
                run(**batch)
            if device() == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - start

    seconds(nullcontext(), model)  # warm
    adapted, plain = [], []
    for _ in range(REPEATS):
        adapted.append(seconds(nullcontext(), model))
        if bare is not None:
            plain.append(seconds(bare[0](), bare[1]))
    ratio = statistics.median(a / b for a, b in zip(adapted, plain, strict=True)) if plain else 1.0
    return {
        "inference_seconds_per_example": statistics.median(adapted) / len(examples),
        "inference_slowdown": ratio,
    }
