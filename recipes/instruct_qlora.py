"""QLoRA: low-rank updates of a language model whose weights are kept in 4 bits.

    python recipes/instruct_qlora.py [--smoke] [--out DIR] [--backbone Qwen/Qwen2.5-0.5B]
        [--backbone.dtype bfloat16] [--training.precision bfloat16]
        [--training.optimizer paged_adamw] [--training.gradient-checkpointing true] ...

The paper's setting for 7 and 13 billion parameters: nf4, its scales quantised too; rank 64, alpha
16 and dropout 0.1 on all linear layers; a constant learning rate of 2e-4, 16 examples of like
length a step, gradients scaled down to norm 0.3. On CUDA, add the last four flags for the rest of
it. By default a Llama of 260,000 parameters reads the human-written tasks of Self-Instruct, in
tokens of a letter or two: many are cut, as the record notes. Only the answers are learned.

Expect: completion_loss 4.368 with one seed, 46 s of training and
749 MB on one core of an AMD EPYC (records: benchmarks/results/recipes).
Follows: Dettmers et al. 2023, arXiv:2305.14314, sections 3 and 4, appendix B. Departures: float32,
not bfloat16, which most CPUs only emulate; AdamW without pages, which need CUDA (its steps are the
same); activations kept, not recomputed; three passes over this data set, not 1,875 to 10,000 steps.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone={
        "name": "../shared/backbones/stories260k-llama",
        "quantization": "nf4",
        "double_quantization": True,
    },
    method={"name": "lora", "rank": 64, "alpha": 16, "dropout": 0.1},
    task={
        "name": "instruction",
        "data": "../shared/data/self_instruct_human",
        "template": "### Instruction:\n{prompt}\n\n### Response:\n",
    },
    training={
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 2e-4,
        "schedule": "constant",
        "warmup": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 0.3,
    },
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
