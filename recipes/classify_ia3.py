"""Learned vectors scale keys, values and the inputs of the MLP's output.

    python recipes/classify_ia3.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: @EXPECT
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
