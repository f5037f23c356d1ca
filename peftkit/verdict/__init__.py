"""From scores per item to a verdict: is training needed, or is an adapter enough, or neither?"""

from peftkit.verdict.deciding import (
    LOOKS,
    Contrast,
    Decision,
    Kind,
    Look,
    Verdict,
    decide,
)
from peftkit.verdict.needs import Needs
from peftkit.verdict.reading import read_results
from peftkit.verdict.results import FEWEST_SEEDS, Results

__all__ = [
    "FEWEST_SEEDS",
    "LOOKS",
    "Contrast",
    "Decision",
    "Kind",
    "Look",
    "Needs",
    "Results",
    "Verdict",
    "decide",
    "read_results",
]
