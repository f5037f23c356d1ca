"""Full fine-tuning on questions whose answers stand in the text.

    python recipes/answer_full.py [--smoke] [--backbone bert-base-uncased --task.data squad] ...

Expect: not measured in full yet; with --smoke it runs in seconds on a toy.
Follows: Devlin et al. 2019, arXiv:1810.04805, section 4.2. Departures: 512 questions instead of
87,599, a smaller backbone, windows of 192 tokens instead of 384.
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="bundled",
    method="full",
    task={
        "name": "question_answering",
        "data": "../shared/data/squad_small",
        "size": 512,
        "max_length": 192,
    },
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
