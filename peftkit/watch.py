"""What follows a training run: progress, divergence, evaluation in between, the best state.

It also keeps what was best beside every checkpoint, so that a resumed run knows it.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from peftkit.errors import Diverged
from peftkit.record import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from peftkit.settings import Training
    from peftkit.train import Schedule

MARKS = "best.json"  # written last into a checkpoint


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the latest checkpoint that was written to its end, `MARKS` being the last of it."""
    whole = [marks.parent for marks in folder.glob(f"checkpoint-*/{MARKS}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class Watch(TrainerCallback):
    """Follows training: progress, divergence, evaluation in between, the best state, patience."""

    def __init__(self, schedule: Schedule, training: Training, num_steps: int) -> None:
        self.schedule, self.training, self.num_steps = schedule, training, num_steps
        self.best: float | None = None
        self.best_step: int | None = None
        self.best_state: dict[str, torch.Tensor] = {}
        self.waited = 0
        self.tell: Callable[[dict[str, float]], object] = lambda _: None

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        step = state.global_step
        if self.schedule.progress:
            self.schedule.progress(step, self.num_steps, "train")
        every = self.training.evaluate_every
        if every and self.schedule.validate and (step % every == 0 or step == self.num_steps):
            with torch.random.fork_rng():
                value = self.schedule.validate(model)
            model.train()
            state.log_history.append({"step": step, "validation": value})
            self.tell({"eval_validation": value})
            self._judge(model, step, value, control)
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and not math.isfinite(logs.get("loss", 0.0)):
            raise Diverged(
                f"the training loss is {logs['loss']} at step {state.global_step} of "
                f"{self.num_steps}: lower --training.learning-rate"
            )

    def _judge(self, model: nn.Module, step: int, value: float, control: Any) -> None:
        sign = 1 if self.schedule.higher_is_better else -1
        if self.best is None or sign * value > sign * self.best:
            self.best, self.waited, self.best_step = value, 0, step
            if self.training.keep_best:
                # On the CPU: a GPU's memory was planned for one copy of what is trained.
                self.best_state = {
                    n: p.detach().to("cpu", copy=True)
                    for n, p in model.named_parameters()
                    if p.requires_grad
                }
        else:
            self.waited += 1
            if self.training.patience and self.waited >= self.training.patience:
                control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep what was best so far beside the checkpoint, so that a resumed run knows it."""
        if not state.is_world_process_zero:
            return
        if control.should_training_stop and state.global_step < self.num_steps:
            return  # out of patience: whoever resumes from here would train on
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self.best_state:
            save_file(self.best_state, folder / "best.safetensors")
        marks = {"best": self.best, "best_step": self.best_step, "waited": self.waited}
        write_atomically(folder / MARKS, json.dumps(marks))
        for other in folder.parent.glob("checkpoint-*"):
            if other != folder:
                shutil.rmtree(other)

    def resume(self, checkpoint: Path) -> None:
        """Read what `on_save` wrote."""
        marks = json.loads((checkpoint / MARKS).read_text(encoding="utf-8"))
        self.best, self.best_step, self.waited = (
            marks[name] for name in ("best", "best_step", "waited")
        )
        if (checkpoint / "best.safetensors").is_file():
            self.best_state = load_file(checkpoint / "best.safetensors")

    def return_to_best(self, model: nn.Module) -> None:
        """Put the best evaluated state back, if that was asked for."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self.best_state:
                    parameter.copy_(self.best_state[name])
