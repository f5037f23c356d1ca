"""Two-layer bottleneck adapters after attention and MLP.

    python recipes/classify_bottleneck.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: accuracy 49.6 to 53.0 % over 2 seeds, 45 to 49 s of training and
553 MB on one core of an AMD EPYC (records: benchmarks/results/pydocs_library).
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
