"""No transformer: TF-IDF and logistic regression on pydocs/library.

    python recipes/classify_tfidf.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: accuracy 36.0 to 39.2 % over 2 seeds, 1 to 1 s of training and
71.9 MB on one core of an AMD EPYC (records: benchmarks/results/pydocs_library).
Follows: the line that every result is read against (scikit-learn's text guide).
"""

from peftkit import Recipe
from peftkit.script import main

RECIPE = Recipe(
    backbone="bundled",
    method="tfidf",
    task={"name": "text_classification", "data": "pydocs/library", "size": 512},
    seed=0,
)

if __name__ == "__main__":
    main(RECIPE)
