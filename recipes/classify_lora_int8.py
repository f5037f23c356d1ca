"""Low-rank updates beside blocks whose weights are kept in 8 bits.

    python recipes/classify_lora_int8.py [--smoke] [--out DIR] [--backbone.quantization nf4] ...

Expect: accuracy 50.2 % with one seed, 51 s of training and
678 MB on one core of an AMD EPYC (records: benchmarks/results/recipes).
Follows: Dettmers et al. 2022, arXiv:2208.07339 (int8); Hu et al. 2021, arXiv:2106.09685. Departure:
all linear layers, as QLoRA found needed.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone={"name": "bundled", "quantization": "int8"},
    method="lora",
    task={"name": "text_classification", "data": "pydocs/library", "size": 512},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
