"""The clinic AI appliance: scans in, guarded and attributable results out, fully offline."""

__version__ = "0.1.0"
