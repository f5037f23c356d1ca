"""Dialect adaptation: a model that pronounces American English learns British English.

    python recipes/pronounce_lora.py [--smoke] [--out DIR] [--method full] [--size 4096] ...

Expect: phoneme_error_rate 0.175 to 0.178 over 2 seeds, 108 to 142 s of training and
88.3 MB on one core of an AMD EPYC (records: benchmarks/results/g2p_gb).
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
    training={"learning_rate": 3e-3},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
