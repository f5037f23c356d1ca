"""Low-rank updates of an encoder: which words name people, places, products?

    python recipes/tag_lora.py [--smoke] [--out DIR] [--backbone bert-base-cased --size none] ...

Expect: not measured in full yet; with --smoke it runs in seconds on a toy.
Follows: Hu et al. 2021, arXiv:2106.09685, on WNUT-17 (Derczynski et al. 2017). Departures:
all linear layers of the blocks; 1,024 of 3,394 sentences.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="bundled",
    method="lora",
    task={"name": "token_classification", "data": "../shared/data/wnut17", "size": 1024},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
