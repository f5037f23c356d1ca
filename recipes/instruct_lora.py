"""Instruction tuning: low-rank updates of a language model that should answer.

    python recipes/instruct_lora.py [--smoke] [--out DIR] [--backbone Qwen/Qwen2.5-0.5B]
        [--task.data ../shared/data/gsm8k] ...

By default a Llama of 260,000 parameters reads the human-written tasks of Self-Instruct, in tokens
of a letter or two: many are cut, as the record notes. With a backbone and a data set of the hub it
is the usual recipe. Only the answers are learned. `--task.packing` puts several rows in a sequence;
`--training.gradient-checkpointing` saves memory; `--method.rank 64 --method.alpha 16` is QLoRA's
setting.

Expect: completion_loss 3.936 with one seed, 36 s of training and
349 MB on one core of an AMD EPYC (records: benchmarks/results/recipes).
Follows: Hu et al. 2021, arXiv:2106.09685, all linear layers as in QLoRA (Dettmers et al. 2023,
arXiv:2305.14314, section 4), on the tasks of Wang et al. 2022, arXiv:2212.10560. Departures: rank
8, no quantised weights.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="../shared/backbones/stories260k-llama",
    method="lora",
    task={
        "name": "instruction",
        "data": "../shared/data/self_instruct_human",
        "template": "### Instruction:\n{prompt}\n\n### Response:\n",
    },
    training={"epochs": 3},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
