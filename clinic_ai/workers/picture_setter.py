"""Sets SVG pictures as PNG beside them: ``python -m clinic_ai.workers.picture_setter FILE.svg …``.

A process of its own, because typst takes memory that the terminal's screens have better use for.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import typst

PPI = 144
_PAGE = '#set page(width: auto, height: auto, margin: 0pt, fill: none)\n#image("picture.svg")\n'


def main() -> None:
    """Set every picture that is named."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "page.typ").write_text(_PAGE, encoding="utf-8")
        for path in map(Path, sys.argv[1:]):
            (folder / "picture.svg").write_bytes(path.read_bytes())
            png = typst.compile(folder / "page.typ", root=folder, format="png", ppi=PPI, ignore_system_fonts=True)
            path.with_suffix(".png").write_bytes(png)


if __name__ == "__main__":
    main()
