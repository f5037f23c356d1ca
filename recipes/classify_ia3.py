"""Learned vectors scale keys, values and the inputs of the MLP's output.

    python recipes/classify_ia3.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: accuracy 48.9 to 51.9 % over 2 seeds, 44 to 45 s of training and
577 MB on one core of an AMD EPYC (records: benchmarks/results/pydocs_library_more).
Follows: Liu et al. 2022, arXiv:2205.05638.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="bundled",
    method="ia3",
    task={"name": "text_classification", "data": "pydocs/library", "size": 512},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
