"""``python -m clinic_ai`` is ``clinic-ai``."""

from clinic_ai.cli import main

if __name__ == "__main__":
    main()
