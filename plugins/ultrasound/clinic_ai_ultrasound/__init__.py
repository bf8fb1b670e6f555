"""Answers questions about ultrasound images: one BLIP-2 in memory, a LoRA adapter per category over it."""

import os

# Read when transformers is first imported, which is after this: it never looks for a model on the network.
for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

__version__ = "0.1.0"
