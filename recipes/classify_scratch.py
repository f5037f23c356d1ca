"""The same architecture from random weights: what pretraining is worth.

    python recipes/classify_scratch.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: @EXPECT:scratch@
Follows: the lower anchor of the ladder.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="bundled",
    method="scratch",
    task={"name": "text_classification", "data": "pydocs/library", "size": 512},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
