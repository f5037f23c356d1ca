"""Which records share a table, and which share a row."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from peftkit.record import Record
from peftkit.reporting.labels import label_records
from peftkit.settings import BUNDLED_NAME


@dataclass(frozen=True, order=True)
class Place:
    """What the records of one table have in common; fingerprints are "" where nobody knows.

    `folder` is named where another folder of the same report holds such records too.
    """

    backbone: str
    data: str
    backbone_fingerprint: str
    data_fingerprint: str
    task: str
    label_noise: float
    folder: str = ""


def places(records: list[Record]) -> dict[Place, list[Record]]:
    """Records by table, oldest first.

    A run without a fingerprint of its data or weights (it ended before it had read them, or needs
    none) belongs with the runs of the same names where those agree on one, else in a table apart.
    """
    records = sorted(records, key=lambda r: (r.created, r.key))
    weights = _fingerprints(records, "backbone", "backbone")
    data = _fingerprints(records, "task", "data")
    groups: dict[tuple[str, str, str, float], list[Record]] = defaultdict(list)
    for record in records:
        task = str(record.recipe["task"].get("name", ""))
        noise = float(record.recipe["task"].get("label_noise") or 0.0)
        groups[weights[record.key], data[record.key], task, noise].append(record)
    found = {
        Place(
            backbone=_backbone_name(group),
            data=str(group[0].recipe["task"].get("data")),
            backbone_fingerprint="" if place[0].startswith("?") else place[0],
            data_fingerprint="" if place[1].startswith("?") else place[1],
            task=place[2],
            label_noise=place[3],
        ): group
        for place, group in groups.items()
    }
    return {place: found[place] for place in sorted(found)}


def _fingerprints(records: list[Record], part: str, of: str) -> dict[str, str]:
    """Fingerprints of `of` by key of the record; `?name` where nobody knows it."""
    option = "name" if part == "backbone" else "data"
    names = {record.key: str(record.recipe[part].get(option)) for record in records}
    found = {record.key: str(getattr(record, of).get("fingerprint") or "") for record in records}
    known: dict[str, set[str]] = defaultdict(set)
    for key, fingerprint in found.items():
        known[names[key]] |= {fingerprint} - {""}
    for key, name in names.items():
        if not found[key]:
            found[key] = next(iter(known[name])) if len(known[name]) == 1 else f"?{name}"
    return found


def _backbone_name(records: list[Record]) -> str:
    """The backbone as the runs that used it found it, else as it was asked for."""
    found = (r.backbone.get("name") for r in records if r.backbone.get("fingerprint"))
    name = str(next(found, None) or records[0].recipe["backbone"].get("name"))
    return BUNDLED_NAME if name == "bundled" else name


def sizes_of(records: list[Record]) -> dict[str, int]:
    """Training examples by key of the record.

    A run that did not end well may not know how many it would have used: it gets the number of
    those that asked for the same and did end well, else the number that it asked for.
    """
    used: dict[Any, set[int]] = defaultdict(set)
    for record in records:
        if record.status == "done":
            used[record.recipe["task"].get("size")].add(record.size)
    found = {}
    for record in records:
        asked = record.recipe["task"].get("size")
        if record.status == "done":
            found[record.key] = record.size
        elif len(used[asked]) == 1:
            (found[record.key],) = used[asked]
        else:
            found[record.key] = int(asked or record.size)
    return found


def without_repeats(records: list[Record]) -> tuple[list[Record], list[str]]:
    """The newest record of each method, size and seed, and a note where there were more."""
    labels, sizes = label_records(records), sizes_of(records)
    newest = {(labels[r.key], sizes[r.key], r.seed): r for r in records}
    repeats = len(records) - len(newest)
    text = f"{repeats} older records of the same method, size and seed left out"
    notes = [text] if repeats else []
    return list(newest.values()), notes
