"""No training: nearest class centroids of the frozen backbone's features.

    python recipes/classify_none.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: @EXPECT:none@
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
