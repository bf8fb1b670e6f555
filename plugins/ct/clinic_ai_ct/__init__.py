"""Chest CT for clinic-ai: volumes, networks, training phases, and reports from evidence."""
