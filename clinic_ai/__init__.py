"""The clinic AI appliance: scans in, guarded and attributable results out, fully offline."""

from pathlib import PurePath

__version__ = "0.1.0"
DEFAULT_HOME = PurePath("/var/lib/clinic-ai")
"""Where the appliance lives unless somebody says otherwise; here, so that knowing it loads no settings."""
