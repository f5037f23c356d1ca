"""From scores per item to a verdict: is training needed, or is an adapter enough, or neither?"""

from peftkit.verdict.deciding import Comparison, Decision, Kind, Needs, Verdict, decide
from peftkit.verdict.reading import read_results
from peftkit.verdict.results import Results

__all__ = [
    "Comparison",
    "Decision",
    "Kind",
    "Needs",
    "Results",
    "Verdict",
    "decide",
    "read_results",
]
