"""The disk guard: room for what comes in, what lies where, and what may be removed."""
