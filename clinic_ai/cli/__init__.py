"""The command line: thin verbs over the client and, where no daemon is needed, over the rooms themselves."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run one command and exit with its status; see ``docs/cli.md`` for what the numbers mean."""
    from clinic_ai.cli.verbs import app
    from clinic_ai.errors import ClinicError

    try:
        app()
    except ClinicError as error:
        from clinic_ai.cli.output import report

        sys.exit(report(error, as_json="--json" in sys.argv[1:]))
    sys.exit(0)
