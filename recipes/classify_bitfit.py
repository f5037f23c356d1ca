"""Only the biases are trained.

    python recipes/classify_bitfit.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: accuracy 49.3 to 51.6 % over 2 seeds, 45 to 47 s of training and
532 MB on one core of an AMD EPYC (records: benchmarks/results/pydocs_library).
Follows: Ben Zaken et al. 2022, arXiv:2106.10199.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="bundled",
    method="bitfit",
    task={"name": "text_classification", "data": "pydocs/library", "size": 512},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
