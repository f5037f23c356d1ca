"""Dialect adaptation: a model that pronounces American English learns British English.

    python recipes/pronounce_lora.py [--smoke] [--out DIR] [--method full] [--size 4096] ...

Expect: not measured in full yet; with --smoke it runs in seconds on a toy.
Follows: Hu et al. 2021, arXiv:2106.09685. Departures: all linear layers; an encoder-decoder of one
layer each, which reads letters and writes phonemes with a tokenizer of their own.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="../shared/backbones/bart-g2p-en-us",
    method="lora",
    task={
        "name": "pronunciation",
        "data": "../shared/data/g2p_gb",
        "size": 4096,
        "target_tokenizer": "phoneme_tokenizer",
    },
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
