"""One run in several processes, as `accelerate launch` or torchrun starts them.

Each batch of the recipe is split over the processes, so that steps, batches and learning rates mean
what they mean in one; every process holds the whole run, and the first one alone writes and prints.
Models that are sharded over processes (FSDP, DeepSpeed) are refused: measuring, evaluating and
saving know whole ones only.
"""

from __future__ import annotations

import os

from peftkit.errors import InvalidInput

_SHARDING = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}


def num_processes() -> int:
    """How many processes this run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def require_whole_models() -> None:
    """See that `accelerate launch` was not asked to shard the model over the processes.

    Without CUDA accelerate would not shard it either, and not say so.

    Raises:
        InvalidInput: It was.
    """
    for variable, name in _SHARDING.items():
        if os.environ.get(variable, "false").lower() == "true":
            raise InvalidInput(
                f"a model that {name} shards cannot be measured, evaluated and saved yet",
                received=f"{variable}=true",
                allowed="a copy of the model in each process",
                next_step="accelerate launch --multi_gpu; what is too large for one GPU may fit "
                "with --backbone.quantization nf4 or --training.gradient-checkpointing true",
            )


def require_one_process(command: str) -> None:
    """See that what hands out work of its own was not started several times over.

    Raises:
        InvalidInput: It was.
    """
    if num_processes() > 1:
        raise InvalidInput(
            f"peftkit {command} starts processes of its own",
            received=f"a launcher's {num_processes()} processes",
            next_step=f"peftkit {command} ... --workers N, without the launcher",
        )


def require_even_batches(batch_size: int) -> None:
    """See that a batch can be split evenly.

    Raises:
        InvalidInput: It cannot.
    """
    processes = num_processes()
    if batch_size % processes:
        raise InvalidInput(
            f"a batch cannot be split evenly over {processes} processes",
            received=f"batch_size {batch_size}",
            allowed=f"a multiple of {processes}",
            next_step="another --batch-size; make up for it by --training.gradient-accumulation",
        )
