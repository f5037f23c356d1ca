"""Two-layer bottleneck adapters after attention and MLP.

    python recipes/classify_bottleneck.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: accuracy 47.2 to 49.7 % over 2 seeds, 50 to 50 s of training and 547 MB on one
core of a AMD EPYC (records: benchmarks/results/pydocs_library).
Follows: Houlsby et al. 2019, arXiv:1902.00751. Departure: GELU, reduction factor 16.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="bundled",
    method="bottleneck",
    task={"name": "text_classification", "data": "pydocs/library", "size": 512},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
