"""The last two blocks are trained.

    python recipes/classify_last_layers.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: @EXPECT
Follows: Lee et al. 2019, arXiv:1911.03090.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="bundled",
    method="last_layers",
    task={"name": "text_classification", "data": "pydocs/library", "size": 512},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
