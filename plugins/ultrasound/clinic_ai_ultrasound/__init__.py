"""Answers questions about ultrasound images: one BLIP-2 in memory, a LoRA adapter per category over it."""

__version__ = "0.1.0"
