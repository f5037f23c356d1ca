"""Full fine-tuning from the pretrained weights, in float32.

    python recipes/classify_full.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: accuracy 51.4 to 52.6 % over 2 seeds, 70 to 110 s of training and
813 MB on one core of an AMD EPYC (records: benchmarks/results/pydocs_library).
Follows: Devlin et al. 2019, arXiv:1810.04805.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="bundled",
    method="full",
    task={"name": "text_classification", "data": "pydocs/library", "size": 512},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
