"""Low-rank updates of Whisper's encoder: which digit is said here?

    python recipes/sounds_lora.py [--smoke] [--out DIR] [--backbone openai/whisper-tiny.en] ...

Expect: not measured in full yet; with --smoke it runs in seconds on a toy.
Follows: Hu et al. 2021, arXiv:2106.09685, on Whisper (Radford et al. 2022). Departures: all linear
layers of the blocks; the encoder reads 1 s of each sound instead of 30 s, enough for 99 % of them.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="../shared/backbones/whisper-tiny.en-encoder",
    method="lora",
    task={
        "name": "audio_classification",
        "data": "../shared/data/fsdd",
        "max_seconds": 1.0,
        "size": 256,
    },
    training={"steps": 125},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
