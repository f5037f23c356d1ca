"""Several adapters of one backbone made into one, on what each really does to the weights.

The update of an adapter is the change it makes to a weight matrix, `Delta = W' - W`. PEFT combines
the factors A and B instead, and forgets what stands beside them (rsLoRA's scale, DoRA's lengths,
biases). Here updates are combined as numbers, in float64, one layer at a time, and the result is
factored into an adapter again, with its error stated.
"""

from peftkit.combining.combine import Combined, combine_runs
from peftkit.combining.layers import CombinedLayer
from peftkit.combining.request import METHODS, Request

__all__ = ["METHODS", "Combined", "CombinedLayer", "Request", "combine_runs"]
