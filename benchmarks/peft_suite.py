"""PEFT's own comparison, read with its errors: who can be told from full fine-tuning?

    python benchmarks/peft_suite.py [FOLDER]

FOLDER holds the result files of the suite (huggingface/peft, method_comparison/MetaMathQA/results);
without it, the table in ../shared/ANCHORS.md (the best experiment of each method) is read. Writes
benchmarks/results/peft_suite.md.
"""

import os
import sys
from collections import Counter
from pathlib import Path

from peftkit.record import write_atomically
from peftkit.verdict.shares import GSM8K_ITEMS, compare_shares, read_peft_suite

ROOT = Path(__file__).parent.parent
OUT = ROOT / "benchmarks" / "results" / "peft_suite.md"
SHARED = Path(os.environ.get("PEFTKIT_SHARED", ROOT.parent / "shared"))
COLUMNS = 11
FULL = "full-finetuning"


def published(path: Path) -> dict[str, float]:
    """Accuracy by experiment, from the rows of the table in a Markdown file."""
    found = {}
    for line in path.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == COLUMNS and "/" in cells[0] and cells[1].replace(".", "").isdigit():
            found[cells[0]] = float(cells[1]) / 100
    return found


def main() -> None:
    if len(sys.argv) > 1:
        shares, source = read_peft_suite(Path(sys.argv[1])), "its result files"
    else:
        shares, source = published(SHARED / "ANCHORS.md"), "the best experiment of each method"
    full = next(name for name in shares if name.startswith(FULL))
    found = compare_shares(shares, full, GSM8K_ITEMS)
    lines = [
        "# PEFT's own comparison, read with its errors",
        "",
        f"Written by `python benchmarks/peft_suite.py` from {source}: {len(found)} methods against "
        f"{full} ({100 * shares[full]:.2f} %), {GSM8K_ITEMS:,} test items, one run each, unpaired.",
        "",
    ]
    for adjusted in (False, True):
        counts = Counter(each.standing(adjusted=adjusted) for each in found)
        lines.append(
            f"- {'after Holm' if adjusted else 'uncorrected'}: {counts['indistinguishable']} "
            f"indistinguishable, {counts['worse']} worse, {counts['better']} better"
        )
    lines += ["", "| experiment | minus full, points | p | after Holm | standing |",
              "|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {each.method} | {100 * each.difference:+.2f} | {each.p:.4f} | {each.adjusted:.4f} "
        f"| {each.standing(adjusted=True)} |"
        for each in sorted(found, key=lambda each: -each.difference)
    ]
    write_atomically(OUT, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
