"""Says what was received; the template of a plugin."""

__version__ = "0.1.0"
