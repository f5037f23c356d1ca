"""The same architecture from random weights: what pretraining is worth.

    python recipes/classify_scratch.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: accuracy 35.5 to 37.4 % over 2 seeds, 70 to 112 s of training and
807 MB on one core of an AMD EPYC (records: benchmarks/results/pydocs_library).
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
