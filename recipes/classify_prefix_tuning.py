"""Ten trained keys and values stand before those of every block.

    python recipes/classify_prefix_tuning.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: accuracy 48.3 to 50.5 % over 2 seeds, 43 to 47 s of training and
545 MB on one core of an AMD EPYC (records: benchmarks/results/pydocs_library_more).
Follows: Li and Liang 2021, arXiv:2101.00190.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="bundled",
    method="prefix_tuning",
    task={"name": "text_classification", "data": "pydocs/library", "size": 512},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
