"""Low-rank updates of MarianMT, English to Chinese.

    python recipes/translate_lora.py [--smoke] [--backbone FOLDER] [--task.data FOLDER] ...

The backbone comes from the hub, or is a folder. What it reaches before adapting is the same command
with --method none.

Expect: not measured: its weights could not be reached; with --smoke it runs in seconds on a toy.
Follows: Hu et al. 2021, arXiv:2106.09685. Departure: all linear layers.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="Helsinki-NLP/opus-mt-en-zh",
    method="lora",
    task={
        "name": "translation",
        "data": "../shared/data/tatoeba_en_zh",
        "source_column": "en",
        "target_column": "zh",
        "bleu_tokenizer": "zh",
        "size": 8192,
    },
    training={"batch_size": 16},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
