"""Low-rank updates of a decoder that puts records of restaurants into words.

    python recipes/describe_lora.py [--smoke] [--out DIR] [--backbone gpt2 --size none] ...

The default backbone is a tiny teller of stories that is at hand without a network; GPT-2 is the
paper's.

Expect: bleu 17.171 with one seed, 70 s of training and
134 MB on one core of an AMD EPYC (records: benchmarks/results/recipes).
Follows: Hu et al. 2021, arXiv:2106.09685, section 5.4 (E2E, GPT-2). Departures: all linear layers;
greedy search instead of ten beams; the tiny backbone, 1,024 of 42,061 pairs.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="../shared/backbones/stories260k-llama",
    method="lora",
    task={
        "name": "data_to_text",
        "data": "../shared/data/e2e_nlg",
        "size": 1024,
        "max_length": 256,
        "max_new_tokens": 96,
    },
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
