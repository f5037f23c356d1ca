"""Results of which only the share of right answers was published: one run a method, no items.

Without items nothing can be paired, so the binomial errors of both runs add up; what another seed
would have given is not in them at all. `read_peft_suite` imports the results of PEFT's own
comparison (huggingface/peft, method_comparison/*/results/*.json).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import scipy

from peftkit.errors import InvalidInput
from peftkit.statistics.hypotheses import holm
from peftkit.statistics.power import ALPHA

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Standing = Literal["better", "worse", "indistinguishable"]
GSM8K_ITEMS = 1319
"""Test items of PEFT's suite, which its result files do not hold."""


@dataclass(frozen=True)
class ShareComparison:
    """A method against full fine-tuning, unpaired.

    Attributes:
        method: Its name.
        difference: Method minus full.
        p: Two-sided, of no difference.
        adjusted: The same after Holm, over all methods.
    """

    method: str
    difference: float
    p: float
    adjusted: float

    def standing(self, *, adjusted: bool) -> Standing:
        """What is shown, with or without the correction."""
        if (self.adjusted if adjusted else self.p) > ALPHA:
            return "indistinguishable"
        return "better" if self.difference > 0 else "worse"


def compare_shares(shares: Mapping[str, float], full: str, num_items: int) -> list[ShareComparison]:
    """Compare every method with full fine-tuning, by the difference of two binomial shares.

    Args:
        shares: Right answers of each method, between 0 and 1.
        full: Which of them is full fine-tuning.
        num_items: Test items of each.

    Raises:
        InvalidInput: Full is none of them.
    """
    if full not in shares:
        raise InvalidInput(
            "there is no run of full fine-tuning to compare with",
            received=full,
            allowed=", ".join(shares),
        )
    base = shares[full]
    others = {method: share for method, share in shares.items() if method != full}
    p_values = []
    for share in others.values():
        error = math.sqrt((share * (1 - share) + base * (1 - base)) / num_items)
        away = abs(share - base) / error if error else math.inf if share != base else 0.0
        p_values.append(float(2 * scipy.stats.norm.sf(away)))
    return [
        ShareComparison(method, others[method] - base, p, float(adjusted))
        for method, p, adjusted in zip(others, p_values, holm(p_values), strict=True)
    ]


def read_peft_suite(folder: Path) -> dict[str, float]:
    """Test accuracy by experiment, from a folder of result files of PEFT's suite.

    Runs that did not end well are left out.

    Raises:
        InvalidInput: No file in it is such a result.
    """
    found: dict[str, float] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            train = body["train_info"]
            if train["status"] == "success":
                found[body["run_info"]["experiment_name"]] = train["metrics"][-1]["test accuracy"]
        except (ValueError, KeyError, IndexError, TypeError):
            continue
    if not found:
        raise InvalidInput(
            f"{folder} holds no results of PEFT's suite",
            allowed="its files of method_comparison/MetaMathQA/results",
        )
    return found
