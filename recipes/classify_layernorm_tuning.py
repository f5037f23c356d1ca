"""Only the normalisation layers are trained.

    python recipes/classify_layernorm_tuning.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: @EXPECT
Follows: Zhao et al. 2023, arXiv:2312.11420.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="bundled",
    method="layernorm_tuning",
    task={"name": "text_classification", "data": "pydocs/library", "size": 512},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
