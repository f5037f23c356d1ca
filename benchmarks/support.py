"""Which method works on which family of backbones, for which task: docs/support.md, from tests.

    python benchmarks/support.py [--jobs 2]

Runs every contract of every pair of method and family on tiny random twins (`make test` runs a
third of the pairs), and writes a table: a pair works if all of its tests passed, and is
unsupported if the test that says why passed.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

from peftkit import parts
from peftkit.backbones import families
from peftkit.environment import environment
from peftkit.record import write_atomically

ROOT = Path(__file__).parent.parent
OUT = ROOT / "docs" / "support.md"
HEAD = """# What works on what

Written by `python benchmarks/support.py`, on tiny random twins of each family. A number is how many
tests of the pair were run, and all of them passed. For text classification they are the contracts:
a method starts as the bare backbone, trains what it declares and nothing else, as many parameters
as its closed form says, on the same batches as every other method, learns, depends on the seed
alone, is saved and loaded bit-equal, can be taken away, merges with equal outputs or refuses to,
works in bfloat16 with accumulated and clipped gradients, sees the same inputs as full fine-tuning,
and answers alike whether padding is on the right, on the left or absent. For tokens and questions:
it trains, is saved and loaded bit-equal (one test), sees the same inputs as full fine-tuning, and
ignores padding. Where answers are written: it learns, is saved and loaded, ignores padding, writes
the likeliest token each time, and can be taken away. For prompts: it is trained, saved, loaded, and
answers. On weights of 8 and 4 bits (text classification): it is trained, leaves them as they were
packed, and is saved and loaded bit-equal; methods that train these weights themselves refuse.
"""
# The files of a task; their tests end in [method-family].
TESTS = {
    "text classification": (
        "tests/contracts/test_counts.py",
        "tests/contracts/test_methods.py",
        "tests/contracts/test_training_options.py",
    ),
    "token classification": ("tests/test_token_classification.py",),
    "question answering": ("tests/test_question_answering.py",),
    "written answers": ("tests/contracts/test_generation.py",),
    "image and audio classification": ("tests/contracts/test_senses.py",),
}
# Tests of these end in [method-family-section], the section's first word in lower case.
PROMPTED, PACKED = "tests/contracts/test_prompted.py", "tests/contracts/test_quantized.py"
FURTHER = {"instruction": PROMPTED, "preference": PROMPTED, "int8 weights": PACKED,
           "nf4 weights": PACKED}  # fmt: skip
# Tests of these end in [method-family-task].
FOR_EVERY_TASK = ("tests/contracts/test_inputs.py", "tests/contracts/test_padding.py")


def run_contracts(jobs: int) -> ET.Element:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(jobs), "--junitxml", str(file)]
        files = [file for some in TESTS.values() for file in some] + [PROMPTED, PACKED]
        every = [*command, "-m", "matrix or not matrix", *files, *FOR_EVERY_TASK]
        subprocess.run(every, cwd=ROOT, check=False)
        return ET.parse(file).getroot()


def pair_of(case: ET.Element, task: str) -> tuple[str, str] | None:
    """Method and family that a test of the task belongs to, None if it belongs to no pair."""
    module, name = case.attrib["classname"], case.attrib["name"]
    found = None
    if module in modules(FOR_EVERY_TASK):
        found = re.search(rf"\[(\w+)-(\w+)-{task.replace(' ', '_')}\]$", name)
    elif task in FURTHER:
        if module in modules((FURTHER[task],)):
            found = re.search(rf"\[(\w+)-(\w+)-{task.split()[0]}\]$", name)
    elif module in modules(TESTS[task]):
        found = re.search(r"\[(\w+)-(\w+)\]$", name)
    return (found[1], found[2]) if found else None


def modules(files: tuple[str, ...]) -> list[str]:
    return [file.removesuffix(".py").replace("/", ".") for file in files]


def cells(tests: ET.Element, task: str) -> tuple[dict[tuple[str, str], str], dict[str, list[str]]]:
    """Text of each cell of a task, and the pairs behind every reason for there being none."""
    passed: dict[tuple[str, str], int] = defaultdict(int)
    failed: set[tuple[str, str]] = set()
    reasons: dict[str, list[str]] = defaultdict(list)
    text: dict[tuple[str, str], str] = {}
    for case in tests.iter("testcase"):
        key = pair_of(case, task)
        if key is None:
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(key)
        elif case.find("skipped") is None:
            passed[key] += 1
        for entry in case.iter("property"):
            if entry.attrib["name"] == "unsupported":
                text[key] = "-"
                reasons[entry.attrib["value"]].append("-".join(key))
    for key, count in passed.items():
        text.setdefault(key, f"{count}")
    for key in failed:
        text[key] = "FAILED"
    return text, reasons


def section(task: str, tests: ET.Element) -> list[str]:
    text, reasons = cells(tests, task)
    methods = [m for m in parts.find("method") if any(m == key[0] for key in text)]
    shown = [f for f in families() if any(f == key[1] for key in text)]
    lines = [f"## {task.capitalize()}", "", f"| method | {' | '.join(shown)} |"]
    lines.append("|---|" + "---|" * len(shown))
    for method in methods:
        row = " | ".join(text.get((method, family), "not run") for family in shown)
        lines.append(f"| {method} | {row} |")
    lines += ["", "Unsupported (-):", ""]
    lines += [f"- {', '.join(pairs)}: {reason}" for reason, pairs in sorted(reasons.items())]
    return [*lines, ""]


def page(tests: ET.Element) -> str:
    versions = environment()["versions"]
    shown = ", ".join(f"{n} {versions[n]}" for n in ("torch", "transformers", "peft"))
    sections = [line for task in (*TESTS, *FURTHER) for line in section(task, tests)]
    return "\n".join([HEAD, *sections, f"With {shown}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    text = page(run_contracts(parser.parse_args().jobs))
    write_atomically(OUT, text)
    print(f"wrote {OUT.relative_to(ROOT)}")
    if "FAILED" in text:
        sys.exit(1)


if __name__ == "__main__":
    main()
