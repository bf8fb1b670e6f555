"""Prints what is made from the model: ``python -m clinic_ai.settings sample|table``."""

from __future__ import annotations

import sys

from clinic_ai.settings.render import render_default, render_table

_PARTS = {"sample": render_default, "table": render_table}


def main(arguments: list[str]) -> int:
    """Print one part; return the exit status."""
    if len(arguments) != 1 or arguments[0] not in _PARTS:
        sys.stderr.write("usage: python -m clinic_ai.settings sample|table\n")
        return 2
    sys.stdout.write(_PARTS[arguments[0]]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
