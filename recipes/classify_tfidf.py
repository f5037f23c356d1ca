"""No transformer: TF-IDF and logistic regression on pydocs/library.

    python recipes/classify_tfidf.py [--smoke] [--out DIR] [--size 512] [--seed 1] ...

Expect: @EXPECT:tfidf@
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
