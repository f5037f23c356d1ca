"""Losses of a recipe are those of the plain trainers of TRL and transformers, step by step.

The plain trainer gets the same rows in the same order, the same start and the same settings. All
else is its own: tokens, batches, reference, loss, optimizer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from peftkit.order import batch_order
from peftkit.seeds import derive
from peftkit.workbench import Workbench
from toys import write_lines

pytestmark = [
    pytest.mark.usefixtures("libraries"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

STEPS, BATCH, RATE, SEED = 10, 4, 0.01, 3
WORDS = "list file name type data model layer plot axis index row column".split()
BACKBONES = ("twin:gpt2", "twin:llama")  # with dropout, and without
METHODS = ("full", "lora")
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }} . {% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def words(draw: random.Random, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))


def written(count: int, **most: int) -> list[dict[str, Any]]:
    """Rows of random words: columns, and how many words each has at most."""
    draw = random.Random(0)
    return [{name: words(draw, n) for name, n in most.items()} for _ in range(count)]


@pytest.fixture
def losses(
    make_bench: Callable[..., Workbench], tmp_path: Path
) -> Callable[..., tuple[list[float], Workbench, list[int]]]:
    """Return a function that trains by a recipe, and gives its losses, and the rows in order."""

    def fit(
        rows: list[dict[str, Any]],
        method: str,
        backbone: str,
        task: dict[str, Any],
        accumulated: int,
    ) -> tuple[list[float], Workbench, list[int]]:
        folder = write_lines(tmp_path / "rows", train=rows, validation=rows[:2], test=rows[:2])
        options = {
            "task": {"data": str(folder), **task}, "seed": SEED, "steps": STEPS,
            "batch_size": BATCH, "gradient_accumulation": accumulated, "learning_rate": RATE,
            "order": "random",
        }  # fmt: skip
        bench = make_bench(method, backbone, **options)
        bench.recipe.method.fit(bench)
        assert bench.trained is not None
        order = batch_order(
            [1] * len(rows), num_batches=STEPS * accumulated, batch_size=BATCH, order="random",
            seed=SEED,
        )  # fmt: skip
        fresh = make_bench(method, backbone, **options)
        return [point["loss"] for point in bench.trained.history], fresh, order

    return fit


def settings(folder: Path, accumulated: int) -> dict[str, Any]:
    """The recipe's settings, in the words of `TrainingArguments`."""
    return {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": accumulated,
        "learning_rate": RATE,
        "lr_scheduler_type": "linear",
        "warmup_steps": math.ceil(0.06 * STEPS),
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "seed": derive(SEED, "dropout") % 2**32,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
    }


def curve(trainer: Any) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def require_equal(ours: list[float], plain: list[float]) -> None:
    assert len(ours) == STEPS
    assert max(ours) - min(ours) > 1e-2  # something was learned
    assert ours == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("accumulated", [pytest.param(1, marks=pytest.mark.matrix), 2])
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_instruction_is_sft(
    losses: Callable[..., Any], tmp_path: Path, method: str, backbone: str, accumulated: int
) -> None:
    from trl import SFTConfig, SFTTrainer

    rows = written(22, prompt=9, completion=6)
    task = {"name": "instruction", "max_length": 64, "template": "{prompt}", "num_written": 0}
    ours, fresh, order = losses(rows, method, backbone, task, accumulated)
    trainer = SFTTrainer(
        model=fresh.attach(fresh.recipe.method),
        args=SFTConfig(**settings(tmp_path, accumulated), max_length=64),
        train_dataset=Dataset.from_list([rows[i] for i in order]),
        processing_class=fresh.backbone.processor,
    )

    require_equal(ours, curve(trainer))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_chat_is_sft_with_the_same_template(
    losses: Callable[..., Any], tmp_path: Path, backbone: str
) -> None:
    from trl import SFTConfig, SFTTrainer

    template = tmp_path / "template.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    rows = [
        {
            "prompt": [
                {"role": "system", "content": "return the row"},
                {"role": "user", "content": row["prompt"]},
            ],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in written(22, prompt=9, completion=6)
    ]
    task = {
        "name": "instruction", "max_length": 120, "chat_template": str(template), "num_written": 0,
    }  # fmt: skip
    whole = [{"messages": row["prompt"] + row["completion"]} for row in rows]
    ours, fresh, order = losses(whole, "lora", backbone, task, 1)
    trainer = SFTTrainer(
        model=fresh.attach(fresh.recipe.method),
        args=SFTConfig(**settings(tmp_path, 1), max_length=120, chat_template_path=str(template)),
        train_dataset=Dataset.from_list([rows[i] for i in order]),
        processing_class=fresh.backbone.processor,
    )

    require_equal(ours, curve(trainer))


@pytest.mark.parametrize("accumulated", [pytest.param(1, marks=pytest.mark.matrix), 2])
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_preference_is_dpo(
    losses: Callable[..., Any], tmp_path: Path, method: str, backbone: str, accumulated: int
) -> None:
    from trl import DPOConfig, DPOTrainer

    rows = written(22, prompt=9, chosen=6, rejected=6)
    task = {"name": "preference", "max_length": 64, "template": "{prompt}", "beta": 0.5}
    ours, fresh, order = losses(rows, method, backbone, task, accumulated)
    model = fresh.attach(fresh.recipe.method)
    trainer = DPOTrainer(
        model=model,
        ref_model=deepcopy(model) if method == "full" else None,  # else: an adapter of its own
        args=DPOConfig(**settings(tmp_path, accumulated), max_length=64, beta=0.5),
        train_dataset=Dataset.from_list([rows[i] for i in order]),
        processing_class=fresh.backbone.processor,
    )

    require_equal(ours, curve(trainer))


@pytest.mark.parametrize("backbone", ["twin:bart", "twin:t5"])
@pytest.mark.parametrize("method", METHODS)
def test_translation_is_seq2seq(
    losses: Callable[..., Any], tmp_path: Path, method: str, backbone: str
) -> None:
    """In one pass a step: of two, the plain trainer adds up the losses of these models."""
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    rows = written(22, source=9, target=6)
    task = {"name": "translation", "max_length": 64, "max_new_tokens": 16}
    task |= {"source_column": "source", "target_column": "target"}
    ours, fresh, order = losses(rows, method, backbone, task, 1)
    model, tokenizer = fresh.attach(fresh.recipe.method), fresh.backbone.processor
    rows = [rows[i] for i in order]
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(**settings(tmp_path, 1)),
        train_dataset=Dataset.from_list(
            [dict(tokenizer(row["source"], text_target=row["target"])) for row in rows]
        ),
        data_collator=DataCollatorForSeq2Seq(tokenizer, fresh.backbone.model),
        processing_class=tokenizer,
    )

    require_equal(ours, curve(trainer))
