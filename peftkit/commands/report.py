"""`peftkit report`: the tables of records again, and their files."""

from __future__ import annotations

from pathlib import Path

from peftkit.errors import InvalidInput
from peftkit.flags import leading, read_options

USAGE = """\
peftkit report DIR [DIR ...] [--out DIR] [--price-per-hour P]

  DIR                 the records of `peftkit study`, `peftkit compare` or `peftkit run`
  --out DIR           where files go (default DIR, if it is one): report.html, table.md, table.csv,
                      frontier.svg and frontier.png
  --price-per-hour P  what an hour of the device costs, in any currency: what a point costs then
"""


def report_command(argv: list[str]) -> None:
    """Print tables, and write them."""
    from peftkit.reporting import report

    folders = leading(argv)
    own = read_options(argv[len(folders) :], {"out": str, "price_per_hour": float})
    price = own.get("price_per_hour")
    if price is not None and not 0 <= price < float("inf"):
        raise InvalidInput(
            "the price of an hour cannot be used",
            received=f"--price-per-hour {price:g}",
            allowed="a number, not below 0",
        )
    report(*map(Path, folders), out=own.get("out"), price_per_hour=price)
