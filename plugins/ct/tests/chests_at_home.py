"""A folder of small chests as a clinic lays it out."""

from __future__ import annotations

from pathlib import Path

from clinic_ai_ct.phantoms import PleuralEffusion, make
from clinic_ai_ct.phantoms.files import write_collection

COUNT = 12


def write_chests(folder: Path) -> None:
    """Each has a large effusion; one is 8-bit alone, and one has a report.

    The key of the clinic, another in each test, decides who is in the validation part: whoever it is has to have masks.
    """
    effusion = PleuralEffusion("right", 900.0)
    write_collection(
        folder,
        (
            (
                f"P{number}",
                make(number, shape=(24, 32, 32), spacing=(12.0, 12.0, 12.0), lesions=(effusion,), conditions=()),
            )
            for number in range(COUNT)
        ),
    )
    (folder / "volumes" / "P2.nii.gz").unlink()
    (folder / "reports").mkdir()
    (folder / "reports" / "P3.json").write_text(
        '{"volume_id": "P3", "report_text": "FINDINGS: Right pleural effusion.", "metadata": {"physician": "Dr. Ada"}}'
    )
