"""The list of planted faults is about the code as it is."""

from __future__ import annotations

from plant_faults import FAULTS, ROOT


def test_every_fault_can_be_planted() -> None:
    texts = {fault.file: (ROOT / fault.file).read_text(encoding="utf-8") for fault in FAULTS}

    assert [fault.name for fault in FAULTS if fault.old not in texts[fault.file]] == []
    assert [fault.name for fault in FAULTS if not (ROOT / fault.tests).is_file()] == []
    assert len(FAULTS) > 70
