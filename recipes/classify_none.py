"""No training: nearest class centroids of the frozen backbone's features.

    python recipes/classify_none.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: accuracy 45.0 to 48.9 % over 2 seeds, 0 to 0 s of training and
105 MB on one core of an AMD EPYC (records: benchmarks/results/pydocs_library).
Follows: Mensink et al. 2013, section 3.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="bundled",
    method="none",
    task={"name": "text_classification", "data": "pydocs/library", "size": 512},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
