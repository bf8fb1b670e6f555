"""A folder of small chests as a clinic lays it out."""

from __future__ import annotations

from pathlib import Path

from clinic_ai_ct.phantoms import PleuralEffusion, make
from clinic_ai_ct.phantoms.files import write_collection

COUNT = 12


def write_chests(folder: Path) -> None:
    """Every second one has a large effusion; one is 8-bit alone, and one has a report."""
    shown = [(PleuralEffusion("right", 900.0),) if number % 2 else () for number in range(COUNT)]
    write_collection(
        folder,
        (
            (f"P{number}", make(number, shape=(24, 32, 32), spacing=(12.0, 12.0, 12.0), lesions=one, conditions=()))
            for number, one in enumerate(shown)
        ),
    )
    (folder / "volumes" / "P2.nii.gz").unlink()
    (folder / "reports").mkdir()
    (folder / "reports" / "P3.json").write_text(
        '{"volume_id": "P3", "report_text": "FINDINGS: Right pleural effusion.", "metadata": {"physician": "Dr. Ada"}}'
    )
