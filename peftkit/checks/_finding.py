"""What one check found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from peftkit.errors import InvalidInput

Level = Literal["ok", "warning", "error", "skipped"]
NOTABLE = 0.01
"""Share from which on something that every large data set has a little of is a warning."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        check: Its name; each check has one finding.
        level: "ok"; "warning", which results carry as a note; "error", which stops a run before
            training; "skipped", if there was nothing to look at.
        text: What was counted, in words.
        count: Rows (or classes, or tokens) concerned.
        example: Where to look: a row, by its number in its split, from 0.
        quote: The beginning of that row.
    """

    check: str
    level: Level
    text: str
    count: int = 0
    example: str = ""
    quote: str = ""

    @property
    def note(self) -> str:
        """The finding as a record's note: rows are named, not quoted."""
        return f"{self.text} ({self.example})" if self.example else self.text


def warn_if(wrong: bool) -> Level:
    """The level of a check that warns."""
    return "warning" if wrong else "ok"


def refuse(findings: Iterable[Finding]) -> None:
    """Stop before training if there are errors.

    Raises:
        InvalidInput: Naming them all.
    """
    errors = [found.note for found in findings if found.level == "error"]
    if errors:
        raise InvalidInput(
            "the data cannot be trained on",
            received="; ".join(errors),
            next_step="look at the rows: peftkit check --task NAME --show 5",
        )


def counted(count: int, total: int, what: str) -> str:
    """`12 of 3,080 test rows (0.39 %)`."""
    if not 0 < count < total:
        return f"{count:,} of {total:,} {what}"
    share = 100 * count / total
    shown = "over 99" if share > 99 else f"{share:.0f}" if share >= 10 else f"{share:.2g}"
    return f"{count:,} of {total:,} {what} ({shown} %)"


def short(text: str, width: int = 70) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3].rstrip() + "..."
