"""Low-rank updates of a vision transformer: which digit does this hand show?

    python recipes/images_lora.py [--smoke] [--out DIR] [--backbone google/vit-base-patch16-224] ...

Expect: accuracy 93.5 to 93.9 % over 2 seeds, 328 to 336 s of training and
612 MB on one core of an AMD EPYC (records: benchmarks/results/sign_digits).
Follows: Hu et al. 2021, arXiv:2106.09685, on ViT (Dosovitskiy et al. 2020). Departure: all linear
layers of the blocks. Images of 64 x 64 are resized to 224 x 224, as the backbone was trained.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="../shared/backbones/vit-tiny-patch16-224",
    method="lora",
    task={"name": "image_classification", "data": "../shared/data/sign_digits", "size": 512},
    training={"steps": 125},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
